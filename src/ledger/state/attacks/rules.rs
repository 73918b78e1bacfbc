//! How long rules stay.

use super::*;
use crate::seq::TaskId;

#[test]
fn the_rule_of_a_task_that_ended_goes_with_the_last_of_what_was_issued_under_it() {
    let mut log = Log::new();
    let task = log.opened(&[]);
    let child = log.opened(&task);
    let issue = log.issue(&task);
    log.put(vec![issue])[0].clone().unwrap();
    log.time = log.time.plus(5_000);
    let later = log.issue(&child);
    log.put(vec![later.clone()])[0].clone().unwrap();
    let closed = TaskClosed { task: task.clone(), outcome: Outcome::Completed as i32, ..Default::default() };
    log.put(vec![by_operator(Event::TaskClosed(closed))])[0].clone().unwrap();
    let target = Target::Task(TaskId::from_slice(&task).unwrap());
    // Not a moment before it: whoever checks by a clock that stands behind refuses it by the rule.
    let last = log.time.plus(30_000).plus(limits::VIEW_MAX_AGE_MS + 2 * limits::CLOCK_SKEW_MS);
    log.time = last;
    log.put(vec![note()]);
    assert!(log.state.rules.get(&target).is_some());
    // Looked at by the second.
    log.time = last.plus(1_000);
    log.put(vec![note()]);
    assert!(log.state.rules.get(&target).is_none(), "the task's deadline is nobody's but its own");
    let again = log.issue(&child);
    assert!(log.put(vec![again])[0].is_err(), "it is over without the rule");
}
