//! The call that a task works for, as a task-local. It serves code far below the service that received the call.

use super::call::{CallTrace, SpanGuard};
use super::context::TraceId;
use super::span::SpanAttribute;

tokio::task_local! {
    static CURRENT: CallTrace;
}

/// The call that this task works for.
pub fn current() -> CallTrace {
    CURRENT.try_with(Clone::clone).unwrap_or_default()
}

/// Adds attributes to the call that this task works for, if it is traced or logged.
pub fn note(attributes: impl FnOnce() -> Vec<SpanAttribute>) {
    let _ = CURRENT.try_with(|call| call.note(attributes));
}

impl CallTrace {
    /// Begins a span below the call that this task works for.
    pub fn part(name: &'static str) -> SpanGuard {
        CURRENT.try_with(|call| call.span(name)).unwrap_or_default()
    }

    /// The trace id of the call that this task works for.
    pub fn current_id() -> Option<TraceId> {
        CURRENT.try_with(CallTrace::id).unwrap_or_default()
    }

    /// Runs synchronous work on behalf of this call.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        if self.is_nothing() { work() } else { CURRENT.sync_scope(self.clone(), work) }
    }

    /// Runs a future on behalf of this call.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        if self.is_nothing() { work.await } else { CURRENT.scope(self, work).await }
    }
}
