//! Decisions, and the order of their checks: environment wall, registration, revocation rules, task, bounds, and Cedar last.
//!
//! Anything unknown refuses. Cedar's verdict can only narrow: the walls and bounds hold whatever Cedar permits.

mod access;
mod approval;
mod approval_requirement;
mod authorize;
mod break_glass;
mod caller;
mod credential_draft;
mod extension;
#[cfg(feature = "fast")]
mod fast;
mod redecide;
mod reported_use;
mod subject;
mod task;
mod task_context;

pub use authorize::plain as plain_action;
pub use break_glass::BreakGlassRequest;
pub use caller::{caller_facts, svid_of};
pub use extension::ExtensionDecision;
#[cfg(feature = "fast")]
pub use fast::{BatchDecision, ReusableDecision, SharedDecision};
pub use redecide::{CredentialSnapshot, PolicyComparison, reads_records, still_permits};
pub use reported_use::ReportedUse;
pub use task::{TaskOpenDecision, TaskOpenMode};

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::action::WorkloadAction;
use super::catalog::{self, CompiledCatalog, EnvironmentPolicy, RegisteredUpstream, issuer_of};
use super::exchange_request::{ExchangeRequest, TaskChoice};
use super::grant::{Grant, GrantParts, TaskPath};
use super::lifetime::{BoundedExpiry, LifetimeBound};
use super::person;
use super::question::{self, Question};
use super::shadow::ShadowRecorder;
use super::subject::VerifiedSubject;
use super::verdict_cache::VerdictCache;
use approval::UsableApproval;
use credential_draft::{active, binding_of, certified_key, kind_of, scopes_of};
use mayfly_base::refusal::{DeniedExchange, Error, Fault, Reason, Refusal};
use mayfly_identity::caller::Caller;
use mayfly_ledger::View;
use mayfly_ledger::record::{self, Author, RequestRecord};
use mayfly_ledger::revocation::TargetKinds;
use mayfly_ledger::state::SupportingGrant;
use mayfly_ledger::upstream::access::{AccessQuery, DescribeAccess, GrantedAccess};
use mayfly_ledger::upstream::registry::{Kind, Upstream};
use mayfly_verify::seq::{Millis, TaskId};
use subject::SubjectAttributes;
use task_context::{TaskContext, TaskLists, named, named_and_blocked, within_task};

/// The state that the decisions of one server share.
pub struct Decider {
    /// The cache of Cedar's verdicts.
    pub verdicts: Arc<VerdictCache>,
    /// Differences of shadow policy sets.
    pub audits: Arc<ShadowRecorder>,
    /// Base of `iss`, without the environment's path.
    pub issuer: String,
    /// The environments that this server serves (`server.environments`). `None`: every environment that has a policy set.
    pub serves: Option<Vec<String>>,
    /// Describes the access that credentials give at upstreams: the connectors of the server.
    pub access: Arc<dyn DescribeAccess>,
    /// The longest TTL of a credential, in milliseconds.
    pub longest_ms: AtomicU64,
    /// The longest lifetime of a task, in milliseconds.
    pub longest_task_ms: AtomicU64,
}

fn denied(reason: Reason, what: impl Into<String>) -> Error {
    Error::Refusal(Refusal::new(reason, what))
}

/// The settled part of an exchange.
struct ExchangeDecision<'a> {
    registered: &'a RegisteredUpstream,
    policy: &'a EnvironmentPolicy,
    place: TaskContext,
    kind: Kind,
    scopes: Vec<String>,
    /// The access at the upstream; `None` for kinds that mayfly makes itself.
    access: Option<Box<GrantedAccess>>,
    life: BoundedExpiry,
    /// The binding that covers the exchange.
    binding: Option<&'a catalog::BindingInForce>,
    /// Thumbprints of the certificate and of the key that the credential is bound to. Both are empty where it is bound to neither.
    bound: (Vec<u8>, Vec<u8>),
    /// The policies that permit the exchange.
    policies: Vec<String>,
    /// The approval that the exchange uses up.
    approval: Option<UsableApproval>,
    now: Millis,
    /// The sorts of revocation rules that may block a decision on this view.
    #[cfg_attr(not(feature = "fast"), allow(dead_code, reason = "only decisions that are reused are checked by it"))]
    may_block: TargetKinds,
}

