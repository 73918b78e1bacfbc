//! The medium of the log: a preallocated file, or a test's replacement.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::{StoreError, files};

/// Reads and writes begin and end at multiples of this, in the file and in memory: direct I/O works with it on any disk of today.
pub(crate) const BLOCK: usize = 4096;

/// A file of fixed length.
pub trait Medium: Send + Sync {
    /// The length, bytes.
    fn bytes(&self) -> io::Result<u64>;
    /// Fills `out` from `offset`.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
    /// Writes at `offset`; the range is within the length.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Returns when all writes are on stable storage.
    fn flush(&self) -> io::Result<()>;
}

impl Medium for File {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(out, offset)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_all_at(data, offset)
    }

    fn flush(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// The name of log file `n`.
pub(super) fn name(n: usize) -> String {
    format!("wal-{n}")
}

/// The name of the head file, which says which commits were acknowledged.
pub(super) const HEAD: &str = "wal-head";

/// Creates a log file full of zeros: its blocks are allocated and initialized, so that a later write changes only their content.
pub(super) fn make(dir: &Path, n: usize, bytes: u64) -> Result<(), StoreError> {
    let path = dir.join(name(n));
    let (file, aside) = files::begin_file(&path)?;
    let zeros = vec![0; 64 * BLOCK];
    let mut at = 0;
    while at < bytes {
        let some = usize::try_from(bytes - at).map_or(zeros.len(), |left| left.min(zeros.len()));
        file.write_all_at(zeros.get(..some).unwrap_or_default(), at).map_err(|e| files::failed("making", &aside, &e))?;
        at += some as u64;
    }
    drop(file);
    files::finish_file(&aside, &path)
}

/// Opens a log file. Reads come from the disk.
pub(super) fn open(dir: &Path, n: usize) -> Result<Box<dyn Medium>, StoreError> {
    let path = dir.join(name(n));
    let Some(file) = files::open_private(&path)? else {
        let what = format!("{} is missing: the newest commits may have stood in it", path.display());
        return Err(StoreError::Damaged { at: 0, what });
    };
    files::from_disk(&file, &path)?;
    if let Err(error) = past_the_cache(&file) {
        tracing::debug!(path = %path.display(), %error, "direct I/O is not available; the log is written through the page cache");
    }
    Ok(Box::new(file))
}

/// A file system without direct I/O reports it here, or at the read.
fn past_the_cache(file: &File) -> io::Result<()> {
    let flags = fcntl_getfl(file)?;
    fcntl_setfl(file, flags | OFlags::DIRECT)?;
    let mut block = super::file::Aligned::default();
    let read = file.read_exact_at(block.room(BLOCK), 0);
    if read.is_err() {
        fcntl_setfl(file, flags)?;
    }
    read
}
