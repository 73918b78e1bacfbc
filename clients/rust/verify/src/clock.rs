//! Time comes in as a value; this is where it comes from.

#[cfg(target_os = "linux")]
use std::time::Duration;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::revocation::Moment;
use crate::seq::Millis;

/// A source of time: wall clock, and a clock that never steps.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970 by the wall clock, which may step.
    fn wall(&self) -> Millis;
    /// Milliseconds that have passed since the clock was made, also while the machine was suspended; never steps.
    fn steady(&self) -> u64;
    /// The same without the time during which the machine was suspended.
    fn awake(&self) -> u64 {
        self.steady()
    }
    /// What the machine's own wall clock shows, whether it is believed or not.
    fn shown(&self) -> Millis {
        self.wall()
    }
    /// Now, by both.
    fn moment(&self) -> Moment {
        Moment { wall: self.wall(), steady: self.steady() }
    }
}

/// The machine's own clocks.
///
/// Time passes while a machine is suspended, and its wall clock shows that when it is resumed: no step, and everything is older by it. So the
/// steady clock is CLOCK_BOOTTIME where there is one. CLOCK_MONOTONIC stands still meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct RealClock {
    began: Instant,
    #[cfg(target_os = "linux")]
    began_since_boot: Duration,
}

impl RealClock {
    /// Its steady clock begins now.
    #[allow(
        clippy::disallowed_methods,
        clippy::new_without_default,
        reason = "this is the one place where the steady clock is read"
    )]
    pub fn new() -> RealClock {
        RealClock {
            began: Instant::now(),
            #[cfg(target_os = "linux")]
            began_since_boot: since_boot(),
        }
    }
}

/// CLOCK_BOOTTIME (clock_gettime(2)).
#[cfg(target_os = "linux")]
fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or_default(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

fn milliseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Clock for RealClock {
    #[allow(clippy::disallowed_methods, reason = "this is the one place where the wall clock is read")]
    fn wall(&self) -> Millis {
        Millis(milliseconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()))
    }

    #[cfg(target_os = "linux")]
    fn steady(&self) -> u64 {
        milliseconds(since_boot().saturating_sub(self.began_since_boot))
    }

    #[cfg(not(target_os = "linux"))]
    fn steady(&self) -> u64 {
        self.awake()
    }

    fn awake(&self) -> u64 {
        milliseconds(self.began.elapsed())
    }
}
