//! A ledger whose store fails and is opened again: what is told to whom, and what is not believed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mayfly::ledger::record::{Event, Record, Revoked, Who};
use mayfly::ledger::{Batch, Lane, Ledger, Settings};
use mayfly::refusal::{No, Reason};
use mayfly::revocation::{Rules, Target};
use mayfly::seq::Millis;
use mayfly::store::memory::MemoryStore;
use mayfly::store::{Store, StoreId};
use mayfly::system::System;
use parking_lot::Mutex;

#[path = "kit/faulty.rs"]
mod faulty;
use faulty::{Fault, FaultyStore};

type Faulty = FaultyStore<MemoryStore>;

fn store() -> Arc<Faulty> {
    Arc::new(FaultyStore::new(MemoryStore::new(StoreId::from_bytes([1; 16]))))
}

fn revocation(tool: &str) -> Vec<Record> {
    let keep_until = Rules::keep_until(Millis(1_800_000_000_000)).0;
    let targets = vec![Target::Tool(tool.into()).to_record()];
    let revoked = Revoked { targets, keep_until, reason: "test".into(), ..Revoked::default() };
    vec![Record::new(Who::LocalUid(0), Event::Revoked(revoked))]
}

/// The tools that those who follow heard of, in order, with their seqs.
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

fn refused(answer: Result<mayfly::ledger::Receipt, No>) -> String {
    match answer {
        Err(No::Refusal(no)) if no.reason == Reason::NotReady => no.to_string(),
        other => panic!("{:?}", other.map(|r| r.seq()).map_err(|no| no.to_string())),
    }
}

/// What a failed append left behind takes effect when the store is opened again. Its author may be answered with it from then on, so a
/// verifier that never heard of it would accept what is revoked.
#[test]
fn what_a_failed_append_left_is_told_to_those_who_follow_and_what_it_did_not_is_not() {
    for fault in [Fault::Kept, Fault::Lost, Fault::Full] {
        let faulty = store();
        let ours = faulty.clone();
        let opener = Box::new(move || {
            ours.open_again();
            Ok(ours.clone() as Arc<dyn Store>)
        });
        let ledger = Ledger::open(opener, System::real(), Settings::default()).unwrap();
        let heard = listen(&ledger);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let first = runtime.block_on(ledger.commit(Lane::Revoke, revocation("first"))).unwrap().seq();
        faulty.fail_next_append(fault);
        refused(runtime.block_on(ledger.commit(Lane::Revoke, revocation("failed"))));
        assert_eq!(ledger.durable(), first, "nothing is acknowledged as if it had worked");
        let last = runtime.block_on(ledger.commit(Lane::Revoke, revocation("last"))).unwrap().seq();
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

/// A store that was acknowledged from and comes back without it is not served from.
#[test]
fn a_store_that_comes_back_without_what_was_acknowledged_is_not_believed() {
    let (faulty, emptied) = (store(), Arc::new(AtomicBool::new(false)));
    let (ours, empty) = (faulty.clone(), emptied.clone());
    let opener = Box::new(move || match empty.load(Ordering::SeqCst) {
        true => Ok(store() as Arc<dyn Store>),
        false => Ok(ours.clone() as Arc<dyn Store>),
    });
    let ledger = Ledger::open(opener, System::real(), Settings::default()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(ledger.commit(Lane::Revoke, revocation("acknowledged"))).unwrap();
    emptied.store(true, Ordering::SeqCst);
    faulty.fail_next_append(Fault::Lost);
    refused(runtime.block_on(ledger.commit(Lane::Revoke, revocation("failed"))));
    let why = refused(runtime.block_on(ledger.commit(Lane::Revoke, revocation("later"))));
    assert!(why.contains("it lost its end"), "{why}");
    assert!(!ledger.writes());
    assert!(ledger.peek(|s| s.rules.get(&Target::Tool("acknowledged".into())).is_some()), "the state is that of before");
    ledger.stop();
}
