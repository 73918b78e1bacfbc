//! At a bound, requests are refused with LIMIT_REACHED, the name of the bound and a retry time; nothing is forgotten to make room.

use std::time::Duration;

use mayfly::authority::AuthorityLimits;
use mayfly::credential::IssuedCredential;
use mayfly::document::SourceFile;
use mayfly::ledger::record::{Author, Event, PolicySetUpdated as PolicyRecord, Record};
use mayfly::ledger::{ProposalKind, Quotas};
use mayfly::policy::PolicySet;
use mayfly::refusal::{Error, Refusal};

use super::join::join_all;
use super::kit::house::bounded_house;
use super::*;

/// Checks that a call was refused at this bound, with a retry time.
#[track_caller]
fn at_bound<T>(answer: Result<T, Error>, bound: &str) -> Refusal {
    let Err(Error::Refusal(no)) = answer else { panic!("no refusal at {bound}") };
    assert_eq!(no.reason, Reason::LimitReached, "{no:?}");
    assert!(no.message.contains(bound) && no.rule.as_deref().is_none_or(|r| r == bound), "{no:?}");
    assert!(no.retry_after.is_some_and(|after| after > Duration::ZERO), "{no:?}");
    no
}

#[test]
fn tasks_and_credentials_of_a_caller_and_in_all_are_bounded() {
    for (bounds, bound, other_is_full) in [
        (Quotas { tasks_per_caller: 2, ..Quotas::FOLD }, "tasks_per_caller", false),
        (Quotas { tasks: 2, ..Quotas::FOLD }, "tasks", true),
    ] {
        let house = bounded_house(AuthorityLimits::default(), bounds);
        runtime().block_on(async {
            let (agent, other) = (house.caller("/agent/demo"), house.caller("/agent/other"));
            let first = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
            house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
            at_bound(house.authority.open_task(&agent, &terms(), &None, false).await, bound);
            at_bound(house.authority.exchange(&agent, &wanted(TaskChoice::Inline(terms().into()))).await, bound);
            house.authority.exchange(&agent, &wanted(TaskChoice::Named(first))).await.unwrap();
            let more = house.authority.open_task(&other, &terms(), &None, false).await;
            assert_eq!(more.is_err(), other_is_full, "{bound}");
        });
    }
    for (bounds, bound, other_is_full) in [
        (Quotas { credentials_per_caller: 2, ..Quotas::FOLD }, "credentials_per_caller", false),
        (Quotas { credentials: 2, ..Quotas::FOLD }, "credentials", true),
    ] {
        let house = bounded_house(AuthorityLimits::default(), bounds);
        runtime().block_on(async {
            let (agent, other) = (house.caller("/agent/demo"), house.caller("/agent/other"));
            let task = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
            let ask = wanted(TaskChoice::Named(task));
            for _ in 0..2 {
                house.authority.exchange(&agent, &ask).await.unwrap();
            }
            at_bound(house.authority.exchange(&agent, &ask).await, bound);
            let more = house.authority.exchange(&other, &wanted(TaskChoice::Inline(terms().into()))).await;
            assert_eq!(more.is_err(), other_is_full, "{bound}");
        });
    }
}

#[test]
fn a_caller_at_its_bound_of_remembered_ids_is_refused_and_none_is_forgotten() {
    let house = bounded_house(AuthorityLimits::default(), Quotas { request_ids_per_caller: 2, ..Quotas::FOLD });
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let task = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        let ask = |id| named(wanted(TaskChoice::Named(task)), id);
        let one = house.authority.exchange(&agent, &ask("one")).await.unwrap();
        house.authority.exchange(&agent, &ask("two")).await.unwrap();
        at_bound(house.authority.exchange(&agent, &ask("three")).await, "request_ids_per_caller");
        // Repeats of the caller's earlier requests are still answered, and requests without an id are not affected.
        let again = house.authority.exchange(&agent, &ask("one")).await.unwrap();
        let id = |issued: &IssuedCredential| issued.summary().credential;
        assert_eq!(id(&again), id(&one));
        house.authority.exchange(&agent, &wanted(TaskChoice::Named(task))).await.unwrap();
        house
            .authority
            .exchange(&house.caller("/agent/other"), &named(wanted(TaskChoice::Inline(terms().into())), "three"))
            .await
            .unwrap();
    });
}

