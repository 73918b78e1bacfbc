//! Break-glass: wide rights that policy defines in advance, for at most an hour, activated by two people and reviewed by a third.
//!
//! Opening, joining and reviewing are decided here by policy, and then by the fold, which alone can guarantee that the people are
//! different. Exchanges in a break-glass task are ordinary exchanges with `context.break_glass` set. While the task is open, its two people
//! cannot change policy, registry, bindings, keys, trust or locks as operators, and cannot give approvals: otherwise two holders of wide
//! rights would be the two people whom such changes require.
//!
//! Closing the task revokes everything issued in it. A static secret (kind `secret`) that the task revealed is marked to be rotated when its
//! lease is undone.

use crate::admission::rate_limits::RateLimitedAct;
use crate::authority::Authority;
use crate::people::approvals::identity;
use crate::redecide::DecisionAttempts;
use crate::tasks::{Actor, IdempotencyKey, request_of};
use mayfly_base::refusal::{Error, Reason, Refusal};
use mayfly_identity::caller::Caller;
use mayfly_ledger::ProposalKind;
use mayfly_ledger::record::{Author, BreakGlassStepTaken, Event, Principal, Record, TaskOutcome};
use mayfly_ledger::state::BreakGlassTask;
use mayfly_policy::admin;
use mayfly_policy::decide::{BreakGlassRequest, decided_on_stale_state};
use mayfly_verify::seq::{Seq, TaskId};

/// A person or workload with an SVID, and the identity under which it acts.
fn somebody(actor: &Actor) -> Result<(&Caller, Principal), Error> {
    actor.caller().zip(identity(actor)).ok_or_else(|| {
        let no = Refusal::new(Reason::NotYours, "break-glass needs a caller with an identity; the local socket has none");
        Error::Refusal(no.by("two people").way_out("call a listener over mTLS, with an SVID"))
    })
}

fn none(id: TaskId) -> Error {
    let no = Refusal::new(Reason::NotFound, format!("there is no break-glass task {id} that you may see"));
    Error::Refusal(no.way_out("mayfly break-glass list shows the tasks that you may see"))
}

impl Authority {
    /// Whether a task is a break-glass task or a child of one.
    pub(crate) fn is_break_glass(&self, id: TaskId) -> bool {
        self.ledger.peek(|s| s.tasks.get(&id).is_some_and(|t| t.terms.break_glass))
    }

    /// The open break-glass task of a caller.
    pub(crate) fn acts_in_break_glass(&self, caller: &Caller) -> Option<TaskId> {
        let now = self.system.wall();
        self.ledger.peek(|s| s.break_glass_tasks.acts(&Principal::of(caller), caller.id().as_str(), now))
    }

    /// Opens a break-glass task, which then waits for its second person.
    pub async fn open_break_glass(
        &self,
        actor: &Actor,
        ask: &BreakGlassRequest,
        named: &IdempotencyKey,
    ) -> Result<TaskId, Error> {
        let (caller, who) = somebody(actor)?;
        let author = Author::of(caller);
        let mut attempts = DecisionAttempts::default();
        loop {
            self.let_in(caller, "this caller")?;
            if let Some(before) = self.remembered(&author.name(), named).await? {
                return Ok(TaskId::from_bytes(before.task));
            }
            if attempts.is_first() {
                self.rates.load().take(RateLimitedAct::Change, caller.id().as_str())?;
            }
            let view = self.ledger.view();
            let id = self.new_task_id();
            let (opened, step) = self.decider.open_break_glass(&view, &self.catalog.now(), (caller, &who), ask, id)?;
            let group = self.ledger.new_group();
            let record = |event| Record { group, ..Record::new(author.clone(), event).decided_at(view.revision()) };
            let opens = record(Event::TaskOpened(opened)).for_request(request_of(&author.name(), named));
            match self.ledger.commit(ProposalKind::Grant, vec![opens, record(Event::BreakGlass(step))]).await {
                Ok(_) => {
                    tracing::warn!(
                        task = %id,
                        rights = ask.rights,
                        who = %who.name(),
                        "a break-glass task was requested and waits for a second person"
                    );
                    return Ok(id);
                }
                Err(no) => self.redecide(&mut attempts, no, decided_on_stale_state).await?,
            }
        }
    }

