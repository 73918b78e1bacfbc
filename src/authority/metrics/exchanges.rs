//! Counts exchanges by environment, upstream and outcome. Each exchange of a batch or of a stream is counted individually.
//!
//! Only registered upstreams have a label, and at most `limits::METRIC_UPSTREAMS` of them; all others are counted together. Counting is a
//! look-up and an atomic addition.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;

use super::calls::OTHER;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Reason};

/// The outcome of an exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum ExchangeOutcome {
    /// A credential was issued, or a repeat was answered with the credential of the first request.
    Issued,
    /// The exchange waits for an approval.
    AwaitsApproval,
    /// The request is refused: by policy, by a lock, or because of its contents.
    Refused,
    /// A limit of this caller, or of all callers together, was reached.
    Limited,
    /// The request was refused by overload: there was no time to decide it.
    Overloaded,
    /// The server does not issue at the moment.
    Unavailable,
    /// The upstream did not do what was asked.
    UpstreamFailed,
    /// A fault of mayfly.
    Failed,
}

impl ExchangeOutcome {
    /// All outcomes, in the order of their numbers.
    pub const ALL: [ExchangeOutcome; 8] = [
        ExchangeOutcome::Issued,
        ExchangeOutcome::AwaitsApproval,
        ExchangeOutcome::Refused,
        ExchangeOutcome::Limited,
        ExchangeOutcome::Overloaded,
        ExchangeOutcome::Unavailable,
        ExchangeOutcome::UpstreamFailed,
        ExchangeOutcome::Failed,
    ];

    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            ExchangeOutcome::Issued => "issued",
            ExchangeOutcome::AwaitsApproval => "awaits_approval",
            ExchangeOutcome::Refused => "refused",
            ExchangeOutcome::Limited => "limited",
            ExchangeOutcome::Overloaded => "overloaded",
            ExchangeOutcome::Unavailable => "unavailable",
            ExchangeOutcome::UpstreamFailed => "upstream_failed",
            ExchangeOutcome::Failed => "failed",
        }
    }

    fn of<T>(end: &Result<T, Error>) -> ExchangeOutcome {
        match end {
            Ok(_) => ExchangeOutcome::Issued,
            Err(Error::Fault(_)) => ExchangeOutcome::Failed,
            Err(Error::Refusal(no)) => match no.reason {
                Reason::ApprovalNeeded => ExchangeOutcome::AwaitsApproval,
                Reason::LimitReached => ExchangeOutcome::Limited,
                Reason::NotReady | Reason::ClockSkew | Reason::DiskReserve | Reason::DecidedOnOldState => {
                    ExchangeOutcome::Unavailable
                }
                Reason::UpstreamFailed => ExchangeOutcome::UpstreamFailed,
                _ => ExchangeOutcome::Refused,
            },
        }
    }
}

/// The exchanges of one upstream, or of all upstreams that have no label of their own.
#[derive(Debug)]
struct UpstreamCounts {
    environment: Box<str>,
    upstream: Box<str>,
    outcomes: [AtomicU64; ExchangeOutcome::ALL.len()],
}

impl UpstreamCounts {
    fn new(environment: &str, upstream: &str) -> Arc<UpstreamCounts> {
        let outcomes = [const { AtomicU64::new(0) }; ExchangeOutcome::ALL.len()];
        Arc::new(UpstreamCounts { environment: environment.into(), upstream: upstream.into(), outcomes })
    }

    fn count(&self, outcome: ExchangeOutcome) {
        if let Some(count) = self.outcomes.get(outcome as usize) {
            count.fetch_add(1, Relaxed);
        }
    }
}

/// Counts by the environment and the name of an upstream.
type Labelled = BTreeMap<(Box<str>, Box<str>), Arc<UpstreamCounts>>;

#[derive(Default)]
struct UpstreamLabels {
    /// The counts of each registered upstream.
    of: HashMap<Box<str>, Arc<UpstreamCounts>>,
    /// All counts since the start, so that no counter goes down.
    all: Labelled,
}

/// The counters of all exchanges of a server.
pub struct ExchangeMetrics {
    known: ArcSwap<UpstreamLabels>,
    /// Exchanges for upstreams that are not registered.
    stray: Arc<UpstreamCounts>,
}

impl Default for ExchangeMetrics {
    fn default() -> ExchangeMetrics {
        ExchangeMetrics { known: ArcSwap::default(), stray: UpstreamCounts::new(OTHER, OTHER) }
    }
}

