//! The head file beside the store, which names the newest acknowledged commit: a store that lost its end opens cleanly, and this file shows
//! that commits are missing.
//!
//! The file has two slots of one disk block each, written in turn, so that a torn write leaves the previous one. The commit it names was
//! durable before the slot was written. A record that was never acknowledged may therefore be missing or torn without an error, and an
//! acknowledged one may not.
//!
//! - sled syncs the file after the store's own flush and before each acknowledgement, because sled's worst failure is a clean open of an
//!   empty store.
//! - The write-ahead log of redb writes the file before each acknowledgement and syncs it in the background. Each record of the log has a
//!   checksum, so the file is needed only if a record was damaged after it had been written. After a process was killed, the kernel still
//!   has what it wrote; after a power failure the file may be behind by `limits::STORE_HEAD_SYNC_MS`.

use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};

use super::files;
use super::wal::{Aligned, BLOCK, Medium};
use crate::{Position, StoreError, StoreId};

/// Change, position, identity, and the digest of these.
const LENGTH: usize = 8 + 8 + 16 + 32;

/// The progress of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HeadMark {
    /// Number of changes of any kind since the store was made.
    pub change: u64,
    /// The position of the newest commit.
    pub head: Position,
}

/// The open head file.
pub(super) struct HeadFile {
    medium: Box<dyn Medium>,
    path: PathBuf,
    id: StoreId,
}

impl HeadFile {
    /// A new file with this mark; replaces a file whose store was never finished. File and name are durable when this returns.
    pub(super) fn make(path: &Path, id: StoreId, mark: HeadMark) -> Result<HeadFile, StoreError> {
        let (file, aside) = files::begin_file(path)?;
        let head = HeadFile::format(Box::new(file), path, id, mark)?;
        files::finish_file(&aside, path)?;
        Ok(head)
    }

    fn format(medium: Box<dyn Medium>, path: &Path, id: StoreId, mark: HeadMark) -> Result<HeadFile, StoreError> {
        let head = HeadFile { medium, path: path.to_owned(), id };
        let mut zeros = Aligned::default();
        let zeros = zeros.room(BLOCK);
        zeros.fill(0);
        for place in [0, 1] {
            head.medium.write(place * BLOCK as u64, zeros).map_err(|e| files::failed("writing", path, &e))?;
        }
        head.write(mark)?;
        Ok(head)
    }

    /// Opens the file and reads its mark; `None` if there is no file.
    pub(super) fn open(path: &Path) -> Result<Option<(HeadFile, HeadMark)>, StoreError> {
        let Some(file) = files::open_private(path)? else { return Ok(None) };
        match newest(&file, path)? {
            Some((mark, id)) => Ok(Some((HeadFile { medium: Box::new(file), path: path.to_owned(), id }, mark))),
            None => {
                let what = format!("{} says nothing that can be trusted", path.display());
                Err(StoreError::Damaged { at: 0, what })
            }
        }
    }

    /// A head file on a test's medium; initialized if it is empty.
    pub(super) fn on(medium: Box<dyn Medium>, id: StoreId) -> Result<(HeadFile, HeadMark), StoreError> {
        let (path, new) = (Path::new("the head beside the log"), HeadMark { change: 0, head: 0 });
        match newest(&*medium, path)? {
            Some((mark, id)) => Ok((HeadFile { medium, path: path.to_owned(), id }, mark)),
            None => Ok((HeadFile::format(medium, path, id, new)?, new)),
        }
    }

    /// The store that the file belongs to.
    pub(super) fn id(&self) -> StoreId {
        self.id
    }

    /// Writes the mark: another process sees it, also after a SIGKILL; after a power failure only once it was synced.
    pub(super) fn note(&self, mark: HeadMark) -> Result<(), StoreError> {
        let mut block = Aligned::default();
        let block = block.room(BLOCK);
        let (said, rest) = block.split_at_mut(LENGTH);
        said.copy_from_slice(&encode(mark, self.id));
        rest.fill(0);
        self.medium.write((mark.change % 2) * BLOCK as u64, block).map_err(|e| files::failed("writing", &self.path, &e))
    }

    /// Returns when the written marks are on stable storage.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.medium.flush().map_err(|e| files::failed("syncing", &self.path, &e))
    }

    /// Writes the mark durably.
    pub(super) fn write(&self, mark: HeadMark) -> Result<(), StoreError> {
        self.note(mark)?;
        self.sync()
    }
}

fn encode(mark: HeadMark, id: StoreId) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    let (said, sum) = bytes.split_at_mut(LENGTH - 32);
    said.copy_from_slice(&[&mark.change.to_be_bytes()[..], &mark.head.to_be_bytes(), id.as_bytes()].concat());
    sum.copy_from_slice(digest(&SHA256, said).as_ref());
    bytes
}

/// The newest valid mark in the file, if any.
fn newest(medium: &dyn Medium, path: &Path) -> Result<Option<(HeadMark, StoreId)>, StoreError> {
    let places = [read(medium, 0), read(medium, 1)];
    let mut found = None;
    for read in places {
        found = found.max(read.map_err(|e| files::failed("reading", path, &e))?);
    }
    Ok(found)
}

/// The mark in one slot, if it is valid.
fn read(medium: &dyn Medium, place: u64) -> io::Result<Option<(HeadMark, StoreId)>> {
    if medium.bytes()? < (place + 1) * BLOCK as u64 {
        return Ok(None);
    }
    let mut block = Aligned::default();
    let block = block.room(BLOCK);
    medium.read(place * BLOCK as u64, block)?;
    Ok(block.first_chunk::<LENGTH>().and_then(decode))
}

fn decode(bytes: &[u8; LENGTH]) -> Option<(HeadMark, StoreId)> {
    let (change, rest) = bytes.split_first_chunk::<8>()?;
    let (head, rest) = rest.split_first_chunk::<8>()?;
    let (id, _) = rest.split_first_chunk::<16>()?;
    let (mark, id) =
        (HeadMark { change: u64::from_be_bytes(*change), head: u64::from_be_bytes(*head) }, StoreId::from_bytes(*id));
    (encode(mark, id) == *bytes).then_some((mark, id))
}
