//! Rate limits of one caller's changes other than issuances: a token bucket per caller and act, by the monotonic clock.
//!
//! Ending credentials and tasks has no rate limit. Each can be ended only once, so the limits on what a caller may have
//! ([`Quotas`](mayfly_ledger::Quotas)) bound the ends too, and a caller that issues fast can end as fast. Holding and resuming can be
//! repeated forever, and each is sent to every follower.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use parking_lot::Mutex;

use mayfly_base::limits;
use mayfly_base::refusal::Refusal;
use mayfly_base::system::System;
use mayfly_ledger::commit::sha256;

/// The acts with a rate limit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RateLimitedAct {
    /// Opening a task separately, delegating one, extending one.
    Change,
    /// Holding or resuming a task.
    Hold,
    /// A heartbeat of one task.
    Heartbeat,
    /// A use reported by a server.
    Use,
    /// A search of history for a use report.
    LookUp,
}

/// The rates of one caller per second, at most those of `limits.rs`. A burst may be `limits::RATE_BURST_S` seconds' worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallerRates {
    /// Openings, delegations and extensions.
    pub changes: u32,
    /// Holds and resumptions.
    pub holds: u32,
    /// Heartbeats.
    pub heartbeats: u32,
}

impl Default for CallerRates {
    fn default() -> CallerRates {
        CallerRates {
            changes: limits::CHANGES_PER_SECOND,
            holds: limits::HOLDS_PER_SECOND,
            heartbeats: limits::HEARTBEATS_PER_SECOND,
        }
    }
}

/// The key of a bucket: half a digest, since names of callers may have 2 KB each.
type Key = [u8; 16];

/// The bucket shared by all callers for which there is no room.
const SHARED: Key = [0; 16];

/// The monotonic clock.
struct MonotonicClock(System);

impl Clock for MonotonicClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::from_millis(self.0.steady())
    }
}

/// The buckets of one act.
struct Buckets {
    name: &'static str,
    rate: u32,
    of: RateLimiter<Key, HashMapStateStore<Key>, MonotonicClock, NoOpMiddleware<Duration>>,
    /// When full buckets were last removed.
    swept: Mutex<Duration>,
}

impl Buckets {
    fn new(name: &'static str, rate: u32, system: &System) -> Buckets {
        let each = NonZeroU32::new(rate).unwrap_or(NonZeroU32::MIN);
        let burst = each.saturating_mul(NonZeroU32::MIN.saturating_add(limits::RATE_BURST_S - 1));
        let quota = Quota::per_second(each).allow_burst(burst);
        let of = RateLimiter::hashmap_with_clock(quota, MonotonicClock(system.clone()));
        Buckets { name, rate, of, swept: Mutex::default() }
    }

    fn take(&self, own: Key, count: NonZeroU32) -> Result<(), Refusal> {
        let now = self.of.clock().now();
        let key = if self.has_room(now) { own } else { SHARED };
        let refused =
            |until: governor::NotUntil<Duration>| Refusal::limit(self.name, self.rate.into(), until.wait_time_from(now));
        // More than a burst is never granted.
        let taken = self.of.check_key_n(&key, count);
        taken.map_err(|_| Refusal::limit(self.name, self.rate.into(), Duration::ZERO))?.map_err(refused)
    }

    /// Whether there is room for another caller's bucket.
    fn has_room(&self, now: Duration) -> bool {
        if self.of.len() < limits::CALLERS_RATED {
            return true;
        }
        let mut swept = self.swept.lock();
        if now >= *swept + Duration::from_millis(limits::RATES_SWEEP_MS) {
            *swept = now;
            // A bucket that is full again can be removed without effect.
            self.of.retain_recent();
        }
        self.of.len() < limits::CALLERS_RATED
    }
}

/// The rate limits of one replica.
pub struct RateLimits {
    changes: Buckets,
    holds: Buckets,
    heartbeats: Buckets,
    uses: Buckets,
    look_ups: Buckets,
}

impl RateLimits {
    /// Creates the rate limits; every bucket is full.
    pub fn new(per_second: CallerRates, system: System) -> RateLimits {
        RateLimits {
            changes: Buckets::new("changes_per_second", per_second.changes, &system),
            holds: Buckets::new("holds_per_second", per_second.holds, &system),
            heartbeats: Buckets::new("heartbeats_per_second", per_second.heartbeats, &system),
            uses: Buckets::new("uses_per_second", limits::USES_PER_SECOND, &system),
            look_ups: Buckets::new("uses_looked_up_per_second", limits::USES_LOOKED_UP_PER_SECOND, &system),
        }
    }

    /// Counts one act. Refused with LIMIT_REACHED and a retry time.
    pub fn take(&self, act: RateLimitedAct, caller: &str) -> Result<(), Refusal> {
        self.take_n(act, caller, 1)
    }

