//! The ledger on a real engine: from a proposal to a receipt, through restarts, failures and recovery.

mod at_once;
mod failing;
#[path = "../kit/join.rs"]
mod join;
mod keep;

use std::sync::Arc;
use std::time::Duration;

use mayfly::ledger::record::{
    Author, BundleUpdated, Event, KeyAdded, KeyChanged, KeyPurpose, KeyState, LockLifted, Maintained, Record, RequestRecord,
    TargetsRevoked,
};
use mayfly::ledger::{Ledger, LedgerSettings, ProposalKind, Quotas, StartError, recovery::recover};
use mayfly::refusal::{Error, Reason};
use mayfly::revocation::{Rules, Target};
use mayfly::seq::{Millis, Seq};
use mayfly::store::redb::{RedbStore, StoreOptions};
use mayfly::store::{Store, StoreError};
use mayfly::system::{ManualClock, System};

use join::join_all;

fn note(text: &str) -> Record {
    Record::new(Author::Mayfly("test".into()), Event::Maintained(Maintained { what: text.into() }))
}

fn lock(target: Target) -> Record {
    let revoked = TargetsRevoked {
        targets: vec![target.to_record()],
        keep_until: Rules::keep_until(Millis(1_800_000_000_000)).0,
        ..TargetsRevoked::default()
    };
    Record::new(Author::LocalUid(0), Event::Revoked(revoked))
}

fn options() -> StoreOptions {
    StoreOptions { reserve_bytes: 0, ..StoreOptions::new([7; 16]) }
}

fn open(dir: &std::path::Path, settings: LedgerSettings) -> Result<Ledger, StartError> {
    let dir = dir.join("data");
    Ledger::open(Box::new(move || Ok(Arc::new(RedbStore::open(&dir, &options())?) as Arc<dyn Store>)), System::real(), settings)
}

#[test]
fn what_was_acknowledged_is_there_after_a_restart_and_the_state_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut digests = Vec::new();
    let mut heads = Vec::new();
    for round in 0..3 {
        let ledger = open(dir.path(), LedgerSettings::default()).unwrap();
        if let Some(head) = heads.last() {
            assert!(ledger.durable() > *head, "a start is a record");
        }
        let receipts = runtime.block_on(async {
            let all = (0..200).map(|n| ledger.commit(ProposalKind::Change, vec![note(&format!("{round} {n}"))]));
            let mut seqs = Vec::new();
            for receipt in join_all(all).await {
                seqs.push(receipt.unwrap().seq());
            }
            seqs
        });
        let distinct: std::collections::BTreeSet<_> = receipts.iter().copied().collect();
        assert_eq!(distinct.len(), 200, "no seq is given twice");
        runtime.block_on(ledger.commit(ProposalKind::Revoke, vec![lock(Target::Tool(format!("t{round}").into()))])).unwrap();
        heads.push(ledger.durable());
        digests.push(ledger.peek(|s| s.digest().unwrap()));
        assert!(ledger.commits() < 203, "commits are gathered or not, never more than proposals");
        ledger.stop();
    }
    let store = RedbStore::open(&dir.path().join("data"), &options()).unwrap();
    let loaded = mayfly::ledger::recovery::open::load(&store, None).unwrap();
    assert_eq!(loaded.state.digest().unwrap(), digests[2]);
    assert_eq!(loaded.state.rules.len(), 3);
}

/// Limits set by an operator apply to new records only; the meaning of the existing log does not change.
#[test]
fn a_number_that_is_lowered_voids_nothing_that_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ids = |count| LedgerSettings {
        ceilings: Quotas { request_ids_per_caller: count, ..Quotas::FOLD },
        ..LedgerSettings::default()
    };
    let named =
        |n: u8| note("named").for_request(Some(RequestRecord { caller: "c".into(), id: n.to_string(), digest: vec![n; 32] }));
    let ledger = open(dir.path(), ids(5)).unwrap();
    for n in 0..5 {
        runtime.block_on(ledger.commit(ProposalKind::Change, vec![named(n)])).unwrap();
    }
    ledger.stop();
    drop(ledger);
    let ledger = open(dir.path(), ids(2)).unwrap();
    assert_eq!(ledger.peek(|s| s.credentials.remembered("c")), 5);
    let no = runtime.block_on(ledger.commit(ProposalKind::Change, vec![named(5)])).err().unwrap();
    assert!(matches!(no, Error::Refusal(no) if no.reason == Reason::LimitReached && no.message.contains("of 2 ")));
    runtime.block_on(ledger.commit(ProposalKind::Revoke, vec![named(6)])).unwrap();
    ledger.stop();
}

