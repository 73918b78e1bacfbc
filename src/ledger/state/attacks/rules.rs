//! How long revocation rules are kept, and what they cover through a task.

use super::*;
use mayfly_verify::seq::{CredentialId, TaskId};

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
    let closed = TaskClosed { task: task.clone(), outcome: TaskOutcome::Completed as i32, ..Default::default() };
    log.put(vec![by_operator(Event::TaskClosed(closed))])[0].clone().unwrap();
    let target = Target::Task(TaskId::from_slice(&task).unwrap());
    // Not a moment too early: a verifier whose clock is behind must still find the rule.
    let last = log.time.plus(30_000).plus(limits::VIEW_MAX_AGE_MS + 2 * limits::CLOCK_SKEW_MS);
    log.time = last;
    log.put(vec![note()]);
    assert!(log.state.rules.get(&target).is_some());
    // Rules are dropped at full seconds.
    log.time = last.plus(1_000);
    log.put(vec![note()]);
    assert!(log.state.rules.get(&target).is_none(), "the task's deadline is nobody's but its own");
    let again = log.issue(&child);
    assert!(log.put(vec![again])[0].is_err(), "it is over without the rule");
}

/// With or without a subject token: a task is based on the same grants as the credential that it was opened with.
#[test]
fn a_task_opened_with_a_credential_that_was_shown_ends_with_whoever_that_rests_on() {
    for target in [Target::Caller("spiffe://a.example/first".into()), Target::Credential(CredentialId::from_bytes([6; 16]))] {
        let mut log = Log::new();
        let root = log.opened(&[]);
        let issue = log.issue(&root);
        let id = id_of(&issue);
        log.put(vec![issue])[0].clone().unwrap();
        let mut opens = log.task(&[]);
        let task = id_of(&opens);
        if let Some(Event::TaskOpened(e)) = &mut opens.event {
            let line = |credential: &[u8], caller: &str| Ancestor { credential: credential.to_vec(), caller: caller.into() };
            e.ancestors = vec![line(&[6; 16], "spiffe://a.example/first"), line(&id, "spiffe://a.example/agent")];
            e.ancestor = id;
        }
        log.put(vec![opens])[0].clone().unwrap();
        log.revoke(target.clone(), true);
        let late = log.issue(&task);
        assert_eq!(reason(&log.put(vec![late])[0]), Reason::Revoked, "{target}");
    }
}

#[test]
fn whoever_of_the_chain_is_locked_out_gets_no_more_time() {
    let actor = Principal { issuer: "https://idp.example".into(), sub: "tool-7".into() };
    let planner = "spiffe://b.example/planner";
    let shown = Target::Subject(actor.issuer.as_str().into(), actor.sub.as_str().into());
    for locked in [shown, Target::Caller(planner.into()), Target::TrustDomain("b.example".into())] {
        let mut log = Log::new();
        let above = log.opened(&[]);
        let mut shown = log.issue(&above);
        if let Some(Event::Issued(e)) = &mut shown.event {
            e.caller = planner.into();
        }
        let credential = id_of(&shown);
        log.put(vec![shown])[0].clone().unwrap();
        let mut open = log.task(&[]);
        if let Some(Event::TaskOpened(e)) = &mut open.event {
            (e.actors, e.ancestor) = (vec![actor.clone()], credential.clone());
            e.ancestors = vec![Ancestor { credential, caller: planner.into() }];
        }
        let task = id_of(&open);
        log.put(vec![open])[0].clone().unwrap();
        let more = |log: &Log| {
            let (deadline, decided_at) = (log.time.0 + 60_000, log.time.0);
            let extended = TaskExtended { task: task.clone(), deadline, decided_at, policy_version: 1, ..Default::default() };
            by_operator(Event::TaskExtended(extended)).decided_at(log.state.head)
        };
        log.put(vec![more(&log)])[0].clone().unwrap();
        let lock = TargetsRevoked { targets: vec![locked.to_record()], lock_only: true, ..Default::default() };
        log.put(vec![by_operator(Event::Revoked(lock))])[0].clone().unwrap();
        assert_eq!(reason(&log.put(vec![more(&log)])[0]), Reason::Locked, "{locked:?}");
    }
}
