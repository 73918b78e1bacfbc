//! The file of the sealing key: where it may lie, who may read it, and what it contains.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use super::SealingKey;
use mayfly_base::document::remedy::{Remedy, shell_quoted};
use mayfly_base::file_path::directory_of;
use mayfly_base::limits;

/// Why a file is not accepted as the sealing key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file does not exist.
    #[error("there is no sealing key at {}", .0.display())]
    Missing(PathBuf),
    /// The file lies in the data directory that it protects.
    #[error(
        "the sealing key {} lies inside the data directory {}, so whoever copies the data has the key",
        key.display(), data.display()
    )]
    InsideData {
        /// The path of the key, links resolved.
        key: PathBuf,
        /// The data directory, links resolved.
        data: PathBuf,
    },
    /// Other users may read the file.
    #[error("the sealing key {} may be read by others (mode {mode:03o})", path.display())]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// The permission bits.
        mode: u32,
    },
    /// A directory, a pipe, or a device.
    #[error("the sealing key {} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// Not 32 bytes in any of the accepted forms.
    #[error(
        "the sealing key {} holds {found}; it must hold 32 random bytes, raw, in hex (64 characters) or in base64 (44)",
        path.display()
    )]
    WrongSize {
        /// The file.
        path: PathBuf,
        /// The content that was found, by size and form.
        found: String,
    },
    /// All bytes are the same, for example a file of zeros.
    #[error("the sealing key {} is one byte repeated", .0.display())]
    NotRandom(PathBuf),
    /// The file could not be read.
    #[error("reading the sealing key {}: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        why: io::Error,
    },
}

impl KeyFileError {
    /// Commands that fix the problem. A store that is in use needs its own key back: another key opens nothing.
    pub fn remedies(&self) -> Vec<Remedy> {
        let new = |path: &Path| {
            let key = shell_quoted(path);
            vec![
                Remedy::new("for a store that is in use, put its key back", format!("install -m 600 BACKUP-OF-THE-KEY {key}")),
                Remedy::new(
                    "for a new store make one, and keep a copy elsewhere",
                    format!("(umask 077 && head -c 32 /dev/urandom > {key})"),
                ),
            ]
        };
        match self {
            KeyFileError::Missing(path) | KeyFileError::WrongSize { path, .. } | KeyFileError::NotRandom(path) => new(path),
            KeyFileError::NotAFile(path) => {
                let mut beside = path.as_os_str().to_owned();
                beside.push(".key");
                let mut remedies = new(Path::new(&beside));
                remedies.iter_mut().for_each(|r| r.what.push_str(", and name it in the configuration"));
                remedies
            }
            KeyFileError::InsideData { key, data } => {
                let above = directory_of(data);
                let what = "to move it out, and name the new place in the configuration";
                vec![Remedy::new(what, format!("mv {} {}", shell_quoted(key), shell_quoted(above)))]
            }
            KeyFileError::OpenToOthers { path, .. } => {
                vec![Remedy::new("to mend it", format!("chmod 600 {}", shell_quoted(path)))]
            }
            KeyFileError::Unreadable { path, .. } => {
                let uid = rustix::process::geteuid().as_raw();
                let (shown, mine) = (shell_quoted(path), format!("chown {uid} {}", shell_quoted(path)));
                vec![
                    Remedy::new("who may read it", format!("ls -l {shown}")),
                    Remedy::new("to give it to the server's user, as root", mine),
                ]
            }
        }
    }
}

impl SealingKey {
    /// Loads the key from a file that only the server's user may read, outside the data directory.
    pub fn load(path: &Path, data_dir: &Path) -> Result<SealingKey, KeyFileError> {
        load(path, data_dir, 0o077)
    }

    /// Loads the key from a systemd credential: `dir` is the value of `$CREDENTIALS_DIRECTORY`, `name` the credential's name.
    ///
    /// For a service with `User=`, systemd grants access by an access list, which shows as a read permission of the group; the directory
    /// itself is closed to all others.
    pub fn load_credential(dir: &Path, name: &str, data_dir: &Path) -> Result<SealingKey, KeyFileError> {
        load(&dir.join(name), data_dir, 0o037)
    }
}

fn load(path: &Path, data_dir: &Path, closed: u32) -> Result<SealingKey, KeyFileError> {
    let unreadable = |why: io::Error| match why.kind() {
        io::ErrorKind::NotFound => KeyFileError::Missing(path.to_owned()),
        _ => KeyFileError::Unreadable { path: path.to_owned(), why },
    };
    let key = path.canonicalize().map_err(unreadable)?;
    // If the data directory does not exist yet, its existing parent decides where it will be.
    let data = resolve(data_dir).map_err(unreadable)?;
    if key.starts_with(&data) {
        return Err(KeyFileError::InsideData { key, data });
    }
    // Non-blocking, because opening a pipe would wait for a writer. The checks are done on the opened file.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(&key).map_err(unreadable)?;
    let meta = file.metadata().map_err(unreadable)?;
    if !meta.is_file() {
        return Err(KeyFileError::NotAFile(path.to_owned()));
    }
    if meta.mode() & closed != 0 {
        return Err(KeyFileError::OpenToOthers { path: path.to_owned(), mode: meta.mode() & 0o777 });
    }
    // One allocation of the largest size, so that growing leaves no copy behind.
    let mut text = Zeroizing::new(Vec::with_capacity(limits::SEALING_KEY_FILE_BYTES + 1));
    file.take(limits::SEALING_KEY_FILE_BYTES as u64 + 1).read_to_end(&mut text).map_err(unreadable)?;
    let bytes = decode(&text).map_err(|found| KeyFileError::WrongSize { path: path.to_owned(), found })?;
    if bytes.iter().all(|b| *b == bytes[0]) {
        return Err(KeyFileError::NotRandom(path.to_owned()));
    }
    let no_key = || KeyFileError::WrongSize { path: path.to_owned(), found: "no key".to_owned() };
    SealingKey::from_bytes(&bytes).ok_or_else(no_key)
}

/// Resolves links as far as the path exists; the rest stays as written.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    match path.canonicalize() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => match path.file_name() {
            Some(name) => Ok(resolve(directory_of(path))?.join(name)),
            None => Err(e),
        },
        done => done,
    }
}

/// 32 bytes raw, in hex, or in base64 of either alphabet; or a description of what was found instead. The size tells the forms apart.
fn decode(text: &[u8]) -> Result<Zeroizing<[u8; 32]>, String> {
    let mut out = Zeroizing::new([0u8; 32]);
    if text.len() == 32 {
        out.copy_from_slice(text);
        return Ok(out);
    }
    let line = text.trim_ascii();
    let mut room = Zeroizing::new([0u8; 48]);
    let decoded = match line.len() {
        64 => data_encoding::HEXLOWER_PERMISSIVE.decode_mut(line, &mut room[..32]).ok(),
        44 => [STANDARD, URL_SAFE].iter().find_map(|e| e.decode_slice(line, &mut room[..]).ok()),
        43 => [STANDARD_NO_PAD, URL_SAFE_NO_PAD].iter().find_map(|e| e.decode_slice(line, &mut room[..]).ok()),
        _ => None,
    };
    match decoded {
        Some(32) => {
            out.copy_from_slice(&room[..32]);
            Ok(out)
        }
        _ if text.len() > limits::SEALING_KEY_FILE_BYTES => Err(format!("more than {} bytes", limits::SEALING_KEY_FILE_BYTES)),
        _ => Err(format!("{} bytes that are none of these", text.len())),
    }
}
