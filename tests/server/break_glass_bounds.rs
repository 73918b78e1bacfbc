//! Limits of break-glass: it does not exceed the rights in effect, and changes nothing permanent.

use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::approval_service_client::ApprovalServiceClient;
use mayfly::pb::mayfly::v1::key_service_client::KeyServiceClient;
use mayfly::pb::mayfly::v1::policy_service_client::PolicyServiceClient;
use mayfly::pb::mayfly::v1::revocation_service_client::RevocationServiceClient;
use mayfly::pb::mayfly::v1::token_service_client::TokenServiceClient;
use mayfly::pb::mayfly::v1::trust_domain_service_client::TrustDomainServiceClient;
use mayfly::pb::mayfly::v1::upstream_service_client::UpstreamServiceClient;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::break_glass::{AUDITOR, COLLEAGUE, Rig, YOU};
use crate::kit::reason;
use crate::policy_rig::approval_of;

const NIGHT: &str = "operator/night";

fn whatever() -> Option<pb::Confirmation> {
    Some(pb::Confirmation { credentials: 0, all: true })
}

fn done<T>(answer: Result<Response<T>, Status>) -> Result<(), Status> {
    answer.map(drop)
}

impl Rig {
    async fn admin(&self, name: &str) -> Channel {
        self.world.channel(name, self.running.addresses().admin).await.unwrap()
    }

    /// Sets the policy set in effect again, with a changed roles file.
    async fn set(&self, name: &str, change: &dyn Fn(&str) -> String) -> Result<(), Status> {
        let mut policies = PolicyServiceClient::new(self.admin(name).await);
        let (environment, mode) = ("dev".to_owned(), pb::PolicyMode::Enforce.into());
        let read = pb::GetPolicyRequest { environment: environment.clone(), mode, version: None };
        let set = policies.get_policy(read).await?.into_inner().policy.unwrap();
        let mut files = set.files.unwrap();
        let roles = files.roles.as_mut().unwrap();
        roles.text = change(&roles.text);
        let request = pb::SetPolicyRequest {
            environment,
            mode,
            set: Some(pb::PolicySource { from: Some(pb::policy_source::From::Files(files)) }),
            read_version: set.version,
            reason: "test".into(),
            confirmation: whatever(),
            ..Default::default()
        };
        done(policies.set_policy(request).await)
    }

    /// Gives a pending approval as it is shown.
    async fn give(&self, name: &str, id: &str) -> Result<(), Status> {
        let mut approvals = ApprovalServiceClient::new(self.admin(name).await);
        let shown = approvals.get_approval(pb::GetApprovalRequest { approval_id: id.into() }).await?.into_inner();
        let request = pb::DecideApprovalRequest {
            approval_id: id.into(),
            request_sha256: shown.approval.unwrap().request_sha256,
            decision: pb::ApprovalDecision::Give.into(),
            reason: "looked at it".into(),
            confirmation: whatever(),
            ..Default::default()
        };
        done(approvals.decide_approval(request).await)
    }

    async fn lock(&self, name: &str) -> Result<u64, Status> {
        let target = pb::target::Target::Tool("rm".into());
        let request = pb::AddLockRequest {
            targets: vec![pb::Target { target: Some(target) }],
            reason: "nobody removes".into(),
            ..Default::default()
        };
        Ok(RevocationServiceClient::new(self.admin(name).await).add_lock(request).await?.into_inner().seq)
    }

    async fn lift(&self, name: &str, seq: u64) -> Result<(), Status> {
        let request = pb::LiftLockRequest { seq, reason: "enough".into(), ..Default::default() };
        done(RevocationServiceClient::new(self.admin(name).await).lift_lock(request).await)
    }

    async fn authorize(&self, token: &str, scope: &str) -> Result<(), Status> {
        let channel = self.channel("service/echo").await;
        let request = pb::AuthorizeRequest { token: token.into(), scopes: vec![scope.into()], ..Default::default() };
        done(TokenServiceClient::new(channel).authorize(request).await)
    }

