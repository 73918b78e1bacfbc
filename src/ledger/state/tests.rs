//! Tests of the fold on small logs, one per rule.

use super::super::commit::{Commit, EncodedRecord, WriterHead, pack};
use super::super::record::*;
use super::*;
use crate::revocation::Rules;

pub(super) struct Log {
    pub(super) state: State,
    pub(super) chain: WriterHead,
    pub(super) time: Millis,
    next: u8,
}

const ANCHOR: [u8; 32] = [9; 32];

impl Log {
    pub(super) fn new() -> Log {
        let mut log = Log { state: State::default(), chain: WriterHead::START, time: Millis(1_000_000), next: 0 };
        let begin = GenerationBegun { generation: 1, cause: "created".into(), store: vec![1; 16], ..Default::default() };
        let policy = PolicySetUpdated { environment: "dev".into(), version: 1, ..Default::default() };
        let upstream = UpstreamUpdated { name: "echo".into(), version: 1, ..Default::default() };
        let key = KeyAdded {
            key: "k1".into(),
            purpose: KeyPurpose::AccessToken as i32,
            environment: "dev".into(),
            state: KeyState::Active as i32,
            ..Default::default()
        };
        for event in [Event::GenerationBegun(begin), Event::PolicySet(policy), Event::UpstreamSet(upstream), Event::KeyAdded(key)]
        {
            log.put(vec![Record::new(Author::Mayfly("created".into()), event)])[0].clone().unwrap();
        }
        log
    }

    pub(super) fn put(&mut self, records: Vec<Record>) -> Vec<Verdict> {
        let encoded: Vec<EncodedRecord> = records.into_iter().map(|r| EncodedRecord::new(r).unwrap()).collect();
        let (bytes, chain) = pack(1, self.chain, self.time, encoded.iter());
        self.chain = chain;
        let commit = Commit::from_bytes(&bytes.into()).unwrap();
        self.state.fold(self.state.position + 1, &commit).unwrap().verdicts
    }

    pub(super) fn id(&mut self) -> Vec<u8> {
        self.next += 1;
        vec![self.next; 16]
    }

    pub(super) fn task(&mut self, parent: &[u8]) -> Record {
        let opened = TaskOpened {
            task: self.id(),
            parent: parent.to_vec(),
            owner: Some(Principal { issuer: "a.example".into(), sub: "spiffe://a.example/agent".into() }),
            opener: "spiffe://a.example/agent".into(),
            environment: "dev".into(),
            allowance: Some(Allowance {
                upstreams: vec![AllowedUpstream { name: "echo".into(), scopes: vec!["read".into()] }],
                ..Default::default()
            }),
            opened_at: self.time.0,
            deadline: self.time.0 + 60_000,
            max_deadline: self.time.0 + 60_000,
            policy_version: 1,
            svid: Some(self.svid()),
            ..Default::default()
        };
        Record::new(Author::SpiffeId(opened.opener.clone()), Event::TaskOpened(opened.into())).decided_at(self.state.head)
    }

    pub(super) fn svid(&self) -> SvidEvidence {
        SvidEvidence { anchor: ANCHOR.to_vec(), issuing_key: vec![8; 32], serial: vec![7], not_after: self.time.0 + 600_000 }
    }

    pub(super) fn issue(&mut self, task: &[u8]) -> Record {
        let issued = CredentialIssued {
            credential: self.id(),
            task: task.to_vec(),
            kind: 1,
            caller: "spiffe://a.example/agent".into(),
            upstream: "echo".into(),
            scopes: vec!["read".into()],
            tool: "t".into(),
            environment: "dev".into(),
            issued_at: self.time.0,
            expires_at: self.time.0 + 30_000,
            renewable_until: self.time.0 + 60_000,
            svid: Some(self.svid()),
            key: "k1".into(),
            policy_version: 1,
            upstream_version: 1,
            ..Default::default()
        };
        Record::new(Author::SpiffeId(issued.caller.clone()), Event::Issued(issued.into())).decided_at(self.state.head)
    }