#[test]
fn a_snapshot_shortens_the_start_only_when_the_log_vouches_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = dir.path().join("snapshots");
    let settings = || LedgerSettings { snapshots: Some(snapshots.clone()), snapshot_every: 10, ..LedgerSettings::default() };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ledger = open(dir.path(), settings()).unwrap();
    for n in 0..40 {
        runtime.block_on(ledger.commit(ProposalKind::Change, vec![note(&format!("{n}"))])).unwrap();
    }
    for _ in 0..100 {
        if ledger.peek(|s| s.snapshot.is_some()) {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(ledger.peek(|s| s.snapshot.is_some()), "its record is in the log");
    // A snapshot that is under way gets its record before the stop.
    std::thread::sleep(Duration::from_millis(300));
    runtime.block_on(ledger.commit(ProposalKind::Change, vec![note("last")])).unwrap();
    let digest = ledger.peek(|s| s.digest().unwrap());
    ledger.stop();
    drop(ledger);

    let store = RedbStore::open(&dir.path().join("data"), &options()).unwrap();
    let loaded = mayfly::ledger::recovery::open::load(&store, Some(&snapshots)).unwrap();
    assert!(loaded.from.is_some(), "it began with the snapshot");
    assert_eq!(loaded.state.digest().unwrap(), digest);

    // No record vouches for a snapshot with a changed state.
    let newest = mayfly::ledger::recovery::snapshot::list(&snapshots).unwrap()[0].clone();
    let (mut state, _) = mayfly::ledger::recovery::snapshot::read(&newest).unwrap();
    for path in mayfly::ledger::recovery::snapshot::list(&snapshots).unwrap() {
        std::fs::remove_file(path).unwrap();
    }
    state.rules.add(&Target::Everything, None, None, Millis(0));
    mayfly::ledger::recovery::snapshot::write(&snapshots, &state).unwrap();
    let loaded = mayfly::ledger::recovery::open::load(&store, Some(&snapshots)).unwrap();
    assert_eq!((loaded.from, loaded.state.digest().unwrap()), (None, digest));

    // A snapshot that has seen more than the store holds: an older store was put back.
    state.position = store.head().unwrap() + 5;
    mayfly::ledger::recovery::snapshot::write(&snapshots, &state).unwrap();
    let refused = mayfly::ledger::recovery::open::load(&store, Some(&snapshots)).err().unwrap();
    assert!(matches!(refused, StartError::Behind { .. }), "{refused}");
    assert!(refused.to_string().contains("mayfly server recover --after"));
}

#[test]
fn what_is_folded_again_is_judged_as_it_was_when_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ledger = open(dir.path(), LedgerSettings::default()).unwrap();
    let policy = |version: u64, group: u32| {
        let set = mayfly::ledger::record::PolicySetUpdated { environment: "dev".into(), version, ..Default::default() };
        Record { group, ..Record::new(Author::LocalUid(0), Event::PolicySet(set)) }
    };
    // Requests with the same group number: gathered into few commits, each is judged by itself.
    let asked = (1..=60).map(|n| ledger.commit(ProposalKind::Change, vec![policy(n, 5), Record { group: 5, ..note("with it") }]));
    let all = runtime.block_on(join_all(asked));
    assert!(all.iter().all(Result::is_ok));
    assert!(ledger.commits() < 60, "some were neighbours");
    let twice = runtime.block_on(ledger.commit(ProposalKind::Change, vec![policy(61, 0), policy(62, 0)]));
    assert!(twice.is_err(), "a group stands or is void together");
    let digest = ledger.peek(|s| s.digest().unwrap());
    ledger.stop();
    drop(ledger);
    let store = RedbStore::open(&dir.path().join("data"), &options()).unwrap();
    assert_eq!(mayfly::ledger::recovery::open::load(&store, None).unwrap().state.digest().unwrap(), digest);
}

/// A store whose next append fails on command.
struct Failing {
    inner: RedbStore,
    fail: Arc<std::sync::atomic::AtomicBool>,
}

impl Store for Failing {
    fn engine(&self) -> &'static str {
        "failing"
    }
    fn id(&self) -> mayfly::store::StoreId {
        self.inner.id()
    }
    fn append(&self, at: u64, bytes: &[u8]) -> Result<(), StoreError> {
        if self.fail.swap(false, std::sync::atomic::Ordering::SeqCst) {
            return Err(StoreError::Failed("the disk said no".into()));
        }
        self.inner.append(at, bytes)
    }
    fn head(&self) -> Result<u64, StoreError> {
        self.inner.head()
    }
    fn oldest(&self) -> Result<u64, StoreError> {
        self.inner.oldest()
    }
    fn read(&self, from: u64, max: usize) -> Result<Vec<mayfly::store::StoredCommit>, StoreError> {
        self.inner.read(from, max)
    }
    fn follow(&self, after: u64, wait: Duration) -> Result<u64, StoreError> {
        self.inner.follow(after, wait)
    }
    fn remove_some(&self, before: u64) -> Result<u64, StoreError> {
        self.inner.remove_some(before)
    }
    fn put(&self, n: &str, v: &[u8], e: mayfly::store::Precondition<'_>) -> Result<(), StoreError> {
        self.inner.put(n, v, e)
    }
    fn named(&self, n: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.named(n)
    }
    fn list(&self, p: &str) -> Result<Vec<String>, StoreError> {
        self.inner.list(p)
    }
    fn delete(&self, n: &str, e: mayfly::store::Precondition<'_>) -> Result<(), StoreError> {
        self.inner.delete(n, e)
    }
}

