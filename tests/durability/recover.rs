//! A ledger that is damaged, lost or put back: the message of the start, the effect of the command that it prints, and that no revoked
//! credential becomes valid again.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use mayfly::cli::dev::{DevSettings, DevWorld};
use mayfly::ledger::commit::Commit;
use mayfly::ledger::record::{Event, KeyPurpose};
use mayfly::seq::{CredentialId, Millis, Seq};
use mayfly::server::RunningServer;
use mayfly::store::Store;
use mayfly::store::redb::StoreOptions;
use mayfly::system::{ManualClock, System};
use redb::{Database, ReadableDatabase, TableDefinition};
use tokio::runtime::Runtime;

use crate::kit::{Callers, Issued, MAYFLY, as_operator, mayfly, reason, world};

const COMMITS: TableDefinition<u64, &[u8]> = TableDefinition::new("commits");
const ABOUT: TableDefinition<&str, &[u8]> = TableDefinition::new("about");

pub fn start(world: &DevWorld) -> RunningServer {
    world.start().unwrap_or_else(|no| panic!("{no}"))
}

pub fn head(running: &RunningServer) -> Seq {
    running.authority().ledger.durable()
}

pub fn recover(world: &DevWorld, after: Seq, more: &[&str]) -> Output {
    let after = after.to_string();
    mayfly(&[&["server", "recover", "--after", &after], more].concat(), &world.config())
}

#[track_caller]
pub fn recovered(out: &Output) -> String {
    let told = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{told}{}", String::from_utf8_lossy(&out.stderr));
    told
}

/// A start that is refused, with its message.
#[track_caller]
pub fn refused(world: &DevWorld, parts: &[&str]) -> String {
    let out = mayfly(&["server", "run"], &world.config());
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1), "{said}");
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
    said
}

/// Runs the recovery command that a refusal prints, unchanged.
#[track_caller]
pub fn as_printed(said: &str) -> Output {
    let command = said.lines().find_map(|l| l.split_once("mayfly server recover ")).unwrap_or_else(|| panic!("{said}")).1;
    Command::new(MAYFLY).args(["server", "recover"]).args(command.split(' ')).output().unwrap()
}

pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Issues a few credentials.
pub fn issue(runtime: &Runtime, world: &DevWorld, running: &RunningServer, names: &[&str]) -> Vec<Issued> {
    runtime.block_on(async {
        let callers = Callers::new(world, running.addresses().workload).await;
        let mut issued = Vec::new();
        for name in names {
            issued.push(callers.exchange(name).await.unwrap());
        }
        issued
    })
}

/// Checks that none of the old credentials is valid, that a retry of a request makes a new one, and that issuing goes on.
pub fn all_refused(runtime: &Runtime, world: &DevWorld, running: &RunningServer, old: &[Issued], names: &[&str]) {
    runtime.block_on(async {
        let callers = Callers::new(world, running.addresses().workload).await;
        for one in old {
            assert!(!callers.active(&one.token).await, "{} was issued before the recovery", one.id);
        }
        for name in names {
            let new = callers.exchange(name).await.unwrap();
            assert!(old.iter().all(|one| one.id != new.id), "a request of before is answered with what is revoked");
            assert!(callers.active(&new.token).await);
        }
    });
}

