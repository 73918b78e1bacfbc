//! The same over the real ledger with its receipts, lanes and durable head.

use super::kit::{Accounts, connectors};
use super::*;
use crate::testing::{grant, plain, world};
use mayfly_base::system::ManualClock;
use mayfly_ledger::{CommittedRecord, Ledger, LedgerSettings, ProposalKind};
use mayfly_store::Store;
use mayfly_store::memory::MemoryStore;

fn told<T>(answer: Result<T, Error>) -> T {
    answer.map_err(|e| e.to_string()).unwrap()
}

#[tokio::test]
async fn it_is_made_handed_out_and_undone_through_the_ledger() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(mayfly_store::StoreId::from_bytes([5; 16])));
    let system = System::real();
    let its = system.clone();
    let open = move || Ledger::open(Box::new(move || Ok(store.clone())), its, LedgerSettings::default()).unwrap();
    let ledger = tokio::task::spawn_blocking(open).await.unwrap();
    for event in world(system.wall()) {
        let record = Record::new(Author::Mayfly("created".into()), event).decided_at(ledger.durable());
        told(ledger.commit(ProposalKind::Change, vec![record]).await);
    }
    let server = Server::start().await;
    let remotes = UpstreamConnectors::default().with(Accounts::at(&server, Life::of(u64::MAX)));
    let over = Arc::new(ReplicaLedger::new(ledger.clone(), system.clone()));
    let leases = LeaseDriver::new(over, connectors(remotes, TIMING), (Arc::default(), UndoSecrets::default()), system.clone());
    let follows = leases.clone();
    ledger.observe(move |batch| follows.follow(batch.records.iter().filter_map(CommittedRecord::change).map(|r| &**r)));

    let mut parts = plain(5, system.wall(), ledger.durable());
    parts.request = None;
    let mut minted = told(leases.mint(grant(parts), ledger.new_group()).await);
    let (id, before) = (minted.id(), ledger.durable());
    let receipt = told(ledger.commit(ProposalKind::Grant, minted.records()).await);
    assert!(minted.reveal(receipt).unwrap().seq() > before);
    told(leases.undo_due().await);
    assert_eq!(server.alive().len(), 1);

    let undoing = tokio::spawn(leases.clone().run());
    told(ledger.commit(ProposalKind::Revoke, vec![revoke(Target::Credential(id))]).await);
    let gone = async {
        while !told(ledger.settled(|s| s.leases.is_empty()).await) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
    assert!(server.alive().is_empty());
    undoing.abort();
    tokio::task::spawn_blocking(move || ledger.stop()).await.unwrap();
}

#[tokio::test]
async fn by_a_clock_that_stands_behind_the_ledger_nothing_is_due_later() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(mayfly_store::StoreId::from_bytes([6; 16])));
    let open = move || Ledger::open(Box::new(move || Ok(store.clone())), System::real(), LedgerSettings::default()).unwrap();
    let ledger = tokio::task::spawn_blocking(open).await.unwrap();
    let time = ledger.peek(|state| state.time);
    let behind = ManualClock::at(time.minus(60_000));
    assert_eq!(ReplicaLedger::new(ledger.clone(), System::with_clock(behind)).now(), time);
    tokio::task::spawn_blocking(move || ledger.stop()).await.unwrap();
}
