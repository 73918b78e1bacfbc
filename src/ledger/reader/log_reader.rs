//! Reads the durable log forward, in order.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::Ledger;
use crate::commit::{BadCommit, EncodedCommit};
use crate::reader::commit_scan::ScannedCommit;
use crate::reader::history::{HistoryRecord, ScanEnd};
use crate::reader::index::IndexQuery;
use crate::reader::search::{HistoryFilter, Match, fitting};
use crate::record::Record;
use crate::state::seq_after;
use mayfly_base::refusal::Fault;
use mayfly_store::{Position, StoreError};
use mayfly_verify::seq::{Millis, Seq};

/// A place between two commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogCursor {
    /// The position of the next commit.
    pub position: Position,
    /// The seq of the last record before this place.
    pub seq: Seq,
}

impl LogCursor {
    /// The encoding with which the named value of a follower of the log begins: position and seq.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.position.to_be_bytes());
        bytes[8..].copy_from_slice(&self.seq.as_u64().to_be_bytes());
        bytes
    }
}

/// One commit with its position.
#[derive(Clone, Debug)]
pub struct LogCommit {
    /// The commit's position.
    pub position: Position,
    /// The seq of the last record before this place.
    pub before: Seq,
    /// The seq of the commit's last record.
    pub last: Seq,
    /// The commit.
    pub commit: EncodedCommit,
}

/// One examined commit; the decoded commit is present only if it has a wanted record.
#[derive(Clone, Debug)]
pub struct ExaminedCommit {
    /// The commit's position.
    pub position: Position,
    /// The seq of the commit's last record.
    pub last: Seq,
    /// The decoded commit, if it has a wanted record.
    pub step: Option<LogCommit>,
}

impl LogCommit {
    /// The commit's records that match the filter, in order.
    pub fn matches(&self, filter: &HistoryFilter) -> Result<Vec<Match>, Fault> {
        let at = Millis(self.commit.header.time);
        if !filter.in_time(at) {
            return Ok(Vec::new());
        }
        let found = fitting(&self.commit, filter, self.before, Seq::LAST);
        let found = found.map_err(|e| Fault::new(format!("commit {}: {e}", self.position)))?;
        let position = self.position;
        Ok(found
            .into_iter()
            .map(|(seq, record, group)| Match { past: HistoryRecord { seq, at, position, record }, group })
            .collect())
    }
}

impl Ledger {
    /// The place before the oldest kept record, and the place after the newest durable one.
    pub fn ends(&self) -> (LogCursor, LogCursor) {
        self.peek(|s| {
            let end = LogCursor { position: s.position + 1, seq: s.head };
            (s.removed.oldest(), end)
        })
    }

    /// The place where a reader continues that has seen everything up to `after`; `Err` with the oldest place when records after `after`
    /// were removed. The place is found by seq: after a recovery, other commits can stand at the same position.
    pub fn resume(&self, after: Seq) -> Result<Result<LogCursor, LogCursor>, Fault> {
        let (oldest, end) = self.ends();
        let found = self.place_of(after, end)?.ok().filter(|found| found.position >= oldest.position);
        Ok(found.ok_or(oldest))
    }

    /// The position of the newest durable commit.
    pub fn durable_position(&self) -> Position {
        self.inner.durable_position.load(Ordering::Acquire)
    }

    /// The durable commits from a place on, about `bytes` bytes of them; `None` when the first of them was removed.
    ///
    /// Reads the store: call it where blocking is allowed.
    pub fn steps(&self, from: LogCursor, bytes: usize) -> Result<Option<Vec<LogCommit>>, Fault> {
        self.each_of(from, bytes, |position, before, bytes| {
            let commit = EncodedCommit::from_bytes(bytes)?;
            let last = last_seq_of(&commit, before)?;
            Ok((last, LogCommit { position, before, last, commit }))
        })
    }

    /// As [`Ledger::steps`], for readers that want few of the records. Of issuances from one template only one is tested, so `wanted` must
    /// not read fields that are one issuance's own. A commit without a wanted record is neither decoded nor hashed.
    pub fn steps_with(
        &self,
        from: LogCursor,
        bytes: usize,
        wanted: impl Fn(&Record) -> bool,
    ) -> Result<Option<Vec<ExaminedCommit>>, Fault> {
        self.each_of(from, bytes, |position, before, bytes| {
            let scanned = ScannedCommit::of(position, before, bytes)?;
            let last = scanned.last;
            let step = match scanned.any(&wanted)? {
                true => Some(LogCommit { position, before, last, commit: EncodedCommit::from_bytes(bytes)? }),
                false => None,
            };
            Ok((last, ExaminedCommit { position, last, step }))
        })
    }

