//! Writes a whole file: under a temporary name beside the destination, and renamed once it is complete and on the disk.
//!
//! The destination may be in a directory that other users can write to, such as `/tmp`. The temporary file has a random name and is created
//! by this process alone: no link, pipe or file that somebody placed there is opened, and two processes never write the same file.
//!
//! A process that is killed leaves its temporary file. The next writer of the same path removes it: a writer holds a lock on its temporary
//! file for as long as it runs, so a file whose lock is free has no writer. Where the file system has no locks, nothing is removed.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::file_path::{beside, directory_of};
use crate::limits;
use crate::system::System;

/// The mode of a file that only its owner can read.
pub const PRIVATE: u32 = 0o600;
/// The mode of a file without secrets; the umask narrows it.
pub const SHARED: u32 = 0o666;

/// The end of a temporary file's name.
const PARTIAL: &str = ".partial";
/// How often a writer creates a temporary file that another writer takes for an abandoned one: between the creation and the lock there is a
/// moment. Each time is a coincidence of its own.
const ATTEMPTS: usize = 8;

/// An unfinished file. Its temporary file is removed when it is dropped.
pub struct AtomicFile {
    file: BufWriter<File>,
    aside: PathBuf,
    path: PathBuf,
    renamed: bool,
}

impl AtomicFile {
    /// Creates the temporary file. Refuses a destination that exists and is no regular file.
    pub fn begin(path: &Path, mode: u32, system: &System) -> io::Result<AtomicFile> {
        if path.file_name().is_none() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it names no file"));
        }
        may_be_replaced(path)?;
        remove_abandoned(path);
        for _ in 0..ATTEMPTS {
            let mark = data_encoding::HEXLOWER.encode(&system.random16());
            let aside = beside(path, format!("{mark}{PARTIAL}"));
            let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&aside)?;
            if is_kept(&file, &aside) {
                return Ok(AtomicFile { file: BufWriter::new(file), aside, path: path.to_owned(), renamed: false });
            }
            let _ = fs::remove_file(&aside);
        }
        Err(io::Error::new(io::ErrorKind::WouldBlock, "another process locks the temporary files beside it; try again"))
    }

    /// Appends to the file.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// Writes the buffered content to the disk, and returns the temporary path, for reading the file back before it gets its name.
    pub fn complete(&mut self) -> io::Result<&Path> {
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        Ok(&self.aside)
    }

    /// Renames the complete file to its final name. A regular file of that name is replaced.
    pub fn replace(mut self) -> io::Result<()> {
        self.complete()?;
        may_be_replaced(&self.path)?;
        fs::rename(&self.aside, &self.path)?;
        self.named()
    }

    /// Renames the complete file to its final name, and fails with `AlreadyExists` if that name exists.
    pub fn name_new(mut self) -> io::Result<()> {
        self.complete()?;
        match renameat_with(CWD, &self.aside, CWD, &self.path, RenameFlags::NOREPLACE) {
            Ok(()) => self.named(),
            // The file system has no rename that refuses to replace; creating a hard link fails if the name exists. The temporary name is
            // removed with `self`.
            Err(Errno::INVAL | Errno::NOSYS) => {
                fs::hard_link(&self.aside, &self.path)?;
                File::open(directory_of(&self.path))?.sync_all()
            }
            Err(errno) => Err(errno.into()),
        }
    }

    fn named(&mut self) -> io::Result<()> {
        self.renamed = true;
        File::open(directory_of(&self.path))?.sync_all()
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = fs::remove_file(&self.aside);
        }
    }
}

/// Locks a new temporary file until it is closed. `false` if another writer has taken the file for an abandoned one.
fn is_kept(file: &File, aside: &Path) -> bool {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => false,
        // Without locks on this file system, no other writer gets one either, so none removes the file.
        Ok(()) | Err(TryLockError::Error(_)) => fs::symlink_metadata(aside).is_ok(),
    }
}

/// Removes the temporary files of writers of the same path that were killed. Failures are ignored: such a file hinders no writer.
fn remove_abandoned(path: &Path) {
    let Some(name) = path.file_name() else { return };
    let Ok(entries) = fs::read_dir(directory_of(path)) else { return };
    for entry in entries.take(limits::PARTIAL_NAMES).flatten() {
        if is_partial_of(name, &entry.file_name()) {
            let _ = remove_if_abandoned(&entry.path());
        }
    }
}

