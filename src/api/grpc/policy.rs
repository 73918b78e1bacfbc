//! PolicyService: manages and explains policy sets.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::super::wire;
use super::page;
use super::request_checks::{self, refused};
use mayfly_authority::authority::Authority;
use mayfly_authority::registry::policies::{PolicyChangeRequest, PolicySetSource};
use mayfly_authority::registry::replay::PolicyReplay;
use mayfly_authority::tasks::Actor;
use mayfly_base::document::SourceFile;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Refusal};
use mayfly_identity::spiffe_id::SpiffeId;
use mayfly_policy::action::{Action, WorkloadAction};
use mayfly_policy::question::digest_text;
use mayfly_policy::simulation::{SimulatedRequest, SimulationOutcome};
use mayfly_policy::{admin, exchange_request};
use mayfly_proto::mayfly::v1 as pb;
use mayfly_proto::mayfly::v1::policy_service_server::PolicyService;
use mayfly_verify::seq::Millis;

/// The gRPC service.
pub struct PolicyApi(pub Arc<Authority>);

/// Whether the requested mode is audit.
fn audit(mode: i32) -> Result<bool, Refusal> {
    match pb::PolicyMode::try_from(mode) {
        Ok(pb::PolicyMode::Unspecified | pb::PolicyMode::Enforce) => Ok(false),
        Ok(pb::PolicyMode::Audit) => Ok(true),
        Err(_) => Err(Refusal::field("mode", format!("{mode} is no mode of a policy set"))),
    }
}

fn source(file: &pb::PolicyFile) -> Result<SourceFile, Refusal> {
    Ok(SourceFile::new(exchange_request::name("set.files.name", &file.name)?, file.text.as_str()))
}

/// The source of a policy set.
fn from(set: Option<&pb::PolicySource>) -> Result<Option<PolicySetSource>, Refusal> {
    use mayfly_proto::mayfly::v1::policy_source::From;
    Ok(match set.and_then(|s| s.from.as_ref()) {
        None => None,
        Some(From::Files(files)) => {
            let bytes: usize = files.policies.iter().chain(&files.roles).map(|f| f.name.len() + f.text.len()).sum();
            if bytes > limits::POLICY_BYTES {
                let what = format!("has {bytes} bytes: at most {} in all its files", limits::POLICY_BYTES);
                return Err(Refusal::field("set.files", what));
            }
            let policies = files.policies.iter().map(source).collect::<Result<_, _>>()?;
            Some(PolicySetSource::Files(policies, files.roles.as_ref().map(source).transpose()?))
        }
        Some(From::Version(number)) => Some(PolicySetSource::Version(*number)),
        Some(From::Audited(true)) => Some(PolicySetSource::Audited),
        Some(From::InForce(true)) => Some(PolicySetSource::InForce),
        Some(From::Audited(false) | From::InForce(false)) => {
            return Err(Refusal::field("set", "must be true where it is set; or name the set in another way"));
        }
    })
}

/// As many violations as an answer may have; the last one then says how many more there are.
fn first_violations(mut all: Vec<pb::FieldViolation>) -> Vec<pb::FieldViolation> {
    let found = all.len();
    all.truncate(limits::POLICY_VIOLATIONS);
    let mut first = page::fit(all.into_iter());
    let more = found - first.len();
    if more > 0 {
        first.push(wire::violation("…", &format!("{more} more were found; correct these first")));
    }
    first
}

/// A hypothetical request, whose decision is to be explained.
fn situation(given: Option<&pb::Situation>, now: Millis) -> Result<(SimulatedRequest, Option<String>), Refusal> {
    let given = given.ok_or_else(|| Refusal::field("situation", "is missing: the request to explain"))?;
    let caller = SpiffeId::parse(&given.caller).map_err(|e| Refusal::field("situation.caller", e.to_string()))?;
    let action = match given.action.as_str() {
        "" => Action::Work(WorkloadAction::Exchange),
        name => Action::ALL.iter().copied().find(|a| a.name() == name).ok_or_else(|| {
            let all: Vec<&str> = Action::ALL.iter().map(|a| a.name()).collect();
            Refusal::field("situation.action", format!("{name:?} is none of {}", all.join(", ")))
        })?,
    };
    let lists = [("situation.scopes", &given.scopes), ("situation.approvals", &given.approvals)];
    for (field, list) in lists {
        if list.len() > limits::TASK_LIST {
            return Err(Refusal::field(field, format!("has {} values: at most {}", list.len(), limits::TASK_LIST)));
        }
    }
    let text = |field, value: &str, most| match value {
        "" => Ok(None),
        value => exchange_request::text(field, value, most).map(Some),
    };
    let digest = match given.arguments_json.as_str() {
        "" => None,
        json => Some(digest_text(&exchange_request::digest_of_json(json)?, &mut [0; 43]).to_owned()),
    };
    let ttl = exchange_request::duration("situation.ttl", given.ttl.as_ref())?;
    let situation = SimulatedRequest {
        purpose: text("situation.purpose", &given.purpose, limits::PURPOSE_BYTES)?.unwrap_or_default(),
        tool: text("situation.tool", &given.tool, limits::NAME_BYTES)?,
        arguments_digest: digest,
        kind: exchange_request::kind("situation.kind", given.kind)?,
        scopes: given.scopes.iter().map(|s| exchange_request::name("situation.scopes", s)).collect::<Result<_, _>>()?,
        ttl_seconds: ttl.and_then(|ms| i64::try_from(ms / 1000).ok()).unwrap_or(0),
        approvals: given.approvals.clone(),
        target: (
            text("situation.target_kind", &given.target_kind, limits::NAME_BYTES)?,
            text("situation.target", &given.target, limits::SPIFFE_ID_BYTES)?,
        ),
        ..SimulatedRequest::new(caller, action, now)
    };
    let upstream = match given.upstream.as_str() {
        "" if situation.about_upstream() => {
            return Err(Refusal::field("situation.upstream", format!("is missing: {} is asked about one", action.name())));
        }
        "" => None,
        name => Some(exchange_request::name("situation.upstream", name)?),
    };
    Ok((situation, upstream))
}

