//! The queue of proposals that wait for the writer, and the decision when the next batch is taken.
//!
//! A commit starts at once when nothing else is under way or when a revocation waits. Otherwise the writer gathers a batch: waking the
//! writer for each record costs 6 µs of the 28 of an issuance (measured), and a commit costs the same at any size.

use std::ops::Deref;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::commit::EncodedRecord;
use crate::writer::group_commit::CommitTiming;
use crate::writer::receipt::Receipt;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Refusal};

/// The kind of a proposal: decides the order in which it is served, and what may stop it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProposalKind {
    /// A revocation by an operator or by mayfly: served first, never gathered, in a queue of its own that callers cannot fill.
    Revoke,
    /// A change that grants nothing by itself, such as a registration, or a caller that closes, holds or gives back its own task or
    /// credential. Like [`ProposalKind::Revoke`], such changes go on when grants are stopped.
    Change,
    /// A grant: allowed only if the clock, the disk and the health of the store allow it.
    Grant,
    /// Context for the audit log; no caller waits for it.
    Note,
}

/// Records that take effect together or are void together.
pub(crate) enum RecordGroup {
    /// One record, as nearly all groups are: needs no list.
    One([EncodedRecord; 1]),
    /// Several records.
    Several(Vec<EncodedRecord>),
}

impl Deref for RecordGroup {
    type Target = [EncodedRecord];

    fn deref(&self) -> &[EncodedRecord] {
        match self {
            RecordGroup::One(one) => one,
            RecordGroup::Several(all) => all,
        }
    }
}

impl RecordGroup {
    /// Calls `each` with every record, in order, by value.
    pub fn for_each(self, each: impl FnMut(EncodedRecord)) {
        match self {
            RecordGroup::One(one) => one.into_iter().for_each(each),
            RecordGroup::Several(all) => all.into_iter().for_each(each),
        }
    }
}

/// The answer to a proposal.
pub(crate) type ProposalResult = Result<Receipt, Error>;

/// The content of a proposal, with the channel for its answer.
pub(crate) enum ProposalContent {
    /// The records take effect together or are void together.
    Group(RecordGroup, oneshot::Sender<ProposalResult>),
    /// Each record takes effect or is void by itself; only their answers are sent together.
    Each(Vec<EncodedRecord>, oneshot::Sender<Vec<ProposalResult>>),
}

/// Records that wait to be appended.
pub(crate) struct Proposal {
    pub lane: ProposalKind,
    pub what: ProposalContent,
}

impl Proposal {
    /// The proposal's records.
    pub fn records(&self) -> &[EncodedRecord] {
        match &self.what {
            ProposalContent::Group(group, _) => group,
            ProposalContent::Each(all, _) => all,
        }
    }

    /// Number of groups, each of which takes effect or is void by itself.
    fn groups(&self) -> usize {
        match &self.what {
            ProposalContent::Group(..) => 1,
            ProposalContent::Each(all, _) => all.len(),
        }
    }

    /// The caller no longer waits for the answer.
    pub fn is_left(&self) -> bool {
        match &self.what {
            ProposalContent::Group(_, reply) => reply.is_closed(),
            ProposalContent::Each(_, reply) => reply.is_closed(),
        }
    }

    /// Answers with a refusal; none of the records is written.
    pub fn refuse(self, no: &Refusal) {
        let no = || Err(Error::Refusal(no.clone()));
        match self.what {
            ProposalContent::Group(_, reply) => drop(reply.send(no())),
            ProposalContent::Each(all, reply) => drop(reply.send(all.iter().map(|_| no()).collect())),
        }
    }
}

#[derive(Default)]
struct Waiting {
    revocations: Vec<Proposal>,
    others: Vec<Proposal>,
    /// Number of groups in `others`.
    groups: usize,
    /// The emptied vector of the batch before, reused for the next proposals.
    spare: Vec<Proposal>,
    /// The recent number of grants under way at once, from which the size of a batch is derived.
    aim: usize,
    pace: CommitTiming,
    /// The writer sleeps.
    idle: bool,
    stopped: bool,
}

/// The queue in front of the writer.
pub(crate) struct ProposalQueue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    gather_records: usize,
    gather_wait: Duration,
    /// Grants under way, from their decision until their answer, and the highest number of them since the last batch. Only a hint for
    /// gathering: every grant updates these counters, and only speed depends on them.
    in_flight: AtomicUsize,
    peak: AtomicUsize,
}

