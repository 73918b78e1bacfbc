//! Decisions, and the order of their checks: environment wall, registration, revocation rules, task, bounds, and Cedar last.
//!
//! Anything unknown refuses. Cedar's verdict can only narrow: the walls and bounds hold whatever Cedar permits.

mod activity;
mod again;
mod approval;
mod authorize;
mod caller;
mod demand;
mod extend;
mod glass;
mod lasting;
mod place;
mod settle;
mod shared;
mod subject;
mod task;

pub use activity::Activity;
pub use again::{Anew, Held, reads_records, still_permits};
pub use authorize::plain as plain_action;
pub use caller::{caller_facts, svid_of};
pub use extend::Extends;
pub use glass::GlassAsk;
pub use lasting::{Alike, Lasting};
pub use shared::Shared;
pub use task::{Opening, Opens};

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::action::Work;
use super::audits::Audits;
use super::bound::{Bound, Life};
use super::cache::Verdicts;
use super::catalog::{self, Compiled, Policy, Registered, issuer_of};
use super::grant::{Grant, Parts, TaskPath};
use super::person;
use super::request::{self, Question};
use super::subject::Subject;
use super::wanted::{TaskChoice, Wanted};
use approval::Given;
use mayfly_base::refusal::{Denied, Fault, No, Reason, Refusal};
use mayfly_identity::caller::Caller;
use mayfly_ledger::View;
use mayfly_ledger::record::{self, Request, Who};
use mayfly_ledger::revocation::Sorts;
use mayfly_ledger::state::Ground;
use mayfly_ledger::upstream::registry::{Kind, Upstream};
use mayfly_verify::seq::{Millis, TaskId};
use place::{Lists, Place, named, named_and_blocked, within_task};
use settle::{active, binding_of, kind_of, scopes_of};
use subject::OnBehalf;

/// The state that the decisions of one server share.
pub struct Decider {
    /// The cache of Cedar's verdicts.
    pub verdicts: Arc<Verdicts>,
    /// Differences of shadow policy sets.
    pub audits: Arc<Audits>,
    /// Base of `iss`, without the environment's path.
    pub issuer: String,
    /// The environments that this server serves (`server.environments`). `None`: every environment that has a policy set.
    pub serves: Option<Vec<String>>,
    /// The longest TTL of a credential, in milliseconds.
    pub longest_ms: AtomicU64,
    /// The longest lifetime of a task, in milliseconds.
    pub longest_task_ms: AtomicU64,
}

fn denied(reason: Reason, what: impl Into<String>) -> No {
    No::Refusal(Refusal::new(reason, what))
}

/// The settled part of an exchange.
struct Decided<'a> {
    registered: &'a Registered,
    policy: &'a Policy,
    place: Place,
    kind: Kind,
    scopes: Vec<String>,
    life: Life,
    /// The binding that covers the exchange.
    binding: Option<&'a catalog::BindingInForce>,
    /// Thumbprints of the certificate and of the key that the credential is bound to. Both are empty where it is bound to neither.
    bound: (Vec<u8>, Vec<u8>),
    /// The policies that permit the exchange.
    policies: Vec<String>,
    /// The approval that the exchange uses up.
    approval: Option<Given>,
    now: Millis,
    /// The sorts of revocation rules that may block a decision on this view.
    may_block: Sorts,
}

impl Decided<'_> {
    /// The question that policy was asked, for the audit record of a refusal.
    fn denied(&self, caller: &Caller, want: &Wanted) -> Denied {
        let upstream = &self.registered.upstream;
        Denied {
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
            subject: want.subject().map(|subject| subject::denied(subject, caller)),
        }
    }

    fn purpose<'b>(&'b self, want: &'b Wanted) -> &'b str {
        self.place.purpose_of(want)
    }
}

