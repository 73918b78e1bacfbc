//! The feed of revocation events, and the list of its followers.
//!
//! Events are made from durable commits, in order, and each names the event before it. A follower that falls behind gets an error, never an
//! undetectable gap.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};

use crate::revocation::revoke::RevocationHits;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Reason, Refusal};
use mayfly_ledger::record::{Author, Record};
use mayfly_ledger::revocation::event::{FeedEvent, event_of};
use mayfly_ledger::{Batch, State};
use mayfly_verify::seq::{Millis, Seq};

/// An event in the form in which it is sent.
#[derive(Debug)]
pub struct SentEvent {
    /// The sequence number of the event before it.
    pub previous: Seq,
    /// The event.
    pub event: FeedEvent,
}

/// The origin of a rule or lock: its author, time and reason.
#[derive(Clone, Debug)]
pub struct RuleOrigin {
    /// The record that made the rule or lock.
    pub record: Arc<Record>,
    /// The time of its commit.
    pub at: Millis,
    /// The counts of the objects that the revocation hit, if they were counted.
    pub hits: Option<RevocationHits>,
}

/// Sends revocations, holds and locks to followers.
pub struct Feed {
    ring: Mutex<Ring>,
    live: broadcast::Sender<Arc<SentEvent>>,
}

struct Ring {
    events: VecDeque<Arc<SentEvent>>,
    /// The highest sequence number whose event is no longer in the ring.
    floor: Seq,
    last: Seq,
    /// The durable head up to which commits have been processed.
    head: Seq,
    made: BTreeMap<Seq, RuleOrigin>,
}

/// The first message to a follower.
pub enum FeedStart {
    /// Everything in effect, including live events up to the snapshot's sequence number.
    Snapshot,
    /// The events that the follower missed since its last connection.
    Missed(Vec<Arc<SentEvent>>),
}

impl Feed {
    /// A feed that begins after `head`.
    pub fn new(head: Seq) -> Feed {
        let ring = Ring { events: VecDeque::new(), floor: head, last: head, head, made: BTreeMap::new() };
        Feed { ring: Mutex::new(ring), live: broadcast::Sender::new(limits::FEED_LAG) }
    }

    /// Processes a durable commit, which `state` has folded.
    pub fn take(&self, batch: &Batch, state: &State) {
        let mut ring = self.ring.lock();
        for committed in &batch.records {
            let Some(record) = committed.change() else { continue };
            let Some(event) = event_of(record, committed.seq, batch.time, state) else { continue };
            let sent = Arc::new(SentEvent { previous: ring.last, event });
            ring.last = committed.seq;
            ring.made.insert(committed.seq, RuleOrigin { record: record.clone(), at: batch.time, hits: None });
            ring.events.push_back(sent.clone());
            if ring.events.len() > limits::FEED_EVENTS
                && let Some(old) = ring.events.pop_front()
            {
                ring.floor = old.event.seq();
                ring.made.remove(&old.event.seq());
            }
            // An error means that there are no followers.
            let _ = self.live.send(sent);
        }
        ring.head = batch.head;
    }

    /// The head of the feed: every event up to it was sent. The ledger's durable head is briefly ahead of it.
    pub fn head(&self) -> Seq {
        self.ring.lock().head
    }

    /// Subscribes to live events, and decides what the follower gets first. The subscription begins first, so that no event is missed.
    pub fn follow(
        &self,
        resume_after: Option<Seq>,
        head: Seq,
    ) -> Result<(broadcast::Receiver<Arc<SentEvent>>, FeedStart), Refusal> {
        let ring = self.ring.lock();
        let live = self.live.subscribe();
        let Some(after) = resume_after else { return Ok((live, FeedStart::Snapshot)) };
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
        Ok((live, FeedStart::Missed(missed)))
    }

    /// Stores the numbers of what a rule hit when it was made.
    pub fn hit(&self, seq: Seq, hits: RevocationHits) {
        if let Some(made) = self.ring.lock().made.get_mut(&seq) {
            made.hits = Some(hits);
        }
    }

    /// Loads the origins of rules and locks made before this start, up to the number of events in the ring.
    pub fn recall(&self, found: &[(Seq, RuleOrigin)]) {
        let mut ring = self.ring.lock();
        let room = limits::FEED_EVENTS.saturating_sub(ring.made.len());
        ring.made.extend(found.iter().take(room).cloned());
    }

    /// The origin of a rule or lock, if it is still in memory.
    pub fn made(&self, seq: Seq) -> Option<RuleOrigin> {
        self.ring.lock().made.get(&seq).cloned()
    }
}