    /// Tries to change the registry as one of the two people.
    async fn change_registry(&self, name: &str) -> Vec<(&'static str, Result<(), Status>)> {
        let mut upstreams = UpstreamServiceClient::new(self.admin(name).await);
        let read = pb::GetUpstreamRequest { upstream: "repos".into() };
        let upstream = upstreams.get_upstream(read).await.unwrap().into_inner().upstream;
        let set = pb::SetUpstreamRequest { upstream, confirmation: whatever(), ..Default::default() };
        let disable = pb::SetUpstreamStateRequest {
            upstream: "repos".into(),
            state: pb::RegistrationState::Disabled.into(),
            reason: "test".into(),
            confirmation: whatever(),
            ..Default::default()
        };
        let offboard =
            pb::OffboardRequest { owner: "nobody".into(), reason: "left".into(), confirmation: whatever(), ..Default::default() };
        let binding = pb::Binding {
            binding: "tools".into(),
            upstream: "echo".into(),
            callers: vec!["spiffe://dev.mayfly.internal/mcp/echo".into()],
            tools: vec!["search".into()],
            scopes: vec!["echo:read".into()],
            ..Default::default()
        };
        let bind = pb::SetBindingRequest {
            binding: Some(binding),
            reason: "test".into(),
            confirmation: whatever(),
            ..Default::default()
        };
        vec![
            ("a registration", done(upstreams.set_upstream(set).await)),
            ("its state", done(upstreams.set_upstream_state(disable).await)),
            ("an owner", done(upstreams.offboard(offboard).await)),
            ("a binding", done(upstreams.set_binding(bind).await)),
        ]
    }

    async fn change_trust(&self, name: &str) -> Vec<(&'static str, Result<(), Status>)> {
        let mut keys = KeyServiceClient::new(self.admin(name).await);
        let rotate =
            pb::RotateKeyRequest { purpose: pb::KeyPurpose::AccessToken.into(), environment: "dev".into(), ..Default::default() };
        let remove = pb::RemoveTrustDomainRequest {
            trust_domain: "partner.example".into(),
            reason: "test".into(),
            confirmation: whatever(),
            ..Default::default()
        };
        let mut trust = TrustDomainServiceClient::new(self.admin(name).await);
        vec![("a key", done(keys.rotate_key(rotate).await)), ("a trust domain", done(trust.remove_trust_domain(remove).await))]
    }
}

/// Requests an export as another caller, which needs an approval.
async fn asks_for_approval(rig: &Rig) -> String {
    let terms = pb::TaskTerms {
        purpose: "clean up".into(),
        upstreams: vec![pb::Allowance { upstream: "tickets".into(), scopes: vec!["tickets:delete".into()] }],
        tools: vec!["clean".into()],
        ..Default::default()
    };
    let request = pb::ExchangeRequest {
        task: Some(pb::exchange_request::Task::OpenTask(terms)),
        upstream: "tickets".into(),
        scopes: vec!["tickets:delete".into()],
        tool: "clean".into(),
        arguments: Some(pb::Arguments { arguments: Some(pb::arguments::Arguments::Json("{}".into())) }),
        ttl: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        ..Default::default()
    };
    let tokens = TokenServiceClient::new(rig.channel("agent/demo").await).exchange(request).await;
    approval_of(&tokens.unwrap_err())
}

