//! Consecutive batches on one connection: the decisions that they share never change an answer.

use std::collections::HashMap;
use std::sync::Arc;

use mayfly::credential::IssuedCredential;
use mayfly::credential::minted::CredentialDetails;
use mayfly::exchange::{BegunExchange, DecisionCache};
use mayfly::identity::caller::{Caller, Operator};
use mayfly::ledger::ProposalKind;
use mayfly::ledger::record::{Author, Event, PolicySetUpdated as PolicyRecord, Record, TaskOutcome};
use mayfly::limits;
use mayfly::policy::PolicySet;
use mayfly::policy::exchange_request::{ExchangeRequest, TaskChoice};
use mayfly::refusal::{Error, Reason};
use mayfly::revocation::Target;
use mayfly::seq::TaskId;
use mayfly::tasks::Actor;

use super::kit::house::{House, house, named, runtime, source, terms, wanted};
use super::{id, locks, reason, revoke};

const AGENT: &str = "spiffe://dev.mayfly.internal/agent/demo";

/// Runs one batch as a stream does: an exchange that the batch does not settle is decided individually.
async fn round(
    house: &House,
    caller: &Caller,
    wants: &[ExchangeRequest],
    lately: &DecisionCache,
) -> Vec<Result<IssuedCredential, Reason>> {
    let authority = &house.authority;
    let mut round = authority.begin_all(caller, wants.iter(), lately);
    let mut answers = authority.answers(&mut round).await;
    let mut all = Vec::new();
    for (begun, want) in std::mem::take(&mut round.begun).into_iter().zip(wants) {
        let end = match begun {
            Ok(BegunExchange::UnderWay(one)) => match authority.finish_of(one, &mut answers).await {
                Err(no) => {
                    lately.refused(&no);
                    if mayfly::authority::Authority::takes_another_look(&no) { None } else { Some(Err(no)) }
                }
                end => Some(end),
            },
            Ok(BegunExchange::Waits) => None,
            Err(no) => Some(Err(no)),
        };
        let end: Result<IssuedCredential, Error> = match end {
            Some(end) => end,
            None => authority.exchange(caller, want).await,
        };
        all.push(end.map_err(|no| reason(Err::<(), _>(no))));
    }
    all
}

async fn opened(house: &House, caller: &Caller) -> TaskId {
    house.authority.open_task(caller, &terms(), &None, false).await.unwrap()
}

fn about(of: &Result<IssuedCredential, Reason>) -> Arc<CredentialDetails> {
    of.as_ref().unwrap().summary().about.clone()
}

/// Puts the sample policies with an addition in effect.
async fn policy(house: &House, version: u64, more: &str) {
    let mut cedar = source("policy.cedar");
    cedar.text.push_str(more);
    let set = PolicySet::compile(vec![cedar], source("roles.toml")).unwrap();
    let record = PolicyRecord {
        environment: "dev".into(),
        version,
        digest: set.digest().to_vec(),
        text: set.to_text().to_owned(),
        ..PolicyRecord::default()
    };
    house
        .authority
        .ledger
        .commit(ProposalKind::Change, vec![Record::new(Author::LocalUid(0), Event::PolicySet(record))])
        .await
        .unwrap();
}

#[test]
#[cfg_attr(not(feature = "fast"), ignore = "a property of the fast path")]
fn a_round_shares_what_the_one_before_it_decided_for_some_milliseconds() {
    let house = house();
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let task = opened(&house, &agent).await;
        let wants =
            [wanted(TaskChoice::Named(task)), ExchangeRequest { tool: "other".into(), ..wanted(TaskChoice::Named(task)) }];
        let lately = DecisionCache::default();
        let first = round(&house, &agent, &wants, &lately).await;
        assert!(Arc::ptr_eq(&about(&first[0]), &about(&first[1])));
        house.clock.advance(limits::SERIES_LASTS_MS);
        let second = round(&house, &agent, &wants, &lately).await;
        assert!(Arc::ptr_eq(&about(&first[0]), &about(&second[1])), "the same decision");
        assert_ne!(id(second[0].as_ref().unwrap()), id(first[0].as_ref().unwrap()));
        house.clock.advance(1);
        let third = round(&house, &agent, &wants, &lately).await;
        assert!(!Arc::ptr_eq(&about(&first[0]), &about(&third[0])), "it is too old");
        assert!(about(&third[0]).issued_at > about(&second[0]).issued_at);
        assert!(about(&third[0]).revision > about(&second[0]).revision);

        // Another session of the same workload shares nothing, even if it is given the cache.
        let again = house.caller("/agent/demo");
        let theirs = round(&house, &again, &wants, &lately).await;
        assert!(!Arc::ptr_eq(&about(&third[0]), &about(&theirs[0])));
        let fourth = round(&house, &agent, &wants, &DecisionCache::default()).await;
        assert!(!Arc::ptr_eq(&about(&third[0]), &about(&fourth[0])));
    });
}

