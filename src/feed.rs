//! The feed of revocations, and who follows it.
//!
//! Events come from durable commits, in order, each naming the one before it. A follower that falls behind gets an error, never a gap that
//! it cannot see.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};

use crate::ledger::record::{Record, Who};
use crate::ledger::{Batch, State};
use crate::limits;
use crate::refusal::{No, Reason, Refusal};
use crate::revocation::event::{FeedEvent, event_of};
use crate::revoke::Hits;
use crate::seq::{Millis, Seq};

/// One event as it is sent.
#[derive(Debug)]
pub struct Sent {
    /// The seq of the event before it.
    pub previous: Seq,
    /// The event.
    pub event: FeedEvent,
}

/// Why a rule or lock is in force: who made it, when and why.
#[derive(Clone, Debug)]
pub struct Made {
    /// Its record.
    pub record: Arc<Record>,
    /// The time of its commit.
    pub at: Millis,
    /// What it hit, where it was counted.
    pub hits: Option<Hits>,
}

/// Tells followers what is revoked, held and locked.
pub struct Feed {
    ring: Mutex<Ring>,
    live: broadcast::Sender<Arc<Sent>>,
}

struct Ring {
    events: VecDeque<Arc<Sent>>,
    /// Events up to here are no longer in the ring.
    floor: Seq,
    last: Seq,
    /// The durable head up to which commits were taken up.
    head: Seq,
    made: BTreeMap<Seq, Made>,
}

/// What a follower gets first.
pub enum Beginning {
    /// Everything that is in force; live events up to its seq are in it.
    Snapshot,
    /// What it missed since it was last here.
    Missed(Vec<Arc<Sent>>),
}

impl Feed {
    /// A feed that begins after `head`.
    pub fn new(head: Seq) -> Feed {
        let ring = Ring { events: VecDeque::new(), floor: head, last: head, head, made: BTreeMap::new() };
        Feed { ring: Mutex::new(ring), live: broadcast::Sender::new(limits::FEED_LAG) }
    }

    /// Takes up a durable commit. `state` has folded it.
    pub fn take(&self, batch: &Batch, state: &State) {
        let mut ring = self.ring.lock();
        for committed in &batch.records {
            let Some(record) = committed.change() else { continue };
            let Some(event) = event_of(record, committed.seq, batch.time, state) else { continue };
            let sent = Arc::new(Sent { previous: ring.last, event });
            ring.last = committed.seq;
            ring.made.insert(committed.seq, Made { record: record.clone(), at: batch.time, hits: None });
            ring.events.push_back(sent.clone());
            if ring.events.len() > limits::FEED_EVENTS
                && let Some(old) = ring.events.pop_front()
            {
                ring.floor = old.event.seq();
                ring.made.remove(&old.event.seq());
            }
            // Nobody listening is fine.
            let _ = self.live.send(sent);
        }
        ring.head = batch.head;
    }

    /// Every event of a record up to here was sent to those who listen. The ledger's durable head is ahead of it for a moment.
    pub fn head(&self) -> Seq {
        self.ring.lock().head
    }

    /// Listens to what comes, and says what comes first. Listening begins before, so that nothing falls between.
    pub fn follow(&self, resume_after: Option<Seq>, head: Seq) -> Result<(broadcast::Receiver<Arc<Sent>>, Beginning), Refusal> {
        let ring = self.ring.lock();
        let live = self.live.subscribe();
        let Some(after) = resume_after else { return Ok((live, Beginning::Snapshot)) };
        if after > head {
            return Err(Refusal::field("resume_after", format!("is beyond the head {head}")));
        }
        if after < ring.floor {
            return Err(Refusal::new(
                Reason::Compacted,
                format!("events are kept from seq {} on; you have applied {after}: begin with a snapshot", ring.floor),
            ));
        }
        let missed = ring.events.iter().filter(|s| s.event.seq() > after).cloned().collect();
        Ok((live, Beginning::Missed(missed)))
    }

    /// Notes what a rule hit when it was made.
    pub fn hit(&self, seq: Seq, hits: Hits) {
        if let Some(made) = self.ring.lock().made.get_mut(&seq) {
            made.hits = Some(hits);
        }
    }

    /// Keeps who made rules and locks of before this start, up to as many as the ring has events.
    pub fn recall(&self, found: &[(Seq, Made)]) {
        let mut ring = self.ring.lock();
        let room = limits::FEED_EVENTS.saturating_sub(ring.made.len());
        ring.made.extend(found.iter().take(room).cloned());
    }

    /// Who made a rule or lock, as far as it is still in memory.
    pub fn made(&self, seq: Seq) -> Option<Made> {
        self.ring.lock().made.get(&seq).cloned()
    }
}

/// One instance that follows.
#[derive(Clone, Debug)]
pub struct Follower {
    /// Its own name for itself.
    pub name: String,
    /// Who it is.
    pub who: Who,
    /// The upstreams that it verifies for.
    pub upstreams: Vec<String>,
    /// It refuses everything that the feed told up to here.
    pub applied: Seq,
    /// What it was sent.
    pub sent: Seq,
    /// It is connected.
    pub connected: bool,
    /// When it was last heard of.
    pub last_seen: Millis,
    stream: u64,
}

