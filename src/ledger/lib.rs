//! The ledger: one ordered log of records is the source of truth, and all state in memory is a fold over that log.
//!
//! - [`record`]: the record types, that is, the events with their audit context. [`commit`]: how a batch of records is written, chained and
//!   hashed.
//! - [`state`]: the fold and its verdicts. Pure: no IO, no clock.
//! - [`writer`]: from a proposal to a [`Receipt`], with one durable append per batch.
//! - [`reader`]: the state that a decision is made on, records read back from the store, searches, readers that follow the log.
//! - [`recovery`]: builds a state from a store, keeps snapshots, removes old records, and recovers when a store is refused.
//! - `persistent`: collections whose copies share their parts, so that a snapshot of the state is taken in constant time.
//! - [`backup`]: copies of the ledger kept elsewhere. [`tree`]: proofs about the log.
//! - [`upstream`]: registrations and what they bound. [`revocation`]: targets, rules, and what a revocation reaches.
//!
//! Failure analysis. The state in memory is ahead of the disk by the batch that is being appended. An answer waits until the durable head
//! has passed everything that the answer was made from ([`Ledger::settled`]), so a crash cannot take back anything that left the process.
//! When an append fails, the contents of the disk are unknown: the state is thrown away and folded anew from the store, and no proposal of
//! that batch was answered.
#![forbid(unsafe_code)]

pub mod backup;
pub mod clock;
pub mod commit;
mod persistent;
pub mod reader;
pub mod record;
pub mod recovery;
pub mod revocation;
pub mod state;
pub mod tree;
pub mod upstream;
pub mod writer;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

pub use reader::view::View;
pub use recovery::open::{LedgerSettings, StartError};
pub use state::{Quotas, State};
pub use writer::commit_loop::{Batch, CommittedRecord};
pub use writer::durable_summary::{lower_thread_priority, mark_background_thread};
pub use writer::proposal_queue::ProposalKind;
pub use writer::propose::{PendingReceipt, PendingReceipts, PreparedProposal};
use writer::receipt::IssuedIds;
pub use writer::receipt::Receipt;
pub use writer::writer_stats::{LongestCommit, WRITES_US, WriteHistogram};

use clock::GuardedClock;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Reason, Refusal};
use mayfly_base::system::System;
use mayfly_store::Store;
use mayfly_verify::seq::{CredentialId, Millis, Seq};
use record::Record;
use writer::durable_summary::DurableSummary;
use writer::proposal_queue::ProposalQueue;
use writer::writer_stats::WriterStats;

/// How much room the disk has, as the store's reserve sees it.
pub use mayfly_store::reserve::DiskSpace;

/// Opens the store's engine; called again after a failure.
pub type Opener = Box<dyn Fn() -> Result<Arc<dyn Store>, mayfly_store::StoreError> + Send + Sync>;

/// Bytes requested from the store in one read wherever the log is scanned.
const READ_BYTES: usize = 8 * 1024 * 1024;

/// The readers of the log (continuous export, webhooks) whose unread history must not be removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogReaders {
    /// Continuous export is set: a commit is removed only after it was exported.
    pub export: bool,
    /// Names of the named values in which other followers of the log keep their place (at the beginning of the value). No commit from such
    /// a place on is removed.
    pub followed: Vec<String>,
}

type Observer = Box<dyn Fn(&Arc<Batch>) + Send + Sync>;

/// The ledger of one replica.
#[derive(Clone)]
pub struct Ledger {
    inner: Arc<Inner>,
}

struct Inner {
    /// The state at the appended head.
    state: RwLock<State>,
    /// The part of the state at the durable head that low-priority threads need.
    standing: ArcSwap<DurableSummary>,
    /// Every credential that is still alive was issued in this commit or a later one.
    alive_since: AtomicU64,
    durable: AtomicU64,
    durable_watch: watch::Sender<Seq>,
    /// The position of the newest durable commit.
    durable_position: AtomicU64,
    /// How many times the state was thrown away and folded anew.
    folded: AtomicU64,
    queue: ProposalQueue,
    store: RwLock<Arc<dyn Store>>,
    opener: Opener,
    clock: Arc<GuardedClock>,
    /// The system whose clock is the guarded clock in `clock`.
    system: System,
    settings: LedgerSettings,
    /// Limits that the writer applies before it appends: those of the settings until new ones are set.
    ceilings: ArcSwap<Quotas>,
    readers: RwLock<LogReaders>,
    observers: RwLock<Vec<Observer>>,
    /// Why nothing can be written, if the store has failed.
    broken: RwLock<Option<String>>,
    /// Why grants are refused, if they are: clock, disk, an operator, or a damaged history.
    stopped: RwLock<Option<Refusal>>,
    /// The chain was verified up to this seq since the start; `EVERYTHING` when the verification is complete.
    verified: AtomicU64,
    /// Damage of the history that the background verification found.
    damaged: RwLock<Option<String>>,
    groups: AtomicU32,
    commits: AtomicU64,
    pauses: WriterStats,
    /// The commit that the writer is working on.
    under_way: writer::stall::CommitInProgress,
    /// The position of the newest snapshot, and its last seq.
    snapshot_at: AtomicU64,
    snapshot_seq: AtomicU64,
    snapshotting: Mutex<bool>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
    /// Background threads that use the store.
    background: Mutex<Vec<std::thread::JoinHandle<()>>>,
    /// The retention thread, unparked when more history may be removable.
    keeper: OnceLock<std::thread::Thread>,
    /// Commits from this position on are not removed, because a backup needs them; `u64::MAX` when no backup is being made.
    pinned: AtomicU64,
    /// Data derived from the history: the tree and the index.
    derived: reader::derived::DerivedData,
    /// Set at shutdown; background threads end as soon as they can.
    stopping: AtomicBool,
}

