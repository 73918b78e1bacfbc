//! A request as somebody writes it down: for tests of a policy set, and to ask what would happen. It owns its texts; a [`Question`] borrows.

use super::action::{Action, Work};
use super::cedar::Verdict;
use super::request::{
    Act, ApprovalFacts, Ask, AttestedFacts, Counts, Decide, Intent, Look, PersonFacts, Question, SubjectFacts, TaskFacts, Used,
};
use super::set::PolicySet;
use crate::identity::spiffe_id::SpiffeId;
use crate::seq::Millis;
use crate::upstream::registry::{Approver, Kind, Upstream};

/// The task of a situation.
#[derive(Clone, Default, Debug, PartialEq)]
pub struct SituationTask {
    /// Its id; `None` while it is being opened.
    pub id: Option<String>,
    /// What it is for. Empty: the same as the request.
    pub purpose: String,
    /// Who owns it. Empty: the caller.
    pub owner: String,
    /// 0 for a root task.
    pub depth: i64,
    /// Its life, seconds. 0: as that of the request.
    pub ttl_seconds: i64,
    /// Whether it ends when a heartbeat is missed.
    pub heartbeat: bool,
    /// Upstreams. Empty: the one that is asked about.
    pub upstreams: Vec<String>,
    /// Tools.
    pub tools: Vec<String>,
    /// Who may act in it beside its owner.
    pub callers: Vec<String>,
}

/// A person of a situation.
#[derive(Clone, Debug, PartialEq)]
pub struct SituationPerson {
    /// The issuer's URL.
    pub issuer: String,
    /// `sub` there.
    pub id: String,
    /// Authentication methods (RFC 8176).
    pub amr: Vec<String>,
    /// Authentication context class.
    pub acr: Option<String>,
    /// When the person signed in.
    pub auth_time: Millis,
}

impl SituationPerson {
    fn facts<'a>(&'a self, amr: &'a [&'a str]) -> PersonFacts<'a> {
        PersonFacts { issuer: &self.issuer, id: &self.id, amr, acr: self.acr.as_deref(), auth_time: self.auth_time }
    }
}

/// A job of a situation.
#[derive(Clone, Debug, PartialEq)]
pub struct SituationAttested {
    /// The issuer's URL.
    pub issuer: String,
    /// The rule that lets it in.
    pub rule: String,
    /// The platform's id of what it is a job of.
    pub id: String,
    /// `name=value` of its token's claims.
    pub claims: Vec<String>,
}

/// A use of a credential, as its upstream's server tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct SituationUse {
    /// `accepted`, `refused` or `failed`.
    pub outcome: String,
    /// The tool is one that the credential, or else its task, names.
    pub declared: bool,
    /// The credential had ended before.
    pub after_end: bool,
    /// The server's SPIFFE ID.
    pub server: String,
}

impl SituationUse {
    fn facts<'a>(
        &'a self,
        environment: &'a str,
        intent: Intent<'a>,
        task: TaskFacts<'a>,
        counts: Counts,
        now: Millis,
    ) -> Used<'a> {
        let SituationUse { outcome, declared, after_end, server } = self;
        Used { environment, intent, task, counts, outcome, declared: *declared, after_end: *after_end, server, now }
    }
}

impl Default for SituationUse {
    fn default() -> SituationUse {
        SituationUse { outcome: "accepted".to_owned(), declared: true, after_end: false, server: String::new() }
    }
}

/// A request, with everything that policy may read of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Situation {
    /// Who asks.
    pub caller: SpiffeId,
    /// What for.
    pub action: Action,
    /// In the words of who asks.
    pub purpose: String,
    /// The tool.
    pub tool: Option<String>,
    /// SHA-256 of its arguments, base64url.
    pub arguments_digest: Option<String>,
    /// The kind. `None`: for an exchange the first that the upstream issues.
    pub kind: Option<Kind>,
    /// The scopes.
    pub scopes: Vec<String>,
    /// The binding that covers it.
    pub binding: Option<String>,
    /// Life, seconds. 0: for an exchange what the upstream gives unasked, for a task an hour.
    pub ttl_seconds: i64,
    /// It renews.
    pub renewal: bool,
    /// It happens in a break-glass task.
    pub break_glass: bool,
    /// For whom a child task is opened.
    pub delegate: Option<String>,
    /// Those who act for each other, without the caller.
    pub act_chain: Vec<String>,
    /// On whose behalf.
    pub subject: Option<SituationSubject>,
    /// The task.
    pub task: SituationTask,
    /// The person behind the caller.
    pub person: Option<SituationPerson>,
    /// The job that signs in.
    pub job: Option<SituationAttested>,
    /// Numbers.
    pub counts: Counts,
    /// Who approved it.
    pub approvals: Vec<String>,
    /// For approvers: who asked.
    pub asked_by: Option<String>,
    /// For the action `Use`: how it went.
    pub used: SituationUse,
    /// For operators: the sort of thing, and its name.
    pub target: (Option<String>, Option<String>),
    /// The moment.
    pub now: Millis,
}

