//! The shared vectors for JWT-SVIDs, and third-party vectors for their signatures.

use crate::jwt_kit::{ID, Signer, bundles_of, verify};
use crate::kit::pki::{NOW, trust_domain};
use crate::kit::vectors;
use data_encoding::BASE64URL_NOPAD;
use mayfly::identity::bundle::{Bundle, BundleDefect, Bundles};
use mayfly::identity::jwk::{Algorithm, VerifyingKey};
use mayfly::identity::jws::CompactJws;
use serde_json::{Value, json};

const ALG: &str = "ES384";

fn outcome(token: &str, bundles: &Bundles) -> &'static str {
    verify(token, bundles).map_or_else(|defect| defect.code(), |_| "accepted")
}

/// Builds the case and returns the names of the verdicts: one for each form of the case.
fn verdicts(case: &str) -> Vec<&'static str> {
    let signer = Signer::new(ALG);
    let bundles = signer.bundles();
    let header = |change: &dyn Fn(&mut Value)| vec![outcome(&signer.with_header(change), &bundles)];
    let claims = |change: &dyn Fn(&mut Value)| vec![outcome(&signer.with_claims(change), &bundles)];
    let without = |name: &'static str| move |v: &mut Value| drop(v.as_object_mut().unwrap().remove(name));
    match case {
        "success: sub under trustdomain, aud match, exp future, kid authority1 (ES384)" => {
            vec![outcome(&signer.good(), &bundles)]
        }
        "not a JWT (\"invalid token\")" => vec![outcome("invalid token", &bundles)],
        "alg HS256" => header(&|h| h["alg"] = "HS256".into()),
        "alg none" => header(&|h| h["alg"] = "none".into()),
        "alg EdDSA" => header(&|h| h["alg"] = "EdDSA".into()),
        "sub missing" => claims(&without("sub")),
        "exp missing" => claims(&without("exp")),
        "aud missing" => claims(&without("aud")),
        "exp in the past" => claims(&|c| c["exp"] = (NOW.seconds() - 1).into()),
        "aud does not contain the expected value" => claims(&|c| c["aud"] = json!(["https://somebody.example"])),
        "aud an array of two with the expected value" => {
            claims(&|c| c["aud"] = json!(["https://somebody.example", crate::jwt_kit::AUDIENCE]))
        }
        "sub is not a SPIFFE ID" => claims(&|c| c["sub"] = "invalid subject".into()),
        "kid header missing" => header(&without("kid")),
        "sub in a trust domain without a bundle" => claims(&|c| c["sub"] = "spiffe://another.test/host".into()),
        "kid unknown in the bundle" => header(&|h| h["kid"] = "authority2".into()),
        "signed by another key under a known kid" => vec![outcome(&Signer::new(ALG).good(), &bundles)],
        "typ header \"invalid\"" => header(&|h| h["typ"] = "invalid".into()),
        "typ absent, JWT or JOSE" => {
            [header(&without("typ")), header(&|h| h["typ"] = "JWT".into()), header(&|h| h["typ"] = "JOSE".into())].concat()
        }
        "JWS JSON serialization" => {
            let good = signer.good();
            let parts: Vec<&str> = good.split('.').collect();
            let flat = json!({"protected": parts[0], "payload": parts[1], "signature": parts[2]});
            let general = json!({"payload": parts[1], "signatures": [{"protected": parts[0], "signature": parts[2]}]});
            vec![outcome(&flat.to_string(), &bundles), outcome(&general.to_string(), &bundles)]
        }
        "header other than alg, kid, typ present (for example jku, x5u, crit, jwk)" => {
            ["jku", "x5u", "crit", "jwk"].iter().flat_map(|name| header(&|h| h[*name] = "x".into())).collect()
        }
        "bundle key with use other than jwt-svid" => {
            vec![outcome(&signer.good(), &signer.bundles_with(|jwk| jwk["use"] = "wit-svid".into()))]
        }
        "key in bundle without kid" => {
            let mut jwk = signer.jwk();
            jwk["use"] = "jwt-svid".into();
            let document = json!({"keys": [jwk]}).to_string();
            let refused = Bundle::from_jwks(trust_domain("example.org"), document.as_bytes());
            assert_eq!(refused, Err(BundleDefect::JwtWithoutKid(0)));
            vec!["bundle refused"]
        }
        other => panic!("a case that is not built here: {other}"),
    }
}

#[test]
fn all_jwt_svids() {
    let Some(folder) = vectors::folder("spiffe") else { return };
    let file = vectors::json(&folder, "verdicts.json");
    let cases = file["jwtsvid"].as_array().unwrap();
    for case in cases {
        // For vectors that give a section of the standard instead of a name.
        let (name, verdict) = (case["case"].as_str().unwrap(), case["verdict"].as_str().unwrap());
        let expected = match (case["reason"].as_str(), verdict) {
            (None, _) | (Some("3.2"), "accept") => "accepted",
            (Some("3.2"), _) => "missing_aud",
            (Some("JWT-SVID 2.1" | "2.1: not in the table"), _) => "unsupported_alg",
            (Some("2: MUST NOT be included"), _) => "header_parameter",
            (Some("5.1"), _) => "malformed",
            // An ignored key has the same effect as a missing one.
            (Some("6.2"), "ignore that key") => "unknown_kid",
            // "ignore or refuse the bundle": mayfly refuses it.
            (Some("6.1"), _) => "bundle refused",
            (Some(name), _) => name,
        };
        assert_eq!(verdict == "accept", expected == "accepted", "{case}");
        let ours = verdicts(name);
        assert!(!ours.is_empty() && ours.iter().all(|v| *v == expected), "{case}: {ours:?}");
    }
    assert_eq!(cases.len(), 22);
    println!("jwtsvid: {} run, 0 exceptions, 0 skipped", cases.len());
}

