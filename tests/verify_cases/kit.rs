//! The tools for writing cases: fixed keys, fixed times, tokens with any header and claims, messages of the feed as proto3 JSON.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use mayfly::seq::{CredentialId, Seq, TaskId};
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use serde_json::{Value, json};

pub const ISSUER: &str = "https://mayfly.example/prod";
pub const AUDIENCE: &str = "https://github.example";
pub const OWN: &str = "https://mayfly.dev/claims";
pub const KID: &str = "k1";
pub const CALLER: &str = "spiffe://a.example/agent/build";

/// The wall clock when a case begins, milliseconds: 15 January 2027, and no whole second, so that rounding shows.
pub const T0: u64 = 1_800_000_000_500;
/// The steady clock when a case begins. Its origin is arbitrary.
pub const S0: u64 = 7_000_000;
/// `iat` of a good token.
pub const IAT: u64 = 1_800_000_000;
/// `exp` of a good token.
pub const EXP: u64 = IAT + 300;
/// The sequence number of the snapshot with which a case begins.
pub const HEAD: u64 = 1000;
/// The decision revision of a good token.
pub const R: u64 = 1010;

/// A sequence number of the first generation.
pub fn seq(n: u64) -> u64 {
    Seq::start_of(1).as_u64() + n
}

pub fn cred(n: u8) -> String {
    CredentialId::from_bytes([n; 16]).to_string()
}

pub fn task(n: u8) -> String {
    TaskId::from_bytes([n; 16]).to_string()
}

/// A key, by number. Signing with it is deterministic (RFC 6979), so each run writes the same file.
pub fn key(n: u8) -> SigningKey {
    SigningKey::from_slice(&[n; 32]).unwrap()
}

pub fn jwk(n: u8, kid: &str) -> Value {
    let point = key(n).verifying_key().to_sec1_point(false);
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let (x, y) = point.as_bytes()[1..].split_at(32);
    json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": kid, "x": part(x), "y": part(y)})
}

pub fn jwks() -> Value {
    json!({"keys": [jwk(1, KID)]})
}

pub fn header() -> Value {
    json!({"alg": "ES256", "typ": "at+jwt", "kid": KID})
}

/// The claims of a token with every field: a subject, actors, owners, ancestors, an SVID.
pub fn claims() -> Value {
    json!({
        "iss": ISSUER,
        "sub": "ada",
        "aud": AUDIENCE,
        "exp": EXP,
        "iat": IAT,
        "nbf": IAT,
        "jti": cred(1),
        "client_id": CALLER,
        "scope": "issues:write repo:read",
        "act": {"sub": CALLER, "iss": "a.example", "act": {"sub": "spiffe://front.example/web", "iss": "front.example"}},
        OWN: {
            "v": 1,
            "r": seq(R),
            "environment": "prod",
            "policy_version": 7,
            "upstream": "github",
            "binding": "build-issues",
            "tool": "create_issue",
            "trust_domain": "a.example",
            "tasks": [
                {"id": task(1), "owner": {"iss": "https://idp.example", "sub": "grace"}},
                {"id": task(2), "owner": {"iss": "plan.example", "sub": "spiffe://plan.example/planner"}},
            ],
            "sub_iss": "https://idp.example",
            "subject_token": {"iss": "https://idp.example", "id": "t-1"},
            "ancestors": [{"id": cred(6), "caller": "spiffe://ci.example/job/9"}],
            "svid": {"trust_anchor": "03".repeat(32), "issuing_key": "04".repeat(32), "serial": "0506"},
        },
    })
}

/// The signing input: any texts as header and payload.
pub fn input(header: &str, payload: &str) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload))
}

/// A token over any texts, signed by the key with that number.
pub fn sign(n: u8, input: &str) -> String {
    let signature: Signature = key(n).sign(input.as_bytes());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()))
}

pub fn token(header: &Value, claims: &Value) -> String {
    sign(1, &input(&header.to_string(), &claims.to_string()))
}

/// The good token with changed claims.
pub fn with(change: impl FnOnce(&mut Value)) -> String {
    let mut claims = claims();
    change(&mut claims);
    token(&header(), &claims)
}

