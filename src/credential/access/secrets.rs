//! The secrets by which mayfly itself logs in at upstreams: one file for each upstream, in the directory `upstreams.secrets_dir`.
//!
//! ```toml
//! # /etc/mayfly/upstreams/orders.toml
//! target = "postgres://db.example.org"
//! password = 'the password of the role mayfly'
//! ```
//!
//! A registration never names a file: the file of an upstream is `NAME.toml`, so an operator's registration cannot make the server read
//! another file. The file names the one target that its secrets may be sent to, so a registration that is changed to another host, or a new
//! one of the same name, cannot get the secret sent there: mayfly compares scheme, host and port before it connects. Whoever may write the
//! directory decides where a secret goes, and nobody else.
//!
//! The file is read at each use, so a changed password is in effect at once. Beside it, `NAME.pem` may hold the roots that verify the
//! upstream.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use zeroize::{Zeroize, Zeroizing};

use super::UpstreamAccess;
use mayfly_base::bounded_file;
use mayfly_base::document::remedy::shell_quoted;
use mayfly_base::document::{Document, SourceFile};
use mayfly_base::limits;
use mayfly_ledger::upstream::target::target_url;

/// Why a secret is not available. Never contains the contents of the file.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The configuration names no directory.
    #[error("upstreams.secrets_dir is not set in the server's configuration, so there is no place for mayfly's own secrets")]
    NoDirectory,
    /// The name of the upstream cannot be the name of a file.
    #[error("upstream {0:?} cannot have a file of its own: its name has a slash")]
    NoFileName(String),
    /// The file cannot be read.
    #[error("{}: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        why: io::Error,
    },
    /// The permissions let other users read or replace the file.
    #[error("{} may be read or replaced by others (mode {mode:03o}); {remedy}", path.display())]
    OpenToOthers {
        /// The file or its directory.
        path: PathBuf,
        /// The permission bits.
        mode: u32,
        /// The command that mends it.
        remedy: String,
    },
    /// The contents are not as required.
    #[error("{}: {what}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The defect, without a value of the file.
        what: String,
    },
    /// The file is for another target.
    #[error("{} is for {bound}, and the registration names {asked}: the secret is not sent there", path.display())]
    OtherTarget {
        /// The file.
        path: PathBuf,
        /// The target in the file.
        bound: String,
        /// The target of the registration.
        asked: String,
    },
}

/// The text of a file, wiped when it is dropped.
struct WipedSource(SourceFile);

impl Drop for WipedSource {
    fn drop(&mut self) {
        self.0.text.zeroize();
    }
}

impl UpstreamAccess {
    /// Reads the secret `key` of an upstream, for use at `target`, the registration's.
    pub fn secret(&self, upstream: &str, target: &str, key: &str) -> Result<Zeroizing<String>, SecretError> {
        let mut all = self.secrets(upstream, target, &[key], &[])?;
        // There is one value for each key.
        Ok(all.pop().unwrap_or_default())
    }

    /// As [`UpstreamAccess::secret`], for a file with several secrets: one value for each key, in order. `others`: keys that the file may have
    /// besides, and that are not read.
    pub fn secrets(
        &self,
        upstream: &str,
        target: &str,
        keys: &[&str],
        others: &[&str],
    ) -> Result<Vec<Zeroizing<String>>, SecretError> {
        self.values(upstream, target, keys, others).map(|(secrets, _)| secrets)
    }

