//! Subject tokens: what they permit, what they do not, and what ends with them (RFC 8693; docs/delegation.md).

use std::sync::Arc;

use mayfly::credential::jwt::{Claims, Jwks, authentic};
use mayfly::credential::keyring::jwks;
use mayfly::policy::exchange_request::TaskRequest;
use mayfly::policy::lifetime::LifetimeBound;
use mayfly::policy::subject::{RequestedSubject, SubjectTokenKind, UnverifiedToken};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::*;
use crate::kit::house::{DOMAIN, IDP};
use crate::kit::signer::Signer;

pub(super) const REPOS: &str = "https://repos.dev.mayfly.internal";
const MAYFLY: &str = "https://mayfly.test";
pub(super) const SERVER: &str = "spiffe://dev.mayfly.internal/mcp/repos";

pub(super) fn sent(kind: SubjectTokenKind, token: impl Into<String>) -> UnverifiedToken {
    UnverifiedToken { kind, token: Zeroizing::new(token.into()) }
}

/// Valid claims of the subject ada at an issuer, for the repos server, for five minutes.
pub(super) fn claims(house: &House, iss: &str) -> Value {
    let now = house.now().seconds();
    json!({"iss": iss, "sub": "ada", "aud": REPOS, "iat": now - 10, "exp": now + 240, "jti": "t-1"})
}

pub(super) fn oidc(house: &House, claims: &Value) -> UnverifiedToken {
    sent(SubjectTokenKind::Oidc, house.signer.token(&json!({"alg": "ES256", "kid": "k1", "typ": "JWT"}), claims))
}

pub(super) fn jwt_svid(house: &House, sub: &str, change: impl FnOnce(&mut Value)) -> UnverifiedToken {
    let now = house.now().seconds();
    let mut claims = json!({"sub": sub, "aud": [REPOS], "iat": now - 10, "exp": now + 300});
    change(&mut claims);
    sent(SubjectTokenKind::JwtSvid, house.signer.token(&json!({"alg": "ES256", "kid": "jwt1", "typ": "JWT"}), &claims))
}

/// A request for issues at repos, in an inline task, on a subject's behalf.
pub(super) fn ask(token: UnverifiedToken) -> ExchangeRequest {
    let terms = TaskRequest { upstreams: Vec::new(), callers: Vec::new(), max_ttl_ms: None, ttl_ms: None, ..terms() };
    within(TaskChoice::Inline(Box::new(terms)), token)
}

pub(super) fn within(task: TaskChoice, token: UnverifiedToken) -> ExchangeRequest {
    let scopes: Arc<[String]> = ["issues:read".to_owned()].into();
    let behalf = Some(Box::new(RequestedSubject::Sent(token)));
    ExchangeRequest { upstream: "repos".into(), scopes, tool: "".into(), ttl_ms: None, behalf, ..wanted(task) }
}

pub(super) fn said(house: &House, issued: IssuedCredential) -> Claims {
    let keys = house.authority.ledger.peek(|s| jwks(&s.keys, "dev"));
    authentic(&token(issued), &Jwks::parse(&keys).unwrap()).unwrap().0
}

/// The message of a refusal for the field of the subject token.
fn refused_token(answer: Result<IssuedCredential, Error>) -> String {
    match answer {
        Err(Error::Refusal(no)) if no.reason == Reason::InvalidField && no.field == Some("subject_token") => no.message,
        // The issuer may have published the key since, so its keys are fetched again in a few seconds.
        Err(Error::Refusal(no)) if no.reason == Reason::NotReady && no.retry_after.is_some() => {
            assert!(no.message.contains("its key is not among those of issuer"), "{no}");
            "kid".to_owned()
        }
        Err(no) => panic!("refused otherwise: {no:?}"),
        Ok(_) => panic!("it was not refused"),
    }
}

