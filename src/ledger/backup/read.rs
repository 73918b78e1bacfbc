//! Reads a backup file: verifies it from end to end, then serves it like a read-only store.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::{BackupHeader, BackupTrailer, MAGIC, Piece, hex};
use crate::commit::{Commit, Hash, WriterHead};
use crate::state::seq_after;
use mayfly_base::bounded_file;
use mayfly_store::{Position, Precondition, Store, StoreError, StoreId, StoredCommit};
use mayfly_verify::seq::Seq;

/// Why a file cannot be used as a backup. Nothing in it was used.
#[derive(Debug, thiserror::Error)]
pub enum BadBackup {
    /// The file does not begin with the backup header.
    #[error("it is no backup of mayfly: it does not begin with \"mayfly backup 1\"")]
    Foreign,
    /// The file is truncated.
    #[error(
        "it is cut off after {bytes} bytes: it has no end, so it was not written whole or lost some of it; take another backup"
    )]
    Cut {
        /// The file's length in bytes.
        bytes: u64,
    },
    /// The file's content is not what was written.
    #[error("it is damaged: {what}; take another backup")]
    Damaged {
        /// The damage.
        what: String,
    },
    /// The file could not be read.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
}

fn damaged(what: impl Into<String>) -> BadBackup {
    BadBackup::Damaged { what: what.into() }
}

/// The offset and length of a piece in the file.
type PieceLocation = (u64, u32);

/// A verified backup, readable like a store.
pub struct BackupFile {
    file: File,
    about: BackupHeader,
    end: BackupTrailer,
    digest: Hash,
    bytes: u64,
    id: StoreId,
    /// One entry per commit, from the first.
    commits: Vec<PieceLocation>,
    named: BTreeMap<String, PieceLocation>,
    snapshot: Vec<PieceLocation>,
}

/// Reads pieces and hashes what it reads.
struct Reading<R> {
    from: R,
    hash: Context,
    at: u64,
    /// The digest of everything before the current piece.
    before: Context,
}

impl<R: Read> Reading<R> {
    fn fill(&mut self, into: &mut [u8]) -> Result<(), BadBackup> {
        match self.from.read_exact(into) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(BadBackup::Cut { bytes: self.at }),
            Err(e) => return Err(e.into()),
        }
        self.hash.update(into);
        self.at += into.len() as u64;
        Ok(())
    }

    /// The next piece, with the offset of its bytes.
    fn next(&mut self) -> Result<(Piece, u64, Vec<u8>), BadBackup> {
        self.before = self.hash.clone();
        let mut head = [0; 5];
        self.fill(&mut head)?;
        let piece =
            Piece::of(head[0]).ok_or_else(|| damaged(format!("nothing begins with {} at byte {}", head[0], self.at - 5)))?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > piece.bound() {
            return Err(damaged(format!("a piece at byte {} says that it has {length} bytes", self.at - 5)));
        }
        let (from, mut bytes) = (self.at, vec![0; length]);
        self.fill(&mut bytes)?;
        Ok((piece, from, bytes))
    }
}

