//! The writer's clock: wall time that is believed only as far as the steady clock bears it out.
//!
//! A wall clock that steps must not end credentials early or late. What departs from the steady clock by more than the allowed skew is
//! not followed, and grants stop until an operator looks; revoking goes on.

use crate::refusal::{Reason, Refusal};
use crate::seq::Millis;
use crate::system::System;

/// How fast a wall clock may drift away from the steady one and still be followed: 1 in 2,000. NTP slews at 500 ppm.
const DRIFT: u64 = 2_000;

/// Follows the wall clock of one process.
pub struct Guarded {
    system: System,
    skew: u64,
    /// Where the wall clock was believed to be when the steady clock showed `at`.
    anchor: Millis,
    at: u64,
}

impl Guarded {
    /// Believes the wall clock as it stands now.
    pub fn new(system: System, skew_ms: u64) -> Guarded {
        Guarded { anchor: system.wall(), at: system.steady(), system, skew: skew_ms }
    }

    /// The time to write: the wall clock where it is believable, else where it would be had it not stepped.
    pub fn now(&mut self) -> Millis {
        let steady = self.system.steady();
        let passed = steady.saturating_sub(self.at);
        let expected = self.anchor.plus(passed);
        let wall = self.system.wall();
        if wall.0.abs_diff(expected.0) > self.skew {
            return expected;
        }
        // Follow slow drift only: steps below the skew, repeated, would carry it anywhere.
        if passed >= 1_000 {
            let most = passed / DRIFT;
            let corrected = wall.0.clamp(expected.0.saturating_sub(most), expected.0.saturating_add(most));
            self.anchor = Millis(corrected);
            self.at = steady;
        }
        wall
    }

    /// Whether grants may be made now, given the newest time in the ledger.
    pub fn trusted(&mut self, ledger: Millis) -> Result<(), Refusal> {
        let believed = self.now();
        let wall = self.system.wall();
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
                "an operator sets the clock right (timedatectl status); were the ledger's time wrong: mayfly server recover --reset-time",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::SetClock;

    fn guarded() -> (std::sync::Arc<SetClock>, Guarded) {
        let clock = SetClock::at(Millis(1_000_000_000));
        let guarded = Guarded::new(System::with_clock(clock.clone()), 30_000);
        (clock, guarded)
    }

    #[test]
    fn a_step_in_either_direction_is_not_followed_and_stops_grants() {
        for step in [-3_600_000i64, 3_600_000] {
            let (clock, mut guarded) = guarded();
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
    fn repeated_small_steps_do_not_carry_it_away() {
        let (clock, mut guarded) = guarded();
        for _ in 0..100 {
            clock.advance(1_000);
            let wall = Millis(clock_wall(&clock) + 20_000);
            clock.step_to(wall);
            guarded.now();
        }
        let honest = 1_000_000_000 + 100_000;
        assert!(guarded.now().0.abs_diff(honest) <= 31_000, "{}", guarded.now().0);
    }

    fn clock_wall(clock: &SetClock) -> u64 {
        use crate::system::Clock;
        clock.wall().0
    }

    #[test]
    fn a_clock_behind_the_ledger_stops_grants() {
        let (_, mut guarded) = guarded();
        assert!(guarded.trusted(Millis(1_000_020_000)).is_ok());
        assert!(guarded.trusted(Millis(1_000_040_000)).is_err());
    }
}
