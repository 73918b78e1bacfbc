//! Tests of the follower: gaps, freshness, which rules it may drop and which never.

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

const LIFE: Lifetime = Lifetime { issued_at: Millis(1_000), expires_at: Millis(300_000) };

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

/// A server that was started on an older copy of its ledger. The follower must not forget what that server has forgotten.
#[test]
fn a_head_that_went_back_ends_the_trust_until_a_new_generation() {
    let snapshot = |n| FeedSnapshot { seq: seq(n), ..FeedSnapshot::default() };
    for by_snapshot in [false, true] {
        let mut follower = following();
        follower.apply(seq(5), &rule(9, Target::Tool("t".into()), None)).unwrap();
        follower.heartbeat(beat(10, 9, 2_000), at(2_000)).unwrap();
        // An event that was applied already has no effect.
        assert!(matches!(follower.apply(seq(5), &rule(9, Target::Everything, None)), Err(Missed::Old { .. })));
        assert_eq!(follower.check(&Facts::default(), LIFE, at(2_000)), Ok(()));
        let back = match by_snapshot {
            true => follower.begin(&snapshot(9)),
            false => follower.heartbeat(beat(9, 9, 3_000), at(3_000)),
        };
        assert_eq!(back, Err(Missed::Old { applied: seq(10), found: seq(9) }));
        let refused = |follower: &Follower| {
            let said = follower.check(&Facts::default(), LIFE, at(4_000));
            assert!(
                matches!(&said, Err(FollowerRefusal::RolledBack(why)) if **why == RolledBack::Head { seen: seq(10), found: seq(9) })
            );
            assert!(said.unwrap_err().to_string().contains("mayfly server recover") && !follower.is_fresh(at(4_000)));
        };
        refused(&follower);
        // The server's head passes what was seen, but trust does not come back by itself.
        assert!(follower.heartbeat(beat(11, 9, 4_000), at(4_000)).is_err());
        assert!(follower.apply(seq(10), &rule(12, Target::Tool("other".into()), None)).is_err());
        assert!(follower.begin(&snapshot(50)).is_err());
        refused(&follower);
        let first = Seq::start_of(2).next().unwrap();
        follower.begin(&FeedSnapshot { seq: first, ..FeedSnapshot::default() }).unwrap();
        assert_eq!((follower.rolled_back(), follower.seen()), (None, None));
        follower.heartbeat(Heartbeat { head: first, previous: first, ..beat(0, 0, 4_000) }, at(4_000)).unwrap();
        assert_eq!(follower.check(&Facts::default(), LIFE, at(4_000)), Ok(()));
    }
}

#[test]
fn another_history_at_the_same_commit_ends_the_trust_whatever_the_seq() {
    let chain = |commit, byte| vec![ChainHead { writer: "1".into(), commit, header_sha256: [byte; 32] }];
    let cases = [(7, 1, true), (8, 3, true), (7, 2, false), (6, 1, false)];
    for (commit, byte, same) in cases {
        let mut follower = following();
        follower.heartbeat_with_heads(beat(10, 5, 2_000), chain(7, 1), at(2_000)).unwrap();
        assert_eq!(follower.seen(), Some((seq(10), &chain(7, 1)[..])));
        let took = follower.heartbeat_with_heads(beat(20, 5, 3_000), chain(commit, byte), at(3_000));
        assert_eq!((took.is_ok(), follower.rolled_back().is_none()), (same, same), "{commit} {byte}");
        assert_eq!(follower.check(&Facts::default(), LIFE, at(3_000)).is_ok(), same);
    }
    // The server also compares, when a stream begins.
    let mut follower = following();
    follower.told_rolled_back("it has another commit 7");
    assert!(matches!(follower.check(&Facts::default(), LIFE, at(1_000)), Err(FollowerRefusal::RolledBack(_))));
    assert_eq!(follower.resumes_after(), Some(seq(5)), "it goes on telling the server what it has seen");
}

#[test]
fn a_follower_that_begins_anew_decides_by_what_it_knew_until_the_snapshot_is_whole_or_that_is_too_old() {
    let mut follower = following();
    follower.apply(seq(5), &rule(6, Target::Tool("t".into()), None)).unwrap();
    follower.resync();
    assert_eq!(follower.resumes_after(), None);
    let revoked = Facts { revision: seq(5), tool: "t", ..Facts::default() };
    let mut whole = PartialSnapshot::default();
    let many = |from: u64| {
        let target = |n| Target::Credential(crate::seq::CredentialId::from_bytes(u128::to_be_bytes(n)));
        (0..1_000).map(|n| (target(u128::from(from + n)), seq(6), None)).collect()
    };
    for part in 0..40 {
        whole.add(&FeedSnapshot { seq: seq(8), rules: many(part * 1_000), holds: Vec::new() });
        assert_eq!(follower.check(&Facts::default(), LIFE, at(2_000)), Ok(()));
        assert!(matches!(follower.check(&revoked, LIFE, at(2_000)), Err(FollowerRefusal::Revoked(_))));
    }
    assert!(matches!(follower.check(&Facts::default(), LIFE, at(11_001)), Err(FollowerRefusal::Stale(_))));
    follower.begin_with(whole).unwrap();
    assert_eq!((follower.rules(), follower.resumes_after()), (40_000, Some(seq(8))));
    assert_eq!(follower.check(&revoked, LIFE, at(2_000)), Ok(()), "what the snapshot no longer has is no longer in force");
}

#[test]
fn no_step_of_its_clock_keeps_it_fresh_revives_or_drops() {
    let mut follower = following();
    let credential = Target::Credential(crate::seq::CredentialId::from_bytes([1; 16]));
    follower.apply(seq(5), &rule(6, credential, Some(Millis(400_000)))).unwrap();
    // Set back by a year: the steady clock determines the age.
    let back = Moment { wall: Millis(0), steady: 12_000 };
    assert!(matches!(follower.check(&Facts::default(), LIFE, back), Err(FollowerRefusal::Stale(_))));
    follower.heartbeat(beat(6, 6, 301_000), Moment { wall: Millis(0), steady: 301_000 }).unwrap();
    let back = Moment { wall: Millis(0), steady: 301_000 };
    assert_eq!(follower.check(&Facts::default(), LIFE, back), Err(FollowerRefusal::Expired(Millis(300_000))));
    // Set forward by a year and back: no rule was dropped meanwhile.
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
    let long = Lifetime { issued_at: Millis(1_000), expires_at: Millis(1_001 + limits::CREDENTIAL_TTL_MS) };
    assert!(matches!(follower.check(&Facts::default(), long, at(1_000)), Err(FollowerRefusal::LifeTooLong(_))));
    let later = Lifetime { issued_at: Millis(31_001), expires_at: Millis(60_000) };
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
    // An hour later by the steady clock, a proof arrives that was made at the start; the wall clock was set back.
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
