//! The kept frontier of a tree whose first commits were removed. Retention stores it as a named value (`tree/` and the number of removed
//! leaves) before the first of these commits is removed.

use super::frontier::Frontier;
use super::stored::Mark;
use crate::state::Removed;
use mayfly_store::{Expect, Position, Store, StoreError};

const NAMED: &str = "tree/";

/// The beginning of a tree whose first commits were removed.
pub(crate) struct Base {
    /// The frontier over the removed commits.
    pub frontier: Frontier,
    /// The end of the removed commits.
    pub mark: Mark,
}

impl Base {
    fn of(bytes: &[u8]) -> Option<Base> {
        let (seq, rest) = bytes.split_first_chunk()?;
        let (time, rest) = rest.split_first_chunk()?;
        let mark = Mark { seq: u64::from_be_bytes(*seq), time: u64::from_be_bytes(*time) };
        Some(Base { frontier: Frontier::from_bytes(rest)?, mark })
    }
}

/// The frontier of the tree over the commits before a position, if retention kept it.
pub(crate) fn frontier_at(store: &dyn Store, before: Position) -> Result<Option<Frontier>, StoreError> {
    if before <= 1 {
        return Ok(Some(Frontier::default()));
    }
    let kept = store.named(&name(before - 1))?;
    Ok(kept.and_then(|bytes| Base::of(&bytes)).map(|base| base.frontier).filter(|f| f.size() == before - 1))
}

/// Stores the frontier of the commits that are about to be removed, and deletes stored frontiers that are no longer needed.
pub(crate) fn keep_frontier(store: &dyn Store, frontier: &Frontier, now: &Removed, next: &Removed) -> Result<(), StoreError> {
    let mut bytes = next.seq.as_u64().to_be_bytes().to_vec();
    bytes.extend(next.time.0.to_be_bytes());
    bytes.extend(frontier.to_bytes());
    let (new, old) = (name(frontier.size()), name(now.before.max(1) - 1));
    store.put(&new, &bytes, Expect::Any)?;
    for other in store.list(NAMED)?.into_iter().filter(|other| *other != new && *other != old) {
        store.delete(&other, Expect::Any)?;
    }
    Ok(())
}

fn name(size: u64) -> String {
    format!("{NAMED}{size:020}")
}

/// The beginning of the tree: the first commit, or the oldest kept frontier that the remaining log reaches.
pub(crate) fn base(store: &dyn Store) -> Result<Option<Base>, StoreError> {
    let oldest = store.oldest()?;
    if oldest <= 1 {
        return Ok(Some(Base { frontier: Frontier::default(), mark: Mark::default() }));
    }
    let reaches = store.list(NAMED)?.into_iter().find(|kept| *kept >= name(oldest - 1));
    let Some(kept) = reaches else { return Ok(None) };
    Ok(store.named(&kept)?.and_then(|bytes| Base::of(&bytes)))
}
