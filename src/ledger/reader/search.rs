//! Search for records that match a filter: newest first, in steps of bounded work; or in order, as records become durable.

use crate::Ledger;
use parking_lot::Mutex;

use crate::commit::EncodedCommit;
use crate::reader::commit_scan::ScannedCommit;
use crate::reader::history::{HistoryRecord, PIECE, piece};
use crate::reader::history_query::CancelFlag;
use crate::reader::index::{Hint, HistoryIndex, IndexQuery};
use crate::record::{Event, NameKind, Record, names};
use crate::state::seq_after;
use mayfly_base::limits;
use mayfly_base::refusal::Fault;
use mayfly_store::{Position, Store};
use mayfly_verify::seq::{Millis, Seq};

/// A filter for records. All given conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryFilter {
    /// Committed at this time or later.
    pub since: Option<Millis>,
    /// Committed before this time.
    pub until: Option<Millis>,
    /// Exactly this seq.
    pub seq: Option<Seq>,
    /// The record contains each of these names: of the given sort, or of any sort. At most 32.
    pub names: Vec<(Option<NameKind>, String)>,
}

impl HistoryFilter {
    /// A filter for records that contain this name: of the given sort, or of any sort.
    pub fn named(sort: Option<NameKind>, name: String) -> HistoryFilter {
        HistoryFilter { names: vec![(sort, name)], ..HistoryFilter::default() }
    }

    /// Whether a commit of this time may contain a match.
    pub fn in_time(&self, at: Millis) -> bool {
        self.since.is_none_or(|since| at >= since) && self.until.is_none_or(|until| at < until)
    }

    /// Whether a record of a commit of this time matches.
    pub fn fits(&self, seq: Seq, at: Millis, record: &Record) -> bool {
        self.in_time(at) && self.seq.is_none_or(|wanted| wanted == seq) && self.named_in(record)
    }

    fn named_in(&self, record: &Record) -> bool {
        let all = (1u64 << self.names.len().min(63)) - 1;
        let mut found = 0u64;
        if all > 0 {
            names(record, &mut |sort, text| {
                for (n, (wanted, name)) in self.names.iter().enumerate().take(63) {
                    if wanted.is_none_or(|w| w == sort) && name == text {
                        found |= 1 << n;
                    }
                }
            });
        }
        found == all
    }
}

/// Where a search step begins: the newest commit that it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchCursor {
    /// The place of that commit.
    pub position: Position,
    /// The seq of that commit's last record.
    pub seq: Seq,
    /// Only records before this seq.
    pub before: Seq,
}

/// A matching record.
#[derive(Clone, Debug)]
pub struct Match {
    /// The record.
    pub past: HistoryRecord,
    /// The seq of the first record of its group; zero if it has no group.
    pub group: Seq,
}

/// The result of one search step.
#[derive(Clone, Debug)]
pub struct SearchPage {
    /// The matches, newest first.
    pub records: Vec<Match>,
    /// Where the next step begins; `None`: there are no older records.
    pub next: Option<SearchCursor>,
    /// Everything from this seq on was searched.
    pub reached: Seq,
    /// The record with this seq and all before it were removed (`audit.keep`); set if the search came that far.
    pub removed: Option<Seq>,
    /// The commits that contain the matches, each with the seq of its last record.
    pub ends: Vec<(Position, Seq)>,
    /// Number of commits that were read.
    pub looked_commits: u64,
    /// The length of these commits, bytes.
    pub looked_bytes: usize,
}

impl Ledger {
    /// One step of a search: at most `most` records, and at most about `limits::SEARCH_BYTES` of history. It ends early once `stop` is set,
    /// with the same result as at that bound.
    ///
    /// Reads the store: call it where blocking is allowed.
    pub fn search(
        &self,
        filter: &HistoryFilter,
        from: SearchCursor,
        most: usize,
        stop: &CancelFlag,
    ) -> Result<SearchPage, Fault> {
        let bounds = (most, limits::SEARCH_BYTES);
        let found = search(&*self.store(), Some(&self.inner.derived.index), filter, from, bounds, stop)?;
        self.inner.derived.count_read(found.looked_commits, found.looked_bytes);
        Ok(found)
    }
}

