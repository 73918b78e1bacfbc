//! Export to a file: one line per record, synced. Log rotation renames the file; the next line is then written to a new file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::{ExportRecord, ExportSink};
use mayfly_base::log_queue::has_room;

/// The destination file.
pub struct FileSink {
    path: PathBuf,
    file: Option<File>,
    /// Whether the last write found the disk full.
    full: bool,
}

impl FileSink {
    /// A destination at this path; a missing file is created.
    pub fn new(path: PathBuf) -> FileSink {
        FileSink { path, file: None, full: false }
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let named = std::fs::metadata(&self.path).map(|m| (m.dev(), m.ino())).ok();
        let same = |file: &File| file.metadata().is_ok_and(|m| named == Some((m.dev(), m.ino())));
        if !self.file.as_ref().is_some_and(same) {
            self.file = Some(open(&self.path)?);
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        if self.full && !has_room(file) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "its disk is full"));
        }
        let before = file.metadata()?.len();
        let written = file.write_all(lines).and_then(|()| file.sync_data());
        self.full = written.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::StorageFull);
        if self.full && file.metadata().is_ok_and(|meta| meta.len() > before) {
            // The same batch is written again later: truncate its partial lines to free their space.
            file.set_len(before)?;
        }
        written
    }
}

impl ExportSink for FileSink {
    fn hand_over(&mut self, batch: &[ExportRecord]) -> io::Result<()> {
        let lines: String = batch.iter().map(|one| format!("{}\n", one.json)).collect();
        self.write(lines.as_bytes()).map_err(|e| {
            // Reopening the file completes a partial line with a line end.
            self.file = None;
            io::Error::new(e.kind(), format!("{}: {e}", self.path.display()))
        })
    }
}

/// Opens for appending, and completes a partial last line with a line end.
fn open(path: &Path) -> io::Result<File> {
    // Opening a pipe would block, and a pipe cannot be synced. The check is made on the opened file.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let open = OpenOptions::new().read(true).append(true).create(true).mode(0o600).custom_flags(nonblocking).open(path);
    let mut file = open?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file: name one under audit.export_file"));
    }
    if file.metadata()?.len() > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    Ok(file)
}
