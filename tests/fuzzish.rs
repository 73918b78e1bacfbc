//! The functions of `fuzz/targets.rs` on a stable compiler: known inputs, and bounded mutations of them.
//!
//! `MAYFLY_FUZZ_CASES` is the number of mutations of each target (default 3,000). A failing input is shrunk to the fewest mutations and
//! printed. `MAYFLY_WRITE_CORPUS=DIR` writes the known inputs as a corpus for libFuzzer.

use std::path::PathBuf;
use std::sync::Arc;

use mayfly::identity::bundle::{Bundle, Bundles};
use mayfly::identity::jwt_svid::{self, Audiences, JwtSvidRequirements};
use mayfly::identity::spiffe_id::TrustDomain;
use mayfly::pb::mayfly::v1 as pb;
use mayfly::seq::Millis;
use mayfly::store::Store;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};
use prost::Message;

#[path = "records/samples.rs"]
#[allow(dead_code, reason = "the numbers of kinds are for another test")]
mod samples;
#[path = "kit/signer.rs"]
#[allow(dead_code, reason = "other tests sign otherwise")]
mod signer;
#[path = "../fuzz/targets.rs"]
mod targets;

/// A change of a byte string.
#[derive(Clone, Debug)]
enum Change {
    Flip(Index, u8),
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, usize, Index),
    Cut(Index),
    Splice(Index, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..6),
        // Inputs that are difficult for parsers.
        prop::sample::select(vec![
            &b"\0"[..],
            b"\"",
            b"\\u0000",
            b"[[[[[[[[",
            b"{\"a\":",
            b"..",
            b"/",
            b"%2f",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"-1",
            b"1e999",
            b"\xed\xa0\x80",
            b"\r\n"
        ])
        .prop_map(<[u8]>::to_vec),
    ];
    prop_oneof![
        (any::<Index>(), 0..8u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (any::<Index>(), bytes).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (any::<Index>(), 1..40usize).prop_map(|(at, length)| Change::Remove(at, length)),
        (any::<Index>(), 1..60usize, any::<Index>()).prop_map(|(from, length, to)| Change::Repeat(from, length, to)),
        any::<Index>().prop_map(Change::Cut),
        (any::<Index>(), 1..60usize).prop_map(|(other, length)| Change::Splice(other, length)),
    ]
}

fn changed(seeds: &[Vec<u8>], seed: &Index, changes: &[Change]) -> Vec<u8> {
    let mut data = seed.get(seeds).clone();
    for change in changes {
        let place = |at: &Index, data: &[u8]| at.index(data.len() + 1);
        match change {
            Change::Flip(at, bit) => {
                if !data.is_empty() {
                    let at = at.index(data.len());
                    data[at] ^= 1 << bit;
                }
            }
            Change::Set(at, byte) => {
                if !data.is_empty() {
                    let at = at.index(data.len());
                    data[at] = *byte;
                }
            }
            Change::Insert(at, bytes) => {
                let at = place(at, &data);
                data.splice(at..at, bytes.iter().copied());
            }
            Change::Remove(at, length) => {
                let at = place(at, &data);
                let end = (at + length).min(data.len());
                data.drain(at..end);
            }
            Change::Repeat(from, length, to) => {
                let from = place(from, &data);
                let copy = data[from..(from + length).min(data.len())].to_vec();
                let to = place(to, &data);
                data.splice(to..to, copy);
            }
            Change::Cut(at) => data.truncate(at.index(data.len() + 1)),
            Change::Splice(other, length) => {
                let other = other.get(seeds);
                data.extend_from_slice(&other[..(*length).min(other.len())]);
            }
        }
    }
    data
}

fn text(t: &str) -> Vec<u8> {
    t.as_bytes().to_vec()
}

fn records() -> Vec<Vec<u8>> {
    samples::all().iter().map(|(_, record)| record.encode_to_vec()).collect()
}

/// A record with its length before it, as `targets::fold` reads several.
fn framed(record: &[u8]) -> Vec<u8> {
    [&u16::try_from(record.len()).unwrap().to_be_bytes()[..], record].concat()
}

fn sample(path: &str) -> Vec<u8> {
    std::fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// A root and a leaf as PEM, and the root in SPIFFE form.
fn certificates() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.subject_alt_names.push(rcgen::SanType::URI("spiffe://example.org/agent".try_into().unwrap()));
    let certificate = params.self_signed(&key).unwrap();
    let x5c = data_encoding::BASE64.encode(certificate.der());
    let jwks = format!(
        "{{\"spiffe_sequence\":3,\"spiffe_refresh_hint\":300,\"keys\":[{{\"use\":\"x509-svid\",\"kty\":\"EC\",\"crv\":\"P-256\",\
         \"x\":\"AAAA\",\"y\":\"AAAA\",\"x5c\":[\"{x5c}\"]}},{{\"use\":\"jwt-svid\",\"kid\":\"a\",\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"\",\"y\":\"\"}}]}}"
    );
    (certificate.pem(), jwks)
}

