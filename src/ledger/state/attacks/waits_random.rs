//! A waiting task under random sequences of other records.

use proptest::prelude::*;

use super::waits::{AGENT, Waiting, decides};
use super::*;

#[derive(Clone, Copy, Debug)]
enum Step {
    Give(bool),
    Issue,
    Revoke,
    SetPolicy,
    Register,
    Wait(u16),
    Cancel,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => any::<bool>().prop_map(Step::Give),
        3 => Just(Step::Issue),
        1 => Just(Step::Revoke),
        1 => Just(Step::SetPolicy),
        1 => Just(Step::Register),
        2 => (0_u16..20_000).prop_map(Step::Wait),
        1 => Just(Step::Cancel),
    ];
    proptest::collection::vec(step, 1..14)
}

proptest! {
    /// In any sequence of records: nothing is issued in a waiting task unless somebody gave the approval in time, with nothing revoked or
    /// changed between the request and the approval, and no approval is given twice.
    #[test]
    fn nothing_is_issued_in_a_task_that_nobody_approved(steps in steps()) {
        let mut log = Log::new();
        let waiting = Waiting::new(&mut log, |opened, asked| {
            asked.expires_at = opened.deadline - 20_000;
            asked.digest = digest_of_task(asked).to_vec();
        });
        log.put(waiting.records.clone()).into_iter().for_each(Result::unwrap);
        let (asked_at, mut policy, mut upstream) = (log.time, 1, 1);
        let (mut stopped, mut revoked, mut decided, mut given, mut over) = (false, false, false, false, false);
        for step in steps {
            match step {
                Step::Give(yes) => {
                    let record = decides(&log, Author::Person(ada()), &waiting.approval, yes);
                    let timely = log.time.since(asked_at) < 40_000 && !over;
                    let verdict = log.put(vec![record])[0].clone();
                    if yes {
                        prop_assert_eq!(verdict.is_ok(), !decided && timely && !stopped);
                        given |= verdict.is_ok();
                    }
                    decided |= verdict.is_ok();
                    over |= verdict.is_ok() && !yes;
                }
                Step::Issue => {
                    let mut issue = log.issue(&waiting.task);
                    if let Some(Event::Issued(e)) = &mut issue.event {
                        (e.policy_version, e.upstream_version) = (policy, upstream);
                        (e.expires_at, e.renewable_until) = (e.issued_at + 1, e.issued_at + 1);
                    }
                    let alive = given && !over && !revoked && log.time.since(asked_at) < 59_999;
                    prop_assert_eq!(log.put(vec![issue])[0].is_ok(), alive);
                }
                Step::Revoke => {
                    log.revoke(Target::Caller(AGENT.into()), true);
                    (stopped, revoked) = (true, true);
                }
                Step::SetPolicy => {
                    policy += 1;
                    let set = PolicySetUpdated { environment: "dev".into(), version: policy, ..Default::default() };
                    log.put(vec![by_operator(Event::PolicySet(set))])[0].clone().unwrap();
                    stopped = true;
                }
                Step::Register => {
                    upstream += 1;
                    let set = UpstreamUpdated { name: "echo".into(), version: upstream, ..Default::default() };
                    log.put(vec![by_operator(Event::UpstreamSet(set))])[0].clone().unwrap();
                    stopped = true;
                }
                Step::Wait(ms) => {
                    log.time = log.time.plus(ms.into());
                    log.put(vec![note()]);
                }
                Step::Cancel => {
                    let closed = TaskClosed { task: waiting.task.clone(), outcome: TaskOutcome::Cancelled as i32, ..Default::default() };
                    over |= log.put(vec![by_operator(Event::TaskClosed(closed))])[0].is_ok();
                }
            }
        }
    }
}
