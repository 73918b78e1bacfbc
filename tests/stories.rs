//! The stories on a whole authority in memory: each sentence that the product promises about revoking, on its own.

#[path = "kit/mod.rs"]
mod kit;

use std::sync::Arc;

use kit::house::{House, house, named, runtime, terms, wanted};
use mayfly::admission::Admitted;
use mayfly::credential::{Answer, Issued, Novelty};
use mayfly::identity::caller::Operator;
use mayfly::introspect::Asker;
use mayfly::ledger::record::Outcome;
use mayfly::policy::Admin;
use mayfly::policy::wanted::TaskChoice;
use mayfly::refusal::{No, Reason};
use mayfly::revocation::Target;
use mayfly::revoke::{Confirm, Revocation};
use mayfly::seq::{CredentialId, TaskId};
use mayfly::tasks::Actor;

fn reason<T>(answer: Result<T, No>) -> Reason {
    match answer {
        Ok(_) => panic!("it was not refused"),
        Err(No::Refusal(no)) => no.reason,
        Err(No::Fault(fault)) => panic!("a fault: {fault}"),
    }
}

fn id(issued: &Issued) -> CredentialId {
    issued.summary().credential
}

fn token(issued: Issued) -> String {
    match issued.into_parts().2 {
        Answer::Bearer { token, .. } => token.to_string(),
        _ => panic!("not a bearer token"),
    }
}

fn operator(house: &House) -> Admitted {
    house.authority.admit(&Operator::LocalUid(1000), Admin::Revoke, None).unwrap()
}

async fn revoke(house: &House, target: Target, issued_only: bool) -> mayfly::seq::Seq {
    let ask = Revocation {
        targets: vec![target],
        issued_only,
        lock_only: false,
        reason: "a test".into(),
        confirm: Confirm::All,
        named: None,
    };
    house.authority.revoke(&operator(house), &ask).await.unwrap().seq
}

async fn active(house: &House, token: &str) -> bool {
    let asker = Asker::Operator(Operator::LocalUid(1000));
    house.authority.introspect(&asker, token, |_, _| ()).await.unwrap().is_some()
}

#[test]
fn an_svid_becomes_a_credential_and_revoking_its_caller_ends_it_and_the_next_exchange() {
    let house = house();
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let task = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        let issued = house.authority.exchange(&agent, &wanted(TaskChoice::Named(task))).await.unwrap();
        assert_eq!(issued.summary().novelty, Novelty::New);
        let first = token(issued);
        assert!(active(&house, &first).await);
        revoke(&house, Target::Caller("spiffe://dev.mayfly.internal/agent/demo".into()), false).await;
        // The same SVID, a millisecond later.
        house.clock.advance(1);
        assert_eq!(reason(house.authority.exchange(&agent, &wanted(TaskChoice::Named(task))).await), Reason::Locked);
        assert_eq!(reason(house.authority.open_task(&agent, &terms(), &None, false).await), Reason::Locked);
        assert!(!active(&house, &first).await);
    });
}

#[test]
fn a_second_revocation_covers_what_was_issued_since_the_first() {
    let house = house();
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let target = || Target::Caller("spiffe://dev.mayfly.internal/agent/demo".into());
        let task = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        revoke(&house, target(), true).await;
        // The task was opened before the revocation: it is covered too, so a new one is opened.
        let again = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        assert_ne!(task, again);
        let fresh = token(house.authority.exchange(&agent, &wanted(TaskChoice::Named(again))).await.unwrap());
        assert!(active(&house, &fresh).await);
        revoke(&house, target(), true).await;
        assert!(!active(&house, &fresh).await);
    });
}

#[test]
fn the_same_request_gets_the_same_credential_and_another_request_is_refused() {
    let house = house();
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let task = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        let want = named(wanted(TaskChoice::Named(task)), "r-1");
        let first = house.authority.exchange(&agent, &want).await.unwrap();
        let again = house.authority.exchange(&agent, &want).await.unwrap();
        assert_eq!((id(&first), again.summary().novelty), (id(&again), Novelty::Same));
        assert_eq!(first.seq(), again.seq());
        let mut other = wanted(TaskChoice::Named(task));
        other.ttl_ms = Some(30_000);
        assert_eq!(reason(house.authority.exchange(&agent, &named(other, "r-1")).await), Reason::RequestIdReused);
        // Another caller's request of the same name has nothing to do with it.
        let ci = house.caller("/ci/demo");
        let own = house.authority.open_task(&ci, &terms(), &None, false).await.unwrap();
        let theirs = house.authority.exchange(&ci, &named(wanted(TaskChoice::Named(own)), "r-1")).await.unwrap();
        assert_ne!(id(&theirs), id(&first));
        // Revoked meanwhile: a repeat is refused, and brings nothing back.
        revoke(&house, Target::Credential(id(&first)), false).await;
        assert_eq!(reason(house.authority.exchange(&agent, &want).await), Reason::Revoked);
    });
}

