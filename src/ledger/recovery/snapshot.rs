//! Snapshots of the state: files beside the store whose digest is a record in the log. A snapshot file without its record in the log is
//! ignored.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};

use crate::commit::{Hash, sha256};
use crate::state::{LeaseTerms, State, SupportingGrants};
use mayfly_base::system::Stopwatch;
use mayfly_store::stepwise_deletion;
use mayfly_verify::seq::Seq;

/// The format of snapshot files. A snapshot of another format is skipped, and the log is folded from an older snapshot or from its
/// beginning.
const MAGIC: &[u8; 8] = b"mayfly\x11\n";
/// The previous formats, newest first: the first one lacks the static secrets, the second one also the terms of leases, the third one also
/// the facts of ancestors. Nothing else differs, and what they lack stands last, so such a file is read as if nothing of it were known.
const BEFORE: [&[u8; 8]; 3] = [b"mayfly\x10\n", b"mayfly\x0f\n", b"mayfly\x0e\n"];

/// Bytes written between two syncs, so that a large sync does not delay commits.
const PIECE: usize = 1024 * 1024;

/// After each piece the disk is left to commits for as long as the piece took, at most for this long.
const PAUSE: Duration = Duration::from_millis(50);

fn name(seq: Seq) -> String {
    format!("{:016x}.snapshot", seq.as_u64())
}

/// Writes the state to a temporary file, syncs it in pieces and renames it. Returns the digest for the record.
pub fn write(dir: &Path, state: &State) -> io::Result<Hash> {
    fs::create_dir_all(dir)?;
    let aside = dir.join(format!("{}.writing", name(state.head)));
    // An unfinished file is removed at once: on a full disk it would take the room that revocations need.
    let digest = put(state, &aside, &dir.join(name(state.head))).inspect_err(|_| drop(fs::remove_file(&aside)))?;
    File::open(dir)?.sync_all()?;
    Ok(digest)
}

fn put(state: &State, aside: &Path, path: &Path) -> io::Result<Hash> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(aside)?;
    file.write_all(MAGIC)?;
    let mut body = BufWriter::with_capacity(PIECE, Body { file, hash: Context::new(&SHA256) });
    postcard::to_io(state, &mut body).map_err(io::Error::other)?;
    let body = body.into_inner().map_err(io::IntoInnerError::into_error)?;
    body.file.sync_all()?;
    fs::rename(aside, path)?;
    body.hash.finish().as_ref().try_into().map_err(io::Error::other)
}

/// Written, hashed and synced piece by piece, so that a large state is never in memory a second time.
struct Body {
    file: File,
    hash: Context,
}

impl Write for Body {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let watch = Stopwatch::start();
        let written = self.file.write(piece)?;
        self.hash.update(piece.get(..written).unwrap_or_default());
        self.file.sync_data()?;
        // Not after the last piece, which is shorter.
        if written >= PIECE {
            watch.rest(1, PAUSE);
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The snapshots in a directory, newest first. Files that are not snapshots are skipped.
pub fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut found: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
    found.retain(|p| p.extension().is_some_and(|e| e == "snapshot"));
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found)
}

/// The seq of the newest snapshot in a directory, by file name alone: also of a file that can no longer be read.
pub fn newest(dir: &Path) -> Option<Seq> {
    seq_of(&list(dir).ok()?.into_iter().next()?)
}

fn seq_of(path: &Path) -> Option<Seq> {
    Seq::from_u64(u64::from_str_radix(path.file_stem()?.to_str()?, 16).ok()?)
}

/// The path of the snapshot with this last seq.
pub fn path(dir: &Path, seq: Seq) -> PathBuf {
    dir.join(name(seq))
}

/// Copies a snapshot into another directory, durably.
pub fn copy(from: &Path, dir: &Path) -> io::Result<()> {
    let name = from.file_name().ok_or_else(|| io::Error::other("a snapshot without a name"))?;
    fs::create_dir_all(dir)?;
    let to = dir.join(name);
    fs::copy(from, &to)?;
    File::open(&to)?.sync_all()?;
    File::open(dir)?.sync_all()
}

