//! From a store to a state: the newest snapshot that the log vouches for, and what follows folded in.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};

use super::commit::{BadCommit, ChainHead, Commit, Hash};
use super::record::Event;
use super::state::State;
use super::{READ_BYTES, snapshot};
use crate::seq::Seq;
use crate::store::{Position, Store, StoreError};

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
    /// The oldest commits are gone, and no record says that they were removed.
    #[error(
        "the ledger begins at commit {oldest}, but its records tell of no removal beyond commit {before}: its beginning was lost\n  \
         put back the data directory from a backup, or to go on without it: mayfly server recover --after {after}"
    )]
    Beginning {
        /// The oldest commit there is.
        oldest: Position,
        /// The oldest that should be there.
        before: Position,
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
    /// The seq of its last record.
    pub seq: Seq,
    /// Where each writer's chain stood there.
    pub heads: BTreeMap<u32, ChainHead>,
}

/// Folds a store from its newest snapshot that the log vouches for, or from its start.
pub fn load(store: &dyn Store, snapshots: Option<&PathBuf>) -> Result<Loaded, StartError> {
    let (head, oldest) = (store.head()?, store.oldest()?);
    let mut ahead = None;
    let mut loaded = None;
    for path in snapshots.map(|d| snapshot::list(d).unwrap_or_default()).unwrap_or_default() {
        let Ok((state, digest)) = snapshot::read(&path) else {
            tracing::warn!(path = %path.display(), "not a snapshot of this version; passed over");
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
            // The store is older than a snapshot of it. That comes first; how far it can be trusted is only asked for that.
            (Err(_), Some(_)) => continue,
            (Err(error), None) => return Err(error),
        };
        if vouched {
            loaded = Some(Loaded { state, from: Some(from), seq, heads });
            break;
        }
        tracing::warn!(path = %path.display(), "no record in the log vouches for this snapshot; passed over");
    }
    if loaded.is_none() && oldest <= 1 {
        match (fold(store, State::default(), 1, None), ahead) {
            (Ok((state, _)), _) => loaded = Some(Loaded { state, from: None, seq: Seq::ZERO, heads: BTreeMap::new() }),
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

/// Why a store with a gap is not served from, with the last seq before it.
pub fn damage(store: &dyn Store, what: String, snapshots: Option<&PathBuf>) -> StartError {
    match load(store, snapshots) {
        Err(error) => error,
        Ok(Loaded { state, .. }) => {
            StartError::Damaged { after: state.head, position: state.position + 1, what: BadCommit::Malformed(what) }
        }
    }
}

/// Folds what the store holds from a place on. The flag says whether a record in it vouches for the digest.
///
/// Reading, hashing and decoding take longer than folding, and go on beside it.
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

/// Commits that are decoded before they are folded: 16 MB of records.
const READ_AHEAD: usize = 32;

type Read = Result<(Position, Result<Commit, BadCommit>), StoreError>;

/// Reads on until the end, an error, or nobody listens.
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
