//! The kept frontier of a tree whose first commits were removed. Retention stores it as a named value (`tree/` and the number of removed
//! leaves) before the first of these commits is removed.

use super::frontier::Frontier;
use super::stored::CommitEnd;
use crate::state::RemovedHistory;
use mayfly_store::{Position, Precondition, Store, StoreError};

const NAMED: &str = "tree/";

/// The beginning of a tree whose first commits were removed.
pub(crate) struct TreeBase {
    /// The frontier over the removed commits.
    pub frontier: Frontier,
    /// The end of the removed commits.
    pub mark: CommitEnd,
}

impl TreeBase {
    fn of(bytes: &[u8]) -> Option<TreeBase> {
        let (seq, rest) = bytes.split_first_chunk()?;
        let (time, rest) = rest.split_first_chunk()?;
        let mark = CommitEnd { seq: u64::from_be_bytes(*seq), time: u64::from_be_bytes(*time) };
        Some(TreeBase { frontier: Frontier::from_bytes(rest)?, mark })
    }
}

/// The frontier of the tree over the commits before a position, if retention kept it.
pub(crate) fn frontier_at(store: &dyn Store, before: Position) -> Result<Option<Frontier>, StoreError> {
    if before <= 1 {
        return Ok(Some(Frontier::default()));
    }
    let kept = store.named(&name(before - 1))?;
    Ok(kept.and_then(|bytes| TreeBase::of(&bytes)).map(|base| base.frontier).filter(|f| f.size() == before - 1))
}

/// Stores the frontier of the commits that are about to be removed, and deletes stored frontiers that are no longer needed.
pub(crate) fn keep_frontier(
    store: &dyn Store,
    frontier: &Frontier,
    now: &RemovedHistory,
    next: &RemovedHistory,
) -> Result<(), StoreError> {
    let mut bytes = next.seq.as_u64().to_be_bytes().to_vec();
    bytes.extend(next.time.0.to_be_bytes());
    bytes.extend(frontier.to_bytes());
    let (new, old) = (name(frontier.size()), name(now.before.max(1) - 1));
    store.put(&new, &bytes, Precondition::Any)?;
    for other in store.list(NAMED)?.into_iter().filter(|other| *other != new && *other != old) {
        store.delete(&other, Precondition::Any)?;
    }
    Ok(())
}

fn name(size: u64) -> String {
    format!("{NAMED}{size:020}")
}

/// The beginning of the tree: the first commit, or the oldest kept frontier that the remaining log reaches.
pub(crate) fn base(store: &dyn Store) -> Result<Option<TreeBase>, StoreError> {
    let oldest = store.oldest()?;
    if oldest <= 1 {
        return Ok(Some(TreeBase { frontier: Frontier::default(), mark: CommitEnd::default() }));
    }
    let reaches = store.list(NAMED)?.into_iter().find(|kept| *kept >= name(oldest - 1));
    let Some(kept) = reaches else { return Ok(None) };
    Ok(store.named(&kept)?.and_then(|bytes| TreeBase::of(&bytes)))
}
