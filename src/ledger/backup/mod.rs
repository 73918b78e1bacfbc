//! A backup: one file with the log up to one seq, the named values that belong to it, and, if the beginning of the log was removed, a
//! snapshot.
//!
//! - `write`: produces the pieces of a backup as a server sends them. `read`: verifies the whole file before anything in it is used, then
//!   reads it like a store.
//!
//! The file begins with [`MAGIC`]. Pieces follow, each with a type byte, a length of four bytes, and the content. `BackupHeader` comes
//! first, in JSON, then pieces of the snapshot, named values (two bytes of length, name, value), commits (eight bytes of position, then the
//! commit as stored), and last `BackupTrailer`, in JSON, with the SHA-256 of all bytes before it. The digest is also sealed with the
//! store's sealing key: an attacker who can write to the backup storage can truncate or forge a backup, and a restore detects it.

mod read;
mod write;

use serde::{Deserialize, Serialize};

pub use read::{BackupFile, BadBackup};
pub use write::BackupWriter;

use mayfly_base::limits;
use mayfly_store::Position;
use mayfly_verify::seq::{Millis, Seq};

/// The first bytes of the file. Another layout gets another number.
pub const MAGIC: &[u8; 16] = b"mayfly backup 1\n";

/// The purpose under which the digest is sealed. The sealed value's name is the seq.
pub const SEALED_FOR: &str = "backup";

/// The type of a piece. Frozen.
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

    /// Maximum length, bytes.
    const fn bound(self) -> usize {
        match self {
            Piece::About | Piece::End => limits::BACKUP_TEXT_BYTES,
            Piece::Snapshot => limits::BACKUP_PIECE_BYTES,
            Piece::Named => 2 + limits::NAMED_VALUE_NAME_BYTES + limits::NAMED_VALUE_BYTES,
            Piece::Commit => 8 + limits::COMMIT_BYTES,
        }
    }
}

/// The description of a backup: its header.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupHeader {
    /// The store's identity, hex; sealed values are bound to it.
    pub store: String,
    /// The engine that the backup was read from. It can be restored to any engine.
    pub engine: String,
    /// The version of mayfly that wrote the backup.
    pub version: String,
    /// When the backup was made.
    pub made_at: Millis,
    /// The position of its first commit.
    pub first: Position,
    /// The seq of the last record before the first commit.
    pub before: Seq,
    /// The position of its last commit.
    pub last: Position,
    /// The seq of its last record: the backup contains everything up to here.
    pub seq: Seq,
    /// The seq of the snapshot that replaces the removed commits, if any were removed.
    pub snapshot: Option<Seq>,
}

/// The end of a backup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupTrailer {
    /// Number of commits.
    pub commits: u64,
    /// Number of named values.
    pub named: u64,
    /// SHA-256 of all bytes before this piece, hex.
    pub sha256: String,
    /// The same digest, sealed with the sealing key of the store, base64.
    pub sealed: String,
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}
