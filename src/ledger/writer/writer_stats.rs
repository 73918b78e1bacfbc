//! Statistics of the writer: the longest time that one commit took, which everything in the queue had to wait.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use mayfly_base::system::{Stopwatch, System, thread_cpu_ns};
use mayfly_verify::seq::Millis;

/// The longest time that one commit took since the start, microseconds.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct LongestCommit {
    /// Time for verdicts, folding, forgetting expired entries and beginning a snapshot: all of the ledger's own work except the durable
    /// write.
    pub fold_us: u64,
    /// The CPU time of the same work: without waiting for a core or for readers of the state.
    pub fold_cpu_us: u64,
    /// When that commit had been folded, by the machine's clock. `None` before the first commit.
    pub folded_at: Option<Millis>,
    /// Time of the durable write.
    pub append_us: u64,
}

/// Upper bounds of the histogram of durable writes, microseconds. A flush takes 200 on a good disk and 5,000 on a shared disk; from 100,000
/// on, every user notices.
pub const WRITES_US: [u64; 12] = [250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000];

/// How long durable writes took since the start.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct WriteHistogram {
    /// Number of writes within each bound and above the bound before; the last entry counts writes above all bounds.
    pub counts: [u64; WRITES_US.len() + 1],
    /// Sum of all durations, microseconds.
    pub sum_us: u64,
}

/// The longest times so far, and the histogram.
#[derive(Default)]
pub(crate) struct WriterStats {
    fold: AtomicU64,
    /// 0: no commit yet.
    folded_at: AtomicU64,
    fold_cpu: AtomicU64,
    append: AtomicU64,
    counts: [AtomicU64; WRITES_US.len() + 1],
    sum: AtomicU64,
}

/// Measures one part of folding from its beginning.
pub(crate) struct FoldTimer {
    since: Stopwatch,
    /// CPU time of this thread.
    cpu_ns: u64,
}

impl FoldTimer {
    pub fn begin() -> FoldTimer {
        FoldTimer { since: Stopwatch::start(), cpu_ns: thread_cpu_ns() }
    }
}

impl WriterStats {
    /// Call it on the thread that began the measurement, which is the only thread that folds.
    pub fn folded(&self, part: FoldTimer, system: &System) {
        let took = part.since.us();
        if took > self.fold.fetch_max(took, Relaxed) {
            self.folded_at.store(system.shown().0, Relaxed);
        }
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

    pub fn writes(&self) -> WriteHistogram {
        let mut writes = WriteHistogram { sum_us: self.sum.load(Relaxed), ..WriteHistogram::default() };
        for (seen, count) in writes.counts.iter_mut().zip(&self.counts) {
            *seen = count.load(Relaxed);
        }
        writes
    }

    pub fn longest(&self) -> LongestCommit {
        let WriterStats { fold, folded_at, fold_cpu, append, .. } = self;
        let [fold_us, at, fold_cpu_us, append_us] = [fold, folded_at, fold_cpu, append].map(|of| of.load(Relaxed));
        LongestCommit { fold_us, fold_cpu_us, folded_at: (at > 0).then_some(Millis(at)), append_us }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use mayfly_base::system::ManualClock;

    #[test]
    fn who_waits_takes_nothing_of_a_core() {
        let (pauses, system) = (WriterStats::default(), System::real());
        let folding = FoldTimer::begin();
        std::thread::sleep(Duration::from_millis(30));
        pauses.folded(folding, &system);
        let longest = pauses.longest();
        assert!(longest.fold_us >= 30_000 && longest.fold_cpu_us < longest.fold_us, "{longest:?}");
        assert_eq!(longest.append_us, 0);
    }

    #[test]
    fn the_longest_is_told_with_its_own_time() {
        let (pauses, clock) = (WriterStats::default(), ManualClock::at(Millis(5_000)));
        let system = System::with_clock(clock.clone());
        assert_eq!(pauses.longest().folded_at, None);
        let long = FoldTimer::begin();
        std::thread::sleep(Duration::from_millis(20));
        pauses.folded(long, &system);
        clock.advance(60_000);
        pauses.folded(FoldTimer::begin(), &system);
        assert_eq!(pauses.longest().folded_at, Some(Millis(5_000)), "a shorter one after it does not move it");
        let longer = FoldTimer::begin();
        std::thread::sleep(Duration::from_millis(60));
        pauses.folded(longer, &system);
        assert_eq!(pauses.longest().folded_at, Some(Millis(65_000)));
    }
}
