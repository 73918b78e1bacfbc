//! Test vectors for the verifiers of every language, `tests/vectors/verify/reach.json`: tokens of a whole server, the revoked target, and
//! the verifier's answer afterwards. Before the revocation, each token is accepted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use mayfly::credential::jwt::Jwks;
use mayfly::revocation::follower::Moment;
use mayfly::seq::Millis;
use mayfly::verifier::{self, Checker, Need};
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};

use super::ground::parts;

const OWN: &str = "https://mayfly.dev/claims";

#[derive(Default)]
pub struct Vectors {
    /// The keys that signed the tokens, by `kid`.
    keys: BTreeMap<String, Value>,
    cases: Vec<Value>,
}

fn pool() -> &'static DescriptorPool {
    static POOL: std::sync::OnceLock<DescriptorPool> = std::sync::OnceLock::new();
    POOL.get_or_init(|| DescriptorPool::decode(mayfly::pb::FILE_DESCRIPTOR_SET).unwrap())
}

/// A message from proto3 JSON.
pub fn message<M: prost::Message + Default>(name: &str, json: &Value) -> M {
    let kind = pool().get_message_by_name(&format!("mayfly.v1.{name}")).unwrap();
    DynamicMessage::deserialize(kind, json).unwrap().transcode_to().unwrap()
}

/// The targets that a revocation can have, by their JSON names.
pub fn targets_of_the_contract() -> BTreeSet<String> {
    let target = pool().get_message_by_name("mayfly.v1.Target").unwrap();
    let oneof = target.oneofs().find(|oneof| oneof.name() == "target").unwrap();
    oneof.fields().map(|field| field.json_name().to_owned()).collect()
}

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/verify/reach.json")
}

/// The messages that a verifier receives: a snapshot without rules and a heartbeat, then the rule. The tests of other languages send the
/// same messages.
fn feed(case: &Value) -> (Moment, [Value; 3]) {
    let (seen, wall, seq) = (&case["seen"], case["wall"].as_u64().unwrap(), &case["seq"]);
    let at = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(wall) * 1_000_000).unwrap();
    let fresh_at = at.format(&time::format_description::well_known::Rfc3339).unwrap();
    let heartbeat = json!({"freshAt": fresh_at, "maxAge": "30s", "timeGeneration": 1});
    let messages = [
        json!({"seq": seen, "snapshot": {"rules": [], "holds": [], "last": true}}),
        json!({"seq": seen, "previousSeq": seen, "heartbeat": heartbeat}),
        json!({"seq": seq, "previousSeq": seen, "rule": {"seq": seq, "targets": [case["target"]]}}),
    ];
    (Moment { wall: Millis(wall), steady: 1000 }, messages)
}

/// The answers of the Rust verifier before and after the rule.
fn verified(case: &Value, keys: &Jwks) -> [&'static str; 2] {
    let (now, [snapshot, heartbeat, rule]) = feed(case);
    let text = |name: &str| case[name].as_str().unwrap();
    let mut checker = Checker::new(text("issuer"), text("audience"));
    checker.set_keys(keys.clone());
    let take = |checker: &mut Checker, json: &Value| {
        let sent: mayfly_client::pb::mayfly::v1::WatchRevocationsResponse = message("WatchRevocationsResponse", json);
        let Ok(read) = verifier::read(&sent) else { panic!("{json}") };
        checker.take(read, now).unwrap();
    };
    let answer =
        |checker: &Checker| checker.check(text("token"), &Need::default(), now).map_or_else(|no| no.reason(), |_| "accepted");
    take(&mut checker, &snapshot);
    take(&mut checker, &heartbeat);
    let before = answer(&checker);
    take(&mut checker, &rule);
    [before, answer(&checker)]
}

fn jwks(keys: &Value) -> Jwks {
    Jwks::parse(&json!({ "keys": keys }).to_string()).unwrap()
}

impl Vectors {
    pub fn len(&self) -> usize {
        self.cases.len()
    }

    /// Adds the keys that are published now.
    pub fn keys(&mut self, jwks: &Value) {
        for key in jwks["keys"].as_array().unwrap() {
            self.keys.insert(key["kid"].as_str().unwrap().to_owned(), key.clone());
        }
    }

    /// Asks the verifier before and after a rule with this seq, and adds the case. Returns whether the token was accepted before and after.
    pub fn add(&mut self, name: &str, token: &str, target: &Value, seq: u64) -> [bool; 2] {
        let (head, claims) = parts(token);
        let seen = claims[OWN]["r"].as_u64().unwrap().to_string();
        let wall = claims["iat"].as_u64().unwrap() * 1000 + 1000;
        let mut case = json!({
            "name": name, "issuer": claims["iss"], "audience": claims["aud"], "token": token, "target": target,
            "seen": seen, "seq": seq.to_string(), "wall": wall,
        });
        let keys = jwks(&json!([self.keys[head["kid"].as_str().unwrap()]]));
        let [before, after] = verified(&case, &keys);
        case["expect"] = after.into();
        self.cases.push(case);
        [before, after].map(|answer| answer == "accepted")
    }

    /// Writes the file, or checks that it has the same cases with the same claims. The tokens in the file are of the day on which it was
    /// written.
    pub fn compare(&self) {
        if std::env::var_os("MAYFLY_WRITE_SAMPLES").is_some() {
            let signed: BTreeSet<String> = self.cases.iter().map(kid).collect();
            let keys: Vec<&Value> = signed.iter().map(|kid| &self.keys[kid]).collect();
            let lines: Vec<String> = self.cases.iter().map(Value::to_string).collect();
            let text = format!("{{\"version\": 1,\n\"keys\": {},\n\"cases\": [\n{}\n]}}\n", json!(keys), lines.join(",\n"));
            std::fs::write(file(), text).unwrap();
        }
        let stored: Value = serde_json::from_str(&std::fs::read_to_string(file()).unwrap()).unwrap();
        let stored_cases = stored["cases"].as_array().unwrap();
        let current: Vec<String> = self.cases.iter().map(shape).collect();
        let different = stored_cases.iter().map(shape).zip(&current).find(|(stored, current)| stored != *current);
        assert!(
            different.is_none() && stored_cases.len() == current.len(),
            "tests/vectors/verify/reach.json is not current ({different:?}): MAYFLY_WRITE_SAMPLES=1 cargo test --test server reach"
        );
        for case in stored_cases {
            assert_eq!(
                verified(case, &jwks(&stored["keys"])),
                ["accepted", case["expect"].as_str().unwrap()],
                "{}",
                case["name"]
            );
        }
    }
}

fn kid(case: &Value) -> String {
    parts(case["token"].as_str().unwrap()).0["kid"].as_str().unwrap().to_owned()
}

/// The parts of a case that are the same whenever the file is written: its name, the form of its target, the names of the token's claims
/// and of the claims of its grounds, and the answer.
fn shape(case: &Value) -> String {
    let (_, claims) = parts(case["token"].as_str().unwrap());
    let names = |v: &Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    let own = &claims[OWN];
    let grounds: Vec<String> = own["rests_on"].as_array().into_iter().flatten().map(names).collect();
    let target = &case["target"];
    let (name, expect) = (case["name"].as_str().unwrap(), case["expect"].as_str().unwrap());
    format!("{name}: {} [{}] [{}] {grounds:?} {expect}", names(target), names(&claims), names(own))
}
