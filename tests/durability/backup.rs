//! A backup of a server under load, and its restore: nothing that was revoked before or after the backup becomes valid again.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mayfly::cli::dev::{DevEngine, DevSettings, DevWorld};
use mayfly::ledger::ProposalKind;
use mayfly::ledger::backup::BackupFile;
use mayfly::ledger::record::{Author, Event, Maintained, Record};
use mayfly::server::RunningServer;
use mayfly::store::Store;
use mayfly::system::System;

use crate::kit::{Callers, Issued, MAYFLY, accepts, as_operator, follower, mayfly, reason, world};
use crate::recover::{head, issue, runtime, start};

fn text(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

#[track_caller]
fn ok(out: &Output) -> String {
    assert!(out.status.success(), "{}", text(out));
    text(out)
}

#[track_caller]
fn refused(out: &Output, parts: &[&str]) {
    let said = text(out);
    assert_eq!(out.status.code(), Some(1), "{said}");
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
}

fn take(world: &DevWorld, running: &RunningServer, to: &Path) -> Output {
    as_operator(world, running.addresses().admin, &["server", "backup", "--to", &to.display().to_string()])
}

fn restore(world: &DevWorld, backup: &Path, more: &[&str]) -> Output {
    mayfly(&[&["server", "restore", &backup.display().to_string()], more].concat(), &world.config())
}

fn verify(backup: &Path) -> Output {
    Command::new(MAYFLY).args(["-o", "json", "server", "backup", "--verify"]).arg(backup).output().unwrap()
}

/// A backup overwrites no existing file and does not change it.
#[test]
fn a_backup_never_takes_the_place_of_anything() {
    let (_dir, world) = world(DevSettings::default());
    let running = start(&world);
    let path = |name: &str| world.dir().join(name);
    let first = path("backup");
    ok(&take(&world, &running, &first));
    let whole = fs::read(&first).unwrap();
    fs::write(path("file"), "precious").unwrap();
    fs::create_dir(path("directory")).unwrap();
    std::os::unix::fs::symlink(path("file"), path("link")).unwrap();
    std::os::unix::fs::symlink(path("nowhere"), path("dangling")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    let made = |program: &str, args: &[&str]| Command::new(program).args(args).status().is_ok_and(|status| status.success());
    let shown = |name: &str| path(name).display().to_string();
    assert!(made("mkfifo", &[&shown("fifo")]));
    let mut names = vec!["backup", "file", "directory", "link", "dangling", "socket", "fifo"];
    // Only root can make devices.
    if made("mknod", &[&shown("null"), "c", "1", "3"]) {
        names.push("null");
    }
    let kinds = || names.iter().map(|name| fs::symlink_metadata(path(name)).unwrap().file_type()).collect::<Vec<_>>();
    let before = kinds();
    for name in &names {
        let out = take(&world, &running, &path(name));
        let said = text(&out);
        assert_eq!(out.status.code(), Some(2), "{name}: {said}");
        assert!(said.contains(name) && said.contains("is not replaced"), "{name}: {said}");
    }
    assert_eq!(kinds(), before);
    assert_eq!((fs::read(&first).unwrap(), fs::read_to_string(path("file")).unwrap()), (whole, "precious".to_owned()));
    assert!(!path("nowhere").exists());
    let left: Vec<_> = fs::read_dir(world.dir()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(left.iter().all(|name| !name.contains("partial")), "{left:?}");
    // A name with control characters would be recorded in the audit log, and printed by whoever reads that.
    for name in ["new\nline", "tab\tulator", "\u{1b}[31mred", "\u{85}"] {
        let out = take(&world, &running, &path(name));
        let said = text(&out);
        assert_eq!(out.status.code(), Some(2), "{name:?}: {said}");
        assert!(said.contains("--to ") && said.contains("control characters") && !path(name).exists(), "{name:?}: {said}");
    }
    // The same for an export and for the file with the addresses.
    let admin = running.addresses().admin;
    let out = as_operator(&world, admin, &["audit", "export", "--out", &shown("fifo")]);
    assert!(!out.status.success() && kinds() == before, "{}", text(&out));
    running.stop();
}

/// The remains of a damaged store are kept beside the restored backup, and their locks are taken over.
#[test]
fn a_restore_that_replaces_keeps_what_was_there_and_takes_over_its_locks() {
    let (_dir, world) = world(DevSettings::default());
    let running = start(&world);
    let backup = world.dir().join("backup");
    ok(&take(&world, &running, &backup));
    let admin = running.addresses().admin;
    let locked = DevWorld::id("agent/stolen");
    ok(&as_operator(&world, admin, &["lock", "add", "--caller", &locked, "--reason", "stolen"]));
    refused(&restore(&world, &backup, &["--replace"]), &["in use"]);
    running.stop();
    let said = ok(&restore(&world, &backup, &["--replace"]));
    assert!(said.contains("before-restore-"), "{said}");
    let running = start(&world);
    let admin = running.addresses().admin;
    let locks = ok(&as_operator(&world, admin, &["lock", "list"]));
    assert!(locks.contains("agent/stolen"), "{locks}");
    let author = DevWorld::id("operator/you");
    let reason = format!("stolen (by {author}); taken over from the remains at a restore");
    assert!(locks.contains(&reason), "{locks}");
    assert_eq!(running.authority().ledger.durable().generation(), 2);
    running.stop();
    let kept: Vec<_> = fs::read_dir(world.dir()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    let kept = kept.iter().find(|name| name.contains("before-restore-")).unwrap();
    assert!(world.dir().join(kept).join("ledger.redb").exists());
}

/// Loses the data directory; returns where it is now.
fn lose(world: &DevWorld) -> PathBuf {
    let lost = world.dir().join(format!("lost-{}", fs::read_dir(world.dir()).unwrap().count()));
    fs::rename(world.dir().join("data"), &lost).unwrap();
    lost
}

fn lift_all(world: &DevWorld, running: &RunningServer) {
    let admin = running.addresses().admin;
    let locks = ok(&as_operator(world, admin, &["lock", "list", "--everything", "-o", "name"]));
    let seq = locks.trim().split(':').next().unwrap().to_owned();
    ok(&as_operator(world, admin, &["lock", "lift", &seq, "--reason", "nobody else is to be locked"]));
}

/// Issues continuously, and counts.
struct Load {
    stop: Arc<AtomicBool>,
    issued: Arc<AtomicU64>,
}

impl Load {
    fn begin(runtime: &tokio::runtime::Runtime, world: &DevWorld, running: &RunningServer) -> Load {
        let load = Load { stop: Arc::default(), issued: Arc::default() };
        let callers = Arc::new(runtime.block_on(Callers::new(world, running.addresses().workload)));
        for _ in 0..8 {
            let (stop, issued, callers) = (load.stop.clone(), load.issued.clone(), callers.clone());
            runtime.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    match callers.exchange("").await {
                        Ok(_) => drop(issued.fetch_add(1, Ordering::Relaxed)),
                        // An exchange is refused for a moment under overload.
                        Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                    }
                }
            });
        }
        load
    }

    fn issued(&self) -> u64 {
        self.issued.load(Ordering::Relaxed)
    }
}

async fn none_is_good(callers: &Callers, old: &[Issued]) {
    for one in old {
        assert!(!callers.active(&one.token).await, "{} is good again", one.id);
    }
}

#[test]
fn what_was_revoked_after_a_backup_under_load_stays_refused_and_all_before_it_is_revoked() {
    let (_dir, world) = world(DevSettings::default().with("limits.tasks_per_caller", "10000"));
    let runtime = runtime();
    let running = start(&world);
    let before = issue(&runtime, &world, &running, &["a", "b"]);
    let load = Load::begin(&runtime, &world, &running);
    while load.issued() < 200 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let file = world.dir().join("backup");
    let (least, issued) = (head(&running), load.issued());
    let said = ok(&take(&world, &running, &file));
    let most = head(&running);
    assert!(load.issued() > issued, "nothing was issued while it was made");
    load.stop.store(true, Ordering::Relaxed);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(said.contains("keep it apart from the sealing key"), "{said}");
    let verified = verify(&file);
    assert!(ok(&verified).contains("the seal was not checked"), "{}", text(&verified));
    let shown: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
    let check = format!("mayfly server restore --config FILE --check {}", file.display());
    assert_eq!((&shown["seal_checked"], &shown["seal_check"]), (&false.into(), &check.clone().into()));
    assert!(String::from_utf8_lossy(&verified.stderr).contains(&check), "{}", text(&verified));
    let seq = shown["seq"].as_u64().unwrap();
    assert!((least.as_u64()..=most.as_u64()).contains(&seq), "{least} {seq} {most}");
    let checked = restore(&world, &file, &["--check", "-o", "json"]);
    ok(&checked);
    let checked: serde_json::Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!((&checked["backup"]["seal_checked"], &checked["backup"]["seal_check"]), (&true.into(), &serde_json::Value::Null));

    // The restored server serves, and refuses old credentials.
    let admin = running.addresses().admin;
    let after = issue(&runtime, &world, &running, &["c", "d"]);
    ok(&as_operator(&world, admin, &["revoke", "--credential", &after[0].id, "--reason", "test"]));
    ok(&as_operator(
        &world,
        admin,
        &["revoke", "--caller", &DevWorld::id("agent/demo"), "--reason", "stolen", "--confirm", "all"],
    ));
    running.stop();
    lose(&world);

    let said = ok(&restore(&world, &file, &[]));
    assert!(said.contains("generation 2 has begun") && said.contains("all is locked"), "{said}");
    let running = start(&world);
    let old = [before, after].concat();
    runtime.block_on(async {
        let callers = Callers::new(&world, running.addresses().workload).await;
        none_is_good(&callers, &old).await;
        let no = callers.exchange("").await.unwrap_err();
        assert_eq!(reason(&no), "LOCKED", "whoever was shut out after the backup stays out: {no:?}");
        let relying = follower(&world, running.addresses().workload, System::real()).await;
        assert!(old.iter().all(|one| !accepts(&relying, &one.token)));
    });
    let events = ok(&as_operator(&world, running.addresses().admin, &["audit", "search", "--event", "generation begun"]));
    assert!(events.contains("restored"), "{events}");
    // What keeps everybody from new grants is in the status, with its reason and the way out, and has a name in the doctor's list.
    let admin = running.addresses().admin;
    let status: serde_json::Value = serde_json::from_str(&ok(&as_operator(&world, admin, &["status", "-o", "json"]))).unwrap();
    let warning =
        status["warnings"].as_array().unwrap().iter().filter_map(|w| w.as_str()).find(|w| w.contains("a lock on everything"));
    let warning = warning.unwrap_or_else(|| panic!("{status}"));
    for part in ["refuses all new grants", "since 20", "restored from a backup", "mayfly lock list", "mayfly lock lift"] {
        assert!(warning.contains(part), "{part} in {warning}");
    }
    let doctor = as_operator(&world, admin, &["doctor", "-o", "json"]);
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(doctor.contains("a lock keeps us from new grants: lock ") && doctor.contains(" on everything"), "{doctor}");
    lift_all(&world, &running);
    runtime.block_on(async {
        let callers = Callers::new(&world, running.addresses().workload).await;
        let new = callers.exchange("a").await.unwrap();
        let status = ok(&as_operator(&world, admin, &["status"]));
        assert!(!status.contains("a lock on everything"), "{status}");
        assert!(callers.active(&new.token).await && old.iter().all(|one| one.id != new.id));
        none_is_good(&callers, &old).await;
    });
    running.stop();
    start(&world).stop();
}

#[test]
fn what_shuts_out_is_taken_over_from_what_is_left_and_then_nothing_else_is_locked() {
    let (_dir, world) = world(DevSettings::default());
    let runtime = runtime();
    let running = start(&world);
    let old = issue(&runtime, &world, &running, &["a"]);
    let file = world.dir().join("backup");
    ok(&take(&world, &running, &file));
    let (admin, ci) = (running.addresses().admin, DevWorld::id("ci/demo"));
    ok(&as_operator(&world, admin, &["lock", "add", "--caller", &ci, "--reason", "test"]));
    running.stop();
    let lost = lose(&world).display().to_string();

    let said = ok(&restore(&world, &file, &["--left", &lost]));
    assert!(!said.contains("all is locked"), "{said}");
    let running = start(&world);
    runtime.block_on(async {
        let callers = Callers::new(&world, running.addresses().workload).await;
        none_is_good(&callers, &old).await;
        callers.exchange("").await.unwrap();
        let agent = world.channel("ci/demo", running.addresses().workload).await.unwrap();
        let no = Callers { agent, operator: callers.operator }.exchange("").await.unwrap_err();
        assert_eq!(reason(&no), "LOCKED", "{no:?}");
    });
    running.stop();
}

/// Two restores of one backup begin generations of the same number: the second one's rule would not cover what the first one issued.
#[test]
fn what_an_earlier_restore_of_the_same_backup_issued_is_not_good_after_the_next() {
    let (_dir, world) = world(DevSettings::default());
    let runtime = runtime();
    let running = start(&world);
    issue(&runtime, &world, &running, &["a"]);
    let file = world.dir().join("backup");
    ok(&take(&world, &running, &file));
    running.stop();
    lose(&world);
    let mut first = Vec::new();
    for round in 0..2 {
        ok(&restore(&world, &file, &["--unlocked"]));
        let running = start(&world);
        assert_eq!(head(&running).generation(), 2);
        runtime.block_on(async {
            let callers = Callers::new(&world, running.addresses().workload).await;
            let relying = follower(&world, running.addresses().workload, System::real()).await;
            if round == 0 {
                first = vec![callers.exchange("x").await.unwrap(), callers.exchange("y").await.unwrap()];
                assert!(first.iter().all(|one| accepts(&relying, &one.token)));
            }
            if round == 1 {
                callers.exchange("z").await.unwrap();
                none_is_good(&callers, &first).await;
                assert!(first.iter().all(|one| !accepts(&relying, &one.token)), "an earlier generation of that number");
            }
        });
        running.stop();
        lose(&world);
    }
    // An operator who knows the highest seq of the lost generation passes it, and the new generation's number is above it.
    let said = ok(&restore(&world, &file, &["--unlocked", "--seen", &mayfly::seq::Seq::start_of(6).to_string()]));
    assert!(said.contains("generation 7 has begun"), "{said}");
}

#[test]
fn what_is_damaged_cut_or_of_another_server_is_refused_and_nothing_is_restored_over_something() {
    let (_dir, world) = world(DevSettings::default());
    let runtime = runtime();
    let running = start(&world);
    issue(&runtime, &world, &running, &["a", "b", "c"]);
    let file = world.dir().join("backup");
    ok(&take(&world, &running, &file));
    running.stop();
    refused(&restore(&world, &file, &[]), &["is not empty", "--left"]);
    lose(&world);
    let whole = fs::read(&file).unwrap();
    let bad = world.dir().join("bad");
    let gone = |parts: &[&str]| {
        refused(&restore(&world, &bad, &[]), parts);
        refused(&verify(&bad), parts);
        assert!(!world.dir().join("data").exists() && !world.dir().join("data.restoring").exists());
    };
    for at in (0..whole.len()).step_by(whole.len() / 40 + 1).chain([whole.len() - 1]) {
        fs::write(&bad, &whole[..at]).unwrap();
        gone(if at < 16 { &["no backup of mayfly"] } else { &["cut off after", "take another backup"] });
        let mut changed = whole.clone();
        changed[at] ^= 1;
        fs::write(&bad, &changed).unwrap();
        gone(&["nothing was restored", "bad: it"][1..]);
    }
    fs::write(&bad, [&whole[..], b"x"].concat()).unwrap();
    gone(&["something follows its end"]);
    fs::write(&bad, "SQLite format 3\0 and so on").unwrap();
    gone(&["no backup of mayfly"]);

    // A complete backup, sealed with another key.
    let (_other, elsewhere) = crate::kit::world(DevSettings::default());
    refused(&restore(&elsewhere, &file, &[]), &["its seal does not open", "another server"]);
    assert!(!elsewhere.dir().join("data").exists());
    assert!(restore(&world, &file, &["--unlocked"]).status.success());
    start(&world).stop();
}

/// An attacker who can write to the backup storage forges a backup with a correct digest.
#[test]
fn a_backup_that_was_made_up_does_not_have_the_seal() {
    let (_dir, world) = world(DevSettings::default());
    let runtime = runtime();
    let running = start(&world);
    issue(&runtime, &world, &running, &["a"]);
    let file = world.dir().join("backup");
    ok(&take(&world, &running, &file));
    issue(&runtime, &world, &running, &["b"]);
    let (later, forged) = (world.dir().join("later"), world.dir().join("forged"));
    ok(&take(&world, &running, &later));
    running.stop();
    lose(&world);
    let (old, new) = (BackupFile::open(&file).unwrap(), BackupFile::open(&later).unwrap());
    // A backup that ends earlier than it says, with the seal of a later one.
    let (mut writer, mut bytes) = mayfly::ledger::backup::BackupWriter::new(old.about()).unwrap();
    for name in old.list("").unwrap() {
        writer.named(&name, &old.named(&name).unwrap().unwrap(), &mut bytes);
    }
    for entry in old.read(1, usize::MAX).unwrap() {
        writer.commit(&entry, &mut bytes);
    }
    writer.end(|_| Ok(new.sealed()), &mut bytes).unwrap();
    fs::write(&forged, bytes).unwrap();
    ok(&verify(&forged));
    refused(&restore(&world, &forged, &[]), &["its seal does not open"]);
    ok(&restore(&world, &file, &[]));
}

#[test]
fn it_goes_from_one_engine_to_another_and_only_operators_with_both_rights_take_one() {
    let (_dir, world) = world(DevSettings { engine: DevEngine::Sled, ..DevSettings::default() });
    let runtime = runtime();
    let running = start(&world);
    let old = issue(&runtime, &world, &running, &["a"]);
    // A commit that is larger than a message.
    let notes = (0..14).map(|_| Record::new(Author::LocalUid(0), Event::Maintained(Maintained { what: "x".repeat(450_000) })));
    runtime.block_on(running.authority().ledger.commit(ProposalKind::Change, notes.collect())).unwrap();
    let file = world.dir().join("backup");
    ok(&take(&world, &running, &file));
    let context = world.write_context("agent/demo", running.addresses().workload).unwrap();
    let other =
        Command::new(MAYFLY).arg("--config").arg(context).args(["server", "backup", "--to"]).arg(world.dir().join("x")).output();
    let other = other.unwrap();
    assert!(
        !other.status.success() && !world.dir().join("x").exists() && !world.dir().join("x.partial").exists(),
        "{}",
        text(&other)
    );
    running.stop();
    lose(&world);
    let config = fs::read_to_string(world.config()).unwrap();
    fs::write(world.config(), config.replace("engine = \"sled\"", "engine = \"redb\"")).unwrap();
    ok(&restore(&world, &file, &["--unlocked"]));
    let running = start(&world);
    assert_eq!(running.authority().ledger.store().engine(), "redb");
    runtime.block_on(async { none_is_good(&Callers::new(&world, running.addresses().workload).await, &old).await });
    running.stop();
}

/// The operator may be in the directory of the configuration, and name it without one; `store.path` is relative to it.
#[test]
fn a_restore_takes_a_configuration_that_is_named_without_a_directory() {
    let (_dir, world) = world(DevSettings::default());
    let running = start(&world);
    let file = world.dir().join("backup");
    ok(&take(&world, &running, &file));
    running.stop();
    let config = fs::read_to_string(world.config()).unwrap();
    for named in ["data", "data/", "./data"] {
        fs::write(world.config(), config.replace("path = \"data\"", &format!("path = {named:?}"))).unwrap();
        lose(&world);
        let there = |args: &[&str]| Command::new(MAYFLY).current_dir(world.dir()).args(args).output().unwrap();
        let restored = there(&["server", "restore", "backup", "--config", "mayfly.toml", "--unlocked"]);
        let said = ok(&restored);
        assert!(!said.contains("chown"), "{said}");
        let left = fs::read_dir(world.dir()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let left: Vec<String> = left.filter(|name| name.contains("restoring")).collect();
        assert!(left.is_empty() && world.dir().join("data").is_dir(), "{named}: {left:?}");
        start(&world).stop();
    }
}

/// Wherever a restore is killed, there is either no store or all of it, and the next restore continues from there.
#[test]
fn a_restore_that_is_killed_leaves_nothing_or_the_whole() {
    let (_dir, world) = world(DevSettings::default());
    let runtime = runtime();
    let running = start(&world);
    let names: Vec<String> = (0..150).map(|n| format!("n{n}")).collect();
    issue(&runtime, &world, &running, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let file = world.dir().join("backup");
    ok(&take(&world, &running, &file));
    running.stop();
    lose(&world);
    let data = world.dir().join("data");
    let (mut nothing, mut whole) = (0, 0);
    for round in 0..30 {
        let mut child = Command::new(MAYFLY)
            .args(["server", "restore", "--unlocked", "--config"])
            .arg(world.config())
            .arg(&file)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(10 + round * 20));
        let _ = child.kill();
        child.wait().unwrap();
        if data.exists() {
            whole += 1;
            let running = start(&world);
            assert_eq!(head(&running).generation(), 2);
            running.stop();
            lose(&world);
        } else {
            nothing += 1;
        }
    }
    assert!(nothing > 0, "it was never killed in time");
    println!("{nothing} times nothing, {whole} times the whole");
    ok(&restore(&world, &file, &["--unlocked"]));
    start(&world).stop();
}
