//! The rows in sled: one tree, keys of four kinds, no row above `limits::SLED_ROW_BYTES`.
//!
//! | key | value |
//! |---|---|
//! | `a` `format` or `id` or `intent` | the format's number, the store's identity, the last intent |
//! | `c` position (8) piece (2) | change (8), bytes of a commit; in the last piece, numbered `END`, the commit's length (4) before them |
//! | `n` name | change (8), length (4), length of the name (2), name, the value's first bytes |
//! | `v` change (8) piece (2) | more bytes of the value that this change put |
//!
//! Numbers are big-endian. A row is written completely or not at all, and rows become durable in the order in which they were written, so a
//! change takes effect with its last row: a commit with its `END` row, a value with its `n` row. Every piece has its change's number, and
//! the last one the length: pieces of different changes, or too few pieces, are not accepted as a commit.

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::{Position, StoreError};
use mayfly_base::limits;

pub(super) const FORMAT_KEY: &[u8] = b"aformat";
pub(super) const ID_KEY: &[u8] = b"aid";
pub(super) const INTENT_KEY: &[u8] = b"aintent";

/// The number of a commit's last piece.
pub(super) const END: u16 = u16::MAX;
/// Bytes of a commit or a value per row, leaving room for the longest key and the row's prefix.
const PIECE: usize = limits::SLED_ROW_BYTES - 100;
/// Bytes of a value in the row with its name.
const FIRST: usize = PIECE - limits::NAMED_VALUE_NAME_BYTES - PLAIN_NAME;
/// The longest name that is used as a key unchanged. sled splits an index page at 256 keys, and a page beyond 131,052 bytes goes to a blob
/// file outside its log.
const PLAIN_NAME: usize = 200;

/// The intent of a change, written before it: after a crash the change is either finished or undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ChangeIntent {
    pub change: u64,
    /// Number of named values before the change.
    pub named: u64,
    pub what: IntendedChange,
}

/// Persisted: new variants are added at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum IntendedChange {
    /// None: the store was opened.
    Opened,
    /// Removing all commits before a position.
    Remove(Position),
    /// Putting a named value; `old` is the change that put the value it replaces.
    Put { name: String, old: Option<u64> },
    /// Deleting the named value that the change `old` put.
    Delete { name: String, old: u64 },
}

impl ChangeIntent {
    pub(super) fn encode(&self) -> Result<Vec<u8>, StoreError> {
        postcard::to_stdvec(self).map_err(|e| StoreError::Failed(format!("an intent cannot be written: {e}")))
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<ChangeIntent, StoreError> {
        let no = |e| StoreError::Damaged { at: 0, what: format!("the row of what was last begun cannot be read: {e}") };
        postcard::from_bytes(bytes).map_err(no)
    }
}

/// The key of one piece of a commit.
pub(super) fn commit_key(at: Position, piece: u16) -> [u8; 11] {
    piece_key(b'c', at, piece)
}

/// The key of one piece of the value that a change put.
pub(super) fn value_key(change: u64, piece: u16) -> [u8; 11] {
    piece_key(b'v', change, piece)
}

fn piece_key(kind: u8, number: u64, piece: u16) -> [u8; 11] {
    let mut key = [kind; 11];
    for (to, from) in key.iter_mut().skip(1).zip(number.to_be_bytes().into_iter().chain(piece.to_be_bytes())) {
        *to = from;
    }
    key
}

/// Number and piece of a key made by [`commit_key`] or [`value_key`].
pub(super) fn placed(key: &[u8]) -> Option<(u64, u16)> {
    let (number, piece) = key.get(1..)?.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*number), u16::from_be_bytes(piece.try_into().ok()?)))
}

/// All keys of commits from a position on.
pub(super) fn commits_from(at: Position) -> std::ops::Range<Vec<u8>> {
    commit_key(at, 0).to_vec()..b"d".to_vec()
}

/// The rows of a commit, in the order in which they are written.
pub(super) fn commit_rows(at: Position, change: u64, bytes: &[u8]) -> impl Iterator<Item = ([u8; 11], Vec<u8>)> {
    // The last piece may be short; an empty commit has only that one.
    let before = bytes.len().saturating_sub(1) / PIECE;
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let (full, last) = bytes.split_at_checked(before * PIECE).unwrap_or((bytes, &[]));
    let full = (0..END).zip(full.chunks(PIECE)).map(move |(n, piece)| (commit_key(at, n), tagged(change, &[], piece)));
    full.chain(std::iter::once_with(move || (commit_key(at, END), tagged(change, &length.to_be_bytes(), last))))
}

