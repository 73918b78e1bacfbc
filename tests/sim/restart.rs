//! Process ends and starts: what a process loses, and the state that it restarts with.

use mayfly::ledger::State;
use mayfly::ledger::clock::GuardedClock;
use mayfly::ledger::commit::WriterHead;
use mayfly::ledger::record::{Author, Event, Record, TaskHeartbeats};
use mayfly::limits;
use mayfly::system::System;

use crate::broken::Broken;
use crate::op::Op;
use crate::world::{Found, World, fold};

impl World {
    /// The process ends at once and restarts: everything that was not in the store is lost; the commit under way may or may not have
    /// reached the store.
    pub fn crash(&mut self, w: usize, op: &Op) -> Result<(), Found> {
        self.counts.crashes += 1;
        while op.once_in(1, self.writers[w].flying.len() as u32, 2)
            && let Some(flight) = self.writers[w].flying.pop_front()
        {
            self.append(flight.bytes)?;
        }
        if self.broken == Broken::LosesTheLast && !self.several() && self.store.len() > 1 {
            self.store.pop();
        }
        let from = self.snapshot.as_ref().filter(|(at, _)| op.once_in(2, 0, 2) && *at <= self.store.len());
        let mut state = match from {
            Some((_, bytes)) => postcard::from_bytes(bytes).map_err(|e| e.to_string())?,
            None => State::default(),
        };
        for at in state.position as usize..self.store.len() {
            fold(&mut state, at as u64 + 1, &self.store[at], self.broken)?;
        }
        if state.digest().ok() != self.digests.last().copied() {
            return Err("a start from the store does not give the state that was acknowledged".into());
        }
        let writer = &mut self.writers[w];
        let clock = writer.clock.clone();
        writer.chain = state.writers.get(&writer.id).copied().unwrap_or(WriterHead::START);
        writer.guard = GuardedClock::new(System::with_clock(clock), limits::CLOCK_SKEW_MS);
        writer.durable = state.head;
        let away_since = state.time.0;
        writer.state = state;
        writer.pending.clear();
        writer.flying.clear();
        writer.awaited.clear();
        let alive = TaskHeartbeats { tasks: Vec::new(), all: true, away_since };
        let record = Record::new(Author::Mayfly("started".into()), Event::TaskHeartbeats(alive));
        self.propose(w, vec![record], false, false);
        Ok(())
    }

    /// A snapshot of the observer's state, as a file would hold it.
    pub fn take_snapshot(&mut self) -> Result<(), Found> {
        let bytes = postcard::to_stdvec(&self.observer).map_err(|e| e.to_string())?;
        let back: State = postcard::from_bytes(&bytes).map_err(|e| e.to_string())?;
        if back.digest().ok() != self.observer.digest().ok() {
            return Err("a snapshot read back is another state".into());
        }
        // The observer continues with the copy, so that anything a snapshot leaves out shows up later.
        self.observer = back;
        self.snapshot = Some((self.store.len(), bytes));
        Ok(())
    }
}
