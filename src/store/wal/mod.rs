//! A write-ahead log in front of an engine: a commit becomes durable with one write to preallocated space, and is moved to the engine
//! later, together with many others.
//!
//! A copy-on-write engine writes eight pages per commit, including new blocks of a growing file, which the file system has to record too.
//! The log is a few zero-filled files that are overwritten again and again, with direct I/O if the file system supports it: one write and
//! one flush. When a log file is full, its commits are moved to the engine in one transaction; until then they are read from memory.
//! `docs/decisions.md` says what that saves.
//!
//! After a crash, the commits that the log has and the engine lacks are moved first. Nothing is appended behind recovered records: the next
//! record starts another file, with another salt.
//!
//! An incomplete record at the end of the log was either never acknowledged, or was damaged afterwards. A head file beside the log tells
//! the two cases apart (`store/head.rs`): the position of each commit is written there when the commit is durable and before it is
//! acknowledged. That costs a write to the page cache and no flush: the mover syncs the file once a second.

mod file;
mod medium;
mod recover;
mod tail;
mod write_back;

pub(super) use file::Aligned;
pub(super) use medium::BLOCK;
pub use medium::Medium;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::head::{HeadFile, HeadMark};
use super::reserve::Reserve;
use super::{Position, Precondition, Store, StoreError, StoreId, StoredCommit, check_commit, files};
use file::LogFiles;
use mayfly_base::limits;
use write_back::WalState;

/// An engine with a write-ahead log in front of it.
pub struct WalStore<S: Store> {
    inner: Arc<S>,
    shared: Arc<WalState>,
    /// Held during each append.
    log: Mutex<LogFiles>,
    /// Bytes that the log files occupy on the disk.
    log_bytes: u64,
    mover: Option<JoinHandle<()>>,
}

impl<S: Store> WalStore<S> {
    /// Creates the log files in `dir`, full of zeros and durable, replacing existing ones. The commits of existing ones must be in the
    /// engine already.
    pub(super) fn make_in(dir: &Path, file_bytes: u64) -> Result<(), StoreError> {
        (0..limits::STORE_LOG_FILES).try_for_each(|n| medium::make(dir, n, file_bytes))
    }

    /// Opens the log in `dir` in front of an engine. `headed`: the head file must exist; a store of an earlier version gets one.
    pub(super) fn open_in(dir: &Path, inner: S, headed: bool) -> Result<WalStore<S>, StoreError> {
        let media = (0..limits::STORE_LOG_FILES).map(|n| medium::open(dir, n)).collect::<Result<Vec<_>, _>>()?;
        let path = dir.join(medium::HEAD);
        let head = match HeadFile::open(&path)? {
            Some((head, _)) if head.id() != inner.id() => {
                return Err(StoreError::Foreign(format!("{} is the head of another store", path.display())));
            }
            Some(found) => found,
            None if headed => {
                let what = format!("{} is missing: whether the log has all that was acknowledged cannot be told", path.display());
                return Err(StoreError::Damaged { at: 0, what });
            }
            None => {
                let mark = HeadMark { change: 0, head: 0 };
                (HeadFile::make(&path, inner.id(), mark)?, mark)
            }
        };
        WalStore::begin(inner, media, Some(head))
    }

    /// Opens the log for salvage: nothing is written. Commits of the log are read behind those of the engine, even if some between are
    /// missing.
    pub(super) fn open_damaged_in(dir: &Path, inner: S) -> Result<WalStore<S>, StoreError> {
        let id = inner.id();
        let mut found = Vec::new();
        for n in 0..limits::STORE_LOG_FILES {
            // Nothing can be salvaged from a file that cannot be read.
            if let Ok(medium) = medium::open(dir, n) {
                found.extend(recover::valid_records(&*medium, n, id));
            }
        }
        let head = inner.head()?;
        found.sort_unstable_by_key(|(turn, e): &(u64, StoredCommit)| (e.at, std::cmp::Reverse(*turn)));
        let mut found: Vec<StoredCommit> = found.into_iter().map(|(_, e)| e).filter(|e| e.at > head).collect();
        found.dedup_by_key(|e| e.at);
        let shared = WalState::new(head, found, None);
        shared.stop(&StoreError::Failed("the store was opened for reading".to_owned()));
        Ok(WalStore {
            inner: Arc::new(inner),
            shared: Arc::new(shared),
            log: Mutex::new(LogFiles::none(id)),
            log_bytes: 0,
            mover: None,
        })
    }

