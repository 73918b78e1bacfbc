//! Measures the writer's time per commit, and from it decides how many grants a commit gathers (group commit).
//!
//! Callers whose grants were committed together send their next requests together. With one commit for all grants under way, the writer is
//! idle while the callers are answered, and the callers wait while the writer writes. With a commit for each half, one half is written
//! while the other half is answered. The sum of these times is the latency of a grant. Halves pay off only if two commits fit into that
//! latency; when flushes are slow, one commit for all is better. When more grants are under way than a commit holds, some are answered
//! while others are written in any case.

use mayfly_base::limits;
use mayfly_base::system::Stopwatch;

/// Moving averages over the last few commits.
pub(crate) struct CommitTiming {
    taken: Stopwatch,
    /// How long one commit keeps the writer busy, including the flush, µs.
    commit_us: f64,
    /// Time from one commit to the next divided by the number of grants in the commit, µs.
    each_us: f64,
}

impl Default for CommitTiming {
    fn default() -> CommitTiming {
        CommitTiming { taken: Stopwatch::start(), commit_us: 0.0, each_us: 0.0 }
    }
}

impl CommitTiming {
    /// For how long the writer has been busy with the last batch, µs. Called when the writer returns to the queue.
    pub fn busy_us(&self) -> u64 {
        self.taken.us()
    }

    /// Records that the writer takes `grants` grants, after it was busy for `busy_us` with the batch before.
    pub fn take(&mut self, busy_us: u64, grants: usize) {
        let since = self.taken.us();
        self.taken = Stopwatch::start();
        self.average(busy_us, since, grants);
    }

    /// The averages after many commits like this one.
    #[cfg(test)]
    pub fn of(busy_us: u64, since_us: u64, grants: usize) -> CommitTiming {
        let mut pace = CommitTiming::default();
        (0..40).for_each(|_| pace.average(busy_us, since_us, grants));
        pace
    }

    fn average(&mut self, busy_us: u64, since_us: u64, grants: usize) {
        if grants == 0 {
            return;
        }
        // Idle time between commits does not count towards the latency of a grant.
        let since = since_us.min(busy_us + limits::GATHER_WAIT_US) as f64;
        let near = |average: &mut f64, now: f64| *average += (now - *average) / 8.0;
        near(&mut self.commit_us, busy_us as f64);
        near(&mut self.each_us, since / grants as f64);
    }

    /// How many grants to gather when `under_way` are under way and a commit holds `most`.
    pub fn gather(&self, under_way: usize, most: usize) -> usize {
        let takes_us = self.each_us * under_way as f64;
        // The factor is above 2: on a slow disk two half commits follow each other without a gap and take exactly twice one commit.
        let halves = (limits::GATHER_HALVES..=most).contains(&under_way) && 2.25 * self.commit_us < takes_us;
        if halves { under_way / 2 } else { under_way.clamp(1, most) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_a_crowd_is_gathered_where_two_commits_fit_into_the_time_that_a_grant_takes() {
        // All 256 in one commit that takes 1 ms, every 4 ms; and halves in commits of 0.7 ms, every 1.5 ms.
        assert_eq!(CommitTiming::of(1_000, 4_000, 256).gather(256, 256), 128);
        assert_eq!(CommitTiming::of(700, 1_500, 128).gather(256, 256), 128);
        // The same server on a disk whose flush takes 10 ms.
        assert_eq!(CommitTiming::of(10_000, 13_000, 256).gather(256, 256), 256);
        assert_eq!(CommitTiming::of(10_000, 10_000, 128).gather(256, 256), 256);
        assert_eq!(CommitTiming::of(10_000, 10_300, 128).gather(256, 256), 256, "a disk that has become slow");
    }

    #[test]
    fn of_more_than_a_commit_holds_it_is_filled() {
        assert_eq!(CommitTiming::of(1_000, 4_000, 256).gather(257, 256), 256);
        assert_eq!(CommitTiming::of(1_000, 4_000, 256).gather(1_000, 256), 256);
    }

    #[test]
    fn few_are_gathered_all() {
        for few in [0, 1, 2, limits::GATHER_HALVES - 1] {
            assert_eq!(CommitTiming::of(10, 4_000, few.max(1)).gather(few, 256), few.max(1));
        }
    }

    #[test]
    fn what_says_nothing_changes_nothing() {
        let mut pace = CommitTiming::of(10_000, 13_000, 256);
        (0..1_000).for_each(|_| pace.average(1, 100_000, 0));
        assert_eq!(pace.gather(256, 256), 256, "looks around between commits");
        // A commit after an hour without grants.
        pace.average(10_000, 3_600_000_000, 256);
        assert_eq!(pace.gather(256, 256), 256);
    }
}