/// A change that needs two operators.
fn another(roles: &str) -> String {
    roles.replace("ttl = \"30m\"", "ttl = \"20m\"")
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_is_open_its_people_change_nothing_that_lasts_and_approve_nothing() {
    let rig = Rig::new();
    let standing = rig.lock(AUDITOR).await.unwrap();
    let (asked, changed) = (asks_for_approval(&rig).await, approval_of(&rig.set(AUDITOR, &another).await.unwrap_err()));
    let task = rig.active().await;
    for name in [YOU, COLLEAGUE] {
        let mut tried = rig.change_registry(name).await;
        tried.extend(rig.change_trust(name).await);
        tried.push(("policy", rig.set(name, &another).await));
        tried.push(("a lock", rig.lock(name).await.map(drop)));
        tried.push(("lifting a lock", rig.lift(name, standing).await));
        tried.push(("a change that somebody else asked for", rig.give(name, &changed).await));
        for (what, tried) in tried {
            let no = tried.expect_err(what);
            assert_eq!(reason(&no), "NOT_YOURS", "{what} by {name}: {no:?}");
            assert!(no.message().contains(&task), "{what} by {name}: {no:?}");
        }
    }
    let no = rig.give(YOU, &asked).await.unwrap_err();
    assert!(reason(&no) == "NOT_YOURS" && no.message().contains("approves nothing"), "{no:?}");

    // The two people may observe and revoke.
    let target = pb::target::Target::Caller("spiffe://dev.mayfly.internal/agent/demo".into());
    let revoke = pb::RevokeRequest {
        targets: vec![pb::Target { target: Some(target) }],
        reason: "it was taken over".into(),
        issued_only: true,
        confirmation: whatever(),
        ..Default::default()
    };
    RevocationServiceClient::new(rig.admin(YOU).await).revoke(revoke).await.unwrap();

    // An operator who takes part in no break-glass may do all of it; so may the two people once theirs is closed, reviewed or not.
    rig.lift(AUDITOR, standing).await.unwrap();
    rig.close(YOU, &task).await.unwrap();
    let asked = asks_for_approval(&rig).await;
    rig.give(YOU, &asked).await.unwrap();
    rig.give(YOU, &changed).await.unwrap();
    let again = rig.lock(COLLEAGUE).await.unwrap();
    rig.lift(COLLEAGUE, again).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_with_a_shown_credential_has_the_rights_that_policy_names_at_that_moment() {
    let rig = Rig::new();
    let task = rig.active().await;
    let issued = rig.get(COLLEAGUE, &task, "echo", "echo:read").await.unwrap();
    let Some(pb::issued::Answer::BearerToken(bearer)) = &issued.answer else { panic!("no bearer token") };
    rig.authorize(&bearer.token, "echo:read").await.unwrap();
    assert_eq!(rig.running.authority().ledger.peek(|s| s.break_glass_tasks.uses), 2, "the credential, and the action");
    assert_eq!(reason(&rig.authorize(&bearer.token, "echo:admin").await.unwrap_err()), "OUTSIDE_TASK", "no more than it is for");

    // Two other operators narrow the rights: neither an earlier credential nor a new request gets more than the rights give now.
    rig.world.issue(NIGHT, rig.world.svid_life_ms()).unwrap();
    let narrower = |roles: &str| roles.replace("echo = [\"echo:read\", \"echo:admin\"]", "echo = [\"echo:admin\"]");
    let waits = approval_of(&rig.set(AUDITOR, &narrower).await.unwrap_err());
    rig.give(NIGHT, &waits).await.unwrap();
    for no in [
        rig.authorize(&bearer.token, "echo:read").await.unwrap_err(),
        rig.get(YOU, &task, "echo", "echo:read").await.map(drop).unwrap_err(),
    ] {
        assert_eq!(reason(&no), "DENIED_BY_POLICY", "{no:?}");
        assert!(no.message().contains("break-glass echo-down does not give echo:read"), "{no:?}");
    }

    // A policy change removes one of the two people: that person's credentials authorize no more actions, and the other person continues.
    let other = rig.get(YOU, &task, "echo", "echo:admin").await.unwrap();
    let Some(pb::issued::Answer::BearerToken(yours)) = &other.answer else { panic!("no bearer token") };
    let without = |roles: &str| roles.replace("operator/colleague\"]", "operator/night\"]");
    let waits = approval_of(&rig.set(AUDITOR, &without).await.unwrap_err());
    rig.give(NIGHT, &waits).await.unwrap();
    let no = rig.get(COLLEAGUE, &task, "echo", "echo:admin").await.unwrap_err();
    assert!(no.message().contains("no longer lets you"), "{no:?}");
    rig.authorize(&yours.token, "echo:admin").await.unwrap();
    rig.close(YOU, &task).await.unwrap();
    let no = rig.authorize(&yours.token, "echo:admin").await.unwrap_err();
    assert_eq!(reason(&no), "CREDENTIAL_NOT_ACTIVE", "what it gave died with it: {no:?}");
}
