//! Threads for calls that may look at much: lists, searches, counts. What serves everybody else does not wait for them.

use std::io;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

use crate::limits;

/// The threads, and the places of calls on them. Dropping it ends them; calls that are under way are given up.
#[derive(Debug)]
pub struct LongCalls {
    runtime: Option<Runtime>,
    places: Semaphore,
}

impl LongCalls {
    /// So many threads of this name.
    pub fn start(name: &str, threads: usize) -> io::Result<LongCalls> {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(threads.max(1)).enable_all().thread_name(name);
        Ok(LongCalls { runtime: Some(builder.build()?), places: Semaphore::new(limits::LONG_CALLS) })
    }

    /// Runs one there, when there is a place. `None` where the threads have ended.
    pub async fn run<T: Send + 'static>(&self, call: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let _place = self.places.acquire().await.ok()?;
        let running = self.runtime.as_ref()?.spawn(call);
        let _ends_with_us = AbortOnDrop(running.abort_handle());
        running.await.ok()
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Drop for LongCalls {
    fn drop(&mut self) {
        // Perhaps on a thread of another runtime, which must not wait.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
