//! The source of time. All other code takes times as values.

#[cfg(target_os = "linux")]
use std::time::Duration;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::revocation::Moment;
use crate::seq::Millis;

/// A wall clock and a clock that never steps.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970 by the wall clock, which may step.
    fn wall(&self) -> Millis;
    /// Milliseconds since the clock was created, including time while the machine was suspended. Never steps.
    fn steady(&self) -> u64;
    /// The same without time while the machine was suspended.
    fn awake(&self) -> u64 {
        self.steady()
    }
    /// The machine's wall clock, even if an implementation does not trust it.
    fn shown(&self) -> Millis {
        self.wall()
    }
    /// The present time by both clocks.
    fn moment(&self) -> Moment {
        Moment { wall: self.wall(), steady: self.steady() }
    }
}

/// The machine's own clocks.
///
/// While a machine is suspended, time passes, and its wall clock shows that on resume; that is no step, and everything has aged. The steady
/// clock is therefore CLOCK_BOOTTIME where it exists, since CLOCK_MONOTONIC stops during suspension.
#[derive(Clone, Copy, Debug)]
pub struct RealClock {
    began: Instant,
    #[cfg(target_os = "linux")]
    began_since_boot: Duration,
}

impl RealClock {
    /// A clock whose steady time begins at 0 now.
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
