//! The segment files that hold the commits: when one is full, the next begins, and retention removes whole files.
//!
//! Files stay small: a file is scanned after a crash, which takes half a second per GB, or else records with each commit which of its pages
//! are free, which takes 190 µs per GB (measured). The first file is the main one, which also holds the named values; the others are named
//! by their number and the position of their first commit. The numbers are consecutive, so a missing file is detected as damage without
//! opening any.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ::redb::Database;
use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::open::SegmentOpener;
use crate::stepwise_deletion::{self, PendingDeletion};
use crate::{Position, StoreError, files};
use mayfly_base::limits;

/// One segment file.
pub(super) struct SegmentFile {
    /// 0 for the main file.
    number: u32,
    /// All its commits are at or after this position, and all commits of earlier files are before it. 0 for the main file.
    first: Position,
    /// `None` on a backend that is not a file.
    path: Option<PathBuf>,
    database: RwLock<State>,
    /// When it was last used, by a counter of all uses.
    asked: AtomicU64,
    /// Approximate bytes in it.
    filled: AtomicU64,
}

enum State {
    Closed,
    Open(Box<Database>),
    /// The commits were removed, and the file with them.
    Removed,
}

/// A file that stays open while this guard is held.
pub(super) type OpenSegment<'a> = MappedRwLockReadGuard<'a, Database>;

impl SegmentFile {
    fn new(number: u32, first: Position, path: Option<PathBuf>, database: Option<Database>) -> SegmentFile {
        let database = RwLock::new(database.map_or(State::Closed, |db| State::Open(Box::new(db))));
        let filled = AtomicU64::new(path.as_deref().map_or(0, files::on_disk));
        SegmentFile { number, first, path, database, asked: AtomicU64::new(0), filled }
    }

    /// Counts bytes that were added.
    pub fn grew(&self, bytes: usize) {
        self.filled.fetch_add(bytes as u64, Relaxed);
    }

    /// Approximate bytes in it.
    pub fn filled(&self) -> u64 {
        self.filled.load(Relaxed)
    }

    /// The first position that can be in it.
    pub fn first(&self) -> Position {
        self.first
    }

    /// Whether it holds the named values, and is never removed.
    pub fn is_main(&self) -> bool {
        self.number == 0
    }

    fn bytes(&self) -> u64 {
        self.path.as_deref().map_or(0, files::on_disk)
    }

    fn is_open(&self) -> bool {
        // Never blocks: the calling thread may hold a read lock on it.
        self.database.try_read().is_some_and(|state| matches!(*state, State::Open(_)))
    }
}

/// All segment files of a store.
pub(super) struct Segments {
    /// In the order of their positions.
    all: RwLock<Arc<Vec<Arc<SegmentFile>>>>,
    files: SegmentOpener,
    askings: AtomicU64,
}

impl Segments {
    /// The main file, which stays open, and the segment files in its directory.
    pub fn open(main: Database, path: Option<PathBuf>, files: SegmentOpener) -> Result<Segments, StoreError> {
        let mut all = vec![Arc::new(SegmentFile::new(0, 0, path, Some(main)))];
        if let Some(dir) = &files.dir {
            let mut before: Option<(u32, Position)> = None;
            for (number, (first, path)) in found(dir)? {
                if let Some((last, start)) = before
                    && (number - 1 != last || first <= start)
                {
                    let what = format!("the file of commits before {} is missing", path.display());
                    return Err(StoreError::Damaged { at: start, what });
                }
                before = Some((number, first));
                all.push(Arc::new(SegmentFile::new(number, first, Some(path), None)));
            }
        }
        Ok(Segments { all: RwLock::new(Arc::new(all)), files, askings: AtomicU64::new(0) })
    }

    /// How segment files are created and opened.
    pub fn files(&self) -> &SegmentOpener {
        &self.files
    }

    /// All segment files now, in the order of their positions.
    pub fn all(&self) -> Arc<Vec<Arc<SegmentFile>>> {
        self.all.read().clone()
    }

    /// The file with the named values.
    pub fn main(&self) -> Result<Arc<SegmentFile>, StoreError> {
        self.all.read().first().cloned().ok_or_else(closed)
    }

    /// The file that takes appends.
    pub fn newest(&self) -> Result<Arc<SegmentFile>, StoreError> {
        self.all.read().last().cloned().ok_or_else(closed)
    }

