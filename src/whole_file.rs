//! Writes a whole file: under a temporary name beside the destination, and renamed once it is complete and on the disk.
//!
//! The destination may be in a directory that other users can write to, such as `/tmp`. The temporary file has a random name and is created
//! by this process alone: no link, pipe or file that somebody placed there is opened, and two processes never write the same file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::file_path::{beside, directory_of};
use crate::system::System;

/// The mode of a file that only its owner can read.
pub const PRIVATE: u32 = 0o600;
/// The mode of a file without secrets; the umask narrows it.
pub const SHARED: u32 = 0o666;

/// An unfinished file. Its temporary file is removed when it is dropped.
pub struct NewFile {
    file: BufWriter<File>,
    aside: PathBuf,
    path: PathBuf,
    renamed: bool,
}

impl NewFile {
    /// Creates the temporary file. Refuses a destination that exists and is no regular file.
    pub fn begin(path: &Path, mode: u32, system: &System) -> io::Result<NewFile> {
        if path.file_name().is_none() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it names no file"));
        }
        may_be_replaced(path)?;
        let mark = data_encoding::HEXLOWER.encode(&system.random16());
        let aside = beside(path, format!("{mark}.partial"));
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&aside)?;
        Ok(NewFile { file: BufWriter::new(file), aside, path: path.to_owned(), renamed: false })
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

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = fs::remove_file(&self.aside);
        }
    }
}

/// Writes a whole file, and replaces a regular file of that name.
pub fn write(path: &Path, bytes: &[u8], mode: u32, system: &System) -> io::Result<()> {
    let mut file = NewFile::begin(path, mode, system)?;
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
        let mut one = NewFile::begin(&path, PRIVATE, &system).unwrap();
        let mut two = NewFile::begin(&path, PRIVATE, &system).unwrap();
        one.write(b"one").unwrap();
        two.write(b"two, longer").unwrap();
        two.replace().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two, longer");
        one.replace().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        let mut abandoned = NewFile::begin(&path, PRIVATE, &system).unwrap();
        abandoned.write(b"half").unwrap();
        drop(abandoned);
        let refused = NewFile::begin(&path, PRIVATE, &system).unwrap().name_new().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!((names(dir.path()), fs::read(&path).unwrap()), (vec!["out".to_owned()], b"one".to_vec()));
    }
}