impl ExchangeDecision<'_> {
    /// The question that policy was asked, for the audit record of a refusal.
    fn denied(&self, caller: &Caller, want: &ExchangeRequest) -> DeniedExchange {
        let upstream = &self.registered.upstream;
        DeniedExchange {
            environment: upstream.environment.clone(),
            upstream: (upstream.name.clone(), self.registered.version),
            policy: self.policy.version,
            task: (!self.place.is_new()).then(|| *self.place.id.as_bytes()),
            kind: self.kind.tag(),
            scopes: self.scopes.clone(),
            tool: want.tool.to_string(),
            purpose: self.purpose(want).to_owned(),
            arguments: want.arguments,
            ttl_ms: self.life.end().since(self.now),
            renewal: want.renews.is_some(),
            binding: self.binding.map_or_else(String::new, |b| b.binding.name.clone()),
            authorization_details: want.details.as_deref().unwrap_or_default().to_owned(),
            subject: want.subject().map(|subject| subject::denied(subject, caller)),
        }
    }

    fn purpose<'b>(&'b self, want: &'b ExchangeRequest) -> &'b str {
        self.place.purpose_of(want)
    }
}

fn parts(
    view: &View,
    caller: &Caller,
    registered: &RegisteredUpstream,
    policy: &EnvironmentPolicy,
    draft: Box<record::CredentialIssued>,
    (path, grounds): (TaskPath, Vec<SupportingGrant>),
) -> GrantParts {
    GrantParts {
        draft,
        revision: view.revision(),
        request: None,
        opens: None,
        path,
        grounds,
        audience: registered.audience.clone(),
        base_url: registered.base_url.clone(),
        settings: registered.upstream.settings.clone(),
        algorithm: registered.upstream.alg.as_str(),
        issuer: policy.issuer.clone(),
        author: Author::of(caller),
    }
}

impl Decider {
    /// Sets the longest TTL of credentials and the longest lifetime of tasks, in milliseconds, for later decisions.
    pub fn set_longest(&self, credential_ms: u64, task_ms: u64) {
        self.longest_ms.store(credential_ms, Relaxed);
        self.longest_task_ms.store(task_ms, Relaxed);
    }

    /// Decides one exchange. A refusal names the rule and a way out. `id`: random bytes for the id of an inline task.
    pub fn exchange(
        &self,
        view: &View,
        compiled: &CompiledCatalog,
        caller: &Caller,
        want: &ExchangeRequest,
        id: impl FnOnce() -> [u8; 16],
    ) -> Result<Grant, Error> {
        let decided = self.decide(view, compiled, caller, want, id)?;
        let mut draft = self.draft(caller, want, &decided);
        draft.tool = want.tool.to_string();
        draft.purpose = decided.purpose(want).to_owned();
        draft.arguments = want.arguments.map_or_else(Vec::new, |d| d.to_vec());
        let request = want.request_id.as_ref().map(|rid| RequestRecord {
            // Empty where the record's author is the workload itself. A person's record names the workload separately.
            caller: caller.person().map_or_else(String::new, |_| caller.id().as_str().to_owned()),
            id: rid.to_string(),
            digest: want.digest.to_vec(),
        });
        let ExchangeDecision { registered, policy, place, .. } = decided;
        let grounds = place.grounds(view, &draft);
        let (path, opens) = place.settle();
        Ok(Grant::new(GrantParts { request, opens, ..parts(view, caller, registered, policy, draft, (path, grounds)) }))
    }

