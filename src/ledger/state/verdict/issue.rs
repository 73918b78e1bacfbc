//! The verdict on an issuance.

use super::super::{Issuance, State, Verdict, facts_of};
use super::{GroupEffects, malformed, refused_by, stale};
use crate::record::{CredentialIssued, KeyState, Principal};
use crate::revocation::TargetKinds;
use mayfly_base::limits;
use mayfly_base::refusal::{Reason, Refusal};
use mayfly_verify::seq::{CredentialId, LeaseId, Millis, Seq, TaskId};

/// In a break-glass task only its two people act, no approval widens it, and each issuance is marked as break-glass.
pub(super) fn in_break_glass(e: &CredentialIssued, break_glass: bool, admitted: impl Fn() -> bool) -> Verdict {
    match (break_glass, e.break_glass) {
        (false, false) => Ok(()),
        (true, true) if !e.approval.is_empty() => {
            Err(Refusal::new(Reason::OutsideTask, "an approval gives nothing beyond what break-glass was opened for"))
        }
        (true, true) if admitted() => Ok(()),
        (true, true) => {
            Err(Refusal::new(Reason::NotYours, format!("{} is not one of the two people of the break-glass task", e.caller)))
        }
        (true, false) | (false, true) => Err(malformed("an issuance that does not say whether it happens in break-glass")),
    }
}