pub(crate) fn search(
    store: &dyn Store,
    index: Option<&Mutex<HistoryIndex>>,
    filter: &HistoryFilter,
    from: SearchCursor,
    (most, bytes): (usize, usize),
    stop: &CancelFlag,
) -> Result<SearchPage, Fault> {
    let failed = |e: mayfly_store::StoreError| Fault::new(format!("reading history: {e}"));
    let oldest = store.oldest().map_err(failed)?.max(1);
    let mut out = SearchPage {
        records: Vec::new(),
        next: None,
        reached: from.seq.min(from.before),
        removed: None,
        ends: Vec::new(),
        looked_commits: 0,
        looked_bytes: 0,
    };
    let (mut to, mut seq) = (from.position, from.seq);
    let mut asked = IndexQuery::new(filter);
    while to >= oldest {
        let mut least = oldest;
        match index.and_then(|index| index.lock().hint(&mut asked, to)) {
            Some(Hint::Skip(place)) => {
                out.reached = place.seq.next().unwrap_or(place.seq).min(out.reached);
                if place.seq == Seq::ZERO || filter.seq.is_some_and(|wanted| wanted > place.seq) {
                    return Ok(out);
                }
                (to, seq) = (place.position - 1, place.seq);
                continue;
            }
            Some(Hint::Look(first)) => least = first.max(oldest),
            None => {}
        }
        let first = to.saturating_sub(PIECE - 1).max(least);
        for entry in piece(store, first, to).map_err(failed)?.into_iter().rev() {
            if out.looked_bytes >= bytes || stop.stopped() {
                out.next = Some(SearchCursor { position: entry.at, seq, before: Seq::LAST });
                return Ok(out);
            }
            out.looked_bytes += entry.bytes.len();
            out.looked_commits += 1;
            let damaged = |e| Fault::new(format!("commit {}: {e}", entry.at));
            let scanned = ScannedCommit::ending(entry.at, seq, &entry.bytes).map_err(damaged)?;
            let before_it = scanned.before;
            // Most commits of a block contain no match: those are neither hashed nor decoded.
            if asked.may_be_in(&scanned).map_err(damaged)? {
                let commit = EncodedCommit::from_bytes(&entry.bytes).map_err(damaged)?;
                let at = Millis(commit.header.time);
                let fitting = fitting(&commit, filter, before_it, from.before).map_err(damaged)?;
                if !fitting.is_empty() {
                    out.ends.push((entry.at, seq));
                }
                for (one, record, group) in fitting.into_iter().rev() {
                    if out.records.len() == most {
                        out.next = Some(SearchCursor { position: entry.at, seq, before: out.reached });
                        return Ok(out);
                    }
                    out.reached = one;
                    out.records.push(Match { past: HistoryRecord { seq: one, at, position: entry.at, record }, group });
                }
            }
            // The records of a commit are consecutive.
            let first = seq.as_u64().saturating_sub(u64::from(scanned.header.records).saturating_sub(1));
            out.reached = Seq::from_u64(first).unwrap_or(seq).min(out.reached);
            if before_it == Seq::ZERO || filter.seq.is_some_and(|wanted| wanted > before_it) {
                return Ok(out);
            }
            seq = before_it;
        }
        to = first - 1;
    }
    out.removed = (oldest > 1).then_some(seq);
    Ok(out)
}

/// The seq of the last record before a commit, given the commit's first record, its number of records and the seq of its last record.
pub(crate) fn before_of(first: &Record, records: u64, last: Seq) -> Seq {
    match &first.event {
        // The commit that begins a generation names the record before it.
        Some(Event::GenerationBegun(begun)) => Seq::from_u64(begun.after).filter(|s| *s < last).unwrap_or(Seq::ZERO),
        _ => Seq::from_u64(last.as_u64().saturating_sub(records)).unwrap_or(Seq::ZERO),
    }
}

type Fitting = (Seq, Record, Seq);