#[test]
fn the_algorithms_are_those_of_the_list() {
    let Some(folder) = vectors::folder("spiffe") else { return };
    let file = vectors::json(&folder, "verdicts.json");
    let list: Vec<&str> = file["jwtsvid_alg_allow_list"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
    assert_eq!(Algorithm::ALL.iter().map(|a| a.name()).collect::<Vec<_>>(), list);
}

/// `None`: refused before a signature was checked.
fn signature_holds(token: &str, jwk: &Value) -> Option<bool> {
    let parts = CompactJws::split(token).ok()?;
    let header: Value = serde_json::from_slice(&parts.header).ok()?;
    let alg = Algorithm::from_name(header["alg"].as_str()?)?;
    let key = VerifyingKey::from_jwk(jwk.as_object()?).ok()?;
    Some(key.verifies(alg, parts.signed.as_bytes(), &parts.signature()?))
}

const MAC: &str = "a MAC, which is never taken";
const OTHER_ALG: &str = "the key names another algorithm of its type, which then is its only one";
const NO_ALG: &str = "its key is for ES521, which RFC 7518 does not know";
const ENCRYPTION: &str = "its key says use: enc, which the bundle asks and not the key";

/// The wycheproof cases that mayfly judges differently, with the reason.
const EXCEPTIONS: &[(u64, &str)] = &[
    (1, MAC),
    (346, OTHER_ALG),
    (347, NO_ALG),
    (348, MAC),
    (350, OTHER_ALG),
    (351, NO_ALG),
    (352, MAC),
    (353, ENCRYPTION),
    (354, ENCRYPTION),
    (357, MAC),
    (358, MAC),
    (359, MAC),
    (372, MAC),
    (373, MAC),
    (376, MAC),
    (377, MAC),
];

#[test]
fn wycheproof_json_web_signature_by_every_algorithm() {
    let Some(folder) = vectors::folder("wycheproof") else { return };
    let file = vectors::json(&folder, "json_web_signature_test.json");
    let (mut held, mut refused, mut other) = (0, 0, Vec::new());
    for group in file["testGroups"].as_array().unwrap() {
        let jwk = group.get("public").unwrap_or(&group["private"]);
        for test in group["tests"].as_array().unwrap() {
            let ours = signature_holds(test["jws"].as_str().unwrap(), jwk) == Some(true);
            match (test["result"] == "valid", ours) {
                (true, true) => held += 1,
                (false, false) => refused += 1,
                _ => other.push(test["tcId"].as_u64().unwrap()),
            }
        }
    }
    println!("json_web_signature: {held} valid accepted, {refused} invalid refused, exceptions {EXCEPTIONS:?}");
    other.sort_unstable();
    assert_eq!(other, EXCEPTIONS.iter().map(|(id, _)| *id).collect::<Vec<_>>());
    assert_eq!(held + refused + other.len() as u64, file["numberOfTests"].as_u64().unwrap());
    assert!(held > 30 && refused > 350);
}

#[test]
fn the_examples_of_the_rfcs_hold_where_their_algorithm_is_accepted() {
    let Some(folder) = vectors::folder("jose-rfc") else { return };
    let file = vectors::json(&folder, "jose_facts.json");
    let mut held = Vec::new();
    for jws in file["jws"].as_array().unwrap() {
        let accepted = Algorithm::from_name(jws["alg"].as_str().unwrap()).is_some();
        let ours = signature_holds(jws["jws"].as_str().unwrap(), &jws["jwk"]);
        assert_eq!(ours == Some(true), accepted, "{jws}");
        held.extend(accepted.then(|| jws["alg"].as_str().unwrap()));
    }
    println!("jose-rfc: {held:?} accepted, the others refused");
    assert_eq!(held, ["RS256", "ES256"]);
}

/// The key in the bundle is the one that the vectors publish; nobody here can sign with it.
#[test]
fn a_bundle_of_the_vectors_refuses_what_its_keys_did_not_sign() {
    let Some(folder) = vectors::folder("spiffe") else { return };
    let keys = vectors::json(&folder, "jwtbundle/jwks_valid_2.json");
    let mut keys = keys["keys"].as_array().unwrap().clone();
    keys.iter_mut().for_each(|key| key["use"] = "jwt-svid".into());
    let bundles = bundles_of(&json!({"keys": keys}));
    for key in &keys {
        let token = Signer::new("ES256").with_header(|h| h["kid"] = key["kid"].clone());
        assert_eq!(outcome(&token, &bundles), "bad_signature", "{ID}");
    }
    assert_eq!(BASE64URL_NOPAD.decode(keys[0]["x"].as_str().unwrap().as_bytes()).unwrap().len(), 32);
}
