//! Cases about revocations: every sort of target, each way in which a target reaches a token, and tokens that it does not reach.

use serde_json::{Value, json};

use super::kit::*;

/// A target, whether it names something of the good token, and what it names.
struct Aim {
    name: &'static str,
    target: Value,
    hits: bool,
}

fn aim(name: &'static str, target: Value) -> Aim {
    Aim { name, target, hits: true }
}

fn miss(name: &'static str, target: Value) -> Aim {
    Aim { name, target, hits: false }
}

/// In messages the issuer of a workload is its trust domain's SPIFFE ID, in tokens the bare name.
fn subject(issuer: &str, sub: &str) -> Value {
    json!({"subject": {"issuer": issuer, "sub": sub}})
}

fn svid(domain: &str, key: u8, serial: &[u8]) -> Value {
    json!({"svid": {"trustDomain": domain, "issuingKeySha256": base64(&[key; 32]), "serial": base64(serial)}})
}

fn scope(upstream: &str, scope: &str) -> Value {
    json!({"upstreamScope": {"upstream": upstream, "scope": scope}})
}

/// Rules that name an identity, for each place of the identity in the token.
fn identities() -> Vec<Aim> {
    vec![
        aim("caller", json!({"caller": CALLER})),
        aim("caller_that_acts_before", json!({"caller": "spiffe://front.example/web"})),
        aim("caller_that_owns_a_task_on_the_path", json!({"caller": "spiffe://plan.example/planner"})),
        aim("caller_of_an_ancestor", json!({"caller": "spiffe://ci.example/job/9"})),
        miss("caller_above", json!({"caller": "spiffe://a.example/agent"})),
        miss("caller_of_another_domain", json!({"caller": "spiffe://b.example/agent/build"})),
        aim("prefix_above", json!({"spiffeIdPrefix": "spiffe://a.example/agent"})),
        aim("prefix_that_is_the_caller", json!({"spiffeIdPrefix": CALLER})),
        aim("prefix_of_a_whole_domain", json!({"spiffeIdPrefix": "spiffe://a.example"})),
        aim("prefix_of_one_that_acts_before", json!({"spiffeIdPrefix": "spiffe://front.example"})),
        aim("prefix_of_an_owner_on_the_path", json!({"spiffeIdPrefix": "spiffe://plan.example/planner"})),
        aim("prefix_of_an_ancestor", json!({"spiffeIdPrefix": "spiffe://ci.example/job"})),
        miss("prefix_within_a_segment", json!({"spiffeIdPrefix": "spiffe://a.example/agent/buil"})),
        miss("prefix_within_a_first_segment", json!({"spiffeIdPrefix": "spiffe://a.example/age"})),
        miss("prefix_below_the_caller", json!({"spiffeIdPrefix": "spiffe://a.example/agent/build/x"})),
        miss("prefix_of_a_shorter_domain", json!({"spiffeIdPrefix": "spiffe://a.exampl"})),
        aim("trust_domain", json!({"trustDomain": "a.example"})),
        aim("trust_domain_of_one_that_acts_before", json!({"trustDomain": "front.example"})),
        aim("trust_domain_of_an_owner", json!({"trustDomain": "plan.example"})),
        aim("trust_domain_of_an_ancestor", json!({"trustDomain": "ci.example"})),
        miss("trust_domain_of_nobody", json!({"trustDomain": "b.example"})),
        miss("trust_domain_that_is_no_spiffe_issuer", json!({"trustDomain": "idp.example"})),
        aim("subject", subject("https://idp.example", "ada")),
        aim("subject_that_owns_a_task_on_the_path", subject("https://idp.example", "grace")),
        aim("subject_that_is_the_caller", subject("spiffe://a.example", CALLER)),
        aim("subject_that_is_the_caller_by_the_bare_name", subject("a.example", CALLER)),
        aim("subject_that_acts_before", subject("spiffe://front.example", "spiffe://front.example/web")),
        aim("subject_that_is_an_ancestors_caller", subject("spiffe://ci.example", "spiffe://ci.example/job/9")),
        miss("subject_of_another_issuer", subject("https://other.example", "ada")),
        miss("subject_of_no_issuer_that_is_meant", subject("a.example", "ada")),
    ]
}

