//! What goes on after a caller has left: giving back, completing, reporting. Closing waits for it.

use std::future::Future;

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

/// Work that nobody waits for, until the client closes. It may be begun from a `drop` outside the runtime.
#[derive(Clone)]
pub struct Background {
    runtime: Handle,
    tasks: TaskTracker,
}

impl Background {
    /// On the runtime that this is called in.
    pub fn here() -> Background {
        Background { runtime: Handle::current(), tasks: TaskTracker::new() }
    }

    /// Begins it.
    pub fn begin(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(work, &self.runtime);
    }

    /// Begins what closing does not wait for.
    pub fn aside(&self, work: impl Future<Output = ()> + Send + 'static) {
        drop(self.runtime.spawn(work));
    }

    /// Waits until all that was begun has ended.
    pub async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}
