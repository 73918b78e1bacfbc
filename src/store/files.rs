//! The data directory: created so that it survives a power failure, private, and locked by one server at a time.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::StoreError;
use mayfly_base::document::remedy::{self, Remedy};
use mayfly_base::file_path::directory_of;

/// Turns an I/O error into a store error that says what was being done.
pub(super) fn failed(doing: &str, path: &Path, err: &io::Error) -> StoreError {
    let text = format!("{doing} {}: {err}", path.display());
    if is_full(err) { StoreError::Full(text) } else { StoreError::Failed(text) }
}

/// Whether there is no space left: the disk, a quota, or the largest file size of the file system.
pub(super) fn is_full(err: &io::Error) -> bool {
    matches!(err.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// A locked directory that belongs to this store alone until the value is dropped.
#[derive(Debug)]
pub(super) struct DirectoryLock(File);

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Closing is not enough: a child process that is being started inherits the handle until it runs exec.
        let _ = self.0.unlock();
    }
}

/// Creates the directory (0700) if it is missing, refuses a directory that other users can access, and locks it.
///
/// The lock is flock(2) on the directory itself.
pub(super) fn own_directory(dir: &Path) -> Result<DirectoryLock, StoreError> {
    make(dir)?;
    let handle = File::open(dir).map_err(|e| failed("opening", dir, &e))?;
    let meta = handle.metadata().map_err(|e| failed("looking at", dir, &e))?;
    if meta.mode() & 0o077 != 0 {
        let (shown, mode) = (dir.display(), meta.mode() & 0o777);
        let remedy = remedy::restrict_directory(dir, 0o700, rustix::process::geteuid().as_raw(), "store.path");
        return Err(StoreError::Unsafe(format!("{shown} is open to others (mode {mode:03o})\n  {remedy}")));
    }
    match handle.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(StoreError::InUse(dir.display().to_string())),
        Err(TryLockError::Error(e)) => return Err(failed("locking", dir, &e)),
    }
    // At each start, because the start that created the directory may have ended before this.
    sync_directory(dir)?;
    sync_directory(directory_of(dir))?;
    Ok(DirectoryLock(handle))
}

/// Creates missing directories from the top; each name is synced in its parent before anything is put below it.
fn make(dir: &Path) -> Result<(), StoreError> {
    if dir.is_dir() {
        return Ok(());
    }
    let above = directory_of(dir);
    if above != dir {
        make(above)?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => sync_directory(above),
        // Another process created it in the meantime.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(e) => Err(failed("making the directory", dir, &e)),
    }
}

/// A new directory that only the server's user can access. Its name is not durable yet.
pub(super) fn private_directory(dir: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(dir)
}

/// Drops a file's page cache, so that reads come from the disk. After a failed flush, the kernel may have given up on writing a page and
/// still show its content, to the next process as well; such content would be lost at a power failure.
pub(super) fn from_disk(file: &File, path: &Path) -> Result<(), StoreError> {
    file.sync_all().map_err(|e| failed("syncing", path, &e))?;
    let dropped = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
    dropped.map_err(|e| failed("reading anew", path, &e.into()))
}

/// Bytes that a file occupies on its disk; 0 if unknown.
pub(super) fn on_disk(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.blocks().saturating_mul(512))
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| failed("syncing", dir, &e))
}

/// The path with a suffix after a dot.
pub(super) fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(end);
    name.into()
}

/// A new private file under a temporary name. A leftover of an unfinished start is removed first.
pub(super) fn begin_file(path: &Path) -> Result<(File, PathBuf), StoreError> {
    let aside = with_end(path, "new");
    match std::fs::remove_file(&aside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("removing", &aside, &e)),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(&aside);
    Ok((file.map_err(|e| failed("making", &aside, &e))?, aside))
}

/// Renames a finished temporary file durably: content first, then the name.
pub(super) fn finish_file(aside: &Path, path: &Path) -> Result<(), StoreError> {
    File::open(aside).and_then(|f| f.sync_all()).map_err(|e| failed("syncing", aside, &e))?;
    give_name(aside, path)
}

/// Renames a temporary file whose content is durable, durably.
pub(super) fn give_name(aside: &Path, path: &Path) -> Result<(), StoreError> {
    std::fs::rename(aside, path).map_err(|e| failed("renaming", aside, &e))?;
    sync_directory(directory_of(path))
}

/// Opens an existing file for reading and writing; refused if other users may open it.
pub(super) fn open_private(path: &Path) -> Result<Option<File>, StoreError> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed("opening", path, &e)),
    };
    let meta = file.metadata().map_err(|e| failed("looking at", path, &e))?;
    if !meta.is_file() {
        return Err(StoreError::Foreign(format!("{} is not a regular file", path.display())));
    }
    if meta.mode() & 0o077 != 0 {
        let (shown, mode) = (path.display(), meta.mode() & 0o777);
        let remedy = Remedy::new("to mend it", format!("chmod 600 {}", remedy::shell_quoted(path)));
        return Err(StoreError::Unsafe(format!("{shown} is open to others (mode {mode:03o})\n  {remedy}")));
    }
    Ok(Some(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_free_again_though_a_process_that_is_being_started_has_its_handle() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("data");
        let owned = own_directory(&dir).unwrap();
        // A copied handle, as after fork(2).
        let _copied = owned.0.try_clone().unwrap();
        assert!(matches!(own_directory(&dir), Err(StoreError::InUse(_))));
        drop(owned);
        drop(own_directory(&dir).unwrap());
    }
}
