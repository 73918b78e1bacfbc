//! One ordered log of records is the truth; everything in memory is a fold over it.

pub mod commit;
mod receipt;
pub mod record;
pub mod state;

pub use receipt::Receipt;