    /// Counts several acts at once, all of them or none.
    pub fn take_n(&self, act: RateLimitedAct, caller: &str, count: usize) -> Result<(), Refusal> {
        let Some(count) = NonZeroU32::new(u32::try_from(count).unwrap_or(u32::MAX)) else { return Ok(()) };
        let mut own = SHARED;
        own.copy_from_slice(&sha256(caller.as_bytes())[..16]);
        match act {
            RateLimitedAct::Change => &self.changes,
            RateLimitedAct::Hold => &self.holds,
            RateLimitedAct::Heartbeat => &self.heartbeats,
            RateLimitedAct::Use => &self.uses,
            RateLimitedAct::LookUp => &self.look_ups,
        }
        .take(own, count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mayfly_base::refusal::Reason;
    use mayfly_base::system::ManualClock;
    use mayfly_verify::seq::Millis;
    use std::sync::Arc;

    const FEW: CallerRates = CallerRates { changes: 3, holds: 2, heartbeats: 5 };
    const BURST: u32 = limits::RATE_BURST_S;

    fn rates() -> (Arc<ManualClock>, RateLimits) {
        let clock = ManualClock::at(Millis(0));
        (clock.clone(), RateLimits::new(FEW, System::with_clock(clock)))
    }

    /// The number of acts that are granted before one is refused.
    fn given(rates: &RateLimits, act: RateLimitedAct, caller: &str) -> u32 {
        (0..).find(|_| rates.take(act, caller).is_err()).unwrap()
    }

    #[test]
    fn a_burst_is_given_at_once_and_after_it_so_many_a_second() {
        let (clock, rates) = rates();
        assert_eq!(given(&rates, RateLimitedAct::Hold, "a"), 2 * BURST);
        let no = rates.take(RateLimitedAct::Hold, "a").unwrap_err();
        assert_eq!((no.reason, no.rule.as_deref()), (Reason::LimitReached, Some("holds_per_second")));
        assert_eq!(no.retry_after, Some(Duration::from_millis(500)));
        assert!(no.message.contains("of 2 "));
        clock.advance(499);
        assert!(rates.take(RateLimitedAct::Hold, "a").is_err());
        clock.advance(1);
        assert!(rates.take(RateLimitedAct::Hold, "a").is_ok() && rates.take(RateLimitedAct::Hold, "a").is_err());
        clock.advance(5_000);
        assert_eq!(given(&rates, RateLimitedAct::Hold, "a"), 10);
        clock.advance(3_600_000);
        assert_eq!(given(&rates, RateLimitedAct::Hold, "a"), 2 * BURST, "no more than a burst is saved up");
    }

    #[test]
    fn each_caller_and_each_act_has_its_own() {
        let (_, rates) = rates();
        assert_eq!(given(&rates, RateLimitedAct::Change, "a"), 3 * BURST);
        assert_eq!(given(&rates, RateLimitedAct::Heartbeat, "a"), 5 * BURST);
        assert_eq!(given(&rates, RateLimitedAct::Change, "b"), 3 * BURST);
    }

    #[test]
    fn several_are_given_all_or_none() {
        let (clock, rates) = rates();
        let burst = (limits::USES_PER_SECOND * BURST) as usize;
        rates.take_n(RateLimitedAct::Use, "a", burst - 1).unwrap();
        assert!(rates.take_n(RateLimitedAct::Use, "a", 2).is_err() && rates.take_n(RateLimitedAct::Use, "a", burst + 1).is_err());
        rates.take_n(RateLimitedAct::Use, "a", 1).unwrap();
        rates.take_n(RateLimitedAct::Use, "a", 0).unwrap();
        clock.advance(1_000);
        rates.take_n(RateLimitedAct::Use, "a", limits::USES_PER_SECOND as usize).unwrap();
    }

    #[test]
    fn no_step_of_the_wall_clock_fills_or_empties_a_bucket() {
        let (clock, rates) = rates();
        given(&rates, RateLimitedAct::Hold, "a");
        clock.step_to(Millis(u64::MAX / 2));
        assert!(rates.take(RateLimitedAct::Hold, "a").is_err());
        assert!(rates.take(RateLimitedAct::Hold, "b").is_ok());
    }

    #[test]
    fn callers_beyond_the_bound_share_a_bucket_until_others_are_quiet() {
        let (clock, rates) = rates();
        clock.advance(limits::RATES_SWEEP_MS);
        for n in 0..limits::CALLERS_RATED {
            rates.take(RateLimitedAct::Hold, &format!("c{n}")).unwrap();
        }
        let shared = (0..).find(|n| rates.take(RateLimitedAct::Hold, &format!("late{n}")).is_err()).unwrap();
        assert_eq!(shared, 2 * BURST);
        assert_eq!(rates.holds.of.len(), limits::CALLERS_RATED + 1, "bounded");
        assert_eq!(given(&rates, RateLimitedAct::Change, "late"), 3 * BURST, "another act has room");
        // One act is half a second's worth: buckets of callers that are quiet for longer are removed, which has no effect on them.
        clock.advance(2 * limits::RATES_SWEEP_MS);
        assert_eq!(given(&rates, RateLimitedAct::Hold, "later"), 2 * BURST);
        assert!(rates.holds.of.len() < 10);
    }
}
