//! BreakGlassService: emergency rights that the policy set defines in advance, opened by two people and reviewed by a third.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::super::wire;
use super::page::{PageRequest, within_bytes};
use super::request_checks::{self, refused, refused_in};
use mayfly_authority::authority::Authority;
use mayfly_authority::tasks::Actor;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Refusal};
use mayfly_ledger::state::BreakGlassTask;
use mayfly_policy::decide::BreakGlassRequest;
use mayfly_policy::exchange_request;
use mayfly_proto::mayfly::v1 as pb;
use mayfly_proto::mayfly::v1::break_glass_service_server::BreakGlassService;
use mayfly_verify::seq::TaskId;

/// The gRPC service.
pub struct BreakGlassApi(pub Arc<Authority>);

impl BreakGlassApi {
    async fn open(&self, actor: &Actor, ask: &pb::OpenBreakGlassRequest) -> Result<pb::BreakGlass, Error> {
        let reason = request_checks::reason(&ask.reason)?;
        let named = super::token::idempotency_key_of(&ask.request_id, ask)?;
        let ttl_ms = exchange_request::duration("ttl", ask.ttl.as_ref())?;
        let id = match &ask.open {
            None => return Err(Refusal::field("open", "is missing: name rights to open, or task_id to join").into()),
            Some(pb::open_break_glass_request::Open::Rights(rights)) => {
                let environment = request_checks::filter("environment", &ask.environment)?.map(str::to_owned);
                let ask = BreakGlassRequest { rights: exchange_request::name("rights", rights)?, environment, reason, ttl_ms };
                self.0.open_break_glass(actor, &ask, &named).await?
            }
            Some(pb::open_break_glass_request::Open::TaskId(_)) if ttl_ms.is_some() => {
                return Err(Refusal::field("ttl", "was fixed when the task was opened; leave it out").into());
            }
            Some(pb::open_break_glass_request::Open::TaskId(id)) => {
                let id: TaskId = exchange_request::id("task_id", id)?;
                self.0.join_glass(actor, id, &reason, &named).await?;
                id
            }
        };
        self.one(id).await
    }

    /// The current state of a break-glass task; the caller has been found to take part in it.
    async fn one(&self, id: TaskId) -> Result<pb::BreakGlass, Error> {
        let now = self.0.system.wall();
        let found = self
            .0
            .ledger
            .settled(|s| s.break_glass_tasks.get(&id).map(|break_glass| wire::break_glass_to_pb(s, id, break_glass, now)))
            .await?;
        found.ok_or_else(|| request_checks::not_found(format!("there is no break-glass task {id}")))
    }

    async fn close(&self, actor: &Actor, ask: &pb::CloseBreakGlassRequest) -> Result<pb::BreakGlass, Error> {
        let id: TaskId = exchange_request::id("task_id", &ask.task_id)?;
        let reason = exchange_request::text("reason", &ask.reason, limits::PURPOSE_BYTES)?;
        self.0.close_glass(actor, id, &reason).await?;
        self.one(id).await
    }

    async fn review(&self, actor: &Actor, ask: &pb::ReviewBreakGlassRequest) -> Result<pb::BreakGlass, Error> {
        let id: TaskId = exchange_request::id("task_id", &ask.task_id)?;
        if ask.review.is_empty() {
            return Err(Refusal::field("review", "is missing: state the findings, for the audit log").into());
        }
        let text = exchange_request::text("review", &ask.review, limits::PURPOSE_BYTES)?;
        let named = super::token::idempotency_key_of(&ask.request_id, ask)?;
        self.0.review_glass(actor, id, &text, &named).await?;
        self.one(id).await
    }

