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

/// Upper bounds of the durable writes that are counted together, microseconds. A flush of a good disk takes 200, one that is shared 5,000; from
/// 100,000 on everybody notices.
pub const WRITES_US: [u64; 12] = [250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000];

/// How long durable writes took since the start.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Writes {
    /// How many took as long as each bound at the most, and longer than the bound before; the last: longer than all.
    pub counts: [u64; WRITES_US.len() + 1],
    /// What all of them took, microseconds.
    pub sum_us: u64,
}

/// The longest so far, and how long all took.
#[derive(Default)]
pub(super) struct Pauses {
    fold: AtomicU64,
    append: AtomicU64,
    counts: [AtomicU64; WRITES_US.len() + 1],
    sum: AtomicU64,
}

impl Pauses {
    pub fn folded(&self, since: Stopwatch) {
        self.fold.fetch_max(since.us(), Relaxed);
    }

    pub fn appended(&self, since: Stopwatch) {
        let took = since.us();
        self.append.fetch_max(took, Relaxed);
        let place = WRITES_US.partition_point(|bound| *bound < took);
        if let Some(count) = self.counts.get(place) {
            count.fetch_add(1, Relaxed);
        }
        self.sum.fetch_add(took, Relaxed);
    }

    pub fn writes(&self) -> Writes {
        let mut writes = Writes { sum_us: self.sum.load(Relaxed), ..Writes::default() };
        for (seen, count) in writes.counts.iter_mut().zip(&self.counts) {
            *seen = count.load(Relaxed);
        }
        writes
    }

    pub fn longest(&self) -> Longest {
        Longest { fold_us: self.fold.load(Relaxed), append_us: self.append.load(Relaxed) }
    }
}