fn a_token() -> Vec<u8> {
    let part = |json: &str| data_encoding::BASE64URL_NOPAD.encode(json.as_bytes());
    let header = part("{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"k\"}");
    let claims = "{\"iss\":\"https://mayfly.example/dev\",\"sub\":\"spiffe://example.org/agent\",\"aud\":\"https://echo.example\",\"exp\":1700000300,\"iat\":1700000000,\"nbf\":1700000000,\"jti\":\"cred_aaaaaaaaaaaaaaaaaaaaaaaaaa\",\"client_id\":\"spiffe://example.org/agent\",\"scope\":\"echo:read\"}";
    text(&format!("{header}.{}.{}", part(claims), data_encoding::BASE64URL_NOPAD.encode(&[7; 64])))
}

/// JWT-SVIDs, each after the key set that verifies it: one valid token, and some invalid ones.
fn jwt_svids() -> Vec<Vec<u8>> {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let base64 = |bytes: &[u8]| data_encoding::BASE64URL_NOPAD.encode(bytes);
    let (x, y) = key.public_key().as_ref()[1..].split_at(32);
    let rsa = "{\"kty\":\"RSA\",\"kid\":\"r\",\"n\":\"w_-_\",\"e\":\"AQAB\"}";
    let (x, y) = (base64(x), base64(y));
    let keys = format!("{{\"keys\":[{{\"kty\":\"EC\",\"kid\":\"k\",\"crv\":\"P-256\",\"x\":\"{x}\",\"y\":\"{y}\"}},{rsa}]}}");
    let token = |header: &str, claims: &str| {
        let input = format!("{}.{}", base64(header.as_bytes()), base64(claims.as_bytes()));
        let signature = key.sign(&aws_lc_rs::rand::SystemRandom::new(), input.as_bytes()).unwrap();
        let token = format!("{input}.{}", base64(signature.as_ref()));
        [&u16::try_from(keys.len()).unwrap().to_be_bytes()[..], keys.as_bytes(), token.as_bytes()].concat()
    };
    let header = "{\"alg\":\"ES256\",\"kid\":\"k\",\"typ\":\"JWT\"}";
    let claims = "{\"sub\":\"spiffe://example.org/ci/job\",\"aud\":[\"https://mayfly.example\"],\"exp\":1700000300,\"iat\":1700000000,\"jti\":\"a\"}";
    let good = token(header, claims);
    let accepted = {
        let bundle = Bundle::from_jwt_bundle(TrustDomain::parse("example.org").unwrap(), keys.as_bytes()).unwrap();
        let expect = JwtSvidRequirements {
            audiences: Audiences::Only("https://mayfly.example"),
            now: Millis(1_700_000_000_000),
            leeway_ms: 0,
            max_ttl_ms: 300_000,
        };
        let bundles = Bundles::new([std::sync::Arc::new(bundle)]).unwrap();
        jwt_svid::verify(str::from_utf8(&good[2 + keys.len()..]).unwrap(), &bundles, &expect)
    };
    assert_eq!(accepted.map(|svid| svid.kid().to_owned()), Ok("k".to_owned()), "mutations begin at what is accepted");
    vec![
        good,
        token(&header.replace("ES256", "RS256"), claims),
        token(&header.replace("\"k\"", "\"r\""), &claims.replace("1700000000", "17e8")),
        token("{\"alg\":\"none\",\"crit\":[\"exp\"]}", "{\"sub\":\"spiffe://example.org\",\"aud\":[],\"exp\":-1}"),
    ]
}

/// Tokens of an OIDC issuer, each after the key set that verifies it: one valid token, and some invalid ones.
fn oidc_tokens() -> Vec<Vec<u8>> {
    let key = signer::Signer::new("ES256");
    let mut jwk = key.jwk();
    jwk["kid"] = "k".into();
    let keys = serde_json::json!({ "keys": [jwk] }).to_string();
    let token = |header: &str, claims: &str| {
        let token = key.raw(header, claims);
        [&u16::try_from(keys.len()).unwrap().to_be_bytes()[..], keys.as_bytes(), token.as_bytes()].concat()
    };
    let header = "{\"alg\":\"ES256\",\"kid\":\"k\",\"typ\":\"JWT\"}";
    let claims = "{\"iss\":\"https://idp.example\",\"sub\":\"ada\",\"aud\":\"https://mayfly.example\",\"exp\":1700000300,\"iat\":1700000000}";
    vec![
        token(header, claims),
        token(header, &claims.replace("\"sub\":\"ada\"", "\"sub\":\"SPIFFE://example.org/admin\",\"groups\":[\"a\"]")),
        token(&header.replace("ES256", "none"), &claims.replace("1700000000", "17e8")),
        token(&header.replace("\"typ\"", "\"jku\""), &claims.replace("\"ada\"", "[]")),
    ]
}

