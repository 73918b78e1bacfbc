//! KeyService.

use mayfly::credential::keyring::RotationSchedule;
use mayfly::identity::caller::Operator;
use mayfly::introspect::IntrospectionCaller;
use mayfly::keys::run_key_maintenance;
use mayfly::ledger::record::KeyPurpose;
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::key_service_server::KeyService;
use mayfly::refusal::Reason;
use mayfly::revocation::Facts;
use mayfly::seq::Seq;
use mayfly::serve::grpc::key::KeyApi;

use super::{ROOT, World, ask, bad, ok, refused, token, world};

const ISSUER: &str = "https://mayfly.test/dev";

fn keys(w: &World) -> KeyApi {
    KeyApi(w.authority().clone())
}

fn kids(w: &World) -> Vec<String> {
    let of = pb::get_jwks_request::Of::Environment("dev".into());
    let answer = ok(w.run(keys(w).get_jwks(ask(&ROOT, pb::GetJwksRequest { of: Some(of) }))));
    let jwks: serde_json::Value = serde_json::from_str(&answer.jwks).unwrap();
    jwks["keys"].as_array().unwrap().iter().map(|k| k["kid"].as_str().unwrap().to_owned()).collect()
}

fn list(w: &World, ask_for: pb::ListKeysRequest) -> Vec<pb::Key> {
    ok(w.run(keys(w).list_keys(ask(&ROOT, ask_for)))).keys
}

fn tokens() -> pb::ListKeysRequest {
    pb::ListKeysRequest { purpose: pb::KeyPurpose::AccessToken.into(), ..Default::default() }
}

fn rotation() -> pb::RotateKeyRequest {
    pb::RotateKeyRequest { purpose: pb::KeyPurpose::AccessToken.into(), issuer: ISSUER.into(), ..Default::default() }
}

fn at_once() -> pb::RotateKeyRequest {
    pb::RotateKeyRequest { publish_ahead: Some(prost_types::Duration::default()), ..rotation() }
}

fn active(w: &World, token: &str) -> bool {
    let asker = IntrospectionCaller::Operator(Operator::LocalUid(1000));
    w.run(w.authority().introspect(&asker, token, |_, _| ())).unwrap().is_some()
}

#[test]
fn anyone_reads_the_jwks_of_an_issuer() {
    let w = world();
    let of = pb::get_jwks_request::Of::Issuer(ISSUER.into());
    for peer in [w.workload("/agent/a"), w.admin("/nobody"), ROOT] {
        let answer = ok(w.run(keys(&w).get_jwks(ask(&peer, pb::GetJwksRequest { of: Some(of.clone()) }))));
        assert_eq!(answer.issuer, ISSUER);
        assert!(answer.at_seq > 0 && answer.max_age.is_some());
    }
    assert_eq!(kids(&w).len(), 1, "the one that signs, and none that derives");
}

#[test]
fn the_jwks_of_what_is_not_there_or_for_who_is_not_there_is_refused() {
    let w = world();
    let of = |of| pb::GetJwksRequest { of: Some(of) };
    use pb::get_jwks_request::Of;
    let peer = w.workload("/agent/a");
    refused(w.run(keys(&w).get_jwks(ask(&peer, of(Of::Issuer("https://other".into()))))), Reason::NotFound);
    refused(w.run(keys(&w).get_jwks(ask(&peer, of(Of::Environment("prod".into()))))), Reason::NotFound);
    bad(w.run(keys(&w).get_jwks(ask(&peer, of(Of::Environment(String::new()))))), "environment");
    bad(w.run(keys(&w).get_jwks(ask(&peer, pb::GetJwksRequest { of: None }))), "of");
    let nobody = tonic::Request::new(of(Of::Environment("dev".into())));
    refused(w.run(keys(&w).get_jwks(nobody)), Reason::NotAuthenticated);
    w.pass(2 * 3_600_000);
    refused(w.run(keys(&w).get_jwks(ask(&peer, of(Of::Environment("dev".into()))))), Reason::SvidNoLongerValid);
}

