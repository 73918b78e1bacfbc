//! Detects a stalled disk: the writer hangs in one commit and cannot report this itself.
//!
//! A separate thread watches the writer. When a commit has taken longer than `limits::COMMIT_STALL_MS`, the callers that wait for it are
//! told that it may or may not be written, the proposals behind it are refused, and no more are accepted until the writer goes on: callers
//! fail within a bound instead of hanging, and health reports the stall. The stalled commit may become durable all the same; a retry with
//! the same request id then receives its result.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::writer::commit_loop::PendingAnswer;
use crate::{Inner, not_written};
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Refusal};
use mayfly_base::system::Stopwatch;

/// How often the writer is checked.
const LOOK: Duration = Duration::from_millis(500);

/// The commit that the writer is working on.
#[derive(Default)]
pub(crate) struct CommitInProgress {
    commit: Mutex<Commit>,
    stalled: AtomicBool,
}

#[derive(Default)]
struct Commit {
    since: Option<Stopwatch>,
    /// The callers that wait for the commit. Taken by the writer after the write, or by the watching thread when the writer is stalled.
    answers: Vec<PendingAnswer>,
}

impl CommitInProgress {
    /// The writer begins with a batch, or with its idle checks.
    pub fn begins(&self) {
        self.commit.lock().since = Some(Stopwatch::start());
    }

    /// Sets the callers to be answered when the commit is written.
    pub fn waits(&self, answers: Vec<PendingAnswer>) {
        self.commit.lock().answers = answers;
    }

    /// The commit is written, or has failed: returns the callers that still wait for it.
    pub fn written(&self) -> Vec<PendingAnswer> {
        std::mem::take(&mut self.commit.lock().answers)
    }

    /// The writer is done with the batch. `true` if it had been stalled.
    pub fn ends(&self) -> bool {
        let mut commit = self.commit.lock();
        commit.since = None;
        self.stalled.swap(false, Ordering::AcqRel)
    }

    /// How long the current commit has taken, in microseconds; 0 when no commit is under way.
    pub fn age_us(&self) -> u64 {
        self.commit.lock().since.map_or(0, Stopwatch::us)
    }

    /// The writer is stalled.
    pub fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Acquire)
    }

    /// If the current commit takes too long: the callers that wait for it, and whether the stall is noticed for the first time.
    fn look(&self) -> Option<(Vec<PendingAnswer>, bool)> {
        let mut commit = self.commit.lock();
        let stalled = commit.since.is_some_and(|since| since.us() / 1_000 >= limits::COMMIT_STALL_MS);
        // Set under the lock: when the writer goes on, it clears the flag under the same lock.
        stalled.then(|| (std::mem::take(&mut commit.answers), !self.stalled.swap(true, Ordering::AcqRel)))
    }
}

/// The refusal that callers receive while the writer is stalled.
pub(crate) fn stall_refusal(age_us: u64) -> Refusal {
    not_written(&format!("the disk of the ledger stands still: a write has been under way for {} s", age_us / 1_000_000))
}

/// Watches the writer until the ledger stops.
pub(crate) fn watch(inner: &Arc<Inner>) {
    while !inner.stopping.load(Ordering::Relaxed) {
        std::thread::park_timeout(LOOK);
        inner.look_at_writer();
    }
}

impl Inner {
    fn look_at_writer(&self) {
        let Some((answers, first)) = self.under_way.look() else { return };
        let no = stall_refusal(self.under_way.age_us());
        if first {
            tracing::error!(why = %no, "the writer is stalled in a commit; proposals are refused until it continues");
        }
        for answer in answers {
            answer.refuse(&Error::Refusal(no.clone()));
        }
        self.queue.refuse_all(&no);
        // Wakes those that wait for the durable head, so that they notice the stall.
        self.durable_watch.send_modify(|_| {});
    }
}
