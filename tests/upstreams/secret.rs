//! The life of a static secret: stored, handed out by a grant, marked by a revocation, replaced. Whole servers, killed.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use mayfly::cli::dev::DevWorld;
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::upstream_service_client::UpstreamServiceClient;
use serde_json::Value;

use super::gate::{PATIENCE, Watch};
use super::rig::{MAYFLY, Rig, wanted};

const TARGET: &str = "https://vendor.example.org/api/0";

/// A registration of kind `secret`, with the section's lines.
pub fn registration(name: &str, target: &str, section: &str) -> String {
    format!(
        r#"name = "{name}"
owner = "team-web"
purpose = "errors of the web shop"
environment = "dev"
audience = "https://{name}.example.org"
target = "{target}"
approvers = []
kinds = ["secret"]
scopes = ["orders:read", "orders:write"]
expires = 2099-12-31
rotation = "90d"
[classification]
system = "vendor"
privilege = "read"
blast_radius = "medium"
[ttl]
min = "2s"
default = "15m"
max = "1h"
[secret]
{section}
"#
    )
}

const IN_HEADER: &str = "release = \"grant\"\nmay_be_irrevocable = true\nheader = \"X-Api-Key\"\nvariable = \"VENDOR_KEY\"";
const BY_ITSELF: &str = "release = \"grant\"\nmay_be_irrevocable = true\non_revoke = \"nothing\"";

/// `mayfly secret put`, with the value on stdin.
pub fn put(rig: &Rig, name: &str, value: &str) -> Output {
    put_with(rig, &["secret", "put", name], value)
}

fn put_with(rig: &Rig, args: &[&str], value: &str) -> Output {
    let context = rig.world.write_context("operator/you", DevWorld::addresses(rig.world.dir()).unwrap().admin).unwrap();
    let mut command = std::process::Command::new(MAYFLY);
    command.arg("--config").arg(context).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A server that was killed makes the command end before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(value.as_bytes());
    child.wait_with_output().unwrap()
}

#[track_caller]
pub fn stored(rig: &Rig, name: &str, value: &str) -> u64 {
    let done = put_with(rig, &["-o", "json", "secret", "put", name], value);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let answer: Value = serde_json::from_slice(&done.stdout).unwrap();
    answer["version"].as_u64().unwrap_or_else(|| panic!("{answer}"))
}

pub fn ask(name: &str, task: &str, request_id: &str) -> pb::ExchangeRequest {
    pb::ExchangeRequest { kind: pb::CredentialKind::Secret.into(), ..wanted(name, task, "orders:read", request_id) }
}

/// The secret of an answer.
pub fn value_of(issued: &pb::Issued) -> String {
    match issued.answer.as_ref().unwrap() {
        pb::issued::Answer::BearerToken(bearer) => bearer.token.clone(),
        pb::issued::Answer::StaticSecret(secret) => String::from_utf8(secret.value.to_vec()).unwrap(),
        _ => panic!("no secret"),
    }
}

/// The secret as it is listed, without its value.
pub fn shown(rig: &Rig, name: &str) -> pb::UpstreamSecret {
    let ask = pb::ListSecretsRequest { upstream: name.into(), ..Default::default() };
    let listed = rig.runtime.block_on(async {
        UpstreamServiceClient::new(rig.operator().await).list_secrets(ask).await.unwrap().into_inner().secrets
    });
    listed.into_iter().next().unwrap_or_default()
}

#[track_caller]
pub fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Watch::start();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn rig(upstreams: &[(&str, String)]) -> Rig {
    let mut rig = Rig::new(upstreams);
    rig.start();
    rig
}

