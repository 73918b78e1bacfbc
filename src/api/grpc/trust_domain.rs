//! TrustDomainService: trust domains and their bundles.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::super::wire;
use super::page::{NamePageRequest, within_bytes};
use super::request_checks::{self, refused};
use super::token::idempotency_key_of;
use mayfly_authority::authority::Authority;
use mayfly_authority::revocation::revoke::RevocationConfirmation;
use mayfly_authority::tasks::{Actor, IdempotencyKey};
use mayfly_authority::trust::{BundleChangeRequest, BundleChangeResult, BundleProposal};
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Refusal};
use mayfly_identity::caller::Operator;
use mayfly_identity::spiffe_id::TrustDomain;
use mayfly_ledger::record::Author;
use mayfly_ledger::revocation::Target;
use mayfly_ledger::state::BundleState;
use mayfly_policy::{admin, exchange_request};
use mayfly_proto::mayfly::v1 as pb;
use mayfly_proto::mayfly::v1::trust_domain_service_server::TrustDomainService;
use mayfly_verify::seq::Seq;

/// The gRPC service.
pub struct TrustDomainApi(pub Arc<Authority>);

fn domain(name: &str) -> Result<TrustDomain, Refusal> {
    TrustDomain::parse(name).map_err(|defect| Refusal::field("trust_domain", defect))
}

impl TrustDomainApi {
    async fn state(&self, name: &str) -> Result<Option<BundleState>, Error> {
        self.0.ledger.settled(|s| s.bundles.get(name).cloned()).await
    }

    /// The trust domain in its current state, or in the state that a dry run computed.
    async fn show(&self, domain: &TrustDomain, changed: &BundleChangeResult) -> Result<Option<pb::TrustDomain>, Error> {
        let state = match &changed.would_be {
            Some(state) => Some(state.clone()),
            None => self.state(domain.as_str()).await?,
        };
        Ok(state.map(|s| wire::trust_domain_to_pb(domain.as_str(), &s)).transpose()?)
    }

    async fn list(&self, actor: &Actor, ask: pb::ListTrustDomainsRequest) -> Result<pb::ListTrustDomainsResponse, Error> {
        self.0.scope::<admin::Observe>(request_checks::operator(actor)?)?;
        let page = NamePageRequest::of(ask.page_size, &ask.page_token, &ask)?;
        let (found, next_page_token) = self
            .0
            .ledger
            .settled(|s| page.take(s.bundles.iter().map(|(n, b)| (n.to_string(), (n.clone(), b.clone()))).collect()))
            .await?;
        let domains: Result<Vec<_>, _> = found.iter().map(|(name, state)| wire::trust_domain_to_pb(name, state)).collect();
        Ok(pb::ListTrustDomainsResponse { trust_domains: domains?, next_page_token })
    }

    async fn get(&self, actor: &Actor, ask: &pb::GetBundleRequest) -> Result<pb::GetBundleResponse, Error> {
        let domain = domain(&ask.trust_domain)?;
        let none = || request_checks::not_found(format!("there is no trust domain {domain} that you may see"));
        let mut counts = false;
        match actor {
            // The numbers count credentials of every environment, so only an operator who may observe all of them gets the numbers.
            Actor::Operator(operator) => counts = self.0.scope::<admin::Observe>(operator)?.everywhere(),
            Actor::Workload(caller) => {
                // A workload may see its own trust domain, and that of mayfly's certificate, by which it verifies the server.
                let own = self.0.own.get().map(|own| own.trust_domain());
                if caller.id().trust_domain() != domain.as_str() && own.as_ref() != Some(&domain) {
                    return Err(none());
                }
            }
        }
        let state = self.state(domain.as_str()).await?.ok_or_else(none)?;
        let mut shown = wire::trust_domain_to_pb(domain.as_str(), &state)?;
        if counts {
            self.count(&mut shown).await?;
        }
        let spiffe_jwks = match state.removed {
            true => "{\"keys\":[]}".to_owned(),
            false => String::from_utf8_lossy(&state.document).into_owned(),
        };
        Ok(pb::GetBundleResponse { trust_domain: Some(shown), spiffe_jwks })
    }