#[test]
fn a_server_acts_on_behalf_of_who_sent_the_token_and_the_claims_say_so() {
    let house = house();
    runtime().block_on(async {
        let server = house.caller("/mcp/repos");
        let issued = house.authority.exchange(&server, &ask(oidc(&house, &claims(&house, IDP)))).await.unwrap();
        assert_eq!(issued.summary().about.bound, LifetimeBound::SubjectToken as u32, "the token ends first, and is told");
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
        let server = house.caller("/mcp/repos");
        let agent = "spiffe://dev.mayfly.internal/agent/demo";
        let issued = house.authority.exchange(&server, &ask(jwt_svid(&house, agent, |_| {}))).await.unwrap();
        let claims = said(&house, issued);
        assert_eq!((claims.sub.as_str(), claims.subject_issuer()), (agent, DOMAIN));
        assert!(claims.own.subject_token.unwrap().id.starts_with("sha256:"), "it has no jti, so it is named by what was signed");
        // The subject is the caller itself, so there is no delegation.
        let issued = house.authority.exchange(&server, &ask(jwt_svid(&house, SERVER, |_| {}))).await.unwrap();
        let own = said(&house, issued);
        assert_eq!((own.sub.as_str(), own.act, own.own.sub_iss), (SERVER, None, None));
        for (bad, part) in [
            (jwt_svid(&house, "spiffe://unknown.example/agent", |_| {}), "bundle"),
            (jwt_svid(&house, agent, |c| c["aud"] = json!([REPOS, "https://other.example"])), "several audiences"),
            (jwt_svid(&house, agent, |c| c["aud"] = json!([])), "several audiences, or for none"),
            (jwt_svid(&house, agent, |c| c["aud"] = MAYFLY.into()), "an assertion is no subject token"),
            (jwt_svid(&house, agent, |c| c["exp"] = (house.now().seconds() - 1).into()), "exp has not come"),
            (jwt_svid(&house, agent, |c| c["jti"] = "x\n".into()), "jti"),
        ] {
            let said = refused_token(house.authority.exchange(&server, &ask(bad)).await);
            assert!(said.contains(part), "{part}: {said}");
        }
        // A caller of another environment gets nothing here, though the bundle vouches for it.
        let stranger = jwt_svid(&house, "spiffe://dev.mayfly.internal", |_| {});
        refused_token(house.authority.exchange(&server, &ask(stranger)).await);
    });
}

