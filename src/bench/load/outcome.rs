//! The counters and latencies of a running load.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::super::BenchError;
use mayfly_base::system::System;
use mayfly_proto::mayfly::v1 as pb;

/// The longest latency that the histogram distinguishes, µs.
const LONGEST_US: u64 = 120_000_000;

/// The answer to one exchange.
pub enum LoadAnswer {
    /// A credential was issued: its id and that of its task.
    Issued { credential: String, task: String },
    /// RESOURCE_EXHAUSTED with a retry time; with the error text, if it was decoded.
    Refused(Option<String>),
    /// Any other failure, with its error text.
    Failed(String),
}

impl LoadAnswer {
    /// The answer of a granted exchange.
    pub fn of_issued(issued: pb::Issued) -> LoadAnswer {
        LoadAnswer::Issued { credential: issued.credential_id, task: issued.task_id }
    }

    /// The answer of a call that failed.
    pub fn of_status(status: &Status) -> LoadAnswer {
        let told = status.code() == Code::ResourceExhausted && status.get_details_retry_info().is_some();
        let why = status.message().to_owned();
        if told { LoadAnswer::Refused(Some(why)) } else { LoadAnswer::Failed(why) }
    }

    /// The answer of a failed item of a batch.
    pub fn of_problem(problem: pb::Problem) -> LoadAnswer {
        let told = problem.code == Code::ResourceExhausted as i32 && problem.retry_after.is_some();
        if told { LoadAnswer::Refused(Some(problem.message)) } else { LoadAnswer::Failed(problem.message) }
    }

    /// The answer for a response that lacks its result.
    pub fn empty() -> LoadAnswer {
        LoadAnswer::Failed("an empty result".to_owned())
    }
}

/// Latencies, µs.
pub struct LatencyHistogram(Mutex<Histogram<u64>>);

impl LatencyHistogram {
    /// An empty histogram.
    pub fn new() -> Result<LatencyHistogram, BenchError> {
        Ok(LatencyHistogram(Mutex::new(Histogram::new_with_bounds(1, LONGEST_US, 3)?)))
    }

    /// Records one latency.
    pub fn record(&self, us: u64) {
        self.0.lock().saturating_record(us);
    }

    /// Returns the histogram and starts a new one.
    pub fn take(&self) -> Result<Histogram<u64>, BenchError> {
        Ok(std::mem::replace(&mut *self.0.lock(), Histogram::new_with_bounds(1, LONGEST_US, 3)?))
    }
}

/// The µs since `since`.
pub fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// The counters.
#[derive(Clone, Copy, Default)]
pub struct LoadCounts {
    /// Credentials issued.
    pub issued: u64,
    /// RESOURCE_EXHAUSTED with RetryInfo.
    pub refused: u64,
    /// Other failures.
    pub errors: u64,
    /// Exchanges of an open loop that were due and never sent, because too many were in flight.
    pub unsent: u64,
    /// Credentials revoked by an operator.
    pub revoked: u64,
    /// Tasks completed.
    pub completed: u64,
}

impl LoadCounts {
    /// The counts since `then`.
    pub fn since(self, then: LoadCounts) -> LoadCounts {
        LoadCounts {
            issued: self.issued - then.issued,
            refused: self.refused - then.refused,
            errors: self.errors - then.errors,
            unsent: self.unsent - then.unsent,
            revoked: self.revoked - then.revoked,
            completed: self.completed - then.completed,
        }
    }
}

/// The state of a running load.
pub struct LoadStats {
    issued: AtomicU64,
    refused: AtomicU64,
    errors: AtomicU64,
    unsent: AtomicU64,
    completed: AtomicU64,
    revoked: AtomicU64,
    /// Latencies of issuances.
    pub latency: LatencyHistogram,
    /// Latencies of refusals.
    pub refusals: LatencyHistogram,
    /// Latencies of the operator's revocations.
    pub revocations: LatencyHistogram,
    last_issued: Mutex<String>,
    first_refusal: OnceLock<String>,
    first_error: Mutex<Option<String>>,
    stop: AtomicBool,
    number: AtomicU64,
    run: String,
}

impl LoadStats {
    /// An outcome without counts.
    pub fn new() -> Result<Arc<LoadStats>, BenchError> {
        let zero = || AtomicU64::new(0);
        Ok(Arc::new(LoadStats {
            issued: zero(),
            refused: zero(),
            errors: zero(),
            unsent: zero(),
            completed: zero(),
            revoked: zero(),
            latency: LatencyHistogram::new()?,
            refusals: LatencyHistogram::new()?,
            revocations: LatencyHistogram::new()?,
            last_issued: Mutex::default(),
            first_refusal: OnceLock::new(),
            first_error: Mutex::new(None),
            stop: AtomicBool::new(false),
            number: zero(),
            run: data_encoding::HEXLOWER.encode(System::real().random16().first_chunk::<5>().unwrap_or(&[0; 5])),
        }))
    }

    /// The counts so far.
    pub fn counts(&self) -> LoadCounts {
        let of = |n: &AtomicU64| n.load(Relaxed);
        LoadCounts {
            issued: of(&self.issued),
            refused: of(&self.refused),
            errors: of(&self.errors),
            unsent: of(&self.unsent),
            revoked: of(&self.revoked),
            completed: of(&self.completed),
        }
    }

    /// The error text of the first refusal.
    pub fn first_refusal(&self) -> Option<&str> {
        self.first_refusal.get().map(String::as_str)
    }

    /// The first failure.
    pub fn first_error(&self) -> Option<String> {
        self.first_error.lock().clone()
    }

    /// Records a failure outside of the exchanges.
    pub fn wrong(&self, what: String) {
        if !self.stopped() {
            self.first_error.lock().get_or_insert(what);
        }
    }

    /// The id of the last issued credential.
    pub fn last_issued(&self) -> Option<String> {
        Some(self.last_issued.lock().clone()).filter(|id| !id.is_empty())
    }

    /// Stops the load: no further exchange is sent.
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// Whether the load is stopped.
    pub fn stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    pub(super) fn next_number(&self) -> u64 {
        self.number.fetch_add(1, Relaxed)
    }

    /// A request id. Ids differ between runs, since the server remembers them for minutes.
    pub(super) fn request_id(&self, n: u64) -> String {
        format!("{}{n:x}", self.run)
    }

    pub(super) fn unsent(&self) {
        self.unsent.fetch_add(1, Relaxed);
    }

    pub(super) fn completed(&self) {
        self.completed.fetch_add(1, Relaxed);
    }

    /// Records that a revocation by the operator was acknowledged.
    pub fn revoked(&self, us: u64) {
        self.revocations.record(us);
        self.revoked.fetch_add(1, Relaxed);
    }

    pub(super) fn done(&self, sent: Instant, answer: LoadAnswer) {
        match answer {
            LoadAnswer::Issued { credential, .. } => {
                *self.last_issued.lock() = credential;
                self.issued.fetch_add(1, Relaxed);
                self.latency.record(micros(sent));
            }
            LoadAnswer::Refused(why) => {
                if let Some(why) = why {
                    self.first_refusal.get_or_init(|| why);
                }
                self.refused.fetch_add(1, Relaxed);
                self.refusals.record(micros(sent));
            }
            // An exchange in flight at the end is not counted as an error.
            LoadAnswer::Failed(_) if self.stopped() => {}
            LoadAnswer::Failed(error) => {
                self.errors.fetch_add(1, Relaxed);
                self.wrong(error);
            }
        }
    }
}