    /// Opens a file if it is closed. `None` if it was removed in the meantime.
    pub fn opened<'a>(&self, segment: &'a SegmentFile) -> Result<Option<OpenSegment<'a>>, StoreError> {
        segment.asked.store(self.askings.fetch_add(1, Relaxed) + 1, Relaxed);
        if let Ok(open) = RwLockReadGuard::try_map(segment.database.read(), State::database) {
            return Ok(Some(open));
        }
        let mut state = segment.database.write();
        match (&*state, &segment.path) {
            (State::Closed, Some(path)) => *state = State::Open(Box::new(self.files.open(path, segment.first)?)),
            (State::Closed, None) => return Err(closed()),
            (State::Open(_), _) => {}
            (State::Removed, _) => return Ok(None),
        }
        let open = RwLockReadGuard::try_map(RwLockWriteGuard::downgrade(state), State::database);
        self.close_some(limits::STORE_SEGMENTS_OPEN);
        Ok(open.ok())
    }

    /// Closes the least recently used of the other files, so that `most` of them are open.
    pub fn close_some(&self, most: usize) {
        let all = self.all();
        let Some((_, others)) = all.split_last() else { return };
        let mut open: Vec<_> = others.iter().filter(|s| !s.is_main() && s.is_open()).collect();
        open.sort_unstable_by_key(|s| s.asked.load(Relaxed));
        for segment in open.iter().take(open.len().saturating_sub(most)) {
            // A file in use stays open until the next time.
            if let Some(mut state) = segment.database.try_write() {
                state.close();
            }
        }
    }

    /// Appends a prepared file for the commits from `first` on. Its name is durable when this returns; if this fails, only reopening can
    /// tell whether the file has its name.
    pub fn begin(&self, database: Database, aside: &Path, first: Position) -> Result<(), StoreError> {
        let dir = self.files.dir.as_deref().ok_or_else(closed)?;
        let number = self.newest()?.number.checked_add(1).ok_or_else(closed)?;
        let path = dir.join(name(number, first));
        files::give_name(aside, &path)?;
        let segment = SegmentFile::new(number, first, Some(path), Some(database));
        let mut all = self.all.write();
        *all = Arc::new(all.iter().cloned().chain([Arc::new(segment)]).collect());
        Ok(())
    }

    /// Removes a file with its commits, durably, after waiting for its readers. Its blocks are still to be freed.
    pub fn remove(&self, segment: &Arc<SegmentFile>) -> Result<PendingDeletion, StoreError> {
        let Some(path) = &segment.path else { return Err(closed()) };
        {
            let mut all = self.all.write();
            *all = Arc::new(all.iter().filter(|s| !Arc::ptr_eq(s, segment)).cloned().collect());
        }
        let mut state = segment.database.write();
        state.close();
        *state = State::Removed;
        stepwise_deletion::rename_for_deletion(path).map_err(|e| files::failed("removing", path, &e))
    }

    /// Bytes that all files occupy on the disk.
    pub fn bytes(&self) -> u64 {
        self.all().iter().map(|s| s.bytes()).sum()
    }

    /// Closes all files at the end.
    pub fn close(&self) {
        for segment in self.all().iter() {
            segment.database.write().close();
        }
    }
}

impl State {
    fn database(&self) -> Option<&Database> {
        match self {
            State::Open(database) => Some(&**database),
            State::Closed | State::Removed => None,
        }
    }

    /// Closing writes the allocator's state once more, and panics on a damaged file. Nothing that was acknowledged depends on it.
    fn close(&mut self) {
        if let State::Open(database) = std::mem::replace(self, State::Closed) {
            let closed = crate::panic_guard::guarded("closing", || {
                drop(database);
                Ok(())
            });
            if let Err(e) = closed {
                tracing::warn!(error = %e, "the store could not be closed cleanly");
            }
        }
    }
}

pub(super) fn closed() -> StoreError {
    StoreError::Failed("the store is closed".to_owned())
}

const BEGINNING: &str = "ledger-";
const END: &str = ".redb";

fn name(number: u32, first: Position) -> String {
    format!("{BEGINNING}{number:06}-{first:020}{END}")
}

/// The segment files in a directory, by number. A file with an almost valid name is refused: otherwise its commits would be overlooked.
fn found(dir: &Path) -> Result<BTreeMap<u32, (Position, PathBuf)>, StoreError> {
    let mut out = BTreeMap::new();
    let failed = |e| files::failed("listing", dir, &e);
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(text) = path.file_name().and_then(|n| n.to_str()) else { continue };
        let Some(middle) = text.strip_prefix(BEGINNING).and_then(|t| t.strip_suffix(END)) else { continue };
        let parsed = middle.split_once('-').and_then(|(n, first)| Some((n.parse().ok()?, first.parse().ok()?)));
        match parsed {
            Some((number, first)) if number > 0 && first > 0 && text == name(number, first) => {
                if out.insert(number, (first, path)).is_some() {
                    let what = format!("there are two files of commits with the number {number}");
                    return Err(StoreError::Damaged { at: first, what });
                }
            }
            _ => return Err(StoreError::Foreign(format!("{} is no name of a file of commits", path.display()))),
        }
    }
    Ok(out)
}
