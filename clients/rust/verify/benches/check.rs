//! The cost of one check for a relying service, without the signature: `cargo bench -p mayfly-verify --bench check`.
//!
//! A million tokens and 10,000 rules of every sort that a name answers; no rule matches a token. Tokens are checked once with decisions
//! that saw all rules and once with rules that are all newer, so that every sort is evaluated. Measured per check:
//!
//! - a token seen before, without a change of rules since: freshness, lifetime, rules and holds (`Follower::touches`, `Follower::lives`);
//! - a token seen before, with a change since: the same with the hashes computed at the first check;
//! - a new token: its hashes are computed, as happens together with its claims, then the same;
//! - by name: the full check, needed only for tokens that may be affected (`Follower::check`).
//!
//! For the tokens that one verifier remembers also `Checker::stands` (issuer, audience, lifetime, rules, need), and `Checker::check` from
//! the text, which adds the SHA-256 of the token and a look-up, and for a new token its signature and claims.
#![allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::hint::black_box;
use std::time::Instant;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mayfly_verify::check::{Checked, Checker, Message, Need};
use mayfly_verify::limits;
use mayfly_verify::revocation::{Facts, FeedSnapshot, Follower, Heartbeat, Lifetime, Moment, ProbeHashes, SvidFacts, Target};
use mayfly_verify::seq::{CredentialId, Millis, Seq, TaskId};
use mayfly_verify::token::Jwks;

const TOKENS: u64 = 1_000_000;
const RULES: u64 = 10_000;
const ROUNDS: usize = 3;
const NOW: Moment = Moment { wall: Millis(1_800_000_000_000), steady: 1_000 };

fn id(n: u64, kind: u8) -> [u8; 16] {
    let mut out = [kind; 16];
    out[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    out
}

fn target(n: u64) -> Target {
    let text = |what: &str| -> Box<str> { format!("{what}-{n}").into() };
    match n % 10 {
        0 => Target::Credential(CredentialId::from_bytes(id(n, 9))),
        1 => Target::Task(TaskId::from_bytes(id(n, 9))),
        2 => Target::Caller(format!("spiffe://a.example/agent/{n}").into()),
        3 => Target::Prefix(format!("spiffe://a.example/team/{n}").into()),
        4 => Target::Subject("https://idp.example".into(), text("user")),
        5 => Target::Upstream(text("upstream")),
        6 => Target::UpstreamScope("github".into(), text("scope")),
        7 => Target::Tool(text("tool")),
        8 => Target::Svid("a.example".into(), [1; 32], n.to_be_bytes().to_vec().into()),
        _ => Target::SubjectToken("https://idp.example".into(), text("t")),
    }
}

/// The fields that differ between tokens.
struct Token {
    credential: CredentialId,
    tasks: [TaskId; 2],
    revision: Seq,
}

fn facts(token: &Token) -> Facts<'_> {
    Facts {
        revision: token.revision,
        credentials: vec![token.credential],
        tasks: token.tasks.to_vec(),
        identities: vec![
            ("a.example", "spiffe://a.example/prod/agent/build"),
            ("https://idp.example", "ada"),
            ("https://idp.example", "grace"),
        ],
        upstream: "github",
        scopes: vec!["issues:write", "repo:read"],
        binding: "build",
        tool: "create_issue",
        environment: "prod",
        policy: 7,
        key: "k1",
        svid: Some(SvidFacts { trust_domain: "a.example", anchor: &[3; 32], issuing_key: &[4; 32], serial: &[5, 6] }),
        subject_token: None,
        rests_on: Vec::new(),
    }
}

fn at(n: u64) -> Seq {
    Seq::from_u64(n).unwrap_or(Seq::ZERO)
}

fn snapshot() -> FeedSnapshot {
    let rules = (0..RULES).map(|n| (target(n), at(1_000_000 + n), None)).collect();
    FeedSnapshot { seq: at(3_000_000), rules, holds: Vec::new() }
}

fn beat() -> Heartbeat {
    let head = at(3_000_000);
    Heartbeat { head, previous: head, fresh_at: NOW.wall, max_age: 30_000, time_generation: 1 }
}

fn follower() -> Follower {
    let mut follower = Follower::new();
    assert!(follower.begin(&snapshot()).is_ok() && follower.heartbeat(beat(), NOW).is_ok());
    follower
}

/// Prints the nanoseconds per check: the fastest pass over all tokens.
fn measure(what: &str, tokens: usize, mut check: impl FnMut(usize) -> bool) {
    let round = |check: &mut dyn FnMut(usize) -> bool| {
        let begun = Instant::now();
        let refused = (0..tokens).filter(|n| !check(black_box(*n))).count();
        assert_eq!(refused, 0);
        begun.elapsed().as_nanos() as f64 / tokens as f64
    };
    let best = (0..ROUNDS).map(|_| round(&mut check)).fold(f64::MAX, f64::min);
    println!("{what:72} {best:8.1} ns");
}

