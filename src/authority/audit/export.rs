//! Exports: matching records with their proofs, as lines.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{SignedCheckpoint, gone, reader};
use crate::audit::proof::line::statement;
use crate::audit::proof::write::ExportWriter;
use crate::authority::Authority;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_ledger::reader::history::ScanEnd;
use mayfly_ledger::reader::index::IndexQuery;
use mayfly_ledger::reader::log_reader::{LogCommit, LogCursor};
use mayfly_ledger::reader::search::HistoryFilter;
use mayfly_ledger::tree::proof::Node;
use mayfly_verify::seq::Seq;

/// An export in progress. It reads the store, so it must be driven where blocking is allowed.
pub struct AuditExport {
    authority: Arc<Authority>,
    filter: HistoryFilter,
    asked: IndexQuery,
    signed: SignedCheckpoint,
    since: Option<(u64, Vec<mayfly_ledger::commit::Hash>)>,
    place: LogCursor,
    writer: ExportWriter,
    first: Option<String>,
    found: u64,
    over: bool,
    _permit: tokio::sync::OwnedSemaphorePermit,
}

impl Authority {
    /// Begins an export of all durable records that match. `told`: the filter as it was requested. `since`: the size of an older
    /// checkpoint.
    pub async fn export(
        self: &Arc<Self>,
        filter: HistoryFilter,
        told: Map<String, Value>,
        since: u64,
    ) -> Result<AuditExport, Error> {
        let permit = reader(self)?;
        let signed = self.checkpoint().await?;
        let size = signed.checkpoint.size;
        let since = match since {
            0 => None,
            old => Some((old, self.consistency(old, size).await?)),
        };
        let place = self.begin_of(&filter).await?;
        let (writer, first) = ExportWriter::new(&self.origin(), told, place.position);
        let (authority, first, asked) = (self.clone(), Some(first), IndexQuery::new(&filter));
        Ok(AuditExport { authority, filter, asked, signed, since, place, writer, first, found: 0, over: false, _permit: permit })
    }

    /// The position to start at: that of the requested record, or the oldest that is kept.
    async fn begin_of(&self, filter: &HistoryFilter) -> Result<LogCursor, Error> {
        let Some(seq) = filter.seq else {
            return Ok(self.ledger.peek(|s| s.removed.oldest()));
        };
        let end = self.ledger.settled(|s| LogCursor { position: s.position + 1, seq: s.head }).await?;
        let none = || Error::Refusal(Refusal::new(Reason::NotFound, format!("there is no record {seq}")));
        if seq > end.seq || seq == Seq::ZERO {
            return Err(none());
        }
        let before = Seq::from_u64(seq.as_u64() - 1).unwrap_or(Seq::ZERO);
        let ledger = self.ledger.clone();
        let found = tokio::task::spawn_blocking(move || ledger.place_of(before, end));
        match found.await.map_err(|e| Fault::new(format!("reading history: {e}")))?? {
            Ok(place) => Ok(place),
            Err(ScanEnd::Beginning) => Ok(LogCursor { position: 1, seq: Seq::ZERO }),
            Err(reached) => Err(gone(before, reached)),
        }
    }
}

impl AuditExport {
    /// The number of records exported so far.
    pub fn records(&self) -> u64 {
        self.found
    }

    /// The next lines; `None` after the last.
    pub fn lines(&mut self) -> Result<Option<String>, Error> {
        if self.over {
            return Ok(None);
        }
        let mut text = self.first.take().unwrap_or_default();
        let size = self.signed.checkpoint.size;
        while self.place.position <= size && text.len() < limits::READER_BYTES {
            self.place = self.authority.ledger.next_place(&mut self.asked, self.place);
            if self.place.position > size {
                break;
            }
            let steps = self.authority.ledger.steps(self.place, limits::READER_BYTES)?;
            let removed = || self.authority.ledger.peek(|s| s.removed.seq);
            let steps = steps.ok_or_else(|| gone(self.place.seq, ScanEnd::Removed(removed())))?;
            if steps.is_empty() {
                return Err(Error::Fault(Fault::new(format!("commit {} is not there", self.place.position))));
            }
            for step in steps.into_iter().filter(|step| step.position <= size) {
                self.place = LogCursor { position: step.position + 1, seq: step.last };
                text.push_str(&self.told(&step)?);
                if self.filter.seq.is_some() {
                    self.place.position = size + 1;
                    break;
                }
            }
        }
        if self.place.position > size {
            text.push_str(&self.end()?);
            self.over = true;
        }
        Ok(Some(text))
    }

    fn told(&mut self, step: &LogCommit) -> Result<String, Error> {
        let matches = step.matches(&self.filter)?;
        if matches.is_empty() {
            return Ok(String::new());
        }
        self.found += matches.len() as u64;
        let mut text = self.gap(step.position - 1)?;
        text.push_str(&self.writer.told(step, &matches)?);
        Ok(text)
    }

    fn gap(&mut self, to: u64) -> Result<String, Error> {
        let authority = &self.authority;
        let give = |node: Node| authority.ledger.tree(|tree| tree.node(node))?.map_err(|e| authority.no_proof(&e));
        self.writer.gap(to, give)
    }

    fn end(&mut self) -> Result<String, Error> {
        if let Some(seq) = self.filter.seq.filter(|_| self.found == 0) {
            return Err(Error::Refusal(Refusal::new(Reason::NotFound, format!("there is no record {seq}"))));
        }
        let checkpoint = &self.signed.checkpoint;
        let (size, root, origin) = (checkpoint.size, checkpoint.root, checkpoint.origin.clone());
        let mut text = self.gap(size)?;
        let (counts, digest) = self.writer.sum(size);
        let said = self.authority.sign(&statement(&origin, size, &root, &counts, &digest))?;
        text.push_str(&ExportWriter::end(self.signed.note.clone(), said, self.since.take()));
        Ok(text)
    }
}
