//! Exhaustive exploration of a small world: two writers, tasks with children, derived credentials, a single-use approval, two revocations
//! or closings, a lock and its lifting. Every order of deciding, appending and folding, up to a number of records.

use std::collections::HashMap;
use std::rc::Rc;

use mayfly::ledger::State;
use mayfly::ledger::commit::{Commit, EncodedRecord, Hash, WriterHead, pack, sha256};
use mayfly::ledger::record::*;
use mayfly::seq::Millis;

use crate::check::{facts, fresh};
use crate::model::{MINUTE, Model};
use crate::world::START;

const CALLER: &str = "spiffe://a.example/agent";
/// Number of grants that are ever decided.
const GRANTS: u8 = 3;

/// One node of the exploration.
#[derive(Clone)]
struct Place {
    /// The state after each commit.
    states: Vec<Rc<State>>,
    model: Rc<Model>,
    chain: WriterHead,
    /// How many commits each writer has folded.
    views: [usize; 2],
    pending: [Option<Rc<Record>>; 2],
    grants: u8,
    takings: u8,
    asked: bool,
    lifted: bool,
}

#[derive(Default)]
struct Explored {
    /// Visited nodes, with the largest remaining number of records at a visit.
    seen: HashMap<Hash, u8>,
    states: u64,
    void: u64,
}

fn id(n: u8) -> Vec<u8> {
    vec![n; 16]
}

fn operator(event: Event) -> Record {
    Record::new(Author::LocalUid(0), event)
}

fn opened(n: u8, parent: &[u8]) -> Event {
    Event::TaskOpened(Box::new(TaskOpened {
        task: id(n),
        parent: parent.to_vec(),
        owner: Some(Principal { issuer: "a.example".into(), sub: CALLER.into() }),
        opener: CALLER.into(),
        environment: "dev".into(),
        opened_at: START,
        deadline: START + 60 * MINUTE,
        max_deadline: START + 60 * MINUTE,
        policy_version: 1,
        ..Default::default()
    }))
}

fn issued(n: u8, task: &[u8], shown: Option<&CredentialIssued>, approval: bool) -> Event {
    let mut ancestors = shown.map_or_else(Vec::new, |s| s.ancestors.clone());
    ancestors.extend(shown.map(|s| Ancestor { credential: s.credential.clone(), caller: s.caller.clone() }));
    Event::Issued(Box::new(CredentialIssued {
        credential: id(n),
        task: task.to_vec(),
        kind: 1,
        caller: CALLER.into(),
        upstream: "echo".into(),
        environment: "dev".into(),
        issued_at: START,
        expires_at: START + MINUTE,
        renewable_until: START + MINUTE,
        key: "k".into(),
        policy_version: 1,
        upstream_version: 1,
        approval: if approval { id(200) } else { vec![] },
        shown: shown.map_or_else(Vec::new, |s| s.credential.clone()),
        ancestors,
        ..Default::default()
    }))
}

impl Place {
    fn begin() -> Place {
        let place = Place {
            states: vec![Rc::new(State::default())],
            model: Rc::new(Model::default()),
            chain: WriterHead::START,
            views: [0, 0],
            pending: [None, None],
            grants: 0,
            takings: 0,
            asked: false,
            lifted: false,
        };
        let key = KeyAdded { key: "k".into(), purpose: 1, state: KeyState::Active as i32, ..Default::default() };
        let first = [
            Event::GenerationBegun(GenerationBegun { generation: 1, store: vec![1; 16], ..Default::default() }),
            Event::PolicySet(PolicySetUpdated { environment: "dev".into(), version: 1, ..Default::default() }),
            Event::UpstreamSet(UpstreamUpdated { name: "echo".into(), version: 1, ..Default::default() }),
            Event::KeyAdded(key),
        ];
        let (mut place, _) = place.append(first.map(operator).to_vec());
        let root = operator(opened(100, &[])).decided_at(place.states[1].head);
        place = place.append(vec![root]).0;
        place.views = [2, 2];
        place
    }

