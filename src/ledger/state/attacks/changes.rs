//! Attacks with records that revoke, restore or change something.

use super::*;
use mayfly_verify::seq::TaskId;

#[test]
fn an_extension_never_shortens() {
    let mut log = Log::new();
    let task = log.opened(&[]);
    let issue = log.issue(&task);
    log.put(vec![issue])[0].clone().unwrap();
    let extended = |log: &Log, by: u64| TaskExtended {
        task: task.clone(),
        deadline: log.time.0 + by,
        decided_at: log.time.0,
        policy_version: 1,
        ..Default::default()
    };
    let shorter = by_operator(Event::TaskExtended(extended(&log, 10_000))).decided_at(log.state.head);
    assert_eq!(reason(&log.put(vec![shorter])[0]), Reason::NoLifeLeft, "what was issued would outlive the task");
    let same = by_operator(Event::TaskExtended(extended(&log, 60_000))).decided_at(log.state.head);
    log.put(vec![same])[0].clone().unwrap();
}

#[test]
fn a_lift_takes_only_locks_that_its_decision_saw() {
    let mut log = Log::new();
    let tool = Target::Tool("t".into());
    log.revoke(tool.clone(), false);
    let lift = LockLifted { targets: vec![tool.to_record()], reason: String::new() };
    let lift = by_operator(Event::LockLifted(lift)).decided_at(log.state.head);
    log.revoke(tool.clone(), false);
    assert_eq!(reason(&log.put(vec![lift.clone()])[0]), Reason::DecidedOnOldState);
    assert!(log.state.rules.get(&tool).unwrap().lock.is_some());
    let again = lift.decided_at(log.state.head);
    log.put(vec![again])[0].clone().unwrap();
}

#[test]
fn a_resumption_takes_only_holds_that_its_decision_saw_and_ranks_that_there_are() {
    let mut log = Log::new();
    let task = log.opened(&[]);
    let hold = |rank: i32| by_operator(Event::TaskHeld(TaskHeld { task: task.clone(), rank, reason: String::new() }));
    let resume = |rank: i32| by_operator(Event::TaskResumed(TaskResumed { task: task.clone(), rank, reason: String::new() }));
    assert!(log.put(vec![hold(0)])[0].is_err());
    let early = resume(3).decided_at(log.state.head);
    log.put(vec![hold(1)])[0].clone().unwrap();
    let seen = log.state.head;
    log.put(vec![hold(3)])[0].clone().unwrap();
    assert!(log.put(vec![early])[0].is_err());
    log.put(vec![resume(3).decided_at(seen)])[0].clone().unwrap();
    let held = &log.state.tasks.get(&TaskId::from_slice(&task).unwrap()).unwrap().holds;
    assert_eq!(held.iter().map(|h| h.rank).collect::<Vec<_>>(), [HoldRank::Operator]);
    let head = log.state.head;
    assert!(log.put(vec![resume(99).decided_at(head)])[0].is_err());
    assert!(log.put(vec![resume(2).decided_at(head)])[0].is_err());
    log.put(vec![resume(3).decided_at(head)])[0].clone().unwrap();
}

#[test]
fn what_cannot_be_locked_is_not_locked_and_a_lock_ends_no_task() {
    let mut log = Log::new();
    let task = log.opened(&[]);
    let target = Target::Task(TaskId::from_slice(&task).unwrap());
    let lock = |t: &Target| TargetsRevoked { targets: vec![t.to_record()], lock_only: true, ..Default::default() };
    assert_eq!(reason(&log.put(vec![by_operator(Event::Revoked(lock(&target)))])[0]), Reason::InvalidField);
    log.put(vec![by_operator(Event::Revoked(lock(&Target::Everything)))])[0].clone().unwrap();
    assert!(log.state.tasks.iter().all(|t| t.closed.is_none()));
}

