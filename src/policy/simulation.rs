//! A hypothetical request, written down for a test of a policy set or to ask what would happen. It owns its texts, which a [`Question`]
//! borrows.

use super::action::{Action, WorkloadAction};
use super::cedar::PolicyVerdict;
use super::question::{
    ApprovalContext, ApprovalFacts, AttestedFacts, DeclaredIntent, IntrospectionContext, OperatorContext, PersonFacts, Question,
    SubjectFacts, TaskFacts, UsageCounts, UseContext, WorkloadContext,
};
use super::set::PolicySet;
use mayfly_identity::spiffe_id::SpiffeId;
use mayfly_ledger::upstream::access::{self, AccessError, AccessQuery, DescribeAccess, GrantedAccess};
use mayfly_ledger::upstream::registry::{Approver, Kind, Upstream};
use mayfly_verify::seq::Millis;

/// The task of a situation.
#[derive(Clone, Default, Debug, PartialEq)]
pub struct SimulatedTask {
    /// The task's id; `None` while the task is being opened.
    pub id: Option<String>,
    /// The task's purpose. Empty: the same as the request's.
    pub purpose: String,
    /// The task's owner. Empty: the caller.
    pub owner: String,
    /// 0 for a root task.
    pub depth: i64,
    /// Lifetime in seconds. 0: the same as the request's.
    pub ttl_seconds: i64,
    /// Whether the task ends when a heartbeat is missed.
    pub heartbeat: bool,
    /// Upstreams of the task. Empty: the upstream that is asked about.
    pub upstreams: Vec<String>,
    /// Tools of the task.
    pub tools: Vec<String>,
    /// Callers that may act in the task besides its owner.
    pub callers: Vec<String>,
}

/// A person of a situation.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulatedPerson {
    /// The issuer's URL.
    pub issuer: String,
    /// `sub` at that issuer.
    pub id: String,
    /// Authentication methods (RFC 8176).
    pub amr: Vec<String>,
    /// Authentication context class.
    pub acr: Option<String>,
    /// When the person signed in.
    pub auth_time: Millis,
}

impl SimulatedPerson {
    fn facts<'a>(&'a self, amr: &'a [&'a str]) -> PersonFacts<'a> {
        PersonFacts { issuer: &self.issuer, id: &self.id, amr, acr: self.acr.as_deref(), auth_time: self.auth_time }
    }
}

/// A job of a situation.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulatedRun {
    /// The issuer's URL.
    pub issuer: String,
    /// The attestation rule that admits the job.
    pub rule: String,
    /// The platform's id of the workload that the job belongs to.
    pub id: String,
    /// Claims of the job's token, as `name=value`.
    pub claims: Vec<String>,
}

/// A use of a credential, as reported by a server of its upstream.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulatedUse {
    /// `accepted`, `refused` or `failed`.
    pub outcome: String,
    /// The tool is named by the credential or, where the credential names none, by its task.
    pub declared: bool,
    /// The use came after the credential's end.
    pub after_end: bool,
    /// The SPIFFE ID of the reporting server.
    pub server: String,
}

impl SimulatedUse {
    fn facts<'a>(
        &'a self,
        environment: &'a str,
        intent: DeclaredIntent<'a>,
        task: TaskFacts<'a>,
        counts: UsageCounts,
        now: Millis,
    ) -> UseContext<'a> {
        let SimulatedUse { outcome, declared, after_end, server } = self;
        UseContext { environment, intent, task, counts, outcome, declared: *declared, after_end: *after_end, server, now }
    }
}

impl Default for SimulatedUse {
    fn default() -> SimulatedUse {
        SimulatedUse { outcome: "accepted".to_owned(), declared: true, after_end: false, server: String::new() }
    }
}

/// A request with everything that a policy may read.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulatedRequest {
    /// The caller.
    pub caller: SpiffeId,
    /// The action.
    pub action: Action,
    /// The purpose, in the caller's words.
    pub purpose: String,
    /// The tool.
    pub tool: Option<String>,
    /// SHA-256 of the tool's arguments, base64url.
    pub arguments_digest: Option<String>,
    /// The credential kind. `None`: for an exchange, the first kind that the upstream issues.
    pub kind: Option<Kind>,
    /// The scopes.
    pub scopes: Vec<String>,
    /// The binding that covers the request.
    pub binding: Option<String>,
    /// Authorization details; empty for none.
    pub details: String,
    /// Lifetime in seconds. 0: the upstream's default for an exchange, one hour for a task.
    pub ttl_seconds: i64,
    /// Whether the request renews a credential.
    pub renewal: bool,
    /// Whether the request belongs to a break-glass task.
    pub break_glass: bool,
    /// The caller for which a child task is opened.
    pub delegate: Option<String>,
    /// The actor chain, without the caller.
    pub act_chain: Vec<String>,
    /// The subject, where the caller acts on behalf of one.
    pub subject: Option<SimulatedSubject>,
    /// The task.
    pub task: SimulatedTask,
    /// The person behind the caller.
    pub person: Option<SimulatedPerson>,
    /// The job that signs in.
    pub job: Option<SimulatedRun>,
    /// Counters.
    pub counts: UsageCounts,
    /// The people who approved the request.
    pub approvals: Vec<String>,
    /// For approvals: the caller that asked.
    pub asked_by: Option<String>,
    /// For the action `Use`: the reported use.
    pub used: SimulatedUse,
    /// For operators: the target's kind and name.
    pub target: (Option<String>, Option<String>),
    /// The time of the decision.
    pub now: Millis,
}

