//! On whose behalf: what a subject token gives, what it does not, and what ends with it (design, section 4; RFC 8693).

use std::sync::Arc;

use mayfly::credential::jwt::{Claims, Jwks, authentic};
use mayfly::credential::keyring::jwks;
use mayfly::identity::caller::Caller;
use mayfly::ledger::record::Identity;
use mayfly::policy::bound::Bound;
use mayfly::policy::subject::{Behalf, SentToken, TokenType};
use mayfly::policy::wanted::Terms;
use mayfly::seq::Millis;
use proptest::prelude::*;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::*;
use crate::kit::house::{DOMAIN, IDP, RIGHTS};
use crate::kit::signer::Signer;

const GITHUB: &str = "https://github.dev.mayfly.internal";
const MAYFLY: &str = "https://mayfly.test";
const SERVER: &str = "spiffe://dev.mayfly.internal/mcp/github";

fn sent(kind: TokenType, token: impl Into<String>) -> SentToken {
    SentToken { kind, token: Zeroizing::new(token.into()) }
}

/// Good claims of ada at an issuer, for the GitHub server, for five minutes.
fn claims(house: &House, iss: &str) -> Value {
    let now = house.now().seconds();
    json!({"iss": iss, "sub": "ada", "aud": GITHUB, "iat": now - 10, "exp": now + 240, "jti": "t-1"})
}

fn oidc(house: &House, claims: &Value) -> SentToken {
    sent(TokenType::Oidc, house.signer.token(&json!({"alg": "ES256", "kid": "k1", "typ": "JWT"}), claims))
}

fn jwt_svid(house: &House, sub: &str, change: impl FnOnce(&mut Value)) -> SentToken {
    let now = house.now().seconds();
    let mut claims = json!({"sub": sub, "aud": [GITHUB], "iat": now - 10, "exp": now + 300});
    change(&mut claims);
    sent(TokenType::JwtSvid, house.signer.token(&json!({"alg": "ES256", "kid": "jwt1", "typ": "JWT"}), &claims))
}

/// Issues of GitHub, in a task that is opened with it, on somebody's behalf.
fn ask(token: SentToken) -> Wanted {
    let terms = Terms { upstreams: Vec::new(), callers: Vec::new(), max_ttl_ms: None, ttl_ms: None, ..terms() };
    within(TaskChoice::Inline(Box::new(terms)), token)
}

fn within(task: TaskChoice, token: SentToken) -> Wanted {
    let scopes: Arc<[String]> = ["issues:read".to_owned()].into();
    let behalf = Some(Box::new(Behalf::Sent(token)));
    Wanted { upstream: "github".into(), scopes, tool: String::new(), ttl_ms: None, behalf, ..wanted(task) }
}

fn said(house: &House, issued: Issued) -> Claims {
    let keys = house.authority.ledger.peek(|s| jwks(&s.keys, "dev"));
    authentic(&token(issued), &Jwks::parse(&keys).unwrap()).unwrap().0
}

/// Refused for its subject token: what is said of it.
fn refused_token(answer: Result<Issued, No>) -> String {
    match answer {
        Err(No::Refusal(no)) if no.reason == Reason::InvalidField && no.field == Some("subject_token") => no.message,
        Err(no) => panic!("refused otherwise: {no:?}"),
        Ok(_) => panic!("it was not refused"),
    }
}

#[test]
fn a_server_acts_on_behalf_of_who_sent_the_token_and_the_claims_say_so() {
    let house = house();
    runtime().block_on(async {
        let server = house.caller("/mcp/github");
        let issued = house.authority.exchange(&server, &ask(oidc(&house, &claims(&house, IDP)))).await.unwrap();
        assert_eq!(issued.summary().about.bound, Bound::SubjectToken as u32, "the token ends first, and is told");
        let said = said(&house, issued);
        assert_eq!((said.sub.as_str(), said.subject_issuer(), said.client_id.as_str()), ("ada", IDP, SERVER));
        let act = said.act.clone().unwrap();
        assert_eq!((act.sub.as_str(), act.iss.as_str(), &act.act), (SERVER, DOMAIN, &None));
        let token = said.own.subject_token.clone().unwrap();
        assert_eq!((token.iss.as_str(), token.id.as_str()), (IDP, "t-1"));
        assert_eq!(said.exp, house.now().seconds() + 240);
        let owner = &said.own.tasks.last().unwrap().owner;
        assert_eq!((owner.iss.as_str(), owner.sub.as_str()), (IDP, "ada"), "the task that was opened for her is hers");
    });
}

