//! Files of a dev world: private, and replaced atomically.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use zeroize::Zeroizing;

use super::world::DevWorldError;
use mayfly_base::bounded_file;
use mayfly_base::limits;
use mayfly_base::system::System;

fn failed(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> DevWorldError {
    let path = path.to_owned();
    move |error| DevWorldError::Io { what, path, error }
}

/// Creates a directory that only its owner can enter.
pub(super) fn private_dir(path: &Path) -> Result<(), DevWorldError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("making", path))
}

/// The end of a temporary file's name.
pub(super) const TEMPORARY: &str = ".new";

/// Writes a file with mode 0600: to a temporary file that is then renamed, so that a reader gets either the old or the new content. The
/// temporary name is random: the server, `dev up` and `dev svid` may write the same file at the same time. Unlike
/// [`atomic_file`](mayfly_base::atomic_file), it does not wait for the disk: a dev world can be made anew.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), DevWorldError> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{}{TEMPORARY}", data_encoding::HEXLOWER.encode(&System::real().random16())));
    let aside = Path::new(&aside);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(aside).map_err(failed("making", aside))?;
    let written = file.write_all(bytes).map_err(failed("writing", aside));
    written.and_then(|()| fs::rename(aside, path).map_err(failed("naming", path))).inspect_err(|_| drop(fs::remove_file(aside)))
}

/// Writes a private file, unless it exists.
pub(super) fn write_once(path: &Path, bytes: &[u8]) -> Result<(), DevWorldError> {
    if path.exists() { Ok(()) } else { write_private(path, bytes) }
}

/// Reads a text file. The largest is the trust bundle, to which a user may have added roots.
pub(super) fn read(path: &Path) -> Result<Zeroizing<String>, DevWorldError> {
    bounded_file::read_text(path, limits::BUNDLE_BYTES).map_err(failed("reading", path))
}
