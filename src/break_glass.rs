//! Break-glass: wide rights that policy names in advance, for an hour, by two people, looked at by a third.
//!
//! Opening, joining and reviewing are decided here with policy, and by the fold: that there are two, and a third, is true there or nowhere.
//! What is exchanged in it goes the way of every exchange, with `context.break_glass`. It changes nothing that lasts: as long as it is open, its
//! two people are refused, as operators, what changes policy, registry, bindings, keys, trust and locks, and approve nothing. Two who hold wide
//! rights together would otherwise be the two whom such changes take.
//!
//! What it gave ends with it: closing its task revokes all that was issued in it. A static secret that was shown would have to be rotated as
//! well; no kind of credential shows one in this version (the `secret` kind, design, section 7).

use crate::approvals::identity;
use crate::authority::Authority;
use crate::identity::caller::Caller;
use crate::ledger::Lane;
use crate::ledger::record::{BreakGlass, Event, Identity, Outcome, Record, Who};
use crate::ledger::state::Glass;
use crate::policy::admin;
use crate::policy::decide::{GlassAsk, decided_on_old_state};
use crate::rates::Act;
use crate::refusal::{Fault, No, Reason, Refusal};
use crate::seq::{Seq, TaskId};
use crate::tasks::{Actor, Named, request_of};

/// A decision that ran into a change is made once more before the caller is told to try again.
const TRIES: usize = 2;

/// Somebody with a name, and the workload identity by which they act.
fn somebody(actor: &Actor) -> Result<(&Caller, Identity), No> {
    actor.caller().zip(identity(actor)).ok_or_else(|| {
        let no = Refusal::new(Reason::NotYours, "break-glass takes somebody with a name; the local socket counts as nobody");
        No::Refusal(no.by("two people").way_out("ask over a listener, with an SVID"))
    })
}

fn none(id: TaskId) -> No {
    let no = Refusal::new(Reason::NotFound, format!("there is no break-glass task {id} that you may know of"));
    No::Refusal(no.way_out("mayfly break-glass list shows those there are"))
}

impl Authority {
    /// Whether a task is a break-glass task, or below one.
    pub(crate) fn is_glass(&self, id: TaskId) -> bool {
        self.ledger.peek(|s| s.tasks.get(&id).is_some_and(|t| t.terms.break_glass))
    }

    /// The break-glass task that somebody acts in at this moment.
    pub(crate) fn acts_in_glass(&self, caller: &Caller) -> Option<TaskId> {
        let now = self.system.wall();
        self.ledger.peek(|s| s.glasses.acts(&Identity::of(caller), caller.id().as_str(), now))
    }

    /// Opens one: it waits for its second person.
    pub async fn open_glass(&self, actor: &Actor, ask: &GlassAsk, named: &Named) -> Result<TaskId, No> {
        let (caller, who) = somebody(actor)?;
        let author = Who::of(caller);
        for again in 1.. {
            self.let_in(caller, "this caller")?;
            if let Some(before) = self.remembered(&author.name(), named).await? {
                return Ok(TaskId::from_bytes(before.task));
            }
            if again == 1 {
                self.rates.load().take(Act::Change, caller.id().as_str())?;
            }
            let view = self.ledger.view();
            let id = self.new_task_id();
            let (opened, step) = self.decider.open_glass(&view, &self.catalog.now(), (caller, &who), ask, id)?;
            let group = self.ledger.new_group();
            let record = |event| Record { group, ..Record::new(author.clone(), event).decided_at(view.revision()) };
            let opens = record(Event::TaskOpened(opened)).for_request(request_of(&author.name(), named));
            match self.ledger.commit(Lane::Grant, vec![opens, record(Event::BreakGlass(step))]).await {
                Ok(_) => {
                    tracing::warn!(task = %id, rights = ask.rights, who = %who.name(), "break-glass was asked for");
                    return Ok(id);
                }
                Err(no) if again < TRIES && decided_on_old_state(&no) => self.ledger.settled(|_| ()).await?,
                Err(no) => return Err(no),
            }
        }
        Err(No::Fault(Fault::new("opening break-glass: tries ran out")))
    }

