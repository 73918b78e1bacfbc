//! Attacks on tasks that wait for an approval, which is given by another person, for these terms, once.

use super::*;
use mayfly_verify::seq::TaskId;

pub(super) const AGENT: &str = "spiffe://a.example/agent";

/// A waiting task with its approval request, as a group.
pub(super) struct Waiting {
    pub(super) task: Vec<u8>,
    pub(super) approval: Vec<u8>,
    pub(super) records: Vec<Record>,
}

impl Waiting {
    pub(super) fn new(log: &mut Log, change: impl Fn(&mut TaskOpened, &mut ApprovalRequested)) -> Waiting {
        let (approval, mut ask) = asked(log, &[]);
        let mut opening = log.task(&[]);
        let task = id_of(&opening);
        let (Some(Event::TaskOpened(opened)), Some(Event::ApprovalAsked(asked))) = (&mut opening.event, &mut ask.event) else {
            panic!("no opening")
        };
        opened.approval.clone_from(&approval);
        (asked.of, asked.opens, asked.task) = (ApprovalKind::Task as i32, false, task.clone());
        asked.terms = Some(Box::new(shown(opened)));
        asked.digest = digest_of_task(asked).to_vec();
        change(opened, asked);
        Waiting { task, approval, records: grouped(vec![opening, ask]) }
    }

    fn put(log: &mut Log) -> Waiting {
        let waiting = Waiting::new(log, |_, _| {});
        log.put(waiting.records.clone()).into_iter().for_each(Result::unwrap);
        waiting
    }

    fn phase(&self, log: &Log) -> TaskPhase {
        phase(log, &self.task)
    }
}

pub(super) fn phase(log: &Log, task: &[u8]) -> TaskPhase {
    log.state.tasks.phase(log.state.tasks.get(&TaskId::from_slice(task).unwrap()).unwrap(), log.time)
}

pub(super) fn shown(opened: &TaskOpened) -> RequestedTask {
    let registrations = vec![RequestedRegistration { upstream: "echo".into(), version: 1 }];
    RequestedTask { registrations, ..RequestedTask::opening(opened, &opened.allowance.clone().unwrap_or_default()) }
}

pub(super) fn grouped(records: Vec<Record>) -> Vec<Record> {
    records.into_iter().map(|r| Record { group: 5, ..r }).collect()
}

/// A decision by somebody who saw the approval request.
pub(super) fn decides(log: &Log, who: Author, approval: &[u8], given: bool) -> Record {
    let digest = log.state.approvals[&ApprovalId::from_slice(approval).unwrap()].asked.digest.clone();
    let decided = ApprovalDecided { approval: approval.to_vec(), given, digest, ..Default::default() };
    Record::new(who, Event::ApprovalDecided(decided)).decided_at(log.state.head)
}

pub(super) fn give(log: &mut Log, approval: &[u8]) -> Verdict {
    let record = decides(log, Author::Person(ada()), approval, true);
    log.put(vec![record])[0].clone()
}

fn issues(log: &mut Log, task: &[u8]) -> Verdict {
    let issue = log.issue(task);
    log.put(vec![issue])[0].clone()
}

#[test]
fn a_task_that_waits_opens_with_its_approval_and_is_over_without() {
    let mut log = Log::new();
    let waiting = Waiting::put(&mut log);
    assert_eq!(waiting.phase(&log), TaskPhase::PendingApproval);
    assert_eq!(reason(&issues(&mut log, &waiting.task)), Reason::TaskNotActive);
    let below = log.task(&waiting.task);
    assert_eq!(reason(&log.put(vec![below])[0]), Reason::TaskNotActive, "nothing is opened below it");
    give(&mut log, &waiting.approval).unwrap();
    issues(&mut log, &waiting.task).unwrap();
    assert_eq!(reason(&give(&mut log, &waiting.approval)), Reason::AlreadyExists);
    let other = Waiting::put(&mut log);
    let refuse = decides(&log, Author::Person(ada()), &other.approval, false);
    log.put(vec![refuse])[0].clone().unwrap();
    assert_eq!(other.phase(&log), TaskPhase::Over(TaskOutcome::Cancelled));
    assert_eq!(reason(&issues(&mut log, &other.task)), Reason::TaskNotActive);
    assert_eq!(reason(&give(&mut log, &other.approval)), Reason::AlreadyExists);
}