    /// Joins a break-glass task as the second person, which activates it.
    pub async fn join_glass(&self, actor: &Actor, id: TaskId, reason: &str, named: &IdempotencyKey) -> Result<(), Error> {
        let (caller, who) = somebody(actor)?;
        let decide = |view: &_, break_glass: &_| {
            self.decider.join_glass(view, &self.catalog.now(), (caller, &who), (id, break_glass), reason)
        };
        self.step_glass(ProposalKind::Grant, caller, id, named, decide).await?;
        tracing::warn!(task = %id, who = %who.name(), "a break-glass task is open");
        Ok(())
    }

    /// Records the review of a break-glass task by a third person.
    pub async fn review_glass(&self, actor: &Actor, id: TaskId, text: &str, named: &IdempotencyKey) -> Result<(), Error> {
        let (caller, who) = somebody(actor)?;
        let decide = |view: &_, break_glass: &_| {
            self.decider.review_glass(view, &self.catalog.now(), (caller, &who), (id, break_glass), text)
        };
        self.step_glass(ProposalKind::Change, caller, id, named, decide).await
    }

    async fn step_glass(
        &self,
        lane: ProposalKind,
        caller: &Caller,
        id: TaskId,
        named: &IdempotencyKey,
        decide: impl Fn(&mayfly_ledger::View, &BreakGlassTask) -> Result<BreakGlassStepTaken, Error>,
    ) -> Result<(), Error> {
        let author = Author::of(caller);
        let mut attempts = DecisionAttempts::default();
        loop {
            self.let_in(caller, "this caller")?;
            if self.remembered(&author.name(), named).await?.is_some() {
                return Ok(());
            }
            if attempts.is_first() {
                self.rates.load().take(RateLimitedAct::Change, caller.id().as_str())?;
            }
            let view = self.ledger.view();
            let break_glass = view.read(|s| s.break_glass_tasks.get(&id).cloned()).ok_or_else(|| none(id))?;
            let step = decide(&view, &break_glass)?;
            let record = Record::new(author.clone(), Event::BreakGlass(step)).decided_at(view.revision());
            match self.ledger.commit(lane, vec![record.for_request(request_of(&author.name(), named))]).await {
                Ok(_) => return Ok(()),
                Err(no) => self.redecide(&mut attempts, no, decided_on_stale_state).await?,
            }
        }
    }

    /// Closes a break-glass task and revokes everything issued in it. A repeat returns the sequence number of the first closing.
    pub async fn close_glass(&self, actor: &Actor, id: TaskId, reason: &str) -> Result<Seq, Error> {
        let break_glass = self.ledger.peek(|s| s.break_glass_tasks.get(&id).filter(|_| s.tasks.get(&id).is_some()).cloned());
        let break_glass = break_glass.filter(|break_glass| self.sees_break_glass(actor, break_glass)).ok_or_else(|| none(id))?;
        match somebody(actor) {
            // The people of the task close it under that identity, even if they are operators too.
            Ok((caller, who)) if break_glass.is_of(&who, caller.id().as_str()) => {
                self.close_task(&Actor::Workload(caller.clone()), id, TaskOutcome::Completed, reason).await
            }
            _ => self.close_task(actor, id, TaskOutcome::Completed, reason).await,
        }
    }

    /// Whether an actor may see a break-glass task: its people, those whom policy names for it, and operators.
    pub fn sees_break_glass(&self, actor: &Actor, break_glass: &BreakGlassTask) -> bool {
        let own = |(caller, who): (&Caller, Principal)| {
            break_glass.is_of(&who, caller.id().as_str())
                || self.decider.named_for_glass(&self.catalog.now(), (caller, &who), break_glass)
        };
        if somebody(actor).is_ok_and(own) {
            return true;
        }
        match actor {
            Actor::Operator(operator) => self.admit::<admin::Observe>(operator, Some(&break_glass.environment)).is_ok(),
            Actor::Workload(_) => false,
        }
    }

    /// Closes expired break-glass tasks by a record, so that everything that follows the ledger learns of it.
    pub fn end_break_glass_tasks(&self) {
        let now = self.system.wall();
        let due = self.ledger.peek(|s| {
            let over = s.break_glass_tasks.iter().filter(|(_, g)| g.ended.is_none() && g.over(now));
            // The fold's time may lag behind this clock, so the task is checked again in the next pass.
            over.map(|(id, _)| *id).filter(|id| s.tasks.get(id).is_some_and(|t| t.closed.is_none())).collect::<Vec<_>>()
        });
        due.into_iter().for_each(|id| self.end_by_time(id, now, ("deadline passed", "its time was up")));
    }
}
