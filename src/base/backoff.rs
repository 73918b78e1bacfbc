//! The pauses between attempts at something that fails: they double up to a maximum, have jitter, and may be limited in number.
//!
//! Code of the server and of the command line that repeats a failed operation takes its pauses from here. `clients/rust` is published
//! without this crate and has a function of its own. A decision that a concurrent change made void is repeated without a pause
//! (`src/authority/redecide.rs`).

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use tokio::sync::watch;

/// The pauses between the attempts at one operation. As an iterator: the next pause, or `None` after the last attempt.
#[derive(Debug)]
pub struct Backoff {
    builder: ExponentialBuilder,
    /// `None` until an attempt fails.
    pauses: Option<ExponentialBackoff>,
}

impl Backoff {
    /// Pauses that double from `least_ms` to `most_ms`, for any number of attempts. Jitter lengthens each pause to at most twice that.
    pub fn new(least_ms: u64, most_ms: u64) -> Backoff {
        let (least, most) = (Duration::from_millis(least_ms), Duration::from_millis(most_ms));
        let builder = ExponentialBuilder::new().with_min_delay(least).with_max_delay(most).with_jitter().without_max_times();
        Backoff { builder, pauses: None }
    }

    /// Limits the number of attempts; no pause follows the last attempt.
    pub fn attempts(self, most: usize) -> Backoff {
        Backoff { builder: self.builder.with_max_times(most.saturating_sub(1)), ..self }
    }

    /// Whether the last attempt failed.
    pub fn is_failing(&self) -> bool {
        self.pauses.is_some()
    }

    /// An attempt succeeded: the next pause is the shortest one again.
    pub fn succeeded(&mut self) {
        self.pauses = None;
    }

    /// Pauses. Returns false, without a pause, after the last attempt. To cancel the pause, drop the future.
    pub async fn wait(&mut self) -> bool {
        let Some(pause) = self.next() else { return false };
        tokio::time::sleep(pause).await;
        true
    }

    /// As [`Backoff::wait`]; also returns false as soon as `stopping` is true or its sender is gone.
    pub async fn wait_unless(&mut self, stopping: &mut watch::Receiver<bool>) -> bool {
        tokio::select! {
            more = self.wait() => more,
            _ = stopping.wait_for(|stops| *stops) => false,
        }
    }

    /// As [`Backoff::wait`], for a thread that may block.
    pub fn sleep(&mut self) -> bool {
        self.next().map(std::thread::sleep).is_some()
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.pauses.get_or_insert_with(|| self.builder.build()).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_maximum_and_begin_again_after_a_success() {
        let mut pauses = Backoff::new(100, 300);
        for round in 0..2 {
            assert!(!pauses.is_failing(), "{round}");
            for least in [100, 200, 300, 300] {
                let pause = pauses.next().unwrap().as_millis();
                assert!((least..=2 * least).contains(&pause), "{pause} ms, expected {least} ms and jitter");
            }
            assert!(pauses.is_failing());
            pauses.succeeded();
        }
    }

    #[test]
    fn no_pause_follows_the_last_attempt() {
        let mut pauses = Backoff::new(0, 1).attempts(3);
        assert!(pauses.sleep() && pauses.sleep() && !pauses.sleep());
        assert!(!Backoff::new(0, 1).attempts(1).sleep());
    }

    #[tokio::test]
    async fn a_pause_ends_when_the_server_stops() {
        let (stop, mut stopping) = watch::channel(false);
        let mut pauses = Backoff::new(600_000, 600_000);
        let waits = tokio::spawn(async move { pauses.wait_unless(&mut stopping).await });
        stop.send_replace(true);
        assert!(!waits.await.unwrap());
    }
}
