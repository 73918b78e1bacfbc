//! The head beside the store: sled's worst failure is a clean open of an empty store, and this file tells that something is missing.
//!
//! Two places of one disk block each, written in turn, so that a torn write leaves the one before. It is synced after the store's flush and
//! before the acknowledgement: what it names was acknowledged, or was about to be.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};

use super::files;
use crate::store::{Position, StoreError, StoreId};

/// Its name in the data directory.
pub(super) const FILE: &str = "ledger.head";
/// The distance of the two places, bytes: the largest unit that a disk writes as one.
const BLOCK: u64 = 4096;
/// Change, position, identity, and the digest of these.
const LENGTH: usize = 8 + 8 + 16 + 32;

/// What a store has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    /// Changes of any kind since the store was made.
    pub change: u64,
    /// The place of the newest commit.
    pub head: Position,
}

/// The file, open.
pub(super) struct HeadFile {
    file: File,
    path: PathBuf,
    id: StoreId,
}

impl HeadFile {
    /// A new file, or one whose store was never finished. Durable with its name when this returns.
    pub(super) fn make(dir: &Path, id: StoreId) -> Result<HeadFile, StoreError> {
        let path = dir.join(FILE);
        let (file, aside) = files::begin_file(&path)?;
        let head = HeadFile { file, path: path.clone(), id };
        let blocks = head.file.write_all_at(&[0; 2 * BLOCK as usize], 0);
        blocks.map_err(|e| files::failed("writing", &path, &e))?;
        head.write(Mark { change: 0, head: 0 })?;
        files::finish_file(&aside, &path)?;
        Ok(head)
    }

    /// The file with what it says; `None` where there is none.
    pub(super) fn open(dir: &Path) -> Result<Option<(HeadFile, Mark)>, StoreError> {
        let path = dir.join(FILE);
        let Some(file) = files::open_private(&path)? else { return Ok(None) };
        let places = [0, BLOCK].map(|at| place(&file, at));
        let mut found = None;
        for read in places {
            let read = read.map_err(|e| files::failed("reading", &path, &e))?;
            found = found.max(read);
        }
        let Some((mark, id)) = found else {
            let what = format!("{} says nothing that can be trusted", path.display());
            return Err(StoreError::Damaged { at: 0, what });
        };
        Ok(Some((HeadFile { file, path, id }, mark)))
    }

    /// The store that it belongs to.
    pub(super) fn id(&self) -> StoreId {
        self.id
    }

    /// Notes durably what the store has come to.
    pub(super) fn write(&self, mark: Mark) -> Result<(), StoreError> {
        let bytes = encode(mark, self.id);
        let written = self.file.write_all_at(&bytes, (mark.change % 2) * BLOCK).and_then(|()| self.file.sync_data());
        written.map_err(|e| files::failed("writing", &self.path, &e))
    }
}

fn encode(mark: Mark, id: StoreId) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(LENGTH);
    bytes.extend(mark.change.to_be_bytes());
    bytes.extend(mark.head.to_be_bytes());
    bytes.extend(id.as_bytes());
    let sum = digest(&SHA256, &bytes);
    bytes.extend(sum.as_ref());
    bytes
}

/// What one place holds, where it is whole.
fn place(file: &File, at: u64) -> io::Result<Option<(Mark, StoreId)>> {
    let mut bytes = [0; LENGTH];
    match file.read_exact_at(&mut bytes, at) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        done => done?,
    }
    Ok(decode(&bytes))
}

fn decode(bytes: &[u8; LENGTH]) -> Option<(Mark, StoreId)> {
    let (change, rest) = bytes.split_first_chunk::<8>()?;
    let (head, rest) = rest.split_first_chunk::<8>()?;
    let (id, _) = rest.split_first_chunk::<16>()?;
    let (mark, id) = (Mark { change: u64::from_be_bytes(*change), head: u64::from_be_bytes(*head) }, StoreId::from_bytes(*id));
    (encode(mark, id) == bytes).then_some((mark, id))
}
