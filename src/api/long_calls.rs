//! Threads for calls that may examine much data: lists, searches, counts. All other calls run on other threads and do not wait for these.

use std::io;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

use mayfly_base::limits;

/// The threads and the places of calls on them. Dropping this value ends the threads and aborts calls in progress.
#[derive(Debug)]
pub struct LongCalls {
    runtime: Option<Runtime>,
    places: Semaphore,
}

impl LongCalls {
    /// Starts `threads` threads with this name.
    pub fn start(name: &str, threads: usize) -> io::Result<LongCalls> {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(threads.max(1)).enable_all().thread_name(name);
        Ok(LongCalls { runtime: Some(builder.build()?), places: Semaphore::new(limits::LONG_CALLS) })
    }

    /// Runs a call on these threads once a place is free. `None` if the threads have ended.
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
        // The drop may run on a thread of another runtime, which must not block.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
