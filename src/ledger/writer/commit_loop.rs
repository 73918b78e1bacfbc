//! The writer: the only thread that appends.
//!
//! For each batch: verdicts at the appended head, applying valid records, packing, one durable append, and only then the answers. A record
//! that would be void is refused and not written. A failed append stops issuing until the store was opened again: the state is then folded
//! anew, so it contains nothing that was not written.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::commit::{EncodedRecord, WriterHead, pack_into};
use crate::record::Record;
use crate::writer::proposal_queue::{Proposal, ProposalContent, ProposalKind, ProposalResult};
use crate::writer::receipt::{IssuedIds, Receipt};
use crate::writer::writer_stats::FoldTimer;
use crate::{Inner, Quotas, not_written, recovery::reopen};
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault, Refusal};
use mayfly_base::system::Stopwatch;
use mayfly_store::StoreError;
use mayfly_verify::seq::{Millis, Seq};

/// The writer number of an embedded replica.
pub(crate) const WRITER: u32 = 1;

/// How often the writer runs its idle checks.
const TICK: Duration = Duration::from_millis(500);

/// A record that took effect, with its seq.
#[derive(Clone, Debug)]
pub struct CommittedRecord {
    /// The record's sequence number.
    pub seq: Seq,
    record: EncodedRecord,
}

impl CommittedRecord {
    pub(crate) fn new(seq: Seq, record: EncodedRecord) -> CommittedRecord {
        CommittedRecord { seq, record }
    }

    /// The record; `None` for an issuance made from a template. Those are the many issuances without an upstream lease: few consumers need
    /// them, and [`CommittedRecord::whole`] decodes them.
    pub fn change(&self) -> Option<&Arc<Record>> {
        self.record.own().is_none().then_some(self.record.record())
    }

    /// The complete record, of any kind.
    pub fn whole(&self) -> Result<Arc<Record>, Fault> {
        self.record.whole().map_err(|e| Fault::new(format!("the record at seq {}: {e}", self.seq)))
    }
}

/// A batch of records that became durable in one commit, as observers receive it.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The records, in order.
    pub records: Vec<CommittedRecord>,
    /// The durable head after the batch.
    pub head: Seq,
    /// The time of the commit.
    pub time: Millis,
}

/// A caller that waits for applied records: the first seq of each group, and the credentials that it issues.
pub(crate) enum PendingAnswer {
    Group(oneshot::Sender<ProposalResult>, Seq, IssuedIds),
    Each(oneshot::Sender<Vec<ProposalResult>>, Vec<Result<(Seq, IssuedIds), Error>>),
}

impl PendingAnswer {
    /// Answers that it is unknown whether the records are written.
    pub(crate) fn refuse(self, no: &Error) {
        match self {
            PendingAnswer::Group(reply, ..) => drop(reply.send(Err(no.clone()))),
            PendingAnswer::Each(reply, said) => {
                drop(reply.send(said.into_iter().map(|one| one.and_then(|_| Err(no.clone()))).collect()))
            }
        }
    }
}

/// A batch before its append.
struct Prepared {
    records: Vec<CommittedRecord>,
    answers: Vec<PendingAnswer>,
}

/// Runs until the queue stops.
pub(crate) fn run(inner: &Arc<Inner>) {
    let mut packed = Vec::new();
    while let Some(mut batch) = inner.queue.take(TICK) {
        if inner.broken() {
            reopen(inner);
        }
        inner.under_way.begins();
        if !batch.is_empty() {
            serve(inner, &mut batch, &mut packed);
            inner.queue.give_back(batch);
        } else {
            inner.look_around();
        }
        if inner.under_way.ends() {
            tracing::warn!("the stalled write has ended; the writer continues");
        }
    }
}

/// Serves one batch. `packed`: the buffer in which commits are encoded, reused.
fn serve(inner: &Arc<Inner>, batch: &mut Vec<Proposal>, packed: &mut Vec<u8>) {
    if let Some(why) = inner.broken_why() {
        for p in batch.drain(..) {
            p.refuse(&not_written(&why));
        }
        return;
    }
    let (room, folding) = (inner.room(), FoldTimer::begin());
    // The state is locked only once per batch: after waiting for a lock, a thread also waits for a core.
    let (prepared, position, time, standing) = {
        let mut state = inner.state.write();
        let time = inner.clock.now().max(state.time);
        let granting = inner.granting(state.time, room);
        let position = state.position + 1;
        let chain = state.writers.get(&WRITER).copied().unwrap_or(WriterHead::START);
        state.credentials.warm(batch.iter().flat_map(Proposal::records).filter_map(|record| record.request));
        let records = batch.iter().map(|proposal| proposal.records().len()).sum();
        let mut out = Prepared { records: Vec::with_capacity(records), answers: Vec::with_capacity(batch.len()) };
        let ceilings = inner.ceilings.load();
        let mut head = Head { state: &mut state, out: &mut out, time, position, ceilings: &ceilings };
        for proposal in batch.drain(..) {
            head.decide(proposal, &granting);
        }
        if out.records.is_empty() {
            drop(state);
            // Only refused proposals are answered here.
            return tell(out.answers, position, time);
        }
        state.end_commit();
        packed.clear();
        packed.shrink_to(limits::COMMIT_ROOM_BYTES);
        let head = pack_into(packed, WRITER, chain, time, out.records.iter().map(|c| &c.record));
        state.appended(WRITER, head, packed.len());
        let standing = inner.standing().next(&state);
        (out, position, time, standing)
    };
    inner.pauses.folded(folding, &inner.system);
    inner.under_way.waits(prepared.answers);
    let watch = Stopwatch::start();
    let appended = inner.store().append(position, packed);
    inner.pauses.appended(watch);
    // Fewer than before if the disk stalled and those callers were answered already.
    let answers = inner.under_way.written();
    match appended {
        Ok(()) => {
            inner.standing.store(Arc::new(standing));
            answer(inner, prepared.records, answers, position, time);
        }
        Err(e) => fail(inner, answers, &e),
    }
}

