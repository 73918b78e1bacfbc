//! Reads a whole file of bounded size.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use zeroize::Zeroizing;

/// Reads a regular file of at most `max` bytes. The content is wiped from memory when it is dropped.
///
/// A device or a pipe is refused before a byte of it is read: it may have no end, and a read of it may never return. A symbolic link is
/// followed.
pub fn read(path: &Path, max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    // Non-blocking, because opening a pipe would wait for a writer. The check is done on the opened file.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    whole(file, usize::try_from(found.len()).unwrap_or(max), max)
}

/// Like [`read`], as text.
pub fn read_text(path: &Path, max: usize) -> io::Result<Zeroizing<String>> {
    text(&read(path, max)?)
}

/// Reads at most `max` bytes of a file, a pipe or a device that a user names on the command line, such as `<(command)`.
pub fn read_named(path: &Path, max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    whole(File::open(path)?, max, max)
}

/// Like [`read_named`], as text.
pub fn read_named_text(path: &Path, max: usize) -> io::Result<Zeroizing<String>> {
    text(&read_named(path, max)?)
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
        }
        assert_eq!(read_named(Path::new("/dev/zero"), 10).unwrap_err().to_string(), "it has more than 10 bytes");
    }

    #[test]
    fn the_bound_is_inclusive_and_a_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        std::fs::write(&file, "0123456789").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(read_text(&link, 10).unwrap().as_str(), "0123456789");
        assert_eq!(read(&link, 9).unwrap_err().to_string(), "it has more than 9 bytes");
        std::fs::write(&file, b"\xff").unwrap();
        assert_eq!(read_text(&file, 10).unwrap_err().to_string(), "it is not UTF-8 text");
    }
}
