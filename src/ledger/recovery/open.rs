//! Opens a ledger: loads the newest snapshot whose digest is in the log, folds the commits after it, and verifies the rest in the
//! background.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::clock::GuardedClock;
use crate::record::{Author, Event, GenerationBegun, Record, TaskHeartbeats};
pub use crate::recovery::load::{LoadedState, StartError, damage, load};
use crate::recovery::retention::RetentionLimit;
use crate::recovery::verify::EVERYTHING;
use crate::state::Quotas;
use crate::writer::commit_loop::WRITER;
use crate::writer::durable_summary::DurableSummary;
use crate::writer::writer_stats::WriterStats;
use crate::{Inner, Ledger, LogReaders, Opener, ProposalKind, ProposalQueue, writer::commit_loop};
use mayfly_base::limits;
use mayfly_base::system::System;
use mayfly_verify::seq::Millis;

/// Settings of the ledger.
pub struct LedgerSettings {
    /// Directory of the snapshots; `None` for no snapshots.
    pub snapshots: Option<PathBuf>,
    /// Directory of the data derived from the history; `None`: kept in memory.
    pub history: Option<PathBuf>,
    /// Approximate bytes of records per block of the history index.
    pub index_block: usize,
    /// Continuous export is set: a commit is removed only after it was exported.
    pub export: bool,
    /// Names of the named values in which other followers of the log keep their place (at the beginning of the value). No commit from such
    /// a place on is removed.
    pub followed: Vec<String>,
    /// Most records that are gathered into one commit.
    pub gather_records: usize,
    /// Longest wait while gathering.
    pub gather_wait: Duration,
    /// Allowed clock skew, milliseconds.
    pub skew_ms: u64,
    /// Commits between snapshots.
    pub snapshot_every: u64,
    /// How much of the history is kept; `None` for all of it.
    pub keep: Option<RetentionLimit>,
    /// Limits that this writer applies before it appends: at most those of the fold.
    pub ceilings: Quotas,
}

impl Default for LedgerSettings {
    fn default() -> LedgerSettings {
        LedgerSettings {
            snapshots: None,
            history: None,
            index_block: limits::INDEX_BLOCK_BYTES,
            export: false,
            followed: Vec::new(),
            gather_records: limits::GATHER_RECORDS,
            gather_wait: Duration::from_micros(limits::GATHER_WAIT_US),
            skew_ms: limits::CLOCK_SKEW_MS,
            snapshot_every: limits::SNAPSHOT_EVERY_COMMITS,
            keep: None,
            ceilings: Quotas::FOLD,
        }
    }
}

impl Ledger {
    /// Opens a store, folds it, begins the first generation if the store is empty, and starts the writer.
    pub fn open(opener: Opener, system: System, settings: LedgerSettings) -> Result<Ledger, StartError> {
        let store = opener()?;
        let loaded = load(&*store, settings.snapshots.as_ref())?;
        let fresh = loaded.state.position == 0;
        let away_since = loaded.state.time;
        let clock = Arc::new(GuardedClock::new(system, settings.skew_ms));
        let system = System::with_clock(clock.clone());
        let (durable, position) = (loaded.state.head, loaded.state.position);
        let (from, heads, removed) = (loaded.from, loaded.heads, loaded.state.removed.clone());
        let inner = Arc::new(Inner {
            ceilings: ArcSwap::from_pointee(settings.ceilings),
            readers: RwLock::new(LogReaders { export: settings.export, followed: settings.followed.clone() }),
            queue: ProposalQueue::new(settings.gather_records, settings.gather_wait),
            snapshot_at: AtomicU64::new(loaded.from.unwrap_or(0)),
            snapshot_seq: AtomicU64::new(loaded.seq.as_u64()),
            standing: ArcSwap::from_pointee(DurableSummary::of(&loaded.state)),
            alive_since: AtomicU64::new(0),
            state: RwLock::new(loaded.state),
            durable: AtomicU64::new(durable.as_u64()),
            durable_watch: watch::Sender::new(durable),
            durable_position: AtomicU64::new(position),
            folded: AtomicU64::new(0),
            store: RwLock::new(store),
            opener,
            clock,
            system,
            settings,
            observers: RwLock::new(Vec::new()),
            broken: RwLock::new(None),
            stopped: RwLock::new(None),
            damaged: RwLock::new(None),
            verified: AtomicU64::new(if loaded.from.is_some() { 0 } else { EVERYTHING }),
            groups: AtomicU32::new(1),
            commits: AtomicU64::new(0),
            pauses: WriterStats::default(),
            under_way: crate::writer::stall::CommitInProgress::default(),
            snapshotting: Mutex::new(false),
            writer: Mutex::new(None),
            background: Mutex::default(),
            keeper: OnceLock::new(),
            pinned: AtomicU64::new(u64::MAX),
            derived: crate::reader::derived::DerivedData::default(),
            stopping: AtomicBool::new(false),
        });
        let for_writer = inner.clone();
        let thread = std::thread::Builder::new().name("ledger-writer".into()).spawn(move || commit_loop::run(&for_writer));
        *inner.writer.lock() = Some(thread.map_err(|e| StartError::Write(e.to_string()))?);
        let ledger = Ledger { inner };
        let watched = ledger.inner.clone();
        let watch = std::thread::Builder::new().name("ledger-watch".into()).spawn(move || crate::writer::stall::watch(&watched));
        ledger.inner.background.lock().push(watch.map_err(|e| StartError::Write(e.to_string()))?);
        ledger.begin(fresh, away_since)?;
        if let Some(from) = from {
            ledger.verify_in_background(from, removed, heads);
        }
        ledger.derive_in_background();
        if let Some(keep) = ledger.inner.settings.keep {
            ledger.keep_in_background(keep);
        }
        Ok(ledger)
    }

    /// Writes the first records of a start: the generation of a new store, and one full interval for every heartbeat.
    fn begin(&self, fresh: bool, away_since: Millis) -> Result<(), StartError> {
        let record = if fresh {
            let begun = GenerationBegun {
                generation: 1,
                cause: "created".into(),
                store: self.store().id().as_bytes().to_vec(),
                ..Default::default()
            };
            Record::new(Author::Mayfly("created".into()), Event::GenerationBegun(begun))
        } else {
            let alive = TaskHeartbeats { tasks: Vec::new(), all: true, away_since: away_since.0 };
            Record::new(Author::Mayfly("started".into()), Event::TaskHeartbeats(alive))
        };
        let reply = self.propose(ProposalKind::Revoke, vec![record]).map_err(|e| StartError::Write(e.to_string()))?;
        match reply.answer.blocking_recv() {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(no)) => Err(StartError::Write(no.to_string())),
            Err(_) => Err(StartError::Write("the writer ended".into())),
        }
    }
}

/// The writer number of this replica, for readers of the chain.
pub const fn writer_number() -> u32 {
    WRITER
}
