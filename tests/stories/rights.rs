//! Grants on a subject's behalf are bounded and ended by the subject's rights, the token, revocation rules, and the tree of tasks.
use mayfly::credential::jwt::Claims;
use mayfly::identity::caller::Caller;
use mayfly::ledger::record::Principal;
use mayfly::openings::OpenTaskOptions;
use mayfly::policy::exchange_request::TaskRequest;
use mayfly::policy::subject::{SubjectTokenKind, UnverifiedToken};
use mayfly::seq::Millis;
use proptest::prelude::*;
use serde_json::json;

use super::behalf::{SERVER, ask, claims, oidc, said, within};
use super::{token as token_of, *};
use crate::kit::house::{IDP, RIGHTS};

/// Options for opening a task on a subject's behalf.
fn by(token: &UnverifiedToken) -> OpenTaskOptions<'_> {
    OpenTaskOptions { token: Some(token), ..OpenTaskOptions::default() }
}

#[test]
fn rules_on_the_subject_its_token_and_its_actors_end_and_block() {
    for target in [
        Target::Subject(IDP.into(), "ada".into()),
        Target::SubjectToken(IDP.into(), "t-1".into()),
        Target::Subject(IDP.into(), "gateway".into()),
    ] {
        let house = house();
        runtime().block_on(async {
            let server = house.caller("/mcp/repos");
            let mut good = claims(&house, IDP);
            good["act"] = json!({"sub": "gateway"});
            let issued = house.authority.exchange(&server, &ask(oidc(&house, &good))).await.unwrap();
            let task = house.authority.open_task(&server, &repos_task(), &None, by(&oidc(&house, &good))).await.unwrap();
            let text = token(issued);
            assert!(active(&house, &text).await);
            revoke(&house, target.clone(), false).await;
            assert!(!active(&house, &text).await, "{target}");
            house.clock.advance(1);
            let again = reason(house.authority.exchange(&server, &ask(oidc(&house, &good))).await);
            assert!([Reason::Locked, Reason::EvidenceRevoked].contains(&again), "{target}: {again:?}");
            let opened = house.authority.open_task(&server, &repos_task(), &None, by(&oidc(&house, &good))).await;
            assert!(opened.is_err(), "{target}");
            // A task opened with the token takes no more grants, even without the token.
            let within = ExchangeRequest { behalf: None, ..within(TaskChoice::Named(task), oidc(&house, &good)) };
            assert!(house.authority.exchange(&server, &within).await.is_err(), "{target}");
            // Another subject's token is as valid as before.
            let mut other = claims(&house, IDP);
            (other["sub"], other["jti"]) = ("grace".into(), "t-2".into());
            assert!(house.authority.exchange(&server, &ask(oidc(&house, &other))).await.is_ok(), "{target}");
        });
    }
}

fn repos_task() -> TaskRequest {
    TaskRequest { upstreams: vec![("repos".into(), vec!["issues:read".into()])], ttl_ms: None, max_ttl_ms: None, ..terms() }
}

#[test]
fn a_revoked_token_is_evidence_for_nothing_whatever_was_seen() {
    let house = house();
    runtime().block_on(async {
        let server = house.caller("/mcp/repos");
        revoke(&house, Target::SubjectToken(IDP.into(), "t-1".into()), true).await;
        house.clock.advance(1000);
        let late = house.authority.exchange(&server, &ask(oidc(&house, &claims(&house, IDP)))).await;
        assert_eq!(reason(late), Reason::EvidenceRevoked, "decided after the revocation, and refused all the same");
    });
}

#[test]
fn a_task_on_somebodys_behalf_is_theirs_and_ends_with_the_token() {
    let house = house();
    runtime().block_on(async {
        let server = house.caller("/mcp/repos");
        let token = oidc(&house, &claims(&house, IDP));
        let terms = TaskRequest { ttl_ms: Some(600_000), max_ttl_ms: Some(3_600_000), ..repos_task() };
        let task = house.authority.open_task(&server, &terms, &None, by(&token)).await.unwrap();
        let ends = Millis::from_seconds(house.now().seconds() + 240);
        house.authority.ledger.peek(|s| {
            let task = s.tasks.get(&task).unwrap();
            assert_eq!(task.terms.owners.last(), Some(&Principal { issuer: IDP.into(), sub: "ada".into() }));
            assert_eq!((task.deadline, task.terms.max_deadline), (ends, ends));
        });
        assert!(house.authority.extend_task(&server, (task, ends.plus(60_000)), &None, 0).await.is_err());
        // A credential issued in the task depends on the token, so a revocation of the token reaches it at every verifier.
        let plain = ExchangeRequest { behalf: None, ..within(TaskChoice::Named(task), token.clone()) };
        let claims = said(&house, house.authority.exchange(&server, &plain).await.unwrap());
        assert_eq!((claims.sub.as_str(), claims.own.subject_token.unwrap().id.as_str()), (SERVER, "t-1"));
        house.clock.advance(301_000);
        assert_eq!(reason(house.authority.exchange(&server, &plain).await), Reason::TaskNotActive);
    });
}

