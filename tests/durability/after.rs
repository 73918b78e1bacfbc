//! The audit, revocations and keys of a server after a recovery or a restart.

use std::fs;
use std::process::Command;

use mayfly::cli::dev::{DevSettings, DevWorld};
use mayfly::ledger::record::KeyPurpose;
use mayfly::seq::Seq;
use redb::TableDefinition;

use crate::kit::{Callers, MAYFLY, as_operator, until, world};
use crate::recover::{all_refused, as_printed, head, issue, raw, recover, recovered, refused, runtime, start};

const NAMED: TableDefinition<&str, &[u8]> = TableDefinition::new("named");

/// Invariant 6 holds across generations.
#[test]
fn what_was_issued_before_a_recovery_stays_explainable() {
    let (_dir, world) = world(DevSettings::default());
    let runtime = runtime();
    let running = start(&world);
    let old = issue(&runtime, &world, &running, &["a"]).remove(0);
    let kept = head(&running);
    let lost = issue(&runtime, &world, &running, &["b"]).remove(0);
    running.stop();
    recovered(&recover(&world, kept, &[]));
    let running = start(&world);
    issue(&runtime, &world, &running, &["c"]);
    let admin = running.addresses().admin;
    let told = |args: &[&str]| {
        let out = as_operator(&world, admin, args);
        assert!(out.status.success(), "{args:?}: {out:?}");
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let begun = Seq::start_of(2).next().unwrap().to_string();
    let why = told(&["explain", &old.id]);
    for part in ["issued to spiffe://", "task opened", "generation begun", "revoked by rule", &begun, "recovered"] {
        assert!(why.contains(part), "{part:?} is not in:\n{why}");
    }
    let shown: serde_json::Value = serde_json::from_str(&told(&["-o", "json", "credential", "show", &old.id])).unwrap();
    assert_eq!(shown["state"], "revoked", "{shown}");
    let task = shown["task_id"].as_str().unwrap();
    assert!(told(&["explain", task]).contains("void since seq"), "{}", told(&["explain", task]));
    // The credential is also found by its record's seq, and by the digest of its token's signing input.
    assert!(told(&["explain", &kept.to_string()]).contains(&old.id));
    let input = old.token.rsplit_once('.').unwrap().0;
    let digest = data_encoding::HEXLOWER.encode(&mayfly::ledger::commit::sha256(input.as_bytes()));
    assert!(told(&["token", "lookup", "--sha256", &digest]).contains(&old.id));
    // The credentials left behind are in no record: the answer must not be the same as for ids that never existed.
    assert_eq!(as_operator(&world, admin, &["explain", &lost.id]).status.code(), Some(3));
    running.stop();
}

/// A signing key whose private part is missing cannot be made again, so the start prints the way to restore a backup.
#[test]
fn a_start_without_the_private_part_of_a_key_prints_what_mends_it() {
    let (_dir, world) = world(DevSettings::default());
    let runtime = runtime();
    let running = start(&world);
    let old = issue(&runtime, &world, &running, &["a"]);
    let key = running.authority().ledger.peek(|s| s.active_key(KeyPurpose::AccessToken, "dev").unwrap().0.to_owned());
    let backup = world.dir().join("backup");
    let to = backup.display().to_string();
    assert!(as_operator(&world, running.addresses().admin, &["server", "backup", "--to", &to]).status.success());
    running.stop();
    raw(&world, |tx| drop(tx.open_table(NAMED).unwrap().remove(&*format!("key/{key}")).unwrap().expect("a sealed key")));
    let said = refused(&world, &["the private part of key", &key, "begin anew"]);
    let line = said.lines().find(|l| l.contains("server restore")).unwrap();
    let typed = &line[line.find("mayfly server restore").unwrap()..];
    let typed = typed.replace("BACKUP", &backup.display().to_string()).replace("mayfly ", "\"$M\" ");
    let out = Command::new("sh").args(["-c", &typed]).env("M", MAYFLY).output().unwrap();
    assert!(out.status.success(), "{typed}: {out:?}");
    let kept = |name: String| name.contains("before-restore-");
    let mut beside = fs::read_dir(world.dir()).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned());
    assert!(beside.any(kept), "the data directory of before is kept beside the new one");
    let running = start(&world);
    all_refused(&runtime, &world, &running, &old, &["a"]);
    assert_eq!(head(&running).generation(), 2);
    running.stop();
}

