//! Verdicts on tasks that wait for an approval, are opened by one, or are extended by one: only for exactly the terms that approvers were
//! shown.

use prost::Message;

use super::super::tasks::Task;
use super::super::{State, Verdict};
use super::approval::unusable;
use super::{GroupEffects, malformed, refused_by, stale};
use crate::commit::sha256;
use crate::record::{ApprovalKind, ApprovalRequested, RequestedTask, TaskExtended, TaskOpened};
use mayfly_base::limits;
use mayfly_base::refusal::{Reason, Refusal};
use mayfly_verify::seq::{ApprovalId, Millis, Seq, TaskId};

/// SHA-256 over everything that approvers are shown of a task: the whole record except the approval's own id and expiry. The fold computes
/// it again, so approvers approve what the ledger contains.
pub fn digest_of_task(asked: &ApprovalRequested) -> [u8; 32] {
    let shown = ApprovalRequested { approval: Vec::new(), digest: Vec::new(), expires_at: 0, ..asked.clone() };
    let mut bytes = b"mayfly approval of a task 1".to_vec();
    bytes.extend_from_slice(&shown.encode_to_vec());
    sha256(&bytes)
}

fn terms_of(opened: &TaskOpened) -> RequestedTask {
    RequestedTask::opening(opened, &opened.allowance.clone().unwrap_or_default())
}

/// Whether the task that is opened with an issuance is the one that was approved with it.
pub(super) fn opens_the_same(asked: &ApprovalRequested, opened: &TaskOpened) -> bool {
    asked.terms.as_ref().is_some_and(|terms| terms.differs(&terms_of(opened)).is_none())
}

impl GroupEffects<'_> {
    /// Every waiting task must have its approval request in the same group: no task waits for an approval that was not asked for.
    pub(super) fn all_asked(&self) -> Verdict {
        let waits = |t: &&&TaskOpened| !t.approval.is_empty();
        match self.tasks.iter().filter(waits).find(|t| t.break_glass || !self.asked.contains(&&t.approval[..])) {
            Some(_) => Err(malformed("a task that waits for an approval that nobody is asked for")),
            None => Ok(()),
        }
    }
}