    pub(super) fn opened(&mut self, parent: &[u8]) -> Vec<u8> {
        let record = self.task(parent);
        let id = id_of(&record);
        self.put(vec![record])[0].clone().unwrap();
        id
    }

    pub(super) fn revoke(&mut self, target: Target, issued_only: bool) {
        let revoked = TargetsRevoked {
            targets: vec![target.to_record()],
            issued_only,
            keep_until: Rules::keep_until(self.time).0,
            ..Default::default()
        };
        self.put(vec![Record::new(Author::LocalUid(0), Event::Revoked(revoked))])[0].clone().unwrap();
    }

    pub(super) fn covered(&self, credential: &[u8]) -> bool {
        let live = self.state.credentials.get(&CredentialId::from_slice(credential).unwrap()).unwrap();
        let task = self.state.tasks.at(live.task()).unwrap();
        self.state.rules.covers(&self.state.facts(&live, task)).is_some()
    }
}

pub(super) fn id_of(record: &Record) -> Vec<u8> {
    match record.event.as_ref().unwrap() {
        Event::TaskOpened(e) => e.task.clone(),
        Event::Issued(e) => e.credential.clone(),
        _ => panic!("no id"),
    }
}

pub(super) fn reason(verdict: &Verdict) -> Reason {
    verdict.as_ref().err().map(|r| r.reason).expect("a refusal")
}

use crate::revocation::Facts;
use mayfly_base::refusal::Reason;
use mayfly_verify::seq::TaskId;

#[test]
fn a_revocation_covers_what_was_decided_before_it_wherever_it_commits() {
    let mut log = Log::new();
    let task = log.opened(&[]);
    let early = log.issue(&task);
    let late = log.issue(&task);
    log.put(vec![early.clone()])[0].clone().unwrap();
    assert!(!log.covered(&id_of(&early)));
    log.revoke(Target::Caller("spiffe://a.example/agent".into()), true);
    assert!(log.covered(&id_of(&early)), "issued before");
    assert_eq!(reason(&log.put(vec![late])[0]), Reason::Revoked, "decided before, committed after");
    let in_old_task = log.issue(&task);
    assert_eq!(reason(&log.put(vec![in_old_task])[0]), Reason::Revoked, "opening the task was a grant to that caller too");
    let task = log.opened(&[]);
    let fresh = log.issue(&task);
    log.put(vec![fresh.clone()])[0].clone().unwrap();
    assert!(!log.covered(&id_of(&fresh)), "decided after it was seen");
    log.revoke(Target::Caller("spiffe://a.example/agent".into()), true);
    assert!(log.covered(&id_of(&fresh)), "a second revocation of the same caller is a new rule");
}

#[test]
fn a_lock_blocks_new_grants_until_it_is_lifted_and_lifting_brings_nothing_back() {
    let mut log = Log::new();
    let task = log.opened(&[]);
    let old = log.issue(&task);
    log.put(vec![old.clone()])[0].clone().unwrap();
    log.revoke(Target::Prefix("spiffe://a.example".into()), false);
    let fresh = log.issue(&task);
    assert_eq!(reason(&log.put(vec![fresh])[0]), Reason::Locked);
    let lift = LockLifted { targets: vec![Target::Prefix("spiffe://a.example".into()).to_record()], reason: String::new() };
    log.put(vec![Record::new(Author::LocalUid(0), Event::LockLifted(lift)).decided_at(log.state.head)])[0].clone().unwrap();
    let in_old_task = log.issue(&task);
    assert_eq!(reason(&log.put(vec![in_old_task])[0]), Reason::Revoked, "the task is not brought back either");
    let task = log.opened(&[]);
    let fresh = log.issue(&task);
    log.put(vec![fresh])[0].clone().unwrap();
    assert!(log.covered(&id_of(&old)));
}