#[test]
fn a_task_that_showed_life_does_not_expire_by_an_older_look() {
    let mut log = Log::new();
    let mut open = log.task(&[]);
    if let Some(Event::TaskOpened(e)) = &mut open.event {
        e.heartbeat = 5_000;
    }
    let task = id_of(&open);
    log.put(vec![open])[0].clone().unwrap();
    let close = |outcome: i32| by_operator(Event::TaskClosed(TaskClosed { task: task.clone(), outcome, ..Default::default() }));
    log.time = log.time.plus(4_000);
    let alive = TaskHeartbeats { tasks: vec![task.clone()], ..Default::default() };
    log.put(vec![by_operator(Event::TaskHeartbeats(alive))])[0].clone().unwrap();
    log.time = log.time.plus(5_000);
    assert_eq!(reason(&log.put(vec![close(TaskOutcome::Expired as i32)])[0]), Reason::TaskNotActive);
    assert!(log.put(vec![close(0)])[0].is_err() && log.put(vec![close(9)])[0].is_err());
    log.time = log.time.plus(1);
    log.put(vec![close(TaskOutcome::Expired as i32)])[0].clone().unwrap();
}

#[test]
fn a_removed_bundle_comes_back_above_its_sequence_only() {
    let mut log = Log::new();
    let mut put = |sequence: Option<u64>, removed: bool| {
        let set = BundleUpdated { trust_domain: "b.example".into(), sequence, removed, ..Default::default() };
        let head = log.state.head;
        log.put(vec![by_operator(Event::BundleSet(set)).decided_at(head)])[0].clone()
    };
    put(Some(7), false).unwrap();
    put(Some(1), true).unwrap();
    assert!(put(Some(2), false).is_err());
    put(Some(8), false).unwrap();
}

#[test]
fn a_root_that_an_operator_removed_comes_back_by_an_operator_only() {
    let mut log = Log::new();
    let (a, b) = (vec![1; 32], vec![2; 32]);
    let set = |anchors: &[&Vec<u8>], kept_out: &[&Vec<u8>]| BundleUpdated {
        trust_domain: "b.example".into(),
        anchors: anchors.iter().map(|a| a.to_vec()).collect(),
        kept_out: kept_out.iter().map(|a| a.to_vec()).collect(),
        ..Default::default()
    };
    let by_file =
        |set: BundleUpdated, seq| Record::new(Author::Mayfly("bundle file".into()), Event::BundleSet(set)).decided_at(seq);
    let by_operator = |set: BundleUpdated, seq| by_operator(Event::BundleSet(set)).decided_at(seq);
    let start = log.state.head;
    log.put(vec![by_file(set(&[&a, &b], &[]), start)])[0].clone().unwrap();
    let seen = log.state.head;
    log.put(vec![by_operator(set(&[&a], &[&b]), seen)])[0].clone().unwrap();
    // The change was made from the bundle before the removal: it would bring the root back.
    assert_eq!(reason(&log.put(vec![by_operator(set(&[&a, &b], &[]), seen)])[0]), Reason::DecidedOnOldState);
    let seen = log.state.head;
    assert!(log.put(vec![by_file(set(&[&a, &b], &[]), seen)])[0].is_err());
    assert!(log.put(vec![by_file(set(&[&a, &b], &[&b]), seen)])[0].is_err());
    log.put(vec![by_file(set(&[&a], &[&b]), seen)])[0].clone().unwrap();
    let seen = log.state.head;
    log.put(vec![by_operator(set(&[&a, &b], &[]), seen)])[0].clone().unwrap();
    assert!(log.state.bundles["b.example"].kept_out.is_empty());
}

#[test]
fn every_request_id_is_bound_by_its_first_record_and_counted() {
    let mut log = Log::new();
    let task = log.opened(&[]);
    let request = |id: &str| Some(RequestRecord { caller: "c".into(), id: id.into(), digest: vec![0; 32] });
    let hold = |rank: i32| by_operator(Event::TaskHeld(TaskHeld { task: task.clone(), rank, reason: String::new() }));
    let policy = PolicySetUpdated { environment: "e".into(), version: 1, ..Default::default() };
    log.put(vec![hold(1).for_request(request("1"))])[0].clone().unwrap();
    assert_eq!(reason(&log.put(vec![hold(2).for_request(request("1"))])[0]), Reason::RequestIdReused);
    log.put(vec![by_operator(Event::PolicySet(policy)).for_request(request("2"))])[0].clone().unwrap();
    assert_eq!(log.state.credentials.remembered("c"), 2);
    log.time = log.time.plus(limits::TASK_TTL_MS + 1_000);
    log.put(vec![note()]);
    assert_eq!(log.state.credentials.remembered("c"), 0);
    log.put(vec![by_operator(Event::Maintained(Maintained::default())).for_request(request("1"))])[0].clone().unwrap();
}

