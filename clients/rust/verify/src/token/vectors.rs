//! External test vectors that apply to a verifier of ES256.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::verify::signature_alone;
use super::*;
use crate::seq::Millis;

fn expect() -> TokenRequirements<'static> {
    TokenRequirements {
        issuer: "https://mayfly.example/dev",
        audience: "https://echo.example",
        now: Millis(1_700_000_005_999),
        max_ttl_ms: crate::limits::CREDENTIAL_TTL_MS,
        skew_ms: 1_000,
        possession: Possession::None,
    }
}

/// A key set of a Wycheproof or RFC key.
fn set_of(jwk: &Value) -> Jwks {
    let mut jwk = jwk.clone();
    if jwk.get("kid").is_none() {
        jwk["kid"] = json!("");
    }
    Jwks::parse(&json!({"keys": [jwk]}).to_string()).unwrap_or_default()
}

fn vectors(path: &str) -> Option<Value> {
    let dir =
        std::env::var("MAYFLY_VECTORS").unwrap_or_else(|_| format!("{}/../../../../shared/vectors", env!("CARGO_MANIFEST_DIR")));
    match std::fs::read(format!("{dir}/{path}")) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes).unwrap()),
        Err(_) => {
            println!("SKIPPED: {path} is not under MAYFLY_VECTORS");
            None
        }
    }
}

#[test]
fn wycheproof_json_web_signature() {
    let Some(all) = vectors("wycheproof/json_web_signature_test.json") else { return };
    let (mut valid, mut invalid, mut foreign) = (0, 0, 0);
    for group in all["testGroups"].as_array().unwrap() {
        // MAC groups have no public key. Whoever holds a MAC key must not be able to make a token.
        let jwk = group.get("public").unwrap_or(&group["private"]);
        let keys = set_of(jwk);
        for test in group["tests"].as_array().unwrap() {
            let token = test["jws"].as_str().unwrap();
            let ours = jwk["alg"] == "ES256" && jwk["use"] == "sig";
            let got = signature_alone(token, &keys);
            match (ours, test["result"].as_str().unwrap()) {
                (true, "valid") => {
                    assert!(got.is_ok(), "{}: {got:?}", test["tcId"]);
                    valid += 1;
                }
                (true, _) => {
                    assert!(got.is_err(), "{} {}", test["tcId"], test["comment"]);
                    invalid += 1;
                }
                (false, _) => {
                    assert!(got.is_err(), "{} {}: not ES256 for signing", test["tcId"], test["comment"]);
                    foreign += 1;
                }
            }
        }
    }
    println!(
        "json_web_signature: {valid} valid accepted, {invalid} invalid refused, {foreign} of other algorithms or uses refused"
    );
    assert_eq!(valid + invalid + foreign, all["numberOfTests"].as_u64().unwrap());
    assert!(valid > 0 && invalid > 20 && foreign > 300);
}

#[test]
fn wycheproof_ecdsa_p1363() {
    let Some(all) = vectors("wycheproof/ecdsa_secp256r1_sha256_p1363_test.json") else { return };
    let hex = |v: &Value| data_encoding::HEXLOWER.decode(v.as_str().unwrap().as_bytes()).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    for group in all["testGroups"].as_array().unwrap() {
        let point = hex(&group["publicKey"]["uncompressed"]);
        let jwk = json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "k",
            "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..65])});
        let keys = set_of(&jwk);
        for test in group["tests"].as_array().unwrap() {
            // Only the signatures are used here: the messages are not JWS, so the key is used as `verify` uses it.
            let key = aws_lc_rs::signature::UnparsedPublicKey::new(
                &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED,
                keys.points().next().unwrap(),
            );
            let ok = key.verify(&hex(&test["msg"]), &hex(&test["sig"])).is_ok();
            assert_eq!(ok, test["result"] == "valid", "{} {}", test["tcId"], test["comment"]);
            if ok { valid += 1 } else { invalid += 1 }
        }
    }
    println!("ecdsa_secp256r1_sha256_p1363: {valid} valid accepted, {invalid} invalid refused, none skipped");
    assert_eq!(valid + invalid, all["numberOfTests"].as_u64().unwrap());
}

#[test]
fn examples_of_the_rfcs() {
    let Some(all) = vectors("jose-rfc/jose_facts.json") else { return };
    let (mut accepted, mut refused) = (0, 0);
    for jws in all["jws"].as_array().unwrap() {
        let token = jws["jws"].as_str().unwrap();
        let got = signature_alone(token, &set_of(&jws["jwk"]));
        // Only A.3 is ES256. Its header names no key, unlike mayfly's tokens; the key set here has an empty `kid` for it.
        assert_eq!(got.is_ok(), jws["alg"] == "ES256", "{}: {got:?}", jws["id"]);
        if got.is_ok() {
            accepted += 1
        } else {
            refused += 1
        }
        assert!(verify(token, &set_of(&jws["jwk"]), &expect(), |_| false).is_err(), "none of them is a token of ours");
    }
    println!("jose-rfc: {accepted} accepted, {refused} of other algorithms refused");
    assert_eq!((accepted, refused), (1, 3));
}
