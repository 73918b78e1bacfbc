//! Opening and extending tasks, at once or with an approval.
//!
//! A task that needs an approval exists from the request on, and takes no grants until it is approved. An extension that needs an approval
//! works as for an exchange: the same request is sent again after the approval.

use crate::admission::rate_limits::RateLimitedAct;
use crate::authority::Authority;
use crate::people::approvals::{needs_approval, waits_for};
use crate::redecide::{DecisionAttempts, is_void};
use crate::tasks::{Actor, IdempotencyKey, request_of};
use mayfly_base::refusal::{Error, Reason, Refusal};
use mayfly_identity::caller::Caller;
use mayfly_ledger::record::{ApprovalRequested, Author, Event, Record, TaskExtended};
use mayfly_ledger::state::{State, Task};
use mayfly_ledger::{ProposalKind, View};
use mayfly_policy::decide::{ExtensionDecision, TaskOpenDecision, TaskOpenMode};
use mayfly_policy::exchange_request::TaskRequest;
use mayfly_policy::subject::UnverifiedToken;
use mayfly_verify::seq::{ApprovalId, Millis, TaskId};

/// The options of opening a task.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenTaskOptions<'a> {
    /// Open a child task for another caller.
    pub delegate: bool,
    /// The token of the subject on whose behalf the task is opened.
    pub token: Option<&'a UnverifiedToken>,
    /// How long to wait for the approval, milliseconds.
    pub wait_ms: u64,
}

/// Options with only `delegate` set.
impl From<bool> for OpenTaskOptions<'_> {
    fn from(delegate: bool) -> Self {
        OpenTaskOptions { delegate, ..OpenTaskOptions::default() }
    }
}