impl Ledger {
    /// A view to decide on: it contains everything up to its revision, and possibly newer records. Costs one atomic load.
    pub fn view(&self) -> View {
        // Read the durable head first and the live state after it: a state newer than the revision is fine, an older one never is.
        View::new(self.inner.clone(), self.durable())
    }

    /// The durable head: only records up to it may leave the process.
    pub fn durable(&self) -> Seq {
        Seq::from_u64(self.inner.durable.load(Ordering::Acquire)).unwrap_or(Seq::ZERO)
    }

    /// Watches the durable head.
    pub fn durable_watch(&self) -> watch::Receiver<Seq> {
        self.inner.durable_watch.subscribe()
    }

    /// A new group number. The records of one group take effect together or are void together, also when they are replayed. Proposing sets
    /// the group number in any case.
    pub fn new_group(&self) -> u32 {
        // Neighbouring groups in one commit must have different numbers; 0 means no group.
        self.inner.groups.fetch_add(1, Ordering::Relaxed) | 1 << 31
    }

    /// Proposes a group of records and waits until the group is durable and found valid.
    ///
    /// Refused when the fold finds the group void, when the queue is full, or when grants are stopped. Cost: one place in a durable commit.
    pub async fn commit(&self, lane: ProposalKind, records: Vec<Record>) -> Result<Receipt, Error> {
        self.receipt(self.propose(lane, records)?).await
    }

    /// The receipt of an issuance that the fold knows as valid, once that issuance is durable.
    pub async fn receipt_of(&self, issued: CredentialId, seq: Seq, at: mayfly_store::Position) -> Result<Receipt, Error> {
        self.wait_durable(seq).await?;
        Ok(Receipt::new(seq, IssuedIds::One(Some(issued)), at, Millis(0)))
    }

    /// Announces that `count` grants are under way, so that the writer may gather them into one commit with others. The guard is held until
    /// the grants are answered.
    pub fn minting(&self, count: usize) -> InFlightGuard {
        self.inner.queue.begin(count);
        InFlightGuard { inner: self.inner.clone(), count }
    }

    /// Reads the state and waits until everything that was read is durable, so that the answer may leave the process.
    pub async fn settled<T>(&self, read: impl FnOnce(&State) -> T) -> Result<T, Error> {
        let (out, seen, folded) = {
            let state = self.inner.look();
            (read(&state), state.head, self.inner.folded.load(Ordering::Acquire))
        };
        self.wait_durable(seen).await?;
        if self.inner.folded.load(Ordering::Acquire) != folded {
            // The state that was read may have been thrown away, and another record may have received its seq.
            return Err(Error::Refusal(not_written("the ledger was opened again meanwhile")));
        }
        Ok(out)
    }

