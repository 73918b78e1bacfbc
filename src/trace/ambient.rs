//! The call that a task works for, where nobody hands it on: what notes something far below the service that was called.

use super::context::TraceId;
use super::live::{Part, Traced};
use super::span::Attribute;

tokio::task_local! {
    static CURRENT: Traced;
}

/// The call that this task works for.
pub fn current() -> Traced {
    CURRENT.try_with(Clone::clone).unwrap_or_default()
}

/// Tells something of the call that this task works for, where it is traced or logged.
pub fn note(attributes: impl FnOnce() -> Vec<Attribute>) {
    let _ = CURRENT.try_with(|call| call.note(attributes));
}

impl Traced {
    /// A part of the call that this task works for.
    pub fn part(name: &'static str) -> Part {
        CURRENT.try_with(|call| call.span(name)).unwrap_or_default()
    }

    /// The trace of the call that this task works for.
    pub fn current_id() -> Option<TraceId> {
        CURRENT.try_with(Traced::id).unwrap_or_default()
    }

    /// The same for what waits for nothing.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        if self.is_nothing() { work() } else { CURRENT.sync_scope(self.clone(), work) }
    }

    /// Whatever `work` does, it does for this call.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        if self.is_nothing() { work.await } else { CURRENT.scope(self, work).await }
    }
}
