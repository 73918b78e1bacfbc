//! When a snapshot is taken, and which snapshots are kept.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::record::{Author, Event, Record, SnapshotTaken};
use crate::state::State;
use crate::writer::durable_summary::mark_background_thread;
use crate::{DiskSpace, Inner, Ledger, ProposalKind, recovery::snapshot};
use mayfly_base::limits;
use mayfly_store::Position;
use mayfly_verify::seq::Seq;

impl Inner {
    /// If it is time, starts a thread that writes a snapshot and then proposes its record.
    pub(crate) fn maybe_snapshot(self: &Arc<Self>, position: Position, head: Seq) {
        let Some(dir) = self.settings.snapshots.clone() else { return };
        // The rest of a nearly full disk is left to revocations.
        if self.room() != DiskSpace::Plenty {
            return;
        }
        let commits = position.saturating_sub(self.snapshot_at.load(Ordering::Relaxed));
        let records = head.as_u64().saturating_sub(self.snapshot_seq.load(Ordering::Relaxed));
        // A few large commits take as long to fold as many small ones, so records count as well.
        if commits < self.settings.snapshot_every && records < limits::SNAPSHOT_EVERY_RECORDS {
            return;
        }
        let mut busy = self.snapshotting.lock();
        if std::mem::replace(&mut *busy, true) {
            return;
        }
        // The call runs on the writer's thread right after an append, so the state is that of the durable head.
        let state = self.look();
        // A snapshot writes every live credential. A snapshot that is due by its number of records therefore also waits for half as many
        // records as there are entries, so that each issuance pays for at most two entries. An ended credential's entry is half as long.
        let entries = state.credentials.len() + state.credentials.ended() / 2;
        if commits < self.settings.snapshot_every && records < entries as u64 / 2 {
            *busy = false;
            return;
        }
        let state = state.frozen();
        self.snapshot_at.store(position, Ordering::Relaxed);
        self.snapshot_seq.store(head.as_u64(), Ordering::Relaxed);
        let inner = self.clone();
        let spawned = std::thread::Builder::new().name("ledger-snapshot".into()).spawn(move || {
            mark_background_thread();
            take(&inner, &dir, state);
            *inner.snapshotting.lock() = false;
        });
        match spawned {
            Ok(thread) => self.keep(thread),
            Err(error) => {
                tracing::error!(%error, "the snapshot was not written: its thread could not be started");
                *busy = false;
            }
        }
    }

    /// Registers a thread that uses the store, so that stopping waits for it: a store is closed when nothing uses it any more.
    pub(crate) fn keep(&self, thread: std::thread::JoinHandle<()>) {
        let mut background = self.background.lock();
        background.retain(|t| !t.is_finished());
        background.push(thread);
    }
}

fn take(inner: &Arc<Inner>, dir: &Path, state: State) {
    inner.note_alive(&state);
    let digest = match snapshot::write(dir, &state) {
        Ok(digest) => digest,
        Err(error) => {
            return tracing::error!(%error, "the snapshot was not written; the next start folds more of the log");
        }
    };
    let taken = SnapshotTaken { seq: state.head.as_u64(), position: state.position, digest: digest.to_vec() };
    drop(state);
    let record = Record::new(Author::Mayfly("snapshot".into()), Event::SnapshotTaken(taken));
    let ledger = Ledger { inner: inner.clone() };
    // The record must be durable before older snapshots are removed: without its record the new file is ignored, and a start needs the
    // older ones.
    let proposed = ledger.propose(ProposalKind::Note, vec![record]).map(|proposed| proposed.answer.blocking_recv());
    if !matches!(proposed, Ok(Ok(Ok(_)))) {
        return tracing::warn!("the snapshot's record could not be written to the ledger; the snapshot is not used");
    }
    let stay = inner.standing().snapshots.iter().flatten().map(|taken| taken.seq).collect::<Vec<_>>();
    if let Err(error) = snapshot::prune(dir, &stay) {
        tracing::warn!(%error, "old snapshots could not be removed");
    }
    // More of the history may be removable now.
    if let Some(keeper) = inner.keeper.get() {
        keeper.unpark();
    }
}
