//! Reads commits across segment files.

use std::sync::Arc;

use ::redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable};
use bytes::Bytes;

use super::segments::SegmentFile;
use super::{COMMITS, RedbStore, engine, gap};
use crate::{Position, StoreError, StoredCommit};

/// The commits of one file.
type Commits = ReadOnlyTable<u64, &'static [u8]>;

impl RedbStore {
    pub(super) fn read_from(&self, from: Position, max_bytes: usize) -> Result<Vec<StoredCommit>, StoreError> {
        // Read before the transactions begin: all commits up to this head are durable and visible in them.
        let head = self.ends.lock().head;
        if from > head {
            return Ok(Vec::new());
        }
        // Repeated only when a file was removed in the meantime.
        loop {
            let mut read = Read { store: self, out: Vec::new(), bytes: 0, next: from.max(1), head, max_bytes };
            if read.all()? {
                return Ok(read.out);
            }
        }
    }
}

fn commits(db: &Database) -> Result<Commits, StoreError> {
    db.begin_read().map_err(engine)?.open_table(COMMITS).map_err(engine)
}

/// A read in progress.
struct Read<'a> {
    store: &'a RedbStore,
    out: Vec<StoredCommit>,
    bytes: usize,
    /// The next position.
    next: Position,
    head: Position,
    max_bytes: usize,
}

impl Read<'_> {
    /// Reads from one file after the other. `false` if one was removed in the meantime.
    fn all(&mut self) -> Result<bool, StoreError> {
        let all = self.store.segments.all();
        let start = all.partition_point(|s| s.first() <= self.next).saturating_sub(1);
        for (n, segment) in all.iter().enumerate().skip(start) {
            let after = all.get(n + 1).map_or(Position::MAX, |s| s.first());
            // Held together with its table: a file in use is neither closed nor removed.
            let Some(db) = self.store.segments.opened(segment)? else { return Ok(false) };
            let table = commits(&db)?;
            match table.first().map_err(engine)?.map(|(at, _)| at.value()) {
                // The main file stays when all commits in it were removed.
                None if segment.is_main() && self.out.is_empty() => self.next = self.next.max(after),
                None => {}
                Some(first) if first <= self.next => {}
                Some(first) if self.store.gaps => self.next = first,
                Some(first) => match self.nothing_before(&all, n)? {
                    None => return Ok(false),
                    // The oldest remaining commit may be newer than the head that was read; it was durable before the others were removed.
                    Some(true) => (self.next, self.head) = (first, self.head.max(first)),
                    Some(false) => return Err(gap(self.next)),
                },
            }
            if !self.one(&table, after)? || self.next > self.head {
                return Ok(true);
            }
        }
        if self.store.gaps { Ok(true) } else { Err(gap(self.next)) }
    }

    /// Reads from one file, up to the first position of the next file. `false` when the read is complete.
    fn one(&mut self, table: &Commits, after: Position) -> Result<bool, StoreError> {
        for row in table.range(self.next..).map_err(engine)? {
            let (at, value) = row.map_err(engine)?;
            let (at, value) = (at.value(), value.value());
            self.bytes = self.bytes.saturating_add(value.len());
            if self.next > self.head || (self.bytes > self.max_bytes && !self.out.is_empty()) {
                return Ok(false);
            }
            if at != self.next && !self.store.gaps {
                return Err(gap(self.next));
            }
            self.out.push(StoredCommit { at, bytes: Bytes::copy_from_slice(value) });
            self.next = at + 1;
        }
        if self.store.gaps {
            self.next = self.next.max(after);
        } else if self.next < after && self.next <= self.head {
            return Err(gap(self.next));
        }
        Ok(true)
    }

    /// Whether a file begins later because the commits before it were removed: then no earlier file has any. `None` if a file was removed
    /// in the meantime.
    fn nothing_before(&self, all: &Arc<Vec<Arc<SegmentFile>>>, n: usize) -> Result<Option<bool>, StoreError> {
        if !self.out.is_empty() {
            return Ok(Some(false));
        }
        if !Arc::ptr_eq(all, &self.store.segments.all()) {
            return Ok(None);
        }
        match (n, all.first()) {
            (0, _) => Ok(Some(true)),
            (1, Some(main)) => match self.store.segments.opened(main)? {
                Some(db) => Ok(Some(commits(&db)?.first().map_err(engine)?.is_none())),
                None => Ok(None),
            },
            _ => Ok(Some(false)),
        }
    }
}