/// A ledger, with the switch that makes its next append fail.
fn failing() -> (tempfile::TempDir, Arc<std::sync::atomic::AtomicBool>, Ledger) {
    let dir = tempfile::tempdir().unwrap();
    let fail = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (path, flag) = (dir.path().join("data"), fail.clone());
    let opener = Box::new(move || {
        Ok(Arc::new(Failing { inner: RedbStore::open(&path, &options())?, fail: flag.clone() }) as Arc<dyn Store>)
    });
    let ledger = Ledger::open(opener, System::real(), LedgerSettings::default()).unwrap();
    (dir, fail, ledger)
}

#[test]
fn a_failed_flush_answers_nobody_and_leaves_nothing_of_it_in_the_state() {
    let (_dir, fail, ledger) = failing();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let before = ledger.durable();
    fail.store(true, std::sync::atomic::Ordering::SeqCst);
    let refused = runtime.block_on(ledger.commit(ProposalKind::Revoke, vec![lock(Target::Everything)]));
    assert!(matches!(refused, Err(Error::Refusal(no)) if no.reason == Reason::NotReady));
    assert_eq!(ledger.durable(), before);
    // The next commit finds the store reopened, and the state without the records that were not written.
    let receipt = runtime.block_on(ledger.commit(ProposalKind::Revoke, vec![lock(Target::Tool("t".into()))])).unwrap();
    assert_eq!(Some(receipt.seq()), before.next());
    assert!(ledger.peek(|s| s.rules.get(&Target::Everything).is_none() && s.rules.get(&Target::Tool("t".into())).is_some()));
    ledger.stop();
}

#[test]
fn a_store_that_failed_is_opened_again_when_those_who_read_it_are_done() {
    let (_dir, fail, ledger) = failing();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // A read under way keeps the store open, and with it the lock on its file.
    let held = ledger.store();
    let reader = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        held.read(1, 1).map(|entries| entries.len())
    });
    fail.store(true, std::sync::atomic::Ordering::SeqCst);
    assert!(runtime.block_on(ledger.commit(ProposalKind::Revoke, vec![lock(Target::Everything)])).is_err());
    runtime.block_on(ledger.commit(ProposalKind::Revoke, vec![lock(Target::Tool("t".into()))])).unwrap();
    assert_eq!(reader.join().unwrap().unwrap(), 1);
    ledger.stop();
}

#[test]
fn a_stepped_clock_stops_grants_and_not_revocations() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(Millis(1_800_000_000_000));
    let path = dir.path().join("data");
    let opener = Box::new(move || Ok(Arc::new(RedbStore::open(&path, &options())?) as Arc<dyn Store>));
    let ledger = Ledger::open(opener, System::with_clock(clock.clone()), LedgerSettings::default()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(ledger.commit(ProposalKind::Grant, vec![note("fine")])).unwrap();
    clock.step_to(Millis(1_800_000_000_000 + 86_400_000));
    let refused = runtime.block_on(ledger.commit(ProposalKind::Grant, vec![note("no")]));
    assert!(matches!(refused, Err(Error::Refusal(no)) if no.reason == Reason::ClockSkew));
    let receipt = runtime.block_on(ledger.commit(ProposalKind::Revoke, vec![lock(Target::Everything)])).unwrap();
    assert!(receipt.time() < Millis(1_800_000_000_000 + 60_000), "the step is not written");
    ledger.stop();
}

