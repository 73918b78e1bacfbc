//! The destination of a secret: a pipe, or a file that only its owner can read; a terminal only with `--force-terminal`.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;

use crate::error::CliError;
use mayfly_base::atomic_file::{self, PRIVATE};
use mayfly_base::system::System;

/// The destination of a secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SecretSink {
    /// stdout.
    Stdout,
    /// A file, replaced atomically.
    File(PathBuf),
}

impl SecretSink {
    /// Chooses the destination before the server is called, so that no credential is issued that cannot be delivered.
    pub fn decide(to: Option<PathBuf>, stdout_is_terminal: bool, force_terminal: bool) -> Result<SecretSink, CliError> {
        match to {
            Some(path) => match fs::symlink_metadata(&path) {
                Ok(found) if !found.is_file() => Err(CliError::Usage(format!(
                    "--to {}: the path exists and is not a regular file; name a file, or use a pipe",
                    path.display()
                ))),
                _ => Ok(SecretSink::File(path)),
            },
            None if stdout_is_terminal && !force_terminal => Err(CliError::Usage(
                "a credential is not written to a terminal: use a pipe, `--to FILE`, or `--force-terminal`".to_owned(),
            )),
            None => Ok(SecretSink::Stdout),
        }
    }

    /// Writes the secret. A file is created with mode 0600, synced, and then replaces the old file atomically.
    pub fn write(&self, secret: &[u8], system: &System) -> Result<(), CliError> {
        match self {
            SecretSink::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(secret).and_then(|()| stdout.flush()).map_err(|e| match e.kind() {
                    io::ErrorKind::BrokenPipe => CliError::Local("stdout is closed; the credential was not written".to_owned()),
                    _ => CliError::Local(format!("stdout: {e}")),
                })
            }
            SecretSink::File(path) => {
                atomic_file::write(path, secret, PRIVATE, system).map_err(|e| CliError::Local(format!("{}: {e}", path.display())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;

    use super::*;

    #[test]
    fn a_terminal_gets_no_secret_unless_it_is_asked_for() {
        assert!(matches!(SecretSink::decide(None, true, false), Err(CliError::Usage(_))));
        assert_eq!(SecretSink::decide(None, true, true).unwrap(), SecretSink::Stdout);
        assert_eq!(SecretSink::decide(None, false, false).unwrap(), SecretSink::Stdout);
        assert_eq!(SecretSink::decide(Some("x".into()), true, false).unwrap(), SecretSink::File("x".into()));
    }

    #[test]
    fn what_is_no_regular_file_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        symlink("/dev/stdout", &link).unwrap();
        for path in [folder.path(), Path::new("/dev/null"), &link] {
            assert!(
                matches!(SecretSink::decide(Some(path.to_owned()), false, false), Err(CliError::Usage(_))),
                "{}",
                path.display()
            );
        }
    }

    #[test]
    fn a_file_is_its_owners_alone_and_replaces_the_old_one_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "old, and longer than the new one").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let held_open = File::open(&path).unwrap();
        SecretSink::File(path.clone()).write(b"new", &System::real()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        // A process that has the old file open does not get the new secret.
        assert_eq!(io::read_to_string(held_open).unwrap(), "old, and longer than the new one");
    }

    #[test]
    fn nothing_is_left_behind_where_the_target_cannot_be_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("there");
        fs::create_dir(&path).unwrap();
        assert!(SecretSink::File(path).write(b"new", &System::real()).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
