//! The follower: gaps, freshness, what it may forget and what never.

use super::*;
use crate::revocation::Target;

fn seq(n: u64) -> Seq {
    Seq::from_u64(n).unwrap()
}

fn at(ms: u64) -> Moment {
    Moment { wall: Millis(ms), steady: ms }
}

fn beat(head: u64, previous: u64, fresh_at: u64) -> Heartbeat {
    Heartbeat { head: seq(head), previous: seq(previous), fresh_at: Millis(fresh_at), max_age: 10_000, time_generation: 0 }
}

fn rule(n: u64, target: Target, drop_after: Option<Millis>) -> FeedEvent {
    FeedEvent::Rule { seq: seq(n), targets: vec![target], drop_after, locks: false }
}

const LIFE: Life = Life { issued_at: Millis(1_000), expires_at: Millis(300_000) };

fn following() -> Follower {
    let mut follower = Follower::new();
    assert_eq!(follower.check(&Facts::default(), LIFE, at(1_000)), Err(FollowerRefusal::NotWhole));
    assert_eq!(follower.heartbeat(beat(5, 0, 1_000), at(1_000)), Err(Missed::NoSnapshot));
    follower.begin(&FeedSnapshot { seq: seq(5), ..FeedSnapshot::default() }).unwrap();
    assert_eq!(follower.check(&Facts::default(), LIFE, at(1_000)), Err(FollowerRefusal::Stale(Millis(0))));
    follower.heartbeat(beat(5, 3, 1_000), at(1_000)).unwrap();
    assert_eq!(follower.check(&Facts::default(), LIFE, at(1_000)), Ok(()));
    follower
}

#[test]
fn a_gap_shows_in_the_next_event_or_heartbeat_and_ends_only_with_a_snapshot() {
    for by_heartbeat in [false, true] {
        let mut follower = following();
        let missed = match by_heartbeat {
            true => follower.heartbeat(beat(8, 7, 2_000), at(2_000)),
            false => follower.apply(seq(7), &rule(8, Target::Everything, None)),
        };
        assert_eq!(missed, Err(Missed::Gap { applied: seq(5), previous: seq(7) }));
        assert_eq!(follower.apply(seq(5), &rule(9, Target::Everything, None)), Err(Missed::NoSnapshot));
        assert_eq!(follower.check(&Facts::default(), LIFE, at(2_000)), Err(FollowerRefusal::NotWhole));
        follower.begin(&FeedSnapshot { seq: seq(9), ..FeedSnapshot::default() }).unwrap();
        assert_eq!(follower.check(&Facts::default(), LIFE, at(2_000)), Ok(()));
    }
}

#[test]
fn a_replica_that_is_behind_proves_nothing() {
    let mut follower = following();
    follower.apply(seq(5), &rule(9, Target::Tool("t".into()), None)).unwrap();
    assert!(matches!(follower.heartbeat(beat(8, 5, 9_000), at(9_000)), Err(Missed::Old { .. })));
    assert!(matches!(follower.begin(&FeedSnapshot { seq: seq(8), ..FeedSnapshot::default() }), Err(Missed::Old { .. })));
    assert!(matches!(follower.apply(seq(5), &rule(9, Target::Everything, None)), Err(Missed::Old { .. })));
    assert_eq!(follower.check(&Facts::default(), LIFE, at(12_000)), Err(FollowerRefusal::Stale(Millis(1_000))));
    let facts = Facts { revision: seq(8), tool: "t", ..Facts::default() };
    assert!(matches!(follower.check(&facts, LIFE, at(2_000)), Err(FollowerRefusal::Revoked(_))));
}

#[test]
fn no_step_of_its_clock_keeps_it_fresh_revives_or_drops() {
    let mut follower = following();
    let credential = Target::Credential(crate::seq::CredentialId::from_bytes([1; 16]));
    follower.apply(seq(5), &rule(6, credential, Some(Millis(400_000)))).unwrap();
    // Set back by a year: the steady clock tells the age.
    let back = Moment { wall: Millis(0), steady: 12_000 };
    assert!(matches!(follower.check(&Facts::default(), LIFE, back), Err(FollowerRefusal::Stale(_))));
    follower.heartbeat(beat(6, 6, 301_000), Moment { wall: Millis(0), steady: 301_000 }).unwrap();
    let back = Moment { wall: Millis(0), steady: 301_000 };
    assert_eq!(follower.check(&Facts::default(), LIFE, back), Err(FollowerRefusal::Expired(Millis(300_000))));
    // Set forward by a year and back: nothing was dropped meanwhile.
    let forward = Moment { wall: Millis(u64::MAX / 2), steady: 301_000 };
    follower.heartbeat(beat(6, 6, 301_001), forward).unwrap();
    assert!(follower.check(&Facts::default(), LIFE, forward).is_err());
    assert_eq!(follower.rules(), 1);
    follower.heartbeat(beat(6, 6, 401_000), at(401_000)).unwrap();
    assert_eq!(follower.rules(), 0, "the feed's own time drops it");
}

