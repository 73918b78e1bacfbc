//! Approvals on a whole server: requested by an agent, shown to the people that the registration names, given once for one request.

use mayfly::cli::dev::DevSettings;
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::approval_service_client::ApprovalServiceClient;
use mayfly::pb::mayfly::v1::token_service_client::TokenServiceClient;
use mayfly::server::RunningServer;
use tempfile::TempDir;
use tonic::Status;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use crate::kit::{PATIENCE, reason, world};

const POLICY: &str = r#"
@id("agents-open-tasks-for-exports")
permit (principal in Role::"agent", action == Action::"OpenTask", resource == Upstream::"echo");

@id("exports-need-somebody")
forbid (principal, action == Action::"Exchange", resource == Upstream::"echo")
when { context.sensitive }
unless { context.approvals.count >= 1 };

@id("ci-ends-what-runs")
permit (principal in Role::"ci", action == Action::"ManageTasks", resource);
"#;

/// Arguments that must not appear in a log, in a file or in an answer to another caller.
const ARGUMENTS: &str = r#"{"table":"orders","rows":250000}"#;

pub struct Rig {
    running: RunningServer,
    world: mayfly::cli::dev::DevWorld,
    _dir: TempDir,
}

impl Rig {
    fn new() -> Rig {
        Rig::with("")
    }

    /// A rig with additional text at the end of its configuration.
    pub fn with(more: &str) -> Rig {
        let engine = mayfly::cli::dev::DevEngine::Memory;
        let (dir, world) = world(DevSettings { engine, ..DevSettings::default() });
        let path = world.dir().join("policy/policy.cedar");
        let text = std::fs::read_to_string(&path).unwrap() + POLICY;
        std::fs::write(&path, text).unwrap();
        let config = std::fs::read_to_string(world.config()).unwrap();
        std::fs::write(world.config(), config + more).unwrap();
        Rig { running: world.start().unwrap_or_else(|no| panic!("{no}")), world, _dir: dir }
    }

    async fn agent(&self, name: &str) -> Channel {
        self.world.channel(name, self.running.addresses().workload).await.unwrap()
    }

    pub async fn approvals(&self, name: &str) -> ApprovalServiceClient<Channel> {
        let addresses = self.running.addresses();
        let address = if name.starts_with("operator") { addresses.admin } else { addresses.workload };
        ApprovalServiceClient::new(self.world.channel(name, address).await.unwrap())
    }

    pub async fn export(&self, change: impl Fn(&mut pb::ExchangeRequest)) -> Result<pb::Issued, Status> {
        let terms = pb::TaskTerms {
            purpose: "nightly".into(),
            upstreams: vec![pb::Allowance { upstream: "echo".into(), scopes: vec!["echo:admin".into()] }],
            ..Default::default()
        };
        let mut request = pb::ExchangeRequest {
            task: Some(pb::exchange_request::Task::OpenTask(terms)),
            upstream: "echo".into(),
            scopes: vec!["echo:admin".into()],
            tool: "export".into(),
            ttl: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
            arguments: Some(pb::Arguments { arguments: Some(pb::arguments::Arguments::Json(ARGUMENTS.into())) }),
            ..Default::default()
        };
        change(&mut request);
        let answer = TokenServiceClient::new(self.agent("agent/demo").await).exchange(request).await?;
        Ok(answer.into_inner().issued.unwrap())
    }

    /// Requests an export that needs an approval, and returns the approval's id.
    async fn asked(&self) -> String {
        let no = self.export(|_| {}).await.unwrap_err();
        assert_eq!(reason(&no), "APPROVAL_NEEDED", "{no:?}");
        approval_of(&no)
    }

    async fn show(&self, name: &str, id: &str) -> Result<pb::Approval, Status> {
        let request = pb::GetApprovalRequest { approval_id: id.into() };
        Ok(self.approvals(name).await.get_approval(request).await?.into_inner().approval.unwrap())
    }

    async fn decide(&self, name: &str, id: &str, decision: pb::ApprovalDecision) -> Result<pb::Approval, Status> {
        let shown = self.show("operator/you", id).await?;
        let request = pb::DecideApprovalRequest {
            approval_id: id.into(),
            request_sha256: shown.request_sha256,
            decision: decision.into(),
            reason: "as agreed".into(),
            ..Default::default()
        };
        Ok(self.approvals(name).await.decide_approval(request).await?.into_inner().approval.unwrap())
    }

