//! Claims against their record, and each defect of a token on its own.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::verify::signature_alone;
use super::*;
use crate::credential::Answer;
use crate::credential::keyring::{Keyring, jwks};
use crate::credential::kind::mint_local;
use crate::credential::status::Allocator;
use crate::credential::testing::{AGENT, Log, full, grant, keyring, owner, plain};
use crate::ledger::Receipt;
use crate::ledger::record::{Ancestor, KeyPurpose, Record};
use crate::policy::grant::Parts;
use crate::revocation::target::{SORTS, Target};
use crate::revocation::{Rules, Sort};
use crate::seq::{CredentialId, Millis};

const T0: Millis = Millis(1_700_000_000_999);
const SELF: [u8; 16] = [0xc1; 16];

fn mint(ring: &Keyring, parts: Parts) -> (String, Record) {
    let status = Allocator::new(Seq::from_u64(5).unwrap(), &[9; 32]);
    let id = CredentialId::from_bytes(SELF);
    let mut minted = mint_local(grant(parts), id, 1, ring, &status, T0).map_err(|e| e.to_string()).unwrap();
    let record = minted.records().remove(0);
    match minted.reveal(Receipt::for_test(Seq::ZERO, 1)).into_parts().2 {
        Answer::Bearer { token, .. } => (token.to_string(), record),
        _ => panic!("no token"),
    }
}

fn expect() -> Expect<'static> {
    Expect {
        issuer: "https://mayfly.example/dev",
        audience: "https://echo.example",
        now: T0.plus(5_000),
        max_ttl_ms: crate::limits::CREDENTIAL_TTL_MS,
        skew_ms: 1_000,
        possession: Possession::Certificate(&[0xcd; 32]),
    }
}

struct Case {
    log: Log,
    ring: Keyring,
    keys: Jwks,
}

fn case() -> Case {
    let mut log = Log::new(T0);
    let (ring, _) = keyring(&mut log);
    let keys = Jwks::parse(&jwks(&log.state.keys, "dev")).unwrap();
    Case { log, ring, keys }
}

impl Case {
    fn kid(&self) -> String {
        self.keys.kids().next().unwrap().to_owned()
    }

