//! sled 0.34, made safe: on its own it loses acknowledged data at a power failure. Four measures are needed, and no three of them suffice:
//!
//! - sled must not have `sync_file_range` (`seccomp_filter.rs`), so that its flush is an fsync;
//! - no row is larger than `limits::SLED_ROW_BYTES` (`rows.rs`), and a store with anything in `blobs/` is refused, because sled never syncs
//!   those files;
//! - all files and directories are synced before anything is acknowledged, and an unfinished snapshot is removed (`open.rs`);
//! - the head is kept in a file beside the store, synced after the flush and before the acknowledgement (`store/head.rs`).
//!
//! Rows become durable in the order in which they were written. A change therefore takes effect with the last row that it writes, and an
//! intent row is written first (`rows.rs`). sled's own batches would depend on more than the order of its log (docs/decisions.md).

mod crash_recovery;
mod open;
mod preallocation;
mod rows;
mod seccomp_filter;
mod tree;

pub use super::options::StoreOptions;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::sled::Db;
use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};

use self::preallocation::Preallocator;
use self::rows::{ChangeIntent, CommitPieces, IntendedChange};
use self::tree::{bad_key, bad_value, engine, gap, insert, intend, named, remove, remove_commits, remove_value};
use super::head::{HeadFile, HeadMark};
use super::panic_guard::{guarded, stopped};
use super::reserve::Reserve;
use super::{Position, Precondition, Store, StoreError, StoreId, StoredCommit};
use super::{check_commit, check_count, check_empty, check_name, check_named, files};
use mayfly_base::limits;

/// A store in a folder of sled files, with its head file beside it.
pub struct SledStore {
    /// Taken only when the store is dropped.
    db: Option<Db>,
    id: StoreId,
    named_bound: usize,
    /// Held during each change.
    writer: Mutex<Writer>,
    /// The range visible to readers: moved only after a change is durable.
    ends: Mutex<Ends>,
    grown: Condvar,
    /// Write-locked while rows that readers may have found are changed or removed; an append only adds rows that no reader looks for yet.
    rows: RwLock<()>,
    reserve: Option<Arc<Reserve>>,
    /// sled's file.
    file: PathBuf,
    /// Opened for salvage: missing commits are skipped, and nothing is written.
    gaps: bool,
    // The last field, so that the directory lock is dropped after the files are closed.
    _lock: super::files::DirectoryLock,
}

/// The writer's state between changes.
struct Writer {
    /// Why the store accepts no more changes, once a change has failed.
    stopped: Option<String>,
    /// The number of the last change.
    change: u64,
    /// Number of named values.
    named: u64,
    /// `None` if the store is read-only.
    safety: Option<(HeadFile, Preallocator)>,
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

type Done = Result<(), StoreError>;

impl SledStore {
    fn db(&self) -> Result<&Db, StoreError> {
        self.db.as_ref().ok_or_else(|| StoreError::Failed("the store is closed".to_owned()))
    }

    /// One durable change of about `bytes` bytes, after which the store's head is `head`. After a failed change no further change is
    /// accepted: whether it is on the disk can only be told by reopening. `make` receives the change's number.
    fn change(&self, w: &mut Writer, bytes: usize, head: Position, make: impl FnOnce(&Db, u64) -> Done) -> Done {
        if let Some(why) = &w.stopped {
            return Err(stopped(why));
        }
        let change = w.change + 1;
        let done = guarded("writing", || {
            let Some((mark, room)) = &mut w.safety else {
                return Err(StoreError::Failed("it was opened to be read".to_owned()));
            };
            let db = self.db()?;
            room.ahead(bytes)?;
            make(db, change)?;
            db.flush().map_err(engine)?;
            mark.write(HeadMark { change, head })
        });
        match &done {
            Ok(()) => w.change = change,
            Err(e) => w.stopped = Some(e.to_string()),
        }
        done
    }

    /// A named value, and the number of the change that put it.
    fn value(&self, name: &str) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        guarded("reading", || {
            let Some(row) = self.db()?.get(rows::name_key(name)).map_err(engine)? else { return Ok(None) };
            let row = named(&row)?;
            let (change, length, pieces) = (row.change, row.length, row.pieces());
            let mut value = row.first;
            for piece in 0..pieces {
                let row = self.db()?.get(rows::value_key(change, piece)).map_err(engine)?;
                let (of, more) = row.as_deref().and_then(rows::untagged).ok_or_else(|| bad_value(name))?;
                if of != change {
                    return Err(bad_value(name));
                }
                value.extend(more);
            }
            if value.len() == length { Ok(Some((change, value))) } else { Err(bad_value(name)) }
        })
    }

    /// How far one removal step goes from the oldest commit on, and the bytes of its rows.
    fn step(&self, oldest: Position, before: Position) -> Result<(Position, usize), StoreError> {
        let (mut upto, mut count, mut bytes) = (oldest + 1, 0, 0);
        for row in self.db()?.range(rows::commits_from(oldest)) {
            let (key, value) = row.map_err(engine)?;
            let (at, _) = rows::placed(&key).ok_or_else(|| bad_key(oldest))?;
            if at >= before || (at >= upto && count >= limits::SLED_REMOVE_ROWS) {
                break;
            }
            (upto, count, bytes) = (at + 1, count + 1, bytes + value.len());
        }
        Ok((upto, bytes))
    }
}

impl Store for SledStore {
    fn reserve(&self) -> Option<&Arc<Reserve>> {
        self.reserve.as_ref()
    }

