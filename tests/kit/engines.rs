//! The storage engines, as the suite of `tests/store/contract.rs` creates and opens them.

use std::path::Path;
use std::sync::Arc;

use mayfly::store::memory::MemoryStore;
use mayfly::store::options::StoreOptions;
use mayfly::store::redb::{self, RedbStore};
use mayfly::store::sled::SledStore;
use mayfly::store::wal::WalStore;
use mayfly::store::{Store, StoreError, StoreId};

/// How a test creates a store, and reopens it if the engine is persistent.
pub trait Engine: Sized {
    type Store: Store;
    /// An empty store that accepts `named` named values.
    fn make(named: usize) -> Self;
    fn store(&self) -> &Arc<Self::Store>;
    /// Closes and reopens the store; `None` for an engine that persists nothing.
    fn again(self) -> Option<Self>;
}

pub struct Memory(Arc<MemoryStore>);

impl Engine for Memory {
    type Store = MemoryStore;
    fn make(named: usize) -> Memory {
        Memory(Arc::new(MemoryStore::with_bound(StoreId::from_bytes([1; 16]), named)))
    }
    fn store(&self) -> &Arc<MemoryStore> {
        &self.0
    }
    fn again(self) -> Option<Memory> {
        None
    }
}

/// An engine with a data directory. `SEGMENT`: bytes of commits in one file, if the engine has several files; `LOG`: bytes of one file of
/// the write-ahead log, if there is one; 0 for the default.
pub struct Kept<S, const SEGMENT: u64 = 0, const LOG: u64 = 0> {
    store: Arc<S>,
    dir: tempfile::TempDir,
    named: usize,
}

/// How such an engine is opened.
pub trait Opens: Store + Sized {
    fn open_in(dir: &Path, options: &StoreOptions) -> Result<Self, StoreError>;
}

impl Opens for RedbStore {
    fn open_in(dir: &Path, options: &StoreOptions) -> Result<RedbStore, StoreError> {
        RedbStore::open(dir, options)
    }
}

impl Opens for WalStore<RedbStore> {
    fn open_in(dir: &Path, options: &StoreOptions) -> Result<WalStore<RedbStore>, StoreError> {
        redb::open(dir, options)
    }
}

impl Opens for SledStore {
    fn open_in(dir: &Path, options: &StoreOptions) -> Result<SledStore, StoreError> {
        SledStore::open(dir, options)
    }
}

impl<S: Opens, const SEGMENT: u64, const LOG: u64> Kept<S, SEGMENT, LOG> {
    fn open(dir: tempfile::TempDir, named: usize, id: u8) -> Self {
        let mut options = StoreOptions { named_values: named, reserve_bytes: 0, ..StoreOptions::new([id; 16]) };
        if SEGMENT > 0 {
            options.segment_bytes = SEGMENT;
        }
        if LOG > 0 {
            options.log_file_bytes = LOG;
        }
        Kept { store: Arc::new(S::open_in(&dir.path().join("data"), &options).unwrap()), dir, named }
    }
}

impl<S: Opens, const SEGMENT: u64, const LOG: u64> Engine for Kept<S, SEGMENT, LOG> {
    type Store = S;
    fn make(named: usize) -> Self {
        Kept::open(tempfile::tempdir().unwrap(), named, 1)
    }
    fn store(&self) -> &Arc<S> {
        &self.store
    }
    fn again(self) -> Option<Self> {
        drop(self.store);
        Some(Kept::open(self.dir, self.named, 2))
    }
}