impl State {
    pub(super) fn may_issue<'a>(
        &'a self,
        issuance: Issuance<'a>,
        revision: Seq,
        time: Millis,
        pending: &mut GroupEffects<'a>,
    ) -> Verdict {
        let e = issuance.shared;
        let id =
            CredentialId::from_slice(issuance.credential).ok_or_else(|| malformed("a credential id that is not 16 bytes"))?;
        if self.credentials.get(&id).is_some() || pending.credentials.contains(&issuance.credential) {
            return Err(stale(format!("credential {id} exists already")));
        }
        if issuance.tool.len() > limits::NAME_BYTES {
            return Err(malformed("a tool of more than 256 bytes"));
        }
        let with_it = pending.credentials.len();
        if !pending.alone {
            pending.credentials.push(issuance.credential);
        }
        self.timely(e.issued_at, revision, time)?;
        self.version_in_force(&e.environment, e.policy_version)?;
        self.registration_in_force(e)?;
        self.key_active(e)?;
        let rests_on =
            self.approval_usable(issuance, revision, time, pending)?.map_or(revision, |approved| approved.min(revision));
        self.rules_known_since(rests_on)?;
        self.lease_open(issuance, pending)?;
        pending.ceilings.credential(self, &e.caller, with_it)?;
        self.ancestors_alive(e, time)?;
        self.may_replace(e, time, pending)?;
        let (mut tasks, mut owners): (&[TaskId], &[Principal]) = (&[], &[]);
        let mut own = None;
        let wall = || Err(Refusal::new(Reason::EnvironmentWall, "task and upstream belong to different environments"));
        let end = match pending.tasks.iter().find(|t| t.task == e.task) {
            Some(task) => {
                // The task was opened by an earlier record of the group: its terms apply unchanged.
                if task.environment != e.environment {
                    return wall();
                }
                if !task.approval.is_empty() {
                    return Err(Refusal::new(Reason::TaskNotActive, "the task waits for an approval"));
                }
                if let Some(parent) = TaskId::from_slice(&task.parent).and_then(|p| self.tasks.get(&p)) {
                    (tasks, owners) = (&parent.terms.path, &parent.terms.owners);
                }
                own = task.owner.as_ref();
                let admitted = || task.opener == e.caller || task.callers.contains(&e.caller);
                in_break_glass(e, task.break_glass, admitted)?;
                task.deadline
            }
            None => {
                let task = self.active_task(&e.task, time)?;
                if *task.terms.environment != *e.environment {
                    return wall();
                }
                (tasks, owners) = (&task.terms.path, &task.terms.owners);
                in_break_glass(e, task.terms.break_glass, || task.admits(&e.caller))?;
                task.deadline.0
            }
        };
        let longest = e.issued_at.saturating_add(limits::CREDENTIAL_TTL_MS);
        if e.expires_at <= time.0 || e.expires_at > end || e.expires_at > longest || e.expires_at > e.renewable_until {
            return Err(Refusal::new(Reason::NoLifeLeft, format!("the end of credential {id} is not within its bounds")));
        }
        if let Some(token) = e.subject_token.as_ref().filter(|token| token.expires_at < e.expires_at) {
            let what = format!("credential {id} would outlive its subject token, which ends at {}", Millis(token.expires_at));
            return Err(Refusal::new(Reason::NoLifeLeft, what));
        }
        let asked = self.rules.may_block(rests_on);
        if asked.is_empty() {
            return Ok(());
        }
        let mut facts = facts_of(issuance, rests_on, tasks, asked);
        if asked.any_of(TargetKinds::OF_IDENTITIES) {
            facts.identities.extend(owners.iter().chain(own).map(|o| (o.issuer.as_str(), o.sub.as_str())));
        }
        match self.rules.blocks(&facts) {
            Some(hit) => Err(refused_by(&hit, "issuing")),
            None => Ok(()),
        }
    }

    pub(super) fn registration_in_force(&self, e: &CredentialIssued) -> Verdict {
        let Some(upstream) = self.upstreams.get(e.upstream.as_str()) else {
            return Err(Refusal::new(Reason::NotFound, format!("there is no upstream {}", e.upstream)));
        };
        if !upstream.in_force() {
            return Err(Refusal::new(Reason::UpstreamNotActive, format!("upstream {} is not active", e.upstream)));
        }
        if upstream.version != e.upstream_version {
            return Err(stale(format!(
                "it was decided with version {} of {}, {} is in force",
                e.upstream_version, e.upstream, upstream.version
            )));
        }
        if !e.binding.is_empty() {
            let now = self.bindings.get(e.binding.as_str()).filter(|b| b.active).map_or(0, |b| b.version);
            if now == 0 || now != e.binding_version {
                return Err(stale(format!(
                    "it was decided with version {} of binding {}, {now} is in force",
                    e.binding_version, e.binding
                )));
            }
        }
        Ok(())
    }

    fn key_active(&self, e: &CredentialIssued) -> Verdict {
        match self.keys.get(e.key.as_str()) {
            Some(key) if key.state == KeyState::Active => Ok(()),
            // Kinds whose credentials another server makes name no key of mayfly.
            None if e.key.is_empty() && !e.lease.is_empty() => Ok(()),
            _ => Err(stale(format!("key {:?} is not active", e.key))),
        }
    }

    fn lease_open(&self, issuance: Issuance<'_>, pending: &GroupEffects<'_>) -> Verdict {
        let (e, credential) = (issuance.shared, issuance.credential);
        if e.lease.is_empty() || pending.leases.iter().any(|l| l.lease == e.lease && l.credential == credential) {
            return Ok(());
        }
        let open = LeaseId::from_slice(&e.lease).and_then(|id| self.leases.get(&id));
        match open {
            Some(lease) if lease.credential.as_bytes()[..] == *credential && !lease.issued => Ok(()),
            _ => Err(stale("its lease is not open")),
        }
    }

    /// The replaced credential must be the same caller's, must have been valid until now, and must be given back by an earlier record of
    /// the group: at no place are both valid, and a retry cannot bring back a revoked credential.
    fn may_replace(&self, e: &CredentialIssued, time: Millis, pending: &GroupEffects<'_>) -> Verdict {
        if e.replaces.is_empty() {
            return Ok(());
        }
        let id = CredentialId::from_slice(&e.replaces).ok_or_else(|| malformed("a credential id that is not 16 bytes"))?;
        self.evidence_alive(&id, time)?;
        let own = self.credentials.get(&id).is_some_and(|live| live.caller() == e.caller);
        if !own || !pending.released.contains(&&e.replaces[..]) {
            return Err(malformed("a replacement of what is another caller's, or not given back before it in its group"));
        }
        Ok(())
    }

    pub(super) fn ancestors_alive(&self, e: &CredentialIssued, time: Millis) -> Verdict {
        if e.ancestors.len() > limits::ANCESTORS {
            return Err(Refusal::limit("ancestors", limits::ANCESTORS as u64, std::time::Duration::ZERO));
        }
        if e.actors.len() > limits::ACT_CHAIN {
            return Err(Refusal::limit("act_chain", limits::ACT_CHAIN as u64, std::time::Duration::ZERO));
        }
        for shown in [&e.renews, &e.shown] {
            if !shown.is_empty() {
                let id = CredentialId::from_slice(shown).ok_or_else(|| malformed("a credential id that is not 16 bytes"))?;
                self.evidence_alive(&id, time)?;
            }
        }
        Ok(())
    }
}
