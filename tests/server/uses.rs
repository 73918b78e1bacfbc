//! Every tool call is a decision and every use is known: actions authorized without issuing, uses reported, and a task held because a use
//! exceeds its declared intent.

use std::time::Duration;

use mayfly::limits;
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::audit_service_client::AuditServiceClient;
use mayfly::pb::mayfly::v1::revocation_service_client::RevocationServiceClient;
use mayfly::pb::mayfly::v1::task_service_client::TaskServiceClient;
use mayfly::pb::mayfly::v1::token_service_client::TokenServiceClient;
use serde_json::Value::Null;
use tonic::Status;

use crate::kit::{PATIENCE, reason};
use crate::policy_rig::{Rig, approval_of};

/// Uses of credentials for the echo upstream must match the declared intent, otherwise their task is held.
const INTENT: &str = r#"
@id("uses") permit (principal, action == Action::"Use", resource);
@id("undeclared") forbid (principal, action == Action::"Use", resource) unless { context.declared };
@id("refused-often") forbid (principal, action == Action::"Use", resource) when { context.counts.refused_uses_in_task > 3 };
@id("after-its-end") forbid (principal, action == Action::"Use", resource) when { context.after_end };
@id("enough") forbid (principal, action == Action::"Exchange", resource) when { context.counts.uses_in_task >= 10 };
@id("few-calls") forbid (principal, action == Action::"Exchange", resource) when { context.counts.authorized_in_task >= 3 };
@id("no-rm") forbid (principal, action == Action::"Exchange", resource) when { context has tool && context.tool == "rm" };
"#;

fn task_of(tools: &[&str]) -> pb::OpenTaskRequest {
    let terms = pb::TaskTerms {
        purpose: "test".into(),
        upstreams: vec![pb::Allowance { upstream: "echo".into(), scopes: vec!["echo:read".into(), "echo:write".into()] }],
        tools: tools.iter().map(|t| (*t).to_owned()).collect(),
        ..Default::default()
    };
    pb::OpenTaskRequest { terms: Some(terms), ..Default::default() }
}

async fn rig() -> Rig {
    let rig = Rig::new();
    rig.put(&|text| text + INTENT).await.unwrap();
    rig
}

async fn opened(rig: &Rig) -> String {
    let mut tasks = TaskServiceClient::new(rig.up.channel("agent/demo").await);
    tasks.open_task(task_of(&["search", "rm"])).await.unwrap().into_inner().task.unwrap().task_id
}

async fn issued(rig: &Rig, task: &str, tool: &str) -> Result<pb::Issued, Status> {
    let request = pb::ExchangeRequest {
        task: Some(pb::exchange_request::Task::TaskId(task.into())),
        upstream: "echo".into(),
        scopes: vec!["echo:read".into()],
        tool: tool.into(),
        ..Default::default()
    };
    TokenServiceClient::new(rig.up.channel("agent/demo").await).exchange(request).await.map(|r| r.into_inner().issued.unwrap())
}

fn token(issued: &pb::Issued) -> String {
    let Some(pb::issued::Answer::BearerToken(bearer)) = &issued.answer else { panic!("no bearer token") };
    bearer.token.clone()
}

/// The authorization request of an agent for its own action.
fn own(task: &str) -> pb::AuthorizeRequest {
    pb::AuthorizeRequest {
        task_id: task.into(),
        upstream: "echo".into(),
        scopes: vec!["echo:read".into()],
        tool: "search".into(),
        ..Default::default()
    }
}

async fn authorize(rig: &Rig, who: &str, ask: pb::AuthorizeRequest) -> Result<pb::AuthorizeResponse, Status> {
    TokenServiceClient::new(rig.up.channel(who).await).authorize(ask).await.map(tonic::Response::into_inner)
}

fn now(rig: &Rig) -> u64 {
    rig.up.running().authority().system.wall().0
}

fn moment(ms: u64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds: (ms / 1000) as i64, nanos: (ms % 1000) as i32 * 1_000_000 })
}

fn used(rig: &Rig, issued: &pb::Issued, tool: &str, outcome: pb::UseOutcome, count: u32) -> pb::Use {
    let credential_id = issued.credential_id.clone();
    pb::Use { credential_id, tool: tool.into(), outcome: outcome.into(), at: moment(now(rig)), count }
}

async fn report(rig: &Rig, who: &str, uses: Vec<pb::Use>) -> Result<Vec<pb::UseProblem>, Status> {
    let mut audit = AuditServiceClient::new(rig.up.channel(who).await);
    audit.report_use(pb::ReportUseRequest { uses }).await.map(|r| r.into_inner().problems)
}