fn tagged(change: u64, head: &[u8], bytes: &[u8]) -> Vec<u8> {
    [&change.to_be_bytes(), head, bytes].concat()
}

/// The change of a piece, and its bytes.
pub(super) fn untagged(row: &[u8]) -> Option<(u64, &[u8])> {
    row.split_first_chunk::<8>().map(|(change, rest)| (u64::from_be_bytes(*change), rest))
}

/// Collects the pieces of one commit as they are read, in the order of their keys.
#[derive(Default)]
pub(super) struct CommitPieces {
    at: Position,
    change: u64,
    count: u16,
    bytes: Vec<u8>,
}

impl CommitPieces {
    /// Takes the next row. Returns the commit with its change when the row is the last one; an error when the row does not belong to the
    /// ones before.
    pub(super) fn take(&mut self, at: Position, piece: u16, row: &[u8]) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        let torn = |what: &str| StoreError::Damaged { at, what: format!("a piece of the commit {what}") };
        let begun = std::mem::take(self);
        if begun.count > 0 && begun.at != at {
            let what = "the last piece of the commit is missing".to_owned();
            return Err(StoreError::Damaged { at: begun.at, what });
        }
        let (change, rest) = untagged(row).ok_or_else(|| torn("is too short"))?;
        if begun.count > 0 && begun.change != change {
            return Err(torn("is of another commit"));
        }
        let mut bytes = begun.bytes;
        if piece != END {
            if piece != begun.count {
                return Err(torn("is missing"));
            }
            bytes.extend(rest);
            *self = CommitPieces { at, change, count: piece + 1, bytes };
            return Ok(None);
        }
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(|| torn("is too short"))?;
        bytes.extend(rest);
        let whole = usize::try_from(u32::from_be_bytes(*length)).is_ok_and(|length| length == bytes.len());
        if whole { Ok(Some((change, bytes))) } else { Err(torn("is missing")) }
    }
}

/// The content of the row with a value's name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NamedValueRow {
    pub change: u64,
    pub length: usize,
    pub name: String,
    pub first: Vec<u8>,
}

impl NamedValueRow {
    /// Number of `v` rows that belong to the value.
    pub(super) fn pieces(&self) -> u16 {
        u16::try_from(self.length.saturating_sub(FIRST).div_ceil(PIECE)).unwrap_or(u16::MAX)
    }

    pub(super) fn decode(row: &[u8]) -> Option<NamedValueRow> {
        let (change, rest) = untagged(row)?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (name, rest) = rest.split_first_chunk::<2>()?;
        let (name, first) = rest.split_at_checked(usize::from(u16::from_be_bytes(*name)))?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (name, first) = (std::str::from_utf8(name).ok()?.to_owned(), first.to_vec());
        (first.len() == length.min(FIRST)).then_some(NamedValueRow { change, length, name, first })
    }
}

/// The rows of a named value, in the order in which they are written: the one with its name is the last.
pub(super) fn named_rows(name: &str, change: u64, value: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (first, more) = value.split_at_checked(FIRST).unwrap_or((value, &[]));
    let pieces = (0..).zip(more.chunks(PIECE)).map(|(n, piece)| (value_key(change, n).to_vec(), tagged(change, &[], piece)));
    let (length, name_length) = (u32::try_from(value.len()).unwrap_or(u32::MAX), u16::try_from(name.len()).unwrap_or(u16::MAX));
    let head = [&length.to_be_bytes()[..], &name_length.to_be_bytes(), name.as_bytes()].concat();
    pieces.chain(std::iter::once((name_key(name), tagged(change, &head, first)))).collect()
}

/// The key of a named value. A long name is replaced by its digest.
pub(super) fn name_key(name: &str) -> Vec<u8> {
    let mut key = names_from(name);
    if name.len() > PLAIN_NAME {
        key.push(1);
        key.extend(digest(&SHA256, name.as_bytes()).as_ref());
    } else {
        key.push(0);
    }
    key
}

