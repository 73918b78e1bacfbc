//! Tests of keys from creation to removal: plans, states, JWKS, sealing.

use std::collections::BTreeSet;

use p256::ecdsa::signature::Verifier as _;

use super::*;
use crate::testing::{NamedValueStore, TestLog, TestSealer, carry_out, keyring};
use mayfly_base::limits;
use mayfly_base::refusal::Reason;
use mayfly_base::system::System;
use mayfly_ledger::record::Author;
use mayfly_ledger::revocation::{Facts, Target};
use mayfly_verify::seq::{Millis, Seq};

const T0: Millis = Millis(1_700_000_000_000);
const TOKENS: KeyPurpose = KeyPurpose::AccessToken;

fn published(log: &TestLog) -> Vec<String> {
    let jwks: serde_json::Value = serde_json::from_str(&jwks(&log.state.keys, "dev")).unwrap();
    jwks["keys"].as_array().unwrap().iter().map(|k| k["kid"].as_str().unwrap().to_owned()).collect()
}

fn in_state(log: &TestLog, purpose: KeyPurpose, state: KeyState) -> Vec<String> {
    log.state.keys.iter().filter(|(_, k)| k.purpose == purpose && k.state == state).map(|(id, _)| id.to_string()).collect()
}

#[test]
fn the_jwks_is_of_one_issuer_and_its_points_are_right_by_an_independent_check() {
    let mut log = TestLog::new(T0);
    let (ring, _) = keyring(&mut log);
    let other = generate(TOKENS, "prod", KeyState::Active, &TestSealer, &System::real()).ok().unwrap();
    let record = other.keep(&NamedValueStore::default()).unwrap();
    log.put(vec![mayfly_ledger::record::Record::new(Author::LocalUid(0), mayfly_ledger::record::Event::KeyAdded(record))]);
    let text = jwks(&log.state.keys, "dev");
    assert_eq!(text, jwks(&log.state.keys, "dev"), "deterministic");
    let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
    let keys = parsed["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 1, "no key of another issuer, none that derives");
    let jwk = &keys[0];
    assert_eq!(
        (&jwk["kty"], &jwk["crv"], &jwk["use"], &jwk["alg"]),
        (&"EC".into(), &"P-256".into(), &"sig".into(), &"ES256".into())
    );
    assert_eq!(jwk.as_object().unwrap().len(), 7, "no member beyond the public ones: {jwk}");

    let key = ring.active(TOKENS, "dev").unwrap();
    assert_eq!(jwk["kid"], key.id());
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"something");
    let signature = p256::ecdsa::Signature::from_slice(&key.sign(&digest).unwrap()).unwrap();
    let mut point = vec![4];
    for name in ["x", "y"] {
        point.extend(data_encoding::BASE64URL_NOPAD.decode(jwk[name].as_str().unwrap().as_bytes()).unwrap());
    }
    p256::ecdsa::VerifyingKey::from_sec1_bytes(&point).unwrap().verify(b"something", &signature).unwrap();
}

#[test]
fn a_rotation_publishes_first_signs_later_and_removes_what_has_ended() {
    let mut log = TestLog::new(T0);
    let (ring, store) = keyring(&mut log);
    let first = in_state(&log, TOKENS, KeyState::Active);
    let step = |log: &mut TestLog, ms: u64| {
        log.time = log.time.plus(ms);
        let plan = due(&log.state.keys, TOKENS, "dev", log.time);
        let was_empty = plan.is_empty();
        if !was_empty {
            carry_out(log, &store, TOKENS, plan);
        }
        ring.sync(&log.state.keys, &store, &TestSealer).unwrap();
        assert!(due(&log.state.keys, TOKENS, "dev", log.time).is_empty(), "it comes to rest");
        assert_eq!(in_state(log, TOKENS, KeyState::Active).len(), 1, "one signs, always");
        assert_eq!(ring.active(TOKENS, "dev").unwrap().id(), in_state(log, TOKENS, KeyState::Active)[0]);
        !was_empty
    };
    assert!(!step(&mut log, limits::KEY_SIGNS_MS - limits::KEY_PUBLISHED_AHEAD_MS - 1));
    assert!(step(&mut log, 1), "published ahead");
    let next = in_state(&log, TOKENS, KeyState::Next);
    assert_eq!((next.len(), published(&log).len()), (1, 2));
    assert_eq!(in_state(&log, TOKENS, KeyState::Active), first);
    assert!(!step(&mut log, limits::KEY_PUBLISHED_AHEAD_MS - 1));
    assert!(step(&mut log, 1), "takes over");
    assert_eq!((in_state(&log, TOKENS, KeyState::Active), in_state(&log, TOKENS, KeyState::Retired)), (next, first.clone()));
    assert!(ring.get(TOKENS, &first[0]).is_some(), "it makes its own again");
    assert!(!step(&mut log, limits::KEY_VERIFIES_MS - 1));
    assert_eq!(published(&log).len(), 2);
    assert!(step(&mut log, 1), "removed");
    assert_eq!(published(&log), in_state(&log, TOKENS, KeyState::Active));
    assert!(ring.get(TOKENS, &first[0]).is_none());
    Keyring::shred(&log.state.keys, &store).unwrap();
    assert!(store.named(&value_name(&first[0])).unwrap().is_none());
}

