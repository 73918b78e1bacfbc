//! A ledger whose store fails and is reopened: what callers and followers are told, and what is rejected.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mayfly::ledger::record::{Author, Event, Record, TargetsRevoked};
use mayfly::ledger::{Batch, Ledger, LedgerSettings, ProposalKind};
use mayfly::refusal::{Error, Reason};
use mayfly::revocation::{Rules, Target};
use mayfly::seq::Millis;
use mayfly::store::memory::MemoryStore;
use mayfly::store::{Store, StoreId};
use mayfly::system::System;
use parking_lot::Mutex;

#[path = "../kit/faulty.rs"]
mod faulty;
use self::faulty::{Fault, FaultyStore};

type Faulty = FaultyStore<MemoryStore>;

fn store() -> Arc<Faulty> {
    Arc::new(FaultyStore::new(MemoryStore::new(StoreId::from_bytes([1; 16]))))
}

fn revocation(tool: &str) -> Vec<Record> {
    let keep_until = Rules::keep_until(Millis(1_800_000_000_000)).0;
    let targets = vec![Target::Tool(tool.into()).to_record()];
    let revoked = TargetsRevoked { targets, keep_until, reason: "test".into(), ..TargetsRevoked::default() };
    vec![Record::new(Author::LocalUid(0), Event::Revoked(revoked))]
}

/// The tools that observers were told of, in order, with their seqs.
type Heard = Arc<Mutex<Vec<(u64, String)>>>;

fn listen(ledger: &Ledger) -> Heard {
    let heard = Heard::default();
    let ours = heard.clone();
    ledger.observe(move |batch: &Arc<Batch>| {
        for record in &batch.records {
            let whole = record.whole().unwrap();
            let Some(Event::Revoked(e)) = &whole.event else { continue };
            for target in e.targets.iter().filter_map(|t| Target::from_record(t).ok()) {
                if let Target::Tool(tool) = target {
                    ours.lock().push((record.seq.as_u64(), tool.to_string()));
                }
            }
        }
    });
    heard
}

fn refused(answer: Result<mayfly::ledger::Receipt, Error>) -> String {
    match answer {
        Err(Error::Refusal(no)) if no.reason == Reason::NotReady => no.to_string(),
        other => panic!("{:?}", other.map(|r| r.seq()).map_err(|no| no.to_string())),
    }
}

/// Records of a failed append take effect when the store is reopened. Their author may receive them as an answer from then on, so a
/// verifier that was never told of them would accept what is revoked.
#[test]
fn what_a_failed_append_left_is_told_to_those_who_follow_and_what_it_did_not_is_not() {
    for fault in [Fault::Kept, Fault::Lost, Fault::Full] {
        let faulty = store();
        let ours = faulty.clone();
        let opener = Box::new(move || {
            ours.open_again();
            Ok(ours.clone() as Arc<dyn Store>)
        });
        let ledger = Ledger::open(opener, System::real(), LedgerSettings::default()).unwrap();
        let heard = listen(&ledger);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let first = runtime.block_on(ledger.commit(ProposalKind::Revoke, revocation("first"))).unwrap().seq();
        faulty.fail_next_append(fault);
        refused(runtime.block_on(ledger.commit(ProposalKind::Revoke, revocation("failed"))));
        assert_eq!(ledger.durable(), first, "nothing is acknowledged as if it had worked");
        let last = runtime.block_on(ledger.commit(ProposalKind::Revoke, revocation("last"))).unwrap().seq();
        let in_force = ledger.peek(|s| s.rules.get(&Target::Tool("failed".into())).is_some());
        assert_eq!(in_force, fault == Fault::Kept);
        let told: Vec<(u64, String)> = heard.lock().clone();
        let mut expected = vec![(first.as_u64(), "first".to_owned())];
        if in_force {
            expected.push((first.next().unwrap().as_u64(), "failed".to_owned()));
        }
        expected.push((last.as_u64(), "last".to_owned()));
        assert_eq!(told, expected, "{fault:?}: who follows knows what is in force, in order and each once");
        ledger.stop();
    }
}