#[test]
fn a_workload_is_a_subject_by_its_jwt_svid_alone() {
    let house = house();
    runtime().block_on(async {
        let server = house.caller("/mcp/github");
        let agent = "spiffe://dev.mayfly.internal/agent/demo";
        let issued = house.authority.exchange(&server, &ask(jwt_svid(&house, agent, |_| {}))).await.unwrap();
        let claims = said(&house, issued);
        assert_eq!((claims.sub.as_str(), claims.subject_issuer()), (agent, DOMAIN));
        assert!(claims.own.subject_token.unwrap().id.starts_with("sha256:"), "it has no jti, so it is named by what was signed");
        // Its own is its own: there is nobody between.
        let issued = house.authority.exchange(&server, &ask(jwt_svid(&house, SERVER, |_| {}))).await.unwrap();
        let own = said(&house, issued);
        assert_eq!((own.sub.as_str(), own.act, own.own.sub_iss), (SERVER, None, None));
        for (bad, part) in [
            (jwt_svid(&house, "spiffe://unknown.example/agent", |_| {}), "bundle"),
            (jwt_svid(&house, agent, |c| c["aud"] = json!([GITHUB, "https://other.example"])), "several audiences"),
            (jwt_svid(&house, agent, |c| c["aud"] = json!([])), "several audiences, or for none"),
            (jwt_svid(&house, agent, |c| c["aud"] = MAYFLY.into()), "an assertion is no subject token"),
            (jwt_svid(&house, agent, |c| c["exp"] = (house.now().seconds() - 1).into()), "exp has not come"),
            (jwt_svid(&house, agent, |c| c["jti"] = "x\n".into()), "jti"),
        ] {
            let said = refused_token(house.authority.exchange(&server, &ask(bad)).await);
            assert!(said.contains(part), "{part}: {said}");
        }
        // Somebody of another environment has none here, though the bundle vouches for it.
        let stranger = jwt_svid(&house, "spiffe://dev.mayfly.internal", |_| {});
        refused_token(house.authority.exchange(&server, &ask(stranger)).await);
    });
}

