//! At its bound everything is refused with LIMIT_REACHED, which bound it is, and when to come again; nothing is forgotten to make room.

use std::time::Duration;

use mayfly::authority::Bounds;
use mayfly::credential::Issued;
use mayfly::document::Source;
use mayfly::ledger::Lane;
use mayfly::ledger::record::{Event, PolicySet as PolicyRecord, Record, Who};
use mayfly::policy::PolicySet;
use mayfly::refusal::{No, Refusal};

use super::kit::house::bounded_house;
use super::*;

/// Refused at this bound, with a time to come again.
#[track_caller]
fn at_bound<T>(answer: Result<T, No>, bound: &str) -> Refusal {
    let Err(No::Refusal(no)) = answer else { panic!("no refusal at {bound}") };
    assert_eq!(no.reason, Reason::LimitReached, "{no:?}");
    assert!(no.message.contains(bound) && no.rule.as_deref().is_none_or(|r| r == bound), "{no:?}");
    assert!(no.retry_after.is_some_and(|after| after > Duration::ZERO), "{no:?}");
    no
}

#[test]
fn tasks_and_credentials_of_a_caller_and_in_all_are_bounded() {
    for (bounds, bound, other_is_full) in [
        (Bounds { tasks_per_caller: 2, ..Bounds::default() }, "tasks_per_caller", false),
        (Bounds { tasks: 2, ..Bounds::default() }, "tasks", true),
    ] {
        let house = bounded_house(bounds);
        runtime().block_on(async {
            let (agent, other) = (house.caller("/agent/demo"), house.caller("/agent/other"));
            let first = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
            house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
            at_bound(house.authority.open_task(&agent, &terms(), &None, false).await, bound);
            at_bound(house.authority.exchange(&agent, &wanted(TaskChoice::Inline(terms()))).await, bound);
            house.authority.exchange(&agent, &wanted(TaskChoice::Named(first))).await.unwrap();
            let more = house.authority.open_task(&other, &terms(), &None, false).await;
            assert_eq!(more.is_err(), other_is_full, "{bound}");
        });
    }
    for (bounds, bound, other_is_full) in [
        (Bounds { credentials_per_caller: 2, ..Bounds::default() }, "credentials_per_caller", false),
        (Bounds { credentials: 2, ..Bounds::default() }, "credentials", true),
    ] {
        let house = bounded_house(bounds);
        runtime().block_on(async {
            let (agent, other) = (house.caller("/agent/demo"), house.caller("/agent/other"));
            let task = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
            let ask = wanted(TaskChoice::Named(task));
            for _ in 0..2 {
                house.authority.exchange(&agent, &ask).await.unwrap();
            }
            at_bound(house.authority.exchange(&agent, &ask).await, bound);
            let more = house.authority.exchange(&other, &wanted(TaskChoice::Inline(terms()))).await;
            assert_eq!(more.is_err(), other_is_full, "{bound}");
        });
    }
}

#[test]
fn a_caller_at_its_bound_of_remembered_ids_is_refused_and_none_is_forgotten() {
    let house = bounded_house(Bounds { request_ids_per_caller: 2, ..Bounds::default() });
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let task = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        let ask = |id| named(wanted(TaskChoice::Named(task)), id);
        let one = house.authority.exchange(&agent, &ask("one")).await.unwrap();
        house.authority.exchange(&agent, &ask("two")).await.unwrap();
        at_bound(house.authority.exchange(&agent, &ask("three")).await, "request_ids_per_caller");
        // Its earlier ones are answered as before, and what names none goes on.
        let again = house.authority.exchange(&agent, &ask("one")).await.unwrap();
        let id = |issued: &Issued| issued.summary().credential;
        assert_eq!(id(&again), id(&one));
        house.authority.exchange(&agent, &wanted(TaskChoice::Named(task))).await.unwrap();
        house
            .authority
            .exchange(&house.caller("/agent/other"), &named(wanted(TaskChoice::Inline(terms())), "three"))
            .await
            .unwrap();
    });
}

#[test]
fn a_caller_beyond_its_rule_budget_becomes_one_lock() {
    let house = bounded_house(Bounds { rules_per_caller: 2, ..Bounds::default() });
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let rules = || house.authority.ledger.peek(|s| s.rules.entries().len());
        let mut closed = 0;
        for _ in 0..6 {
            let Ok(issued) = house.authority.exchange(&agent, &wanted(TaskChoice::Inline(terms()))).await else { break };
            let actor = Actor::Workload(agent.clone());
            house.authority.close_task(&actor, issued.summary().task, Outcome::Completed, "done").await.unwrap();
            closed += 1;
        }
        assert!((2..6).contains(&closed), "{closed}");
        let caller = Target::Caller(agent.id().as_str().into());
        let entry = house.authority.ledger.peek(|s| s.rules.get(&caller)).expect("a rule on the caller");
        assert!(entry.lock.is_some());
        assert!(rules() <= closed + 1);
        let no = reason(house.authority.exchange(&agent, &wanted(TaskChoice::Inline(terms()))).await);
        assert_eq!(no, Reason::Locked);
    });
}

#[test]
fn a_policy_that_counts_is_told_what_there_is() {
    let house = house();
    runtime().block_on(async {
        let forbid = r#"
            @id("two-at-a-time")
            forbid (principal, action == Action::"Exchange", resource) when { context.counts.live_in_task >= 2 };
            @id("three-in-all")
            forbid (principal, action in Action::"Work", resource) when { context.counts.live_of_caller >= 3 };
        "#;
        let policy = kit::house::source("policy.cedar");
        let both = Source { text: format!("{}{forbid}", policy.text), ..policy };
        let set = PolicySet::compile(vec![both], kit::house::source("roles.toml")).unwrap();
        let (digest, text) = (set.digest().to_vec(), set.to_text().to_owned());
        let record = Event::PolicySet(PolicyRecord { environment: "dev".into(), version: 2, digest, text, audit_only: false });
        let record = Record::new(Who::Mayfly("a test".into()), record);
        house.authority.ledger.commit(Lane::Change, vec![record]).await.unwrap();
        let agent = house.caller("/agent/demo");
        let task = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        let other = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        let ask = async |task| house.authority.exchange(&agent, &wanted(TaskChoice::Named(task))).await;
        ask(task).await.unwrap();
        ask(task).await.unwrap();
        assert_eq!(reason(ask(task).await), Reason::DeniedByPolicy, "two are live in the task");
        ask(other).await.unwrap();
        assert_eq!(reason(ask(other).await), Reason::DeniedByPolicy, "three are live of the caller");
        assert_eq!(reason(house.authority.open_task(&agent, &terms(), &None, false).await), Reason::DeniedByPolicy);
    });
}
