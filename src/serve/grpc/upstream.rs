//! UpstreamService: the registry, and what stands at upstreams. Registrations are read here; they come from files at the first start.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::super::wire;
use super::ask::{self, not_served, refused};
use super::lease;
use super::page::ByName;
use crate::authority::Authority;
use crate::ledger::state::Version;
use crate::pb::mayfly::v1 as pb;
use crate::pb::mayfly::v1::upstream_service_server::UpstreamService;
use crate::policy::{Admin, wanted};
use crate::refusal::{Fault, No, Refusal};
use crate::tasks::Actor;
use crate::upstream::registry::Upstream;

/// The service.
pub struct Upstreams(pub Arc<Authority>);

impl Upstreams {
    /// The environment that whoever calls may look at: a workload's own, any for an operator.
    fn environment(&self, actor: &Actor, asked: Option<&str>) -> Result<Option<String>, No> {
        match actor {
            Actor::Operator(operator) => {
                self.0.admit(operator, Admin::Observe, asked)?;
                Ok(asked.map(str::to_owned))
            }
            Actor::Workload(caller) => {
                let compiled = self.0.catalog.now();
                let mut own = compiled.environments().filter(|(name, p)| p.set.environment_of(caller.id()) == Some(*name));
                let own = own.next().map(|(name, _)| name.to_owned());
                match own {
                    Some(own) if asked.is_none_or(|asked| asked == own) => Ok(Some(own)),
                    _ => Err(ask::not_found("you belong to no environment with upstreams that you may see")),
                }
            }
        }
    }

    async fn get(&self, actor: &Actor, ask: &pb::GetUpstreamRequest) -> Result<pb::GetUpstreamResponse, No> {
        let name = wanted::name("upstream", &ask.upstream)?;
        let none = || ask::not_found(format!("there is no upstream {name} that you may see"));
        let found = self.0.ledger.settled(|s| s.upstreams.get(name.as_str()).cloned()).await?;
        let found = found.map(|version| registered(&version).map(|u| (u, version))).transpose()?;
        let environment = found.as_ref().map(|(u, _)| u.environment.clone());
        // Whoever may look nowhere is refused before it is said whether there is one.
        let may_see = self.environment(actor, environment.as_deref().filter(|_| matches!(actor, Actor::Operator(_))))?;
        let (upstream, version) = found.ok_or_else(none)?;
        if may_see.is_some_and(|own| own != upstream.environment) {
            return Err(none());
        }
        Ok(pb::GetUpstreamResponse { upstream: Some(wire::upstream_to_pb(&upstream, &version)) })
    }

    async fn list(&self, actor: &Actor, ask: &pb::ListUpstreamsRequest) -> Result<pb::ListUpstreamsResponse, No> {
        let environment = self.environment(actor, ask::filter("environment", &ask.environment)?)?;
        let wanted = match pb::RegistrationState::try_from(ask.state) {
            Ok(pb::RegistrationState::Unspecified) => None,
            Ok(state) => Some(state),
            Err(_) => return Err(No::Refusal(Refusal::field("state", format!("{} is no state of a registration", ask.state)))),
        };
        let page = ByName::of(ask.page_size, &ask.page_token, ask)?;
        let all = self.0.ledger.settled(|s| s.upstreams.iter().map(|(n, v)| (n.to_string(), v.clone())).collect::<Vec<_>>());
        let all = all.await?.into_iter().filter(|(_, v)| wanted.is_none_or(|w| wire::registration_state(v) == w));
        let mut fitting = Vec::new();
        for (name, version) in all {
            let upstream = match self.compiled(&name, &version) {
                Some(known) => known,
                None => Arc::new(registered(&version)?),
            };
            if environment.as_ref().is_none_or(|e| *e == upstream.environment) {
                fitting.push((name, (upstream, version)));
            }
        }
        let (found, next_page_token) = page.take(fitting);
        let upstreams = found.iter().map(|(upstream, version)| wire::upstream_to_pb(upstream, version)).collect();
        Ok(pb::ListUpstreamsResponse { upstreams, next_page_token })
    }

