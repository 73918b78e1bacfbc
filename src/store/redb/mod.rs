//! The default embedded engine, redb: one durable transaction per commit (when a log is copied, one for several megabytes of commits), one
//! packed value per commit keyed by its position, in files of bounded size.
//!
//! redb writes pages to free space and then switches between two roots, so a crash leaves the old state or the new one. Design, section 3,
//! says why this engine was chosen, with the numbers.
//!
//! A commit is flushed once, under redb's checksums: after a crash, redb takes the newer of the two roots whose pages are all intact. Those
//! checksums are fast, not cryptographic; a commit has its own hashes, and each start compares them. Named values have no hashes of their
//! own and are flushed in two phases. A file is small enough to be scanned after a crash; a larger one records with each change what the
//! scan would find (quick-repair).

mod open;
mod reading;
mod reserved_file;
mod rotation;
mod segments;

pub use super::options::StoreOptions;
pub use open::{open, open_damaged};

use std::sync::Arc;
use std::time::Duration;

use ::redb::{Database, Durability, ReadOnlyTable, ReadableDatabase, ReadableTableMetadata, TableDefinition, WriteTransaction};
use parking_lot::{Condvar, Mutex};

use super::panic_guard::{guarded, stopped};
use super::reserve::Reserve;
use super::stepwise_deletion::PendingDeletion;
use super::{Position, Precondition, Store, StoreError, StoreId, StoredCommit};
use super::{check_commit, check_count, check_empty, check_name, check_named, files};
use mayfly_base::limits;
use rotation::Rotation;
use segments::{SegmentFile, Segments};

const COMMITS: TableDefinition<u64, &[u8]> = TableDefinition::new("commits");
const NAMED: TableDefinition<&str, &[u8]> = TableDefinition::new("named");
const ABOUT: TableDefinition<&str, &[u8]> = TableDefinition::new("about");

/// The table of named values, for reading.
type Named = ReadOnlyTable<&'static str, &'static [u8]>;

/// A store in redb files.
pub struct RedbStore {
    segments: Arc<Segments>,
    id: StoreId,
    named_bound: usize,
    /// Held during each change.
    writer: Mutex<Writer>,
    /// The range visible to readers: moved only after a change is durable.
    ends: Mutex<Ends>,
    grown: Condvar,
    reserve: Option<Arc<Reserve>>,
    /// Opened for salvage: missing commits are skipped.
    gaps: bool,
    /// The format of the main file when it was opened.
    format: u32,
    // The last field, so that the directory lock is dropped after the files are closed.
    _lock: Option<super::files::DirectoryLock>,
}

struct Writer {
    /// Why the store accepts no more changes, once a change has failed.
    stopped: Option<String>,
    rotation: Rotation,
}

#[derive(Clone, Copy, Default)]
struct Ends {
    oldest: Position,
    head: Position,
    /// The position for the first commit ever, 0 for the beginning.
    first: Position,
}

impl Ends {
    fn next(&self) -> Position {
        if self.head == 0 { self.first.max(1) } else { self.head + 1 }
    }
}

impl Writer {
    fn new(rotation: Rotation) -> Writer {
        Writer { stopped: None, rotation }
    }

    /// After a failed change no further change is accepted: whether it is on the disk can only be told by reopening.
    fn change<T>(&mut self, make: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        if let Some(why) = &self.stopped {
            return Err(stopped(why));
        }
        guarded("writing", make).inspect_err(|e| self.stopped = Some(e.to_string()))
    }
}

impl RedbStore {
    /// One durable transaction on the commits of one file.
    fn transact(&self, segment: &SegmentFile, make: impl FnOnce(&WriteTransaction) -> Done) -> Result<(), StoreError> {
        let db = self.segments.opened(segment)?.ok_or_else(segments::closed)?;
        let large = segment.filled() >= self.segments.files().large;
        transact(&db, if large { Flush::Marked } else { Flush::Once }, make).map_err(engine)
    }

    /// One durable transaction on the named values.
    fn transact_named(&self, make: impl FnOnce(&WriteTransaction) -> Done) -> Result<(), StoreError> {
        let main = self.segments.main()?;
        let db = self.segments.opened(&main)?.ok_or_else(segments::closed)?;
        transact(&db, Flush::Marked, make).map_err(engine)
    }

