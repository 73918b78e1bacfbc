//! Attacks on approvals: an approval is given by another person, for one thing, once.

use super::*;
use mayfly_verify::seq::TaskId;

fn approved(log: &mut Log, task: &[u8]) -> Vec<u8> {
    let (approval, ask) = asked(log, task);
    log.put(vec![ask])[0].clone().unwrap();
    let give = given(log, &approval);
    log.put(vec![give])[0].clone().unwrap();
    approval
}

fn using(log: &mut Log, task: &[u8], approval: &[u8], change: impl Fn(&mut CredentialIssued)) -> Verdict {
    let mut record = log.issue(task);
    if let Some(Event::Issued(e)) = &mut record.event {
        e.approval = approval.to_vec();
        change(e);
    }
    log.put(vec![record])[0].clone()
}

#[test]
fn an_approval_is_used_for_what_it_was_given_for_and_nothing_else() {
    let mut log = Log::new();
    let (task, other) = (log.opened(&[]), log.opened(&[]));
    let approval = approved(&mut log, &task);
    let changes: [fn(&mut CredentialIssued); 8] = [
        |e| e.tool = "export_all".into(),
        |e| e.arguments = vec![1; 32],
        |e| e.scopes.push("write".into()),
        |e| e.kind = 2,
        |e| e.caller = "spiffe://a.example/other".into(),
        |e| e.subject = Some(ada()),
        |e| e.details = "[]".into(),
        |e| e.expires_at += 1,
    ];
    for (n, change) in changes.iter().enumerate() {
        assert_eq!(reason(&using(&mut log, &task, &approval, change)), Reason::ApprovalNeeded, "change {n}");
    }
    assert_eq!(reason(&using(&mut log, &other, &approval, |_| {})), Reason::ApprovalNeeded, "another task");
    using(&mut log, &task, &approval, |_| {}).unwrap();
    assert_eq!(reason(&using(&mut log, &task, &approval, |_| {})), Reason::ApprovalNeeded, "twice");
}

#[test]
fn an_approval_is_used_once_also_within_a_group() {
    let mut log = Log::new();
    let task = log.opened(&[]);
    let approval = approved(&mut log, &task);
    let with = |log: &mut Log| {
        let mut r = log.issue(&task);
        if let Some(Event::Issued(e)) = &mut r.event {
            e.approval = approval.clone();
        }
        r
    };
    let (mut a, mut b) = (with(&mut log), with(&mut log));
    (a.group, b.group) = (1, 1);
    assert_eq!(reason(&log.put(vec![a.clone(), b])[0]), Reason::ApprovalNeeded);
    a.group = 0;
    log.put(vec![a])[0].clone().unwrap();
    let again = with(&mut log);
    assert_eq!(reason(&log.put(vec![again])[0]), Reason::ApprovalNeeded);
}

#[test]
fn nobody_approves_who_is_not_named_or_has_a_part_in_it() {
    let mut log = Log::new();
    let mut opening = log.task(&[]);
    if let Some(Event::TaskOpened(e)) = &mut opening.event {
        e.owner = Some(ada());
    }
    let owned = id_of(&opening);
    log.put(vec![opening])[0].clone().unwrap();
    let (approval, ask) = asked(&mut log, &owned);
    log.put(vec![ask])[0].clone().unwrap();
    let by = |log: &mut Log, who: Author, approval: &[u8]| {
        let give = given_by(log, who, approval);
        log.put(vec![give])[0].clone()
    };
    let person = |sub: &str| Author::Person(Principal { issuer: "https://idp.example".into(), sub: sub.into() });
    assert_eq!(reason(&by(&mut log, person("ada"), &approval)), Reason::NotYours, "she owns the task");
    assert_eq!(reason(&by(&mut log, person("bob"), &approval)), Reason::NotYours, "nobody named him");
    assert_eq!(reason(&by(&mut log, Author::LocalUid(0), &approval)), Reason::NotYours, "root is no second person");
    assert_eq!(reason(&by(&mut log, Author::Mayfly("x".into()), &approval)), Reason::NotYours);
    // The same for the requester, and for those on whose behalf the request is.
    let task = log.opened(&[]);
    let own: [fn(&mut ApprovalRequested); 3] =
        [|a| a.caller = "https://idp.example#ada".into(), |a| a.subject = Some(ada()), |a| a.actors = vec![ada()]];
    for (n, change) in own.iter().enumerate() {
        let (approval, mut ask) = asked(&mut log, &task);
        if let Some(Event::ApprovalAsked(e)) = &mut ask.event {
            change(e);
        }
        log.put(vec![ask])[0].clone().unwrap();
        assert_eq!(reason(&by(&mut log, person("ada"), &approval)), Reason::NotYours, "part {n}");
    }
    let free = approved(&mut log, &task);
    assert!(using(&mut log, &task, &free, |_| {}).is_ok());
}