fn parts(
    view: &View,
    caller: &Caller,
    registered: &Registered,
    policy: &Policy,
    draft: Box<record::Issued>,
    (path, grounds): (TaskPath, Vec<Ground>),
) -> Parts {
    Parts {
        draft,
        revision: view.revision(),
        request: None,
        opens: None,
        path,
        grounds,
        audience: registered.audience.clone(),
        base_url: registered.base_url.clone(),
        algorithm: registered.upstream.alg.as_str(),
        issuer: policy.issuer.clone(),
        author: Who::of(caller),
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
        compiled: &Compiled,
        caller: &Caller,
        want: &Wanted,
        id: impl FnOnce() -> [u8; 16],
    ) -> Result<Grant, No> {
        let decided = self.decide(view, compiled, caller, want, id)?;
        let mut draft = self.draft(caller, want, &decided);
        draft.tool = want.tool.to_string();
        draft.purpose = decided.purpose(want).to_owned();
        draft.arguments = want.arguments.map_or_else(Vec::new, |d| d.to_vec());
        let request = want.request_id.as_ref().map(|rid| Request {
            // Empty where the record's author is the workload itself. A person's record names the workload separately.
            caller: caller.person().map_or_else(String::new, |_| caller.id().as_str().to_owned()),
            id: rid.to_string(),
            digest: want.digest.to_vec(),
        });
        let Decided { registered, policy, place, .. } = decided;
        let grounds = place.grounds(view, &draft);
        let (path, opens) = place.settle();
        Ok(Grant::new(Parts { request, opens, ..parts(view, caller, registered, policy, draft, (path, grounds)) }))
    }

    /// Runs the checks in order: the checks that are independent of policy, then policy, then approvals.
    fn decide<'a>(
        &self,
        view: &View,
        compiled: &'a Compiled,
        caller: &Caller,
        want: &Wanted,
        id: impl FnOnce() -> [u8; 16],
    ) -> Result<Decided<'a>, No> {
        let mut decided = self.standing(view, compiled, caller, want, id)?;
        let (policies, approval) = self.permitted((view, compiled), caller, want, &decided)?;
        if let Some(given) = &approval {
            decided.life = decided.life.within(given.until, Bound::Approval);
        }
        (decided.policies, decided.approval) = (policies, approval);
        Ok(decided)
    }

    /// All checks except policy, in order.
    fn standing<'a>(
        &self,
        view: &View,
        compiled: &'a Compiled,
        caller: &Caller,
        want: &Wanted,
        id: impl FnOnce() -> [u8; 16],
    ) -> Result<Decided<'a>, No> {
        let now = view.now();
        let registered = self.registered(compiled, &want.upstream)?;
        let upstream = &registered.upstream;
        let policy = self.inside_wall(compiled, caller, &upstream.environment)?;
        active(registered, now)?;
        if let Some(behalf) = want.behalf.as_deref() {
            let subject = behalf.subject().ok_or_else(|| Fault::new("a subject token that nobody has looked at"))?;
            subject::stands(subject, caller, want, policy, &upstream.environment)?;
        }
        let open = match &want.task {
            TaskChoice::Named(task) => Some(named_and_blocked(view, caller, *task)),
            TaskChoice::Inline(_) => None,
        };
        let may_block = open.as_ref().map_or(Sorts::ALL, |(_, sorts)| *sorts);
        if !may_block.is_empty() {
            self.not_locked(view, caller, want, upstream)?;
        }
        let scopes = scopes_of(upstream, &want.scopes)?;
        want.subject().map_or(Ok(()), |subject| subject::within_rights(subject, upstream, &scopes))?;
        let kind = kind_of(upstream, want.kind)?;
        let place = match (open, &want.task) {
            (Some((place, _)), _) => place?,
            (None, TaskChoice::Named(task)) => named(view, caller, *task)?,
            (None, TaskChoice::Inline(terms)) => {
                let mut terms = terms.with_default(&want.upstream, &want.scopes, &want.tool, &want.purpose);
                let subject = want.subject();
                terms.parent = terms.parent.or(subject.and_then(Subject::shown).map(|shown| shown.task));
                self.opening(view, compiled, policy, caller, &terms, TaskId::from_bytes(id()), (Work::OpenTask, subject))?
            }
        };
        want.subject().map_or(Ok(()), |subject| subject::within_line(subject, &place))?;
        within_task(&place, want, &scopes, kind)?;
        glass::still_named(policy, &place, upstream, &scopes)?;
        let binding = binding_of(compiled, caller.id(), want, &scopes)?;
        let life = self.life(caller, want, upstream, &place, now)?;
        let bound = self.key_binding(caller, want, upstream, &place)?;
        Ok(Decided {
            registered,
            policy,
            place,
            kind,
            scopes,
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

    fn registered<'a>(&self, compiled: &'a Compiled, name: &str) -> Result<&'a Registered, No> {
        compiled.upstream(name).ok_or_else(|| {
            No::Refusal(
                Refusal::new(Reason::NotFound, format!("there is no upstream {name}"))
                    .way_out("an operator registers it; mayfly upstream list shows those there are"),
            )
        })
    }

    /// Whether this server serves an environment. An environment removed from `server.environments` keeps its policy set for its operators.
    pub fn serves(&self, environment: &str) -> bool {
        self.serves.as_ref().is_none_or(|all| all.iter().any(|name| name == environment))
    }

    /// Refuses an environment that this server does not serve.
    pub fn served(&self, environment: &str) -> Result<(), No> {
        if self.serves(environment) {
            return Ok(());
        }
        let what = format!("environment {environment} is not in server.environments: this server does not serve it");
        let no = Refusal::new(Reason::EnvironmentWall, what).by("server.environments");
        Err(No::Refusal(no.way_out("whoever owns the configuration adds it to server.environments and restarts the server")))
    }

    /// The environment wall: caller and upstream must belong to the same environment, whatever a policy says.
    fn inside_wall<'a>(&self, compiled: &'a Compiled, caller: &Caller, environment: &str) -> Result<&'a Policy, No> {
        let policy = compiled
            .policy(environment)
            .ok_or_else(|| denied(Reason::EnvironmentWall, format!("environment {environment} has no policy")))?;
        self.served(environment)?;
        match policy.set.environment_of(caller.id()) {
            Some(own) if own == environment => Ok(policy),
            Some(own) => {
                Err(denied(Reason::EnvironmentWall, format!("{} belongs to {own}, the upstream to {environment}", caller.id())))
            }
            None => Err(No::Refusal(
                Refusal::new(Reason::EnvironmentWall, format!("{} belongs to no environment", caller.id()))
                    .way_out("an operator adds it to an environment in the roles file"),
            )),
        }
    }

    fn not_locked(&self, view: &View, caller: &Caller, want: &Wanted, upstream: &Upstream) -> Result<(), No> {
        let mut facts = caller_facts(caller, view);
        subject::add_facts(&mut facts, want.subject());
        facts.upstream = &upstream.name;
        facts.scopes = want.scopes.iter().map(String::as_str).collect();
        facts.tool = &want.tool;
        facts.environment = &upstream.environment;
        facts.policy = u64::MAX;
        match view.read(|s| s.rules.blocks(&facts)) {
            Some(hit) => Err(No::Refusal(mayfly_ledger::state::refused_by(&hit, "issuing"))),
            None => Ok(()),
        }
    }

    /// The policies that permit the exchange.
    fn permits(
        &self,
        caller: &Caller,
        want: &Wanted,
        standing: &Decided<'_>,
        approvals: request::ApprovalFacts<'_>,
    ) -> Result<Vec<String>, No> {
        let ask = |question: &Question<'_>| self.ask(standing.policy, question);
        self.asking(caller, want, standing, approvals, ask).map_err(|no| match no {
            No::Refusal(no) => No::Refusal(no.denied(standing.denied(caller, want))),
            fault => fault,
        })
    }

    /// Asks the shadow policy set about the exchange and records whether its verdict differs.
    fn beside(&self, caller: &Caller, want: &Wanted, standing: &Decided<'_>, approved: Option<&str>, permitted: bool) {
        let policy = standing.policy;
        if policy.beside.is_some() {
            let approvals = request::ApprovalFacts { count: approved.map_or(0, |_| 1), people: approved.as_slice() };
            self.asking(caller, want, standing, approvals, |q| self.audits.ask(&self.verdicts, policy, q, permitted));
        }
    }

    /// Builds the question of an exchange and passes it to `ask_it`.
    fn asking<T>(
        &self,
        caller: &Caller,
        want: &Wanted,
        standing: &Decided<'_>,
        approvals: request::ApprovalFacts<'_>,
        ask_it: impl FnOnce(&Question<'_>) -> T,
    ) -> T {
        let Decided { place, kind, scopes, life, now, .. } = standing;
        let (upstream, kind, now) = (&standing.registered.upstream, *kind, *now);
        let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
        let (mut digest, mut id) = ([0; 43], [0; TaskId::TEXT]);
        let digest = want.arguments.as_ref().map(|d| request::digest_text(d, &mut digest));
        let id = (!place.is_new()).then(|| place.id.write(&mut id));
        let lists = Lists::of(place);
        let behind = OnBehalf::of(want.subject(), caller);
        let (chain, groups) = behind.texts();
        let person = person::Behind::of(caller);
        let ask = request::Ask {
            environment: &upstream.environment,
            act_chain: &chain,
            subject: behind.facts(&groups),
            intent: request::Intent {
                purpose: standing.purpose(want),
                tool: (!want.tool.is_empty()).then_some(&*want.tool),
                arguments_digest: digest,
                kind: Some(kind),
                scopes: &scopes,
                binding: standing.binding.map(|b| &*b.binding.name),
            },
            ttl_seconds: seconds(life.end().since(now)),
            renewal: want.renews.is_some(),
            break_glass: place.glass.is_some(),
            task: lists.facts(place, &upstream.environment, id),
            person: person.facts(),
            counts: place.counts,
            approvals,
            now,
            ..request::Ask::default()
        };
        ask_it(&Question::work(caller.id(), Work::Exchange, upstream, &ask))
    }

    /// Asks the policy set in force, and the shadow set, about a question that is asked only once.
    fn ask_once(&self, policy: &Policy, question: &Question<'_>) -> Result<Vec<String>, No> {
        let outcome = self.ask(policy, question);
        self.audits.ask(&self.verdicts, policy, question, outcome.is_ok());
        outcome
    }

    fn ask(&self, policy: &Policy, question: &Question<'_>) -> Result<Vec<String>, No> {
        let verdict = self.verdicts.verdict(&policy.set, question);
        if verdict.permits() {
            return Ok(verdict.by().to_vec());
        }
        let by = verdict.by();
        let (what, rule) = match &*verdict {
            super::Verdict::EngineError { .. } => {
                ("the policy engine failed, which means no".to_owned(), "policy engine".to_owned())
            }
            _ if by.is_empty() => ("no policy permits it".to_owned(), "no policy permits it".to_owned()),
            _ => (format!("policy {} forbids it", by.join(", ")), by.join(", ")),
        };
        let action = question.action().name();
        Err(No::Refusal(
            Refusal::new(Reason::DeniedByPolicy, format!("{action}: {what} (policy version {})", policy.version))
                .by(rule)
                .way_out("whoever owns the policy set changes it"),
        ))
    }
}

fn seconds(ms: u64) -> i64 {
    i64::try_from(ms / 1000).unwrap_or(i64::MAX)
}

/// Whether a decision was refused because it was made on an old state, so that deciding again may succeed.
pub fn decided_on_old_state(no: &No) -> bool {
    matches!(no, No::Refusal(r) if r.reason == Reason::DecidedOnOldState)
}
