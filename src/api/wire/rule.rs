//! Revocation rules and locks on the wire.

use super::{identity_of_who, target_to_pb, timestamp};
use mayfly_ledger::record::{Author, Event, Record};
use mayfly_ledger::revocation::Target;
use mayfly_proto::mayfly::v1 as pb;
use mayfly_verify::seq::{Millis, Seq};

/// The author, reason and time of a rule or lock: they are in its record and not in memory.
#[derive(Clone, Debug)]
pub struct RuleCause {
    /// The record's author.
    pub author: Author,
    /// The reason.
    pub reason: String,
    /// The time.
    pub at: Millis,
}

impl RuleCause {
    /// The cause from the record that made the rule; `None` if the record makes no rule.
    pub fn of(record: &Record, at: Millis) -> Option<RuleCause> {
        let reason = match record.event.as_ref()? {
            Event::Revoked(e) => e.reason.clone(),
            Event::TaskClosed(e) => e.reason.clone(),
            Event::Released(_) => "given back".to_owned(),
            Event::GenerationBegun(e) => e.cause.clone(),
            _ => return None,
        };
        Some(RuleCause { author: record.author.as_ref()?.who.clone()?, reason, at })
    }
}

/// A rule, without the number of credentials that it hit. If history no longer has its record, author, reason and time are absent.
pub fn rule_to_pb(seq: Seq, targets: &[Target], until: Millis, issued_only: bool, cause: Option<&RuleCause>) -> pb::Rule {
    pb::Rule {
        seq: seq.as_u64(),
        targets: targets.iter().map(target_to_pb).collect(),
        author: cause.map(|c| identity_of_who(&c.author)),
        reason: cause.map_or_else(String::new, |c| c.reason.clone()),
        at: cause.map(|c| timestamp(c.at)),
        kept_until: (until < Millis(u64::MAX)).then(|| timestamp(until)),
        issued_only,
        hits: None,
    }
}

/// A lock. `index`: identifies the lock among those of its record.
pub fn lock_to_pb(seq: Seq, index: u32, target: &Target, cause: Option<&RuleCause>) -> pb::Lock {
    pb::Lock {
        seq: seq.as_u64(),
        index,
        target: Some(target_to_pb(target)),
        author: cause.map(|c| identity_of_who(&c.author)),
        reason: cause.map_or_else(String::new, |c| c.reason.clone()),
        since: cause.map(|c| timestamp(c.at)),
    }
}