#[test]
fn a_recovery_revokes_all_before_it_takes_over_what_shuts_out_and_goes_on() {
    let (_dir, world) = world(DevSettings::default());
    let runtime = runtime();
    let running = start(&world);
    let mut old = issue(&runtime, &world, &running, &["a", "b"]);
    let kept = head(&running);
    old.extend(issue(&runtime, &world, &running, &["c"]));
    let stolen = running.authority().ledger.peek(|s| s.active_key(KeyPurpose::AccessToken, "dev").unwrap().0.to_owned());
    let removed = running.authority().ledger.peek(|s| s.active_key(KeyPurpose::Reference, "dev").unwrap().0.to_owned());
    let admin = running.addresses().admin;
    let ci = DevWorld::id("ci/demo");
    for args in [
        &["lock", "add", "--caller", &ci, "--reason", "test"][..],
        &["key", "compromise", &stolen, "--reason", "test", "--confirm", "all"],
        &["key", "rotate", "--purpose", "reference", "--environment", "dev", "--publish-ahead", "0s"],
        &["key", "retire", &removed, "--reason", "test", "--confirm", "all"],
    ] {
        let out = as_operator(&world, admin, args);
        assert!(out.status.success(), "{args:?}: {out:?}");
    }
    old.extend(issue(&runtime, &world, &running, &["d"]));
    let (store, lost) = (running.authority().ledger.store().id(), running.authority().ledger.store().head().unwrap());
    running.stop();

    let told = recovered(&recover(&world, kept, &[]));
    assert!(told.contains("generation 2") && told.contains(&format!("up to seq {kept}")), "{told}");
    assert!(told.contains("locks taken over from them: 1"), "{told}");
    let copy = told.lines().find_map(|l| l.strip_prefix("the old store is in ")?.strip_suffix("; nothing removes it")).unwrap();
    let copy = mayfly::store::redb::open(&PathBuf::from(copy), &StoreOptions { reserve_bytes: 0, ..StoreOptions::new([0; 16]) })
        .unwrap();
    assert_eq!((copy.head().unwrap(), copy.id()), (lost, store), "the old store is as it was");

    let running = start(&world);
    let ledger = &running.authority().ledger;
    assert_eq!((ledger.durable().generation(), ledger.store().id()), (2, store));
    // Sealed values are bound to the store's id, and the generation's first record names it.
    assert_eq!(ledger.peek(|s| s.store), *store.as_bytes());
    let signs = running.authority().keyring.active(KeyPurpose::AccessToken, "dev").expect("a key that signs");
    assert_ne!(signs.id(), stolen, "a key that was given up after the seq stays given up");
    let derives = running.authority().keyring.active(KeyPurpose::Reference, "dev").expect("a key that derives");
    assert_ne!(derives.id(), removed, "the private part of a key that was removed after the seq is gone");
    all_refused(&runtime, &world, &running, &old, &["a", "d", "e"]);
    let no = runtime.block_on(async {
        let agent = world.channel("ci/demo", running.addresses().workload).await.unwrap();
        let operator = Callers::new(&world, running.addresses().workload).await.operator;
        Callers { agent, operator }.exchange("").await.unwrap_err()
    });
    assert_eq!(reason(&no), "LOCKED", "a lock of after the seq stands: {no:?}");
    // The kept part can still be read, and the lost part is in the copy.
    let in_store = |store: &dyn Store| {
        let records = store.read(1, usize::MAX).unwrap().into_iter().flat_map(|e| Commit::from_bytes(&e.bytes).unwrap().records);
        let issued = records.filter_map(|r| match r.event {
            Some(Event::Issued(e)) => CredentialId::from_slice(&e.credential).map(|id| id.to_string()),
            _ => None,
        });
        issued.collect::<Vec<_>>()
    };
    let ids: Vec<String> = old.iter().map(|one| one.id.clone()).collect();
    assert_eq!(in_store(&*ledger.store())[..2], ids[..2]);
    assert_eq!(in_store(&copy), ids);
    running.stop();
    start(&world).stop();
}

/// A credential of a lost generation has a decision revision of that generation: the next generation must be above it.
#[test]
fn no_recovery_gives_a_generation_twice() {
    let (_dir, world) = world(DevSettings::default());
    let runtime = runtime();
    let running = start(&world);
    issue(&runtime, &world, &running, &["a"]);
    let kept = head(&running);
    running.stop();
    for generation in [2, 3, 4] {
        let told = recovered(&recover(&world, kept, &[]));
        assert!(told.contains(&format!("generation {generation} has begun")), "{told}");
        let running = start(&world);
        let made = issue(&runtime, &world, &running, &["b"]);
        assert_eq!(head(&running).generation(), generation);
        let revision = running.authority().ledger.peek(|s| s.credentials.get(&made[0].id.parse().unwrap()).unwrap().revision());
        assert!(revision >= Seq::start_of(generation), "{revision:?}");
        running.stop();
    }
    // Also if nothing is kept at all, so that nothing in the new store tells of the earlier generations.
    let told = recovered(&recover(&world, Seq::ZERO, &[]));
    assert!(told.contains("generation 5 has begun") && told.contains("kept: everything up to seq 0"), "{told}");
    let running = start(&world);
    issue(&runtime, &world, &running, &["c"]);
    running.stop();
}

pub fn raw(world: &DevWorld, change: impl FnOnce(&redb::WriteTransaction)) {
    // A blocking task of the server that was stopped in this process may hold the store for a moment longer.
    let opened = (0..600).find_map(|_| match Database::open(world.dir().join("data/ledger.redb")) {
        Err(redb::DatabaseError::DatabaseAlreadyOpen) => {
            std::thread::sleep(std::time::Duration::from_millis(50));
            None
        }
        opened => Some(opened.unwrap()),
    });
    let db = opened.expect("the stopped server lets go of its store");
    let tx = db.begin_write().unwrap();
    change(&tx);
    tx.commit().unwrap();
}

#[test]
fn a_gap_and_a_broken_chain_are_refused_with_the_seq_and_the_printed_command_mends_it() {
    for gap in [true, false] {
        let (_dir, world) = world(DevSettings::default());
        let runtime = runtime();
        let running = start(&world);
        let mut old = issue(&runtime, &world, &running, &["a"]);
        let (kept, at) = (head(&running), running.authority().ledger.store().head().unwrap());
        old.extend(issue(&runtime, &world, &running, &["b", "c", "d"]));
        running.stop();
        raw(&world, |tx| {
            let mut commits = tx.open_table(COMMITS).unwrap();
            let mut bytes = commits.remove(at + 1).unwrap().unwrap().value().to_vec();
            if !gap {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                commits.insert(at + 1, bytes.as_slice()).unwrap();
            }
        });
        let said = refused(&world, &[&format!("--after {kept}"), &format!("commit {}", at + 1)]);
        let told = recovered(&as_printed(&said));
        assert!(told.contains("generation 2") && told.contains(&format!("up to seq {kept}")), "{told}");
        let running = start(&world);
        all_refused(&runtime, &world, &running, &old, &["a", "d"]);
        running.stop();
    }
}