#[test]
fn two_who_give_it_at_once_open_it_once() {
    let mut log = Log::new();
    let waiting = Waiting::put(&mut log);
    let gives = || decides(&log, Author::Person(ada()), &waiting.approval, true);
    let refuses = decides(&log, Author::Person(ada()), &waiting.approval, false);
    let verdicts = log.put(vec![gives(), gives(), refuses]);
    assert!(verdicts[0].is_ok());
    assert!(verdicts[1..].iter().all(|v| reason(v) == Reason::AlreadyExists), "{verdicts:?}");
    assert_eq!(waiting.phase(&log), TaskPhase::Active);
}

#[test]
fn nothing_waits_for_what_nobody_was_asked_or_was_asked_for_less() {
    let mut log = Log::new();
    type Both = (&'static str, fn(&mut TaskOpened, &mut ApprovalRequested));
    let changes: [Both; 13] = [
        ("a wider scope", |o, _| o.allowance.as_mut().unwrap().upstreams[0].scopes.push("write".into())),
        ("any tool", |o, _| o.allowance.as_mut().unwrap().any_tool = true),
        ("another caller", |o, _| o.callers.push("spiffe://a.example/other".into())),
        ("another purpose", |o, _| o.purpose = "else".into()),
        ("another owner", |o, _| o.owner = Some(ada())),
        ("a longer life", |o, _| o.max_deadline += 1),
        ("an earlier end of it", |o, _| o.deadline -= 1),
        ("no heartbeat", |o, _| o.heartbeat = 5_000),
        ("another opener", |o, _| o.opener = "spiffe://a.example/other".into()),
        ("another approval", |o, _| o.approval = vec![99; 16]),
        ("nobody's registration", |_, a| a.terms.as_mut().unwrap().registrations.clear()),
        ("a registration that is not in force", |_, a| a.terms.as_mut().unwrap().registrations[0].version = 2),
        ("another digest", |_, a| a.digest[0] ^= 1),
    ];
    for (what, change) in changes {
        let waiting = Waiting::new(&mut log, change);
        assert!(log.put(waiting.records).iter().all(Result::is_err), "{what}");
    }
    // The digest covers everything that is shown to the approver.
    let shown: [Defect<ApprovalRequested>; 4] = [
        ("other approvers", |a| a.approvers.push(ada())),
        ("another upstream", |a| a.upstream = "other".into()),
        ("another subject", |a| a.subject = Some(ada())),
        ("another life", |a| a.ttl += 1),
    ];
    for (what, change) in shown {
        let waiting = Waiting::new(&mut log, |_, a| change(a));
        assert!(log.put(waiting.records).iter().all(Result::is_err), "{what}");
    }
    let alone = Waiting::new(&mut log, |_, _| {});
    for record in alone.records.clone() {
        assert!(log.put(vec![Record { group: 0, ..record }])[0].is_err(), "one without the other");
    }
    log.put(alone.records).into_iter().for_each(Result::unwrap);
    // A second approval request for the same task is refused; otherwise only approvers who agree might be asked.
    let (other, mut ask) = asked(&mut log, &alone.task);
    if let Some(Event::ApprovalAsked(e)) = &mut ask.event {
        e.terms = log.state.approvals[&ApprovalId::from_slice(&alone.approval).unwrap()].asked.terms.clone();
        (e.of, e.approval) = (ApprovalKind::Task as i32, other);
        e.digest = digest_of_task(e).to_vec();
    }
    assert_eq!(reason(&log.put(vec![ask])[0]), Reason::InvalidField);
}

#[test]
fn nobody_opens_it_who_opened_owns_or_may_act_in_it_or_is_not_named() {
    let mut log = Log::new();
    let by = |log: &mut Log, waiting: &Waiting, who: Author| {
        let record = decides(log, who, &waiting.approval, true);
        log.put(vec![record])[0].clone()
    };
    let named = |ids: [&str; 2]| ids.map(|id| Principal { issuer: "a.example".into(), sub: id.into() }).to_vec();
    let waiting = Waiting::new(&mut log, |opened, asked| {
        opened.callers = vec!["spiffe://a.example/tools".into()];
        asked.terms = Some(Box::new(shown(opened)));
        asked.approvers = named([AGENT, "spiffe://a.example/tools"]);
        asked.approvers.push(ada());
        asked.digest = digest_of_task(asked).to_vec();
    });
    log.put(waiting.records.clone()).into_iter().for_each(Result::unwrap);
    for who in [AGENT, "spiffe://a.example/tools", "spiffe://a.example/nobody"] {
        assert_eq!(reason(&by(&mut log, &waiting, Author::SpiffeId(who.into()))), Reason::NotYours, "{who}");
    }
    assert_eq!(reason(&by(&mut log, &waiting, Author::LocalUid(0))), Reason::NotYours);
    by(&mut log, &waiting, Author::Person(ada())).unwrap();
    // Opened on behalf of a subject: the subject's own approval does not open the task.
    let hers = Waiting::new(&mut log, |opened, asked| {
        opened.owner = Some(ada());
        asked.terms = Some(Box::new(shown(opened)));
        asked.digest = digest_of_task(asked).to_vec();
    });
    log.put(hers.records.clone()).into_iter().for_each(Result::unwrap);
    assert_eq!(reason(&by(&mut log, &hers, Author::Person(ada()))), Reason::NotYours);
}

#[test]
fn what_was_revoked_or_changed_since_it_was_asked_for_does_not_open() {
    type Stop = (&'static str, fn(&mut Log), Reason);
    let stops: [Stop; 5] = [
        ("the opener's credentials", |log| log.revoke(Target::Caller(AGENT.into()), true), Reason::Revoked),
        ("the opener, for good", |log| log.revoke(Target::Caller(AGENT.into()), false), Reason::Locked),
        ("the evidence", |log| log.revoke(Target::TrustAnchor([9; 32]), true), Reason::Revoked),
        (
            "the policy",
            |log| {
                let set = PolicySetUpdated { environment: "dev".into(), version: 2, ..Default::default() };
                log.put(vec![by_operator(Event::PolicySet(set))])[0].clone().unwrap();
            },
            Reason::DecidedOnOldState,
        ),
        (
            "who may approve",
            |log| {
                let changed = UpstreamUpdated { name: "echo".into(), version: 2, ..Default::default() };
                log.put(vec![by_operator(Event::UpstreamSet(changed))])[0].clone().unwrap();
            },
            Reason::DecidedOnOldState,
        ),
    ];
    for (what, stop, why) in stops {
        let mut log = Log::new();
        let waiting = Waiting::put(&mut log);
        stop(&mut log);
        assert_eq!(reason(&give(&mut log, &waiting.approval)), why, "{what}");
        assert_eq!(waiting.phase(&log), TaskPhase::PendingApproval, "{what}");
    }
}

#[test]
fn nobody_gives_it_late_and_a_task_that_nobody_approved_in_time_is_over() {
    let mut log = Log::new();
    let waiting = Waiting::new(&mut log, |opened, asked| {
        asked.expires_at = opened.deadline - 30_000;
        asked.digest = digest_of_task(asked).to_vec();
    });
    log.put(waiting.records.clone()).into_iter().for_each(Result::unwrap);
    log.time = log.time.plus(29_000);
    log.put(vec![note()]);
    let lapses = || {
        let closed = TaskClosed { task: waiting.task.clone(), outcome: TaskOutcome::Expired as i32, ..Default::default() };
        Record::new(Author::Mayfly("approval not given".into()), Event::TaskClosed(closed))
    };
    assert_eq!(reason(&log.put(vec![lapses()])[0]), Reason::TaskNotActive, "there is time left");
    log.time = log.time.plus(1_000);
    assert_eq!(reason(&give(&mut log, &waiting.approval)), Reason::ApprovalNeeded);
    assert_eq!(waiting.phase(&log), TaskPhase::Over(TaskOutcome::Expired));
    log.put(vec![lapses()])[0].clone().unwrap();
}

#[test]
fn nobody_has_to_show_life_in_a_task_that_waits() {
    let mut log = Log::new();
    let waiting = Waiting::new(&mut log, |opened, asked| {
        opened.heartbeat = 5_000;
        asked.terms = Some(Box::new(shown(opened)));
        asked.digest = digest_of_task(asked).to_vec();
    });
    log.put(waiting.records.clone()).into_iter().for_each(Result::unwrap);
    log.time = log.time.plus(20_000);
    give(&mut log, &waiting.approval).unwrap();
    log.time = log.time.plus(5_000);
    issues(&mut log, &waiting.task).unwrap();
    log.time = log.time.plus(1);
    assert_eq!(waiting.phase(&log), TaskPhase::Over(TaskOutcome::Expired), "from then on somebody has");
}
