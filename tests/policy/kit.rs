//! A whole request as owned values, which tests change one at a time.
#![allow(dead_code, reason = "each test file uses its part")]

use mayfly::document::SourceFile;
use mayfly::identity::spiffe_id::SpiffeId;
use mayfly::policy::question::{
    ApprovalContext, ApprovalFacts, AttestedFacts, DeclaredIntent, PersonFacts, SubjectFacts, TaskFacts, UsageCounts, UseContext,
};
use mayfly::policy::{Action, IntrospectionContext, OperatorContext, PolicySet, PolicyVerdict, Question, WorkloadContext};
use mayfly::seq::Millis;
use mayfly::upstream::access::{AccessLevel, GrantedAccess};
use mayfly::upstream::registry::{Kind, Upstream};
use mayfly_bench::sample;

pub type Texts = Vec<&'static str>;

/// Everything that a question consists of.
#[derive(Clone, Debug)]
pub struct Case {
    pub caller: SpiffeId,
    pub action: Action,
    pub upstream: Upstream,
    pub environment: Option<&'static str>,
    pub purpose: &'static str,
    pub tool: Option<&'static str>,
    pub digest: Option<&'static str>,
    pub kind: Option<Kind>,
    pub scopes: Texts,
    pub binding: Option<&'static str>,
    pub access: Option<GrantedAccess>,
    pub ttl: i64,
    pub renewal: bool,
    pub break_glass: bool,
    pub delegate: Option<&'static str>,
    pub chain: Texts,
    pub subject: Option<(&'static str, &'static str, Texts)>,
    pub task_id: Option<&'static str>,
    pub task_texts: [&'static str; 3],
    pub task_longs: [i64; 2],
    pub task_heartbeat: bool,
    pub task_lists: [Texts; 3],
    pub person: Option<(&'static str, &'static str, Texts, Option<&'static str>, u64)>,
    pub job: Option<([&'static str; 3], Texts)>,
    pub counts: [i64; 6],
    pub approvals: (i64, Texts),
    pub target: [Option<&'static str>; 2],
    pub asker: &'static str,
    pub used: (&'static str, bool, bool, &'static str),
    pub now: u64,
}

/// The access of a credential of a database that can read and write.
pub fn access() -> GrantedAccess {
    let set = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    GrantedAccess {
        levels: [AccessLevel::Read, AccessLevel::Write].into(),
        host: Some("db.example.org:5432".into()),
        database: Some("orders".into()),
        privileges: set(&["SELECT", "INSERT"]),
        objects: set(&["tables public.orders"]),
        grants: set(&["SELECT on tables public.orders", "INSERT on tables public.orders"]),
        ..GrantedAccess::default()
    }
}

pub fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

impl Case {
    pub fn new(action: Action) -> Case {
        let upstream = sample::upstream("billing").unwrap();
        Case {
            caller: id("spiffe://td/agent/a"),
            action,
            upstream,
            environment: Some("dev"),
            purpose: "p",
            tool: None,
            digest: None,
            kind: Some(Kind::Jwt),
            scopes: vec!["read"],
            binding: None,
            access: Some(access()),
            ttl: 300,
            renewal: false,
            break_glass: false,
            delegate: None,
            chain: vec![],
            subject: None,
            task_id: None,
            task_texts: ["p", "spiffe://td/agent/a", "dev"],
            task_longs: [0, 600],
            task_heartbeat: false,
            task_lists: [vec![], vec![], vec![]],
            person: None,
            job: None,
            counts: [0; 6],
            approvals: (0, vec![]),
            target: [None; 2],
            asker: "spiffe://td/agent/b",
            used: ("accepted", true, false, "spiffe://td/server"),
            now: 1_800_000_000_000,
        }
    }

    /// Passes the question to `ask`; the question borrows from this case.
    pub fn with<T>(&self, ask: impl FnOnce(&Question<'_>) -> T) -> T {
        let person = self.person.as_ref().map(|(issuer, id, amr, acr, at)| PersonFacts {
            issuer,
            id,
            amr,
            acr: *acr,
            auth_time: Millis(*at),
        });
        let approvals = ApprovalFacts { count: self.approvals.0, people: &self.approvals.1 };
        let environment = self.environment.unwrap_or_default();
        let now = Millis(self.now);
        match self.action {
            Action::Work(work) => {
                let details = self.ask(person, approvals, environment);
                ask(&Question::work(&self.caller, work, &self.upstream, &details))
            }
            Action::Introspect => {
                ask(&Question::introspect(&self.caller, &self.upstream, &IntrospectionContext { environment, person, now }))
            }
            Action::Approve => {
                let decide = ApprovalContext { environment, caller: self.asker, intent: self.intent(), person, now };
                ask(&Question::approve(&self.caller, &self.upstream, &decide))
            }
            Action::Use => {
                let WorkloadContext { task, counts, .. } = self.ask(person, approvals, environment);
                let (outcome, declared, after_end, server) = self.used;
                let used =
                    UseContext { environment, intent: self.intent(), task, counts, outcome, declared, after_end, server, now };
                ask(&Question::used(&self.caller, &self.upstream, &used))
            }
            Action::Admin(_) | Action::SignIn => {
                let [target_kind, target] = self.target;
                let break_glass = self.break_glass;
                let caller = (!self.asker.is_empty()).then_some(self.asker);
                let job = self.job.as_ref().map(|([issuer, rule, id], claims)| AttestedFacts { issuer, rule, id, claims });
                let act = OperatorContext {
                    environment: self.environment,
                    target_kind,
                    target,
                    caller,
                    break_glass,
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
        }
    }

    fn intent(&self) -> DeclaredIntent<'_> {
        DeclaredIntent {
            purpose: self.purpose,
            tool: self.tool,
            arguments_digest: self.digest,
            kind: self.kind,
            scopes: &self.scopes,
            binding: self.binding,
            access: self.access.as_ref(),
        }
    }

    fn ask<'a>(
        &'a self,
        person: Option<PersonFacts<'a>>,
        approvals: ApprovalFacts<'a>,
        environment: &'a str,
    ) -> WorkloadContext<'a> {
        let [issued_in_task, live_in_task, live_of_caller, uses_in_task, refused_uses_in_task, authorized_in_task] = self.counts;
        WorkloadContext {
            environment,
            intent: self.intent(),
            ttl_seconds: self.ttl,
            renewal: self.renewal,
            break_glass: self.break_glass,
            delegate: self.delegate,
            act_chain: &self.chain,
            subject: self.subject.as_ref().map(|(issuer, id, groups)| SubjectFacts { issuer, id, groups }),
            task: TaskFacts {
                id: self.task_id,
                purpose: self.task_texts[0],
                owner: self.task_texts[1],
                environment: self.task_texts[2],
                depth: self.task_longs[0],
                ttl_seconds: self.task_longs[1],
                heartbeat: self.task_heartbeat,
                upstreams: &self.task_lists[0],
                tools: &self.task_lists[1],
                callers: &self.task_lists[2],
            },
            person,
            counts: UsageCounts {
                issued_in_task,
                live_in_task,
                live_of_caller,
                uses_in_task,
                refused_uses_in_task,
                authorized_in_task,
            },
            approvals,
            now: Millis(self.now),
        }
    }

    pub fn verdict(&self, set: &PolicySet) -> PolicyVerdict {
        self.with(|question| set.verdict(question))
    }
}

/// Roles and environments of the tests.
pub const ROLES: &str = "
[role.a]
under = ['spiffe://td/agent']
[role.b]
ids = ['spiffe://td/agent/b', 'spiffe://other/x']
[environment.dev]
under = ['spiffe://td']
[environment.prod]
under = ['spiffe://td/prod']
";

pub fn compile(cedar: &str) -> PolicySet {
    let compiled = PolicySet::compile(vec![SourceFile::new("t.cedar", cedar)], SourceFile::new("roles.toml", ROLES));
    compiled.unwrap_or_else(|wrong| panic!("{cedar}\n{}", said(&wrong)))
}

pub fn said(complaints: &[mayfly::document::Diagnostic]) -> String {
    complaints.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