fn rules(follower: &Follower) {
    let life = Lifetime { issued_at: NOW.wall, expires_at: NOW.wall.plus(300_000) };
    for (which, revision) in [("the decision saw all rules", 2_000_000), ("all rules are newer", 500_000)] {
        let token = |n| Token {
            credential: CredentialId::from_bytes(id(n, 1)),
            tasks: [TaskId::from_bytes(id(n, 2)), TaskId::from_bytes(id(n, 3))],
            revision: at(revision),
        };
        let tokens: Vec<Token> = (0..TOKENS).map(token).collect();
        let gathered: Vec<Facts<'_>> = tokens.iter().map(facts).collect();
        let asked: Vec<ProbeHashes> = gathered.iter().map(Facts::asked).collect();
        // Two names may have the same hash, so a token that is touched is checked by name, as `Checker` does.
        let quick = |asked: &ProbeHashes, n: usize| match follower.touches(asked) {
            true => follower.check(&gathered[n], life, NOW).is_ok(),
            false => follower.lives(life, NOW).is_ok(),
        };
        measure(&format!("seen before, nothing happened since; {which}"), tokens.len(), |n| quick(&asked[n], n));
        let rounds: Vec<Vec<ProbeHashes>> = (0..ROUNDS).map(|_| asked.clone()).collect();
        let (mut round, last) = (0, tokens.len() - 1);
        measure(&format!("seen before, something happened since; {which}"), tokens.len(), |n| {
            let good = quick(&rounds[round][n], n);
            round += usize::from(n == last);
            good
        });
        measure(&format!("a new one, its numbers made; {which}"), tokens.len(), |n| quick(&gathered[n].asked(), n));
        measure(&format!("by name; {which}"), tokens.len(), |n| follower.check(&gathered[n], life, NOW).is_ok());
    }
}

/// A key, and the tokens that its owner signs.
struct Signer(EcdsaKeyPair);

impl Signer {
    fn jwks(&self) -> String {
        let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
        let [x, y] = [x, y].map(|part| URL_SAFE_NO_PAD.encode(part));
        format!(r#"{{"keys":[{{"kty":"EC","crv":"P-256","kid":"k1","x":"{x}","y":"{y}"}}]}}"#)
    }

    fn token(&self, n: u64) -> String {
        let [credential, task] = [CredentialId::from_bytes(id(n, 1)).to_string(), TaskId::from_bytes(id(n, 2)).to_string()];
        let caller = format!("spiffe://a.example/ns/agents/sa/agent-{}", n % 5_000);
        let zeros = "0".repeat(64);
        let claims = format!(
            r#"{{"iss":"https://mayfly.example/prod","sub":"ada","aud":"https://github.example","exp":1800000300,"iat":1800000000,
            "nbf":1800000000,"jti":"{credential}","client_id":"{caller}","scope":"issues:write repo:read",
            "act":{{"sub":"{caller}","iss":"a.example"}},"https://mayfly.dev/claims":{{"v":1,"r":500000,"environment":"prod","policy_version":7,
            "upstream":"github","binding":"build","tool":"create_issue","trust_domain":"a.example","sub_iss":"https://idp.example",
            "tasks":[{{"id":"{task}","owner":{{"iss":"https://idp.example","sub":"grace"}}}}],
            "svid":{{"trust_anchor":"{zeros}","issuing_key":"{zeros}","serial":"{n:032x}"}}}}}}"#
        );
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","typ":"at+jwt","kid":"k1"}"#);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.map(|s| s.as_ref().to_vec()).unwrap_or_default()))
    }
}

fn whole() -> Option<()> {
    let signer = Signer(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).ok()?);
    let mut checker = Checker::new("https://mayfly.example/prod", "https://github.example");
    let new = |checker: &mut Checker| checker.set_keys(Jwks::default());
    checker.take(Message::Part { part: snapshot(), last: true }, NOW).ok()?;
    checker.take(Message::Heartbeat(beat()), NOW).ok()?;
    let tokens: Vec<String> = (0..limits::VERIFIED as u64 / 4).map(|n| signer.token(n)).collect();
    let need = Need { scope: "issues:write", tool: "create_issue", ..Need::default() };
    let keys = Jwks::parse(&signer.jwks()).ok()?;
    measure("from its text, a new one, all rules newer: with signature and claims", tokens.len(), |n| {
        if n == 0 {
            new(&mut checker);
            checker.set_keys(keys.clone());
        }
        checker.check(&tokens[n], &need, NOW).is_ok()
    });
    measure("from its text, one seen before, all rules newer", tokens.len(), |n| checker.check(&tokens[n], &need, NOW).is_ok());
    let known: Vec<std::sync::Arc<Checked>> = tokens.iter().filter_map(|t| checker.check(t, &need, NOW).ok()).collect();
    measure("the same with everything but its text", known.len(), |n| checker.stands(&known[n], &need, NOW).is_ok());
    Some(())
}

fn main() {
    let follower = follower();
    println!("{TOKENS} tokens, {} rules; budget 100 ns for a check without the signature", follower.rules());
    rules(&follower);
    whole().expect("a key can be made and a snapshot taken");
}
