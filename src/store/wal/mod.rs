//! A write-ahead log before an engine: a commit is durable with one write to a place that is there already, and goes to the engine later, with
//! many others.
//!
//! An engine that writes pages aside writes eight of them for each commit, new blocks of a growing file among them, which the file system has
//! to write down too. The log is a few files full of zeros, written over and over, past the page cache where the file system lets us: one write
//! and one flush. What a file of the log holds is moved to the engine in one transaction when the file is full; until then it is read from
//! memory. `docs/decisions.md` has what that saves.
//!
//! After a crash, what the log has and the engine has not is moved first. Nothing is written after what was found: the next record begins
//! another file, with another salt.
//!
//! A record that is not whole at the end of the log was never acknowledged, or was damaged afterwards. A file beside the log tells the two
//! apart (`store/head.rs`): the place of each commit is written there when it is durable and before it is acknowledged. That costs a write to
//! the page cache and no flush: the mover syncs it once a second.

mod file;
mod medium;
mod mover;
mod recover;
mod tail;

pub(super) use file::Aligned;
pub(super) use medium::BLOCK;
pub use medium::Medium;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::head::{HeadFile, Mark};
use super::reserve::Reserve;
use super::{Entry, Expect, Position, Store, StoreError, StoreId, check_commit, files};
use crate::limits;
use file::Log;
use mover::Shared;

/// An engine with a log before it.
pub struct Ahead<S: Store> {
    inner: Arc<S>,
    shared: Arc<Shared>,
    /// Held during each append.
    log: Mutex<Log>,
    /// What the files of the log take on the disk, bytes.
    log_bytes: u64,
    mover: Option<JoinHandle<()>>,
}

impl<S: Store> Ahead<S> {
    /// Makes the files of a log in `dir`, full of zeros and durable; those that are there go. What they held must be with the engine.
    pub(super) fn make_in(dir: &Path, file_bytes: u64) -> Result<(), StoreError> {
        (0..limits::STORE_LOG_FILES).try_for_each(|n| medium::make(dir, n, file_bytes))
    }

    /// Puts the log in `dir` before an engine. `headed`: the file that says what was acknowledged has to be there; a store of an earlier
    /// version gets one.
    pub(super) fn open_in(dir: &Path, inner: S, headed: bool) -> Result<Ahead<S>, StoreError> {
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
                let mark = Mark { change: 0, head: 0 };
                (HeadFile::make(&path, inner.id(), mark)?, mark)
            }
        };
        Ahead::begin(inner, media, Some(head))
    }

    /// The same to save what is left: nothing is written. What the log has is read behind what the engine has, whatever is missing between.
    pub(super) fn open_damaged_in(dir: &Path, inner: S) -> Result<Ahead<S>, StoreError> {
        let id = inner.id();
        let mut found = Vec::new();
        for n in 0..limits::STORE_LOG_FILES {
            // A file that cannot be read holds nothing that can be saved.
            if let Ok(medium) = medium::open(dir, n) {
                found.extend(recover::left(&*medium, n, id));
            }
        }
        let head = inner.head()?;
        found.sort_unstable_by_key(|(turn, e): &(u64, Entry)| (e.at, std::cmp::Reverse(*turn)));
        let mut found: Vec<Entry> = found.into_iter().map(|(_, e)| e).filter(|e| e.at > head).collect();
        found.dedup_by_key(|e| e.at);
        let shared = Shared::new(head, found, None);
        shared.stop(&StoreError::Failed("the store was opened for reading".to_owned()));
        Ok(Ahead { inner: Arc::new(inner), shared: Arc::new(shared), log: Mutex::new(Log::none(id)), log_bytes: 0, mover: None })
    }

    /// Puts a log in these files before an engine: two at least, each with what an earlier one left there.
    pub fn new(inner: S, media: Vec<Box<dyn Medium>>) -> Result<Ahead<S>, StoreError> {
        Ahead::begin(inner, media, None)
    }

    /// The same with a file beside them that says which commits were acknowledged, two blocks long.
    pub fn with_head(inner: S, media: Vec<Box<dyn Medium>>, head: Box<dyn Medium>) -> Result<Ahead<S>, StoreError> {
        let head = HeadFile::on(head, inner.id())?;
        Ahead::begin(inner, media, Some(head))
    }

    fn begin(inner: S, media: Vec<Box<dyn Medium>>, beside: Option<(HeadFile, Mark)>) -> Result<Ahead<S>, StoreError> {
        let (id, head) = (inner.id(), inner.head()?);
        let (mut log, found) = recover::recover(media, id, head)?;
        let newest = found.last().map_or(head, |e| e.at);
        let beside = beside.map(|(file, seen)| nothing_acknowledged_lost(&mut log, file, seen, newest)).transpose()?;
        let (inner, shared) = (Arc::new(inner), Arc::new(Shared::new(head, found, beside)));
        let mover = mover::start(inner.clone(), shared.clone())?;
        let log_bytes = log.bytes();
        Ok(Ahead { inner, shared, log: Mutex::new(log), log_bytes, mover: Some(mover) })
    }

    /// The engine behind the log.
    pub(super) fn engine_behind(&self) -> &S {
        &self.inner
    }

    /// What goes past the log: all before it is with the engine first.
    fn past(&self, log: &mut Log, first: Position, commits: &[&[u8]]) -> Result<(), StoreError> {
        self.shared.drain(Position::MAX)?;
        self.stopping(self.inner.append_all(first, commits))?;
        let last = first + (commits.len() as u64).saturating_sub(1);
        log.passed();
        self.shared.acknowledges(last)?;
        self.shared.passed(last);
        Ok(())
    }

    /// A failure of the engine is the last of the whole.
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

