//! Shared parts of the tests of policy sets.

use mayfly::cli::dev::DevSettings;
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::approval_service_client::ApprovalServiceClient;
use mayfly::pb::mayfly::v1::policy_service_client::PolicyServiceClient;
use mayfly::pb::mayfly::v1::token_service_client::TokenServiceClient;
use tonic::Status;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use super::kit::{Up, reason};

/// A server, and operators who change its policy.
pub struct Rig {
    pub up: Up,
}

/// A change of the policies' text.
pub type Change<'a> = &'a dyn Fn(String) -> String;

impl Rig {
    pub fn new() -> Rig {
        Rig { up: Up::new(DevSettings::default()) }
    }

    pub async fn policies(&self, who: &str) -> PolicyServiceClient<Channel> {
        PolicyServiceClient::new(self.up.world.channel(who, self.up.admin()).await.unwrap())
    }

    pub async fn get(&self, mode: pb::PolicyMode, version: Option<u64>) -> Result<pb::PolicySet, Status> {
        let request = pb::GetPolicyRequest { environment: "dev".into(), mode: mode.into(), version };
        Ok(self.policies("operator/you").await.get_policy(request).await?.into_inner().policy.unwrap())
    }

    /// The files in effect with changed policies.
    pub async fn changed(&self, change: Change<'_>) -> pb::PolicySource {
        let mut files = self.get(pb::PolicyMode::Enforce, None).await.unwrap().files.unwrap();
        files.policies[0].text = change(files.policies[0].text.clone());
        pb::PolicySource { from: Some(pb::policy_source::From::Files(files)) }
    }

    pub async fn request(&self, set: Option<pb::PolicySource>) -> pb::SetPolicyRequest {
        let read_version = self.get(pb::PolicyMode::Enforce, None).await.unwrap().version;
        pb::SetPolicyRequest {
            environment: "dev".into(),
            mode: pb::PolicyMode::Enforce.into(),
            set,
            read_version,
            reason: "test".into(),
            confirmation: Some(pb::Confirmation { credentials: 0, all: true }),
            ..Default::default()
        }
    }

    pub async fn set(&self, request: pb::SetPolicyRequest) -> Result<pb::SetPolicyResponse, Status> {
        self.policies("operator/you").await.set_policy(request).await.map(tonic::Response::into_inner)
    }

    pub async fn put(&self, change: Change<'_>) -> Result<pb::SetPolicyResponse, Status> {
        self.set(self.request(Some(self.changed(change).await)).await).await
    }

    pub async fn exchange(&self, caller: &str, upstream: &str, scope: &str) -> Result<pb::Issued, Status> {
        let terms = pb::TaskTerms {
            purpose: "test".into(),
            upstreams: vec![pb::Allowance { upstream: upstream.into(), scopes: vec![scope.into()] }],
            ..Default::default()
        };
        let request = pb::ExchangeRequest {
            task: Some(pb::exchange_request::Task::OpenTask(terms)),
            upstream: upstream.into(),
            scopes: vec![scope.into()],
            ..Default::default()
        };
        TokenServiceClient::new(self.up.channel(caller).await).exchange(request).await.map(|r| r.into_inner().issued.unwrap())
    }

    pub async fn good(&self, issued: &pb::Issued) -> bool {
        let Some(pb::issued::Answer::BearerToken(bearer)) = &issued.answer else { panic!("no bearer token") };
        let request = pb::IntrospectRequest { token: bearer.token.clone() };
        let mut service = TokenServiceClient::new(self.up.channel("service/echo").await);
        service.introspect(request).await.unwrap().into_inner().active
    }

    pub async fn approvals(&self, who: &str) -> ApprovalServiceClient<Channel> {
        ApprovalServiceClient::new(self.up.world.channel(who, self.up.admin()).await.unwrap())
    }

    pub async fn show(&self, who: &str, id: &str) -> pb::Approval {
        let request = pb::GetApprovalRequest { approval_id: id.into() };
        self.approvals(who).await.get_approval(request).await.unwrap().into_inner().approval.unwrap()
    }

    pub async fn give(&self, who: &str, id: &str, all: bool) -> Result<pb::DecideApprovalResponse, Status> {
        let request = pb::DecideApprovalRequest {
            approval_id: id.into(),
            request_sha256: self.show(who, id).await.request_sha256,
            decision: pb::ApprovalDecision::Give.into(),
            reason: "looked at it".into(),
            confirmation: all.then_some(pb::Confirmation { credentials: 0, all: true }),
            ..Default::default()
        };
        self.approvals(who).await.decide_approval(request).await.map(tonic::Response::into_inner)
    }
}

pub fn approval_of(no: &Status) -> String {
    assert_eq!(reason(no), "APPROVAL_NEEDED", "{no:?}");
    no.get_error_details().error_info().and_then(|i| i.metadata.get("approval_id").cloned()).unwrap()
}

/// Forbids agents a scope of the echo upstream.
pub fn forbidding(scope: &str) -> impl Fn(String) -> String {
    let policy = format!(
        "\n@id(\"not-{0}\")\nforbid (principal in Role::\"agent\", action == Action::\"Exchange\", resource == Upstream::\"echo\")\n\
         when {{ context.scopes.contains(\"{0}\") }};\n",
        scope
    );
    move |text| text + &policy
}