#[test]
fn a_secret_is_handed_out_by_a_grant_and_a_repeat_gets_the_same() {
    let rig = rig(&[("vendor", registration("vendor", TARGET, IN_HEADER))]);
    let task = rig.open("vendor");
    let no = rig.exchange(ask("vendor", &task, "none")).unwrap_err();
    assert!(no.message().contains("mayfly secret put vendor") && no.code() == tonic::Code::Unimplemented, "{no:?}");
    assert_eq!(stored(&rig, "vendor", "first-key\n"), 1);
    let first = rig.exchange(ask("vendor", &task, "one")).unwrap();
    let Some(pb::issued::Answer::BearerToken(bearer)) = &first.answer else { panic!("{first:?}") };
    assert_eq!((bearer.token.as_str(), bearer.header_name.as_str(), bearer.scheme.as_str()), ("first-key", "x-api-key", ""));
    assert!(bearer.base_url == TARGET && first.irrevocable, "the answer says that it cannot be revoked");
    let again = rig.exchange(ask("vendor", &task, "one")).unwrap();
    assert_eq!((again.novelty(), &again.credential_id), (pb::Novelty::Same, &first.credential_id));
    // A new version: new grants get it, and a repeat of the old one is replaced, since the old version is over.
    assert_eq!(stored(&rig, "vendor", "second-key"), 2);
    assert_eq!(value_of(&rig.exchange(ask("vendor", &task, "two")).unwrap()), "second-key");
    let replaced = rig.exchange(ask("vendor", &task, "one")).unwrap();
    assert_eq!((replaced.novelty(), value_of(&replaced).as_str()), (pb::Novelty::Replaced, "second-key"));
    // The same request id is the same version, and another value under it is refused.
    let args = ["-o", "json", "secret", "put", "vendor", "--request-id", "r1"];
    let third = put_with(&rig, &args, "third-key");
    assert!(third.status.success());
    assert_eq!(put_with(&rig, &args, "third-key").stdout, third.stdout);
    let other = put_with(&rig, &args, "another-key");
    assert!(String::from_utf8_lossy(&other.stderr).contains("request_id"), "{other:?}");
    let listed = shown(&rig, "vendor");
    assert_eq!((listed.version, listed.status.as_str(), listed.versions.len()), (3, "in use", 3));
    let states: Vec<_> = listed.versions.iter().map(pb::SecretVersion::state).collect();
    assert_eq!(states, [pb::SecretVersionState::Ended, pb::SecretVersionState::Ended, pb::SecretVersionState::Current]);
    // The secret survives a kill.
    let mut rig = rig;
    rig.kill();
    rig.start();
    let task = rig.open("vendor");
    assert_eq!(value_of(&rig.exchange(ask("vendor", &task, "after")).unwrap()), "third-key");
}

#[test]
fn what_is_not_to_be_handed_out_is_refused_with_its_reason() {
    let kept = "release = \"never\"";
    let rig = rig(&[
        ("kept", registration("kept", "https://kept.example.org", kept)),
        ("vendor", registration("vendor", TARGET, IN_HEADER)),
        ("plain", registration("plain", "https://plain.example.org", BY_ITSELF)),
    ]);
    assert_eq!(stored(&rig, "kept", "kept-key"), 1);
    let task = rig.open("kept");
    let no = rig.exchange(ask("kept", &task, "one")).unwrap_err();
    assert!(no.message().contains("never handed out") && no.message().contains("release = \"never\""), "{no}");
    assert!(rig.leases("kept", pb::UpstreamState::Unspecified).is_empty());
    for (name, value, said) in [
        ("vendor", "two\nlines", "visible ASCII"),
        ("vendor", "schlüssel", "visible ASCII"),
        ("vendor", " blank", "visible ASCII"),
        ("vendor", "", "is empty"),
        ("nobody", "x", "no upstream nobody"),
        ("echo", "x", "not of kind secret"),
    ] {
        let done = put(&rig, name, value);
        let told = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!done.status.success() && told.contains(said), "{name} {value:?}: {told}");
        assert!(value.len() < 3 || !told.contains(value), "{told}");
    }
    let long = "x".repeat(mayfly::limits::STATIC_SECRET_BYTES);
    assert_eq!(stored(&rig, "plain", &long), 1);
    assert!(!put(&rig, "plain", &format!("{long}x")).status.success());
    let task = rig.open("plain");
    assert_eq!(value_of(&rig.exchange(ask("plain", &task, "one")).unwrap()), long);
    // Not in a header: any bytes, and the line break that was asked for.
    let done = put_with(&rig, &["secret", "put", "plain", "--keep-newline"], "two\nlines\n");
    assert!(done.status.success(), "{done:?}");
    assert_eq!(value_of(&rig.exchange(ask("plain", &task, "two")).unwrap()), "two\nlines\n");
    // The secret goes to the target that it was stored for, and to no other.
    let file = rig.world.dir().join("vendor.toml");
    assert_eq!(stored(&rig, "vendor", "bound-key"), 1);
    std::fs::write(&file, registration("vendor", "https://evil.example.org", IN_HEADER)).unwrap();
    let changed = rig.operate(&["upstream", "change", file.to_str().unwrap(), "--confirm", "all"]);
    if changed.status.success() {
        let task = rig.open("vendor");
        let no = rig.exchange(ask("vendor", &task, "evil")).unwrap_err();
        assert!(no.message().contains(TARGET) && !no.message().contains("bound-key"), "{no}");
        assert!(shown(&rig, "vendor").status.contains("is not handed out for"), "{:?}", shown(&rig, "vendor"));
        stored(&rig, "vendor", "new-key");
        assert_eq!(value_of(&rig.exchange(ask("vendor", &task, "again")).unwrap()), "new-key");
    } else {
        // A target is widening: with two operators, the change waits for the second.
        assert_eq!(changed.status.code(), Some(9), "{changed:?}");
    }
    rig.operated(&["secret", "remove", "plain", "--reason", "a test"]);
    let no = rig.exchange(ask("plain", &task, "gone")).unwrap_err();
    assert!(no.message().contains("secret put") || no.message().contains("task"), "{no}");
}