impl<S: Store> Store for Ahead<S> {
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
        // An empty store that begins elsewhere says so with the engine: a log whose first commit is missing is damage.
        if !log.ever_has_room(bytes.len()) || (at > 1 && self.shared.head() == 0) {
            return self.past(&mut log, at, &[bytes]);
        }
        if !log.has_room(bytes.len()) {
            self.shared.wait_moved(log.turn_to_next(&self.shared))?;
        }
        log.append(at, bytes).inspect_err(|e| self.shared.stop(e))?;
        self.shared.acknowledges(at)?;
        self.shared.appended(Entry { at, bytes: Bytes::copy_from_slice(bytes) });
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
        // Before the engine is asked: what it does not have yet then, the tail has now.
        let of_tail = self.shared.oldest();
        match self.inner.oldest()? {
            0 => Ok(of_tail),
            oldest => Ok(oldest),
        }
    }

    fn read(&self, from: Position, max_bytes: usize) -> Result<Vec<Entry>, StoreError> {
        let head = self.shared.head();
        let (mut next, mut left, mut out) = (from, max_bytes, Vec::new());
        while next <= head {
            // The tail first: what is no longer there is with the engine.
            let of_tail = self.shared.oldest();
            let some = match self.shared.read(next, left, out.is_empty()) {
                Some(some) => some,
                None => self.inner.read(next, left)?,
            };
            match some.first().map(|e| e.at) {
                // What is older was removed, and all that is left is in the tail.
                None if out.is_empty() && of_tail > next => next = of_tail,
                None => break,
                // What comes next was removed meanwhile.
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

    fn put(&self, name: &str, value: &[u8], expect: Expect<'_>) -> Result<(), StoreError> {
        self.shared.running()?;
        self.stopping(self.inner.put(name, value, expect))
    }

    fn named(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.named(name)
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.inner.list(prefix)
    }

    fn delete(&self, name: &str, expect: Expect<'_>) -> Result<(), StoreError> {
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

impl<S: Store> Drop for Ahead<S> {
    fn drop(&mut self) {
        self.shared.close();
        if let Some(mover) = self.mover.take() {
            // It says itself what went wrong.
            let _ = mover.join();
        }
    }
}

/// Compares what was found with what was acknowledged. What was found and nobody was told of is told from now on, so it is made durable first.
fn nothing_acknowledged_lost(
    log: &mut Log,
    file: HeadFile,
    seen: Mark,
    newest: Position,
) -> Result<(HeadFile, Mark), StoreError> {
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
    let mark = Mark { change: seen.change + 1, head: newest };
    file.write(mark)?;
    Ok((file, mark))
}

/// An error of one of the log's files.
fn of_file(doing: &str, n: usize, err: &std::io::Error) -> StoreError {
    files::failed(doing, Path::new(&medium::name(n)), err)
}