    /// A log on these media (at least two) in front of an engine; each may contain what an earlier log left there.
    pub fn new(inner: S, media: Vec<Box<dyn Medium>>) -> Result<WalStore<S>, StoreError> {
        WalStore::begin(inner, media, None)
    }

    /// As [`WalStore::new`], with a head file of two blocks, which says which commits were acknowledged.
    pub fn with_head(inner: S, media: Vec<Box<dyn Medium>>, head: Box<dyn Medium>) -> Result<WalStore<S>, StoreError> {
        let head = HeadFile::on(head, inner.id())?;
        WalStore::begin(inner, media, Some(head))
    }

    fn begin(inner: S, media: Vec<Box<dyn Medium>>, beside: Option<(HeadFile, HeadMark)>) -> Result<WalStore<S>, StoreError> {
        let (id, head) = (inner.id(), inner.head()?);
        let (mut log, found) = recover::recover(media, id, head)?;
        let newest = found.last().map_or(head, |e| e.at);
        let beside = beside.map(|(file, seen)| nothing_acknowledged_lost(&mut log, file, seen, newest)).transpose()?;
        let (inner, shared) = (Arc::new(inner), Arc::new(WalState::new(head, found, beside)));
        let mover = write_back::start(inner.clone(), shared.clone())?;
        let log_bytes = log.bytes();
        Ok(WalStore { inner, shared, log: Mutex::new(log), log_bytes, mover: Some(mover) })
    }

    /// The engine behind the log.
    pub(super) fn engine_behind(&self) -> &S {
        &self.inner
    }

    /// Appends commits to the engine directly; everything before them is moved to the engine first.
    fn past(&self, log: &mut LogFiles, first: Position, commits: &[&[u8]]) -> Result<(), StoreError> {
        self.shared.drain(Position::MAX)?;
        self.stopping(self.inner.append_all(first, commits))?;
        let last = first + (commits.len() as u64).saturating_sub(1);
        log.passed();
        self.shared.acknowledges(last)?;
        self.shared.passed(last);
        Ok(())
    }

    /// After a failure of the engine the whole store accepts no more changes.
    fn stopping<T>(&self, done: Result<T, StoreError>) -> Result<T, StoreError> {
        done.inspect_err(|e| {
            if matches!(e, StoreError::Failed(_) | StoreError::Full(_) | StoreError::Damaged { .. }) {
                self.shared.stop(e);
            }
        })
    }

    fn expect_next(&self, first: Position) -> Result<(), StoreError> {
        let next = self.shared.next();
        if first == next { Ok(()) } else { Err(StoreError::NotNext { asked: first, next }) }
    }
}

impl<S: Store> Store for WalStore<S> {
    fn id(&self) -> StoreId {
        self.inner.id()
    }

