//! Proposing records: from records to a place in the writer's queue.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::commit::EncodedRecord;
use crate::record::Record;
use crate::writer::proposal_queue::{Proposal, ProposalContent, ProposalKind, ProposalResult, RecordGroup};
use crate::writer::stall::stall_refusal;
use crate::{Ledger, Receipt, stopping};
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault, Refusal};
use mayfly_base::trace::{self, CallTrace, TraceId};

/// An encoded group of records that only has to enter the queue.
pub struct PreparedProposal(Proposal);

/// A group that was proposed and is not answered yet.
pub struct PendingReceipt {
    pub(crate) answer: oneshot::Receiver<ProposalResult>,
    /// Keeps the records alive until the proposing thread drops them: freeing memory is cheap on the thread that allocated it, and the
    /// writer is spared the work.
    _records: (Option<Arc<Record>>, Vec<Arc<Record>>),
}

/// Records that were proposed at once, each as a group by itself, and are not answered yet.
#[derive(Default)]
pub struct PendingReceipts(pub(crate) Vec<oneshot::Receiver<Vec<ProposalResult>>>);

impl Ledger {
    /// Proposes a group without waiting for the answer. The group number is set here: if callers chose it, two requests with the same
    /// number next to each other in a commit would be replayed as one group, and judged differently from the first time.
    pub fn propose(&self, lane: ProposalKind, records: Vec<Record>) -> Result<PendingReceipt, Error> {
        let (ready, proposed) = self.ready(lane, records)?;
        self.takes().map_err(Error::Refusal)?;
        self.inner.queue.push(ready.0).map_err(Error::Refusal)?;
        Ok(proposed)
    }

    /// Proposes ready groups all at once; each group still takes effect or is void by itself. If refused, nothing was proposed.
    pub fn propose_ready(&self, ready: Vec<PreparedProposal>) -> Result<(), Refusal> {
        self.takes()?;
        self.inner.queue.push_all(ready.into_iter().map(|r| r.0).collect())
    }

    /// Refused while the disk is stalled: a new proposal would wait as long as the commit under way.
    fn takes(&self) -> Result<(), Refusal> {
        let under_way = &self.inner.under_way;
        if under_way.is_stalled() { Err(stall_refusal(under_way.age_us())) } else { Ok(()) }
    }

    /// Encodes and hashes a group of records, so that proposing it only has to enter the queue.
    pub fn ready(&self, lane: ProposalKind, records: Vec<Record>) -> Result<(PreparedProposal, PendingReceipt), Error> {
        self.ready_for(lane, records, CallTrace::current_id())
    }

    /// As [`Ledger::ready`], for a call with this trace id.
    pub fn ready_for(
        &self,
        lane: ProposalKind,
        records: Vec<Record>,
        trace: Option<TraceId>,
    ) -> Result<(PreparedProposal, PendingReceipt), Error> {
        let number = if records.len() > 1 { self.new_group() } else { 0 };
        let encode = |mut record: Record| {
            record.group = number;
            if let Some(trace) = trace {
                record.trace = trace.to_vec();
            }
            let too_large = || Refusal::limit("record_bytes", limits::RECORD_BYTES as u64, Duration::ZERO);
            EncodedRecord::new(record).ok_or_else(too_large)
        };
        let several = records.len() > 1;
        let mut records = records.into_iter();
        let first = encode(records.next().ok_or_else(|| Fault::new("an empty group was proposed"))?)?;
        let mut shared = (Some(first.record().clone()), Vec::new());
        let group = if several {
            let group = std::iter::once(Ok(first)).chain(records.map(encode)).collect::<Result<Vec<_>, _>>()?;
            shared.1.extend(group.iter().skip(1).map(|e| e.record().clone()));
            RecordGroup::Several(group)
        } else {
            RecordGroup::One([first])
        };
        let (reply, answer) = oneshot::channel();
        Ok((
            PreparedProposal(Proposal { lane, what: ProposalContent::Group(group, reply) }),
            PendingReceipt { answer, _records: shared },
        ))
    }

    /// As [`Ledger::ready`] for several issuances of one batch; the batch's maker holds their templates until they are answered. Each takes
    /// effect or is void by itself; they are split into as many proposals as commits of bounded size need.
    pub fn ready_each(&self, lane: ProposalKind, mut records: Vec<EncodedRecord>) -> (Vec<PreparedProposal>, PendingReceipts) {
        let (mut ready, mut answers) = (Vec::with_capacity(1), Vec::with_capacity(1));
        while !records.is_empty() {
            let mut bytes = 0;
            let fits = |record: &&EncodedRecord| {
                bytes += record.length();
                bytes <= limits::COMMIT_BYTES / 2
            };
            let count = records.iter().take_while(fits).count().max(1);
            let rest = records.split_off(count);
            let (reply, answer) = oneshot::channel();
            ready.push(PreparedProposal(Proposal { lane, what: ProposalContent::Each(records, reply) }));
            answers.push(answer);
            records = rest;
        }
        (ready, PendingReceipts(answers))
    }

    /// Waits for the answer to a proposed group.
    pub async fn receipt(&self, proposed: PendingReceipt) -> Result<Receipt, Error> {
        let mut part = CallTrace::part("durable");
        let receipt = proposed.answer.await.unwrap_or_else(|_| Err(Error::Refusal(stopping())));
        if let Ok(receipt) = &receipt {
            part.note(|| vec![("mayfly.seq", receipt.seq().as_u64().into())]);
            trace::note(|| vec![("mayfly.seq", receipt.seq().as_u64().into())]);
        }
        receipt
    }

    /// Waits for the answers to all records that were proposed at once: one answer for each, in order; fewer if the server stops.
    pub async fn receipts(&self, proposed: PendingReceipts) -> Vec<Result<Receipt, Error>> {
        let mut all = Vec::new();
        for piece in proposed.0 {
            match piece.await {
                Ok(said) if all.is_empty() => all = said,
                Ok(said) => all.extend(said),
                Err(_) => break,
            }
        }
        all
    }
}