    /// The static secret of an upstream: the value of `secret`, or the contents of the file that `secret_file` names, without a line break at
    /// their end.
    pub fn static_secret(&self, upstream: &str, target: &str) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let (_, found) = self.values(upstream, target, &[], &["secret", "secret_file"])?;
        let wrong = |what: &str| {
            let what = format!("{what}: it needs either secret or secret_file, a text in single quotes");
            self.file(upstream, "toml").map(|path| SecretError::Wrong { path, what }).unwrap_or_else(|no| no)
        };
        match &found[..] {
            [Some(secret), None] => Ok(Zeroizing::new(secret.as_bytes().to_vec())),
            [None, Some(path)] => {
                let path = Path::new(path.as_str());
                if !path.is_absolute() {
                    return Err(wrong("secret_file is no absolute path"));
                }
                let mut bytes = read(path, limits::STATIC_SECRET_BYTES + 2)?;
                for end in [b'\n', b'\r'] {
                    let _ = bytes.pop_if(|last| *last == end);
                }
                Ok(bytes)
            }
            [Some(_), Some(_)] => Err(wrong("has both secret and secret_file")),
            _ => Err(wrong("has neither secret nor secret_file")),
        }
    }

    /// The values of `keys`, which the file must have, and of `others`, which it may have.
    #[expect(clippy::type_complexity, reason = "two lists, in the order of the two lists of keys")]
    fn values(
        &self,
        upstream: &str,
        target: &str,
        keys: &[&str],
        others: &[&str],
    ) -> Result<(Vec<Zeroizing<String>>, Vec<Option<Zeroizing<String>>>), SecretError> {
        let path = self.file(upstream, "toml")?;
        let text = read(&path, limits::UPSTREAM_SECRET_FILE_BYTES)?;
        let wrong = |what: &str| SecretError::Wrong { path: path.clone(), what: what.to_owned() };
        let text = std::str::from_utf8(&text).map_err(|_| wrong("is not UTF-8 text"))?;
        let source = WipedSource(SourceFile::new(path.display().to_string(), text));
        // A complaint could quote a part of the file, so only the keys and lines that are wrong are told.
        let told = |complaints: Vec<mayfly_base::document::Diagnostic>| {
            let lines = complaints.iter().map(|c| match c.keys.is_empty() {
                true => format!("line {}", c.line),
                false => c.keys.join(", "),
            });
            wrong(&format!(
                "it needs the keys {}, as texts in single quotes (three for a text of several lines); wrong is: {}",
                [&["target"], keys].concat().join(" and "),
                lines.collect::<Vec<_>>().join("; ")
            ))
        };
        let document = Document::parse(&source.0).map_err(told)?;
        let root = document.root();
        let bound = root.required("target").and_then(|f| f.text(limits::NAME_BYTES * 4));
        let read = |key: &&str| root.required(key).and_then(|f| f.lines(limits::UPSTREAM_SECRET_BYTES)).map(Zeroizing::new);
        let all: Vec<Option<Zeroizing<String>>> = keys.iter().map(read).collect();
        let secrets: Option<Vec<Zeroizing<String>>> = all.into_iter().collect();
        let text = |field: mayfly_base::document::Field<'_>| field.lines(limits::UPSTREAM_SECRET_BYTES).map(Zeroizing::new);
        let others = others.iter().map(|key| root.optional(key).and_then(text)).collect();
        root.finish();
        let (bound, secrets) = document.finish(bound.zip(secrets)).map_err(told)?;
        let origin = |url: &str| target_url(url).and_then(|url| origin(&url).map(str::to_owned));
        match origin(&bound) {
            None => Err(wrong("target is no URL with scheme and host")),
            bound if bound == origin(target) => Ok((secrets, others)),
            bound => Err(SecretError::OtherTarget { path, bound: bound.unwrap_or_default(), asked: target.to_owned() }),
        }
    }

    /// The roots of an upstream in PEM; `None` if it has no file for them.
    pub fn roots(&self, upstream: &str) -> Result<Option<String>, SecretError> {
        let path = match self.file(upstream, "pem") {
            // Without a directory, the system's roots verify every upstream.
            Err(SecretError::NoDirectory) => return Ok(None),
            path => path?,
        };
        match bounded_file::read_text(&path, limits::UPSTREAM_ROOTS_FILE_BYTES) {
            Ok(text) => Ok(Some(text.to_string())),
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(why) => Err(SecretError::Unreadable { path, why }),
        }
    }

    /// The path of a file of an upstream, in a directory that other users cannot write.
    fn file(&self, upstream: &str, extension: &str) -> Result<PathBuf, SecretError> {
        let directory = self.secrets_dir()?;
        if !is_file_name(upstream) {
            return Err(SecretError::NoFileName(upstream.to_owned()));
        }
        let found = std::fs::metadata(directory).map_err(|why| SecretError::Unreadable { path: directory.to_owned(), why })?;
        // A user who may write the directory may replace the files, and with them the target and the roots. The sticky bit does not prevent new files.
        if found.mode() & 0o022 != 0 {
            let remedy = format!("chmod go-w {}", shell_quoted(directory));
            return Err(SecretError::OpenToOthers { path: directory.to_owned(), mode: found.mode() & 0o777, remedy });
        }
        Ok(directory.join(format!("{upstream}.{extension}")))
    }
}

/// Reads a file that other users cannot read.
fn read(path: &Path, max: usize) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let unreadable = |why| SecretError::Unreadable { path: path.to_owned(), why };
    let (bytes, found) = bounded_file::read_with_metadata(path, max).map_err(unreadable)?;
    closed_to_others(path, &found)?;
    Ok(bytes)
}

/// A file of the server's own user must be readable by that user alone. A file of another user, such as a Secret that a kubelet mounts, may
/// be readable by a group, through which the server reads it, and by nobody else.
fn closed_to_others(path: &Path, found: &Metadata) -> Result<(), SecretError> {
    let ours = found.uid() == rustix::process::geteuid().as_raw();
    let (open, mend) = if ours { (0o077, "600") } else { (0o037, "g-wx,o=") };
    if found.mode() & open == 0 {
        return Ok(());
    }
    let remedy = format!("chmod {mend} {}", shell_quoted(path));
    Err(SecretError::OpenToOthers { path: path.to_owned(), mode: found.mode() & 0o777, remedy })
}

/// Whether the name of an upstream can be the name of a file. Names begin with a letter or digit, so a slash is the only danger.
pub fn is_file_name(upstream: &str) -> bool {
    mayfly_base::document::is_name(upstream) && !upstream.contains('/')
}