/// The records of a commit that match, in order, each with its seq and the seq of the first record of its group.
pub(crate) fn fitting(
    commit: &EncodedCommit,
    filter: &HistoryFilter,
    mut seq: Seq,
    before: Seq,
) -> Result<Vec<Fitting>, crate::commit::BadCommit> {
    let at = Millis(commit.header.time);
    let (mut group, mut first, mut found) = (0, Seq::ZERO, Vec::new());
    for n in 0..commit.records.len() {
        let record = commit.record(n)?;
        seq = seq_after(seq, &record);
        if record.group == 0 || record.group != group {
            (group, first) = (record.group, seq);
        }
        if seq < before && filter.fits(seq, at, &record) {
            let of = if record.group > 0 { first } else { Seq::ZERO };
            found.push((seq, record, of));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::{EncodedRecord, WriterHead, pack};
    use crate::record::{Author, GenerationBegun, KeyChanged};
    use mayfly_store::memory::MemoryStore;

    /// Commits of the given sizes; the record with seq n names key `k{n % 3}` and, in pairs, belongs to a group.
    fn log(sizes: &[usize]) -> (MemoryStore, SearchCursor) {
        let store = MemoryStore::new(mayfly_store::StoreId::from_bytes([1; 16]));
        let (mut head, mut seq) = (WriterHead::START, Seq::start_of(1));
        for (n, size) in sizes.iter().enumerate() {
            let records = (0..*size).map(|r| {
                let event = match (n, r) {
                    (0, 0) => Event::GenerationBegun(GenerationBegun { generation: 1, ..Default::default() }),
                    _ => Event::KeyChanged(KeyChanged { key: format!("k{}", (n + r) % 3), ..KeyChanged::default() }),
                };
                EncodedRecord::new(Record { group: (r / 2) as u32 + 1, ..Record::new(Author::LocalUid(0), event) }).unwrap()
            });
            let records: Vec<EncodedRecord> = records.collect();
            let (bytes, next) = pack(1, head, Millis(n as u64 * 10), records.iter());
            head = next;
            store.append(n as u64 + 1, &bytes).unwrap();
            seq = (0..*size).fold(seq, |s, _| s.next().unwrap());
        }
        (store, SearchCursor { position: sizes.len() as u64, seq, before: Seq::LAST })
    }

    fn named(name: &str) -> HistoryFilter {
        HistoryFilter { names: vec![(None, name.into())], ..HistoryFilter::default() }
    }

    /// Runs all steps of a search with the given page size and bound; returns the matches and the number of steps.
    fn all(
        store: &MemoryStore,
        filter: &HistoryFilter,
        from: SearchCursor,
        most: usize,
        bytes: usize,
    ) -> (Vec<Match>, usize, Option<Seq>) {
        let (mut found, mut turn, mut calls) = (Vec::new(), Some(from), 0);
        let mut removed = None;
        while let Some(from) = turn {
            let page = search(store, None, filter, from, (most, bytes), &CancelFlag::default()).unwrap();
            assert!(page.records.len() <= most);
            assert!(page.records.iter().all(|m| m.past.seq >= page.reached));
            found.extend(page.records);
            (turn, removed, calls) = (page.next, page.removed, calls + 1);
        }
        (found, calls, removed)
    }

    #[test]
    fn pages_of_any_size_and_bound_find_each_match_once_newest_first() {
        let sizes: Vec<usize> = (0..40).map(|n| 1 + n % 5).collect();
        let (store, end) = log(&sizes);
        let (whole, calls, _) = all(&store, &named("k1"), end, usize::MAX, usize::MAX);
        assert_eq!(calls, 1);
        assert!(whole.len() > 20 && whole.windows(2).all(|w| w[0].past.seq > w[1].past.seq));
        let seqs = |found: &[Match]| found.iter().map(|m| (m.past.seq, m.past.position, m.group)).collect::<Vec<_>>();
        for (most, bytes) in [(1, usize::MAX), (2, 300), (7, 1), (usize::MAX, 1), (3, 1000)] {
            let (found, calls, removed) = all(&store, &named("k1"), end, most, bytes);
            assert_eq!(seqs(&found), seqs(&whole), "{most} {bytes}");
            assert!(calls > 1 && removed.is_none());
        }
        let (everything, ..) = all(&store, &HistoryFilter::default(), end, 10, 500);
        assert_eq!(everything.len(), sizes.iter().sum::<usize>());
        assert_eq!(everything.last().map(|m| m.past.seq.count()), Some(1));
        // In a commit of five records, the third and the fourth form a group.
        let of_five: Vec<_> =
            everything.iter().filter(|m| m.past.position == 40).map(|m| m.past.seq.as_u64() - m.group.as_u64()).collect();
        assert_eq!(of_five, [0, 1, 0, 1, 0]);
    }

    #[test]
    fn times_and_seqs_bound_it() {
        let (store, end) = log(&[2; 30]);
        let time = HistoryFilter { since: Some(Millis(100)), until: Some(Millis(120)), ..HistoryFilter::default() };
        let (found, ..) = all(&store, &time, end, 100, usize::MAX);
        assert_eq!(found.iter().map(|m| m.past.at.0).collect::<Vec<_>>(), [110, 110, 100, 100]);
        for count in [1, 2, 31, 60] {
            let seq = Seq::from_u64(Seq::start_of(1).as_u64() + count);
            let (found, ..) = all(&store, &HistoryFilter { seq, ..HistoryFilter::default() }, end, 100, usize::MAX);
            assert_eq!(found.iter().map(|m| m.past.seq.count()).collect::<Vec<_>>(), [count]);
        }
        assert!(all(&store, &named("none"), end, 100, usize::MAX).0.is_empty());
        let both = HistoryFilter {
            names: vec![(Some(NameKind::Event), "key changed".into()), (Some(NameKind::Tool), "k1".into())],
            ..HistoryFilter::default()
        };
        assert!(all(&store, &both, end, 100, usize::MAX).0.is_empty(), "a key is no tool");
    }

    #[test]
    fn it_goes_on_before_a_recovery_and_tells_what_was_removed() {
        let (store, end) = log(&[2, 3]);
        let begun = GenerationBegun { generation: 4, after: end.seq.as_u64(), ..Default::default() };
        let encoded = EncodedRecord::new(Record::new(Author::LocalUid(0), Event::GenerationBegun(begun))).unwrap();
        let (bytes, _) = pack(1, WriterHead::START, Millis(9), std::iter::once(&encoded));
        store.append(3, &bytes).unwrap();
        let end = SearchCursor { position: 3, seq: Seq::start_of(4).next().unwrap(), before: Seq::LAST };
        let counts = |found: &[Match]| found.iter().map(|m| (m.past.seq.generation(), m.past.seq.count())).collect::<Vec<_>>();
        let (found, _, removed) = all(&store, &HistoryFilter::default(), end, 2, 1);
        assert_eq!(counts(&found), [(4, 1), (1, 5), (1, 4), (1, 3), (1, 2), (1, 1)]);
        assert_eq!(removed, None);
        store.remove_before(2).unwrap();
        let (found, _, removed) = all(&store, &HistoryFilter::default(), end, 2, 1);
        assert_eq!((found.len(), removed.map(Seq::count)), (4, Some(2)));
    }
}
