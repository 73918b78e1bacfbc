//! Use reports: gathered in the background, counted together where they are alike, sent in batches.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use mayfly_verify::clock::{Clock as _, RealClock};
use tokio::sync::{mpsc, oneshot};

use crate::limits;
use crate::link::Link;
use crate::pb::mayfly::v1 as pb;
use crate::pb::mayfly::v1::audit_service_client::AuditServiceClient;

/// How a use went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was let through.
    Accepted,
    /// The upstream refused it.
    Refused,
    /// It was let through, and failed.
    Failed,
}

impl From<u16> for Outcome {
    /// Of an HTTP status: 401 and 403 are refusals, other errors failures.
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

enum Said {
    Use { credential: String, tool: String, outcome: Outcome },
    Flush(oneshot::Sender<()>),
}

/// Where uses are told.
pub struct Uses {
    to: mpsc::Sender<Said>,
    lost: AtomicU64,
}

impl Uses {
    /// Begins to gather and to send.
    pub fn begin(link: Link) -> Uses {
        let (to, from) = mpsc::channel(limits::USES_WAITING);
        tokio::spawn(send(link, from));
        Uses { to, lost: AtomicU64::new(0) }
    }

    /// Tells one. Nobody waits for it: where too many wait already it is only counted.
    pub fn add(&self, credential: &str, tool: &str, outcome: Outcome) {
        let said = Said::Use { credential: credential.to_owned(), tool: tool.to_owned(), outcome };
        if self.to.try_send(said).is_err() {
            let lost = self.lost.fetch_add(1, Ordering::Relaxed) + 1;
            tracing::warn!(lost, "use reports were not sent: too many wait");
        }
    }

    /// Sends what waits now.
    pub async fn flush(&self) {
        let (done, sent) = oneshot::channel();
        if self.to.send(Said::Flush(done)).await.is_ok() {
            let _ = sent.await;
        }
    }
}

type Gathered = BTreeMap<(String, String, i32), (u32, SystemTime)>;

async fn send(link: Link, mut from: mpsc::Receiver<Said>) {
    let mut gathered = Gathered::new();
    let mut every = tokio::time::interval(limits::USES_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let (due, done, ended) = tokio::select! {
            _ = every.tick() => (true, None, false),
            said = from.recv() => match said {
                Some(Said::Use { credential, tool, outcome }) => {
                    gather(&mut gathered, credential, tool, outcome);
                    (gathered.len() >= limits::REPORT_USES, None, false)
                }
                Some(Said::Flush(done)) => (true, Some(done), false),
                None => (true, None, true),
            },
        };
        if due && !gathered.is_empty() {
            report(&link, std::mem::take(&mut gathered)).await;
        }
        drop(done);
        if ended {
            return;
        }
    }
}

fn gather(gathered: &mut Gathered, credential: String, tool: String, outcome: Outcome) {
    let outcome = match outcome {
        Outcome::Accepted => pb::UseOutcome::Accepted,
        Outcome::Refused => pb::UseOutcome::Refused,
        Outcome::Failed => pb::UseOutcome::Failed,
    };
    let (count, last) = gathered.entry((credential, tool, outcome as i32)).or_insert((0, SystemTime::UNIX_EPOCH));
    *count = count.saturating_add(1);
    *last = SystemTime::UNIX_EPOCH + Duration::from_millis(RealClock::new().wall().0);
}

async fn report(link: &Link, gathered: Gathered) {
    let uses = gathered.into_iter().map(|((credential_id, tool, outcome), (count, at))| pb::Use {
        credential_id,
        tool,
        outcome,
        at: Some(at.into()),
        count,
    });
    let ask = pb::ReportUseRequest { uses: uses.collect() };
    let mut client = AuditServiceClient::new(link.channel());
    match tokio::time::timeout(limits::CALL, client.report_use(ask)).await {
        // Who is no server of the upstream is told so here: it was worth a try, and nothing hangs on it.
        Ok(Ok(answer)) => {
            for problem in answer.into_inner().problems.into_iter().filter_map(|p| p.problem) {
                tracing::debug!(reason = problem.reason, "a use report was not taken");
            }
        }
        Ok(Err(status)) => tracing::debug!(code = ?status.code(), "use reports were not taken"),
        Err(_) => tracing::debug!("use reports were not answered in time"),
    }
}