/// The good token with another decision revision.
pub fn decided_at(r: u64) -> String {
    with(|c| c[OWN]["r"] = json!(r))
}

/// The good token with a changed header.
pub fn with_header(change: impl FnOnce(&mut Value)) -> String {
    let mut header = header();
    change(&mut header);
    token(&header, &claims())
}

// ---- messages of the feed

pub fn timestamp(ms: u64) -> String {
    let at = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).unwrap();
    at.format(&time::format_description::well_known::Rfc3339).unwrap()
}

pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub fn snapshot(at: u64, rules: Value, holds: Value) -> Value {
    json!({"seq": at.to_string(), "snapshot": {"rules": rules, "holds": holds, "last": true}})
}

pub fn rule(at: u64, previous: u64, targets: Value) -> Value {
    json!({"seq": at.to_string(), "previousSeq": previous.to_string(), "rule": {"seq": at.to_string(), "targets": targets}})
}

pub fn hold(sort: &str, at: u64, previous: u64, task: &str) -> Value {
    json!({"seq": at.to_string(), "previousSeq": previous.to_string(), sort: {"seq": at.to_string(), "taskId": task}})
}

pub fn heartbeat(head: u64, previous: u64, fresh_at: u64) -> Value {
    json!({"seq": head.to_string(), "previousSeq": previous.to_string(),
        "heartbeat": {"freshAt": timestamp(fresh_at), "maxAge": "30s", "timeGeneration": 1}})
}

// ---- cases

/// The parameters of a check in addition to the token.
#[derive(Clone, Default)]
pub struct Ask {
    pub scope: &'static str,
    pub tool: &'static str,
    pub arguments: String,
    pub certificate: String,
}

/// A case that is being written.
pub struct Case {
    name: String,
    why: String,
    steps: Vec<Value>,
    wall: u64,
    steady: u64,
}

impl Case {
    /// A case whose follower has no state.
    pub fn bare(name: &str, why: &str) -> Case {
        Case { name: name.to_owned(), why: why.to_owned(), steps: Vec::new(), wall: T0, steady: S0 }
    }

    /// A case with an empty snapshot at [`HEAD`] and a fresh heartbeat.
    pub fn new(name: &str, why: &str) -> Case {
        Case::bare(name, why)
            .feed(snapshot(seq(HEAD), json!([]), json!([])), "taken")
            .feed(heartbeat(seq(HEAD), seq(HEAD - 10), T0), "taken")
    }

    /// Advances both clocks.
    pub fn after(mut self, ms: u64) -> Case {
        self.wall += ms;
        self.steady += ms;
        self
    }

    /// Sets both clocks: the wall clock may have been set.
    pub fn clocks(mut self, wall: u64, steady: u64) -> Case {
        (self.wall, self.steady) = (wall, steady);
        self
    }

    pub fn keys(mut self, jwks: Value) -> Case {
        self.steps.push(json!({"wall": self.wall, "steady": self.steady, "jwks": jwks}));
        self
    }

    pub fn feed(mut self, message: Value, expect: &str) -> Case {
        self.steps.push(json!({"wall": self.wall, "steady": self.steady, "feed": message, "expect": expect}));
        self
    }

    pub fn check(self, token: &str, expect: &str) -> Case {
        self.ask(token, Ask::default(), expect)
    }

    pub fn ask(mut self, token: &str, ask: Ask, expect: &str) -> Case {
        let Ask { scope, tool, arguments, certificate } = ask;
        let check = json!({"token": token, "scope": scope, "tool": tool, "arguments_sha256": arguments, "certificate_sha256": certificate});
        self.steps.push(json!({"wall": self.wall, "steady": self.steady, "check": check, "expect": expect}));
        self
    }

    pub fn done(self) -> Value {
        json!({"name": self.name, "why": self.why, "steps": self.steps})
    }
}

/// A case of one check by a fresh follower.
pub fn one(name: &str, why: &str, token: &str, expect: &str) -> Value {
    Case::new(name, why).check(token, expect).done()
}