    pub async fn give(&self, id: &str) -> Result<pb::Approval, Status> {
        self.decide("operator/you", id, pb::ApprovalDecision::Give).await
    }
}

fn approval_of(no: &Status) -> String {
    no.get_error_details().error_info().and_then(|i| i.metadata.get("approval_id").cloned()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_waits_for_somebody_and_goes_through_once() {
    let rig = Rig::new();
    let id = rig.asked().await;
    assert_eq!(rig.asked().await, id, "the same request asks once");
    let shown = rig.show("operator/you", &id).await.unwrap();
    assert_eq!(
        (shown.state(), shown.arguments_json.as_str(), shown.tool.as_str()),
        (pb::ApprovalState::Waiting, ARGUMENTS, "export")
    );
    assert_eq!((shown.purpose.as_str(), shown.opens_task, shown.scopes.len()), ("nightly", true, 1));
    let given = rig.give(&id).await.unwrap();
    assert_eq!((given.state(), given.arguments_json.as_str()), (pb::ApprovalState::Given, ""));
    // The approval is valid for that request only.
    let other = |r: &mut pb::ExchangeRequest| {
        let arguments = pb::arguments::Arguments::Json(r#"{"table":"customers"}"#.into());
        r.arguments = Some(pb::Arguments { arguments: Some(arguments) });
    };
    let no = rig.export(other).await.unwrap_err();
    assert_eq!(reason(&no), "APPROVAL_NEEDED");
    assert_ne!(approval_of(&no), id);
    let issued = rig.export(|_| {}).await.unwrap();
    assert_eq!(issued.approval_id, id);
    let used = rig.show("operator/you", &id).await.unwrap();
    assert_eq!(used.state(), pb::ApprovalState::Used);
    let again = rig.export(|_| {}).await.unwrap_err();
    assert_eq!(reason(&again), "APPROVAL_NEEDED");
    assert_ne!(approval_of(&again), id, "what was used serves for nothing more");
    let twice = rig.give(&id).await.unwrap_err();
    assert_eq!(reason(&twice), "ALREADY_EXISTS");
    assert!(twice.message().contains("operator/you has given it at"), "{}", twice.message());
    let way_out = twice.get_error_details().error_info().unwrap().metadata["way_out"].clone();
    assert!(way_out.contains("it was used"), "{way_out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_are_seen_by_those_who_may_give_it_and_gone_when_somebody_did() {
    let rig = Rig::new();
    let id = rig.asked().await;
    assert_eq!(rig.show("agent/demo", &id).await.unwrap().arguments_json, "", "who asked knows them");
    assert_eq!(reason(&rig.show("ci/demo", &id).await.unwrap_err()), "NOT_FOUND");
    let list = |name: &'static str| async {
        let mut approvals = rig.approvals(name).await;
        approvals.list_approvals(pb::ListApprovalsRequest::default()).await.unwrap().into_inner().approvals
    };
    let listed = list("operator/you").await;
    assert_eq!((listed.len(), listed[0].arguments_json.as_str()), (1, ""));
    assert_eq!((list("agent/demo").await.len(), list("ci/demo").await.len()), (1, 0));
    let store = rig.running.authority().ledger.store();
    let kept = store.list("approval/").unwrap();
    assert_eq!(kept.len(), 1);
    let sealed = store.named(&kept[0]).unwrap().unwrap();
    assert!(!sealed.windows(6).any(|w| w == b"orders"), "they lie sealed");
    rig.decide("operator/you", &id, pb::ApprovalDecision::Refuse).await.unwrap();
    assert!(store.list("approval/").unwrap().is_empty());
    let no = rig.export(|_| {}).await.unwrap_err();
    assert_eq!(reason(&no), "DENIED_BY_POLICY");
    assert!(no.message().contains("was refused by spiffe://dev.mayfly.internal/operator/you: as agreed"), "{}", no.message());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_decides_who_is_not_named_or_saw_something_else() {
    let rig = Rig::new();
    let id = rig.asked().await;
    for name in ["agent/demo", "ci/demo"] {
        let no = rig.decide(name, &id, pb::ApprovalDecision::Give).await.unwrap_err();
        assert_eq!(reason(&no), "NOT_FOUND", "{name}");
    }
    let request = pb::DecideApprovalRequest {
        approval_id: id.clone(),
        request_sha256: vec![0; 32].into(),
        decision: pb::ApprovalDecision::Give.into(),
        reason: "as agreed".into(),
        ..Default::default()
    };
    let no = rig.approvals("operator/you").await.decide_approval(request).await.unwrap_err();
    assert_eq!(reason(&no), "DECIDED_ON_OLD_STATE");
    assert_eq!(rig.show("operator/you", &id).await.unwrap().state(), pb::ApprovalState::Waiting);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_only_refuse_is_told_that_it_is_refused() {
    let rig = Rig::new();
    let id = rig.asked().await;
    let shown = rig.show("operator/you", &id).await.unwrap();
    let admin = rig.world.channel("ci/demo", rig.running.addresses().admin).await.unwrap();
    let mut ci = ApprovalServiceClient::new(admin);
    let seen = ci.get_approval(pb::GetApprovalRequest { approval_id: id.clone() }).await;
    assert_eq!(reason(&seen.unwrap_err()), "NOT_FOUND", "it does not observe");
    let mut request = pb::DecideApprovalRequest {
        approval_id: id,
        request_sha256: shown.request_sha256,
        decision: pb::ApprovalDecision::Give.into(),
        reason: "the run was ended".into(),
        ..Default::default()
    };
    assert_eq!(reason(&ci.decide_approval(request.clone()).await.unwrap_err()), "NOT_FOUND");
    request.set_decision(pb::ApprovalDecision::Refuse);
    let refused = ci.decide_approval(request).await.unwrap().into_inner().approval.unwrap();
    assert_eq!((refused.state(), refused.arguments_json.as_str()), (pb::ApprovalState::Refused, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_waits_for_somebody_as_long_as_it_was_told_to() {
    let rig = Rig::new();
    let waits =
        |seconds| move |r: &mut pb::ExchangeRequest| r.wait_for_approval = Some(prost_types::Duration { seconds, nanos: 0 });
    assert_eq!(reason(&rig.export(waits(61)).await.unwrap_err()), "INVALID_FIELD");
    let no =
        rig.export(|r| r.wait_for_approval = Some(prost_types::Duration { seconds: 0, nanos: 1_000_000 })).await.unwrap_err();
    let id = approval_of(&no);
    let approves = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        rig.give(&id).await.unwrap();
    };
    let waiting = tokio::time::timeout(PATIENCE, rig.export(waits(20)));
    let (issued, ()) = tokio::join!(waiting, approves);
    assert_eq!(issued.unwrap().unwrap().approval_id, id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_shows_nobody_what_is_to_be_approved() {
    let rig = Rig::new();
    let no = rig
        .export(|r| {
            let digest = pb::arguments::Arguments::Sha256(vec![7; 32].into());
            r.arguments = Some(pb::Arguments { arguments: Some(digest) });
        })
        .await
        .unwrap_err();
    assert_eq!(reason(&no), "INVALID_FIELD");
    assert!(no.message().contains("approvers are shown the arguments, not their digest"), "{}", no.message());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_is_told_of_what_waits_and_of_what_becomes_of_it() {
    let rig = Rig::new();
    let id = rig.asked().await;
    let mut watcher = rig.approvals("operator/you").await;
    let mut told = watcher.watch_approvals(pb::WatchApprovalsRequest::default()).await.unwrap().into_inner();
    let mut next = async || {
        let message = tokio::time::timeout(PATIENCE, told.message()).await.unwrap().unwrap().unwrap();
        message.approval.map(|a| (a.approval_id.clone(), a.state(), a.arguments_json)).unwrap()
    };
    assert_eq!(next().await, (id.clone(), pb::ApprovalState::Waiting, String::new()));
    rig.give(&id).await.unwrap();
    assert_eq!(next().await, (id, pb::ApprovalState::Given, String::new()));
}
