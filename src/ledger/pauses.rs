//! How long the writer took for a commit at the longest: what everybody who waits for one had to wait.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::system::{Stopwatch, thread_cpu_ns};

/// What one commit took at the longest since the start, microseconds.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Longest {
    /// To be decided and folded, what ended to be forgotten, a snapshot to be begun: all that is the ledger's own but being written.
    pub fold_us: u64,
    /// The same of a core's time: without the writer's waiting for one, and for whoever reads the state.
    pub fold_cpu_us: u64,
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
    fold_cpu: AtomicU64,
    append: AtomicU64,
    counts: [AtomicU64; WRITES_US.len() + 1],
    sum: AtomicU64,
}

/// A part of folding, from its beginning on.
pub(super) struct Folding {
    since: Stopwatch,
    /// Of this thread.
    cpu_ns: u64,
}

impl Folding {
    pub fn begin() -> Folding {
        Folding { since: Stopwatch::start(), cpu_ns: thread_cpu_ns() }
    }
}

impl Pauses {
    /// On the thread that began it.
    pub fn folded(&self, part: Folding) {
        self.fold.fetch_max(part.since.us(), Relaxed);
        self.fold_cpu.fetch_max(thread_cpu_ns().saturating_sub(part.cpu_ns) / 1000, Relaxed);
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
        let Pauses { fold, fold_cpu, append, .. } = self;
        let [fold_us, fold_cpu_us, append_us] = [fold, fold_cpu, append].map(|us| us.load(Relaxed));
        Longest { fold_us, fold_cpu_us, append_us }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_waits_takes_nothing_of_a_core() {
        let pauses = Pauses::default();
        let folding = Folding::begin();
        std::thread::sleep(Duration::from_millis(30));
        pauses.folded(folding);
        let longest = pauses.longest();
        assert!(longest.fold_us >= 30_000 && longest.fold_cpu_us < longest.fold_us, "{longest:?}");
        assert_eq!(longest.append_us, 0);
    }
}
