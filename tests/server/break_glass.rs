//! Break-glass on a whole server: two people open it, act in it and end it; a third person reviews it before either of the two opens
//! another.

use mayfly::cli::dev::DevSettings;
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::break_glass_service_client::BreakGlassServiceClient;
use mayfly::pb::mayfly::v1::open_break_glass_request::Open;
use mayfly::pb::mayfly::v1::task_service_client::TaskServiceClient;
use mayfly::pb::mayfly::v1::token_service_client::TokenServiceClient;
use mayfly::server::RunningServer;
use tempfile::TempDir;
use tonic::Status;
use tonic::transport::Channel;

use crate::kit::{reason, world};

const POLICY: &str = r#"
@id("break-glass")
permit (principal in Role::"operator", action in Action::"Work", resource in Environment::"dev")
when { context.break_glass };

@id("admin-scopes-need-somebody")
forbid (principal, action == Action::"Exchange", resource == Upstream::"tickets")
when { context.sensitive }
unless { context.approvals.count >= 1 };

@id("agents-clean-up")
permit (principal in Role::"agent", action == Action::"OpenTask", resource == Upstream::"tickets");
"#;

const RIGHTS: &str = r#"
[break_glass.echo-down]
environment = "dev"
open = ["spiffe://dev.mayfly.internal/operator/you", "spiffe://dev.mayfly.internal/operator/colleague"]
review = ["spiffe://dev.mayfly.internal/operator/auditor", "spiffe://dev.mayfly.internal/operator/you"]
upstreams = { echo = ["echo:read", "echo:admin"], tickets = ["tickets:read"] }
any_tool = true
ttl = "30m"
"#;

pub const YOU: &str = "operator/you";
pub const COLLEAGUE: &str = "operator/colleague";
pub const AUDITOR: &str = "operator/auditor";

pub struct Rig {
    pub running: RunningServer,
    pub world: mayfly::cli::dev::DevWorld,
    _dir: TempDir,
}

type Told = Result<pb::BreakGlass, Status>;

impl Rig {
    pub fn new() -> Rig {
        let engine = mayfly::cli::dev::DevEngine::Memory;
        let (dir, world) = world(DevSettings { engine, ..DevSettings::default() });
        for (file, more) in [("policy.cedar", POLICY), ("roles.toml", RIGHTS)] {
            let path = world.dir().join("policy").join(file);
            let text = std::fs::read_to_string(&path).unwrap() + more;
            std::fs::write(&path, text).unwrap();
        }
        Rig { running: world.start().unwrap_or_else(|no| panic!("{no}")), world, _dir: dir }
    }

    pub async fn channel(&self, name: &str) -> Channel {
        self.world.channel(name, self.running.addresses().workload).await.unwrap()
    }

    async fn glass(&self, name: &str) -> BreakGlassServiceClient<Channel> {
        BreakGlassServiceClient::new(self.channel(name).await)
    }

    async fn ask(&self, name: &str, open: Open) -> Told {
        let request = pb::OpenBreakGlassRequest { open: Some(open), reason: "echo is down".into(), ..Default::default() };
        Ok(self.glass(name).await.open_break_glass(request).await?.into_inner().break_glass.unwrap())
    }

    async fn open(&self, name: &str) -> Told {
        self.ask(name, Open::Rights("echo-down".into())).await
    }

    async fn join(&self, name: &str, task: &str) -> Told {
        self.ask(name, Open::TaskId(task.into())).await
    }

    /// Opens a break-glass task with its two people.
    pub async fn active(&self) -> String {
        let task = id(&self.open(YOU).await.unwrap());
        self.join(COLLEAGUE, &task).await.unwrap();
        task
    }

    pub async fn close(&self, name: &str, task: &str) -> Told {
        let request = pb::CloseBreakGlassRequest { task_id: task.into(), reason: "echo is back".into() };
        Ok(self.glass(name).await.close_break_glass(request).await?.into_inner().break_glass.unwrap())
    }

    async fn review(&self, name: &str, task: &str) -> Told {
        let request =
            pb::ReviewBreakGlassRequest { task_id: task.into(), review: "all of it was needed".into(), ..Default::default() };
        Ok(self.glass(name).await.review_break_glass(request).await?.into_inner().break_glass.unwrap())
    }