/// Rules that name the upstream, the evidence or the policy of the token.
fn things() -> Vec<Aim> {
    vec![
        aim("credential", json!({"credentialId": cred(1)})),
        aim("credential_that_is_an_ancestor", json!({"credentialId": cred(6)})),
        miss("credential_that_is_another", json!({"credentialId": cred(2)})),
        aim("task", json!({"taskId": task(2)})),
        aim("task_above", json!({"taskId": task(1)})),
        miss("task_that_is_another", json!({"taskId": task(3)})),
        aim("trust_anchor", json!({"trustAnchor": {"trustDomain": "a.example", "sha256": base64(&[3; 32])}})),
        aim("trust_anchor_by_its_digest_alone", json!({"trustAnchor": {"sha256": base64(&[3; 32])}})),
        miss("trust_anchor_that_is_another", json!({"trustAnchor": {"trustDomain": "a.example", "sha256": base64(&[4; 32])}})),
        aim("upstream", json!({"upstream": "github"})),
        miss("upstream_that_is_another", json!({"upstream": "gitlab"})),
        aim("upstream_scope", scope("github", "issues:write")),
        aim("upstream_scope_that_is_the_last", scope("github", "repo:read")),
        miss("upstream_scope_that_it_lacks", scope("github", "repo:write")),
        miss("upstream_scope_of_another_upstream", scope("gitlab", "issues:write")),
        aim("binding", json!({"binding": "build-issues"})),
        miss("binding_that_is_another", json!({"binding": "build"})),
        aim("tool", json!({"tool": "create_issue"})),
        miss("tool_that_is_another", json!({"tool": "create"})),
        aim("environment", json!({"environment": "prod"})),
        miss("environment_that_is_another", json!({"environment": "dev"})),
        aim("policy_below_a_later_version", json!({"policyBelow": {"environment": "prod", "version": "8"}})),
        aim("policy_below_a_much_later_version", json!({"policyBelow": {"environment": "prod", "version": "900"}})),
        miss("policy_below_its_own_version", json!({"policyBelow": {"environment": "prod", "version": "7"}})),
        miss("policy_below_a_version_elsewhere", json!({"policyBelow": {"environment": "dev", "version": "8"}})),
        aim("svid", svid("a.example", 4, &[5, 6])),
        miss("svid_of_another_serial", svid("a.example", 4, &[5, 7])),
        miss("svid_of_another_issuing_key", svid("a.example", 5, &[5, 6])),
        miss("svid_of_another_domain", svid("b.example", 4, &[5, 6])),
        aim("subject_token", json!({"subjectToken": {"issuer": "https://idp.example", "id": "t-1"}})),
        miss("subject_token_that_is_another", json!({"subjectToken": {"issuer": "https://idp.example", "id": "t-2"}})),
        miss("subject_token_of_another_issuer", json!({"subjectToken": {"issuer": "https://other.example", "id": "t-1"}})),
        aim("everything", json!({"everything": {}})),
    ]
}

/// A rule at seq v covers tokens that were decided at r < v, and no token that was decided at r ≥ v.
fn by_revision(aim: &Aim) -> Value {
    let why = match aim.hits {
        true => "a revocation at seq v reaches what was decided at r < v, and nothing that was decided at r >= v",
        false => "a revocation reaches what its target names, and nothing beside it",
    };
    let case = Case::new(&format!("rule_{}", aim.name), why);
    let case = case.feed(rule(seq(R + 1), seq(HEAD), json!([aim.target])), "taken");
    let case = match aim.hits {
        true => case.check(&decided_at(seq(R)), "revoked").check(&decided_at(seq(R + 1)), "accepted"),
        false => case.check(&decided_at(seq(R)), "accepted"),
    };
    case.done()
}

pub fn cases() -> Vec<Value> {
    let mut out: Vec<Value> = identities().iter().chain(&things()).map(by_revision).collect();
    out.extend(keys());
    out.extend(special());
    out.extend(rules());
    out
}

