//! Sends traces to a collector: OTLP as protobuf over HTTPS, or HTTP on this host.
//!
//! A dedicated thread sends queued spans, so that traced calls never wait. A batch that the collector does not accept temporarily is
//! retried for a minute (OTLP specification 1.5, "Failures": 429, 502, 503, 504, and no answer); a batch that it rejects is counted.
//! Meanwhile spans are queued up to a limit; beyond it they are dropped and counted. A server that stops sends the queued spans, for a
//! bounded time.

mod otlp;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::StatusCode;
use prost::Message as _;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::otlp::{PROTOBUF, rejected};
use mayfly_base::backoff::Backoff;
use mayfly_base::limits;
use mayfly_base::system::{Stopwatch, System};
use mayfly_base::trace::{Span, Tracer};
use mayfly_config::config::Collector;
use mayfly_config::https::HttpsClient;

/// The sender of spans. Dropping it sends the queued spans first.
pub struct SpanSender {
    stop: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// The outcome of sending a batch.
enum Fate {
    Taken {
        rejected: u64,
    },
    /// Retrying is pointless.
    Rejected(String),
    /// The batch may be accepted later.
    Later(String),
}

impl SpanSender {
    /// Starts the thread. `instance`: identifies this server among those of the service.
    pub fn start(tracer: Arc<Tracer>, to: &Collector, system: &System, instance: String) -> io::Result<SpanSender> {
        let (stop, stopping) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let run = Run { tracer, to: to.clone(), system: system.clone(), instance, runtime, stopping };
        let thread = std::thread::Builder::new().name("mayfly-traces".into()).spawn(move || run.run())?;
        Ok(SpanSender { stop, thread: Some(thread) })
    }
}

impl Drop for SpanSender {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the thread that exports traces panicked");
            }
        }
    }
}

struct Run {
    tracer: Arc<Tracer>,
    to: Collector,
    system: System,
    instance: String,
    runtime: Runtime,
    stopping: watch::Receiver<bool>,
}

impl Run {
    fn stops(&self) -> bool {
        *self.stopping.borrow()
    }

    fn run(mut self) {
        mayfly_ledger::mark_background_thread();
        while !self.stops() {
            let spans = self.tracer.queue().take(limits::TRACE_BATCH);
            match spans.is_empty() {
                true => std::thread::park_timeout(Duration::from_millis(limits::TRACE_LOOK_MS)),
                false => self.tell(spans),
            }
        }
        self.flush();
    }

    /// Retries until the batch is accepted, the time limit is reached, or the server stops, which allows one more attempt.
    fn tell(&mut self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        let body = otlp::request(spans, &self.instance).encode_to_vec();
        let (watch, mut pauses) = (Stopwatch::start(), Backoff::new(limits::TRACE_RETRY_MIN_MS, limits::TRACE_RETRY_MAX_MS));
        loop {
            if self.settled(count, self.post(body.clone(), limits::TRACE_CALL_MS)) {
                return;
            }
            let late = watch.us() / 1_000 >= limits::TRACE_GIVE_UP_MS;
            if late || !self.runtime.block_on(pauses.wait_unless(&mut self.stopping)) {
                break;
            }
        }
        if !self.stops() || !self.settled(count, self.post(body, limits::TRACE_FLUSH_MS)) {
            self.tracer.queue().counts().unreachable.fetch_add(count, Relaxed);
        }
    }

    /// Counts the outcome of a batch. Returns false if the batch may be accepted later.
    fn settled(&self, count: u64, fate: Fate) -> bool {
        let counts = self.tracer.queue().counts();
        match fate {
            Fate::Taken { rejected } => {
                counts.sent.fetch_add(count.saturating_sub(rejected), Relaxed);
                counts.rejected.fetch_add(rejected, Relaxed);
                self.goes_on();
            }
            Fate::Rejected(problem) => {
                counts.rejected.fetch_add(count, Relaxed);
                self.fails(&problem);
            }
            Fate::Later(problem) => {
                self.fails(&problem);
                return false;
            }
        }
        true
    }

    /// Sends the queued spans when the server stops, as far as there is time; the rest is counted.
    fn flush(&self) {
        let (watch, counts) = (Stopwatch::start(), self.tracer.queue().counts());
        loop {
            let spans = self.tracer.queue().take(limits::TRACE_BATCH);
            let count = spans.len() as u64;
            if count == 0 {
                break;
            }
            let left = limits::TRACE_FLUSH_MS.saturating_sub(watch.us() / 1_000);
            let fate = match left {
                0 => Fate::Later("there was no time for it".to_owned()),
                left => self.post(otlp::request(spans, &self.instance).encode_to_vec(), left),
            };
            if !self.settled(count, fate) {
                counts.unreachable.fetch_add(count, Relaxed);
            }
        }
        let lost = counts.unreachable.load(Relaxed) + counts.full.load(Relaxed);
        if lost > 0 {
            tracing::warn!(
                lost,
                "spans were dropped because no collector accepted them; the number counts from the server's start"
            );
        }
    }

    fn goes_on(&self) {
        if self.tracer.queue().counts().failing.swap(false, Relaxed) {
            tracing::info!("the collector accepts traces again");
        }
    }

    /// Logged once until sending succeeds again.
    fn fails(&self, problem: &str) {
        if !self.tracer.queue().counts().failing.swap(true, Relaxed) {
            let to = self.to.url.shown();
            tracing::warn!(to, problem, "the collector does not accept traces; issuing is not affected");
        }
    }

    fn post(&self, body: Vec<u8>, within_ms: u64) -> Fate {
        // Created for each attempt, so that replaced roots take effect at once.
        let https = match HttpsClient::new(self.to.ca.as_deref(), &self.system) {
            Ok(https) => https.within(within_ms),
            Err(problem) => return Fate::Later(problem.to_string()),
        };
        let asked = https.post(self.to.url.as_str(), PROTOBUF, body, limits::TRACE_ANSWER_BYTES);
        let answer = match self.runtime.block_on(asked) {
            Ok(answer) => answer,
            Err(no_answer) => return Fate::Later(no_answer.to_string()),
        };
        match answer.status {
            StatusCode::OK => {
                let rejected = rejected(&answer.body).and_then(|p| u64::try_from(p.rejected).ok()).unwrap_or(0);
                Fate::Taken { rejected }
            }
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Fate::Later(format!("it answered {}", answer.status)),
            status => Fate::Rejected(format!("it answered {status}, expected 200")),
        }
    }
}
