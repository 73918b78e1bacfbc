//! Verifies the part of the history that precedes the snapshot, in the background while the server already serves.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::Ledger;
use crate::commit::{Commit, WriterHead};
use crate::state::{RemovedHistory, seq_after};
use crate::writer::durable_summary::mark_background_thread;
use mayfly_store::{Position, Store};
use mayfly_verify::seq::Seq;

/// Everything durable is verified; commits that were folded are verified by the fold.
pub(crate) const EVERYTHING: u64 = u64::MAX;

/// Bytes verified per piece: about 5 ms.
const VERIFY_BYTES: usize = 1024 * 1024;
/// Pause between two pieces.
const PAUSE: Duration = Duration::from_millis(10);

impl Ledger {
    /// The seq up to which the chain was verified since the start.
    pub fn verified(&self) -> Seq {
        match self.inner.verified.load(Ordering::Relaxed) {
            EVERYTHING => self.durable(),
            seq => Seq::from_u64(seq).unwrap_or(Seq::ZERO),
        }
    }

    /// `removed`: what is removed now. `heads`: each writer's chain head according to the snapshot at `until`.
    pub(crate) fn verify_in_background(&self, until: Position, removed: RemovedHistory, heads: BTreeMap<u32, WriterHead>) {
        let inner = self.inner.clone();
        let started = std::thread::Builder::new().name("ledger-verify".into()).spawn(move || {
            mark_background_thread();
            let store = inner.store();
            let reached = |seq: Seq| {
                inner.verified.store(seq.as_u64(), Ordering::Relaxed);
                // Twice as long as a piece takes, so that commits and other processes on the core go in between.
                std::thread::sleep(PAUSE);
            };
            match verify_before(&*store, until, &removed, &heads, &inner.stopping, reached) {
                Ok(true) => inner.verified.store(EVERYTHING, Ordering::Relaxed),
                Ok(false) => {}
                Err(what) => {
                    tracing::error!(
                        %what,
                        "the history is damaged; issuing is stopped until an operator recovers it (mayfly server recover)"
                    );
                    *inner.damaged.write() = Some(what);
                }
            }
        });
        match started {
            Ok(thread) => self.inner.keep(thread),
            Err(error) => tracing::error!(%error, "the history is not verified: the verification thread could not be started"),
        }
    }
}

/// Verifies the chain of commits before a snapshot: contents, roots and headers, without folding. Returns false when it was stopped.
///
/// Verification begins where a record says that removal ended, or earlier while that removal is still under way. `reached` is called with
/// the seq of the last record of each piece.
pub(crate) fn verify_before(
    store: &dyn Store,
    until: Position,
    removed: &RemovedHistory,
    heads: &BTreeMap<u32, WriterHead>,
    stopping: &AtomicBool,
    mut reached: impl FnMut(Seq),
) -> Result<bool, String> {
    let mut next = store.oldest().map_err(|e| e.to_string())?;
    // Commits that are about to be removed need not be complete; those after them must be.
    let begin = removed.before.max(1);
    if next > begin {
        return Err(format!("commits {begin} to {} are missing", next - 1));
    }
    next = begin;
    let (mut chains, mut seq) = (removed.chains.clone(), removed.seq);
    while next <= until {
        let entries = store.read(next, VERIFY_BYTES).map_err(|e| e.to_string())?;
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
            let chain = chains.entry(commit.header.writer).or_insert(WriterHead::START);
            *chain = commit.continues(*chain).map_err(|e| format!("commit {next}: {e}"))?;
            seq = commit.records.iter().fold(seq, seq_after);
            next += 1;
        }
        reached(seq);
    }
    for (writer, head) in heads {
        if chains.get(writer).is_none_or(|c| (c.number, c.hash) != (head.number, head.hash)) {
            return Err(format!("the chain of writer {writer} does not lead to the snapshot"));
        }
    }
    Ok(true)
}
