//! Signs of life, gathered: many tasks, one record a second.

use std::collections::BTreeSet;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::authority::Authority;
use crate::ledger::record::{Event, Record, TaskHeartbeats, Who};
use crate::ledger::{Lane, Ledger};
use crate::limits;
use crate::refusal::{No, Reason, Refusal};
use crate::seq::TaskId;

/// Collects signs of life between two records.
pub struct Heartbeats {
    waiting: Mutex<Waiting>,
    /// The newest round that is durable, and whether its record was written.
    done: watch::Sender<(u64, bool)>,
}

struct Waiting {
    tasks: BTreeSet<TaskId>,
    round: u64,
}

impl Default for Heartbeats {
    fn default() -> Heartbeats {
        Heartbeats { waiting: Mutex::new(Waiting { tasks: BTreeSet::new(), round: 1 }), done: watch::Sender::new((0, true)) }
    }
}

impl Authority {
    /// The machine was suspended for so long and heard nobody: every task that was not silent before gets one interval more, as after a start.
    pub(crate) async fn resumed_after(&self, slept_ms: u64) -> Result<(), No> {
        let away_since = self.system.wall().minus(slept_ms);
        tracing::warn!(slept_ms, "the machine was suspended; every heartbeat gets one interval more");
        let alive = TaskHeartbeats { tasks: Vec::new(), all: true, away_since: away_since.0 };
        let record = Record::new(Who::Mayfly("resumed".into()), Event::TaskHeartbeats(alive));
        self.ledger.commit(Lane::Revoke, vec![record]).await.map(drop)
    }
}

impl Heartbeats {
    /// Notes a sign of life and waits for the record that holds it.
    pub async fn beat(&self, id: TaskId) -> Result<(), No> {
        let mut done = self.done.subscribe();
        let round = {
            let mut waiting = self.waiting.lock();
            if waiting.tasks.len() >= limits::TASKS {
                return Err(No::Refusal(Refusal::limit("tasks", limits::TASKS as u64, Duration::from_secs(1))));
            }
            waiting.tasks.insert(id);
            waiting.round
        };
        let written = tokio::time::timeout(Duration::from_secs(10), done.wait_for(|(r, _)| *r >= round)).await;
        match written.map(|r| r.map(|v| *v)) {
            Ok(Ok((_, true))) => Ok(()),
            _ => Err(No::Refusal(
                Refusal::new(Reason::NotReady, "the sign of life could not be written").retry(Duration::from_secs(1)),
            )),
        }
    }

    /// Writes what was gathered. Called once a second.
    pub async fn flush(&self, ledger: &Ledger) {
        let (tasks, round) = {
            let mut waiting = self.waiting.lock();
            if waiting.tasks.is_empty() {
                return;
            }
            let round = waiting.round;
            waiting.round += 1;
            (std::mem::take(&mut waiting.tasks), round)
        };
        let mut written = true;
        let all: Vec<Vec<u8>> = tasks.iter().map(|id| id.as_bytes().to_vec()).collect();
        // 18 bytes each: 16,384 stay well below a record's bound.
        for tasks in all.chunks(16_384) {
            let beats = TaskHeartbeats { tasks: tasks.to_vec(), all: false, away_since: 0 };
            let record = Record::new(Who::Mayfly("heartbeats".into()), Event::TaskHeartbeats(beats));
            written &= ledger.commit(Lane::Change, vec![record]).await.is_ok();
        }
        self.done.send_replace((round, written));
    }
}
