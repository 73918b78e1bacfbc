//! A follower behind a channel that is slow, loses messages, and has no clock; and beside it a naive model of what it should know.

use std::collections::VecDeque;
use std::sync::Arc;

use mayfly::limits;
use mayfly::revocation::{FeedEvent, Follower, Heartbeat, Moment};
use mayfly::seq::{Millis, Seq};
use mayfly::system::{Clock, ManualClock};

use crate::broken::Broken;
use crate::world::{Found, START};

#[derive(Clone)]
pub enum Message {
    Event(Seq, FeedEvent),
    Beat(Heartbeat),
}

pub struct Watcher {
    pub follower: Follower,
    pub clock: Arc<ManualClock>,
    pub channel: VecDeque<Message>,
    /// The replica that the follower is connected to.
    pub source: usize,
    /// All events up to here were received.
    pub applied: Seq,
    pub whole: bool,
    /// Every heartbeat, and when it was received.
    pub beats: Vec<(Heartbeat, Moment)>,
    /// Credentials that the follower found revoked.
    pub buried: Vec<Vec<u8>>,
}

impl Watcher {
    pub fn new() -> Watcher {
        Watcher {
            follower: Follower::new(),
            clock: ManualClock::at(Millis(START)),
            channel: VecDeque::new(),
            source: 0,
            applied: Seq::ZERO,
            whole: false,
            beats: Vec::new(),
            buried: Vec::new(),
        }
    }

    pub fn moment(&self) -> Moment {
        Moment { wall: self.clock.wall(), steady: self.clock.steady() }
    }

    pub fn begun(&mut self, head: Seq) {
        self.applied = head;
        self.whole = true;
    }

    pub fn take(&mut self, message: Message) -> Result<(), Found> {
        let now = self.moment();
        let (previous, at) = match &message {
            Message::Event(previous, event) => (*previous, event.seq()),
            Message::Beat(beat) => (beat.previous, beat.head),
        };
        let had_it = match &message {
            Message::Event(..) => at <= self.applied,
            Message::Beat(_) => at < self.applied,
        };
        self.whole &= previous <= self.applied;
        let takes = self.whole && !had_it;
        if takes {
            match &message {
                Message::Event(..) => self.applied = at,
                Message::Beat(beat) => {
                    self.applied = at;
                    self.beats.push((*beat, now));
                }
            }
        }
        let took = match &message {
            Message::Event(previous, event) => self.follower.apply(*previous, event),
            Message::Beat(beat) => self.follower.heartbeat(*beat, now),
        };
        if took.is_ok() != takes || self.follower.is_whole() != self.whole || self.follower.applied() != self.applied {
            return Err(format!("a follower took a message otherwise than it should: {took:?}, expected {takes}"));
        }
        Ok(())
    }

    /// The next message is lost.
    pub fn lose(&mut self, broken: Broken) {
        if let Some(Message::Event(..)) = self.channel.pop_front()
            && broken == Broken::FeedHidesGaps
        {
            for message in &mut self.channel {
                match message {
                    Message::Event(previous, _) => *previous = Seq::ZERO,
                    Message::Beat(beat) => beat.previous = Seq::ZERO,
                }
            }
        }
    }

    /// The earliest time that it can be now according to the heartbeats. If time began anew, earlier heartbeats do not count.
    fn proven(&self, now: Moment) -> Option<u64> {
        let began = self.beats.last().map_or(0, |(b, _)| b.time_generation);
        self.beats
            .iter()
            .filter(|(b, _)| b.head.generation() >= began)
            .map(|(b, came)| b.fresh_at.0 + (now.steady - came.steady))
            .max()
    }

    pub fn time(&self, now: Moment) -> u64 {
        now.wall.0.max(self.proven(now).unwrap_or(0))
    }

    pub fn stale(&self, now: Moment) -> bool {
        let proofs = || self.beats.iter().filter(|(b, _)| b.head.generation() == self.applied.generation());
        let Some(newest) = proofs().map(|(b, _)| b.fresh_at.0).max() else { return true };
        let first = proofs().find(|(b, _)| b.fresh_at.0 == newest).map_or(0, |(_, came)| came.steady);
        let late = self.proven(now).unwrap_or(0).saturating_sub(newest).saturating_sub(limits::CLOCK_SKEW_MS);
        now.wall.0.saturating_sub(newest).max(now.steady - first).max(late) > limits::FEED_MAX_AGE_MS
    }
}