    /// Joins one as the second person: with that it is active.
    pub async fn join_glass(&self, actor: &Actor, id: TaskId, reason: &str, named: &Named) -> Result<(), No> {
        let (caller, who) = somebody(actor)?;
        let decide =
            |view: &_, glass: &_| self.decider.join_glass(view, &self.catalog.now(), (caller, &who), (id, glass), reason);
        self.step_glass(Lane::Grant, caller, id, named, decide).await?;
        tracing::warn!(task = %id, who = %who.name(), "break-glass is open");
        Ok(())
    }

    /// Says that a third person looked at what was done in one.
    pub async fn review_glass(&self, actor: &Actor, id: TaskId, text: &str, named: &Named) -> Result<(), No> {
        let (caller, who) = somebody(actor)?;
        let decide =
            |view: &_, glass: &_| self.decider.review_glass(view, &self.catalog.now(), (caller, &who), (id, glass), text);
        self.step_glass(Lane::Change, caller, id, named, decide).await
    }

    async fn step_glass(
        &self,
        lane: Lane,
        caller: &Caller,
        id: TaskId,
        named: &Named,
        decide: impl Fn(&crate::ledger::View, &Glass) -> Result<BreakGlass, No>,
    ) -> Result<(), No> {
        let author = Who::of(caller);
        for again in 1.. {
            self.let_in(caller, "this caller")?;
            if self.remembered(&author.name(), named).await?.is_some() {
                return Ok(());
            }
            if again == 1 {
                self.rates.load().take(Act::Change, caller.id().as_str())?;
            }
            let view = self.ledger.view();
            let glass = view.read(|s| s.glasses.get(&id).cloned()).ok_or_else(|| none(id))?;
            let step = decide(&view, &glass)?;
            let record = Record::new(author.clone(), Event::BreakGlass(step)).decided_at(view.revision());
            match self.ledger.commit(lane, vec![record.for_request(request_of(&author.name(), named))]).await {
                Ok(_) => return Ok(()),
                Err(no) if again < TRIES && decided_on_old_state(&no) => self.ledger.settled(|_| ()).await?,
                Err(no) => return Err(no),
            }
        }
        Err(No::Fault(Fault::new("a step of break-glass: tries ran out")))
    }

    /// Ends one, and revokes all that was issued in it. A repeat gets the seq of the first ending.
    pub async fn close_glass(&self, actor: &Actor, id: TaskId, reason: &str) -> Result<Seq, No> {
        let glass = self.ledger.peek(|s| s.glasses.get(&id).filter(|_| s.tasks.get(&id).is_some()).cloned());
        let glass = glass.filter(|glass| self.sees_glass(actor, glass)).ok_or_else(|| none(id))?;
        match somebody(actor) {
            // Its people end it as what they are, whoever they are else.
            Ok((caller, who)) if glass.is_of(&who, caller.id().as_str()) => {
                self.close_task(&Actor::Workload(caller.clone()), id, Outcome::Completed, reason).await
            }
            _ => self.close_task(actor, id, Outcome::Completed, reason).await,
        }
    }

    /// Whether somebody may see one: its people, those whom policy names for it, and operators.
    pub fn sees_glass(&self, actor: &Actor, glass: &Glass) -> bool {
        let own = |(caller, who): (&Caller, Identity)| {
            glass.is_of(&who, caller.id().as_str()) || self.decider.named_for_glass(&self.catalog.now(), (caller, &who), glass)
        };
        if somebody(actor).is_ok_and(own) {
            return true;
        }
        match actor {
            Actor::Operator(operator) => self.admit::<admin::Observe>(operator, Some(&glass.environment)).is_ok(),
            Actor::Workload(_) => false,
        }
    }

    /// Those whose time is up are closed by a record, so that everybody who follows the ledger is told.
    pub fn end_glasses(&self) {
        let now = self.system.wall();
        let due = self.ledger.peek(|s| {
            let over = s.glasses.iter().filter(|(_, g)| g.ended.is_none() && g.over(now));
            // The fold's time may stand behind this clock: it is asked again.
            over.map(|(id, _)| *id).filter(|id| s.tasks.get(id).is_some_and(|t| t.closed.is_none())).collect::<Vec<_>>()
        });
        due.into_iter().for_each(|id| self.end_by_time(id, now, ("deadline passed", "its time was up")));
    }
}
