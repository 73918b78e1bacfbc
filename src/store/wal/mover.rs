//! What has been appended and is not with the engine yet, and the thread that brings it there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::limits;
use crate::store::guarded::{guarded, stopped};
use crate::store::{Entry, Position, Store, StoreError};

/// What appending, reading and moving share.
pub(super) struct Shared {
    state: Mutex<State>,
    /// The head moved.
    grown: Condvar,
    /// There is something to move, or the end has come.
    work: Condvar,
    /// Something was moved, or nothing will be.
    moved: Condvar,
}

struct State {
    /// What is durable in the log and not yet in the engine, in order.
    tail: VecDeque<Entry>,
    head: Position,
    /// Where the first of all is put, 0 for the beginning.
    first: Position,
    /// All up to this place is to be moved.
    due: Position,
    closing: bool,
    /// The first failure, until somebody was told.
    failure: Option<StoreError>,
    /// Why nothing is taken any more.
    stopped: Option<String>,
}

impl State {
    /// Whether there is something to move.
    fn is_due(&self) -> bool {
        self.stopped.is_none() && self.tail.front().is_some_and(|e| e.at <= self.due)
    }

    /// Whether nothing up to this place has to be moved.
    fn is_moved(&self, upto: Position) -> bool {
        self.tail.front().is_none_or(|e| e.at > upto)
    }

    /// All up to this place is with the engine.
    fn moved(&mut self, last: Position) {
        while self.tail.front().is_some_and(|e| e.at <= last) {
            self.tail.pop_front();
        }
    }

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
    pub fn new(head: Position, found: Vec<Entry>) -> Shared {
        let head = found.last().map_or(head, |e| e.at);
        let tail = VecDeque::from(found);
        let state = State { tail, head, first: 0, due: head, closing: false, failure: None, stopped: None };
        Shared { state: Mutex::new(state), grown: Condvar::new(), work: Condvar::new(), moved: Condvar::new() }
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
        self.state.lock().head
    }

    pub fn next(&self) -> Position {
        let state = self.state.lock();
        if state.head == 0 { state.first.max(1) } else { state.head + 1 }
    }

    /// The first place that is not with the engine, 0 for none.
    pub fn oldest(&self) -> Position {
        self.state.lock().tail.front().map_or(0, |e| e.at)
    }

    pub fn begin_at(&self, first: Position) {
        self.state.lock().first = first;
    }

    /// A commit is durable in the log.
    pub fn appended(&self, entry: Entry) {
        let mut state = self.state.lock();
        state.head = entry.at;
        state.tail.push_back(entry);
        drop(state);
        self.grown.notify_all();
    }

    /// Commits up to this place are with the engine, past the log.
    pub fn passed(&self, last: Position) {
        self.state.lock().head = last;
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
        while !state.is_moved(upto) {
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
        let state = self.state.lock();
        let first = state.tail.front()?.at;
        let skip = usize::try_from(from.checked_sub(first)?).unwrap_or(usize::MAX);
        let (mut bytes, mut out) = (0_usize, Vec::new());
        for entry in state.tail.iter().skip(skip) {
            bytes = bytes.saturating_add(entry.bytes.len());
            if bytes > max_bytes && !(at_least_one && out.is_empty()) {
                break;
            }
            out.push(entry.clone());
        }
        Some(out)
    }

    pub fn follow(&self, after: Position, wait: Duration) -> Position {
        let mut state = self.state.lock();
        self.grown.wait_while_for(&mut state, |s| s.head <= after, wait);
        state.head
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
        while !state.is_due() {
            if state.closing || state.stopped.is_some() {
                return None;
            }
            self.work.wait(&mut state);
        }
        let mut bytes = 0;
        let due = state.due;
        let some = state.tail.iter().take_while(|e| e.at <= due).take_while(|e| {
            bytes += e.bytes.len();
            bytes <= limits::STORE_LOG_MOVE_BYTES || bytes == e.bytes.len()
        });
        Some(some.cloned().collect())
    }
}

/// Starts the thread that brings to the engine what is due.
pub(super) fn start<S: Store>(engine: Arc<S>, shared: Arc<Shared>) -> Result<JoinHandle<()>, StoreError> {
    let run = move || {
        while let Some(some) = shared.next_due() {
            let (Some(first), Some(last)) = (some.first().map(|e| e.at), some.last().map(|e| e.at)) else { break };
            let commits: Vec<&[u8]> = some.iter().map(|e| &*e.bytes).collect();
            let done = guarded("moving", || engine.append_all(first, &commits));
            let mut state = shared.state.lock();
            match done {
                Ok(()) => state.moved(last),
                Err(error) => {
                    tracing::error!(%error, first, last, "commits could not be moved from the log; they are durable in it");
                    state.stopped.get_or_insert_with(|| error.to_string());
                    state.failure = Some(error);
                }
            }
            drop(state);
            shared.moved.notify_all();
        }
    };
    std::thread::Builder::new()
        .name("store-mover".into())
        .spawn(run)
        .map_err(|e| StoreError::Failed(format!("starting a thread: {e}")))
}