async fn shown(rig: &Rig, task: &str) -> pb::Task {
    let mut tasks = TaskServiceClient::new(rig.up.channel("agent/demo").await);
    tasks.get_task(pb::GetTaskRequest { task_id: task.into() }).await.unwrap().into_inner().task.unwrap()
}

/// Waits until policy holds the task, and returns the reason.
async fn held(rig: &Rig, task: &str) -> String {
    for _ in 0..PATIENCE.as_millis() / 50 {
        if let Some(hold) = shown(rig, task).await.holds.first() {
            assert!(hold.operator_only, "{hold:?}");
            return hold.reason.clone();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{task} is not held");
}

async fn records(rig: &Rig, event: &str) -> Vec<serde_json::Value> {
    let filter = pb::RecordFilter { event: event.into(), ..Default::default() };
    let request = pb::SearchRecordsRequest { filter: Some(filter), page_size: 100, ..Default::default() };
    let channel = rig.up.world.channel("operator/you", rig.up.admin()).await.unwrap();
    let answer = AuditServiceClient::new(channel).search_records(request).await.unwrap().into_inner();
    answer.records.iter().map(|r| serde_json::from_str(&r.body).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_is_decided_recorded_and_counted_with_nothing_issued() {
    let rig = rig().await;
    let task = opened(&rig).await;
    let first = authorize(&rig, "agent/demo", own(&task)).await.unwrap();
    assert!(first.seq > first.decision_revision && first.decision_revision > 0, "{first:?}");
    let until = first.expires_at.unwrap().seconds as u64 * 1000;
    assert!(until <= now(&rig) + limits::AUTHORIZATION_MS, "it is for what begins now");
    // Policy, the task, and the registration are checked as for an exchange.
    for (what, ask) in [
        ("DENIED_BY_POLICY", pb::AuthorizeRequest { tool: "rm".into(), ..own(&task) }),
        ("OUTSIDE_TASK", pb::AuthorizeRequest { tool: "other".into(), ..own(&task) }),
        ("OUTSIDE_TASK", pb::AuthorizeRequest { scopes: vec!["echo:admin".into()], ..own(&task) }),
        ("OUTSIDE_UPSTREAM", pb::AuthorizeRequest { scopes: vec!["echo:none".into()], ..own(&task) }),
        ("INVALID_FIELD", pb::AuthorizeRequest { scopes: Vec::new(), ..own(&task) }),
        ("NOT_FOUND", pb::AuthorizeRequest { upstream: "none".into(), ..own(&task) }),
        ("NOT_FOUND", own("task_aaaaaaaaaaaaaaaaaaaaaaaaaa")),
    ] {
        assert_eq!(reason(&authorize(&rig, "agent/demo", ask).await.unwrap_err()), what);
    }
    assert_eq!(reason(&authorize(&rig, "mcp/echo", own(&task)).await.unwrap_err()), "NOT_FOUND", "not its task");
    // A retry gets the same answer and counts as no second action; a different request with the same id is refused.
    let named = |id: &str| pb::AuthorizeRequest { request_id: id.into(), ..own(&task) };
    let one = authorize(&rig, "agent/demo", named("a")).await.unwrap();
    assert_eq!(authorize(&rig, "agent/demo", named("a")).await.unwrap(), one);
    let other = pb::AuthorizeRequest { purpose: "else".into(), ..named("a") };
    assert_eq!(reason(&authorize(&rig, "agent/demo", other).await.unwrap_err()), "REQUEST_ID_REUSED");
    // Actions are counted: the third is the last that policy permits.
    authorize(&rig, "agent/demo", named("b")).await.unwrap();
    assert_eq!(reason(&authorize(&rig, "agent/demo", named("c")).await.unwrap_err()), "DENIED_BY_POLICY");
    assert_eq!(reason(&issued(&rig, &task, "search").await.unwrap_err()), "DENIED_BY_POLICY", "exchanging reads the same count");
    let told = records(&rig, "action authorized").await;
    assert_eq!(told.len(), 3);
    assert_eq!((&told[0]["tool"], &told[0]["decided"]["upstream"]), (&"search".into(), &"echo".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_asks_about_what_it_was_shown_and_gets_no_more_than_that() {
    let rig = rig().await;
    let task = opened(&rig).await;
    let (any, search) = (issued(&rig, &task, "").await.unwrap(), issued(&rig, &task, "search").await.unwrap());
    let with = |issued: &pb::Issued| pb::AuthorizeRequest {
        token: token(issued),
        scopes: vec!["echo:read".into()],
        tool: "search".into(),
        ..Default::default()
    };
    authorize(&rig, "service/echo", with(&any)).await.unwrap();
    authorize(&rig, "service/echo", pb::AuthorizeRequest { task_id: task.clone(), upstream: "echo".into(), ..with(&search) })
        .await
        .unwrap();
    let told = records(&rig, "action authorized").await;
    assert_eq!(told[0]["credential"], search.credential_id.as_str());
    assert_eq!(told[0]["decided"]["caller"], "spiffe://dev.mayfly.internal/agent/demo", "decided for whoever holds it");
    for (what, ask) in [
        ("OUTSIDE_TASK", pb::AuthorizeRequest { scopes: vec!["echo:write".into()], ..with(&any) }),
        ("OUTSIDE_TASK", pb::AuthorizeRequest { tool: "rm".into(), ..with(&search) }),
        ("OUTSIDE_TASK", pb::AuthorizeRequest { tool: String::new(), ..with(&search) }),
        ("DENIED_BY_POLICY", pb::AuthorizeRequest { tool: "rm".into(), ..with(&any) }),
        ("INVALID_FIELD", pb::AuthorizeRequest { upstream: "other".into(), ..with(&any) }),
        ("CREDENTIAL_NOT_ACTIVE", pb::AuthorizeRequest { token: "x.y.z".into(), ..with(&any) }),
    ] {
        assert_eq!(reason(&authorize(&rig, "service/echo", ask).await.unwrap_err()), what);
    }
    // A caller that is no server of the upstream learns nothing about a token, whether valid or not.
    for who in ["agent/demo", "ci/demo"] {
        assert_eq!(reason(&authorize(&rig, who, with(&any)).await.unwrap_err()), "CREDENTIAL_NOT_ACTIVE", "{who}");
    }
    let admin = rig.up.world.channel("operator/you", rig.up.admin()).await.unwrap();
    let target = pb::Target { target: Some(pb::target::Target::CredentialId(any.credential_id.clone())) };
    let request = pb::RevokeRequest {
        targets: vec![target],
        reason: "leaked".into(),
        confirmation: Some(pb::Confirmation { credentials: 0, all: true }),
        ..Default::default()
    };
    RevocationServiceClient::new(admin).revoke(request).await.unwrap();
    assert_eq!(reason(&authorize(&rig, "service/echo", with(&any)).await.unwrap_err()), "CREDENTIAL_NOT_ACTIVE");
    assert_eq!(records(&rig, "action authorized").await.len(), 2, "what was refused is none");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_waits_for_an_approval_which_serves_for_no_credential() {
    let rig = Rig::new();
    rig.put(&|text| {
        text + "\n@id(\"searches-need-somebody\") forbid (principal, action == Action::\"Exchange\", resource)\n\
                when { context has tool && context.tool == \"search\" } unless { context.approvals.count >= 1 };\n"
    })
    .await
    .map_or_else(|no| drop(approval_of(&no)), drop);
    let waiting = rig.approvals("operator/colleague").await.list_approvals(pb::ListApprovalsRequest::default()).await.unwrap();
    for change in waiting.into_inner().approvals {
        rig.give("operator/colleague", &change.approval_id, true).await.unwrap();
    }
    let task = opened(&rig).await;
    let id = approval_of(&authorize(&rig, "agent/demo", own(&task)).await.unwrap_err());
    let asked = rig.show("operator/you", &id).await;
    assert_eq!(asked.of(), pb::ApprovalOf::Action);
    rig.give("operator/you", &id, false).await.unwrap();
    let no = issued(&rig, &task, "search").await.unwrap_err();
    assert_ne!(approval_of(&no), id, "an approval of an action issues nothing");
    authorize(&rig, "agent/demo", own(&task)).await.unwrap();
    let again = authorize(&rig, "agent/demo", own(&task)).await.unwrap_err();
    assert_ne!(approval_of(&again), id, "used once");
}

#[tokio::test(flavor = "multi_thread")]
async fn uses_are_told_by_servers_of_the_upstream_folded_and_read_by_policy() {
    let rig = rig().await;
    let task = opened(&rig).await;
    let one = issued(&rig, &task, "search").await.unwrap();
    let accepted = |count| used(&rig, &one, "search", pb::UseOutcome::Accepted, count);
    for who in ["agent/demo", "ci/demo"] {
        let problems = report(&rig, who, vec![accepted(1)]).await.unwrap();
        assert_eq!(problems[0].problem.as_ref().unwrap().reason, "NOT_FOUND", "{who} is no server of echo");
    }
    let bad = vec![
        pb::Use { credential_id: "cred_aaaaaaaaaaaaaaaaaaaaaaaaaa".into(), ..accepted(1) },
        pb::Use { outcome: 0, ..accepted(1) },
        pb::Use { at: None, ..accepted(1) },
        pb::Use { at: moment(now(&rig) - limits::USE_REPORTED_MS - 60_000), ..accepted(1) },
        pb::Use { at: moment(now(&rig) + 600_000), ..accepted(1) },
        pb::Use { tool: "x".repeat(300), ..accepted(1) },
        pb::Use { credential_id: "x".into(), ..accepted(1) },
        accepted(4),
    ];
    let problems = report(&rig, "service/echo", bad).await.unwrap();
    let reasons: Vec<(u32, &str)> = problems.iter().map(|p| (p.index, p.problem.as_ref().unwrap().reason.as_str())).collect();
    let wrong = "INVALID_FIELD";
    assert_eq!(
        reasons,
        [(0, "NOT_FOUND"), (1, wrong), (2, wrong), (3, wrong), (4, wrong), (5, wrong), (6, wrong)],
        "the good one is taken all the same"
    );
    assert!(report(&rig, "service/echo", vec![accepted(1); limits::USES_PER_REPORT + 1]).await.is_err());
    // The fold counts written reports; policy reads the counts.
    let mut told = Vec::new();
    for _ in 0..100 {
        told = records(&rig, "uses reported").await;
        if !told.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(told.len(), 1, "folded: {told:?}");
    let of = |field: &str| told[0][field].clone();
    assert_eq!((of("count"), of("outcome"), of("undeclared"), of("after_end")), (4.into(), "accepted".into(), Null, Null));
    assert_eq!(
        (of("credential"), of("task"), of("upstream")),
        (one.credential_id.as_str().into(), task.as_str().into(), "echo".into())
    );
    issued(&rig, &task, "search").await.unwrap();
    let more = pb::Use { outcome: pb::UseOutcome::Failed.into(), ..accepted(6) };
    assert!(report(&rig, "service/echo", vec![more]).await.unwrap().is_empty());
    let mut refused = false;
    for _ in 0..100 {
        refused = issued(&rig, &task, "search").await.is_err();
        if refused {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(refused, "ten uses are enough");
    assert!(shown(&rig, &task).await.holds.is_empty(), "nothing of it exceeds the intent");
}

#[tokio::test(flavor = "multi_thread")]
async fn activity_that_exceeds_its_intent_holds_the_task_until_an_operator_resumes_it() {
    let rig = rig().await;
    // A use with an undeclared tool.
    let task = opened(&rig).await;
    let one = issued(&rig, &task, "search").await.unwrap();
    report(&rig, "service/echo", vec![used(&rig, &one, "rm", pb::UseOutcome::Accepted, 1)]).await.unwrap();
    let why = held(&rig, &task).await;
    assert!(
        why.starts_with("activity exceeds intent: accepted of echo with tool rm, undeclared")
            && why.contains("undeclared (policy version"),
        "{why}"
    );
    assert!(!rig.good(&one).await);
    let no = issued(&rig, &task, "search").await.unwrap_err();
    assert!(no.message().contains("held by policy: activity exceeds intent"), "its owner is told: {no:?}");
    // Only an operator can resume the task.
    let resume = pb::ResumeTaskRequest { task_id: task.clone(), reason: "looked at it".into(), ..Default::default() };
    let mut own = TaskServiceClient::new(rig.up.channel("agent/demo").await);
    assert_eq!(reason(&own.resume_task(resume.clone()).await.unwrap_err()), "NOT_YOURS");
    let admin = rig.up.world.channel("operator/you", rig.up.admin()).await.unwrap();
    TaskServiceClient::new(admin).resume_task(resume).await.unwrap();
    assert!(rig.good(&one).await);
    // Too many refused uses: reports that are not written yet count as well.
    let task = opened(&rig).await;
    let one = issued(&rig, &task, "search").await.unwrap();
    let refused = |n| used(&rig, &one, "search", pb::UseOutcome::Refused, n);
    report(&rig, "service/echo", vec![refused(3)]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(shown(&rig, &task).await.holds.is_empty());
    report(&rig, "service/echo", vec![refused(1)]).await.unwrap();
    assert!(held(&rig, &task).await.contains("refused-often"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_use_after_its_end_is_told_from_one_before_it() {
    let rig = rig().await;
    let skew = rig.up.running().authority().ledger.allowed_skew_ms();
    let task = opened(&rig).await;
    let one = issued(&rig, &task, "search").await.unwrap();
    let before = used(&rig, &one, "search", pb::UseOutcome::Accepted, 1);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let release = pb::ReleaseRequest { credential_id: one.credential_id.clone() };
    TokenServiceClient::new(rig.up.channel("agent/demo").await).release(release).await.unwrap();
    // The release becomes known a second later; a use that happened before it and is reported late is no violation.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    report(&rig, "service/echo", vec![before]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(shown(&rig, &task).await.holds.is_empty());
    let late = pb::Use { at: moment(now(&rig) + skew - 200), ..used(&rig, &one, "search", pb::UseOutcome::Refused, 1) };
    assert!(report(&rig, "service/echo", vec![late]).await.unwrap().is_empty());
    assert!(held(&rig, &task).await.contains("after its end"));
}
