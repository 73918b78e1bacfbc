//! Refusals in the audit log: the first few per caller, reason and minute are recorded one by one, further ones are counted. No answer
//! waits for these records.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::authority::Authority;
use mayfly_base::document::terminal_text::cut;
use mayfly_base::limits;
use mayfly_base::refusal::{DeniedExchange, Reason, Refusal};
use mayfly_ledger::ProposalKind;
use mayfly_ledger::record::{Author, Event, PolicyDiffered, Principal, Record, RefusedExchange, RequestsRefused, SubjectClaims};
use mayfly_verify::seq::Millis;

const MINUTE: u64 = 60_000;

/// The refusals of the current minute, by caller and reason.
#[derive(Debug, Default)]
pub struct RefusalCounters {
    minute: u64,
    /// The counters by caller and reason. Beyond `limits::REFUSAL_COUNTERS` counters, callers share those with the empty name.
    each: BTreeMap<(Box<str>, &'static str), Counter>,
}

#[derive(Debug, Default)]
struct Counter {
    recorded: u32,
    /// The number of refusals without a record of their own, and when the first of them was.
    counted: u64,
    since: Millis,
}

impl RefusalCounters {
    /// Counts `times` refusals of a caller. Returns how many of them get a record each; the others are only counted. The counts of the
    /// previous minute must be taken out first, with [`over`](RefusalCounters::over).
    pub fn take(&mut self, caller: &str, reason: Reason, now: Millis, times: usize) -> usize {
        let counter = self.counter(caller, reason);
        let recorded = times.min((limits::REFUSALS_RECORDED - counter.recorded) as usize);
        counter.recorded += recorded as u32;
        counter.count(now, (times - recorded) as u64);
        recorded
    }

    /// Counts a refusal whose record could not be written.
    pub fn missed(&mut self, caller: &str, reason: Reason, now: Millis) {
        self.counter(caller, reason).count(now, 1);
    }

    fn counter(&mut self, caller: &str, reason: Reason) -> &mut Counter {
        let named = (Box::from(caller), reason.as_str());
        let room = self.each.len() < limits::REFUSAL_COUNTERS || self.each.contains_key(&named);
        // The shared counters are bounded too: there are as many as reasons.
        let key = if room { named } else { (Box::from(""), reason.as_str()) };
        self.each.entry(key).or_default()
    }

    /// At the end of a minute, returns one record for each caller and reason with counted refusals.
    pub fn over(&mut self, now: Millis) -> Vec<RequestsRefused> {
        let minute = now.0 / MINUTE;
        if minute == self.minute {
            return Vec::new();
        }
        self.minute = minute;
        let counted = std::mem::take(&mut self.each).into_iter().filter(|(_, c)| c.counted > 0);
        let refused = counted.map(|((caller, reason), c)| RequestsRefused {
            caller: caller.into(),
            reason: reason.to_owned(),
            since: c.since.0,
            count: c.counted,
            ..RequestsRefused::default()
        });
        refused.collect()
    }
}

impl Counter {
    fn count(&mut self, now: Millis, times: u64) {
        if self.counted == 0 {
            self.since = now;
        }
        self.counted += times;
    }
}

/// The counters of one replica.
#[derive(Default)]
pub struct RefusalLog(Mutex<RefusalCounters>);

impl Authority {
    /// Notes a refusal for the audit log. `asked`: the requested upstream, or the rpc. `task`: the named task, may be empty.
    pub fn refused(&self, caller: &str, no: &Refusal, asked: &str, task: &str) {
        self.refused_each(caller, no, std::iter::once(asked), task);
    }

    /// Notes several refusals with the same reason, each with what it asked for.
    pub fn refused_each<'a>(&self, caller: &str, no: &Refusal, asked: impl ExactSizeIterator<Item = &'a str>, task: &str) {
        let now = self.system.wall();
        self.write_counted(now);
        let recorded = self.refusals.0.lock().take(caller, no.reason, now, asked.len());
        asked.take(recorded).for_each(|asked| self.record_refusal(caller, no, asked, task, now));
    }

    fn record_refusal(&self, caller: &str, no: &Refusal, asked: &str, task: &str, now: Millis) {
        let refused = RequestsRefused {
            caller: caller.to_owned(),
            reason: no.reason.as_str().to_owned(),
            rule: cut(no.rule.as_deref().unwrap_or_default(), limits::NAME_BYTES),
            asked: cut(asked, limits::NAME_BYTES),
            task: cut(task, limits::REQUEST_ID_BYTES),
            since: now.0,
            count: 1,
            wanted: no.details.as_ref().and_then(|d| d.denied.as_ref()).map(|denied| Box::new(wanted(denied))),
            break_glass: task.parse().is_ok_and(|id| self.is_break_glass(id)),
        };
        if !self.write_refusal(refused) {
            self.refusals.0.lock().missed(caller, no.reason, now);
        }
    }

    /// Writes the counts of past minutes. Called every second, so that the counts of a busy minute are written soon after its end.
    pub fn write_counted(&self, now: Millis) {
        let over = self.refusals.0.lock().over(now);
        for refused in over {
            self.write_refusal(refused);
        }
    }

