//! A summary of the state at the durable head, for threads of low priority.
//!
//! The writer waits for readers of the state's lock, and a low-priority reader may be without a core for as long as other threads have
//! work: tens of milliseconds on a busy machine. Low-priority threads therefore never take the state's lock. The facts that they need are
//! kept here, as of the last durable commit, and are read without a lock.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::RwLockReadGuard;

use crate::Inner;
use crate::state::{RemovedHistory, SnapshotRef, State};
use mayfly_store::Position;
use mayfly_verify::seq::Millis;

/// The summary as of a durable commit.
pub(crate) struct DurableSummary {
    /// The removed part of the history, and the position at which the kept part begins.
    pub removed: Arc<RemovedHistory>,
    /// The snapshots whose digest is in the log, newest first.
    pub snapshots: [Option<SnapshotRef>; 2],
    /// Bytes of all commits.
    pub bytes: u64,
    /// The commit's time.
    pub time: Millis,
}

impl DurableSummary {
    pub fn of(state: &State) -> DurableSummary {
        DurableSummary::with(Arc::new(state.removed.clone()), state)
    }

    /// The summary of a later commit. The removed part seldom changes, so it is shared.
    pub fn next(&self, state: &State) -> DurableSummary {
        match self.removed.before == state.removed.before {
            true => DurableSummary::with(self.removed.clone(), state),
            false => DurableSummary::of(state),
        }
    }

    fn with(removed: Arc<RemovedHistory>, state: &State) -> DurableSummary {
        let snapshots = [state.snapshot, state.snapshot_before];
        DurableSummary { removed, snapshots, bytes: state.bytes, time: state.time }
    }
}

impl State {
    /// The position of the oldest commit with an issuance that is still alive, or of the newest commit: a retry makes the credential again
    /// from its record.
    ///
    /// Visits every credential: call it on a frozen state.
    pub(crate) fn oldest_alive(&self) -> Position {
        let all = (0..self.credentials.places()).filter_map(|slot| self.credentials.at(slot));
        all.filter(|l| l.expires_at() > self.time).map(|l| l.at()).fold(self.position, Position::min)
    }
}

impl Inner {
    /// Read-locks the state, at the appended head. The writer waits for the lock.
    pub(crate) fn look(&self) -> RwLockReadGuard<'_, State> {
        debug_assert!(!stands_back(), "a thread of low priority would have the writer wait for as long as it is not scheduled");
        self.state.read()
    }

    /// The summary as of the newest durable commit, or of the one right before it.
    pub(crate) fn standing(&self) -> arc_swap::Guard<Arc<DurableSummary>> {
        self.standing.load()
    }

    /// Raises [`Inner::alive_since`] to the position of the oldest commit of this frozen state with an issuance that is still alive. Later
    /// commits have higher positions, so the bound holds for them as well.
    pub(crate) fn note_alive(&self, frozen: &State) {
        self.alive_since.fetch_max(frozen.oldest_alive(), Ordering::AcqRel);
    }
}

thread_local! {
    static STANDS_BACK: Cell<bool> = const { Cell::new(false) };
}

fn stands_back() -> bool {
    STANDS_BACK.get()
}

/// Gives this thread a low priority, so that threads that serve callers go first. Such a thread must never hold a lock that the writer
/// waits for ([`Inner::look`]).
pub fn mark_background_thread() {
    STANDS_BACK.set(true);
    lower_thread_priority();
}

/// As [`mark_background_thread`], for a thread that reads the state once for each unit of slow work, such as a call to another server.
pub fn lower_thread_priority() {
    // On Linux the priority is the calling thread's own. If the call fails, the thread runs at normal priority.
    let _ = rustix::process::setpriority_process(None, BACKGROUND);
}

/// Niceness of background threads: a tenth of the share of serving threads when there is not enough CPU for all.
const BACKGROUND: i32 = 10;
