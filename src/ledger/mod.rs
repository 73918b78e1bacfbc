//! One ordered log of records is the truth; everything in memory is a fold over it.
//!
//! - [`record`]: what happened. [`commit`]: how it is written, chained and hashed.
//! - [`state`]: the fold and its verdicts. Pure.
//! - `queue`, `writer`: from a proposal to a [`Receipt`], with one durable append per batch.
//! - `view`: what a decision is made on.
//! - [`history`]: the records read back.
//! - [`search`], [`forward`], [`index`]: found in it, and followed. [`tree`]: what is proven of it.
//! - [`keep`]: how long they stay.
//! - [`open`], [`snapshot`], [`recover`]: from a store to a state, and what to do when that is refused. [`backup`]: taken elsewhere.
//!
//! Failure analysis. The state runs ahead of the disk by the batch that is being appended. What leaves the process waits for the durable
//! head to pass what it saw ([`Ledger::settled`]), so nothing is told that a crash could take back. When an append fails, what is on the
//! disk is unknown: the state is thrown away and folded anew from the store, and nobody was answered.

mod again;
pub mod backup;
pub mod clock;
pub mod commit;
mod derived;
mod encoded;
pub mod forward;
mod glimpse;
pub mod history;
pub mod index;
pub mod keep;
mod load;
pub mod look;
pub mod mold;
pub mod open;
mod pace;
mod packed;
mod pauses;
mod propose;
mod queue;
mod receipt;
pub mod record;
pub mod recover;
mod restored;
mod salvage;
pub mod search;
pub mod snapshot;
mod stall;
mod standing;
pub mod state;
mod taking;
pub mod tree;
mod verify;
mod view;
pub mod witness;
mod writer;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

pub use open::{Settings, StartError};
pub use pauses::{Longest, WRITES_US, Writes};
pub use propose::{Proposed, ProposedEach, Ready};
pub use queue::Lane;
use receipt::Issues;
pub use receipt::Receipt;
pub(crate) use standing::{in_the_background, stand_back};
pub use state::{Ceilings, State};
pub use view::View;
pub use writer::{Batch, Committed};

use crate::limits;
use crate::refusal::{No, Reason, Refusal};
use crate::seq::{CredentialId, Millis, Seq};
use crate::store::Store;
use crate::system::System;
use clock::Guarded;
use pauses::Pauses;
use queue::Queue;
use record::Record;
use standing::Standing;

/// What the disk allows, as the store's reserve sees it.
pub use crate::store::reserve::Room;

/// Opens the store's engine, again after a failure.
pub type Opener = Box<dyn Fn() -> Result<Arc<dyn Store>, crate::store::StoreError> + Send + Sync>;

/// Bytes asked of the store at once, wherever the log is read through.
const READ_BYTES: usize = 8 * 1024 * 1024;

/// Those for whom history stays that they have not read yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readers {
    /// History is exported as it comes: none goes before it was.
    pub export: bool,
    /// Named values of others who follow the log, each with a place at its beginning: nothing from there on goes.
    pub followed: Vec<String>,
}

type Observer = Box<dyn Fn(&Arc<Batch>) + Send + Sync>;

/// The ledger of one replica.
#[derive(Clone)]
pub struct Ledger {
    inner: Arc<Inner>,
}

struct Inner {
    /// At the appended head.
    state: RwLock<State>,
    /// Of it, at the durable head, what threads of low priority need.
    standing: ArcSwap<Standing>,
    /// Whatever lives was issued in this commit or later.
    alive_since: AtomicU64,
    durable: AtomicU64,
    durable_watch: watch::Sender<Seq>,
    /// The place of the newest durable commit.
    durable_position: AtomicU64,
    /// How often the state was thrown away and folded anew.
    folded: AtomicU64,
    queue: Queue,
    store: RwLock<Arc<dyn Store>>,
    opener: Opener,
    clock: Arc<Guarded>,
    /// Goes by that clock.
    system: System,
    settings: Settings,
    /// What the writer holds to before it appends: those of the settings, until they are set anew.
    ceilings: ArcSwap<Ceilings>,
    readers: RwLock<Readers>,
    observers: RwLock<Vec<Observer>>,
    /// Why nothing is written, if so.
    broken: RwLock<Option<String>>,
    /// Why grants are refused, if they are: clock, disk, an operator, a damaged history.
    stopped: RwLock<Option<Refusal>>,
    /// The chain was verified up to this seq since the start; `EVERYTHING` once nothing is left to verify.
    verified: AtomicU64,
    /// A damaged history, found by the verification in the background.
    damaged: RwLock<Option<String>>,
    groups: AtomicU32,
    commits: AtomicU64,
    pauses: Pauses,
    /// What the writer is at.
    under_way: stall::UnderWay,
    /// The place of the newest snapshot, and its last seq.
    snapshot_at: AtomicU64,
    snapshot_seq: AtomicU64,
    snapshotting: Mutex<bool>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
    /// Other threads that have the store in use.
    background: Mutex<Vec<std::thread::JoinHandle<()>>>,
    /// Looks how much history is kept, when there is something new to look at.
    keeper: OnceLock<std::thread::Thread>,
    /// Commits from here on stay, since a backup is to have them; `u64::MAX` where none is made.
    pinned: AtomicU64,
    /// What follows from the history.
    derived: derived::Derived,
    /// They end as soon as they can.
    stopping: AtomicBool,
}