#[test]
fn what_changes_between_two_rounds_is_seen_by_the_second() {
    let house = house();
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let task = opened(&house, &agent).await;
        let with = |tool: &str| ExchangeRequest { tool: tool.into(), ..wanted(TaskChoice::Named(task)) };
        let wants = [with("one"), with("two")];
        let lately = DecisionCache::default();
        let told = async || round(&house, &agent, &wants, &lately).await.into_iter().map(|end| end.map(drop)).collect::<Vec<_>>();
        assert_eq!(told().await, [Ok(()), Ok(())]);

        revoke(&house, Target::Tool("two".into()), false).await;
        assert_eq!(told().await, [Ok(()), Err(Reason::Locked)]);
        house.authority.lift(&locks(&house), &[Target::Tool("two".into())], "fine", &None).await.unwrap();
        assert_eq!(told().await, [Ok(()), Ok(())]);

        let actor = Actor::Operator(Operator::LocalUid(1000));
        house.authority.hold_task(&actor, task, "look into it", &None).await.unwrap();
        assert_eq!(told().await, [Err(Reason::TaskNotActive), Err(Reason::TaskNotActive)]);
        house.authority.resume_task(&actor, task, "fine", &None).await.unwrap();
        assert_eq!(told().await, [Ok(()), Ok(())]);

        // From now on policy reads request-specific values, so each request is decided individually; later it no longer does.
        policy(
            &house,
            2,
            "forbid (principal, action == Action::\"Exchange\", resource) when { context has tool && context.tool == \"one\" };",
        )
        .await;
        assert_eq!(told().await, [Err(Reason::DeniedByPolicy), Ok(())]);
        policy(&house, 3, "").await;
        assert_eq!(told().await, [Ok(()), Ok(())]);
        policy(&house, 4, "forbid (principal, action == Action::\"Exchange\", resource == Upstream::\"echo\");").await;
        assert_eq!(told().await, [Err(Reason::DeniedByPolicy), Err(Reason::DeniedByPolicy)]);
        policy(&house, 5, "").await;
        assert_eq!(told().await, [Ok(()), Ok(())]);

        revoke(&house, Target::Caller(AGENT.into()), false).await;
        assert_eq!(told().await, [Err(Reason::Locked), Err(Reason::Locked)]);
    });
}

#[test]
fn a_repeat_is_the_same_credential_also_where_nobody_looked_for_it_first() {
    let house = house();
    runtime().block_on(async {
        let agent = house.caller("/agent/demo");
        let task = opened(&house, &agent).await;
        let all =
            |from: usize| (from..from + 3).map(|n| named(wanted(TaskChoice::Named(task)), &format!("r-{n}"))).collect::<Vec<_>>();
        let ids =
            |ends: &[Result<IssuedCredential, Reason>]| ends.iter().map(|end| id(end.as_ref().unwrap())).collect::<Vec<_>>();
        let lately = DecisionCache::default();
        let first = ids(&round(&house, &agent, &all(0), &lately).await);
        // The first batch had no repeats, so in the next one the fold finds them.
        assert_eq!(ids(&round(&house, &agent, &all(0), &lately).await), first);
        // After that, repeats are found before anything is made.
        let again = all(0);
        let seen = house.authority.begin_all(&agent, again.iter(), &lately);
        assert!(seen.begun.iter().all(|begun| matches!(begun, Ok(BegunExchange::Waits))));
        drop(seen);
        let others = ids(&round(&house, &agent, &all(10), &lately).await);
        assert!(others.iter().all(|id| !first.contains(id)));

        // A repeat gets its earlier answer, whatever the decision is now.
        policy(&house, 2, "forbid (principal, action == Action::\"Exchange\", resource == Upstream::\"echo\");").await;
        assert_eq!(ids(&round(&house, &agent, &all(0), &lately).await), first);
        let fresh = DecisionCache::default();
        assert!(round(&house, &agent, &all(20), &fresh).await.iter().all(|end| matches!(end, Err(Reason::DeniedByPolicy))));
        assert_eq!(ids(&round(&house, &agent, &all(0), &fresh).await), first);
    });
}