#[test]
fn what_is_forged_or_for_somebody_else_is_refused_as_a_bad_subject_token() {
    let house = house();
    runtime().block_on(async {
        let server = house.caller("/mcp/github");
        let now = house.now().seconds();
        let with = |change: &dyn Fn(&mut Value)| {
            let mut claims = claims(&house, IDP);
            change(&mut claims);
            oidc(&house, &claims)
        };
        let header = |change: &dyn Fn(&mut Value)| {
            let mut header = json!({"alg": "ES256", "kid": "k1", "typ": "JWT"});
            change(&mut header);
            sent(TokenType::Oidc, house.signer.token(&header, &claims(&house, IDP)))
        };
        let other = Signer::new("ES256");
        let cases = [
            (header(&|h| h["alg"] = "none".into()), "alg"),
            (header(&|h| h["alg"] = "HS256".into()), "alg"),
            (header(&|h| h["typ"] = "dpop+jwt".into()), "typ"),
            (header(&|h| h["kid"] = "other".into()), "kid"),
            (header(&|h| h["jku"] = "https://evil.example".into()), "jku"),
            (header(&|h| h["crit"] = json!(["exp"])), "crit"),
            (sent(TokenType::Oidc, other.token(&json!({"alg": "ES256", "kid": "k1"}), &claims(&house, IDP))), "the issuer's key"),
            (with(&|c| c["iss"] = "https://other.example".into()), "none that this server is configured with"),
            (with(&|c| c["aud"] = json!([GITHUB])), "aud is one text"),
            (with(&|c| c["aud"] = json!([GITHUB, "x"])), "several audiences"),
            (with(&|c| c["aud"] = "https://tickets.dev.mayfly.internal".into()), "for somebody else"),
            (with(&|c| drop(c.as_object_mut().unwrap().remove("aud"))), "no aud"),
            (with(&|c| c["exp"] = now.into()), "exp has not come"),
            (with(&|c| c["nbf"] = (now + 60).into()), "nbf"),
            (with(&|c| c["exp"] = (now + 7200).into()), "max_life"),
            (with(&|c| c["sub"] = "spiffe://dev.mayfly.internal/operator/you".into()), "only JWT-SVIDs vouch"),
            (with(&|c| c["may_act"] = json!({"sub": "spiffe://dev.mayfly.internal/mcp/echo"})), "may_act"),
            (with(&|c| c["may_act"] = json!({"sub": SERVER, "iss": "other.example"})), "may_act"),
            (with(&|c| c["may_act"] = json!({"sub": SERVER, "email": "a@b"})), "may_act"),
            (with(&|c| c["may_act"] = json!([SERVER])), "may_act"),
            (with(&|c| c["aud"] = MAYFLY.into()), "an assertion is no subject token"),
            (with(&|c| c["act"] = json!({"sub": "spiffe://dev.mayfly.internal/agent/demo"})), "does not vouch"),
            (with(&|c| c["act"] = json!({"iss": "x"})), "act without a sub"),
            (with(&|c| c["groups"] = 7.into()), "groups"),
            (sent(TokenType::Oidc, "a.b.c"), "no JWT"),
            (
                sent(TokenType::JwtSvid, house.signer.token(&json!({"alg": "ES256", "kid": "jwt1"}), &claims(&house, IDP))),
                "SPIFFE ID",
            ),
            (
                sent(
                    TokenType::Mayfly,
                    house.signer.token(&json!({"alg": "ES256", "kid": "k1", "typ": "at+jwt"}), &claims(&house, IDP)),
                ),
                "mayfly issued",
            ),
        ];
        for (n, (bad, part)) in cases.into_iter().enumerate() {
            let said = refused_token(house.authority.exchange(&server, &ask(bad)).await);
            assert!(said.contains(part), "case {n} wants {part}: {said}");
        }
        // Nobody else can use what is good for the GitHub server, and nothing was issued for any of it.
        let agent = house.caller("/agent/demo");
        refused_token(house.authority.exchange(&agent, &ask(oidc(&house, &claims(&house, IDP)))).await);
        assert_eq!(house.authority.ledger.peek(|s| s.credentials.len()), 0);
        assert!(
            house
                .authority
                .exchange(&server, &ask(with(&|c| c["may_act"] = json!({"sub": SERVER, "iss": DOMAIN}))))
                .await
                .is_ok()
        );
        let for_mayfly = with(&|c| (c["aud"], c["may_act"]) = (MAYFLY.into(), json!({"sub": SERVER})));
        assert!(house.authority.exchange(&server, &ask(for_mayfly)).await.is_ok());
    });
}

