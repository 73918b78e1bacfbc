//! From a store to a state: the newest snapshot that the log vouches for, what follows folded in, the rest verified in the background.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::READ_BYTES;
use super::clock::Guarded;
use super::commit::{BadCommit, Commit, Hash};
use super::record::{Event, GenerationBegun, Record, SnapshotTaken, TaskHeartbeats, Who};
use super::state::{Ceilings, State};
use super::verify::EVERYTHING;
use super::writer::WRITER;
use super::{Inner, Lane, Ledger, Opener, Queue, Room, snapshot, writer};
use crate::limits;
use crate::refusal::No;
use crate::seq::{Millis, Seq};
use crate::store::{Position, Store, StoreError};
use crate::system::System;

/// How the ledger runs.
pub struct Settings {
    /// Where snapshots lie; `None` for none.
    pub snapshots: Option<PathBuf>,
    /// Most records gathered into one commit.
    pub gather_records: usize,
    /// Longest wait while gathering.
    pub gather_wait: Duration,
    /// How far clocks may differ, milliseconds.
    pub skew_ms: u64,
    /// Commits between snapshots.
    pub snapshot_every: u64,
    /// What this writer holds to before it appends: at most the fold's.
    pub ceilings: Ceilings,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            snapshots: None,
            gather_records: limits::GATHER_RECORDS,
            gather_wait: Duration::from_micros(limits::GATHER_WAIT_US),
            skew_ms: limits::CLOCK_SKEW_MS,
            snapshot_every: limits::SNAPSHOT_EVERY_COMMITS,
            ceilings: Ceilings::FOLD,
        }
    }
}

/// Why a server does not start on a store, and the command that mends it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The engine did not open.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// A commit is not what a writer wrote there.
    #[error(
        "the ledger is damaged after seq {after}: commit {position}: {what}\n  to mend it: mayfly server recover --after {after}"
    )]
    Damaged {
        /// The last seq that can be trusted.
        after: Seq,
        /// The place of the first commit that cannot.
        position: Position,
        /// What was found.
        what: BadCommit,
    },
    /// The oldest commits are gone and no snapshot covers them.
    #[error(
        "the ledger begins at commit {oldest}, and no snapshot covers what came before\n  \
         put back a snapshot from a backup, or: mayfly server recover --after {after}"
    )]
    NoSnapshot {
        /// The oldest commit there is.
        oldest: Position,
        /// Where a recovery would begin.
        after: Seq,
    },
    /// The store is older than something that it wrote: it was put back, or lost its end.
    #[error(
        "the store ends at commit {head}, but a snapshot beside it has seen commit {seen}: it was put back from a copy, or lost its end\n  \
         to go on from here, with all that was issued revoked: mayfly server recover --after {after}"
    )]
    Behind {
        /// The store's head.
        head: Position,
        /// What the snapshot has seen.
        seen: Position,
        /// The store's newest seq.
        after: Seq,
    },
    /// What was acknowledged is no longer in a store that was opened again.
    #[error(
        "the store ends at commit {head}, but commit {seen} was acknowledged before it was opened again: it lost its end\n  \
         to go on from here, with all that was issued revoked: mayfly server recover --after {after}"
    )]
    Lost {
        /// The store's head.
        head: Position,
        /// The newest commit that was acknowledged.
        seen: Position,
        /// The store's newest seq.
        after: Seq,
    },
    /// The first records could not be written.
    #[error("the ledger could not be written: {0}")]
    Write(String),
}

/// What folding a store came to.
pub struct Loaded {
    /// The state at the store's head.
    pub state: State,
    /// The snapshot that it began with, if any: the commits before are not yet verified.
    pub from: Option<Position>,
}

/// Folds a store from its newest snapshot that the log vouches for, or from its start.
pub fn load(store: &dyn Store, snapshots: Option<&PathBuf>) -> Result<Loaded, StartError> {
    let head = store.head()?;
    let oldest = store.oldest()?;
    for path in snapshots.map(|d| snapshot::list(d).unwrap_or_default()).unwrap_or_default() {
        let Ok((state, digest)) = snapshot::read(&path) else {
            tracing::warn!(path = %path.display(), "not a snapshot of this version; passed over");
            continue;
        };
        if state.position > head {
            let after = fold(store, State::default(), oldest.max(1), None).map_or(Seq::ZERO, |(s, _)| s.head);
            return Err(StartError::Behind { head, seen: state.position, after });
        }
        if state.position + 1 < oldest {
            continue;
        }
        let from = state.position;
        let (state, vouched) = fold(store, state, from + 1, Some(digest))?;
        if vouched {
            return Ok(Loaded { state, from: Some(from) });
        }
        tracing::warn!(path = %path.display(), "no record in the log vouches for this snapshot; passed over");
    }
    if oldest > 1 {
        return Err(StartError::NoSnapshot { oldest, after: Seq::ZERO });
    }
    Ok(Loaded { state: fold(store, State::default(), 1, None)?.0, from: None })
}

/// Why a store that the engine calls damaged is not served from, with the last seq that can be trusted.
pub fn damage(store: &dyn Store, what: String) -> StartError {
    match fold(store, State::default(), 1, None) {
        Err(error) => error,
        Ok((state, _)) => {
            StartError::Damaged { after: state.head, position: state.position + 1, what: BadCommit::Malformed(what) }
        }
    }
}

