//! The end of a credential also ends the tasks opened with its descendants, and what is issued in those tasks.

use mayfly::credential::jwt::Claims;
use mayfly::identity::caller::Caller;
use mayfly::openings::OpenTaskOptions;
use mayfly::policy::exchange_request::TaskRequest;
use mayfly::policy::subject::{SubjectTokenKind, UnverifiedToken};
use mayfly::seq::{CredentialId, TaskId};

use super::behalf::{SERVER, claims, oidc, sent, within};
use super::*;
use crate::kit::house::IDP;

fn repos(parent: Option<TaskId>) -> TaskRequest {
    let upstreams = vec![("repos".to_owned(), vec!["issues:read".to_owned()])];
    let callers = if parent.is_none() { vec![SERVER.to_owned()] } else { Vec::new() };
    TaskRequest { upstreams, callers, parent, ttl_ms: Some(200_000), max_ttl_ms: None, ..terms() }
}

/// An exchange without a subject.
fn plain(task: TaskChoice) -> ExchangeRequest {
    let any = sent(SubjectTokenKind::Mayfly, "none");
    ExchangeRequest { behalf: None, ..within(task, any) }
}

/// A task that a server opened with a presented credential, and credentials issued in it, in an existing child task, and in a child task
/// opened inline.
struct Derived {
    task: TaskId,
    tokens: Vec<String>,
    claims: Vec<Claims>,
}

async fn derived(house: &House, server: &Caller, parent: TaskId, shown: &UnverifiedToken) -> Derived {
    let task = house
        .authority
        .open_task(server, &repos(Some(parent)), &None, OpenTaskOptions { token: Some(shown), ..OpenTaskOptions::default() })
        .await
        .unwrap();
    let below = house.authority.open_task(server, &repos(Some(task)), &None, false).await.unwrap();
    let mut found = Derived { task, tokens: Vec::new(), claims: Vec::new() };
    for place in [TaskChoice::Named(task), TaskChoice::Named(below), TaskChoice::Inline(Box::new(repos(Some(task))))] {
        let issued = house.authority.exchange(server, &plain(place)).await.unwrap();
        let about = token(issued);
        found.claims.push(authentic_claims(house, &about));
        found.tokens.push(about);
    }
    found
}

fn authentic_claims(house: &House, token: &str) -> Claims {
    let keys = house.authority.ledger.peek(|s| mayfly::credential::keyring::jwks(&s.keys, "dev"));
    let keys = mayfly::credential::jwt::Jwks::parse(&keys).unwrap();
    mayfly::credential::jwt::authentic(token, &keys).unwrap().0
}

impl Derived {
    async fn is_over(&self, house: &House, server: &Caller, why: &str) {
        for (n, token) in self.tokens.iter().enumerate() {
            assert!(!active(house, token).await, "{why}: the credential {n}");
        }
        let covered = house.authority.ledger.peek(|s| s.revoked_by(s.tasks.get(&self.task).unwrap()).is_some());
        assert!(covered, "{why}: the task takes nothing more, by the fold");
        house.clock.advance(1);
        assert!(house.authority.exchange(server, &plain(TaskChoice::Named(self.task))).await.is_err(), "{why}");
    }
}

#[test]
fn a_task_opened_on_a_credential_ends_with_every_ancestor_of_that() {
    // The presented credential, and the one that it renews.
    for target in [0, 1] {
        let house = house();
        runtime().block_on(async {
            let (agent, server) = (house.caller("/agent/demo"), house.caller("/mcp/repos"));
            let task = house.authority.open_task(&agent, &repos(None), &None, false).await.unwrap();
            let first = id(&house.authority.exchange(&agent, &plain(TaskChoice::Named(task))).await.unwrap());
            let renewed = house.authority.renew(&agent, first, None, None, None).await.unwrap();
            let line = [first, id(&renewed)];
            let shown = sent(SubjectTokenKind::Mayfly, token(renewed));
            let derived = derived(&house, &server, task, &shown).await;
            for (n, claims) in derived.claims.iter().enumerate() {
                let ids: Vec<CredentialId> = claims.own.ancestors.iter().map(|a| a.id).collect();
                assert_eq!(ids, line, "a verifier is told by the credential {n} what it rests on");
                assert!(claims.own.ancestors.iter().all(|a| a.caller == agent.id().as_str()), "{:?}", claims.own.ancestors);
            }
            assert!(active(&house, &derived.tokens[0]).await);
            revoke(&house, Target::Credential(line[target]), true).await;
            derived.is_over(&house, &server, &format!("ancestor {target}")).await;
        });
    }
}

#[test]
fn it_ends_with_the_subject_token_that_what_was_shown_rests_on() {
    let house = house();
    runtime().block_on(async {
        let (agent, server) = (house.caller("/agent/demo"), house.caller("/mcp/repos"));
        let task = house.authority.open_task(&agent, &repos(None), &None, false).await.unwrap();
        let of_ada = oidc(&house, &claims(&house, IDP));
        let issued = house.authority.exchange(&server, &within(TaskChoice::Named(task), of_ada)).await.unwrap();
        let shown = sent(SubjectTokenKind::Mayfly, token(issued));
        let again = house.authority.exchange(&server, &within(TaskChoice::Named(task), shown.clone())).await.unwrap();
        let again_token = token(again);
        let derived = derived(&house, &server, task, &shown).await;
        for claims in derived.claims.iter().chain([&authentic_claims(&house, &again_token)]) {
            let token = claims.own.subject_token.as_ref().unwrap();
            assert_eq!((token.iss.as_str(), token.id.as_str()), (IDP, "t-1"), "a verifier is told the token");
        }
        revoke(&house, Target::SubjectToken(IDP.into(), "t-1".into()), true).await;
        assert!(!active(&house, &again_token).await);
        derived.is_over(&house, &server, "the subject token").await;
    });
}

#[test]
fn giving_back_the_first_of_a_line_ends_what_was_opened_on_the_last() {
    let house = house();
    runtime().block_on(async {
        let (agent, server) = (house.caller("/agent/demo"), house.caller("/mcp/repos"));
        let task = house.authority.open_task(&agent, &repos(None), &None, false).await.unwrap();
        let first = id(&house.authority.exchange(&agent, &plain(TaskChoice::Named(task))).await.unwrap());
        let renewed = house.authority.renew(&agent, first, None, None, None).await.unwrap();
        let derived = derived(&house, &server, task, &sent(SubjectTokenKind::Mayfly, token(renewed))).await;
        house.authority.release(&agent, first).await.unwrap();
        derived.is_over(&house, &server, "given back").await;
    });
}
