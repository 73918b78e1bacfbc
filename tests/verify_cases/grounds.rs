//! Cases about the other grants on which a credential rests (`rests_on`): a rule that covers one of these grants ends the credential.

use serde_json::{Value, json};

use super::kit::*;

/// A ground with every field, and no value that the good token has itself.
fn ground() -> Value {
    json!({
        "credentials": [cred(20), cred(21)],
        "tasks": [task(22)],
        "parties": [{"iss": "https://people.example", "sub": "eve"}, {"iss": "open.example", "sub": "spiffe://open.example/team/opener"}],
        "upstream": "warehouse",
        "scope": "orders:read orders:write",
        "binding": "warehouse-orders",
        "tool": "read_orders",
        "environment": "prod",
        "policy_version": 5,
        "kid": "k0",
        "trust_domain": "svid.example",
        "svid": {"trust_anchor": "33".repeat(32), "issuing_key": "44".repeat(32), "serial": "0a0b"},
        "subject_token": {"iss": "https://idp.example", "id": "t-ground"},
    })
}

/// The good token, resting on the given grounds, decided at `r`.
fn resting(r: u64, grounds: Value) -> String {
    with(|c| (c[OWN]["v"], c[OWN]["r"], c[OWN]["rests_on"]) = (json!(2), json!(r), grounds))
}

fn targets() -> Vec<(&'static str, Value)> {
    let svid = json!({"trustDomain": "svid.example", "issuingKeySha256": base64(&[0x44; 32]), "serial": base64(&[10, 11])});
    vec![
        ("credential", json!({"credentialId": cred(20)})),
        ("credential_that_is_its_ancestor", json!({"credentialId": cred(21)})),
        ("task", json!({"taskId": task(22)})),
        ("caller", json!({"caller": "spiffe://open.example/team/opener"})),
        ("prefix", json!({"spiffeIdPrefix": "spiffe://open.example/team"})),
        ("trust_domain_of_a_party", json!({"trustDomain": "open.example"})),
        ("trust_domain_of_its_svid", json!({"trustDomain": "svid.example"})),
        ("trust_anchor", json!({"trustAnchor": {"trustDomain": "svid.example", "sha256": base64(&[0x33; 32])}})),
        ("subject", json!({"subject": {"issuer": "https://people.example", "sub": "eve"}})),
        ("upstream", json!({"upstream": "warehouse"})),
        ("upstream_scope", json!({"upstreamScope": {"upstream": "warehouse", "scope": "orders:write"}})),
        ("binding", json!({"binding": "warehouse-orders"})),
        ("tool", json!({"tool": "read_orders"})),
        ("policy_below", json!({"policyBelow": {"environment": "prod", "version": "6"}})),
        ("svid", json!({"svid": svid})),
        ("subject_token", json!({"subjectToken": {"issuer": "https://idp.example", "id": "t-ground"}})),
    ]
}

fn misses() -> Vec<(&'static str, Value)> {
    vec![
        ("scope_of_its_upstream_that_it_lacks", json!({"upstreamScope": {"upstream": "warehouse", "scope": "orders:delete"}})),
        (
            "scope_that_the_token_has_of_its_own_upstream",
            json!({"upstreamScope": {"upstream": "warehouse", "scope": "repo:read"}}),
        ),
        ("policy_below_its_version", json!({"policyBelow": {"environment": "prod", "version": "5"}})),
        ("prefix_within_a_segment", json!({"spiffeIdPrefix": "spiffe://open.example/tea"})),
        ("signing_key_that_is_another", json!({"signingKey": "k00"})),
    ]
}

pub fn cases() -> Vec<Value> {
    let why = "whatever ends a grant that a credential rests on ends the credential";
    let rule_of = |target: &Value| rule(seq(R + 1), seq(HEAD), json!([target]));
    let two = |r: u64| resting(r, json!([{"kid": "k9", "upstream": "other"}, ground()]));
    let mut out: Vec<Value> = Vec::new();
    for (name, target) in targets() {
        let case = Case::new(&format!("rests_on_{name}"), why).check(&two(seq(R)), "accepted").feed(rule_of(&target), "taken");
        out.push(case.check(&two(seq(R)), "revoked").check(&two(seq(R + 1)), "accepted").done());
    }
    for (name, target) in misses() {
        let case = Case::new(&format!("rests_on_no_{name}"), "a revocation reaches what its target names, and nothing beside it");
        out.push(case.feed(rule_of(&target), "taken").check(&two(seq(R)), "accepted").done());
    }
    out.push(
        Case::new("rests_on_a_signing_key", "a key's rule ignores r, also of the key that signed an ancestor")
            .check(&two(seq(R)), "accepted")
            .feed(rule_of(&json!({"signingKey": "k0"})), "taken")
            .check(&two(seq(R)), "revoked")
            .check(&two((1 << 53) - 1), "revoked")
            .done(),
    );
    let malformed = [
        json!({}),
        json!("x"),
        json!([1]),
        json!([{"credentials": [task(1)]}]),
        json!([{"credentials": cred(1)}]),
        json!([{"tasks": ["x"]}]),
        json!([{"parties": [{"iss": "i"}]}]),
        json!([{"parties": ["i"]}]),
        json!([{"upstream": 1}]),
        json!([{"scope": ["a"]}]),
        json!([{"kid": 7}]),
        json!([{"environment": "prod", "policy_version": "7"}]),
        json!([{"environment": "prod", "policy_version": -1}]),
        json!([{"svid": {"trust_anchor": "33"}}]),
        json!([{"svid": {"trust_anchor": "3", "issuing_key": "", "serial": ""}}]),
        json!([{"subject_token": {"iss": "i"}}]),
    ];
    let mut case = Case::new("rests_on_what_cannot_be_read", "what a credential rests on has to be known");
    for grounds in malformed {
        case = case.check(&resting(seq(R), grounds), "claims");
    }
    out.push(case.done());
    let many = |n: usize| resting(seq(R), Value::Array(vec![json!({"kid": "k9"}); n]));
    let most = mayfly::limits::GROUNDS;
    out.push(
        Case::new("rests_on_very_much", "there are only so many tasks and ancestors, and so many openings")
            .check(&many(most), "accepted")
            .check(&many(most + 1), "claims")
            .done(),
    );
    out
}