    /// The registration as it was read already, where that is this version.
    fn compiled(&self, name: &str, version: &Version) -> Option<Arc<Upstream>> {
        let compiled = self.0.catalog.now();
        compiled.upstream(name).filter(|r| r.version == version.version).map(|r| r.upstream.clone())
    }
}

fn registered(version: &Version) -> Result<Upstream, Fault> {
    Upstream::from_text(&version.text).map_err(|e| Fault::new(format!("a registration in the ledger: {e}")))
}

#[tonic::async_trait]
impl UpstreamService for Upstreams {
    async fn get_upstream(&self, request: Request<pb::GetUpstreamRequest>) -> Result<Response<pb::GetUpstreamResponse>, Status> {
        let actor = ask::actor(&self.0, &request, "get_upstream")?;
        self.get(&actor, request.get_ref()).await.map(Response::new).map_err(refused(&self.0, &actor, "get_upstream"))
    }

    async fn list_upstreams(
        &self,
        request: Request<pb::ListUpstreamsRequest>,
    ) -> Result<Response<pb::ListUpstreamsResponse>, Status> {
        let actor = ask::actor(&self.0, &request, "list_upstreams")?;
        self.list(&actor, request.get_ref()).await.map(Response::new).map_err(refused(&self.0, &actor, "list_upstreams"))
    }

    async fn set_upstream(&self, _: Request<pb::SetUpstreamRequest>) -> Result<Response<pb::SetUpstreamResponse>, Status> {
        not_served("SetUpstream")
    }

    async fn set_upstream_state(
        &self,
        _: Request<pb::SetUpstreamStateRequest>,
    ) -> Result<Response<pb::SetUpstreamStateResponse>, Status> {
        not_served("SetUpstreamState")
    }

    async fn test_upstream(&self, _: Request<pb::TestUpstreamRequest>) -> Result<Response<pb::TestUpstreamResponse>, Status> {
        not_served("TestUpstream")
    }

    async fn put_secret(&self, _: Request<pb::PutSecretRequest>) -> Result<Response<pb::PutSecretResponse>, Status> {
        not_served("PutSecret")
    }

    async fn list_bindings(&self, _: Request<pb::ListBindingsRequest>) -> Result<Response<pb::ListBindingsResponse>, Status> {
        not_served("ListBindings")
    }

    async fn set_binding(&self, _: Request<pb::SetBindingRequest>) -> Result<Response<pb::SetBindingResponse>, Status> {
        not_served("SetBinding")
    }

    async fn list_leases(&self, request: Request<pb::ListLeasesRequest>) -> Result<Response<pb::ListLeasesResponse>, Status> {
        let actor = ask::actor(&self.0, &request, "list_leases")?;
        lease::list(&self.0, &actor, request.get_ref()).await.map(Response::new).map_err(refused(&self.0, &actor, "list_leases"))
    }

    async fn retry_lease(&self, request: Request<pb::RetryLeaseRequest>) -> Result<Response<pb::RetryLeaseResponse>, Status> {
        let actor = ask::actor(&self.0, &request, "retry_lease")?;
        lease::retry(&self.0, &actor, request.get_ref()).await.map(Response::new).map_err(refused(&self.0, &actor, "retry_lease"))
    }

    async fn abandon_lease(
        &self,
        request: Request<pb::AbandonLeaseRequest>,
    ) -> Result<Response<pb::AbandonLeaseResponse>, Status> {
        let actor = ask::actor(&self.0, &request, "abandon_lease")?;
        let answer = lease::abandon(&self.0, &actor, request.get_ref()).await;
        answer.map(Response::new).map_err(refused(&self.0, &actor, "abandon_lease"))
    }
}
