//! The stories, where an upstream makes the credential.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mayfly::credential::remote::{Again, Boxed, Made, MakeError, Named, Order, Remote, Remotes, UndoError};
use mayfly::credential::{Issued, Novelty, kind::Kind as Number};
use mayfly::identity::caller::{Caller, Operator};
use mayfly::ledger::Lane;
use mayfly::ledger::record::Outcome;
use mayfly::ledger::state::Lease;
use mayfly::limits;
use mayfly::policy::Admin;
use mayfly::policy::wanted::{TaskChoice, Wanted};
use mayfly::refusal::{No, Reason, Refusal};
use mayfly::revocation::Target;
use mayfly::revoke::{Confirm, Revocation};
use mayfly::seq::{CredentialId, LeaseId, Millis, TaskId};
use mayfly::store::memory::MemoryStore;
use mayfly::store::{Store, StoreError, StoreId};
use mayfly::tasks::Actor;
use mayfly::upstream::lease::{Elsewhere, Standing};
use mayfly::upstream::registry::Kind;
use tokio::runtime::Runtime;

use super::faulty::{Fault, FaultyStore};
use super::kind::{SETTLES_MS, TIMING, elsewhere};
use super::kit::house::{House, house_on, house_with, named, runtime, terms, wanted};
use super::server::with_both;
use super::upstream::{PATIENCE, Upstream, When};

/// A house with both kinds, in which undoing runs.
struct Place {
    upstream: Upstream,
    house: House,
    runtime: Runtime,
    agent: Caller,
    task: TaskId,
}

impl Place {
    fn new() -> Place {
        let (upstream, address) = Upstream::start();
        Place::of(house_with(elsewhere(address, false)), upstream)
    }

    fn of(house: House, upstream: Upstream) -> Place {
        let (runtime, agent) = (runtime(), house.caller("/agent/demo"));
        let text = house.authority.ledger.peek(|s| s.upstreams["echo"].text.to_string());
        runtime.block_on(house.authority.ledger.commit(Lane::Change, vec![with_both(&text)])).unwrap();
        let task = runtime.block_on(house.authority.open_task(&agent, &terms(), &None, false)).unwrap();
        runtime.spawn(house.authority.leases.clone().run());
        Place { upstream, house, runtime, agent, task }
    }

    fn want(&self, kind: Kind) -> Wanted {
        Wanted { kind: Some(kind), ..wanted(TaskChoice::Named(self.task)) }
    }

    fn exchange(&self, want: &Wanted) -> Result<Issued, No> {
        self.runtime.block_on(self.house.authority.exchange(&self.agent, want))
    }

    fn issued(&self, want: &Wanted) -> (CredentialId, Novelty) {
        told(&self.exchange(want).unwrap_or_else(|no| panic!("{no}")))
    }

    fn leases(&self) -> usize {
        self.house.authority.ledger.peek(|s| s.leases.len())
    }

    /// Live credentials of either kind.
    fn live(&self) -> BTreeSet<CredentialId> {
        let now = self.house.now();
        self.house.authority.ledger.peek(|s| {
            let all = (0..s.credentials.places()).filter_map(|at| s.credentials.at(at));
            all.filter(|l| l.kind > 2 && !l.released && l.expires_at > now)
                .filter(|l| s.rules.covers(&s.credentials.facts(l, s.tasks.at(l.task).unwrap())).is_none())
                .map(|l| l.id)
                .collect()
        })
    }

