//! What one check costs a relying service, without the signature: `cargo bench -p mayfly-verify --bench check`.
//!
//! A million tokens, parsed; 10,000 rules of every sort that a name answers, all of them newer than half of the tokens, so that every sort is
//! asked for those; none of them hits. Measured: freshness, life, rules and holds (`Follower::check`) over facts that are gathered once when
//! the token is parsed; and the same with gathering them.
#![allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::hint::black_box;
use std::time::Instant;

use mayfly_verify::revocation::{Facts, FeedSnapshot, Follower, Heartbeat, Life, Moment, SvidFacts, Target};
use mayfly_verify::seq::{CredentialId, Millis, Seq, TaskId};

const TOKENS: u64 = 1_000_000;
const RULES: u64 = 10_000;
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

/// What differs from token to token.
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
    }
}

fn follower() -> Follower {
    let mut follower = Follower::new();
    let at = |n: u64| Seq::from_u64(n).unwrap_or(Seq::ZERO);
    let rules = (0..RULES).map(|n| (target(n), at(1_000_000 + n), None)).collect();
    let head = at(3_000_000);
    let begun = follower.begin(&FeedSnapshot { seq: head, rules, holds: Vec::new() });
    let beat = Heartbeat { head, previous: head, fresh_at: NOW.wall, max_age: 30_000, time_generation: 1 };
    assert!(begun.is_ok() && follower.heartbeat(beat, NOW).is_ok());
    follower
}

/// Nanoseconds per check, the best of three rounds over the tokens.
fn measure(what: &str, tokens: &[Token], mut check: impl FnMut(usize) -> bool) {
    let round = |check: &mut dyn FnMut(usize) -> bool| {
        let begun = Instant::now();
        let refused = (0..tokens.len()).filter(|n| !check(black_box(*n))).count();
        assert_eq!(refused, 0);
        begun.elapsed().as_nanos() as f64 / tokens.len() as f64
    };
    let best = (0..3).map(|_| round(&mut check)).fold(f64::MAX, f64::min);
    println!("{what:62} {best:7.1} ns");
}

fn main() {
    let follower = follower();
    let life = Life { issued_at: NOW.wall, expires_at: NOW.wall.plus(300_000) };
    let tokens = |revision: u64| -> Vec<Token> {
        let revision = Seq::from_u64(revision).unwrap_or(Seq::ZERO);
        let token = |n| Token {
            credential: CredentialId::from_bytes(id(n, 1)),
            tasks: [TaskId::from_bytes(id(n, 2)), TaskId::from_bytes(id(n, 3))],
            revision,
        };
        (0..TOKENS).map(token).collect()
    };
    println!("{TOKENS} tokens, {} rules", follower.rules());
    for (what, revision) in [("decided after all rules", 2_000_000), ("decided before all rules, every sort asked", 500_000)] {
        let tokens = tokens(revision);
        let gathered: Vec<Facts<'_>> = tokens.iter().map(facts).collect();
        measure(what, &tokens, |n| follower.check(&gathered[n], life, NOW).is_ok());
        measure(&format!("{what}, facts gathered"), &tokens, |n| follower.check(&facts(&tokens[n]), life, NOW).is_ok());
    }
}
