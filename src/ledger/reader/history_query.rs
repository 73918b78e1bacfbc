//! Queries over the history: one query makes a few lookups; each finds matching records through the index and reads no more than it has to.
//!
//! The index names the blocks that may contain a match, and those are read. The part that the index does not cover (the last moments;
//! everything while the index is rebuilt after a restore) is scanned, for at most `limits::LOOK_UNCOVERED_MS`. All reading of one query is
//! bounded by `limits::LOOK_BYTES`. The result says which part was not read, so that a record is never reported missing from a part that
//! was not searched. A query whose caller has disconnected stops at the next piece.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::Ledger;
use crate::commit::EncodedCommit;
use crate::reader::history::{HistoryRecord, LogEnd, ScanEnd};
use crate::reader::index::{HistoryRange, IndexQuery};
use crate::reader::log_reader::LogCursor;
use crate::reader::search::{HistoryFilter, fitting};
use crate::state::State;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_base::system::Stopwatch;
use mayfly_verify::seq::{Millis, Seq};

/// Tells whether the caller still waits for the answer.
#[derive(Clone, Debug, Default)]
pub struct CancelFlag(Arc<AtomicBool>);

/// Held by the caller. When it is dropped, the query stops.
#[derive(Debug)]
pub struct CancelGuard(CancelFlag);

impl CancelFlag {
    /// A stop signal and the guard that the caller holds.
    pub fn waiting() -> (CancelFlag, CancelGuard) {
        let stop = CancelFlag::default();
        (stop.clone(), CancelGuard(stop))
    }

    /// The caller no longer waits.
    pub fn stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// How much history was read since the start, for tests and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryReadStats {
    /// Number of commits.
    pub commits: u64,
    /// Bytes of those commits.
    pub bytes: u64,
    /// Pages of the index, 4 KiB each.
    pub pages: u64,
}

/// Why a query did not see all of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryGap {
    /// The index does not cover all commits yet.
    NotIndexed {
        /// Number of commits that the index covers.
        covered: u64,
        /// Number of commits that are kept.
        commits: u64,
    },
    /// The matches lie in more blocks than one query reads: nothing before this seq was read.
    TooMuch {
        /// The seq.
        before: Seq,
    },
}

/// One query.
pub struct HistoryQuery {
    ledger: Ledger,
    oldest: LogCursor,
    end: LogCursor,
    stop: CancelFlag,
    /// Bytes that this query may still read.
    left: Cell<usize>,
    /// Running since the query began.
    watch: Stopwatch,
    unseen: Cell<Option<QueryGap>>,
}

impl HistoryQuery {
    /// A query over the records between two places: the oldest that is kept, and the durable end.
    pub fn new(ledger: &Ledger, (oldest, end): (LogCursor, LogCursor), stop: CancelFlag) -> HistoryQuery {
        ledger.wake_index(false);
        let (left, unseen) = (Cell::new(limits::LOOK_BYTES), Cell::new(None));
        HistoryQuery { ledger: ledger.clone(), oldest, end, stop, left, watch: Stopwatch::start(), unseen }
    }

    /// The seq up to which records were removed (`audit.keep`); `None` when all are kept.
    pub fn removed(&self) -> Option<Seq> {
        (self.oldest.position > 1).then_some(self.oldest.seq)
    }

