//! Hostile text in each field that a caller can set: fields that accept it, and fields whose refusal is returned and recorded with the
//! text.

use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::approval_service_client::ApprovalServiceClient;
use mayfly::pb::mayfly::v1::audit_service_client::AuditServiceClient;
use mayfly::pb::mayfly::v1::break_glass_service_client::BreakGlassServiceClient;
use mayfly::pb::mayfly::v1::open_break_glass_request::Open;
use mayfly::pb::mayfly::v1::revocation_service_client::RevocationServiceClient;
use mayfly::pb::mayfly::v1::task_service_client::TaskServiceClient;
use mayfly::pb::mayfly::v1::upstream_service_client::UpstreamServiceClient;
use tonic::Request;
use tonic_types::StatusExt as _;

use super::{Made, Rig};

fn allowed(upstream: &str, scope: &str) -> Vec<pb::Allowance> {
    vec![pb::Allowance { upstream: upstream.into(), scopes: vec![scope.into()] }]
}

fn json(text: &str) -> Option<pb::Arguments> {
    let value = serde_json::json!({ "table": text, text: [text] }).to_string();
    Some(pb::Arguments { arguments: Some(pb::arguments::Arguments::Json(value)) })
}

/// Sends the text in each field that accepts it and in each field that refuses it.
pub(super) async fn sent(rig: &Rig, text: &str) -> Made {
    let mut made = Made::default();
    let named = |purpose: &str, tool: &str| pb::TaskTerms {
        purpose: purpose.into(),
        upstreams: allowed("echo", "echo:read"),
        tools: vec![tool.into()],
        ..Default::default()
    };
    // Where the text is refused, it is part of a message that is returned and recorded.
    let mut opened = rig.open(named(text, text), None, "agent/demo").await;
    for (purpose, tool) in [(text, "MARK-tool"), ("MARK purpose", text), ("MARK purpose", "MARK-tool")] {
        if opened.is_err() {
            opened = rig.open(named(purpose, tool), None, "agent/demo").await;
        }
    }
    let opened = opened.unwrap();
    let tool = opened.terms.as_ref().unwrap().tools[0].clone();
    made.tasks.push(opened.task_id.clone());
    let call = |tool: &str, purpose: &str, request_id: &str| pb::ExchangeRequest {
        task: Some(pb::exchange_request::Task::TaskId(opened.task_id.clone())),
        upstream: "echo".into(),
        scopes: vec!["echo:read".into()],
        tool: tool.into(),
        purpose: purpose.into(),
        request_id: request_id.into(),
        arguments: json(text),
        ..Default::default()
    };
    for ask in [call(&tool, text, ""), call(&tool, "plain", text), call(text, "plain", "")] {
        if let Ok(issued) = rig.exchange(ask).await {
            made.credentials.push(issued.credential_id);
        }
    }
    for (field, value) in [("upstream", text), ("scope", text), ("binding", text), ("caller", text), ("task", text)] {
        let mut ask = call(&tool, "plain", "");
        match field {
            "upstream" => ask.upstream = value.into(),
            "scope" => ask.scopes = vec![value.into()],
            "binding" => ask.binding = value.into(),
            "task" => ask.task = Some(pb::exchange_request::Task::TaskId(value.into())),
            _ => {
                let terms = pb::TaskTerms { callers: vec![value.into()], ..named("p", "t") };
                assert!(rig.open(terms, None, "agent/demo").await.is_err());
                continue;
            }
        }
        assert!(rig.exchange(ask).await.is_err(), "{field}");
    }
    behalf(rig, text, &mut made).await;
    approvals(rig, text, &mut made).await;
    acts(rig, text, &made).await;
    glass(rig, text, &mut made).await;
    made
}

