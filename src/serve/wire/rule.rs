//! Rules and locks.

use super::{identity_of_who, target_to_pb, timestamp};
use crate::ledger::record::{Event, Record, Who};
use crate::pb::mayfly::v1 as pb;
use crate::revocation::Target;
use crate::seq::{Millis, Seq};

/// Who made a rule or lock, why and when: what its record says and memory does not keep.
#[derive(Clone, Debug)]
pub struct Cause {
    /// Its author.
    pub author: Who,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Millis,
}

impl Cause {
    /// From the record that made the rule; `None` where that is none.
    pub fn of(record: &Record, at: Millis) -> Option<Cause> {
        let reason = match record.event.as_ref()? {
            Event::Revoked(e) => e.reason.clone(),
            Event::TaskClosed(e) => e.reason.clone(),
            Event::Released(_) => "given back".to_owned(),
            Event::GenerationBegun(e) => e.cause.clone(),
            _ => return None,
        };
        Some(Cause { author: record.author.as_ref()?.who.clone()?, reason, at })
    }
}

/// A rule, without what it hit. Without a cause, author, reason and time are absent: history no longer has its record.
pub fn rule_to_pb(seq: Seq, targets: &[Target], until: Millis, issued_only: bool, cause: Option<&Cause>) -> pb::Rule {
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

/// A lock. `index`: which of its record's targets it is.
pub fn lock_to_pb(seq: Seq, index: u32, target: &Target, cause: Option<&Cause>) -> pb::Lock {
    pb::Lock {
        seq: seq.as_u64(),
        index,
        target: Some(target_to_pb(target)),
        author: cause.map(|c| identity_of_who(&c.author)),
        reason: cause.map_or_else(String::new, |c| c.reason.clone()),
        since: cause.map(|c| timestamp(c.at)),
    }
}
