//! Reads records back from the store, the newest first, within a bound.
//!
//! The backward scan serves recent records of any kind. A single record anywhere in the history is found through the index
//! ([`crate::reader::history_query`]).

use std::ops::ControlFlow;

use crate::Ledger;
use crate::READ_BYTES;
use crate::commit::Commit;
use crate::reader::history_query::CancelFlag;
use crate::record::{Event, Record};
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_store::{Position, Store, StoredCommit};
use mayfly_verify::seq::{Millis, Seq};

/// Commits per read. The largest commits are 4.5 MB each.
pub(crate) const PIECE: u64 = 16;

/// A record read back from the history.
#[derive(Clone, Debug)]
pub struct HistoryRecord {
    /// The record's sequence number.
    pub seq: Seq,
    /// The time of its commit.
    pub at: Millis,
    /// The position of its commit.
    pub position: Position,
    /// The record.
    pub record: Record,
}

/// How far a backward scan went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScanEnd {
    /// The scan was told to stop.
    Enough,
    /// The scan reached the first record of the ledger.
    Beginning,
    /// The scan reached its bound. No record before this seq was read.
    Bound(Seq),
    /// The scan reached the oldest kept commit: the record with this seq and all records before it were removed (`audit.keep`).
    Removed(Seq),
}

impl ScanEnd {
    /// If the scan ended before the beginning: the newest seq that was not read, and the reason in words.
    pub fn short(&self) -> Option<(Seq, String)> {
        match *self {
            ScanEnd::Bound(seq) if seq.count() > 0 => Some((seq, format!("history was searched back to seq {seq} only"))),
            ScanEnd::Removed(seq) if seq.count() > 0 => {
                Some((seq, format!("records up to seq {seq} are older than what is kept (audit.keep) and were removed")))
            }
            _ => None,
        }
    }
}

/// The start of a backward scan: the durable end of the log.
#[derive(Clone, Copy, Debug)]
pub struct LogEnd {
    /// The position of the newest commit.
    pub position: Position,
    /// The seq of that commit's last record.
    pub seq: Seq,
}

impl Ledger {
    /// The records of a durable commit, used to make a credential again or to explain one. Refused when the commit was removed
    /// (`audit.keep`); a commit is never removed while one of its credentials is alive.
    pub fn records_at(&self, position: Position) -> Result<Vec<Record>, Error> {
        let removed = self.peek(|s| (position < s.removed.before).then_some(s.removed.seq));
        if let Some((_, why)) = removed.and_then(|seq| ScanEnd::Removed(seq).short()) {
            let no = Refusal::new(Reason::Compacted, format!("the record needed for the answer was removed: {why}"));
            return Err(Error::Refusal(no.way_out("an exported audit log may have it: mayfly audit search")));
        }
        let entries = self.inner.store().read(position, 1).map_err(|e| Fault::new(format!("reading commit {position}: {e}")))?;
        let entry = entries.into_iter().next().filter(|e| e.at == position);
        let entry = entry.ok_or_else(|| Fault::new(format!("commit {position} is not there")))?;
        Ok(Commit::from_bytes(&entry.bytes).map_err(|e| Fault::new(format!("commit {position}: {e}")))?.records)
    }

    /// Scans backwards from `end`, record by record, until `each` says stop, the first generation begins, or about `most` bytes were read.
    /// When `each` stops the scan, the result is the same as when the bound was reached.
    ///
    /// The scan continues past a recovery: credentials issued before it are revoked, and must remain explainable.
    ///
    /// The store is read and everything is hashed and decoded, 10 to 40 MB in a second: call it where blocking is allowed.
    pub fn look_back(
        &self,
        end: LogEnd,
        most: usize,
        stop: &CancelFlag,
        mut each: impl FnMut(HistoryRecord) -> ControlFlow<()>,
    ) -> Result<ScanEnd, Fault> {
        let bounded = |past: HistoryRecord| if stop.stopped() { ControlFlow::Break(()) } else { each(past) };
        look_back(&*self.store(), end, most, bounded)
    }
}

fn look_back(
    store: &dyn Store,
    end: LogEnd,
    most: usize,
    mut each: impl FnMut(HistoryRecord) -> ControlFlow<()>,
) -> Result<ScanEnd, Fault> {
    let failed = |e: mayfly_store::StoreError| Fault::new(format!("reading history: {e}"));
    let oldest = store.oldest().map_err(failed)?.max(1);
    let (mut to, mut seq, mut looked) = (end.position, end.seq, 0);
    while to >= oldest {
        let from = to.saturating_sub(PIECE - 1).max(oldest);
        for entry in piece(store, from, to).map_err(failed)?.into_iter().rev() {
            if looked >= most {
                return Ok(ScanEnd::Bound(seq));
            }
            looked += entry.bytes.len();
            let commit = Commit::from_bytes(&entry.bytes).map_err(|e| Fault::new(format!("commit {}: {e}", entry.at)))?;
            for record in commit.records.into_iter().rev() {
                let before = match &record.event {
                    // The first record of a generation has a seq of its own and names the record before it.
                    Some(Event::GenerationBegun(begun)) => Seq::from_u64(begun.after).filter(|s| *s > Seq::ZERO && *s < seq),
                    // Within a generation the records are consecutive: the record before has the seq less one.
                    _ => Some(Seq::from_u64(seq.as_u64().saturating_sub(1)).unwrap_or(Seq::ZERO)),
                };
                let past = HistoryRecord { seq, at: Millis(commit.header.time), position: entry.at, record };
                if each(past).is_break() {
                    return Ok(ScanEnd::Enough);
                }
                let Some(before) = before else { return Ok(ScanEnd::Beginning) };
                seq = before;
            }
        }
        to = from - 1;
    }
    Ok(if oldest > 1 { ScanEnd::Removed(seq) } else { ScanEnd::Beginning })
}

