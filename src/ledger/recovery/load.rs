//! Builds a state from a store: loads the newest snapshot whose digest is in the log, and folds the commits after it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};

use crate::commit::{BadCommit, Commit, Hash, WriterHead};
use crate::record::Event;
use crate::state::State;
use crate::{READ_BYTES, recovery::snapshot};
use mayfly_store::{Position, Store, StoreError};
use mayfly_verify::seq::Seq;

/// Why a server does not start on a store, with the command that repairs it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The engine failed to open.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// A commit is not what a writer wrote at its position.
    #[error(
        "the ledger is damaged after seq {after}: commit {position}: {what}\n  to mend it: mayfly server recover --after {after}"
    )]
    Damaged {
        /// The last seq that can be trusted.
        after: Seq,
        /// The position of the first commit that cannot be trusted.
        position: Position,
        /// The damage.
        what: BadCommit,
    },
    /// The oldest commits are missing and no snapshot covers them.
    #[error(
        "the ledger begins at commit {oldest}, and no snapshot covers what came before\n  \
         put back a snapshot from a backup, or: mayfly server recover --after {after}"
    )]
    NoSnapshot {
        /// The position of the oldest commit in the store.
        oldest: Position,
        /// The seq from which a recovery would begin.
        after: Seq,
    },
    /// The store is older than a snapshot made from it: an older copy was put back, or the store lost its end.
    #[error(
        "the store ends at commit {head}, but a snapshot beside it has seen commit {seen}: it was put back from a copy, or lost its end\n  \
         to go on from here, with all that was issued revoked: mayfly server recover --after {after}"
    )]
    Behind {
        /// The store's head.
        head: Position,
        /// The position that the snapshot has seen.
        seen: Position,
        /// The store's newest seq.
        after: Seq,
    },
    /// A store that was opened again lacks commits that were acknowledged.
    #[error(
        "the store ends at commit {head}, but commit {seen} was acknowledged before it was opened again: it lost its end\n  \
         to go on from here, with all that was issued revoked: mayfly server recover --after {after}"
    )]
    Lost {
        /// The store's head.
        head: Position,
        /// The position of the newest acknowledged commit.
        seen: Position,
        /// The store's newest seq.
        after: Seq,
    },
    /// The oldest commits are missing, and no record announces their removal.
    #[error(
        "the ledger begins at commit {oldest}, but its records tell of no removal beyond commit {before}: its beginning was lost\n  \
         put back the data directory from a backup, or to go on without it: mayfly server recover --after {after}"
    )]
    Beginning {
        /// The position of the oldest commit in the store.
        oldest: Position,
        /// The position of the oldest commit that should be there.
        before: Position,
        /// The store's newest seq.
        after: Seq,
    },
    /// The first records could not be written.
    #[error("the ledger could not be written: {0}")]
    Write(String),
}

/// The result of folding a store.
pub struct LoadedState {
    /// The state at the store's head.
    pub state: State,
    /// The position of the snapshot that the fold began with, if any: the commits before it are not verified yet.
    pub from: Option<Position>,
    /// The seq of that snapshot's last record.
    pub seq: Seq,
    /// Each writer's chain head at that snapshot.
    pub heads: BTreeMap<u32, WriterHead>,
}

