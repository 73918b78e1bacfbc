//! The audit log: searching, following, verifying and exporting the ledger, with signed proofs.

pub mod audit_reads;
mod checkpoint;
pub mod explain;
mod export;
pub mod proof;
pub mod use_reports;
mod verify;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

pub use checkpoint::SignedCheckpoint;
pub use export::AuditExport;
pub use verify::LedgerVerification;

use crate::authority::Authority;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_ledger::reader::history::ScanEnd;
use mayfly_ledger::reader::history_query::CancelFlag;
use mayfly_ledger::reader::log_reader::{LogCommit, LogCursor};
use mayfly_ledger::reader::search::{HistoryFilter, SearchCursor, SearchPage};
use mayfly_store::Position;
use mayfly_verify::seq::Seq;

/// A reader that reads the ledger in order.
pub struct AuditReader {
    authority: Arc<Authority>,
    place: LogCursor,
    _permit: OwnedSemaphorePermit,
}

impl Authority {
    /// One part of a search, from the durable head or from where the previous part stopped. The number of concurrent searches is bounded.
    pub async fn search(&self, filter: HistoryFilter, from: Option<SearchCursor>, most: usize) -> Result<SearchPage, Error> {
        let permit = self.one_question().await?;
        let end = self.ledger.settled(|s| SearchCursor { position: s.position, seq: s.head, before: Seq::LAST }).await?;
        let from = from.filter(|turn| turn.position <= end.position).unwrap_or(end);
        let (ledger, (stop, _waiting)) = (self.ledger.clone(), CancelFlag::waiting());
        let found = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            ledger.search(&filter, from, most, &stop)
        });
        Ok(found.await.map_err(|e| Fault::new(format!("reading history: {e}")))??)
    }

    /// Opens a reader of the records after a sequence number, or after the durable head.
    ///
    /// Refused: COMPACTED if those records are no longer kept, INVALID_FIELD beyond the head, LIMIT_REACHED with too many readers.
    pub async fn read_after(self: &Arc<Self>, after: Option<Seq>) -> Result<AuditReader, Error> {
        let permit = reader(self)?;
        let end = self.ledger.settled(|s| LogCursor { position: s.position + 1, seq: s.head }).await?;
        let place = match after {
            None => end,
            Some(after) if after > end.seq => {
                return Err(Error::Refusal(Refusal::field("resume_after", format!("is beyond the head, which is {}", end.seq))));
            }
            Some(after) if after == end.seq => end,
            Some(after) => {
                let ledger = self.ledger.clone();
                let found = tokio::task::spawn_blocking(move || ledger.place_of(after, end));
                found.await.map_err(|e| Fault::new(format!("reading history: {e}")))??.map_err(|reached| gone(after, reached))?
            }
        };
        Ok(AuditReader { authority: self.clone(), place, _permit: permit })
    }
}

/// A permit for a reader.
fn reader(authority: &Authority) -> Result<OwnedSemaphorePermit, Error> {
    let busy = |_| Refusal::limit("readers", limits::READERS as u64, Duration::from_secs(5));
    Ok(authority.readers.clone().try_acquire_owned().map_err(busy)?)
}

/// The refusal for records that were removed.
fn gone(after: Seq, reached: ScanEnd) -> Error {
    let why = reached.short().map_or_else(|| "nothing has that seq".to_owned(), |(_, why)| why);
    let no = Refusal::new(Reason::Compacted, format!("what happened after seq {after} cannot be read: {why}"));
    Error::Refusal(no.way_out("begin later; an exported audit log may have it: mayfly audit search"))
}

impl AuditReader {
    /// The sequence number up to which was read.
    pub fn seq(&self) -> Seq {
        self.place.seq
    }

    /// The position of the next commit.
    pub fn position(&self) -> Position {
        self.place.position
    }

    /// The next durable commits, about `limits::READER_BYTES`; empty if all were read. Refused with COMPACTED if retention removed the
    /// reader's position.
    pub async fn next(&mut self) -> Result<Vec<LogCommit>, Error> {
        let (ledger, place) = (self.authority.ledger.clone(), self.place);
        let read = tokio::task::spawn_blocking(move || ledger.steps(place, limits::READER_BYTES));
        let steps = read.await.map_err(|e| Fault::new(format!("reading history: {e}")))??;
        let Some(steps) = steps else {
            let removed = self.authority.ledger.peek(|s| s.removed.seq);
            return Err(gone(self.place.seq, ScanEnd::Removed(removed)));
        };
        if let Some(last) = steps.last() {
            self.place = LogCursor { position: last.position + 1, seq: last.last };
        }
        Ok(steps)
    }

    /// The number of durable commits that were not read yet.
    pub fn behind(&self) -> u64 {
        (self.authority.ledger.durable_position() + 1).saturating_sub(self.place.position)
    }
}
