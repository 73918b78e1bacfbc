//! Threads for TLS handshakes.
//!
//! A handshake costs as much as twenty issuances, and its client is not authenticated yet. Handshakes therefore have their own threads at a
//! lower priority than all others of this process: during a storm of handshakes they get the capacity that issuing leaves over, and a
//! little more, so that the storm ends.

use std::io;

use rustix::process::{getpriority_process, setpriority_process};
use rustix::thread::gettid;
use tokio::runtime::{Builder, Runtime};

use mayfly_base::limits;

/// The lowest priority (sched(7)).
const LEAST: i32 = 19;

/// The threads for handshakes. Dropping this value ends the threads and aborts handshakes in progress.
pub struct Handshakes(Option<Runtime>);

impl Handshakes {
    /// Starts `threads` threads.
    pub fn start(threads: usize) -> io::Result<Handshakes> {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(threads.max(1)).enable_all().thread_name("mayfly-handshakes").on_thread_start(|| {
            // On Linux a thread has its own priority (sched(7)). Lowering it needs no privilege.
            let thread = Some(gettid());
            let lower = |now: i32| setpriority_process(thread, (now + limits::HANDSHAKE_NICE).min(LEAST));
            if let Err(error) = getpriority_process(thread).and_then(lower) {
                tracing::warn!(%error, "the priority of a handshake thread could not be lowered");
            }
        });
        Ok(Handshakes(Some(builder.build()?)))
    }

    /// Runs a handshake on these threads. `None` if the threads have ended.
    pub async fn run<T: Send + 'static>(&self, handshake: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let running = self.0.as_ref()?.spawn(handshake);
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

impl Drop for Handshakes {
    fn drop(&mut self) {
        // The drop may run on a thread of another runtime, which must not block.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_handshake_runs_on_a_thread_that_yields_to_others() {
        let handshakes = Handshakes::start(1).unwrap();
        let nice = handshakes.run(async { getpriority_process(Some(gettid())).unwrap() }).await.unwrap();
        let own = getpriority_process(Some(gettid())).unwrap();
        assert_eq!(nice, (own + limits::HANDSHAKE_NICE).min(LEAST));
    }

    #[tokio::test]
    async fn one_that_nobody_waits_for_is_given_up() {
        let handshakes = Handshakes::start(1).unwrap();
        let (tell, told) = tokio::sync::oneshot::channel::<()>();
        {
            let stalls = handshakes.run(async move {
                let _held = tell;
                std::future::pending::<()>().await;
            });
            assert!(tokio::time::timeout(std::time::Duration::from_millis(20), stalls).await.is_err());
        }
        assert!(told.await.is_err(), "what it held was dropped");
    }
}
