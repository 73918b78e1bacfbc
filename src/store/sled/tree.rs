//! Single operations on sled's tree, and the mapping of its errors to those of the contract.

use ::sled::{Db, IVec};

use super::rows::{self, ChangeIntent, INTENT_KEY, NamedValueRow};
use crate::{Position, StoreError, files};

pub(super) fn insert(db: &Db, key: &[u8], row: Vec<u8>) -> Result<(), StoreError> {
    db.insert(key, row).map(drop).map_err(engine)
}

pub(super) fn remove(db: &Db, key: &[u8]) -> Result<(), StoreError> {
    db.remove(key).map(drop).map_err(engine)
}

pub(super) fn intend(db: &Db, intent: &ChangeIntent) -> Result<(), StoreError> {
    insert(db, INTENT_KEY, intent.encode()?)
}

/// All rows of the commits in `from..upto`.
pub(super) fn remove_commits(db: &Db, from: Position, upto: Position) -> Result<(), StoreError> {
    remove_all(db, rows::commit_key(from, 0).to_vec()..rows::commit_key(upto, 0).to_vec())
}

/// Removes the further rows of the value that a change put.
pub(super) fn remove_value(db: &Db, change: u64) -> Result<(), StoreError> {
    remove_all(db, rows::value_key(change, 0).to_vec()..rows::value_key(change + 1, 0).to_vec())
}

pub(super) fn remove_all(db: &Db, keys: std::ops::Range<Vec<u8>>) -> Result<(), StoreError> {
    // The keys are collected first: sled's iterator must not see its own tree change.
    let keys: Vec<IVec> = db.range(keys).keys().collect::<Result<_, _>>().map_err(engine)?;
    keys.iter().try_for_each(|key| remove(db, key))
}

pub(super) fn named(row: &[u8]) -> Result<NamedValueRow, StoreError> {
    NamedValueRow::decode(row).ok_or_else(|| StoreError::Damaged { at: 0, what: "a named value's row cannot be read".to_owned() })
}

pub(super) fn bad_value(name: &str) -> StoreError {
    StoreError::Damaged { at: 0, what: format!("pieces of the named value {name} are missing") }
}

pub(super) fn bad_key(at: Position) -> StoreError {
    StoreError::Damaged { at, what: "there is a row that no commit has".to_owned() }
}

pub(super) fn gap(at: Position) -> StoreError {
    StoreError::Damaged { at, what: "the commit that belongs there is missing".to_owned() }
}

/// Maps the engine's errors to those of the contract.
pub(super) fn engine(err: ::sled::Error) -> StoreError {
    match err {
        ::sled::Error::Io(e) if files::is_full(&e) => StoreError::Full(e.to_string()),
        ::sled::Error::Corruption { at, .. } => StoreError::Damaged {
            at: 0,
            what: format!("sled finds what it did not write{}", at.map_or(String::new(), |at| format!(" at {at:?}"))),
        },
        other => StoreError::Failed(other.to_string()),
    }
}
