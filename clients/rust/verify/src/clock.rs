//! Time comes in as a value; this is where it comes from.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::revocation::Moment;
use crate::seq::Millis;

/// A source of time: wall clock, and a clock that never steps.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970 by the wall clock, which may step.
    fn wall(&self) -> Millis;
    /// Milliseconds since the clock was made; never steps.
    fn steady(&self) -> u64;
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
#[derive(Clone, Copy, Debug)]
pub struct RealClock {
    began: Instant,
}

impl RealClock {
    /// Its steady clock begins now.
    #[allow(
        clippy::disallowed_methods,
        clippy::new_without_default,
        reason = "this is the one place where the steady clock is read"
    )]
    pub fn new() -> RealClock {
        RealClock { began: Instant::now() }
    }
}

impl Clock for RealClock {
    #[allow(clippy::disallowed_methods, reason = "this is the one place where the wall clock is read")]
    fn wall(&self) -> Millis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn steady(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
