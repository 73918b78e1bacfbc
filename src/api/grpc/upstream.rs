//! UpstreamService: the registry, and leases of credentials at upstreams.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::super::status::problem;
use super::super::wire;
use super::page::{NamePageRequest, within_bytes};
use super::request_checks::{self, refused};
use super::{binding, connection, lease, secret};
use mayfly_authority::admission::operators::OperatorScope;
use mayfly_authority::authority::Authority;
use mayfly_authority::registry::inventory::Inventory;
use mayfly_authority::registry::registrations::{OwnerDeparture, UpstreamStatus, registered};
use mayfly_authority::tasks::Actor;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Reason, Refusal};
use mayfly_ledger::state::DocumentVersion;
use mayfly_ledger::upstream::registry::Upstream;
use mayfly_policy::{admin, exchange_request};
use mayfly_proto::mayfly::v1 as pb;
use mayfly_proto::mayfly::v1::upstream_service_server::UpstreamService;

/// The gRPC service.
pub struct UpstreamApi(pub Arc<Authority>);

/// The environments whose upstreams an actor may see.
struct VisibleEnvironments {
    /// `None`: all environments, unless `only` restricts them.
    scope: Option<OperatorScope<admin::Observe>>,
    only: Option<String>,
}

impl VisibleEnvironments {
    fn has(&self, environment: &str) -> bool {
        self.scope.as_ref().is_none_or(|scope| scope.has(environment)) && self.only.as_ref().is_none_or(|own| own == environment)
    }
}

impl UpstreamApi {
    /// The environments that the caller may see: a workload's own; for an operator, the requested one of those that the operator may
    /// observe.
    fn environments(&self, actor: &Actor, asked: Option<&str>) -> Result<VisibleEnvironments, Error> {
        match actor {
            Actor::Operator(operator) => {
                let scope = self.0.scope_of(operator, asked)?;
                Ok(VisibleEnvironments { scope, only: asked.map(str::to_owned) })
            }
            Actor::Workload(caller) => {
                let compiled = self.0.catalog.now();
                let mut own = compiled.environments().filter(|(name, p)| p.set.environment_of(caller.id()) == Some(*name));
                let own = own.next().map(|(name, _)| name.to_owned());
                match own {
                    Some(own) if asked.is_none_or(|asked| asked == own) => {
                        Ok(VisibleEnvironments { scope: None, only: Some(own) })
                    }
                    _ => Err(request_checks::not_found("you belong to no environment with upstreams that you may see")),
                }
            }
        }
    }

    async fn get(&self, actor: &Actor, ask: &pb::GetUpstreamRequest) -> Result<pb::GetUpstreamResponse, Error> {
        let name = exchange_request::name("upstream", &ask.upstream)?;
        let none = || request_checks::not_found(format!("there is no upstream {name} that you may see"));
        let found = self.0.ledger.settled(|s| s.upstreams.get(name.as_str()).cloned()).await?;
        let found = found.map(|version| registered(&version).map(|u| (u, version))).transpose()?;
        let environment = found.as_ref().map(|(u, _)| u.environment.clone());
        // A caller that may see no environment is refused before the answer reveals whether the upstream exists.
        let may_see = self.environments(actor, environment.as_deref().filter(|_| matches!(actor, Actor::Operator(_))))?;
        let (upstream, version) = found.ok_or_else(none)?;
        if !may_see.has(&upstream.environment) {
            return Err(none());
        }
        Ok(pb::GetUpstreamResponse { upstream: Some(self.shown(actor, &upstream, &version).await?) })
    }

    async fn list(&self, actor: &Actor, ask: pb::ListUpstreamsRequest) -> Result<pb::ListUpstreamsResponse, Error> {
        let may_see = self.environments(actor, request_checks::filter("environment", &ask.environment)?)?;
        let wanted = match pb::RegistrationState::try_from(ask.state) {
            Ok(pb::RegistrationState::Unspecified) => None,
            Ok(state) => Some(state),
            Err(_) => {
                return Err(Error::Refusal(Refusal::field("state", format!("{} is no state of a registration", ask.state))));
            }
        };
        let page = NamePageRequest::of(ask.page_size, &ask.page_token, &ask)?;
        let all = self.0.ledger.settled(|s| s.upstreams.iter().map(|(n, v)| (n.to_string(), v.clone())).collect::<Vec<_>>());
        let all = all.await?.into_iter().filter(|(_, v)| wanted.is_none_or(|w| wire::registration_state(v) == w));
        let mut fitting = Vec::new();
        for (name, version) in all {
            let upstream = match self.compiled(&name, &version) {
                Some(known) => known,
                None => Arc::new(registered(&version)?),
            };
            if may_see.has(&upstream.environment) {
                fitting.push((name, (upstream, version)));
            }
        }
        let (found, next_page_token) = page.take(fitting);
        let inventory = self.inventory(actor).await?;
        let upstreams =
            found.iter().map(|(upstream, version)| self.with_findings(upstream, version, inventory.as_ref())).collect();
        Ok(pb::ListUpstreamsResponse { upstreams, next_page_token })
    }