#[test]
fn a_credential_of_ours_is_evidence_within_its_task_while_it_is_good() {
    let house = house();
    runtime().block_on(async {
        let (agent, server) = (house.caller("/agent/demo"), house.caller("/mcp/github"));
        let github = || vec![("github".to_owned(), vec!["issues:read".to_owned(), "issues:write".to_owned()])];
        let own = Terms { upstreams: github(), callers: vec![SERVER.into()], ..terms() };
        let task = house.authority.open_task(&agent, &own, &None, false).await.unwrap();
        let scopes: Arc<[String]> = ["issues:read".to_owned()].into();
        let plain = Wanted { upstream: "github".into(), scopes, tool: String::new(), ..wanted(TaskChoice::Named(task)) };
        let mut got = Vec::new();
        for _ in 0..3 {
            let issued = house.authority.exchange(&agent, &plain).await.unwrap();
            got.push((id(&issued), token(issued)));
        }
        let [(first, one), (second, two), (third, three)] = got.try_into().unwrap();
        let shown = |token: &str| sent(TokenType::Mayfly, token);
        let derived = house.authority.exchange(&server, &within(TaskChoice::Named(task), shown(&one))).await.unwrap();
        let derived_id = id(&derived);
        let claims = said(&house, derived);
        assert_eq!(claims.sub, agent.id().as_str(), "whoever it was issued to is the subject");
        assert_eq!(claims.own.ancestors.iter().map(|a| a.id).collect::<Vec<_>>(), [first]);
        // Without a task named, it is below the credential's own.
        let below = house.authority.exchange(&server, &ask(shown(&one))).await.unwrap();
        assert_eq!(said(&house, below).own.tasks.iter().map(|t| t.id).next(), Some(task));
        // It has no right to more of the same upstream, and none in another task.
        let mut wider = within(TaskChoice::Named(task), shown(&one));
        wider.scopes = ["issues:write".to_owned()].into();
        assert_eq!(reason(house.authority.exchange(&server, &wider).await), Reason::WiderThanParent);
        let elsewhere = house.authority.open_task(&agent, &own, &None, false).await.unwrap();
        let other = within(TaskChoice::Named(elsewhere), shown(&one));
        assert_eq!(reason(house.authority.exchange(&server, &other).await), Reason::OutsideTask);
        // Given back: evidence for nothing.
        house.authority.release(&agent, second).await.unwrap();
        let said = refused_token(house.authority.exchange(&server, &within(TaskChoice::Named(task), shown(&two))).await);
        assert!(said.contains("given back"), "{said}");
        // Revoked: so is what rests on it, and it is evidence for nothing.
        revoke(&house, Target::Credential(first), true).await;
        assert!(
            house
                .authority
                .ledger
                .peek(|s| s.rules.covers(&s.credentials.get(&derived_id).unwrap().facts(s.tasks.get(&task).unwrap())).is_some())
        );
        let again = within(TaskChoice::Named(task), shown(&one));
        assert_eq!(reason(house.authority.exchange(&server, &again).await), Reason::Revoked);
        // Altered: not ours.
        let altered = format!("{}A", &three[..three.len() - 1]);
        refused_token(house.authority.exchange(&server, &within(TaskChoice::Named(task), shown(&altered))).await);
        let third = third.to_string();
        house.authority.close_task(&Actor::Workload(agent.clone()), task, Outcome::Completed, "done").await.unwrap();
        let late = house.authority.exchange(&server, &within(TaskChoice::Named(task), shown(&three))).await;
        assert!(late.is_err(), "{third} ended with its task");
    });
}

#[test]
fn a_chain_of_servers_names_every_actor_and_is_bounded() {
    let house = house();
    runtime().block_on(async {
        let server = house.caller("/mcp/github");
        let act = |depth: usize| {
            (0..depth).rev().fold(Value::Null, |inner, n| {
                let mut act = json!({"sub": format!("gateway-{n}")});
                if !inner.is_null() {
                    act["act"] = inner;
                }
                act
            })
        };
        let with = |depth: usize| {
            let mut claims = claims(&house, IDP);
            claims["act"] = act(depth);
            oidc(&house, &claims)
        };
        let issued = house.authority.exchange(&server, &ask(with(2))).await.unwrap();
        let outer = said(&house, issued).act.unwrap();
        let chain: Vec<String> = std::iter::successors(Some(&*outer), |a| a.act.as_deref()).map(|a| a.sub.clone()).collect();
        assert_eq!(chain, [SERVER, "gateway-0", "gateway-1"]);
        assert_eq!(reason(house.authority.exchange(&server, &ask(with(7))).await), Reason::DeniedByPolicy, "policy counts them");
        assert_eq!(reason(house.authority.exchange(&server, &ask(with(8))).await), Reason::LimitReached);
        refused_token(house.authority.exchange(&server, &ask(with(9))).await);
    });
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
            let server = house.caller("/mcp/github");
            let mut good = claims(&house, IDP);
            good["act"] = json!({"sub": "gateway"});
            let issued = house.authority.exchange(&server, &ask(oidc(&house, &good))).await.unwrap();
            let task =
                house.authority.open_task_for(&server, &github_task(), &None, (false, Some(&oidc(&house, &good)))).await.unwrap();
            let text = token(issued);
            assert!(active(&house, &text).await);
            revoke(&house, target.clone(), false).await;
            assert!(!active(&house, &text).await, "{target}");
            house.clock.advance(1);
            let again = reason(house.authority.exchange(&server, &ask(oidc(&house, &good))).await);
            assert!([Reason::Locked, Reason::EvidenceRevoked].contains(&again), "{target}: {again:?}");
            let opened = house.authority.open_task_for(&server, &github_task(), &None, (false, Some(&oidc(&house, &good)))).await;
            assert!(opened.is_err(), "{target}");
            // What was opened on the strength of it takes nothing any more, also without the token.
            let within = Wanted { behalf: None, ..within(TaskChoice::Named(task), oidc(&house, &good)) };
            assert!(house.authority.exchange(&server, &within).await.is_err(), "{target}");
            // Another token of somebody else is as good as before.
            let mut other = claims(&house, IDP);
            (other["sub"], other["jti"]) = ("grace".into(), "t-2".into());
            assert!(house.authority.exchange(&server, &ask(oidc(&house, &other))).await.is_ok(), "{target}");
        });
    }
}