impl BackupFile {
    /// Reads a file from end to end and checks its digest, that no commit is missing, each commit by itself, and that each commit continues
    /// the one before.
    pub fn open(path: &Path) -> Result<BackupFile, BadBackup> {
        let file = bounded_file::open(path)?;
        let bytes = file.metadata()?.len();
        let from = BufReader::with_capacity(mayfly_base::limits::BACKUP_PIECE_BYTES, file.try_clone()?);
        let mut reading = Reading { from, hash: Context::new(&SHA256), at: 0, before: Context::new(&SHA256) };
        let mut magic = [0; MAGIC.len()];
        match reading.fill(&mut magic) {
            Err(BadBackup::Cut { .. }) => return Err(BadBackup::Foreign),
            other => other?,
        }
        if magic != *MAGIC {
            return Err(BadBackup::Foreign);
        }
        let (Piece::About, _, text) = reading.next()? else { return Err(damaged("it does not say what it is of")) };
        let about: BackupHeader = serde_json::from_slice(&text).map_err(|e| damaged(format!("what it says of itself: {e}")))?;
        let store = data_encoding::HEXLOWER.decode(about.store.as_bytes()).ok().and_then(|id| id.try_into().ok());
        let id = StoreId::from_bytes(store.ok_or_else(|| damaged("the store's identity"))?);
        let end = BackupTrailer { commits: 0, named: 0, sha256: String::new(), sealed: String::new() };
        let mut backup = BackupFile {
            file,
            end,
            digest: [0; 32],
            bytes,
            id,
            commits: Vec::new(),
            named: BTreeMap::new(),
            snapshot: Vec::new(),
            about,
        };
        backup.walk(&mut reading)?;
        if reading.from.stream_position()? != bytes {
            return Err(damaged("something follows its end"));
        }
        Ok(backup)
    }

    fn walk<R: Read>(&mut self, reading: &mut Reading<R>) -> Result<(), BadBackup> {
        let mut chain = Chain { seq: self.about.before, next: self.about.first, heads: BTreeMap::new() };
        loop {
            let (piece, from, bytes) = reading.next()?;
            let place = (from, bytes.len() as u32);
            match piece {
                Piece::About => return Err(damaged("it says twice what it is of")),
                Piece::Snapshot => self.snapshot.push(place),
                Piece::Named => {
                    let (name, skipped) = name_of(&bytes).ok_or_else(|| damaged(format!("a named value at byte {from}")))?;
                    self.named.insert(name, (from + skipped as u64, (bytes.len() - skipped) as u32));
                }
                Piece::Commit => {
                    chain.take(&bytes, self.about.first)?;
                    self.commits.push((from + 8, place.1 - 8));
                }
                Piece::End => {
                    self.digest.copy_from_slice(reading.before.clone().finish().as_ref());
                    self.end = serde_json::from_slice(&bytes).map_err(|e| damaged(format!("how it ends: {e}")))?;
                    return self.whole(&chain);
                }
            }
        }
    }

    /// Checks the contents against what the backup says about itself.
    fn whole(&self, chain: &Chain) -> Result<(), BadBackup> {
        if self.end.sha256 != hex(&self.digest) {
            return Err(damaged("its bytes are not those that its digest is of"));
        }
        let (commits, named) = (self.commits.len() as u64, self.named.len() as u64);
        if (commits, named) != (self.end.commits, self.end.named) || chain.next != self.about.last + 1 {
            return Err(damaged(format!("it has {commits} commits and {named} named values, and says otherwise")));
        }
        if chain.seq != self.about.seq {
            return Err(damaged(format!("it ends at seq {}, and says {}", chain.seq, self.about.seq)));
        }
        if self.snapshot.is_empty() == (self.about.snapshot.is_some() || self.about.first > 1) {
            return Err(damaged("the snapshot that stands for its beginning is not in it"));
        }
        Ok(())
    }

    /// The description of the backup.
    pub fn about(&self) -> &BackupHeader {
        &self.about
    }

    /// The end of the backup.
    pub fn end(&self) -> &BackupTrailer {
        &self.end
    }

    /// SHA-256 of everything except the end piece.
    pub fn digest(&self) -> &Hash {
        &self.digest
    }

    /// The digest, sealed by the server.
    pub fn sealed(&self) -> Vec<u8> {
        STANDARD.decode(&self.end.sealed).unwrap_or_default()
    }

    /// The file's size, bytes.
    pub fn size(&self) -> u64 {
        self.bytes
    }

    /// Writes the snapshot file if the backup has one; returns whether it has.
    pub fn snapshot_to(&self, mut to: impl Write) -> io::Result<bool> {
        for place in &self.snapshot {
            to.write_all(&self.at(*place)?)?;
        }
        Ok(!self.snapshot.is_empty())
    }