/// On whose behalf.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SituationSubject {
    /// The issuer.
    pub issuer: String,
    /// `sub` there.
    pub id: String,
    /// Its groups.
    pub groups: Vec<String>,
}

/// What comes of a situation.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Permitted, by these policies.
    Permit(Vec<String>),
    /// Refused until one of these approves it: any of them would do.
    Approval(Vec<String>),
    /// Refused, by these policies; by none where nothing permits.
    Deny(Vec<String>),
    /// The wall between environments refuses it: where the caller belongs, if anywhere.
    Wall(Option<String>),
    /// A policy could not be evaluated, which means no.
    EngineError(String),
}

impl Situation {
    /// A plain request: nothing but who asks for what.
    pub fn new(caller: SpiffeId, action: Action, now: Millis) -> Situation {
        Situation {
            caller,
            action,
            purpose: String::new(),
            tool: None,
            arguments_digest: None,
            kind: None,
            scopes: Vec::new(),
            binding: None,
            ttl_seconds: 0,
            renewal: false,
            break_glass: false,
            delegate: None,
            act_chain: Vec::new(),
            subject: None,
            task: SituationTask::default(),
            person: None,
            job: None,
            counts: Counts::default(),
            approvals: Vec::new(),
            asked_by: None,
            used: SituationUse::default(),
            target: (None, None),
            now,
        }
    }

    /// Whether it is about an upstream.
    pub fn about_upstream(&self) -> bool {
        !matches!(self.action, Action::Admin(_))
    }

    /// What a set makes of it: the wall, then Cedar, then whether somebody's approval would help.
    pub fn outcome(&self, set: &PolicySet, environment: &str, upstream: Option<&Upstream>) -> Outcome {
        if let (true, Some(upstream)) = (matches!(self.action, Action::Work(_)), upstream) {
            let own = set.environment_of(&self.caller);
            if own != Some(upstream.environment.as_str()) {
                return Outcome::Wall(own.map(str::to_owned));
            }
        }
        let ask = |approvals: &[String]| self.with(environment, upstream, approvals, |question| set.verdict(question));
        match ask(&self.approvals) {
            Some(Verdict::Permit { by }) => Outcome::Permit(by),
            Some(Verdict::EngineError { what }) => Outcome::EngineError(what),
            None => Outcome::EngineError("no upstream was named".to_owned()),
            Some(Verdict::Deny { by }) => {
                let approvers = upstream.map(|u| u.approvers.as_slice()).unwrap_or_default();
                let helps = |person: &String| ask(std::slice::from_ref(person)).is_some_and(|v| v.permits());
                let asks = matches!(self.action, Action::Work(_)) && self.approvals.is_empty() && !self.break_glass;
                let helpers: Vec<String> = approvers.iter().filter(|_| asks).map(Approver::name).filter(helps).collect();
                if helpers.is_empty() { Outcome::Deny(by) } else { Outcome::Approval(helpers) }
            }
        }
    }

    /// Hands the question to `ask`; `None` where the action is about an upstream and there is none.
    pub fn with<T>(
        &self,
        environment: &str,
        upstream: Option<&Upstream>,
        approvals: &[String],
        ask: impl FnOnce(&Question<'_>) -> T,
    ) -> Option<T> {
        let (scopes, people) = (texts(&self.scopes), texts(approvals));
        let amr = self.person.as_ref().map(|p| texts(&p.amr)).unwrap_or_default();
        let person = self.person.as_ref().map(|p| p.facts(&amr));
        let claims = self.job.as_ref().map(|j| texts(&j.claims)).unwrap_or_default();
        let job = self.job.as_ref().map(|j| AttestedFacts { issuer: &j.issuer, rule: &j.rule, id: &j.id, claims: &claims });
        let approvals = ApprovalFacts { count: i64::try_from(people.len()).unwrap_or(i64::MAX), people: &people };
        let exchange = self.action == Action::Work(Work::Exchange);
        let intent = Intent {
            purpose: &self.purpose,
            tool: self.tool.as_deref(),
            arguments_digest: self.arguments_digest.as_deref(),
            kind: self.kind.or_else(|| upstream.filter(|_| exchange)?.kinds.first().copied()),
            scopes: &scopes,
            binding: self.binding.as_deref(),
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
                let ask_for = Ask {
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
            (Action::Introspect, Some(upstream)) => {
                ask(&Question::introspect(&self.caller, upstream, &Look { environment: &upstream.environment, person, now }))
            }
            (Action::Approve, Some(upstream)) => {
                let caller = self.asked_by.as_deref().unwrap_or_default();
                let decide = Decide { environment: &upstream.environment, caller, intent, person, now };
                ask(&Question::approve(&self.caller, upstream, &decide))
            }
            (Action::Use, Some(upstream)) => {
                let used = self.used.facts(&upstream.environment, intent, task, self.counts, now);
                ask(&Question::used(&self.caller, upstream, &used))
            }
            (Action::Admin(_) | Action::SignIn, _) => {
                let act = Act {
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
            (0, Action::Work(Work::Exchange)) => i64::try_from(upstream.ttl.default).unwrap_or(i64::MAX),
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