fn keys() -> Vec<Value> {
    let why = "a signing key's rule comes before all else and ignores r: whoever stole the key chooses r and every other claim";
    let revoked = || {
        let targets = json!([{"signingKey": KID}]);
        Case::new("", why).feed(rule(seq(R + 1), seq(HEAD), targets), "taken")
    };
    let named = |name: &str, case: Case| {
        let mut case = case.done();
        case["name"] = json!(name);
        case
    };
    let elsewhere = with(|c| c["iss"] = json!("https://evil.example"));
    let no_alg = with_header(|h| h["alg"] = json!("none"));
    let other = |kid: &str| with_header(|h| h["kid"] = json!(kid));
    vec![
        named(
            "a_signing_key_whatever_the_revision",
            revoked()
                .check(&decided_at(seq(R)), "key_revoked")
                .check(&decided_at(seq(R + 1)), "key_revoked")
                .check(&decided_at((1 << 53) - 1), "key_revoked"),
        ),
        named(
            "a_signing_key_before_all_else",
            revoked()
                .check(&elsewhere, "key_revoked")
                .check(&no_alg, "key_revoked")
                .check(&sign(2, &input(&header().to_string(), "x")), "key_revoked")
                .keys(json!({"keys": []}))
                .check(&with(|_| ()), "key_revoked")
                .after(600_000)
                .check(&with(|_| ()), "key_revoked"),
        ),
        named(
            "another_signing_key",
            revoked()
                .keys(json!({"keys": [jwk(1, KID), jwk(1, "k10"), jwk(1, "K1")]}))
                .check(&other("k10"), "accepted")
                .check(&other("K1"), "accepted"),
        ),
        Case::new("a_signing_key_is_never_dropped", "its rule has no end, whatever the feed says of one")
            .feed(
                json!({"seq": seq(R + 1).to_string(), "previousSeq": seq(HEAD).to_string(),
                    "rule": {"seq": seq(R + 1).to_string(), "targets": [{"signingKey": KID}], "dropAfter": timestamp(T0 + 1)}}),
                "taken",
            )
            .after(20_000)
            .feed(heartbeat(seq(R + 1), seq(R + 1), T0 + 20_000), "taken")
            .check(&decided_at(seq(R)), "key_revoked")
            .done(),
        Case::bare("a_signing_key_of_the_snapshot", why)
            .feed(snapshot(seq(HEAD), json!([{"seq": seq(3).to_string(), "targets": [{"signingKey": KID}]}]), json!([])), "taken")
            .check(&with(|_| ()), "key_revoked")
            .done(),
    ]
}

/// Tokens with another form than the good one.
fn special() -> Vec<Value> {
    let reaches = "a rule reaches whatever rests on its target";
    let on_a_credential = with(|c| c[OWN]["subject_token"] = json!({"iss": ISSUER, "id": cred(9)}));
    let on_its_own_behalf = with(|c| {
        c["sub"] = json!(CALLER);
        c.as_object_mut().unwrap().remove("act");
        c[OWN].as_object_mut().unwrap().remove("sub_iss");
        c[OWN].as_object_mut().unwrap().remove("subject_token");
    });
    let without_an_svid = with(|c| drop(c[OWN].as_object_mut().unwrap().remove("svid")));
    let newer_of_two = json!([{"policyBelow": {"environment": "prod", "version": "9"}}]);
    let older_of_two = json!([{"policyBelow": {"environment": "prod", "version": "8"}}]);
    let hit = |name: &str, why: &str, target: Value, token: &str, expect: &str| {
        Case::new(name, why).feed(rule(seq(R + 1), seq(HEAD), json!([target])), "taken").check(token, expect).done()
    };
    vec![
        hit("rule_credential_that_is_the_subject_token", reaches, json!({"credentialId": cred(9)}), &on_a_credential, "revoked"),
        hit(
            "rule_subject_of_one_that_acts_for_itself",
            "without sub_iss the issuer of sub is the caller's trust domain",
            subject("spiffe://a.example", CALLER),
            &on_its_own_behalf,
            "revoked",
        ),
        hit("rule_caller_of_one_that_acts_for_itself", reaches, json!({"caller": CALLER}), &on_its_own_behalf, "revoked"),
        hit(
            "rule_trust_anchor_without_an_svid",
            "what a token does not name, no rule finds",
            json!({"trustAnchor": {"sha256": base64(&[3; 32])}}),
            &without_an_svid,
            "accepted",
        ),
        Case::new("rule_policy_of_two_versions", "every rule above the token's version counts, and the newest of them decides")
            .feed(rule(seq(R + 1), seq(HEAD), newer_of_two), "taken")
            .feed(rule(seq(R + 3), seq(R + 1), older_of_two), "taken")
            .check(&decided_at(seq(R + 2)), "revoked")
            .check(&decided_at(seq(R + 3)), "accepted")
            .check(&with(|c| (c[OWN]["r"], c[OWN]["policy_version"]) = (json!(seq(R + 2)), json!(8))), "accepted")
            .check(&with(|c| (c[OWN]["r"], c[OWN]["policy_version"]) = (json!(seq(R)), json!(8))), "revoked")
            .done(),
    ]
}