#[test]
fn key_rules_come_first_ignore_the_revision_and_are_never_dropped() {
    let mut follower = following();
    follower.apply(seq(5), &rule(6, Target::SigningKey("k".into()), None)).unwrap();
    follower.heartbeat(beat(6, 6, u64::MAX / 2), at(1_000)).unwrap();
    let forged = Facts { revision: Seq::start_of(255), key: "k", ..Facts::default() };
    assert_eq!(follower.check(&forged, LIFE, at(1_000)), Err(FollowerRefusal::Key(seq(6))));
}

#[test]
fn a_life_beyond_the_longest_or_not_begun_is_refused() {
    let follower = following();
    let long = Life { issued_at: Millis(1_000), expires_at: Millis(1_001 + limits::CREDENTIAL_TTL_MS) };
    assert!(matches!(follower.check(&Facts::default(), long, at(1_000)), Err(FollowerRefusal::LifeTooLong(_))));
    let later = Life { issued_at: Millis(31_001), expires_at: Millis(60_000) };
    assert!(matches!(follower.check(&Facts::default(), later, at(1_000)), Err(FollowerRefusal::NotYet(_))));
    assert!(matches!(follower.check(&Facts::default(), LIFE, at(300_000)), Err(FollowerRefusal::Stale(_))));
}

#[test]
fn a_hold_refuses_what_is_under_it_until_it_is_resumed() {
    let mut follower = following();
    let task = TaskId::from_bytes([1; 16]);
    let facts = Facts { tasks: vec![task, TaskId::from_bytes([2; 16])], ..Facts::default() };
    follower.apply(seq(5), &FeedEvent::Hold { seq: seq(6), task }).unwrap();
    assert_eq!(follower.check(&facts, LIFE, at(1_000)), Err(FollowerRefusal::Held(task)));
    follower.apply(seq(6), &FeedEvent::Resume { seq: seq(7), task }).unwrap();
    assert_eq!(follower.check(&facts, LIFE, at(1_000)), Ok(()));
}

#[test]
fn a_generation_that_begins_at_an_earlier_time_is_followed_from_its_first_proof() {
    let mut follower = following();
    follower.heartbeat(beat(5, 3, 900_000), at(900_000)).unwrap();
    let first = Seq::start_of(2).next().unwrap();
    let event = FeedEvent::Rule { seq: first, targets: vec![Target::Everything], drop_after: None, locks: false };
    follower.apply(seq(3), &event).unwrap();
    let facts = Facts { revision: first, ..Facts::default() };
    assert!(matches!(follower.check(&facts, LIFE, at(2_000)), Err(FollowerRefusal::Stale(_))));
    let beat = Heartbeat { head: first, previous: first, time_generation: 2, ..beat(0, 0, 2_000) };
    follower.heartbeat(beat, at(2_000)).unwrap();
    assert_eq!(follower.check(&facts, LIFE, at(2_000)), Ok(()));
}

#[test]
fn a_generation_that_goes_on_in_time_does_not_forget_how_late_it_is() {
    let mut follower = following();
    let first = Seq::start_of(2).next().unwrap();
    let event = FeedEvent::Rule { seq: first, targets: vec![Target::Everything], drop_after: None, locks: false };
    follower.apply(seq(3), &event).unwrap();
    let facts = Facts { revision: first, ..Facts::default() };
    // An hour later by the clock that never steps, a proof comes that was made at the start; the wall clock was set back.
    let behind = Moment { wall: Millis(2_000), steady: 3_600_000 };
    follower.heartbeat(Heartbeat { head: first, previous: first, ..beat(0, 0, 2_000) }, behind).unwrap();
    assert!(matches!(follower.check(&facts, LIFE, behind), Err(FollowerRefusal::Stale(_))));
}

#[test]
fn a_proof_that_comes_late_is_as_old_as_it_is_also_by_a_clock_that_is_behind() {
    let mut follower = following();
    let hour = 3_600_000;
    let behind = Moment { wall: Millis(0), steady: hour };
    follower.heartbeat(beat(5, 3, 6_000), behind).unwrap();
    assert!(matches!(follower.check(&Facts::default(), LIFE, behind), Err(FollowerRefusal::Stale(_))));
}