    /// Time passes, as far as the house goes, and undoing has its turn.
    fn until_alive(&self, count: usize) {
        for _ in 0..PATIENCE.as_millis() / 20 {
            if self.upstream.alive().len() == count && self.leases() == count {
                return;
            }
            self.house.clock.advance(20);
            self.house.authority.leases.wake();
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{:?} alive and {} leases, not {count}", self.upstream.alive(), self.leases());
    }

    async fn revoke(&self, target: Target) -> Result<(), No> {
        let operator = self.house.authority.admit(&Operator::LocalUid(1000), Admin::Revoke, None).unwrap();
        let ask = Revocation {
            targets: vec![target],
            issued_only: true,
            lock_only: false,
            reason: "a test".into(),
            confirm: Confirm::All,
            named: None,
        };
        self.house.authority.revoke(&operator, &ask).await.map(|_| ())
    }
}

fn told(issued: &Issued) -> (CredentialId, Novelty) {
    (issued.summary().credential, issued.summary().novelty)
}

#[track_caller]
fn refusal<T>(answer: Result<T, No>) -> Refusal {
    match answer {
        Ok(_) => panic!("it was not refused"),
        Err(No::Refusal(no)) => no,
        Err(No::Fault(fault)) => panic!("a fault: {fault}"),
    }
}

#[test]
fn a_kind_that_nobody_makes_is_named_and_nothing_is_done_but_policy_speaks_first() {
    let place = Place::of(house_with(Elsewhere::default()), Upstream::start().0);
    let before = place.house.authority.ledger.commits();
    let no = refusal(place.exchange(&place.want(Kind::Postgres)));
    assert_eq!(no.reason, Reason::NotServed);
    assert!(no.message.contains("postgres"), "{no}");
    let local = wanted(TaskChoice::Named(place.task));
    let batch = [local.clone(), place.want(Kind::Oauth), local];
    let (at, no) = place.runtime.block_on(place.house.authority.exchange_all(&place.agent, &batch)).map(|_| ()).unwrap_err();
    assert_eq!((at, refusal::<()>(Err(no)).reason), (1, Reason::NotServed));
    let stranger = place.house.caller("/mcp/github");
    let inline = Wanted { kind: Some(Kind::Postgres), ..wanted(TaskChoice::Inline(terms())) };
    let no = refusal(place.runtime.block_on(place.house.authority.exchange(&stranger, &inline)));
    assert_eq!(no.reason, Reason::DeniedByPolicy, "who may not have it does not learn whether it is made");
    assert_eq!(place.house.authority.ledger.commits(), before);
}

#[test]
fn it_is_made_renewed_given_back_and_ends_with_its_task() {
    let place = Place::new();
    let (first, novelty) = place.issued(&place.want(Kind::Postgres));
    assert_eq!(novelty, Novelty::New);
    let renewed = place.runtime.block_on(place.house.authority.renew(&place.agent, first, None, None)).unwrap();
    assert_ne!(told(&renewed).0, first);
    place.until_alive(2);
    place.runtime.block_on(place.house.authority.release(&place.agent, told(&renewed).0)).unwrap();
    place.until_alive(1);
    let actor = Actor::Workload(place.agent.clone());
    place.runtime.block_on(place.house.authority.close_task(&actor, place.task, Outcome::Completed, "")).unwrap();
    place.until_alive(0);
}

#[test]
fn a_repeat_is_the_same_where_it_can_be_and_else_replaced_and_never_had_again_when_revoked() {
    let place = Place::new();
    let same = named(place.want(Kind::Postgres), "same");
    let (first, _) = place.issued(&same);
    assert_eq!(place.issued(&same), (first, Novelty::Same));
    let other = named(place.want(Kind::Oauth), "other");
    let (a, _) = place.issued(&other);
    let (b, novelty) = place.issued(&other);
    assert_eq!(novelty, Novelty::Replaced);
    let (c, _) = place.issued(&other);
    assert!(a != b && b != c);
    assert_eq!(place.live(), [first, c].into());
    place.until_alive(2);
    let mut changed = other.clone();
    changed.digest = [9; 32];
    assert_eq!(refusal(place.exchange(&changed)).reason, Reason::RequestIdReused);
    for (id, want) in [(first, &same), (c, &other)] {
        place.runtime.block_on(place.revoke(Target::Credential(id))).unwrap();
        assert_eq!(refusal(place.exchange(want)).reason, Reason::Revoked);
    }
    place.until_alive(0);
}

#[test]
fn a_repeat_of_an_exchange_that_opened_its_task_opens_no_other() {
    let place = Place::new();
    let want = Wanted { task: TaskChoice::Inline(terms()), ..place.want(Kind::Oauth) };
    let want = named(want, "inline");
    let first = place.exchange(&want).unwrap();
    let again = place.exchange(&want).unwrap();
    assert_eq!(again.summary().novelty, Novelty::Replaced);
    assert_eq!(again.summary().task, first.summary().task);
    assert_eq!(place.house.authority.ledger.peek(|s| s.tasks.len()), 2);
    place.until_alive(1);
}

#[test]
fn of_twins_at_once_one_credential_is_live_and_it_is_one_that_was_answered() {
    let place = Place::new();
    for (kind, id) in [(Kind::Postgres, "p"), (Kind::Oauth, "o")] {
        let want = named(place.want(kind), id);
        let before = place.live();
        let told: BTreeSet<CredentialId> = place.runtime.block_on(async {
            let all: Vec<_> = (0..8)
                .map(|_| {
                    let (authority, agent, want) = (place.house.authority.clone(), place.agent.clone(), want.clone());
                    tokio::spawn(async move { authority.exchange(&agent, &want).await })
                })
                .collect();
            let mut told = BTreeSet::new();
            for one in all {
                // Beaten twice in a row by its twins it may be refused.
                match one.await.unwrap() {
                    Ok(issued) => drop(told.insert(issued.summary().credential)),
                    Err(no) => assert_eq!(refusal::<()>(Err(no)).reason, Reason::DecidedOnOldState),
                }
            }
            told
        });
        let live: BTreeSet<CredentialId> = place.live().difference(&before).copied().collect();
        assert_eq!(live.len(), 1, "{kind}: {told:?}");
        assert!(live.is_subset(&told), "{kind}");
        assert!(kind == Kind::Oauth || told.len() == 1, "{kind}: the same for all of them");
        place.until_alive(before.len() + 1);
    }
}

#[test]
fn what_an_upstream_refuses_or_does_not_answer_is_told_and_leaves_nothing() {
    let place = Place::new();
    place.upstream.refuse(true);
    let no = refusal(place.exchange(&place.want(Kind::Postgres)));
    assert_eq!((no.reason, no.retry_after.is_some()), (Reason::UpstreamFailed, true));
    place.upstream.refuse(false);
    place.upstream.hold("MAKE", When::Before);
    let no = refusal(place.exchange(&place.want(Kind::Postgres)));
    assert_eq!((no.reason, no.retry_after.is_some()), (Reason::UpstreamFailed, true));
    assert!(no.message.contains(&format!("{} ms", TIMING.make_ms)), "{no}");
    // It comes when nobody waits for it any more.
    place.upstream.wait_held();
    place.upstream.release();
    place.until_alive(0);
    assert_eq!(place.upstream.counts(), (1, 1));
    assert!(place.live().is_empty());
}

#[test]
fn a_caller_who_goes_away_while_it_is_made_leaves_nothing() {
    let place = Place::new();
    for unless in [false, true] {
        place.upstream.hold("MAKE", When::After);
        let (authority, agent, want) = (place.house.authority.clone(), place.agent.clone(), place.want(Kind::Postgres));
        let gone = Arc::new(tokio::sync::Notify::new());
        let theirs = gone.clone();
        let asked = place.runtime.spawn(async move {
            match unless {
                true => authority.exchange_unless(&agent, &want, || theirs.notified()).await,
                false => authority.exchange(&agent, &want).await,
            }
        });
        place.upstream.wait_held();
        assert_eq!(place.upstream.alive().len(), 1);
        if unless {
            gone.notify_one();
            assert_eq!(refusal(place.runtime.block_on(asked).unwrap()).reason, Reason::NotReady);
        } else {
            asked.abort();
        }
        place.upstream.release();
        place.until_alive(0);
        assert!(place.live().is_empty());
    }
}

#[test]
fn a_batch_that_stands_or_falls_together_leaves_nothing_when_it_falls() {
    let place = Place::new();
    let local = wanted(TaskChoice::Named(place.task));
    let all = |names: [&str; 3]| {
        [local.clone(), place.want(Kind::Postgres), place.want(Kind::Oauth)]
            .into_iter()
            .zip(names)
            .map(|(want, id)| named(Wanted { ttl_ms: Some(60_000), ..want }, id))
            .collect::<Vec<_>>()
    };
    let ask = |wants: &[Wanted]| place.runtime.block_on(place.house.authority.exchange_all(&place.agent, wants));
    let first: Vec<_> = ask(&all(["a", "b", "c"])).map_err(|(_, no)| no.to_string()).unwrap().iter().map(told).collect();
    assert_eq!(first.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [Novelty::New; 3]);
    let again: Vec<_> = ask(&all(["a", "b", "c"])).map_err(|(_, no)| no.to_string()).unwrap().iter().map(told).collect();
    assert_eq!(again.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [Novelty::Same, Novelty::Same, Novelty::Replaced]);
    assert_eq!((again[0].0, again[1].0), (first[0].0, first[1].0));
    place.until_alive(2);
    place.upstream.refuse(true);
    let (at, no) = ask(&all(["d", "e", "f"])).map(|_| ()).unwrap_err();
    assert_eq!((at, refusal::<()>(Err(no)).reason), (1, Reason::UpstreamFailed));
    place.upstream.refuse(false);
    place.until_alive(2);
    assert_eq!(place.live().len(), 2);
    // One that policy refuses: nothing was made for the others.
    let made = place.upstream.counts().0;
    let mut last = place.want(Kind::Oauth);
    last.scopes = vec!["echo:admin".into()];
    assert_eq!(ask(&[place.want(Kind::Postgres), last]).map(|_| ()).unwrap_err().0, 1);
    assert_eq!(place.upstream.counts().0, made);
}

/// Makes nothing, and takes for ever.
struct Stuck;

impl Remote for Stuck {
    fn kind(&self) -> Number {
        Number::Postgres
    }