#[test]
fn operators_list_keys_and_others_do_not() {
    let w = world();
    let all = list(&w, pb::ListKeysRequest::default());
    assert_eq!(all.len(), 2);
    assert!(all.iter().all(|k| k.state == pb::KeyState::Active as i32 && k.environment == "dev" && k.created_at.is_some()));
    let tokens = list(&w, tokens());
    assert_eq!((tokens.len(), tokens[0].issuer.as_str()), (1, ISSUER));
    let jwk: serde_json::Value = serde_json::from_str(&tokens[0].public_jwk).unwrap();
    assert_eq!((jwk["kid"].as_str(), jwk.get("d")), (Some(tokens[0].key_id.as_str()), None));
    let gone = list(&w, pb::ListKeysRequest { state: pb::KeyState::Compromised.into(), ..Default::default() });
    assert!(gone.is_empty());
    let operator = ok(w.run(keys(&w).list_keys(ask(&w.admin("/operator/you"), pb::ListKeysRequest::default()))));
    assert_eq!(operator.keys.len(), 2);
    let one = pb::ListKeysRequest { page_size: 1, ..Default::default() };
    let first = ok(w.run(keys(&w).list_keys(ask(&ROOT, one.clone()))));
    let next = pb::ListKeysRequest { page_token: first.next_page_token.clone(), ..one.clone() };
    let second = ok(w.run(keys(&w).list_keys(ask(&ROOT, next))));
    assert_ne!(first.keys[0].key_id, second.keys[0].key_id);
    assert_eq!(second.next_page_token, "");

    refused(w.run(keys(&w).list_keys(ask(&w.workload("/operator/you"), one.clone()))), Reason::NotAuthenticated);
    refused(w.run(keys(&w).list_keys(ask(&w.admin("/agent/a"), one.clone()))), Reason::DeniedByPolicy);
    refused(w.run(keys(&w).list_keys(ask(&super::Peer::Local(1), one.clone()))), Reason::DeniedByPolicy);
    let with = |f: fn(&mut pb::ListKeysRequest)| {
        let mut request = pb::ListKeysRequest::default();
        f(&mut request);
        w.run(keys(&w).list_keys(ask(&ROOT, request)))
    };
    bad(with(|r| r.purpose = 99), "purpose");
    bad(with(|r| r.state = -1), "state");
    bad(with(|r| r.page_size = -1), "page_size");
    bad(with(|r| r.page_token = "x".into()), "page_token");
    refused(with(|r| r.issuer = "https://other".into()), Reason::NotFound);
}

#[test]
fn a_rotation_publishes_first_and_signs_when_verifiers_had_time() {
    let w = world();
    let old = kids(&w);
    let answer = ok(w.run(keys(&w).rotate_key(ask(&ROOT, rotation()))));
    let (new, previous) = (answer.key.unwrap(), answer.previous.unwrap());
    assert_eq!((new.state, previous.key_id.as_str()), (pb::KeyState::Published as i32, old[0].as_str()));
    assert_eq!(kids(&w).len(), 2);
    assert_eq!(new.active_from.unwrap(), mayfly::serve::wire::timestamp(w.house.now().plus(600_000)));
    refused(w.run(keys(&w).rotate_key(ask(&ROOT, rotation()))), Reason::KeyState);
    w.run(run_key_maintenance(w.authority()));
    assert_eq!(list(&w, tokens()).iter().filter(|k| k.state == pb::KeyState::Active as i32).count(), 1);
    assert_eq!(w.authority().keyring.active(KeyPurpose::AccessToken, "dev").unwrap().id(), old[0]);
    w.pass(600_000);
    w.run(run_key_maintenance(w.authority()));
    assert_eq!(w.authority().keyring.active(KeyPurpose::AccessToken, "dev").unwrap().id(), new.key_id);
    let before = list(&w, tokens()).into_iter().find(|k| k.key_id == old[0]).unwrap();
    assert_eq!(before.state, pb::KeyState::Verifying as i32);
    let verifies = RotationSchedule::of(KeyPurpose::AccessToken).verifies_ms;
    assert_eq!(before.verifies_until.unwrap(), mayfly::serve::wire::timestamp(w.house.now().plus(verifies)));
    w.pass(verifies);
    w.run(run_key_maintenance(w.authority()));
    assert_eq!(kids(&w), [new.key_id]);
    let names = w.authority().ledger.store().list("key/").unwrap();
    assert!(!names.contains(&format!("key/{}", old[0])), "its private part is gone: {names:?}");
}

#[test]
fn an_operator_says_how_long_a_key_is_published() {
    let w = world();
    let two = prost_types::Duration { seconds: 7200, nanos: 0 };
    let new = ok(w.run(keys(&w).rotate_key(ask(&ROOT, pb::RotateKeyRequest { publish_ahead: Some(two), ..rotation() }))));
    let id = new.key.unwrap().key_id;
    let signs = || w.authority().keyring.active(KeyPurpose::AccessToken, "dev").unwrap().id().to_owned();
    w.pass(3_600_000);
    w.run(run_key_maintenance(w.authority()));
    assert_ne!(signs(), id);
    w.pass(3_600_000);
    w.run(run_key_maintenance(w.authority()));
    assert_eq!(signs(), id);
    let at_once = ok(w.run(keys(&w).rotate_key(ask(&ROOT, at_once()))));
    assert_eq!(signs(), at_once.key.unwrap().key_id);
    assert_eq!(at_once.previous.unwrap().state, pb::KeyState::Verifying as i32);
}

