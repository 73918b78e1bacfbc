//! Stories on a whole authority in memory: one test for each promise about revoking.

mod ancestors;
mod behalf;
mod bounds;
mod full;
#[path = "../kit/join.rs"]
mod join;
#[path = "../kit/mod.rs"]
mod kit;
mod lately;
mod pace;
mod rights;

use std::sync::Arc;

use kit::house::{House, house, named, runtime, terms, wanted};
use mayfly::admission::Admitted;
use mayfly::credential::{CredentialMaterial, IssuedCredential, Novelty};
use mayfly::identity::caller::Operator;
use mayfly::introspect::IntrospectionCaller;
use mayfly::ledger::record::TaskOutcome;
use mayfly::policy::admin;
use mayfly::policy::exchange_request::{ExchangeRequest, TaskChoice};
use mayfly::refusal::{Error, Reason};
use mayfly::revocation::Target;
use mayfly::revoke::{RevocationConfirmation, RevocationRequest};
use mayfly::seq::{CredentialId, TaskId};
use mayfly::tasks::Actor;

fn reason<T>(answer: Result<T, Error>) -> Reason {
    match answer {
        Ok(_) => panic!("it was not refused"),
        Err(Error::Refusal(no)) => no.reason,
        Err(Error::Fault(fault)) => panic!("a fault: {fault}"),
    }
}

fn id(issued: &IssuedCredential) -> CredentialId {
    issued.summary().credential
}

fn token(issued: IssuedCredential) -> String {
    match issued.into_parts().2 {
        CredentialMaterial::Bearer { token, .. } => token.into_text(),
        _ => panic!("not a bearer token"),
    }
}

fn operator(house: &House) -> Admitted<admin::Revoke> {
    house.authority.admit(&Operator::LocalUid(1000), None).unwrap()
}

fn locks(house: &House) -> Admitted<admin::Lock> {
    house.authority.admit(&Operator::LocalUid(1000), None).unwrap()
}

async fn revoke(house: &House, target: Target, issued_only: bool) -> mayfly::seq::Seq {
    let ask = RevocationRequest {
        targets: vec![target],
        issued_only,
        force: true,
        reason: "a test".into(),
        confirm: RevocationConfirmation::All,
        named: None,
    };
    house.authority.revoke(&operator(house), Some(&locks(house)), &ask).await.unwrap().seq
}

async fn active(house: &House, token: &str) -> bool {
    let asker = IntrospectionCaller::Operator(Operator::LocalUid(1000));
    house.authority.introspect(&asker, token, |_, _| ()).await.unwrap().is_some()
}