#[test]
fn a_closed_task_takes_nothing_and_ends_everything_under_it() {
    let mut log = Log::new();
    let root = log.opened(&[]);
    let child = log.opened(&root);
    let under = log.issue(&child);
    log.put(vec![under.clone()])[0].clone().unwrap();
    let flying = log.issue(&child);
    let grandchild = log.task(&child);
    let close = TaskClosed {
        task: root,
        outcome: TaskOutcome::Completed as i32,
        keep_until: Rules::keep_until(log.time).0,
        ..Default::default()
    };
    log.put(vec![Record::new(Author::LocalUid(0), Event::TaskClosed(close))])[0].clone().unwrap();
    assert!(log.covered(&id_of(&under)));
    assert_eq!(reason(&log.put(vec![flying])[0]), Reason::TaskNotActive);
    assert_eq!(reason(&log.put(vec![grandchild])[0]), Reason::TaskNotActive, "a child opened from a stale view");
}

#[test]
fn a_group_stands_or_is_void_together() {
    let mut log = Log::new();
    let mut open = log.task(&[]);
    let mut issue = log.issue(&id_of(&open));
    let mut bad = log.issue(&id_of(&open));
    for r in [&mut open, &mut issue, &mut bad] {
        r.group = 1;
    }
    if let Some(Event::Issued(e)) = &mut bad.event {
        e.upstream_version = 9;
    }
    let verdicts = log.put(vec![open.clone(), issue.clone(), bad]);
    assert!(verdicts.iter().all(|v| reason(v) == Reason::DecidedOnOldState));
    assert!(log.state.tasks.is_empty() && log.state.credentials.is_empty());
    assert!(log.put(vec![open, issue]).iter().all(Result::is_ok));
}

#[test]
fn a_compromised_keys_rule_ignores_the_revision() {
    let mut log = Log::new();
    log.revoke(Target::SigningKey("k1".into()), false);
    let forged = Facts { revision: Seq::from_u64((1 << 53) - 1).unwrap(), key: "k1", ..Facts::default() };
    assert!(log.state.rules.covers(&forged).is_some());
    log.time = log.time.plus(1000 * limits::TASK_TTL_MS);
    log.revoke(Target::Tool("other".into()), false);
    assert!(log.state.rules.covers(&forged).is_some(), "it is never pruned");
}

#[test]
fn a_generation_revokes_all_that_was_issued_before() {
    let mut log = Log::new();
    let task = log.opened(&[]);
    let old = log.issue(&task);
    log.put(vec![old.clone()])[0].clone().unwrap();
    let facts_of_old = Facts { revision: old.revision(), key: "k1", ..Facts::default() };
    let begin = GenerationBegun { generation: 2, cause: "recovered".into(), store: vec![1; 16], ..Default::default() };
    log.put(vec![Record::new(Author::Mayfly("recovered".into()), Event::GenerationBegun(begin))])[0].clone().unwrap();
    assert_eq!((log.state.head.generation(), log.state.head.count()), (2, 1));
    assert!(log.state.rules.covers(&facts_of_old).is_some());
    let flying = log.issue(&task);
    assert_eq!(reason(&log.put(vec![flying])[0]), Reason::NotFound);
}

#[test]
fn the_same_log_gives_the_same_state_also_through_a_snapshot() {
    let run = |through_snapshot: bool| {
        let mut log = Log::new();
        let task = log.opened(&[]);
        for n in 0..50 {
            log.time = log.time.plus(2_000);
            if n % 7 == 0 {
                log.revoke(Target::Tool(format!("t{n}").into()), n % 2 == 0);
            }
            let issue = log.issue(&task);
            log.put(vec![issue]);
            if through_snapshot && n == 20 {
                log.state = postcard::from_bytes(&postcard::to_stdvec(&log.state).unwrap()).unwrap();
            }
        }
        log.state.digest().unwrap()
    };
    assert_eq!(run(false), run(false));
    assert_eq!(run(false), run(true));
}