#[test]
fn reference_keys_follow_each_other_with_the_day() {
    let mut log = TestLog::new(T0);
    let (_, store) = keyring(&mut log);
    let day = 24 * 3600 * 1000;
    let mut seen = BTreeSet::from([in_state(&log, KeyPurpose::Reference, KeyState::Active)]);
    let midnight = Millis((T0.0 / day + 1) * day);
    assert!(due(&log.state.keys, KeyPurpose::Reference, "dev", midnight.minus(1)).is_empty());
    for n in 0..3 {
        log.time = midnight.plus(n * day + n * 1_000);
        let plan = due(&log.state.keys, KeyPurpose::Reference, "dev", log.time);
        carry_out(&mut log, &store, KeyPurpose::Reference, plan);
        assert!(seen.insert(in_state(&log, KeyPurpose::Reference, KeyState::Active)));
        assert!(due(&log.state.keys, KeyPurpose::Reference, "dev", log.time).is_empty());
    }
    assert!(published(&log).iter().all(|k| log.state.keys[k.as_str()].purpose == TOKENS));
}

#[test]
fn a_compromised_key_is_out_at_once_and_its_rule_covers_whatever_it_signs() {
    let mut log = TestLog::new(T0);
    let (ring, store) = keyring(&mut log);
    let stolen = in_state(&log, TOKENS, KeyState::Active).remove(0);
    for verdict in
        log.put(compromise(&log.state.keys, &stolen, "found on a paste site", log.time, &Author::LocalUid(0), 3).unwrap())
    {
        verdict.unwrap();
    }
    assert!(published(&log).is_empty());
    ring.sync(&log.state.keys, &store, &TestSealer).unwrap();
    assert!(ring.active(TOKENS, "dev").is_none() && ring.get(TOKENS, &stolen).is_none());
    let forged = Facts { revision: Seq::from_u64((1 << 53) - 1).unwrap(), key: &stolen, ..Facts::default() };
    assert_eq!(log.state.rules.covers(&forged).unwrap().target, Target::SigningKey(stolen.as_str().into()));
    let again = compromise(&log.state.keys, &stolen, "", log.time, &Author::LocalUid(0), 3);
    assert_eq!(again.unwrap_err().reason, Reason::KeyState);
    let plan = due(&log.state.keys, TOKENS, "dev", log.time);
    assert_eq!(plan.make, Some(KeyState::Active), "another signs at once");
    carry_out(&mut log, &store, TOKENS, plan);
    ring.sync(&log.state.keys, &store, &TestSealer).unwrap();
    assert_ne!(ring.active(TOKENS, "dev").unwrap().id(), stolen);
}

#[test]
fn a_compromise_while_another_is_published_lets_that_one_sign_at_once() {
    let mut log = TestLog::new(T0);
    let (_, store) = keyring(&mut log);
    let plan = rotate(&log.state.keys, TOKENS, "dev", 1_000).unwrap();
    carry_out(&mut log, &store, TOKENS, plan);
    assert_eq!(rotate(&log.state.keys, TOKENS, "dev", 1_000).unwrap_err().reason, Reason::KeyState);
    let (stolen, next) = (in_state(&log, TOKENS, KeyState::Active), in_state(&log, TOKENS, KeyState::Next));
    log.put(compromise(&log.state.keys, &stolen[0], "", log.time, &Author::LocalUid(0), 3).unwrap());
    let plan = due(&log.state.keys, TOKENS, "dev", log.time);
    carry_out(&mut log, &store, TOKENS, plan);
    assert_eq!(in_state(&log, TOKENS, KeyState::Active), next);
}