fn exchanges() -> Vec<Vec<u8>> {
    let terms = pb::TaskTerms {
        purpose: "triage".into(),
        upstreams: vec![pb::Allowance { upstream: "echo".into(), scopes: vec!["echo:read".into()] }],
        tools: vec!["search".into()],
        ttl: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        heartbeat_interval: Some(prost_types::Duration { seconds: -1, nanos: i32::MIN }),
        ..Default::default()
    };
    let arguments = pb::Arguments { arguments: Some(pb::arguments::Arguments::Json("{\"q\":[1,2.5,\"ü\"]}".into())) };
    let ask = pb::ExchangeRequest {
        task: Some(pb::exchange_request::Task::OpenTask(terms)),
        upstream: "echo".into(),
        scopes: vec!["echo:read".into()],
        tool: "search".into(),
        arguments: Some(arguments),
        request_id: "r-1".into(),
        ttl: Some(prost_types::Duration { seconds: i64::MAX, nanos: 999_999_999 }),
        ..Default::default()
    };
    let named = pb::ExchangeRequest {
        task: Some(pb::exchange_request::Task::TaskId("task_aaaaaaaaaaaaaaaaaaaaaaaaaa".into())),
        ..ask.clone()
    };
    vec![ask.encode_to_vec(), named.encode_to_vec()]
}

fn plain_exchanges() -> Vec<Vec<u8>> {
    let least = pb::ExchangeRequest {
        task: Some(pb::exchange_request::Task::TaskId("task_aaaaaaaaaaaaaaaaaaaaaaaaaa".into())),
        upstream: "echo".into(),
        ..Default::default()
    };
    let digest = || vec![7; 32].into();
    let most = pb::ExchangeRequest {
        scopes: vec!["echo:write".into(), "echo:read".into()],
        kind: 1,
        ttl: Some(prost_types::Duration { seconds: 300, nanos: 5_000_000 }),
        tool: "search".into(),
        purpose: "für alle".into(),
        arguments: Some(pb::Arguments { arguments: Some(pb::arguments::Arguments::Sha256(digest())) }),
        request_id: "r-1".into(),
        key_binding: Some(pb::KeyBinding { key: Some(pb::key_binding::Key::JwkThumbprint(digest())) }),
        ..least.clone()
    };
    let own = pb::KeyBinding { key: Some(pb::key_binding::Key::CallerSvid(pb::CallerSvid {})) };
    let bound = pb::ExchangeRequest { key_binding: Some(own), ..least.clone() };
    [least, most, bound].iter().map(Message::encode_to_vec).collect()
}

fn feeds() -> Vec<Vec<u8>> {
    let first = 1u64 << 45;
    let rule = |seq: u64, previous: u64| {
        let target = pb::Target { target: Some(pb::target::Target::Tool("search".into())) };
        let rule = pb::RuleEvent { targets: vec![target], locks: true, ..Default::default() };
        let event = Some(pb::watch_revocations_response::Event::Rule(rule));
        let message = pb::WatchRevocationsResponse { seq, previous_seq: previous, event }.encode_to_vec();
        [&[u8::try_from(message.len()).unwrap()][..], &message].concat()
    };
    vec![
        [rule(first + 1, first), rule(first + 5, first + 1)].concat(),
        [rule(first + 5, first + 3), rule(first + 6, first + 5)].concat(),
        [rule(first + 2, first), rule(first + 2, first), rule(first + 1, first)].concat(),
    ]
}

