//! The pauses between attempts at a call that fails.

use std::time::Duration;

use backon::ExponentialBuilder;

/// Pauses that double from `least` to `most`, for any number of attempts. Jitter lengthens each pause to at most twice that.
pub fn backoff(least: Duration, most: Duration) -> ExponentialBuilder {
    ExponentialBuilder::new().with_min_delay(least).with_max_delay(most).with_jitter().without_max_times()
}
