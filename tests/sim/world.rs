//! The world: writers with views of their own, one ordered store, followers behind slow feeds, and clocks that somebody sets.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use mayfly::ledger::clock::Guarded;
use mayfly::ledger::commit::{ChainHead, Commit, Encoded, Hash, pack, sha256};
use mayfly::ledger::record::{Event, Issued, Record, TaskHeartbeats, Who};
use mayfly::ledger::state::groups;
use mayfly::ledger::{State, record};
use mayfly::limits;
use mayfly::revocation::{FeedEvent, FeedSnapshot, Heartbeat, event_of};
use mayfly::seq::{Millis, Seq};
use mayfly::system::{Clock, SetClock, System};

use crate::broken::Broken;
use crate::model::Model;
use crate::op::{Kind, Op};
use crate::watch::{Message, Watcher};

/// A run that broke a rule: what was found.
pub type Found = String;

pub const START: u64 = 1_800_000_000_000;

pub struct Proposal {
    pub group: Vec<Record>,
    pub ticket: usize,
    pub grant: bool,
}

/// A commit that is packed and not yet in the store, and whom it answers: ticket, first record, how many.
pub struct Flight {
    bytes: Vec<u8>,
    answers: Vec<(usize, usize, usize)>,
}

pub struct Writer {
    pub id: u32,
    pub state: State,
    pub clock: Arc<SetClock>,
    pub guard: Guarded,
    /// One writer: all that may leave the process. Several: the same as the state's head.
    pub durable: Seq,
    pub pending: Vec<Proposal>,
    flying: VecDeque<Flight>,
    awaited: HashMap<u64, Vec<(usize, usize, usize)>>,
    chain: ChainHead,
    /// When it was last known to have folded everything.
    fresh: Millis,
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
    /// Steady time at which each commit landed.
    pub landed: Vec<u64>,
    /// The head after each commit.
    pub heads: Vec<Seq>,
    /// A writer's clock was set.
    pub stepped: bool,
    /// A follower's clock was set.
    pub followers_stepped: bool,
    pub watchers: Vec<Watcher>,
    pub truth: Arc<SetClock>,
    pub broken: Broken,
    pub snapshot: Option<(usize, Vec<u8>)>,
    pub groups: Vec<Vec<Record>>,
    pub answered: Vec<usize>,
    pub known: HashMap<Vec<u8>, Issued>,
    pub next: u64,
    pub transcript: Hash,
    pub counts: Counts,
}

