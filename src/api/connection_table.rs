//! The open connections of one listener, by holder.
//!
//! Holders share the places of a listener. When all are taken, the holder with the most connections loses one to a holder with fewer;
//! connections without calls are chosen first. A new connection is refused if no other holder has more than its own holder would have and
//! none of its holder's own connections is idle.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::connection_end::ConnectionEndReason;
use super::shares::{Holder, Pool, Share, ShareLimits};
use mayfly_base::limits;
use mayfly_base::refusal::Refusal;

/// The activity of one connection, as far as its place depends on it.
#[derive(Debug)]
pub struct ConnectionActivity {
    share: Arc<Share>,
    /// Calls in progress, single exchanges not counted.
    calls: AtomicUsize,
    /// Whether an exchange was answered since the last sweep.
    exchanged: AtomicBool,
    /// Number of unread answers, by the parity of the sweep before which they were sent.
    unread: [AtomicUsize; 2],
    /// The parity of the next sweep.
    parity: AtomicUsize,
    /// Bytes of incomplete requests.
    unfinished: AtomicUsize,
    /// Consecutive sweeps that found the peer's receive window closed. A successful write resets it to 0.
    blocked: AtomicU8,
    /// Whether the last write was blocked.
    blocks: AtomicBool,
    ends: Mutex<Option<ConnectionEndReason>>,
    ended: Notify,
}

impl ConnectionActivity {
    /// The activity of a connection whose holder has this share.
    pub fn new(share: Arc<Share>) -> ConnectionActivity {
        let none = || AtomicUsize::new(0);
        ConnectionActivity {
            share,
            calls: none(),
            exchanged: AtomicBool::new(false),
            unread: [none(), none()],
            parity: none(),
            unfinished: none(),
            blocked: AtomicU8::new(0),
            blocks: AtomicBool::new(false),
            ends: Mutex::default(),
            ended: Notify::new(),
        }
    }

    /// The activity of a connection without a table, for tests and for peers that have no table.
    pub fn alone(bounds: ShareLimits) -> Arc<ConnectionActivity> {
        Arc::new(ConnectionActivity::new(Arc::new(Share::new(Arc::new(Pool::new(bounds))))))
    }

    /// The share of its holder, over all connections.
    pub fn share(&self) -> &Share {
        &self.share
    }

    /// Records that an exchange was answered.
    pub fn exchanged(&self) {
        self.exchanged.store(true, Relaxed);
    }

    /// Counts a call in progress until the returned value is dropped.
    pub fn call(self: &Arc<Self>) -> Result<CallUnderWay, Refusal> {
        self.share.take_call()?;
        self.calls.fetch_add(1, Relaxed);
        Ok(CallUnderWay(self.clone()))
    }

    /// The bytes of an answer, counted until the last of them has been sent.
    pub fn unread(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        self.unread_of(bytes)
    }

    /// As [`ConnectionActivity::unread`], for other owners of bytes.
    pub fn unread_of<T: AsRef<[u8]> + Send + 'static>(self: &Arc<Self>, bytes: T) -> Bytes {
        let size = bytes.as_ref().len() + limits::UNREAD_ANSWER_BYTES;
        let parity = self.parity.load(Relaxed) & 1;
        self.share.take_unread(size);
        if let Some(unread) = self.unread.get(parity) {
            unread.fetch_add(1, Relaxed);
        }
        Bytes::from_owner(Unread { bytes, size, parity, activity: self.clone() })
    }

    /// Counts bytes of an incomplete request.
    pub fn take_unfinished(&self, bytes: usize) -> Result<(), Refusal> {
        let own = self.unfinished.fetch_add(bytes, Relaxed) + bytes;
        let all = self.share.take_unfinished(bytes);
        if own > limits::CONNECTION_UNFINISHED_BYTES {
            let most = limits::CONNECTION_UNFINISHED_BYTES as u64;
            return Err(Refusal::limit("connection_unfinished_bytes", most, std::time::Duration::from_secs(1)));
        }
        all
    }

    /// Gives back bytes of an incomplete request.
    pub fn give_unfinished(&self, bytes: usize) {
        self.unfinished.fetch_sub(bytes, Relaxed);
        self.share.give_unfinished(bytes);
    }

    /// Records whether the last write waits for the peer to read.
    pub fn writes(&self, blocks: bool) {
        if self.blocks.swap(blocks, Relaxed) && !blocks {
            self.blocked.store(0, Relaxed);
        }
    }

    /// Ends the connection. The first reason is kept.
    pub fn end(&self, why: ConnectionEndReason) {
        self.ends.lock().get_or_insert(why);
        self.ended.notify_one();
    }

    /// Waits until the connection is to end for a reason of this table.
    pub async fn ends(&self) -> ConnectionEndReason {
        loop {
            let ended = self.ended.notified();
            if let Some(why) = *self.ends.lock() {
                return why;
            }
            ended.await;
        }
    }

    fn is_idle(&self) -> bool {
        let unread = self.unread.iter().all(|n| n.load(Relaxed) == 0);
        unread && self.calls.load(Relaxed) == 0 && !self.exchanged.load(Relaxed)
    }

    /// One sweep: returns whether the peer left an answer unread, or read nothing at all, since the sweep before the last one.
    fn sweep(&self) -> bool {
        self.exchanged.store(false, Relaxed);
        let now = self.parity.load(Relaxed) & 1;
        let old = self.unread.get(1 - now).is_some_and(|n| n.load(Relaxed) > 0);
        if !old {
            // Answers sent from now on are checked by the sweep after the next.
            self.parity.store(1 - now, Relaxed);
        }
        let blocked = self.blocks.load(Relaxed) && self.blocked.fetch_add(1, Relaxed) >= 1;
        old || blocked
    }
}