impl Ledger {
    /// A view to decide on: everything up to its revision, and perhaps newer. Costs an atomic load.
    pub fn view(&self) -> View {
        // The durable head first, the live state after it: newer than the revision is fine, older never.
        View::new(self.inner.clone(), self.durable())
    }

    /// The durable head: what may leave the process.
    pub fn durable(&self) -> Seq {
        Seq::from_u64(self.inner.durable.load(Ordering::Acquire)).unwrap_or(Seq::ZERO)
    }

    /// Watches the durable head.
    pub fn durable_watch(&self) -> watch::Receiver<Seq> {
        self.inner.durable_watch.subscribe()
    }

    /// A number for the records of one proposal, so that they stand or are void together, also when they are folded again. Proposing
    /// sets it in any case.
    pub fn new_group(&self) -> u32 {
        // Neighbours in one commit must differ; 0 means none.
        self.inner.groups.fetch_add(1, Ordering::Relaxed) | 1 << 31
    }

    /// Proposes a group of records and waits until it is durable and found valid.
    ///
    /// Refused where the fold finds it void, where the queue is full, or where grants are stopped. Cost: one place in a durable commit.
    pub async fn commit(&self, lane: Lane, records: Vec<Record>) -> Result<Receipt, No> {
        self.receipt(self.propose(lane, records)?).await
    }

    /// The receipt of an issuance that the fold knows as valid, once it is durable.
    pub async fn receipt_of(&self, issued: CredentialId, seq: Seq, at: crate::store::Position) -> Result<Receipt, No> {
        self.wait_durable(seq).await?;
        Ok(Receipt::new(seq, Issues::One(Some(issued)), at, Millis(0)))
    }

    /// Announces that so many grants are under way, so that the writer may gather them with others. Held until they are answered.
    pub fn minting(&self, count: usize) -> Minting {
        self.inner.queue.begin(count);
        Minting { inner: self.inner.clone(), count }
    }

    /// Reads the state and waits until all that was seen is durable, so that the answer may leave the process.
    pub async fn settled<T>(&self, read: impl FnOnce(&State) -> T) -> Result<T, No> {
        let (out, seen, folded) = {
            let state = self.inner.look();
            (read(&state), state.head, self.inner.folded.load(Ordering::Acquire))
        };
        self.wait_durable(seen).await?;
        if self.inner.folded.load(Ordering::Acquire) != folded {
            // What was seen may have been thrown away with that state, and something else have got its seq.
            return Err(No::Refusal(not_written("the ledger was opened again meanwhile")));
        }
        Ok(out)
    }