/// The digest of a snapshot file as it is on the disk now. Reads in pieces, with pauses as in writing: retention and backups call this, and
/// commits have priority.
pub fn digest(path: &Path) -> io::Result<Hash> {
    let mut file = File::open(path)?;
    let mut magic = [0; MAGIC.len()];
    file.read_exact(&mut magic)?;
    if magic != *MAGIC && !BEFORE.contains(&&magic) {
        return Err(io::Error::other("not a snapshot of this version"));
    }
    let mut hash = Context::new(&SHA256);
    let mut piece = vec![0; PIECE];
    loop {
        let watch = Stopwatch::start();
        match file.read(&mut piece)? {
            0 => break,
            n => hash.update(piece.get(..n).unwrap_or_default()),
        }
        watch.rest(1, PAUSE);
    }
    hash.finish().as_ref().try_into().map_err(io::Error::other)
}

/// Reads a snapshot, and returns it with the digest that its record must name.
pub fn read(path: &Path) -> io::Result<(State, Hash)> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    let formats = [MAGIC, BEFORE[0], BEFORE[1], BEFORE[2]];
    let format = formats.iter().position(|format| bytes.starts_with(*format));
    let format = format.ok_or_else(|| io::Error::other("not a snapshot of this version"))?;
    let digest = sha256(bytes.get(MAGIC.len()..).unwrap_or_default());
    if format > 2 {
        bytes.extend(postcard::to_stdvec(&SupportingGrants::default()).map_err(io::Error::other)?);
    }
    if format > 1 {
        bytes.extend(postcard::to_stdvec(&LeaseTerms::default()).map_err(io::Error::other)?);
    }
    if format > 0 {
        // An empty map.
        bytes.push(0);
    }
    let body = bytes.get(MAGIC.len()..).unwrap_or_default();
    let (state, rest) = postcard::take_from_bytes(body).map_err(io::Error::other)?;
    // Left-over bytes mean that the file was decoded wrongly.
    if !rest.is_empty() {
        return Err(io::Error::other("not a snapshot of this version"));
    }
    Ok((state, digest))
}

/// Removes the snapshots older than those to keep (named by seq), and unfinished files.
///
/// A snapshot newer than all of those stays: it may contain what the store has lost.
pub fn prune(dir: &Path, stay: &[Seq]) -> io::Result<()> {
    let newest = stay.iter().max();
    for old in list(dir)? {
        if seq_of(&old).is_some_and(|seq| !stay.contains(&seq) && Some(&seq) < newest) {
            stepwise_deletion::rename_for_deletion(&old)?.give_back()?;
        }
    }
    for entry in fs::read_dir(dir)?.flatten() {
        if entry.path().extension().is_some_and(|e| e == "writing") {
            stepwise_deletion::rename_for_deletion(&entry.path())?.give_back()?;
        }
    }
    stepwise_deletion::delete_leftovers(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_ones_go_with_all_that_was_left_half_done() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path();
        let seq = |n| Seq::from_u64(n).unwrap();
        for n in 1..=4 {
            fs::write(path(dir, seq(n)), "a snapshot").unwrap();
        }
        for left in ["0000000000000005.snapshot.writing", "0000000000000000.snapshot.going"] {
            fs::write(dir.join(left), "half of one").unwrap();
        }
        fs::write(dir.join("somebody's"), "").unwrap();
        prune(dir, &[seq(2), seq(3)]).unwrap();
        assert_eq!(list(dir).unwrap(), [4, 3, 2].map(|n| path(dir, seq(n))), "4 has seen what the store may have lost");
        let others: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .filter(|n| !n.to_str().unwrap().ends_with("snapshot"))
            .collect();
        assert_eq!(others, ["somebody's"]);
        prune(dir, &[]).unwrap();
        assert_eq!(list(dir).unwrap().len(), 3, "without a record nothing goes");
    }
}
