//! An engine without a disk, for tests and `mayfly dev`. Its contents end with the process.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::{Position, Precondition, Store, StoreError, StoreId, StoredCommit};
use super::{check_commit, check_count, check_empty, check_name, check_named};
use mayfly_base::limits;

/// A store in the memory of one process.
pub struct MemoryStore {
    id: StoreId,
    named_bound: usize,
    kept: Mutex<Kept>,
    grown: Condvar,
}

#[derive(Default)]
struct Kept {
    /// The position of the first of `commits`, 0 when there is none.
    oldest: Position,
    /// The position for the first commit ever, 0 for the beginning.
    first: Position,
    commits: VecDeque<Bytes>,
    named: BTreeMap<String, Vec<u8>>,
}

impl Kept {
    fn head(&self) -> Position {
        (self.oldest + self.commits.len() as Position).saturating_sub(1)
    }
}

impl MemoryStore {
    /// An empty store with this identity.
    pub fn new(id: StoreId) -> MemoryStore {
        MemoryStore::with_bound(id, limits::NAMED_VALUES)
    }

    /// An empty store that accepts at most `named_bound` named values.
    pub fn with_bound(id: StoreId, named_bound: usize) -> MemoryStore {
        MemoryStore { id, named_bound, kept: Mutex::default(), grown: Condvar::new() }
    }
}

impl Store for MemoryStore {
    fn id(&self) -> StoreId {
        self.id
    }

    fn engine(&self) -> &'static str {
        "memory"
    }

    fn append(&self, at: Position, bytes: &[u8]) -> Result<(), StoreError> {
        check_commit(bytes)?;
        let mut kept = self.kept.lock();
        let next = if kept.commits.is_empty() { kept.first.max(1) } else { kept.head() + 1 };
        if at != next {
            return Err(StoreError::NotNext { asked: at, next });
        }
        if kept.commits.is_empty() {
            kept.oldest = next;
        }
        kept.commits.push_back(Bytes::copy_from_slice(bytes));
        self.grown.notify_all();
        Ok(())
    }

    fn head(&self) -> Result<Position, StoreError> {
        Ok(self.kept.lock().head())
    }

    fn oldest(&self) -> Result<Position, StoreError> {
        Ok(self.kept.lock().oldest)
    }

    fn read(&self, from: Position, max_bytes: usize) -> Result<Vec<StoredCommit>, StoreError> {
        let kept = self.kept.lock();
        let from = from.max(kept.oldest);
        if from > kept.head() {
            return Ok(Vec::new());
        }
        let skip = usize::try_from(from - kept.oldest).unwrap_or(usize::MAX);
        let (mut out, mut used) = (Vec::new(), 0usize);
        for (at, bytes) in (from..).zip(kept.commits.iter().skip(skip)) {
            used = used.saturating_add(bytes.len());
            if used > max_bytes && !out.is_empty() {
                break;
            }
            out.push(StoredCommit { at, bytes: bytes.clone() });
        }
        Ok(out)
    }

    fn follow(&self, after: Position, wait: Duration) -> Result<Position, StoreError> {
        let mut kept = self.kept.lock();
        self.grown.wait_while_for(&mut kept, |k| k.head() <= after, wait);
        Ok(kept.head())
    }

    fn remove_some(&self, before: Position) -> Result<Position, StoreError> {
        let mut kept = self.kept.lock();
        let before = before.min(kept.head());
        while kept.oldest < before {
            kept.commits.pop_front();
            kept.oldest += 1;
        }
        Ok(kept.oldest)
    }

    fn begin_at(&self, first: Position) -> Result<(), StoreError> {
        let mut kept = self.kept.lock();
        check_empty(kept.head(), first)?;
        kept.first = first;
        Ok(())
    }

    fn put(&self, name: &str, value: &[u8], expect: Precondition<'_>) -> Result<(), StoreError> {
        check_named(name, value)?;
        let mut kept = self.kept.lock();
        let found = kept.named.get(name);
        expect.check(name, found.map(Vec::as_slice))?;
        if found.is_none() {
            check_count(kept.named.len() as u64, self.named_bound)?;
        }
        kept.named.insert(name.to_owned(), value.to_vec());
        Ok(())
    }

    fn named(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        check_name(name)?;
        Ok(self.kept.lock().named.get(name).cloned())
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let kept = self.kept.lock();
        let from = kept.named.range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded));
        Ok(from.map(|(name, _)| name).take_while(|name| name.starts_with(prefix)).cloned().collect())
    }

    fn delete(&self, name: &str, expect: Precondition<'_>) -> Result<(), StoreError> {
        check_name(name)?;
        let mut kept = self.kept.lock();
        expect.check(name, kept.named.get(name).map(Vec::as_slice))?;
        kept.named.remove(name);
        Ok(())
    }
}
