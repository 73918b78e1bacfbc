//! TaskService: the life of a task.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::super::status::status;
use super::super::wire;
use super::page::{Newest, PageRequest};
use super::request_checks::{self, refused_in};
use super::token::idempotency_key_of;
use mayfly_authority::authority::Authority;
use mayfly_authority::tasks::Actor;
use mayfly_authority::tasks::openings::OpenTaskOptions;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Reason, Refusal};
use mayfly_ledger::State;
use mayfly_ledger::record::TaskOutcome;
use mayfly_ledger::state::{LiveCredential, Task, TaskPhase};
use mayfly_policy::admin;
use mayfly_policy::exchange_request::{self, TaskRequest};
use mayfly_policy::subject::UnverifiedToken;
use mayfly_proto::mayfly::v1 as pb;
use mayfly_proto::mayfly::v1::task_service_server::TaskService;
use mayfly_verify::seq::{Seq, TaskId};

/// The gRPC service.
pub struct TaskApi(pub Arc<Authority>);

/// A task that was ended, the record that ended it, and what ended with it.
type Ended = (pb::Task, Seq, Option<pb::Hits>);

fn reason(text: &str) -> Result<String, Refusal> {
    exchange_request::text("reason", text, limits::PURPOSE_BYTES)
}

fn not_served(present: bool, field: &'static str) -> Result<(), Refusal> {
    if present { Err(Refusal::field(field, "this version does not serve it; leave it out")) } else { Ok(()) }
}

impl TaskApi {
    /// The task, if the actor may see it: callers that may act in it or steer it, and operators.
    async fn show(&self, actor: &Actor, id: TaskId) -> Result<pb::Task, Error> {
        let now = self.0.system.wall();
        let found = self
            .0
            .ledger
            .settled(|s| {
                let task = s.tasks.get(&id).filter(|t| sees(s, t, actor))?;
                Some((wire::task_to_pb(s, task, now), task.terms.environment.to_string()))
            })
            .await?;
        if let Actor::Operator(operator) = actor {
            self.0.admit_to_found::<admin::Observe>(operator, found.as_ref().map(|(_, e)| e.as_str()))?;
        }
        found
            .map(|(task, _)| task)
            .ok_or_else(|| Error::Refusal(Refusal::new(Reason::NotFound, format!("there is no task {id} that you may see"))))
    }

    async fn end(&self, actor: &Actor, task: &str, why: &str, outcome: TaskOutcome) -> Result<Ended, Error> {
        let id: TaskId = exchange_request::id("task_id", task)?;
        let why = reason(why)?;
        let hits = self.0.ends_with(actor, id).await?;
        let seq = self.0.close_task(actor, id, outcome, &why).await?;
        Ok((self.show(actor, id).await?, seq, hits.as_ref().map(super::hits_to_pb)))
    }
}

/// Workloads and people see the tasks in which they may act, the tasks that they opened or own, and all tasks below these.
fn sees(state: &mayfly_ledger::State, task: &Task, actor: &Actor) -> bool {
    match actor {
        Actor::Operator(_) => true,
        Actor::Workload(caller) => task.admits(caller.id().as_str()) || state.tasks.upwards(task).any(|t| t.is_whose(caller)),
    }
}

#[tonic::async_trait]
impl TaskService for TaskApi {
    async fn open_task(&self, request: Request<pb::OpenTaskRequest>) -> Result<Response<pb::OpenTaskResponse>, Status> {
        let caller = request_checks::caller(&self.0, &request, "open_task")?;
        let ask = request.get_ref();
        let opened = async {
            let token = UnverifiedToken::take(ask.subject_token.clone())?;
            not_served(ask.parent_credential.is_some(), "parent_credential")?;
            let terms = ask.terms.as_ref().ok_or_else(|| Refusal::field("terms", "is missing"))?;
            let terms = TaskRequest::from_pb(terms)?;
            // The time to wait for an approval is not part of the request's identity.
            let named = idempotency_key_of(&ask.request_id, &pb::OpenTaskRequest { wait_for_approval: None, ..ask.clone() })?;
            let wait_ms = exchange_request::wait_ms(ask.wait_for_approval.as_ref())?;
            let how = OpenTaskOptions { delegate: false, token: token.as_ref(), wait_ms };
            let id = self.0.open_task(&caller, &terms, &named, how).await?;
            self.show(&Actor::Workload(caller.clone()), id).await
        };
        let task = opened.await.inspect_err(|no| super::note(&self.0, &caller, no, "open_task", "")).map_err(status)?;
        Ok(Response::new(pb::OpenTaskResponse { task: Some(task) }))
    }

