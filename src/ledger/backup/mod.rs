//! A backup: the log up to one seq, what of the named values belongs to it, and where the log's beginning was removed a snapshot. One file.
//!
//! - `write`: its pieces, as a server sends them. `read`: checked whole before anything is believed of it, then read like a store.
//!
//! The file begins with [`MAGIC`]. Pieces follow: a byte that says what it is, its length in four bytes, what it is. `About` first, in JSON,
//! then pieces of the snapshot, named values (two bytes of length, name, value), commits (eight bytes of place, then as they stand in the
//! store), and at the end `End`, in JSON, with the SHA-256 of all bytes before it. That digest is sealed with the store's sealing key as well:
//! who can write where backups lie can cut one or make one up, and is found out by whoever restores it.

mod read;
mod write;

use serde::{Deserialize, Serialize};

pub use read::{Backup, BadBackup};
pub use write::Writer;

use crate::limits;
use crate::seq::{Millis, Seq};
use crate::store::Position;

/// How the file begins. Another layout gets another number.
pub const MAGIC: &[u8; 16] = b"mayfly backup 1\n";

/// What seals the digest: the purpose of the sealed value. Its name is the seq.
pub const SEALED_FOR: &str = "backup";

/// What a piece is. Frozen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Piece {
    About = 1,
    Snapshot = 2,
    Named = 3,
    Commit = 4,
    End = 5,
}

impl Piece {
    fn of(byte: u8) -> Option<Piece> {
        [Piece::About, Piece::Snapshot, Piece::Named, Piece::Commit, Piece::End].into_iter().find(|p| *p as u8 == byte)
    }

    /// Bytes at the most.
    const fn bound(self) -> usize {
        match self {
            Piece::About | Piece::End => limits::BACKUP_TEXT_BYTES,
            Piece::Snapshot => limits::BACKUP_PIECE_BYTES,
            Piece::Named => 2 + limits::NAMED_VALUE_NAME_BYTES + limits::NAMED_VALUE_BYTES,
            Piece::Commit => 8 + limits::COMMIT_BYTES,
        }
    }
}

/// What a backup is of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// The store's identity, hex: what is sealed is bound to it.
    pub store: String,
    /// The engine that it was read from. It can be restored to any.
    pub engine: String,
    /// The version of mayfly that wrote it.
    pub version: String,
    /// When it was made.
    pub made_at: Millis,
    /// The place of its first commit.
    pub first: Position,
    /// The seq of the last record before that.
    pub before: Seq,
    /// The place of its last commit.
    pub last: Position,
    /// The seq of its last record: everything up to here is in it.
    pub seq: Seq,
    /// The seq of the snapshot that stands for what was removed, where something was.
    pub snapshot: Option<Seq>,
}

/// How a backup ends.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// How many commits are in it.
    pub commits: u64,
    /// How many named values.
    pub named: u64,
    /// SHA-256 of all bytes before this piece, hex.
    pub sha256: String,
    /// The same digest, sealed with the sealing key of the store, base64.
    pub sealed: String,
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}
