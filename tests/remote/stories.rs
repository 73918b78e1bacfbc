//! The stories, with an upstream that makes the credential.

use std::collections::BTreeSet;
use std::sync::Arc;

use mayfly::credential::Novelty;
use mayfly::ledger::ProposalKind;
use mayfly::ledger::record::{Author, Event, Maintained, Record, TaskOutcome};
use mayfly::limits;
use mayfly::policy::exchange_request::{ExchangeRequest, TaskChoice};
use mayfly::refusal::Reason;
use mayfly::revocation::Target;
use mayfly::revocation_reach::RevocationProgress;
use mayfly::seq::CredentialId;
use mayfly::tasks::Actor;
use mayfly::upstream::lease::ConnectorSettings;
use mayfly::upstream::registry::Kind;

use super::kind::TIMING;
use super::kit::house::{house_with, named, terms, wanted};
use super::place::{Place, refusal, told};
use super::upstream::{Upstream, When};

#[test]
fn a_kind_that_nobody_makes_is_named_and_nothing_is_done_but_policy_speaks_first() {
    let place = Place::of(house_with(ConnectorSettings::default()), Upstream::start().0);
    let before = place.house.authority.ledger.commits();
    let no = refusal(place.exchange(&place.want(Kind::Postgres)));
    assert_eq!(no.reason, Reason::NotServed);
    assert!(no.message.contains("postgres"), "{no}");
    let local = wanted(TaskChoice::Named(place.task));
    let batch = [local.clone(), place.want(Kind::Oauth), local];
    let (at, no) = place.runtime.block_on(place.house.authority.exchange_all(&place.agent, &batch)).map(|_| ()).unwrap_err();
    assert_eq!((at, refusal::<()>(Err(no)).reason), (1, Reason::NotServed));
    let stranger = place.house.caller("/mcp/repos");
    let inline = ExchangeRequest { kind: Some(Kind::Postgres), ..wanted(TaskChoice::Inline(terms().into())) };
    let no = refusal(place.runtime.block_on(place.house.authority.exchange(&stranger, &inline)));
    assert_eq!(no.reason, Reason::DeniedByPolicy, "who may not have it does not learn whether it is made");
    assert_eq!(place.house.authority.ledger.commits(), before);
}

#[test]
fn it_is_made_renewed_given_back_and_ends_with_its_task() {
    let place = Place::new();
    let (first, novelty) = place.issued(&place.want(Kind::Postgres));
    assert_eq!(novelty, Novelty::New);
    let renewed = place.runtime.block_on(place.house.authority.renew(&place.agent, first, None, None, None)).unwrap();
    assert_ne!(told(&renewed).0, first);
    place.until_alive(2);
    place.runtime.block_on(place.house.authority.release(&place.agent, told(&renewed).0)).unwrap();
    place.until_alive(1);
    let actor = Actor::Workload(place.agent.clone());
    place.runtime.block_on(place.house.authority.close_task(&actor, place.task, TaskOutcome::Completed, "")).unwrap();
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
    let want = ExchangeRequest { task: TaskChoice::Inline(terms().into()), ..place.want(Kind::Oauth) };
    let want = named(want, "inline");
    let first = place.exchange(&want).unwrap();
    let again = place.exchange(&want).unwrap();
    assert_eq!(again.summary().about.novelty, Novelty::Replaced);
    assert_eq!(again.summary().about.task, first.summary().about.task);
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
                // A request that lost twice in a row against its twins may be refused.
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
    // The answer comes when nobody waits for it any more.
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
            .map(|(want, id)| named(ExchangeRequest { ttl_ms: Some(60_000), ..want }, id))
            .collect::<Vec<_>>()
    };
    #[allow(clippy::result_large_err, reason = "the shape is the product's, where no closure returns it")]
    let ask = |wants: &[ExchangeRequest]| place.runtime.block_on(place.house.authority.exchange_all(&place.agent, wants));
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
    // Policy refuses the last request: nothing was made for the others.
    let made = place.upstream.counts().0;
    let mut last = place.want(Kind::Oauth);
    last.scopes = ["echo:admin".into()].into();
    assert_eq!(ask(&[place.want(Kind::Postgres), last]).map(|_| ()).unwrap_err().0, 1);
    assert_eq!(place.upstream.counts().0, made);
}

#[test]
fn a_revocation_tells_how_far_it_has_come_also_of_what_has_ended_since() {
    let place = Place::new();
    let authority = &place.house.authority;
    let reach = |seq, target: &Target| {
        place.runtime.block_on(authority.reach(seq, std::slice::from_ref(target))).unwrap_or_else(|no| panic!("{no}"))
    };
    // One credential that ended before, one that is given up, two that are undone in the end, and one that mayfly makes itself.
    let (first, _) = place.issued(&place.want(Kind::Postgres));
    let gone = Target::Credential(first);
    let before = place.runtime.block_on(place.revoke(gone.clone())).unwrap().seq;
    place.until_alive(0);
    assert_eq!(reach(before, &gone), Some(RevocationProgress { refused: 1, undone: 1, verified: 1, pending: 0 }));
    let (abandoned, _) = place.issued(&place.want(Kind::Oauth));
    place.issued(&place.want(Kind::Postgres));
    place.issued(&place.want(Kind::Oauth));
    place.exchange(&wanted(TaskChoice::Named(place.task))).unwrap_or_else(|no| panic!("{no}"));
    // The upstream carries out calls without answering: nothing counts as undone.
    place.upstream.go_wrong(1, 1);
    let caller = Target::Caller(place.agent.id().as_str().into());
    let done = place.runtime.block_on(place.revoke(caller.clone())).unwrap();
    assert_eq!((done.hits.credentials, done.hits.at_upstreams), (4, 3));
    assert_eq!(reach(done.seq, &caller), Some(RevocationProgress { refused: 4, pending: 3, undone: 0, verified: 0 }));
    let leases = place.runtime.block_on(authority.leases.list(None, 10)).unwrap();
    let lease = leases.iter().find(|l| l.lease.credential == abandoned).unwrap().id;
    let root = mayfly::identity::caller::Operator::LocalUid(1000);
    place.runtime.block_on(authority.abandon_lease(&root, lease, "the database is gone", &None)).unwrap();
    assert_eq!(reach(done.seq, &caller), Some(RevocationProgress { refused: 4, pending: 2, undone: 0, verified: 0 }));
    // The credentials have expired and the state no longer contains them, but the logins at the upstream still exist.
    place.house.clock.advance(limits::CREDENTIAL_TTL_MS + 1);
    let note = Event::Maintained(Maintained { what: "time passes".into() });
    let record = Record::new(Author::Mayfly("test".into()), note);
    place.runtime.block_on(authority.ledger.commit(ProposalKind::Change, vec![record])).unwrap();
    assert_eq!(authority.ledger.peek(|s| s.credentials.len()), 0);
    assert_eq!(reach(done.seq, &caller), Some(RevocationProgress { refused: 0, pending: 2, undone: 0, verified: 0 }));
    place.upstream.go_wrong(0, 1);
    place.until_alive(0);
    assert_eq!(reach(done.seq, &caller), Some(RevocationProgress { refused: 0, pending: 0, undone: 2, verified: 2 }));
    // The first one has its own revocation.
    assert_eq!(reach(before, &gone), Some(RevocationProgress { refused: 0, undone: 1, verified: 1, pending: 0 }));
}