/// A call in progress on a connection.
#[derive(Debug)]
pub struct CallUnderWay(Arc<ConnectionActivity>);

impl Drop for CallUnderWay {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Relaxed);
        self.0.share.give_call();
    }
}

/// The bytes of an answer, which count until they are dropped.
struct Unread<T> {
    bytes: T,
    size: usize,
    parity: usize,
    activity: Arc<ConnectionActivity>,
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Unread<T> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

impl<T> Drop for Unread<T> {
    fn drop(&mut self) {
        self.activity.share.give_unread(self.size);
        if let Some(unread) = self.activity.unread.get(self.parity) {
            unread.fetch_sub(1, Relaxed);
        }
    }
}

/// The connections of one listener.
pub struct ConnectionTable {
    most: usize,
    pool: Arc<Pool>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    of: HashMap<Holder, Connections>,
    /// Holders by number of connections.
    by_count: BTreeSet<(usize, Holder)>,
    open: usize,
    next: u64,
    leaving: usize,
}

struct Connections {
    share: Arc<Share>,
    /// In the order of arrival.
    all: BTreeMap<u64, Arc<ConnectionActivity>>,
}

/// A connection's place in the table. Dropping it releases the place.
pub struct ConnectionSlot {
    table: Arc<ConnectionTable>,
    holder: Holder,
    number: u64,
    activity: Arc<ConnectionActivity>,
}

impl ConnectionSlot {
    /// The connection's activity.
    pub fn activity(&self) -> &Arc<ConnectionActivity> {
        &self.activity
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut held = self.table.held.lock();
        if !held.remove(&self.holder, self.number) {
            held.leaving = held.leaving.saturating_sub(1);
        }
    }
}

impl ConnectionTable {
    /// A table of `most` places, whose holders share this pool.
    pub fn new(most: usize, pool: Pool) -> Arc<ConnectionTable> {
        Arc::new(ConnectionTable { most, pool: Arc::new(pool), held: Mutex::default() })
    }

    /// Returns a place for one more connection of a holder. `None` if the table is full and no connection may be ended for it.
    pub fn enter(self: &Arc<Self>, holder: Holder) -> Option<ConnectionSlot> {
        let mut held = self.held.lock();
        if held.open >= self.most {
            held.make_room(&holder)?;
        }
        let number = held.next;
        held.next += 1;
        let share = held.of.get(&holder).map(|c| c.share.clone());
        let activity = Arc::new(ConnectionActivity::new(share.unwrap_or_else(|| Arc::new(Share::new(self.pool.clone())))));
        held.insert(&holder, number, activity.clone());
        drop(held);
        Some(ConnectionSlot { table: self.clone(), holder, number, activity })
    }

    /// Whether no new holder can get a place: all places are taken, and no holder has more than one.
    pub fn is_shut(&self) -> bool {
        let held = self.held.lock();
        held.open >= self.most && held.by_count.last().is_none_or(|(most, _)| *most <= 1)
    }

    /// Checks every connection, and ends those whose peer does not read. Called every [`limits::SWEEP_MS`].
    pub fn sweep(&self) -> usize {
        let held = self.held.lock();
        let unread = held.of.values().flat_map(|c| c.all.values()).filter(|activity| activity.sweep());
        unread.map(|activity| activity.end(ConnectionEndReason::AnswersUnread)).count()
    }
}

impl Held {
    fn insert(&mut self, holder: &Holder, number: u64, activity: Arc<ConnectionActivity>) {
        let new = || Connections { share: activity.share.clone(), all: BTreeMap::new() };
        let connections = self.of.entry(holder.clone()).or_insert_with(new);
        self.by_count.remove(&(connections.all.len(), holder.clone()));
        connections.all.insert(number, activity);
        self.by_count.insert((connections.all.len(), holder.clone()));
        self.open += 1;
    }

