//! Commands that are suggested to fix a problem.

use std::fmt;
use std::path::Path;

/// A fix, with the command for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remedy {
    /// What the command does, in words.
    pub what: String,
    /// The command to run.
    pub command: String,
}

impl Remedy {
    /// A fix with its command.
    pub fn new(what: impl Into<String>, command: impl Into<String>) -> Remedy {
        Remedy { what: what.into(), command: command.into() }
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.command)
    }
}

/// A path as it is written in a command: quoted for the shell if needed.
pub fn shell_quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "._/:@%+,-".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// Directories that other users need: restricting one of them would break the host.
const SHARED: &[&str] = &[
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/lib",
    "/lib64",
    "/media",
    "/mnt",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/run/lock",
    "/run/user",
    "/sbin",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/usr/bin",
    "/usr/lib",
    "/usr/local",
    "/var",
    "/var/cache",
    "/var/lib",
    "/var/log",
    "/var/run",
    "/var/spool",
    "/var/tmp",
];

/// The command that restricts a directory, or that makes a new directory inside it if the directory is shared with others. `mode`: the
/// required permissions; `uid`: the owner.
pub fn restrict_directory(dir: &Path, mode: u32, uid: u32, key: &str) -> Remedy {
    let real = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    if !SHARED.iter().any(|shared| Path::new(shared) == real) {
        return Remedy::new("to mend it", format!("chmod {mode:o} {}", shell_quoted(dir)));
    }
    let own = dir.join("mayfly");
    Remedy::new(
        format!("others need that directory; name one of its own under {key}, made with"),
        format!("install -d -m {mode:o} -o {uid} {}", shell_quoted(&own)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_can_be_typed_as_it_is_printed() {
        for (path, text) in [
            ("/etc/mayfly/mayfly.toml", "/etc/mayfly/mayfly.toml"),
            ("my files/m.toml", "'my files/m.toml'"),
            ("it's; rm -r $HOME", r"'it'\''s; rm -r $HOME'"),
            ("", "''"),
        ] {
            assert_eq!(shell_quoted(Path::new(path)), text);
            let out =
                std::process::Command::new("sh").arg("-c").arg(format!("printf %s {}", shell_quoted(Path::new(path)))).output();
            assert_eq!(String::from_utf8(out.unwrap().stdout).unwrap(), path);
        }
    }

    #[test]
    fn a_directory_that_everybody_uses_is_never_closed() {
        for dir in ["/", "/run", "/tmp", "/var/lib", "/var/lib/"] {
            let remedy = restrict_directory(Path::new(dir), 0o700, 990, "store.path");
            assert!(remedy.command.starts_with("install -d -m 700 -o 990 /"), "{remedy}");
            assert!(remedy.command.ends_with("/mayfly"), "{remedy}");
        }
        assert_eq!(restrict_directory(Path::new("/var/lib/mayfly"), 0o700, 990, "x").command, "chmod 700 /var/lib/mayfly");
    }
}
