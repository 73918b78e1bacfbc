//! Tests of the list of leases that are not undone yet, and of an operator's actions on them.

use super::kit::connectors;
use super::*;

#[tokio::test]
async fn what_cannot_be_undone_is_listed_with_the_upstreams_words_and_an_operator_can_give_it_up() {
    let (server, process) = fresh(Life::of(u64::MAX)).await;
    let name = process.exchange(async |_| ()).await.map_err(|e| e.to_string()).unwrap();
    server.shared.lock().wrong = [("DROP", vec![Wrong::Refuses; 1_000])].into();
    process
        .disk
        .commit(vec![revoke(Target::Tool("other".into())), revoke(Target::Everything)])
        .await
        .map_err(|e| e.to_string())
        .unwrap();
    for _ in 0..5 {
        process.leases.undo_due().await.map_err(|e| e.to_string()).unwrap();
        tokio::time::sleep(Duration::from_millis(2 * TIMING.retry_max_ms)).await;
    }
    let listed = process.leases.list(None, 10).await.map_err(|e| e.to_string()).unwrap().remove(0);
    assert!(matches!(listed.standing, LeaseStatus::ToUndo(UndoCause::Revoked(_))) && listed.attempts >= 3, "{listed:?}");
    assert_eq!((&*listed.last, &*listed.lease.handle), ("REFUSED", &*name));
    let record = Record::new(Author::LocalUid(0), abandoned(listed.id, "the database is gone\nfor good"));
    process.disk.commit(vec![record]).await.map_err(|e| e.to_string()).unwrap();
    process.leases.undo_due().await.map_err(|e| e.to_string()).unwrap();
    assert_eq!(open_leases(&process), 0);
    assert_eq!(closings(&process)[0].detail, "the database is gone for good");
    assert_eq!(server.alive().len(), 1, "it stands, and the ledger says whose decision that was");
}

#[tokio::test]
async fn pauses_grow_and_a_retry_does_not_wait() {
    let (server, process) = fresh(Life::of(u64::MAX)).await;
    let slow = LeaseTiming { retry_min_ms: 60_000, retry_max_ms: 600_000, ..TIMING };
    let leases = LeaseDriver::new(
        process.disk.clone(),
        connectors(process.leases.connectors.remotes.clone(), slow),
        (Default::default(), UndoSecrets::default()),
        System::real(),
    );
    process.exchange(async |_| ()).await.map_err(|e| e.to_string()).unwrap();
    server.shared.lock().wrong = [("DROP", vec![Wrong::Refuses; 2])].into();
    process.disk.commit(vec![revoke(Target::Everything)]).await.map_err(|e| e.to_string()).unwrap();
    let undo_due = async || {
        leases.undo_due().await.map_err(|e| e.to_string()).unwrap();
        leases.list(None, 1).await.map_err(|e| e.to_string()).unwrap().pop()
    };
    let first = undo_due().await.unwrap();
    assert!(first.attempts == 1 && first.next_in_ms > 59_000, "{first:?}");
    assert_eq!(undo_due().await.unwrap().attempts, 1, "not before its time");
    leases.retry(first.id);
    assert_eq!(undo_due().await.unwrap().attempts, 2);
    leases.retry(first.id);
    assert!(undo_due().await.is_none(), "it took");
    assert!(server.alive().is_empty());
}

#[tokio::test]
async fn a_kind_that_nobody_serves_is_refused_and_its_leases_are_listed() {
    let (_, process) = fresh(Life::of(u64::MAX)).await;
    let bare = LeaseDriver::new(
        process.disk.clone(),
        connectors(UpstreamConnectors::default(), TIMING),
        (Default::default(), UndoSecrets::default()),
        System::real(),
    );
    assert_eq!(reason(bare.mint(process.grant(), 1).await), Reason::NotServed);
    assert_eq!(open_leases(&process), 0);
    process.exchange(async |_| ()).await.map_err(|e| e.to_string()).unwrap();
    process.disk.commit(vec![revoke(Target::Everything)]).await.map_err(|e| e.to_string()).unwrap();
    bare.undo_due().await.map_err(|e| e.to_string()).unwrap();
    let listed = bare.list(None, 1).await.map_err(|e| e.to_string()).unwrap().remove(0);
    assert_eq!(listed.last, "credential kind 5 is not served here");
}

#[tokio::test]
async fn as_many_are_made_at_once_as_is_set() {
    let (server, process) = fresh(Life::of(u64::MAX)).await;
    let places = LeaseConcurrency { making_per_upstream: 1, ..LeaseConcurrency::default() };
    let connectors = ConnectorSettings { places, ..connectors(process.leases.connectors.remotes.clone(), TIMING) };
    let leases = LeaseDriver::new(process.disk.clone(), connectors, (Default::default(), UndoSecrets::default()), System::real());
    server.shared.lock().wrong = [("MAKE", vec![Wrong::IsSlow])].into();
    let both = tokio::join!(leases.mint(process.grant(), 1), leases.mint(process.grant(), 2));
    let no = match both {
        (Err(Error::Refusal(slow)), Err(Error::Refusal(full))) if slow.reason == Reason::UpstreamFailed => full,
        _ => panic!("one is slow, and the other finds no place"),
    };
    assert_eq!((no.reason, no.rule.as_deref()), (Reason::LimitReached, Some("leases_making_per_upstream")));
    assert!(no.message.contains("of 1 "), "{no}");
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_is_asked_once_in_a_while_and_its_leases_are_undone_all_the_same() {
    let (server, process) = fresh(Life::of(u64::MAX)).await;
    server.shared.lock().wrong = [("MAKE", vec![Wrong::HangsUp; limits::UPSTREAM_FAILURES as usize])].into();
    for _ in 0..limits::UPSTREAM_FAILURES {
        assert_eq!(reason(process.exchange(async |_| ()).await), Reason::UpstreamFailed);
    }
    let asked = server.shared.lock().made;
    let Err(Error::Refusal(no)) = process.exchange(async |_| ()).await else { panic!("it is refused at once") };
    assert_eq!((no.reason, no.rule.as_deref()), (Reason::UpstreamFailed, Some("circuit_breaker")));
    assert!(no.retry_after.is_some_and(|wait| wait.as_millis() <= 2 * u128::from(limits::UPSTREAM_PAUSE_MIN_MS)), "{no:?}");
    assert_eq!(server.shared.lock().made, asked);
    let health = process.leases.upstream_health().remove(0);
    assert!(health.open && !health.last.is_empty(), "{health:?}");
    // What the calls may have made is undone, and that the upstream answers to that ends the refusals.
    for _ in 0..200 {
        process.leases.undo_due().await.map_err(|e| e.to_string()).unwrap();
        if open_leases(&process) == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(TIMING.retry_max_ms)).await;
    }
    assert_eq!(open_leases(&process), 0);
    process.exchange(async |_| ()).await.map_err(|e| e.to_string()).unwrap();
    assert!(!process.leases.upstream_health()[0].open);
}