impl ProposalQueue {
    pub fn new(gather_records: usize, gather_wait: Duration) -> ProposalQueue {
        let (in_flight, peak) = (AtomicUsize::new(0), AtomicUsize::new(0));
        ProposalQueue {
            waiting: Mutex::new(Waiting::default()),
            wake: Condvar::new(),
            gather_records,
            gather_wait,
            in_flight,
            peak,
        }
    }

    /// Adds a proposal to the queue, or refuses when the queue is full.
    pub fn push(&self, proposal: Proposal) -> Result<(), Refusal> {
        self.push_all(vec![proposal])
    }

    /// Adds proposals of one lane to the queue, all or none.
    pub fn push_all(&self, proposals: Vec<Proposal>) -> Result<(), Refusal> {
        let Some(lane) = proposals.first().map(|p| p.lane) else { return Ok(()) };
        let groups: usize = proposals.iter().map(Proposal::groups).sum();
        let peak = self.peak.load(Relaxed);
        let mut waiting = self.waiting.lock();
        waiting.aim = waiting.aim.max(peak);
        let retry = Duration::from_millis(50);
        if waiting.stopped {
            return Err(crate::stopping());
        }
        let urgent = lane == ProposalKind::Revoke;
        let (revocations, others) = (waiting.revocations.len(), waiting.groups);
        let (wait, bound, name) = if urgent {
            (revocations, limits::QUEUE_REVOCATIONS, "queue_revocations")
        } else {
            (others, limits::QUEUE_GRANTS, "queue_grants")
        };
        if wait + groups > bound {
            return Err(Refusal::limit(name, bound as u64, retry));
        }
        let first = wait == 0;
        if urgent {
            waiting.revocations.extend(proposals);
        } else {
            waiting.others.extend(proposals);
            waiting.groups += groups;
        }
        if waiting.idle && (urgent || first || waiting.ready(self.gather_records)) {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// `count` grants are under way: the writer may wait a little for them.
    pub fn begin(&self, count: usize) {
        let now = self.in_flight.fetch_add(count, Relaxed) + count;
        self.peak.fetch_max(now, Relaxed);
    }

    /// `count` grants were answered, or will not be proposed.
    pub fn end(&self, count: usize) {
        self.in_flight.fetch_sub(count, Relaxed);
    }

    /// Waits for the next batch, revocations first. `None` after `stop` when the queue is empty; an empty batch after `tick`.
    pub fn take(&self, tick: Duration) -> Option<Vec<Proposal>> {
        let mut waiting = self.waiting.lock();
        let busy_us = waiting.pace.busy_us();
        waiting.idle = true;
        if waiting.revocations.is_empty() && waiting.others.is_empty() {
            if waiting.stopped {
                return None;
            }
            self.wake.wait_for(&mut waiting, tick);
        }
        if !waiting.others.is_empty() && !waiting.ready(self.gather_records) {
            // More grants are under way: wait for them until `gather_wait` is over, or until a revocation arrives.
            self.wake.wait_while_for(&mut waiting, |w| !w.ready(self.gather_records), self.gather_wait);
        }
        waiting.idle = false;
        let before = waiting.groups;
        let size = |p: &Proposal| p.records().iter().map(|e| e.length()).sum::<usize>();
        // At most what one commit holds: the store would refuse a larger commit, and issuing would stop.
        let mut total = 0;
        let fits = |p: &&Proposal| {
            total += size(p);
            total <= limits::COMMIT_BYTES / 2
        };
        let most = waiting.revocations.iter().take_while(fits).count().max(1).min(waiting.revocations.len());
        let mut batch: Vec<Proposal> = waiting.revocations.drain(..most).collect();
        let mut records: usize = batch.iter().map(|p| p.records().len()).sum();
        let mut bytes: usize = batch.iter().map(size).sum();
        let mut taken = 0;
        for p in &waiting.others {
            records += p.records().len();
            bytes += size(p);
            if taken + batch.len() > 0 && (records > self.gather_records || bytes > limits::COMMIT_BYTES / 2) {
                break;
            }
            taken += 1;
        }
        if batch.is_empty() && taken == waiting.others.len() {
            // The usual case: nothing is copied.
            let spare = std::mem::take(&mut waiting.spare);
            batch = std::mem::replace(&mut waiting.others, spare);
            waiting.groups = 0;
        } else {
            let waiting = &mut *waiting;
            batch.extend(waiting.others.drain(..taken));
            waiting.groups = waiting.others.iter().map(Proposal::groups).sum();
        }
        let grants = before - waiting.groups;
        waiting.pace.take(busy_us, grants);
        // The aim falls slowly: callers that were just answered will send their next request.
        let now = self.in_flight.load(Relaxed);
        self.peak.store(now, Relaxed);
        waiting.aim = now.max(waiting.aim - waiting.aim / 4);
        Some(batch)
    }

    /// Takes back the vector of a batch, so that the next batch need not allocate.
    pub fn give_back(&self, mut batch: Vec<Proposal>) {
        batch.clear();
        // A vector that grew large under a burst is dropped.
        if batch.capacity() <= 2 * self.gather_records {
            self.waiting.lock().spare = batch;
        }
    }

    /// Called when the writer is stalled: refuses everything that waits for it.
    pub fn refuse_all(&self, no: &Refusal) {
        let mut waiting = self.waiting.lock();
        let revocations = std::mem::take(&mut waiting.revocations);
        let others = std::mem::take(&mut waiting.others);
        waiting.groups = 0;
        drop(waiting);
        revocations.into_iter().chain(others).for_each(|proposal| proposal.refuse(no));
    }

    /// Accepts no more proposals; those that wait are still served.
    pub fn stop(&self) {
        self.waiting.lock().stopped = true;
        self.wake.notify_all();
    }

    /// Number of groups that wait.
    pub fn len(&self) -> usize {
        let waiting = self.waiting.lock();
        waiting.revocations.len() + waiting.groups
    }
}

impl Waiting {
    fn ready(&self, most: usize) -> bool {
        !self.revocations.is_empty() || self.stopped || self.groups >= self.pace.gather(self.aim, most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Author, Event, Maintained, Record};

    fn proposal(lane: ProposalKind, bytes: usize) -> Proposal {
        let note = Maintained { what: "x".repeat(bytes) };
        let group = RecordGroup::One([EncodedRecord::new(Record::new(Author::LocalUid(0), Event::Maintained(note))).unwrap()]);
        Proposal { lane, what: ProposalContent::Group(group, oneshot::channel().0) }
    }

    #[test]
    fn what_callers_do_takes_no_place_from_operators_who_revoke() {
        let queue = ProposalQueue::new(4, Duration::ZERO);
        for _ in 0..limits::QUEUE_GRANTS {
            queue.push(proposal(ProposalKind::Change, 1)).unwrap();
        }
        for lane in [ProposalKind::Change, ProposalKind::Grant, ProposalKind::Note] {
            let no = queue.push(proposal(lane, 1)).err().unwrap();
            assert!(no.message.contains("queue_grants") && no.retry_after.is_some(), "{no:?}");
        }
        queue.push(proposal(ProposalKind::Revoke, 1)).unwrap();
        let batch = queue.take(Duration::ZERO).unwrap();
        assert_eq!(batch.iter().map(|p| p.lane).collect::<Vec<_>>()[..2], [ProposalKind::Revoke, ProposalKind::Change]);
    }

    #[test]
    fn half_of_those_under_way_are_enough_where_commits_are_quick_and_a_revocation_always() {
        let queue = ProposalQueue::new(256, Duration::ZERO);
        queue.begin(200);
        let ready_with = |pushed: usize, pace| {
            let (lines, last) = (vec![ProposalKind::Grant; pushed], queue.waiting.lock().others.len());
            lines.into_iter().skip(last).for_each(|lane| queue.push(proposal(lane, 1)).unwrap());
            queue.waiting.lock().pace = pace;
            queue.waiting.lock().ready(256)
        };
        let (quick, slow) = (|| CommitTiming::of(1_000, 4_000, 200), || CommitTiming::of(10_000, 13_000, 200));
        assert!(!ready_with(99, quick()));
        assert!(ready_with(100, quick()) && !ready_with(100, slow()));
        assert!(!ready_with(199, slow()) && ready_with(200, slow()));
        assert_eq!(queue.take(Duration::ZERO).unwrap().len(), 200);
        assert!(!ready_with(1, slow()));
        queue.push(proposal(ProposalKind::Revoke, 1)).unwrap();
        assert!(ready_with(1, slow()));
    }

    #[test]
    fn revocations_of_one_batch_fit_into_one_commit() {
        let queue = ProposalQueue::new(4, Duration::ZERO);
        let large = limits::RECORD_BYTES / 2;
        let all = 2 * limits::COMMIT_BYTES / large;
        for _ in 0..all {
            queue.push(proposal(ProposalKind::Revoke, large)).unwrap();
        }
        let (mut taken, mut batches) = (0, 0);
        while taken < all {
            let batch = queue.take(Duration::ZERO).unwrap();
            let bytes: usize = batch.iter().flat_map(|p| p.records()).map(|e| e.length()).sum();
            assert!(!batch.is_empty() && bytes < limits::COMMIT_BYTES, "{bytes}");
            (taken, batches) = (taken + batch.len(), batches + 1);
        }
        assert!(batches > 1);
    }
}
