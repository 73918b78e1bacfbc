//! Break-glass of people who sign in: people are identified by issuer and subject, and several logins of one person count as one person.

use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::break_glass_service_client::BreakGlassServiceClient;
use mayfly::pb::mayfly::v1::open_break_glass_request::Open;
use mayfly::pb::mayfly::v1::token_service_client::TokenServiceClient;
use tonic::Status;

use crate::kit::reason;
use crate::people_rig::{Person, Rig, no_change};

const POLICY: &str = r#"
@id("break-glass")
permit (principal in Role::"people", action in Action::"Work", resource in Environment::"dev")
when { context.break_glass };
"#;

/// The first person is named by issuer and subject, the second by the SPIFFE ID of the login; likewise the reviewers.
const RIGHTS: &str = r#"
[break_glass.echo-down]
environment = "dev"
open = [{ issuer = "ISSUER", subject = "ada" }, "spiffe://people.dev.internal/people/corp/bob"]
review = [{ issuer = "ISSUER", subject = "ada" }, "spiffe://people.dev.internal/people/corp/carol"]
upstreams = { echo = ["echo:read"] }
any_tool = true
"#;

impl Rig {
    pub async fn glass(&self, who: &Person, open: Open) -> Result<pb::BreakGlass, Status> {
        let mut glass = BreakGlassServiceClient::new(self.channel(who, false).await);
        let request = pb::OpenBreakGlassRequest { open: Some(open), reason: "echo is down".into(), ..Default::default() };
        Ok(glass.open_break_glass(request).await?.into_inner().break_glass.unwrap())
    }

    pub async fn close_glass(&self, who: &Person, task: &str) -> Result<pb::BreakGlass, Status> {
        let mut glass = BreakGlassServiceClient::new(self.channel(who, false).await);
        let request = pb::CloseBreakGlassRequest { task_id: task.into(), reason: "echo is back".into() };
        Ok(glass.close_break_glass(request).await?.into_inner().break_glass.unwrap())
    }

    pub async fn review_glass(&self, who: &Person, task: &str) -> Result<pb::BreakGlass, Status> {
        let mut glass = BreakGlassServiceClient::new(self.channel(who, false).await);
        let request = pb::ReviewBreakGlassRequest { task_id: task.into(), review: "looked".into(), ..Default::default() };
        Ok(glass.review_break_glass(request).await?.into_inner().break_glass.unwrap())
    }
}

fn in_task(task: &str) -> pb::ExchangeRequest {
    pb::ExchangeRequest {
        task: Some(pb::exchange_request::Task::TaskId(task.into())),
        upstream: "echo".into(),
        scopes: vec!["echo:read".into()],
        ..Default::default()
    }
}

pub fn named(identity: &pb::Identity) -> String {
    match &identity.identity {
        Some(pb::identity::Identity::Person(person)) => person.sub.clone(),
        other => panic!("no person: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_person_with_two_logins_is_not_two_people() {
    let rig = Rig::governed((POLICY, RIGHTS));
    let (ada, again) = (rig.sign_in("ada", no_change).await, rig.sign_in("ada", no_change).await);
    let (bob, carol) = (rig.sign_in("bob", no_change).await, rig.sign_in("carol", no_change).await);
    assert_eq!(reason(&rig.glass(&carol, Open::Rights("echo-down".into())).await.unwrap_err()), "NOT_FOUND", "nobody named her");
    let opened = rig.glass(&ada, Open::Rights("echo-down".into())).await.unwrap();
    assert_eq!(opened.people.iter().map(named).collect::<Vec<_>>(), ["ada"]);
    let task = opened.task.unwrap().task_id;
    for login in [&ada, &again] {
        assert_eq!(reason(&rig.glass(login, Open::TaskId(task.clone())).await.unwrap_err()), "NOT_YOURS");
    }
    let no = rig.glass(&again, Open::Rights("echo-down".into())).await.unwrap_err();
    assert_eq!(reason(&no), "ALREADY_EXISTS", "one of hers waits");
    let joined = rig.glass(&bob, Open::TaskId(task.clone())).await.unwrap();
    assert_eq!(joined.people.iter().map(named).collect::<Vec<_>>(), ["ada", "bob"]);

    // Both act in it, with any of their logins; each exchange and each action names the break-glass task.
    for login in [&ada, &again, &bob] {
        rig.exchange(login, in_task(&task)).await.unwrap();
        let mut tokens = TokenServiceClient::new(rig.channel(login, false).await);
        let (upstream, scopes) = ("echo".to_owned(), vec!["echo:read".to_owned()]);
        let act = pb::AuthorizeRequest { task_id: task.clone(), upstream, scopes, ..Default::default() };
        tokens.authorize(act).await.unwrap();
    }
    assert_eq!(reason(&rig.exchange(&carol, in_task(&task)).await.unwrap_err()), "NOT_FOUND");
    assert_eq!(rig.running().authority().ledger.peek(|s| s.break_glass_tasks.uses), 6);

    rig.close_glass(&again, &task).await.unwrap();
    assert_eq!(reason(&rig.glass(&again, Open::Rights("echo-down".into())).await.unwrap_err()), "APPROVAL_NEEDED");
    let no = rig.review_glass(&again, &task).await.unwrap_err();
    assert_eq!(reason(&no), "NOT_YOURS", "named as a reviewer, and one of the two by another login");
    let reviewed = rig.review_glass(&carol, &task).await.unwrap();
    assert_eq!(reviewed.reviewer.as_ref().map(named).as_deref(), Some("carol"));
}