    fn engine(&self) -> &'static str {
        self.inner.engine()
    }

    fn append(&self, at: Position, bytes: &[u8]) -> Result<(), StoreError> {
        check_commit(bytes)?;
        let mut log = self.log.lock();
        self.expect_next(at)?;
        self.shared.running()?;
        // The first commit of an empty store with another first position goes to the engine: a log whose first commit is missing counts as
        // damage.
        if !log.ever_has_room(bytes.len()) || (at > 1 && self.shared.head() == 0) {
            return self.past(&mut log, at, &[bytes]);
        }
        if !log.has_room(bytes.len()) {
            self.shared.wait_moved(log.turn_to_next(&self.shared))?;
        }
        log.append(at, bytes).inspect_err(|e| self.shared.stop(e))?;
        self.shared.acknowledges(at)?;
        self.shared.appended(StoredCommit { at, bytes: Bytes::copy_from_slice(bytes) });
        Ok(())
    }

    fn append_all(&self, first: Position, commits: &[&[u8]]) -> Result<(), StoreError> {
        commits.iter().try_for_each(|bytes| check_commit(bytes))?;
        let mut log = self.log.lock();
        self.expect_next(first)?;
        self.shared.running()?;
        if commits.is_empty() { Ok(()) } else { self.past(&mut log, first, commits) }
    }

    fn head(&self) -> Result<Position, StoreError> {
        Ok(self.shared.head())
    }

    fn oldest(&self) -> Result<Position, StoreError> {
        // Read before the engine is asked: a commit that the engine lacks then is in the tail now.
        let of_tail = self.shared.oldest();
        match self.inner.oldest()? {
            0 => Ok(of_tail),
            oldest => Ok(oldest),
        }
    }

    fn read(&self, from: Position, max_bytes: usize) -> Result<Vec<StoredCommit>, StoreError> {
        let head = self.shared.head();
        let (mut next, mut left, mut out) = (from, max_bytes, Vec::new());
        while next <= head {
            // The tail first: a commit that is not in the tail any more is in the engine.
            let of_tail = self.shared.oldest();
            let some = match self.shared.read(next, left, out.is_empty()) {
                Some(some) => some,
                None => self.inner.read(next, left)?,
            };
            match some.first().map(|e| e.at) {
                // Older commits were removed, and all that are left are in the tail.
                None if out.is_empty() && of_tail > next => next = of_tail,
                None => break,
                // The next commit was removed in the meantime.
                Some(at) if !out.is_empty() && at != next => break,
                Some(_) => {
                    let bytes: usize = some.iter().map(|e| e.bytes.len()).sum();
                    if bytes > left && !out.is_empty() {
                        break;
                    }
                    left = left.saturating_sub(bytes);
                    next = some.last().map_or(next, |e| e.at) + 1;
                    out.extend(some);
                    if left == 0 {
                        break;
                    }
                }
            }
        }
        Ok(out)
    }

    fn follow(&self, after: Position, wait: Duration) -> Result<Position, StoreError> {
        Ok(self.shared.follow(after, wait))
    }

    fn remove_some(&self, before: Position) -> Result<Position, StoreError> {
        self.shared.running()?;
        let before = before.min(self.shared.head());
        if before > self.inner.head()? {
            self.shared.drain(before)?;
        }
        self.stopping(self.inner.remove_some(before))
    }

    fn begin_at(&self, first: Position) -> Result<(), StoreError> {
        let _none_meanwhile = self.log.lock();
        super::check_empty(self.shared.head(), first)?;
        self.inner.begin_at(first)?;
        self.shared.begin_at(first);
        Ok(())
    }

    fn put(&self, name: &str, value: &[u8], expect: Precondition<'_>) -> Result<(), StoreError> {
        self.shared.running()?;
        self.stopping(self.inner.put(name, value, expect))
    }

    fn named(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.named(name)
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.inner.list(prefix)
    }

    fn delete(&self, name: &str, expect: Precondition<'_>) -> Result<(), StoreError> {
        self.shared.running()?;
        self.stopping(self.inner.delete(name, expect))
    }

    fn bytes(&self) -> u64 {
        self.inner.bytes().saturating_add(self.log_bytes)
    }

    fn reserve(&self) -> Option<&Arc<Reserve>> {
        self.inner.reserve()
    }
}

impl<S: Store> Drop for WalStore<S> {
    fn drop(&mut self) {
        self.shared.close();
        if let Some(mover) = self.mover.take() {
            // The mover reports its error itself.
            let _ = mover.join();
        }
    }
}

/// Compares the recovered commits with those that were acknowledged. A recovered commit that was not acknowledged is visible from now on,
/// so it is made durable first.
fn nothing_acknowledged_lost(
    log: &mut LogFiles,
    file: HeadFile,
    seen: HeadMark,
    newest: Position,
) -> Result<(HeadFile, HeadMark), StoreError> {
    if newest < seen.head {
        let lost = if newest + 1 == seen.head { "it is".to_owned() } else { format!("{} to {} are", newest + 1, seen.head) };
        let what =
            format!("the commit at {} was acknowledged, and the ledger ends at {newest}: {lost} damaged or gone", seen.head);
        return Err(StoreError::Damaged { at: newest + 1, what });
    }
    if newest == seen.head {
        return Ok((file, seen));
    }
    log.flush()?;
    let mark = HeadMark { change: seen.change + 1, head: newest };
    file.write(mark)?;
    Ok((file, mark))
}

/// The error for one of the log files.
fn of_file(doing: &str, n: usize, err: &std::io::Error) -> StoreError {
    files::failed(doing, Path::new(&medium::name(n)), err)
}