/// The number of concurrent requests that were granted. The others must have been refused at this bound.
fn given_of<T>(answers: Vec<Result<T, Error>>, bound: &str) -> usize {
    let (given, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    for no in refused {
        at_bound(no, bound);
    }
    given.len()
}

/// A configured bound holds for a burst too, in which each request is decided before any other is counted.
#[test]
fn a_burst_is_given_exactly_what_fits() {
    const BURST: usize = 40;
    let fold = Quotas::FOLD;
    for (ceilings, bound) in
        [(Quotas { tasks_per_caller: 5, ..fold }, "tasks_per_caller"), (Quotas { tasks: 5, ..fold }, "tasks")]
    {
        let house = bounded_house(AuthorityLimits::default(), ceilings);
        let agent = house.caller("/agent/demo");
        let (terms, none) = (terms(), None);
        let burst = (0..BURST).map(|_| house.authority.open_task(&agent, &terms, &none, false));
        assert_eq!(given_of(runtime().block_on(join_all(burst)), bound), 5, "{bound}");
        let house = bounded_house(AuthorityLimits::default(), ceilings);
        let agent = house.caller("/agent/demo");
        let inline = wanted(TaskChoice::Inline(terms.into()));
        let burst = (0..BURST).map(|_| house.authority.exchange(&agent, &inline));
        assert_eq!(given_of(runtime().block_on(join_all(burst)), bound), 5, "{bound} inline");
    }
    for (ceilings, bound) in [
        (Quotas { credentials_per_caller: 5, ..fold }, "credentials_per_caller"),
        (Quotas { credentials: 5, ..fold }, "credentials"),
        (Quotas { request_ids_per_caller: 5, ..fold }, "request_ids_per_caller"),
    ] {
        let house = bounded_house(AuthorityLimits::default(), ceilings);
        let agent = house.caller("/agent/demo");
        let runtime = runtime();
        let task = runtime.block_on(house.authority.open_task(&agent, &terms(), &None, false)).unwrap();
        let asks: Vec<_> = (0..BURST).map(|n| named(wanted(TaskChoice::Named(task)), &n.to_string())).collect();
        let burst = asks.iter().map(|ask| house.authority.exchange(&agent, ask));
        assert_eq!(given_of(runtime.block_on(join_all(burst)), bound), 5, "{bound}");
        let state = house.authority.ledger.peek(|s| (s.issued, s.credentials.remembered(agent.id().as_str())));
        assert_eq!(state, (5, 5), "{bound}");
    }
}

#[test]
fn a_batch_that_does_not_fit_as_a_whole_is_refused_as_a_whole() {
    let fold = Quotas::FOLD;
    for (ceilings, bound) in [
        (Quotas { credentials_per_caller: 2, ..fold }, "credentials_per_caller"),
        (Quotas { request_ids_per_caller: 2, ..fold }, "request_ids_per_caller"),
        (Quotas { tasks_per_caller: 2, ..fold }, "tasks_per_caller"),
    ] {
        let house = bounded_house(AuthorityLimits::default(), ceilings);
        let agent = house.caller("/agent/demo");
        let asks: Vec<_> = (0..3).map(|n| named(wanted(TaskChoice::Inline(terms().into())), &n.to_string())).collect();
        let runtime = runtime();
        at_bound(runtime.block_on(house.authority.exchange_all(&agent, &asks)).map_err(|(_, no)| no), bound);
        let left = house.authority.ledger.peek(|s| (s.issued, s.tasks.len(), s.credentials.remembered(agent.id().as_str())));
        assert_eq!(left, (0, 0, 0), "{bound}");
        runtime.block_on(house.authority.exchange_all(&agent, &asks[..2])).map_err(|(_, no)| no).unwrap();
    }
}

/// Changes of tasks remember their request ids, as exchanges do.
#[test]
fn every_request_id_of_a_caller_counts_and_none_keeps_an_operator_from_revoking() {
    let house = bounded_house(AuthorityLimits::default(), Quotas { request_ids_per_caller: 2, ..Quotas::FOLD });
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let id = |n: u8| Some((format!("r-{n}"), [n; 32]));
        let task = house.authority.open_task(&agent, &terms(), &id(1), false).await.unwrap();
        let actor = Actor::Workload(agent.clone());
        house.authority.hold_task(&actor, task, "a pause", &id(2)).await.unwrap();
        at_bound(house.authority.resume_task(&actor, task, "", &id(3)).await, "request_ids_per_caller");
        house.authority.resume_task(&actor, task, "", &None).await.unwrap();
        for n in 0..5 {
            let targets = vec![Target::Tool(format!("tool-{n}").into())];
            let ask = RevocationRequest {
                targets,
                issued_only: true,
                force: true,
                reason: "a test".into(),
                confirm: RevocationConfirmation::All,
                named: id(10 + n),
            };
            house.authority.revoke(&operator(&house), Some(&locks(&house)), &ask).await.unwrap();
        }
    });
}

#[test]
fn a_caller_beyond_its_rule_budget_becomes_one_lock() {
    let house = bounded_house(AuthorityLimits { rules_per_caller: 2, ..AuthorityLimits::default() }, Quotas::FOLD);
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let rules = || house.authority.ledger.peek(|s| s.rules.entries().len());
        let mut closed = 0;
        for _ in 0..6 {
            let Ok(issued) = house.authority.exchange(&agent, &wanted(TaskChoice::Inline(terms().into()))).await else { break };
            let actor = Actor::Workload(agent.clone());
            house.authority.close_task(&actor, issued.summary().about.task, TaskOutcome::Completed, "done").await.unwrap();
            closed += 1;
        }
        assert!((2..6).contains(&closed), "{closed}");
        let caller = Target::Caller(agent.id().as_str().into());
        let entry = house.authority.ledger.peek(|s| s.rules.get(&caller)).expect("a rule on the caller");
        assert!(entry.lock.is_some());
        assert!(rules() <= closed + 1);
        let no = reason(house.authority.exchange(&agent, &wanted(TaskChoice::Inline(terms().into()))).await);
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
        let both = SourceFile { text: format!("{}{forbid}", policy.text), ..policy };
        let set = PolicySet::compile(vec![both], kit::house::source("roles.toml")).unwrap();
        let (digest, text) = (set.digest().to_vec(), set.to_text().to_owned());
        let record = Event::PolicySet(PolicyRecord { environment: "dev".into(), version: 2, digest, text, ..Default::default() });
        let record = Record::new(Author::Mayfly("a test".into()), record);
        house.authority.ledger.commit(ProposalKind::Change, vec![record]).await.unwrap();
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
