//! A placeholder for the store while the engine is reopened: every operation fails.

use std::time::Duration;

use super::{Position, Precondition, Store, StoreError, StoreId, StoredCommit};

/// A store that is not open.
pub struct ClosedStore;

fn closed<T>() -> Result<T, StoreError> {
    Err(StoreError::Failed("the store is being opened again".into()))
}

impl Store for ClosedStore {
    fn engine(&self) -> &'static str {
        "closed"
    }

    fn id(&self) -> StoreId {
        StoreId::from_bytes([0; 16])
    }

    fn append(&self, _: Position, _: &[u8]) -> Result<(), StoreError> {
        closed()
    }

    fn head(&self) -> Result<Position, StoreError> {
        closed()
    }

    fn oldest(&self) -> Result<Position, StoreError> {
        closed()
    }

    fn read(&self, _: Position, _: usize) -> Result<Vec<StoredCommit>, StoreError> {
        closed()
    }

    fn follow(&self, _: Position, _: Duration) -> Result<Position, StoreError> {
        closed()
    }

    fn remove_some(&self, _: Position) -> Result<Position, StoreError> {
        closed()
    }

    fn put(&self, _: &str, _: &[u8], _: Precondition<'_>) -> Result<(), StoreError> {
        closed()
    }

    fn named(&self, _: &str) -> Result<Option<Vec<u8>>, StoreError> {
        closed()
    }

    fn list(&self, _: &str) -> Result<Vec<String>, StoreError> {
        closed()
    }

    fn delete(&self, _: &str, _: Precondition<'_>) -> Result<(), StoreError> {
        closed()
    }
}
