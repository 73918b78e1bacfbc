//! One file that somebody else replaces, read whole and bounded.

use std::io::Read;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::document::command::typed;

/// What is wrong with a file, and what mends it. Never holds the file's contents.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}: {what}; {remedy}", path.display())]
pub struct FileProblem {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
    /// What mends it.
    pub remedy: String,
}

impl FileProblem {
    /// A problem with its remedy.
    pub fn new(path: &Path, what: impl ToString, remedy: &str) -> FileProblem {
        FileProblem { path: path.to_owned(), what: what.to_string(), remedy: remedy.to_owned() }
    }
}

/// SHA-256 of what was read, to see a change.
pub(super) type ContentDigest = [u8; 32];

/// The whole file, at most `max` bytes; wiped from memory when dropped. A symbolic link is followed at each read, as Kubernetes swaps them.
pub(super) fn read(path: &Path, max: usize) -> Result<(Zeroizing<Vec<u8>>, ContentDigest), FileProblem> {
    let cannot = |e: std::io::Error| {
        let remedy = format!("check the path and who may read it: ls -l {}", typed(path));
        FileProblem::new(path, format!("cannot be read: {e}"), &remedy)
    };
    let file = std::fs::File::open(path).map_err(cannot)?;
    // Room for all at once: growing would leave copies of a key behind.
    let expected = file.metadata().map_or(max, |m| usize::try_from(m.len()).unwrap_or(max)).min(max);
    let mut bytes = Zeroizing::new(Vec::with_capacity(expected + 4096));
    file.take(max as u64 + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() > max {
        return Err(FileProblem::new(path, format!("has more than {max} bytes"), "check that this is the right file"));
    }
    let digest = crate::identity::sha256(&bytes);
    Ok((bytes, digest))
}