#[test]
fn twins_of_one_request_sent_at_once_make_one_credential() {
    let house = Arc::new(house());
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let task = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        let all: Vec<_> = (0..32)
            .map(|_| {
                let (house, agent) = (house.clone(), agent.clone());
                let want = named(wanted(TaskChoice::Named(task)), "twin");
                tokio::spawn(async move { id(&house.authority.exchange(&agent, &want).await.unwrap()) })
            })
            .collect();
        let mut ids = std::collections::BTreeSet::new();
        for one in all {
            ids.insert(one.await.unwrap());
        }
        assert_eq!(ids.len(), 1);
        assert_eq!(house.authority.ledger.peek(|s| s.issued), 1);
    });
}

#[test]
fn a_task_opened_inline_takes_one_commit() {
    let house = house();
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let before = house.authority.ledger.commits();
        let mut inline = terms();
        (inline.upstreams, inline.any_tool) = (Vec::new(), false);
        let issued = house.authority.exchange(&agent, &wanted(TaskChoice::Inline(inline))).await.unwrap();
        assert_eq!(house.authority.ledger.commits(), before + 1);
        let task = issued.summary().task;
        let tools = house.authority.ledger.peek(|s| s.tasks.get(&task).unwrap().terms.allowance.tools.clone());
        assert_eq!(tools, ["say"], "it includes what the exchange asks for and nothing else");
    });
}

#[test]
fn renewing_is_a_new_decision_and_stops_at_a_revocation_of_its_line() {
    let house = house();
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let task = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        let first = id(&house.authority.exchange(&agent, &wanted(TaskChoice::Named(task))).await.unwrap());
        let second = house.authority.renew(&agent, first, Some(60_000), None).await.unwrap();
        let third = house.authority.renew(&agent, id(&second), Some(60_000), None).await.unwrap();
        let (second, third) = (id(&second), token(third));
        assert!(active(&house, &third).await);
        revoke(&house, Target::Credential(first), false).await;
        assert!(!active(&house, &third).await, "the first of its line covers every renewal");
        assert_eq!(reason(house.authority.renew(&agent, second, Some(60_000), None).await), Reason::Revoked);
        // Somebody else's credential does not exist.
        let ci = house.caller("/ci/demo");
        assert_eq!(reason(house.authority.renew(&ci, second, None, None).await), Reason::NotFound);
    });
}

#[test]
fn no_renewal_goes_beyond_the_bound_fixed_at_first_issue() {
    let house = house();
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let mut short = terms();
        (short.ttl_ms, short.max_ttl_ms) = (Some(120_000), Some(120_000));
        let task = house.authority.open_task(&agent, &short, &None, false).await.unwrap();
        let end = house.now().plus(120_000);
        let mut current = id(&house.authority.exchange(&agent, &wanted(TaskChoice::Named(task))).await.unwrap());
        loop {
            house.clock.advance(50_000);
            match house.authority.renew(&agent, current, Some(300_000), None).await {
                Ok(renewed) => {
                    assert!(renewed.summary().expires_at <= end && renewed.summary().renewable_until <= end);
                    current = id(&renewed);
                }
                Err(no) => {
                    assert!(matches!(
                        reason::<()>(Err(no)),
                        Reason::TaskNotActive | Reason::NoLifeLeft | Reason::CredentialNotActive
                    ));
                    break;
                }
            }
        }
    });
}

#[test]
fn ending_a_task_ends_everything_under_it_and_a_hold_is_reversible() {
    let house = house();
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let actor = Actor::Workload(agent.clone());
        let root = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        let child = |parent: TaskId| {
            let mut t = terms();
            t.parent = Some(parent);
            t
        };
        let under = house.authority.open_task(&agent, &child(root), &None, false).await.unwrap();
        let held = token(house.authority.exchange(&agent, &wanted(TaskChoice::Named(under))).await.unwrap());
        house.authority.hold_task(&actor, root, "look into it", &None).await.unwrap();
        assert!(!active(&house, &held).await);
        assert_eq!(reason(house.authority.exchange(&agent, &wanted(TaskChoice::Named(under))).await), Reason::TaskNotActive);
        house.authority.resume_task(&actor, root, "fine", &None).await.unwrap();
        assert!(active(&house, &held).await);
        // What an operator held, only an operator resumes.
        let op = Actor::Operator(Operator::LocalUid(1000));
        house.authority.hold_task(&op, root, "stop", &None).await.unwrap();
        assert_eq!(reason(house.authority.resume_task(&actor, root, "please", &None).await), Reason::TaskNotActive);
        house.authority.resume_task(&op, root, "go on", &None).await.unwrap();
        let seq = house.authority.close_task(&actor, root, Outcome::Completed, "done").await.unwrap();
        assert!(!active(&house, &held).await);
        assert_eq!(reason(house.authority.exchange(&agent, &wanted(TaskChoice::Named(under))).await), Reason::TaskNotActive);
        assert_eq!(reason(house.authority.open_task(&agent, &child(root), &None, false).await), Reason::TaskNotActive);
        let again = house.authority.close_task(&actor, root, Outcome::Cancelled, "again").await.unwrap();
        assert_eq!(seq, again, "a repeat gets the first ending");
    });
}