    /// Reads the state at the appended head, as [`Ledger::peek`].
    pub fn peek<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        self.ledger.peek(read)
    }

    /// Why not all of the history was seen, if so.
    pub fn unseen(&self) -> Option<QueryGap> {
        self.unseen.get()
    }

    /// Refused when a record was not found and not all of the history was seen.
    pub fn saw_all(&self, what: &str) -> Result<(), Error> {
        match self.unseen() {
            None => Ok(()),
            Some(QueryGap::NotIndexed { covered, commits }) => {
                self.ledger.wake_index(true);
                let percent = covered.saturating_mul(100) / commits.max(1);
                let why = format!(
                    "{what} is not in the part of history that the index covers: it is being built, {percent} % of {commits} commits are in it"
                );
                let no = Refusal::new(Reason::NotReady, why).by("history_index");
                let wait = Duration::from_millis(limits::INDEX_ASK_AGAIN_MS);
                Err(no.way_out("run the query again; `mayfly status` shows the progress of the index").retry(wait).into())
            }
            Some(QueryGap::TooMuch { before }) => {
                let why = format!(
                    "{what} was not found in the newest records that may name it; those before seq {before} were not read"
                );
                Err(Refusal::new(Reason::Compacted, why)
                    .way_out("an operator can search the whole log: mayfly audit search")
                    .into())
            }
        }
    }

    /// The newest records that match any of the filters and `fits`, newest first.
    pub fn newest(
        &self,
        any: &[HistoryFilter],
        most: usize,
        fits: impl Fn(&HistoryRecord) -> bool,
    ) -> Result<Vec<HistoryRecord>, Error> {
        let mut asked = IndexQuery::any(any);
        let mut out = Vec::new();
        for stretch in self.stretches(&mut asked).iter().rev() {
            let mut found: VecDeque<HistoryRecord> = VecDeque::new();
            let room = most.saturating_sub(out.len());
            let whole = self.read(stretch, (any, &asked), &mut |past| {
                if fits(&past) {
                    found.push_back(past);
                    if found.len() > room {
                        found.pop_front();
                    }
                }
                true
            })?;
            out.extend(found.into_iter().rev());
            if !whole {
                self.miss(stretch);
                break;
            }
            if out.len() >= most {
                break;
            }
        }
        Ok(out)
    }

    /// The first record that matches any of the filters and `fits`. At most one record may match. The indexed part is searched first.
    pub fn first(&self, any: &[HistoryFilter], fits: impl Fn(&HistoryRecord) -> bool) -> Result<Option<HistoryRecord>, Error> {
        let mut asked = IndexQuery::any(any);
        let stretches = self.stretches(&mut asked);
        let (covered, rest): (Vec<&HistoryRange>, Vec<&HistoryRange>) = stretches.iter().partition(|stretch| stretch.covered);
        // The part that is not indexed is usually the newest, and queries ask for new records more often than for old ones.
        for stretch in covered.into_iter().chain(rest.into_iter().rev()) {
            let mut found = None;
            let whole = self.read(stretch, (any, &asked), &mut |past| {
                if fits(&past) {
                    found = Some(past);
                }
                found.is_none()
            })?;
            if found.is_some() {
                return Ok(found);
            }
            if !whole {
                self.miss(stretch);
                break;
            }
        }
        Ok(None)
    }

    /// The record with this seq.
    pub fn at(&self, seq: Seq) -> Result<Option<HistoryRecord>, Error> {
        self.first(&[HistoryFilter { seq: Some(seq), ..HistoryFilter::default() }], |past| past.seq == seq)
    }

    /// The newest records, without a filter, until `each` says stop or about `most` bytes were read. Newest commit first, and within a
    /// commit the last record first.
    pub fn back(&self, most: usize, each: impl FnMut(HistoryRecord) -> ControlFlow<()>) -> Result<ScanEnd, Error> {
        let end = LogEnd { position: self.end.position - 1, seq: self.end.seq };
        let reached = self.ledger.look_back(end, most, &self.stop, each)?;
        self.waited_for()?;
        Ok(reached)
    }

    /// Refused when the caller no longer waits; the refusal's text is then never read.
    pub fn waited_for(&self) -> Result<(), Error> {
        match self.stop.stopped() {
            true => Err(Refusal::new(Reason::DeadlineExceeded, "the caller no longer waits for the answer").into()),
            false => Ok(()),
        }
    }

    fn stretches(&self, asked: &mut IndexQuery) -> Vec<HistoryRange> {
        self.ledger.stretches(asked, self.oldest, self.end)
    }

    /// Notes that a stretch was not read, or not completely.
    fn miss(&self, stretch: &HistoryRange) {
        let unseen = match stretch.covered {
            true => QueryGap::TooMuch { before: stretch.end.seq },
            false => {
                let (covered, commits) = self.ledger.indexed(self.oldest.position, self.end.position);
                QueryGap::NotIndexed { covered, commits }
            }
        };
        self.unseen.set(Some(unseen));
    }

    /// Calls `each` with every match in a stretch, in order, until `each` says stop. False when the bound was reached first.
    fn read(
        &self,
        stretch: &HistoryRange,
        (any, asked): (&[HistoryFilter], &IndexQuery),
        each: &mut dyn FnMut(HistoryRecord) -> bool,
    ) -> Result<bool, Error> {
        let mut place = stretch.from;
        while place.position < stretch.end.position {
            self.waited_for()?;
            // On a slow or busy machine the time bound is reached first: the answer must be there within a second.
            if !stretch.covered && self.watch.us() >= limits::LOOK_UNCOVERED_MS * 1000 {
                return Ok(false);
            }
            // The commits were removed in the meantime.
            let Some(commits) = self.ledger.scan_commits(place, limits::READER_BYTES)? else { return Ok(true) };
            let Some(newest) = commits.last() else { return Ok(true) };
            place = LogCursor { position: newest.position + 1, seq: newest.last };
            for commit in commits.iter().filter(|commit| commit.position < stretch.end.position) {
                let Some(left) = self.left.get().checked_sub(commit.packed().len()) else { return Ok(false) };
                self.left.set(left);
                self.ledger.inner.derived.count_read(1, commit.packed().len());
                let damaged = |e| Fault::new(format!("commit {}: {e}", commit.position));
                if !asked.may_be_in(commit).map_err(damaged)? {
                    continue;
                }
                let opened = EncodedCommit::from_bytes(commit.packed()).map_err(damaged)?;
                for past in fitting_any(&opened, any, commit.before, commit.position).map_err(damaged)? {
                    if !each(past) {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(true)
    }
}

/// The records of a commit that match any of the filters, in order.
fn fitting_any(
    commit: &EncodedCommit,
    any: &[HistoryFilter],
    before: Seq,
    position: u64,
) -> Result<Vec<HistoryRecord>, crate::commit::BadCommit> {
    let at = Millis(commit.header.time);
    let mut all = Vec::new();
    for filter in any {
        let of = fitting(commit, filter, before, Seq::LAST)?;
        all.extend(of.into_iter().map(|(seq, record, _)| HistoryRecord { seq, at, position, record }));
    }
    if any.len() > 1 {
        all.sort_by_key(|past| past.seq);
        all.dedup_by_key(|past| past.seq);
    }
    Ok(all)
}

impl Ledger {
    /// How much history was read since the start.
    pub fn read_of_history(&self) -> HistoryReadStats {
        self.inner.derived.read()
    }

    /// How many of the kept commits, up to the newest, the index does not cover.
    pub fn unindexed(&self, oldest: u64, newest: u64) -> u64 {
        let (covered, commits) = self.indexed(oldest.max(1), newest + 1);
        commits.saturating_sub(covered)
    }

    /// How many of the commits between two places the index covers, and how many there are.
    pub fn indexed(&self, oldest: u64, end: u64) -> (u64, u64) {
        (self.inner.derived.index.lock().covered(oldest, end), end.saturating_sub(oldest))
    }

    fn stretches(&self, asked: &mut IndexQuery, oldest: LogCursor, end: LogCursor) -> Vec<HistoryRange> {
        self.inner.derived.index.lock().stretches(asked, oldest, end)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::record::{Author, Event, Record, RequestsRefused};
    use crate::{LedgerSettings, ProposalKind};
    use mayfly_base::system::System;
    use mayfly_store::memory::MemoryStore;
    use mayfly_store::{Store, StoreId};

    const COMMITS: usize = 60;

    /// A stopped ledger whose index covers nothing, so that no thread rebuilds the index.
    fn unindexed() -> Ledger {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(StoreId::from_bytes([1; 16])));
        let ledger = Ledger::open(Box::new(move || Ok(store.clone())), System::real(), LedgerSettings::default()).unwrap();
        for n in 0..COMMITS {
            let event = Event::Refused(RequestsRefused { caller: format!("key-{n}"), ..RequestsRefused::default() });
            let proposed = ledger.propose(ProposalKind::Change, vec![Record::new(Author::LocalUid(0), event)]).unwrap();
            proposed.answer.blocking_recv().unwrap().unwrap();
        }
        ledger.stop();
        ledger.inner.derived.index.lock().clear();
        ledger
    }

    fn look(ledger: &Ledger, stop: CancelFlag) -> HistoryQuery {
        HistoryQuery::new(ledger, ledger.ends(), stop)
    }

    fn of(key: &str) -> [HistoryFilter; 1] {
        [HistoryFilter::named(None, key.to_owned())]
    }

    #[test]
    fn what_no_index_covers_is_read_through_within_the_bound_and_beyond_it_nothing_is_claimed() {
        let ledger = unindexed();
        let whole = look(&ledger, CancelFlag::default());
        assert!(whole.first(&of("key-0"), |_| true).unwrap().is_some());
        assert!(whole.first(&of("none"), |_| true).unwrap().is_none());
        assert!(whole.saw_all("it").is_ok());
        let newest = whole.newest(&of("refused"), 3, |_| true).unwrap();
        assert!(newest.len() == 3 && newest.windows(2).all(|w| w[0].seq > w[1].seq));
        let bounded = look(&ledger, CancelFlag::default());
        bounded.left.set(500);
        assert!(bounded.first(&of("none"), |_| true).unwrap().is_none());
        let Err(Error::Refusal(no)) = bounded.saw_all("it") else { panic!("it claims that it saw all") };
        assert_eq!((no.reason, no.rule.as_deref()), (Reason::NotReady, Some("history_index")));
        assert!(no.message.contains("0 %") && no.retry_after.is_some(), "{no}");
        assert_eq!(ledger.indexed(1, COMMITS as u64 + 1).0, 0);
    }

    #[test]
    fn a_question_stops_when_nobody_waits() {
        let ledger = unindexed();
        let (stop, waiting) = CancelFlag::waiting();
        let asked = look(&ledger, stop);
        assert!(asked.first(&of("none"), |_| true).unwrap().is_none());
        drop(waiting);
        let before = ledger.read_of_history();
        for ended in [asked.first(&of("none"), |_| true).map(drop), asked.newest(&of("key-1"), 1, |_| true).map(drop)] {
            assert!(matches!(ended, Err(Error::Refusal(no)) if no.reason == Reason::DeadlineExceeded));
        }
        let mut seen = 0;
        let back = asked.back(usize::MAX, |_| {
            seen += 1;
            ControlFlow::Continue(())
        });
        assert!(back.is_err() && seen == 0);
        assert_eq!(ledger.read_of_history(), before, "nothing more was read");
    }
}
