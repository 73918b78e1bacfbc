//! From records to a place in line.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::commit::Encoded;
use super::queue::{Group, Lane, Proposal};
use super::record::Record;
use super::{Ledger, Receipt};
use crate::limits;
use crate::refusal::{Fault, No, Refusal};

/// A group of records that has only to take its place in line.
pub struct Ready(Proposal);

/// What was proposed and is not answered yet.
pub struct Proposed {
    pub(super) answer: oneshot::Receiver<Result<Receipt, No>>,
    /// Freed by who made them, where the allocator has them at hand, and not by the writer.
    _records: (Option<Arc<Record>>, Vec<Arc<Record>>),
}

impl Ledger {
    /// Proposes without waiting. What is proposed together gets its group number here: were it left to the callers, two requests with one
    /// number side by side in a commit would be folded as one, and otherwise than they were judged.
    pub fn propose(&self, lane: Lane, records: Vec<Record>) -> Result<Proposed, No> {
        let (ready, proposed) = self.ready(lane, records)?;
        self.inner.queue.push(ready.0).map_err(No::Refusal)?;
        Ok(proposed)
    }

    /// Proposes what was made ready, all at once; each still stands or falls by itself. Refused, nothing was proposed.
    pub fn propose_ready(&self, ready: impl ExactSizeIterator<Item = Ready>) -> Result<(), Refusal> {
        self.inner.queue.push_all(ready.map(|r| r.0))
    }

    /// Encodes and hashes a group of records, so that proposing it is only taking a place in line.
    pub fn ready(&self, lane: Lane, records: Vec<Record>) -> Result<(Ready, Proposed), No> {
        let number = if records.len() > 1 { self.new_group() } else { 0 };
        let encode = |mut record: Record| {
            record.group = number;
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
        Ok((Ready(Proposal { lane, group, reply }), Proposed { answer, _records: shared }))
    }

    /// The same for one record of a series, whose mold its maker holds until it is answered.
    pub fn ready_one(&self, lane: Lane, record: Encoded) -> (Ready, Proposed) {
        let (reply, answer) = oneshot::channel();
        (Ready(Proposal { lane, group: Group::One([record]), reply }), Proposed { answer, _records: (None, Vec::new()) })
    }
}
