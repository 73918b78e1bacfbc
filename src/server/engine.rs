//! The table of engines: from the configuration to a store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::ledger::open::damage;
use crate::ledger::{Opener, StartError};
use crate::seq::StoreId;
use crate::sources::config::{Config, Engine};
use crate::store::memory::MemoryStore;
use crate::store::redb::{Options, RedbStore};
use crate::store::{Store, StoreError};
use crate::system::System;

/// The data directory, where the engine has one.
pub fn data_dir(config: &Config) -> Option<&Path> {
    match &config.store.engine {
        Engine::Redb(dir) => Some(dir),
        Engine::Memory => None,
    }
}

/// Where snapshots lie.
pub fn snapshots(config: &Config) -> Option<PathBuf> {
    data_dir(config).map(snapshots_in)
}

/// Where they lie in a data directory.
pub fn snapshots_in(dir: &Path) -> PathBuf {
    dir.join("snapshots")
}

/// redb's options. `id` is used where there is no store yet.
pub fn redb_options(config: &Config, id: StoreId) -> Options {
    Options {
        cache_bytes: usize::try_from(config.store.cache_bytes).unwrap_or(usize::MAX),
        reserve_bytes: config.store.disk_reserve_bytes,
        new_id: id,
        ..Options::new([0; 16])
    }
}

/// Opens the store now, and again for the ledger after a failure. To add an engine: one line here.
pub fn open(config: &Config, system: &System) -> Result<(Arc<dyn Store>, Opener), StoreError> {
    let id = StoreId::from_bytes(system.random16());
    let again: Opener = match &config.store.engine {
        Engine::Redb(dir) => {
            let (dir, options) = (dir.clone(), redb_options(config, id));
            Box::new(move || Ok(Arc::new(RedbStore::open(&dir, &options)?)))
        }
        Engine::Memory => {
            let store: Arc<dyn Store> = Arc::new(MemoryStore::new(id));
            Box::new(move || Ok(store.clone()))
        }
    };
    let first = again()?;
    let waiting = Mutex::new(Some(first.clone()));
    // The engine locks its file: the ledger's first open gets the store that is open already.
    let opener: Opener = Box::new(move || match waiting.lock().take() {
        Some(first) => Ok(first),
        None => again(),
    });
    Ok((first, opener))
}

/// Why the store did not open: where commits are missing, with the last seq that can be trusted.
pub fn not_opened(config: &Config, error: StoreError) -> StartError {
    let (StoreError::Damaged { .. }, Engine::Redb(dir)) = (&error, &config.store.engine) else { return error.into() };
    let options = redb_options(config, StoreId::from_bytes([0; 16]));
    match RedbStore::open_damaged(dir, &options) {
        Ok(store) => damage(&store, snapshots(config).as_ref()),
        Err(_) => error.into(),
    }
}