#[test]
fn a_child_is_never_wider_than_its_parent() {
    let house = house();
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let root = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        let mut wider = terms();
        wider.parent = Some(root);
        wider.upstreams = vec![("echo".into(), vec!["echo:read".into(), "echo:write".into()])];
        assert_eq!(reason(house.authority.open_task(&agent, &wider, &None, false).await), Reason::WiderThanParent);
        wider.upstreams = vec![("tickets".into(), Vec::new())];
        assert_eq!(reason(house.authority.open_task(&agent, &wider, &None, false).await), Reason::WiderThanParent);
    });
}

#[test]
fn a_heartbeat_that_is_missed_ends_the_task() {
    let house = house();
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let mut t = terms();
        t.heartbeat_ms = 10_000;
        let task = house.authority.open_task(&agent, &t, &None, false).await.unwrap();
        let issued = token(house.authority.exchange(&agent, &wanted(TaskChoice::Named(task))).await.unwrap());
        house.clock.advance(8_000);
        let beat = house.authority.heartbeat(&agent, task);
        let flush = house.authority.heartbeats.flush(&house.authority.ledger);
        let (beaten, ()) = tokio::join!(beat, flush);
        beaten.unwrap();
        house.clock.advance(8_000);
        assert_eq!(house.authority.end_silent_tasks(), 0);
        assert!(active(&house, &issued).await);
        house.clock.advance(8_000);
        assert!(!active(&house, &issued).await, "refused by its time, before any record says so");
        assert_eq!(house.authority.end_silent_tasks(), 1);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let closed = house.authority.ledger.peek(|s| s.tasks.get(&task).and_then(|t| t.closed.as_ref().map(|c| c.outcome)));
        assert_eq!(closed, Some(Outcome::Expired));
    });
}

#[test]
fn more_than_one_needs_a_confirmation_that_may_be_a_tenth_off() {
    let house = house();
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let task = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        for _ in 0..21 {
            house.authority.exchange(&agent, &wanted(TaskChoice::Named(task))).await.unwrap();
        }
        let ask = |confirm| Revocation {
            targets: vec![Target::Task(task)],
            issued_only: false,
            lock_only: false,
            reason: "a test".into(),
            confirm,
            named: None,
        };
        let admitted = operator(&house);
        for too_little in [Confirm::None, Confirm::Count(19)] {
            assert_eq!(reason(house.authority.revoke(&admitted, &ask(too_little)).await), Reason::ConfirmNeeded);
        }
        assert_eq!(house.authority.hits(&[Target::Task(task)]).await.unwrap().0.credentials, 21, "nothing was revoked");
        let done = house.authority.revoke(&admitted, &ask(Confirm::Count(20))).await.unwrap();
        assert_eq!(done.hits.credentials, 21);
        assert_eq!(house.authority.hits(&[Target::Task(task)]).await.unwrap().0.credentials, 0);
    });
}

#[test]
fn what_was_hit_is_told_also_where_nothing_was_counted_first() {
    let house = house();
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let task = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        let other = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        for n in 0..5 {
            let at = TaskChoice::Named(if n < 3 { task } else { other });
            house.authority.exchange(&agent, &wanted(at)).await.unwrap();
        }
        let all = |targets: Vec<Target>, name: &str| Revocation {
            targets,
            issued_only: true,
            lock_only: false,
            reason: "a test".into(),
            confirm: Confirm::All,
            named: Some((name.into(), [1; 32])),
        };
        // The task by name closes it, which must not make what it held look dead before.
        let caller = || Target::Caller("spiffe://dev.mayfly.internal/agent/demo".into());
        let ask = all(vec![Target::Task(task), caller()], "first");
        let done = house.authority.revoke(&operator(&house), &ask).await.unwrap();
        assert_eq!((done.hits.credentials, done.hits.tasks, done.hits.callers), (5, 2, 1));
        assert_eq!(done.each.iter().map(|h| (h.credentials, h.tasks)).collect::<Vec<_>>(), [(3, 1), (5, 2)]);
        let repeat = house.authority.revoke(&operator(&house), &ask).await.unwrap();
        assert_eq!((repeat.seq, repeat.hits), (done.seq, done.hits), "a repeat tells the same");
        let again = house.authority.revoke(&operator(&house), &all(vec![caller()], "second")).await.unwrap();
        assert_eq!(again.hits.credentials, 0, "they were dead before");
    });
}