    /// Reads the state as it is, for decisions; what is read must not leave the process.
    pub fn peek<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.inner.look())
    }

    /// Waits until the durable head has reached `seq`. Refused at once where the store has failed: nobody knows whether it ever will.
    pub async fn wait_durable(&self, seq: Seq) -> Result<(), No> {
        if self.durable() >= seq {
            return Ok(());
        }
        let mut watch = self.durable_watch();
        // Also where it was opened again before anybody looked: what is waited for may be gone with the state of then.
        let folded = self.inner.folded.load(Ordering::Acquire);
        let over = |head: &Seq| *head >= seq || !self.writes() || self.inner.folded.load(Ordering::Acquire) != folded;
        let waited = tokio::time::timeout(Duration::from_millis(limits::WAIT_MS), watch.wait_for(over)).await;
        match waited.is_ok_and(|head| head.is_ok_and(|head| *head >= seq)) {
            true => Ok(()),
            false => Err(No::Refusal(not_written("the ledger could not be written"))),
        }
    }

    /// Calls `observer` on the writer's thread after each durable commit, in order. It must be quick.
    pub fn observe(&self, observer: impl Fn(&Arc<Batch>) + Send + Sync + 'static) {
        self.inner.observers.write().push(Box::new(observer));
    }

    /// The store, for named values.
    pub fn store(&self) -> Arc<dyn Store> {
        self.inner.store()
    }

    /// Why grants are refused now, if they are.
    pub fn stopped(&self) -> Option<Refusal> {
        let broken = self.inner.broken_why().map(|why| Refusal::new(Reason::NotReady, why));
        let stalled = || self.inner.under_way.is_stalled().then(|| stall::held_up(self.inner.under_way.age_us()));
        broken.or_else(stalled).or_else(|| self.inner.stopped.read().clone())
    }

    /// Whether records can be written at all: not while the store has failed and was not opened again, nor while its disk stands still. Grants
    /// may be stopped all the same.
    pub fn writes(&self) -> bool {
        !self.inner.broken() && !self.inner.under_way.is_stalled()
    }

    /// How long the commit that is under way has taken so far, microseconds; 0 where none is.
    pub fn commit_age_us(&self) -> u64 {
        self.inner.under_way.age_us()
    }

    /// Time as the ledger believes it, and randomness: what everything that judges by time beside it goes by.
    pub fn system(&self) -> System {
        self.inner.system.clone()
    }

    /// What its writer holds to before it appends.
    pub fn ceilings(&self) -> arc_swap::Guard<Arc<Ceilings>> {
        self.inner.ceilings.load()
    }

    /// Its writer holds to these from the next commit on.
    pub fn set_ceilings(&self, ceilings: Ceilings) {
        self.inner.ceilings.store(Arc::new(ceilings));
    }

    /// For whom history stays, from here on.
    pub fn set_readers(&self, readers: Readers) {
        *self.inner.readers.write() = readers;
    }

    /// How far clocks may differ, milliseconds.
    pub fn allowed_skew_ms(&self) -> u64 {
        self.inner.settings.skew_ms
    }

    /// Commits since start.
    pub fn commits(&self) -> u64 {
        self.inner.commits.load(Ordering::Relaxed)
    }

    /// What one commit took at the longest.
    pub fn longest(&self) -> Longest {
        self.inner.pauses.longest()
    }

    /// How long durable writes took since the start.
    pub fn writes_took(&self) -> Writes {
        self.inner.pauses.writes()
    }

    /// Proposals that wait for the writer.
    pub fn waiting(&self) -> usize {
        self.inner.queue.len()
    }

    /// Serves what waits and ends the writer, and what else works on the store.
    pub fn stop(&self) {
        self.inner.queue.stop();
        if let Some(writer) = self.inner.writer.lock().take() {
            let _ = writer.join();
        }
        // What looked at the writer until now ends with the others.
        self.inner.stopping.store(true, Ordering::Relaxed);
        let background = std::mem::take(&mut *self.inner.background.lock());
        for thread in background {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// Nothing is written any more.
pub fn stopping() -> Refusal {
    Refusal::new(Reason::NotReady, "the server is stopping").retry(Duration::from_secs(1))
}

fn not_written(what: &str) -> Refusal {
    Refusal::new(Reason::NotReady, what).way_out("an operator looks at: mayfly status").retry(Duration::from_secs(1))
}

/// Grants that are under way.
pub struct Minting {
    inner: Arc<Inner>,
    count: usize,
}

impl Drop for Minting {
    fn drop(&mut self) {
        self.inner.queue.end(self.count);
    }
}

impl Inner {
    fn store(&self) -> Arc<dyn Store> {
        self.store.read().clone()
    }

    fn broken(&self) -> bool {
        self.broken.read().is_some()
    }

    fn broken_why(&self) -> Option<String> {
        self.broken.read().clone()
    }

    fn break_with(&self, why: &str) {
        *self.broken.write() = Some(why.to_owned());
        // Who waits for what was being written is told.
        self.durable_watch.send_modify(|_| {});
    }

    /// Tells those who follow, in order. On the writer's thread.
    fn tell(&self, batch: &Arc<Batch>) {
        for observer in self.observers.read().iter() {
            observer(batch);
        }
    }

    fn room(&self) -> Room {
        self.store().reserve().map_or(Room::Plenty, |r| r.tend(self.system.steady()))
    }

    /// Whether grants may be written now.
    fn granting(&self, ledger: Millis, room: Room) -> Result<(), Refusal> {
        let verdict = self.may_grant(ledger, room);
        let mut stopped = self.stopped.write();
        if stopped.as_ref().map(|r| r.reason) != verdict.as_ref().err().map(|r| r.reason) {
            match &verdict {
                Ok(()) => tracing::warn!("grants are made again"),
                Err(no) => tracing::error!(reason = no.reason.as_str(), why = %no, "nothing is granted"),
            }
            *stopped = verdict.as_ref().err().cloned();
        }
        verdict
    }

    fn may_grant(&self, ledger: Millis, room: Room) -> Result<(), Refusal> {
        if let Some(what) = self.damaged.read().as_ref() {
            return Err(Refusal::new(Reason::NotReady, format!("the history is damaged: {what}"))
                .way_out("an operator runs: mayfly server recover --after SEQ"));
        }
        if room != Room::Plenty {
            return Err(Refusal::new(
                Reason::DiskReserve,
                "the disk is full up to the reserve for revocations: nothing is issued",
            )
            .way_out("an operator frees space beside the data directory; revoking still works")
            .retry(Duration::from_secs(10)));
        }
        self.clock.trusted(ledger)
    }

    /// Nothing waits: looks at clock, disk and health, so that status and refusals are up to date.
    fn look_around(&self) {
        if let Some(reserve) = self.store().reserve()
            && let Err(error) = reserve.restore()
        {
            tracing::warn!(%error, "the disk reserve could not be taken again");
        }
        let ledger = self.look().time;
        let room = self.room();
        let _ = self.granting(ledger, room);
    }
}