    /// The usage of the registry, if an operator asks.
    async fn inventory(&self, actor: &Actor) -> Result<Option<Inventory>, Error> {
        match actor {
            Actor::Workload(_) => Ok(None),
            Actor::Operator(_) => self.0.inventory().await.map(Some),
        }
    }

    async fn shown(&self, actor: &Actor, upstream: &Upstream, version: &DocumentVersion) -> Result<pb::Upstream, Error> {
        let inventory = self.inventory(actor).await?;
        Ok(self.with_findings(upstream, version, inventory.as_ref()))
    }

    /// A registration; for operators with findings for an auditor.
    fn with_findings(&self, upstream: &Upstream, version: &DocumentVersion, inventory: Option<&Inventory>) -> pb::Upstream {
        let shown = wire::upstream_to_pb(upstream, version);
        // Workloads learn what they may ask for, not how it is granted.
        let Some(inventory) = inventory else { return pb::Upstream { settings: Vec::new(), ..shown } };
        let (live, last_used) = inventory.used(&upstream.name);
        let found = inventory.findings(upstream, version, self.0.system.wall());
        pb::Upstream {
            findings: found.iter().map(wire::finding_to_pb).collect(),
            live_credentials: live,
            last_used_at: last_used.map(wire::timestamp),
            connection: self.0.connection_of(upstream).map(connection::to_pb),
            ..shown
        }
    }

    async fn set(&self, actor: &Actor, ask: &pb::SetUpstreamRequest) -> Result<pb::SetUpstreamResponse, Error> {
        let operator = request_checks::operator(actor)?;
        let missing = || Refusal::field("upstream", "is missing: the registration");
        let given = ask.upstream.as_ref().ok_or_else(missing)?;
        let new = match wire::upstream_from_pb(given) {
            Ok(new) => new,
            Err(no) => {
                // An operator without the permission to manage upstreams is refused before the request's defects are explained.
                self.0.scope::<admin::ManageUpstreams>(operator)?;
                return Err(no.into());
            }
        };
        let terms = request_checks::change_options(ask, ask.dry_run, ask.confirmation.as_ref(), &ask.request_id)?;
        let reason = exchange_request::text("reason", &ask.reason, limits::PURPOSE_BYTES)?;
        let changed = self.0.set_upstream(operator, new, given.version, &reason, &terms).await?;
        let upstream = self.shown(actor, &registered(&changed.version)?, &changed.version).await?;
        let hits = Some(super::hits_to_pb(&changed.hits));
        Ok(pb::SetUpstreamResponse { upstream: Some(upstream), hits, beyond: changed.beyond, governs: changed.why })
    }

    async fn set_state(&self, actor: &Actor, ask: &pb::SetUpstreamStateRequest) -> Result<pb::SetUpstreamStateResponse, Error> {
        let name = exchange_request::name("upstream", &ask.upstream)?;
        let standing = match pb::RegistrationState::try_from(ask.state) {
            Ok(pb::RegistrationState::Active) => UpstreamStatus::Active,
            Ok(pb::RegistrationState::Disabled) => UpstreamStatus::Disabled,
            Ok(pb::RegistrationState::Retired) => UpstreamStatus::Retired,
            Ok(pb::RegistrationState::Unspecified) | Err(_) => {
                return Err(Refusal::field("state", "is missing or unknown: ACTIVE, DISABLED or RETIRED").into());
            }
        };
        let terms = request_checks::change_options(ask, ask.dry_run, ask.confirmation.as_ref(), &ask.request_id)?;
        let reason = request_checks::reason(&ask.reason)?;
        let to = (standing, Some(ask.read_version).filter(|version| *version > 0));
        let changed = self.0.set_upstream_state(request_checks::operator(actor)?, &name, to, &reason, &terms).await?;
        let upstream = self.shown(actor, &registered(&changed.version)?, &changed.version).await?;
        Ok(pb::SetUpstreamStateResponse { upstream: Some(upstream), hits: Some(super::hits_to_pb(&changed.hits)) })
    }

