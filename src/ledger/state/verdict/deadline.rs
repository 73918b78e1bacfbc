//! Verdicts on records of deadlines: not too early, and once each.

use super::super::{State, Verdict};
use super::{malformed, stale};
use crate::record::{DeadlineKind, DeadlineReached};
use mayfly_verify::seq::{ApprovalId, Millis};

impl State {
    pub(super) fn may_fall_due(&self, e: &DeadlineReached, time: Millis) -> Verdict {
        let told = match DeadlineKind::try_from(e.of) {
            Ok(DeadlineKind::Approval) => {
                let approval = ApprovalId::from_slice(&e.id).and_then(|id| self.approvals.get(&id));
                approval.map(|a| a.due_told || a.decided.is_some() || a.expires_at() > time)
            }
            Ok(DeadlineKind::Upstream) => {
                let version = self.upstreams.get(e.name.as_str()).filter(|v| v.version == e.version);
                version.map(|v| v.due_told)
            }
            Ok(DeadlineKind::Unspecified) | Err(_) => return Err(malformed("nothing known that fell due")),
        };
        match told {
            Some(false) => Ok(()),
            _ => Err(stale("it is not due, or was told already")),
        }
    }
}