    async fn delegate_task(
        &self,
        request: Request<pb::DelegateTaskRequest>,
    ) -> Result<Response<pb::DelegateTaskResponse>, Status> {
        let caller = request_checks::caller(&self.0, &request, "delegate_task")?;
        let ask = request.get_ref();
        let opened = async {
            let terms = ask.terms.as_ref().ok_or_else(|| Refusal::field("terms", "is missing"))?;
            let mut terms = TaskRequest::from_pb(terms)?;
            if terms.parent.is_none() {
                return Err(Error::Refusal(Refusal::field("terms.parent_task_id", "is missing: a delegated task is a child")));
            }
            let delegate = exchange_request::name("caller", &ask.caller)?;
            mayfly_identity::spiffe_id::SpiffeId::parse(&delegate).map_err(|e| Refusal::field("caller", e))?;
            terms.callers.retain(|c| *c != delegate);
            terms.callers.insert(0, delegate);
            let named = idempotency_key_of(&ask.request_id, &pb::DelegateTaskRequest { wait_for_approval: None, ..ask.clone() })?;
            let wait_ms = exchange_request::wait_ms(ask.wait_for_approval.as_ref())?;
            let how = OpenTaskOptions { delegate: true, token: None, wait_ms };
            let id = self.0.open_task(&caller, &terms, &named, how).await?;
            self.show(&Actor::Workload(caller.clone()), id).await
        };
        let task = opened.await.inspect_err(|no| super::note(&self.0, &caller, no, "delegate_task", "")).map_err(status)?;
        Ok(Response::new(pb::DelegateTaskResponse { task: Some(task) }))
    }