    fn at(&self, (from, length): PieceLocation) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length as usize];
        self.file.read_exact_at(&mut bytes, from)?;
        Ok(bytes)
    }
}

/// The chain heads after the commits read so far.
struct Chain {
    seq: Seq,
    next: Position,
    heads: BTreeMap<u32, WriterHead>,
}

impl Chain {
    fn take(&mut self, bytes: &[u8], first: Position) -> Result<(), BadBackup> {
        let next = self.next;
        let (place, bytes) = bytes.split_first_chunk().ok_or_else(|| damaged(format!("commit {next}")))?;
        if u64::from_be_bytes(*place) != next {
            return Err(damaged(format!("commit {next} is missing")));
        }
        let bad = |what: String| damaged(format!("commit {next}: {what}"));
        let commit = Commit::from_bytes(&Bytes::copy_from_slice(bytes)).map_err(|e| bad(e.to_string()))?;
        let writer = commit.header.writer;
        let head = match self.heads.get(&writer) {
            Some(head) => commit.continues(*head),
            None if first == 1 => commit.continues(WriterHead::START),
            // The commit that it continues was removed. The snapshot has that chain head, and it is checked when the snapshot is restored.
            None => Ok(WriterHead {
                number: commit.header.number,
                hash: commit.hash,
                time: mayfly_verify::seq::Millis(commit.header.time),
            }),
        };
        self.heads.insert(writer, head.map_err(|e| bad(e.to_string()))?);
        self.seq = commit.records.iter().fold(self.seq, seq_after);
        self.next += 1;
        Ok(())
    }
}

fn name_of(bytes: &[u8]) -> Option<(String, usize)> {
    let (length, rest) = bytes.split_first_chunk()?;
    let length = usize::from(u16::from_be_bytes(*length));
    Some((String::from_utf8(rest.get(..length)?.to_vec()).ok()?, 2 + length))
}

fn no_change() -> StoreError {
    StoreError::Failed("a backup takes no change".to_owned())
}

fn unreadable(error: &io::Error) -> StoreError {
    StoreError::Failed(format!("reading the backup: {error}"))
}

impl Store for BackupFile {
    fn id(&self) -> StoreId {
        self.id
    }

    fn engine(&self) -> &'static str {
        "backup"
    }

    fn append(&self, _: Position, _: &[u8]) -> Result<(), StoreError> {
        Err(no_change())
    }

    fn head(&self) -> Result<Position, StoreError> {
        Ok(self.about.last)
    }

    fn oldest(&self) -> Result<Position, StoreError> {
        Ok(self.about.first)
    }

    fn read(&self, from: Position, max_bytes: usize) -> Result<Vec<StoredCommit>, StoreError> {
        let from = from.max(self.about.first);
        let skipped = usize::try_from(from - self.about.first).unwrap_or(usize::MAX);
        let (mut out, mut bytes) = (Vec::new(), 0);
        for (at, place) in (from..).zip(self.commits.iter().skip(skipped)) {
            bytes += place.1 as usize;
            if !out.is_empty() && bytes > max_bytes {
                break;
            }
            out.push(StoredCommit { at, bytes: self.at(*place).map_err(|e| unreadable(&e))?.into() });
        }
        Ok(out)
    }

    fn follow(&self, _: Position, _: Duration) -> Result<Position, StoreError> {
        self.head()
    }

    fn remove_some(&self, _: Position) -> Result<Position, StoreError> {
        Err(no_change())
    }

    fn put(&self, _: &str, _: &[u8], _: Precondition<'_>) -> Result<(), StoreError> {
        Err(no_change())
    }

    fn named(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.named.get(name).map(|place| self.at(*place).map_err(|e| unreadable(&e))).transpose()
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        Ok(self.named.keys().filter(|name| name.starts_with(prefix)).cloned().collect())
    }

    fn delete(&self, _: &str, _: Precondition<'_>) -> Result<(), StoreError> {
        Err(no_change())
    }
}
