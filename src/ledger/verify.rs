//! The history before a snapshot, verified while the server already serves.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use super::READ_BYTES;
use super::commit::{ChainHead, Commit};
use super::state::seq_after;
use super::{Inner, Ledger, snapshot};
use crate::seq::{Millis, Seq};
use crate::store::{Position, Store};

/// All that is durable is verified: folding verifies, too.
pub(super) const EVERYTHING: u64 = u64::MAX;

impl Ledger {
    /// The chain was verified up to here since the start.
    pub fn verified(&self) -> Seq {
        match self.inner.verified.load(Ordering::Relaxed) {
            EVERYTHING => self.durable(),
            seq => Seq::from_u64(seq).unwrap_or(Seq::ZERO),
        }
    }

    pub(super) fn verify_in_background(&self, until: Position) {
        let inner = self.inner.clone();
        let heads = snapshot_heads(&inner, until);
        let started = std::thread::Builder::new().name("ledger-verify".into()).spawn(move || {
            let store = inner.store();
            let reached = |seq: Seq| inner.verified.store(seq.as_u64(), Ordering::Relaxed);
            match verify_before(&*store, until, &heads, &inner.stopping, reached) {
                Ok(true) => inner.verified.store(EVERYTHING, Ordering::Relaxed),
                Ok(false) => {}
                Err(what) => {
                    tracing::error!(%what, "the history is damaged; no grants until it was recovered");
                    *inner.damaged.write() = Some(what);
                }
            }
        });
        match started {
            Ok(thread) => self.inner.keep(thread),
            Err(error) => tracing::error!(%error, "the history is not verified: no thread"),
        }
    }
}

/// Verifies the chain of commits before a snapshot: contents, roots and headers, without folding. False where it was stopped.
///
/// `reached` is told the seq of each piece's last record, where the log is whole and it is known therefore.
fn verify_before(
    store: &dyn Store,
    until: Position,
    heads: &BTreeMap<u32, ChainHead>,
    stopping: &AtomicBool,
    mut reached: impl FnMut(Seq),
) -> Result<bool, String> {
    let mut chains: BTreeMap<u32, ChainHead> = Default::default();
    let mut next = store.oldest().map_err(|e| e.to_string())?;
    let whole = next <= 1;
    let mut seq = Seq::ZERO;
    while next <= until {
        let entries = store.read(next, READ_BYTES).map_err(|e| e.to_string())?;
        if entries.is_empty() {
            return Err(format!("commit {next} is missing"));
        }
        for entry in entries {
            if stopping.load(Ordering::Relaxed) {
                return Ok(false);
            }
            if entry.at > until {
                break;
            }
            if entry.at != next {
                return Err(format!("commit {next} is missing"));
            }
            let commit = Commit::from_bytes(&entry.bytes).map_err(|e| format!("commit {next}: {e}"))?;
            // Where older commits were removed by retention, a chain begins with what is left of it.
            let start = if whole {
                ChainHead::START
            } else {
                let previous = commit.header.previous.as_slice().try_into().unwrap_or_default();
                ChainHead { number: commit.header.number.saturating_sub(1), hash: previous, time: Millis(0) }
            };
            let chain = chains.entry(commit.header.writer).or_insert(start);
            *chain = commit.continues(*chain).map_err(|e| format!("commit {next}: {e}"))?;
            seq = commit.records.iter().fold(seq, seq_after);
            next += 1;
        }
        if whole {
            reached(seq);
        }
    }
    for (writer, head) in heads {
        if chains.get(writer).is_some_and(|c| c != head) {
            return Err(format!("the chain of writer {writer} does not lead to the snapshot"));
        }
    }
    Ok(true)
}

/// Where each writer's chain stood at a snapshot.
fn snapshot_heads(inner: &Inner, at: Position) -> BTreeMap<u32, ChainHead> {
    let dir = inner.settings.snapshots.as_ref();
    let found = dir.map(|d| snapshot::list(d).unwrap_or_default()).unwrap_or_default();
    let state = found.iter().filter_map(|p| snapshot::read(p).ok()).map(|(s, _)| s).find(|s| s.position == at);
    state.map(|s| s.writers).unwrap_or_default()
}