/// The subject of a situation.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SimulatedSubject {
    /// The issuer.
    pub issuer: String,
    /// `sub` at that issuer.
    pub id: String,
    /// The subject's groups.
    pub groups: Vec<String>,
}

/// The result of evaluating a situation.
#[derive(Clone, Debug, PartialEq)]
pub enum SimulationOutcome {
    /// Permitted by these policies.
    Permit(Vec<String>),
    /// Refused until one of these people approves; any one of them suffices.
    Approval(Vec<String>),
    /// Refused by these policies. The list is empty where no policy permits.
    Deny(Vec<String>),
    /// Refused by the wall between environments. The value is the caller's environment, if it has one.
    Wall(Option<String>),
    /// A policy could not be evaluated, which refuses the request.
    EngineError(String),
}

impl SimulatedRequest {
    /// A plain request with a caller, an action and a time, and defaults for everything else.
    pub fn new(caller: SpiffeId, action: Action, now: Millis) -> SimulatedRequest {
        SimulatedRequest {
            caller,
            action,
            purpose: String::new(),
            tool: None,
            arguments_digest: None,
            kind: None,
            scopes: Vec::new(),
            binding: None,
            details: String::new(),
            ttl_seconds: 0,
            renewal: false,
            break_glass: false,
            delegate: None,
            act_chain: Vec::new(),
            subject: None,
            task: SimulatedTask::default(),
            person: None,
            job: None,
            counts: UsageCounts::default(),
            approvals: Vec::new(),
            asked_by: None,
            used: SimulatedUse::default(),
            target: (None, None),
            now,
        }
    }

    /// Whether the action concerns an upstream.
    pub fn about_upstream(&self) -> bool {
        !matches!(self.action, Action::Admin(_))
    }

    /// Evaluates the situation against a set: first the environment wall, then Cedar, then whether an approval would change the verdict.
    ///
    /// `access`: describes the access at the upstream, like the server's connectors.
    pub fn outcome(
        &self,
        set: &PolicySet,
        environment: &str,
        upstream: Option<&Upstream>,
        access: &dyn DescribeAccess,
    ) -> SimulationOutcome {
        if let (true, Some(upstream)) = (matches!(self.action, Action::Work(_)), upstream) {
            let own = set.environment_of(&self.caller);
            if own != Some(upstream.environment.as_str()) {
                return SimulationOutcome::Wall(own.map(str::to_owned));
            }
        }
        let access = match upstream.map(|upstream| self.access(upstream, access)).transpose() {
            Ok(access) => access.flatten(),
            Err(no) => return SimulationOutcome::EngineError(format!("its access cannot be described: {no}")),
        };
        let about = (upstream, access.as_ref());
        let ask = |approvals: &[String]| self.with(environment, about, approvals, |question| set.verdict(question));
        match ask(&self.approvals) {
            Some(PolicyVerdict::Permit { by }) => SimulationOutcome::Permit(by),
            Some(PolicyVerdict::EngineError { what }) => SimulationOutcome::EngineError(what),
            None => SimulationOutcome::EngineError("no upstream was named".to_owned()),
            Some(PolicyVerdict::Deny { by }) => {
                let approvers = upstream.map(|u| u.approvers.as_slice()).unwrap_or_default();
                let helps = |person: &String| ask(std::slice::from_ref(person)).is_some_and(|v| v.permits());
                let asks = matches!(self.action, Action::Work(_)) && self.approvals.is_empty() && !self.break_glass;
                let helpers: Vec<String> = approvers.iter().filter(|_| asks).map(Approver::name).filter(helps).collect();
                if helpers.is_empty() { SimulationOutcome::Deny(by) } else { SimulationOutcome::Approval(helpers) }
            }
        }
    }

    /// The access at an upstream: of one credential or, where no kind is named, of all that a task could get.
    pub fn access(&self, upstream: &Upstream, from: &dyn DescribeAccess) -> Result<Option<GrantedAccess>, AccessError> {
        let exchange = self.action == Action::Work(WorkloadAction::Exchange);
        let known: Vec<String> = self.scopes.iter().filter(|scope| upstream.scope(scope).is_some()).cloned().collect();
        match (self.kind.or_else(|| upstream.kinds.first().copied().filter(|_| exchange)), self.action) {
            (Some(kind), Action::Work(WorkloadAction::Exchange) | Action::Approve) => {
                access::of_credential(from, &AccessQuery { upstream, kind, scopes: &known, details: &self.details })
            }
            (Some(kind), Action::Work(_)) => access::of_any(from, upstream, &[kind], &known),
            (None, Action::Work(_) | Action::Approve) => access::of_any(from, upstream, &upstream.kinds, &known),
            (_, Action::Introspect | Action::Use | Action::Admin(_) | Action::SignIn) => Ok(None),
        }
    }