/// Folds what the store holds from a place on. The flag says whether a record in it vouches for the digest.
fn fold(store: &dyn Store, mut state: State, from: Position, digest: Option<Hash>) -> Result<(State, bool), StartError> {
    let mut vouched = false;
    let mut next = from;
    loop {
        let entries = match store.read(next, READ_BYTES) {
            Err(StoreError::Damaged { what, .. }) => {
                return Err(StartError::Damaged { after: state.head, position: next, what: BadCommit::Malformed(what) });
            }
            entries => entries?,
        };
        if entries.is_empty() {
            return Ok((state, vouched));
        }
        for entry in entries {
            let damaged = |what: BadCommit| StartError::Damaged { after: state.head, position: next, what };
            if entry.at != next {
                return Err(damaged(BadCommit::Malformed(format!("the next commit there is {}", entry.at))));
            }
            let commit = Commit::from_bytes(&entry.bytes).map_err(damaged)?;
            let after = state.head;
            state.fold(entry.at, &commit).map_err(|what| StartError::Damaged { after, position: next, what })?;
            vouched |= digest.is_some_and(|d| {
                commit.records.iter().any(|r| matches!(&r.event, Some(Event::SnapshotTaken(s)) if s.digest == d))
            });
            next += 1;
        }
    }
}

impl Ledger {
    /// Opens a store, folds it, begins the first generation where it is empty, and starts the writer.
    pub fn open(opener: Opener, system: System, settings: Settings) -> Result<Ledger, StartError> {
        let store = opener()?;
        let loaded = load(&*store, settings.snapshots.as_ref())?;
        let fresh = loaded.state.position == 0;
        let away_since = loaded.state.time;
        let clock = Arc::new(Guarded::new(system, settings.skew_ms));
        let system = System::with_clock(clock.clone());
        let (durable, position) = (loaded.state.head, loaded.state.position);
        let verify = loaded.from.map(|from| (from, loaded.state.writers.clone()));
        let inner = Arc::new(Inner {
            queue: Queue::new(settings.gather_records, settings.gather_wait),
            snapshot_at: AtomicU64::new(loaded.from.unwrap_or(0)),
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
            snapshotting: Mutex::new(false),
            writer: Mutex::new(None),
            background: Mutex::default(),
            stopping: AtomicBool::new(false),
        });
        let for_writer = inner.clone();
        let thread = std::thread::Builder::new().name("ledger-writer".into()).spawn(move || writer::run(&for_writer));
        *inner.writer.lock() = Some(thread.map_err(|e| StartError::Write(e.to_string()))?);
        let ledger = Ledger { inner };
        ledger.begin(fresh, away_since)?;
        if let Some((from, _)) = verify {
            ledger.verify_in_background(from);
        }
        Ok(ledger)
    }

    /// The first records of a start: the generation of a new store, and one full interval for every heartbeat.
    fn begin(&self, fresh: bool, away_since: Millis) -> Result<(), StartError> {
        let record = if fresh {
            let begun = GenerationBegun {
                generation: 1,
                cause: "created".into(),
                store: self.store().id().as_bytes().to_vec(),
                ..Default::default()
            };
            Record::new(Who::Mayfly("created".into()), Event::GenerationBegun(begun))
        } else {
            let alive = TaskHeartbeats { tasks: Vec::new(), all: true, away_since: away_since.0 };
            Record::new(Who::Mayfly("started".into()), Event::TaskHeartbeats(alive))
        };
        let reply = self.propose(Lane::Revoke, vec![record]).map_err(|e| StartError::Write(e.to_string()))?;
        match reply.answer.blocking_recv() {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(no)) => Err(StartError::Write(no.to_string())),
            Err(_) => Err(StartError::Write("the writer ended".into())),
        }
    }
}

impl Inner {
    /// Writes a snapshot in a thread of its own when it is time, and its record after it.
    pub(super) fn maybe_snapshot(self: &Arc<Self>, position: Position) {
        let Some(dir) = self.settings.snapshots.clone() else { return };
        // What is left of a full disk is for revocations.
        if self.room() != Room::Plenty {
            return;
        }
        if position.saturating_sub(self.snapshot_at.load(Ordering::Relaxed)) < self.settings.snapshot_every {
            return;
        }
        let mut busy = self.snapshotting.lock();
        if std::mem::replace(&mut *busy, true) {
            return;
        }
        self.snapshot_at.store(position, Ordering::Relaxed);
        // On the writer's thread right after an append: the state is that of the durable head.
        let state = self.state.read().clone();
        let inner = self.clone();
        let spawned = std::thread::Builder::new().name("ledger-snapshot".into()).spawn(move || {
            match snapshot::write(&dir, &state) {
                Ok(digest) => {
                    let taken = SnapshotTaken { seq: state.head.as_u64(), position: state.position, digest: digest.to_vec() };
                    let record = Record::new(Who::Mayfly("snapshot".into()), Event::SnapshotTaken(taken));
                    let ledger = Ledger { inner: inner.clone() };
                    if let Err(No::Fault(fault)) = ledger.propose(Lane::Note, vec![record]).map(drop) {
                        tracing::error!(%fault, "the snapshot's record was not proposed");
                    }
                    let _ = snapshot::prune(&dir);
                }
                Err(error) => tracing::error!(%error, "the snapshot was not written; start will fold more of the log"),
            }
            *inner.snapshotting.lock() = false;
        });
        match spawned {
            Ok(thread) => self.keep(thread),
            Err(error) => {
                tracing::error!(%error, "no thread for the snapshot");
                *busy = false;
            }
        }
    }

    /// Notes a thread that has the store in use, so that stopping waits for it: a store is closed when nobody has it any more.
    pub(super) fn keep(&self, thread: std::thread::JoinHandle<()>) {
        let mut background = self.background.lock();
        background.retain(|t| !t.is_finished());
        background.push(thread);
    }
}

/// The number under which this replica writes, for who reads the chain.
pub const fn writer_number() -> u32 {
    WRITER
}
