//! Approvals of tasks, and of extensions of tasks, on a whole server: for exactly these terms, once, by another person.

use std::time::Duration;

use mayfly::cli::dev::{DevEngine, DevSettings, DevWorld};
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::approval_service_client::ApprovalServiceClient;
use mayfly::pb::mayfly::v1::revocation_service_client::RevocationServiceClient;
use mayfly::pb::mayfly::v1::task_service_client::TaskServiceClient;
use mayfly::pb::mayfly::v1::token_service_client::TokenServiceClient;
use mayfly::server::RunningServer;
use tempfile::TempDir;
use tonic::Status;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use crate::kit::{PATIENCE, reason, world};

const POLICY: &str = r#"
@id("tasks")
permit (principal, action in [Action::"OpenTask", Action::"DelegateTask", Action::"ExtendTask"], resource in Environment::"dev");

@id("wide-tasks-need-somebody")
forbid (principal, action in [Action::"OpenTask", Action::"DelegateTask"], resource == Upstream::"echo")
when { context.sensitive } unless { context.approvals.count >= 1 };

@id("long-work-needs-somebody")
forbid (principal, action == Action::"ExtendTask", resource == Upstream::"echo")
when { context.ttl_seconds > 1800 } unless { context.approvals.count >= 1 };

@id("tickets-need-their-own")
forbid (principal, action == Action::"OpenTask", resource == Upstream::"tickets")
when { context.scopes.contains("tickets:write") }
unless { context.approvals.people.contains("spiffe://dev.mayfly.internal/operator/colleague") };
"#;

const NAMES: [&str; 2] = ["operator/you", "operator/colleague"];

struct Rig {
    running: RunningServer,
    world: DevWorld,
    _dir: TempDir,
}

fn allowed(upstream: &str, scope: &str) -> pb::Allowance {
    pb::Allowance { upstream: upstream.into(), scopes: vec![scope.into()] }
}

fn terms() -> pb::TaskTerms {
    pb::TaskTerms {
        purpose: "yearly clean-up".into(),
        upstreams: vec![allowed("echo", "echo:admin")],
        tools: vec!["purge".into()],
        callers: vec!["spiffe://dev.mayfly.internal/mcp/echo".into()],
        ttl: Some(seconds(600)),
        max_ttl: Some(seconds(7200)),
        ..Default::default()
    }
}

fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

fn approval_of(no: &Status) -> String {
    no.get_error_details().error_info().and_then(|i| i.metadata.get("approval_id").cloned()).unwrap_or_default()
}

impl Rig {
    fn new() -> Rig {
        let (dir, world) = world(DevSettings { engine: DevEngine::Memory, ..DevSettings::default() });
        let add = |file: &str, change: &dyn Fn(String) -> String| {
            let path = world.dir().join(file);
            std::fs::write(&path, change(std::fs::read_to_string(&path).unwrap())).unwrap();
        };
        add("policy/policy.cedar", &|text| text + POLICY);
        let id = |name: &str| format!("\"spiffe://dev.mayfly.internal/{name}\"");
        let with = |approvers: &[&str]| {
            let line = format!("approvers = [{}]", approvers.iter().map(|n| id(n)).collect::<Vec<_>>().join(", "));
            move |text: String| {
                let kept: Vec<&str> = text.lines().filter(|l| !l.starts_with("approvers")).collect();
                format!("{line}\n{}\n", kept.join("\n"))
            }
        };
        add("policy/upstreams/echo.toml", &with(&NAMES));
        add("policy/upstreams/tickets.toml", &with(&NAMES[1..]));
        Rig { running: world.start().unwrap_or_else(|no| panic!("{no}")), world, _dir: dir }
    }

    async fn workload(&self, name: &str) -> Channel {
        self.world.channel(name, self.running.addresses().workload).await.unwrap()
    }

    async fn tasks(&self, name: &str) -> TaskServiceClient<Channel> {
        TaskServiceClient::new(self.workload(name).await)
    }

    async fn approvals(&self, name: &str) -> ApprovalServiceClient<Channel> {
        ApprovalServiceClient::new(self.world.channel(name, self.running.addresses().admin).await.unwrap())
    }

    async fn open_as(&self, name: &str, request: pb::OpenTaskRequest) -> Result<pb::Task, Status> {
        Ok(self.tasks(name).await.open_task(request).await?.into_inner().task.unwrap())
    }

