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
            return Err(rolled_back(format!("this follower has seen seq {after}, and this server stands at {head}")));
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

/// The answer to a follower that has seen what this server has not.
pub fn rolled_back(found: String) -> Refusal {
    let what = format!("{found}: the server runs on an older copy of its ledger, which lacks revocations");
    let way_out = "an operator puts the newest data directory back, or runs: mayfly server recover";
    Refusal::new(Reason::LedgerRolledBack, what).way_out(way_out)
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

/// A follower that has seen more of the ledger than this server has, or another history.
#[derive(Clone, Debug)]
pub struct SeenBeyond {
    /// Its own name for itself.
    pub name: String,
    /// Who it is.
    pub who: Who,
    /// The newest seq that it has seen.
    pub seen: Seq,
    /// Where this server stood then.
    pub head: Seq,
}

/// Everybody who follows. A follower stays on the list for a while after it vanished: until then its silence counts.
pub struct Followers {
    all: Mutex<BTreeMap<(String, String), Follower>>,
    /// Those that have seen more than this server has, since it started; as many as there may be followers.
    beyond: Mutex<BTreeMap<(String, String), SeenBeyond>>,
    /// Whoever followed before this start has come back by then, or refuses everything.
    known_from: Mutex<Millis>,
    changed: watch::Sender<u64>,
    max_age_ms: u64,
    most: AtomicUsize,
    most_of_one: AtomicUsize,
}

/// The right to feed one follower. A newer stream under the same name ends it.
pub struct Registered {
    key: (String, String),
    stream: u64,
}

impl Followers {
    /// Nobody follows yet. `max_age_ms`: how long one that vanished stays on the list. `most`: how many it holds, in all and of one caller.
    pub fn new(max_age_ms: u64, (most, most_of_one): (usize, usize)) -> Followers {
        let known_from = Mutex::new(Millis(0));
        let (all, beyond) = (Mutex::new(BTreeMap::new()), Mutex::new(BTreeMap::new()));
        let (most, most_of_one) = (AtomicUsize::new(most), AtomicUsize::new(most_of_one));
        Followers { all, beyond, known_from, changed: watch::Sender::new(0), max_age_ms, most, most_of_one }
    }

    /// It holds so many from here on, in all and of one caller. Those that follow go on.
    pub fn set_most(&self, (most, most_of_one): (usize, usize)) {
        self.most.store(most, Ordering::Relaxed);
        self.most_of_one.store(most_of_one, Ordering::Relaxed);
    }

    /// The server was here before, and nobody wrote down who followed it then.
    pub fn began_again(&self, now: Millis) {
        *self.known_from.lock() = now.plus(self.max_age_ms);
    }

    /// How long a follower may go without a fresh head before it refuses everything, milliseconds.
    pub fn max_age_ms(&self) -> u64 {
        self.max_age_ms
    }

    /// Notes that a follower has seen more than this server has, up to `seen`: how an operator learns that an old copy of the data directory
    /// was started. It is said for as long as the process runs: the follower itself may be started anew, and know nothing of it then.
    pub fn seen_beyond(&self, who: &Who, name: &str, seen: Seq, head: Seq) {
        let key = (who.name(), name.to_owned());
        let mut beyond = self.beyond.lock();
        let own = beyond.range((key.0.clone(), String::new())..).take_while(|((who, _), _)| *who == key.0).count();
        // One that makes up names is told of under some of them.
        if beyond.contains_key(&key)
            || own >= self.most_of_one.load(Ordering::Relaxed)
            || beyond.len() >= self.most.load(Ordering::Relaxed)
        {
            return;
        }
        tracing::error!(
            follower = name, identity = key.0, %seen, %head,
            "a follower has seen more of the ledger than this server has: an older copy of the data directory was started, and revocations \
             are missing; stop the server and put the newest data directory back, or run: mayfly server recover"
        );
        beyond.insert(key, SeenBeyond { name: name.to_owned(), who: who.clone(), seen, head });
    }

    /// Those that have seen more of the ledger than this server has.
    pub fn beyond(&self) -> Vec<SeenBeyond> {
        self.beyond.lock().values().cloned().collect()
    }

    /// Whether a follower was found to have seen more than this server has.
    pub fn is_beyond(&self, who: &Who, name: &str) -> bool {
        self.beyond.lock().contains_key(&(who.name(), name.to_owned()))
    }

    /// Registers a stream of a follower. `applied`: what it has applied of this very history, as far as that is proven; what it merely says
    /// is acknowledged when this process sent it.
    pub fn register(&self, who: &Who, name: &str, upstreams: Vec<String>, applied: Seq, now: Millis) -> Result<Registered, No> {
        let key = (who.name(), name.to_owned());
        let mut all = self.all.lock();
        self.forget(&mut all, now);
        if !all.contains_key(&key) {
            let wait = std::time::Duration::from_millis(self.max_age_ms);
            let (most, most_of_one) = (self.most.load(Ordering::Relaxed), self.most_of_one.load(Ordering::Relaxed));
            // Its own bound first: who opens names without end is told so, and keeps nobody else out.
            let own = all.range((key.0.clone(), String::new())..).take_while(|((who, _), _)| *who == key.0).count();
            let bounds = [("followers_per_caller", own, most_of_one), ("followers", all.len(), most)];
            if let Some((name, _, bound)) = bounds.into_iter().find(|(_, now, bound)| now >= bound) {
                return Err(No::Refusal(Refusal::limit(name, bound as u64, wait)));
            }
        }
        let before = all.get(&key);
        let stream = before.map_or(1, |f| f.stream + 1);
        let applied = before.map_or(applied, |f| f.applied.max(applied));
        let sent = before.map_or(applied, |f| f.sent.max(applied));
        let follower = Follower {
            name: name.to_owned(),
            who: who.clone(),
            upstreams,
            applied,
            sent,
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
        // Looked at with each change, by each who waits: without a copy of the list.
        let waits = || {
            let mut all = self.all.lock();
            self.forget(&mut all, now());
            all.values().any(|f| f.applied < seq)
        };
        let all = async {
            while waits() || !known() {
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
