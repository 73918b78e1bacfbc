//! PolicyService: the policies that decide. Reading is served; policies come from files at the first start.

use std::ops::ControlFlow;
use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::super::wire;
use super::ask::{self, not_served, refused};
use crate::authority::Authority;
use crate::ledger::record::{Event, Who};
use crate::pb::mayfly::v1 as pb;
use crate::pb::mayfly::v1::policy_service_server::PolicyService;
use crate::policy::set::texts;
use crate::policy::{Admin, wanted};
use crate::refusal::{Fault, No, Reason, Refusal};
use crate::seq::{Millis, Seq};
use crate::tasks::Actor;

/// The service.
pub struct Policies(pub Arc<Authority>);

/// A version, from memory or history.
struct Version {
    number: u64,
    text: String,
    seq: Seq,
    at: Millis,
    by: Option<Who>,
}

impl Policies {
    async fn get(&self, actor: &Actor, ask: &pb::GetPolicyRequest) -> Result<pb::GetPolicyResponse, No> {
        let environment = wanted::name("environment", &ask.environment)?;
        let audit = match pb::PolicyMode::try_from(ask.mode) {
            Ok(pb::PolicyMode::Unspecified | pb::PolicyMode::Enforce) => false,
            Ok(pb::PolicyMode::Audit) => true,
            Err(_) => return Err(No::Refusal(Refusal::field("mode", format!("{} is no mode of a policy set", ask.mode)))),
        };
        self.0.admit(ask::operator(actor)?, Admin::Observe, Some(&environment))?;
        let table = |s: &crate::ledger::State| {
            let table = if audit { &s.audit_policies } else { &s.policies };
            table.get(environment.as_str()).cloned()
        };
        let in_force = self.0.ledger.settled(table).await?;
        let in_force = in_force.filter(|v| ask.version.is_none_or(|wanted| wanted == v.version));
        let version = match (in_force, ask.version) {
            (Some(v), _) => {
                let by = v.by.as_deref().cloned();
                Version { number: v.version, text: v.text.to_string(), seq: v.seq, at: v.at, by }
            }
            (None, Some(number)) => self.past(&environment, audit, number).await?,
            (None, None) => return Err(ask::not_found(format!("{environment} has no such policy set"))),
        };
        let (cedar, roles) = texts(&version.text).map_err(|e| Fault::new(format!("a policy set in the ledger: {e}")))?;
        let mode = if audit { pb::PolicyMode::Audit } else { pb::PolicyMode::Enforce };
        let policy = pb::PolicySet {
            environment,
            version: version.number,
            mode: mode.into(),
            cedar,
            at: Some(wire::timestamp(version.at)),
            author: version.by.as_ref().map(wire::identity_of_who),
            seq: version.seq.as_u64(),
            roles,
        };
        Ok(pb::GetPolicyResponse { policy: Some(policy) })
    }

    /// A version that is not in force, from history.
    async fn past(&self, environment: &str, audit: bool, number: u64) -> Result<Version, No> {
        let of = environment.to_owned();
        let (found, reached) = self
            .0
            .look_back(None, move |found, past| match &past.record.event {
                Some(Event::PolicySet(e)) if e.environment == of && e.audit_only == audit && e.version == number => {
                    let by = past.record.author.as_ref().and_then(|a| a.who.clone());
                    *found = Some(Version { number, text: e.text.clone(), seq: past.seq, at: past.at, by });
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            })
            .await?;
        match (found, reached) {
            (Some(version), _) => Ok(version),
            (None, reached) => match reached.short() {
                Some((_, why)) => {
                    let what = format!("version {number} of {environment} is not in history as far as it was looked at: {why}");
                    Err(No::Refusal(Refusal::new(Reason::NotFound, what)))
                }
                None => Err(ask::not_found(format!("{environment} has no version {number} of its policy set"))),
            },
        }
    }
}

#[tonic::async_trait]
impl PolicyService for Policies {
    async fn get_policy(&self, request: Request<pb::GetPolicyRequest>) -> Result<Response<pb::GetPolicyResponse>, Status> {
        let actor = ask::actor(&self.0, &request, "get_policy")?;
        self.get(&actor, request.get_ref()).await.map(Response::new).map_err(refused(&self.0, &actor, "get_policy"))
    }

    async fn validate_policy(
        &self,
        _: Request<pb::ValidatePolicyRequest>,
    ) -> Result<Response<pb::ValidatePolicyResponse>, Status> {
        not_served("ValidatePolicy")
    }

    async fn diff_policy(&self, _: Request<pb::DiffPolicyRequest>) -> Result<Response<pb::DiffPolicyResponse>, Status> {
        not_served("DiffPolicy")
    }

    async fn set_policy(&self, _: Request<pb::SetPolicyRequest>) -> Result<Response<pb::SetPolicyResponse>, Status> {
        not_served("SetPolicy")
    }
}
