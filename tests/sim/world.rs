//! The world: writers with views of their own, one ordered store, followers behind slow feeds, and clocks that are set.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use mayfly::ledger::clock::GuardedClock;
use mayfly::ledger::commit::{Commit, EncodedRecord, Hash, WriterHead, pack, sha256};
use mayfly::ledger::record::{CredentialIssued, Event, Record};
use mayfly::ledger::state::{Verdict, groups};
use mayfly::ledger::{State, record};
use mayfly::limits;
use mayfly::revocation::{FeedEvent, event_of};
use mayfly::seq::{Millis, Seq};
use mayfly::system::{Clock, ManualClock, System};

use crate::broken::Broken;
use crate::model::Model;
use crate::watch::Watcher;

/// A violation of a rule.
pub type Found = String;

pub const START: u64 = 1_800_000_000_000;

pub struct Proposal {
    pub group: Vec<Record>,
    pub ticket: usize,
    pub grant: bool,
}

/// A packed commit that is not yet in the store, and the proposals it answers: ticket, first record, number of records.
pub struct Flight {
    pub bytes: Vec<u8>,
    answers: Vec<(usize, usize, usize)>,
}

pub struct Writer {
    pub id: u32,
    pub state: State,
    pub clock: Arc<ManualClock>,
    pub guard: GuardedClock,
    /// With one writer: the durable head, up to which answers may leave the process. With several: the state's head.
    pub durable: Seq,
    pub pending: Vec<Proposal>,
    pub flying: VecDeque<Flight>,
    pub awaited: HashMap<u64, Vec<(usize, usize, usize)>>,
    pub chain: WriterHead,
    /// When the writer was last known to have folded everything.
    pub fresh: Millis,
}

pub struct World {
    pub writers: Vec<Writer>,
    pub store: Vec<Bytes>,
    /// Folds every commit when it lands.
    pub observer: State,
    pub digests: Vec<Hash>,
    pub model: Model,
    pub feed: Vec<FeedEvent>,
    /// For each commit, where its events begin in the feed.
    pub told: Vec<usize>,
    /// Monotonic time at which each commit landed.
    pub landed: Vec<u64>,
    /// The head after each commit.
    pub heads: Vec<Seq>,
    /// A writer's clock was set.
    pub stepped: bool,
    /// A follower's clock was set.
    pub followers_stepped: bool,
    pub watchers: Vec<Watcher>,
    pub truth: Arc<ManualClock>,
    pub broken: Broken,
    pub snapshot: Option<(usize, Vec<u8>)>,
    pub groups: Vec<Vec<Record>>,
    pub answered: Vec<usize>,
    pub known: HashMap<Vec<u8>, CredentialIssued>,
    pub next: u64,
    pub transcript: Hash,
    pub counts: Counts,
}

/// Counts of what occurred, to see that a run was worthwhile.
#[derive(Default, Clone, Copy, Debug)]
pub struct Counts {
    pub commits: u64,
    pub valid: u64,
    pub void: u64,
    pub refused: u64,
    pub answered: u64,
    pub crashes: u64,
    pub checks: u64,
    pub accepted: u64,
}

impl World {
    pub fn new(writers: u32, broken: Broken) -> World {
        let truth = ManualClock::at(Millis(START));
        let mut world = World {
            writers: Vec::new(),
            store: Vec::new(),
            observer: State::default(),
            digests: Vec::new(),
            model: Model::default(),
            feed: Vec::new(),
            told: Vec::new(),
            landed: Vec::new(),
            heads: Vec::new(),
            stepped: false,
            followers_stepped: false,
            watchers: Vec::new(),
            truth,
            broken,
            snapshot: None,
            groups: Vec::new(),
            answered: Vec::new(),
            known: HashMap::new(),
            next: 0,
            transcript: [0; 32],
            counts: Counts::default(),
        };
        world.writers = (1..=writers).map(Writer::new).collect();
        world.watchers = (0..2).map(|_| Watcher::new()).collect();
        world
    }

    pub fn several(&self) -> bool {
        self.writers.len() > 1
    }

    pub fn id(&mut self) -> Vec<u8> {
        self.next += 1;
        let mut id = vec![0xa5; 16];
        id[8..].copy_from_slice(&self.next.to_be_bytes());
        id
    }