    /// Counts the credentials that were issued to SVIDs of each root.
    async fn count(&self, shown: &mut pb::TrustDomain) -> Result<(), Error> {
        if shown.trust_anchors.len() > limits::TARGETS {
            return Ok(());
        }
        let targets: Vec<Target> =
            shown.trust_anchors.iter().filter_map(|a| a.sha256[..].try_into().ok()).map(Target::TrustAnchor).collect();
        let (_, each) = self.0.hits(&targets).await?;
        for (anchor, hits) in shown.trust_anchors.iter_mut().zip(&each) {
            anchor.vouches_for = Some(super::hits_to_pb(hits));
        }
        Ok(())
    }

    /// One change by an operator.
    async fn change(
        &self,
        actor: &Actor,
        domain: &TrustDomain,
        proposal: BundleProposal,
        how: ChangeConditions,
    ) -> Result<BundleChangeResult, Error> {
        let operator = request_checks::operator(actor)?;
        let author = match operator {
            Operator::Svid(caller) => Author::of(caller),
            Operator::LocalUid(uid) => Author::LocalUid(*uid),
        };
        let (domain, operator) = (domain.clone(), Some(operator.clone()));
        let ChangeConditions { reason, dry_run, confirm, named } = how;
        // `change_bundle` checks the permission, alone or with a second operator.
        self.0.change_bundle(&BundleChangeRequest { domain, proposal, author, reason, confirm, dry_run, named, operator }).await
    }

    async fn add(&self, actor: &Actor, ask: &pb::AddBundleRequest) -> Result<pb::AddBundleResponse, Error> {
        let domain = domain(&ask.trust_domain)?;
        let bundle = wire::bundle_from_pb(&domain, ask.bundle.as_ref())?;
        if bundle.x509_authorities().is_empty() && bundle.jwt_authorities().is_empty() {
            return Err(Error::Refusal(Refusal::field("bundle", "has no authority that could be added")));
        }
        let how = ChangeConditions {
            reason: optional_reason(&ask.reason)?,
            named: idempotency_key_of(&ask.request_id, ask)?,
            ..ChangeConditions::default()
        };
        let changed = self.change(actor, &domain, BundleProposal::Add(bundle), how).await?;
        Ok(pb::AddBundleResponse { trust_domain: self.show(&domain, &changed).await? })
    }

    async fn set(&self, actor: &Actor, ask: &pb::SetBundleRequest) -> Result<pb::SetBundleResponse, Error> {
        let domain = domain(&ask.trust_domain)?;
        let bundle = wire::bundle_from_pb(&domain, ask.bundle.as_ref())?;
        let how = ChangeConditions {
            reason: match optional_reason(&ask.reason)? {
                none if none.is_empty() => "an operator set a bundle without this root".to_owned(),
                reason => reason,
            },
            dry_run: ask.dry_run,
            confirm: request_checks::confirm(ask.confirmation.as_ref()),
            named: idempotency_key_of(&ask.request_id, ask)?,
        };
        let changed = self.change(actor, &domain, BundleProposal::Set(bundle), how).await?;
        Ok(pb::SetBundleResponse {
            trust_domain: self.show(&domain, &changed).await?,
            added: changed.added.iter().map(wire::anchor_to_pb).collect(),
            removed: changed.removed.iter().map(wire::anchor_to_pb).collect(),
            hits: Some(super::hits_to_pb(&changed.hits)),
            seq: rule(&changed),
        })
    }

    async fn remove_anchor(
        &self,
        actor: &Actor,
        ask: &pb::RemoveTrustAnchorRequest,
    ) -> Result<pb::RemoveTrustAnchorResponse, Error> {
        let domain = domain(&ask.trust_domain)?;
        let root = ask.sha256[..].try_into();
        let root = root.map_err(|_| Refusal::field("sha256", format!("has {} bytes, a SHA-256 has 32", ask.sha256.len())))?;
        let how = ChangeConditions {
            reason: request_checks::reason(&ask.reason)?,
            dry_run: ask.dry_run,
            confirm: request_checks::confirm(ask.confirmation.as_ref()),
            named: idempotency_key_of(&ask.request_id, ask)?,
        };
        let changed = self.change(actor, &domain, BundleProposal::RemoveRoot(root), how).await?;
        Ok(pb::RemoveTrustAnchorResponse {
            trust_domain: self.show(&domain, &changed).await?,
            hits: Some(super::hits_to_pb(&changed.hits)),
            seq: rule(&changed),
            connections: changed.connections,
        })
    }