    /// A token over any header and claims, by the issuer's key.
    fn forge(&self, header: &Value, claims: &Value) -> String {
        let part = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
        let input = format!("{}.{}", part(header), part(claims));
        let key = self.ring.active(KeyPurpose::AccessToken, "dev").unwrap();
        let signature = key.sign(&digest::digest(&digest::SHA256, input.as_bytes())).unwrap();
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn header(&self) -> Value {
        json!({"alg": "ES256", "typ": "at+jwt", "kid": self.kid()})
    }

    fn check(&self, token: &str) -> Result<Claims, TokenDefect> {
        verify(token, &self.keys, &expect(), |_| false).map(|(claims, _)| claims)
    }
}

fn decoded(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

#[test]
fn the_claims_are_those_of_the_standard_and_nothing_else() {
    let c = case();
    let (token, record) = mint(&c.ring, full(T0, Seq::from_u64(42).unwrap()));
    assert_eq!(record.revision, 42);
    let id = CredentialId::from_bytes(SELF).to_string();
    let want = json!({
        "iss": "https://mayfly.example/dev",
        "sub": "ada \"the\" countess",
        "aud": "https://echo.example",
        "exp": 1_700_000_300, "iat": 1_700_000_000, "nbf": 1_700_000_000,
        "jti": id,
        "client_id": AGENT,
        "scope": "issues:write read",
        "authorization_details": [{"type": "repo", "actions": ["read"]}],
        "act": {"sub": AGENT, "iss": "a.example", "act": {"sub": "spiffe://b.example/front", "iss": "b.example"}},
        "cnf": {"x5t#S256": URL_SAFE_NO_PAD.encode([0xcd; 32])},
        "https://mayfly.dev/claims": {
            "v": 1, "r": 42, "environment": "dev", "policy_version": 1, "upstream": "echo", "binding": "b", "tool": "create_issue",
            "arguments": "ab".repeat(32), "trust_domain": "a.example",
            "tasks": [{"id": TaskId::from_bytes([2; 16]).to_string(), "owner": {"iss": "https://idp.example", "sub": "grace"}}],
            "sub_iss": "https://idp.example",
            "subject_token": {"iss": "https://idp.example", "id": "t-1"},
            "ancestors": [{"id": CredentialId::from_bytes([6; 16]).to_string(), "caller": "spiffe://c.example/ci/job"}],
            "svid": {"trust_anchor": "03".repeat(32), "issuing_key": "04".repeat(32), "serial": "000506"},
        },
    });
    assert_eq!(decoded(&token), want);
    assert!(c.check(&token).is_ok());

    let (token, _) = mint(&c.ring, plain(1, T0, Seq::ZERO));
    let claims = decoded(&token);
    for absent in ["act", "cnf", "authorization_details", "status"] {
        assert!(claims.get(absent).is_none(), "{absent}");
    }
    assert_eq!((&claims["sub"], &claims["client_id"]), (&json!(AGENT), &json!(AGENT)));
    println!("a token of {} bytes without subject, {} bytes of claims", token.len(), claims.to_string().len());
}

#[test]
fn act_is_there_if_and_only_if_sub_is_not_the_caller() {
    let c = case();
    let me = Identity { issuer: "a.example".into(), sub: AGENT.into() };
    let mut parts = plain(1, T0, Seq::ZERO);
    parts.draft.subject = Some(me.clone());
    let claims = decoded(&mint(&c.ring, parts.clone()).0);
    assert!(claims.get("act").is_none() && claims[OWN_CLAIMS].get("sub_iss").is_none());
    // The same text under another issuer is somebody else.
    parts.draft.subject = Some(Identity { issuer: "https://idp.example".into(), ..me });
    let claims = decoded(&mint(&c.ring, parts).0);
    assert_eq!(claims["act"], json!({"sub": AGENT, "iss": "a.example"}), "the caller acts, also where no actor is named");
}

/// Everything that the rules can find, in the same order, once each.
fn all(facts: &crate::revocation::Facts<'_>) -> std::collections::BTreeSet<String> {
    let mut out = std::collections::BTreeSet::new();
    facts.each(&mut |probe| {
        out.insert(format!("{probe:?}"));
        false
    });
    out
}

#[test]
fn each_revocation_target_is_answerable_from_claims() {
    let mut c = case();
    let mut parts = full(T0, c.log.state.head);
    parts.draft.ancestors = vec![Ancestor { credential: vec![6; 16], caller: "spiffe://c.example/ci/job".into() }];
    let (token, record) = mint(&c.ring, parts);
    c.log.put(vec![record])[0].clone().unwrap();
    let (claims, kid) = verify(&token, &c.keys, &expect(), |_| false).unwrap();
    let said = claims.facts(&kid);
    let live = c.log.state.credentials.get(&CredentialId::from_bytes(SELF)).unwrap();
    let known = c.log.state.credentials.facts(live, c.log.state.tasks.at(live.task).unwrap());
    assert_eq!(all(&said), all(&known), "a verifier can ask what the fold can ask, no more and no less");
    assert_eq!(said.revision, known.revision);

    let targets = [
        Target::Credential(CredentialId::from_bytes([6; 16])),
        Target::Task(TaskId::from_bytes([2; 16])),
        Target::Caller("spiffe://c.example/ci/job".into()),
        Target::Prefix("spiffe://b.example".into()),
        Target::TrustDomain("a.example".into()),
        Target::TrustAnchor([3; 32]),
        Target::Subject("https://idp.example".into(), "grace".into()),
        Target::Upstream("echo".into()),
        Target::UpstreamScope("echo".into(), "issues:write".into()),
        Target::Binding("b".into()),
        Target::Tool("create_issue".into()),
        Target::Environment("dev".into()),
        Target::PolicyBelow("dev".into(), 2),
        Target::SigningKey(c.kid().into()),
        Target::Svid("a.example".into(), [4; 32], vec![0, 5, 6].into()),
        Target::SubjectToken("https://idp.example".into(), "t-1".into()),
        Target::Everything,
    ];
    assert_eq!(targets.len(), SORTS);
    for (sort, target) in Sort::ALL.into_iter().zip(targets) {
        assert_eq!(target.sort(), sort, "a sort of target that no claim is shown to answer");
        let mut rules = Rules::default();
        rules.add(&target, c.log.state.head.next(), None, T0.plus(1));
        assert_eq!(rules.covers(&said).map(|h| h.target), Some(target));
    }
}

#[test]
fn the_key_rule_comes_before_all_else() {
    let c = case();
    let (token, _) = mint(&c.ring, full(T0, Seq::ZERO));
    let mut rules = Rules::default();
    rules.add(&Target::SigningKey(c.kid().into()), Some(Seq::from_u64(1).unwrap()), None, T0);
    let revoked = |kid: &str| rules.get(&Target::SigningKey(kid.into())).is_some();
    let wrong = Expect { issuer: "https://other.example", now: Millis(0), ..expect() };
    for token in [token.clone(), token[..token.len() - 4].to_owned()] {
        assert_eq!(verify(&token, &Jwks::default(), &wrong, revoked).unwrap_err(), TokenDefect::KeyRevoked(c.kid()));
    }
    assert_eq!(peek_kid(&token), Some(c.kid()));
}

#[test]
fn each_defect_of_a_header_has_its_refusal() {
    let c = case();
    let claims = decoded(&mint(&c.ring, full(T0, Seq::ZERO)).0);
    let header = |change: fn(&mut Value)| {
        let mut h = c.header();
        change(&mut h);
        c.check(&c.forge(&h, &claims)).map(|_| ())
    };
    assert_eq!(header(|_| ()), Ok(()));
    for alg in ["none", "None", "HS256", "RS256", "ES384", "es256", ""] {
        let mut h = c.header();
        h["alg"] = json!(alg);
        assert_eq!(c.check(&c.forge(&h, &claims)).unwrap_err(), TokenDefect::Algorithm(alg.into()));
        let unsigned = c.forge(&h, &claims);
        assert!(c.check(&unsigned[..=unsigned.rfind('.').unwrap()]).is_err(), "no signature");
    }
    assert_eq!(header(|h| h["alg"] = Value::Null), Err(TokenDefect::Algorithm(String::new())));
    assert_eq!(header(|h| h["typ"] = json!("JWT")), Err(TokenDefect::Typ("JWT".into())));
    assert_eq!(header(|h| h["typ"] = json!("statuslist+jwt")), Err(TokenDefect::Typ("statuslist+jwt".into())));
    assert_eq!(header(|h| drop(h.as_object_mut().unwrap().remove("typ"))), Err(TokenDefect::Typ(String::new())));
    assert_eq!(header(|h| h["crit"] = json!(["exp"])), Err(TokenDefect::HeaderParameter("crit".into())));
    assert_eq!(header(|h| h["jku"] = json!("https://evil.example")), Err(TokenDefect::HeaderParameter("jku".into())));
    assert_eq!(header(|h| h["x5u"] = json!("https://evil.example")), Err(TokenDefect::HeaderParameter("x5u".into())));
    assert_eq!(header(|h| h["jwk"] = json!({"kty": "EC"})), Err(TokenDefect::HeaderParameter("jwk".into())));
    assert_eq!(header(|h| h["kid"] = json!("other")), Err(TokenDefect::UnknownKey("other".into())));
    assert_eq!(header(|h| drop(h.as_object_mut().unwrap().remove("kid"))), Err(TokenDefect::UnknownKey(String::new())));
    assert!(matches!(header(|h| h["kid"] = json!(["a"])), Err(TokenDefect::Malformed(_))));
}

#[test]
fn each_defect_of_the_claims_has_its_refusal() {
    let c = case();
    let good = decoded(&mint(&c.ring, full(T0, Seq::ZERO)).0);
    let with = |change: &dyn Fn(&mut Value)| {
        let mut claims = good.clone();
        change(&mut claims);
        c.check(&c.forge(&c.header(), &claims)).map(|_| ())
    };
    assert_eq!(with(&|_| ()), Ok(()));
    assert_eq!(with(&|v| v["unheard-of"] = json!(1)), Ok(()), "RFC 7519, section 4: claims of other names are ignored");
    assert_eq!(
        with(&|v| v["iss"] = json!("https://mayfly.example/prod")),
        Err(TokenDefect::Issuer("https://mayfly.example/prod".into()))
    );
    assert_eq!(with(&|v| v["aud"] = json!("https://echo.example/")), Err(TokenDefect::Audience("https://echo.example/".into())));
    assert_eq!(with(&|v| v["exp"] = json!(1_700_000_005)), Err(TokenDefect::Expired), "skew does not lengthen a life");
    assert_eq!(with(&|v| v["exp"] = json!(1_700_003_601u64)), Err(TokenDefect::Life(3_601)));
    assert_eq!(with(&|v| v["exp"] = v["iat"].clone()), Err(TokenDefect::Life(0)));
    assert_eq!(with(&|v| v["exp"] = json!(u64::MAX)), Err(TokenDefect::Life(u64::MAX - 1_700_000_000)));
    assert_eq!(with(&|v| v["nbf"] = json!(1_700_000_006)), Ok(()), "within the skew");
    assert_eq!(with(&|v| v["nbf"] = json!(1_700_000_008)), Err(TokenDefect::NotYet));
    assert_eq!(with(&|v| v["iat"] = json!(1_700_000_008)), Err(TokenDefect::NotYet));
    assert_eq!(with(&|v| v[OWN_CLAIMS]["v"] = json!(2)), Err(TokenDefect::Newer(2)));
    let malformed: [(&str, &dyn Fn(&mut Value)); 9] = [
        ("aud is one string", &|v| v["aud"] = json!(["https://echo.example"])),
        ("a seq is below 2^53", &|v| v[OWN_CLAIMS]["r"] = json!(1u64 << 53)),
        ("times are whole", &|v| v["exp"] = json!(1_700_000_300.5)),
        ("times are not negative", &|v| v["iat"] = json!(-1)),
        ("jti is a credential id", &|v| v["jti"] = json!("task_aaaaaaaaaaaaaaaaaaaaaaaaaa")),
        ("our own claims are there", &|v| drop(v.as_object_mut().unwrap().remove(OWN_CLAIMS))),
        ("client_id is there", &|v| drop(v.as_object_mut().unwrap().remove("client_id"))),
        ("bytes are lower-case hexadecimal", &|v| v[OWN_CLAIMS]["svid"]["serial"] = json!("0A")),
        ("no more tasks than there can be", &|v| v[OWN_CLAIMS]["tasks"] = vec![good[OWN_CLAIMS]["tasks"][0].clone(); 9].into()),
    ];
    for (clause, change) in malformed {
        assert!(matches!(with(change), Err(TokenDefect::Claims(_))), "{clause}: {:?}", with(change));
    }
    let twice = |from: &str, to: &str| {
        let text = good.to_string().replacen(from, to, 1);
        let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(c.header().to_string()), URL_SAFE_NO_PAD.encode(text));
        let key = c.ring.active(KeyPurpose::AccessToken, "dev").unwrap();
        let signature = key.sign(&digest::digest(&digest::SHA256, input.as_bytes())).unwrap();
        c.check(&format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
    };
    assert!(matches!(twice("{", r#"{"aud":"https://other.example","#), Err(TokenDefect::Claims(_))), "a name that stands twice");
}

#[test]
fn a_bound_token_needs_its_key() {
    let c = case();
    let bound = mint(&c.ring, full(T0, Seq::ZERO)).0;
    let mut parts = plain(1, T0, Seq::ZERO);
    let free = mint(&c.ring, parts.clone()).0;
    parts.draft.jkt = vec![0xee; 32];
    let dpop = mint(&c.ring, parts).0;
    let check = |token: &str, possession| verify(token, &c.keys, &Expect { possession, ..expect() }, |_| false).map(|_| ());
    let no = Err(TokenDefect::Possession);
    assert_eq!(check(&bound, Possession::Certificate(&[0xcd; 32])), Ok(()));
    assert_eq!(check(&bound, Possession::Certificate(&[0xce; 32])), no);
    assert_eq!(check(&bound, Possession::Jwk(&[0xcd; 32])), no);
    assert_eq!(check(&bound, Possession::None), no);
    assert_eq!(check(&dpop, Possession::Jwk(&[0xee; 32])), Ok(()));
    assert_eq!(check(&dpop, Possession::Certificate(&[0xee; 32])), no);
    assert_eq!(check(&free, Possession::None), Ok(()));
    let mut claims = decoded(&bound);
    claims["cnf"] = json!({"kid": "x"});
    assert_eq!(c.check(&c.forge(&c.header(), &claims)).map(|_| ()), no, "a confirmation that is not understood");
}

#[test]
fn every_changed_character_of_a_token_is_refused() {
    let c = case();
    let (token, _) = mint(&c.ring, plain(1, T0, Seq::ZERO));
    assert!(c.check(&token).is_ok());
    for at in 0..token.len() {
        let mut bad = token.clone().into_bytes();
        bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
        assert!(c.check(&String::from_utf8(bad).unwrap()).is_err(), "character {at}");
    }
    for bad in ["", ".", "..", "...", &format!("{token}."), &format!(".{token}"), &token.replace('.', ""), &format!("{token}=")] {
        assert!(c.check(bad).is_err(), "{bad}");
    }
    assert_eq!(c.check(&"a".repeat(crate::limits::TOKEN_BYTES + 1)).unwrap_err(), TokenDefect::TooLong);
}

#[test]
fn an_independent_library_verifies_it() {
    let c = case();
    let (token, _) = mint(&c.ring, full(T0, Seq::ZERO));
    let keys: jsonwebtoken::jwk::JwkSet = serde_json::from_str(&jwks(&c.log.state.keys, "dev")).unwrap();
    let header = jsonwebtoken::decode_header(&token).unwrap();
    assert_eq!((header.typ.as_deref(), header.alg), (Some("at+jwt"), jsonwebtoken::Algorithm::ES256));
    let key = jsonwebtoken::DecodingKey::from_jwk(keys.find(&header.kid.unwrap()).unwrap()).unwrap();
    let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
    rules.set_audience(&["https://echo.example"]);
    rules.set_issuer(&["https://mayfly.example/dev"]);
    rules.validate_exp = false;
    let claims = jsonwebtoken::decode::<Value>(&token, &key, &rules).unwrap().claims;
    assert_eq!(claims, decoded(&token));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is in a record, the claims are JSON that says just that: compared with a Value built by serde_json.
    #[test]
    fn names_of_any_characters_come_through_unchanged(
        sub in ".{1,40}", issuer in ".{1,40}", tool in ".{0,40}", upstream in ".{1,40}", audience in ".{1,40}",
        serial in proptest::collection::vec(any::<u8>(), 1..20), actors in proptest::collection::vec(".{1,20}", 0..8), r in 0u64..1 << 53,
    ) {
        let mut parts = full(T0, Seq::from_u64(r).unwrap());
        let e = &mut parts.draft;
        e.credential = SELF.to_vec();
        e.subject = Some(Identity { issuer: issuer.clone(), sub: sub.clone() });
        e.actors = actors.iter().map(|a| Identity { issuer: issuer.clone(), sub: a.clone() }).collect();
        e.tool = tool.clone();
        e.upstream = upstream.clone();
        if let Some(svid) = &mut e.svid { svid.serial = serial.clone(); }
        parts.path.push(parts.path[0].clone());
        parts.path[0].1 = Identity { issuer: issuer.clone(), sub: sub.clone() };
        let told = Told { issued: &parts.draft, revision: parts.revision, path: &parts.path, audience: &audience, issuer: &issuer };
        let mut out = Vec::new();
        write::claims(&mut out, &told).unwrap();
        let value: Value = serde_json::from_slice(&out).unwrap();
        prop_assert_eq!(&value["sub"], &json!(sub));
        prop_assert_eq!(&value["aud"], &json!(audience));
        let own = &value[OWN_CLAIMS];
        prop_assert_eq!(&own["upstream"], &json!(upstream));
        prop_assert_eq!(own.get("tool").cloned(), (!tool.is_empty()).then(|| json!(tool)));
        prop_assert_eq!(&own["r"], &json!(r));
        prop_assert_eq!(&own["svid"]["serial"], &json!(data_encoding::HEXLOWER.encode(&serial)));
        prop_assert_eq!(&own["tasks"][0]["owner"], &json!({"iss": issuer, "sub": sub}));
        let mut chain = json!(null);
        for a in actors.iter().rev() {
            let mut act = json!({"sub": a, "iss": issuer});
            if !chain.is_null() { act["act"] = chain; }
            chain = act;
        }
        let mut act = json!({"sub": AGENT, "iss": "a.example"});
        if !chain.is_null() { act["act"] = chain; }
        prop_assert_eq!(&value["act"], &act);
        // Written once more by serde_json it is as long: nothing was escaped that need not be.
        prop_assert_eq!(value.to_string().len(), out.len());
        let claims: Claims = serde_json::from_slice(&out).unwrap();
        prop_assert_eq!(claims.own.tasks[0].owner.sub.clone(), sub);
        prop_assert!(claims.own.tasks[1].owner.sub == owner().sub);
    }
}

/// A key set for a wycheproof or RFC key.
fn set_of(jwk: &Value) -> Jwks {
    let mut jwk = jwk.clone();
    if jwk.get("kid").is_none() {
        jwk["kid"] = json!("");
    }
    Jwks::parse(&json!({"keys": [jwk]}).to_string()).unwrap_or_default()
}

fn vectors(path: &str) -> Option<Value> {
    let dir = std::env::var("MAYFLY_VECTORS").unwrap_or_else(|_| format!("{}/../shared/vectors", env!("CARGO_MANIFEST_DIR")));
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
        // Groups of a MAC have no public key; whoever holds one must not be able to make a token.
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
            // Only the signature is theirs: their messages are no JWS, so the key is asked as `verify` asks it.
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
        // Only A.3 is ES256. Its header names no key, which ours always does; the key set here answers to that.
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
