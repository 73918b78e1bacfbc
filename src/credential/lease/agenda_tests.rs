//! Tests of the schedule in which leases are checked.

use super::*;

fn lease(n: u8) -> LeaseId {
    LeaseId::from_bytes([n; 16])
}

fn names(credential: u8, tasks: &[u8]) -> Option<LeaseDependencies> {
    let credentials = vec![CredentialId::from_bytes([credential; 16])];
    Some(LeaseDependencies { credentials, tasks: tasks.iter().map(|t| TaskId::from_bytes([*t; 16])).collect() })
}

/// Leases 1, 2 and 3, each with an end: 1 in task 10, 2 in task 11 below it, 3 in task 12 and depending on credential 1.
fn three() -> LeaseSchedule {
    let mut agenda = LeaseSchedule::default();
    (1..=3).for_each(|n| agenda.learn(lease(n)));
    assert_eq!(take(&mut agenda, 0), [1, 2, 3], "what is new is looked at");
    agenda.later(lease(1), Millis(100), Millis(0), names(1, &[10]));
    agenda.later(lease(2), Millis(200), Millis(0), names(2, &[10, 11]));
    let mut third = names(3, &[12]).unwrap();
    third.credentials.push(CredentialId::from_bytes([1; 16]));
    agenda.later(lease(3), Millis(300), Millis(0), Some(third));
    agenda
}

fn numbers(ids: Vec<LeaseId>) -> Vec<u8> {
    ids.iter().map(|id| id.as_bytes()[0]).collect()
}

fn take(agenda: &mut LeaseSchedule, now: u64) -> Vec<u8> {
    numbers(agenda.take(Millis(now), now, 100, |_| 100))
}

#[test]
fn what_is_not_due_is_not_taken_and_what_is_taken_is_in_one_hand() {
    let mut agenda = three();
    assert_eq!(agenda.next(Millis(40), 0, |_| 1), (Some(60), false));
    assert_eq!(take(&mut agenda, 99), [0; 0]);
    assert_eq!(take(&mut agenda, 250), [1, 2]);
    assert_eq!(take(&mut agenda, 250), [0; 0]);
    agenda.later(lease(1), Millis(400), Millis(250), None);
    assert_eq!(agenda.next(Millis(250), 0, |_| 1), (Some(50), false));
    assert_eq!(take(&mut agenda, 1_000), [3, 1], "in the order of their time");
}

#[test]
fn a_record_about_a_credential_or_a_task_concerns_what_rests_on_it_and_nothing_else() {
    let mut agenda = three();
    agenda.touch_task(TaskId::from_bytes([11; 16]));
    assert_eq!(take(&mut agenda, 1), [2]);
    agenda.later(lease(2), Millis(200), Millis(0), names(2, &[10, 11]));
    agenda.touch_task(TaskId::from_bytes([10; 16]));
    assert_eq!(take(&mut agenda, 1), [1, 2]);
    agenda.later(lease(1), Millis(100), Millis(0), names(1, &[10]));
    agenda.later(lease(2), Millis(200), Millis(0), names(2, &[12]));
    agenda.touch_credential(CredentialId::from_bytes([1; 16]));
    assert_eq!(take(&mut agenda, 1), [1, 3]);
    agenda.touch_task(TaskId::from_bytes([11; 16]));
    agenda.touch_task(TaskId::from_bytes([9; 16]));
    assert_eq!(take(&mut agenda, 1), [0; 0], "lease 2 has moved");
}

#[test]
fn looking_at_all_comes_in_pieces_and_to_an_end() {
    let mut agenda = three();
    agenda.touch_all();
    assert_eq!(agenda.next(Millis(0), 0, |_| 1).0, Some(0));
    let piece = |agenda: &mut LeaseSchedule| numbers(agenda.take(Millis(1), 1, 2, |_| 100));
    assert_eq!(piece(&mut agenda), [1, 2]);
    [1, 2].iter().for_each(|n| agenda.later(lease(*n), Millis(500), Millis(1), None));
    assert_eq!(piece(&mut agenda), [3]);
    agenda.later(lease(3), Millis(500), Millis(1), None);
    assert_eq!(piece(&mut agenda), [0; 0]);
    assert_eq!(agenda.next(Millis(1), 1, |_| 1), (Some(499), false));
}

#[test]
fn what_waits_for_a_place_is_taken_as_there_are_places() {
    let mut agenda = three();
    take(&mut agenda, 1_000);
    agenda.undo(lease(1), "a", 10);
    agenda.undo(lease(2), "a", 20);
    agenda.undo(lease(3), "b", 30);
    assert_eq!(agenda.next(Millis(0), 5, |_| 1), (Some(5), false));
    let none_at_a = |upstream: &str| usize::from(upstream != "a");
    assert_eq!(agenda.next(Millis(0), 25, none_at_a), (Some(5), true), "one that is full does not keep others");
    assert_eq!(numbers(agenda.take(Millis(0), 40, 100, none_at_a)), [3]);
    assert_eq!(numbers(agenda.take(Millis(0), 40, 100, |_| 1)), [1]);
    agenda.undo(lease(1), "a", 90);
    agenda.hurry(lease(1));
    assert_eq!(numbers(agenda.take(Millis(0), 40, 100, |_| 1)), [1]);
    agenda.touch(lease(2));
    assert_eq!(numbers(agenda.take(Millis(0), 19, 100, |_| 1)), [0; 0], "it is nobody's: no record makes it more so");
}

#[test]
fn what_is_forgotten_leaves_nothing_and_what_nothing_names_is_looked_at_all_the_same() {
    let mut agenda = three();
    agenda.later(lease(3), Millis(u64::MAX), Millis(7), None);
    assert_eq!(agenda.next(Millis(400), 0, |_| 1).0, Some(0));
    (1..=2).for_each(|n| agenda.forget(lease(n)));
    assert_eq!(agenda.next(Millis(7), 0, |_| 1).0, Some(limits::LEASE_LOOK_AGAIN_MS));
    agenda.undo(lease(3), "a", 1);
    agenda.forget(lease(3));
    agenda.later(lease(3), Millis(1), Millis(0), names(3, &[12]));
    assert!(agenda.is_empty() && agenda.looks.is_empty() && agenda.undoing.is_empty());
    assert!(agenda.of_credential.is_empty() && agenda.of_task.is_empty());
}
