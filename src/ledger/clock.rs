//! One clock for the whole process: wall time is accepted only as far as the monotonic clock confirms it.
//!
//! The monotonic clock used here keeps running while the machine is suspended, as the wall clock does, so a suspension is not a step.
//!
//! A wall clock that steps must not end credentials early or late, make expired evidence of a caller valid again, or send a wrong time to
//! followers. When the wall clock departs from the monotonic clock by more than the allowed skew, nothing in the process follows the wall
//! clock, and grants stop until an operator intervenes; revoking goes on.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use mayfly_base::refusal::{Reason, Refusal};
use mayfly_base::system::{Clock, System};
use mayfly_verify::seq::Millis;

/// The drift of the wall clock against the monotonic clock that is still followed: 1 in 2,000. NTP slews at 500 ppm.
const DRIFT: u64 = 2_000;
/// How often the clock corrects for drift, milliseconds.
const FOLLOW_MS: u64 = 1_000;

/// Tracks the wall clock of one process. As a [`Clock`] it returns the accepted time.
pub struct GuardedClock {
    system: System,
    skew: u64,
    /// The wall time that is taken to be at the monotonic clock's zero, milliseconds since 1970. A single number, so that no reader sees
    /// half of a correction.
    zero: AtomicI64,
    /// When drift was last corrected, by the monotonic clock.
    at: AtomicU64,
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

impl GuardedClock {
    /// Starts from the wall clock's present time.
    pub fn new(system: System, skew_ms: u64) -> GuardedClock {
        let steady = system.steady();
        let zero = AtomicI64::new(signed(system.wall().0).saturating_sub(signed(steady)));
        GuardedClock { zero, at: AtomicU64::new(steady), system, skew: skew_ms }
    }

    fn expected(&self, steady: u64) -> Millis {
        Millis(u64::try_from(self.zero.load(Ordering::Acquire).saturating_add(signed(steady))).unwrap_or_default())
    }

    /// The accepted time: the wall clock when it is within the skew, else the time that the wall clock would show had it not stepped.
    pub fn now(&self) -> Millis {
        let steady = self.system.steady();
        let expected = self.expected(steady);
        let wall = self.system.shown();
        if wall.0.abs_diff(expected.0) > self.skew {
            return expected;
        }
        // Follow slow drift only: otherwise repeated steps, each below the skew, could move the clock to any time.
        let at = self.at.load(Ordering::Acquire);
        let passed = steady.saturating_sub(at);
        // Of several concurrent readers, only the one that moves the mark applies the drift; otherwise the drift would be applied several
        // times.
        if passed >= FOLLOW_MS && self.at.compare_exchange(at, steady, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            let most = passed / DRIFT;
            let corrected = wall.0.clamp(expected.0.saturating_sub(most), expected.0.saturating_add(most));
            self.zero.store(signed(corrected).saturating_sub(signed(steady)), Ordering::Release);
        }
        wall
    }

    /// Whether grants may be made now, given the newest time in the ledger.
    pub fn trusted(&self, ledger: Millis) -> Result<(), Refusal> {
        let believed = self.now();
        let wall = self.system.shown();
        let no = |what: String, how: &str| {
            Err(Refusal::new(Reason::ClockSkew, what).way_out(how.to_owned()).retry(std::time::Duration::from_secs(30)))
        };
        if wall.0.abs_diff(believed.0) > self.skew {
            return no(
                format!("this server's clock stepped from about {believed} to {wall}; nothing is issued"),
                "an operator sets the clock right (timedatectl status), or restarts mayfly when it is right now",
            );
        }
        if ledger.since(wall) > self.skew {
            return no(
                format!("this server's clock shows {wall}, the ledger's newest commit is of {ledger}; nothing is issued"),
                "an operator sets the clock right (timedatectl status); were the ledger's time wrong: mayfly server recover --after SEQ --reset-time, with the newest seq of mayfly status",
            );
        }
        Ok(())
    }
}

impl Clock for GuardedClock {
    fn wall(&self) -> Millis {
        self.now()
    }

