//! A store that fails when a test says so, in the ways that the contract allows.
#![allow(dead_code, reason = "each suite uses a part of it")]

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use mayfly::store::{Position, Precondition, Store, StoreError, StoreId, StoredCommit};

/// The fault of the next append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The disk is full, and nothing was written.
    Full,
    /// The flush failed, and nothing was written.
    Lost,
    /// The flush failed, but what was appended is found after opening again.
    Kept,
}

/// A faulty store around another store.
pub struct FaultyStore<S> {
    inner: S,
    state: Mutex<State>,
    /// Whether the disk is stalled.
    still: Mutex<bool>,
    moves: Condvar,
}

#[derive(Default)]
struct State {
    next: Option<Fault>,
    stopped: bool,
    /// An append that failed, but is present after reopening.
    kept: Option<(Position, Vec<u8>)>,
}

impl<S: Store> FaultyStore<S> {
    /// A store without a fault.
    pub fn new(inner: S) -> FaultyStore<S> {
        FaultyStore { inner, state: Mutex::default(), still: Mutex::default(), moves: Condvar::new() }
    }

    /// Stalls the disk or resumes it: appends return once it is resumed.
    pub fn stand_still(&self, still: bool) {
        *self.still.lock().unwrap() = still;
        self.moves.notify_all();
    }

    /// Makes the next append fail in this way, and every change after it.
    pub fn fail_next_append(&self, fault: Fault) {
        self.state.lock().unwrap().next = Some(fault);
    }

    /// Simulates reopening: the store accepts changes again, and a kept append of a failed flush is present.
    pub fn open_again(&self) {
        let mut state = self.state.lock().unwrap();
        state.stopped = false;
        if let Some((at, bytes)) = state.kept.take() {
            self.inner.append(at, &bytes).unwrap();
        }
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.state.lock().unwrap().stopped { Err(StoreError::Failed("stopped by the test".to_owned())) } else { Ok(()) }
    }
}

impl<S: Store> Store for FaultyStore<S> {
    fn id(&self) -> StoreId {
        self.inner.id()
    }

    fn engine(&self) -> &'static str {
        self.inner.engine()
    }

    fn append(&self, at: Position, bytes: &[u8]) -> Result<(), StoreError> {
        drop(self.moves.wait_while(self.still.lock().unwrap(), |still| *still).unwrap());
        self.check()?;
        let mut state = self.state.lock().unwrap();
        let Some(fault) = state.next.take() else {
            return self.inner.append(at, bytes);
        };
        state.stopped = true;
        if fault == Fault::Kept {
            state.kept = Some((at, bytes.to_vec()));
        }
        Err(match fault {
            Fault::Full => StoreError::Full("by the test".to_owned()),
            Fault::Lost | Fault::Kept => StoreError::Failed("flush failed by the test".to_owned()),
        })
    }

    fn head(&self) -> Result<Position, StoreError> {
        self.inner.head()
    }

    fn oldest(&self) -> Result<Position, StoreError> {
        self.inner.oldest()
    }

    fn read(&self, from: Position, max_bytes: usize) -> Result<Vec<StoredCommit>, StoreError> {
        self.inner.read(from, max_bytes)
    }

    fn follow(&self, after: Position, wait: Duration) -> Result<Position, StoreError> {
        self.inner.follow(after, wait)
    }

    fn remove_some(&self, before: Position) -> Result<Position, StoreError> {
        self.check()?;
        self.inner.remove_some(before)
    }

    fn put(&self, name: &str, value: &[u8], expect: Precondition<'_>) -> Result<(), StoreError> {
        self.check()?;
        self.inner.put(name, value, expect)
    }

    fn named(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.named(name)
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.inner.list(prefix)
    }

    fn delete(&self, name: &str, expect: Precondition<'_>) -> Result<(), StoreError> {
        self.check()?;
        self.inner.delete(name, expect)
    }
}
