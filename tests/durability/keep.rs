//! `audit.keep` with a whole server: the disk usage stays bounded, live credentials can be returned again, and a start does not need the
//! removed beginning.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use mayfly::cli::dev::DevSettings;
use mayfly::ledger::ProposalKind;
use mayfly::ledger::record::{Author, Event, Maintained, Record};
use mayfly::server::RunningServer;
use mayfly::system::{ManualClock, System};

use crate::kit::{Callers, mayfly, reason, world};

/// The smallest size that can be configured.
const KEEP: u64 = 64 << 20;
/// Bytes that one note adds.
const TEXT: usize = 400_000;
/// Commits between snapshots, as set below.
const EVERY: u64 = 16;
/// The commits of two snapshot intervals are kept in any case, and some are added while a snapshot is written.
const SETTLED: u64 = KEEP + 4 * EVERY * TEXT as u64;

async fn write(running: &RunningServer, clock: &ManualClock, notes: usize) {
    for _ in 0..notes {
        clock.advance(1_000);
        note(running).await;
    }
}

async fn note(running: &RunningServer) {
    let note = Event::Maintained(Maintained { what: "x".repeat(TEXT) });
    let ledger = &running.authority().ledger;
    ledger.commit(ProposalKind::Change, vec![Record::new(Author::LocalUid(0), note)]).await.unwrap();
}

/// Writes until no more is kept than configured. The clock stands still meanwhile: on a busy machine removal takes long, and request ids are
/// forgotten ten minutes after their credential ended.
async fn settle(running: &RunningServer) {
    let ledger = &running.authority().ledger;
    for _ in 0..600 {
        let (before, kept) = ledger.peek(|s| (s.removed.before, s.kept_bytes()));
        if before > 1 && kept <= SETTLED && ledger.store().oldest().unwrap() == before {
            return;
        }
        note(running).await;
        // Long enough for removal to keep up with writing on a machine that runs other tests as well.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{} bytes are kept, not {SETTLED}", ledger.peek(|s| s.kept_bytes()));
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    std::fs::set_permissions(to, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            std::fs::copy(&from, &to).unwrap();
        }
    }
}