impl Authority {
    /// Opens a task. If it needs an approval, the call waits for it as long as the caller permits.
    pub async fn open_task<'a>(
        &self,
        caller: &Caller,
        terms: &TaskRequest,
        named: &IdempotencyKey,
        how: impl Into<OpenTaskOptions<'a>>,
    ) -> Result<TaskId, Error> {
        let how = how.into();
        let id = self.open(caller, terms, named, how).await?;
        let waits = |s: &State| s.tasks.get(&id).filter(|t| t.pending).and_then(|t| t.approved.as_ref().map(|a| a.id));
        if let (Some(approval), true) = (self.ledger.peek(waits), how.wait_ms > 0) {
            self.decided_within(approval, how.wait_ms).await;
        }
        match self.ledger.settled(|s| refused_to(s, id)).await? {
            Some(no) => Err(no),
            None => Ok(id),
        }
    }

    async fn open(
        &self,
        caller: &Caller,
        terms: &TaskRequest,
        named: &IdempotencyKey,
        how: OpenTaskOptions<'_>,
    ) -> Result<TaskId, Error> {
        let mut attempts = DecisionAttempts::default();
        loop {
            self.still_stands(caller)?;
            if let Some(before) = self.remembered(caller.id().as_str(), named).await? {
                return Ok(TaskId::from_bytes(before.task));
            }
            if attempts.is_first() {
                self.rates.load().take(RateLimitedAct::Change, caller.id().as_str())?;
            }
            let subject = match how.token {
                Some(token) => Some(Box::pin(self.subject(caller, token)).await?),
                None => None,
            };
            let view = self.ledger.view();
            view.read(|state| self.ledger.ceilings().task(state, caller.id().as_str(), (0, 0)))?;
            let (id, approval) = (self.new_task_id(), ApprovalId::from_bytes(self.system.id16()));
            let opens = TaskOpenMode { delegate: how.delegate, subject: subject.as_deref() };
            let opening = self.decider.open_task(&view, &self.catalog.now(), caller, terms, (id, approval), opens)?;
            if let (None, Some(asked)) = (named, &opening.asked)
                && let Some(known) = view.read(|s| waiting_for(s, asked))
            {
                return Ok(known);
            }
            match self.ledger.commit(ProposalKind::Grant, self.opening(caller, &view, opening, named)).await {
                Ok(_) => return Ok(id),
                Err(no) => self.redecide(&mut attempts, no, is_void).await?,
            }
        }
    }

    /// The records of an opened or waiting task, which form one group.
    fn opening(&self, caller: &Caller, view: &View, opening: TaskOpenDecision, named: &IdempotencyKey) -> Vec<Record> {
        let group = if opening.asked.is_some() { self.ledger.new_group() } else { 0 };
        let record = |event| Record { group, ..Record::new(Author::of(caller), event).decided_at(view.revision()) };
        let opens = record(Event::TaskOpened(opening.opened)).for_request(request_of(caller.id().as_str(), named));
        let asks = opening.asked.map(|asked| record(Event::ApprovalAsked(asked)));
        std::iter::once(opens).chain(asks).collect()
    }

    /// Extends a task, decided like opening. The present deadline is answered without a record, an earlier one is refused.
    pub async fn extend_task(
        &self,
        caller: &Caller,
        (id, deadline): (TaskId, Millis),
        named: &IdempotencyKey,
        wait_ms: u64,
    ) -> Result<(), Error> {
        let actor = Actor::Workload(caller.clone());
        let (who, _) = self.may_steer(&actor, id)?;
        self.rates.load().take(RateLimitedAct::Change, caller.id().as_str())?;
        let mut waited = false;
        let mut attempts = DecisionAttempts::default();
        loop {
            if self.remembered(&who.name(), named).await?.is_some() {
                return Ok(());
            }
            let view = self.ledger.view();
            let extends = match self.decider.extend(&view, &self.catalog.now(), caller, id, deadline) {
                Err(no) if needs_approval(&no) => {
                    let approval = self.ask_for_more(&view, caller, (id, deadline)).await?;
                    if waited || wait_ms == 0 || !self.decided_within(approval, wait_ms).await {
                        return Err(waits_for(no, approval));
                    }
                    waited = true;
                    self.may_steer(&actor, id)?; // the caller may have been locked or revoked in the meantime
                    continue;
                }
                decided => decided?,
            };
            let Some(ExtensionDecision { policy_version, approval }) = extends else { return Ok(()) };
            let extended = TaskExtended {
                task: id.as_bytes().to_vec(),
                deadline: deadline.0,
                decided_at: view.now().0,
                policy_version,
                approval: approval.map_or_else(Vec::new, |a| a.as_bytes().to_vec()),
                caller: caller.id().as_str().to_owned(),
            };
            let record = Record::new(who.clone(), Event::TaskExtended(extended))
                .decided_at(view.revision())
                .for_request(request_of(&who.name(), named));
            match self.ledger.commit(ProposalKind::Grant, vec![record]).await {
                Ok(_) => return Ok(()),
                Err(no) => self.redecide(&mut attempts, no, is_void).await?,
            }
        }
    }

    /// Requests the approval of a later deadline; repeats for the same deadline share one approval.
    async fn ask_for_more(&self, view: &View, caller: &Caller, more: (TaskId, Millis)) -> Result<ApprovalId, Error> {
        let id = ApprovalId::from_bytes(self.system.id16());
        let asked = self.decider.extension_approval(view, &self.catalog.now(), caller, more, id)?;
        if let Some(known) = self.asked_before(&asked).await? {
            return Ok(known);
        }
        self.rates.load().take(RateLimitedAct::Change, caller.id().as_str())?;
        let record = Record::new(Author::of(caller), Event::ApprovalAsked(asked.into())).decided_at(view.revision());
        self.ledger.commit(ProposalKind::Grant, vec![record]).await?;
        Ok(id)
    }

    /// Ends tasks that were not approved in time. Such tasks are refused by their time before that.
    pub fn end_unapproved(&self, now: Millis) {
        let over = |t: &&Task| t.closed.is_none() && t.lapsed(now);
        let lapsed = self.ledger.peek(|s| {
            let ended = s.approvals.values().filter(|a| a.decided.is_none() && a.expires_at() <= now);
            let tasks = ended.filter_map(|a| s.tasks.get(&TaskId::from_slice(&a.asked.task)?)).filter(over);
            tasks.map(|t| t.terms.id).take(mayfly_base::limits::GATHER_RECORDS).collect::<Vec<_>>()
        });
        for id in lapsed {
            self.end_by_time(id, now, ("approval not given", "nobody approved it in time"));
        }
    }
}

/// The task that already waits for an approval of the same request, if nothing has changed since.
fn waiting_for(state: &State, asked: &ApprovalRequested) -> Option<TaskId> {
    let same = |known: &ApprovalRequested| {
        known.caller == asked.caller
            && known.subject == asked.subject
            && known.actors == asked.actors
            && known.approvers == asked.approvers
            && known.terms == asked.terms
    };
    let open = state.approvals.values().filter(|a| a.decided.is_none() && a.asked.of == asked.of && same(&a.asked));
    let mut tasks = open.filter_map(|a| state.tasks.get(&TaskId::from_slice(&a.asked.task)?));
    let now = state.time;
    let waits = |t: &&Task| {
        t.pending
            && matches!(state.tasks.phase(t, now), mayfly_ledger::state::TaskPhase::PendingApproval)
            && t.terms.policy == mayfly_ledger::state::policy_in_force(state, &t.terms.environment)
    };
    tasks.find(waits).map(|t| t.terms.id)
}

/// The refusal of a task whose approval was refused.
fn refused_to(state: &State, id: TaskId) -> Option<Error> {
    let task = state.tasks.get(&id).filter(|t| t.pending)?;
    let approval = task.approved.as_ref().map(|a| a.id)?;
    let decided = state.approvals.get(&approval)?.decided.as_ref().filter(|d| !d.given)?;
    let who = decided.by.as_deref().map_or_else(String::new, Author::name);
    let what = format!("approval {approval} was refused by {who}: {}", decided.reason);
    Some(Error::Refusal(Refusal::new(Reason::DeniedByPolicy, what)))
}