    /// The blocks of sled's log, including those allocated ahead beyond its end.
    fn bytes(&self) -> u64 {
        std::fs::metadata(&self.file).map_or(0, |m| std::os::unix::fs::MetadataExt::blocks(&m).saturating_mul(512))
    }

    fn id(&self) -> StoreId {
        self.id
    }

    fn engine(&self) -> &'static str {
        "sled"
    }

    fn append(&self, at: Position, bytes: &[u8]) -> Result<(), StoreError> {
        check_commit(bytes)?;
        let mut w = self.writer.lock();
        let next = self.ends.lock().next();
        if at != next {
            return Err(StoreError::NotNext { asked: at, next });
        }
        self.change(&mut w, bytes.len(), at, |db, change| {
            rows::commit_rows(at, change, bytes).try_for_each(|(key, row)| insert(db, &key, row))
        })?;
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

    fn read(&self, from: Position, max_bytes: usize) -> Result<Vec<StoredCommit>, StoreError> {
        let _not_while_removing = self.rows.read();
        let ends = *self.ends.lock();
        let mut next = from.max(ends.oldest);
        if next == 0 || next > ends.head {
            return Ok(Vec::new());
        }
        guarded("reading", || {
            let (mut out, mut used, mut pieces) = (Vec::new(), 0usize, CommitPieces::default());
            for row in self.db()?.range(rows::commits_from(next)) {
                let (key, row) = row.map_err(engine)?;
                let (at, piece) = rows::placed(&key).ok_or_else(|| bad_key(next))?;
                if at > ends.head {
                    break;
                }
                let bytes = match pieces.take(at, piece, &row) {
                    Ok(Some((_, bytes))) => bytes,
                    Ok(None) => continue,
                    Err(_) if self.gaps => continue,
                    Err(e) => return Err(e),
                };
                used = used.saturating_add(bytes.len());
                if used > max_bytes && !out.is_empty() {
                    break;
                }
                if at != next && !self.gaps {
                    return Err(gap(next));
                }
                out.push(StoredCommit { at, bytes: Bytes::from(bytes) });
                next = at + 1;
            }
            if out.is_empty() { Err(gap(next)) } else { Ok(out) }
        })
    }

    fn follow(&self, after: Position, wait: Duration) -> Result<Position, StoreError> {
        let mut ends = self.ends.lock();
        self.grown.wait_while_for(&mut ends, |e| e.head <= after, wait);
        Ok(ends.head)
    }

    fn remove_some(&self, before: Position) -> Result<Position, StoreError> {
        let mut w = self.writer.lock();
        let ends = *self.ends.lock();
        let before = before.min(ends.head);
        if ends.oldest >= before {
            return Ok(ends.oldest);
        }
        let (upto, bytes) = guarded("reading", || self.step(ends.oldest, before))?;
        let _alone = self.rows.write();
        let named = w.named;
        // Removed rows are not written again: removal takes 0.6 to 1.4 bytes of log for each (measured).
        self.change(&mut w, bytes / 4, ends.head, |db, change| {
            intend(db, &ChangeIntent { change, named, what: IntendedChange::Remove(upto) })?;
            remove_commits(db, ends.oldest, upto)
        })?;
        self.ends.lock().oldest = upto;
        Ok(upto)
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
        let mut w = self.writer.lock();
        let found = self.value(name)?;
        expect.check(name, found.as_ref().map(|(_, value)| value.as_slice()))?;
        if found.is_none() {
            check_count(w.named, self.named_bound)?;
        }
        let old = found.as_ref().map(|(change, _)| *change);
        let _alone = self.rows.write();
        let (named, head) = (w.named, self.ends.lock().head);
        self.change(&mut w, value.len(), head, |db, change| {
            intend(db, &ChangeIntent { change, named, what: IntendedChange::Put { name: name.to_owned(), old } })?;
            rows::named_rows(name, change, value).into_iter().try_for_each(|(key, row)| insert(db, &key, row))?;
            old.map_or(Ok(()), |old| remove_value(db, old))
        })?;
        w.named += u64::from(found.is_none());
        Ok(())
    }

    fn named(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        check_name(name)?;
        let _not_while_changing = self.rows.read();
        Ok(self.value(name)?.map(|(_, value)| value))
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let _not_while_changing = self.rows.read();
        guarded("reading", || {
            let mut out = Vec::new();
            for row in self.db()?.scan_prefix(rows::names_from(prefix)) {
                let row = named(&row.map_err(engine)?.1)?;
                if row.name.starts_with(prefix) {
                    out.push(row.name);
                }
            }
            out.sort_unstable();
            Ok(out)
        })
    }

    fn delete(&self, name: &str, expect: Precondition<'_>) -> Result<(), StoreError> {
        check_name(name)?;
        let mut w = self.writer.lock();
        let found = self.value(name)?;
        expect.check(name, found.as_ref().map(|(_, value)| value.as_slice()))?;
        let Some((old, _)) = found else { return Ok(()) };
        let _alone = self.rows.write();
        let (named, head) = (w.named, self.ends.lock().head);
        self.change(&mut w, 0, head, |db, change| {
            intend(db, &ChangeIntent { change, named, what: IntendedChange::Delete { name: name.to_owned(), old } })?;
            remove(db, &rows::name_key(name))?;
            remove_value(db, old)
        })?;
        w.named = w.named.saturating_sub(1);
        Ok(())
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        // Closing flushes once more and panics if that fails. Nothing that was acknowledged depends on it.
        let db = self.db.take();
        let closed = guarded("closing", || {
            drop(db);
            Ok(())
        });
        if let Err(e) = closed {
            tracing::warn!(error = %e, "the store could not be closed cleanly");
        }
    }
}
