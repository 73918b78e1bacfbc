//! Bounds how many calls are in progress: in all and per upstream, so that one upstream that hangs does not take every place.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use mayfly_base::refusal::Refusal;

/// A bound, with its name in `limits.rs`.
#[derive(Clone, Copy)]
pub(super) struct ConcurrencyLimit {
    pub name: &'static str,
    pub places: usize,
}

#[derive(Default)]
struct InFlightCounts {
    all: usize,
    at: BTreeMap<Box<str>, usize>,
}

pub(super) struct ConcurrencyLimiter {
    in_all: ConcurrencyLimit,
    at_one: ConcurrencyLimit,
    inside: Mutex<InFlightCounts>,
}

impl ConcurrencyLimiter {
    pub fn new(in_all: ConcurrencyLimit, at_one: ConcurrencyLimit) -> Arc<ConcurrencyLimiter> {
        Arc::new(ConcurrencyLimiter { in_all, at_one, inside: Mutex::default() })
    }

    /// The number of free places for an upstream.
    pub fn room(&self, upstream: &str) -> usize {
        let inside = self.inside.lock();
        let here = inside.at.get(upstream).copied().unwrap_or(0);
        self.in_all.places.saturating_sub(inside.all).min(self.at_one.places.saturating_sub(here))
    }

    /// Takes a place, which is given back on drop. Refused with LIMIT_REACHED where none is free.
    pub fn enter(self: &Arc<ConcurrencyLimiter>, upstream: &str) -> Result<ConcurrencyPermit, Refusal> {
        let mut inside = self.inside.lock();
        let here = inside.at.get(upstream).copied().unwrap_or(0);
        for (most, now) in [(self.in_all, inside.all), (self.at_one, here)] {
            if now >= most.places {
                return Err(Refusal::limit(most.name, most.places as u64, Duration::from_secs(1)));
            }
        }
        inside.all += 1;
        inside.at.insert(upstream.into(), here + 1);
        Ok(ConcurrencyPermit { limiter: self.clone(), upstream: upstream.into() })
    }
}

pub(super) struct ConcurrencyPermit {
    limiter: Arc<ConcurrencyLimiter>,
    upstream: Box<str>,
}

impl Drop for ConcurrencyPermit {
    fn drop(&mut self) {
        let mut inside = self.limiter.inside.lock();
        inside.all = inside.all.saturating_sub(1);
        match inside.at.get_mut(&self.upstream) {
            Some(n) if *n > 1 => *n -= 1,
            _ => drop(inside.at.remove(&self.upstream)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_in_all_and_at_each_and_given_back() {
        let limiter = ConcurrencyLimiter::new(
            ConcurrencyLimit { name: "in_all", places: 3 },
            ConcurrencyLimit { name: "at_one", places: 2 },
        );
        let rule = |no: Result<ConcurrencyPermit, Refusal>| no.err().map(|no| (no.rule, no.retry_after.is_some()));
        let (a, _b) = (limiter.enter("a").unwrap(), limiter.enter("a").unwrap());
        assert_eq!(rule(limiter.enter("a")), Some((Some("at_one".into()), true)));
        let _c = limiter.enter("b").unwrap();
        assert_eq!(rule(limiter.enter("c")), Some((Some("in_all".into()), true)));
        drop(a);
        drop(limiter.enter("a").unwrap());
        assert_eq!((limiter.room("a"), limiter.room("b"), limiter.room("c")), (1, 1, 1), "one is free in all");
        drop(limiter.enter("c").unwrap());
        assert_eq!(limiter.inside.lock().at.len(), 2, "who is nowhere is forgotten");
    }
}