#[test]
fn the_users_rights_bound_the_grant_also_through_a_second_server() {
    let house = house();
    runtime().block_on(async {
        let server = house.caller("/mcp/repos");
        let with = |scope: &str, groups: &[&str]| {
            let mut claims = claims(&house, RIGHTS);
            (claims["scope"], claims["groups"]) = (scope.into(), json!(groups));
            oidc(&house, &claims)
        };
        assert!(house.authority.exchange(&server, &ask(with("issues:read", &["readers"]))).await.is_ok());
        for refused in
            [with("repo:read", &["readers"]), with("issues:read", &["writers"]), with("issues:read", &[]), with("", &["readers"])]
        {
            assert_eq!(reason(house.authority.exchange(&server, &ask(refused)).await), Reason::WiderThanParent);
        }
        // A task opened on the subject's behalf has no more rights than the subject.
        let token = with("issues:read repo:read", &["readers"]);
        let all = TaskRequest { upstreams: vec![("repos".into(), Vec::new())], ..repos_task() };
        let task = house.authority.open_task(&server, &all, &None, by(&token)).await.unwrap();
        let scopes = house.authority.ledger.peek(|s| s.tasks.get(&task).unwrap().terms.allowance.upstreams[0].scopes.clone());
        assert_eq!(scopes, ["repo:read", "issues:read"]);
        let none = TaskRequest { upstreams: vec![("echo".into(), vec!["echo:read".into()])], ..repos_task() };
        let opened = house.authority.open_task(&server, &none, &None, by(&token)).await;
        assert_eq!(reason(opened), Reason::WiderThanParent);
        // The rights go with the credential: a server that was presented the credential never saw the subject token and is bounded
        // nevertheless.
        let issued = house.authority.exchange(&server, &ask(with("issues:read", &["readers"]))).await.unwrap();
        let (task, first) = (issued.summary().about.task, token_of(issued));
        let shown = UnverifiedToken { kind: SubjectTokenKind::Mayfly, token: first.into() };
        let second = house.authority.exchange(&server, &within(TaskChoice::Named(task), shown)).await.unwrap();
        let found = house.authority.issuance(id(&second)).await.unwrap().unwrap();
        let issued = found.issued().unwrap();
        assert_eq!(issued.subject_claims.as_ref().unwrap().groups, ["readers"]);
        assert_eq!((issued.subject.as_ref().unwrap().sub.as_str(), issued.actors.len()), ("ada", 2));
        // A task opened inline by an exchange belongs to the subject too.
        let terms = repos_task();
        let mut first = ask(with("issues:read", &["readers"]));
        first.task = TaskChoice::Inline(Box::new(TaskRequest {
            upstreams: vec![("repos".into(), vec!["issues:read".into(), "issues:write".into()])],
            ..terms
        }));
        assert_eq!(reason(house.authority.exchange(&server, &first).await), Reason::WiderThanParent);
    });
}

