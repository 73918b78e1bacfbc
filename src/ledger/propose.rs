//! Proposing records: from records to a place in the writer's queue.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::commit::Encoded;
use super::queue::{Group, Lane, Proposal, Said, What};
use super::record::Record;
use super::stall::held_up;
use super::{Ledger, Receipt, stopping};
use mayfly_base::limits;
use mayfly_base::refusal::{Fault, No, Refusal};
use mayfly_base::trace::{self, TraceId, Traced};

/// An encoded group of records that only has to enter the queue.
pub struct Ready(Proposal);

/// A group that was proposed and is not answered yet.
pub struct Proposed {
    pub(super) answer: oneshot::Receiver<Said>,
    /// Keeps the records until the proposing thread frees them, where the allocator has them at hand, so that the writer does not free
    /// them.
    _records: (Option<Arc<Record>>, Vec<Arc<Record>>),
}

/// Records that were proposed at once, each as a group by itself, and are not answered yet.
#[derive(Default)]
pub struct ProposedEach(pub(super) Vec<oneshot::Receiver<Vec<Said>>>);

impl Ledger {
    /// Proposes a group without waiting for the answer. The group number is set here: if callers chose it, two requests with the same
    /// number next to each other in a commit would be replayed as one group, and judged differently from the first time.
    pub fn propose(&self, lane: Lane, records: Vec<Record>) -> Result<Proposed, No> {
        let (ready, proposed) = self.ready(lane, records)?;
        self.takes().map_err(No::Refusal)?;
        self.inner.queue.push(ready.0).map_err(No::Refusal)?;
        Ok(proposed)
    }

    /// Proposes ready groups all at once; each group still takes effect or is void by itself. If refused, nothing was proposed.
    pub fn propose_ready(&self, ready: Vec<Ready>) -> Result<(), Refusal> {
        self.takes()?;
        self.inner.queue.push_all(ready.into_iter().map(|r| r.0).collect())
    }

    /// Refused while the disk is stalled: a new proposal would wait as long as the commit under way.
    fn takes(&self) -> Result<(), Refusal> {
        let under_way = &self.inner.under_way;
        if under_way.is_stalled() { Err(held_up(under_way.age_us())) } else { Ok(()) }
    }

    /// Encodes and hashes a group of records, so that proposing it only has to enter the queue.
    pub fn ready(&self, lane: Lane, records: Vec<Record>) -> Result<(Ready, Proposed), No> {
        self.ready_for(lane, records, Traced::current_id())
    }

    /// As [`Ledger::ready`], for a call with this trace id.
    pub fn ready_for(&self, lane: Lane, records: Vec<Record>, trace: Option<TraceId>) -> Result<(Ready, Proposed), No> {
        let number = if records.len() > 1 { self.new_group() } else { 0 };
        let encode = |mut record: Record| {
            record.group = number;
            if let Some(trace) = trace {
                record.trace = trace.to_vec();
            }
            let too_large = || Refusal::limit("record_bytes", limits::RECORD_BYTES as u64, Duration::ZERO);
            Encoded::new(record).ok_or_else(too_large)
        };
        let several = records.len() > 1;
        let mut records = records.into_iter();
        let first = encode(records.next().ok_or_else(|| Fault::new("an empty group was proposed"))?)?;
        let mut shared = (Some(first.record().clone()), Vec::new());
        let group = if several {
            let group = std::iter::once(Ok(first)).chain(records.map(encode)).collect::<Result<Vec<_>, _>>()?;
            shared.1.extend(group.iter().skip(1).map(|e| e.record().clone()));
            Group::Several(group)
        } else {
            Group::One([first])
        };
        let (reply, answer) = oneshot::channel();
        Ok((Ready(Proposal { lane, what: What::Group(group, reply) }), Proposed { answer, _records: shared }))
    }

    /// As [`Ledger::ready`] for several issuances of one batch; the batch's maker holds their templates until they are answered. Each takes
    /// effect or is void by itself; they are split into as many proposals as commits of bounded size need.
    pub fn ready_each(&self, lane: Lane, mut records: Vec<Encoded>) -> (Vec<Ready>, ProposedEach) {
        let (mut ready, mut answers) = (Vec::with_capacity(1), Vec::with_capacity(1));
        while !records.is_empty() {
            let mut bytes = 0;
            let fits = |record: &&Encoded| {
                bytes += record.length();
                bytes <= limits::COMMIT_BYTES / 2
            };
            let count = records.iter().take_while(fits).count().max(1);
            let rest = records.split_off(count);
            let (reply, answer) = oneshot::channel();
            ready.push(Ready(Proposal { lane, what: What::Each(records, reply) }));
            answers.push(answer);
            records = rest;
        }
        (ready, ProposedEach(answers))
    }

    /// Waits for the answer to a proposed group.
    pub async fn receipt(&self, proposed: Proposed) -> Result<Receipt, No> {
        let mut part = Traced::part("durable");
        let receipt = proposed.answer.await.unwrap_or_else(|_| Err(No::Refusal(stopping())));
        if let Ok(receipt) = &receipt {
            part.note(|| vec![("mayfly.seq", receipt.seq().as_u64().into())]);
            trace::note(|| vec![("mayfly.seq", receipt.seq().as_u64().into())]);
        }
        receipt
    }

    /// Waits for the answers to all records that were proposed at once: one answer for each, in order; fewer if the server stops.
    pub async fn receipts(&self, proposed: ProposedEach) -> Vec<Result<Receipt, No>> {
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