#[test]
fn what_has_ended_is_forgotten_and_nothing_else() {
    let mut log = Log::new();
    let task = log.opened(&[]);
    let issue = log.issue(&task);
    log.put(vec![issue.clone()])[0].clone().unwrap();
    assert_eq!((log.state.credentials.len(), log.state.credentials.ended()), (1, 0));
    log.time = log.time.plus(29_000);
    log.put(vec![Record::new(Author::LocalUid(0), Event::Maintained(Maintained::default()))]);
    assert_eq!(log.state.credentials.len(), 1);
    log.time = log.time.plus(10_000);
    log.put(vec![Record::new(Author::LocalUid(0), Event::Maintained(Maintained::default()))]);
    assert_eq!((log.state.credentials.len(), log.state.tasks.len()), (0, 1));
    log.time = log.time.plus(limits::REQUEST_ID_KEPT_MS + 60_000);
    log.put(vec![Record::new(Author::LocalUid(0), Event::Maintained(Maintained::default()))]);
    assert_eq!(log.state.tasks.len(), 0);
}

#[test]
fn a_commit_looks_at_few_pages_however_little_of_them_ends() {
    let mut log = Log::new();
    let task = log.opened(&[]);
    let (many, seconds, ends) = (20_000, 20, 1_000);
    for from in (0..many).step_by(1_000) {
        let alike = log.issue(&task);
        let issue = |n: u64| {
            let mut record = alike.clone();
            let Some(Event::Issued(e)) = &mut record.event else { panic!("an issuance") };
            e.credential = [n.to_be_bytes(), [7; 8]].concat();
            e.expires_at = log.time.0 + 1_000 + n % seconds * 1_000;
            record
        };
        assert!(log.put((from..from + 1_000).map(issue).collect()).iter().all(Result::is_ok));
    }
    let note = || vec![Record::new(Author::LocalUid(0), Event::Maintained(Maintained::default()))];
    // The entries that expire in one second are spread over all of the 110 pages.
    log.time = log.time.plus(2_000);
    log.put(note());
    let left = log.state.credentials.len() as u64;
    assert!(left < many && left > many - ends * 3 / 4, "{left}");
    log.time = log.time.plus(60_000);
    (0..80).for_each(|_| drop(log.put(note())));
    assert_eq!(log.state.credentials.len(), 0);
}

#[test]
fn what_is_over_does_not_count_for_who_opened_it() {
    let mut log = Log::new();
    let (closed, _over) = (log.opened(&[]), log.opened(&[]));
    let mut record = log.task(&[]);
    let Some(Event::TaskOpened(e)) = &mut record.event else { panic!("a task") };
    e.max_deadline += 20_000;
    let extended = e.task.clone();
    log.put(vec![record])[0].clone().unwrap();
    let opener = "spiffe://a.example/agent";
    let note = || Record::new(Author::LocalUid(0), Event::Maintained(Maintained::default()));
    assert_eq!(log.state.tasks.opened_by(opener), 3);
    let closing = TaskClosed { task: closed, outcome: TaskOutcome::Completed.into(), ..Default::default() };
    log.put(vec![Record::new(Author::LocalUid(0), Event::TaskClosed(closing))])[0].clone().unwrap();
    assert_eq!(log.state.tasks.opened_by(opener), 2);
    let deadline = |log: &Log| log.state.tasks.get(&TaskId::from_slice(&extended).unwrap()).unwrap().deadline;
    let (end, decided_at) = (deadline(&log).plus(10_000).0, log.time.0);
    let longer = TaskExtended { task: extended.clone(), deadline: end, decided_at, policy_version: 1, ..Default::default() };
    let (first, head) = (deadline(&log), log.state.head);
    log.put(vec![Record::new(Author::LocalUid(0), Event::TaskExtended(longer)).decided_at(head)])[0].clone().unwrap();
    log.time = first;
    log.put(vec![note()]);
    assert_eq!(log.state.tasks.opened_by(opener), 2, "a task lives up to its deadline");
    log.time = first.plus(1_000);
    log.put(vec![note()]);
    assert_eq!((log.state.tasks.opened_by(opener), log.state.tasks.len()), (1, 3), "it is remembered, and no longer counted");
    log.time = first.plus(11_000);
    log.put(vec![note()]);
    assert_eq!(log.state.tasks.opened_by(opener), 0);
}