fn rules() -> Vec<Value> {
    let everything = json!([{"everything": {}}]);
    let many = json!([{"tool": "x"}, {"upstream": "gitlab"}, {"taskId": task(1)}, {"caller": "spiffe://b.example/x"}]);
    let ends = |target: Value, at: u64, previous: u64, ms: u64| {
        json!({"seq": at.to_string(), "previousSeq": previous.to_string(),
            "rule": {"seq": at.to_string(), "targets": [target], "dropAfter": timestamp(ms)}})
    };
    let lock = json!({"seq": seq(R + 1).to_string(), "previousSeq": seq(HEAD).to_string(),
        "lock": {"seq": seq(R + 1).to_string(), "locked": [{"index": 0, "target": {"caller": CALLER}}]}});
    let lift = json!({"seq": seq(R + 2).to_string(), "previousSeq": seq(R + 1).to_string(),
        "lift": {"seq": seq(R + 2).to_string(), "targets": [{"caller": CALLER}]}});
    let held = json!([{"seq": seq(4).to_string(), "targets": [{"tool": "create_issue"}]},
        {"seq": seq(R + 5).to_string(), "targets": [{"tool": "other"}, {"upstream": "github"}]}]);
    vec![
        Case::new("a_rule_of_several_targets", "one of its targets suffices")
            .feed(rule(seq(R + 1), seq(HEAD), many), "taken")
            .check(&decided_at(seq(R)), "revoked")
            .check(&decided_at(seq(R + 1)), "accepted")
            .done(),
        Case::new(
            "a_target_that_is_revoked_again",
            "the newest revocation of a target counts, and an older one does not take it back",
        )
        .feed(rule(seq(R + 1), seq(HEAD), json!([{"tool": "create_issue"}])), "taken")
        .check(&decided_at(seq(R + 2)), "accepted")
        .feed(rule(seq(R + 3), seq(R + 1), json!([{"tool": "create_issue"}])), "taken")
        .check(&decided_at(seq(R + 2)), "revoked")
        .check(&decided_at(seq(R + 3)), "accepted")
        .done(),
        Case::bare("rules_of_a_snapshot", "they count as those that come after it")
            .feed(snapshot(seq(R + 10), held, json!([])), "taken")
            .feed(heartbeat(seq(R + 10), seq(R + 5), T0), "taken")
            .check(&decided_at(seq(R + 4)), "revoked")
            .check(&decided_at(seq(R + 5)), "accepted")
            .check(&decided_at(seq(3)), "revoked")
            .done(),
        Case::new(
            "a_rule_ends_by_the_feeds_time",
            "a follower may drop it when a heartbeat's fresh_at is later than drop_after, and not before",
        )
        .feed(ends(json!({"everything": {}}), seq(R + 1), seq(HEAD), T0 + 20_000), "taken")
        .after(20_000)
        .feed(heartbeat(seq(R + 1), seq(R + 1), T0 + 20_000), "taken")
        .check(&decided_at(seq(R)), "revoked")
        .done(),
        Case::new("a_clock_that_is_set_forward_drops_no_rule", "rules are dropped by the feed's time alone")
            .feed(ends(json!({"everything": {}}), seq(R + 1), seq(HEAD), T0 + 20_000), "taken")
            .clocks(T0 + 25_000, S0 + 1)
            .feed(heartbeat(seq(R + 1), seq(R + 1), T0 + 1), "taken")
            .check(&decided_at(seq(R)), "revoked")
            .done(),
        Case::new("locks_are_no_concern_of_a_verifier", "a lock keeps from new grants, and who grants asks the server")
            .feed(lock, "taken")
            .check(&decided_at(seq(R)), "accepted")
            .feed(lift, "taken")
            .check(&decided_at(seq(R)), "accepted")
            .done(),
        Case::new("a_lift_brings_nothing_back", "what was revoked stays revoked")
            .feed(rule(seq(R + 1), seq(HEAD), json!([{"caller": CALLER}])), "taken")
            .feed(
                json!({"seq": seq(R + 2).to_string(), "previousSeq": seq(R + 1).to_string(),
                "lift": {"seq": seq(R + 2).to_string(), "targets": [{"caller": CALLER}]}}),
                "taken",
            )
            .check(&decided_at(seq(R)), "revoked")
            .done(),
        Case::new(
            "a_target_that_is_not_known",
            "what it revokes is not known: the message is not taken, and nothing after it is believed",
        )
        .feed(rule(seq(R + 1), seq(HEAD), json!([{}])), "malformed")
        .check(&decided_at(seq(R)), "accepted")
        .feed(heartbeat(seq(R + 1), seq(R + 1), T0), "gap")
        .check(&decided_at(seq(R)), "not_whole")
        .done(),
        Case::new("a_message_that_is_not_known", "an event of a sort that is not known may be a revocation")
            .feed(json!({"seq": seq(R + 1).to_string(), "previousSeq": seq(HEAD).to_string()}), "malformed")
            .feed(rule(seq(R + 2), seq(R + 1), everything), "gap")
            .check(&decided_at(seq(R)), "not_whole")
            .done(),
    ]
}
