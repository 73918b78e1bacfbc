//! Latency histograms: a count for each bucket, each an atomic.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The upper bounds of the buckets, microseconds: from an exchange with warm caches to the longest call that a caller waits for.
pub const LATENCY_US: [u64; 15] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// A histogram that is being filled.
#[derive(Default, Debug)]
pub struct LatencyRecorder {
    counts: [AtomicU64; LATENCY_US.len() + 1],
    sum_us: AtomicU64,
}

/// The values of a histogram at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Histogram {
    /// Upper bounds of all counts but the last, microseconds.
    pub bounds_us: &'static [u64],
    /// The count of each bucket, not cumulative.
    pub counts: Vec<u64>,
    /// The sum of all latencies, microseconds.
    pub sum_us: u64,
}

impl LatencyRecorder {
    /// Counts `times` latencies of `us` microseconds each.
    pub fn observe(&self, us: u64, times: u64) {
        let place = LATENCY_US.partition_point(|bound| *bound < us);
        if let Some(count) = self.counts.get(place) {
            count.fetch_add(times, Relaxed);
        }
        self.sum_us.fetch_add(us.saturating_mul(times), Relaxed);
    }

    /// The present values.
    pub fn read(&self) -> Histogram {
        let counts = self.counts.iter().map(|count| count.load(Relaxed)).collect();
        Histogram { bounds_us: &LATENCY_US, counts, sum_us: self.sum_us.load(Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_at_the_first_bound_that_it_is_not_above() {
        let latency = LatencyRecorder::default();
        for us in [0, 250, 251, 10_000_000, 10_000_001] {
            latency.observe(us, 1);
        }
        latency.observe(600, 7);
        let Histogram { counts, sum_us, .. } = latency.read();
        assert_eq!((counts[0], counts[1], counts[2], counts[14], counts[15]), (2, 1, 7, 1, 1));
        assert_eq!((counts.iter().sum::<u64>(), sum_us), (12, 250 + 251 + 20_000_001 + 4_200));
    }
}