/// Scheme, host and port of a URL in normal form.
fn origin(url: &str) -> Option<&str> {
    let rest = url.find("://")? + 3;
    let end = url.get(rest..)?.find('/').map_or(url.len(), |at| rest + at);
    url.get(..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mayfly_base::system::System;
    use std::os::unix::fs::PermissionsExt as _;

    fn chmod(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn write(path: &Path, text: &str) {
        std::fs::write(path, text).unwrap();
        chmod(path, 0o600);
    }

    #[test]
    fn a_secret_is_read_for_its_own_target_only() {
        let dir = tempfile::tempdir().unwrap();
        chmod(dir.path(), 0o700);
        let access = UpstreamAccess::new(Some(dir.path().to_owned()), System::real());
        let file = dir.path().join("orders.toml");
        let read = |target: &str| access.secret("orders", target, "password").map(|s| s.to_string()).map_err(|e| e.to_string());
        assert!(read("postgres://db.example/orders").unwrap_err().contains("orders.toml"), "there is no file");
        write(&file, "target = 'postgres://DB.example:5432'\npassword = 'pa55'\n");
        assert_eq!(read("postgres://db.example/orders").unwrap(), "pa55");
        for other in ["postgres://evil.example/orders", "postgres://db.example:6432/orders", "mysql://db.example/orders"] {
            let no = read(other).unwrap_err();
            assert!(no.contains("is not sent there") && !no.contains("pa55"), "{no}");
        }
        for wrong in [
            "password = 'pa55'",
            "target = 'postgres://db.example'\npasword = 'pa55'",
            "password = pa55",
            "target = 5\npassword = 'pa55'",
        ] {
            write(&file, wrong);
            let no = read("postgres://db.example/orders").unwrap_err();
            assert!(!no.contains("pa55"), "{no}");
        }
    }

    #[test]
    fn a_static_secret_is_in_the_file_or_in_the_file_that_it_names() {
        let dir = tempfile::tempdir().unwrap();
        chmod(dir.path(), 0o700);
        let access = UpstreamAccess::new(Some(dir.path().to_owned()), System::real());
        let file = dir.path().join("sentry.toml");
        let read = |target: &str| access.static_secret("sentry", target).map(|s| s.to_vec()).map_err(|e| e.to_string());
        let target = "https://sentry.example/api";
        write(&file, "target = 'https://sentry.example'\nsecret = 'a-key'\n");
        assert_eq!(read(target).unwrap(), b"a-key");
        assert!(read("https://evil.example/api").unwrap_err().contains("is not sent there"));
        let other = dir.path().join("mounted");
        write(&file, &format!("target = 'https://sentry.example'\nsecret_file = '{}'\n", other.display()));
        assert!(read(target).unwrap_err().contains("mounted"), "it is not there");
        for (text, found) in [("a-key\n", "a-key"), ("a-key\r\n", "a-key"), ("a\nkey\n\n", "a\nkey\n"), ("", "")] {
            write(&other, text);
            assert_eq!(read(target).unwrap(), found.as_bytes(), "{text:?}");
        }
        assert!(read("https://evil.example/api").unwrap_err().contains("is not sent there"));
        chmod(&other, 0o644);
        assert!(read(target).unwrap_err().contains("chmod 600"));
        for (text, said) in [
            ("secret = 'a-key'\nsecret_file = '/run/key'", "both"),
            ("", "neither"),
            ("secret_file = 'run/key'", "no absolute path"),
            ("secret = 5", "wrong is: secret"),
        ] {
            write(&file, &format!("target = 'https://sentry.example'\n{text}\n"));
            let no = read(target).unwrap_err();
            assert!(no.contains(said) && !no.contains("a-key"), "{no}");
        }
    }

    #[test]
    fn what_others_may_read_or_replace_is_refused_and_no_other_file_is_reached() {
        let dir = tempfile::tempdir().unwrap();
        chmod(dir.path(), 0o700);
        let inside = dir.path().join("upstreams");
        std::fs::create_dir(&inside).unwrap();
        chmod(&inside, 0o700);
        let access = UpstreamAccess::new(Some(inside.clone()), System::real());
        let text = "target = 'postgres://db.example'\npassword = 'pa55'\n";
        write(&dir.path().join("outside.toml"), text);
        write(&inside.join("orders.toml"), text);
        let read = |name: &str| access.secret(name, "postgres://db.example/orders", "password");
        assert!(read("orders").is_ok());
        for name in ["../outside", "a/../../outside", "", ".orders"] {
            assert!(matches!(read(name), Err(SecretError::NoFileName(_))), "{name}");
        }
        chmod(&inside.join("orders.toml"), 0o640);
        assert!(matches!(read("orders"), Err(SecretError::OpenToOthers { .. })));
        chmod(&inside.join("orders.toml"), 0o600);
        chmod(&inside, 0o770);
        assert!(matches!(read("orders"), Err(SecretError::OpenToOthers { .. })));
        assert!(matches!(access.roots("orders"), Err(SecretError::OpenToOthers { .. })));
        let none = UpstreamAccess::new(None, System::real());
        assert!(matches!(none.secret("orders", "postgres://db.example", "password"), Err(SecretError::NoDirectory)));
        assert_eq!(none.roots("orders").unwrap(), None);
    }
}