/// A start from a snapshot verifies the earlier commits while it serves, and reports its progress.
#[test]
fn status_tells_how_far_history_is_verified_and_what_the_store_takes() {
    let (_dir, world) = world(DevSettings::default().with("ledger.snapshot_every", "16"));
    let runtime = runtime();
    let running = start(&world);
    issue(&runtime, &world, &running, &[""; 40]);
    running.stop();
    let running = start(&world);
    let admin = running.addresses().admin;
    let status = || -> serde_json::Value {
        let out = as_operator(&world, admin, &["-o", "json", "status"]);
        serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"))
    };
    assert_ne!(status()["ledger"]["snapshot_seq"], 0, "it begins with a snapshot");
    runtime.block_on(until("all of it is verified", || async {
        let ledger = status()["ledger"].take();
        ledger["verified_seq"] == ledger["durable_seq"]
    }));
    let files =
        ["ledger.redb", "wal-0", "wal-1", "wal-2"].map(|name| fs::metadata(world.dir().join("data").join(name)).unwrap().len());
    let file: u64 = files.iter().sum();
    let told = status()["disk"]["store_bytes"].as_u64().unwrap();
    assert!(told > 100_000 && told <= file, "{told} of {file}");
    running.stop();
}

/// The author and reason of a rule or lock are in its record, not in the state: after a restart they are looked up.
#[test]
fn rules_and_locks_say_who_made_them_and_why_after_a_restart() {
    let (_dir, world) = world(DevSettings::default());
    let running = start(&world);
    let ci = DevWorld::id("ci/demo");
    for args in [
        ["lock", "add", "--caller", &ci, "--reason", "a doubt"],
        ["revoke", "--tool", "read", "--reason", "a leak", "--issued-only"],
    ] {
        let out = as_operator(&world, running.addresses().admin, &args);
        assert!(out.status.success(), "{out:?}");
    }
    running.stop();
    let running = start(&world);
    for (noun, reason) in [("lock", "a doubt"), ("rules", "a leak")] {
        let out = as_operator(&world, running.addresses().admin, &["-o", "json", noun, "list"]);
        let listed: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(listed[0]["reason"], reason, "{listed}");
        assert!(listed[0]["author"].to_string().contains("operator/you"), "{listed}");
    }
    running.stop();
}

/// A revocation was acknowledged, the server was killed, and a bit of the record flipped: the start is refused, names the seq from which on
/// nothing can be trusted, and prints the command that fixes it.
#[test]
fn a_bit_that_flipped_in_the_newest_record_of_a_killed_server_drops_nothing_in_silence() {
    let (_dir, world) = world(DevSettings::default());
    let runtime = runtime();
    let child = world.spawn(MAYFLY.as_ref()).unwrap();
    let workload = child.addresses().workload;
    let callers = runtime.block_on(Callers::new(&world, workload));
    let issued = runtime.block_on(callers.exchange("a")).unwrap();
    runtime.block_on(callers.revoke(&issued.id)).unwrap();
    child.kill();
    let newest =
        (0..3).map(|n| world.dir().join(format!("data/wal-{n}"))).max_by_key(|path| last_record(&fs::read(path).unwrap()));
    let newest = newest.unwrap();
    let mut bytes = fs::read(&newest).unwrap();
    let at = last_record(&bytes).unwrap().1;
    bytes[at + 100] ^= 16;
    fs::write(&newest, &bytes).unwrap();
    let said = refused(&world, &["acknowledged", "server recover", "--after"]);
    let told = recovered(&as_printed(&said));
    assert!(told.contains("generation 2"), "{told}");
    let running = start(&world);
    all_refused(&runtime, &world, &running, &[issued], &["a"]);
    running.stop();
}

/// The position of the newest record in a log file, and its offset.
fn last_record(bytes: &[u8]) -> Option<(u64, usize)> {
    let begins = (0..bytes.len()).step_by(4096).filter(|at| bytes[*at..].starts_with(b"mayflyWL"));
    let placed = begins.map(|at| (u64::from_le_bytes(bytes[at + 48..at + 56].try_into().unwrap()), at));
    placed.max()
}