    /// Proposes a group at a writer. A careful writer first checks it against its own view; the fold must not depend on that.
    pub fn propose(&mut self, w: usize, mut group: Vec<Record>, grant: bool, careful: bool) {
        let writer = &mut self.writers[w];
        if grant && writer.guard.trusted(writer.state.time).is_err() {
            self.counts.refused += 1;
            return;
        }
        self.next += 1;
        if group.len() > 1 {
            group.iter_mut().for_each(|r| r.group = self.next as u32);
        }
        let time = writer.guard.now().max(writer.state.time);
        if careful && writer.state.verdict(&self.broken.all(&group, &writer.state), time).is_err() {
            self.counts.refused += 1;
            return;
        }
        for record in &group {
            if let Some(Event::Issued(i)) = &record.event {
                self.known.insert(i.credential.clone(), i.as_ref().clone());
            }
        }
        self.groups.push(group.clone());
        writer.pending.push(Proposal { group, ticket: self.groups.len() - 1, grant });
    }

    /// Packs the proposals into a commit. A single writer judges each group first, as the product does; several writers leave that to the
    /// fold.
    pub fn pack(&mut self, w: usize) {
        let several = self.several();
        let broken = self.broken;
        let writer = &mut self.writers[w];
        if writer.pending.is_empty() || (!several && !writer.flying.is_empty()) {
            return;
        }
        let resets = |r: &Record| matches!(&r.event, Some(Event::GenerationBegun(g)) if g.reset_time);
        let mut time = writer.guard.now().max(writer.state.time).max(writer.chain.time);
        if writer.pending[0].group.iter().any(resets) {
            // A recovery writes the time that the operator confirms.
            time = writer.guard.now();
            writer.pending.truncate(1);
            self.stepped = true;
        }
        let trusted = writer.guard.trusted(writer.state.time).is_ok();
        let (mut records, mut answers) = (Vec::new(), Vec::new());
        for proposal in std::mem::take(&mut writer.pending) {
            let seen = broken.all(&proposal.group, &writer.state);
            let judged = several || writer.state.verdict(&seen, time).is_ok();
            if !judged || (proposal.grant && !trusted) {
                self.counts.refused += 1;
                continue;
            }
            if !several {
                if records.is_empty() {
                    let position = writer.state.position + 1;
                    writer.state.begin_commit(position, time);
                }
                for record in &seen {
                    writer.state.take_seq(record);
                    writer.state.apply(record);
                }
            }
            answers.push((proposal.ticket, records.len(), proposal.group.len()));
            records.extend(proposal.group);
        }
        if records.is_empty() {
            return;
        }
        let encoded: Vec<EncodedRecord> = records.into_iter().map(|r| EncodedRecord::new(r).expect("small")).collect();
        let (bytes, chain) = pack(writer.id, writer.chain, time, encoded.iter());
        if !several {
            writer.state.end_commit();
            writer.state.appended(writer.id, chain, bytes.len());
        }
        writer.chain = chain;
        writer.flying.push_back(Flight { bytes, answers });
    }

    /// The writer's oldest commit under way becomes durable and visible to all.
    pub fn land(&mut self, w: usize) -> Result<(), Found> {
        let Some(flight) = self.writers[w].flying.pop_front() else { return Ok(()) };
        let number = Commit::from_bytes(&flight.bytes.clone().into()).map_err(|e| e.to_string())?.header.number;
        self.append(flight.bytes)?;
        let several = self.several();
        if several && self.broken != Broken::AnswersEarly {
            self.writers[w].awaited.insert(number, flight.answers);
            return Ok(());
        }
        if !several {
            let digest = self.writers[w].state.digest().map_err(|e| e.to_string())?;
            if Some(&digest) != self.digests.last() {
                return Err("judging before the append and folding the same bytes give different states".into());
            }
            self.writers[w].durable = self.writers[w].state.head;
        }
        for (ticket, ..) in flight.answers {
            self.answer(ticket)?;
        }
        Ok(())
    }

    fn answer(&mut self, ticket: usize) -> Result<(), Found> {
        self.counts.answered += 1;
        self.answered.push(ticket);
        let group = &self.groups[ticket];
        // A group that was sent twice may take effect once: one valid place is enough for the answer.
        let stands = |r: &Record| self.model.log.iter().any(|l| l.valid && *l.record == *r);
        if group.iter().all(stands) { Ok(()) } else { Err(format!("answered, but not durable and valid: {group:?}")) }
    }

