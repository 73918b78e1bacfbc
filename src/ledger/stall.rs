//! A disk that stands still: the writer is held up in one commit, and nobody hears of it from the writer itself.
//!
//! A thread of its own looks at the writer. When a commit has taken longer than `limits::COMMIT_STALL_MS`, whoever waits for it is answered
//! that it may or may not be written, what waits behind it is refused, and nothing more is taken until the writer goes on: callers fail
//! within a bound instead of hanging, and health says so. What was being written may become durable all the same; a repeat with the same
//! request id is answered with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::writer::Answer;
use super::{Inner, not_written};
use crate::limits;
use crate::refusal::{No, Refusal};
use crate::system::Stopwatch;

/// How often the writer is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// What the writer is at.
#[derive(Default)]
pub(super) struct UnderWay {
    commit: Mutex<Commit>,
    stalled: AtomicBool,
}

#[derive(Default)]
struct Commit {
    since: Option<Stopwatch>,
    /// Whoever waits for it. Taken by the writer when it is written, or by the look at a writer that is held up.
    answers: Vec<Answer>,
}

impl UnderWay {
    /// The writer begins with a batch, or looks around.
    pub fn begins(&self) {
        self.commit.lock().since = Some(Stopwatch::start());
    }

    /// Whoever is to be told when the commit is written, for as long as it is being written.
    pub fn waits(&self, answers: Vec<Answer>) {
        self.commit.lock().answers = answers;
    }

    /// It is written, or failed: whoever still waits for it.
    pub fn written(&self) -> Vec<Answer> {
        std::mem::take(&mut self.commit.lock().answers)
    }

    /// The writer is done with it. `true` where it had been held up.
    pub fn ends(&self) -> bool {
        let mut commit = self.commit.lock();
        commit.since = None;
        self.stalled.swap(false, Ordering::AcqRel)
    }

    /// How long the commit that is under way has taken, microseconds; 0 where none is.
    pub fn age_us(&self) -> u64 {
        self.commit.lock().since.map_or(0, Stopwatch::us)
    }

    /// The writer is held up.
    pub fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Acquire)
    }

    /// Whoever waits for a commit that takes too long, and whether that is found for the first time.
    fn look(&self) -> Option<(Vec<Answer>, bool)> {
        let mut commit = self.commit.lock();
        let stalled = commit.since.is_some_and(|since| since.us() / 1_000 >= limits::COMMIT_STALL_MS);
        // Under the lock: the writer that goes on takes it back under the same.
        stalled.then(|| (std::mem::take(&mut commit.answers), !self.stalled.swap(true, Ordering::AcqRel)))
    }
}

/// What callers are told while the writer is held up.
pub(super) fn held_up(age_us: u64) -> Refusal {
    not_written(&format!("the disk of the ledger stands still: a write has been under way for {} s", age_us / 1_000_000))
}

/// Looks at the writer until the ledger ends.
pub(super) fn watch(inner: &Arc<Inner>) {
    while !inner.stopping.load(Ordering::Relaxed) {
        std::thread::park_timeout(LOOK);
        inner.look_at_writer();
    }
}

impl Inner {
    fn look_at_writer(&self) {
        let Some((answers, first)) = self.under_way.look() else { return };
        let no = held_up(self.under_way.age_us());
        if first {
            tracing::error!(why = %no, "the writer is held up; nothing is taken until it goes on");
        }
        for answer in answers {
            answer.refuse(&No::Refusal(no.clone()));
        }
        self.queue.refuse_all(&no);
        // Whoever waits for the durable head looks again.
        self.durable_watch.send_modify(|_| {});
    }
}
