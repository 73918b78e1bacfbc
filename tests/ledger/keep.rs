//! `audit.keep` on a real engine: the oldest commits are removed, and everything that needs the log works without them.

mod tree;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mayfly::ledger::reader::history::{LogEnd, ScanEnd};
use mayfly::ledger::reader::history_query::CancelFlag;
use mayfly::ledger::record::{Author, Event, Maintained, Record, TargetsRevoked};
use mayfly::ledger::recovery::open::load;
use mayfly::ledger::recovery::retention::RetentionLimit;
use mayfly::ledger::{Ledger, LedgerSettings, ProposalKind, StartError, recovery::recover, recovery::snapshot};
use mayfly::limits;
use mayfly::revocation::{Rules, Target};
use mayfly::seq::{Millis, Seq};
use mayfly::store::redb::{RedbStore, StoreOptions};
use mayfly::store::{Precondition, Store, StoreError};
use mayfly::system::{ManualClock, System};

const START: u64 = 1_800_000_000_000;
/// Bytes that a note adds to the log.
const TEXT: usize = 20_000;
const KEPT: u64 = 2 << 20;

struct Kept {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    runtime: tokio::runtime::Runtime,
}

impl Kept {
    fn new() -> Kept {
        let clock = ManualClock::at(Millis(START));
        Kept { dir: tempfile::tempdir().unwrap(), clock, runtime: tokio::runtime::Runtime::new().unwrap() }
    }

    fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    fn snapshots(&self) -> std::path::PathBuf {
        self.dir.path().join("snapshots")
    }

    fn open(&self, keep: impl Into<Option<RetentionLimit>>) -> Result<Ledger, StartError> {
        let settings = LedgerSettings {
            snapshots: Some(self.snapshots()),
            snapshot_every: 20,
            keep: keep.into(),
            ..LedgerSettings::default()
        };
        let dir = self.data();
        Ledger::open(Box::new(move || Ok(store(&dir)? as Arc<dyn Store>)), System::with_clock(self.clock.clone()), settings)
    }

    /// Writes notes of [`TEXT`] bytes, one commit per half second of the test's clock.
    fn write(&self, ledger: &Ledger, notes: usize) {
        for n in 0..notes {
            self.clock.advance(500);
            let note = Event::Maintained(Maintained { what: format!("{n:x<TEXT$}") });
            self.runtime.block_on(ledger.commit(ProposalKind::Change, vec![Record::new(Author::LocalUid(0), note)])).unwrap();
        }
    }

    /// A ledger that began with a lock, whose record was removed.
    fn without_its_beginning(&self) -> Ledger {
        let ledger = self.open(RetentionLimit::Size(KEPT)).unwrap();
        self.runtime.block_on(ledger.commit(ProposalKind::Revoke, vec![lock("early")])).unwrap();
        self.write(&ledger, 300);
        self.settle(&ledger, SETTLED);
        ledger
    }

    /// Writes until the beginning is removed and not more is kept than configured, apart from what the next snapshots still need.
    fn settle(&self, ledger: &Ledger, most: u64) {
        self.settle_and(ledger, most, || ());
    }

