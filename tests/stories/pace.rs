//! Calls of workloads that leave a record or a rule without issuing: they are rate-limited, or bounded by the number of things that can be
//! ended.

use mayfly::authority::AuthorityLimits;
use mayfly::ledger::Quotas;
use mayfly::limits;
use mayfly::rate_limits::CallerRates;
use mayfly::refusal::Refusal;
use mayfly::seq::Millis;

use super::kit::house::bounded_house;
use super::*;

const BURST: u32 = limits::RATE_BURST_S;

fn rated(rates: CallerRates) -> House {
    bounded_house(AuthorityLimits { rates, ..AuthorityLimits::default() }, Quotas::FOLD)
}

#[track_caller]
fn too_fast<T>(answer: Result<T, Error>, rate: &str) -> Refusal {
    let Err(Error::Refusal(no)) = answer else { panic!("no refusal at {rate}") };
    assert_eq!((no.reason, no.rule.as_deref()), (Reason::LimitReached, Some(rate)), "{no}");
    assert!(no.retry_after.is_some_and(|after| !after.is_zero()), "{no}");
    no
}

fn terms_with_heartbeat() -> mayfly::policy::exchange_request::TaskRequest {
    mayfly::policy::exchange_request::TaskRequest { heartbeat_ms: 60_000, ..terms() }
}

#[test]
fn holding_and_resuming_have_a_rate_for_workloads_and_none_for_operators() {
    let house = rated(CallerRates { holds: 1, ..CallerRates::default() });
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let task = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        let (own, root) = (Actor::Workload(agent.clone()), Actor::Operator(Operator::LocalUid(1000)));
        for _ in 0..BURST / 2 {
            house.authority.hold_task(&own, task, "a pause", &None).await.unwrap();
            house.authority.resume_task(&own, task, "", &None).await.unwrap();
        }
        let records = || house.authority.ledger.durable();
        let before = records();
        let no = too_fast(house.authority.hold_task(&own, task, "a pause", &None).await, "holds_per_second");
        too_fast(house.authority.resume_task(&own, task, "", &None).await, "holds_per_second");
        assert_eq!(records(), before, "nothing is written");
        for _ in 0..2 * BURST {
            house.authority.hold_task(&root, task, "an operator", &None).await.unwrap();
            house.authority.resume_task(&root, task, "", &None).await.unwrap();
        }
        let other = house.caller("/agent/other");
        let theirs = house.authority.open_task(&other, &terms(), &None, false).await.unwrap();
        house.authority.hold_task(&Actor::Workload(other), theirs, "a pause", &None).await.unwrap();
        house.clock.advance(u64::try_from(no.retry_after.unwrap().as_millis()).unwrap());
        house.authority.hold_task(&own, task, "a pause", &None).await.unwrap();
    });
}

#[test]
fn opening_handing_on_and_extending_share_a_rate_and_an_exchange_has_none() {
    let house = rated(CallerRates { changes: 1, ..CallerRates::default() });
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let task = house.authority.open_task(&agent, &terms(), &Some(("first".into(), [1; 32])), false).await.unwrap();
        let child = mayfly::policy::exchange_request::TaskRequest {
            parent: Some(task),
            callers: vec![agent.id().to_string()],
            ..terms()
        };
        house.authority.open_task(&agent, &child, &None, true).await.unwrap();
        house.authority.extend_task(&agent, (task, house.now().plus(1_000_000)), &None, 0).await.unwrap();
        for _ in 3..BURST {
            house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        }
        too_fast(house.authority.open_task(&agent, &terms(), &None, false).await, "changes_per_second");
        too_fast(house.authority.open_task(&agent, &child, &None, true).await, "changes_per_second");
        let later = house.now().plus(1_100_000);
        too_fast(house.authority.extend_task(&agent, (task, later), &None, 0).await, "changes_per_second");
        // A repeat opens no new task, and calls that issue are bounded by the ceilings.
        let again = house.authority.open_task(&agent, &terms(), &Some(("first".into(), [1; 32])), false).await.unwrap();
        assert_eq!(again, task);
        for _ in 0..2 * BURST {
            house.authority.exchange(&agent, &wanted(TaskChoice::Inline(terms().into()))).await.unwrap();
        }
    });
}

#[test]
fn signs_of_life_have_a_rate_of_their_own() {
    let house = rated(CallerRates { heartbeats: 1, changes: 1, ..CallerRates::default() });
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let task = house.authority.open_task(&agent, &terms_with_heartbeat(), &None, false).await.unwrap();
        while house.authority.open_task(&agent, &terms(), &None, false).await.is_ok() {}
        let beat = async || {
            let flush = async {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                house.authority.heartbeats.flush(&house.authority.ledger).await;
            };
            tokio::join!(house.authority.heartbeat(&agent, task), flush).0
        };
        for _ in 0..BURST {
            beat().await.unwrap();
        }
        too_fast(beat().await, "heartbeats_per_second");
        house.clock.advance(1_000);
        beat().await.unwrap();
    });
}

