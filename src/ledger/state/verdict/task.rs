//! Verdicts on task openings, and on heartbeats, holds and extensions of open tasks.

use super::super::task_spec::counted_bytes;
use super::super::tasks::Task;
use super::super::{State, Verdict, add_lineage, svid_facts, trust_domain_of};
use super::{GroupEffects, malformed, policy_in_force, refused_by, stale};
use crate::record::{Allowance, TaskOpened};
use crate::revocation::Facts;
use mayfly_base::limits;
use mayfly_base::refusal::{Reason, Refusal};
use mayfly_verify::seq::{CredentialId, Millis, Seq, TaskId};

impl State {
    pub(super) fn may_open<'a>(
        &'a self,
        e: &'a TaskOpened,
        revision: Seq,
        time: Millis,
        pending: &mut GroupEffects<'a>,
    ) -> Verdict {
        let id = TaskId::from_slice(&e.task).ok_or_else(|| malformed("a task id that is not 16 bytes"))?;
        self.timely(e.opened_at, revision, time)?;
        if self.tasks.get(&id).is_some() || pending.tasks.iter().any(|t| t.task == e.task) {
            return Err(stale(format!("task {id} exists already")));
        }
        let opened_at = Millis(e.opened_at);
        let max_end = opened_at.plus(limits::TASK_TTL_MS);
        if Millis(e.deadline) <= time || e.deadline > e.max_deadline || Millis(e.max_deadline) > max_end {
            return Err(Refusal::new(Reason::NoLifeLeft, format!("the deadline of task {id} is not within its bounds")));
        }
        self.version_in_force(&e.environment, e.policy_version)?;
        let owner = e.owner.as_ref().ok_or_else(|| malformed("a task without an owner"))?;
        let domain = trust_domain_of(&e.opener);
        self.within_break_glass(e, pending)?;
        let mut facts = Facts {
            revision,
            tasks: vec![id],
            identities: vec![(domain, &e.opener), (&owner.issuer, &owner.sub)],
            environment: &e.environment,
            policy: e.policy_version,
            svid: e.svid.as_ref().map(|s| svid_facts(domain, s)),
            ..Facts::default()
        };
        facts.credentials.extend(CredentialId::from_slice(&e.ancestor));
        add_lineage(&mut facts, &e.ancestors, None, &e.actors, e.subject_token.as_ref());
        if let Some(token) = &e.subject_token {
            // A task on somebody's behalf ends when the proof of that expires.
            if e.max_deadline > token.expires_at {
                return Err(Refusal::new(Reason::NoLifeLeft, format!("task {id} would outlive its subject token")));
            }
        }
        if e.actors.len() > limits::ACT_CHAIN {
            return Err(Refusal::limit("act_chain", limits::ACT_CHAIN as u64, std::time::Duration::ZERO));
        }
        if e.ancestors.len() > limits::ANCESTORS {
            return Err(Refusal::limit("ancestors", limits::ANCESTORS as u64, std::time::Duration::ZERO));
        }
        if e.ancestors.last().is_some_and(|last| last.credential != e.ancestor) {
            return Err(malformed("a lineage of ancestors that ends with another credential than was shown"));
        }
        if !e.parent.is_empty() {
            let parent = self.active_task(&e.parent, time)?;
            self.child_within(e, parent)?;
            facts.tasks.extend(&parent.terms.path);
            facts.identities.extend(parent.terms.owners.iter().map(|o| (o.issuer.as_str(), o.sub.as_str())));
        }
        if let Some(ancestor) = CredentialId::from_slice(&e.ancestor) {
            self.evidence_alive(&ancestor, time)?;
        }
        if let Some(hit) = self.rules.blocks(&facts) {
            return Err(refused_by(&hit, "opening a task"));
        }
        let with_it = pending.tasks.iter().filter(|t| t.opener == e.opener).count();
        pending.ceilings.task(self, &e.opener, (pending.tasks.len(), with_it))?;
        let bytes = counted_bytes(e);
        if bytes > 0 {
            let sum =
                |own: bool| pending.tasks.iter().filter(|t| !own || t.opener == e.opener).map(|t| counted_bytes(t)).sum::<u64>();
            pending.ceilings.task_terms(self, (&e.opener, bytes), (sum(false), sum(true)))?;
        }
        pending.tasks.push(e);
        Ok(())
    }

    /// A child task must not be wider than its parent.
    fn child_within(&self, e: &TaskOpened, parent: &Task) -> Verdict {
        let wider = |what: &str| {
            Err(Refusal::new(Reason::WiderThanParent, format!("a child task would be wider than {}: {what}", parent.terms.id)))
        };
        if parent.terms.path.len() >= limits::TASK_DEPTH {
            return Err(Refusal::limit("task_depth", limits::TASK_DEPTH as u64, std::time::Duration::ZERO));
        }
        if *parent.terms.environment != *e.environment {
            return wider("another environment");
        }
        if e.deadline > parent.deadline.0 || e.max_deadline > parent.terms.max_deadline.0 {
            return wider("a later deadline");
        }
        let none = Allowance::default();
        match e.allowance.as_ref().unwrap_or(&none).wider_than(&parent.terms.allowance) {
            Some(what) => wider(&what),
            None => Ok(()),
        }
    }

    pub(super) fn known_task(&self, id: &[u8], fits: impl Fn(&Task) -> bool, otherwise: &str) -> Verdict {
        let id = TaskId::from_slice(id).ok_or_else(|| malformed("a task id that is not 16 bytes"))?;
        match self.tasks.get(&id) {
            Some(task) if fits(task) => Ok(()),
            Some(_) => Err(Refusal::new(Reason::TaskNotActive, format!("task {id} {otherwise}"))),
            None => Err(Refusal::new(Reason::NotFound, format!("there is no task {id}"))),
        }
    }

    pub(super) fn not_blocked(&self, task: &Task, revision: Seq) -> Verdict {
        let mut facts =
            Facts { revision, tasks: task.terms.path.clone(), environment: &task.terms.environment, ..Facts::default() };
        facts.policy = policy_in_force(self, &task.terms.environment);
        facts.identities.push((trust_domain_of(&task.terms.opener), &task.terms.opener));
        facts.identities.extend(task.terms.owners.iter().map(|o| (o.issuer.as_str(), o.sub.as_str())));
        if let Some(behalf) = task.terms.behalf.as_deref() {
            // Each of these identities acts in the task: none may get more time through it while locked.
            add_lineage(&mut facts, &behalf.lineage, None, &behalf.actors, behalf.token.as_ref());
        }
        match self.rules.blocks(&facts) {
            Some(hit) => Err(refused_by(&hit, "extending a task")),
            None => Ok(()),
        }
    }
}
