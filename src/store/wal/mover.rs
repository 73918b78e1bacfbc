//! The thread that brings what was appended to the engine, and what it shares with those who append and read.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::tail::Tail;
use crate::limits;
use crate::store::guarded::{guarded, stopped};
use crate::store::head::{HeadFile, Mark};
use crate::store::{Entry, Position, Store, StoreError};
use crate::system::Stopwatch;

/// What appending, reading and moving share.
pub(super) struct Shared {
    /// Changed under the lock of the state, read without it.
    tail: Tail,
    state: Mutex<State>,
    /// The head moved.
    grown: Condvar,
    /// There is something to move, or the end has come.
    work: Condvar,
    /// Something was moved, or nothing will be.
    moved: Condvar,
    /// The file that says which commits were acknowledged, and what it says; `None` where there is none. Changed by whoever appends.
    beside: Option<(HeadFile, Mutex<Mark>)>,
}

struct State {
    /// Where the first of all is put, 0 for the beginning.
    first: Position,
    /// All up to this place is to be moved.
    due: Position,
    closing: bool,
    /// The first failure, until somebody was told.
    failure: Option<StoreError>,
    /// Why nothing is taken any more.
    stopped: Option<String>,
    /// Since when the file beside the log has something that is not on stable storage.
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

impl Shared {
    /// `found`: what the engine, whose newest is at `head`, has not. It is due.
    pub fn new(head: Position, found: Vec<Entry>, beside: Option<(HeadFile, Mark)>) -> Shared {
        let tail = Tail::new(head, found);
        let state = State { first: 0, due: tail.head(), closing: false, failure: None, stopped: None, unsynced: None };
        let beside = beside.map(|(file, mark)| (file, Mutex::new(mark)));
        Shared { tail, state: Mutex::new(state), grown: Condvar::new(), work: Condvar::new(), moved: Condvar::new(), beside }
    }

    /// A commit is durable and about to be acknowledged: whoever finds the log without it is to know that something was lost.
    pub fn acknowledges(&self, at: Position) -> Result<(), StoreError> {
        let Some((file, mark)) = &self.beside else { return Ok(()) };
        let mut mark = mark.lock();
        *mark = Mark { change: mark.change + 1, head: at };
        file.note(*mark).inspect_err(|e| self.stop(e))?;
        let mut state = self.state.lock();
        if state.unsynced.is_none() {
            state.unsynced = Some(Stopwatch::start());
            self.work.notify_one();
        }
        Ok(())
    }

    /// Has what the file beside the log says on stable storage, for who waits with nothing else to do.
    fn sync_beside(&self) {
        if let Some(Err(error)) = self.beside.as_ref().map(|(file, _)| file.sync()) {
            tracing::error!(%error, "the file beside the log that says what was acknowledged");
            self.stop(&error);
        }
    }

    /// An error once something has failed.
    pub fn running(&self) -> Result<(), StoreError> {
        self.state.lock().running()
    }

    /// Nothing is taken any more. Who failed tells it.
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

    /// The first place that is not with the engine, 0 for none.
    pub fn oldest(&self) -> Position {
        self.tail.oldest()
    }

    pub fn begin_at(&self, first: Position) {
        self.state.lock().first = first;
    }

    /// A commit is durable in the log.
    pub fn appended(&self, entry: Entry) {
        let state = self.state.lock();
        self.tail.push(entry);
        drop(state);
        self.grown.notify_all();
    }

    /// Commits up to this place are with the engine, past the log.
    pub fn passed(&self, last: Position) {
        let state = self.state.lock();
        self.tail.passed(last);
        drop(state);
        self.grown.notify_all();
    }

    /// What a file holds is to be moved, up to this place.
    pub fn due(&self, upto: Position) {
        let mut state = self.state.lock();
        state.due = state.due.max(upto);
        self.work.notify_one();
    }

    /// Waits until all up to a place is with the engine.
    pub fn wait_moved(&self, upto: Position) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        while (1..=upto).contains(&self.tail.oldest()) {
            state.running()?;
            self.moved.wait(&mut state);
        }
        state.running()
    }

    /// Has all up to a place moved, and waits for it.
    pub fn drain(&self, upto: Position) -> Result<(), StoreError> {
        let upto = upto.min(self.head());
        self.due(upto);
        self.wait_moved(upto)
    }

    /// What is not with the engine, from a place on. `None` where that is, or is being brought there.
    pub fn read(&self, from: Position, max_bytes: usize, at_least_one: bool) -> Option<Vec<Entry>> {
        self.tail.read(from, max_bytes, at_least_one)
    }

    pub fn follow(&self, after: Position, wait: Duration) -> Position {
        let mut state = self.state.lock();
        self.grown.wait_while_for(&mut state, |_| self.head() <= after, wait);
        self.head()
    }

    /// All is moved that can be, and then no more.
    pub fn close(&self) {
        let mut state = self.state.lock();
        (state.closing, state.due) = (true, Position::MAX);
        self.work.notify_one();
    }

    /// What is to be moved next; `None` at the end.
    fn next_due(&self) -> Option<Vec<Entry>> {
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

/// Starts the thread that brings to the engine what is due.
pub(super) fn start<S: Store>(engine: Arc<S>, shared: Arc<Shared>) -> Result<JoinHandle<()>, StoreError> {
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
                    tracing::error!(%error, first, last, "commits could not be moved from the log; they are durable in it");
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
