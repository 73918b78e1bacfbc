//! Turns panics of an engine into errors: engines assert their assumptions about files, and a damaged file must not end the calling thread.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::StoreError;

/// The error for every change after a failed one.
pub(super) fn stopped(why: &str) -> StoreError {
    StoreError::Failed(format!("the store takes no change until it is opened again, after: {why}"))
}

/// Runs an operation of an engine; a panic in it is reported as damage. `doing` describes the operation.
pub(super) fn guarded<T>(doing: &str, f: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let stopped =
        |_| StoreError::Damaged { at: 0, what: format!("{doing} it, the engine stopped at pages that contradict each other") };
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| Err(stopped(panic)))
}
