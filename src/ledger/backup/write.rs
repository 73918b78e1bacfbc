//! Produces the pieces of a backup, in order.

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{BackupHeader, BackupTrailer, MAGIC, Piece, hex};
use crate::commit::Hash;
use mayfly_base::refusal::Fault;
use mayfly_store::StoredCommit;

/// Writes a backup. The output of each call must be written unchanged: the final digest covers all of it.
pub struct BackupWriter {
    hash: Context,
    commits: u64,
    named: u64,
}

impl BackupWriter {
    /// Begins a backup and returns its first bytes.
    pub fn new(about: &BackupHeader) -> Result<(BackupWriter, Vec<u8>), Fault> {
        let mut writer = BackupWriter { hash: Context::new(&SHA256), commits: 0, named: 0 };
        let mut bytes = MAGIC.to_vec();
        put(&mut bytes, Piece::About, &[&text(about)?]);
        writer.hash.update(&bytes);
        Ok((writer, bytes))
    }

    fn take(&mut self, piece: Piece, parts: &[&[u8]], to: &mut Vec<u8>) {
        let from = to.len();
        put(to, piece, parts);
        self.hash.update(to.get(from..).unwrap_or_default());
    }

    /// A piece of the snapshot file, at most `limits::BACKUP_PIECE_BYTES`.
    pub fn snapshot(&mut self, piece: &[u8], to: &mut Vec<u8>) {
        self.take(Piece::Snapshot, &[piece], to);
    }

    /// A named value.
    pub fn named(&mut self, name: &str, value: &[u8], to: &mut Vec<u8>) {
        let length = u16::try_from(name.len()).unwrap_or(u16::MAX).to_be_bytes();
        self.take(Piece::Named, &[&length, name.as_bytes(), value], to);
        self.named += 1;
    }

    /// The next commit.
    pub fn commit(&mut self, entry: &StoredCommit, to: &mut Vec<u8>) {
        self.take(Piece::Commit, &[&entry.at.to_be_bytes(), &entry.bytes], to);
        self.commits += 1;
    }

    /// Ends the backup. `seal` seals the digest.
    pub fn end(self, seal: impl FnOnce(&Hash) -> Result<Vec<u8>, Fault>, to: &mut Vec<u8>) -> Result<(), Fault> {
        let mut digest: Hash = [0; 32];
        digest.copy_from_slice(self.hash.finish().as_ref());
        let sealed = STANDARD.encode(seal(&digest)?);
        let end = BackupTrailer { commits: self.commits, named: self.named, sha256: hex(&digest), sealed };
        put(to, Piece::End, &[&text(&end)?]);
        Ok(())
    }
}

fn text(what: &impl serde::Serialize) -> Result<Vec<u8>, Fault> {
    serde_json::to_vec(what).map_err(|e| Fault::new(format!("a backup's text: {e}")))
}

fn put(to: &mut Vec<u8>, piece: Piece, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    to.push(piece as u8);
    to.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    parts.iter().for_each(|part| to.extend_from_slice(part));
}