    /// Runs the checks in order: the checks that are independent of policy, then policy, then approvals.
    fn decide<'a>(
        &self,
        view: &View,
        compiled: &'a CompiledCatalog,
        caller: &Caller,
        want: &ExchangeRequest,
        id: impl FnOnce() -> [u8; 16],
    ) -> Result<ExchangeDecision<'a>, Error> {
        let mut decided = self.standing(view, compiled, caller, want, id)?;
        let (policies, approval) = self.permitted((view, compiled), caller, want, &decided)?;
        if let Some(given) = &approval {
            decided.life = decided.life.within(given.until, LifetimeBound::Approval);
        }
        (decided.policies, decided.approval) = (policies, approval);
        Ok(decided)
    }

    /// All checks except policy, in order.
    fn standing<'a>(
        &self,
        view: &View,
        compiled: &'a CompiledCatalog,
        caller: &Caller,
        want: &ExchangeRequest,
        id: impl FnOnce() -> [u8; 16],
    ) -> Result<ExchangeDecision<'a>, Error> {
        let now = view.now();
        let registered = self.registered(compiled, &want.upstream)?;
        let upstream = &registered.upstream;
        let policy = self.inside_wall(compiled, caller, &upstream.environment)?;
        active(registered, now)?;
        if let Some(behalf) = want.behalf.as_deref() {
            let subject = behalf.subject().ok_or_else(|| Fault::new("a subject token that was not verified"))?;
            subject::check_subject(subject, caller, want, policy, &upstream.environment)?;
        }
        let open = match &want.task {
            TaskChoice::Named(task) => Some(named_and_blocked(view, caller, *task)),
            TaskChoice::Inline(_) => None,
        };
        let may_block = open.as_ref().map_or(TargetKinds::ALL, |(_, sorts)| *sorts);
        if !may_block.is_empty() {
            self.not_locked(view, caller, want, upstream)?;
        }
        let scopes = scopes_of(upstream, &want.scopes)?;
        want.subject().map_or(Ok(()), |subject| subject::within_rights(subject, upstream, &scopes))?;
        let kind = kind_of(upstream, want.kind)?;
        certified_key(want, kind)?;
        let place = match (open, &want.task) {
            (Some((place, _)), _) => place?,
            (None, TaskChoice::Named(task)) => named(view, caller, *task)?,
            (None, TaskChoice::Inline(terms)) => {
                let mut terms = terms.with_default(&want.upstream, &want.scopes, &want.tool, &want.purpose);
                let subject = want.subject();
                terms.parent = terms.parent.or(subject.and_then(VerifiedSubject::shown).map(|shown| shown.task));
                self.opening(
                    view,
                    compiled,
                    policy,
                    caller,
                    &terms,
                    TaskId::from_bytes(id()),
                    (WorkloadAction::OpenTask, subject),
                )?
            }
        };
        want.subject().map_or(Ok(()), |subject| subject::within_lineage(subject, &place))?;
        within_task(&place, want, &scopes, kind)?;
        break_glass::check_rights(policy, &place, upstream, &scopes)?;
        let binding = binding_of(compiled, caller.id(), want, &scopes)?;
        let life = self.life(caller, want, upstream, &place, now)?;
        let bound = self.key_binding(caller, want, (upstream, kind), &place)?;
        let access = self.access_of(&AccessQuery {
            upstream,
            kind,
            scopes: &scopes,
            details: want.details.as_deref().unwrap_or_default(),
        })?;
        Ok(ExchangeDecision {
            registered,
            policy,
            place,
            kind,
            scopes,
            access,
            life,
            binding,
            bound,
            policies: Vec::new(),
            approval: None,
            now,
            may_block,
        })
    }

    /// `iss` of an environment. Each environment has its own issuer path.
    pub fn issuer_of(&self, environment: &str) -> String {
        issuer_of(&self.issuer, environment)
    }

    fn registered<'a>(&self, compiled: &'a CompiledCatalog, name: &str) -> Result<&'a RegisteredUpstream, Error> {
        compiled.upstream(name).ok_or_else(|| {
            Error::Refusal(
                Refusal::new(Reason::NotFound, format!("there is no upstream {name}"))
                    .way_out("an operator can register it; mayfly upstream list shows the registered upstreams"),
            )
        })
    }

    /// Whether this server serves an environment. An environment removed from `server.environments` keeps its policy set for its operators.
    pub fn serves(&self, environment: &str) -> bool {
        self.serves.as_ref().is_none_or(|all| all.iter().any(|name| name == environment))
    }

    /// Refuses an environment that this server does not serve.
    pub fn served(&self, environment: &str) -> Result<(), Error> {
        if self.serves(environment) {
            return Ok(());
        }
        let what = format!("environment {environment} is not in server.environments: this server does not serve it");
        let no = Refusal::new(Reason::EnvironmentWall, what).by("server.environments");
        Err(Error::Refusal(no.way_out("the owner of the configuration can add it to server.environments and restart the server")))
    }

    /// The environment wall: caller and upstream must belong to the same environment, whatever a policy says.
    fn inside_wall<'a>(
        &self,
        compiled: &'a CompiledCatalog,
        caller: &Caller,
        environment: &str,
    ) -> Result<&'a EnvironmentPolicy, Error> {
        let policy = compiled
            .policy(environment)
            .ok_or_else(|| denied(Reason::EnvironmentWall, format!("environment {environment} has no policy")))?;
        self.served(environment)?;
        match policy.set.environment_of(caller.id()) {
            Some(own) if own == environment => Ok(policy),
            Some(own) => {
                Err(denied(Reason::EnvironmentWall, format!("{} belongs to {own}, the upstream to {environment}", caller.id())))
            }
            None => Err(Error::Refusal(
                Refusal::new(Reason::EnvironmentWall, format!("{} belongs to no environment", caller.id()))
                    .way_out("an operator can add it to an environment in the roles file"),
            )),
        }
    }

    fn not_locked(&self, view: &View, caller: &Caller, want: &ExchangeRequest, upstream: &Upstream) -> Result<(), Error> {
        let mut facts = caller_facts(caller, view);
        subject::add_facts(&mut facts, want.subject());
        facts.upstream = &upstream.name;
        facts.scopes = want.scopes.iter().map(String::as_str).collect();
        facts.tool = &want.tool;
        facts.environment = &upstream.environment;
        facts.policy = u64::MAX;
        match view.read(|s| s.rules.blocks(&facts)) {
            Some(hit) => Err(Error::Refusal(mayfly_ledger::state::refused_by(&hit, "issuing"))),
            None => Ok(()),
        }
    }

    /// The policies that permit the exchange.
    fn permits(
        &self,
        caller: &Caller,
        want: &ExchangeRequest,
        standing: &ExchangeDecision<'_>,
        approvals: question::ApprovalFacts<'_>,
    ) -> Result<Vec<String>, Error> {
        let ask = |question: &Question<'_>| self.ask(standing.policy, question);
        self.asking(caller, want, standing, approvals, ask).map_err(|no| match no {
            Error::Refusal(no) => Error::Refusal(no.denied(standing.denied(caller, want))),
            fault => fault,
        })
    }

    /// Asks the shadow policy set about the exchange and records whether its verdict differs.
    fn beside(
        &self,
        caller: &Caller,
        want: &ExchangeRequest,
        standing: &ExchangeDecision<'_>,
        approved: Option<&str>,
        permitted: bool,
    ) {
        let policy = standing.policy;
        if policy.beside.is_some() {
            let approvals = question::ApprovalFacts { count: approved.map_or(0, |_| 1), people: approved.as_slice() };
            self.asking(caller, want, standing, approvals, |q| self.audits.ask(&self.verdicts, policy, q, permitted));
        }
    }

    /// Builds the question of an exchange and passes it to `ask_it`.
    fn asking<T>(
        &self,
        caller: &Caller,
        want: &ExchangeRequest,
        standing: &ExchangeDecision<'_>,
        approvals: question::ApprovalFacts<'_>,
        ask_it: impl FnOnce(&Question<'_>) -> T,
    ) -> T {
        let ExchangeDecision { place, kind, scopes, life, now, .. } = standing;
        let (upstream, kind, now) = (&standing.registered.upstream, *kind, *now);
        let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
        let (mut digest, mut id) = ([0; 43], [0; TaskId::TEXT]);
        let digest = want.arguments.as_ref().map(|d| question::digest_text(d, &mut digest));
        let id = (!place.is_new()).then(|| place.id.write(&mut id));
        let lists = TaskLists::of(place);
        let behind = SubjectAttributes::of(want.subject(), caller);
        let (chain, groups) = behind.texts();
        let person = person::CallerPerson::of(caller);
        let ask = question::WorkloadContext {
            environment: &upstream.environment,
            act_chain: &chain,
            subject: behind.facts(&groups),
            intent: question::DeclaredIntent {
                purpose: standing.purpose(want),
                tool: (!want.tool.is_empty()).then_some(&*want.tool),
                arguments_digest: digest,
                kind: Some(kind),
                scopes: &scopes,
                binding: standing.binding.map(|b| &*b.binding.name),
                access: standing.access.as_deref(),
            },
            ttl_seconds: seconds(life.end().since(now)),
            renewal: want.renews.is_some(),
            break_glass: place.break_glass.is_some(),
            task: lists.facts(place, &upstream.environment, id),
            person: person.facts(),
            counts: place.counts,
            approvals,
            now,
            ..question::WorkloadContext::default()
        };
        ask_it(&Question::work(caller.id(), WorkloadAction::Exchange, upstream, &ask))
    }

    /// Asks the policy set in force, and the shadow set, about a question that is asked only once.
    fn ask_once(&self, policy: &EnvironmentPolicy, question: &Question<'_>) -> Result<Vec<String>, Error> {
        let outcome = self.ask(policy, question);
        self.audits.ask(&self.verdicts, policy, question, outcome.is_ok());
        outcome
    }

    fn ask(&self, policy: &EnvironmentPolicy, question: &Question<'_>) -> Result<Vec<String>, Error> {
        let verdict = self.verdicts.verdict(&policy.set, question);
        if verdict.permits() {
            return Ok(verdict.by().to_vec());
        }
        let by = verdict.by();
        let (what, rule) = match &*verdict {
            super::PolicyVerdict::EngineError { .. } => {
                ("the policy engine failed, which means no".to_owned(), "policy engine".to_owned())
            }
            _ if by.is_empty() => ("no policy permits it".to_owned(), "no policy permits it".to_owned()),
            _ => (format!("policy {} forbids it", by.join(", ")), by.join(", ")),
        };
        let action = question.action().name();
        Err(Error::Refusal(
            Refusal::new(Reason::DeniedByPolicy, format!("{action}: {what} (policy version {})", policy.version))
                .by(rule)
                .way_out("the owner of the policy set can change it"),
        ))
    }
}

fn seconds(ms: u64) -> i64 {
    i64::try_from(ms / 1000).unwrap_or(i64::MAX)
}

/// Whether a decision was refused because it was made on an old state, so that deciding again may succeed.
pub fn decided_on_stale_state(no: &Error) -> bool {
    matches!(no, Error::Refusal(r) if r.reason == Reason::DecidedOnOldState)
}