async fn any(house: &House, server: &Caller, want: &ExchangeRequest) -> Option<Claims> {
    house.authority.exchange(server, want).await.ok().map(|issued| said(house, issued))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is requested and whatever the token contains, the grant is within the token, the task, the registration and the rights.
    #[test]
    fn no_grant_is_wider_or_longer_than_token_task_registration_and_rights(
        life in 1u64..3_000,
        asked in proptest::option::of(1u64..4_000),
        task_ttl in 60u64..7_200,
        wants in proptest::sample::subsequence(vec!["issues:read", "issues:write", "repo:read", "repo:write"], 1..4),
        has in proptest::sample::subsequence(vec!["issues:read", "issues:write", "repo:read", "repo:write", "other"], 0..5),
        groups in proptest::sample::subsequence(vec!["readers", "writers", "strangers"], 0..3),
        inline: bool,
    ) {
        let house = house();
        runtime().block_on(async {
            let server = house.caller("/mcp/repos");
            let mut claims = claims(&house, RIGHTS);
            (claims["exp"], claims["scope"], claims["groups"]) = ((house.now().seconds() + life).into(), json!(has), json!(groups));
            let token = oidc(&house, &claims);
            let whole = vec![("repos".to_owned(), ["issues:read", "issues:write", "repo:read"].map(str::to_owned).to_vec())];
            let terms = TaskRequest { upstreams: whole, ttl_ms: Some(task_ttl * 1000), max_ttl_ms: None, ..terms() };
            let task = match inline {
                true => TaskChoice::Inline(Box::new(TaskRequest { upstreams: Vec::new(), ..terms })),
                false => TaskChoice::Named(house.authority.open_task(&server, &terms, &None, false).await.unwrap()),
            };
            let mut want = within(task, token);
            want.scopes = wants.iter().map(|s| (*s).to_owned()).collect();
            want.ttl_ms = asked.map(|s| s * 1000);
            let Some(given) = any(&house, &server, &want).await else { return };
            let now = house.now().seconds();
            assert!(given.exp <= now + life && given.exp <= now + task_ttl && given.exp <= now + 900, "{given:?}");
            let right = |scope: &str| has.contains(&scope) && match scope {
                "issues:read" | "repo:read" => groups.contains(&"readers"),
                "issues:write" => groups.contains(&"writers"),
                _ => false,
            };
            assert!(given.scopes().all(right), "{given:?}");
            assert_eq!((given.sub.as_str(), given.subject_issuer()), ("ada", RIGHTS));
        });
    }
}

/// A task of an agent, a child task of a sub-agent and a grandchild of a server, with a credential in each.
async fn tree(house: &House) -> ([TaskId; 3], [String; 3]) {
    let callers = ["/agent/demo", "/agent/sub", "/mcp/echo"].map(|path| house.caller(path));
    let (mut tasks, mut tokens): (Vec<TaskId>, Vec<String>) = (Vec::new(), Vec::new());
    for (n, caller) in callers.iter().enumerate() {
        let task = match n {
            0 => house.authority.open_task(caller, &terms(), &None, false).await.unwrap(),
            _ => {
                let child = TaskRequest { parent: tasks.last().copied(), callers: vec![caller.id().as_str().into()], ..terms() };
                house.authority.open_task(&callers[n - 1], &child, &None, true).await.unwrap()
            }
        };
        tasks.push(task);
        tokens.push(token(house.authority.exchange(caller, &wanted(TaskChoice::Named(task))).await.unwrap()));
    }
    (tasks.try_into().unwrap(), tokens.try_into().unwrap())
}

async fn all_active(house: &House, tokens: &[String; 3]) -> [bool; 3] {
    [active(house, &tokens[0]).await, active(house, &tokens[1]).await, active(house, &tokens[2]).await]
}

#[test]
fn the_whole_tree_is_held_resumed_completed_and_revoked_together() {
    let house = house();
    runtime().block_on(async {
        let agent = Actor::Workload(house.caller("/agent/demo"));
        let ([root, middle, leaf], tokens) = tree(&house).await;
        house.authority.hold_task(&agent, root, "wait", &None).await.unwrap();
        assert_eq!(all_active(&house, &tokens).await, [false; 3]);
        house.authority.resume_task(&agent, root, "go on", &None).await.unwrap();
        assert_eq!(all_active(&house, &tokens).await, [true; 3]);
        house.authority.hold_task(&agent, middle, "wait", &None).await.unwrap();
        assert_eq!(all_active(&house, &tokens).await, [true, false, false], "what is above goes on");
        house.authority.resume_task(&agent, middle, "go on", &None).await.unwrap();
        house.authority.close_task(&agent, leaf, TaskOutcome::Completed, "done").await.unwrap();
        assert_eq!(all_active(&house, &tokens).await, [true, true, false]);
        house.authority.close_task(&agent, root, TaskOutcome::Completed, "done").await.unwrap();
        assert_eq!(all_active(&house, &tokens).await, [false; 3]);
        let server = house.caller("/mcp/echo");
        assert_eq!(reason(house.authority.exchange(&server, &wanted(TaskChoice::Named(leaf))).await), Reason::TaskNotActive);
        // By a rule on the root task, and by one on the owner of the middle task.
        let (tasks, tokens) = tree(&house).await;
        revoke(&house, Target::Task(tasks[0]), true).await;
        assert_eq!(all_active(&house, &tokens).await, [false; 3]);
        let (_, tokens) = tree(&house).await;
        revoke(&house, Target::Caller("spiffe://dev.mayfly.internal/agent/sub".into()), true).await;
        assert_eq!(all_active(&house, &tokens).await, [true, false, false]);
    });
}
