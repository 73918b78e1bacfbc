//! Attacks on authorizations: actions are decided like issuances, and reports count only for what was authorized or issued.

use super::*;
use mayfly_base::limits;
use mayfly_verify::seq::{CredentialId, TaskId};

/// An authorization with the contents of what [`Log::issue`] would issue.
pub(super) fn action(log: &mut Log, task: &[u8], change: impl Fn(&mut ActionAuthorized)) -> Record {
    let mut record = log.issue(task);
    let Some(Event::Issued(issued)) = record.event.take() else { panic!("no issuance") };
    let decided = CredentialIssued { credential: Vec::new(), key: String::new(), ..*issued };
    let mut e = ActionAuthorized {
        tool: decided.tool.clone(),
        arguments: decided.arguments.clone(),
        policy_version: decided.policy_version,
        good_until: log.time.0 + 1_000,
        decided: Some(Box::new(decided)),
        ..Default::default()
    };
    change(&mut e);
    record.event = Some(Event::Authorized(e));
    record.request = None;
    record
}

fn put(log: &mut Log, task: &[u8], change: impl Fn(&mut ActionAuthorized)) -> Verdict {
    let record = action(log, task, change);
    log.put(vec![record])[0].clone()
}

fn authorized(log: &Log, task: &[u8]) -> u64 {
    log.state.tasks.get(&TaskId::from_slice(task).unwrap()).unwrap().done.authorized
}

#[test]
fn an_action_is_decided_like_an_issuance_and_issues_nothing() {
    let mut log = Log::new();
    let task = log.opened(&[]);
    type Change = fn(&mut ActionAuthorized);
    let changes: [(&str, Change); 10] = [
        ("nothing", |e| e.decided = None),
        ("an id", |e| e.decided.as_mut().unwrap().credential = vec![1; 16]),
        ("a key", |e| e.decided.as_mut().unwrap().key = "k".into()),
        ("another tool", |e| e.tool = "other".into()),
        ("another policy", |e| e.decided.as_mut().unwrap().policy_version += 1),
        ("another registration", |e| e.decided.as_mut().unwrap().upstream_version += 1),
        ("another environment", |e| e.decided.as_mut().unwrap().environment = "prod".into()),
        ("too long", |e| e.good_until += limits::AUTHORIZATION_MS + limits::CLOCK_SKEW_MS),
        ("no time", |e| e.good_until = 0),
        ("an unknown credential", |e| e.credential = vec![9; 16]),
    ];
    for (what, change) in changes {
        assert!(put(&mut log, &task, change).is_err(), "{what}");
    }
    assert_eq!((authorized(&log, &task), log.state.credentials.len()), (0, 0));
    put(&mut log, &task, |_| {}).unwrap();
    assert_eq!((authorized(&log, &task), log.state.credentials.len()), (1, 0));
}

#[test]
fn a_revocation_and_a_lock_reach_actions_as_they_reach_issuances() {
    for lock_only in [false, true] {
        let mut log = Log::new();
        let task = log.opened(&[]);
        let before = action(&mut log, &task, |_| {});
        let target = Target::Caller("spiffe://a.example/agent".into());
        let revoked = TargetsRevoked { targets: vec![target.to_record()], reason: "x".into(), lock_only, ..Default::default() };
        log.put(vec![by_operator(Event::Revoked(revoked))])[0].clone().unwrap();
        assert_eq!(reason(&log.put(vec![before])[0]), Reason::Locked, "decided before it");
        assert_eq!(authorized(&log, &task), 0);
        if lock_only {
            assert_eq!(reason(&put(&mut log, &task, |_| {})), Reason::Locked, "decided after it");
        }
    }
}

#[test]
fn what_is_shown_is_good_and_of_the_same_caller_upstream_and_task() {
    let mut log = Log::new();
    let (task, other) = (log.opened(&[]), log.opened(&[]));
    let issue = log.issue(&task);
    let Some(Event::Issued(issued)) = &issue.event else { panic!() };
    let id = issued.credential.clone();
    log.put(vec![issue.clone()])[0].clone().unwrap();
    put(&mut log, &task, |e| e.credential = id.clone()).unwrap();
    assert!(put(&mut log, &other, |e| e.credential = id.clone()).is_err(), "another task");
    let caller = |e: &mut ActionAuthorized| e.decided.as_mut().unwrap().caller = "spiffe://a.example/other".into();
    assert!(put(&mut log, &task, |e| (e.credential, ()) = (id.clone(), caller(e))).is_err(), "another caller");
    let release = CredentialReleased { credential: id.clone(), keep_until: 0 };
    log.put(vec![Record::new(Author::SpiffeId("spiffe://a.example/agent".into()), Event::Released(release))])[0].clone().unwrap();
    assert_eq!(reason(&put(&mut log, &task, |e| e.credential = id.clone())), Reason::CredentialNotActive);
    assert!(log.state.credentials.get(&CredentialId::from_slice(&id).unwrap()).is_some(), "it was given back, not forgotten");
}

#[test]
fn an_approval_of_an_action_serves_for_one_action_and_for_no_issuance() {
    let mut log = Log::new();
    let task = log.opened(&[]);
    let (approval, mut ask) = asked(&mut log, &task);
    if let Some(Event::ApprovalAsked(e)) = &mut ask.event {
        e.of = ApprovalKind::Action as i32;
    }
    log.put(vec![ask])[0].clone().unwrap();
    let give = super::given(&log, &approval);
    log.put(vec![give])[0].clone().unwrap();
    let mut issue = log.issue(&task);
    if let Some(Event::Issued(e)) = &mut issue.event {
        e.approval = approval.clone();
    }
    assert_eq!(reason(&log.put(vec![issue])[0]), Reason::ApprovalNeeded, "it issues nothing");
    let with = |e: &mut ActionAuthorized| e.decided.as_mut().unwrap().approval = approval.clone();
    let (mut a, mut b) = (action(&mut log, &task, with), action(&mut log, &task, with));
    (a.group, b.group) = (1, 1);
    assert_eq!(reason(&log.put(vec![a, b])[0]), Reason::ApprovalNeeded, "twice in one group");
    put(&mut log, &task, with).unwrap();
    assert_eq!(reason(&put(&mut log, &task, with)), Reason::ApprovalNeeded, "twice");
}

#[test]
fn uses_are_counted_by_task_and_what_says_nothing_is_void() {
    let mut log = Log::new();
    let task = log.opened(&[]);
    let report = |task: &[u8], outcome: &str, count| {
        let e = UsesReported {
            credential: vec![7; 16],
            task: task.to_vec(),
            outcome: outcome.into(),
            count,
            tool: "t".into(),
            ..Default::default()
        };
        Record::new(Author::SpiffeId("spiffe://a.example/server".into()), Event::UsesReported(e))
    };
    for bad in [report(&task, "ok", 1), report(&task, "accepted", 0), report(&[1], "accepted", 1)] {
        assert!(log.put(vec![bad])[0].is_err());
    }
    for good in [report(&task, "accepted", 4), report(&task, "refused", 3), report(&task, "failed", u64::MAX)] {
        log.put(vec![good])[0].clone().unwrap();
    }
    let of = log.state.tasks.get(&TaskId::from_slice(&task).unwrap()).unwrap();
    assert_eq!((of.done.uses, of.done.refused), (u64::MAX, 3), "and it does not run over");
    // A use report for an unknown task is not counted.
    log.put(vec![report(&[9; 16], "accepted", 1)])[0].clone().unwrap();
}