    async fn leaves(&self, actor: &Actor, ask: &pb::OffboardRequest) -> Result<pb::OffboardResponse, Error> {
        let leaving = OwnerDeparture {
            owner: exchange_request::name("owner", &ask.owner)?,
            person: ask.person.as_ref().map(wire::subject_from_pb),
            reason: request_checks::reason(&ask.reason)?,
        };
        if leaving.person.as_ref().is_some_and(|p| p.issuer.is_empty() || p.sub.is_empty()) {
            return Err(Refusal::field("person", "needs both: issuer and sub").into());
        }
        let terms = request_checks::change_options(ask, ask.dry_run, ask.confirmation.as_ref(), &ask.request_id)?;
        let left = self.0.offboard(request_checks::operator(actor)?, &leaving, &terms).await?;
        let seq = left.seq.map_or(0, |seq| seq.as_u64());
        Ok(pb::OffboardResponse { seq, upstreams: left.upstreams, hits: Some(super::hits_to_pb(&left.hits)) })
    }

    async fn owner_back(&self, actor: &Actor, ask: &pb::ReturnOwnerRequest) -> Result<pb::ReturnOwnerResponse, Error> {
        let (owner, reason) = (exchange_request::name("owner", &ask.owner)?, request_checks::reason(&ask.reason)?);
        let named = super::token::idempotency_key_of(&ask.request_id, ask)?;
        let (seq, upstreams) = self.0.owner_returned(request_checks::operator(actor)?, &owner, &reason, &named).await?;
        Ok(pb::ReturnOwnerResponse { seq: seq.as_u64(), upstreams })
    }

    async fn test(&self, actor: &Actor, ask: &pb::TestUpstreamRequest) -> Result<pb::TestUpstreamResponse, Error> {
        let operator = request_checks::operator(actor)?;
        let steps = self.0.test_upstream(operator, &exchange_request::name("upstream", &ask.upstream)?).await?;
        let steps = steps.into_iter().map(|step| pb::TestStep {
            name: step.name,
            problem: step.problem.map(|what| problem(Error::Refusal(Refusal::new(Reason::UpstreamFailed, what)))),
            took: Some(wire::duration(step.took_ms)),
        });
        Ok(pb::TestUpstreamResponse { steps: steps.collect() })
    }

    /// The compiled registration from the catalog, if it is of this version.
    fn compiled(&self, name: &str, version: &DocumentVersion) -> Option<Arc<Upstream>> {
        let compiled = self.0.catalog.now();
        compiled.upstream(name).filter(|r| r.version == version.version).map(|r| r.upstream.clone())
    }
}

