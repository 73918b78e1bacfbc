//! Reopens a store that failed: folds the state anew and tells the observers about commits that they have not seen.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::commit::{Commit, EncodedRecord};
use crate::recovery::open::{StartError, load};
use crate::state::seq_after;
use crate::writer::durable_summary::DurableSummary;
use crate::{Batch, CommittedRecord, Inner, READ_BYTES};
use mayfly_base::limits;
use mayfly_base::system::Stopwatch;
use mayfly_store::closed::ClosedStore;
use mayfly_store::{Position, Store};
use mayfly_verify::seq::{Millis, Seq};

/// Opens the store again after a failed append and replaces the state in memory by the state folded from the store.
///
/// An append that failed may be on the disk all the same. Its author will retry the request and receive that record as the answer, so every
/// follower of the ledger has to be told of the record first: a revocation that was acknowledged but never sent to followers would be
/// ignored by every verifier.
pub(crate) fn reopen_store(inner: &Arc<Inner>) -> Result<(), StartError> {
    // The engine locks its file, so the old handle must be closed first. Reads fail in the meantime; reads that are under way hold the
    // handle, so wait for them.
    let old = std::mem::replace(&mut *inner.store.write(), Arc::new(ClosedStore));
    let waited = Stopwatch::start();
    while Arc::strong_count(&old) > 1 && waited.us() < limits::REOPEN_WAIT_MS * 1000 {
        std::thread::park_timeout(Duration::from_millis(1));
    }
    drop(old);
    let store = (inner.opener)()?;
    let loaded = load(&*store, inner.settings.snapshots.as_ref())?;
    let seen = inner.durable_position.load(Ordering::Acquire);
    let durable = Seq::from_u64(inner.durable.load(Ordering::Acquire)).unwrap_or(Seq::ZERO);
    if loaded.state.position < seen || loaded.state.head < durable {
        return Err(StartError::Lost { head: loaded.state.position, seen, after: loaded.state.head });
    }
    let unheard = since(&*store, seen, durable)?;
    let mut state = inner.state.write();
    *state = loaded.state;
    inner.folded.fetch_add(1, Ordering::AcqRel);
    *inner.store.write() = store;
    let (head, position, standing) = (state.head, state.position, DurableSummary::of(&state));
    drop(state);
    inner.standing.store(Arc::new(standing));
    inner.durable_position.store(position, Ordering::Release);
    inner.durable.store(head.as_u64(), Ordering::Release);
    inner.durable_watch.send_replace(head);
    for batch in unheard {
        tracing::warn!(
            seq = %batch.head,
            records = batch.records.len(),
            "a batch that was being appended when the store failed is in the store"
        );
        inner.tell(&batch);
    }
    *inner.broken.write() = None;
    Ok(())
}

/// The commits after a position, in the form in which observers receive them. `seq`: the seq of the last record before them.
fn since(store: &dyn Store, after: Position, mut seq: Seq) -> Result<Vec<Arc<Batch>>, StartError> {
    let mut found = Vec::new();
    let mut next = after + 1;
    loop {
        let entries = store.read(next, READ_BYTES)?;
        if entries.is_empty() {
            return Ok(found);
        }
        for entry in entries {
            let commit =
                Commit::from_bytes(&entry.bytes).map_err(|what| StartError::Damaged { after: seq, position: entry.at, what })?;
            let time = Millis(commit.header.time);
            let records = commit.records.into_iter().filter_map(|record| {
                // The writer appends only records that it found valid, so every record here took effect.
                seq = seq_after(seq, &record);
                Some(CommittedRecord::new(seq, EncodedRecord::new(record)?))
            });
            let records: Vec<CommittedRecord> = records.collect();
            found.push(Arc::new(Batch { records, head: seq, time }));
            next = entry.at + 1;
        }
    }
}
