//! Attacks on task extensions and on tasks opened with an exchange: each needs an approval of its own.

use super::waits::{AGENT, Waiting, give, grouped, shown};
use super::*;
use mayfly_verify::seq::TaskId;

/// A task that can be extended; opened with an approval, or without.
fn extendable(log: &mut Log, approved: bool) -> Vec<u8> {
    let waiting = Waiting::new(log, |opened, asked| {
        opened.max_deadline += 600_000;
        asked.terms = Some(Box::new(shown(opened)));
        asked.digest = digest_of_task(asked).to_vec();
    });
    let mut records = waiting.records.clone();
    if !approved {
        records.truncate(1);
        if let Some(Event::TaskOpened(e)) = &mut records[0].event {
            e.approval.clear();
        }
    }
    log.put(records).into_iter().for_each(Result::unwrap);
    if approved {
        give(log, &waiting.approval).unwrap();
    }
    waiting.task
}

fn more(log: &mut Log, task: &[u8], by: u64) -> (Vec<u8>, Record) {
    let (approval, mut ask) = asked(log, task);
    let known = log.state.tasks.get(&TaskId::from_slice(task).unwrap()).unwrap();
    let terms = RequestedTask {
        owner: known.terms.owners.last().cloned(),
        allowance: Some((*known.terms.allowance).clone()),
        ttl: known.deadline.0 + by - known.terms.opened_at.0,
        registrations: vec![RequestedRegistration { upstream: "echo".into(), version: 1 }],
        deadline: known.deadline.0 + by,
        ..Default::default()
    };
    if let Some(Event::ApprovalAsked(e)) = &mut ask.event {
        (e.of, e.opens, e.terms) = (ApprovalKind::Extension as i32, false, Some(Box::new(terms)));
        e.digest = digest_of_task(e).to_vec();
    }
    (approval, ask)
}

fn approved_more(log: &mut Log, task: &[u8], by: u64) -> Vec<u8> {
    let (approval, ask) = more(log, task, by);
    log.put(vec![ask])[0].clone().unwrap();
    give(log, &approval).unwrap();
    approval
}

fn extension(log: &Log, task: &[u8], by: u64, approval: &[u8]) -> TaskExtended {
    let deadline = log.state.tasks.get(&TaskId::from_slice(task).unwrap()).unwrap().deadline.0 + by;
    TaskExtended {
        task: task.to_vec(),
        deadline,
        decided_at: log.time.0,
        policy_version: 1,
        approval: approval.to_vec(),
        caller: AGENT.into(),
    }
}

fn extends(log: &mut Log, extended: TaskExtended) -> Verdict {
    let record = Record::new(Author::SpiffeId(AGENT.into()), Event::TaskExtended(extended)).decided_at(log.state.head);
    log.put(vec![record])[0].clone()
}

#[test]
fn what_was_opened_with_an_approval_gets_more_time_with_another_one() {
    let mut log = Log::new();
    let plain = extendable(&mut log, false);
    let without = extension(&log, &plain, 1_000, &[]);
    extends(&mut log, without).unwrap();
    let task = extendable(&mut log, true);
    let without = extension(&log, &task, 1_000, &[]);
    assert_eq!(reason(&extends(&mut log, without)), Reason::ApprovalNeeded);
    let first = log.state.tasks.get(&TaskId::from_slice(&task).unwrap()).unwrap().approved.clone().unwrap().id;
    let with_the_first = extension(&log, &task, 1_000, first.as_bytes());
    assert_eq!(reason(&extends(&mut log, with_the_first)), Reason::ApprovalNeeded, "it was used to open it");
    let approval = approved_more(&mut log, &task, 1_000);
    let with = extension(&log, &task, 1_000, &approval);
    extends(&mut log, with).unwrap();
    let again = extension(&log, &task, 1_000, &approval);
    assert_eq!(reason(&extends(&mut log, again)), Reason::ApprovalNeeded, "once");
}

#[test]
fn more_time_is_for_this_task_this_deadline_and_who_asked_and_once_also_within_a_group() {
    let mut log = Log::new();
    let (task, other) = (extendable(&mut log, true), extendable(&mut log, true));
    let approval = approved_more(&mut log, &task, 1_000);
    let changes: [Defect<TaskExtended>; 3] = [
        ("later", |e| e.deadline += 1),
        ("earlier", |e| e.deadline -= 1),
        ("another caller", |e| e.caller = "spiffe://a.example/other".into()),
    ];
    for (what, change) in changes {
        let mut extended = extension(&log, &task, 1_000, &approval);
        change(&mut extended);
        assert_eq!(reason(&extends(&mut log, extended)), Reason::ApprovalNeeded, "{what}");
    }
    let other_task = extension(&log, &other, 1_000, &approval);
    assert_eq!(reason(&extends(&mut log, other_task)), Reason::ApprovalNeeded, "another task");
    let issue = log.issue(&task);
    let used = Record {
        event: issue.event.clone().map(|event| match event {
            Event::Issued(e) => Event::Issued(Box::new(CredentialIssued { approval: approval.clone(), ..*e })),
            other => other,
        }),
        ..issue
    };
    assert_eq!(reason(&log.put(vec![used])[0]), Reason::ApprovalNeeded, "it issues nothing");
    // Two writers use the approval at once.
    let record = |log: &Log| {
        let extended = extension(log, &task, 1_000, &approval);
        Record::new(Author::SpiffeId(AGENT.into()), Event::TaskExtended(extended)).decided_at(log.state.head)
    };
    let together = grouped(vec![record(&log), record(&log)]);
    assert!(log.put(together).iter().all(|v| reason(v) == Reason::ApprovalNeeded));
    let verdicts = log.put(vec![record(&log), record(&log)]);
    assert!(verdicts[0].is_ok());
    assert_eq!(reason(&verdicts[1]), Reason::ApprovalNeeded);
}

