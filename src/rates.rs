//! How often one caller may change what is no issuance: a token bucket for each, by the steady clock.
//!
//! Ending things has no rate. A credential is given back, and a task ended, once: never more often than they were issued and opened, so
//! what a caller may have ([`Ceilings`](crate::ledger::Ceilings)) bounds that, and whoever issues fast can end as fast. Holding and resuming
//! can go on for ever, and each reaches every follower.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::ledger::commit::sha256;
use crate::limits;
use crate::refusal::Refusal;
use crate::system::System;

/// What has a rate.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Act {
    /// Opening a task by itself, handing one on, extending one.
    Change,
    /// Holding a task, and resuming it.
    Hold,
    /// A sign of life of one task.
    Heartbeat,
}

/// How many of each one caller may do a second, at most those of `limits.rs`. `limits::RATE_BURST_S` seconds' worth may come at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PerSecond {
    /// Openings, delegations and extensions.
    pub changes: u32,
    /// Holds and resumptions.
    pub holds: u32,
    /// Signs of life.
    pub heartbeats: u32,
}

impl Default for PerSecond {
    fn default() -> PerSecond {
        PerSecond {
            changes: limits::CHANGES_PER_SECOND,
            holds: limits::HOLDS_PER_SECOND,
            heartbeats: limits::HEARTBEATS_PER_SECOND,
        }
    }
}

impl PerSecond {
    fn of(&self, act: Act) -> (&'static str, u32) {
        match act {
            Act::Change => ("changes_per_second", self.changes),
            Act::Hold => ("holds_per_second", self.holds),
            Act::Heartbeat => ("heartbeats_per_second", self.heartbeats),
        }
    }
}

/// Whose bucket. Half a digest: names of callers may have 2 KB each.
type Key = (Act, [u8; 16]);

#[derive(Default)]
struct Buckets {
    /// When a bucket is full again, microseconds of the steady clock. One that is full is as if it were not there.
    full_at: HashMap<Key, u64>,
    swept_at: u64,
}

impl Buckets {
    /// Where an act counts: the caller's own bucket, or one for all whom there is no room for.
    fn key(&mut self, own: Key, now: u64) -> Key {
        if self.full_at.len() < limits::CALLERS_RATED || self.full_at.contains_key(&own) {
            return own;
        }
        if now >= self.swept_at + limits::RATES_SWEEP_MS * 1000 {
            self.swept_at = now;
            self.full_at.retain(|_, full_at| *full_at > now);
        }
        if self.full_at.len() < limits::CALLERS_RATED { own } else { (own.0, [0; 16]) }
    }
}

/// The buckets of one replica.
pub struct Rates {
    per_second: PerSecond,
    system: System,
    buckets: Mutex<Buckets>,
}

impl Rates {
    /// Every bucket is full.
    pub fn new(per_second: PerSecond, system: System) -> Rates {
        Rates { per_second, system, buckets: Mutex::default() }
    }

    /// Takes one. Refused with LIMIT_REACHED, and when to come again.
    pub fn take(&self, act: Act, caller: &str) -> Result<(), Refusal> {
        let (name, rate) = self.per_second.of(act);
        let each = 1_000_000 / u64::from(rate.max(1));
        let now = self.system.steady() * 1000;
        let mut own = [0; 16];
        own.copy_from_slice(&sha256(caller.as_bytes())[..16]);
        let mut buckets = self.buckets.lock();
        let key = buckets.key((act, own), now);
        let full_at = buckets.full_at.get(&key).copied().unwrap_or(0).max(now) + each;
        let wait = full_at.saturating_sub(now + limits::RATE_BURST_S * 1_000_000);
        if wait > 0 {
            return Err(Refusal::limit(name, rate.into(), Duration::from_micros(wait)));
        }
        buckets.full_at.insert(key, full_at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Reason;
    use crate::seq::Millis;
    use crate::system::SetClock;
    use std::sync::Arc;

    const FEW: PerSecond = PerSecond { changes: 3, holds: 2, heartbeats: 5 };
    const BURST: u32 = limits::RATE_BURST_S as u32;

    fn rates() -> (Arc<SetClock>, Rates) {
        let clock = SetClock::at(Millis(0));
        (clock.clone(), Rates::new(FEW, System::with_clock(clock)))
    }

    /// How many are given until one is refused.
    fn given(rates: &Rates, act: Act, caller: &str) -> u32 {
        (0..).find(|_| rates.take(act, caller).is_err()).unwrap()
    }

    #[test]
    fn a_burst_is_given_at_once_and_after_it_so_many_a_second() {
        let (clock, rates) = rates();
        assert_eq!(given(&rates, Act::Hold, "a"), 2 * BURST);
        let no = rates.take(Act::Hold, "a").unwrap_err();
        assert_eq!((no.reason, no.rule.as_deref()), (Reason::LimitReached, Some("holds_per_second")));
        assert_eq!(no.retry_after, Some(Duration::from_millis(500)));
        assert!(no.message.contains("of 2 "));
        clock.advance(499);
        assert!(rates.take(Act::Hold, "a").is_err());
        clock.advance(1);
        assert!(rates.take(Act::Hold, "a").is_ok() && rates.take(Act::Hold, "a").is_err());
        clock.advance(5_000);
        assert_eq!(given(&rates, Act::Hold, "a"), 10);
        clock.advance(3_600_000);
        assert_eq!(given(&rates, Act::Hold, "a"), 2 * BURST, "no more than a burst is saved up");
    }

    #[test]
    fn each_caller_and_each_act_has_its_own() {
        let (_, rates) = rates();
        assert_eq!(given(&rates, Act::Change, "a"), 3 * BURST);
        assert_eq!(given(&rates, Act::Heartbeat, "a"), 5 * BURST);
        assert_eq!(given(&rates, Act::Change, "b"), 3 * BURST);
    }

    #[test]
    fn no_step_of_the_wall_clock_fills_or_empties_a_bucket() {
        let (clock, rates) = rates();
        given(&rates, Act::Hold, "a");
        clock.step_to(Millis(u64::MAX / 2));
        assert!(rates.take(Act::Hold, "a").is_err());
        assert!(rates.take(Act::Hold, "b").is_ok());
    }

    #[test]
    fn callers_beyond_the_bound_share_a_bucket_until_others_are_quiet() {
        let (clock, rates) = rates();
        given(&rates, Act::Hold, "early");
        for n in 1..limits::CALLERS_RATED {
            rates.take(Act::Hold, &format!("c{n}")).unwrap();
        }
        let shared = (0..).find(|n| rates.take(Act::Hold, &format!("late{n}")).is_err()).unwrap();
        assert_eq!(shared, 2 * BURST);
        assert_eq!(rates.buckets.lock().full_at.len(), limits::CALLERS_RATED + 1, "bounded");
        assert!(rates.take(Act::Hold, "c1").is_ok() && rates.take(Act::Hold, "early").is_err(), "those before keep theirs");
        // One act is half a second's worth: quiet for longer, they are forgotten, which changes nothing for them.
        clock.advance(limits::RATES_SWEEP_MS);
        assert_eq!(given(&rates, Act::Hold, "later"), 2 * BURST);
        assert!(rates.buckets.lock().full_at.len() < 10);
        assert!(given(&rates, Act::Hold, "early") < 2 * BURST, "who is not quiet is not forgotten");
    }
}
