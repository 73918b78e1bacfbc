//! Use reports: collected in the background, aggregated where they are equal, and sent in batches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use backon::BackoffBuilder as _;
use mayfly_verify::clock::{Clock as _, RealClock};
use tokio::sync::{mpsc, oneshot};
use tonic::Request;

use crate::backoff::backoff;
use crate::error::Error;
use crate::limits;
use crate::link::Link;
use crate::pb::mayfly::v1 as pb;
use crate::pb::mayfly::v1::audit_service_client::AuditServiceClient;

/// The outcome of a use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The upstream accepted it.
    Accepted,
    /// The upstream refused it.
    Refused,
    /// The upstream accepted it, and the operation failed.
    Failed,
}

impl From<u16> for Outcome {
    /// The outcome of an HTTP status: 401 and 403 are refusals, other error statuses are failures.
    fn from(status: u16) -> Outcome {
        match status {
            401 | 403 => Outcome::Refused,
            0..=399 => Outcome::Accepted,
            _ => Outcome::Failed,
        }
    }
}

impl From<http::StatusCode> for Outcome {
    fn from(status: http::StatusCode) -> Outcome {
        status.as_u16().into()
    }
}

enum ReporterMessage {
    Use { credential: String, tool: String, outcome: Outcome },
    Flush(oneshot::Sender<()>),
}

/// The entry point for reporting uses.
pub struct UseReporter {
    to: mpsc::Sender<ReporterMessage>,
    lost: Arc<AtomicU64>,
}

impl UseReporter {
    /// Starts collecting and sending.
    pub fn begin(link: Link) -> UseReporter {
        let (to, from) = mpsc::channel(limits::USES_WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        tokio::spawn(Reporter { link, lost: lost.clone(), gathered: Gathered::new() }.run(from));
        UseReporter { to, lost }
    }

    /// Adds a use without blocking. If too many uses are queued, it is only counted as lost.
    pub fn add(&self, credential: &str, tool: &str, outcome: Outcome) {
        let said = ReporterMessage::Use { credential: credential.to_owned(), tool: tool.to_owned(), outcome };
        if self.to.try_send(said).is_err() {
            lose(&self.lost, 1);
        }
    }

    /// Uses that will never be reported: too many were queued, or it is unknown whether mayfly counted them.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Sends the collected uses once.
    pub async fn flush(&self) {
        let (done, sent) = oneshot::channel();
        if self.to.send(ReporterMessage::Flush(done)).await.is_ok() {
            let _ = sent.await;
        }
    }
}

fn lose(lost: &AtomicU64, count: u32) {
    let before = lost.fetch_add(u64::from(count), Ordering::Relaxed);
    if before == 0 {
        tracing::warn!("use reports were dropped: the queue is full, or the server does not answer");
    }
}

/// Uses by credential, tool and outcome, with their number and the time of the last one.
type Gathered = BTreeMap<What, Tally>;
type What = (String, String, i32);
type Tally = (u32, SystemTime);

struct Reporter {
    link: Link,
    lost: Arc<AtomicU64>,
    gathered: Gathered,
}

impl Reporter {
    async fn run(mut self, mut from: mpsc::Receiver<ReporterMessage>) {
        let growing = backoff(2 * limits::USES_EVERY, limits::USES_PAUSE);
        let (mut pause, mut pauses) = (limits::USES_EVERY, growing.build());
        let mut due = Box::pin(tokio::time::sleep(pause));
        loop {
            let (done, ended) = tokio::select! {
                () = &mut due => (None, false),
                said = from.recv() => match said {
                    Some(ReporterMessage::Use { credential, tool, outcome }) => {
                        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(RealClock::new().wall().0);
                        self.gather((credential, tool, number(outcome)), 1, at);
                        // A full report is sent at once, except to a server that does not respond.
                        if self.gathered.len() < limits::REPORT_USES || pause > limits::USES_EVERY {
                            continue;
                        }
                        (None, false)
                    }
                    Some(ReporterMessage::Flush(done)) => (Some(done), false),
                    None => (None, true),
                },
            };
            let sent = self.gathered.is_empty() || self.report().await;
            if sent {
                (pause, pauses) = (limits::USES_EVERY, growing.build());
            } else {
                // Jittered, so that the clients of a server that was down do not all report at the same moment.
                pause = pauses.next().unwrap_or(limits::USES_PAUSE);
            }
            due = Box::pin(tokio::time::sleep(pause));
            drop(done);
            if ended {
                return self.gathered.into_values().for_each(|(count, _)| lose(&self.lost, count));
            }
        }
    }

    fn gather(&mut self, key: What, count: u32, at: SystemTime) {
        if self.gathered.len() >= limits::REPORT_USES && !self.gathered.contains_key(&key) {
            return lose(&self.lost, count);
        }
        let (all, last) = self.gathered.entry(key).or_insert((0, SystemTime::UNIX_EPOCH));
        *all = all.saturating_add(count);
        *last = (*last).max(at);
    }

    /// Sends everything collected. Uses that mayfly certainly did not count are collected again. If it is unknown whether mayfly counted
    /// them, they are lost: counting a use twice would show a use that never happened.
    async fn report(&mut self) -> bool {
        let all: Vec<_> = std::mem::take(&mut self.gathered).into_iter().collect();
        let uses = all.iter().map(|((credential_id, tool, outcome), (count, at))| pb::Use {
            credential_id: credential_id.clone(),
            tool: tool.clone(),
            outcome: *outcome,
            at: Some((*at).into()),
            count: *count,
        });
        let mut ask = Request::new(pb::ReportUseRequest { uses: uses.collect() });
        ask.set_timeout(limits::REPORT);
        let mut client = AuditServiceClient::new(self.link.channel());
        match tokio::time::timeout(limits::REPORT, client.report_use(ask)).await {
            Ok(Ok(answer)) => {
                let problems = answer.into_inner().problems;
                let refused = |at: usize| problems.iter().find(|p| p.index as usize == at).and_then(|p| p.problem.as_ref());
                for (at, (key, (count, last))) in all.into_iter().enumerate() {
                    match refused(at) {
                        Some(problem) if problem.reason == "LIMIT_REACHED" => self.gather(key, count, last),
                        // A workload that is not a server of the upstream gets this answer. Reporting was worth a try and nothing depends
                        // on it.
                        Some(problem) => tracing::debug!(reason = problem.reason, "the server refused a use report"),
                        None => {}
                    }
                }
                true
            }
            Ok(Err(status)) => {
                tracing::debug!(code = ?status.code(), "the server refused a batch of use reports");
                let uncounted = never_sent(&status) || Error::from(status).refusal().is_some_and(|r| !r.reason.is_empty());
                self.back(all, uncounted)
            }
            Err(_) => self.back(all, false),
        }
    }

    fn back(&mut self, all: Vec<(What, Tally)>, uncounted: bool) -> bool {
        for (key, (count, last)) in all {
            match uncounted {
                true => self.gather(key, count, last),
                false => lose(&self.lost, count),
            }
        }
        false
    }
}

/// Whether there was no connection to send the report over.
fn never_sent(status: &tonic::Status) -> bool {
    let first: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(status);
    std::iter::successors(first, |e| e.source()).any(|e| e.is::<tonic::ConnectError>())
}

fn number(outcome: Outcome) -> i32 {
    let outcome = match outcome {
        Outcome::Accepted => pb::UseOutcome::Accepted,
        Outcome::Refused => pb::UseOutcome::Refused,
        Outcome::Failed => pb::UseOutcome::Failed,
    };
    outcome as i32
}