impl PolicyApi {
    async fn get(&self, actor: &Actor, ask: &pb::GetPolicyRequest) -> Result<pb::GetPolicyResponse, Error> {
        let (environment, audit) = (exchange_request::name("environment", &ask.environment)?, audit(ask.mode)?);
        self.0.admit::<admin::Observe>(request_checks::operator(actor)?, Some(&environment))?;
        let version = self.0.policy_version(&environment, audit, ask.version).await?;
        let mut policy = wire::policy_to_pb(&environment, audit, &version)?;
        policy.audited = audit.then(|| {
            let counts = self.0.decider.audits.counts();
            pb::AuditedDecisions { same: counts.same, would_refuse: counts.refuses, would_permit: counts.permits }
        });
        Ok(pb::GetPolicyResponse { policy: Some(policy) })
    }

    async fn validate(&self, actor: &Actor, ask: &pb::ValidatePolicyRequest) -> Result<pb::ValidatePolicyResponse, Error> {
        let environment = exchange_request::name("environment", &ask.environment)?;
        self.0.admit::<admin::Observe>(request_checks::operator(actor)?, Some(&environment))?;
        let from = from(ask.set.as_ref())?.ok_or_else(|| Refusal::field("set", "is missing: the set to check"))?;
        let checked = self.0.policy_from(&environment, &from).await;
        let set = match checked.and_then(|(set, _)| self.0.keeps_operators(&environment, &set).map(|()| set)) {
            Ok(set) => set,
            Err(Error::Refusal(no)) if no.wrong().next().is_some() => {
                let violations = first_violations(no.wrong().map(|(field, what)| wire::violation(field, what)).collect());
                return Ok(pb::ValidatePolicyResponse { violations, ..Default::default() });
            }
            Err(no) => return Err(no),
        };
        let warnings = self.0.policy_warnings(&environment, &set);
        Ok(pb::ValidatePolicyResponse {
            violations: Vec::new(),
            warnings: first_violations(warnings.iter().map(|(f, w)| wire::violation(f, w)).collect()),
            policies: set.ids().to_vec(),
            governs: self.0.governs(&environment, &from, &set),
        })
    }

    async fn explain(&self, actor: &Actor, ask: &pb::ExplainPolicyRequest) -> Result<pb::ExplainPolicyResponse, Error> {
        let environment = exchange_request::name("environment", &ask.environment)?;
        self.0.admit::<admin::Observe>(request_checks::operator(actor)?, Some(&environment))?;
        let (situation, upstream) = situation(ask.situation.as_ref(), self.0.system.wall())?;
        let from = from(ask.set.as_ref())?.unwrap_or(PolicySetSource::InForce);
        let (set, version) = self.0.policy_from(&environment, &from).await?;
        let compiled = self.0.catalog.now();
        let upstream = match &upstream {
            None => None,
            Some(name) => {
                Some(compiled.upstream(name).ok_or_else(|| request_checks::not_found(format!("there is no upstream {name}")))?)
            }
        };
        let connectors = &*self.0.decider.access;
        let outcome = situation.outcome(&set, &environment, upstream.map(|u| &*u.upstream), connectors);
        let access = upstream.and_then(|u| situation.access(&u.upstream, connectors).ok().flatten());
        let (said, approvers) = match &outcome {
            SimulationOutcome::Permit(_) => (pb::PolicyOutcome::Permit, Vec::new()),
            SimulationOutcome::Deny(_) => (pb::PolicyOutcome::Deny, Vec::new()),
            SimulationOutcome::Approval(people) => (pb::PolicyOutcome::Approval, people.clone()),
            SimulationOutcome::Wall(_) => (pb::PolicyOutcome::Wall, Vec::new()),
            SimulationOutcome::EngineError(_) => (pb::PolicyOutcome::EngineError, Vec::new()),
        };
        let reads = set.reads(situation.action);
        let written = |(path, value): (&str, bool)| if value { path.to_owned() } else { format!("has {path}") };
        Ok(pb::ExplainPolicyResponse {
            outcome: said.into(),
            policies: outcome.by().to_vec(),
            text: outcome.to_string(),
            approvers,
            roles: set.roles_of(&situation.caller).into_iter().map(str::to_owned).collect(),
            caller_environment: set.environment_of(&situation.caller).unwrap_or_default().to_owned(),
            reads: reads.paths().map(written).collect(),
            cacheable: reads.cacheable(),
            version: version.unwrap_or(0),
            access: access.map_or_else(Vec::new, |access| access.words()),
        })
    }