#[test]
fn an_svid_becomes_a_credential_and_revoking_its_caller_ends_it_and_the_next_exchange() {
    let house = house();
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let task = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        let issued = house.authority.exchange(&agent, &wanted(TaskChoice::Named(task))).await.unwrap();
        assert_eq!(issued.summary().about.novelty, Novelty::New);
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
        // The revocation also covers the task opened before it, so a new task is opened.
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
        assert_eq!((id(&first), again.summary().about.novelty), (id(&again), Novelty::Same));
        assert_eq!(first.seq(), again.seq());
        let mut other = wanted(TaskChoice::Named(task));
        other.ttl_ms = Some(30_000);
        assert_eq!(reason(house.authority.exchange(&agent, &named(other, "r-1")).await), Reason::RequestIdReused);
        // Another caller's request with the same id is independent.
        let ci = house.caller("/ci/demo");
        let own = house.authority.open_task(&ci, &terms(), &None, false).await.unwrap();
        let theirs = house.authority.exchange(&ci, &named(wanted(TaskChoice::Named(own)), "r-1")).await.unwrap();
        assert_ne!(id(&theirs), id(&first));
        // A repeat of a request whose credential was revoked is refused, and revives nothing.
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
        let issued = house.authority.exchange(&agent, &wanted(TaskChoice::Inline(inline.into()))).await.unwrap();
        assert_eq!(house.authority.ledger.commits(), before + 1);
        let task = issued.summary().about.task;
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
        let second = house.authority.renew(&agent, first, Some(60_000), None, None).await.unwrap();
        let third = house.authority.renew(&agent, id(&second), Some(60_000), None, None).await.unwrap();
        let (second, third) = (id(&second), token(third));
        assert!(active(&house, &third).await);
        revoke(&house, Target::Credential(first), false).await;
        assert!(!active(&house, &third).await, "the first of its line covers every renewal");
        assert_eq!(reason(house.authority.renew(&agent, second, Some(60_000), None, None).await), Reason::Revoked);
        // Another caller's credential does not exist for the caller.
        let ci = house.caller("/ci/demo");
        assert_eq!(reason(house.authority.renew(&ci, second, None, None, None).await), Reason::NotFound);
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
            match house.authority.renew(&agent, current, Some(300_000), None, None).await {
                Ok(renewed) => {
                    assert!(renewed.summary().about.expires_at <= end && renewed.summary().about.renewable_until <= end);
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
        // A hold by an operator can be resumed by an operator only.
        let op = Actor::Operator(Operator::LocalUid(1000));
        house.authority.hold_task(&op, root, "stop", &None).await.unwrap();
        assert_eq!(reason(house.authority.resume_task(&actor, root, "please", &None).await), Reason::NotYours);
        house.authority.resume_task(&op, root, "go on", &None).await.unwrap();
        let seq = house.authority.close_task(&actor, root, TaskOutcome::Completed, "done").await.unwrap();
        assert!(!active(&house, &held).await);
        assert_eq!(reason(house.authority.exchange(&agent, &wanted(TaskChoice::Named(under))).await), Reason::TaskNotActive);
        assert_eq!(reason(house.authority.open_task(&agent, &child(root), &None, false).await), Reason::TaskNotActive);
        let again = house.authority.close_task(&actor, root, TaskOutcome::Cancelled, "again").await.unwrap();
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
fn a_task_opened_for_another_caller_is_that_callers() {
    let house = house();
    runtime().block_on(async {
        let (agent, server) = (house.caller("/agent/demo"), house.caller("/mcp/echo"));
        let (agents, servers) = (Actor::Workload(agent.clone()), Actor::Workload(server.clone()));
        let root = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        let mut child = terms();
        child.parent = Some(root);
        child.callers = vec![server.id().as_str().to_owned()];
        let given = house.authority.open_task(&agent, &child, &None, true).await.unwrap();
        let owner = house.authority.ledger.peek(|s| s.tasks.get(&given).unwrap().terms.owners.last().cloned().unwrap());
        assert_eq!((&*owner.issuer, &*owner.sub), ("dev.mayfly.internal", server.id().as_str()));
        // The holder of a child task may end that part only; its parent's owner may end both.
        assert_eq!(reason(house.authority.hold_task(&servers, root, "stop", &None).await), Reason::NotFound);
        house.authority.hold_task(&servers, given, "wait", &None).await.unwrap();
        house.authority.resume_task(&agents, given, "go on", &None).await.unwrap();
        let used = token(house.authority.exchange(&server, &wanted(TaskChoice::Named(given))).await.unwrap());
        assert!(active(&house, &used).await);
        // A revocation of the task's owner ends everything issued in the task, to any caller.
        let own = token(house.authority.exchange(&agent, &wanted(TaskChoice::Named(given))).await.unwrap());
        revoke(&house, Target::Caller(server.id().as_str().into()), true).await;
        assert!(!active(&house, &used).await && !active(&house, &own).await);
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
        let silent =
            || house.authority.ledger.peek(|s| s.tasks.get(&task).is_some_and(|t| t.silent(house.authority.system.wall())));
        assert!(!silent());
        assert!(active(&house, &issued).await);
        house.clock.advance(8_000);
        assert!(!active(&house, &issued).await, "refused by its time, before any record says so");
        assert!(silent());
        house.authority.end_silent(task, house.authority.system.wall());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let closed = house.authority.ledger.peek(|s| s.tasks.get(&task).and_then(|t| t.closed.as_ref().map(|c| c.outcome)));
        assert_eq!(closed, Some(TaskOutcome::Expired));
    });
}

#[test]
fn of_exchanges_that_came_together_a_rule_hits_those_whose_tool_it_is_about() {
    let house = house();
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let task = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        let with = |tool: &str| ExchangeRequest { tool: tool.into(), ..wanted(TaskChoice::Named(task)) };
        let lately = mayfly::exchange::DecisionCache::default();
        let together = async |tools: &[&str]| {
            let wants: Vec<ExchangeRequest> = tools.iter().map(|tool| with(tool)).collect();
            let mut issued = Vec::new();
            let mut round = house.authority.begin_all(&agent, wants.iter(), &lately);
            let mut answers = house.authority.answers(&mut round).await;
            for begun in std::mem::take(&mut round.begun) {
                issued.push(match begun {
                    Ok(mayfly::exchange::BegunExchange::UnderWay(one)) => {
                        house.authority.finish_of(one, &mut answers).await.map(drop).map_err(|no| reason(Err::<(), _>(no)))
                    }
                    Ok(mayfly::exchange::BegunExchange::Waits) => panic!("nothing of it waits"),
                    Err(no) => Err(reason(Err::<(), _>(no))),
                });
            }
            issued
        };
        assert_eq!(together(&["one", "two", "three"]).await, [Ok(()), Ok(()), Ok(())]);
        // Revoked credentials of other callers are no evidence, and do not keep the caller from using others.
        let gone = id(&house.authority.exchange(&agent, &with("gone")).await.unwrap());
        revoke(&house, Target::Credential(gone), false).await;
        assert_eq!(together(&["one", "two"]).await, [Ok(()), Ok(())]);
        revoke(&house, Target::Tool("two".into()), false).await;
        assert_eq!(together(&["one", "two", "three", "two"]).await, [Ok(()), Err(Reason::Locked), Ok(()), Err(Reason::Locked)]);
        assert_eq!(together(&["two", "one", "one"]).await, [Err(Reason::Locked), Ok(()), Ok(())]);
    });
}
