//! What became of the calls to each upstream: a circuit breaker for making, and the counts of the metrics.
//!
//! After `limits::UPSTREAM_FAILURES` calls in a row that an upstream did not answer, exchanges for it are refused at once, with the last
//! error, instead of each waiting for the time limit and leaving a lease to be undone. After a pause one exchange is let through; the pauses
//! grow while it fails. An answer of the upstream, also a refusal, ends that. Undoing is never held back: a revocation does not wait for an
//! exchange to succeed.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

use mayfly_base::backoff::Backoff;
use mayfly_base::limits;
use mayfly_base::refusal::{Reason, Refusal};

use super::brief;

/// A call to an upstream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum UpstreamCall {
    /// To make a credential, or to get one again.
    Make,
    /// To undo a credential, or to look whether it is gone.
    Undo,
}

/// The outcome of a call.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum UpstreamOutcome {
    /// The upstream did what was asked.
    Done,
    /// The upstream refused, or did only a part.
    Refused,
    /// The upstream did not answer.
    Unanswered,
}

impl UpstreamCall {
    fn as_str(self) -> &'static str {
        match self {
            UpstreamCall::Make => "make",
            UpstreamCall::Undo => "undo",
        }
    }
}

impl UpstreamOutcome {
    fn as_str(self) -> &'static str {
        match self {
            UpstreamOutcome::Done => "done",
            UpstreamOutcome::Refused => "refused",
            UpstreamOutcome::Unanswered => "unanswered",
        }
    }
}

/// The state of one upstream.
#[derive(Default)]
struct Health {
    counts: BTreeMap<(UpstreamCall, UpstreamOutcome), u64>,
    /// Calls in a row without an answer.
    unanswered: u32,
    /// While the breaker is open: the steady time at which one call is let through, and the pauses.
    open: Option<(u64, Backoff)>,
    last: String,
}

impl Health {
    /// The upstream answered, so exchanges are no longer refused at once.
    fn answered(&mut self, upstream: &str) {
        if self.open.take().is_some() {
            tracing::info!(upstream, "the upstream answers again; exchanges for it are no longer refused at once");
        }
        (self.unanswered, self.last) = (0, String::new());
    }
}

/// The upstreams that were called. Only registered upstreams are ever called, so their number is bounded by that of registrations; those
/// beyond `limits::METRIC_UPSTREAMS` have no state, as in all metrics.
#[derive(Default)]
pub(super) struct UpstreamHealth {
    all: Mutex<BTreeMap<Box<str>, Health>>,
}

/// An upstream for the metrics and the status.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UpstreamHealthRow {
    /// The upstream.
    pub upstream: String,
    /// Exchanges are refused until a call is answered.
    pub open: bool,
    /// The error of the last call without an answer; empty after an answer.
    pub last: String,
    /// Call, outcome, number.
    pub counts: Vec<(&'static str, &'static str, u64)>,
}

impl UpstreamHealth {
    /// Whether a credential may be made now. While the breaker is open, one call is let through at the end of each pause.
    pub fn admit(&self, upstream: &str, steady: u64) -> Result<(), Refusal> {
        let mut all = self.all.lock();
        let Some(Health { open: Some((until, pauses)), unanswered, last, .. }) = all.get_mut(upstream) else { return Ok(()) };
        if steady >= *until {
            // This call is the one that is let through; if it never reports, the next one is let through after another pause.
            *until = steady.saturating_add(pause(pauses));
            return Ok(());
        }
        let wait = until.saturating_sub(steady);
        let no = Refusal::new(
            Reason::UpstreamFailed,
            format!(
                "{upstream} did not answer the last {unanswered} calls; it is tried again in {wait} ms; the last error: {last}"
            ),
        );
        Err(no.by("circuit_breaker").retry(Duration::from_millis(wait)))
    }

