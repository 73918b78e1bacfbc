//! Work that continues after its caller has returned: releasing, completing, reporting. Closing the client waits for it.

use std::future::Future;

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

/// Background tasks that nobody awaits until the client closes. They may be started from a `drop` outside the runtime.
#[derive(Clone)]
pub struct Background {
    runtime: Handle,
    tasks: TaskTracker,
}

impl Background {
    /// Uses the runtime of the caller.
    pub fn here() -> Background {
        Background { runtime: Handle::current(), tasks: TaskTracker::new() }
    }

    /// Starts a task that closing waits for.
    pub fn begin(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(work, &self.runtime);
    }

    /// Starts a task that closing does not wait for.
    pub fn aside(&self, work: impl Future<Output = ()> + Send + 'static) {
        drop(self.runtime.spawn(work));
    }

    /// Waits until all tasks started with [`Background::begin`] have ended.
    pub async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}