#[test]
fn time_never_goes_back_but_in_a_new_generation_that_says_so() {
    let mut log = Log::new();
    log.time = Millis(10);
    let encoded = EncodedRecord::new(Record::new(Author::LocalUid(0), Event::Maintained(Maintained::default()))).unwrap();
    let (bytes, _) = pack(1, log.chain, log.time, std::iter::once(&encoded));
    let commit = Commit::from_bytes(&bytes.into()).unwrap();
    assert!(matches!(log.state.fold(9, &commit), Err(BadCommit::TimeBack { .. })));
    let begin =
        GenerationBegun { generation: 2, cause: "recovered".into(), store: vec![1; 16], reset_time: true, ..Default::default() };
    log.put(vec![Record::new(Author::Mayfly("recovered".into()), Event::GenerationBegun(begin))])[0].clone().unwrap();
    assert_eq!(log.state.time, Millis(10));
}

#[test]
fn every_sort_of_target_is_answered_by_what_a_credential_knows() {
    let mut log = Log::new();
    let task = log.opened(&[]);
    let mut record = log.issue(&task);
    if let Some(Event::Issued(e)) = &mut record.event {
        e.binding = String::new();
        e.subject = Some(Principal { issuer: "https://idp.example".into(), sub: "ada".into() });
        e.subject_token = Some(TokenEvidence { issuer: "https://idp.example".into(), id: "t-1".into(), expires_at: u64::MAX });
    }
    log.put(vec![record.clone()])[0].clone().unwrap();
    let credential = CredentialId::from_slice(&id_of(&record)).unwrap();
    let hits = [
        Target::Credential(credential),
        Target::Task(TaskId::from_slice(&task).unwrap()),
        Target::Caller("spiffe://a.example/agent".into()),
        Target::Prefix("spiffe://a.example/agent".into()),
        Target::TrustDomain("a.example".into()),
        Target::TrustAnchor(ANCHOR),
        Target::Subject("https://idp.example".into(), "ada".into()),
        Target::Upstream("echo".into()),
        Target::UpstreamScope("echo".into(), "read".into()),
        Target::Tool("t".into()),
        Target::Environment("dev".into()),
        Target::PolicyBelow("dev".into(), 2),
        Target::SigningKey("k1".into()),
        Target::Svid("a.example".into(), [8; 32], vec![7].into()),
        Target::SubjectToken("https://idp.example".into(), "t-1".into()),
        Target::Everything,
    ];
    let live = log.state.credentials.get(&credential).unwrap();
    let facts = log.state.facts(&live, log.state.tasks.at(live.task()).unwrap());
    let bound = Facts { binding: "b", ..facts.clone() };
    for (target, facts) in hits.iter().map(|t| (t.clone(), &facts)).chain([(Target::Binding("b".into()), &bound)]) {
        let mut rules = Rules::default();
        rules.add(&target, log.state.head.next(), None, log.time.plus(1));
        assert_eq!(rules.covers(facts).map(|h| h.target), Some(target.clone()));
        let mut seen = Rules::default();
        seen.add(&target, Some(facts.revision), None, log.time.plus(1));
        let ignores_revision = matches!(target, Target::SigningKey(_));
        assert_eq!(seen.covers(facts).is_some(), ignores_revision, "{target}: a decision that saw it is not covered");
    }
    let mut near = Rules::default();
    near.add(&Target::Prefix("spiffe://a.example/agen".into()), log.state.head.next(), None, log.time.plus(1));
    near.add(&Target::PolicyBelow("dev".into(), 1), log.state.head.next(), None, log.time.plus(1));
    near.add(&Target::UpstreamScope("echo".into(), "write".into()), log.state.head.next(), None, log.time.plus(1));
    assert_eq!(near.covers(&facts), None, "whole segments, versions below, this scope");
}