#[test]
fn no_writer_drops_a_rule_by_writing_an_early_end() {
    let mut log = Log::new();
    let task = log.opened(&[]);
    let (a, b) = (log.issue(&task), log.issue(&task));
    log.put(vec![a.clone(), b.clone()]);
    let released = CredentialReleased { credential: id_of(&a), keep_until: 0 };
    let revoked = TargetsRevoked { targets: vec![Target::Tool("t".into()).to_record()], issued_only: true, ..Default::default() };
    let closed = TaskClosed { task: task.clone(), outcome: TaskOutcome::Completed as i32, ..Default::default() };
    for event in [Event::Released(released), Event::Revoked(revoked), Event::TaskClosed(closed)] {
        log.put(vec![by_operator(event)])[0].clone().unwrap();
    }
    log.time = log.time.plus(29_000);
    log.put(vec![note()]);
    let a = Target::Credential(CredentialId::from_slice(&id_of(&a)).unwrap());
    for target in [a, Target::Tool("t".into()), Target::Task(TaskId::from_slice(&task).unwrap())] {
        assert!(log.state.rules.get(&target).is_some(), "{target}");
    }
}

#[test]
fn a_revoked_key_and_a_compromised_one_are_the_same() {
    let mut log = Log::new();
    let key = |id: &str| KeyAdded {
        key: id.into(),
        purpose: KeyPurpose::AccessToken as i32,
        environment: "dev".into(),
        state: KeyState::Next as i32,
        ..Default::default()
    };
    log.put(vec![by_operator(Event::KeyAdded(key("k2")))])[0].clone().unwrap();
    log.revoke(Target::SigningKey("k1".into()), false);
    assert!(log.state.active_key(KeyPurpose::AccessToken, "dev").is_none(), "it signs nothing more");
    let changed = KeyChanged { key: "k2".into(), state: KeyState::Compromised as i32, reason: String::new() };
    log.put(vec![by_operator(Event::KeyChanged(changed))])[0].clone().unwrap();
    let forged = crate::revocation::Facts { revision: log.state.head, key: "k2", ..Default::default() };
    assert!(log.state.rules.covers(&forged).is_some());
}

#[test]
fn a_task_opened_before_a_revocation_of_its_opener_takes_no_grant_of_others_either() {
    let mut log = Log::new();
    let root = log.opened(&[]);
    let child = log.opened(&root);
    log.revoke(Target::Svid("a.example".into(), [8; 32], vec![7].into()), false);
    let mut other = log.issue(&child);
    if let Some(Event::Issued(e)) = &mut other.event {
        (e.caller, e.svid) = ("spiffe://b.example/server".into(), None);
    }
    assert_eq!(reason(&log.put(vec![other])[0]), Reason::EvidenceRevoked, "a stolen SVID's tasks are not left behind");
    let mut grandchild = log.task(&child);
    if let Some(Event::TaskOpened(e)) = &mut grandchild.event {
        (e.opener, e.svid) = ("spiffe://b.example/server".into(), None);
    }
    assert!(log.put(vec![grandchild])[0].is_err());
}

#[test]
fn commits_of_several_writers_may_land_out_of_the_order_of_their_clocks() {
    let mut log = Log::new();
    let (bytes, _) = pack_note(7, log.time.minus(20));
    log.state.fold(log.state.position + 1, &Commit::from_bytes(&bytes.into()).unwrap()).unwrap();
    assert_eq!(log.state.time, log.time, "time stands still, it does not go back");
}

fn pack_note(writer: u32, time: Millis) -> (Vec<u8>, WriterHead) {
    let encoded = EncodedRecord::new(note()).unwrap();
    pack(writer, WriterHead::START, time, std::iter::once(&encoded))
}

