//! Attacks on groups of records, and on approvals in groups.

use super::*;

/// A group that opens a task and issues a credential in it, after `change`.
fn inline(log: &mut Log, change: impl Fn(&mut TaskOpened, &mut CredentialIssued)) -> Vec<Verdict> {
    let mut open = log.task(&[]);
    let mut issue = log.issue(&id_of(&open));
    (open.group, issue.group) = (1, 1);
    if let (Some(Event::TaskOpened(t)), Some(Event::Issued(i))) = (&mut open.event, &mut issue.event) {
        change(t, i);
    }
    log.put(vec![open, issue])
}

#[test]
fn a_task_opened_inline_has_walls_too() {
    let mut log = Log::new();
    let policy = PolicySetUpdated { environment: "prod".into(), version: 1, ..Default::default() };
    log.put(vec![Record::new(Author::LocalUid(0), Event::PolicySet(policy))])[0].clone().unwrap();
    let other = inline(&mut log, |_, i| i.environment = "prod".into());
    assert_eq!(reason(&other[0]), Reason::EnvironmentWall);
    inline(&mut log, |_, _| {})[0].clone().unwrap();
}

#[test]
fn nothing_is_issued_inline_in_a_task_that_waits_for_an_approval() {
    let mut log = Log::new();
    assert_eq!(reason(&inline(&mut log, |t, _| t.approval = vec![5; 16])[0]), Reason::TaskNotActive);
}

#[test]
fn a_batch_may_open_several_tasks_but_none_twice() {
    let mut log = Log::new();
    let (mut a, mut b) = (log.task(&[]), log.task(&[]));
    (a.group, b.group) = (1, 1);
    assert!(log.put(vec![a.clone(), a.clone()])[0].is_err());
    assert!(log.put(vec![a, b]).iter().all(Result::is_ok));
}

#[test]
fn a_token_is_used_once_also_within_a_group() {
    let mut log = Log::new();
    let used = UsedOnce { digest: vec![1; 32], until: log.time.0 + 60_000, ..UsedOnce::default() };
    let mut record = Record::new(Author::LocalUid(0), Event::UsedOnce(used));
    record.group = 1;
    assert_eq!(reason(&log.put(vec![record.clone(), record.clone()])[0]), Reason::EvidenceRevoked);
    log.put(vec![record.clone()])[0].clone().unwrap();
    assert_eq!(reason(&log.put(vec![record])[0]), Reason::EvidenceRevoked);
}

#[test]
fn a_lease_of_the_same_group_is_for_its_credential_only() {
    let mut log = Log::new();
    let task = log.opened(&[]);
    let mut issue = log.issue(&task);
    let lease = LeaseOpened { lease: vec![1; 16], credential: id_of(&issue), task, ..Default::default() };
    let mut open = Record::new(Author::LocalUid(0), Event::LeaseOpened(lease));
    (open.group, issue.group) = (1, 1);
    if let Some(Event::Issued(e)) = &mut issue.event {
        e.lease = vec![1; 16];
    }
    let mut other = issue.clone();
    if let Some(Event::Issued(e)) = &mut other.event {
        e.credential = vec![99; 16];
    }
    assert!(log.put(vec![open.clone(), issue.clone(), other])[0].is_err());
    assert!(log.put(vec![open, issue]).iter().all(Result::is_ok));
}

#[test]
fn a_task_and_a_lease_in_it_open_together() {
    let mut log = Log::new();
    let mut open = log.task(&[]);
    let lease = LeaseOpened { lease: vec![1; 16], credential: vec![2; 16], task: id_of(&open), ..Default::default() };
    let mut lease = Record::new(Author::LocalUid(0), Event::LeaseOpened(lease));
    (open.group, lease.group) = (1, 1);
    assert!(log.put(vec![open, lease]).iter().all(Result::is_ok));
}

fn issue_with(log: &mut Log, task: &[u8], approval: &[u8]) -> Record {
    let mut record = log.issue(task);
    if let Some(Event::Issued(e)) = &mut record.event {
        e.approval = approval.to_vec();
    }
    record
}

#[test]
fn an_approval_that_is_asked_anew_is_not_usable_once_more() {
    let mut log = Log::new();
    let task = log.opened(&[]);
    let (approval, ask) = asked(&mut log, &task);
    log.put(vec![ask.clone()])[0].clone().unwrap();
    let give = given(&log, &approval);
    log.put(vec![give])[0].clone().unwrap();
    let first = issue_with(&mut log, &task, &approval);
    log.put(vec![first])[0].clone().unwrap();
    assert_eq!(reason(&log.put(vec![ask])[0]), Reason::DecidedOnOldState);
    let give = given(&log, &approval);
    assert!(log.put(vec![give])[0].is_err());
    let second = issue_with(&mut log, &task, &approval);
    assert_eq!(reason(&log.put(vec![second])[0]), Reason::ApprovalNeeded);
}

#[test]
fn what_was_revoked_since_an_approval_was_given_revokes_the_approval() {
    let mut log = Log::new();
    let approval = super::more::asked_inline(&mut log);
    log.revoke(Target::Caller("spiffe://a.example/agent".into()), true);
    let opening = log.task(&[]);
    let later = issue_with(&mut log, &id_of(&opening), &approval);
    let together = [opening, later].map(|r| Record { group: 5, ..r });
    assert_eq!(reason(&log.put(together.to_vec())[1]), Reason::Revoked, "decided after the revocation, approved before it");
    let task = log.opened(&[]);
    let without = log.issue(&task);
    log.put(vec![without])[0].clone().unwrap();
}

#[test]
fn an_approval_given_on_a_view_before_a_revocation_is_void() {
    let mut log = Log::new();
    let (approval, ask) = asked(&mut log, &[]);
    log.put(vec![ask])[0].clone().unwrap();
    let give = given(&log, &approval);
    log.revoke(Target::Subject("https://idp.example".into(), "ada".into()), true);
    assert_eq!(reason(&log.put(vec![give])[0]), Reason::Revoked);
}
