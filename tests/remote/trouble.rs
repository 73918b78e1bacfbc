//! An upstream that hangs, a ledger that cannot be written, and what an operator sees in both cases.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mayfly::credential::CredentialKind as Number;
use mayfly::credential::connector::{
    ConnectorFuture, MakeError, MintOrder, RepeatResponse, UndoError, UndoOrder, UpstreamConnector, UpstreamConnectors,
    UpstreamCredential, UpstreamHandle,
};
use mayfly::identity::caller::Operator;
use mayfly::limits;
use mayfly::policy::exchange_request::TaskChoice;
use mayfly::refusal::Reason;
use mayfly::revocation::Target;
use mayfly::seq::Millis;
use mayfly::store::memory::MemoryStore;
use mayfly::store::{Store, StoreError, StoreId};
use mayfly::upstream::access::{AccessError, AccessLevel, AccessQuery, GrantedAccess};
use mayfly::upstream::lease::{ConnectorSettings, LeaseConcurrency, LeaseStatus};
use mayfly::upstream::registry::Kind;

use super::faulty::{Fault, FaultyStore};
use super::kind::{SETTLES_MS, TIMING, connectors};
use super::kit::house::{house_on, house_with, wanted};
use super::place::{Place, refusal};
use super::upstream::{PATIENCE_MS, Upstream};

/// Makes nothing, and never answers.
struct Stuck;

impl UpstreamConnector for Stuck {
    fn kind(&self) -> Number {
        Number::Postgres
    }

    fn describe(&self, _: &AccessQuery<'_>) -> Result<GrantedAccess, AccessError> {
        Ok(GrantedAccess { levels: [AccessLevel::Unknown].into(), ..GrantedAccess::default() })
    }

    fn name(&self, order: &MintOrder<'_>) -> Result<UpstreamHandle, MakeError> {
        Ok(UpstreamHandle { handle: order.lease.to_string(), ends_at: Millis(0), terms: String::new() })
    }

    fn make<'a>(&'a self, _: &'a MintOrder<'a>) -> ConnectorFuture<'a, Result<UpstreamCredential, MakeError>> {
        Box::pin(std::future::pending())
    }

    fn undo<'a>(&'a self, _: &'a UndoOrder<'a>) -> ConnectorFuture<'a, Result<(), UndoError>> {
        Box::pin(async { Ok(()) })
    }

    fn is_gone<'a>(&'a self, _: &'a UndoOrder<'a>) -> ConnectorFuture<'a, Result<bool, UndoError>> {
        Box::pin(async { Ok(true) })
    }

    fn settles_ms(&self) -> u64 {
        SETTLES_MS
    }

    fn again<'a>(&'a self, _: &'a MintOrder<'a>) -> ConnectorFuture<'a, Result<RepeatResponse, MakeError>> {
        Box::pin(async { Ok(RepeatResponse::Replace) })
    }
}