    /// Writes the decisions of shadow policy sets that differed since the last call.
    pub fn write_differences(&self) {
        for (d, since, count) in self.decider.audits.take() {
            let differed = PolicyDiffered {
                environment: d.environment.into(),
                version: d.version,
                enforced: d.enforced,
                caller: d.caller.into(),
                action: d.action.to_owned(),
                upstream: d.upstream.into(),
                permits: d.permits,
                policies: d.by,
                since: since.0,
                count,
            };
            let record = Record::new(Author::Mayfly("policy".into()), Event::PolicyDiffered(Box::new(differed)));
            if self.ledger.stopped().is_none() {
                // A difference whose record is not accepted is still counted in the metrics.
                let _ = self.ledger.propose(ProposalKind::Note, vec![record]);
            }
        }
    }

    fn write_refusal(&self, refused: RequestsRefused) -> bool {
        // The remaining disk space is reserved for revocations.
        if self.ledger.stopped().is_some_and(|no| no.reason == Reason::DiskReserve) {
            return false;
        }
        let record = Record::new(Author::Mayfly("refused".into()), Event::Refused(refused));
        self.ledger.propose(ProposalKind::Note, vec![record]).is_ok()
    }
}

fn wanted(denied: &DeniedExchange) -> RefusedExchange {
    let subject = denied.subject.as_ref();
    let identity = |(issuer, sub): &(String, String)| Principal { issuer: issuer.clone(), sub: sub.clone() };
    RefusedExchange {
        environment: denied.environment.clone(),
        upstream: denied.upstream.0.clone(),
        upstream_version: denied.upstream.1,
        policy_version: denied.policy,
        task: denied.task.map_or_else(Vec::new, |t| t.to_vec()),
        kind: denied.kind.into(),
        scopes: denied.scopes.clone(),
        tool: denied.tool.clone(),
        purpose: denied.purpose.clone(),
        arguments: denied.arguments.map_or_else(Vec::new, |d| d.to_vec()),
        ttl: denied.ttl_ms,
        renewal: denied.renewal,
        binding: denied.binding.clone(),
        subject: subject.map(|s| identity(&s.subject)),
        actors: subject.map_or_else(Vec::new, |s| s.actors.iter().map(identity).collect()),
        details: denied.authorization_details.clone(),
        subject_claims: subject.map(|s| SubjectClaims { groups: s.groups.clone(), scopes: s.scopes.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Millis = Millis(1_795_132_800_000);

    #[test]
    fn the_first_few_are_recorded_and_the_others_counted_until_the_minute_is_over() {
        let mut counters = RefusalCounters::default();
        assert!(counters.over(T).is_empty());
        for n in 0..10 {
            let expected = usize::from(n < limits::REFUSALS_RECORDED);
            assert_eq!(counters.take("a", Reason::Locked, T.plus(u64::from(n)), 1), expected);
        }
        assert_eq!(counters.take("a", Reason::Revoked, T, 1), 1, "another reason");
        assert_eq!(counters.take("b", Reason::Locked, T, 1), 1, "another caller");
        assert!(counters.over(T.plus(MINUTE - 1)).is_empty());
        let over = counters.over(T.plus(MINUTE));
        assert_eq!(over.len(), 1);
        assert_eq!((&*over[0].caller, &*over[0].reason, over[0].count), ("a", "LOCKED", 7));
        assert_eq!(over[0].since, T.plus(3).0, "the first that was counted");
        assert_eq!(counters.take("a", Reason::Locked, T.plus(MINUTE), 1), 1, "a new minute");
    }

    #[test]
    fn of_several_at_once_the_first_are_recorded_and_the_others_counted() {
        let (mut counters, most) = (RefusalCounters::default(), limits::REFUSALS_RECORDED as usize);
        counters.over(T);
        assert_eq!(counters.take("a", Reason::Locked, T, 1), 1);
        assert_eq!(counters.take("a", Reason::Locked, T.plus(1), 32), most - 1);
        assert_eq!(counters.take("a", Reason::Locked, T.plus(2), 32), 0);
        let over = counters.over(T.plus(MINUTE));
        assert_eq!((over[0].count, over[0].since), (65 - most as u64, T.plus(1).0));
    }

    #[test]
    fn callers_beyond_the_bound_are_counted_together() {
        let mut counters = RefusalCounters::default();
        counters.over(T);
        for n in 0..limits::REFUSAL_COUNTERS + 100 {
            counters.take(&format!("c{n}"), Reason::Locked, T, 1);
        }
        assert_eq!(counters.each.len(), limits::REFUSAL_COUNTERS + 1);
        let over = counters.over(T.plus(MINUTE));
        assert_eq!(over.len(), 1);
        assert_eq!((&*over[0].caller, over[0].count), ("", 100 - u64::from(limits::REFUSALS_RECORDED)));
    }

    #[test]
    fn nothing_is_lost_when_a_record_could_not_be_written() {
        let mut counters = RefusalCounters::default();
        counters.over(T);
        counters.take("a", Reason::Locked, T, 1);
        counters.missed("a", Reason::Locked, T);
        assert_eq!(counters.over(T.plus(MINUTE))[0].count, 1);
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
    }
}