    /// The file for the next commit: a new one if the newest is full.
    fn newest_for(&self, at: Position, writer: &mut Writer) -> Result<Arc<SegmentFile>, StoreError> {
        let newest = self.segments.newest()?;
        let fresh = if writer.stopped.is_none() { writer.rotation.due(&newest) } else { None };
        let Some(fresh) = fresh else { return Ok(newest) };
        writer.change(|| self.segments.begin(fresh.database, &fresh.aside, at))?;
        self.segments.newest()
    }

    /// Reads from the named values.
    fn read_named<T>(&self, read: impl FnOnce(Named) -> Result<T, StoreError>) -> Result<T, StoreError> {
        guarded("reading", || {
            let main = self.segments.main()?;
            let db = self.segments.opened(&main)?.ok_or_else(segments::closed)?;
            read(db.begin_read().map_err(engine)?.open_table(NAMED).map_err(engine)?)
        })
    }

    fn value(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.read_named(|table| Ok(table.get(name).map_err(engine)?.map(|v| v.value().to_vec())))
    }

    fn count_named(&self) -> Result<u64, StoreError> {
        self.read_named(|table| table.len().map_err(engine))
    }
}

impl Store for RedbStore {
    fn reserve(&self) -> Option<&Arc<Reserve>> {
        self.reserve.as_ref()
    }

    /// The allocated blocks of the files: files grow sparsely, and holes cost nothing.
    fn bytes(&self) -> u64 {
        self.segments.bytes()
    }

    fn id(&self) -> StoreId {
        self.id
    }