#[test]
fn a_task_that_waits_for_an_approval_ends_with_its_parent() {
    let mut log = Log::new();
    let root = log.opened(&[]);
    let waiting = super::waits::Waiting::new(&mut log, |opened, asked| {
        opened.parent.clone_from(&root);
        asked.terms = Some(Box::new(super::waits::shown(opened)));
        asked.digest = digest_of_task(asked).to_vec();
    });
    let id = TaskId::from_slice(&waiting.task).unwrap();
    log.put(waiting.records).into_iter().for_each(Result::unwrap);
    let close = TaskClosed { task: root, outcome: TaskOutcome::Completed as i32, ..Default::default() };
    log.put(vec![by_operator(Event::TaskClosed(close))])[0].clone().unwrap();
    let phase = log.state.tasks.phase(log.state.tasks.get(&id).unwrap(), log.time);
    assert_eq!(phase, TaskPhase::Over(TaskOutcome::Completed));
}

#[test]
fn nothing_is_approved_in_a_task_that_is_over() {
    let mut log = Log::new();
    let task = log.opened(&[]);
    let (approval, ask) = asked(&mut log, &task);
    log.put(vec![ask])[0].clone().unwrap();
    let close = TaskClosed { task, outcome: TaskOutcome::Completed as i32, ..Default::default() };
    log.put(vec![by_operator(Event::TaskClosed(close))])[0].clone().unwrap();
    let give = given(&log, &approval);
    assert_eq!(reason(&log.put(vec![give])[0]), Reason::TaskNotActive);
}

#[test]
fn a_retired_upstream_never_issues_again() {
    let mut log = Log::new();
    let set = |version: u64, retired: bool| {
        by_operator(Event::UpstreamSet(UpstreamUpdated { name: "echo".into(), version, retired, ..Default::default() }))
    };
    log.put(vec![set(2, true)])[0].clone().unwrap();
    assert_eq!(reason(&log.put(vec![set(3, false)])[0]), Reason::UpstreamNotActive);
}

#[test]
fn a_view_from_before_a_rule_that_was_dropped_grants_nothing() {
    let mut log = Log::new();
    let seen = log.state.head;
    log.revoke(Target::Svid("a.example".into(), [8; 32], vec![7].into()), true);
    log.time = log.time.plus(3 * limits::TASK_TTL_MS);
    log.put(vec![note()]);
    assert!(log.state.rules.is_empty());
    let fresh = log.task(&[]);
    let stood_still = log.task(&[]).decided_at(seen);
    assert_eq!(reason(&log.put(vec![stood_still])[0]), Reason::DecidedOnOldState);
    log.put(vec![fresh])[0].clone().unwrap();
}

#[test]
fn closing_a_task_long_after_its_end_keeps_no_other_grant_from_being_judged() {
    let mut log = Log::new();
    let task = log.opened(&[]);
    let issue = log.issue(&task);
    log.put(vec![issue])[0].clone().unwrap();
    log.time = log.time.plus(300_000);
    let other = log.task(&[]);
    let outcome = TaskOutcome::Expired as i32;
    let close = by_operator(Event::TaskClosed(TaskClosed { task: task.clone(), outcome, ..Default::default() }));
    log.put(vec![close])[0].clone().unwrap();
    log.time = log.time.plus(limits::VIEW_MAX_AGE_MS);
    log.put(vec![note()]);
    log.put(vec![other])[0].clone().unwrap();
}

fn long(mut open: Record, deadline: u64, max_deadline: u64) -> Record {
    if let Some(Event::TaskOpened(e)) = &mut open.event {
        (e.deadline, e.max_deadline) = (e.opened_at + deadline, e.opened_at + max_deadline);
    }
    open
}

