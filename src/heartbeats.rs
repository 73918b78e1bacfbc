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
#[derive(Default)]
pub struct Heartbeats {
    waiting: Mutex<Batch>,
    /// The tasks of the record that is being written.
    writing: Mutex<BTreeSet<TaskId>>,
}

/// The signs of life that one record will hold, and whoever waits for that very record: a later one says nothing of it.
struct Batch {
    tasks: BTreeSet<TaskId>,
    /// Whether the record was written, once that is known.
    written: watch::Sender<Option<bool>>,
}

impl Default for Batch {
    fn default() -> Batch {
        Batch { tasks: BTreeSet::new(), written: watch::Sender::new(None) }
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
        let mut written = {
            let mut waiting = self.waiting.lock();
            if waiting.tasks.len() >= limits::TASKS {
                return Err(No::Refusal(Refusal::limit("tasks", limits::TASKS as u64, Duration::from_secs(1))));
            }
            waiting.tasks.insert(id);
            waiting.written.subscribe()
        };
        let known = tokio::time::timeout(Duration::from_secs(10), written.wait_for(Option::is_some)).await;
        match known.map(|said| said.map(|written| *written)) {
            Ok(Ok(Some(true))) => Ok(()),
            _ => Err(No::Refusal(
                Refusal::new(Reason::NotReady, "the sign of life could not be written").retry(Duration::from_secs(1)),
            )),
        }
    }

    /// Writes what was gathered. Called once a second.
    pub async fn flush(&self, ledger: &Ledger) {
        let batch = {
            let mut waiting = self.waiting.lock();
            if waiting.tasks.is_empty() {
                return;
            }
            let batch = std::mem::take(&mut *waiting);
            *self.writing.lock() = batch.tasks.clone();
            batch
        };
        let mut written = true;
        let all: Vec<Vec<u8>> = batch.tasks.iter().map(|id| id.as_bytes().to_vec()).collect();
        // 18 bytes each: 16,384 stay well below a record's bound.
        for tasks in all.chunks(16_384) {
            let beats = TaskHeartbeats { tasks: tasks.to_vec(), all: false, away_since: 0 };
            let record = Record::new(Who::Mayfly("heartbeats".into()), Event::TaskHeartbeats(beats));
            written &= ledger.commit(Lane::Change, vec![record]).await.is_ok();
        }
        self.writing.lock().clear();
        batch.written.send_replace(Some(written));
    }

    /// Whether a task gave a sign of life that is not written yet.
    pub fn is_waiting(&self, id: &TaskId) -> bool {
        // In the order in which a sign of life goes from one to the other, so that it is not missed between them.
        self.waiting.lock().tasks.contains(id) || self.writing.lock().contains(id)
    }
}
