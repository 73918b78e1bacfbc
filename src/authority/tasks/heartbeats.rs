//! Coalesces heartbeats: those of many tasks are written as one record per second.

use std::collections::BTreeSet;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::authority::Authority;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Reason, Refusal};
use mayfly_ledger::record::{Author, Event, Record, TaskHeartbeats};
use mayfly_ledger::{Ledger, ProposalKind};
use mayfly_verify::seq::TaskId;

/// The heartbeats received since the last record.
#[derive(Default)]
pub struct Heartbeats {
    waiting: Mutex<Batch>,
    /// The tasks of the record that is being written.
    writing: Mutex<BTreeSet<TaskId>>,
}

/// The heartbeats of the next record, and the callers that wait for exactly this record; a later record does not confirm them.
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
    /// Records that the machine was suspended for `slept_ms` and received no heartbeats: every task that was not overdue before gets one
    /// more interval, as after a start.
    pub async fn resumed_after(&self, slept_ms: u64) -> Result<(), Error> {
        let away_since = self.system.wall().minus(slept_ms);
        tracing::warn!(slept_ms, "the machine was suspended; every heartbeat gets one interval more");
        let alive = TaskHeartbeats { tasks: Vec::new(), all: true, away_since: away_since.0 };
        let record = Record::new(Author::Mayfly("resumed".into()), Event::TaskHeartbeats(alive));
        self.ledger.commit(ProposalKind::Revoke, vec![record]).await.map(drop)
    }
}

impl Heartbeats {
    /// Takes a heartbeat, and waits for the record that contains it.
    pub async fn beat(&self, id: TaskId) -> Result<(), Error> {
        let mut written = {
            let mut waiting = self.waiting.lock();
            if waiting.tasks.len() >= limits::TASKS {
                return Err(Error::Refusal(Refusal::limit("tasks", limits::TASKS as u64, Duration::from_secs(1))));
            }
            waiting.tasks.insert(id);
            waiting.written.subscribe()
        };
        let known = tokio::time::timeout(Duration::from_secs(10), written.wait_for(Option::is_some)).await;
        match known.map(|said| said.map(|written| *written)) {
            Ok(Ok(Some(true))) => Ok(()),
            _ => Err(Error::Refusal(
                Refusal::new(Reason::NotReady, "the heartbeat could not be written").retry(Duration::from_secs(1)),
            )),
        }
    }

    /// Writes the collected heartbeats. Called once a second.
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
        // 18 bytes per task: 16,384 stay well below the bound of a record.
        for tasks in all.chunks(16_384) {
            let beats = TaskHeartbeats { tasks: tasks.to_vec(), all: false, away_since: 0 };
            let record = Record::new(Author::Mayfly("heartbeats".into()), Event::TaskHeartbeats(beats));
            written &= ledger.commit(ProposalKind::Change, vec![record]).await.is_ok();
        }
        self.writing.lock().clear();
        batch.written.send_replace(Some(written));
    }

    /// Whether a task has sent a heartbeat that is not written yet.
    pub fn is_waiting(&self, id: &TaskId) -> bool {
        // Checked in the order in which heartbeats move, so that one that moves in between is not missed.
        self.waiting.lock().tasks.contains(id) || self.writing.lock().contains(id)
    }
}