#[test]
fn a_repeated_rotation_makes_no_second_key() {
    let w = world();
    let named = pb::RotateKeyRequest { request_id: "r1".into(), ..rotation() };
    let first = ok(w.run(keys(&w).rotate_key(ask(&ROOT, named.clone()))));
    let again = ok(w.run(keys(&w).rotate_key(ask(&ROOT, named.clone()))));
    assert_eq!(first, again);
    assert_eq!(kids(&w).len(), 2);
    let other = pb::RotateKeyRequest { purpose: pb::KeyPurpose::Reference.into(), environment: "dev".into(), ..named };
    refused(w.run(keys(&w).rotate_key(ask(&ROOT, other))), Reason::RequestIdReused);
}

#[test]
fn a_rotation_that_is_malformed_or_not_permitted_changes_nothing() {
    let w = world();
    let with = |f: fn(&mut pb::RotateKeyRequest)| {
        let mut request = rotation();
        f(&mut request);
        w.run(keys(&w).rotate_key(ask(&ROOT, request)))
    };
    bad(with(|r| r.purpose = 0), "purpose");
    bad(with(|r| r.purpose = 99), "purpose");
    bad(with(|r| r.issuer = String::new()), "issuer");
    bad(with(|r| r.environment = "prod".into()), "environment");
    bad(with(|r| r.publish_ahead = Some(prost_types::Duration { seconds: -1, nanos: 0 })), "publish_ahead");
    bad(with(|r| r.publish_ahead = Some(prost_types::Duration { seconds: 1 << 40, nanos: 0 })), "publish_ahead");
    bad(with(|r| r.publish_ahead = Some(prost_types::Duration { seconds: 8 * 86_400, nanos: 0 })), "publish_ahead");
    bad(with(|r| r.request_id = "x".repeat(200)), "request_id");
    refused(with(|r| r.issuer = "https://other".into()), Reason::NotFound);
    refused(with(|r| r.purpose = pb::KeyPurpose::X509Ca.into()), Reason::NotServed);
    refused(w.run(keys(&w).rotate_key(ask(&w.admin("/agent/a"), rotation()))), Reason::DeniedByPolicy);
    refused(w.run(keys(&w).rotate_key(ask(&w.workload("/operator/you"), rotation()))), Reason::NotAuthenticated);
    assert_eq!(kids(&w).len(), 1);
}

#[test]
fn a_key_that_no_longer_signs_is_retired_with_what_it_signed() {
    let w = world();
    let old = kids(&w)[0].clone();
    let tokens: Vec<String> = (0..2).map(|_| token(w.issue("/agent/a"))).collect();
    let going = pb::RetireKeyRequest { key_id: old.clone(), reason: "tidying".into(), ..Default::default() };
    refused(w.run(keys(&w).retire_key(ask(&ROOT, going.clone()))), Reason::KeyState);
    ok(w.run(keys(&w).rotate_key(ask(&ROOT, at_once()))));
    let dry = ok(w.run(keys(&w).retire_key(ask(&ROOT, pb::RetireKeyRequest { dry_run: true, ..going.clone() }))));
    assert_eq!(dry.hits.unwrap().credentials, 2);
    assert!(tokens.iter().all(|t| active(&w, t)), "a dry run does nothing");
    refused(w.run(keys(&w).retire_key(ask(&ROOT, going.clone()))), Reason::ConfirmNeeded);
    let confirmed = pb::Confirmation { credentials: 2, all: false };
    let named = pb::RetireKeyRequest { confirmation: Some(confirmed), request_id: "r".into(), ..going.clone() };
    let gone = ok(w.run(keys(&w).retire_key(ask(&ROOT, named.clone()))));
    assert_eq!((gone.key.unwrap().state, gone.hits.unwrap().credentials), (pb::KeyState::Retired as i32, 2));
    assert!(!tokens.iter().any(|t| active(&w, t)));
    assert!(!kids(&w).contains(&old));
    ok(w.run(keys(&w).retire_key(ask(&ROOT, named))));

    refused(w.run(keys(&w).retire_key(ask(&ROOT, going.clone()))), Reason::KeyState);
    let unknown = pb::RetireKeyRequest { key_id: "none".into(), ..going.clone() };
    refused(w.run(keys(&w).retire_key(ask(&ROOT, unknown))), Reason::NotFound);
    bad(w.run(keys(&w).retire_key(ask(&ROOT, pb::RetireKeyRequest { reason: String::new(), ..going.clone() }))), "reason");
    bad(w.run(keys(&w).retire_key(ask(&ROOT, pb::RetireKeyRequest { key_id: String::new(), ..going.clone() }))), "key_id");
    refused(w.run(keys(&w).retire_key(ask(&w.admin("/agent/a"), going))), Reason::DeniedByPolicy);
}