#[test]
fn a_revocation_marks_the_version_and_the_lease_closes_once_it_was_replaced() {
    let mut rig = rig(&[
        ("vendor", registration("vendor", TARGET, IN_HEADER)),
        ("lax", registration("lax", "https://lax.example.org", BY_ITSELF)),
    ]);
    stored(&rig, "vendor", "first-key");
    stored(&rig, "lax", "lax-key");
    let (task, lax) = (rig.open("vendor"), rig.open("lax"));
    let one = rig.exchange(ask("vendor", &task, "one")).unwrap();
    let other = rig.exchange(ask("vendor", &task, "other")).unwrap();
    let short =
        pb::ExchangeRequest { ttl: Some(prost_types::Duration { seconds: 2, nanos: 0 }), ..ask("vendor", &task, "short") };
    rig.exchange(short).unwrap();
    until("what expires by itself marks nothing", || rig.leases("vendor", pb::UpstreamState::Unspecified).len() == 2);
    assert_eq!(shown(&rig, "vendor").status, "in use");
    let nothing = rig.exchange(ask("lax", &lax, "lax")).unwrap();
    for credential in [&one, &nothing] {
        rig.operated(&["revoke", "--credential", &credential.credential_id, "--reason", "a test"]);
    }
    until("on_revoke = nothing closes the lease", || rig.leases("lax", pb::UpstreamState::Unspecified).is_empty());
    let waiting = |rig: &Rig| {
        let pending = rig.leases("vendor", pb::UpstreamState::Pending);
        pending.len() == 1
            && pending.values().all(|l| l.credential_id == one.credential_id && l.last_error.contains("to be rotated"))
    };
    until("the lease says that the version is to be rotated", || waiting(&rig));
    let marked = shown(&rig, "vendor");
    assert!(marked.status.contains("version 1 is to be rotated") && marked.rotation_requested_at.is_some(), "{marked:?}");
    assert!(marked.rotation_reason.contains(&one.credential_id), "{marked:?}");
    assert!(rig.operated(&["secret", "list"]).contains("to be rotated"));
    assert!(rig.operated(&["lease", "list"]).contains("to be rotated"));
    // The mark and the lease survive a kill, also if the credential has ended by its time since.
    rig.kill();
    rig.start();
    until("after a kill, too", || waiting(&rig));
    assert!(rig.exchange(ask("vendor", &rig.open("vendor"), "still")).is_ok(), "new grants still get the version in use");
    stored(&rig, "vendor", "second-key");
    until("its replacement closes the lease", || rig.leases("vendor", pb::UpstreamState::Pending).is_empty());
    assert_eq!(shown(&rig, "vendor").status, "in use");
    rig.operated(&["revoke", "--credential", &other.credential_id, "--reason", "a test"]);
    until("a version that is over is not marked", || rig.leases("vendor", pb::UpstreamState::Pending).is_empty());
    assert_eq!(shown(&rig, "vendor").status, "in use");
}

