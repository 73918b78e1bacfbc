//! The file under redb, with one addition: a write that finds the disk full frees a piece of the reserve and is retried.
//!
//! Without this, another process that fills the disk between two checks of the free space would make a revocation's commit fail, and redb
//! accepts nothing after a failed write until it was reopened.

use std::fs::File;
use std::io;
use std::ops::Bound;
use std::sync::Arc;

use ::redb::backends::FileBackend;
use ::redb::{BackendError, DatabaseError, StorageBackend};

use crate::files::is_full;
use crate::reserve::Reserve;

#[derive(Debug)]
pub(super) struct ReservedFile {
    file: FileBackend,
    reserve: Option<Arc<Reserve>>,
}

impl ReservedFile {
    pub(super) fn new(file: File, reserve: Option<Arc<Reserve>>) -> Result<ReservedFile, DatabaseError> {
        Ok(ReservedFile { file: FileBackend::new(file)?, reserve })
    }

    /// Writing the same bytes at the same offset again is harmless, whatever part of them was written before.
    fn with_reserve(&self, write: impl Fn() -> io::Result<()>) -> io::Result<()> {
        loop {
            match write() {
                Err(e) if is_full(&e) && self.reserve.as_ref().is_some_and(|r| r.release_piece()) => {}
                done => return done,
            }
        }
    }
}

impl StorageBackend for ReservedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with_reserve(|| self.file.set_len(len))
    }

    // Not retried: after a failed sync the kernel may have dropped unwritten pages, and the next sync does not report that.
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with_reserve(|| self.file.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
