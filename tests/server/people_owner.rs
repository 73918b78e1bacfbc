//! Ownership: a person can see and end a task on their behalf, a requested change stays requested when its requester signs out, and a
//! renewed credential ends with the first credential of its chain and with the login.

use mayfly::cli::dev::DevEngine;
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::approval_service_client::ApprovalServiceClient;
use mayfly::pb::mayfly::v1::task_service_client::TaskServiceClient;
use mayfly::pb::mayfly::v1::token_service_client::TokenServiceClient;
use mayfly::pb::mayfly::v1::upstream_service_client::UpstreamServiceClient;
use tonic::Status;
use tonic::transport::Channel;

use crate::kit::reason;
use crate::people_rig::{Person, Rig, exchange, no_change, second_factor};
use crate::policy_rig::approval_of;

const SERVER: &str = "mcp/repos";

/// A server whose delegated users sign in at the same provider as its people.
fn rig() -> Rig {
    Rig::edited(DevEngine::Memory, "", &|world| {
        let path = world.dir().join("mayfly.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("uses = [\"login\"]", "uses = [\"login\", \"subject\"]")).unwrap();
    })
}

fn terms(parent: &str) -> pb::TaskTerms {
    pb::TaskTerms {
        purpose: "triage".into(),
        upstreams: vec![pb::Allowance { upstream: "repos".into(), scopes: vec!["issues:read".into()] }],
        parent_task_id: parent.into(),
        ..Default::default()
    }
}

impl Rig {
    async fn server(&self) -> Channel {
        self.world.channel(SERVER, self.running().addresses().workload).await.unwrap()
    }