    fn engine(&self) -> &'static str {
        "redb"
    }

    fn append(&self, at: Position, bytes: &[u8]) -> Result<(), StoreError> {
        self.append_all(at, &[bytes])
    }

    /// One transaction for all commits, in one file.
    fn append_all(&self, first: Position, commits: &[&[u8]]) -> Result<(), StoreError> {
        commits.iter().try_for_each(|bytes| check_commit(bytes))?;
        let mut writer = self.writer.lock();
        let next = self.ends.lock().next();
        if first != next {
            return Err(StoreError::NotNext { asked: first, next });
        }
        let Some(more) = commits.len().checked_sub(1) else { return Ok(()) };
        let newest = self.newest_for(first, &mut writer)?;
        let insert = |tx: &WriteTransaction| {
            let mut table = tx.open_table(COMMITS)?;
            (first..).zip(commits).try_for_each(|(at, bytes)| table.insert(at, *bytes).map(drop)).map_err(Into::into)
        };
        writer.change(|| self.transact(&newest, insert))?;
        newest.grew(commits.iter().map(|bytes| bytes.len()).sum());
        writer.rotation.grew(&newest, &self.segments);
        let mut ends = self.ends.lock();
        ends.oldest = if ends.head == 0 { first } else { ends.oldest };
        ends.head = first + more as u64;
        self.grown.notify_all();
        Ok(())
    }

    fn head(&self) -> Result<Position, StoreError> {
        Ok(self.ends.lock().head)
    }

    fn oldest(&self) -> Result<Position, StoreError> {
        Ok(self.ends.lock().oldest)
    }

    fn read(&self, from: Position, max_bytes: usize) -> Result<Vec<StoredCommit>, StoreError> {
        guarded("reading", || self.read_from(from, max_bytes))
    }

    fn follow(&self, after: Position, wait: Duration) -> Result<Position, StoreError> {
        let mut ends = self.ends.lock();
        self.grown.wait_while_for(&mut ends, |e| e.head <= after, wait);
        Ok(ends.head)
    }

    fn remove_some(&self, before: Position) -> Result<Position, StoreError> {
        let mut writer = self.writer.lock();
        let ends = *self.ends.lock();
        let before = before.min(ends.head);
        if ends.oldest >= before {
            return Ok(ends.oldest);
        }
        let all = self.segments.all();
        let place = all.partition_point(|s| s.first() <= ends.oldest).saturating_sub(1);
        let segment = all.get(place).ok_or_else(segments::closed)?;
        let after = all.get(place + 1).map_or(Position::MAX, |s| s.first());
        let mut going = None;
        let oldest = if after <= before && !segment.is_main() {
            going = Some(writer.change(|| self.segments.remove(segment))?);
            after
        } else {
            let mut oldest = ends.oldest;
            let some = |tx: &WriteTransaction| {
                let mut table = tx.open_table(COMMITS)?;
                let mut bytes = 0;
                let end = before.min(after).min(oldest + limits::STORE_REMOVE_COMMITS as u64);
                while oldest < end && bytes < limits::STORE_REMOVE_BYTES {
                    bytes += table.remove(oldest)?.map_or(0, |v| v.value().len());
                    oldest += 1;
                }
                Ok(())
            };
            writer.change(|| self.transact(segment, some))?;
            oldest
        };
        self.ends.lock().oldest = oldest;
        drop(writer);
        // Nothing waits for the freed space, and a failure here does no harm.
        if let Some(Err(error)) = going.map(PendingDeletion::give_back) {
            tracing::warn!(%error, "the disk space of removed commits could not be freed; the next start frees it");
        }
        Ok(oldest)
    }

    fn begin_at(&self, first: Position) -> Result<(), StoreError> {
        let _none_meanwhile = self.writer.lock();
        let mut ends = self.ends.lock();
        check_empty(ends.head, first)?;
        ends.first = first;
        Ok(())
    }

    fn put(&self, name: &str, value: &[u8], expect: Precondition<'_>) -> Result<(), StoreError> {
        check_named(name, value)?;
        let mut writer = self.writer.lock();
        // Nothing changes while the writer is locked, so reading first is as good as reading inside the transaction.
        let found = self.value(name)?;
        expect.check(name, found.as_deref())?;
        if found.is_none() {
            check_count(self.count_named()?, self.named_bound)?;
        }
        let insert = |tx: &WriteTransaction| tx.open_table(NAMED)?.insert(name, value).map(drop).map_err(Into::into);
        writer.change(|| self.transact_named(insert))
    }

    fn named(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        check_name(name)?;
        self.value(name)
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.read_named(|table| {
            let mut out = Vec::new();
            for row in table.range(prefix..).map_err(engine)? {
                let (name, _) = row.map_err(engine)?;
                if !name.value().starts_with(prefix) {
                    break;
                }
                out.push(name.value().to_owned());
            }
            Ok(out)
        })
    }

    fn delete(&self, name: &str, expect: Precondition<'_>) -> Result<(), StoreError> {
        check_name(name)?;
        let mut writer = self.writer.lock();
        let found = self.value(name)?;
        expect.check(name, found.as_deref())?;
        if found.is_none() {
            return Ok(());
        }
        let remove = |tx: &WriteTransaction| tx.open_table(NAMED)?.remove(name).map(drop).map_err(Into::into);
        writer.change(|| self.transact_named(remove))
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        self.segments.close();
    }
}

type Done = Result<(), ::redb::Error>;

/// How a transaction becomes durable.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flush {
    /// Pages and root in one flush, validated by their checksums after a crash.
    Once,
    /// First the pages with the list of free pages, then the root: no scan is needed after a crash.
    Marked,
}

/// One durable transaction.
fn transact(db: &Database, flush: Flush, make: impl FnOnce(&WriteTransaction) -> Done) -> Done {
    let mut tx = db.begin_write()?;
    tx.set_durability(Durability::Immediate)?;
    tx.set_quick_repair(flush == Flush::Marked);
    make(&tx)?;
    tx.commit()?;
    Ok(())
}

fn gap(at: Position) -> StoreError {
    StoreError::Damaged { at, what: "the commit that belongs there is missing".to_owned() }
}

/// Maps the engine's errors to those of the contract.
fn engine(err: impl Into<::redb::Error>) -> StoreError {
    match err.into() {
        ::redb::Error::Io(e) if files::is_full(&e) => StoreError::Full(e.to_string()),
        ::redb::Error::Corrupted(what) => StoreError::Damaged { at: 0, what },
        ::redb::Error::DatabaseAlreadyOpen => StoreError::InUse("the store's file".to_owned()),
        other => StoreError::Failed(other.to_string()),
    }
}