    /// Passes the question to `ask`. `None` where the action concerns an upstream and there is none.
    pub fn with<T>(
        &self,
        environment: &str,
        (upstream, access): (Option<&Upstream>, Option<&GrantedAccess>),
        approvals: &[String],
        ask: impl FnOnce(&Question<'_>) -> T,
    ) -> Option<T> {
        let (scopes, people) = (texts(&self.scopes), texts(approvals));
        let amr = self.person.as_ref().map(|p| texts(&p.amr)).unwrap_or_default();
        let person = self.person.as_ref().map(|p| p.facts(&amr));
        let claims = self.job.as_ref().map(|j| texts(&j.claims)).unwrap_or_default();
        let job = self.job.as_ref().map(|j| AttestedFacts { issuer: &j.issuer, rule: &j.rule, id: &j.id, claims: &claims });
        let approvals = ApprovalFacts { count: i64::try_from(people.len()).unwrap_or(i64::MAX), people: &people };
        let exchange = self.action == Action::Work(WorkloadAction::Exchange);
        let intent = DeclaredIntent {
            purpose: &self.purpose,
            tool: self.tool.as_deref(),
            arguments_digest: self.arguments_digest.as_deref(),
            kind: self.kind.or_else(|| upstream.filter(|_| exchange)?.kinds.first().copied()),
            scopes: &scopes,
            binding: self.binding.as_deref(),
            access,
        };
        let now = self.now;
        let (chain, callers, tools) = (texts(&self.act_chain), texts(&self.task.callers), texts(&self.task.tools));
        let mut upstreams = texts(&self.task.upstreams);
        if let (true, Some(upstream)) = (upstreams.is_empty(), upstream) {
            upstreams.push(&upstream.name);
        }
        let task = upstream.map_or_else(TaskFacts::default, |upstream| TaskFacts {
            id: self.task.id.as_deref(),
            purpose: or(&self.task.purpose, &self.purpose),
            owner: or(&self.task.owner, self.caller.as_str()),
            environment: &upstream.environment,
            depth: self.task.depth,
            ttl_seconds: if self.task.ttl_seconds > 0 { self.task.ttl_seconds } else { self.ttl(upstream) },
            heartbeat: self.task.heartbeat,
            upstreams: &upstreams,
            tools: &tools,
            callers: &callers,
        });
        Some(match (self.action, upstream) {
            (Action::Work(work), Some(upstream)) => {
                let groups = self.subject.as_ref().map(|s| texts(&s.groups)).unwrap_or_default();
                let ask_for = WorkloadContext {
                    environment: &upstream.environment,
                    intent,
                    ttl_seconds: self.ttl(upstream),
                    renewal: self.renewal,
                    break_glass: self.break_glass,
                    delegate: self.delegate.as_deref(),
                    act_chain: &chain,
                    subject: self.subject.as_ref().map(|s| SubjectFacts { issuer: &s.issuer, id: &s.id, groups: &groups }),
                    task,
                    person,
                    counts: self.counts,
                    approvals,
                    now,
                };
                ask(&Question::work(&self.caller, work, upstream, &ask_for))
            }
            (Action::Introspect, Some(upstream)) => ask(&Question::introspect(
                &self.caller,
                upstream,
                &IntrospectionContext { environment: &upstream.environment, person, now },
            )),
            (Action::Approve, Some(upstream)) => {
                let caller = self.asked_by.as_deref().unwrap_or_default();
                let decide = ApprovalContext { environment: &upstream.environment, caller, intent, person, now };
                ask(&Question::approve(&self.caller, upstream, &decide))
            }
            (Action::Use, Some(upstream)) => {
                let used = self.used.facts(&upstream.environment, intent, task, self.counts, now);
                ask(&Question::used(&self.caller, upstream, &used))
            }
            (Action::Admin(_) | Action::SignIn, _) => {
                let act = OperatorContext {
                    environment: Some(environment),
                    target_kind: self.target.0.as_deref(),
                    target: self.target.1.as_deref(),
                    caller: self.asked_by.as_deref(),
                    break_glass: self.break_glass,
                    person,
                    job,
                    approvals,
                    now,
                };
                match self.action {
                    Action::Admin(admin) => ask(&Question::admin(&self.caller, admin, &act)),
                    _ => ask(&Question::sign_in(&self.caller, &act)),
                }
            }
            (Action::Work(_) | Action::Introspect | Action::Approve | Action::Use, None) => return None,
        })
    }

    fn ttl(&self, upstream: &Upstream) -> i64 {
        match (self.ttl_seconds, self.action) {
            (0, Action::Work(WorkloadAction::Exchange)) => i64::try_from(upstream.ttl.default).unwrap_or(i64::MAX),
            (0, _) => 3600,
            (asked, _) => asked,
        }
    }
}

fn texts(owned: &[String]) -> Vec<&str> {
    owned.iter().map(String::as_str).collect()
}

fn or<'a>(text: &'a str, other: &'a str) -> &'a str {
    if text.is_empty() { other } else { text }
}
