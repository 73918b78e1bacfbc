//! The log read in order, as far as it is durable.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::Ledger;
use super::commit::{BadCommit, Opened};
use super::glimpse::Glimpse;
use super::history::{Past, Reached};
use super::index::Asked;
use super::record::Record;
use super::search::{Filter, Match, fitting};
use super::state::seq_after;
use crate::refusal::Fault;
use crate::seq::{Millis, Seq};
use crate::store::{Position, StoreError};

/// Between two commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The place of the next commit.
    pub position: Position,
    /// The seq of the last record before it.
    pub seq: Seq,
}

impl Place {
    /// As a named value of somebody who follows the log begins: position and seq.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.position.to_be_bytes());
        bytes[8..].copy_from_slice(&self.seq.as_u64().to_be_bytes());
        bytes
    }
}

/// One commit, and where it stands.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its place.
    pub position: Position,
    /// The seq of the last record before it.
    pub before: Seq,
    /// The seq of its last record.
    pub last: Seq,
    /// The commit.
    pub commit: Opened,
}

/// One commit that was looked at, whole where it has a record that somebody wants.
#[derive(Clone, Debug)]
pub struct Looked {
    /// Its place.
    pub position: Position,
    /// The seq of its last record.
    pub last: Seq,
    /// The commit, where it has one.
    pub step: Option<Step>,
}

impl Step {
    /// Its records that fit, in order.
    pub fn matches(&self, filter: &Filter) -> Result<Vec<Match>, Fault> {
        let at = Millis(self.commit.header.time);
        if !filter.in_time(at) {
            return Ok(Vec::new());
        }
        let found = fitting(&self.commit, filter, self.before, Seq::LAST);
        let found = found.map_err(|e| Fault::new(format!("commit {}: {e}", self.position)))?;
        let position = self.position;
        Ok(found.into_iter().map(|(seq, record, group)| Match { past: Past { seq, at, position, record }, group }).collect())
    }
}

impl Ledger {
    /// Before the oldest record that is kept, and after the newest.
    pub fn ends(&self) -> (Place, Place) {
        self.peek(|s| {
            let end = Place { position: s.position + 1, seq: s.head };
            (s.removed.oldest(), end)
        })
    }

    /// Where somebody goes on who had everything up to a record; `Err` with the oldest place where some after it were removed. It is found by
    /// the seq: after a recovery other commits stand at its place.
    pub fn resume(&self, after: Seq) -> Result<Result<Place, Place>, Fault> {
        let (oldest, end) = self.ends();
        let found = self.place_of(after, end)?.ok().filter(|found| found.position >= oldest.position);
        Ok(found.ok_or(oldest))
    }

    /// The place of the newest durable commit.
    pub fn durable_position(&self) -> Position {
        self.inner.durable_position.load(Ordering::Acquire)
    }

    /// The commits from a place on, those that are durable, about `bytes` of them; `None` where the first of them was removed.
    ///
    /// It reads the store: call it where that may block.
    pub fn steps(&self, from: Place, bytes: usize) -> Result<Option<Vec<Step>>, Fault> {
        self.each_of(from, bytes, |position, before, bytes| {
            let commit = Opened::from_bytes(bytes)?;
            let last = last_of(&commit, before)?;
            Ok((last, Step { position, before, last, commit }))
        })
    }

    /// The same for who wants few of the records: of issuances that are alike one is looked at, so `wanted` may not read what is one
    /// issuance's own. A commit without one of those is neither decoded nor hashed.
    pub fn steps_with(&self, from: Place, bytes: usize, wanted: impl Fn(&Record) -> bool) -> Result<Option<Vec<Looked>>, Fault> {
        self.each_of(from, bytes, |position, before, bytes| {
            let glimpse = Glimpse::of(position, before, bytes)?;
            let last = glimpse.last;
            let step = match glimpse.any(&wanted)? {
                true => Some(Step { position, before, last, commit: Opened::from_bytes(bytes)? }),
                false => None,
            };
            Ok((last, Looked { position, last, step }))
        })
    }

    /// The same, as each is made of its place, the seq before it and its bytes; what is made comes with the seq of its last record.
    pub(super) fn each_of<T>(
        &self,
        from: Place,
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

    /// The same where the index covers it: from the beginning of the record's block on.
    fn indexed_place_of(&self, seq: Seq) -> Result<Option<Place>, Fault> {
        let Some(mut place) = self.inner.derived.index.lock().place_of(seq) else { return Ok(None) };
        while place.seq < seq {
            let steps = self.glimpses(place, crate::limits::READER_BYTES)?.unwrap_or_default();
            let Some(last) = steps.last() else { return Ok(None) };
            if let Some(of) = steps.iter().find(|step| step.last > seq) {
                return Ok(Some(Place { position: of.position, seq: of.before }));
            }
            place = Place { position: last.position + 1, seq: last.last };
        }
        Ok(Some(place))
    }

    /// Where somebody goes on who looks for what fits, reading forward: past what the index says cannot hold it.
    pub fn next_place(&self, asked: &mut Asked, from: Place) -> Place {
        self.inner.derived.index.lock().next(asked, from)
    }

    /// The place right after the commit that holds a record, or before it where the record is not that commit's last; looked for from
    /// `end` backwards. What is no longer kept, or beyond `limits::HISTORY_BYTES`, is told.
    pub fn place_of(&self, seq: Seq, end: Place) -> Result<Result<Place, Reached>, Fault> {
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
                return Ok(Err(if oldest > 1 { Reached::Removed(last) } else { Reached::Beginning }));
            }
            if looked >= crate::limits::HISTORY_BYTES {
                return Ok(Err(Reached::Bound(last)));
            }
            let entry = store.read(at, 1).map_err(failed)?.into_iter().next().filter(|e| e.at == at);
            let entry = entry.ok_or_else(|| Fault::new(format!("commit {at} is not there")))?;
            looked += entry.bytes.len();
            let damaged = |e| Fault::new(format!("commit {at}: {e}"));
            (position, last) = (at, Glimpse::ending(at, last, &entry.bytes).map_err(damaged)?.before);
        }
        Ok(Ok(Place { position, seq: last }))
    }
}

/// The seq of a commit's last record, after `seq`.
pub fn last_of(commit: &Opened, seq: Seq) -> Result<Seq, BadCommit> {
    let first = seq_after(seq, &commit.record(0)?);
    Ok(Seq::from_u64(first.as_u64() + commit.records.len() as u64 - 1).unwrap_or(first))
}