    async fn list(&self, actor: &Actor, ask: pb::ListBreakGlassRequest) -> Result<pb::ListBreakGlassResponse, Error> {
        let page = PageRequest::from(ask.page_size, &ask.page_token)?;
        let now = self.0.system.wall();
        let all = self.0.ledger.settled(|s| {
            let fits = |(_, break_glass): &(&TaskId, &BreakGlassTask)| !ask.unreviewed || break_glass.unreviewed(now);
            let each = s.break_glass_tasks.iter().filter(fits);
            each.map(|(id, break_glass)| {
                (break_glass.seq, (break_glass.clone(), wire::break_glass_to_pb(s, *id, break_glass, now)))
            })
            .collect::<Vec<_>>()
        });
        let sees = |(break_glass, _): &(BreakGlassTask, pb::BreakGlass)| self.0.sees_break_glass(actor, break_glass);
        let (found, next_page_token) = page.newest(all.await?.into_iter(), sees);
        Ok(pb::ListBreakGlassResponse { break_glass: found.into_iter().map(|(_, told)| told).collect(), next_page_token })
    }

    async fn get(&self, actor: &Actor, ask: &pb::GetBreakGlassRequest) -> Result<pb::BreakGlass, Error> {
        let id: TaskId = exchange_request::id("task_id", &ask.task_id)?;
        let break_glass = self.0.ledger.settled(|s| s.break_glass_tasks.get(&id).cloned()).await?;
        match break_glass.is_some_and(|break_glass| self.0.sees_break_glass(actor, &break_glass)) {
            true => self.one(id).await,
            false => Err(request_checks::not_found(format!("there is no break-glass task {id} that you may see"))),
        }
    }
}

/// The task that a request names, for the audit record of its refusal.
fn joined(ask: &pb::OpenBreakGlassRequest) -> &str {
    match &ask.open {
        Some(pb::open_break_glass_request::Open::TaskId(id)) => id,
        _ => "",
    }
}

#[tonic::async_trait]
impl BreakGlassService for BreakGlassApi {
    async fn open_break_glass(
        &self,
        request: Request<pb::OpenBreakGlassRequest>,
    ) -> Result<Response<pb::OpenBreakGlassResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "open_break_glass")?;
        let opened = self.open(&actor, request.get_ref()).await;
        let opened = opened.map_err(refused_in(&self.0, &actor, "open_break_glass", joined(request.get_ref())))?;
        Ok(Response::new(pb::OpenBreakGlassResponse { break_glass: Some(opened) }))
    }

    async fn close_break_glass(
        &self,
        request: Request<pb::CloseBreakGlassRequest>,
    ) -> Result<Response<pb::CloseBreakGlassResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "close_break_glass")?;
        let closed = self.close(&actor, request.get_ref()).await;
        let closed = closed.map_err(refused_in(&self.0, &actor, "close_break_glass", &request.get_ref().task_id))?;
        Ok(Response::new(pb::CloseBreakGlassResponse { break_glass: Some(closed) }))
    }

    async fn review_break_glass(
        &self,
        request: Request<pb::ReviewBreakGlassRequest>,
    ) -> Result<Response<pb::ReviewBreakGlassResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "review_break_glass")?;
        let reviewed = self.review(&actor, request.get_ref()).await;
        let reviewed = reviewed.map_err(refused_in(&self.0, &actor, "review_break_glass", &request.get_ref().task_id))?;
        Ok(Response::new(pb::ReviewBreakGlassResponse { break_glass: Some(reviewed) }))
    }

    async fn list_break_glass(
        &self,
        request: Request<pb::ListBreakGlassRequest>,
    ) -> Result<Response<pb::ListBreakGlassResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "list_break_glass")?;
        let listed = within_bytes(request.get_ref(), |ask| self.list(&actor, ask));
        listed.await.map(Response::new).map_err(refused(&self.0, &actor, "list_break_glass"))
    }

    async fn get_break_glass(
        &self,
        request: Request<pb::GetBreakGlassRequest>,
    ) -> Result<Response<pb::GetBreakGlassResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "get_break_glass")?;
        let found = self.get(&actor, request.get_ref()).await;
        let found = found.map_err(refused_in(&self.0, &actor, "get_break_glass", &request.get_ref().task_id))?;
        Ok(Response::new(pb::GetBreakGlassResponse { break_glass: Some(found) }))
    }
}
