//! Opens files that may be something else, and reads whole files of bounded size.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl, fstatfs};
use zeroize::Zeroizing;

/// The type of the file system in which the pipes of the kernel are, those without a name (`PIPEFS_MAGIC` in linux/magic.h).
const PIPEFS: i128 = 0x5049_5045;

/// Opens a regular file. A symbolic link is followed.
///
/// A device or a pipe is refused before a byte of it is read: it may have no end, and a read of it may never return.
pub fn open(path: &Path) -> io::Result<File> {
    // The check is done on the opened file.
    let file = open_at_once(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")),
    }
}

/// Opens a file, a device, or the pipe of `<(command)` or `/dev/stdin`, which a user names on the command line.
///
/// A pipe with a name of its own is refused: opening it would wait for a writer, and there may never be one.
pub fn open_named(path: &Path) -> io::Result<File> {
    let file = open_at_once(path)?;
    if file.metadata()?.file_type().is_fifo() && i128::from(fstatfs(&file)?.f_type) != PIPEFS {
        let what = "it is a named pipe, and a read of it may never end; name a file, or use <(command)";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    // A read of the pipe of a command waits for that command.
    fcntl_setfl(&file, fcntl_getfl(&file)?.difference(OFlags::NONBLOCK))?;
    Ok(file)
}

/// Opens without waiting: opening a pipe otherwise waits for a writer.
fn open_at_once(path: &Path) -> io::Result<File> {
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    OpenOptions::new().read(true).custom_flags(nonblocking).open(path)
}

/// Reads a regular file of at most `max` bytes, which [`open`] opens. The content is wiped from memory when it is dropped.
pub fn read(path: &Path, max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = open(path)?;
    let length = file.metadata()?.len();
    whole(file, usize::try_from(length).unwrap_or(max), max)
}

/// Like [`read`], with the metadata of the very file that was read.
pub fn read_with_metadata(path: &Path, max: usize) -> io::Result<(Zeroizing<Vec<u8>>, Metadata)> {
    let file = open(path)?;
    let found = file.metadata()?;
    let length = usize::try_from(found.len()).unwrap_or(max);
    Ok((whole(file, length, max)?, found))
}

/// Like [`read`], as text.
pub fn read_text(path: &Path, max: usize) -> io::Result<Zeroizing<String>> {
    text(&read(path, max)?)
}

/// Reads at most `max` bytes of what [`open_named`] opens.
pub fn read_named(path: &Path, max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    whole(open_named(path)?, max, max)
}

/// Reads the last `max` bytes of a regular file.
pub fn read_end(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    let (mut file, mut bytes) = (open(path)?, Vec::new());
    file.seek(SeekFrom::Start(file.metadata()?.len().saturating_sub(max as u64)))?;
    file.take(max as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn whole(file: File, expected: usize, max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    // The whole capacity is reserved at once: a growing buffer would leave copies of a key in memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(expected.min(max) + 4096));
    file.take(max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {max} bytes")));
    }
    Ok(bytes)
}

fn text(bytes: &[u8]) -> io::Result<Zeroizing<String>> {
    let text = std::str::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_end_is_refused_and_a_pipe_without_a_writer_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        for path in [Path::new("/dev/zero"), Path::new("/dev/null"), &pipe, dir.path()] {
            assert_eq!(read(path, 10).unwrap_err().to_string(), "it is not a regular file", "{}", path.display());
            assert!(open(path).is_err() && read_end(path, 10).is_err(), "{}", path.display());
        }
        assert_eq!(read_named(Path::new("/dev/zero"), 10).unwrap_err().to_string(), "it has more than 10 bytes");
        let refused = read_named(&pipe, 10).unwrap_err().to_string();
        assert!(refused.starts_with("it is a named pipe"), "{refused}");
    }

    #[test]
    fn the_pipe_of_a_command_is_read_to_its_end_however_long_the_command_takes() {
        use std::io::Write as _;
        use std::os::fd::AsRawFd as _;
        let (from, mut to) = io::pipe().unwrap();
        let path = format!("/dev/fd/{}", from.as_raw_fd());
        let writer = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(50));
            to.write_all(b"0123456789").unwrap();
        });
        assert_eq!(read_named(Path::new(&path), 10).unwrap().as_slice(), b"0123456789");
        writer.join().unwrap();
    }

    #[test]
    fn the_bound_is_inclusive_and_a_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        std::fs::write(&file, "0123456789").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(read_text(&link, 10).unwrap().as_str(), "0123456789");
        assert_eq!(read(&link, 9).unwrap_err().to_string(), "it has more than 9 bytes");
        assert_eq!((read_end(&link, 3).unwrap(), read_end(&file, 11).unwrap().len()), (b"789".to_vec(), 10));
        std::fs::write(&file, b"\xff").unwrap();
        assert_eq!(read_text(&file, 10).unwrap_err().to_string(), "it is not UTF-8 text");
    }
}
