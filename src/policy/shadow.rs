//! Counts where the shadow policy set would have decided differently from the set in force. The counts are aggregated by minute and written
//! to the ledger by the upkeep.
//!
//! The shadow set is asked after the set in force, about the same request. Its verdict never affects the decision.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::catalog::EnvironmentPolicy;
use super::question::Question;
use super::verdict_cache::VerdictCache;
use mayfly_base::limits;
use mayfly_verify::seq::Millis;

/// A group of decisions that would have differed, equal in everything except their time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShadowDifference {
    /// The environment.
    pub environment: Box<str>,
    /// Version of the shadow set.
    pub version: u64,
    /// Version of the set in force, which decided.
    pub enforced: u64,
    /// The caller. Empty: several callers, counted together because there were too many differences to keep apart.
    pub caller: Box<str>,
    /// The action.
    pub action: &'static str,
    /// The upstream. Empty: the action concerns no upstream.
    pub upstream: Box<str>,
    /// The shadow set would have permitted. `false`: it would have refused.
    pub permits: bool,
    /// Ids of the policies that decided in the shadow set, sorted.
    pub by: Vec<String>,
}

/// The shadow policy counts of one replica.
#[derive(Default)]
pub struct ShadowRecorder {
    /// Per difference: the time of the first decision, and the number of decisions.
    each: Mutex<BTreeMap<ShadowDifference, (Millis, u64)>>,
    same: AtomicU64,
    refuses: AtomicU64,
    permits: AtomicU64,
}

/// How often shadow sets were asked since the start, by result.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct ShadowCounts {
    /// The shadow set agreed with the set in force.
    pub same: u64,
    /// The shadow set would have refused.
    pub refuses: u64,
    /// The shadow set would have permitted.
    pub permits: u64,
}

impl ShadowRecorder {
    /// Asks the shadow set, if there is one, and records whether its verdict differs.
    pub(super) fn ask(&self, verdicts: &VerdictCache, policy: &EnvironmentPolicy, question: &Question<'_>, permitted: bool) {
        let Some(beside) = &policy.beside else { return };
        let said = verdicts.verdict(&beside.set, question);
        if said.permits() == permitted {
            self.same.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let counter = if permitted { &self.refuses } else { &self.permits };
        counter.fetch_add(1, Ordering::Relaxed);
        let difference = ShadowDifference {
            environment: question.environment().unwrap_or_default().into(),
            version: beside.version,
            enforced: policy.version,
            caller: question.caller.as_str().into(),
            action: question.action().name(),
            upstream: question.upstream().map_or("", |u| &u.name).into(),
            permits: !permitted,
            by: said.by().to_vec(),
        };
        self.note(difference, question.now());
    }

    fn note(&self, difference: ShadowDifference, now: Millis) {
        let mut each = self.each.lock();
        let room = each.len() < limits::POLICY_DIFFERENCES || each.contains_key(&difference);
        // Above the limit the key drops caller and policies, so the map grows by at most one entry per remaining combination of fields.
        let key = if room { difference } else { ShadowDifference { caller: "".into(), by: Vec::new(), ..difference } };
        each.entry(key).or_insert((now, 0)).1 += 1;
    }

    /// Removes and returns the counted differences, for writing to the ledger.
    pub fn take(&self) -> Vec<(ShadowDifference, Millis, u64)> {
        let each = std::mem::take(&mut *self.each.lock());
        each.into_iter().map(|(difference, (since, count))| (difference, since, count)).collect()
    }

    /// How often shadow sets were asked since the start.
    pub fn counts(&self) -> ShadowCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ShadowCounts { same: read(&self.same), refuses: read(&self.refuses), permits: read(&self.permits) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(caller: &str) -> ShadowDifference {
        ShadowDifference {
            environment: "prod".into(),
            version: 2,
            enforced: 7,
            caller: caller.into(),
            action: "Exchange",
            upstream: "mail".into(),
            permits: false,
            by: vec!["no-mail".to_owned()],
        }
    }

    #[test]
    fn what_is_alike_is_counted_and_what_is_too_much_is_counted_together() {
        let audits = ShadowRecorder::default();
        for n in 0..limits::POLICY_DIFFERENCES + 10 {
            audits.note(difference(&format!("caller{n}")), Millis(n as u64));
            audits.note(difference(&format!("caller{n}")), Millis(n as u64 + 1));
        }
        let taken = audits.take();
        assert_eq!(taken.len(), limits::POLICY_DIFFERENCES + 1);
        assert_eq!(taken.iter().map(|(_, _, count)| count).sum::<u64>(), 2 * (limits::POLICY_DIFFERENCES as u64 + 10));
        let together = taken.iter().find(|(d, ..)| d.caller.is_empty()).unwrap();
        assert_eq!((together.1, together.2), (Millis(limits::POLICY_DIFFERENCES as u64), 20));
        assert!(audits.take().is_empty());
    }
}
