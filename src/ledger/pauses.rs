//! How long the writer took for a commit at the longest: what everybody who waits for one had to wait.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::system::Stopwatch;

/// What one commit took at the longest since the start, microseconds.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Longest {
    /// To be decided and folded, what ended to be forgotten, a snapshot to be begun: all that is the ledger's own but being written.
    pub fold_us: u64,
    /// To be written durably.
    pub append_us: u64,
}

/// The longest so far.
#[derive(Default)]
pub(super) struct Pauses {
    fold: AtomicU64,
    append: AtomicU64,
}

impl Pauses {
    pub fn folded(&self, since: Stopwatch) {
        self.fold.fetch_max(since.us(), Relaxed);
    }

    pub fn appended(&self, since: Stopwatch) {
        self.append.fetch_max(since.us(), Relaxed);
    }

    pub fn longest(&self) -> Longest {
        Longest { fold_us: self.fold.load(Relaxed), append_us: self.append.load(Relaxed) }
    }
}