/// What came up, to see that a run was worth it.
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
        let truth = SetClock::at(Millis(START));
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

    /// Puts a group in line at a writer. A careful writer asks its own view first; the fold has to do without that.
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
                self.known.insert(i.credential.clone(), i.clone());
            }
        }
        self.groups.push(group.clone());
        writer.pending.push(Proposal { group, ticket: self.groups.len() - 1, grant });
    }

    /// What is in line becomes a commit. One writer judges each group first, as the product does; several leave that to the fold.
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
            // A recovery writes the time that the operator vouches for.
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
        let encoded: Vec<Encoded> = records.into_iter().map(|r| Encoded::new(r).expect("small")).collect();
        let leaves: Vec<Hash> = encoded.iter().map(|e| e.leaf).collect();
        let (bytes, chain) = pack(writer.id, writer.chain, time, &leaves, encoded.into_iter().map(|e| e.bytes).collect());
        if !several {
            writer.state.end_commit();
            writer.state.writers.insert(writer.id, chain);
        }
        writer.chain = chain;
        writer.flying.push_back(Flight { bytes, answers });
    }

    /// The writer's oldest commit under way becomes durable: everybody can see it from here on.
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
        // Sent twice, it may stand once: one place where it is valid is what was answered.
        let stands = |r: &Record| self.model.log.iter().any(|l| l.valid && *l.record == *r);
        if group.iter().all(stands) { Ok(()) } else { Err(format!("answered, but not durable and valid: {group:?}")) }
    }

    /// A commit lands: the observer folds it, the model judges it, the feed tells of it.
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
            let valid = verdicts[at];
            at += group.len();
            let places = self.model.log.len();
            self.model.take(group, time, valid)?;
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

    /// A replica tells its followers of a commit that it knows to be durable.
    fn tell(&mut self, w: usize, commit: usize) {
        let (from, to) = (self.told[commit], self.told.get(commit + 1).copied().unwrap_or(self.feed.len()));
        for at in from..to {
            let previous = if at == 0 { Seq::ZERO } else { self.feed[at - 1].seq() };
            for watcher in self.watchers.iter_mut().filter(|f| f.source == w) {
                watcher.channel.push_back(Message::Event(previous, self.feed[at].clone()));
            }
        }
    }

    /// A replica folds up to `most` commits that it has not seen, and answers those of its own that it found valid.
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
                    if verdicts[first..first + count].iter().all(|v| *v) {
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

    /// The process ends at once and starts again: what was not in the store is gone, but the commit under way may have made it.
    pub fn crash(&mut self, w: usize, op: &Op) -> Result<(), Found> {
        self.counts.crashes += 1;
        while op.once_in(1, self.writers[w].flying.len() as u32, 2)
            && let Some(flight) = self.writers[w].flying.pop_front()
        {
            self.append(flight.bytes)?;
        }
        if self.broken == Broken::LosesTheLast && !self.several() && self.store.len() > 1 {
            self.store.pop();
        }
        let from = self.snapshot.as_ref().filter(|(at, _)| op.once_in(2, 0, 2) && *at <= self.store.len());
        let mut state = match from {
            Some((_, bytes)) => postcard::from_bytes(bytes).map_err(|e| e.to_string())?,
            None => State::default(),
        };
        for at in state.position as usize..self.store.len() {
            fold(&mut state, at as u64 + 1, &self.store[at], self.broken)?;
        }
        if state.digest().ok() != self.digests.last().copied() {
            return Err("a start from the store does not give the state that was acknowledged".into());
        }
        let writer = &mut self.writers[w];
        let clock = writer.clock.clone();
        writer.chain = state.writers.get(&writer.id).copied().unwrap_or(ChainHead::START);
        writer.guard = Guarded::new(System::with_clock(clock), limits::CLOCK_SKEW_MS);
        writer.durable = state.head;
        let away_since = state.time.0;
        writer.state = state;
        writer.pending.clear();
        writer.flying.clear();
        writer.awaited.clear();
        let alive = TaskHeartbeats { tasks: Vec::new(), all: true, away_since };
        let record = Record::new(Who::Mayfly("started".into()), Event::TaskHeartbeats(alive));
        self.propose(w, vec![record], false, false);
        Ok(())
    }

    /// A replica tells followers how fresh it is.
    pub fn beat(&mut self, w: usize) {
        let several = self.several();
        let writer = &mut self.writers[w];
        let now = writer.guard.now();
        let mut fresh_at = if several { writer.fresh } else { now.max(writer.state.time) };
        if self.broken == Broken::FreshWithoutProof {
            fresh_at = now.max(writer.state.time);
        }
        let head = writer.durable;
        let previous = self.feed.iter().map(FeedEvent::seq).filter(|s| *s <= head).max().unwrap_or_default();
        let beat = Heartbeat { head, previous, fresh_at, max_age: limits::FEED_MAX_AGE_MS };
        for watcher in self.watchers.iter_mut().filter(|f| f.source == w) {
            watcher.channel.push_back(Message::Beat(beat));
        }
    }

    pub fn pass(&mut self, ms: u64) {
        self.truth.advance(ms);
        let clocks = self.writers.iter().map(|w| &w.clock).chain(self.watchers.iter().map(|w| &w.clock));
        clocks.for_each(|c| c.advance(ms));
    }

    /// Mixes what happened into the transcript.
    pub fn note(&mut self, what: &[u8]) {
        let mut bytes = self.transcript.to_vec();
        bytes.extend_from_slice(what);
        self.transcript = sha256(&bytes);
    }

    /// A snapshot of the observer's state, as a file would hold it.
    pub fn take_snapshot(&mut self) -> Result<(), Found> {
        let bytes = postcard::to_stdvec(&self.observer).map_err(|e| e.to_string())?;
        let back: State = postcard::from_bytes(&bytes).map_err(|e| e.to_string())?;
        if back.digest().ok() != self.observer.digest().ok() {
            return Err("a snapshot read back is another state".into());
        }
        // The observer goes on from the copy: whatever a snapshot leaves out shows in what follows.
        self.observer = back;
        self.snapshot = Some((self.store.len(), bytes));
        Ok(())
    }

    pub fn deliver(&mut self, f: usize, most: usize) -> Result<(), Found> {
        for _ in 0..most {
            let Some(message) = self.watchers[f].channel.pop_front() else { break };
            self.watchers[f].take(message)?;
        }
        crate::check::follower(self, f)
    }

    /// A follower begins anew with the state of a replica, and hears at once how fresh that is.
    pub fn reconnect(&mut self, f: usize, w: usize) -> Result<(), Found> {
        let writer = &self.writers[w];
        // With one writer the state may be ahead of what is durable, and the observer is what is.
        let state = if self.several() { &writer.state } else { &self.observer };
        let snapshot = FeedSnapshot::of(state);
        let (head, time) = (state.head, state.time);
        let fresh_at = if self.several() { writer.fresh.max(time) } else { self.writers[w].guard.now().max(time) };
        let watcher = &mut self.watchers[f];
        if snapshot.seq < watcher.applied {
            return if watcher.follower.begin(&snapshot).is_err() { Ok(()) } else { Err("an older snapshot was taken".into()) };
        }
        watcher.follower.begin(&snapshot).map_err(|e| format!("the snapshot was not taken: {e}"))?;
        watcher.begun(head);
        watcher.channel.clear();
        watcher.source = w;
        let previous = self.feed.iter().map(FeedEvent::seq).filter(|s| *s <= head).max().unwrap_or_default();
        let beat = Heartbeat { head, previous, fresh_at, max_age: limits::FEED_MAX_AGE_MS };
        self.watchers[f].take(Message::Beat(beat))?;
        crate::check::follower(self, f)
    }

    pub fn step(&mut self, op: &Op) -> Result<(), Found> {
        let w = op.n[0] as usize % self.writers.len();
        let f = op.n[0] as usize % self.watchers.len();
        match op.kind {
            Kind::Pack => {
                self.pack(w);
                if op.once_in(1, 0, 2) {
                    self.land(w)?;
                }
            }
            Kind::Land => self.land(w)?,
            Kind::Fold => self.fold(w, some(op, 4))?,
            Kind::Crash => self.crash(w, op)?,
            Kind::Snapshot => self.take_snapshot()?,
            Kind::Pass => {
                const STEPS: [u64; 12] = [1, 7, 500, 1_000, 1_000, 4_000, 9_000, 20_000, 31_000, 300_001, 3_600_000, 90_000_000];
                self.pass(STEPS[op.n[1] as usize % STEPS.len()]);
                for f in 0..self.watchers.len() {
                    crate::check::follower(self, f)?;
                }
            }
            Kind::StepClock => {
                self.stepped = true;
                step_clock(&self.writers[w].clock, op);
            }
            Kind::MendClock => self.writers[w].clock.step_to(self.truth.wall()),
            Kind::Beat => {
                if op.once_in(1, 0, 2) {
                    self.fold(w, usize::MAX)?;
                }
                self.beat(w);
            }
            Kind::Deliver => self.deliver(f, some(op, 6))?,
            Kind::Lose => self.watchers[f].lose(self.broken),
            Kind::Reconnect => self.reconnect(f, op.n[1] as usize % self.writers.len())?,
            Kind::StepFollower => {
                self.followers_stepped = true;
                step_clock(&self.watchers[f].clock, op);
                crate::check::follower(self, f)?;
            }
            _ => crate::make::make(self, w, op),
        }
        let head = self.observer.head.as_u64();
        self.note(&[&[op.kind as u8][..], &head.to_be_bytes()[..]].concat());
        Ok(())
    }

    /// Everything under way ends, so that what a run leaves open is looked at too.
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

/// Folds a commit as the store holds it, with the defect of this run, if any. One verdict for each record.
pub fn fold(state: &mut State, at: u64, bytes: &Bytes, broken: Broken) -> Result<(Commit, Vec<bool>), Found> {
    let commit = Commit::from_bytes(bytes).map_err(|e| e.to_string())?;
    let mut seen = commit.clone();
    seen.records = broken.all(&commit.records, state);
    let folded = state.fold(at, &seen).map_err(|e| format!("commit {at}: {e}"))?;
    Ok((commit, folded.verdicts.iter().map(Result::is_ok).collect()))
}

/// All of them, or up to a few.
fn some(op: &Op, most: usize) -> usize {
    if op.once_in(2, 0, 2) { usize::MAX } else { 1 + op.n[1] as usize % most }
}

fn step_clock(clock: &SetClock, op: &Op) {
    const BY: [i64; 6] = [10_000, 40_000, 3_600_000, 200_000_000, 29_000, 61_000];
    let by = BY[op.n[1] as usize % BY.len()] * if op.once_in(2, 0, 2) { 1 } else { -1 };
    clock.step_to(Millis(clock.wall().0.saturating_add_signed(by)));
}

impl Writer {
    fn new(id: u32) -> Writer {
        let clock = SetClock::at(Millis(START));
        let guard = Guarded::new(System::with_clock(clock.clone()), limits::CLOCK_SKEW_MS);
        Writer {
            id,
            state: State::default(),
            clock,
            guard,
            durable: Seq::ZERO,
            pending: Vec::new(),
            flying: VecDeque::new(),
            awaited: HashMap::new(),
            chain: ChainHead::START,
            fresh: Millis(START),
        }
    }

    /// When a decision is made: by the wall clock, whatever that shows.
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