    fn head(&self) -> &State {
        self.states.last().expect("a state")
    }

    /// Appends a commit and checks all invariants.
    fn append(&self, records: Vec<Record>) -> (Place, bool) {
        let encoded: Vec<EncodedRecord> = records.iter().map(|r| EncodedRecord::new(r.clone()).expect("small")).collect();
        let (bytes, chain) = pack(1, self.chain, Millis(START), encoded.iter());
        let mut state = self.head().clone();
        let folded =
            state.fold(self.states.len() as u64, &Commit::from_bytes(&bytes.into()).expect("a commit")).expect("it folds");
        let mut model = (*self.model).clone();
        for (record, verdict) in records.iter().zip(&folded.verdicts) {
            model.take(std::slice::from_ref(record), START, verdict).unwrap_or_else(|e| panic!("{e}\n{:#?}", self.model.log));
            let line = model.log.last().expect("a line");
            fresh(&model, line).unwrap_or_else(|e| panic!("{e}\n{:#?}", model.log));
        }
        let mut states = self.states.clone();
        states.push(Rc::new(state));
        let place = Place { states, model: Rc::new(model), chain, ..self.clone() };
        place.check();
        let valid = folded.verdicts.iter().all(Result::is_ok);
        (place, valid)
    }

    /// After a revocation was seen, everything that it covers is refused, whenever it was or will be issued.
    fn check(&self) {
        for line in self.model.log.iter() {
            let Some(grant) = line.grant.as_deref() else { continue };
            let facts = facts(grant, line.record.revision);
            for state in &self.states {
                let naive = self.model.covered(grant, line.record.revision, state.head);
                let rule = state.rules.covers(&facts);
                assert_eq!(rule.is_some(), naive.is_some(), "{rule:?} {naive:?}\n{:#?}", self.model.log);
            }
        }
    }

    fn key(&self) -> Hash {
        let mut bytes = self.chain.hash.to_vec();
        bytes.extend(self.views.iter().map(|v| *v as u8));
        for pending in &self.pending {
            bytes.push(u8::from(pending.is_some()));
            bytes.extend(pending.iter().flat_map(|r| EncodedRecord::new((**r).clone()).expect("small").bytes()));
        }
        bytes.extend([self.grants, self.takings]);
        sha256(&bytes)
    }

    /// Every grant that a writer could decide on its view.
    fn decisions(&self, w: usize) -> Vec<Record> {
        let view = &self.states[self.views[w]];
        let n = self.grants + 1;
        let known = |line: &&crate::model::Line| line.seq <= view.head;
        let lines: Vec<_> = self.model.log.iter().filter(|l| l.valid).filter(known).collect();
        let tasks = lines.iter().filter_map(|l| match &l.record.event {
            Some(Event::TaskOpened(t)) => Some(&t.task),
            _ => None,
        });
        let credentials =
            || lines.iter().filter_map(|l| if let Some(Event::Issued(i)) = &l.record.event { Some(&**i) } else { None });
        let mut events = Vec::new();
        for task in tasks {
            events.push(opened(n, task));
            for shown in std::iter::once(None).chain(credentials().map(Some)) {
                events.extend([false, true].map(|approval| issued(n, task, shown, approval)));
            }
        }
        let records = events.into_iter().map(|e| operator(e).decided_at(view.head));
        records.filter(|r| view.verdict(std::slice::from_ref(r), Millis(START)).is_ok()).collect()
    }