#[tonic::async_trait]
impl UpstreamService for UpstreamApi {
    async fn get_upstream(&self, request: Request<pb::GetUpstreamRequest>) -> Result<Response<pb::GetUpstreamResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "get_upstream")?;
        self.get(&actor, request.get_ref()).await.map(Response::new).map_err(refused(&self.0, &actor, "get_upstream"))
    }

    async fn list_upstreams(
        &self,
        request: Request<pb::ListUpstreamsRequest>,
    ) -> Result<Response<pb::ListUpstreamsResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "list_upstreams")?;
        let listed = within_bytes(request.get_ref(), |ask| self.list(&actor, ask));
        listed.await.map(Response::new).map_err(refused(&self.0, &actor, "list_upstreams"))
    }

    async fn set_upstream(&self, request: Request<pb::SetUpstreamRequest>) -> Result<Response<pb::SetUpstreamResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "set_upstream")?;
        self.set(&actor, request.get_ref()).await.map(Response::new).map_err(refused(&self.0, &actor, "set_upstream"))
    }

    async fn set_upstream_state(
        &self,
        request: Request<pb::SetUpstreamStateRequest>,
    ) -> Result<Response<pb::SetUpstreamStateResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "set_upstream_state")?;
        let answer = self.set_state(&actor, request.get_ref()).await;
        answer.map(Response::new).map_err(refused(&self.0, &actor, "set_upstream_state"))
    }

    async fn offboard(&self, request: Request<pb::OffboardRequest>) -> Result<Response<pb::OffboardResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "offboard")?;
        self.leaves(&actor, request.get_ref()).await.map(Response::new).map_err(refused(&self.0, &actor, "offboard"))
    }

    async fn return_owner(&self, request: Request<pb::ReturnOwnerRequest>) -> Result<Response<pb::ReturnOwnerResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "return_owner")?;
        self.owner_back(&actor, request.get_ref()).await.map(Response::new).map_err(refused(&self.0, &actor, "return_owner"))
    }

    async fn test_upstream(
        &self,
        request: Request<pb::TestUpstreamRequest>,
    ) -> Result<Response<pb::TestUpstreamResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "test_upstream")?;
        self.test(&actor, request.get_ref()).await.map(Response::new).map_err(refused(&self.0, &actor, "test_upstream"))
    }

    async fn connect_upstream(
        &self,
        request: Request<pb::ConnectUpstreamRequest>,
    ) -> Result<Response<pb::ConnectUpstreamResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "connect_upstream")?;
        let answer = connection::connect(&self.0, &actor, request.get_ref()).await;
        answer.map(Response::new).map_err(refused(&self.0, &actor, "connect_upstream"))
    }

    async fn complete_connection(
        &self,
        request: Request<pb::CompleteConnectionRequest>,
    ) -> Result<Response<pb::CompleteConnectionResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "complete_connection")?;
        let answer = connection::complete(&self.0, &actor, request.into_inner()).await;
        answer.map(Response::new).map_err(refused(&self.0, &actor, "complete_connection"))
    }

    async fn disconnect_upstream(
        &self,
        request: Request<pb::DisconnectUpstreamRequest>,
    ) -> Result<Response<pb::DisconnectUpstreamResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "disconnect_upstream")?;
        let answer = connection::disconnect(&self.0, &actor, request.get_ref()).await;
        answer.map(Response::new).map_err(refused(&self.0, &actor, "disconnect_upstream"))
    }

    async fn put_secret(&self, request: Request<pb::PutSecretRequest>) -> Result<Response<pb::PutSecretResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "put_secret")?;
        secret::put(&self.0, &actor, request.get_ref()).await.map(Response::new).map_err(refused(&self.0, &actor, "put_secret"))
    }

    async fn list_secrets(&self, request: Request<pb::ListSecretsRequest>) -> Result<Response<pb::ListSecretsResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "list_secrets")?;
        let listed = within_bytes(request.get_ref(), |ask| secret::list(&self.0, &actor, ask));
        listed.await.map(Response::new).map_err(refused(&self.0, &actor, "list_secrets"))
    }

    async fn remove_secret(
        &self,
        request: Request<pb::RemoveSecretRequest>,
    ) -> Result<Response<pb::RemoveSecretResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "remove_secret")?;
        let answer = secret::remove(&self.0, &actor, request.get_ref()).await;
        answer.map(Response::new).map_err(refused(&self.0, &actor, "remove_secret"))
    }

    async fn list_bindings(
        &self,
        request: Request<pb::ListBindingsRequest>,
    ) -> Result<Response<pb::ListBindingsResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "list_bindings")?;
        let answer = within_bytes(request.get_ref(), |ask| binding::list(&self.0, &actor, ask)).await;
        answer.map(Response::new).map_err(refused(&self.0, &actor, "list_bindings"))
    }

    async fn set_binding(&self, request: Request<pb::SetBindingRequest>) -> Result<Response<pb::SetBindingResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "set_binding")?;
        let answer = binding::set(&self.0, &actor, request.get_ref()).await;
        answer.map(Response::new).map_err(refused(&self.0, &actor, "set_binding"))
    }

    async fn list_leases(&self, request: Request<pb::ListLeasesRequest>) -> Result<Response<pb::ListLeasesResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "list_leases")?;
        let listed = within_bytes(request.get_ref(), |ask| lease::list(&self.0, &actor, ask));
        listed.await.map(Response::new).map_err(refused(&self.0, &actor, "list_leases"))
    }

    async fn get_lease(&self, request: Request<pb::GetLeaseRequest>) -> Result<Response<pb::GetLeaseResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "get_lease")?;
        lease::show(&self.0, &actor, request.get_ref()).await.map(Response::new).map_err(refused(&self.0, &actor, "get_lease"))
    }

    async fn retry_lease(&self, request: Request<pb::RetryLeaseRequest>) -> Result<Response<pb::RetryLeaseResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "retry_lease")?;
        lease::retry(&self.0, &actor, request.get_ref()).await.map(Response::new).map_err(refused(&self.0, &actor, "retry_lease"))
    }

    async fn abandon_lease(
        &self,
        request: Request<pb::AbandonLeaseRequest>,
    ) -> Result<Response<pb::AbandonLeaseResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "abandon_lease")?;
        let answer = lease::abandon(&self.0, &actor, request.get_ref()).await;
        answer.map(Response::new).map_err(refused(&self.0, &actor, "abandon_lease"))
    }
}
