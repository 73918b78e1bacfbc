//! Large files that go without keeping others from the disk.
//!
//! Where a file system tells its disk what is free, it does so with the next flush, whoever asks for that: beside 600 MB that went at once one
//! took 27 to 47 ms, in pieces of 16 MiB 3; beside 64 MB 6 to 12 ms, in pieces of 4 MiB 1, and 0.5 beside nothing (measured).

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::files;
use crate::system::Stopwatch;

/// What the name of a file ends with that is on its way: nobody looks for it.
const GOING: &str = "going";

/// What is given back to the disk at once, bytes.
const PIECE: u64 = 4 * 1024 * 1024;

/// Others have the disk for as long as a piece took, this at the most.
const PAUSE: Duration = Duration::from_millis(50);

/// A file without its name. Until [`Going::give_back`] it takes its room.
#[must_use = "it takes its room until it is given back"]
pub struct Going {
    file: File,
    path: PathBuf,
}

/// Takes a file's name from it, durably: for whoever looks it is gone.
pub fn take_out(path: &Path) -> io::Result<Going> {
    let file = OpenOptions::new().write(true).open(path)?;
    let aside = files::with_end(path, GOING);
    fs::rename(path, &aside)?;
    let going = Going { file, path: aside };
    File::open(files::parent(path))?.sync_all()?;
    Ok(going)
}

impl Going {
    /// Gives back its room piece by piece, from its end. It takes a while: for threads that nobody waits for. What an end of the process leaves
    /// goes with [`give_back_all`].
    pub fn give_back(self) -> io::Result<()> {
        let mut left = self.file.metadata()?.len();
        while left > PIECE {
            let watch = Stopwatch::start();
            left -= PIECE;
            self.file.set_len(left)?;
            // Or all pieces would go with one flush.
            self.file.sync_all()?;
            watch.rest(1, PAUSE);
        }
        fs::remove_file(&self.path)
    }
}

/// Gives back what was left of such files in a directory when the process ended.
pub fn give_back_all(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension() == Some(OsStr::new(GOING)) {
            let file = OpenOptions::new().write(true).open(&path)?;
            Going { file, path }.give_back()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_loses_its_name_at_once_and_its_room_by_and_by() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("large.snapshot");
        for pieces in [0, 1, 3] {
            fs::write(&path, vec![7; (PIECE * pieces) as usize + 5]).unwrap();
            let going = take_out(&path).unwrap();
            assert_eq!(names(top.path()), ["large.snapshot.going"]);
            going.give_back().unwrap();
            assert!(names(top.path()).is_empty());
        }
        assert_eq!(take_out(&path).err().map(|e| e.kind()), Some(io::ErrorKind::NotFound));
    }

    #[test]
    fn what_the_end_of_a_process_left_goes_later_and_nothing_else() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("large");
        fs::write(&path, vec![7; PIECE as usize * 2]).unwrap();
        drop(take_out(&path).unwrap());
        // Another one of that name came since.
        fs::write(&path, "new").unwrap();
        give_back_all(top.path()).unwrap();
        assert_eq!(names(top.path()), ["large"]);
        drop(take_out(&path).unwrap());
        fs::write(&path, "newer").unwrap();
        take_out(&path).unwrap().give_back().unwrap();
        assert!(names(top.path()).is_empty());
    }
}