    /// Every operator action that is possible next, with the remaining actions.
    fn takings(&self) -> Vec<Place> {
        let mut out = Vec::new();
        let mut then = |record: Vec<Record>, change: &dyn Fn(&mut Place)| {
            let (mut place, _) = self.append(record);
            change(&mut place);
            out.push(place);
        };
        let caller = || TargetRecord { aim: Some(RecordedTarget::Caller(CALLER.into())) };
        let root = self.model.log.iter().filter(|l| l.valid).find_map(|l| match &l.record.event {
            Some(Event::TaskOpened(t)) => Some(t.task.clone()),
            _ => None,
        });
        if let (false, Some(task)) = (self.asked, root) {
            let ada = Principal { issuer: "https://idp.example".into(), sub: "ada".into() };
            let asked = ApprovalRequested {
                approval: id(200),
                digest: vec![1; 32],
                of: ApprovalKind::Exchange as i32,
                caller: CALLER.into(),
                task,
                upstream: "echo".into(),
                upstream_version: 1,
                environment: "dev".into(),
                kind: 1,
                ttl: MINUTE,
                approvers: vec![ada.clone()],
                expires_at: START + MINUTE,
                ..Default::default()
            };
            let given = ApprovalDecided { approval: id(200), given: true, digest: vec![1; 32], ..Default::default() };
            let given = Record::new(Author::Person(ada), Event::ApprovalDecided(given)).decided_at(self.head().head);
            then(vec![operator(Event::ApprovalAsked(asked.into())), given], &|p| p.asked = true);
        }
        if self.takings < 2 {
            let revoke = |target: TargetRecord| Event::Revoked(TargetsRevoked { targets: vec![target], ..Default::default() });
            let mut events = vec![revoke(caller())];
            for line in self.model.log.iter().filter(|l| l.valid) {
                match &line.record.event {
                    Some(Event::Issued(i)) => {
                        events.push(revoke(TargetRecord { aim: Some(RecordedTarget::Credential(i.credential.clone())) }))
                    }
                    Some(Event::TaskOpened(t)) if !self.model.closed(&t.task) => {
                        let closed =
                            TaskClosed { task: t.task.clone(), outcome: TaskOutcome::Completed as i32, ..Default::default() };
                        events.push(Event::TaskClosed(closed));
                    }
                    _ => {}
                }
            }
            for event in events {
                then(vec![operator(event)], &|p| p.takings += 1);
            }
        }
        if !self.lifted && !self.model.locks().is_empty() {
            let lift = Event::LockLifted(LockLifted { targets: vec![caller()], ..Default::default() });
            then(vec![operator(lift).decided_at(self.head().head)], &|p| p.lifted = true);
        }
        out
    }
}

impl Explored {
    fn explore(&mut self, place: Place, left: u8) {
        let key = place.key();
        if self.seen.get(&key).is_some_and(|l| *l >= left) {
            return;
        }
        self.states += u64::from(self.seen.insert(key, left).is_none());
        if left == 0 {
            return;
        }
        let head = place.states.len() - 1;
        for w in 0..2 {
            if place.views[w] < head {
                let mut looks = place.clone();
                looks.views[w] = head;
                self.explore(looks, left);
            }
            if let Some(record) = &place.pending[w] {
                let (mut lands, valid) = place.append(vec![(**record).clone()]);
                lands.pending[w] = None;
                self.void += u64::from(!valid);
                self.explore(lands, left - 1);
            } else if place.grants < GRANTS {
                for record in place.decisions(w) {
                    let mut decides = place.clone();
                    decides.pending[w] = Some(Rc::new(record));
                    decides.grants += 1;
                    self.explore(decides, left - 1);
                }
            }
        }
        for next in place.takings() {
            self.explore(next, left - 1);
        }
    }
}

#[test]
fn no_order_of_a_small_world_breaks_a_rule() {
    let depth = crate::setting("MAYFLY_SIM_DEPTH", 5) as u8;
    let mut explored = Explored::default();
    explored.explore(Place::begin(), depth);
    println!("depth {depth}: {} states, {} void", explored.states, explored.void);
    assert!(explored.states > 1_000 && explored.void > 50, "too little was there to explore");
}