    /// Reads the state at the appended head, for decisions only; the result must not leave the process.
    pub fn peek<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.inner.look())
    }

    /// Waits until the durable head has reached `seq`. Refused at once when the store has failed, because the head may never reach `seq`
    /// then.
    pub async fn wait_durable(&self, seq: Seq) -> Result<(), Error> {
        if self.durable() >= seq {
            return Ok(());
        }
        let mut watch = self.durable_watch();
        // Also refused when the store was opened again in the meantime: the awaited record may be gone with the former state.
        let folded = self.inner.folded.load(Ordering::Acquire);
        let over = |head: &Seq| *head >= seq || !self.writes() || self.inner.folded.load(Ordering::Acquire) != folded;
        let waited = tokio::time::timeout(Duration::from_millis(limits::WAIT_MS), watch.wait_for(over)).await;
        match waited.is_ok_and(|head| head.is_ok_and(|head| *head >= seq)) {
            true => Ok(()),
            false => Err(Error::Refusal(not_written("the ledger could not be written"))),
        }
    }

    /// Registers `observer`, which the writer's thread calls after each durable commit, in order. The observer must be quick.
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
        let stalled = || self.inner.under_way.is_stalled().then(|| writer::stall::stall_refusal(self.inner.under_way.age_us()));
        broken.or_else(stalled).or_else(|| self.inner.stopped.read().clone())
    }

    /// Whether records can be written at all: false while the store has failed and was not opened again, and while its disk is stalled.
    /// Grants may be stopped even when this is true.
    pub fn writes(&self) -> bool {
        !self.inner.broken() && !self.inner.under_way.is_stalled()
    }

    /// How long the current commit has taken so far, in microseconds; 0 when no commit is under way.
    pub fn commit_age_us(&self) -> u64 {
        self.inner.under_way.age_us()
    }

    /// The ledger's guarded clock and its randomness. Everything else that decides by time uses this clock.
    pub fn system(&self) -> System {
        self.inner.system.clone()
    }

    /// The limits that the writer applies before it appends.
    pub fn ceilings(&self) -> arc_swap::Guard<Arc<Quotas>> {
        self.inner.ceilings.load()
    }

    /// Sets the limits that the writer applies from the next commit on.
    pub fn set_ceilings(&self, ceilings: Quotas) {
        self.inner.ceilings.store(Arc::new(ceilings));
    }

    /// Sets the readers of the log whose unread history is kept from now on.
    pub fn set_readers(&self, readers: LogReaders) {
        *self.inner.readers.write() = readers;
    }

    /// The allowed clock skew, milliseconds.
    pub fn allowed_skew_ms(&self) -> u64 {
        self.inner.settings.skew_ms
    }

    /// Number of commits since the start.
    pub fn commits(&self) -> u64 {
        self.inner.commits.load(Ordering::Relaxed)
    }

    /// The longest time that any single commit took.
    pub fn longest(&self) -> LongestCommit {
        self.inner.pauses.longest()
    }

    /// Histogram of the durations of durable writes since the start.
    pub fn writes_took(&self) -> WriteHistogram {
        self.inner.pauses.writes()
    }

    /// Number of proposals that wait for the writer.
    pub fn waiting(&self) -> usize {
        self.inner.queue.len()
    }

    /// Serves the waiting proposals, then ends the writer and the background threads that use the store.
    pub fn stop(&self) {
        self.inner.queue.stop();
        if let Some(writer) = self.inner.writer.lock().take() {
            let _ = writer.join();
        }
        // The thread that watches for a stalled writer ends together with the other background threads.
        self.inner.stopping.store(true, Ordering::Relaxed);
        let background = std::mem::take(&mut *self.inner.background.lock());
        for thread in background {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// The refusal while the server stops: nothing is written any more.
pub fn stopping() -> Refusal {
    Refusal::new(Reason::NotReady, "the server is stopping").retry(Duration::from_secs(1))
}

fn not_written(what: &str) -> Refusal {
    Refusal::new(Reason::NotReady, what).way_out("an operator has to check: mayfly status").retry(Duration::from_secs(1))
}

/// A guard that counts grants under way.
pub struct InFlightGuard {
    inner: Arc<Inner>,
    count: usize,
}

impl Drop for InFlightGuard {
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
        // Wakes those that wait for the durable head, so that they learn of the failure.
        self.durable_watch.send_modify(|_| {});
    }

    /// Calls the observers with a durable batch, in order, on the writer's thread.
    fn tell(&self, batch: &Arc<Batch>) {
        for observer in self.observers.read().iter() {
            observer(batch);
        }
    }

    fn room(&self) -> DiskSpace {
        self.store().reserve().map_or(DiskSpace::Plenty, |r| r.maintain(self.system.steady()))
    }

    /// Whether grants may be written now.
    fn granting(&self, ledger: Millis, room: DiskSpace) -> Result<(), Refusal> {
        let verdict = self.may_grant(ledger, room);
        let mut stopped = self.stopped.write();
        if stopped.as_ref().map(|r| r.reason) != verdict.as_ref().err().map(|r| r.reason) {
            match &verdict {
                Ok(()) => tracing::warn!("credentials are issued again"),
                Err(no) => tracing::error!(reason = no.reason.as_str(), why = %no, "issuing is stopped"),
            }
            *stopped = verdict.as_ref().err().cloned();
        }
        verdict
    }

    fn may_grant(&self, ledger: Millis, room: DiskSpace) -> Result<(), Refusal> {
        if let Some(what) = self.damaged.read().as_ref() {
            return Err(Refusal::new(Reason::NotReady, format!("the history is damaged: {what}"))
                .way_out("an operator runs: mayfly server recover --after SEQ"));
        }
        if room != DiskSpace::Plenty {
            return Err(Refusal::new(
                Reason::DiskReserve,
                "the disk is full up to the reserve for revocations: nothing is issued",
            )
            .way_out("an operator frees space beside the data directory; revoking still works")
            .retry(Duration::from_secs(10)));
        }
        self.clock.trusted(ledger)
    }

    /// Called when nothing waits: checks clock, disk and health, so that status and refusals are up to date.
    fn look_around(&self) {
        if let Some(reserve) = self.store().reserve()
            && let Err(error) = reserve.restore()
        {
            tracing::warn!(%error, "the disk reserve could not be restored");
        }
        let ledger = self.look().time;
        let room = self.room();
        let _ = self.granting(ledger, room);
    }
}