    async fn get_task(&self, request: Request<pb::GetTaskRequest>) -> Result<Response<pb::GetTaskResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "get_task")?;
        let task = async { self.show(&actor, exchange_request::id("task_id", &request.get_ref().task_id)?).await };
        Ok(Response::new(pb::GetTaskResponse { task: Some(task.await.map_err(status)?) }))
    }

    async fn list_tasks(&self, request: Request<pb::ListTasksRequest>) -> Result<Response<pb::ListTasksResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "list_tasks")?;
        self.list(&actor, request.get_ref()).await.map(Response::new).map_err(status)
    }

    async fn extend_task(&self, request: Request<pb::ExtendTaskRequest>) -> Result<Response<pb::ExtendTaskResponse>, Status> {
        let caller = request_checks::caller(&self.0, &request, "extend_task")?;
        let ask = request.get_ref();
        let extended = async {
            let id = exchange_request::id("task_id", &ask.task_id)?;
            let deadline = ask.deadline.as_ref().ok_or_else(|| Refusal::field("deadline", "is missing"))?;
            let deadline = wire::millis(deadline).ok_or_else(|| Refusal::field("deadline", "is before 1970 or no time"))?;
            let named = idempotency_key_of(&ask.request_id, &pb::ExtendTaskRequest { wait_for_approval: None, ..ask.clone() })?;
            let wait_ms = exchange_request::wait_ms(ask.wait_for_approval.as_ref())?;
            self.0.extend_task(&caller, (id, deadline), &named, wait_ms).await?;
            self.show(&Actor::Workload(caller.clone()), id).await
        };
        let task =
            extended.await.inspect_err(|no| super::note(&self.0, &caller, no, "extend_task", &ask.task_id)).map_err(status)?;
        Ok(Response::new(pb::ExtendTaskResponse { task: Some(task) }))
    }

    async fn heartbeat_task(
        &self,
        request: Request<pb::HeartbeatTaskRequest>,
    ) -> Result<Response<pb::HeartbeatTaskResponse>, Status> {
        let caller = request_checks::caller(&self.0, &request, "heartbeat_task")?;
        let (actor, named) = (Actor::Workload(caller.clone()), &request.get_ref().task_id);
        let beat = async {
            let id: TaskId = exchange_request::id("task_id", named)?;
            let now = self.0.system.wall();
            let phase = self.0.ledger.peek(|s| s.tasks.get(&id).map(|t| (s.tasks.phase(t, now), t.terms.heartbeat)));
            match phase {
                Some((TaskPhase::Over(_), _)) => {
                    return Err(Error::Refusal(Refusal::new(Reason::TaskNotActive, format!("task {id} is over"))));
                }
                Some((_, 0)) => {
                    return Err(Error::Refusal(Refusal::field("task_id", "was opened without a heartbeat interval")));
                }
                _ => {}
            }
            self.0.heartbeat(&caller, id).await?;
            self.show(&Actor::Workload(caller.clone()), id).await
        };
        let task = beat.await.map_err(refused_in(&self.0, &actor, "heartbeat_task", named))?;
        Ok(Response::new(pb::HeartbeatTaskResponse { heartbeat_due: task.heartbeat_due, state: task.state }))
    }

    async fn hold_task(&self, request: Request<pb::HoldTaskRequest>) -> Result<Response<pb::HoldTaskResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "hold_task")?;
        let ask = request.get_ref();
        let held = async {
            let id = exchange_request::id("task_id", &ask.task_id)?;
            let seq = self
                .0
                .hold_task(&actor, id, &request_checks::reason(&ask.reason)?, &idempotency_key_of(&ask.request_id, ask)?)
                .await?;
            Ok((self.show(&actor, id).await?, seq))
        };
        let (task, seq) = held.await.map_err(refused_in(&self.0, &actor, "hold_task", &ask.task_id))?;
        Ok(Response::new(pb::HoldTaskResponse { task: Some(task), seq: seq.as_u64() }))
    }

    async fn resume_task(&self, request: Request<pb::ResumeTaskRequest>) -> Result<Response<pb::ResumeTaskResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "resume_task")?;
        let ask = request.get_ref();
        let resumed = async {
            let id = exchange_request::id("task_id", &ask.task_id)?;
            let seq = self.0.resume_task(&actor, id, &reason(&ask.reason)?, &idempotency_key_of(&ask.request_id, ask)?).await?;
            Ok((self.show(&actor, id).await?, seq))
        };
        let (task, seq) = resumed.await.map_err(refused_in(&self.0, &actor, "resume_task", &ask.task_id))?;
        Ok(Response::new(pb::ResumeTaskResponse { task: Some(task), seq: seq.as_u64() }))
    }

    async fn complete_task(
        &self,
        request: Request<pb::CompleteTaskRequest>,
    ) -> Result<Response<pb::CompleteTaskResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "complete_task")?;
        let ask = request.get_ref();
        let (task, seq, hits) = self.end(&actor, &ask.task_id, &ask.reason, TaskOutcome::Completed).await.map_err(refused_in(
            &self.0,
            &actor,
            "complete_task",
            &ask.task_id,
        ))?;
        Ok(Response::new(pb::CompleteTaskResponse { task: Some(task), seq: seq.as_u64(), hits }))
    }

    async fn cancel_task(&self, request: Request<pb::CancelTaskRequest>) -> Result<Response<pb::CancelTaskResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "cancel_task")?;
        let ask = request.get_ref();
        let (task, seq, hits) = self.end(&actor, &ask.task_id, &ask.reason, TaskOutcome::Cancelled).await.map_err(refused_in(
            &self.0,
            &actor,
            "cancel_task",
            &ask.task_id,
        ))?;
        Ok(Response::new(pb::CancelTaskResponse { task: Some(task), seq: seq.as_u64(), hits }))
    }

    async fn list_task_credentials(
        &self,
        request: Request<pb::ListTaskCredentialsRequest>,
    ) -> Result<Response<pb::ListTaskCredentialsResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "list_task_credentials")?;
        self.credentials(&actor, request.get_ref()).await.map(Response::new).map_err(status)
    }
}