    fn name(&self, order: &Order<'_>) -> Result<Named, MakeError> {
        Ok(Named { handle: order.lease.to_string(), ends_at: Millis(0) })
    }

    fn make<'a>(&'a self, _: &'a Order<'a>) -> Boxed<'a, Result<Made, MakeError>> {
        Box::pin(std::future::pending())
    }

    fn undo<'a>(&'a self, _: LeaseId, _: &'a Lease) -> Boxed<'a, Result<(), UndoError>> {
        Box::pin(async { Ok(()) })
    }

    fn is_gone<'a>(&'a self, _: LeaseId, _: &'a Lease) -> Boxed<'a, Result<bool, UndoError>> {
        Box::pin(async { Ok(true) })
    }

    fn settles_ms(&self) -> u64 {
        SETTLES_MS
    }

    fn again<'a>(&'a self, _: &'a Order<'a>) -> Boxed<'a, Result<Again, MakeError>> {
        Box::pin(async { Ok(Again::Replace) })
    }
}

#[test]
fn an_upstream_that_hangs_takes_its_own_places_and_holds_up_nobody_else() {
    let remotes = Remotes::default().with(Arc::new(Stuck));
    let patient = mayfly::upstream::lease::Timing { make_ms: 60_000, left_ms: 120_000, ..TIMING };
    let place = Place::of(house_with(Elsewhere { remotes, timing: patient }), Upstream::start().0);
    let spawn = || {
        let (authority, agent, want) = (place.house.authority.clone(), place.agent.clone(), place.want(Kind::Postgres));
        place.runtime.spawn(async move { authority.exchange(&agent, &want).await.map(|_| ()) })
    };
    let stuck: Vec<_> = (0..limits::LEASES_MAKING_PER_UPSTREAM).map(|_| spawn()).collect();
    let full = || place.leases() == limits::LEASES_MAKING_PER_UPSTREAM;
    for _ in 0..PATIENCE.as_millis() / 10 {
        if full() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(full());
    let no = refusal(place.exchange(&place.want(Kind::Postgres)));
    assert_eq!((no.reason, no.rule.as_deref()), (Reason::LimitReached, Some("leases_making_per_upstream")));
    assert!(no.retry_after.is_some() && full());
    // A kind that is made here does not even notice.
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
    let place = Place::of(house_on(Box::new(opener), elsewhere(address, false)), upstream);
    let (id, _) = place.issued(&place.want(Kind::Postgres));
    mended.store(false, Ordering::SeqCst);
    store.fail_next_append(Fault::Lost);
    assert_eq!(refusal(place.runtime.block_on(place.revoke(Target::Credential(id)))).reason, Reason::NotReady);
    assert_eq!(refusal(place.exchange(&place.want(Kind::Postgres))).reason, Reason::NotReady);
    // The state knows of the revocation; the disk does not, and may never.
    place.house.authority.leases.wake();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(place.upstream.alive().len(), 1, "undone for a revocation that was lost");
    mended.store(true, Ordering::SeqCst);
    for _ in 0..PATIENCE.as_millis() / 50 {
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
    assert_eq!((lease.standing, lease.lease.credential), (Standing::Somebodys, id));
    let root = Operator::LocalUid(1000);
    let give_up = || place.runtime.block_on(authority.abandon_lease(&root, lease.id, "the database is gone", &None));
    assert_eq!(refusal(give_up()).field, Some("lease_id"));
    // It answers DROP, and it is still there: the line to it is cut.
    place.upstream.go_wrong(1, 1);
    place.runtime.block_on(place.revoke(Target::Credential(id))).unwrap();
    for _ in 0..PATIENCE.as_millis() / 20 {
        if authority.leases.failing() > 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(authority.leases.failing(), 1);
    let listed = place.runtime.block_on(authority.retry_lease(&root, lease.id)).unwrap();
    assert!(matches!(listed.standing, Standing::ToUndo(_)) && !listed.last.is_empty());
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