#[test]
fn the_disk_stays_flat_and_neither_a_repeat_nor_a_start_misses_what_is_gone() {
    let clock = ManualClock::at(System::real().wall());
    let settings =
        DevSettings { system: System::with_clock(clock.clone()), svid_life_ms: 20 * 3_600_000, ..DevSettings::default() };
    let settings = settings.with("audit.keep", "\"64MiB\"").with("ledger.snapshot_every", &EVERY.to_string());
    let (_dir, world) = world(settings);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let running = world.start().unwrap_or_else(|no| panic!("{no}"));
    let data = world.dir().join("data");
    let (long, durable) = runtime.block_on(async {
        let callers = Callers::new(&world, running.addresses().workload).await;
        let long = callers.exchange_for(3600, "long").await.unwrap();
        write(&running, &clock, 400).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        // The credential is alive: a retry makes it again from its record.
        let ledger = &running.authority().ledger;
        assert!(ledger.peek(|s| s.kept_bytes()) > SETTLED, "nothing goes before the oldest that lives");
        assert_eq!(callers.exchange_for(3600, "long").await.unwrap().id, long.id);
        clock.advance(3_600_000);
        settle(&running).await;

        let mut sizes = Vec::new();
        for round in 0..6 {
            let named = format!("short {round}");
            callers.exchange_for(60, &named).await.unwrap();
            let at = ledger.peek(|s| s.position);
            write(&running, &clock, 250).await;
            settle(&running).await;
            sizes.push(ledger.store().bytes());
            // The credential has expired, its request is remembered, its record is removed: a retry neither makes it again nor makes a new
            // one.
            assert!(ledger.peek(|s| s.removed.before) > at);
            let no = callers.exchange_for(60, &named).await.unwrap_err();
            assert_eq!(reason(&no), "CREDENTIAL_NOT_ACTIVE", "{no:?}");
        }
        let status = callers.status().await.ledger.unwrap();
        println!("{} MB were written; the store had {:?} MB", ledger.peek(|s| s.bytes) >> 20, sizes.map_mb());
        // The sizes differ by up to a file, depending on how much of the oldest file is removed; without removal, the six rounds
        // would write twice the bound.
        assert!(sizes.iter().all(|s| *s < 3 * SETTLED), "{sizes:?}");
        assert!(status.oldest_commit > 400 && status.kept_bytes <= SETTLED, "{status:?}");
        assert!(status.oldest_seq > (1 << 45) + 400, "{status:?}");
        let long = callers.exchange_for(3600, "again").await.unwrap();
        // The state after a kill: a copy of the files while nothing writes to them.
        let killed = world.dir().join("killed");
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let before = ledger.durable();
            copy(&data, &killed);
            if ledger.durable() == before {
                return (long, before);
            }
            std::fs::remove_dir_all(&killed).unwrap();
        }
        panic!("somebody writes all the time");
    });
    running.stop();
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(world.dir().join("killed"), &data).unwrap();
    let running = world.start().unwrap_or_else(|no| panic!("{no}"));
    runtime.block_on(async {
        let callers = Callers::new(&world, running.addresses().workload).await;
        assert!(running.authority().ledger.durable() > durable);
        assert_eq!(callers.exchange_for(3600, "again").await.unwrap().id, long.id, "the same credential");
        for _ in 0..1000 {
            if callers.status().await.ledger.unwrap().verified_seq >= durable.as_u64() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let status = callers.status().await;
        assert!(status.ledger.unwrap().verified_seq >= durable.as_u64() && status.issuing.unwrap().issuing);
    });
    let backup = world.dir().join("backup");
    clock.advance(3_600_000);
    let young = runtime.block_on(async {
        back_up_while_history_goes(&running, &clock, &backup).await;
        Callers::new(&world, running.addresses().workload).await.exchange_for(600, "young").await.unwrap()
    });
    running.stop();
    std::fs::remove_dir_all(&data).unwrap();
    let out = mayfly(&["server", "restore", "--unlocked", &backup.display().to_string()], &world.config());
    assert!(out.status.success(), "{out:?}");
    let running = world.start().unwrap_or_else(|no| panic!("{no}"));
    runtime.block_on(async {
        let callers = Callers::new(&world, running.addresses().workload).await;
        let status = callers.status().await.ledger.unwrap();
        assert!(status.generation == 2 && status.oldest_commit > 400, "{status:?}");
        assert!(!callers.active(&young.token).await);
        callers.exchange_for(60, "new").await.unwrap();
    });
    running.stop();
    world.start().unwrap_or_else(|no| panic!("{no}")).stop();
}

/// A backup of a log whose beginning was removed contains a snapshot; commits that the backup still has to read are kept, however much is
/// due for removal.
async fn back_up_while_history_goes(running: &RunningServer, clock: &ManualClock, to: &Path) {
    let authority = running.authority();
    settle(running).await;
    let mut backup = authority.backup().await.unwrap();
    let first = backup.about().first;
    assert!(first > 400 && backup.about().snapshot.is_some());
    let mut file = std::fs::File::create(to).unwrap();
    file.write_all(&backup.piece().unwrap().unwrap()).unwrap();
    assert!(authority.backup().await.is_err(), "one at a time");
    write(running, clock, 300).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(authority.ledger.store().oldest().unwrap() <= first);
    while let Some(piece) = backup.piece().unwrap() {
        file.write_all(&piece).unwrap();
    }
    drop(backup);
    settle(running).await;
    assert!(authority.ledger.store().oldest().unwrap() > first, "and goes when it was read");
}

trait Megabytes {
    fn map_mb(&self) -> Vec<u64>;
}

impl Megabytes for Vec<u64> {
    fn map_mb(&self) -> Vec<u64> {
        self.iter().map(|bytes| bytes >> 20).collect()
    }
}
