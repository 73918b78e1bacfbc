//! Reads a file that another program may replace: completely, and within a size limit.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use zeroize::Zeroizing;

use mayfly_base::bounded_file;
use mayfly_base::document::remedy::shell_quoted;

/// A problem of a file, and its remedy. Never contains the file's contents.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}: {what}; {remedy}", path.display())]
pub struct FileProblem {
    /// The file.
    pub path: PathBuf,
    /// The problem.
    pub what: String,
    /// The remedy.
    pub remedy: String,
}

impl FileProblem {
    /// A problem with its remedy.
    pub fn new(path: &Path, what: impl ToString, remedy: &str) -> FileProblem {
        FileProblem { path: path.to_owned(), what: what.to_string(), remedy: remedy.to_owned() }
    }
}

/// Refuses a secret that other users may read or replace. A file of the server's own user must be readable by that user alone. A file of
/// another user, such as a Secret that a kubelet mounts, may be readable by a group, through which the server reads it, and by nobody else.
pub(super) fn closed_to_others(path: &Path) -> Result<(), FileProblem> {
    let found = std::fs::metadata(path).map_err(|e| FileProblem::new(path, e, &format!("ls -l {}", shell_quoted(path))))?;
    let ours = found.uid() == rustix::process::geteuid().as_raw();
    let (open, mend) = if ours { (0o077, "600") } else { (0o037, "g-wx,o=") };
    if found.mode() & open == 0 {
        return Ok(());
    }
    Err(FileProblem::new(path, "may be read by others or replaced by them", &format!("chmod {mend} {}", shell_quoted(path))))
}

/// The times at which files are read again: after a pause, and at once on request.
#[derive(Clone)]
pub struct PollSchedule {
    every: Duration,
    asked: Option<watch::Receiver<u64>>,
}

impl PollSchedule {
    /// Polls at the interval `every`, and whenever the number in `asked` changes.
    pub fn new(every: Duration, asked: watch::Receiver<u64>) -> PollSchedule {
        PollSchedule { every, asked: Some(asked) }
    }

    /// Waits until the next poll is due.
    pub async fn next(&mut self) {
        let Some(asked) = &mut self.asked else { return tokio::time::sleep(self.every).await };
        tokio::select! {
            () = tokio::time::sleep(self.every) => {}
            changed = asked.changed() => {
                // The sender is gone, so no more requests arrive.
                if changed.is_err() {
                    self.asked = None;
                    tokio::time::sleep(self.every).await;
                }
            }
        }
    }
}

impl From<Duration> for PollSchedule {
    fn from(every: Duration) -> PollSchedule {
        PollSchedule { every, asked: None }
    }
}

/// SHA-256 of the contents, to detect a change.
pub(super) type ContentDigest = [u8; 32];

/// Reads the whole file, at most `max` bytes. The contents are wiped from memory when dropped. A symbolic link is followed at each read,
/// since Kubernetes replaces such links.
pub(super) fn read(path: &Path, max: usize) -> Result<(Zeroizing<Vec<u8>>, ContentDigest), FileProblem> {
    let cannot = |e: std::io::Error| {
        let remedy = match e.kind() {
            ErrorKind::FileTooLarge => "check that this is the right file".to_owned(),
            _ => format!("check the path and who may read it: ls -l {}", shell_quoted(path)),
        };
        FileProblem::new(path, format!("cannot be read: {e}"), &remedy)
    };
    let bytes = bounded_file::read(path, max).map_err(cannot)?;
    let digest = mayfly_identity::sha256(&bytes);
    Ok((bytes, digest))
}
