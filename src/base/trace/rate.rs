//! A rate limit per second.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number per second, by a clock that never steps. An unused remainder does not carry over to the next second.
pub(super) struct CallRateLimit {
    most: AtomicU64,
    /// The second, and the number taken in it: 32 bits each.
    taken: AtomicU64,
}

impl CallRateLimit {
    pub fn new(most: u64) -> CallRateLimit {
        CallRateLimit { most: AtomicU64::new(most.min(u64::from(u32::MAX))), taken: AtomicU64::new(0) }
    }

    /// Changes the number per second.
    pub fn set(&self, most: u64) {
        self.most.store(most.min(u64::from(u32::MAX)), Relaxed);
    }

    /// Takes one at this time, in milliseconds. `false`: none is left.
    pub fn take(&self, steady_ms: u64) -> bool {
        let most = self.most.load(Relaxed);
        let second = steady_ms / 1_000 % (1 << 32);
        let next = |taken: u64| match taken >> 32 == second {
            true if taken % (1 << 32) >= most => None,
            true => Some(taken + 1),
            false => (most > 0).then_some(second << 32 | 1),
        };
        self.taken.fetch_update(Relaxed, Relaxed, next).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::CallRateLimit;

    #[test]
    fn so_many_are_taken_in_each_second_and_no_more() {
        let rate = CallRateLimit::new(3);
        let taken = |ms| (0..10).filter(|_| rate.take(ms)).count();
        assert_eq!([taken(0), taken(999), taken(1_000), taken(1_001), taken(7_000)], [3, 0, 3, 0, 3]);
        assert!(!CallRateLimit::new(0).take(5_000));
    }
}