    fn steady(&self) -> u64 {
        self.system.steady()
    }

    fn awake(&self) -> u64 {
        self.system.awake()
    }

    fn shown(&self) -> Millis {
        self.system.shown()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mayfly_base::system::ManualClock;

    fn guarded() -> (std::sync::Arc<ManualClock>, GuardedClock) {
        let clock = ManualClock::at(Millis(1_000_000_000));
        let guarded = GuardedClock::new(System::with_clock(clock.clone()), 30_000);
        (clock, guarded)
    }

    #[test]
    fn a_step_in_either_direction_is_not_followed_and_stops_grants() {
        for step in [-3_600_000i64, 3_600_000] {
            let (clock, guarded) = guarded();
            clock.advance(5_000);
            let before = guarded.now();
            clock.step_to(Millis((before.0 as i64 + step) as u64));
            clock.advance(1_000);
            assert_eq!(guarded.now(), before.plus(1_000));
            assert_eq!(guarded.trusted(before).map_err(|r| r.reason), Err(Reason::ClockSkew));
            clock.step_to(before.plus(1_000));
            assert!(guarded.trusted(before).is_ok(), "mended");
        }
    }

    #[test]
    fn a_suspension_is_no_step_and_a_step_during_it_is_one() {
        let (clock, guarded) = guarded();
        clock.advance(5_000);
        let before = guarded.now();
        clock.suspend(3_600_000);
        assert_eq!(guarded.now(), before.plus(3_600_000));
        assert!(guarded.trusted(before).is_ok(), "resumed after an hour");
        clock.suspend(3_600_000);
        clock.step_to(before.plus(2 * 3_600_000 + 60_000));
        assert_eq!(guarded.now(), before.plus(2 * 3_600_000), "the minute beyond what passed is not believed");
        assert_eq!(guarded.trusted(before).map_err(|r| r.reason), Err(Reason::ClockSkew));
        clock.step_to(before.plus(2 * 3_600_000));
        assert!(guarded.trusted(before).is_ok(), "mended");
    }

    #[test]
    fn repeated_small_steps_do_not_carry_it_away() {
        let (clock, guarded) = guarded();
        for _ in 0..100 {
            clock.advance(1_000);
            let wall = Millis(clock_wall(&clock) + 20_000);
            clock.step_to(wall);
            guarded.now();
        }
        let honest = 1_000_000_000 + 100_000;
        assert!(guarded.now().0.abs_diff(honest) <= 31_000, "{}", guarded.now().0);
    }

    fn clock_wall(clock: &ManualClock) -> u64 {
        use mayfly_base::system::Clock;
        clock.wall().0
    }

    #[test]
    fn a_clock_behind_the_ledger_stops_grants() {
        let (_, guarded) = guarded();
        assert!(guarded.trusted(Millis(1_000_020_000)).is_ok());
        assert!(guarded.trusted(Millis(1_000_040_000)).is_err());
    }

    /// The whole process uses one clock: a wall clock that the writer rejects is rejected everywhere.
    #[test]
    fn as_a_clock_it_tells_the_believed_time_and_beside_it_what_the_machine_shows() {
        let (clock, guarded) = guarded();
        let system = System::with_clock(std::sync::Arc::new(guarded));
        for step in [-7_200_000i64, 7_200_000] {
            let right = system.wall();
            clock.step_to(Millis((right.0 as i64 + step) as u64));
            clock.advance(500);
            assert_eq!(system.wall(), right.plus(500));
            assert_eq!(system.shown().0 as i64, right.0 as i64 + step + 500);
            let again = GuardedClock::new(system.clone(), 30_000);
            assert_eq!(again.now(), right.plus(500), "what is guarded already is believed");
            assert!(again.trusted(right).is_err(), "and the step is seen all the same");
            clock.step_to(right.plus(500));
        }
    }
}