    /// A task that the server opens on a person's behalf, with a token that the server was given.
    async fn on_behalf_of(&self, sub: &str) -> String {
        let claims = self.provider.claims(sub, "https://repos.dev.mayfly.internal");
        let token = pb::SubjectToken { token: self.provider.token(&claims), r#type: pb::SubjectTokenType::Oidc.into() };
        let request = pb::OpenTaskRequest { terms: Some(terms("")), subject_token: Some(token), ..Default::default() };
        let opened = TaskServiceClient::new(self.server().await).open_task(request).await.unwrap();
        opened.into_inner().task.unwrap().task_id
    }

    async fn tasks(&self, who: &Person) -> TaskServiceClient<Channel> {
        TaskServiceClient::new(self.channel(who, false).await)
    }

    async fn sees(&self, who: &Person, task: &str) -> bool {
        let mut tasks = self.tasks(who).await;
        let listed = tasks.list_tasks(pb::ListTasksRequest::default()).await.unwrap().into_inner().tasks;
        let listed = listed.iter().any(|t| t.task_id == task);
        let got = tasks.get_task(pb::GetTaskRequest { task_id: task.into() }).await;
        assert_eq!(got.is_ok(), listed, "what is listed is shown: {got:?}");
        listed
    }

    async fn cancel(&self, who: &Person, task: &str) -> Result<pb::TaskState, Status> {
        let request = pb::CancelTaskRequest { task_id: task.into(), reason: "I did not ask for that".into() };
        Ok(self.tasks(who).await.cancel_task(request).await?.into_inner().task.unwrap().state())
    }

    /// Requests a wider binding, which another person has to approve. Returns the pending approval.
    async fn bind(&self, who: &Person, name: &str) -> String {
        let binding = pb::Binding {
            binding: name.into(),
            upstream: "echo".into(),
            callers: vec!["spiffe://dev.mayfly.internal/mcp/echo".into()],
            tools: vec!["search".into()],
            scopes: vec!["echo:read".into()],
            ..Default::default()
        };
        let request = pb::SetBindingRequest { binding: Some(binding), reason: "reviewed".into(), ..Default::default() };
        approval_of(&UpstreamServiceClient::new(self.channel(who, true).await).set_binding(request).await.unwrap_err())
    }

    async fn let_through(&self, who: &Person, id: &str) -> Result<(), Status> {
        let mut approvals = ApprovalServiceClient::new(self.channel(who, true).await);
        let shown = approvals.get_approval(pb::GetApprovalRequest { approval_id: id.into() }).await?.into_inner();
        let request = pb::DecideApprovalRequest {
            approval_id: id.into(),
            request_sha256: shown.approval.unwrap().request_sha256,
            decision: pb::ApprovalDecision::Give.into(),
            reason: "looked at it".into(),
            confirmation: Some(pb::Confirmation { credentials: 0, all: true }),
            ..Default::default()
        };
        approvals.decide_approval(request).await.map(drop)
    }

    async fn signs_out(&self, who: &Person) {
        let request = pb::ReleaseRequest { credential_id: who.answer.credential.clone() };
        TokenServiceClient::new(self.channel(who, false).await).release(request).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_on_somebodys_behalf_is_theirs_to_see_and_to_end_with_all_below_it() {
    let rig = rig();
    let (ada, bob) = (rig.sign_in("ada", no_change).await, rig.sign_in("bob", no_change).await);
    let task = rig.on_behalf_of("ada").await;
    let below = pb::OpenTaskRequest { terms: Some(terms(&task)), ..Default::default() };
    let below = TaskServiceClient::new(rig.server().await).open_task(below).await.unwrap().into_inner().task.unwrap().task_id;
    let issued = pb::ExchangeRequest {
        task: Some(pb::exchange_request::Task::TaskId(below.clone())),
        upstream: "repos".into(),
        scopes: vec!["issues:read".into()],
        ..Default::default()
    };
    TokenServiceClient::new(rig.server().await).exchange(issued).await.unwrap();
    for id in [&task, &below] {
        assert!(rig.sees(&ada, id).await, "the owner of it, or of what is above it");
        assert!(!rig.sees(&bob, id).await, "nobody else");
        assert_eq!(reason(&rig.cancel(&bob, id).await.unwrap_err()), "NOT_FOUND");
    }
    let all = pb::ListTaskCredentialsRequest { task_id: task.clone(), include_children: true, ..Default::default() };
    let credentials = rig.tasks(&ada).await.list_task_credentials(all).await.unwrap().into_inner().credentials;
    assert_eq!(credentials.len(), 1, "what was issued on her behalf");
    let other = rig.on_behalf_of("bob").await;
    assert_eq!(reason(&rig.cancel(&ada, &other).await.unwrap_err()), "NOT_FOUND", "his is his");
    assert_eq!(rig.cancel(&ada, &task).await.unwrap(), pb::TaskState::Cancelled);
    let state = rig.tasks(&ada).await.get_task(pb::GetTaskRequest { task_id: below }).await.unwrap().into_inner();
    assert_eq!(state.task.unwrap().state(), pb::TaskState::Cancelled, "all of it");
    let complete = pb::CompleteTaskRequest { task_id: other, reason: "done".into() };
    rig.tasks(&bob).await.complete_task(complete).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_stays_asked_for_when_its_author_signs_out_and_not_when_its_author_is_revoked() {
    let rig = rig();
    let (ada, bob) = (rig.sign_in("ada", second_factor).await, rig.sign_in("bob", second_factor).await);
    let waits = rig.bind(&ada, "tools").await;
    rig.signs_out(&ada).await;
    assert!(rig.whoami(&ada).await.is_err());
    rig.let_through(&bob, &waits).await.unwrap();

    let ada = rig.sign_in("ada", second_factor).await;
    let waits = rig.bind(&ada, "more-tools").await;
    let subject = pb::Subject { issuer: rig.provider.issuer.clone(), sub: "ada".into() };
    rig.revoke(pb::target::Target::Subject(subject)).await;
    let no = rig.let_through(&bob, &waits).await.unwrap_err();
    assert_eq!(reason(&no), "DENIED_BY_POLICY", "{no:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_renewed_ends_with_the_first_of_its_line_and_with_the_login() {
    let rig = rig();
    let ada = rig.sign_in("ada", no_change).await;
    let first = rig.exchange(&ada, exchange("echo:read", "")).await.unwrap();
    let mut tokens = TokenServiceClient::new(rig.channel(&ada, false).await);
    let renew = |id: &str| pb::RenewRequest { credential_id: id.into(), ..Default::default() };
    let second = tokens.renew(renew(&first.credential_id)).await.unwrap().into_inner().issued.unwrap();
    let third = tokens.renew(renew(&second.credential_id)).await.unwrap().into_inner().issued.unwrap();
    let ancestors = |id: &str| {
        let id = id.parse().unwrap();
        let found = rig.running().authority().ledger.peek(|s| s.credentials.get(&id).unwrap().ancestors().to_vec());
        found.iter().map(|a| mayfly::seq::CredentialId::from_slice(&a.credential).unwrap().to_string()).collect::<Vec<_>>()
    };
    let expected = [first.credential_id.clone(), ada.answer.credential.clone()];
    assert_eq!([ancestors(&second.credential_id), ancestors(&third.credential_id)], [expected.clone(), expected]);
    rig.revoke(pb::target::Target::CredentialId(first.credential_id.clone())).await;
    let no = tokens.renew(renew(&third.credential_id)).await.unwrap_err();
    assert!(["REVOKED", "CREDENTIAL_NOT_ACTIVE"].contains(&&*reason(&no)), "{no:?}");
}