/// Folds a store from its newest snapshot whose digest is in the log, or from its beginning.
pub fn load(store: &dyn Store, snapshots: Option<&PathBuf>) -> Result<LoadedState, StartError> {
    let (head, oldest) = (store.head()?, store.oldest()?);
    let mut ahead = None;
    let mut loaded = None;
    for path in snapshots.map(|d| snapshot::list(d).unwrap_or_default()).unwrap_or_default() {
        let Ok((state, digest)) = snapshot::read(&path) else {
            tracing::warn!(path = %path.display(), "a file is not a snapshot of this version and is skipped");
            continue;
        };
        let (from, seq, heads) = (state.position, state.head, state.writers.clone());
        if from > head {
            ahead.get_or_insert(from);
            continue;
        }
        if from + 1 < oldest {
            continue;
        }
        let (state, vouched) = match (fold(store, state, from + 1, Some(digest)), ahead) {
            (Ok(folded), _) => folded,
            // The store is older than a snapshot of it. That error is reported first; how far the store can be trusted is only needed for
            // the message.
            (Err(_), Some(_)) => continue,
            (Err(error), None) => return Err(error),
        };
        if vouched {
            loaded = Some(LoadedState { state, from: Some(from), seq, heads });
            break;
        }
        tracing::warn!(path = %path.display(), "a snapshot has no matching record in the log and is skipped");
    }
    if loaded.is_none() && oldest <= 1 {
        match (fold(store, State::default(), 1, None), ahead) {
            (Ok((state, _)), _) => loaded = Some(LoadedState { state, from: None, seq: Seq::ZERO, heads: BTreeMap::new() }),
            (Err(_), Some(_)) => {}
            (Err(error), None) => return Err(error),
        }
    }
    let after = loaded.as_ref().map_or(Seq::ZERO, |l| l.state.head);
    if let Some(seen) = ahead {
        return Err(StartError::Behind { head, seen, after });
    }
    let loaded = loaded.ok_or(StartError::NoSnapshot { oldest, after })?;
    let before = loaded.state.removed.before.max(1);
    if oldest > before { Err(StartError::Beginning { oldest, before, after }) } else { Ok(loaded) }
}

/// The error for a store with a gap, with the last seq before the gap.
pub fn damage(store: &dyn Store, what: String, snapshots: Option<&PathBuf>) -> StartError {
    match load(store, snapshots) {
        Err(error) => error,
        Ok(LoadedState { state, .. }) => {
            StartError::Damaged { after: state.head, position: state.position + 1, what: BadCommit::Malformed(what) }
        }
    }
}

/// Folds the store from a position on. The flag says whether a record in the store vouches for the digest.
///
/// Reading, hashing and decoding take longer than folding, and run in another thread at the same time.
fn fold(store: &dyn Store, mut state: State, from: Position, digest: Option<Hash>) -> Result<(State, bool), StartError> {
    let mut vouched = false;
    let mut next = from;
    std::thread::scope(|threads| {
        let (out, read) = sync_channel(READ_AHEAD);
        threads.spawn(move || read_from(store, from, &out));
        for commit in read {
            let damaged = |what: BadCommit| StartError::Damaged { after: state.head, position: next, what };
            let (at, commit) = match commit {
                Ok((at, commit)) => (at, commit.map_err(damaged)?),
                Err(StoreError::Damaged { what, .. }) => return Err(damaged(BadCommit::Malformed(what))),
                Err(error) => return Err(error.into()),
            };
            if at != next {
                return Err(damaged(BadCommit::Malformed(format!("the next commit there is {at}"))));
            }
            let after = state.head;
            state.fold(at, &commit).map_err(|what| StartError::Damaged { after, position: next, what })?;
            vouched |= digest.is_some_and(|d| {
                commit.records.iter().any(|r| matches!(&r.event, Some(Event::SnapshotTaken(s)) if s.digest == d))
            });
            next += 1;
        }
        Ok((state, vouched))
    })
}

/// Commits decoded ahead of the fold: 16 MB of records.
const READ_AHEAD: usize = 32;

type Read = Result<(Position, Result<Commit, BadCommit>), StoreError>;

/// Reads until the end of the store, an error, or until the receiver is gone.
fn read_from(store: &dyn Store, mut next: Position, out: &SyncSender<Read>) {
    loop {
        let entries = match store.read(next, READ_BYTES) {
            Ok(entries) => entries,
            Err(error) => return drop(out.send(Err(error))),
        };
        if entries.is_empty() {
            return;
        }
        for entry in entries {
            next = entry.at + 1;
            if out.send(Ok((entry.at, Commit::from_bytes(&entry.bytes)))).is_err() {
                return;
            }
        }
    }
}
