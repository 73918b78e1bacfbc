//! Tests of when tasks are checked, and of the counters that they leave.

use super::*;

const HOUR: u64 = 3_600_000;

fn opened(tasks: &mut Tasks, n: u8, deadline: u64, now: u64) -> TaskId {
    let id = TaskId::from_bytes([n; 16]);
    let opened = TaskOpened { deadline, max_deadline: deadline, opener: "spiffe://x/a".into(), ..Default::default() };
    tasks.open(&opened, id, Seq::ZERO, Seq::ZERO, Millis(now));
    id
}

fn close(tasks: &mut Tasks, id: TaskId, now: u64) {
    tasks.get_mut(&id).unwrap().closed =
        Some(TaskClosure { outcome: TaskOutcome::Completed, reason: "".into(), at: Millis(now), seq: Seq::ZERO, by: None });
    tasks.closed(id, Millis(now));
}

#[test]
fn a_task_that_is_closed_early_leaves_nothing_until_its_deadline() {
    let mut tasks = Tasks::default();
    for n in 1..=100 {
        let now = u64::from(n) * 1_000;
        let id = opened(&mut tasks, n, 24 * HOUR, now);
        close(&mut tasks, id, now + 1_000);
    }
    // When the last request that named a task may be forgotten, plus a moment.
    let end = Millis(101_000 + limits::REQUEST_ID_KEPT_MS + 1_000);
    while tasks.expire(end, 7) > 0 {}
    assert!(tasks.is_empty());
    assert_eq!(tasks.checks.iter().count(), 0);
}

#[test]
fn one_that_stays_open_counts_to_its_deadline_and_no_longer_however_often_it_was_looked_at() {
    for deadline in [HOUR, HOUR + 1, HOUR + 999, 24 * HOUR] {
        let mut tasks = Tasks::default();
        let id = opened(&mut tasks, 1, deadline, 0);
        let mut looks = 0;
        for now in (0..deadline).step_by(30_000).chain([deadline]) {
            looks += tasks.expire(Millis(now), 10);
            assert_eq!(tasks.opened_by("spiffe://x/a"), 1, "at {now}");
        }
        assert!(looks as u64 <= deadline / limits::REQUEST_ID_KEPT_MS + 1, "{looks}");
        tasks.expire(Millis(deadline + 1_000), 10);
        assert_eq!((tasks.opened_by("spiffe://x/a"), tasks.get(&id).is_some()), (0, true));
        tasks.expire(Millis(deadline + limits::REQUEST_ID_KEPT_MS + 2_000), 10);
        assert!(tasks.is_empty());
    }
}