#[test]
fn recovery_keeps_what_can_be_trusted_revokes_all_of_it_and_takes_locks_over() {
    let (dir, fresh) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ledger = open(dir.path(), LedgerSettings::default()).unwrap();
    runtime.block_on(ledger.commit(ProposalKind::Revoke, vec![lock(Target::Tool("kept".into()))])).unwrap();
    let kept = runtime.block_on(ledger.commit(ProposalKind::Change, vec![note("kept")])).unwrap().seq();
    runtime.block_on(ledger.commit(ProposalKind::Revoke, vec![lock(Target::Tool("lost".into()))])).unwrap();
    let svid = Target::Svid("a.example".into(), [1; 32], vec![7].into());
    let key = Target::SigningKey("stolen".into());
    for target in [svid.clone(), key.clone()] {
        runtime.block_on(ledger.commit(ProposalKind::Revoke, vec![lock(target)])).unwrap();
    }
    let lift = LockLifted { targets: vec![Target::Tool("lost".into()).to_record()], reason: String::new() };
    runtime
        .block_on(ledger.commit(
            ProposalKind::Change,
            vec![Record::new(Author::LocalUid(0), Event::LockLifted(lift)).decided_at(ledger.durable())],
        ))
        .unwrap();
    ledger.store().put("key/a", b"sealed", mayfly::store::Precondition::Absent).unwrap();
    ledger.stop();
    drop(ledger);

    let old = RedbStore::open(&dir.path().join("data"), &options()).unwrap();
    let new = RedbStore::open(&fresh.path().join("data"), &options()).unwrap();
    let done = recover::recover(&old, &new, None, (kept, Seq::ZERO), Millis(1_800_000_000_000), false).unwrap();
    assert_eq!((done.generation, done.kept, done.left, done.locks, done.named), (2, kept, 4, 1, 1));
    let state = mayfly::ledger::recovery::open::load(&new, None).unwrap().state;
    assert_eq!(state.head.generation(), 2);
    for tool in ["kept", "lost"] {
        assert!(state.rules.get(&Target::Tool(tool.into())).is_some_and(|e| e.lock.is_some()), "{tool} stays locked");
    }
    for evidence in [svid, key] {
        assert!(state.rules.get(&evidence).is_some_and(|e| e.revoked > Seq::ZERO), "{evidence} is evidence for nothing");
    }
    let everything = state.rules.get(&Target::Everything).unwrap();
    assert!(everything.revoked >= Seq::start_of(2) && everything.lock.is_none());
    assert_eq!(new.named("key/a").unwrap().as_deref(), Some(&b"sealed"[..]));
    drop(new);
    open(fresh.path(), LedgerSettings::default()).unwrap().stop();
}

/// The private part of a key is shredded when the key is removed, and a removed root is no longer trusted: a recovery to a place before
/// that must neither need the key nor trust the root again.
#[test]
fn recovery_ages_keys_and_shuts_out_whom_lost_trust_would_let_in() {
    let (dir, fresh) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ledger = open(dir.path(), LedgerSettings::default()).unwrap();
    let commit = |event: Event| {
        let record = Record::new(Author::LocalUid(0), event).decided_at(ledger.durable());
        runtime.block_on(ledger.commit(ProposalKind::Change, vec![record])).unwrap().seq()
    };
    let bundle = |domain: &str, anchors: &[u8]| {
        let anchors = anchors.iter().map(|n| vec![*n; 32]).collect();
        let (digest, source) = (vec![7; 32], "file".to_owned());
        Event::BundleSet(BundleUpdated { trust_domain: domain.into(), anchors, digest, source, ..BundleUpdated::default() })
    };
    let change = |key: &str, state: KeyState| {
        Event::KeyChanged(KeyChanged { key: key.into(), state: state as i32, reason: String::new() })
    };
    for key in ["removed", "retired", "used"] {
        commit(Event::KeyAdded(KeyAdded {
            key: key.into(),
            purpose: KeyPurpose::AccessToken as i32,
            algorithm: "ES256".into(),
            public: vec![4; 65],
            environment: key.into(),
            state: KeyState::Active as i32,
            ..KeyAdded::default()
        }));
    }
    for domain in ["less.example", "more.example"] {
        commit(bundle(domain, &[1, 2]));
    }
    let kept = ledger.durable();
    for state in [KeyState::Retired, KeyState::Removed] {
        commit(change("removed", state));
    }
    commit(change("retired", KeyState::Retired));
    commit(bundle("less.example", &[1]));
    commit(bundle("more.example", &[1, 2, 3]));
    ledger.stop();
    drop(ledger);

    let old = RedbStore::open(&dir.path().join("data"), &options()).unwrap();
    let new = RedbStore::open(&fresh.path().join("data"), &options()).unwrap();
    recover::recover(&old, &new, None, (kept, Seq::start_of(6)), Millis(1_800_000_000_000), false).unwrap();
    let state = mayfly::ledger::recovery::open::load(&new, None).unwrap().state;
    assert_eq!(state.head.generation(), 7, "above what a snapshot has seen");
    let states = ["removed", "retired", "used"].map(|key| state.keys[key].state);
    assert_eq!(states, [KeyState::Removed, KeyState::Retired, KeyState::Active]);
    let locked = |domain: &str| state.rules.get(&Target::TrustDomain(domain.into())).is_some_and(|e| e.lock.is_some());
    assert!(locked("less.example"), "a root of it was taken out in what is lost");
    assert!(!locked("more.example") && state.bundles["more.example"].anchors.len() == 2, "what is not proven lets nobody in");
}