/// A store that has lost acknowledged commits when it is reopened is not used.
#[test]
fn a_store_that_comes_back_without_what_was_acknowledged_is_not_believed() {
    let (faulty, emptied) = (store(), Arc::new(AtomicBool::new(false)));
    let (ours, empty) = (faulty.clone(), emptied.clone());
    let opener = Box::new(move || match empty.load(Ordering::SeqCst) {
        true => Ok(store() as Arc<dyn Store>),
        false => Ok(ours.clone() as Arc<dyn Store>),
    });
    let ledger = Ledger::open(opener, System::real(), LedgerSettings::default()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(ledger.commit(ProposalKind::Revoke, revocation("acknowledged"))).unwrap();
    emptied.store(true, Ordering::SeqCst);
    faulty.fail_next_append(Fault::Lost);
    refused(runtime.block_on(ledger.commit(ProposalKind::Revoke, revocation("failed"))));
    let why = refused(runtime.block_on(ledger.commit(ProposalKind::Revoke, revocation("later"))));
    assert!(why.contains("it lost its end"), "{why}");
    assert!(!ledger.writes());
    assert!(ledger.peek(|s| s.rules.get(&Target::Tool("acknowledged".into())).is_some()), "the state is that of before");
    ledger.stop();
}

/// A stalled disk: callers are answered within a bound, no more proposals are accepted, and the duration of the stall is reported. The
/// commit under way takes effect when the disk continues, and followers are told of it.
#[test]
#[allow(clippy::disallowed_methods, reason = "a test that measures how long somebody is kept waiting")]
fn a_disk_that_stands_still_holds_up_nobody_for_longer_than_its_bound() {
    let faulty = store();
    let ours = faulty.clone();
    let ledger =
        Ledger::open(Box::new(move || Ok(ours.clone() as Arc<dyn Store>)), System::real(), LedgerSettings::default()).unwrap();
    let heard = listen(&ledger);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    assert_eq!(ledger.commit_age_us() / 1_000_000, 0);
    faulty.stand_still(true);
    let began = std::time::Instant::now();
    let (writing, waiting) = runtime.block_on(async {
        let writing = ledger.propose(ProposalKind::Revoke, revocation("writing")).unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let waiting = ledger.propose(ProposalKind::Change, revocation("waiting")).unwrap();
        let reading = ledger.clone();
        let read = tokio::spawn(async move { reading.settled(|s| s.head).await.is_err() });
        let answers = (ledger.receipt(writing).await, ledger.receipt(waiting).await);
        assert!(read.await.unwrap(), "what was seen before it was durable leaves nobody");
        answers
    });
    assert!(began.elapsed() < std::time::Duration::from_secs(8), "{:?}", began.elapsed());
    for why in [refused(writing), refused(waiting)] {
        assert!(why.contains("stands still"), "{why}");
    }
    assert!(!ledger.writes() && ledger.stopped().is_some_and(|no| no.reason == Reason::NotReady));
    assert!(ledger.commit_age_us() > 2_000_000);
    refused(runtime.block_on(ledger.commit(ProposalKind::Revoke, revocation("later"))));
    faulty.stand_still(false);
    while !ledger.writes() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let last = runtime.block_on(ledger.commit(ProposalKind::Revoke, revocation("last"))).unwrap().seq();
    let told: Vec<String> = heard.lock().iter().map(|(_, tool)| tool.clone()).collect();
    assert_eq!(told, ["writing", "last"], "{last}");
    assert!(ledger.stopped().is_none());
    // Answers are sent before the writer marks its commit as finished.
    while ledger.commit_age_us() > 0 {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    ledger.stop();
}

/// A heartbeat waits for its own record: a later record that was written says nothing about one that was not.
#[test]
fn a_sign_of_life_whose_record_was_not_written_is_not_acknowledged_by_the_next_one() {
    let faulty = store();
    let ours = faulty.clone();
    let opener = Box::new(move || {
        ours.open_again();
        Ok(ours.clone() as Arc<dyn Store>)
    });
    let ledger = Ledger::open(opener, System::real(), LedgerSettings::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let heartbeats = mayfly::heartbeats::Heartbeats::default();
        let task = |n| mayfly::seq::TaskId::from_bytes([n; 16]);
        let mut waiter = Box::pin(heartbeats.beat(task(1)));
        let nothing_yet = std::future::poll_fn(|cx| std::task::Poll::Ready(waiter.as_mut().poll(cx).is_pending())).await;
        assert!(nothing_yet);
        faulty.fail_next_append(Fault::Lost);
        heartbeats.flush(&ledger).await;
        let mut next = Box::pin(heartbeats.beat(task(2)));
        assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(next.as_mut().poll(cx).is_pending())).await);
        heartbeats.flush(&ledger).await;
        // Only now is the first waiter polled again.
        assert!(waiter.await.is_err(), "its record was not written");
        assert!(next.await.is_ok());
    });
    ledger.stop();
}