impl TaskApi {
    async fn list(&self, actor: &Actor, ask: &pb::ListTasksRequest) -> Result<pb::ListTasksResponse, Error> {
        let states = states(&ask.states)?;
        let scope = match actor {
            Actor::Operator(operator) => {
                self.0.scope_of::<admin::Observe>(operator, Some(&*ask.environment).filter(|e| !e.is_empty()))?
            }
            Actor::Workload(_) => None,
        };
        let page = PageRequest::from(ask.page_size, &ask.page_token)?;
        let parent = match &*ask.parent_task_id {
            "" => None,
            id => Some(exchange_request::id::<TaskId>("parent_task_id", id)?),
        };
        let under = match &*ask.under_task_id {
            "" => None,
            id => Some(exchange_request::id::<TaskId>("under_task_id", id)?),
        };
        let now = self.0.system.wall();
        let fits = |s: &State, t: &Task| {
            let terms = &t.terms;
            sees(s, t, actor)
                && scope.as_ref().is_none_or(|scope| scope.has(&terms.environment))
                && (ask.caller.is_empty() || t.admits(&ask.caller))
                && (ask.environment.is_empty() || *terms.environment == *ask.environment)
                && (ask.upstream.is_empty() || terms.allowance.upstreams.iter().any(|u| u.name == ask.upstream))
                && under.is_none_or(|u| terms.path.contains(&u))
                && parent.is_none_or(|p| terms.path.iter().rev().nth(1) == Some(&p))
                && match s.tasks.phase(t, now) {
                    phase if states.is_empty() => !matches!(phase, TaskPhase::Over(_)),
                    phase => states.contains(&wire::phase_to_pb(phase)),
                }
        };
        let mut newest = Newest::of(page);
        let pieces = pieces(
            &self.0,
            |s| s.tasks.places(),
            |s, slot| {
                if let Some(task) = s.tasks.at(slot).filter(|t| fits(s, t)) {
                    newest.offer(task.terms.seq, task.terms.id);
                }
            },
        );
        pieces.await?;
        let row = |s: &State, id| s.tasks.get(&id).map(|t| wire::task_to_pb(s, t, now));
        let (tasks, next_page_token) = self.0.ledger.settled(|s| newest.rows(|id| row(s, id))).await?;
        Ok(pb::ListTasksResponse { tasks, next_page_token })
    }

    async fn credentials(
        &self,
        actor: &Actor,
        ask: &pb::ListTaskCredentialsRequest,
    ) -> Result<pb::ListTaskCredentialsResponse, Error> {
        let id: TaskId = exchange_request::id("task_id", &ask.task_id)?;
        self.show(actor, id).await?;
        let page = PageRequest::from(ask.page_size, &ask.page_token)?;
        let now = self.0.system.wall();
        // A caller that may act in the task and not steer it sees only credentials issued to itself.
        let only = match actor {
            Actor::Workload(caller) if self.0.may_steer(actor, id).is_err() => Some(caller.id().as_str()),
            _ => None,
        };
        let told = |live: &LiveCredential<'_>| only.is_none_or(|own| live.caller() == own);
        let alive = |s: &State, live: &LiveCredential<'_>| {
            [pb::CredentialState::Active, pb::CredentialState::Held].contains(&wire::credential_state(s, live, now).0)
        };
        let of_task = |s: &State, live: &LiveCredential<'_>| {
            let task = s.tasks.at(live.task());
            task.is_some_and(|t| t.terms.id == id || (ask.include_children && t.terms.path.contains(&id)))
        };
        let mut newest = Newest::of(page);
        let pieces = pieces(
            &self.0,
            |s| s.credentials.places(),
            |s, slot| {
                let fits = |l: &LiveCredential<'_>| of_task(s, l) && told(l) && (ask.include_ended || alive(s, l));
                if let Some(live) = s.credentials.at(slot).filter(fits) {
                    newest.offer(live.seq(), live.id());
                }
            },
        );
        pieces.await?;
        let row = |s: &State, id| s.credentials.get(&id).map(|l| wire::credential_to_pb(s, &l, now));
        let (credentials, next_page_token) = self.0.ledger.settled(|s| newest.rows(|id| row(s, id))).await?;
        Ok(pb::ListTaskCredentialsResponse { credentials, next_page_token })
    }
}

/// The requested states; a state that this version does not know is refused.
fn states(asked: &[i32]) -> Result<Vec<pb::TaskState>, Refusal> {
    if asked.len() > 8 {
        return Err(Refusal::field("states", format!("{} of them, at most 8", asked.len())));
    }
    let known = |n: &i32| pb::TaskState::try_from(*n).ok().filter(|s| *s != pb::TaskState::Unspecified);
    asked.iter().map(|n| known(n).ok_or_else(|| Refusal::field("states", format!("{n} is no state of a task")))).collect()
}

/// Examines every slot of a table, a bounded number per lock, so that the writer can continue in between.
async fn pieces(authority: &Authority, places: impl Fn(&State) -> u32, mut look: impl FnMut(&State, u32)) -> Result<(), Error> {
    let mut at = 0;
    loop {
        let all = authority.ledger.settled(|s| {
            let end = (at + limits::LIST_WALK as u32).min(places(s));
            (at..end).for_each(|slot| look(s, slot));
            at = end;
            places(s)
        });
        let all = all.await?;
        if at >= all {
            return Ok(());
        }
        tokio::task::yield_now().await;
    }
}
