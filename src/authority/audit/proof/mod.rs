//! Proofs that can be verified without a server: signed checkpoints, and exports with their proofs.
//!
//! - [`note`]: signed notes in C2SP's format, with ES256.
//! - [`mod@line`]: the lines of an export. [`check`]: verifies that the lines are what a server wrote, from a ledger that a checkpoint
//!   covers.
//!
//! The code here performs no IO.

pub mod check;
pub mod key;
pub mod line;
pub mod note;
#[cfg(test)]
mod tests;
pub mod write;
