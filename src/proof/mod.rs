//! What can be checked without a server: signed checkpoints, and exports with their proofs.
//!
//! - [`note`]: signed notes, as C2SP writes them down, with ES256.
//! - [`mod@line`]: the lines of an export. [`check`]: whether they are what a server wrote, of a ledger that a checkpoint stands for.
//!
//! Pure: bytes in, verdicts out.

pub mod check;
pub mod key;
pub mod line;
pub mod note;
#[cfg(test)]
mod tests;
pub mod write;
