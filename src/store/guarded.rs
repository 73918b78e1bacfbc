//! Engines assert what they believe about their files: on a damaged one that must be an error, not the end of the thread that asked.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::StoreError;

/// What a store says to every change after one that failed.
pub(super) fn stopped(why: &str) -> StoreError {
    StoreError::Failed(format!("the store takes no change until it is opened again, after: {why}"))
}

/// Runs something of an engine; a panic in it is damage. `doing` says what it was about.
pub(super) fn guarded<T>(doing: &str, f: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let stopped =
        |_| StoreError::Damaged { at: 0, what: format!("{doing} it, the engine stopped at pages that contradict each other") };
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| Err(stopped(panic)))
}