/// The refusal for a follower that has seen more of the ledger than this server has.
pub fn rolled_back(found: String) -> Refusal {
    let what = format!("{found}: the server runs on an older copy of its ledger, which lacks revocations");
    let way_out = "an operator puts the newest data directory back, or runs: mayfly server recover";
    Refusal::new(Reason::LedgerRolledBack, what).way_out(way_out)
}

/// A registered follower.
#[derive(Clone, Debug)]
pub struct FeedFollower {
    /// The name that the follower gives itself.
    pub name: String,
    /// The identity of the follower.
    pub who: Author,
    /// The upstreams that the follower verifies credentials for.
    pub upstreams: Vec<String>,
    /// The follower refuses everything that the feed revoked up to this sequence number.
    pub applied: Seq,
    /// The highest sequence number that was sent to the follower.
    pub sent: Seq,
    /// Whether the follower is connected.
    pub connected: bool,
    /// When the follower was last heard of.
    pub last_seen: Millis,
    stream: u64,
}

/// A follower that has seen more of the ledger than this server has, or another history.
#[derive(Clone, Debug)]
pub struct DivergedFollower {
    /// The name that the follower gives itself.
    pub name: String,
    /// The identity of the follower.
    pub who: Author,
    /// The highest sequence number that the follower has seen.
    pub seen: Seq,
    /// The durable head of this server at that time.
    pub head: Seq,
}

/// The list of followers. A follower stays on the list for a while after it disconnects, during which `revoke --wait` waits for it.
pub struct Followers {
    all: Mutex<BTreeMap<(String, String), FeedFollower>>,
    /// The followers found since the start that have seen more than this server has; as many as there may be followers.
    beyond: Mutex<BTreeMap<(String, String), DivergedFollower>>,
    /// By this time, every follower from before this start has either reconnected or refuses everything.
    known_from: Mutex<Millis>,
    changed: watch::Sender<u64>,
    max_age_ms: u64,
    most: AtomicUsize,
    most_of_one: AtomicUsize,
}

/// The right to feed one follower. A newer stream of the same follower ends it.
pub struct FollowerSession {
    key: (String, String),
    stream: u64,
}

impl Followers {
    /// An empty list. `max_age_ms`: how long a disconnected follower stays on the list. `most`: the maximum number of followers, in total
    /// and of one caller.
    pub fn new(max_age_ms: u64, (most, most_of_one): (usize, usize)) -> Followers {
        let known_from = Mutex::new(Millis(0));
        let (all, beyond) = (Mutex::new(BTreeMap::new()), Mutex::new(BTreeMap::new()));
        let (most, most_of_one) = (AtomicUsize::new(most), AtomicUsize::new(most_of_one));
        Followers { all, beyond, known_from, changed: watch::Sender::new(0), max_age_ms, most, most_of_one }
    }

    /// Changes the maximum number of followers, in total and of one caller. Registered followers stay.
    pub fn set_most(&self, (most, most_of_one): (usize, usize)) {
        self.most.store(most, Ordering::Relaxed);
        self.most_of_one.store(most_of_one, Ordering::Relaxed);
    }

    /// Notes that the server has run before. The list of followers is not persisted, so followers from before the start are unknown.
    pub fn began_again(&self, now: Millis) {
        *self.known_from.lock() = now.plus(self.max_age_ms);
    }

    /// How long a follower may go without a fresh head before it refuses everything, milliseconds.
    pub fn max_age_ms(&self) -> u64 {
        self.max_age_ms
    }

    /// Notes that a follower has seen the ledger up to `seen`, beyond this server's head. Operators learn from this that an old copy of the
    /// data directory was started. It is reported as long as the process runs, since the follower itself may restart and forget it.
    pub fn seen_beyond(&self, who: &Author, name: &str, seen: Seq, head: Seq) {
        let key = (who.name(), name.to_owned());
        let mut beyond = self.beyond.lock();
        let own = beyond.range((key.0.clone(), String::new())..).take_while(|((who, _), _)| *who == key.0).count();
        // A caller that invents follower names is reported under some of them only.
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
        beyond.insert(key, DivergedFollower { name: name.to_owned(), who: who.clone(), seen, head });
    }

    /// The followers that have seen more of the ledger than this server has.
    pub fn beyond(&self) -> Vec<DivergedFollower> {
        self.beyond.lock().values().cloned().collect()
    }

    /// Whether a follower was found to have seen more than this server has.
    pub fn is_beyond(&self, who: &Author, name: &str) -> bool {
        self.beyond.lock().contains_key(&(who.name(), name.to_owned()))
    }