#[test]
fn a_key_that_no_longer_signs_can_be_removed_early_and_no_other() {
    let mut log = TestLog::new(T0);
    let (_, store) = keyring(&mut log);
    let old = in_state(&log, TOKENS, KeyState::Active).remove(0);
    let early = |log: &TestLog, kid: &str| retire(&log.state.keys, kid, "audit", log.time, &Author::LocalUid(0), 3);
    assert_eq!(early(&log, &old).unwrap_err().reason, Reason::KeyState);
    assert_eq!(early(&log, "nobody").unwrap_err().reason, Reason::NotFound);
    let plan = rotate(&log.state.keys, TOKENS, "dev", 0).unwrap();
    carry_out(&mut log, &store, TOKENS, plan);
    let records = early(&log, &old).unwrap();
    log.put(records).into_iter().for_each(|v| v.unwrap());
    assert!(!published(&log).contains(&old));
    assert!(log.state.rules.covers(&Facts { key: &old, ..Facts::default() }).is_some());
}

#[test]
fn a_key_opens_only_for_what_it_was_sealed_for_and_only_with_its_own_record() {
    let mut log = TestLog::new(T0);
    let (_, store) = keyring(&mut log);
    let kid: Box<str> = in_state(&log, TOKENS, KeyState::Active).remove(0).into();
    for change in [
        |k: &mut ManagedKey| k.environment = "prod".into(),
        |k: &mut ManagedKey| k.purpose = KeyPurpose::StatusList,
        |k: &mut ManagedKey| k.public[7] ^= 1,
        |k: &mut ManagedKey| k.algorithm = "RS256".into(),
    ] {
        let mut keys = log.state.keys.clone();
        change(keys.get_mut(&kid).unwrap());
        let ring = Keyring::default();
        assert!(ring.sync(&keys, &store, &TestSealer).is_err());
        assert!(ring.get(TOKENS, &kid).is_none());
        assert!(ring.active(KeyPurpose::Reference, "dev").is_some(), "the others are loaded");
    }
    store.delete(&value_name(&kid), Precondition::Any).unwrap();
    let fault = Keyring::default().sync(&log.state.keys, &store, &TestSealer).unwrap_err();
    assert!(fault.what.contains(&*kid), "{fault}");
}

#[test]
fn one_key_has_one_purpose() {
    let mut log = TestLog::new(T0);
    let (ring, _) = keyring(&mut log);
    let (token, reference) = (ring.active(TOKENS, "dev").unwrap(), ring.active(KeyPurpose::Reference, "dev").unwrap());
    assert!(ring.get(KeyPurpose::Reference, token.id()).is_none());
    assert!(ring.get(TOKENS, reference.id()).is_none());
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"x");
    assert!(token.mac().is_none() && reference.sign(&digest).is_err());
    assert!(generate(KeyPurpose::Unspecified, "dev", KeyState::Active, &TestSealer, &System::real()).is_err());
}

#[test]
fn a_signature_comes_out_of_der_whatever_zeros_its_numbers_begin_with() {
    let mut log = TestLog::new(T0);
    let (ring, _) = keyring(&mut log);
    let key = ring.active(TOKENS, "dev").unwrap();
    let KeyMaterial::Ec(pair) = &key.private else { panic!("no key that signs") };
    let public =
        aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref());
    let mut short = 0;
    // Each number is shorter than 32 bytes once in 256, and has a leading zero byte once in two.
    for n in 0..4_000u32 {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &n.to_be_bytes());
        let signature = key.sign(&digest).unwrap();
        short += usize::from(signature[0] == 0) + usize::from(signature[32] == 0);
        public.verify(&n.to_be_bytes(), &signature).unwrap();
    }
    assert!(short > 0, "no short number was among them");
}

#[test]
fn what_is_no_signature_in_der_gives_none() {
    let good = [&[0x30, 8, 2, 2, 0, 0x81, 2, 2, 1, 2][..]].concat();
    let mut expected = [0; 64];
    (expected[31], expected[62], expected[63]) = (0x81, 1, 2);
    assert_eq!(fixed(&good), Some(expected));
    for n in 0..good.len() {
        assert_eq!(fixed(&good[..n]), None, "cut after {n}");
    }
    let long = [&[0x30, 36, 2, 33, 1][..], &[0; 32][..], &[2, 1, 1][..]].concat();
    for (what, der) in [
        ("a number above 32 bytes", long),
        ("bytes after it", [&good[..], &[0]].concat()),
        ("a third number", vec![0x30, 9, 2, 1, 1, 2, 1, 2, 2, 1, 3]),
        ("no integer", vec![0x30, 6, 3, 1, 1, 2, 1, 2]),
        ("no sequence", vec![0x31, 6, 2, 1, 1, 2, 1, 2]),
    ] {
        assert_eq!(fixed(&der), None, "{what}");
    }
}