    /// Calls a constructor with each commit's position, the seq before it and its bytes; each result comes with the seq of the commit's
    /// last record.
    pub(crate) fn each_of<T>(
        &self,
        from: LogCursor,
        bytes: usize,
        make: impl Fn(Position, Seq, &Bytes) -> Result<(Seq, T), BadCommit>,
    ) -> Result<Option<Vec<T>>, Fault> {
        let durable = self.durable_position();
        if from.position > durable {
            return Ok(Some(Vec::new()));
        }
        let failed = |e: StoreError| Fault::new(format!("reading commit {}: {e}", from.position));
        let (mut seq, mut out) = (from.seq, Vec::new());
        for entry in self.store().read(from.position, bytes).map_err(failed)? {
            if entry.at > durable {
                break;
            }
            let expected = from.position + out.len() as u64;
            if entry.at != expected {
                return if out.is_empty() { Ok(None) } else { Err(Fault::new(format!("commit {expected} is missing"))) };
            }
            let made = make(entry.at, seq, &entry.bytes);
            let (last, made) = made.map_err(|e| Fault::new(format!("commit {}: {e}", entry.at)))?;
            seq = last;
            out.push(made);
        }
        Ok(Some(out))
    }

    /// As `place_of`, when the index covers the record: the scan starts at the beginning of the record's block.
    fn indexed_place_of(&self, seq: Seq) -> Result<Option<LogCursor>, Fault> {
        let Some(mut place) = self.inner.derived.index.lock().place_of(seq) else { return Ok(None) };
        while place.seq < seq {
            let steps = self.scan_commits(place, mayfly_base::limits::READER_BYTES)?.unwrap_or_default();
            let Some(last) = steps.last() else { return Ok(None) };
            if let Some(of) = steps.iter().find(|step| step.last > seq) {
                return Ok(Some(LogCursor { position: of.position, seq: of.before }));
            }
            place = LogCursor { position: last.position + 1, seq: last.last };
        }
        Ok(Some(place))
    }

    /// The next place that a forward reader has to read: skips blocks that cannot contain a match according to the index.
    pub fn next_place(&self, asked: &mut IndexQuery, from: LogCursor) -> LogCursor {
        self.inner.derived.index.lock().next(asked, from)
    }

    /// The place right after the commit that holds a record, or before that commit if the record is not its last one; searched backwards
    /// from `end`. `Err` says that the record is no longer kept or is beyond `limits::HISTORY_BYTES`.
    pub fn place_of(&self, seq: Seq, end: LogCursor) -> Result<Result<LogCursor, ScanEnd>, Fault> {
        if let Some(place) = self.indexed_place_of(seq)? {
            return Ok(Ok(place));
        }
        let store = self.store();
        let failed = |e: StoreError| Fault::new(format!("reading history: {e}"));
        let oldest = store.oldest().map_err(failed)?.max(1);
        let (mut position, mut last, mut looked) = (end.position, end.seq, 0);
        while last > seq {
            let at = position - 1;
            if at < oldest {
                return Ok(Err(if oldest > 1 { ScanEnd::Removed(last) } else { ScanEnd::Beginning }));
            }
            if looked >= mayfly_base::limits::HISTORY_BYTES {
                return Ok(Err(ScanEnd::Bound(last)));
            }
            let entry = store.read(at, 1).map_err(failed)?.into_iter().next().filter(|e| e.at == at);
            let entry = entry.ok_or_else(|| Fault::new(format!("commit {at} is not there")))?;
            looked += entry.bytes.len();
            let damaged = |e| Fault::new(format!("commit {at}: {e}"));
            (position, last) = (at, ScannedCommit::ending(at, last, &entry.bytes).map_err(damaged)?.before);
        }
        Ok(Ok(LogCursor { position, seq: last }))
    }
}

/// The seq of a commit's last record, given the seq before the commit.
pub fn last_seq_of(commit: &EncodedCommit, seq: Seq) -> Result<Seq, BadCommit> {
    let first = seq_after(seq, &commit.record(0)?);
    Ok(Seq::from_u64(first.as_u64() + commit.records.len() as u64 - 1).unwrap_or(first))
}
