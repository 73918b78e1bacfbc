//! What threads of low priority go by.
//!
//! The writer waits for whoever reads the state, and whoever reads it at a low priority may be without a core for as long as others have work:
//! tens of milliseconds on a busy machine. So those never take the state's lock. What they need of it stands here, as of the last durable
//! commit, and is read without one.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::RwLockReadGuard;

use super::Inner;
use super::state::{Removed, State, Taken};
use crate::seq::Millis;
use crate::store::Position;

/// As of a durable commit.
pub(super) struct Standing {
    /// What is gone, and where what stays begins.
    pub removed: Arc<Removed>,
    /// The snapshots that the log vouches for, the newest first.
    pub snapshots: [Option<Taken>; 2],
    /// Bytes of all commits.
    pub bytes: u64,
    /// Its time.
    pub time: Millis,
}

impl Standing {
    pub fn of(state: &State) -> Standing {
        Standing::with(Arc::new(state.removed.clone()), state)
    }

    /// That of a later commit. What is removed is seldom new.
    pub fn next(&self, state: &State) -> Standing {
        match self.removed.before == state.removed.before {
            true => Standing::with(self.removed.clone(), state),
            false => Standing::of(state),
        }
    }

    fn with(removed: Arc<Removed>, state: &State) -> Standing {
        let snapshots = [state.snapshot, state.snapshot_before];
        Standing { removed, snapshots, bytes: state.bytes, time: state.time }
    }
}

impl State {
    /// The oldest commit with an issuance of what still lives, or the newest commit: a repeat makes the credential again from its record.
    ///
    /// It looks at every credential: for a frozen state.
    pub(super) fn oldest_alive(&self) -> Position {
        let all = (0..self.credentials.places()).filter_map(|slot| self.credentials.at(slot));
        all.filter(|l| l.expires_at() > self.time).map(|l| l.at()).fold(self.position, Position::min)
    }
}

impl Inner {
    /// The state, at the appended head. The writer waits meanwhile.
    pub(super) fn look(&self) -> RwLockReadGuard<'_, State> {
        debug_assert!(!stands_back(), "a thread of low priority would have the writer wait for as long as it is not scheduled");
        self.state.read()
    }

    /// As of the newest durable commit, or of one right before it.
    pub(super) fn standing(&self) -> arc_swap::Guard<Arc<Standing>> {
        self.standing.load()
    }

    /// Whatever lives was issued there or later: in this frozen state, or after it.
    pub(super) fn note_alive(&self, frozen: &State) {
        self.alive_since.fetch_max(frozen.oldest_alive(), Ordering::AcqRel);
    }
}

thread_local! {
    static STANDS_BACK: Cell<bool> = const { Cell::new(false) };
}

fn stands_back() -> bool {
    STANDS_BACK.get()
}

/// This thread has time: whoever is served goes first. It never holds what the writer waits for ([`Inner::look`]).
pub(crate) fn in_the_background() {
    STANDS_BACK.set(true);
    stand_back();
}

/// The same for one that reads the state once for each thing that takes far longer than any wait for it, such as telling somebody elsewhere.
pub(crate) fn stand_back() {
    // On Linux this is the calling thread's own. It is a wish: without it things go on, less smoothly.
    let _ = rustix::process::setpriority_process(None, BACKGROUND);
}

/// Niceness of threads that nobody waits for: a tenth of the share of those that serve, where there is not enough for all.
const BACKGROUND: i32 = 10;