    async fn open(&self, terms: pb::TaskTerms) -> Result<pb::Task, Status> {
        self.open_as("agent/demo", pb::OpenTaskRequest { terms: Some(terms), ..Default::default() }).await
    }

    async fn extend(&self, task: &pb::Task, by: i64, wait: Option<i64>) -> Result<pb::Task, Status> {
        let deadline = task.deadline.map(|d| prost_types::Timestamp { seconds: d.seconds + by, ..d });
        let wait_for_approval = wait.map(seconds);
        let request = pb::ExtendTaskRequest { task_id: task.task_id.clone(), deadline, wait_for_approval, ..Default::default() };
        Ok(self.tasks("agent/demo").await.extend_task(request).await?.into_inner().task.unwrap())
    }

    async fn task(&self, id: &str) -> pb::Task {
        let request = pb::GetTaskRequest { task_id: id.into() };
        self.tasks("agent/demo").await.get_task(request).await.unwrap().into_inner().task.unwrap()
    }

    async fn show(&self, id: &str) -> pb::Approval {
        let request = pb::GetApprovalRequest { approval_id: id.into() };
        self.approvals("operator/you").await.get_approval(request).await.unwrap().into_inner().approval.unwrap()
    }

    async fn decide(&self, name: &str, id: &str, decision: pb::ApprovalDecision) -> Result<pb::Approval, Status> {
        let request = pb::DecideApprovalRequest {
            approval_id: id.into(),
            request_sha256: self.show(id).await.request_sha256,
            decision: decision.into(),
            reason: "as agreed".into(),
            ..Default::default()
        };
        Ok(self.approvals(name).await.decide_approval(request).await?.into_inner().approval.unwrap())
    }

    async fn give(&self, id: &str) -> Result<pb::Approval, Status> {
        self.decide("operator/you", id, pb::ApprovalDecision::Give).await
    }