/// The prefix of the keys of all names with a prefix; other keys may have it, too.
pub(super) fn names_from(prefix: &str) -> Vec<u8> {
    let plain = prefix.as_bytes().get(..PLAIN_NAME).unwrap_or(prefix.as_bytes());
    [b"n", plain].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(at: Position, bytes: &[u8]) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        let mut pieces = CommitPieces::default();
        let mut last = Ok(None);
        for (key, row) in commit_rows(at, 9, bytes) {
            let (at, piece) = placed(&key).unwrap();
            last = pieces.take(at, piece, &row);
        }
        last
    }

    #[test]
    fn commits_come_back_from_their_rows_and_no_row_is_too_large() {
        for len in [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 100_000, limits::COMMIT_BYTES] {
            let bytes: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
            assert_eq!(join(7, &bytes).unwrap(), Some((9, bytes.clone())), "{len}");
            let most = commit_rows(7, 9, &bytes).map(|(key, row)| key.len() + row.len()).max().unwrap();
            assert!(most <= limits::SLED_ROW_BYTES, "{most}");
            let keys: Vec<_> = commit_rows(7, 9, &bytes).map(|(key, _)| key).collect();
            assert!(keys.is_sorted() && keys.last() == Some(&commit_key(7, END)));
        }
    }

    #[test]
    fn pieces_that_do_not_belong_together_are_no_commit() {
        let bytes = vec![5; 3 * PIECE];
        let rows: Vec<_> = commit_rows(7, 9, &bytes).collect();
        let other: Vec<_> = commit_rows(7, 8, &bytes).collect();
        assert_eq!(rows.len(), 3);
        let take = |rows: &[&([u8; 11], Vec<u8>)]| {
            let mut pieces = CommitPieces::default();
            rows.iter().try_fold(None, |_, (key, row)| {
                let (at, piece) = placed(key).unwrap();
                pieces.take(at, piece, row)
            })
        };
        assert!(take(&[&rows[0], &rows[1], &rows[2]]).unwrap().is_some());
        for torn in [
            vec![&rows[0], &rows[2]],
            vec![&rows[1], &rows[2]],
            vec![&rows[2]],
            vec![&rows[0], &other[1], &rows[2]],
            vec![&rows[0], &rows[1], &other[2]],
            vec![&rows[0], &rows[1], &(commit_key(8, END), rows[2].1.clone())],
        ] {
            assert!(matches!(take(&torn), Err(StoreError::Damaged { .. })));
        }
    }

    #[test]
    fn named_values_come_back_from_their_rows_and_no_row_is_too_large() {
        for (name, len) in [("a".to_owned(), 0), ("b/c".to_owned(), FIRST), ("n".repeat(512), limits::NAMED_VALUE_BYTES)] {
            let value: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
            let rows = named_rows(&name, 3, &value);
            assert!(rows.iter().all(|(key, row)| key.len() + row.len() <= limits::SLED_ROW_BYTES));
            let (last, pieces) = rows.split_last().unwrap();
            let head = NamedValueRow::decode(&last.1).unwrap();
            assert_eq!((head.name.as_str(), head.length, head.change), (name.as_str(), len, 3));
            assert_eq!((last.0.clone(), usize::from(head.pieces())), (name_key(&name), pieces.len()));
            let more: Vec<u8> = pieces.iter().flat_map(|(_, row)| untagged(row).unwrap().1.to_vec()).collect();
            assert_eq!([head.first, more].concat(), value);
        }
    }

    #[test]
    fn keys_of_names_are_apart_and_in_order() {
        let long = "n".repeat(300);
        let names = ["a", "a-b", "a/b", "ab", &long, &format!("{long}x"), &format!("{}y", &long[..299])];
        let keys: std::collections::BTreeSet<_> = names.iter().map(|n| name_key(n)).collect();
        assert_eq!(keys.len(), names.len());
        assert!(name_key("a") < name_key("a-b") && name_key("a-b") < name_key("a/b") && name_key("a/b") < name_key("ab"));
        assert!(keys.iter().filter(|k| k[1] == b'n').all(|k| k.starts_with(&names_from(&long))));
    }

    /// Persisted: later versions must read these bytes.
    #[test]
    fn intents_keep_their_bytes() {
        let put = IntendedChange::Put { name: "k".into(), old: Some(3) };
        for (what, bytes) in [
            (IntendedChange::Opened, &[7, 2, 0][..]),
            (IntendedChange::Remove(300), &[7, 2, 1, 172, 2]),
            (put, &[7, 2, 2, 1, b'k', 1, 3]),
            (IntendedChange::Delete { name: "k".into(), old: 3 }, &[7, 2, 3, 1, b'k', 3]),
        ] {
            let intent = ChangeIntent { change: 7, named: 2, what };
            assert_eq!(intent.encode().unwrap(), bytes);
            assert_eq!(ChangeIntent::decode(bytes).unwrap(), intent);
        }
    }
}
