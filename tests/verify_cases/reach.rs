//! The Rust verifier on the tokens of a whole server, and on the revocation of a target for each token: `tests/vectors/verify/reach.json`,
//! which `tests/server/reach` writes. The verifier must accept each token before the revocation of its target, and give the server's answer
//! afterwards.

use std::path::PathBuf;

use mayfly::credential::jwt::Jwks;
use mayfly::revocation::follower::Moment;
use mayfly::seq::Millis;
use mayfly::verifier::{Checker, Need};
use prost_reflect::DescriptorPool;
use serde_json::{Value, json};

use super::kit::{S0, timestamp};

/// A snapshot without rules, a heartbeat, and the rule.
fn messages(case: &Value) -> [Value; 3] {
    let (seen, seq) = (&case["seen"], &case["seq"]);
    let heartbeat = json!({"freshAt": timestamp(case["wall"].as_u64().unwrap()), "maxAge": "30s", "timeGeneration": 1});
    [
        json!({"seq": seen, "snapshot": {"rules": [], "holds": [], "last": true}}),
        json!({"seq": seen, "previousSeq": seen, "heartbeat": heartbeat}),
        json!({"seq": seq, "previousSeq": seen, "rule": {"seq": seq, "targets": [case["target"]]}}),
    ]
}

#[test]
fn the_rust_verifier_answers_as_the_server_did() {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/verify/reach.json");
    let all: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let pool = DescriptorPool::decode(mayfly::pb::FILE_DESCRIPTOR_SET).unwrap();
    let keys = Jwks::parse(&json!({ "keys": all["keys"] }).to_string()).unwrap();
    let cases = all["cases"].as_array().unwrap();
    assert!(cases.len() > 200, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for case in cases {
        let text = |name: &str| case[name].as_str().unwrap();
        let now = Moment { wall: Millis(case["wall"].as_u64().unwrap()), steady: S0 };
        let mut checker = Checker::new(text("issuer"), text("audience"));
        checker.set_keys(keys.clone());
        let answer =
            |checker: &Checker| checker.check(text("token"), &Need::default(), now).map_or_else(|no| no.reason(), |_| "accepted");
        let [snapshot, heartbeat, rule] = messages(case).map(|json| super::message(&pool, &json));
        assert_eq!(super::take(&mut checker, &snapshot, now), "taken");
        assert_eq!(super::take(&mut checker, &heartbeat, now), "taken");
        let before = answer(&checker);
        assert_eq!(super::take(&mut checker, &rule, now), "taken");
        // The checker answers the second time from its cache of verified tokens; a clone has an empty cache.
        let after = [answer(&checker), answer(&checker), answer(&checker.clone())];
        if before != "accepted" || after.iter().any(|said| *said != text("expect")) {
            wrong.push(format!("{}: {before}, then {after:?}, not {}", text("name"), text("expect")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
