//! Why a server does not start. Each says what mends it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::document::Complaint;
use crate::ledger::StartError;
use crate::refusal::{Fault, No};
use crate::sealing::{KeyFileError, SealError};
use crate::seq::Seq;
use crate::serve::unix::NoSocket;
use crate::sources::files::FileProblem;
use crate::store::StoreError;

/// Why a server does not start.
#[derive(Debug)]
pub enum StartProblem {
    /// The configuration is wrong.
    Config(Vec<Complaint>),
    /// Certificates, keys or bundles.
    Files(Vec<FileProblem>),
    /// Policies, roles or registrations, where a first start has to take them in.
    Policy(Vec<Complaint>),
    /// The sealing key's file.
    KeyFile(KeyFileError),
    /// `seal.credential` without systemd.
    NoCredentials(String),
    /// The sealing key is not that of the store.
    Seal {
        /// What is wrong.
        error: SealError,
        /// Where the key came from.
        key: String,
    },
    /// The store, or the ledger in it.
    Ledger {
        /// What is wrong.
        error: StartError,
        /// The configuration file, for the command that mends it.
        config: String,
        /// The data directory.
        data: Option<PathBuf>,
    },
    /// The private part of a key that the ledger names is not in the store, or cannot be opened.
    Keys {
        /// Which, and why.
        fault: Fault,
        /// The configuration file, for the command that mends it.
        config: String,
        /// The data directory.
        data: Option<PathBuf>,
    },
    /// A port.
    Port {
        /// `listen.workload`, …
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// The operators' socket.
    Socket(NoSocket),
    /// A first record was refused.
    Refused {
        /// What was to be recorded.
        what: String,
        /// Why it was not.
        no: Box<No>,
    },
    /// TLS could not be set up, or a thread not be started.
    System(String),
}

impl StartProblem {
    /// 2 for a configuration that is wrong, 1 for all else.
    pub fn exit_code(&self) -> u8 {
        if matches!(self, StartProblem::Config(_)) { 2 } else { 1 }
    }
}

fn lines<T: fmt::Display>(f: &mut fmt::Formatter<'_>, all: &[T]) -> fmt::Result {
    for (n, one) in all.iter().enumerate() {
        if n > 0 {
            f.write_str("\n")?;
        }
        write!(f, "{one}")?;
    }
    Ok(())
}

impl fmt::Display for StartProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartProblem::Config(wrong) | StartProblem::Policy(wrong) => lines(f, wrong),
            StartProblem::Files(wrong) => lines(f, wrong),
            StartProblem::KeyFile(error) => error.fmt(f),
            StartProblem::NoCredentials(name) => write!(
                f,
                "seal.credential is {name}, but systemd gave this process no credentials\n  \
                 to mend it, in the unit: LoadCredential={name}:/etc/mayfly/seal.key; or name a file under seal.key_file"
            ),
            StartProblem::Seal { error, key } => {
                let remedy = match error {
                    SealError::WrongKey => format!("put the key of this store back: install -m 600 BACKUP-OF-THE-KEY {key}"),
                    _ => "put the data directory back from a backup: cp -a BACKUP DATA-DIRECTORY".to_owned(),
                };
                write!(f, "{error}\n  {remedy}")
            }
            StartProblem::Keys { fault, config, data } => keys(f, fault, config, data.as_ref()),
            StartProblem::Ledger { error, config, data } => ledger(f, error, config, data.as_ref()),
            StartProblem::Port { key, address, error } => write!(
                f,
                "{key}: {address}: {error}\n  who has the port: ss -ltnp 'sport = :{}'; or name another one",
                address.port()
            ),
            StartProblem::Socket(no) => no.fmt(f),
            StartProblem::Refused { what, no } => {
                write!(
                    f,
                    "{what} could not be recorded: {no}\n  nothing was lost; start again, and look at: mayfly server validate"
                )
            }
            StartProblem::System(what) => f.write_str(what),
        }
    }
}

/// No command makes a private part again. A copy has it, and what was put back goes on in a new generation.
fn keys(f: &mut fmt::Formatter<'_>, fault: &Fault, config: &str, data: Option<&PathBuf>) -> fmt::Result {
    let shown = data.map_or_else(|| "the data directory".to_owned(), |d| d.display().to_string());
    write!(
        f,
        "{fault}\n  with a backup of the data directory: mv {shown} {shown}.old && cp -a BACKUP {shown} && \
         mayfly server recover --config {config} --after {}\n  \
         without one, begin anew with an empty ledger: mv {shown} {shown}.old",
        Seq::LAST
    )
}

/// The ledger's own text names the command; a second line says for which configuration, so that it can be typed as it stands.
fn ledger(f: &mut fmt::Formatter<'_>, error: &StartError, config: &str, data: Option<&PathBuf>) -> fmt::Result {
    let shown = data.map_or_else(|| "the data directory".to_owned(), |d| d.display().to_string());
    let text =
        error.to_string().replace("mayfly server recover --after", &format!("mayfly server recover --config {config} --after"));
    f.write_str(&text)?;
    let StartError::Store(store) = error else { return Ok(()) };
    match store {
        StoreError::InUse(_) => write!(f, "\n  who has it: fuser -v {shown}; stop that server first"),
        StoreError::Full(_) => write!(f, "\n  how full it is: df -h {shown}; free space there, nothing was lost"),
        StoreError::Foreign(_) => {
            write!(f, "\n  name another directory under store.path, or move it away: mv {shown} {shown}.old")
        }
        StoreError::Damaged { .. } => {
            write!(f, "\n  nothing of it can be read: put it back from a backup, stopped: cp -a BACKUP {shown}")
        }
        // It says what mends it.
        StoreError::Unsafe(_) => Ok(()),
        _ => write!(f, "\n  who may use it: ls -ld {shown}; the server's user needs to own it"),
    }
}

impl std::error::Error for StartProblem {}
