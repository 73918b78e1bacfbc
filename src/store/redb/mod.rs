//! The embedded default: one file, one durable transaction per commit, one packed value per commit keyed by its place.
//!
//! redb writes pages aside and then switches between two roots, so a crash leaves the old state or the new one. Quick-repair is on: a commit
//! costs 80 µs more, and 2 GB open in a millisecond after a kill instead of a second. Why this engine: design, section 3, with the numbers.

mod disk;
mod open;

pub use super::options::Options;

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::redb::{Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::guarded::guarded;
use super::reserve::Reserve;
use super::{Entry, Expect, Position, Store, StoreError, StoreId};
use super::{check_commit, check_count, check_empty, check_name, check_named, files};
use crate::limits;

const COMMITS: TableDefinition<u64, &[u8]> = TableDefinition::new("commits");
const NAMED: TableDefinition<&str, &[u8]> = TableDefinition::new("named");
const ABOUT: TableDefinition<&str, &[u8]> = TableDefinition::new("about");

/// A store in one redb file.
pub struct RedbStore {
    /// Taken out only when the store is dropped.
    db: Option<Database>,
    id: StoreId,
    named_bound: usize,
    /// Held during each change. Holds why the store takes no more, once a change has failed.
    writer: Mutex<Option<String>>,
    /// What readers may see: moved only after the change was durable.
    ends: Mutex<Ends>,
    grown: Condvar,
    reserve: Option<Arc<Reserve>>,
    /// The file; `None` on a backend that is none.
    file: Option<PathBuf>,
    /// Opened to save what is left: a commit that is missing is passed over.
    gaps: bool,
    // Last, so that the directory is free only when the file is closed.
    _lock: Option<std::fs::File>,
}

#[derive(Clone, Copy, Default)]
struct Ends {
    oldest: Position,
    head: Position,
    /// Where the first of all is put, 0 for the beginning.
    first: Position,
}

impl Ends {
    fn next(&self) -> Position {
        if self.head == 0 { self.first.max(1) } else { self.head + 1 }
    }
}

impl RedbStore {
    fn db(&self) -> Result<&Database, StoreError> {
        self.db.as_ref().ok_or_else(|| StoreError::Failed("the store is closed".to_owned()))
    }

    /// One durable transaction. Any failure in it is the last: whether it is on the disk can only be told by opening again.
    fn change(&self, stopped: &mut Option<String>, make: impl FnOnce(&WriteTransaction) -> Done) -> Result<(), StoreError> {
        if let Some(why) = stopped {
            return Err(StoreError::Failed(format!("the store takes no change until it is opened again, after: {why}")));
        }
        let done = guarded("writing", || {
            let mut tx = self.db()?.begin_write().map_err(engine)?;
            tx.set_durability(Durability::Immediate).map_err(engine)?;
            tx.set_quick_repair(true);
            make(&tx).map_err(engine)?;
            tx.commit().map_err(engine)
        });
        if let Err(e) = &done {
            *stopped = Some(e.to_string());
        }
        done
    }

    fn value(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        guarded("reading", || {
            let table = self.db()?.begin_read().map_err(engine)?.open_table(NAMED).map_err(engine)?;
            Ok(table.get(name).map_err(engine)?.map(|v| v.value().to_vec()))
        })
    }

    fn count_named(&self) -> Result<u64, StoreError> {
        guarded("reading", || {
            let table = self.db()?.begin_read().map_err(engine)?.open_table(NAMED).map_err(engine)?;
            table.len().map_err(engine)
        })
    }
}

impl Store for RedbStore {
    fn reserve(&self) -> Option<&Arc<Reserve>> {
        self.reserve.as_ref()
    }

    /// The blocks of the file: it grows by holes, which cost nothing.
    fn bytes(&self) -> u64 {
        let meta = self.file.as_ref().and_then(|path| std::fs::metadata(path).ok());
        meta.map_or(0, |m| m.blocks().saturating_mul(512))
    }

    fn id(&self) -> StoreId {
        self.id
    }

    fn engine(&self) -> &'static str {
        "redb"
    }

    fn append(&self, at: Position, bytes: &[u8]) -> Result<(), StoreError> {
        check_commit(bytes)?;
        let mut stopped = self.writer.lock();
        let next = self.ends.lock().next();
        if at != next {
            return Err(StoreError::NotNext { asked: at, next });
        }
        self.change(&mut stopped, |tx| tx.open_table(COMMITS)?.insert(at, bytes).map(drop).map_err(Into::into))?;
        let mut ends = self.ends.lock();
        ends.oldest = if ends.head == 0 { at } else { ends.oldest };
        ends.head = at;
        self.grown.notify_all();
        Ok(())
    }

    fn head(&self) -> Result<Position, StoreError> {
        Ok(self.ends.lock().head)
    }

    fn oldest(&self) -> Result<Position, StoreError> {
        Ok(self.ends.lock().oldest)
    }

    fn read(&self, from: Position, max_bytes: usize) -> Result<Vec<Entry>, StoreError> {
        // Before the transaction: all up to here is durable and in it. The oldest comes from inside it, since a removal may be under way.
        let head = self.ends.lock().head;
        guarded("reading", || {
            let table = self.db()?.begin_read().map_err(engine)?.open_table(COMMITS).map_err(engine)?;
            let Some(oldest) = table.first().map_err(engine)?.map(|(at, _)| at.value()) else {
                return if head == 0 { Ok(Vec::new()) } else { Err(gap(head)) };
            };
            // A removal meanwhile: the oldest that is left was durable before it, and is newer than what was the head.
            let head = head.max(oldest);
            let (mut out, mut used, mut next) = (Vec::new(), 0usize, from.max(oldest));
            for row in table.range(next..).map_err(engine)? {
                let (at, value) = row.map_err(engine)?;
                used = used.saturating_add(value.value().len());
                if next > head || (used > max_bytes && !out.is_empty()) {
                    break;
                }
                if at.value() != next && !self.gaps {
                    return Err(gap(next));
                }
                out.push(Entry { at: at.value(), bytes: Bytes::copy_from_slice(value.value()) });
                next = at.value() + 1;
            }
            if out.is_empty() && next <= head { Err(gap(next)) } else { Ok(out) }
        })
    }

    fn follow(&self, after: Position, wait: Duration) -> Result<Position, StoreError> {
        let mut ends = self.ends.lock();
        self.grown.wait_while_for(&mut ends, |e| e.head <= after, wait);
        Ok(ends.head)
    }

    fn remove_some(&self, before: Position) -> Result<Position, StoreError> {
        let mut stopped = self.writer.lock();
        let ends = *self.ends.lock();
        let before = before.min(ends.head);
        if ends.oldest >= before {
            return Ok(ends.oldest);
        }
        let mut oldest = ends.oldest;
        self.change(&mut stopped, |tx| {
            let mut table = tx.open_table(COMMITS)?;
            let mut bytes = 0;
            let end = before.min(oldest + limits::STORE_REMOVE_COMMITS as u64);
            while oldest < end && bytes < limits::STORE_REMOVE_BYTES {
                bytes += table.remove(oldest)?.map_or(0, |v| v.value().len());
                oldest += 1;
            }
            Ok(())
        })?;
        self.ends.lock().oldest = oldest;
        Ok(oldest)
    }

    fn begin_at(&self, first: Position) -> Result<(), StoreError> {
        let _none_meanwhile = self.writer.lock();
        let mut ends = self.ends.lock();
        check_empty(ends.head, first)?;
        ends.first = first;
        Ok(())
    }

    fn put(&self, name: &str, value: &[u8], expect: Expect<'_>) -> Result<(), StoreError> {
        check_named(name, value)?;
        let mut stopped = self.writer.lock();
        // Nothing changes while the writer is held, so looking first is as good as looking inside the transaction.
        let found = self.value(name)?;
        expect.check(name, found.as_deref())?;
        if found.is_none() {
            check_count(self.count_named()?, self.named_bound)?;
        }
        self.change(&mut stopped, |tx| tx.open_table(NAMED)?.insert(name, value).map(drop).map_err(Into::into))
    }

    fn named(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        check_name(name)?;
        self.value(name)
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        guarded("reading", || {
            let table = self.db()?.begin_read().map_err(engine)?.open_table(NAMED).map_err(engine)?;
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

    fn delete(&self, name: &str, expect: Expect<'_>) -> Result<(), StoreError> {
        check_name(name)?;
        let mut stopped = self.writer.lock();
        let found = self.value(name)?;
        expect.check(name, found.as_deref())?;
        if found.is_none() {
            return Ok(());
        }
        self.change(&mut stopped, |tx| tx.open_table(NAMED)?.remove(name).map(drop).map_err(Into::into))
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        // Closing writes the allocator's state once more, and on a damaged file trips over it. Nothing that was acknowledged needs it.
        let db = self.db.take();
        let closed = guarded("closing", || {
            drop(db);
            Ok(())
        });
        if let Err(e) = closed {
            tracing::warn!("{e}");
        }
    }
}

type Done = Result<(), ::redb::Error>;

fn gap(at: Position) -> StoreError {
    StoreError::Damaged { at, what: "the commit that belongs there is missing".to_owned() }
}

/// The engine's errors in the words of the contract.
fn engine(err: impl Into<::redb::Error>) -> StoreError {
    match err.into() {
        ::redb::Error::Io(e) if files::is_full(&e) => StoreError::Full(e.to_string()),
        ::redb::Error::Corrupted(what) => StoreError::Damaged { at: 0, what },
        ::redb::Error::DatabaseAlreadyOpen => StoreError::InUse("the store's file".to_owned()),
        other => StoreError::Failed(other.to_string()),
    }
}