impl ExchangeMetrics {
    /// Sets the registered upstreams, each with its environment. Must not be called concurrently.
    pub fn sync<'a>(&self, registered: impl Iterator<Item = (&'a str, &'a str)>) {
        let before = self.known.load_full();
        let mut known = UpstreamLabels { of: HashMap::new(), all: before.all.clone() };
        let mut own = known.all.keys().filter(|(_, upstream)| **upstream != *OTHER).count();
        for (name, environment) in registered {
            let label = if name == OTHER { OTHER } else { name };
            let is_new = !known.all.contains_key(&(environment.into(), label.into()));
            let label = if is_new && own >= limits::METRIC_UPSTREAMS { OTHER } else { label };
            own += usize::from(is_new && label != OTHER);
            let entry = known.all.entry((environment.into(), label.into()));
            let counts = entry.or_insert_with(|| UpstreamCounts::new(environment, label)).clone();
            known.of.insert(name.into(), counts);
        }
        self.known.store(Arc::new(known));
    }

    /// Counts an exchange that ended.
    pub fn count<T>(&self, upstream: &str, end: &Result<T, Error>) {
        self.add(upstream, ExchangeOutcome::of(end));
    }

    /// Counts an exchange that was not decoded, or that is malformed.
    pub fn count_stray(&self, outcome: ExchangeOutcome) {
        self.stray.count(outcome);
    }

    /// Counts exchanges that were refused by overload.
    pub fn overloaded<'a>(&self, upstreams: impl Iterator<Item = &'a str>) {
        upstreams.for_each(|upstream| self.add(upstream, ExchangeOutcome::Overloaded));
    }

    fn add(&self, upstream: &str, outcome: ExchangeOutcome) {
        self.known.load().of.get(upstream).unwrap_or(&self.stray).count(outcome);
    }

    /// The counts by environment, upstream and outcome.
    pub(super) fn counts(&self) -> Vec<([String; 3], u64)> {
        let known = self.known.load_full();
        let mut rows = Vec::new();
        for counts in known.all.values().chain([&self.stray]) {
            for (outcome, count) in ExchangeOutcome::ALL.iter().zip(&counts.outcomes) {
                let label = [counts.environment.to_string(), counts.upstream.to_string(), outcome.as_str().to_owned()];
                rows.push((label, count.load(Relaxed)));
            }
        }
        rows.retain(|(_, count)| *count > 0);
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mayfly_base::refusal::Refusal;

    fn no(reason: Reason) -> Result<(), Error> {
        Err(Error::Refusal(Refusal::new(reason, "no")))
    }

    #[test]
    fn only_registered_upstreams_have_a_label_and_no_more_of_them_than_the_bound() {
        let metrics = ExchangeMetrics::default();
        let names: Vec<String> = (0..limits::METRIC_UPSTREAMS + 3).map(|n| format!("up-{n:05}")).collect();
        metrics.sync(names.iter().map(|name| (name.as_str(), "prod")));
        for name in &names {
            metrics.count(name, &Ok(()));
        }
        metrics.count("made-up", &no(Reason::NotFound));
        metrics.count("up-00001", &no(Reason::DiskReserve));
        let rows = metrics.counts();
        let of = |environment: &str, upstream: &str, outcome: &str| {
            let found = rows.iter().find(|([e, u, o], _)| (&**e, &**u, &**o) == (environment, upstream, outcome));
            found.map_or(0, |(_, count)| *count)
        };
        assert_eq!((of("prod", "up-00001", "issued"), of("prod", "up-00001", "unavailable")), (1, 1));
        assert_eq!((of("prod", OTHER, "issued"), of(OTHER, OTHER, "refused")), (3, 1), "{rows:?}");
        assert_eq!(rows.len(), limits::METRIC_UPSTREAMS + 3, "a series for each within the bound, and three others");
    }

    #[test]
    fn a_counter_never_goes_down_and_an_upstream_by_the_name_of_the_others_is_one_of_them() {
        let metrics = ExchangeMetrics::default();
        metrics.sync([("a", "prod"), (OTHER, "prod")].into_iter());
        metrics.count("a", &Ok(()));
        metrics.count(OTHER, &Ok(()));
        // The upstream moves to another environment, and is then removed.
        metrics.sync([("a", "stage")].into_iter());
        metrics.count("a", &Ok(()));
        metrics.sync(std::iter::empty());
        metrics.count("a", &Ok(()));
        let label = |environment: &str, upstream: &str| [environment.to_owned(), upstream.to_owned(), "issued".to_owned()];
        assert_eq!(
            metrics.counts(),
            [(label("prod", "a"), 1), (label("prod", OTHER), 1), (label("stage", "a"), 1), (label(OTHER, OTHER), 1)]
        );
    }

    #[test]
    fn outcomes_tell_what_is_the_servers_from_what_is_the_callers() {
        for (reason, outcome) in [
            (Reason::DeniedByPolicy, ExchangeOutcome::Refused),
            (Reason::InvalidField, ExchangeOutcome::Refused),
            (Reason::ApprovalNeeded, ExchangeOutcome::AwaitsApproval),
            (Reason::LimitReached, ExchangeOutcome::Limited),
            (Reason::NotReady, ExchangeOutcome::Unavailable),
            (Reason::UpstreamFailed, ExchangeOutcome::UpstreamFailed),
        ] {
            assert_eq!(ExchangeOutcome::of(&no(reason)), outcome, "{reason:?}");
        }
        assert_eq!(
            ExchangeOutcome::of(&Err::<(), _>(Error::Fault(mayfly_base::refusal::Fault::new("x")))),
            ExchangeOutcome::Failed
        );
        assert!(ExchangeOutcome::ALL.iter().enumerate().all(|(n, outcome)| *outcome as usize == n));
    }
}