/// Whether a name is one that [`AtomicFile::begin`] gives to the temporary file of a file called `name`.
fn is_partial_of(name: &OsStr, found: &OsStr) -> bool {
    let rest = found.as_bytes().strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"."));
    let mark = rest.and_then(|rest| rest.strip_suffix(PARTIAL.as_bytes()));
    mark.is_some_and(|mark| mark.len() == 32 && mark.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

fn remove_if_abandoned(aside: &Path) -> io::Result<()> {
    let ours = |found: &Metadata| found.is_file() && found.uid() == rustix::process::geteuid().as_raw();
    if !ours(&fs::symlink_metadata(aside)?) {
        return Ok(());
    }
    // Another user may put something else there meanwhile. No link is followed, opening a pipe does not wait, and the opened file is
    // checked again.
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or_default();
    let file = OpenOptions::new().write(true).custom_flags(flags).open(aside)?;
    if ours(&file.metadata()?) && file.try_lock().is_ok() {
        // The lock is held until the name is gone, so that a writer that has just created the file notices.
        fs::remove_file(aside)?;
    }
    Ok(())
}

/// Writes a whole file, and replaces a regular file of that name.
pub fn write(path: &Path, bytes: &[u8], mode: u32, system: &System) -> io::Result<()> {
    let mut file = AtomicFile::begin(path, mode, system)?;
    file.write(bytes)?;
    file.replace()
}

/// Refuses to replace anything but a regular file: a device, a link, a pipe or a directory belongs to somebody else.
pub fn may_be_replaced(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => {
            let what = "there is something of that name that is no regular file, and it is not replaced";
            Err(io::Error::new(io::ErrorKind::AlreadyExists, what))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_private_and_replaces_an_open_one_without_changing_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        // What an earlier version or another user left under a name that can be guessed is not opened.
        let victim = dir.path().join("victim");
        fs::write(&victim, "kept").unwrap();
        symlink(&victim, dir.path().join("out.partial")).unwrap();
        let held = File::open(&path).unwrap();
        write(&path, b"new", PRIVATE, &System::real()).unwrap();
        assert_eq!((fs::read(&path).unwrap(), fs::read(&victim).unwrap()), (b"new".to_vec(), b"kept".to_vec()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(io::read_to_string(held).unwrap(), "old");
        assert_eq!(names(dir.path()), ["out", "out.partial", "victim"]);
    }

    #[test]
    fn a_link_a_pipe_and_a_directory_are_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let (link, pipe, folder) = (dir.path().join("link"), dir.path().join("pipe"), dir.path().join("folder"));
        symlink(dir.path().join("victim"), &link).unwrap();
        rustix::fs::mkfifoat(CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        fs::create_dir(&folder).unwrap();
        for path in [&link, &pipe, &folder, &dir.path().join("..")] {
            assert!(write(path, b"new", PRIVATE, &System::real()).is_err(), "{}", path.display());
        }
        assert_eq!(names(dir.path()), ["folder", "link", "pipe"]);
    }

    #[test]
    fn two_writers_of_one_name_do_not_mix_and_an_abandoned_file_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (path, system) = (dir.path().join("out"), System::real());
        let mut one = AtomicFile::begin(&path, PRIVATE, &system).unwrap();
        let mut two = AtomicFile::begin(&path, PRIVATE, &system).unwrap();
        one.write(b"one").unwrap();
        two.write(b"two, longer").unwrap();
        two.replace().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two, longer");
        one.replace().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        let mut abandoned = AtomicFile::begin(&path, PRIVATE, &system).unwrap();
        abandoned.write(b"half").unwrap();
        drop(abandoned);
        let refused = AtomicFile::begin(&path, PRIVATE, &system).unwrap().name_new().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!((names(dir.path()), fs::read(&path).unwrap()), (vec!["out".to_owned()], b"one".to_vec()));
    }

    #[test]
    fn what_a_killed_writer_left_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (path, system) = (dir.path().join("out"), System::real());
        let at = |name: &str| dir.path().join(name);
        let (zeros, ones) = ("0".repeat(32), "1".repeat(32));
        let left = AtomicFile::begin(&path, PRIVATE, &system).unwrap().aside.clone();
        fs::write(&left, "half").unwrap();
        // Names that no writer of this path gives, and things that no writer makes.
        let others = ["out.partial", &format!("out.{}.partial", "A".repeat(32)), &format!("out.{zeros}0.partial")];
        let more = [format!("out.{zeros}.partial.old"), format!("other.{zeros}.partial"), format!("xout.{zeros}.partial")];
        let mut kept: Vec<String> = others.iter().map(|name| (*name).to_owned()).chain(more).collect();
        kept.iter().for_each(|name| fs::write(at(name), "kept").unwrap());
        for (n, mark) in ["2", "3", "4"].map(|digit| digit.repeat(32)).iter().enumerate() {
            let name = format!("out.{mark}.partial");
            match n {
                0 => symlink(at("out.partial"), at(&name)).unwrap(),
                1 => rustix::fs::mkfifoat(CWD, at(&name), rustix::fs::Mode::RUSR).unwrap(),
                _ => fs::create_dir(at(&name)).unwrap(),
            }
            kept.push(name);
        }
        // Only root can give files away.
        let foreign = format!("out.{ones}.partial");
        fs::write(at(&foreign), "theirs").unwrap();
        match std::os::unix::fs::chown(at(&foreign), Some(65_533), None) {
            Ok(()) => kept.push(foreign),
            Err(_) => fs::remove_file(at(&foreign)).unwrap(),
        }
        let mut running = AtomicFile::begin(&path, PRIVATE, &system).unwrap();
        assert!(!left.exists());
        running.write(b"one").unwrap();
        write(&path, b"two", PRIVATE, &system).unwrap();
        running.replace().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        kept.push("out".to_owned());
        kept.sort();
        assert_eq!(names(dir.path()), kept);
    }

    #[test]
    fn writers_of_one_path_do_not_remove_each_others_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        std::thread::scope(|scope| {
            for n in 0..4 {
                let path = &path;
                scope.spawn(move || {
                    let system = System::real();
                    (0..25).for_each(|_| write(path, format!("{n}").as_bytes(), PRIVATE, &system).unwrap());
                });
            }
        });
        assert_eq!((names(dir.path()), fs::read(&path).unwrap().len()), (vec!["out".to_owned()], 1));
    }
}