fn github_task() -> Terms {
    Terms { upstreams: vec![("github".into(), vec!["issues:read".into()])], ttl_ms: None, max_ttl_ms: None, ..terms() }
}

#[test]
fn a_revoked_token_is_evidence_for_nothing_whatever_was_seen() {
    let house = house();
    runtime().block_on(async {
        let server = house.caller("/mcp/github");
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
        let server = house.caller("/mcp/github");
        let token = oidc(&house, &claims(&house, IDP));
        let terms = Terms { ttl_ms: Some(600_000), max_ttl_ms: Some(3_600_000), ..github_task() };
        let task = house.authority.open_task_for(&server, &terms, &None, (false, Some(&token))).await.unwrap();
        let ends = Millis::from_seconds(house.now().seconds() + 240);
        house.authority.ledger.peek(|s| {
            let task = s.tasks.get(&task).unwrap();
            assert_eq!(task.terms.owners.last(), Some(&Identity { issuer: IDP.into(), sub: "ada".into() }));
            assert_eq!((task.deadline, task.terms.max_deadline), (ends, ends));
        });
        assert!(house.authority.extend_task(&server, task, ends.plus(60_000), &None).await.is_err());
        // What is issued in it rests on the token, so revoking that reaches it at every verifier.
        let plain = Wanted { behalf: None, ..within(TaskChoice::Named(task), token.clone()) };
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
        let server = house.caller("/mcp/github");
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
        // A task that is opened for her has no more than she may.
        let token = with("issues:read repo:read", &["readers"]);
        let all = Terms { upstreams: vec![("github".into(), Vec::new())], ..github_task() };
        let task = house.authority.open_task_for(&server, &all, &None, (false, Some(&token))).await.unwrap();
        let scopes = house.authority.ledger.peek(|s| s.tasks.get(&task).unwrap().terms.allowance.upstreams[0].scopes.clone());
        assert_eq!(scopes, ["repo:read", "issues:read"]);
        let none = Terms { upstreams: vec![("echo".into(), vec!["echo:read".into()])], ..github_task() };
        let opened = house.authority.open_task_for(&server, &none, &None, (false, Some(&token))).await;
        assert_eq!(reason(opened), Reason::WiderThanParent);
        // The credential goes on to the next server, which has not seen her token: her rights bound it all the same.
        let terms = Terms { callers: vec![SERVER.into()], ..github_task() };
        let mut first = ask(with("issues:read", &["readers"]));
        first.task = TaskChoice::Inline(Box::new(Terms {
            upstreams: vec![("github".into(), vec!["issues:read".into(), "issues:write".into()])],
            ..terms
        }));
        assert_eq!(reason(house.authority.exchange(&server, &first).await), Reason::WiderThanParent, "the task is hers, too");
    });
}