    fn remove(&mut self, holder: &Holder, number: u64) -> bool {
        let Some(connections) = self.of.get_mut(holder) else { return false };
        let before = connections.all.len();
        if connections.all.remove(&number).is_none() {
            return false;
        }
        self.by_count.remove(&(before, holder.clone()));
        if before == 1 {
            self.of.remove(holder);
        } else {
            self.by_count.insert((before - 1, holder.clone()));
        }
        self.open -= 1;
        true
    }

    /// Ends one connection of the holder with the most, if that holder has more than this one will have; otherwise an idle connection of
    /// this holder.
    fn make_room(&mut self, holder: &Holder) -> Option<()> {
        let own = self.of.get(holder).map_or(0, |c| c.all.len());
        let (most, busiest) = self.by_count.last().cloned()?;
        let (from, also_busy) = if most > own + 1 { (busiest, true) } else { (holder.clone(), false) };
        let connections = &self.of.get(&from)?.all;
        let idle = connections.iter().find(|(_, activity)| activity.is_idle());
        let (number, activity) = idle.or_else(|| connections.first_key_value().filter(|_| also_busy))?;
        let (number, activity) = (*number, activity.clone());
        self.remove(&from, number);
        let at_once = self.leaving >= limits::CONNECTIONS_LEAVING;
        self.leaving += 1;
        activity.end(if at_once { ConnectionEndReason::NoRoom } else { ConnectionEndReason::MakesRoom });
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(name: &str) -> Holder {
        Holder::Identity(name.into())
    }

    fn ended(slot: &ConnectionSlot) -> Option<ConnectionEndReason> {
        *slot.activity.ends.lock()
    }

    #[test]
    fn who_holds_the_most_loses_an_idle_connection_to_who_holds_fewer() {
        let table = ConnectionTable::new(4, Pool::new(ShareLimits::AUTHENTICATED));
        let all: Vec<ConnectionSlot> = (0..4).map(|_| table.enter(holder("greedy")).unwrap()).collect();
        let busy = all[0].activity().call().unwrap();
        let first = table.enter(holder("a")).expect("a place");
        assert_eq!(
            [0, 1, 2].map(|n| ended(&all[n])),
            [None, Some(ConnectionEndReason::MakesRoom), None],
            "the oldest that is idle"
        );
        all[2].activity().exchanged();
        let second = table.enter(holder("b")).expect("a place");
        assert_eq!(ended(&all[3]), Some(ConnectionEndReason::MakesRoom));
        // Two, one, one: no holder has more than a new holder would have.
        let third = table.enter(holder("c")).expect("of two one may go, though both are busy");
        assert_eq!(ended(&all[0]), Some(ConnectionEndReason::MakesRoom));
        assert!(table.enter(holder("d")).is_none(), "everybody has one");
        drop(busy);
        // The holder's own idle connection makes room for its new one.
        assert!(table.enter(holder("a")).is_some());
        assert_eq!(ended(&first), Some(ConnectionEndReason::MakesRoom));
        drop((first, second, third, all));
        let held = table.held.lock();
        assert_eq!((held.open, held.leaving, held.of.len(), held.by_count.len()), (0, 0, 0, 0));
    }

    #[test]
    fn an_answer_that_two_sweeps_find_unread_ends_its_connection() {
        let table = ConnectionTable::new(4, Pool::new(ShareLimits::AUTHENTICATED));
        let (slow, fast) = (table.enter(holder("a")).unwrap(), table.enter(holder("b")).unwrap());
        let answer = slow.activity().unread(Bytes::from_static(b"answer"));
        assert_eq!((&answer[..], table.sweep()), (&b"answer"[..], 0), "it was given just now");
        for _ in 0..3 {
            // An answer that was read in the meantime does not count as waiting.
            drop(fast.activity().unread(Bytes::from_static(b"x")));
            drop(slow.activity().unread(Bytes::from_static(b"x")));
            assert_eq!((table.sweep(), ended(&slow), ended(&fast)), (1, Some(ConnectionEndReason::AnswersUnread), None));
        }
        drop(answer);
        assert_eq!(table.sweep(), 0);
        assert!(slow.activity().share().may_answer(limits::UNREAD_BYTES_PER_CALLER).is_ok(), "all was given back");
    }

    #[test]
    fn a_peer_that_takes_nothing_at_all_is_found() {
        let table = ConnectionTable::new(4, Pool::new(ShareLimits::AUTHENTICATED));
        let slot = table.enter(holder("a")).unwrap();
        slot.activity().writes(true);
        assert_eq!((table.sweep(), table.sweep()), (0, 1));
        slot.activity().writes(false);
        slot.activity().writes(true);
        assert_eq!((table.sweep(), table.sweep()), (0, 1));
    }
}