#[test]
fn a_compromised_key_is_out_at_once_and_another_signs() {
    let w = world();
    let old = kids(&w)[0].clone();
    let stolen = token(w.issue("/agent/a"));
    let going = pb::CompromiseKeyRequest { key_id: old.clone(), reason: "it was on a laptop".into(), ..Default::default() };
    let dry = ok(w.run(keys(&w).compromise_key(ask(&ROOT, pb::CompromiseKeyRequest { dry_run: true, ..going.clone() }))));
    assert_eq!((dry.seq, dry.hits.unwrap().credentials, dry.replacement), (0, 1, None));
    let done = ok(w.run(keys(&w).compromise_key(ask(&ROOT, going.clone()))));
    let replacement = done.replacement.unwrap();
    assert_eq!((kids(&w), replacement.state), (vec![replacement.key_id.clone()], pb::KeyState::Active as i32));
    assert!(!active(&w, &stolen));
    assert!(active(&w, &token(w.issue("/agent/a"))), "issuing goes on with the new key");
    // The thief of a key chooses every claim, including the revision.
    let forged = Facts { key: &old, revision: Seq::from_u64((1 << 53) - 1).unwrap(), ..Facts::default() };
    let hit = w.authority().ledger.peek(|s| s.rules.covers(&forged)).unwrap();
    assert!(hit.seq.as_u64() >= done.seq, "the rule is in force from the seq that was answered on");
    let names = w.authority().ledger.store().list("key/").unwrap();
    assert!(!names.contains(&format!("key/{old}")));
    refused(w.run(keys(&w).compromise_key(ask(&ROOT, going.clone()))), Reason::KeyState);
    refused(w.run(keys(&w).compromise_key(ask(&w.admin("/service/echo"), going))), Reason::DeniedByPolicy);
}

#[test]
fn compromising_needs_a_confirmation_and_is_done_once() {
    let w = world();
    let old = kids(&w)[0].clone();
    let _tokens: Vec<_> = (0..3).map(|_| w.issue("/agent/a")).collect();
    let going = pb::CompromiseKeyRequest { key_id: old.clone(), reason: "gone".into(), ..Default::default() };
    refused(w.run(keys(&w).compromise_key(ask(&ROOT, going.clone()))), Reason::ConfirmNeeded);
    assert_eq!(kids(&w), std::slice::from_ref(&old), "nothing was done");
    let all = pb::Confirmation { credentials: 0, all: true };
    let named = pb::CompromiseKeyRequest { confirmation: Some(all), request_id: "r".into(), ..going };
    let ahead = ok(w.run(keys(&w).compromise_key(ask(&ROOT, pb::CompromiseKeyRequest { dry_run: true, ..named.clone() }))));
    let first = ok(w.run(keys(&w).compromise_key(ask(&ROOT, named.clone()))));
    let again = ok(w.run(keys(&w).compromise_key(ask(&ROOT, named))));
    assert_eq!((first.seq, &first.replacement), (again.seq, &again.replacement));
    let hit = [ahead.hits, first.hits, again.hits].map(|hits| hits.unwrap().credentials);
    assert_eq!(hit, [3, 3, 3], "what was hit is what would have been");
    assert_eq!(kids(&w).len(), 1);
}

#[test]
fn a_key_that_does_not_sign_is_compromised_without_a_replacement() {
    let w = world();
    let old = kids(&w)[0].clone();
    ok(w.run(keys(&w).rotate_key(ask(&ROOT, at_once()))));
    let going = pb::CompromiseKeyRequest { key_id: old, reason: "gone".into(), ..Default::default() };
    let done = ok(w.run(keys(&w).compromise_key(ask(&ROOT, going))));
    assert_eq!(kids(&w).len(), 1);
    assert!(done.replacement.is_some(), "the one that signs now is named");
}

#[test]
fn reference_keys_change_with_the_day() {
    let w = world();
    let id = || w.authority().keyring.active(KeyPurpose::Reference, "dev").unwrap().id().to_owned();
    let first = id();
    w.run(run_key_maintenance(w.authority()));
    assert_eq!(id(), first);
    w.pass(24 * 3_600_000);
    w.run(run_key_maintenance(w.authority()));
    assert_ne!(id(), first);
}
