//! Replicas and their followers.

use mayfly::ledger::record::Event;
use mayfly::limits;
use mayfly::revocation::{FeedEvent, Heartbeat, snapshot_of};
use mayfly::seq::Seq;

use crate::broken::Broken;
use crate::model::Line;
use crate::watch::Message;
use crate::world::{Found, World};

impl World {
    /// A replica sends the events of a commit that it knows to be durable.
    pub fn tell(&mut self, w: usize, commit: usize) {
        let (from, to) = (self.told[commit], self.told.get(commit + 1).copied().unwrap_or(self.feed.len()));
        for at in from..to {
            let previous = if at == 0 { Seq::ZERO } else { self.feed[at - 1].seq() };
            for watcher in self.watchers.iter_mut().filter(|f| f.source == w) {
                watcher.channel.push_back(Message::Event(previous, self.feed[at].clone()));
            }
        }
    }

    /// A replica sends a heartbeat to its followers.
    pub fn beat(&mut self, w: usize) {
        let several = self.several();
        let writer = &mut self.writers[w];
        let now = writer.guard.now();
        let mut fresh_at = if several { writer.fresh } else { now.max(writer.state.time) };
        if self.broken == Broken::FreshWithoutProof {
            fresh_at = now.max(writer.state.time);
        }
        let head = writer.durable;
        let previous = self.feed.iter().map(FeedEvent::seq).filter(|s| *s <= head).max().unwrap_or_default();
        let beat =
            Heartbeat { time_generation: self.time_began(head), head, previous, fresh_at, max_age: limits::FEED_MAX_AGE_MS };
        for watcher in self.watchers.iter_mut().filter(|f| f.source == w) {
            watcher.channel.push_back(Message::Beat(beat));
        }
    }

    /// The newest generation up to `head` that began at an earlier time, or else the first.
    pub fn time_began(&self, head: Seq) -> u8 {
        let lines = self.model.log.iter().filter(|l| l.valid && l.seq <= head);
        let began = |l: &Line| matches!(&l.record.event, Some(Event::GenerationBegun(g)) if g.reset_time || g.generation == 1);
        lines.filter(|l| began(l)).map(|l| l.seq.generation()).max().unwrap_or(0)
    }

    pub fn deliver(&mut self, f: usize, most: usize) -> Result<(), Found> {
        for _ in 0..most {
            let Some(message) = self.watchers[f].channel.pop_front() else { break };
            self.watchers[f].take(message)?;
        }
        crate::check::follower(self, f)
    }

    /// A follower begins anew with a snapshot of a replica, and receives a heartbeat at once.
    pub fn reconnect(&mut self, f: usize, w: usize) -> Result<(), Found> {
        let writer = &self.writers[w];
        // With one writer the state may be ahead of the durable head; the observer's state is the durable one.
        let state = if self.several() { &writer.state } else { &self.observer };
        let snapshot = snapshot_of(state);
        let (head, time) = (state.head, state.time);
        let fresh_at = if self.several() { writer.fresh.max(time) } else { self.writers[w].guard.now().max(time) };
        let watcher = &mut self.watchers[f];
        if snapshot.seq < watcher.applied {
            // The follower must refuse a replica that is behind it: accepting the snapshot would lose what was seen.
            return match watcher.follower.clone().begin(&snapshot) {
                Err(_) => Ok(()),
                Ok(()) => Err("an older snapshot was taken".into()),
            };
        }
        watcher.follower.begin(&snapshot).map_err(|e| format!("the snapshot was not taken: {e}"))?;
        watcher.begun(head);
        watcher.channel.clear();
        watcher.source = w;
        let previous = self.feed.iter().map(FeedEvent::seq).filter(|s| *s <= head).max().unwrap_or_default();
        let time_generation = self.time_began(head);
        let beat = Heartbeat { head, previous, fresh_at, max_age: limits::FEED_MAX_AGE_MS, time_generation };
        self.watchers[f].take(Message::Beat(beat))?;
        crate::check::follower(self, f)
    }
}