/// A reproducible random generator (xorshift64*).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }
}

const TOOLS: [&str; 3] = ["one", "two", "three"];

#[test]
#[cfg_attr(not(feature = "fast"), ignore = "a property of the fast path")]
fn whatever_happens_between_rounds_each_is_told_what_it_is_told_by_itself() {
    let mut shared = 0;
    for seed in 1..=24u64 {
        let house = house();
        shared += runtime().block_on(of_a_seed(&house, seed));
    }
    assert!(shared > 50, "{shared} rounds shared a decision: the rest of this test says little");
}

/// The number of batches that shared a decision with an earlier one.
async fn of_a_seed(house: &House, seed: u64) -> usize {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let (agent, lately) = (house.caller("/agent/demo"), DecisionCache::default());
    let op = Actor::Operator(Operator::LocalUid(1000));
    let mut tasks = vec![opened(house, &agent).await];
    let (mut version, mut shared, mut asked) = (1, 0, 0);
    let mut decisions: HashMap<*const CredentialDetails, (usize, Arc<CredentialDetails>)> = HashMap::new();
    for step in 0..60 {
        let n = usize::try_from(dice.below(tasks.len() as u64)).unwrap();
        let (task, tool) = (tasks[n], TOOLS[usize::try_from(dice.below(3)).unwrap()]);
        match dice.below(24) {
            0 => drop(revoke(house, Target::Tool(tool.into()), dice.below(2) == 0).await),
            1 => drop(house.authority.lift(&locks(house), &[Target::Tool(tool.into())], "fine", &None).await),
            2 => drop(revoke(house, Target::Task(task), true).await),
            3 => drop(house.authority.hold_task(&op, task, "look", &None).await),
            4 => drop(house.authority.resume_task(&op, task, "fine", &None).await),
            5 => drop(house.authority.close_task(&op, task, TaskOutcome::Completed, "done").await),
            6 if dice.below(3) == 0 => drop(revoke(house, Target::Caller(AGENT.into()), true).await),
            7 | 8 => {
                if let Ok(task) = house.authority.open_task(&agent, &terms(), &None, false).await {
                    tasks.push(task);
                }
            }
            9 => house.clock.advance(dice.below(40)),
            10 => {
                version += 1;
                let more = match dice.below(4) {
                    0 => {
                        "forbid (principal, action == Action::\"Exchange\", resource) when { context has tool && context.tool == \"one\" };"
                    }
                    1 => "forbid (principal, action == Action::\"Exchange\", resource == Upstream::\"echo\");",
                    _ => "",
                };
                policy(house, version, more).await;
            }
            _ => {}
        }
        let (mut wants, before) = (Vec::new(), asked);
        for _ in 0..=dice.below(5) {
            // Mostly the newest task, as in production.
            let task = if dice.below(4) > 0 { tasks[tasks.len() - 1] } else { task };
            let tool = TOOLS[usize::try_from(dice.below(3)).unwrap()];
            let want = ExchangeRequest { tool: tool.into(), ..wanted(TaskChoice::Named(task)) };
            wants.push(match dice.below(4) {
                0 => want,
                1 if before == 0 => want,
                // A request id of an earlier batch, perhaps with another task and tool.
                1 => named(want, &format!("r-{}", 1 + dice.below(before))),
                _ => {
                    asked += 1;
                    named(want, &format!("r-{asked}"))
                }
            });
        }
        let ends = round(house, &agent, &wants, &lately).await;
        for (want, end) in wants.iter().zip(&ends) {
            let alone = house.authority.exchange(&agent, want).await.map_err(|no| reason(Err::<(), _>(no)));
            let same = match (end, &alone) {
                (Ok(one), Ok(other)) => want.request_id.is_none() || id(one) == id(other),
                (Err(one), Err(other)) => one == other,
                _ => false,
            };
            let text = |end: &Result<IssuedCredential, Reason>| format!("{:?}", end.as_ref().map(id));
            assert!(same, "seed {seed}, step {step}: {} in its round, {} alone, for {want:?}", text(end), text(&alone));
        }
        let found: Vec<Arc<CredentialDetails>> = ends.iter().flatten().map(|issued| issued.summary().about.clone()).collect();
        shared += usize::from(found.iter().any(|about| decisions.get(&Arc::as_ptr(about)).is_some_and(|(then, _)| *then < step)));
        for about in found {
            decisions.entry(Arc::as_ptr(&about)).or_insert((step, about));
        }
    }
    shared
}