#[test]
fn an_operator_adds_tests_and_uses_a_secret_by_the_command_line() {
    let rig = rig(&[]);
    assert!(rig.operated(&["upstream", "template", "secret"]).contains("[secret]"));
    let file = rig.world.dir().join("vendor.toml");
    std::fs::write(&file, registration("vendor", TARGET, IN_HEADER)).unwrap();
    rig.operated(&["upstream", "add", file.to_str().unwrap()]);
    let shown_file = rig.operated(&["upstream", "show", "vendor", "--file"]);
    assert!(shown_file.contains("rotation = \"90d\"") && shown_file.contains("[secret]"), "{shown_file}");
    let test = rig.operate(&["-o", "json", "upstream", "test", "vendor"]);
    assert!(String::from_utf8_lossy(&test.stdout).contains("secret put vendor") && test.status.code() == Some(6), "{test:?}");
    let key = rig.world.dir().join("key");
    std::fs::write(&key, "from-a-file\n").unwrap();
    rig.operated(&["secret", "put", "vendor", "--file", key.to_str().unwrap()]);
    let told = rig.operated(&["-o", "json", "upstream", "test", "vendor"]);
    assert!(told.contains("opens with the sealing key") && told.contains("verify that it is gone"), "{told}");
    assert!(rig.leases("vendor", pb::UpstreamState::Unspecified).is_empty());
    let run = |args: &[&str], script: &str| {
        let mut exec = rig.demo();
        exec.args(["exec", "--purpose", "a test"]).args(args).args(["--", "sh", "-c", script]);
        let done = exec.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    assert_eq!(run(&["--upstream", "vendor"], "echo $VENDOR_KEY $VENDOR_BASE_URL"), format!("from-a-file {TARGET}\n"));
    assert_eq!(run(&["--env", "OTHER=vendor"], "echo $OTHER$VENDOR_KEY"), "from-a-file\n");
    let got = rig.demo().args(["-o", "json", "get", "vendor", "--purpose", "a test"]).output().unwrap();
    let got = String::from_utf8_lossy(&got.stdout).into_owned();
    assert!(got.contains("x-api-key") && got.contains("from-a-file") && got.contains("\"irrevocable\": true"), "{got}");
    let rotate = rig.operate(&["secret", "rotate", "vendor", "--reason", "a test"]);
    assert!(String::from_utf8_lossy(&rotate.stderr).contains("no hook is configured"), "{rotate:?}");
    let show = rig.operate(&["secret", "show", "vendor"]);
    assert!(show.status.success() && !String::from_utf8_lossy(&show.stdout).contains("from-a-file"));
    // A workload has no business with any of it.
    let denied = rig.demo().args(["secret", "list"]).output().unwrap();
    assert!(!denied.status.success());
}

/// Killed while a secret is stored, again and again: an acknowledged version is in use, one that was not acknowledged is in use as a whole
/// or not at all, and the secret that is handed out is the one of the version.
#[test]
fn killed_while_a_secret_is_stored_there_is_the_old_one_or_the_new_one() {
    let mut rig = rig(&[("vendor", registration("vendor", TARGET, IN_HEADER))]);
    let mut values = BTreeMap::from([(stored(&rig, "vendor", "key-0"), "key-0".to_owned())]);
    let (mut acknowledged, mut lost) = (0, 0);
    for n in 1..=14u64 {
        let value = format!("key-{n}");
        let context = rig.world.write_context("operator/you", DevWorld::addresses(rig.world.dir()).unwrap().admin).unwrap();
        let mut command = std::process::Command::new(MAYFLY);
        command.arg("--config").arg(context).args(["-o", "json", "--deadline", "2s", "secret", "put", "vendor"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(value.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(n * 7));
        rig.kill();
        let done = child.wait_with_output().unwrap();
        rig.start();
        let before = *values.last_key_value().unwrap().0;
        let now = shown(&rig, "vendor").version;
        assert!(now == before || now == before + 1, "{before}, then {now}");
        if done.status.success() {
            let answer: Value = serde_json::from_slice(&done.stdout).unwrap();
            assert_eq!(answer["version"].as_u64(), Some(now), "what was acknowledged is in use");
            assert_eq!(now, before + 1);
            acknowledged += 1;
        } else {
            lost += 1;
        }
        if now > before {
            values.insert(now, value);
        }
        let task = rig.open("vendor");
        let given = rig.exchange(ask("vendor", &task, &format!("after {n}"))).unwrap();
        assert_eq!(value_of(&given), values[&now], "version {now}");
    }
    println!("{acknowledged} were acknowledged, {lost} were not");
    assert!(lost > 0, "no kill came in between");
}

/// The files under a directory, with their contents.
pub fn files(dir: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, found);
        } else if let Ok(bytes) = std::fs::read(&path) {
            found.push((path.display().to_string(), bytes));
        }
    }
}

