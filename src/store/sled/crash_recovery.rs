//! Repair after a crash: finds the state of the last change, and finishes or undoes it.

use ::sled::Db;

use super::rows::{self, ChangeIntent, CommitPieces, END, INTENT_KEY, IntendedChange};
use super::tree::{self, bad_key, engine, gap, remove_all, remove_commits, remove_value};
use crate::{Position, StoreError};

/// The store's own knowledge of its changes.
pub(super) struct RecoveredChange {
    /// The newest complete change.
    pub change: u64,
    /// Number of named values.
    pub named: u64,
    /// The last intent.
    pub intent: ChangeIntent,
    /// Whether that change was completed.
    pub done: bool,
}

pub(super) fn find_last_change(db: &Db, head: Position) -> Result<RecoveredChange, StoreError> {
    let lost = || StoreError::Damaged { at: head, what: "the row of what was last begun is missing".to_owned() };
    let intent = ChangeIntent::decode(&db.get(INTENT_KEY).map_err(engine)?.ok_or_else(lost)?)?;
    let of = |name: &str| {
        Ok(db.get(rows::name_key(name)).map_err(engine)?.as_deref().map(tree::named).transpose()?.map(|row| row.change))
    };
    let (done, named) = match &intent.what {
        IntendedChange::Opened | IntendedChange::Remove(_) => (true, intent.named),
        IntendedChange::Put { name, old } if of(name)? == Some(intent.change) => (true, intent.named + u64::from(old.is_none())),
        IntendedChange::Delete { name, .. } if of(name)?.is_none() => (true, intent.named.saturating_sub(1)),
        IntendedChange::Put { .. } | IntendedChange::Delete { .. } => (false, intent.named),
    };
    let newest = if head == 0 { 0 } else { commit(db, head)?.0 };
    let begun = if done { intent.change } else { intent.change.saturating_sub(1) };
    Ok(RecoveredChange { change: newest.max(begun), named, intent, done })
}

/// Finishes the intended change or removes its remains, and removes the remains of an unfinished append.
pub(super) fn finish_or_undo(db: &Db, intent: &ChangeIntent, done: bool, head: Position) -> Result<(), StoreError> {
    match (&intent.what, done) {
        (IntendedChange::Remove(upto), _) => remove_commits(db, 0, (*upto).min(head))?,
        (IntendedChange::Put { old: Some(old), .. } | IntendedChange::Delete { old, .. }, true) => remove_value(db, *old)?,
        (IntendedChange::Put { .. }, false) => remove_value(db, intent.change)?,
        _ => {}
    }
    remove_all(db, rows::commits_from(head + 1))
}

/// One commit, with its change.
pub(super) fn commit(db: &Db, at: Position) -> Result<(u64, Vec<u8>), StoreError> {
    let mut pieces = CommitPieces::default();
    for row in db.range(rows::commit_key(at, 0)..=rows::commit_key(at, END)) {
        let (key, row) = row.map_err(engine)?;
        let (at, piece) = rows::placed(&key).ok_or_else(|| bad_key(at))?;
        if let Some(whole) = pieces.take(at, piece, &row)? {
            return Ok(whole);
        }
    }
    Err(gap(at))
}