#[test]
fn a_store_that_lost_its_end_or_was_put_back_is_seen_by_its_snapshots() {
    let (_dir, world) = world(DevSettings::default().with("ledger.snapshot_every", "16"));
    let runtime = runtime();
    let running = start(&world);
    let mut old = issue(&runtime, &world, &running, &["a"]);
    running.stop();
    // Including the write-ahead log: a newer log would bring the end back.
    let files =
        ["ledger.redb", "wal-0", "wal-1", "wal-2"].map(|name| (world.dir().join("data").join(name), world.dir().join(name)));
    for (file, backup) in &files {
        fs::copy(file, backup).unwrap();
    }
    let running = start(&world);
    old.extend(issue(&runtime, &world, &running, &[""; 40]));
    running.stop();
    for (file, backup) in &files {
        fs::copy(backup, file).unwrap();
    }
    let said = refused(&world, &["a snapshot beside it has seen commit"]);
    recovered(&as_printed(&said));
    let running = start(&world);
    all_refused(&runtime, &world, &running, &old, &["a"]);
    running.stop();
}

#[test]
fn what_this_version_cannot_read_is_left_as_it_is() {
    let (_dir, world) = world(DevSettings::default());
    start(&world).stop();
    let later = 1_000_u32.to_be_bytes();
    raw(&world, |tx| drop(tx.open_table(ABOUT).unwrap().insert("format", later.as_slice()).unwrap()));
    let before = fs::read(world.dir().join("data/ledger.redb")).unwrap();
    refused(&world, &["store format 1000", "start the version that wrote it"]);
    let out = recover(&world, Seq::ZERO, &[]);
    assert!(!out.status.success(), "nor is it copied");
    let db = Database::open(world.dir().join("data/ledger.redb")).unwrap();
    let about = db.begin_read().unwrap().open_table(ABOUT).unwrap();
    assert_eq!(about.get("format").unwrap().unwrap().value(), later);
    assert!(!before.is_empty());
}

/// As docs/operations.md says: without the key the store cannot be used, and the only way is to begin anew.
#[test]
fn when_the_sealing_key_is_lost_recovering_does_not_help_and_beginning_anew_does() {
    let (_dir, world) = world(DevSettings::default());
    let runtime = runtime();
    let running = start(&world);
    let old = issue(&runtime, &world, &running, &["a"]);
    let kept = head(&running);
    running.stop();
    let key = world.dir().join("seal.key");
    let right = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    refused(&world, &["there is no sealing key", "head -c 32 /dev/urandom"]);
    fs::write(&key, System::real().random32()).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&key, mode).unwrap();
    refused(&world, &["not the one that this store was made with", "put the key of this store back"]);
    recovered(&recover(&world, kept, &[]));
    refused(&world, &["not the one that this store was made with"]);
    // With a copy of the key, the ledger stays in use.
    let wrong = fs::read(&key).unwrap();
    fs::write(&key, right).unwrap();
    start(&world).stop();
    // Without a copy: a new store.
    fs::write(&key, wrong).unwrap();
    fs::rename(world.dir().join("data"), world.dir().join("data.lost")).unwrap();
    let running = start(&world);
    all_refused(&runtime, &world, &running, &old, &["a"]);
    running.stop();
}

#[test]
fn a_ledger_that_a_clock_of_the_future_wrote_goes_on_with_reset_time() {
    let day = 24 * 3_600_000;
    let now = System::real().wall();
    let clock = ManualClock::at(Millis(now.0 + 2 * day));
    let (_dir, world) = world(DevSettings::default());
    // The same world, two days later.
    let future =
        DevWorld::create(world.dir(), &DevSettings { system: System::with_clock(clock), ..DevSettings::default() }).unwrap();
    let runtime = runtime();
    let running = start(&future);
    let old = issue(&runtime, &future, &running, &["a"]);
    running.stop();
    // SVIDs made by the right clock again.
    let world = DevWorld::create(world.dir(), &DevSettings::default()).unwrap();
    let running = start(&world);
    let kept = head(&running);
    let stopped = (0..100).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        running.authority().ledger.stopped()
    });
    let stopped = stopped.expect("grants stop");
    assert_eq!(stopped.reason.as_str(), "CLOCK_SKEW");
    assert!(stopped.way_out.as_deref().unwrap_or_default().contains("--reset-time"), "{stopped}");
    running.stop();
    let told = recovered(&recover(&world, kept, &["--reset-time"]));
    assert!(told.contains("generation 2"), "{told}");
    let running = start(&world);
    let time = running.authority().ledger.peek(|s| s.time);
    assert!(time.0.abs_diff(System::real().wall().0) < 60_000, "time begins anew at {time}");
    runtime.block_on(async {
        let callers = Callers::new(&world, running.addresses().workload).await;
        for one in &old {
            assert!(!callers.active(&one.token).await);
        }
        let new = callers.exchange("a").await.unwrap();
        assert!(callers.active(&new.token).await);
    });
    running.stop();
}
