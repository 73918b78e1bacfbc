//! The test cases for the verifiers of every language, `tests/vectors/verify/cases.json`: written here with fixed keys and times, and
//! tested with the Rust verifier. `MAYFLY_WRITE_SAMPLES=1` writes the file anew.
//!
//! A case is a follower without state, and steps: key sets that replace the previous ones, messages of the feed (proto3 JSON of
//! WatchRevocationsResponse) with their results, and checks with their answers. Each step has a wall time and a steady time.

mod feed;
mod grounds;
mod kit;
mod reach;
mod targets;
mod tokens;

use std::collections::BTreeSet;
use std::path::PathBuf;

use mayfly::credential::jwt::Jwks;
use mayfly::limits;
use mayfly::revocation::follower::{Missed, Moment};
use mayfly::seq::Millis;
use mayfly::verifier::{self, Checker, Need};
use mayfly_client::pb::mayfly::v1 as pb;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};

/// The closed list of reasons.
const REASONS: [&str; 23] = [
    "too_long",
    "malformed",
    "algorithm",
    "typ",
    "header_parameter",
    "key_revoked",
    "unknown_key",
    "signature",
    "claims",
    "newer_version",
    "issuer",
    "audience",
    "expired",
    "not_yet",
    "life",
    "possession",
    "not_whole",
    "rolled_back",
    "stale",
    "revoked",
    "held",
    "scope",
    "tool",
];

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/verify/cases.json")
}

fn written() -> String {
    let cases = [tokens::cases(), targets::cases(), grounds::cases(), feed::cases()].concat();
    let head = json!({
        "settings": {
            "issuer": kit::ISSUER, "audience": kit::AUDIENCE, "max_ttl_ms": limits::CREDENTIAL_TTL_MS,
            "skew_ms": limits::CLOCK_SKEW_MS, "feed_max_age_ms": limits::FEED_MAX_AGE_MS,
        },
        "jwks": kit::jwks(),
    });
    // One line per step, so that a diff shows the changed steps.
    let mut out = format!("{{\"version\": 1,\n\"settings\": {},\n\"jwks\": {},\n\"cases\": [\n", head["settings"], head["jwks"]);
    for (at, case) in cases.iter().enumerate() {
        let steps: Vec<String> = case["steps"].as_array().unwrap().iter().map(|s| format!("  {s}")).collect();
        let comma = if at + 1 < cases.len() { "," } else { "" };
        out +=
            &format!("{{\"name\": {}, \"why\": {},\n \"steps\": [\n{}]}}{comma}\n", case["name"], case["why"], steps.join(",\n"));
    }
    out + "]}\n"
}

fn read() -> Value {
    serde_json::from_str(&std::fs::read_to_string(file()).unwrap()).unwrap()
}

#[test]
fn the_file_is_what_the_code_writes() {
    let written = written();
    if std::env::var_os("MAYFLY_WRITE_SAMPLES").is_some() {
        std::fs::create_dir_all(file().parent().unwrap()).unwrap();
        std::fs::write(file(), &written).unwrap();
    }
    let stored = std::fs::read_to_string(file()).unwrap();
    assert!(
        stored == written,
        "tests/vectors/verify/cases.json is not current: MAYFLY_WRITE_SAMPLES=1 cargo test --test verify_cases"
    );
}

fn message(pool: &DescriptorPool, json: &Value) -> pb::WatchRevocationsResponse {
    let kind = pool.get_message_by_name("mayfly.v1.WatchRevocationsResponse").unwrap();
    DynamicMessage::deserialize(kind, json).unwrap().transcode_to().unwrap()
}

fn digest(step: &Value, name: &str) -> Option<[u8; 32]> {
    let text = step["check"][name].as_str().unwrap();
    (!text.is_empty()).then(|| data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap().try_into().unwrap())
}