    async fn list(&self, name: &str, unreviewed: bool) -> Vec<String> {
        let request = pb::ListBreakGlassRequest { unreviewed, ..Default::default() };
        let all = self.glass(name).await.list_break_glass(request).await.unwrap().into_inner().break_glass;
        all.iter().map(id).collect()
    }

    pub async fn get(&self, name: &str, task: &str, upstream: &str, scope: &str) -> Result<pb::Issued, Status> {
        let request = pb::ExchangeRequest {
            task: Some(pb::exchange_request::Task::TaskId(task.into())),
            upstream: upstream.into(),
            scopes: vec![scope.into()],
            ..Default::default()
        };
        Ok(TokenServiceClient::new(self.channel(name).await).exchange(request).await?.into_inner().issued.unwrap())
    }
}

fn id(glass: &pb::BreakGlass) -> String {
    glass.task.as_ref().unwrap().task_id.clone()
}

fn state(glass: &pb::BreakGlass) -> pb::TaskState {
    glass.task.as_ref().unwrap().state()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_act_in_it_and_a_third_looks_at_it_before_either_opens_another() {
    let rig = Rig::new();
    let opened = rig.open(YOU).await.unwrap();
    let task = id(&opened);
    assert_eq!((state(&opened), opened.people.len(), opened.unreviewed), (pb::TaskState::PendingApproval, 1, false));
    assert_eq!(reason(&rig.get(YOU, &task, "echo", "echo:admin").await.unwrap_err()), "TASK_NOT_ACTIVE");
    assert_eq!(reason(&rig.join(YOU, &task).await.unwrap_err()), "NOT_YOURS", "the same person");
    assert_eq!(reason(&rig.join(AUDITOR, &task).await.unwrap_err()), "NOT_FOUND", "nobody whom policy names");
    assert_eq!(reason(&rig.open("agent/demo").await.unwrap_err()), "NOT_FOUND");
    let joined = rig.join(COLLEAGUE, &task).await.unwrap();
    assert_eq!((state(&joined), joined.people.len(), joined.reasons.len()), (pb::TaskState::Active, 2, 2));
    let issued = rig.get(COLLEAGUE, &task, "echo", "echo:admin").await.unwrap();
    rig.get(YOU, &task, "tickets", "tickets:read").await.unwrap();
    assert_eq!(reason(&rig.get(AUDITOR, &task, "echo", "echo:read").await.unwrap_err()), "NOT_FOUND", "nobody else acts in it");
    assert_eq!(
        reason(&rig.get(YOU, &task, "tickets", "tickets:write").await.unwrap_err()),
        "OUTSIDE_TASK",
        "nothing else is given"
    );
    assert_eq!(reason(&rig.get(YOU, &task, "repos", "repo:read").await.unwrap_err()), "OUTSIDE_TASK");
    assert_eq!(reason(&rig.open(COLLEAGUE).await.unwrap_err()), "APPROVAL_NEEDED", "one at a time");
    assert_eq!(reason(&rig.review(AUDITOR, &task).await.unwrap_err()), "TASK_NOT_ACTIVE", "not over yet");
    assert_eq!(reason(&rig.close("agent/demo", &task).await.unwrap_err()), "NOT_FOUND");
    let closed = rig.close(COLLEAGUE, &task).await.unwrap();
    assert_eq!((state(&closed), closed.unreviewed), (pb::TaskState::Completed, true));
    let lookup = rig.running.authority().ledger.peek(|s| {
        let id = issued.credential_id.parse().unwrap();
        let live = s.credentials.get(&id).unwrap();
        s.rules.covers(&s.facts(&live, s.tasks.at(live.task()).unwrap())).is_some()
    });
    assert!(lookup, "what it issued dies with it");
    for name in [YOU, COLLEAGUE] {
        assert_eq!(reason(&rig.open(name).await.unwrap_err()), "APPROVAL_NEEDED", "{name} is blocked until it was reviewed");
    }
    assert_eq!(rig.list(YOU, true).await, std::slice::from_ref(&task));
    assert!(rig.list("agent/demo", false).await.is_empty(), "others are told of none");
    assert_eq!(reason(&rig.review(YOU, &task).await.unwrap_err()), "NOT_YOURS", "named as reviewer, and one of the two");
    assert_eq!(reason(&rig.review(COLLEAGUE, &task).await.unwrap_err()), "NOT_FOUND");
    let reviewed = rig.review(AUDITOR, &task).await.unwrap();
    assert!(!reviewed.unreviewed && reviewed.reviewer.is_some() && reviewed.review == "all of it was needed");
    assert!(rig.list(YOU, true).await.is_empty());
    rig.active().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_neither_extended_nor_handed_on_and_its_end_bounds_what_it_gives() {
    let rig = Rig::new();
    let task = rig.active().await;
    let mut tasks = TaskServiceClient::new(rig.channel(YOU).await);
    let later = rig.running.authority().system.wall().plus(3_000_000).seconds();
    let deadline = Some(prost_types::Timestamp { seconds: later.cast_signed(), nanos: 0 });
    let request = pb::ExtendTaskRequest { task_id: task.clone(), deadline, ..Default::default() };
    assert_eq!(reason(&tasks.extend_task(request).await.unwrap_err()), "NO_LIFE_LEFT");
    let delegate = |to: &str| {
        let terms = pb::TaskTerms {
            purpose: "a part of it".into(),
            upstreams: vec![pb::Allowance { upstream: "echo".into(), scopes: vec!["echo:read".into()] }],
            ttl: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
            parent_task_id: task.clone(),
            ..Default::default()
        };
        pb::DelegateTaskRequest { terms: Some(terms), caller: format!("spiffe://dev.mayfly.internal/{to}"), ..Default::default() }
    };
    assert_eq!(reason(&tasks.delegate_task(delegate(AUDITOR)).await.unwrap_err()), "NOT_YOURS");
    let child = tasks.delegate_task(delegate(COLLEAGUE)).await.unwrap().into_inner().task.unwrap().task_id;
    rig.get(COLLEAGUE, &child, "echo", "echo:read").await.unwrap();
    rig.close(YOU, &task).await.unwrap();
    assert_eq!(reason(&rig.get(COLLEAGUE, &child, "echo", "echo:read").await.unwrap_err()), "TASK_NOT_ACTIVE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_opens_no_second_one_and_what_is_said_is_checked() {
    let rig = Rig::new();
    let named = |request_id: &str, reason: &str| pb::OpenBreakGlassRequest {
        open: Some(Open::Rights("echo-down".into())),
        reason: reason.into(),
        request_id: request_id.into(),
        ..Default::default()
    };
    let mut glass = rig.glass(YOU).await;
    let mut opened = async |request| glass.open_break_glass(request).await.map(|a| id(&a.into_inner().break_glass.unwrap()));
    let first = opened(named("one", "it burns")).await.unwrap();
    assert_eq!(opened(named("one", "it burns")).await.unwrap(), first);
    assert_eq!(reason(&opened(named("one", "something else")).await.unwrap_err()), "REQUEST_ID_REUSED");
    assert_eq!(reason(&opened(named("two", "it burns")).await.unwrap_err()), "ALREADY_EXISTS", "one waits already");
    assert_eq!(reason(&opened(named("three", "")).await.unwrap_err()), "INVALID_FIELD");
    let long = pb::OpenBreakGlassRequest {
        ttl: Some(prost_types::Duration { seconds: 3_600, nanos: 0 }),
        ..named("four", "for longer than policy gives it")
    };
    assert_eq!(reason(&opened(long).await.unwrap_err()), "INVALID_FIELD");
    let unknown = pb::OpenBreakGlassRequest { open: Some(Open::Rights("all-down".into())), ..named("five", "x") };
    assert_eq!(reason(&opened(unknown).await.unwrap_err()), "NOT_FOUND");
    // The first person may close it before the second joins; a task that never became active needs no review.
    rig.close(YOU, &first).await.unwrap();
    assert!(rig.list(YOU, true).await.is_empty());
    rig.active().await;
}