/// A subject, its groups and its actor, named by the text in the issuer's token.
async fn behalf(rig: &Rig, text: &str, made: &mut Made) {
    let plain: String = text.chars().filter(|c| !c.is_control()).collect();
    for sub in [text, plain.as_str()] {
        let mut claims = rig.provider.claims(sub, "https://repos.dev.mayfly.internal");
        claims["jti"] = sub.into();
        claims["groups"] = serde_json::json!([sub]);
        claims["act"] = serde_json::json!({ "sub": sub });
        let token = pb::SubjectToken { token: rig.provider.token(&claims), r#type: pb::SubjectTokenType::Oidc.into() };
        let terms = pb::TaskTerms { purpose: text.into(), upstreams: allowed("repos", "issues:read"), ..Default::default() };
        if let Ok(task) = rig.open(terms, Some(token), "mcp/repos").await {
            made.tasks.push(task.task_id);
        }
    }
}

async fn approvals(rig: &Rig, text: &str, made: &mut Made) {
    for (n, tool) in [text, "export"].into_iter().enumerate() {
        let terms = pb::TaskTerms {
            purpose: text.into(),
            upstreams: allowed("tickets", "tickets:delete"),
            any_tool: true,
            ..Default::default()
        };
        let ask = pb::ExchangeRequest {
            task: Some(pb::exchange_request::Task::OpenTask(terms)),
            upstream: "tickets".into(),
            scopes: vec!["tickets:delete".into()],
            tool: tool.into(),
            purpose: text.into(),
            arguments: json(&format!("{text}{n}")),
            ..Default::default()
        };
        let no = rig.exchange(ask).await.unwrap_err();
        let details = no.get_error_details();
        made.approvals
            .extend(details.error_info().and_then(|i| i.metadata.get("approval_id").cloned()).filter(|id| !id.is_empty()));
    }
    let mut operators = ApprovalServiceClient::new(rig.channel("operator/you", true).await);
    if let Some(first) = made.approvals.first() {
        let request = pb::GetApprovalRequest { approval_id: first.clone() };
        let shown = operators.get_approval(request).await.unwrap().into_inner().approval.unwrap();
        let decide = pb::DecideApprovalRequest {
            approval_id: first.clone(),
            request_sha256: shown.request_sha256,
            decision: pb::ApprovalDecision::Refuse.into(),
            reason: text.into(),
            ..Default::default()
        };
        let _ = operators.decide_approval(decide).await;
    }
}

/// Revoking calls, and use reports.
async fn acts(rig: &Rig, text: &str, made: &Made) {
    let mut tasks = TaskServiceClient::new(rig.channel("operator/you", true).await);
    let hold = pb::HoldTaskRequest { task_id: made.tasks[0].clone(), reason: text.into(), ..Default::default() };
    let _ = tasks.hold_task(hold).await;
    let mut revocations = RevocationServiceClient::new(rig.channel("operator/you", true).await);
    for target in [
        pb::target::Target::Tool(text.into()),
        pb::target::Target::Tool("MARK\u{202e}".into()),
        pb::target::Target::Binding(text.into()),
        pb::target::Target::Subject(pb::Subject { issuer: rig.provider.issuer.clone(), sub: text.into() }),
        pb::target::Target::Caller("spiffe://dev.mayfly.internal/agent/nobody".into()),
    ] {
        let targets = vec![pb::Target { target: Some(target) }];
        let revoke =
            pb::RevokeRequest { targets, reason: text.into(), request_id: text.into(), force: true, ..Default::default() };
        let _ = revocations.revoke(revoke).await;
    }
    let target = Some(pb::target::Target::Caller("spiffe://dev.mayfly.internal/agent/other".into()));
    let lock = pb::AddLockRequest { targets: vec![pb::Target { target }], reason: text.into(), ..Default::default() };
    let _ = revocations.add_lock(lock).await;
    let used = |tool: &str| pb::Use {
        credential_id: made.credentials.first().cloned().unwrap_or_default(),
        tool: tool.into(),
        outcome: pb::UseOutcome::Accepted.into(),
        at: Some(mayfly::serve::wire::timestamp(mayfly::system::System::real().wall())),
        count: 1,
    };
    let mut audit = AuditServiceClient::new(rig.channel("service/echo", false).await);
    let _ = audit.report_use(pb::ReportUseRequest { uses: vec![used(text), used("MARK\u{2066}")] }).await;
    let mut upstreams = UpstreamServiceClient::new(rig.channel("operator/you", true).await);
    let request = pb::GetUpstreamRequest { upstream: "repos".into() };
    let mut upstream = upstreams.get_upstream(request).await.unwrap().into_inner().upstream.unwrap();
    (upstream.purpose, upstream.owner) = (text.into(), text.into());
    let confirmation = Some(pb::Confirmation { credentials: 0, all: true });
    let _ = upstreams.set_upstream(pb::SetUpstreamRequest { upstream: Some(upstream), confirmation, ..Default::default() }).await;
    let left = pb::OffboardRequest { owner: text.into(), reason: text.into(), ..Default::default() };
    let _ = upstreams.offboard(left).await;
    // The name that a caller gives itself. A header can contain no control character, but it can contain characters that change the text
    // direction.
    let mut request = Request::new(pb::GetTaskRequest { task_id: text.into() });
    let value = tonic::metadata::AsciiMetadataValue::try_from("MARK\u{202e}\u{200b}".as_bytes());
    if let Ok(value) = value {
        request.metadata_mut().insert("x-caller", value.clone());
        request.metadata_mut().insert("user-agent", value);
    }
    let _ = tasks.get_task(request).await;
}

async fn glass(rig: &Rig, text: &str, made: &mut Made) {
    let mut first = BreakGlassServiceClient::new(rig.channel("operator/you", false).await);
    let open = |open: Open| pb::OpenBreakGlassRequest { open: Some(open), reason: text.into(), ..Default::default() };
    let _ = first.open_break_glass(open(Open::Rights(text.into()))).await;
    let Ok(opened) = first.open_break_glass(open(Open::Rights("down".into()))).await else { return };
    let task = opened.into_inner().break_glass.unwrap().task.unwrap().task_id;
    let mut second = BreakGlassServiceClient::new(rig.channel("operator/colleague", false).await);
    let _ = second.open_break_glass(open(Open::TaskId(task.clone()))).await;
    let _ = second.close_break_glass(pb::CloseBreakGlassRequest { task_id: task.clone(), reason: text.into() }).await;
    let mut third = BreakGlassServiceClient::new(rig.channel("operator/auditor", false).await);
    let review = pb::ReviewBreakGlassRequest { task_id: task.clone(), review: text.into(), ..Default::default() };
    let _ = third.review_break_glass(review).await;
    made.glass = task;
}