    async fn exchange(&self, task: pb::exchange_request::Task) -> Result<pb::Issued, Status> {
        let arguments = pb::arguments::Arguments::Json(r#"{"table":"old"}"#.into());
        let request = pb::ExchangeRequest {
            task: Some(task),
            upstream: "echo".into(),
            scopes: vec!["echo:admin".into()],
            tool: "purge".into(),
            ttl: Some(seconds(60)),
            arguments: Some(pb::Arguments { arguments: Some(arguments) }),
            ..Default::default()
        };
        let answer = TokenServiceClient::new(self.workload("agent/demo").await).exchange(request).await?;
        Ok(answer.into_inner().issued.unwrap())
    }

    async fn issue(&self, task: &pb::Task) -> Result<pb::Issued, Status> {
        self.exchange(pb::exchange_request::Task::TaskId(task.task_id.clone())).await
    }

    async fn revoke(&self, caller: &str) {
        let target = pb::Target { target: Some(pb::target::Target::Caller(format!("spiffe://dev.mayfly.internal/{caller}"))) };
        let request = pb::RevokeRequest {
            targets: vec![target],
            reason: "stolen".into(),
            issued_only: true,
            confirmation: Some(pb::Confirmation { credentials: 0, all: true }),
            ..Default::default()
        };
        let admin = self.world.channel("operator/you", self.running.addresses().admin).await.unwrap();
        RevocationServiceClient::new(admin).revoke(request).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_waits_for_somebody_who_sees_its_terms_and_opens_once() {
    let rig = Rig::new();
    let task = rig.open(terms()).await.unwrap();
    assert_eq!(task.state(), pb::TaskState::PendingApproval);
    assert_eq!(reason(&rig.issue(&task).await.unwrap_err()), "TASK_NOT_ACTIVE");
    assert_eq!(rig.open(terms()).await.unwrap().task_id, task.task_id, "the same request asks once");
    let shown = rig.show(&task.approval_id).await;
    assert_eq!((shown.of(), shown.state()), (pb::ApprovalOf::Task, pb::ApprovalState::Waiting));
    let seen = shown.task.clone().unwrap();
    let wide = seen.terms.unwrap();
    assert_eq!((wide.upstreams, wide.tools, wide.callers), (terms().upstreams, terms().tools, terms().callers));
    assert_eq!((wide.ttl, wide.max_ttl, seen.upstreams), (terms().ttl, terms().max_ttl, vec!["echo".to_owned()]));
    assert_eq!((shown.task_path.clone(), shown.approvers.len()), (vec![task.task_id.clone()], 2));
    // Two approvers give the approval concurrently.
    let both = tokio::join!(
        rig.decide("operator/you", &task.approval_id, pb::ApprovalDecision::Give),
        rig.decide("operator/colleague", &task.approval_id, pb::ApprovalDecision::Give)
    );
    let (ok, no) = match both {
        (Ok(ok), Err(no)) | (Err(no), Ok(ok)) => (ok, no),
        other => panic!("{other:?}"),
    };
    assert_eq!((ok.state(), reason(&no).as_str()), (pb::ApprovalState::Used, "ALREADY_EXISTS"));
    let open = rig.task(&task.task_id).await;
    assert_eq!((open.state(), &open.approval_id), (pb::TaskState::Active, &task.approval_id));
    rig.issue(&open).await.unwrap();
    // An approval is valid for these terms and once: other terms, and the same terms again, need a new approval.
    for other in [terms(), pb::TaskTerms { any_tool: true, tools: vec![], ..terms() }] {
        let next = rig.open(other).await.unwrap();
        assert_eq!(next.state(), pb::TaskState::PendingApproval);
        assert_ne!(next.approval_id, task.approval_id);
    }
    let plain = rig.open(pb::TaskTerms { upstreams: vec![allowed("echo", "echo:read")], ..terms() }).await.unwrap();
    assert_eq!(
        (plain.state(), plain.approval_id.as_str()),
        (pb::TaskState::Active, ""),
        "what nobody has to approve opens at once"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_waits_for_its_task_and_is_told_who_refused_it() {
    let rig = Rig::new();
    let asks = |id: &str, wait| pb::OpenTaskRequest {
        terms: Some(terms()),
        request_id: id.into(),
        wait_for_approval: Some(seconds(wait)),
        ..Default::default()
    };
    assert_eq!(reason(&rig.open_as("agent/demo", asks("a", 61)).await.unwrap_err()), "INVALID_FIELD");
    for (id, decision) in [("a", pb::ApprovalDecision::Give), ("b", pb::ApprovalDecision::Refuse)] {
        let first = pb::OpenTaskRequest { wait_for_approval: None, ..asks(id, 1) };
        let waiting = rig.open_as("agent/demo", first).await.unwrap();
        let decides = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            rig.decide("operator/colleague", &waiting.approval_id, decision).await.unwrap();
        };
        // A retry is the same request, regardless of how long it waits.
        let opened = tokio::time::timeout(PATIENCE, rig.open_as("agent/demo", asks(id, 30)));
        let (opened, ()) = tokio::join!(opened, decides);
        match (opened.unwrap(), decision) {
            (Ok(task), pb::ApprovalDecision::Give) => {
                assert_eq!((task.state(), task.task_id), (pb::TaskState::Active, waiting.task_id));
            }
            (Err(no), _) => {
                assert_eq!(reason(&no), "DENIED_BY_POLICY");
                let by = "was refused by spiffe://dev.mayfly.internal/operator/colleague: as agreed";
                assert!(no.message().contains(by), "{}", no.message());
                assert_eq!(rig.task(&waiting.task_id).await.state(), pb::TaskState::Cancelled);
            }
            (task, _) => panic!("{task:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_approves_a_task_of_their_own_or_that_they_may_act_in() {
    let rig = Rig::new();
    let own = pb::OpenTaskRequest { terms: Some(terms()), ..Default::default() };
    let own = rig.open_as("operator/you", own).await.unwrap();
    let no = rig.give(&own.approval_id).await.unwrap_err();
    assert_eq!(reason(&no), "NOT_YOURS", "whoever opens it");
    let way_out = no.get_error_details().error_info().unwrap().metadata["way_out"].clone();
    assert!(way_out.starts_with("another approver of the upstream gives it: mayfly approval give"), "{way_out}");
    rig.decide("operator/colleague", &own.approval_id, pb::ApprovalDecision::Give).await.unwrap();
    let named = pb::TaskTerms { callers: vec!["spiffe://dev.mayfly.internal/operator/you".into()], ..terms() };
    let named = rig.open(named).await.unwrap();
    assert_eq!(reason(&rig.give(&named.approval_id).await.unwrap_err()), "NOT_YOURS", "whoever may act in it");
    // A delegated task belongs to the caller to whom it was delegated, who may not approve it.
    let root = pb::TaskTerms { upstreams: vec![allowed("echo", "echo:admin")], ..terms() };
    let root = rig.open(root).await.unwrap();
    rig.give(&root.approval_id).await.unwrap();
    let request = pb::DelegateTaskRequest {
        terms: Some(pb::TaskTerms { parent_task_id: root.task_id.clone(), callers: vec![], ..terms() }),
        caller: "spiffe://dev.mayfly.internal/operator/you".into(),
        ..Default::default()
    };
    let child = rig.tasks("agent/demo").await.delegate_task(request).await.unwrap().into_inner().task.unwrap();
    assert_eq!(child.state(), pb::TaskState::PendingApproval);
    assert_eq!(reason(&rig.give(&child.approval_id).await.unwrap_err()), "NOT_YOURS", "whoever it is for");
    rig.decide("operator/colleague", &child.approval_id, pb::ApprovalDecision::Give).await.unwrap();
    assert_eq!(rig.task(&child.task_id).await.state(), pb::TaskState::Active);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_revoked_since_it_was_asked_for_does_not_open() {
    let rig = Rig::new();
    let task = rig.open(terms()).await.unwrap();
    rig.revoke("agent/demo").await;
    assert_eq!(reason(&rig.give(&task.approval_id).await.unwrap_err()), "REVOKED");
    assert_eq!(reason(&rig.issue(&task).await.unwrap_err()), "TASK_NOT_ACTIVE");
    // If the requester cancels the task, there is nothing to approve any more.
    let other = rig.open(pb::TaskTerms { purpose: "another".into(), ..terms() }).await.unwrap();
    let request = pb::CancelTaskRequest { task_id: other.task_id.clone(), reason: "not needed".into() };
    rig.tasks("agent/demo").await.cancel_task(request).await.unwrap();
    assert_eq!(rig.show(&other.approval_id).await.state(), pb::ApprovalState::Ended);
    assert_eq!(reason(&rig.give(&other.approval_id).await.unwrap_err()), "TASK_NOT_ACTIVE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_nobody_approved_in_time_is_over() {
    let rig = Rig::new();
    let short = pb::TaskTerms { ttl: Some(seconds(2)), max_ttl: Some(seconds(2)), ..terms() };
    let task = rig.open(short).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2_200)).await;
    let over = rig.task(&task.task_id).await;
    assert_eq!(over.state(), pb::TaskState::Expired);
    assert_eq!(rig.show(&task.approval_id).await.state(), pb::ApprovalState::Ended);
    assert_eq!(reason(&rig.give(&task.approval_id).await.unwrap_err()), "APPROVAL_NEEDED");
    assert_eq!(reason(&rig.issue(&task).await.unwrap_err()), "TASK_NOT_ACTIVE");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_time_takes_another_approval_where_opening_took_one_or_policy_says_so() {
    let rig = Rig::new();
    let task = rig.open(terms()).await.unwrap();
    rig.give(&task.approval_id).await.unwrap();
    let no = rig.extend(&task, 60, None).await.unwrap_err();
    assert_eq!((reason(&no).as_str(), no.code()), ("APPROVAL_NEEDED", tonic::Code::FailedPrecondition));
    let id = approval_of(&no);
    assert_ne!(id, task.approval_id);
    assert_eq!(approval_of(&rig.extend(&task, 60, None).await.unwrap_err()), id, "the same request asks once");
    let shown = rig.show(&id).await;
    assert_eq!(
        (shown.of(), shown.task.unwrap().deadline.map(|d| d.seconds)),
        (pb::ApprovalOf::Extension, task.deadline.map(|d| d.seconds + 60))
    );
    rig.give(&id).await.unwrap();
    assert_ne!(approval_of(&rig.extend(&task, 61, None).await.unwrap_err()), id, "for that deadline");
    // Two concurrent copies of the same request: the approval is used once, and both callers get the result.
    let (one, other) = tokio::join!(rig.extend(&task, 60, None), rig.extend(&task, 60, None));
    let later = one.or(other).unwrap();
    assert_eq!(later.deadline.map(|d| d.seconds), task.deadline.map(|d| d.seconds + 60));
    assert_eq!(rig.show(&id).await.state(), pb::ApprovalState::Used);
    let again = rig.extend(&later, 60, None).await.unwrap_err();
    assert_ne!(approval_of(&again), id);
    // A call that waits for its approval.
    let waiting = approval_of(&again);
    let gives = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        rig.decide("operator/colleague", &waiting, pb::ApprovalDecision::Give).await.unwrap();
    };
    let (extended, ()) = tokio::join!(rig.extend(&later, 60, Some(30)), gives);
    let extended = extended.unwrap();
    // An approval that is refused.
    let refused = approval_of(&rig.extend(&extended, 60, None).await.unwrap_err());
    rig.decide("operator/you", &refused, pb::ApprovalDecision::Refuse).await.unwrap();
    assert_eq!(reason(&rig.extend(&extended, 60, None).await.unwrap_err()), "DENIED_BY_POLICY");
    // A task that was opened without an approval is extended as policy says.
    let plain = rig.open(pb::TaskTerms { upstreams: vec![allowed("echo", "echo:read")], ..terms() }).await.unwrap();
    rig.extend(&plain, 60, None).await.unwrap();
    let long = rig.extend(&plain, 3000, None).await.unwrap_err();
    assert_eq!(reason(&long), "APPROVAL_NEEDED");
    rig.give(&approval_of(&long)).await.unwrap();
    rig.revoke("agent/demo").await;
    let no = rig.extend(&plain, 3000, None).await.unwrap_err();
    assert_eq!(reason(&no), "REVOKED", "revoked since it was approved");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_opens_its_task_has_that_approved_with_it() {
    let rig = Rig::new();
    let inline = || pb::TaskTerms { callers: vec![], ..terms() };
    let no = rig.exchange(pb::exchange_request::Task::OpenTask(inline())).await.unwrap_err();
    assert_eq!(reason(&no), "APPROVAL_NEEDED");
    let id = approval_of(&no);
    let shown = rig.show(&id).await;
    assert_eq!((shown.of(), shown.opens_task), (pb::ApprovalOf::Exchange, true));
    let seen = shown.task.unwrap();
    assert_eq!((seen.terms.unwrap().max_ttl, seen.upstreams), (terms().max_ttl, vec!["echo".to_owned()]));
    rig.give(&id).await.unwrap();
    let wider: [fn(&mut pb::TaskTerms); 5] = [
        |t| t.callers = vec!["spiffe://dev.mayfly.internal/mcp/echo".into()],
        |t| t.upstreams[0].scopes.push("echo:write".into()),
        |t| t.max_ttl = Some(seconds(7201)),
        |t| t.tools.push("drop".into()),
        |t| t.upstreams.push(allowed("tickets", "tickets:read")),
    ];
    for (n, change) in wider.iter().enumerate() {
        let mut other = inline();
        change(&mut other);
        let no = rig.exchange(pb::exchange_request::Task::OpenTask(other)).await.unwrap_err();
        assert_eq!(reason(&no), "APPROVAL_NEEDED", "{n}");
        assert_ne!(approval_of(&no), id, "{n}");
    }
    let issued = rig.exchange(pb::exchange_request::Task::OpenTask(inline())).await.unwrap();
    assert_eq!(issued.approval_id, id);
    let task = rig.task(&issued.task_id).await;
    assert_eq!(task.approval_id, id);
    assert_eq!(reason(&rig.extend(&task, 60, None).await.unwrap_err()), "APPROVAL_NEEDED", "so does more time for it");
    let again = rig.exchange(pb::exchange_request::Task::OpenTask(inline())).await.unwrap_err();
    assert_ne!(approval_of(&again), id, "once");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_person_approves_a_task_whom_all_its_upstreams_name() {
    let rig = Rig::new();
    let both = pb::TaskTerms { upstreams: vec![allowed("echo", "echo:admin"), allowed("tickets", "tickets:write")], ..terms() };
    let task = rig.open(both).await.unwrap();
    let shown = rig.show(&task.approval_id).await;
    assert_eq!((shown.approvers.len(), shown.task.unwrap().upstreams.len()), (1, 2));
    assert_eq!(reason(&rig.give(&task.approval_id).await.unwrap_err()), "NOT_FOUND", "one of them does not name this one");
    rig.decide("operator/colleague", &task.approval_id, pb::ApprovalDecision::Give).await.unwrap();
    let list =
        pb::ListApprovalsRequest { upstream: "tickets".into(), state: pb::ApprovalState::Used.into(), ..Default::default() };
    let listed = rig.approvals("operator/colleague").await.list_approvals(list).await.unwrap().into_inner().approvals;
    assert_eq!(listed.len(), 1, "it is listed under each of them");
}