#[test]
fn what_was_renewed_from_a_credential_that_was_given_back_stays_dead_until_its_own_end() {
    let mut log = Log::new();
    let open = long(log.task(&[]), 600_000, 600_000);
    let task = id_of(&open);
    log.put(vec![open])[0].clone().unwrap();
    let first = log.issue(&task);
    let id = id_of(&first);
    log.put(vec![first])[0].clone().unwrap();
    let mut renewed = log.issue(&task);
    if let Some(Event::Issued(e)) = &mut renewed.event {
        (e.expires_at, e.renewable_until) = (e.issued_at + 500_000, e.issued_at + 500_000);
        e.renews = id.clone();
        e.ancestors = vec![Ancestor { credential: id.clone(), caller: e.caller.clone() }];
    }
    let second = id_of(&renewed);
    log.put(vec![renewed])[0].clone().unwrap();
    let back = CredentialReleased { credential: id, ..Default::default() };
    log.put(vec![Record::new(Author::SpiffeId("spiffe://a.example/agent".into()), Event::Released(back))])[0].clone().unwrap();
    for _ in 0..4 {
        assert!(log.covered(&second), "at {}", log.time);
        log.time = log.time.plus(120_000);
        log.put(vec![note()]);
    }
}

#[test]
fn a_task_whose_parent_ended_is_remembered_for_its_own_time() {
    let mut log = Log::new();
    let open = long(log.task(&[]), 3_000_000, 3_000_000);
    let parent = id_of(&open);
    log.put(vec![open])[0].clone().unwrap();
    let open = long(log.task(&parent), 60_000, 3_000_000);
    let child = id_of(&open);
    log.put(vec![open])[0].clone().unwrap();
    let deadline = log.time.0 + 2_000_000;
    let extended =
        TaskExtended { task: child.clone(), deadline, decided_at: log.time.0, policy_version: 1, ..Default::default() };
    let head = log.state.head;
    log.put(vec![by_operator(Event::TaskExtended(extended)).decided_at(head)])[0].clone().unwrap();
    log.time = log.time.plus(60_000 + limits::REQUEST_ID_KEPT_MS + 1);
    let close = TaskClosed { task: parent, outcome: TaskOutcome::Completed as i32, ..Default::default() };
    log.put(vec![by_operator(Event::TaskClosed(close))])[0].clone().unwrap();
    log.put(vec![note()]);
    assert!(log.state.tasks.get(&TaskId::from_slice(&child).unwrap()).is_some());
}

#[test]
fn one_key_of_each_purpose_is_active() {
    let mut log = Log::new();
    let key = |key: &str, environment: &str, state: KeyState| {
        let (purpose, state) = (KeyPurpose::AccessToken as i32, state as i32);
        by_operator(Event::KeyAdded(KeyAdded {
            key: key.into(),
            purpose,
            environment: environment.into(),
            state,
            ..Default::default()
        }))
    };
    let to = |key: &str, state: KeyState| {
        by_operator(Event::KeyChanged(KeyChanged { key: key.into(), state: state as i32, ..Default::default() }))
    };
    let group = |records: Vec<Record>| records.into_iter().map(|r| Record { group: 7, ..r }).collect::<Vec<_>>();
    assert_eq!(reason(&log.put(vec![key("k2", "dev", KeyState::Active)])[0]), Reason::KeyState);
    log.put(vec![key("k2", "dev", KeyState::Next)])[0].clone().unwrap();
    assert_eq!(reason(&log.put(vec![to("k2", KeyState::Active)])[0]), Reason::KeyState);
    log.put(vec![key("other", "prod", KeyState::Active)])[0].clone().unwrap();
    // In any order: the group takes effect as a whole.
    for (next, old) in [("k2", "k1"), ("k3", "k2")] {
        if next == "k3" {
            log.put(vec![key("k3", "dev", KeyState::Next)])[0].clone().unwrap();
        }
        let mut turn = vec![to(next, KeyState::Active), to(old, KeyState::Retired)];
        if next == "k3" {
            turn.reverse();
        }
        assert!(log.put(group(turn)).iter().all(Result::is_ok), "{next}");
    }
    // A revocation of the key by name removes it as well.
    let stolen = TargetsRevoked { targets: vec![Target::SigningKey("k3".into()).to_record()], ..Default::default() };
    let after = log.put(group(vec![by_operator(Event::Revoked(stolen)), key("k4", "dev", KeyState::Active)]));
    assert!(after.iter().all(Result::is_ok));
    assert_eq!(log.state.active_key(KeyPurpose::AccessToken, "dev").unwrap().0, "k4");
}