fn check(checker: &Checker, step: &Value, now: Moment) -> &'static str {
    let text = |name: &str| step["check"][name].as_str().unwrap();
    let (arguments, certificate) = (digest(step, "arguments_sha256"), digest(step, "certificate_sha256"));
    let need =
        Need { scope: text("scope"), tool: text("tool"), arguments: arguments.as_ref(), certificate: certificate.as_ref() };
    let answer =
        |checker: &Checker| checker.check(text("token"), &need, now).map_or_else(|refused| refused.reason(), |_| "accepted");
    // A repeated check uses the cache of verified tokens, and must give the same answer; a clone of the checker has an empty cache.
    let (new, each) = (answer(&checker.clone()), [(); 3].map(|()| answer(checker)));
    assert!(each.iter().all(|said| *said == new), "{new}, and then {each:?}: {step}");
    new
}

fn take(checker: &mut Checker, message: &pb::WatchRevocationsResponse, now: Moment) -> &'static str {
    // A malformed message ends the stream, and nothing of it is applied.
    let Ok(message) = verifier::read(message) else { return "malformed" };
    match checker.take(message, now) {
        Ok(()) => "taken",
        Err(Missed::Gap { .. }) => "gap",
        Err(Missed::Old { .. }) => "old",
        Err(Missed::NoSnapshot) => "no_snapshot",
    }
}

#[test]
fn the_verifier_gives_exactly_these_answers() {
    let all = read();
    let pool = DescriptorPool::decode(mayfly::pb::FILE_DESCRIPTOR_SET).unwrap();
    let settings = |name: &str| all["settings"][name].as_str().unwrap();
    let mut wrong = Vec::new();
    for case in all["cases"].as_array().unwrap() {
        let mut checker = Checker::new(settings("issuer"), settings("audience"));
        checker.set_keys(Jwks::parse(&all["jwks"].to_string()).unwrap());
        for (at, step) in case["steps"].as_array().unwrap().iter().enumerate() {
            let now = Moment { wall: Millis(step["wall"].as_u64().unwrap()), steady: step["steady"].as_u64().unwrap() };
            let found = if step.get("jwks").is_some() {
                checker.set_keys(Jwks::parse(&step["jwks"].to_string()).unwrap());
                continue;
            } else if step.get("feed").is_some() {
                take(&mut checker, &message(&pool, &step["feed"]), now)
            } else {
                check(&checker, step, now)
            };
            if step["expect"] != found {
                wrong.push(format!("{}, step {}: {found}, not {}", case["name"], at + 1, step["expect"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_reason_every_target_and_every_message_is_in_them() {
    let all = read();
    let cases = all["cases"].as_array().unwrap();
    let names: BTreeSet<&str> = cases.iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), cases.len(), "two cases have one name");
    let steps: Vec<&Value> = cases.iter().flat_map(|c| c["steps"].as_array().unwrap()).collect();
    let expected: BTreeSet<&str> =
        steps.iter().filter(|s| s.get("check").is_some()).map(|s| s["expect"].as_str().unwrap()).collect();
    let list: BTreeSet<&str> = REASONS.into_iter().chain(["arguments", "accepted"]).collect();
    assert_eq!(expected, list);
    let taken: BTreeSet<&str> = steps.iter().filter(|s| s.get("feed").is_some()).map(|s| s["expect"].as_str().unwrap()).collect();
    assert_eq!(taken, BTreeSet::from(["taken", "gap", "old", "no_snapshot", "malformed"]));
    let pool = DescriptorPool::decode(mayfly::pb::FILE_DESCRIPTOR_SET).unwrap();
    let text = all.to_string();
    for (message, oneof) in [("Target", "target"), ("WatchRevocationsResponse", "event")] {
        let message = pool.get_message_by_name(&format!("mayfly.v1.{message}")).unwrap();
        for field in message.oneofs().find(|o| o.name() == oneof).unwrap().fields() {
            assert!(text.contains(&format!("{:?}:", field.json_name())), "no case has {}", field.json_name());
        }
    }
}