/// The appended head: each proposal is judged by the state there.
struct Head<'a> {
    state: &'a mut crate::State,
    out: &'a mut Prepared,
    time: Millis,
    position: u64,
    ceilings: &'a Quotas,
}

impl Head<'_> {
    /// Refuses a proposal or applies it.
    fn decide(&mut self, proposal: Proposal, granting: &Result<(), Refusal>) {
        if proposal.lane == ProposalKind::Grant && proposal.is_left() {
            // The caller no longer waits: not issuing is the safest choice.
            return;
        }
        let lane = proposal.lane;
        if let (ProposalKind::Grant, Err(no)) = (lane, granting) {
            return proposal.refuse(no);
        }
        match proposal.what {
            ProposalContent::Group(group, reply) => match self.verdict(lane, &group) {
                Ok(()) => {
                    let issues = IssuedIds::of(&group);
                    let mut first = None;
                    group.for_each(|record| {
                        let seq = self.apply(record);
                        first.get_or_insert(seq);
                    });
                    if let Some(first) = first {
                        self.out.answers.push(PendingAnswer::Group(reply, first, issues));
                    }
                }
                Err(no) => drop(reply.send(Err(Error::Refusal(no)))),
            },
            ProposalContent::Each(records, reply) => {
                let each = records.into_iter().map(|record| {
                    self.verdict(lane, std::slice::from_ref(&record)).map_err(Error::Refusal)?;
                    let issues = IssuedIds::One(record.issues());
                    Ok((self.apply(record), issues))
                });
                let said = each.collect();
                self.out.answers.push(PendingAnswer::Each(reply, said));
            }
        }
    }

    fn verdict(&self, lane: ProposalKind, group: &[EncodedRecord]) -> Result<(), Refusal> {
        match lane {
            // No configured limit may keep an operator from revoking.
            ProposalKind::Revoke => self.state.verdict(group, self.time),
            _ => self.state.verdict_within(group, self.time, self.ceilings),
        }
    }

    fn apply(&mut self, record: EncodedRecord) -> Seq {
        if self.out.records.is_empty() {
            self.state.begin_commit(self.position, self.time);
        }
        let seq = self.state.take_seq(&record);
        self.state.apply(&record);
        self.out.records.push(CommittedRecord::new(seq, record));
        seq
    }
}

fn answer(inner: &Arc<Inner>, records: Vec<CommittedRecord>, answers: Vec<PendingAnswer>, position: u64, time: Millis) {
    let head = records.last().map_or(Seq::ZERO, |r| r.seq);
    inner.durable_position.store(position, Ordering::Release);
    inner.durable.store(head.as_u64(), Ordering::Release);
    inner.durable_watch.send_replace(head);
    inner.commits.fetch_add(1, Ordering::Relaxed);
    // Observers come first: an acknowledged revocation is on its way to followers before its author is answered.
    let batch = Arc::new(Batch { records, head, time });
    inner.tell(&batch);
    // Dropped before the replies, so that the thread that proposed a record frees it last.
    drop(batch);
    tell(answers, position, time);
    let folding = FoldTimer::begin();
    inner.maybe_snapshot(position, head);
    inner.pauses.folded(folding, &inner.system);
}

/// Answers for records that are durable at this position and time.
fn tell(answers: Vec<PendingAnswer>, position: u64, time: Millis) {
    let receipt = |(first, issues)| Receipt::new(first, issues, position, time);
    // In reverse order: a caller that waits for several answers waits for the first of them, and then finds all of them ready.
    for answer in answers.into_iter().rev() {
        match answer {
            PendingAnswer::Group(reply, first, issues) => drop(reply.send(Ok(receipt((first, issues))))),
            PendingAnswer::Each(reply, said) => drop(reply.send(said.into_iter().map(|one| one.map(receipt)).collect())),
        }
    }
}

fn fail(inner: &Arc<Inner>, answers: Vec<PendingAnswer>, error: &StoreError) {
    let why = format!("the ledger could not be written: {error}");
    tracing::error!(%error, "append failed; issuing is stopped until the store is reopened");
    inner.break_with(&why);
    // Whether the records are in the store is unknown until the store was opened again: the caller retries with the same request id.
    let no = Error::Refusal(not_written(&why));
    answers.into_iter().for_each(|answer| answer.refuse(&no));
}

/// Opens the store again after a failure and folds the state anew.
fn reopen(inner: &Arc<Inner>) {
    match reopen::reopen_store(inner) {
        Ok(()) => tracing::warn!("the store was reopened; issuing continues"),
        Err(error) => {
            tracing::error!(%error, "the store could not be reopened");
            let what = error.to_string();
            inner.break_with(&format!("the store could not be opened again: {}", what.lines().next().unwrap_or_default()));
            std::thread::sleep(Duration::from_millis(limits::REOPEN_PAUSE_MS));
        }
    }
}