/// Known inputs of a target.
fn seeds(name: &str) -> Vec<Vec<u8>> {
    let (pem, jwks) = certificates();
    match name {
        "record" => records(),
        "commit" => {
            let hex = String::from_utf8(sample("tests/vectors/records/v1/commit.hex")).unwrap().replace('\n', "");
            vec![data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap()]
        }
        "fold" => {
            let framed: Vec<Vec<u8>> = records().iter().map(|r| framed(r)).collect();
            let begun = framed[0].clone();
            let mut all: Vec<Vec<u8>> = framed.windows(2).map(|pair| [&begun[..], &pair[0], &pair[1]].concat()).collect();
            all.extend(framed);
            all
        }
        "spiffe_id" => [
            "spiffe://example.org/ns/agents/one",
            "spiffe://example.org",
            "spiffe://a_b-c.1/..x/-",
            "SPIFFE://Example.org:80//a/./b?c#d%41",
        ]
        .map(text)
        .to_vec(),
        "bundle" => vec![text(&pem), text(&jwks), text("{\"keys\":[]}"), text("{\"keys\":[],\"keys\":[]}")],
        "chain" => {
            let der = data_encoding::BASE64.decode(pem.lines().filter(|l| !l.starts_with('-')).collect::<String>().as_bytes());
            vec![text(&pem), text(&format!("{pem}{pem}")), der.unwrap()]
        }
        "token" => vec![
            a_token(),
            text("mfr_"),
            text("a.b.c"),
            text(
                "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"k\",\"alg\":\"ES256\",\"use\":\"sig\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\",\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"}]}",
            ),
        ],
        "jwt_svid" => jwt_svids(),
        "oidc" => oidc_tokens(),
        "arguments" => [
            "{\"b\":[1,2.50,-0.0,1e3,1e-7,123456789012345678901234567890],\"a\":{\"\\u00e9\":null,\"x\":true}}",
            "[]",
            "\"\\ud83d\\ude00\"",
            "9007199254740993",
        ]
        .map(text)
        .to_vec(),
        "export" => {
            ["export.jsonl", "checkpoint.txt", "keys.json"].map(|name| sample(&format!("tests/vectors/audit/{name}"))).into()
        }
        "traceparent" => [
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-will-be-like",
        ]
        .map(text)
        .to_vec(),
        "certified_key" => {
            let key = rcgen::KeyPair::generate().unwrap();
            let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
            let (_, line) = mayfly::credential::ssh::new_key(&mayfly::system::System::real(), "x").unwrap();
            let blob = data_encoding::BASE64.decode(line.split(' ').nth(1).unwrap().as_bytes()).unwrap();
            vec![csr.der().to_vec(), text(&line), blob]
        }
        "wal" => {
            let files: Vec<_> = (0..3).map(|_| targets::LogFile(Arc::new(vec![0; 6 * 4096].into()))).collect();
            let store = targets::log_in(&files).unwrap();
            [300, 5_000, 0, 4_030, 9_000, 12_000, 1]
                .iter()
                .zip(1..)
                .for_each(|(len, at)| store.append(at, &vec![9; *len]).unwrap());
            vec![files.iter().flat_map(|file| file.0.lock().unwrap().clone()).collect()]
        }
        "target" => {
            let all = samples::all();
            let revoked = all.iter().find(|(name, _)| name == "30-revoked").unwrap().1.event.clone();
            let Some(mayfly::ledger::record::Event::Revoked(revoked)) = revoked else { panic!("the sample is a revocation") };
            revoked.targets.iter().map(|t| text(&mayfly::revocation::Target::from_record(t).unwrap().to_string())).collect()
        }
        "config" => vec![sample("tests/samples/mayfly.toml")],
        "policy_tests" => vec![text(include_str!("../src/cli/samples/tests.toml"))],
        "exchange" => exchanges(),
        "plain" => plain_exchanges(),
        "feed" => feeds(),
        other => panic!("{other} has no known inputs"),
    }
}

fn run(name: &str) {
    let (_, target) = targets::ALL.iter().find(|(n, _)| *n == name).unwrap();
    let seeds = seeds(name);
    if let Some(dir) = std::env::var_os("MAYFLY_WRITE_CORPUS") {
        let dir = PathBuf::from(dir).join(name);
        std::fs::create_dir_all(&dir).unwrap();
        seeds.iter().enumerate().for_each(|(n, seed)| std::fs::write(dir.join(n.to_string()), seed).unwrap());
    }
    seeds.iter().for_each(|seed| target(seed));
    let cases = std::env::var("MAYFLY_FUZZ_CASES").map_or(3_000, |n| n.parse().unwrap());
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let strategy = (any::<Index>(), prop::collection::vec(change(), 0..7));
    let outcome = runner.run(&strategy, |(seed, changes)| {
        let data = changed(&seeds, &seed, &changes);
        let held = std::panic::catch_unwind(|| target(&data));
        prop_assert!(held.is_ok(), "{name} on {:?}", String::from_utf8_lossy(&data));
        Ok(())
    });
    outcome.unwrap_or_else(|e| panic!("{e}"));
}

macro_rules! run {
    ($($name:ident)*) => {
        $(#[test] fn $name() { run(stringify!($name)) })*

        #[test]
        fn every_target_is_run() {
            let run = [$(stringify!($name)),*];
            assert!(targets::ALL.iter().all(|(name, _)| run.contains(name)), "{run:?}");
            for name in run {
                let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz/fuzz_targets/{name}.rs"));
                assert!(program.is_file(), "{}", program.display());
            }
        }
    };
}

run!(record commit fold spiffe_id bundle chain token jwt_svid oidc arguments target config policy_tests exchange plain feed export traceparent wal certified_key);