    /// As `settle`, with a callback that sees each write before it may be removed.
    fn settle_and(&self, ledger: &Ledger, most: u64, mut wrote: impl FnMut()) {
        for _ in 0..400 {
            let (before, kept) = ledger.peek(|s| (s.removed.before, s.kept_bytes()));
            if before > 1 && kept <= most && ledger.store().oldest().unwrap() == before {
                return;
            }
            self.write(ledger, 2);
            wrote();
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it still keeps {} bytes of {most}", ledger.peek(|s| s.kept_bytes()));
    }
}

fn store(dir: &Path) -> Result<Arc<RedbStore>, StoreError> {
    // In several files, as a long history is.
    Ok(Arc::new(RedbStore::open(dir, &StoreOptions { reserve_bytes: 0, segment_bytes: KEPT / 4, ..StoreOptions::new([7; 16]) })?))
}

fn lock(tool: &str) -> Record {
    let revoked = TargetsRevoked {
        targets: vec![Target::Tool(tool.into()).to_record()],
        keep_until: Rules::keep_until(Millis(START)).0,
        ..TargetsRevoked::default()
    };
    Record::new(Author::LocalUid(0), Event::Revoked(revoked))
}

/// Bytes of the log on the disk: the commits of two snapshot intervals in addition to the configured size.
const SETTLED: u64 = KEPT + 60 * TEXT as u64;

#[test]
fn a_store_stops_growing_when_as_much_is_removed_as_is_written() {
    let kept = Kept::new();
    let ledger = kept.open(RetentionLimit::Size(KEPT)).unwrap();
    kept.write(&ledger, 200);
    kept.settle(&ledger, SETTLED);
    let mut sizes = Vec::new();
    for _ in 0..12 {
        kept.write(&ledger, 300);
        kept.settle(&ledger, SETTLED);
        sizes.push(ledger.store().bytes());
    }
    let all = ledger.peek(|s| s.bytes);
    println!("{all} bytes were written; the file had {sizes:?} bytes on the disk");
    assert!(all > 72 << 20, "{all}");
    // redb allocates pages of powers of two, and a removal frees them one flush later.
    assert!(sizes.iter().all(|s| *s < 3 * SETTLED), "{sizes:?}");
    // A measurement falls anywhere between two removals of a file, and the background thread holds the pages that it reads: so averages of
    // halves are compared, not single measurements.
    let mean = |of: &[u64]| of.iter().sum::<u64>() / of.len() as u64;
    let (early, late) = sizes.split_at(sizes.len() / 2);
    assert!(mean(late) < mean(early) + mean(early) / 4, "{sizes:?}");
    // A snapshot that was just written is a third one until its record is durable.
    let two = || snapshot::list(&kept.snapshots()).unwrap().len() == 2;
    assert!((0..200).any(|_| two() || {
        std::thread::sleep(Duration::from_millis(20));
        false
    }));
    ledger.stop();
}

#[test]
fn what_is_older_goes_and_what_is_younger_stays() {
    let kept = Kept::new();
    let ledger = kept.open(RetentionLimit::Time(100_000)).unwrap();
    kept.write(&ledger, 150);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!((ledger.peek(|s| s.removed.before), ledger.store().oldest().unwrap()), (0, 1), "75 seconds are within 100");
    kept.write(&ledger, 150);
    // Up to the older snapshot: 20 commits before the newest one, plus those written in the meantime.
    kept.settle(&ledger, 280 * TEXT as u64);
    let (removed, now) = ledger.peek(|s| (s.removed.clone(), s.time));
    assert!(removed.time < now.minus(100_000), "{removed:?}");
    let next = ledger.store().read(removed.before, 1).unwrap();
    assert_eq!(next[0].at, removed.before);
    ledger.stop();
}

#[test]
fn what_was_not_exported_stays() {
    let kept = Kept::new();
    let open = || {
        let settings = LedgerSettings {
            snapshots: Some(kept.snapshots()),
            snapshot_every: 20,
            keep: Some(RetentionLimit::Size(KEPT)),
            export: true,
            ..LedgerSettings::default()
        };
        let dir = kept.data();
        Ledger::open(Box::new(move || Ok(store(&dir)? as Arc<dyn Store>)), System::with_clock(kept.clock.clone()), settings)
            .unwrap()
    };
    let ledger = open();
    kept.write(&ledger, 300);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(ledger.peek(|s| s.removed.before), 0, "nothing was exported");
    let exported = 150u64;
    let seq = Seq::start_of(1).as_u64() + exported;
    let place = [exported.to_be_bytes(), seq.to_be_bytes()].concat();
    ledger.store().put(mayfly::ledger::recovery::retention::EXPORTED, &place, Precondition::Any).unwrap();
    for _ in 0..200 {
        kept.write(&ledger, 2);
        std::thread::sleep(Duration::from_millis(10));
        if ledger.peek(|s| s.removed.before) > 1 {
            break;
        }
    }
    let before = ledger.peek(|s| s.removed.before);
    assert!(before > 1 && before <= exported, "{before}");
    ledger.stop();
}

#[test]
fn the_newest_stays_whatever_is_set() {
    let kept = Kept::new();
    let ledger = kept.open(RetentionLimit::Size(1)).unwrap();
    for _ in 0..10 {
        kept.write(&ledger, 30);
        std::thread::sleep(Duration::from_millis(30));
        let (removed, time, before) = ledger.peek(|s| (s.removed.clone(), s.time, s.snapshot_before));
        assert!(removed.before <= before.map_or(0, |s| s.position + 1), "a start needs what follows the older snapshot");
        assert!(removed.before == 0 || removed.time < time.minus(limits::KEEP_LEAST_MS) || removed.time.0 == 0);
    }
    kept.settle(&ledger, 80 * TEXT as u64);
    ledger.stop();
}

#[test]
fn a_start_needs_no_beginning_and_its_history_is_verified_from_where_it_begins() {
    let kept = Kept::new();
    let ledger = kept.without_its_beginning();
    // Background threads write records of their own until they have ended.
    ledger.stop();
    let digest = ledger.peek(|s| s.digest().unwrap());
    let durable = ledger.durable();
    drop(ledger);

    // An unreadable newest snapshot does not prevent a start.
    let found = snapshot::list(&kept.snapshots()).unwrap();
    let whole = std::fs::read(&found[0]).unwrap();
    std::fs::write(&found[0], &whole[..whole.len() / 2]).unwrap();
    let loaded = load(&*store(&kept.data()).unwrap(), Some(&kept.snapshots())).unwrap();
    assert_eq!((loaded.state.head, loaded.state.digest().unwrap()), (durable, digest));
    std::fs::write(&found[0], &whole).unwrap();

    let ledger = kept.open(RetentionLimit::Size(KEPT)).unwrap();
    assert!(ledger.peek(|s| s.rules.get(&Target::Tool("early".into())).is_some_and(|e| e.lock.is_some())), "locks stay");
    for _ in 0..500 {
        if ledger.verified() >= durable {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(ledger.verified() >= durable && ledger.stopped().is_none(), "{:?}", ledger.stopped());
    let end = ledger.peek(|s| LogEnd { position: s.position, seq: s.head });
    let removed = ledger.peek(|s| s.removed.clone());
    let mut last = Seq::ZERO;
    let reached = ledger.look_back(end, usize::MAX, &CancelFlag::default(), |past| {
        last = past.seq;
        std::ops::ControlFlow::Continue(())
    });
    assert_eq!(reached.unwrap(), ScanEnd::Removed(removed.seq), "the removal's seq is what counting back comes to");
    assert_eq!(Some(last), removed.seq.next());
    let no = ledger.records_at(1).unwrap_err().to_string();
    assert!(no.contains("audit.keep"), "{no}");
    ledger.stop();
    drop(ledger);

    // More commits are missing than a record announces.
    let store = store(&kept.data()).unwrap();
    store.remove_before(removed.before + 3).unwrap();
    let no = load(&*store, Some(&kept.snapshots())).err().unwrap();
    assert!(
        matches!(no, StartError::Beginning { oldest, before, .. } if (oldest, before) == (removed.before + 3, removed.before))
    );
    assert!(no.to_string().contains("mayfly server recover --after"), "{no}");
}

#[test]
fn what_a_crash_left_of_a_removal_goes_after_the_next_start() {
    let kept = Kept::new();
    let ledger = kept.open(RetentionLimit::Size(KEPT)).unwrap();
    kept.write(&ledger, 200);
    kept.settle(&ledger, SETTLED);
    let before = ledger.peek(|s| s.removed.before);
    ledger.stop();
    drop(ledger);
    // The same log without the beginning that the record announces as removed: as if the process had ended between the record and the
    // removal.
    let fresh = tempfile::tempdir().unwrap();
    {
        let (old, new) = (store(&kept.data()).unwrap(), store(&fresh.path().join("data")).unwrap());
        let first = old.read(before, 1).unwrap()[0].bytes.clone();
        new.begin_at(before - 2).unwrap();
        for at in before - 2..before {
            new.append(at, &first).unwrap();
        }
        for at in before..=old.head().unwrap() {
            new.append(at, &old.read(at, 1).unwrap()[0].bytes).unwrap();
        }
    }
    std::fs::rename(kept.data(), kept.dir.path().join("before")).unwrap();
    std::fs::rename(fresh.path().join("data"), kept.data()).unwrap();
    let ledger = kept.open(RetentionLimit::Size(KEPT)).unwrap();
    assert!(ledger.store().oldest().unwrap() <= before);
    for _ in 0..500 {
        if ledger.store().oldest().unwrap() >= before {
            break;
        }
        kept.write(&ledger, 1);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(ledger.store().oldest().unwrap() >= before && ledger.stopped().is_none());
    ledger.stop();
}

#[test]
fn a_recovery_of_a_log_without_its_beginning_goes_on_from_a_snapshot() {
    let kept = Kept::new();
    let ledger = kept.without_its_beginning();
    ledger.stop();
    drop(ledger);
    // Nothing more is removed here: a removal recorded after the place of a recovery is tested below.
    let ledger = kept.open(None).unwrap();
    let after = ledger.durable();
    kept.write(&ledger, 3);
    kept.runtime.block_on(ledger.commit(ProposalKind::Revoke, vec![lock("late")])).unwrap();
    let removed = ledger.peek(|s| s.removed.clone());
    ledger.stop();
    drop(ledger);
    let old = store(&kept.data()).unwrap();
    let snapshots = kept.snapshots();

    let lost = store(&kept.dir.path().join("lost")).unwrap();
    let early = Seq::from_u64(after.as_u64() - 250).unwrap();
    let no = recover::recover(&*old, &*lost, Some(&snapshots), (early, after), Millis(START), false).unwrap_err();
    assert!(matches!(no, recover::RecoverError::Removed { least, .. } if least > early), "{no}");

    let fresh = kept.dir.path().join("fresh");
    let new = store(&fresh).unwrap();
    let done = recover::recover(&*old, &*new, Some(&snapshots), (after, after), Millis(START), false).unwrap();
    assert_eq!((done.generation, done.kept, done.locks), (2, after, 1));
    assert_eq!(new.oldest().unwrap(), removed.before, "history is copied as far as it was kept");
    snapshot::copy(&done.snapshot.unwrap(), &fresh.join("snapshots")).unwrap();
    let loaded = load(&*new, Some(&fresh.join("snapshots"))).unwrap();
    for tool in ["early", "late"] {
        assert!(loaded.state.rules.get(&Target::Tool(tool.into())).is_some_and(|e| e.lock.is_some()), "{tool} stays locked");
    }
    assert_eq!(loaded.state.head.generation(), 2);

    // More commits are missing than a record announces: everything before the snapshot is left behind, and the new log says so.
    old.remove_before(removed.before + 3).unwrap();
    let fresh = kept.dir.path().join("again");
    let new = store(&fresh).unwrap();
    let done = recover::recover(&*old, &*new, Some(&snapshots), (after, after), Millis(START), false).unwrap();
    snapshot::copy(&done.snapshot.unwrap(), &fresh.join("snapshots")).unwrap();
    let state = load(&*new, Some(&fresh.join("snapshots"))).unwrap().state;
    assert!(state.removed.before > removed.before + 3);
    assert_eq!(new.oldest().unwrap(), state.removed.before);
}