#[test]
fn an_approval_is_decided_once_for_what_was_shown_while_the_registration_stands() {
    let mut log = Log::new();
    let task = log.opened(&[]);
    let (approval, ask) = asked(&mut log, &task);
    log.put(vec![ask])[0].clone().unwrap();
    let mut shown_another = given(&log, &approval);
    if let Some(Event::ApprovalDecided(e)) = &mut shown_another.event {
        e.digest = vec![4; 32];
    }
    assert_eq!(reason(&log.put(vec![shown_another])[0]), Reason::DecidedOnOldState);
    // Two decisions at once: only one of them counts.
    let twice = vec![given(&log, &approval), given(&log, &approval)];
    let verdicts = log.put(twice);
    assert!(verdicts[0].is_ok());
    assert_eq!(reason(&verdicts[1]), Reason::AlreadyExists);
    let (late, ask) = asked(&mut log, &task);
    log.put(vec![ask])[0].clone().unwrap();
    let changed = UpstreamUpdated { name: "echo".into(), version: 2, ..Default::default() };
    log.put(vec![by_operator(Event::UpstreamSet(changed))])[0].clone().unwrap();
    let give = given(&log, &late);
    assert_eq!(reason(&log.put(vec![give])[0]), Reason::DecidedOnOldState, "others may be named now");
    assert!(
        using(&mut log, &task, &approval, |e| e.upstream_version = 2).is_err(),
        "what was approved was another registration's"
    );
}

#[test]
fn a_change_takes_effect_when_somebody_else_approves_it_and_where_nothing_came_between() {
    let mut log = Log::new();
    let set = |version| ProposedChange::Binding(BindingUpdated { name: "b".into(), version, ..Default::default() });
    let ask = |log: &mut Log, version| {
        let (approval, mut ask) = asked(log, &[]);
        if let Some(Event::ApprovalAsked(e)) = &mut ask.event {
            (e.of, e.caller) = (ApprovalKind::Change as i32, "https://idp.example#bob".into());
            e.change = Some(ProposedChangeRecord { to: Some(set(version)) });
        }
        log.put(vec![ask])[0].clone().unwrap();
        approval
    };
    let (first, second) = (ask(&mut log, 1), ask(&mut log, 1));
    assert!(log.state.bindings.is_empty(), "asking changes nothing");
    let bob = Author::Person(Principal { issuer: "https://idp.example".into(), sub: "bob".into() });
    let give = given_by(&log, bob, &first);
    assert_eq!(reason(&log.put(vec![give])[0]), Reason::NotYours, "its author is not the second person");
    let give = given(&log, &first);
    log.put(vec![give])[0].clone().unwrap();
    assert_eq!(log.state.bindings["b"].version, 1);
    let give = given(&log, &second);
    assert_eq!(reason(&log.put(vec![give])[0]), Reason::DecidedOnOldState, "another version came first");
}

/// Asks for approval of a policy set of that version.
fn asked_set(log: &mut Log, version: u64, caller: &str) -> (Vec<u8>, Verdict) {
    let set = PolicySetUpdated { environment: "prod".into(), version, text: "{}".into(), ..Default::default() };
    let (approval, mut ask) = asked(log, &[]);
    if let Some(Event::ApprovalAsked(e)) = &mut ask.event {
        (e.of, e.caller) = (ApprovalKind::Change as i32, caller.into());
        e.change = Some(ProposedChangeRecord { to: Some(ProposedChange::Policy(set)) });
    }
    (approval, log.put(vec![ask])[0].clone())
}