    /// Registers a stream of a follower. `applied`: what the follower has applied of this history, as far as that is proven; a mere claim
    /// is only acknowledged for events that this process sent.
    pub fn register(
        &self,
        who: &Author,
        name: &str,
        upstreams: Vec<String>,
        applied: Seq,
        now: Millis,
    ) -> Result<FollowerSession, Error> {
        let key = (who.name(), name.to_owned());
        let mut all = self.all.lock();
        self.forget(&mut all, now);
        if !all.contains_key(&key) {
            let wait = std::time::Duration::from_millis(self.max_age_ms);
            let (most, most_of_one) = (self.most.load(Ordering::Relaxed), self.most_of_one.load(Ordering::Relaxed));
            // The bound per caller is checked first, so that a caller that invents names without end is refused and does not displace
            // others.
            let own = all.range((key.0.clone(), String::new())..).take_while(|((who, _), _)| *who == key.0).count();
            let bounds = [("followers_per_caller", own, most_of_one), ("followers", all.len(), most)];
            if let Some((name, _, bound)) = bounds.into_iter().find(|(_, now, bound)| now >= bound) {
                return Err(Error::Refusal(Refusal::limit(name, bound as u64, wait)));
            }
        }
        let before = all.get(&key);
        let stream = before.map_or(1, |f| f.stream + 1);
        let applied = before.map_or(applied, |f| f.applied.max(applied));
        let sent = before.map_or(applied, |f| f.sent.max(applied));
        let follower = FeedFollower {
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
        Ok(FollowerSession { key, stream })
    }

    /// Notes what was sent on a stream. `false`: a newer stream has taken its place.
    pub fn sent(&self, registered: &FollowerSession, seq: Seq, now: Millis) -> bool {
        let mut all = self.all.lock();
        let Some(follower) = all.get_mut(&registered.key).filter(|f| f.stream == registered.stream) else { return false };
        follower.sent = follower.sent.max(seq);
        follower.last_seen = now;
        true
    }

    /// Notes that a stream ended.
    pub fn ended(&self, registered: &FollowerSession, now: Millis) {
        if let Some(follower) = self.all.lock().get_mut(&registered.key).filter(|f| f.stream == registered.stream) {
            follower.connected = false;
            follower.last_seen = now;
        }
        self.tell();
    }

    /// Notes what a follower has applied.
    pub fn acknowledge(&self, who: &Author, name: &str, applied: Seq, now: Millis) -> Result<(), Error> {
        let mut all = self.all.lock();
        let key = (who.name(), name.to_owned());
        let Some(follower) = all.get_mut(&key) else {
            return Err(Error::Refusal(Refusal::new(Reason::NotFound, format!("you have no follower {name:?}: watch first"))));
        };
        if applied > follower.sent {
            return Err(Error::Refusal(Refusal::field("applied_seq", format!("is beyond what was sent, {}", follower.sent))));
        }
        follower.applied = follower.applied.max(applied);
        follower.last_seen = now;
        drop(all);
        self.tell();
        Ok(())
    }

    /// All followers on the list.
    pub fn list(&self, now: Millis) -> Vec<FeedFollower> {
        let mut all = self.all.lock();
        self.forget(&mut all, now);
        all.values().cloned().collect()
    }

    /// Waits until every follower on the list has applied `seq`. Returns the followers that have not in time, and whether the list is
    /// complete, which it is not for a while after a start.
    pub async fn wait(&self, seq: Seq, timeout: std::time::Duration, now: impl Fn() -> Millis) -> (Vec<FeedFollower>, bool) {
        let mut changed = self.changed.subscribe();
        let behind = || -> Vec<FeedFollower> { self.list(now()).into_iter().filter(|f| f.applied < seq).collect() };
        let known = || now() >= *self.known_from.lock();
        // Evaluated at each change for each waiting call, so it must not copy the list.
        let waits = || {
            let mut all = self.all.lock();
            self.forget(&mut all, now());
            all.values().any(|f| f.applied < seq)
        };
        let all = async {
            while waits() || !known() {
                // The list is also checked periodically, since a disconnected follower leaves it by time alone.
                let _ = tokio::time::timeout(std::time::Duration::from_secs(1), changed.changed()).await;
            }
        };
        let _ = tokio::time::timeout(timeout, all).await;
        (behind(), known())
    }

    /// The number of followers on the list.
    pub fn registered(&self, now: Millis) -> u64 {
        let mut all = self.all.lock();
        self.forget(&mut all, now);
        all.len() as u64
    }

    fn forget(&self, all: &mut BTreeMap<(String, String), FeedFollower>, now: Millis) {
        all.retain(|_, f| f.connected || now.since(f.last_seen) <= self.max_age_ms);
    }

    fn tell(&self) {
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }
}