    /// Notes the outcome of a call. `why`: the error of a call without an answer.
    pub fn note(&self, upstream: &str, call: UpstreamCall, outcome: UpstreamOutcome, why: &str, steady: u64) {
        let mut all = self.all.lock();
        if !all.contains_key(upstream) && all.len() >= limits::METRIC_UPSTREAMS {
            return;
        }
        let health = all.entry(upstream.into()).or_default();
        *health.counts.entry((call, outcome)).or_default() += 1;
        match (call, outcome) {
            (_, UpstreamOutcome::Unanswered) => {}
            // Also where the upstream cannot be reached: it says nothing about the next exchange.
            (UpstreamCall::Undo, UpstreamOutcome::Refused) => return,
            _ => return health.answered(upstream),
        }
        health.unanswered = health.unanswered.saturating_add(1);
        health.last = brief(why);
        if health.open.is_none() && health.unanswered >= limits::UPSTREAM_FAILURES {
            let mut pauses = Backoff::new(limits::UPSTREAM_PAUSE_MIN_MS, limits::UPSTREAM_PAUSE_MAX_MS);
            let until = steady.saturating_add(pause(&mut pauses));
            health.open = Some((until, pauses));
            tracing::warn!(
                upstream,
                unanswered = health.unanswered,
                why = health.last,
                "the upstream does not answer; exchanges for it are refused at once until it does"
            );
        }
    }

    /// All upstreams that were called since the start.
    pub fn rows(&self) -> Vec<UpstreamHealthRow> {
        let all = self.all.lock();
        let row = |(upstream, health): (&Box<str>, &Health)| UpstreamHealthRow {
            upstream: upstream.to_string(),
            open: health.open.is_some(),
            last: health.last.clone(),
            counts: health.counts.iter().map(|((call, outcome), n)| (call.as_str(), outcome.as_str(), *n)).collect(),
        };
        all.iter().map(row).collect()
    }
}

fn pause(pauses: &mut Backoff) -> u64 {
    pauses.next().map_or(limits::UPSTREAM_PAUSE_MAX_MS, |pause| pause.as_millis().try_into().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unanswered(health: &UpstreamHealth, upstream: &str, at: u64) {
        health.note(upstream, UpstreamCall::Make, UpstreamOutcome::Unanswered, "it hangs\n", at);
    }

    #[test]
    fn an_upstream_that_does_not_answer_is_refused_at_once_and_tried_again_by_one_call() {
        let health = UpstreamHealth::default();
        for _ in 0..limits::UPSTREAM_FAILURES {
            assert!(health.admit("a", 0).is_ok());
            unanswered(&health, "a", 0);
        }
        let no = health.admit("a", 0).unwrap_err();
        assert_eq!((no.reason, no.rule.as_deref()), (Reason::UpstreamFailed, Some("circuit_breaker")));
        assert!(no.message.contains("it hangs") && !no.message.contains('\n') && no.retry_after.is_some(), "{no:?}");
        assert!(health.admit("b", 0).is_ok(), "another upstream is not held back");
        // Jitter lengthens a pause to at most twice its length.
        let later = 2 * limits::UPSTREAM_PAUSE_MAX_MS;
        assert!(health.admit("a", later).is_ok() && health.admit("a", later).is_err(), "one call is let through");
        unanswered(&health, "a", later);
        assert!(health.admit("a", later).is_err());
        health.note("a", UpstreamCall::Undo, UpstreamOutcome::Refused, "", later);
        assert!(health.admit("a", later).is_err(), "an undo that failed says nothing");
        health.note("a", UpstreamCall::Make, UpstreamOutcome::Refused, "", later);
        assert!((0..3).all(|_| health.admit("a", later).is_ok()));
        unanswered(&health, "a", later);
        assert!(health.admit("a", later).is_ok(), "the count begins anew");
        let rows = health.rows();
        let n = u64::from(limits::UPSTREAM_FAILURES) + 2;
        assert_eq!(rows[0].counts, [("make", "refused", 1), ("make", "unanswered", n), ("undo", "refused", 1)]);
        assert!(!rows[0].open && rows[0].last == "it hangs ");
    }

    #[test]
    fn a_call_that_never_reports_keeps_the_breaker_for_a_pause_only() {
        let health = UpstreamHealth::default();
        (0..limits::UPSTREAM_FAILURES).for_each(|_| unanswered(&health, "a", 0));
        let mut at = 0;
        for _ in 0..50 {
            at += 2 * limits::UPSTREAM_PAUSE_MAX_MS;
            assert!(health.admit("a", at).is_ok() && health.admit("a", at).is_err());
        }
    }

    #[test]
    fn the_number_of_upstreams_is_bounded() {
        let health = UpstreamHealth::default();
        (0..2 * limits::METRIC_UPSTREAMS).for_each(|n| unanswered(&health, &n.to_string(), 0));
        assert_eq!(health.rows().len(), limits::METRIC_UPSTREAMS);
    }
}
