//! What the log is written to: a file that has its room, or what a test puts in its place.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::store::{StoreError, files};

/// What is read and written begins and ends at multiples of this, in the file and in memory: what a write past the page cache takes on any
/// disk of today.
pub(in crate::store) const BLOCK: usize = 4096;

/// A file of fixed length.
pub trait Medium: Send + Sync {
    /// Its length, bytes.
    fn bytes(&self) -> io::Result<u64>;
    /// Fills `out` from what stands at `offset`.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
    /// Writes at `offset`, all of it within the length.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Returns when all that was written is on stable storage.
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

/// What the files are called.
pub(super) fn name(n: usize) -> String {
    format!("wal-{n}")
}

/// What the file is called that says which commits were acknowledged.
pub(super) const HEAD: &str = "wal-head";

/// Makes one of them, full of zeros: its blocks are its own and written before, so that a write changes nothing but what stands in them.
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

/// Opens one of them. What is read comes from the disk.
pub(super) fn open(dir: &Path, n: usize) -> Result<Box<dyn Medium>, StoreError> {
    let path = dir.join(name(n));
    let Some(file) = files::open_private(&path)? else {
        let what = format!("{} is missing: the newest commits may have stood in it", path.display());
        return Err(StoreError::Damaged { at: 0, what });
    };
    files::from_disk(&file, &path)?;
    if let Err(error) = past_the_cache(&file) {
        tracing::debug!(path = %path.display(), %error, "written through the page cache");
    }
    Ok(Box::new(file))
}

/// A file system that takes no such writes says so here, or to the read.
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