#[test]
fn what_was_revoked_since_more_time_was_approved_revokes_that() {
    let mut log = Log::new();
    let task = extendable(&mut log, false);
    let approval = approved_more(&mut log, &task, 1_000);
    log.revoke(Target::Caller("spiffe://a.example/other".into()), true);
    let other = extendable(&mut log, false);
    let fresh = approved_more(&mut log, &other, 1_000);
    let set = PolicySetUpdated { environment: "dev".into(), version: 2, ..Default::default() };
    log.put(vec![by_operator(Event::PolicySet(set))])[0].clone().unwrap();
    let target = Target::PolicyBelow("dev".into(), 2);
    log.revoke(target, true);
    for (task, approval) in [(task, approval), (other, fresh)] {
        let extended = TaskExtended { policy_version: 2, ..extension(&log, &task, 1_000, &approval) };
        assert_eq!(reason(&extends(&mut log, extended)), Reason::Revoked);
    }
    let plain = {
        let mut record = log.task(&[]);
        if let Some(Event::TaskOpened(e)) = &mut record.event {
            (e.policy_version, e.max_deadline) = (2, e.max_deadline + 600_000);
        }
        let id = id_of(&record);
        log.put(vec![record])[0].clone().unwrap();
        id
    };
    let approval = approved_more(&mut log, &plain, 1_000);
    let changed = UpstreamUpdated { name: "echo".into(), version: 2, ..Default::default() };
    log.put(vec![by_operator(Event::UpstreamSet(changed))])[0].clone().unwrap();
    let extended = TaskExtended { policy_version: 2, ..extension(&log, &plain, 1_000, &approval) };
    assert_eq!(reason(&extends(&mut log, extended)), Reason::DecidedOnOldState, "others may be named now");
}

#[test]
fn more_time_is_asked_for_a_task_as_it_is() {
    let mut log = Log::new();
    let task = extendable(&mut log, false);
    let changes: [Defect<RequestedTask>; 5] = [
        ("another reach", |t| t.allowance = None),
        ("another owner", |t| t.owner = Some(ada())),
        ("another purpose", |t| t.purpose = "else".into()),
        ("no deadline", |t| t.deadline = 0),
        ("nobody's registration", |t| t.registrations.clear()),
    ];
    for (what, change) in changes {
        let (_, mut ask) = more(&mut log, &task, 1_000);
        if let Some(Event::ApprovalAsked(e)) = &mut ask.event {
            change(e.terms.as_mut().unwrap());
            e.digest = digest_of_task(e).to_vec();
        }
        assert_eq!(reason(&log.put(vec![ask])[0]), Reason::InvalidField, "{what}");
    }
}

/// A task opened with an issuance that uses up an approval.
fn inline(log: &mut Log, approval: &[u8], change: impl Fn(&mut TaskOpened)) -> Vec<Record> {
    let mut opening = log.task(&[]);
    let task = id_of(&opening);
    if let Some(Event::TaskOpened(e)) = &mut opening.event {
        change(e);
    }
    let mut issue = log.issue(&task);
    if let Some(Event::Issued(e)) = &mut issue.event {
        e.approval = approval.to_vec();
    }
    grouped(vec![opening, issue])
}

pub(super) fn asked_inline(log: &mut Log) -> Vec<u8> {
    let opening = log.task(&[]);
    let Some(Event::TaskOpened(opened)) = &opening.event else { panic!("no opening") };
    let terms = shown(opened);
    let (approval, mut ask) = asked(log, &[]);
    if let Some(Event::ApprovalAsked(e)) = &mut ask.event {
        e.terms = Some(Box::new(terms));
    }
    log.put(vec![ask])[0].clone().unwrap();
    let give = given(log, &approval);
    log.put(vec![give])[0].clone().unwrap();
    approval
}

#[test]
fn a_task_that_is_opened_with_an_exchange_is_the_one_that_was_approved_with_it() {
    let mut log = Log::new();
    let approval = asked_inline(&mut log);
    let changes: [Defect<TaskOpened>; 7] = [
        ("a wider scope", |o| o.allowance.as_mut().unwrap().upstreams[0].scopes.push("write".into())),
        ("another upstream", |o| {
            o.allowance.as_mut().unwrap().upstreams.push(AllowedUpstream { name: "mail".into(), scopes: vec!["send".into()] });
        }),
        ("any tool", |o| o.allowance.as_mut().unwrap().any_tool = true),
        ("another caller", |o| o.callers.push("spiffe://a.example/other".into())),
        ("another owner", |o| o.owner = Some(ada())),
        ("a longer life", |o| o.max_deadline += 1),
        ("no heartbeat", |o| o.heartbeat = 5_000),
    ];
    for (what, change) in changes {
        let group = inline(&mut log, &approval, change);
        assert!(log.put(group).iter().all(|v| reason(v) == Reason::ApprovalNeeded), "{what}");
    }
    let group = inline(&mut log, &approval, |_| {});
    let task = id_of(&group[0]);
    log.put(group).into_iter().for_each(Result::unwrap);
    let group = inline(&mut log, &approval, |_| {});
    assert!(log.put(group).iter().all(|v| reason(v) == Reason::ApprovalNeeded), "once");
    let opened_with = log.state.tasks.get(&TaskId::from_slice(&task).unwrap()).unwrap().approved.as_ref().unwrap().id;
    assert_eq!(opened_with.as_bytes()[..], approval[..], "more time takes another one");
}
