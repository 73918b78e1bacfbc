//! Attacks on break-glass: two people, once each, for an hour at most, nobody else in the task, and a third person who reviews it before
//! either of the two opens another.

mod lasting;

use super::*;
use mayfly_base::limits;
use mayfly_verify::seq::TaskId;

#[derive(Clone, Copy)]
enum Whom {
    Person(&'static str),
    Svid(&'static str),
    Local,
}
use Whom::{Local, Person, Svid};

const ADA: Whom = Person("ada");
const BEN: Whom = Svid("ben");
const MARY: Whom = Person("mary");

impl Whom {
    fn caller(self) -> String {
        match self {
            Person(name) | Svid(name) => format!("spiffe://a.example/person/{name}"),
            Local => "spiffe://a.example/person/root".into(),
        }
    }

    fn who(self) -> Author {
        match self {
            Person(name) => Author::Person(Principal { issuer: "https://idp.example".into(), sub: name.into() }),
            Svid(_) => Author::SpiffeId(self.caller()),
            Local => Author::LocalUid(0),
        }
    }

    fn identity(self) -> Principal {
        match self.who() {
            Author::Person(person) => person,
            _ => Principal { issuer: "a.example".into(), sub: self.caller() },
        }
    }
}

fn step(log: &Log, task: &[u8], step: BreakGlassStep, who: Whom, people: &[Whom]) -> Record {
    let break_glass = BreakGlassStepTaken {
        task: task.to_vec(),
        people: people.iter().map(|p| p.identity()).collect(),
        reviewer: (step == BreakGlassStep::Reviewed).then(|| who.identity()),
        text: "it burns".into(),
        rights: "down".into(),
        step: step as i32,
        caller: who.caller(),
        policy_version: 1,
        decided_at: log.time.0,
        environment: "dev".into(),
        svid: Some(log.svid()),
        ..Default::default()
    };
    Record::new(who.who(), Event::BreakGlass(break_glass)).decided_at(log.state.head)
}

/// The records that open a break-glass task: the task, and the person who asks for it.
fn asking(log: &mut Log, who: Whom) -> (Vec<u8>, Vec<Record>) {
    let mut opens = log.task(&[]);
    opens.author = Some(AuthorRecord { who: Some(who.who()) });
    if let Some(Event::TaskOpened(e)) = &mut opens.event {
        (e.opener, e.owner, e.break_glass) = (who.caller(), Some(who.identity()), true);
        e.max_deadline = log.time.0 + limits::BREAK_GLASS_MS;
    }
    let task = id_of(&opens);
    let asks = step(log, &task, BreakGlassStep::Opened, who, &[who]);
    let group = |r| Record { group: 1, ..r };
    (task, vec![group(opens), group(asks)])
}

fn open(log: &mut Log, who: Whom) -> Result<Vec<u8>, Refusal> {
    let (task, records) = asking(log, who);
    log.put(records)[1].clone().map(|()| task)
}

fn join(log: &mut Log, task: &[u8], first: Whom, second: Whom) -> Verdict {
    let joins = step(log, task, BreakGlassStep::Joined, second, &[first, second]);
    log.put(vec![joins])[0].clone()
}

fn review(log: &mut Log, task: &[u8], who: Whom) -> Verdict {
    let reviews = step(log, task, BreakGlassStep::Reviewed, who, &[ADA, BEN]);
    log.put(vec![reviews])[0].clone()
}

/// A break-glass task with its two people.
fn active(log: &mut Log) -> Vec<u8> {
    let task = open(log, ADA).unwrap();
    join(log, &task, ADA, BEN).unwrap();
    task
}

fn close(log: &mut Log, task: &[u8]) {
    let closed = TaskClosed { task: task.to_vec(), outcome: TaskOutcome::Completed as i32, ..Default::default() };
    log.put(vec![Record::new(BEN.who(), Event::TaskClosed(closed))])[0].clone().unwrap();
}

fn issue(log: &mut Log, task: &[u8], change: impl Fn(&mut CredentialIssued)) -> Verdict {
    let mut record = log.issue(task);
    if let Some(Event::Issued(e)) = &mut record.event {
        (e.caller, e.break_glass) = (ADA.caller(), true);
        change(e);
    }
    log.put(vec![record])[0].clone()
}

#[test]
fn it_is_active_with_two_different_people_and_not_before() {
    let mut log = Log::new();
    assert_eq!(reason(&open(&mut log, Local).map(drop)), Reason::NotYours, "the local socket is nobody");
    let task = open(&mut log, ADA).unwrap();
    assert_eq!(reason(&issue(&mut log, &task, |_| {})), Reason::TaskNotActive, "one person is none");
    assert_eq!(reason(&join(&mut log, &task, ADA, ADA)), Reason::NotYours, "the same person");
    assert_eq!(reason(&join(&mut log, &task, ADA, Svid("ada"))), Reason::NotYours, "the same workload identity by another name");
    assert_eq!(reason(&join(&mut log, &task, ADA, Local)), Reason::NotYours);
    assert_eq!(reason(&join(&mut log, &task, MARY, BEN)), Reason::InvalidField, "another one opened it");
    assert_eq!(reason(&issue(&mut log, &task, |_| {})), Reason::TaskNotActive);
    join(&mut log, &task, ADA, BEN).unwrap();
    issue(&mut log, &task, |_| {}).unwrap();
    issue(&mut log, &task, |e| e.caller = BEN.caller()).unwrap();
    assert_eq!(reason(&join(&mut log, &task, ADA, MARY)), Reason::AlreadyExists, "two people, not three");
    let open = log.state.tasks.get(&TaskId::from_slice(&task).unwrap()).unwrap();
    assert_eq!(open.deadline, Millis(log.time.0 + limits::BREAK_GLASS_MS));
}

#[test]
fn of_two_who_join_at_once_one_is_in() {
    let mut log = Log::new();
    let task = open(&mut log, ADA).unwrap();
    let one = step(&log, &task, BreakGlassStep::Joined, BEN, &[ADA, BEN]);
    let other = step(&log, &task, BreakGlassStep::Joined, MARY, &[ADA, MARY]);
    let verdicts = log.put(vec![one, other]);
    assert!(verdicts[0].is_ok());
    assert_eq!(reason(&verdicts[1]), Reason::AlreadyExists);
}

#[test]
fn nobody_joins_after_its_time_and_nothing_but_a_person_opens_it() {
    let mut log = Log::new();
    let task = open(&mut log, ADA).unwrap();
    log.time = log.time.plus(60_001);
    assert_eq!(reason(&join(&mut log, &task, ADA, BEN)), Reason::TaskNotActive);
    // A task that nobody joined needs no review and blocks nobody.
    assert_eq!(reason(&review(&mut log, &task, MARY)), Reason::TaskNotActive, "there is nothing to look at");
    open(&mut log, ADA).unwrap();
    let (_, records) = asking(&mut log, MARY);
    assert_eq!(reason(&log.put(vec![records[0].clone()])[0]), Reason::InvalidField, "a task that nobody asked for");
    assert_eq!(reason(&log.put(vec![records[1].clone()])[0]), Reason::InvalidField, "asked for without its task");
    let (_, mut records) = asking(&mut log, MARY);
    records[1].author = Some(AuthorRecord { who: Some(BEN.who()) });
    assert_eq!(reason(&log.put(records)[1]), Reason::InvalidField, "in another one's name");
}

#[test]
fn it_lives_an_hour_and_waits_a_quarter_of_one_and_is_not_extended() {
    type Change = fn(&mut TaskOpened);
    let cases: [(Change, Reason); 5] = [
        (|e| e.max_deadline += 1, Reason::NoLifeLeft),
        (|e| e.deadline = e.opened_at + limits::BREAK_GLASS_JOIN_MS + 1, Reason::NoLifeLeft),
        (|e| e.callers.push("spiffe://a.example/agent".into()), Reason::InvalidField),
        (|e| e.approval = vec![1; 16], Reason::InvalidField),
        (|e| e.heartbeat = 5_000, Reason::InvalidField),
    ];
    for (n, (change, expected)) in cases.into_iter().enumerate() {
        let mut log = Log::new();
        let (_, mut records) = asking(&mut log, ADA);
        if let Some(Event::TaskOpened(e)) = &mut records[0].event {
            change(e);
        }
        assert_eq!(reason(&log.put(records)[0]), expected, "case {n}");
    }
    let mut log = Log::new();
    let task = active(&mut log);
    let extended = TaskExtended {
        task,
        deadline: log.time.0 + limits::BREAK_GLASS_MS,
        decided_at: log.time.0,
        policy_version: 1,
        ..Default::default()
    };
    let extends = Record::new(ADA.who(), Event::TaskExtended(extended)).decided_at(log.state.head);
    assert_eq!(reason(&log.put(vec![extends])[0]), Reason::NoLifeLeft);
}

#[test]
fn nobody_else_acts_in_it_and_no_approval_widens_it() {
    let mut log = Log::new();
    let task = active(&mut log);
    assert_eq!(reason(&issue(&mut log, &task, |e| e.caller = MARY.caller())), Reason::NotYours);
    assert_eq!(reason(&issue(&mut log, &task, |e| e.break_glass = false)), Reason::InvalidField, "each use says so");
    let (approval, ask) = asked(&mut log, &task);
    log.put(vec![ask])[0].clone().unwrap();
    let give = given_by(&log, Author::Person(super::ada()), &approval);
    // A person in the task gives no approval for it, and an approval given by somebody else cannot be used in it.
    assert_eq!(reason(&log.put(vec![give])[0]), Reason::NotYours);
    assert_eq!(reason(&issue(&mut log, &task, |e| e.approval = approval.clone())), Reason::ApprovalNeeded);
    let plain = log.opened(&[]);
    assert_eq!(reason(&issue(&mut log, &plain, |_| {})), Reason::InvalidField, "nor is anything else such a use");
}

#[test]
fn an_action_in_it_is_authorized_for_its_people_alone_and_no_approval_widens_it() {
    let mut log = Log::new();
    let task = active(&mut log);
    let acts = |log: &mut Log, task: &[u8], change: &dyn Fn(&mut CredentialIssued)| {
        let act = authorize::action(log, task, |e| {
            let decided = e.decided.as_mut().unwrap();
            (decided.caller, decided.break_glass) = (ADA.caller(), true);
            change(decided);
        });
        log.put(vec![act])[0].clone()
    };
    assert_eq!(reason(&acts(&mut log, &task, &|e| e.caller = MARY.caller())), Reason::NotYours);
    assert_eq!(reason(&acts(&mut log, &task, &|e| e.break_glass = false)), Reason::InvalidField, "each use says so");
    assert_eq!(reason(&acts(&mut log, &task, &|e| e.approval = vec![7; 16])), Reason::ApprovalNeeded);
    let (approval, mut ask) = asked(&mut log, &task);
    if let Some(Event::ApprovalAsked(e)) = &mut ask.event {
        (e.of, e.caller) = (ApprovalKind::Action as i32, BEN.caller());
        e.approvers = vec![MARY.identity()];
    }
    log.put(vec![ask])[0].clone().unwrap();
    let give = given_by(&log, MARY.who(), &approval);
    log.put(vec![give])[0].clone().unwrap();
    let widened = acts(&mut log, &task, &|e| (e.caller, e.approval) = (BEN.caller(), approval.clone()));
    assert_eq!(reason(&widened), Reason::OutsideTask, "what somebody gave serves for nothing in it");
    assert_eq!(log.state.break_glass_tasks.uses, 0);
    acts(&mut log, &task, &|_| {}).unwrap();
    acts(&mut log, &task, &|e| e.caller = BEN.caller()).unwrap();
    assert_eq!(log.state.break_glass_tasks.uses, 2, "each is a use of it");
    let plain = log.opened(&[]);
    assert_eq!(reason(&acts(&mut log, &plain, &|_| {})), Reason::InvalidField, "nor is anything else such a use");
    close(&mut log, &task);
    assert_eq!(reason(&acts(&mut log, &task, &|_| {})), Reason::TaskNotActive);
}

#[test]
fn by_a_login_nobody_steps_but_its_person_and_two_logins_are_one() {
    let mut log = logins::log();
    for (n, token) in [(1, "one"), (2, "two")] {
        let signs_in = logins::login(&log, n, token, |_| {});
        assert!(log.put(signs_in).iter().all(Result::is_ok));
    }
    let by = |record: Record, n: u8, caller: &str| {
        let mut record = record;
        if let Some(Event::BreakGlass(e)) = &mut record.event {
            (e.ancestor, e.caller) = (vec![n; 16], caller.into());
        }
        record
    };
    let own = "spiffe://people.example/people/corp/ada";
    let task = open(&mut log, BEN).unwrap();
    let joins = |log: &Log, who: Whom| step(log, &task, BreakGlassStep::Joined, who, &[BEN, who]);
    let record = by(joins(&log, MARY), 1, own);
    assert_eq!(reason(&log.put(vec![record])[0]), Reason::NotYours, "ada's login is not mary's");
    let record = by(joins(&log, ADA), 1, "spiffe://people.example/people/corp/eve");
    assert_eq!(reason(&log.put(vec![record])[0]), Reason::NotYours, "nor does it say eve");
    let record = by(joins(&log, Svid("eve")), 1, &Svid("eve").caller());
    assert_eq!(reason(&log.put(vec![record])[0]), Reason::NotYours, "nor is it a workload's");
    let record = by(joins(&log, Svid("eve")), 9, own);
    assert_eq!(reason(&log.put(vec![record])[0]), Reason::InvalidField, "a workload steps under its own SPIFFE ID");
    let record = by(joins(&log, ADA), 1, own);
    log.put(vec![record])[0].clone().unwrap();
    close(&mut log, &task);
    let record = by(step(&log, &task, BreakGlassStep::Reviewed, ADA, &[BEN, ADA]), 2, own);
    assert_eq!(reason(&log.put(vec![record])[0]), Reason::NotYours, "with her other login she is no third person");
    log.revoke(Target::Credential(logins::id(2)), true);
    let record = by(step(&log, &task, BreakGlassStep::Reviewed, MARY, &[BEN, ADA]), 2, own);
    assert!(log.put(vec![record])[0].is_err(), "nor is a login that was revoked anybody's");
    let record = step(&log, &task, BreakGlassStep::Reviewed, MARY, &[BEN, ADA]);
    log.put(vec![record])[0].clone().unwrap();
}

#[test]
fn what_is_below_it_is_of_its_people_and_dies_with_it() {
    let mut log = Log::new();
    let task = active(&mut log);
    let child = |log: &mut Log, opener: Whom, callers: &[Whom], break_glass: bool| {
        let mut record = log.task(&task);
        if let Some(Event::TaskOpened(e)) = &mut record.event {
            (e.opener, e.break_glass) = (opener.caller(), break_glass);
            e.callers = callers.iter().map(|c| c.caller()).collect();
        }
        (id_of(&record), log.put(vec![record])[0].clone())
    };
    assert_eq!(reason(&child(&mut log, MARY, &[], true).1), Reason::NotYours);
    assert_eq!(reason(&child(&mut log, ADA, &[MARY], true).1), Reason::NotYours);
    assert_eq!(reason(&child(&mut log, ADA, &[], false).1), Reason::InvalidField, "it does not say what it is");
    let (below, opened) = child(&mut log, ADA, &[BEN], true);
    opened.unwrap();
    issue(&mut log, &below, |_| {}).unwrap();
    close(&mut log, &task);
    assert_eq!(reason(&issue(&mut log, &below, |_| {})), Reason::TaskNotActive);
    assert!(
        log.state.rules.get(&Target::Task(TaskId::from_slice(&task).unwrap())).is_some(),
        "what was issued under it is revoked"
    );
}

#[test]
fn until_a_third_looked_at_it_neither_of_its_people_opens_or_joins_another() {
    let mut log = Log::new();
    let task = active(&mut log);
    assert_eq!(reason(&open(&mut log, ADA).map(drop)), Reason::ApprovalNeeded, "while it is open");
    assert_eq!(reason(&review(&mut log, &task, MARY)), Reason::TaskNotActive, "it is not over");
    close(&mut log, &task);
    assert_eq!(reason(&open(&mut log, ADA).map(drop)), Reason::ApprovalNeeded, "the first");
    assert_eq!(reason(&open(&mut log, BEN).map(drop)), Reason::ApprovalNeeded, "the second");
    let others = open(&mut log, MARY).unwrap();
    assert_eq!(reason(&join(&mut log, &others, MARY, BEN)), Reason::ApprovalNeeded, "joining");
    assert_eq!(reason(&review(&mut log, &task, ADA)), Reason::NotYours, "not the first of the two");
    assert_eq!(reason(&review(&mut log, &task, BEN)), Reason::NotYours, "nor the second");
    assert_eq!(reason(&review(&mut log, &task, Local)), Reason::NotYours, "nor nobody");
    assert_eq!(reason(&review(&mut log, &task, Svid("ada"))), Reason::NotYours, "nor the first by another name");
    review(&mut log, &task, MARY).unwrap();
    assert_eq!(reason(&review(&mut log, &task, MARY)), Reason::AlreadyExists);
    join(&mut log, &others, MARY, BEN).unwrap();
    open(&mut log, ADA).unwrap();
}

#[test]
fn ended_by_time_or_by_a_revocation_it_blocks_as_well() {
    let mut log = Log::new();
    let task = active(&mut log);
    log.time = log.time.plus(limits::BREAK_GLASS_MS);
    assert_eq!(reason(&open(&mut log, BEN).map(drop)), Reason::ApprovalNeeded);
    review(&mut log, &task, MARY).unwrap();
    let task = active(&mut log);
    log.revoke(Target::Task(TaskId::from_slice(&task).unwrap()), false);
    assert_eq!(reason(&open(&mut log, ADA).map(drop)), Reason::ApprovalNeeded);
    review(&mut log, &task, MARY).unwrap();
}

#[test]
fn with_one_of_the_two_revoked_it_takes_nothing_more() {
    for who in [ADA, BEN] {
        let mut log = Log::new();
        let task = active(&mut log);
        let identity = who.identity();
        let target = Target::Subject(identity.issuer.as_str().into(), identity.sub.as_str().into());
        log.revoke(target, true);
        let other = if who.caller() == ADA.caller() { BEN } else { ADA };
        assert_eq!(reason(&issue(&mut log, &task, |e| e.caller = other.caller())), Reason::Revoked, "{}", who.caller());
    }
}

#[test]
fn a_new_generation_voids_what_is_open_and_what_was_done_is_still_looked_at() {
    let mut log = Log::new();
    let task = active(&mut log);
    let waiting = open(&mut log, MARY).unwrap();
    log.put(vec![generation(2, false)])[0].clone().unwrap();
    assert_eq!(reason(&issue(&mut log, &task, |_| {})), Reason::NotFound);
    assert_eq!(reason(&join(&mut log, &waiting, MARY, Person("eve"))), Reason::NotFound);
    assert_eq!(reason(&open(&mut log, ADA).map(drop)), Reason::ApprovalNeeded);
    review(&mut log, &task, MARY).unwrap();
    open(&mut log, ADA).unwrap();
}

#[test]
fn a_review_is_decided_with_the_policy_in_force() {
    let mut log = Log::new();
    let task = active(&mut log);
    close(&mut log, &task);
    let reviews = step(&log, &task, BreakGlassStep::Reviewed, MARY, &[ADA, BEN]);
    let policy = PolicySetUpdated { environment: "dev".into(), version: 2, ..Default::default() };
    log.put(vec![by_operator(Event::PolicySet(policy))])[0].clone().unwrap();
    assert_eq!(reason(&log.put(vec![reviews])[0]), Reason::DecidedOnOldState);
}
