//! A placeholder for the store while the engine is reopened: every operation fails.

use std::time::Duration;

use super::{Entry, Expect, Position, Store, StoreError, StoreId};

/// A store that is not open.
pub struct Closed;

fn closed<T>() -> Result<T, StoreError> {
    Err(StoreError::Failed("the store is being opened again".into()))
}

impl Store for Closed {
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

    fn read(&self, _: Position, _: usize) -> Result<Vec<Entry>, StoreError> {
        closed()
    }

    fn follow(&self, _: Position, _: Duration) -> Result<Position, StoreError> {
        closed()
    }

    fn remove_some(&self, _: Position) -> Result<Position, StoreError> {
        closed()
    }

    fn put(&self, _: &str, _: &[u8], _: Expect<'_>) -> Result<(), StoreError> {
        closed()
    }

    fn named(&self, _: &str) -> Result<Option<Vec<u8>>, StoreError> {
        closed()
    }

    fn list(&self, _: &str) -> Result<Vec<String>, StoreError> {
        closed()
    }

    fn delete(&self, _: &str, _: Expect<'_>) -> Result<(), StoreError> {
        closed()
    }
}