    async fn remove(&self, actor: &Actor, ask: &pb::RemoveTrustDomainRequest) -> Result<pb::RemoveTrustDomainResponse, Error> {
        let domain = domain(&ask.trust_domain)?;
        let how = ChangeConditions {
            reason: request_checks::reason(&ask.reason)?,
            dry_run: ask.dry_run,
            confirm: request_checks::confirm(ask.confirmation.as_ref()),
            named: idempotency_key_of(&ask.request_id, ask)?,
        };
        let changed = self.change(actor, &domain, BundleProposal::RemoveDomain, how).await?;
        let hits = Some(super::hits_to_pb(&changed.hits));
        Ok(pb::RemoveTrustDomainResponse { hits, seq: rule(&changed), connections: changed.connections })
    }
}

/// A reason that may be left out.
fn optional_reason(reason: &str) -> Result<String, Refusal> {
    exchange_request::text("reason", reason, limits::PURPOSE_BYTES)
}

/// The conditions of an operator's change of a bundle.
struct ChangeConditions {
    reason: String,
    dry_run: bool,
    confirm: RevocationConfirmation,
    named: IdempotencyKey,
}

impl Default for ChangeConditions {
    fn default() -> ChangeConditions {
        ChangeConditions { reason: String::new(), dry_run: false, confirm: RevocationConfirmation::None, named: None }
    }
}

/// The sequence number of the revocation rule that a change made; 0 if it made none.
fn rule(changed: &BundleChangeResult) -> u64 {
    changed.seq.filter(|_| changed.narrowed).map_or(0, Seq::as_u64)
}

#[tonic::async_trait]
impl TrustDomainService for TrustDomainApi {
    async fn list_trust_domains(
        &self,
        request: Request<pb::ListTrustDomainsRequest>,
    ) -> Result<Response<pb::ListTrustDomainsResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "list_trust_domains")?;
        let answer = within_bytes(request.get_ref(), |ask| self.list(&actor, ask)).await;
        answer.map(Response::new).map_err(refused(&self.0, &actor, "list_trust_domains"))
    }

    async fn get_bundle(&self, request: Request<pb::GetBundleRequest>) -> Result<Response<pb::GetBundleResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "get_bundle")?;
        let answer = self.get(&actor, request.get_ref()).await;
        answer.map(Response::new).map_err(refused(&self.0, &actor, "get_bundle"))
    }

    async fn add_bundle(&self, request: Request<pb::AddBundleRequest>) -> Result<Response<pb::AddBundleResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "add_bundle")?;
        let answer = self.add(&actor, request.get_ref()).await;
        answer.map(Response::new).map_err(refused(&self.0, &actor, "add_bundle"))
    }

    async fn set_bundle(&self, request: Request<pb::SetBundleRequest>) -> Result<Response<pb::SetBundleResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "set_bundle")?;
        let answer = self.set(&actor, request.get_ref()).await;
        answer.map(Response::new).map_err(refused(&self.0, &actor, "set_bundle"))
    }

    async fn remove_trust_anchor(
        &self,
        request: Request<pb::RemoveTrustAnchorRequest>,
    ) -> Result<Response<pb::RemoveTrustAnchorResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "remove_trust_anchor")?;
        let answer = self.remove_anchor(&actor, request.get_ref()).await;
        answer.map(Response::new).map_err(refused(&self.0, &actor, "remove_trust_anchor"))
    }

    async fn remove_trust_domain(
        &self,
        request: Request<pb::RemoveTrustDomainRequest>,
    ) -> Result<Response<pb::RemoveTrustDomainResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "remove_trust_domain")?;
        let answer = self.remove(&actor, request.get_ref()).await;
        answer.map(Response::new).map_err(refused(&self.0, &actor, "remove_trust_domain"))
    }
}