#[test]
fn a_change_is_asked_for_from_what_there_is_and_is_its_askers() {
    let mut log = Log::new();
    let now = log.state.policies.get("prod").map_or(0, |v| v.version);
    let asker = "spiffe://a.example/operator";
    assert_eq!(reason(&asked_set(&mut log, now + 2, asker).1), Reason::DecidedOnOldState);
    let (approval, verdict) = asked_set(&mut log, now + 1, asker);
    verdict.unwrap();
    let give = given(&log, &approval);
    log.put(vec![give.clone()])[0].clone().unwrap();
    let set = log.state.policies["prod"].clone();
    assert_eq!((set.version, set.by.as_deref()), (now + 1, Some(&Author::SpiffeId(asker.into()))));
    let known = &log.state.approvals[&ApprovalId::from_slice(&approval).unwrap()];
    assert!(known.used && known.asked.change.is_none(), "whoever looks at it later looks into the ledger");
    assert_eq!(reason(&log.put(vec![give])[0]), Reason::AlreadyExists);
}

#[test]
fn a_caller_has_only_so_many_that_wait_or_may_be_used() {
    let mut log = Log::new();
    let task = log.opened(&[]);
    let mut first = None;
    let ask = |log: &mut Log| {
        let (approval, ask) = asked(log, &task);
        (approval, log.put(vec![ask])[0].clone())
    };
    for _ in 0..limits::APPROVALS_PER_CALLER {
        let (approval, verdict) = ask(&mut log);
        verdict.unwrap();
        first.get_or_insert(approval);
    }
    assert_eq!(reason(&ask(&mut log).1), Reason::LimitReached);
    let first = first.unwrap();
    let give = given(&log, &first);
    log.put(vec![give])[0].clone().unwrap();
    assert_eq!(reason(&ask(&mut log).1), Reason::LimitReached, "it may be used");
    using(&mut log, &task, &first, |_| {}).unwrap();
    ask(&mut log).1.unwrap();
}

#[test]
fn few_changes_wait() {
    let mut log = Log::new();
    let now = log.state.policies.get("prod").map_or(0, |v| v.version);
    let mut first = None;
    for n in 0..limits::CHANGES_WAITING {
        let (approval, verdict) = asked_set(&mut log, now + 1, &format!("spiffe://a.example/operator/{n}"));
        verdict.unwrap();
        first.get_or_insert(approval);
    }
    assert_eq!(reason(&asked_set(&mut log, now + 1, "spiffe://a.example/one-more").1), Reason::LimitReached);
    // A decided approval makes room for another.
    let give = given(&log, &first.unwrap());
    log.put(vec![give])[0].clone().unwrap();
    asked_set(&mut log, now + 2, "spiffe://a.example/one-more").1.unwrap();
}

#[test]
fn a_policy_set_without_a_text_takes_away_the_one_that_is_only_watched() {
    let mut log = Log::new();
    let set = |version, text: &str| PolicySetUpdated {
        environment: "prod".into(),
        version,
        text: text.into(),
        audit_only: true,
        ..Default::default()
    };
    for (version, text, there) in [(1, "{}", true), (2, "", false), (3, "{}", true)] {
        log.put(vec![by_operator(Event::PolicySet(set(version, text)))])[0].clone().unwrap();
        let now = &log.state.audit_policies["prod"];
        assert_eq!((now.version, now.active), (version, there));
    }
}

#[test]
fn an_approval_outlives_the_rules_that_ended_tasks_and_credentials_leave() {
    let mut log = Log::new();
    let mut long = log.task(&[]);
    if let Some(Event::TaskOpened(e)) = &mut long.event {
        (e.deadline, e.max_deadline) = (e.opened_at + 600_000, e.opened_at + 600_000);
    }
    let (task, other) = (id_of(&long), log.opened(&[]));
    log.put(vec![long])[0].clone().unwrap();
    let issue = log.issue(&other);
    log.put(vec![issue])[0].clone().unwrap();
    let (approval, mut ask) = asked(&mut log, &task);
    if let Some(Event::ApprovalAsked(e)) = &mut ask.event {
        e.expires_at += 600_000;
    }
    log.put(vec![ask])[0].clone().unwrap();
    let give = given(&log, &approval);
    log.put(vec![give])[0].clone().unwrap();
    let closed = TaskClosed { task: other.clone(), outcome: TaskOutcome::Completed as i32, ..Default::default() };
    log.put(vec![by_operator(Event::TaskClosed(closed))])[0].clone().unwrap();
    let target = Target::Task(TaskId::from_slice(&other).unwrap());
    assert!(log.state.rules.get(&target).is_some());
    log.time = log.time.plus(300_000);
    log.put(vec![note()]);
    assert!(log.state.rules.get(&target).is_none());
    using(&mut log, &task, &approval, |_| {}).unwrap();
}