#[test]
fn a_repeat_is_the_same_credential_and_another_token_another_request() {
    let house = house();
    runtime().block_on(async {
        let server = house.caller("/mcp/github");
        let by = |jti: &str| {
            let mut claims = claims(&house, IDP);
            claims["jti"] = jti.into();
            let token = oidc(&house, &claims);
            let digest = mayfly::policy::wanted::digest_of(&*token.token);
            Wanted { request_id: Some("r-1".into()), digest, ..ask(token) }
        };
        let want = by("t-1");
        let one = house.authority.exchange(&server, &want).await.unwrap();
        let again = house.authority.exchange(&server, &want).await.unwrap();
        assert_eq!(id(&one), id(&again));
        assert_eq!(reason(house.authority.exchange(&server, &by("t-2")).await), Reason::RequestIdReused);
        let renewed = house.authority.renew(&server, id(&one), None, None).await;
        assert_eq!(reason(renewed), Reason::NoLifeLeft, "the token has to be shown again");
        let all = [by("t-3"), by("t-4")].map(|want| Wanted { request_id: None, ..want });
        let issued = house.authority.exchange_all(&server, &all).await.unwrap();
        assert_eq!(issued.len(), 2, "a batch may have several subjects");
    });
}

async fn any(house: &House, server: &Caller, want: &Wanted) -> Option<Claims> {
    house.authority.exchange(server, want).await.ok().map(|issued| said(house, issued))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is asked for and whatever the token says: what is given is within the token, the task, the registration and the rights.
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
            let server = house.caller("/mcp/github");
            let mut claims = claims(&house, RIGHTS);
            (claims["exp"], claims["scope"], claims["groups"]) = ((house.now().seconds() + life).into(), json!(has), json!(groups));
            let token = oidc(&house, &claims);
            let whole = vec![("github".to_owned(), ["issues:read", "issues:write", "repo:read"].map(str::to_owned).to_vec())];
            let terms = Terms { upstreams: whole, ttl_ms: Some(task_ttl * 1000), max_ttl_ms: None, ..terms() };
            let task = match inline {
                true => TaskChoice::Inline(Box::new(Terms { upstreams: Vec::new(), ..terms })),
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

/// An agent's task with a sub-agent's below it and a server's below that, a credential in each.
async fn tree(house: &House) -> ([TaskId; 3], [String; 3]) {
    let callers = ["/agent/demo", "/agent/sub", "/mcp/echo"].map(|path| house.caller(path));
    let (mut tasks, mut tokens): (Vec<TaskId>, Vec<String>) = (Vec::new(), Vec::new());
    for (n, caller) in callers.iter().enumerate() {
        let task = match n {
            0 => house.authority.open_task(caller, &terms(), &None, false).await.unwrap(),
            _ => {
                let child = Terms { parent: tasks.last().copied(), callers: vec![caller.id().as_str().into()], ..terms() };
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
        house.authority.close_task(&agent, leaf, Outcome::Completed, "done").await.unwrap();
        assert_eq!(all_active(&house, &tokens).await, [true, true, false]);
        house.authority.close_task(&agent, root, Outcome::Completed, "done").await.unwrap();
        assert_eq!(all_active(&house, &tokens).await, [false; 3]);
        let server = house.caller("/mcp/echo");
        assert_eq!(reason(house.authority.exchange(&server, &wanted(TaskChoice::Named(leaf))).await), Reason::TaskNotActive);
        // By a rule on the root, and by one on whose task stands in the middle.
        let (tasks, tokens) = tree(&house).await;
        revoke(&house, Target::Task(tasks[0]), true).await;
        assert_eq!(all_active(&house, &tokens).await, [false; 3]);
        let (_, tokens) = tree(&house).await;
        revoke(&house, Target::Caller("spiffe://dev.mayfly.internal/agent/sub".into()), true).await;
        assert_eq!(all_active(&house, &tokens).await, [true, false, false]);
    });
}
