//! The table of storage engines: from a configuration to an open store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use mayfly_base::system::System;
use mayfly_config::config::{Config, StoreEngine};
use mayfly_ledger::recovery::open::damage;
use mayfly_ledger::{Opener, StartError};
use mayfly_store::memory::MemoryStore;
use mayfly_store::options::StoreOptions;
use mayfly_store::redb::{self, RedbStore};
use mayfly_store::sled::SledStore;
use mayfly_store::{Store, StoreError};
use mayfly_verify::seq::StoreId;

/// The data directory, if the engine has one.
pub fn data_dir(config: &Config) -> Option<&Path> {
    config.store.engine.data()
}

/// The directory of snapshots.
pub fn snapshots(config: &Config) -> Option<PathBuf> {
    data_dir(config).map(snapshots_in)
}

/// The directory of snapshots in a data directory.
pub fn snapshots_in(dir: &Path) -> PathBuf {
    dir.join("snapshots")
}

/// The directory of data derived from history.
pub fn history(config: &Config) -> Option<PathBuf> {
    data_dir(config).map(|dir| dir.join("history"))
}

/// The options for opening an embedded engine. `id` is used if there is no store yet.
fn options(config: &Config, id: StoreId) -> StoreOptions {
    StoreOptions {
        cache_bytes: usize::try_from(config.store.cache_bytes).unwrap_or(usize::MAX),
        reserve_bytes: config.store.disk_reserve_bytes,
        new_id: id,
        ..StoreOptions::new([0; 16])
    }
}

/// Entries of a data directory beside the store itself, by the beginning of their names.
const BESIDE: &[&str] = &["history", "ledger-", "reserve", "snapshots", "wal-"];

/// Refuses a data directory whose store is missing while other entries are there: an empty store in its place would lack all locks,
/// revocations and keys.
pub fn refuse_missing_store(config: &Config, dir: &Path) -> Result<(), StoreError> {
    if contains_store(config, dir) {
        return Ok(());
    }
    let names =
        std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut left: Vec<String> = names.filter(|name| BESIDE.iter().any(|known| name.starts_with(known))).collect();
    left.sort();
    if left.is_empty() {
        return Ok(());
    }
    let store = match &config.store.engine {
        StoreEngine::Sled(_) => "ledger.sled",
        _ => "ledger.redb",
    };
    let what = format!("{} is gone, and what lies beside it ({}) is of a ledger", dir.join(store).display(), left.join(", "));
    Err(StoreError::Damaged { at: 0, what })
}

/// Opens the store, and returns a function that reopens it for the ledger after a failure. To add an engine: one line here.
pub fn open(config: &Config, system: &System) -> Result<(Arc<dyn Store>, Opener), StoreError> {
    if let Some(dir) = data_dir(config) {
        refuse_missing_store(config, dir)?;
    }
    let id = StoreId::from_bytes(system.random16());
    let again: Opener = match &config.store.engine {
        StoreEngine::Redb(dir) => {
            let (dir, options) = (dir.clone(), options(config, id));
            Box::new(move || Ok(Arc::new(redb::open(&dir, &options)?)))
        }
        StoreEngine::Sled(dir) => {
            let (dir, options) = (dir.clone(), options(config, id));
            Box::new(move || Ok(Arc::new(SledStore::open(&dir, &options)?)))
        }
        StoreEngine::Memory => {
            let store: Arc<dyn Store> = Arc::new(MemoryStore::new(id));
            Box::new(move || Ok(store.clone()))
        }
    };
    let first = again()?;
    let waiting = Mutex::new(Some(first.clone()));
    // The engine locks its file, so the ledger's first call gets the store that is already open.
    let opener: Opener = Box::new(move || match waiting.lock().take() {
        Some(first) => Ok(first),
        None => again(),
    });
    Ok((first, opener))
}

/// Whether `dir` contains a store of the configured engine, or something in its place.
pub fn contains_store(config: &Config, dir: &Path) -> bool {
    match &config.store.engine {
        StoreEngine::Redb(_) => RedbStore::is_in(dir),
        StoreEngine::Sled(_) => SledStore::is_in(dir),
        StoreEngine::Memory => false,
    }
}

/// Opens a damaged store in `dir` for reading.
pub fn open_damaged(config: &Config, dir: &Path) -> Result<Box<dyn Store>, StoreError> {
    let options = options(config, StoreId::from_bytes([0; 16]));
    match &config.store.engine {
        StoreEngine::Redb(_) => Ok(Box::new(redb::open_damaged(dir, &options)?)),
        StoreEngine::Sled(_) => Ok(Box::new(SledStore::open_damaged(dir, &options)?)),
        StoreEngine::Memory => Err(StoreError::Failed("engine memory keeps nothing".to_owned())),
    }
}

/// Creates a store in `dir` with this identity.
pub fn make(config: &Config, dir: &Path, id: StoreId) -> Result<Box<dyn Store>, StoreError> {
    let options = options(config, id);
    match &config.store.engine {
        StoreEngine::Redb(_) => Ok(Box::new(redb::open(dir, &options)?)),
        StoreEngine::Sled(_) => Ok(Box::new(SledStore::open(dir, &options)?)),
        StoreEngine::Memory => Ok(Box::new(MemoryStore::new(id))),
    }
}

/// The error for a store that did not open. If commits are missing, it names the last trustworthy sequence number.
pub fn open_error(config: &Config, error: StoreError) -> StartError {
    let (StoreError::Damaged { what, .. }, Some(dir)) = (&error, data_dir(config)) else { return error.into() };
    match open_damaged(config, dir) {
        Ok(store) => damage(&*store, what.clone(), snapshots(config).as_ref()),
        Err(_) => error.into(),
    }
}