impl State {
    /// An approval request for a task must describe exactly that task.
    pub(super) fn may_ask_for_task<'a>(&self, e: &'a ApprovalRequested, time: Millis, pending: &mut GroupEffects<'a>) -> Verdict {
        let terms = match (e.of(), e.terms.as_deref()) {
            (ApprovalKind::Task | ApprovalKind::Extension, None) => {
                return Err(malformed("an approval of a task without its terms"));
            }
            (_, None) => return Ok(()),
            (ApprovalKind::Action | ApprovalKind::Change | ApprovalKind::Call, Some(_)) => {
                return Err(malformed("an approval of an action, a change or a call with the terms of a task"));
            }
            (_, Some(terms)) => terms,
        };
        if terms.encoded_len() > limits::APPROVAL_TERMS_BYTES {
            let most = limits::APPROVAL_TERMS_BYTES as u64;
            return Err(Refusal::limit("approval_terms_bytes", most, std::time::Duration::ZERO));
        }
        self.registrations_stand(e)?;
        match e.of() {
            ApprovalKind::Task => self.may_wait(e, terms, pending),
            ApprovalKind::Extension => self.may_ask_for_more(e, terms, time),
            _ => Ok(()),
        }
    }

    fn may_wait<'a>(&self, e: &'a ApprovalRequested, terms: &RequestedTask, pending: &mut GroupEffects<'a>) -> Verdict {
        let opens = |t: &&&TaskOpened| t.task == e.task && t.approval == e.approval;
        let Some(opened) = pending.tasks.iter().find(opens) else {
            return Err(malformed("an approval of a task that is not opened with it"));
        };
        let whole = RequestedTask { registrations: terms.registrations.clone(), ..terms_of(opened) };
        let by = opened.opener == e.caller && opened.environment == e.environment && opened.actors == e.actors;
        if *terms != whole || !by || terms.registrations.is_empty() || e.digest != digest_of_task(e) {
            return Err(malformed("an approval of other terms than those of its task"));
        }
        pending.asked.push(&e.approval);
        Ok(())
    }

    fn may_ask_for_more(&self, e: &ApprovalRequested, terms: &RequestedTask, time: Millis) -> Verdict {
        let task = self.active_task(&e.task, time)?;
        let known = &task.terms;
        let same = terms.owner.as_ref() == known.owners.last()
            && terms.callers.iter().map(String::as_str).eq(known.callers.iter().map(|c| &**c))
            && terms.allowance.as_ref() == Some(&*known.allowance)
            && *terms.purpose == *known.purpose
            && *e.environment == *known.environment
            && terms.ttl == terms.deadline.saturating_sub(known.opened_at.0);
        if !same || terms.deadline == 0 || terms.registrations.is_empty() || e.digest != digest_of_task(e) {
            return Err(malformed("an approval of more time for another task than it names"));
        }
        Ok(())
    }

    pub(super) fn registration_stands(&self, upstream: &str, version: u64) -> Verdict {
        let now = self.upstreams.get(upstream).filter(|v| v.in_force()).map_or(0, |v| v.version);
        if now != version {
            return Err(stale(format!("the registration of {upstream} changed since it was asked for")));
        }
        Ok(())
    }

    /// The approvers must be those that these registrations name now.
    pub(super) fn registrations_stand(&self, asked: &ApprovalRequested) -> Verdict {
        let mut all = asked.terms.iter().flat_map(|t| &t.registrations);
        all.try_for_each(|r| self.registration_stands(&r.upstream, r.version))
    }

    /// Whether the task may open with the approval, as it was decided when the approval was asked for: with the policy in effect, and with
    /// nothing revoked since.
    pub(super) fn may_open_with(&self, asked: &ApprovalRequested) -> Verdict {
        if asked.of() != ApprovalKind::Task {
            return Ok(());
        }
        let waits = |t: &&Task| t.pending && t.closed.is_none();
        let task = TaskId::from_slice(&asked.task).and_then(|id| self.tasks.get(&id)).filter(waits);
        let task = task.ok_or_else(|| Refusal::new(Reason::TaskNotActive, "the task no longer waits for an approval"))?;
        self.version_in_force(&task.terms.environment, task.terms.policy)?;
        let opening = self.rules.blocks(&self.opening(&task.terms));
        match opening.or_else(|| self.revoked_by(task).map(|(_, hit)| hit)) {
            Some(hit) => Err(refused_by(&hit, &format!("task {}", task.terms.id))),
            None => Ok(()),
        }
    }

    /// Whether a task may be extended: decided like an opening, and with another approval if the opening took one.
    pub(super) fn may_extend<'a>(
        &'a self,
        e: &'a TaskExtended,
        revision: Seq,
        time: Millis,
        pending: &mut GroupEffects<'a>,
    ) -> Verdict {
        self.timely(e.decided_at, revision, time)?;
        let task = self.active_task(&e.task, time)?;
        if task.terms.break_glass {
            return Err(Refusal::new(Reason::NoLifeLeft, "a break-glass task cannot be extended"));
        }
        self.version_in_force(&task.terms.environment, e.policy_version)?;
        let parent = self.tasks.upwards(task).nth(1).map_or(Millis(u64::MAX), |p| p.deadline);
        // An earlier deadline would be outlived by credentials issued up to the former one.
        let deadline = Millis(e.deadline);
        if deadline > task.terms.max_deadline.min(parent) || deadline <= time || deadline < task.deadline {
            return Err(Refusal::new(Reason::NoLifeLeft, "the new deadline is not within the task's bounds"));
        }
        let rests_on = self.extension_approved(e, task, revision, time, pending)?;
        self.rules_known_since(rests_on)?;
        self.not_blocked(task, rests_on)
    }

    /// The decision revision of the extension: that of the approval that it uses up, or its own.
    fn extension_approved<'a>(
        &self,
        e: &'a TaskExtended,
        task: &Task,
        revision: Seq,
        time: Millis,
        pending: &mut GroupEffects<'a>,
    ) -> Result<Seq, Refusal> {
        if e.approval.is_empty() {
            return match &task.approved {
                Some(first) if Millis(e.deadline) > task.deadline => Err(Refusal::new(
                    Reason::ApprovalNeeded,
                    format!("task {} was opened with approval {}: extending it needs another approval", task.terms.id, first.id),
                )),
                _ => Ok(revision),
            };
        }
        let id = ApprovalId::from_slice(&e.approval).ok_or_else(|| malformed("an approval id that is not 16 bytes"))?;
        let found = self.approvals.get(&id);
        let Some((approval, given)) = found.and_then(|a| Some((a, a.usable(time).filter(|given| *given <= revision)?))) else {
            return Err(unusable(&id, "is not, or no longer, usable"));
        };
        let asked = &approval.asked;
        let until = asked.terms.as_ref().map_or(0, |terms| terms.deadline);
        let same = [
            ("kind of thing", asked.of() == ApprovalKind::Extension),
            ("task", asked.task == e.task),
            ("caller", asked.caller == e.caller),
            ("deadline", until == e.deadline),
        ];
        if let Some((what, _)) = same.into_iter().find(|(_, same)| !same) {
            return Err(unusable(&id, &format!("was given for another {what}")));
        }
        if pending.approvals.contains(&&e.approval[..]) {
            return Err(unusable(&id, "is used once, not twice"));
        }
        self.registrations_stand(asked)?;
        pending.approvals.push(&e.approval);
        Ok(given.min(revision))
    }
}