/// Everybody who follows. A follower stays on the list for a while after it vanished: until then its silence counts.
pub struct Followers {
    all: Mutex<BTreeMap<(String, String), Follower>>,
    /// Whoever followed before this start has come back by then, or refuses everything.
    known_from: Mutex<Millis>,
    changed: watch::Sender<u64>,
    max_age_ms: u64,
    most: AtomicUsize,
}

/// The right to feed one follower. A newer stream under the same name ends it.
pub struct Registered {
    key: (String, String),
    stream: u64,
}

impl Followers {
    /// Nobody follows yet. `max_age_ms`: how long one that vanished stays on the list. `most`: how many it holds.
    pub fn new(max_age_ms: u64, most: usize) -> Followers {
        let known_from = Mutex::new(Millis(0));
        Followers {
            all: Mutex::new(BTreeMap::new()),
            known_from,
            changed: watch::Sender::new(0),
            max_age_ms,
            most: AtomicUsize::new(most),
        }
    }

    /// It holds so many from here on. Those that follow go on.
    pub fn set_most(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// The server was here before, and nobody wrote down who followed it then.
    pub fn began_again(&self, now: Millis) {
        *self.known_from.lock() = now.plus(self.max_age_ms);
    }

    /// How long a follower may go without a fresh head before it refuses everything, milliseconds.
    pub fn max_age_ms(&self) -> u64 {
        self.max_age_ms
    }

    /// Registers a stream of a follower.
    pub fn register(&self, who: &Who, name: &str, upstreams: Vec<String>, applied: Seq, now: Millis) -> Result<Registered, No> {
        let key = (who.name(), name.to_owned());
        let mut all = self.all.lock();
        self.forget(&mut all, now);
        let most = self.most.load(Ordering::Relaxed);
        if all.len() >= most && !all.contains_key(&key) {
            let wait = std::time::Duration::from_millis(self.max_age_ms);
            return Err(No::Refusal(Refusal::limit("followers", most as u64, wait)));
        }
        let before = all.get(&key);
        let stream = before.map_or(1, |f| f.stream + 1);
        let applied = before.map_or(applied, |f| f.applied.max(applied));
        let follower = Follower {
            name: name.to_owned(),
            who: who.clone(),
            upstreams,
            applied,
            sent: applied,
            connected: true,
            last_seen: now,
            stream,
        };
        all.insert(key.clone(), follower);
        drop(all);
        self.tell();
        Ok(Registered { key, stream })
    }

    /// Notes what a stream sent. `false`: a newer stream has taken its place.
    pub fn sent(&self, registered: &Registered, seq: Seq, now: Millis) -> bool {
        let mut all = self.all.lock();
        let Some(follower) = all.get_mut(&registered.key).filter(|f| f.stream == registered.stream) else { return false };
        follower.sent = follower.sent.max(seq);
        follower.last_seen = now;
        true
    }

    /// Notes that a stream ended.
    pub fn ended(&self, registered: &Registered, now: Millis) {
        if let Some(follower) = self.all.lock().get_mut(&registered.key).filter(|f| f.stream == registered.stream) {
            follower.connected = false;
            follower.last_seen = now;
        }
        self.tell();
    }

    /// Notes what a follower has applied.
    pub fn acknowledge(&self, who: &Who, name: &str, applied: Seq, now: Millis) -> Result<(), No> {
        let mut all = self.all.lock();
        let key = (who.name(), name.to_owned());
        let Some(follower) = all.get_mut(&key) else {
            return Err(No::Refusal(Refusal::new(Reason::NotFound, format!("you have no follower {name:?}: watch first"))));
        };
        if applied > follower.sent {
            return Err(No::Refusal(Refusal::field("applied_seq", format!("is beyond what was sent, {}", follower.sent))));
        }
        follower.applied = follower.applied.max(applied);
        follower.last_seen = now;
        drop(all);
        self.tell();
        Ok(())
    }

    /// Everybody on the list.
    pub fn list(&self, now: Millis) -> Vec<Follower> {
        let mut all = self.all.lock();
        self.forget(&mut all, now);
        all.values().cloned().collect()
    }

    /// Waits until everybody on the list has applied `seq`; answers with those who have not by then, and whether all are on the list who may
    /// follow: not for a while after a start.
    pub async fn wait(&self, seq: Seq, timeout: std::time::Duration, now: impl Fn() -> Millis) -> (Vec<Follower>, bool) {
        let mut changed = self.changed.subscribe();
        let behind = || -> Vec<Follower> { self.list(now()).into_iter().filter(|f| f.applied < seq).collect() };
        let known = || now() >= *self.known_from.lock();
        let all = async {
            while !behind().is_empty() || !known() {
                // Also looks again after a while: one that vanished leaves the list by time alone.
                let _ = tokio::time::timeout(std::time::Duration::from_secs(1), changed.changed()).await;
            }
        };
        let _ = tokio::time::timeout(timeout, all).await;
        (behind(), known())
    }

    fn forget(&self, all: &mut BTreeMap<(String, String), Follower>, now: Millis) {
        all.retain(|_, f| f.connected || now.since(f.last_seen) <= self.max_age_ms);
    }

    fn tell(&self) {
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }
}