/// A caller that issues fast can end as fast, even under the tightest rates.
#[test]
fn ending_has_no_rate() {
    let house = rated(CallerRates { changes: 1, holds: 1, heartbeats: 1 });
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let own = Actor::Workload(agent.clone());
        for n in 0..4 * BURST {
            let issued = house.authority.exchange(&agent, &wanted(TaskChoice::Inline(terms().into()))).await.unwrap();
            let task = issued.summary().about.task;
            house.authority.release(&agent, id(&issued)).await.unwrap();
            let outcome = if n % 2 == 0 { TaskOutcome::Completed } else { TaskOutcome::Cancelled };
            house.authority.close_task(&own, task, outcome, "done").await.unwrap();
        }
    });
}

/// A rule lasts as long as what it ended would have, so a caller that ends at the rate at which it issues stays within its budget.
#[test]
fn a_rule_of_a_callers_own_act_goes_with_what_it_ended() {
    let margin = limits::VIEW_MAX_AGE_MS + 2 * limits::CLOCK_SKEW_MS;
    let house = bounded_house(AuthorityLimits { rules_per_caller: 5, ..AuthorityLimits::default() }, Quotas::FOLD);
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let own = Actor::Workload(agent.clone());
        let held = || house.authority.ledger.peek(|s| (s.rules.len(), s.rules_by_caller.get(agent.id().as_str()).copied()));
        let short = mayfly::policy::exchange_request::TaskRequest { ttl_ms: Some(120_000), ..terms() };
        for round in 0..10 {
            let issued = house.authority.exchange(&agent, &wanted(TaskChoice::Inline(short.clone().into()))).await.unwrap();
            house.authority.release(&agent, id(&issued)).await.unwrap();
            assert_eq!(held(), (1, Some(1)), "round {round}: the rule of the round before is gone");
            house.authority.close_task(&own, issued.summary().about.task, TaskOutcome::Completed, "done").await.unwrap();
            assert_eq!(held(), (2, Some(2)));
            house.clock.advance(60_000 + margin - 1_000);
            house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
            assert_eq!(held().0, 2, "until then both are kept");
            house.clock.advance(62_000);
            house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        }
    });
}

#[test]
fn what_is_revoked_already_is_given_back_without_another_rule() {
    let house = house();
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let task = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        let first = house.authority.exchange(&agent, &wanted(TaskChoice::Named(task))).await.unwrap();
        let second = house.authority.exchange(&agent, &wanted(TaskChoice::Named(task))).await.unwrap();
        let released = house.authority.release(&agent, id(&first)).await.unwrap();
        let seq = revoke(&house, Target::Caller(agent.id().as_str().into()), true).await;
        let rules = house.authority.ledger.peek(|s| s.rules.len());
        assert_eq!(house.authority.release(&agent, id(&second)).await.unwrap(), seq);
        assert_eq!(house.authority.release(&agent, id(&first)).await.unwrap(), released, "a repeat");
        assert_eq!(house.authority.ledger.peek(|s| s.rules.len()), rules);
    });
}

#[test]
fn with_rules_in_all_at_their_bound_callers_make_no_more_and_operators_do() {
    let house = bounded_house(AuthorityLimits { rules: 2, ..AuthorityLimits::default() }, Quotas::FOLD);
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let own = Actor::Workload(agent.clone());
        let task = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        let empty = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(id(&house.authority.exchange(&agent, &wanted(TaskChoice::Named(task))).await.unwrap()));
        }
        house.authority.release(&agent, held[0]).await.unwrap();
        house.authority.release(&agent, held[1]).await.unwrap();
        too_fast(house.authority.release(&agent, held[2]).await, "rules");
        too_fast(house.authority.close_task(&own, task, TaskOutcome::Completed, "done").await, "rules");
        house.authority.close_task(&own, empty, TaskOutcome::Completed, "it never issued: no rule").await.unwrap();
        house.authority.close_task(&Actor::Operator(Operator::LocalUid(1000)), task, TaskOutcome::Cancelled, "").await.unwrap();
        revoke(&house, Target::Tool("search".into()), true).await;
        let lives = house.authority.ledger.peek(|s| s.credentials.get(&held[2]).map(|l| l.expires_at()));
        assert!(lives.is_some_and(|end| end > Millis(0)));
    });
}

/// Counting the hits of an end visits all live credentials, so workloads must not be able to cause it as often as they like.
#[test]
fn ending_costs_a_workload_no_count_where_one_look_does_not_suffice() {
    let house = house();
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let own = Actor::Workload(agent.clone());
        let task = house.authority.open_task(&agent, &terms(), &None, false).await.unwrap();
        let ask = wanted(TaskChoice::Named(task));
        house.authority.exchange(&agent, &ask).await.unwrap();
        let told = house.authority.ends_with(&own, task).await.unwrap().unwrap();
        assert_eq!((told.credentials, told.tasks, told.callers), (1, 1, 1));
        assert_eq!(reason(house.authority.ends_with(&Actor::Workload(house.caller("/ci/demo")), task).await), Reason::NotFound);
        let many = vec![ask; limits::BATCH];
        for _ in 0..limits::LIST_WALK.div_ceil(limits::BATCH) {
            house.authority.exchange_all(&agent, &many).await.map_err(|(_, no)| no).unwrap();
        }
        assert_eq!(house.authority.ends_with(&own, task).await.unwrap(), None);
        let told = house.authority.ends_with(&Actor::Operator(Operator::LocalUid(1000)), task).await.unwrap().unwrap();
        assert!(told.credentials as usize > limits::LIST_WALK);
    });
}