    /// A commit lands: the observer folds it, the model judges it, the feed gets its events.
    pub fn append(&mut self, bytes: Vec<u8>) -> Result<(), Found> {
        let bytes = Bytes::from(bytes);
        let (commit, verdicts) = fold(&mut self.observer, self.store.len() as u64 + 1, &bytes, self.broken)?;
        self.store.push(bytes.clone());
        self.landed.push(self.truth.steady());
        self.heads.push(self.observer.head);
        self.digests.push(self.observer.digest().map_err(|e| e.to_string())?);
        self.counts.commits += 1;
        let time = self.observer.time.0;
        self.told.push(self.feed.len());
        let mut at = 0;
        for group in groups(&commit.records) {
            let (verdict, valid) = (&verdicts[at], verdicts[at].is_ok());
            at += group.len();
            let places = self.model.log.len();
            self.model.take(group, time, verdict)?;
            *(if valid { &mut self.counts.valid } else { &mut self.counts.void }) += group.len() as u64;
            for line in &self.model.log[places..] {
                crate::check::fresh(&self.model, line)?;
                let event = if valid { event_of(&line.record, line.seq, Millis(time), &self.observer) } else { None };
                self.feed.extend(event);
            }
        }
        self.model.commits.push((self.observer.head, time));
        if self.model.head != self.observer.head {
            return Err(format!("the head is {:?}, by the model {:?}", self.observer.head, self.model.head));
        }
        if !self.several() {
            self.tell(0, self.store.len() - 1);
        }
        self.note(&bytes);
        crate::check::server(self)
    }

    /// A replica folds up to `most` commits that it has not seen, and answers its own proposals that it found valid.
    pub fn fold(&mut self, w: usize, most: usize) -> Result<(), Found> {
        if !self.several() {
            return Ok(());
        }
        for _ in 0..most {
            let writer = &mut self.writers[w];
            let at = writer.state.position as usize;
            let Some(bytes) = self.store.get(at) else { break };
            let (commit, verdicts) = fold(&mut writer.state, at as u64 + 1, bytes, self.broken)?;
            writer.durable = writer.state.head;
            if writer.state.digest().map_err(|e| e.to_string())? != self.digests[at] {
                return Err(format!("replica {} differs at commit {}", writer.id, at + 1));
            }
            let own = commit.header.writer == writer.id;
            let answers = if own { writer.awaited.remove(&commit.header.number) } else { None };
            self.tell(w, at);
            if let Some(answers) = answers {
                for (ticket, first, count) in answers {
                    if verdicts[first..first + count].iter().all(Result::is_ok) {
                        self.answer(ticket)?;
                    }
                }
            }
        }
        let writer = &mut self.writers[w];
        if writer.state.position as usize == self.store.len() {
            writer.fresh = writer.guard.now().max(writer.state.time);
        }
        Ok(())
    }

    pub fn pass(&mut self, ms: u64) {
        self.truth.advance(ms);
        let clocks = self.writers.iter().map(|w| &w.clock).chain(self.watchers.iter().map(|w| &w.clock));
        clocks.for_each(|c| c.advance(ms));
    }

    /// Mixes an event into the transcript.
    pub fn note(&mut self, what: &[u8]) {
        let mut bytes = self.transcript.to_vec();
        bytes.extend_from_slice(what);
        self.transcript = sha256(&bytes);
    }

    /// Completes everything under way, so that the end of a run is checked too.
    pub fn settle(&mut self) -> Result<(), Found> {
        for w in 0..self.writers.len() {
            self.pack(w);
            while !self.writers[w].flying.is_empty() {
                self.land(w)?;
                self.pack(w);
            }
        }
        for w in 0..self.writers.len() {
            self.fold(w, usize::MAX)?;
            self.beat(w);
        }
        for f in 0..self.watchers.len() {
            self.deliver(f, usize::MAX)?;
        }
        crate::check::end(self)
    }
}

/// Folds a commit as the store holds it, with this run's defect, if any. Returns one verdict per record.
pub fn fold(state: &mut State, at: u64, bytes: &Bytes, broken: Broken) -> Result<(Commit, Vec<Verdict>), Found> {
    let commit = Commit::from_bytes(bytes).map_err(|e| e.to_string())?;
    let mut seen = commit.clone();
    seen.records = broken.all(&commit.records, state);
    let folded = state.fold(at, &seen).map_err(|e| format!("commit {at}: {e}"))?;
    Ok((commit, folded.verdicts))
}

impl Writer {
    fn new(id: u32) -> Writer {
        let clock = ManualClock::at(Millis(START));
        let guard = GuardedClock::new(System::with_clock(clock.clone()), limits::CLOCK_SKEW_MS);
        Writer {
            id,
            state: State::default(),
            clock,
            guard,
            durable: Seq::ZERO,
            pending: Vec::new(),
            flying: VecDeque::new(),
            awaited: HashMap::new(),
            chain: WriterHead::START,
            fresh: Millis(START),
        }
    }

    /// The time of a decision: by the wall clock, right or wrong.
    pub fn now(&self) -> u64 {
        self.clock.wall().0
    }
}

impl Broken {
    pub fn all(self, records: &[Record], state: &State) -> Vec<record::Record> {
        if self == Broken::Nothing {
            records.to_vec()
        } else {
            records.iter().map(|r| self.sees(r, state.head.as_u64())).collect()
        }
    }
}
