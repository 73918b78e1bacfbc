//! Reserved disk space: a file whose blocks are freed, piece by piece, for commits that find the disk full.
//!
//! Grants stop while room is low; revocations, closings and retention go on. New blocks that one redb commit needs at most (measured): 16
//! KB for 1 KB, 96 KB for 50 KB, 16.4 MB for the largest commit of 8 MiB; the file grows sparsely, and holes cost nothing. So 512 pieces of
//! 128 KiB carry at least 512 commits of revocations while another process takes the rest of each piece, and about 4,000 if none does.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, fallocate, fstatvfs};

use super::{StoreError, files};
use mayfly_base::limits;

const FILE: &str = "reserve";

/// How much room the disk has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskSpace {
    /// Enough for everything.
    Plenty,
    /// No grants. Revocations, closings and retention remain durable as long as the reserve lasts.
    Low,
    /// The reserve is used up and the disk is full: the next commit may fail.
    Spent,
}

/// The reserve of one data directory.
#[derive(Debug)]
pub struct Reserve {
    path: PathBuf,
    want: u64,
    low: u64,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: File,
    held: u64,
    /// The monotonic time of the last check of the disk, and its result.
    looked: Option<(u64, DiskSpace)>,
}

impl Reserve {
    /// Allocates a reserve of `want` bytes in `dir`, or as much of it as fits: a server must start on a full disk, in order to revoke. With
    /// less than `low` bytes of free space besides the reserve, the room is [`DiskSpace::Low`].
    pub fn open(dir: &Path, want: u64, low: u64) -> Result<Reserve, StoreError> {
        let path = dir.join(FILE);
        let made = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = made.map_err(|e| files::failed("making", &path, &e))?;
        let meta = file.metadata().map_err(|e| files::failed("looking at", &path, &e))?;
        let mut held = meta.len();
        // A file of an earlier start may have another size, or holes after a crash.
        if held > want || meta.blocks().saturating_mul(512) < held {
            file.set_len(0).map_err(|e| files::failed("emptying", &path, &e))?;
            held = 0;
        }
        let reserve = Reserve { path, want, low, inner: Mutex::new(Inner { file, held, looked: None }) };
        reserve.restore()?;
        files::sync_directory(dir)?;
        Ok(reserve)
    }

    /// How much room there is. `now`: monotonic time in milliseconds; a result is reused for `limits::DISK_STATE_MS`.
    pub fn state(&self, now: u64) -> DiskSpace {
        let mut inner = self.inner.lock();
        if let Some((at, room)) = inner.looked
            && now.saturating_sub(at) < limits::DISK_STATE_MS
        {
            return room;
        }
        let room = match free(&inner.file) {
            // Unknown counts as low.
            None => DiskSpace::Low,
            Some(free) if self.is_plenty(inner.held, free) => DiskSpace::Plenty,
            Some(free) if inner.held > 0 || free >= limits::DISK_RESERVE_PIECE_BYTES => DiskSpace::Low,
            Some(_) => DiskSpace::Spent,
        };
        inner.looked = Some((now, room));
        room
    }

    /// Whether there is too little room for work that can wait. Unknown counts as too little.
    pub fn is_low(&self) -> bool {
        !self.free().is_some_and(|free| self.is_plenty(self.held(), free))
    }

    fn is_plenty(&self, held: u64, free: u64) -> bool {
        held >= self.want && free >= self.low
    }

    /// As [`Reserve::state`], and also takes the reserve back as soon as it fits besides the free space that grants need. Under constant
    /// load there is no idle moment in which this could be done elsewhere.
    pub fn maintain(&self, now: u64) -> DiskSpace {
        let room = self.state(now);
        let enough = || self.free().is_some_and(|free| free >= self.low.saturating_add(self.want.saturating_sub(self.held())));
        if room == DiskSpace::Low && enough() && self.restore().unwrap_or(false) { self.state(now) } else { room }
    }

    /// Free bytes on the disk; `None` if unknown.
    pub fn free(&self) -> Option<u64> {
        free(&self.inner.lock().file)
    }

    /// Bytes of the reserve that are held now.
    pub fn held(&self) -> u64 {
        self.inner.lock().held
    }

    /// Frees one piece; `false` when none is left. Called by the store when a write finds the disk full.
    pub fn release_piece(&self) -> bool {
        let mut inner = self.inner.lock();
        let keep = inner.held.saturating_sub(limits::DISK_RESERVE_PIECE_BYTES);
        if inner.held == 0 || inner.file.set_len(keep).is_err() {
            return false;
        }
        if inner.held >= self.want {
            tracing::warn!(reserve = %self.path.display(), "the disk is full: the ledger uses its disk reserve");
        }
        inner.held = keep;
        inner.looked = None;
        true
    }

    /// Frees the whole reserve.
    pub fn release(&self) -> Result<(), StoreError> {
        let mut inner = self.inner.lock();
        inner.file.set_len(0).map_err(|e| files::failed("emptying", &self.path, &e))?;
        inner.held = 0;
        inner.looked = None;
        Ok(())
    }

    /// Takes freed pieces back as far as there is room; `true` when the reserve is complete again.
    pub fn restore(&self) -> Result<bool, StoreError> {
        let mut inner = self.inner.lock();
        if inner.held >= self.want {
            return Ok(true);
        }
        // All at once if it fits, else as much as fits.
        let mut step = self.want - inner.held;
        while step > 0 {
            match allocate(&inner.file, inner.held, step) {
                Ok(()) => inner.held += step,
                Err(e) if files::is_full(&e) && step > limits::DISK_RESERVE_PIECE_BYTES => step /= 2,
                Err(e) if files::is_full(&e) => break,
                Err(e) => return Err(files::failed("reserving disk in", &self.path, &e)),
            }
            step = step.min(self.want - inner.held);
        }
        // A failed allocation may have left some blocks behind.
        let synced = inner.file.set_len(inner.held).and_then(|()| inner.file.sync_all());
        synced.map_err(|e| files::failed("syncing", &self.path, &e))?;
        inner.looked = None;
        Ok(inner.held >= self.want)
    }
}

/// Allocates real blocks for a range at the end of the file; writes zeros if the file system cannot allocate without writing.
fn allocate(file: &File, at: u64, len: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), at, len).map_err(io::Error::from) {
        Err(e) if e.kind() == io::ErrorKind::Unsupported => {
            file.write_all_at(&vec![0; usize::try_from(len).map_err(io::Error::other)?], at)
        }
        done => done,
    }
}

/// Free bytes on the file's disk that this process may use.
fn free(file: &File) -> Option<u64> {
    let stat = fstatvfs(file).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}
