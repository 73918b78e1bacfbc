//! The thread that moves appended commits to the engine, and the state that it shares with appends and reads.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::tail::Tail;
use crate::head::{HeadFile, HeadMark};
use crate::panic_guard::{guarded, stopped};
use crate::{Position, Store, StoreError, StoredCommit};
use mayfly_base::limits;
use mayfly_base::system::Stopwatch;

/// The state that appending, reading and moving share.
pub(super) struct WalState {
    /// Changed under the state's lock, read without a lock.
    tail: Tail,
    state: Mutex<State>,
    /// Signalled when the head has moved.
    grown: Condvar,
    /// Signalled when there is something to move, or at the end.
    work: Condvar,
    /// Signalled when commits were moved, or when none will be any more.
    moved: Condvar,
    /// The head file and its mark; `None` if there is none. Changed by the appending thread.
    beside: Option<(HeadFile, Mutex<HeadMark>)>,
}

struct State {
    /// The position for the first commit ever, 0 for the beginning.
    first: Position,
    /// Commits up to this position are to be moved.
    due: Position,
    closing: bool,
    /// The first failure, until it was reported to a caller.
    failure: Option<StoreError>,
    /// Why nothing is accepted any more.
    stopped: Option<String>,
    /// Since when the head file has a mark that is not on stable storage.
    unsynced: Option<Stopwatch>,
}

impl State {
    fn running(&mut self) -> Result<(), StoreError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        match &self.stopped {
            None => Ok(()),
            Some(why) => Err(stopped(why)),
        }
    }
}

impl WalState {
    /// `found`: the commits that the engine, whose head is `head`, lacks. They are due.
    pub fn new(head: Position, found: Vec<StoredCommit>, beside: Option<(HeadFile, HeadMark)>) -> WalState {
        let tail = Tail::new(head, found);
        let state = State { first: 0, due: tail.head(), closing: false, failure: None, stopped: None, unsynced: None };
        let beside = beside.map(|(file, mark)| (file, Mutex::new(mark)));
        WalState { tail, state: Mutex::new(state), grown: Condvar::new(), work: Condvar::new(), moved: Condvar::new(), beside }
    }

    /// Notes in the head file that a durable commit is about to be acknowledged: if the log is found without it, something was lost.
    pub fn acknowledges(&self, at: Position) -> Result<(), StoreError> {
        let Some((file, mark)) = &self.beside else { return Ok(()) };
        let mut mark = mark.lock();
        *mark = HeadMark { change: mark.change + 1, head: at };
        file.note(*mark).inspect_err(|e| self.stop(e))?;
        let mut state = self.state.lock();
        if state.unsynced.is_none() {
            state.unsynced = Some(Stopwatch::start());
            self.work.notify_one();
        }
        Ok(())
    }

    /// Syncs the head file; called by a thread that is otherwise idle.
    fn sync_beside(&self) {
        if let Some(Err(error)) = self.beside.as_ref().map(|(file, _)| file.sync()) {
            tracing::error!(%error, "the head file beside the write-ahead log could not be synced");
            self.stop(&error);
        }
    }

    /// An error once something has failed.
    pub fn running(&self) -> Result<(), StoreError> {
        self.state.lock().running()
    }

    /// Accepts nothing any more. The thread that failed reports the error.
    pub fn stop(&self, error: &StoreError) {
        self.state.lock().stopped.get_or_insert_with(|| error.to_string());
        self.moved.notify_all();
    }

    pub fn head(&self) -> Position {
        self.tail.head()
    }

    pub fn next(&self) -> Position {
        match self.head() {
            0 => self.state.lock().first.max(1),
            head => head + 1,
        }
    }

    /// The first position that is not in the engine, 0 for none.
    pub fn oldest(&self) -> Position {
        self.tail.oldest()
    }

    pub fn begin_at(&self, first: Position) {
        self.state.lock().first = first;
    }

