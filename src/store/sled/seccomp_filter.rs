//! Disables `sync_file_range`: sled ends its flush with this call, which makes neither the file's size nor the disk's own cache durable. On
//! a kernel without the call, sled uses fsync; a seccomp filter therefore makes the call fail with ENOSYS.
//!
//! The filter applies to all threads of the process, including sled's, and to child processes; it cannot be removed. To all of them the
//! kernel looks older than 2.6.17. The filter requires `no_new_privs`: no program started from here gains rights by being set-uid.

use std::path::{Path, PathBuf};
use std::{fs, io};

use parking_lot::Mutex;

use super::files;
use crate::StoreError;
use mayfly_base::backoff::Backoff;
use mayfly_base::limits;

/// The progress of the filter in this process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Nothing,
    Installed,
    Seen,
}

static STAGE: Mutex<Stage> = Mutex::new(Stage::Nothing);

/// Installs the filter once per process, and tests that sled is affected by it. Called before sled opens anything, so that sled's threads
/// start with the filter. The self-test needs a place for a few small files, removed at once: shared memory, or else `dir`.
pub(super) fn in_force(dir: &Path) -> Result<(), StoreError> {
    let mut stage = STAGE.lock();
    if *stage == Stage::Nothing {
        install().map_err(|why| {
            refused(&format!(
                "the filter could not be installed ({why}); it needs Linux with seccomp on x86-64, aarch64 or riscv64"
            ))
        })?;
        *stage = Stage::Installed;
    }
    if *stage == Stage::Installed {
        let seen = see(dir).map_err(|e| refused(&format!("its self-test could not be made ({e})")))?;
        if !seen {
            return Err(refused("its self-test failed: the call is still answered, so acknowledged records could be lost"));
        }
        *stage = Stage::Seen;
    }
    Ok(())
}

fn refused(why: &str) -> StoreError {
    StoreError::Unsafe(format!(
        "engine sled must not use sync_file_range: {why}\n  to do without sled: engine = \"redb\" under [store]"
    ))
}

#[cfg(target_os = "linux")]
fn install() -> Result<(), String> {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter_all_threads};

    let arch = std::env::consts::ARCH.try_into().map_err(|_| format!("no filters for {}", std::env::consts::ARCH))?;
    let answer = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let rules = [(libc::SYS_sync_file_range, Vec::new())].into_iter().collect();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, answer, arch).map_err(|e| e.to_string())?;
    let program = BpfProgram::try_from(filter).map_err(|e| e.to_string())?;
    apply_filter_all_threads(&program).map_err(|e| e.to_string())
}

#[cfg(not(target_os = "linux"))]
fn install() -> Result<(), String> {
    Err("this is not Linux".to_owned())
}

/// Whether sled's own threads see that there is no `sync_file_range`.
///
/// sled writes to a device that accepts all bytes and supports neither call: `sync_file_range` fails there with ESPIPE, and fsync, which
/// sled calls only after ENOSYS, with EINVAL (sync_file_range(2), fsync(2)). No other safe code reaches the call.
fn see(dir: &Path) -> io::Result<bool> {
    let scratch = Scratch::make(Path::new("/dev/shm")).or_else(|_| Scratch::make(dir))?;
    // sled locks the files it opens, and a device has one lock for all processes: another server's self-test may hold it for a moment.
    let mut pauses = Backoff::new(limits::SLED_LOCK_PAUSE_MS, limits::SLED_LOCK_PAUSE_MS).attempts(limits::SLED_LOCK_TRIES);
    let (mut device, mut other) = ("/dev/null", "/dev/zero");
    loop {
        match meet(&scratch.0, device) {
            Err(e) if e.kind() == io::ErrorKind::Other && pauses.sleep() => std::mem::swap(&mut device, &mut other),
            met => return met,
        }
    }
}

fn meet(scratch: &Path, device: &str) -> io::Result<bool> {
    let db = scratch.join("db");
    let _ = fs::remove_file(&db);
    std::os::unix::fs::symlink(device, &db)?;
    let config = ::sled::Config::new().path(scratch).flush_every_ms(None).cache_capacity(1 << 20).segment_size(512);
    let flushed = config.open().and_then(|store| store.insert(b"seen", b"?").and_then(|_| store.flush()));
    match flushed {
        Err(::sled::Error::Io(e)) if e.kind() == io::ErrorKind::InvalidInput => Ok(true),
        Err(::sled::Error::Io(e)) if e.kind() == io::ErrorKind::NotSeekable => Ok(false),
        Err(::sled::Error::Io(e)) => Err(e),
        Err(e) => Err(io::Error::new(io::ErrorKind::InvalidData, e.to_string())),
        // A sync that does nothing makes no data safe; it can only come from a preloaded library.
        Ok(_) => Ok(false),
    }
}

/// A directory that is removed with its content.
struct Scratch(PathBuf);

impl Scratch {
    fn make(dir: &Path) -> io::Result<Scratch> {
        let path = dir.join(format!("sled-self-test-{}", std::process::id()));
        // A leftover of a start that was killed here, under a process id that is used again.
        let _ = fs::remove_dir_all(&path);
        files::private_directory(&path)?;
        let scratch = Scratch(path);
        fs::create_dir(scratch.0.join("blobs"))?;
        fs::write(scratch.0.join("try"), [0; 64])?;
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir_all(&self.0) {
            tracing::warn!(file = %self.0.display(), error = %e, "a file could not be removed");
        }
    }
}