#[test]
fn what_is_forged_or_for_somebody_else_is_refused_as_a_bad_subject_token() {
    let house = house();
    runtime().block_on(async {
        let server = house.caller("/mcp/repos");
        let now = house.now().seconds();
        let with = |change: &dyn Fn(&mut Value)| {
            let mut claims = claims(&house, IDP);
            change(&mut claims);
            oidc(&house, &claims)
        };
        let header = |change: &dyn Fn(&mut Value)| {
            let mut header = json!({"alg": "ES256", "kid": "k1", "typ": "JWT"});
            change(&mut header);
            sent(SubjectTokenKind::Oidc, house.signer.token(&header, &claims(&house, IDP)))
        };
        let other = Signer::new("ES256");
        let cases = [
            (header(&|h| h["alg"] = "none".into()), "alg"),
            (header(&|h| h["alg"] = "HS256".into()), "alg"),
            (header(&|h| h["typ"] = "dpop+jwt".into()), "typ"),
            (header(&|h| h["kid"] = "other".into()), "kid"),
            (header(&|h| h["jku"] = "https://evil.example".into()), "jku"),
            (header(&|h| h["crit"] = json!(["exp"])), "crit"),
            (
                sent(SubjectTokenKind::Oidc, other.token(&json!({"alg": "ES256", "kid": "k1"}), &claims(&house, IDP))),
                "the issuer's key",
            ),
            (with(&|c| c["iss"] = "https://other.example".into()), "is not configured on this server"),
            (with(&|c| c["aud"] = json!([REPOS])), "aud is one text"),
            (with(&|c| c["aud"] = json!([REPOS, "x"])), "several audiences"),
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
            (sent(SubjectTokenKind::Oidc, "a.b.c"), "no JWT"),
            (
                sent(
                    SubjectTokenKind::JwtSvid,
                    house.signer.token(&json!({"alg": "ES256", "kid": "jwt1"}), &claims(&house, IDP)),
                ),
                "SPIFFE ID",
            ),
            (
                sent(
                    SubjectTokenKind::Mayfly,
                    house.signer.token(&json!({"alg": "ES256", "kid": "k1", "typ": "at+jwt"}), &claims(&house, IDP)),
                ),
                "mayfly issued",
            ),
        ];
        for (n, (bad, part)) in cases.into_iter().enumerate() {
            let said = refused_token(house.authority.exchange(&server, &ask(bad)).await);
            assert!(said.contains(part), "case {n} wants {part}: {said}");
        }
        // Another caller cannot use a token that is valid for the repos server, and nothing was issued for any of the attempts.
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
        let (agent, server) = (house.caller("/agent/demo"), house.caller("/mcp/repos"));
        let repos = || vec![("repos".to_owned(), vec!["issues:read".to_owned(), "issues:write".to_owned()])];
        let own = TaskRequest { upstreams: repos(), callers: vec![SERVER.into()], ..terms() };
        let task = house.authority.open_task(&agent, &own, &None, false).await.unwrap();
        let scopes: Arc<[String]> = ["issues:read".to_owned()].into();
        let plain = ExchangeRequest { upstream: "repos".into(), scopes, tool: "".into(), ..wanted(TaskChoice::Named(task)) };
        let mut got = Vec::new();
        for _ in 0..3 {
            let issued = house.authority.exchange(&agent, &plain).await.unwrap();
            got.push((id(&issued), token(issued)));
        }
        let [(first, one), (second, two), (third, three)] = got.try_into().unwrap();
        let shown = |token: &str| sent(SubjectTokenKind::Mayfly, token);
        let derived = house.authority.exchange(&server, &within(TaskChoice::Named(task), shown(&one))).await.unwrap();
        let derived_id = id(&derived);
        let claims = said(&house, derived);
        assert_eq!(claims.sub, agent.id().as_str(), "whoever it was issued to is the subject");
        assert_eq!(claims.own.ancestors.iter().map(|a| a.id).collect::<Vec<_>>(), [first]);
        // Without a named task, the new task is a child of the credential's task.
        let below = house.authority.exchange(&server, &ask(shown(&one))).await.unwrap();
        assert_eq!(said(&house, below).own.tasks.iter().map(|t| t.id).next(), Some(task));
        // The subject has no right to further scopes of the same upstream, and none in another task.
        let mut wider = within(TaskChoice::Named(task), shown(&one));
        wider.scopes = ["issues:write".to_owned()].into();
        assert_eq!(reason(house.authority.exchange(&server, &wider).await), Reason::WiderThanParent);
        let elsewhere = house.authority.open_task(&agent, &own, &None, false).await.unwrap();
        let other = within(TaskChoice::Named(elsewhere), shown(&one));
        assert_eq!(reason(house.authority.exchange(&server, &other).await), Reason::OutsideTask);
        // A credential that was given back is no evidence.
        house.authority.release(&agent, second).await.unwrap();
        let said = refused_token(house.authority.exchange(&server, &within(TaskChoice::Named(task), shown(&two))).await);
        assert!(said.contains("given back"), "{said}");
        // A revocation reaches everything that depends on the credential, which is no evidence any more.
        revoke(&house, Target::Credential(first), true).await;
        assert!(
            house.authority.ledger.peek(|s| s
                .rules
                .covers(&s.facts(&s.credentials.get(&derived_id).unwrap(), s.tasks.get(&task).unwrap()))
                .is_some())
        );
        let again = within(TaskChoice::Named(task), shown(&one));
        assert_eq!(reason(house.authority.exchange(&server, &again).await), Reason::Revoked);
        // An altered credential is not recognized. The last character of the signature has unused bits, so its first character is changed.
        let (signed, signature) = three.rsplit_once('.').unwrap();
        let first = if signature.starts_with('A') { 'B' } else { 'A' };
        let altered = format!("{signed}.{first}{}", &signature[1..]);
        refused_token(house.authority.exchange(&server, &within(TaskChoice::Named(task), shown(&altered))).await);
        let third = third.to_string();
        house.authority.close_task(&Actor::Workload(agent.clone()), task, TaskOutcome::Completed, "done").await.unwrap();
        let late = house.authority.exchange(&server, &within(TaskChoice::Named(task), shown(&three))).await;
        assert!(late.is_err(), "{third} ended with its task");
    });
}

#[test]
fn a_chain_of_servers_names_every_actor_and_is_bounded() {
    let house = house();
    runtime().block_on(async {
        let server = house.caller("/mcp/repos");
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
fn a_repeat_is_the_same_credential_and_another_token_another_request() {
    let house = house();
    runtime().block_on(async {
        let server = house.caller("/mcp/repos");
        let by = |jti: &str| {
            let mut claims = claims(&house, IDP);
            claims["jti"] = jti.into();
            let token = oidc(&house, &claims);
            let digest = mayfly::policy::exchange_request::digest_of(&*token.token);
            ExchangeRequest { request_id: Some("r-1".into()), digest, ..ask(token) }
        };
        let want = by("t-1");
        let one = house.authority.exchange(&server, &want).await.unwrap();
        let again = house.authority.exchange(&server, &want).await.unwrap();
        assert_eq!(id(&one), id(&again));
        assert_eq!(reason(house.authority.exchange(&server, &by("t-2")).await), Reason::RequestIdReused);
        let renewed = house.authority.renew(&server, id(&one), None, None, None).await;
        assert_eq!(reason(renewed), Reason::NoLifeLeft, "the token has to be shown again");
        let all = [by("t-3"), by("t-4")].map(|want| ExchangeRequest { request_id: None, ..want });
        let issued = house.authority.exchange_all(&server, &all).await.unwrap();
        assert_eq!(issued.len(), 2, "a batch may have several subjects");
    });
}