    /// A commit is durable in the log.
    pub fn appended(&self, entry: StoredCommit) {
        let state = self.state.lock();
        self.tail.push(entry);
        drop(state);
        self.grown.notify_all();
    }

    /// Commits up to this position were appended to the engine directly.
    pub fn passed(&self, last: Position) {
        let state = self.state.lock();
        self.tail.passed(last);
        drop(state);
        self.grown.notify_all();
    }

    /// The content of a log file is to be moved, up to this position.
    pub fn due(&self, upto: Position) {
        let mut state = self.state.lock();
        state.due = state.due.max(upto);
        self.work.notify_one();
    }

    /// Waits until all commits up to a position are in the engine.
    pub fn wait_moved(&self, upto: Position) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        while (1..=upto).contains(&self.tail.oldest()) {
            state.running()?;
            self.moved.wait(&mut state);
        }
        state.running()
    }

    /// Moves all commits up to a position, and waits for that.
    pub fn drain(&self, upto: Position) -> Result<(), StoreError> {
        let upto = upto.min(self.head());
        self.due(upto);
        self.wait_moved(upto)
    }

    /// The commits from a position on that are not in the engine. `None` if they are there, or are being moved.
    pub fn read(&self, from: Position, max_bytes: usize, at_least_one: bool) -> Option<Vec<StoredCommit>> {
        self.tail.read(from, max_bytes, at_least_one)
    }

    pub fn follow(&self, after: Position, wait: Duration) -> Position {
        let mut state = self.state.lock();
        self.grown.wait_while_for(&mut state, |_| self.head() <= after, wait);
        self.head()
    }

    /// Moves everything that can be moved, and then stops.
    pub fn close(&self) {
        let mut state = self.state.lock();
        (state.closing, state.due) = (true, Position::MAX);
        self.work.notify_one();
    }

    /// The next commits to move; `None` at the end.
    fn next_due(&self) -> Option<Vec<StoredCommit>> {
        let mut state = self.state.lock();
        let first = loop {
            let left = state.unsynced.map(|since| limits::STORE_HEAD_SYNC_MS.saturating_sub(since.us() / 1_000));
            if left == Some(0) || (left.is_some() && state.closing) {
                state.unsynced = None;
                MutexGuard::unlocked(&mut state, || self.sync_beside());
                continue;
            }
            let first = self.tail.oldest();
            if state.stopped.is_none() && (1..=state.due).contains(&first) {
                break first;
            }
            if state.closing || state.stopped.is_some() {
                return None;
            }
            match left {
                Some(left) => drop(self.work.wait_for(&mut state, Duration::from_millis(left))),
                None => self.work.wait(&mut state),
            }
        };
        let mut some = self.tail.read(first, limits::STORE_LOG_MOVE_BYTES, true)?;
        some.retain(|e| e.at <= state.due);
        Some(some)
    }
}

/// Starts the thread that moves due commits to the engine.
pub(super) fn start<S: Store>(engine: Arc<S>, shared: Arc<WalState>) -> Result<JoinHandle<()>, StoreError> {
    let run = move || {
        while let Some(some) = shared.next_due() {
            let (Some(first), Some(last)) = (some.first().map(|e| e.at), some.last().map(|e| e.at)) else { break };
            let commits: Vec<&[u8]> = some.iter().map(|e| &*e.bytes).collect();
            let done = guarded("moving", || engine.append_all(first, &commits));
            let mut gone = None;
            let mut state = shared.state.lock();
            match done {
                Ok(()) => gone = shared.tail.moved(last),
                Err(error) => {
                    tracing::error!(
                        %error,
                        first,
                        last,
                        "commits could not be moved from the write-ahead log to the store; they are durable in the log"
                    );
                    state.stopped.get_or_insert_with(|| error.to_string());
                    state.failure = Some(error);
                }
            }
            drop(state);
            shared.moved.notify_all();
            drop((some, gone));
        }
    };
    std::thread::Builder::new()
        .name("store-mover".into())
        .spawn(run)
        .map_err(|e| StoreError::Failed(format!("starting a thread: {e}")))
}
