//! Tests the claims against their record, and each defect of a token separately.

mod defects;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::CredentialMaterial;
use crate::keyring::{Keyring, jwks};
use crate::kind::mint_local;
use crate::status_list::StatusListAllocator;
use crate::testing::{AGENT, TestLog, full, grant, keyring, owner, plain};
use mayfly_ledger::Receipt;
use mayfly_ledger::record::{Ancestor, KeyPurpose, Principal, Record};
use mayfly_ledger::revocation::target::Target;
use mayfly_ledger::revocation::target_kind::SORTS;
use mayfly_ledger::revocation::{Rules, TargetKind, TargetKinds, answers};
use mayfly_policy::grant::GrantParts;
use mayfly_verify::seq::{CredentialId, Millis, TaskId};

const T0: Millis = Millis(1_700_000_000_999);
const SELF: [u8; 16] = [0xc1; 16];

fn mint(ring: &Keyring, parts: GrantParts) -> (String, Record) {
    let status = StatusListAllocator::new(Seq::from_u64(5).unwrap(), &[9; 32]);
    let id = CredentialId::from_bytes(SELF);
    let mut minted = mint_local(grant(parts), id, 1, ring, &status, Vec::new(), T0).map_err(|e| e.to_string()).unwrap();
    let record = minted.records().remove(0);
    match minted.reveal(Receipt::of_test(id)).unwrap().into_parts().2 {
        CredentialMaterial::Bearer { token, .. } => (token.into_text(), record),
        _ => panic!("no token"),
    }
}

fn expect() -> TokenRequirements<'static> {
    TokenRequirements {
        issuer: "https://mayfly.example/dev",
        audience: "https://echo.example",
        now: T0.plus(5_000),
        max_ttl_ms: mayfly_base::limits::CREDENTIAL_TTL_MS,
        skew_ms: 1_000,
        possession: Possession::Certificate(&[0xcd; 32]),
    }
}

struct Case {
    log: TestLog,
    ring: Keyring,
    keys: Jwks,
}

fn case() -> Case {
    let mut log = TestLog::new(T0);
    let (ring, _) = keyring(&mut log);
    let keys = Jwks::parse(&jwks(&log.state.keys, "dev")).unwrap();
    Case { log, ring, keys }
}

impl Case {
    fn kid(&self) -> String {
        self.keys.kids().next().unwrap().to_owned()
    }

    /// A token with any header and claims, signed by the issuer's key.
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
    let me = Principal { issuer: "a.example".into(), sub: AGENT.into() };
    let mut parts = plain(1, T0, Seq::ZERO);
    parts.draft.subject = Some(me.clone());
    let claims = decoded(&mint(&c.ring, parts.clone()).0);
    assert!(claims.get("act").is_none() && claims[OWN_CLAIMS].get("sub_iss").is_none());
    // The same `sub` under another issuer is a different subject.
    parts.draft.subject = Some(Principal { issuer: "https://idp.example".into(), ..me });
    let claims = decoded(&mint(&c.ring, parts).0);
    assert_eq!(claims["act"], json!({"sub": AGENT, "iss": "a.example"}), "the caller acts, also where no actor is named");
}

#[test]
fn each_revocation_target_is_answerable_from_claims() {
    let mut c = case();
    let mut parts = full(T0, c.log.state.head);
    parts.draft.ancestors = vec![Ancestor { credential: vec![6; 16], caller: "spiffe://c.example/ci/job".into() }];
    let (token, record) = mint(&c.ring, parts);
    c.log.put(vec![Record { request: None, ..record }])[0].clone().unwrap();
    let (claims, kid) = verify(&token, &c.keys, &expect(), |_| false).unwrap();
    let said = claims.facts(&kid);
    let live = c.log.state.credentials.get(&CredentialId::from_bytes(SELF)).unwrap();
    let known = c.log.state.facts(&live, c.log.state.tasks.at(live.task()).unwrap());
    assert_eq!(
        answers(&said, TargetKinds::ALL),
        answers(&known, TargetKinds::ALL),
        "a verifier can ask what the fold can ask, no more and no less"
    );
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
    for (sort, target) in TargetKind::ALL.into_iter().zip(targets) {
        assert_eq!(target.sort(), sort, "a sort of target that no claim is shown to answer");
        let mut rules = Rules::default();
        rules.add(&target, c.log.state.head.next(), None, T0.plus(1));
        assert_eq!(rules.covers(&said).map(|h| h.target), Some(target));
    }
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

    /// Whatever a record contains, the claims are JSON that says exactly that: compared with a Value built by serde_json.
    #[test]
    fn names_of_any_characters_come_through_unchanged(
        sub in ".{1,40}", issuer in ".{1,40}", tool in ".{0,40}", upstream in ".{1,40}", audience in ".{1,40}",
        serial in proptest::collection::vec(any::<u8>(), 1..20), actors in proptest::collection::vec(".{1,20}", 0..8), r in 0u64..1 << 53,
    ) {
        let mut parts = full(T0, Seq::from_u64(r).unwrap());
        let e = &mut parts.draft;
        e.credential = SELF.to_vec();
        e.subject = Some(Principal { issuer: issuer.clone(), sub: sub.clone() });
        e.actors = actors.iter().map(|a| Principal { issuer: issuer.clone(), sub: a.clone() }).collect();
        e.tool = tool.clone();
        e.upstream = upstream.clone();
        if let Some(svid) = &mut e.svid { svid.serial = serial.clone(); }
        parts.path = TaskPath::New {
            tasks: [parts.path.tasks(), parts.path.tasks()].concat(),
            owners: vec![Principal { issuer: issuer.clone(), sub: sub.clone() }, parts.path.owners()[0].clone()],
        };
        let told = TokenContent { issued: &parts.draft, revision: parts.revision, path: &parts.path, grounds: &[], audience: &audience, issuer: &issuer };
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
        // Written again by serde_json the claims have the same length, so nothing was escaped needlessly.
        prop_assert_eq!(value.to_string().len(), out.len());
        let claims: Claims = serde_json::from_slice(&out).unwrap();
        prop_assert_eq!(claims.own.tasks[0].owner.sub.clone(), sub);
        prop_assert!(claims.own.tasks[1].owner.sub == owner().sub);
    }
}