#[test]
fn a_reference_is_found_by_introspection_and_a_forged_one_is_not() {
    let house = house();
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let task = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        let mut want = wanted(TaskChoice::Named(task));
        want.kind = Some(mayfly::upstream::registry::Kind::Reference);
        let good = token(house.authority.exchange(&agent, &want).await.unwrap());
        assert!(good.starts_with("mfr_") && active(&house, &good).await);
        let mut forged = good.clone().into_bytes();
        let last = forged.len() - 3;
        forged[last] = if forged[last] == b'A' { b'B' } else { b'A' };
        assert!(!active(&house, &String::from_utf8(forged).unwrap()).await);
        // Its upstream's server may ask; another workload is told the same as for nothing.
        let server = Asker::Workload(house.caller("/service/echo"));
        assert!(house.authority.introspect(&server, &good, |_, _| ()).await.unwrap().is_some());
        let stranger = Asker::Workload(house.caller("/ci/demo"));
        assert!(house.authority.introspect(&stranger, &good, |_, _| ()).await.unwrap().is_none());
    });
}

#[test]
fn walls_and_bounds_hold() {
    let house = house();
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let task = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        let refused = |change: &dyn Fn(&mut mayfly::policy::wanted::Wanted)| {
            let mut want = wanted(TaskChoice::Named(task));
            change(&mut want);
            want
        };
        let cases: Vec<(Reason, mayfly::policy::wanted::Wanted)> = vec![
            (Reason::NotFound, refused(&|w| w.upstream = "nothing".into())),
            (Reason::OutsideTask, refused(&|w| (w.upstream, w.scopes) = ("tickets".into(), vec!["tickets:read".into()]))),
            (Reason::OutsideTask, refused(&|w| w.scopes = vec!["echo:write".into()])),
            (Reason::OutsideUpstream, refused(&|w| w.scopes = vec!["echo:fly".into()])),
            (Reason::OutsideUpstream, refused(&|w| w.kind = Some(mayfly::upstream::registry::Kind::Ssh))),
            (Reason::InvalidField, refused(&|w| w.ttl_ms = Some(10))),
        ];
        for (expected, want) in cases {
            assert_eq!(reason(house.authority.exchange(&agent, &want).await), expected, "{want:?}");
        }
        // Somebody else's task does not exist.
        let ci = house.caller("/ci/demo");
        assert_eq!(reason(house.authority.exchange(&ci, &wanted(TaskChoice::Named(task))).await), Reason::NotFound);
        let nobody = house.caller("/unknown/x");
        assert_eq!(reason(house.authority.open_task(&nobody, &terms(), &None, false).await), Reason::DeniedByPolicy);
    });
}

#[test]
fn giving_back_ends_a_credential_and_is_safe_to_repeat() {
    let house = house();
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let task = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        let issued = house.authority.exchange(&agent, &wanted(TaskChoice::Named(task))).await.unwrap();
        let (own, token) = (id(&issued), token(issued));
        assert_eq!(reason(house.authority.release(&house.caller("/ci/demo"), own).await), Reason::NotFound);
        let seq = house.authority.release(&agent, own).await.unwrap();
        assert_eq!(house.authority.release(&agent, own).await.unwrap(), seq);
        assert!(!active(&house, &token).await);
    });
}

#[test]
fn all_or_nothing_is_one_group() {
    let house = house();
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let task = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        let good = || wanted(TaskChoice::Named(task));
        let mut bad = good();
        bad.scopes = vec!["echo:write".into()];
        let (n, no) = house.authority.exchange_all(&agent, &[good(), bad, good()]).await.err().unwrap();
        assert_eq!((n, reason::<()>(Err(no))), (1, Reason::OutsideTask));
        assert_eq!(house.authority.ledger.peek(|s| s.issued), 0);
        let all = house.authority.exchange_all(&agent, &[good(), good(), good()]).await.map_err(|e| e.0).unwrap();
        let seqs: std::collections::BTreeSet<_> = all.iter().map(Issued::seq).collect();
        assert_eq!(seqs.len(), 3, "each has a seq of its own");
    });
}
