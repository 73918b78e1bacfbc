//! Allocates disk blocks before sled writes: sled stops at a full disk, and no other process can take blocks that are allocated already.
//!
//! sled's file grows at its end, so blocks are allocated beyond the end. If the disk has none left, pieces of the reserve are freed.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};

use super::files;
use crate::StoreError;
use crate::reserve::Reserve;
use mayfly_base::limits;

pub(super) struct Preallocator {
    file: File,
    path: PathBuf,
    reserve: Option<Arc<Reserve>>,
    /// Blocks are allocated up to here.
    prepared: u64,
    /// The file's length at the last check: if it is shorter now, sled truncated the file, and the blocks beyond are gone.
    length: u64,
}

impl Preallocator {
    pub(super) fn new(path: &Path, reserve: Option<Arc<Reserve>>) -> Result<Preallocator, StoreError> {
        let file = File::options().read(true).write(true).open(path).map_err(|e| files::failed("opening", path, &e))?;
        Ok(Preallocator { file, path: path.to_owned(), reserve, prepared: 0, length: 0 })
    }

    /// Allocates room for a change that writes so many bytes of rows.
    pub(super) fn ahead(&mut self, bytes: usize) -> Result<(), StoreError> {
        let length = self.file.metadata().map_err(|e| files::failed("looking at", &self.path, &e))?.len();
        if length < self.length {
            self.prepared = 0;
        }
        self.length = length;
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let least = limits::SLED_LOG_BYTES.saturating_add(bytes.saturating_mul(limits::SLED_LOG_FACTOR));
        let needed = length.saturating_add(least);
        if self.prepared >= needed {
            return Ok(());
        }
        let more = least.saturating_add(limits::SLED_AHEAD_BYTES);
        if self.allocate(length, more).is_ok() {
            self.prepared = length.saturating_add(more);
            return Ok(());
        }
        loop {
            match self.allocate(length, least) {
                Ok(()) => break,
                Err(e) if files::is_full(&e) && self.reserve.as_ref().is_some_and(|r| r.release_piece()) => {}
                Err(e) => return Err(files::failed("making room in", &self.path, &e)),
            }
        }
        self.prepared = needed;
        Ok(())
    }

    /// Allocates blocks beyond the file's end without moving the end.
    fn allocate(&self, at: u64, len: u64) -> io::Result<()> {
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, at, len).map_err(io::Error::from) {
            // On a file system that cannot allocate, sled meets the full disk itself, and the store is reopened.
            Err(e) if e.kind() == io::ErrorKind::Unsupported => Ok(()),
            done => done,
        }
    }
}
