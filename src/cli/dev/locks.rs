//! The two locks of a dev world: one while it is created, started or removed, and one while its server runs.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Seek, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::files::private_dir;
use super::up::PATIENCE;
use super::world::{DevWorldError, is_world, refuse_foreign_dir};
use crate::out::Out;
use mayfly_base::backoff::Backoff;
use mayfly_base::system::System;

/// How often a server tries to take its lock, for one to two seconds. Another command holds the lock for microseconds, to see whether a
/// server runs.
const ATTEMPTS: usize = 50;
const PAUSE_MS: u64 = 20;

fn failed(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> DevWorldError {
    let path = path.to_owned();
    move |error| DevWorldError::Io { what, path, error }
}

fn open(path: &Path) -> Result<File, DevWorldError> {
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    open.map_err(failed("opening", path))
}

/// Whether a path still names this file. The file of a world that was removed meanwhile is not the file of the world that is made next.
fn is_at(file: &File, path: &Path) -> bool {
    let same = |own: &std::fs::Metadata, there: &std::fs::Metadata| (own.dev(), own.ino()) == (there.dev(), there.ino());
    matches!((file.metadata(), std::fs::symlink_metadata(path)), (Ok(own), Ok(there)) if same(&own, &there))
}

/// A lock on a world that is being created, started, emptied or removed. Concurrent `dev up` wait for it: two of them would each make a CA,
/// and the certificates of one would not match the root of the other.
pub(super) struct StartLock {
    _file: File,
}

impl StartLock {
    /// The name of the lock file.
    pub const NAME: &str = "mayfly.starting";

    /// Takes the lock, unless another process holds it. `None` if one does, or if the directory was removed meanwhile.
    fn take(dir: &Path) -> Result<Option<StartLock>, DevWorldError> {
        let path = dir.join(StartLock::NAME);
        let file = match open(&path) {
            Err(DevWorldError::Io { error, .. }) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        match file.try_lock() {
            Ok(()) if is_at(&file, &path) => Ok(Some(StartLock { _file: file })),
            Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed("locking", &path)(error)),
        }
    }

    /// Waits for the lock on a world that is to be created or started; its directory is created.
    pub fn wait(dir: &Path, out: Out) -> Result<StartLock, DevWorldError> {
        StartLock::wait_while(dir, out, || {
            private_dir(dir)?;
            refuse_foreign_dir(dir)?;
            Ok(true)
        })?
        .ok_or_else(|| DevWorldError::Busy(dir.to_owned()))
    }

    /// Waits for the lock on a world that is to be emptied or removed; `None` if it is gone.
    pub fn wait_for_existing(dir: &Path, out: Out) -> Result<Option<StartLock>, DevWorldError> {
        let lock = StartLock::wait_while(dir, out, || Ok(is_world(dir)))?;
        // Another command may have removed the world before the lock was taken.
        Ok(lock.filter(|_| is_world(dir)))
    }

    fn wait_while(
        dir: &Path,
        out: Out,
        goes_on: impl Fn() -> Result<bool, DevWorldError>,
    ) -> Result<Option<StartLock>, DevWorldError> {
        let began = System::real();
        let mut told = false;
        // The other command ends within its own patience.
        while began.steady() < 2 * u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX) {
            if !goes_on()? {
                return Ok(None);
            }
            if let Some(lock) = StartLock::take(dir)? {
                return Ok(Some(lock));
            }
            if !std::mem::replace(&mut told, true) {
                out.say(format_args!(
                    "mayfly: another command starts or removes the dev server of {}: waiting for it",
                    dir.display()
                ));
            }
            std::thread::sleep(Duration::from_millis(PAUSE_MS));
        }
        Err(DevWorldError::Busy(dir.to_owned()))
    }
}

/// A lock held for as long as the dev server runs, so that `dev down` ends the process that holds it, and never another process with the
/// same id.
pub(super) struct ServerLock {
    _file: File,
}

impl ServerLock {
    /// The name of the lock file, which holds the process id of the server.
    pub const NAME: &str = "mayfly.pid";

    /// The path of the lock file.
    pub fn path(dir: &Path) -> PathBuf {
        dir.join(ServerLock::NAME)
    }

    /// Whether a server holds the lock. Writes nothing.
    pub fn is_held(dir: &Path) -> Result<bool, DevWorldError> {
        let path = ServerLock::path(dir);
        // A shared lock: several commands may look at once.
        // Written as well, so that opening a pipe does not wait for a writer.
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            file => file.map_err(failed("opening", &path))?,
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(failed("locking", &path)(error)),
        }
    }

    /// Takes the lock and writes the process id; `None` if a server holds the lock.
    pub fn take(dir: &Path) -> Result<Option<ServerLock>, DevWorldError> {
        let path = ServerLock::path(dir);
        let mut file = open(&path)?;
        let mut pauses = Backoff::new(PAUSE_MS, PAUSE_MS).attempts(ATTEMPTS);
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if pauses.sleep() => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(failed("locking", &path)(error)),
            }
        }
        let write = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
        write.map_err(failed("writing", &path))?;
        Ok(Some(ServerLock { _file: file }))
    }
}