/// Marker secrets are stored, handed out and refused; everything that is told and written is searched for them and for their unkeyed
/// digests.
#[test]
fn no_secret_is_anywhere_but_in_the_answer_of_a_grant() {
    let mut rig = rig(&[
        ("vendor", registration("vendor", TARGET, IN_HEADER)),
        ("plain", registration("plain", "https://plain.example.org", BY_ITSELF)),
    ]);
    let mut markers = vec!["marker-a1".to_owned(), "marker-b2".to_owned(), "marker ü3".to_owned(), "marker-d4".to_owned()];
    let mut told = String::new();
    let mut tell = |done: Output| {
        told += &String::from_utf8_lossy(&done.stdout);
        told += &String::from_utf8_lossy(&done.stderr);
        done.status.success()
    };
    assert!(tell(put_with(&rig, &["secret", "put", "vendor", "--request-id", "one"], &markers[0])));
    assert!(!tell(put_with(&rig, &["secret", "put", "vendor", "--request-id", "one"], &markers[3])));
    assert!(tell(put(&rig, "plain", &markers[1])));
    assert!(!tell(put(&rig, "vendor", &markers[2])));
    assert!(!tell(put(&rig, "nobody", &markers[0])));
    let (task, plain) = (rig.open("vendor"), rig.open("plain"));
    for (name, task) in [("vendor", &task), ("plain", &plain)] {
        let mut issued = rig.exchange(ask(name, task, name)).unwrap();
        told += &format!("{issued:?}");
        issued.answer = None;
        rig.operated(&["revoke", "--credential", &issued.credential_id, "--reason", "a test"]);
    }
    let backup = rig.world.dir().join("backup");
    for args in [
        &["secret", "list", "-o", "json"][..],
        &["secret", "show", "vendor", "-o", "json"],
        &["upstream", "test", "vendor"],
        &["upstream", "show", "vendor", "-o", "json"],
        &["lease", "list", "-o", "json"],
        &["credential", "list", "-o", "json"],
        &["audit", "search", "-o", "json"],
        &["status", "-o", "json"],
        &["explain", &task],
        &["server", "backup", "--to", backup.to_str().unwrap()],
    ] {
        let done = rig.operate(args);
        told += &String::from_utf8_lossy(&done.stdout);
        told += &String::from_utf8_lossy(&done.stderr);
    }
    assert!(told.contains("secret stored") && told.contains("keyed_digest"), "the audit has the records: {told}");
    assert!(backup.exists(), "{told}");
    rig.kill();
    let mut found = vec![("what was told".to_owned(), told.into_bytes())];
    files(rig.world.dir(), &mut found);
    assert!(found.iter().any(|(name, _)| name.contains("/data/")) && found.iter().any(|(name, _)| name.ends_with("server.log")));
    // An unkeyed digest of a short secret would give it away as well.
    let digests: Vec<Vec<u8>> = markers.iter().map(|m| mayfly::ledger::commit::sha256(m.as_bytes()).to_vec()).collect();
    markers.extend(digests.iter().map(|d| data_encoding::HEXLOWER.encode(d)));
    let needles = markers.iter().map(|m| m.as_bytes().to_vec()).chain(digests.clone());
    for needle in needles {
        for (name, bytes) in &found {
            let there = bytes.windows(needle.len()).any(|part| part == needle);
            assert!(!there, "{name} has a secret or its digest: {}", String::from_utf8_lossy(&needle));
        }
    }
}