#[test]
fn an_upstream_that_hangs_takes_its_own_places_and_holds_up_nobody_else() {
    let remotes = UpstreamConnectors::default().with(Arc::new(Stuck));
    let patient = mayfly::upstream::lease::LeaseTiming { make_ms: 60_000, left_ms: 120_000, ..TIMING };
    let place = Place::of(
        house_with(ConnectorSettings { remotes, timing: patient, places: LeaseConcurrency::default(), issuer: String::new() }),
        Upstream::start().0,
    );
    let spawn = || {
        let (authority, agent, want) = (place.house.authority.clone(), place.agent.clone(), place.want(Kind::Postgres));
        place.runtime.spawn(async move { authority.exchange(&agent, &want).await.map(|_| ()) })
    };
    let stuck: Vec<_> = (0..limits::LEASES_MAKING_PER_UPSTREAM).map(|_| spawn()).collect();
    let full = || place.leases() == limits::LEASES_MAKING_PER_UPSTREAM;
    for _ in 0..PATIENCE_MS / 10 {
        if full() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(full());
    let no = refusal(place.exchange(&place.want(Kind::Postgres)));
    assert_eq!((no.reason, no.rule.as_deref()), (Reason::LimitReached, Some("leases_making_per_upstream")));
    assert!(no.retry_after.is_some() && full());
    // A kind that mayfly makes itself is not affected.
    place.exchange(&wanted(TaskChoice::Named(place.task))).unwrap_or_else(|no| panic!("{no}"));
    stuck.iter().for_each(tokio::task::JoinHandle::abort);
    place.until_alive(0);
    let again = spawn();
    std::thread::sleep(Duration::from_millis(50));
    assert!(!again.is_finished(), "places are given back");
    again.abort();
}

#[test]
fn while_the_ledger_cannot_be_written_nothing_is_undone_and_afterwards_it_is() {
    let (upstream, address) = Upstream::start();
    let memory = MemoryStore::new(StoreId::from_bytes([5; 16]));
    let (store, mended) = (Arc::new(FaultyStore::new(memory)), Arc::new(AtomicBool::new(true)));
    let (its, opens) = (store.clone(), mended.clone());
    let opener = move || {
        if !opens.load(Ordering::SeqCst) {
            return Err(StoreError::Failed("not mended".to_owned()));
        }
        its.open_again();
        Ok(its.clone() as Arc<dyn Store>)
    };
    let place = Place::of(house_on(Box::new(opener), connectors(address, false)), upstream);
    let (id, _) = place.issued(&place.want(Kind::Postgres));
    mended.store(false, Ordering::SeqCst);
    store.fail_next_append(Fault::Lost);
    assert_eq!(refusal(place.runtime.block_on(place.revoke(Target::Credential(id)))).reason, Reason::NotReady);
    assert_eq!(refusal(place.exchange(&place.want(Kind::Postgres))).reason, Reason::NotReady);
    // The state has the revocation; the disk does not, and may never have it.
    place.house.authority.leases.look_at_all();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(place.upstream.alive().len(), 1, "undone for a revocation that was lost");
    mended.store(true, Ordering::SeqCst);
    for _ in 0..PATIENCE_MS / 50 {
        if place.runtime.block_on(place.revoke(Target::Credential(id))).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    place.until_alive(0);
}

#[test]
fn an_operator_sees_what_cannot_be_undone_and_may_give_it_up_but_not_what_somebody_has() {
    let place = Place::new();
    let (id, _) = place.issued(&place.want(Kind::Postgres));
    let authority = &place.house.authority;
    let lease = place.runtime.block_on(authority.leases.list(None, 10)).unwrap().remove(0);
    assert_eq!((lease.standing, lease.lease.credential), (LeaseStatus::Somebodys, id));
    let root = Operator::LocalUid(1000);
    let give_up = || place.runtime.block_on(authority.abandon_lease(&root, lease.id, "the database is gone", &None));
    assert_eq!(refusal(give_up()).field, Some("lease_id"));
    // DROP has no effect: the login is still there, and the connection to it is cut.
    place.upstream.go_wrong(1, 1);
    place.runtime.block_on(place.revoke(Target::Credential(id))).unwrap();
    for _ in 0..PATIENCE_MS / 20 {
        if authority.leases.failing() > 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(authority.leases.failing(), 1);
    let listed = place.runtime.block_on(authority.retry_lease(&root, lease.id)).unwrap();
    assert!(matches!(listed.standing, LeaseStatus::ToUndo(_)) && !listed.last.is_empty());
    let stranger = Operator::LocalUid(1);
    let no = place.runtime.block_on(authority.abandon_lease(&stranger, lease.id, "", &None));
    assert_eq!(refusal(no).reason, Reason::DeniedByPolicy);
    let once = Some(("give-up".to_owned(), [1; 32]));
    let named = || place.runtime.block_on(authority.abandon_lease(&root, lease.id, "the database is gone", &once));
    assert!(named().unwrap().is_some());
    assert!(named().unwrap().is_none(), "a repeat");
    assert_eq!(place.leases(), 0);
    assert_eq!(refusal(give_up()).reason, Reason::NotFound);
}