/// The commits from `from` to `to`, in order.
pub(crate) fn piece(store: &dyn Store, from: Position, to: Position) -> Result<Vec<StoredCommit>, mayfly_store::StoreError> {
    let mut all: Vec<StoredCommit> = Vec::new();
    let mut next = from;
    while next <= to {
        let entries = store.read(next, READ_BYTES)?;
        let Some(last) = entries.last() else { break };
        next = last.at + 1;
        all.extend(entries.into_iter().filter(|e| e.at <= to));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::{EncodedRecord, WriterHead, pack};
    use crate::record::{Author, GenerationBegun, Maintained};
    use mayfly_store::memory::MemoryStore;

    fn log(commits: &[usize]) -> (MemoryStore, LogEnd) {
        let store = MemoryStore::new(mayfly_store::StoreId::from_bytes([1; 16]));
        let mut head = WriterHead::START;
        let mut seq = Seq::start_of(1);
        for (n, records) in commits.iter().enumerate() {
            let event = |r: usize| match (n, r) {
                (0, 0) => Event::GenerationBegun(GenerationBegun::default()),
                _ => Event::Maintained(Maintained { what: format!("{n} {r}") }),
            };
            let encoded: Vec<_> =
                (0..*records).map(|r| EncodedRecord::new(Record::new(Author::LocalUid(0), event(r))).unwrap()).collect();
            let (bytes, next) = pack(1, head, Millis(n as u64), encoded.iter());
            head = next;
            store.append(n as u64 + 1, &bytes).unwrap();
            seq = (0..*records).fold(seq, |s, _| s.next().unwrap());
        }
        (store, LogEnd { position: commits.len() as u64, seq })
    }

    #[test]
    fn it_goes_back_to_the_beginning_and_counts_right() {
        let sizes: Vec<usize> = (0..50).map(|n| 1 + n % 3).collect();
        let (store, end) = log(&sizes);
        let mut seen = Vec::new();
        let reached = look_back(&store, end, usize::MAX, |p| {
            seen.push((p.seq.count(), p.position, p.at));
            ControlFlow::Continue(())
        });
        assert_eq!(reached.unwrap(), ScanEnd::Beginning);
        let total: usize = sizes.iter().sum();
        assert_eq!(seen.len(), total);
        assert_eq!(seen.first().map(|s| s.0), Some(total as u64));
        assert_eq!(seen.last(), Some(&(1, 1, Millis(0))));
        assert!(seen.windows(2).all(|w| w[0].0 == w[1].0 + 1 && w[0].1 >= w[1].1));
    }

    #[test]
    fn it_goes_on_before_a_recovery_with_the_seqs_that_were_given_there() {
        let (store, end) = log(&[2, 3]);
        let begun = GenerationBegun { generation: 4, after: end.seq.as_u64(), ..Default::default() };
        let encoded = EncodedRecord::new(Record::new(Author::LocalUid(0), Event::GenerationBegun(begun))).unwrap();
        let (bytes, _) = pack(1, WriterHead::START, Millis(9), std::iter::once(&encoded));
        store.append(3, &bytes).unwrap();
        let mut seen = Vec::new();
        let end = LogEnd { position: 3, seq: Seq::start_of(4).next().unwrap() };
        let reached = look_back(&store, end, usize::MAX, |p| {
            seen.push((p.seq.generation(), p.seq.count()));
            ControlFlow::Continue(())
        });
        assert_eq!(reached.unwrap(), ScanEnd::Beginning);
        assert_eq!(seen, [(4, 1), (1, 5), (1, 4), (1, 3), (1, 2), (1, 1)]);
    }

    #[test]
    fn it_stops_when_told_at_the_bound_and_at_what_is_no_longer_kept() {
        let (store, end) = log(&[1; 40]);
        let until =
            |n: u64| move |p: HistoryRecord| if p.seq.count() == n { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        assert_eq!(look_back(&store, end, usize::MAX, until(7)).unwrap(), ScanEnd::Enough);
        let size = store.read(40, 1).unwrap()[0].bytes.len();
        let ScanEnd::Bound(seq) = look_back(&store, end, size * 5 / 2, until(0)).unwrap() else { panic!("no bound") };
        assert_eq!(seq.count(), 37, "three were looked at");
        store.remove_before(31).unwrap();
        let reached = look_back(&store, end, usize::MAX, until(0)).unwrap();
        let ScanEnd::Removed(seq) = reached else { panic!("{reached:?}") };
        assert_eq!(seq.count(), 30);
        assert!(reached.short().unwrap().1.contains("audit.keep"));
    }
}