    async fn diff(&self, actor: &Actor, ask: &pb::DiffPolicyRequest) -> Result<pb::DiffPolicyResponse, Error> {
        let environment = exchange_request::name("environment", &ask.environment)?;
        self.0.admit::<admin::ReadAudit>(request_checks::operator(actor)?, Some(&environment))?;
        let from = from(ask.set.as_ref())?.ok_or_else(|| Refusal::field("set", "is missing: the set to compare"))?;
        let since = match &ask.since {
            Some(since) => wire::millis(since).ok_or_else(|| Refusal::field("since", "is no moment since 1970"))?,
            None => Millis(self.0.system.wall().0.saturating_sub(limits::POLICY_DIFF_MS)),
        };
        let PolicyReplay { decisions, newly_refused, newly_permitted, undetermined, samples, reached } =
            self.0.replay_policy(&environment, &from, since).await?;
        Ok(pb::DiffPolicyResponse {
            decisions,
            newly_refused,
            newly_permitted,
            undetermined,
            samples: samples.into_iter().map(wire::decision_diff_to_pb).collect(),
            reached: reached.map(wire::timestamp),
        })
    }

    async fn set(&self, actor: &Actor, ask: &pb::SetPolicyRequest) -> Result<pb::SetPolicyResponse, Error> {
        let setting = PolicyChangeRequest {
            environment: exchange_request::name("environment", &ask.environment)?,
            audit: audit(ask.mode)?,
            from: from(ask.set.as_ref())?,
            read: ask.read_version,
            reason: request_checks::reason(&ask.reason)?,
        };
        let terms = request_checks::change_options(ask, ask.dry_run, ask.confirmation.as_ref(), &ask.request_id)?;
        let set = self.0.set_policy(request_checks::operator(actor)?, &setting, &terms).await?;
        Ok(pb::SetPolicyResponse {
            policy: Some(wire::policy_to_pb(&setting.environment, setting.audit, &set.version)?),
            hits: Some(super::hits_to_pb(&set.hits)),
            beyond: set.beyond,
            governs: set.why,
        })
    }
}

#[tonic::async_trait]
impl PolicyService for PolicyApi {
    async fn get_policy(&self, request: Request<pb::GetPolicyRequest>) -> Result<Response<pb::GetPolicyResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "get_policy")?;
        self.get(&actor, request.get_ref()).await.map(Response::new).map_err(refused(&self.0, &actor, "get_policy"))
    }

    async fn validate_policy(
        &self,
        request: Request<pb::ValidatePolicyRequest>,
    ) -> Result<Response<pb::ValidatePolicyResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "validate_policy")?;
        self.validate(&actor, request.get_ref()).await.map(Response::new).map_err(refused(&self.0, &actor, "validate_policy"))
    }

    async fn explain_policy(
        &self,
        request: Request<pb::ExplainPolicyRequest>,
    ) -> Result<Response<pb::ExplainPolicyResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "explain_policy")?;
        self.explain(&actor, request.get_ref()).await.map(Response::new).map_err(refused(&self.0, &actor, "explain_policy"))
    }

    async fn diff_policy(&self, request: Request<pb::DiffPolicyRequest>) -> Result<Response<pb::DiffPolicyResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "diff_policy")?;
        self.diff(&actor, request.get_ref()).await.map(Response::new).map_err(refused(&self.0, &actor, "diff_policy"))
    }

    async fn set_policy(&self, request: Request<pb::SetPolicyRequest>) -> Result<Response<pb::SetPolicyResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "set_policy")?;
        self.set(&actor, request.get_ref()).await.map(Response::new).map_err(refused(&self.0, &actor, "set_policy"))
    }
}
