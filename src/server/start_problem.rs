//! Why a server does not start. Each reason lists commands that fix it and can be typed as shown (`start_remedies`).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::{engine, start_remedies};
use mayfly_api::unix::SocketError;
use mayfly_base::document::Diagnostic;
use mayfly_base::document::remedy::{Remedy, shell_quoted};
use mayfly_base::refusal::{Error, Fault};
use mayfly_config::config::{Config, SealingKeySource};
use mayfly_config::files::FileProblem;
use mayfly_config::workload_api::{AgentError, AgentErrorReason};
use mayfly_ledger::StartError;
use mayfly_store::sealing::{KeyFileError, SealError};

/// Why a server does not start, and its configuration.
#[derive(Debug)]
pub struct StartProblem {
    why: StartFailure,
    /// The configuration file, as it was named.
    config: PathBuf,
    /// The data directory, if the engine has one.
    data: Option<PathBuf>,
}

/// Why a server does not start.
#[derive(Debug)]
pub enum StartFailure {
    /// The configuration is wrong.
    Config(Vec<Diagnostic>),
    /// Defects of what the configuration names, as `mayfly server validate` finds them.
    Found(Vec<Diagnostic>),
    /// Defects of certificates, keys or bundles.
    Files(Vec<FileProblem>),
    /// The agent of the SPIFFE Workload API gave nothing usable in time.
    Agent(Box<AgentError>),
    /// Defects of policies, roles or registrations that a first start has to import.
    Policy(Vec<Diagnostic>),
    /// The sealing key's file cannot be read.
    KeyFile(KeyFileError),
    /// `seal.credential` is set without systemd.
    NoCredentials(String),
    /// The sealing key is not the one of the store.
    Seal {
        /// What is wrong.
        error: SealError,
        /// The source of the key.
        key: SealingKeySource,
    },
    /// The store, or the ledger in it, cannot be opened.
    Ledger(StartError),
    /// The private part of a key that the ledger names is not in the store, or cannot be opened.
    Keys(Fault),
    /// A port cannot be bound.
    Port {
        /// `listen.workload`, …
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// The system's error.
        error: io::Error,
    },
    /// The operators' socket cannot be bound.
    Socket(SocketError),
    /// A record that the server writes at its start was refused.
    Refused {
        /// The content of the record.
        what: String,
        /// The refusal.
        no: Box<Error>,
    },
    /// TLS could not be set up with the given certificates.
    Tls(String),
    /// The file for the listeners' addresses could not be written.
    ReadyFile {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// The system denied something that a server needs: a thread, a descriptor, memory.
    System {
        /// The resource.
        what: &'static str,
        /// The system's error.
        error: io::Error,
    },
    /// The start ended by a panic.
    Panic,
}

impl StartProblem {
    /// A problem with a configuration that could be read.
    pub fn new(why: StartFailure, config: &Config) -> StartProblem {
        let data = engine::data_dir(config).map(Path::to_owned);
        StartProblem { why, config: PathBuf::from(&config.file), data }
    }

    /// A problem with a configuration that cannot be used.
    pub fn config(path: &Path, wrong: Vec<Diagnostic>) -> StartProblem {
        StartProblem { why: StartFailure::Config(wrong), config: path.to_owned(), data: None }
    }

    /// The reason.
    pub fn why(&self) -> &StartFailure {
        &self.why
    }

    /// The remedies, in the order in which to try them.
    pub fn remedies(&self) -> Vec<Remedy> {
        start_remedies::remedies(&self.why, &self.config, self.data.as_deref())
    }

    /// The exit code, as for commands: 2 for a wrong configuration, 4 if the agent does not know this process, 8 for a condition that may
    /// be temporary, 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        match &self.why {
            StartFailure::Config(_) => 2,
            StartFailure::Agent(no) => match no.why {
                AgentErrorReason::NotKnown => 4,
                AgentErrorReason::Away | AgentErrorReason::Unusable => 8,
                AgentErrorReason::OtherDomain => 1,
            },
            _ => 1,
        }
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
        match &self.why {
            StartFailure::Config(wrong) | StartFailure::Found(wrong) | StartFailure::Policy(wrong) => lines(f, wrong)?,
            StartFailure::Files(wrong) => lines(f, wrong)?,
            StartFailure::Agent(no) => no.fmt(f)?,
            StartFailure::KeyFile(error) => error.fmt(f)?,
            StartFailure::NoCredentials(name) => {
                write!(f, "seal.credential is {name}, but systemd gave this process no credentials")?
            }
            StartFailure::Seal { error, .. } => error.fmt(f)?,
            // The text names the command; the typed command needs the configuration, too.
            StartFailure::Ledger(error) => {
                let whole = format!("mayfly server recover --config {} --after", shell_quoted(&self.config));
                f.write_str(&error.to_string().replace("mayfly server recover --after", &whole))?;
            }
            StartFailure::Keys(fault) => fault.fmt(f)?,
            StartFailure::Port { key, address, error } => write!(f, "{key}: {address}: {error}")?,
            StartFailure::Socket(no) => no.fmt(f)?,
            StartFailure::Refused { what, no } => write!(f, "{what} could not be recorded: {no}; nothing was lost")?,
            StartFailure::Tls(what) => write!(f, "TLS: {what}")?,
            StartFailure::ReadyFile { path, error } => {
                write!(f, "the addresses could not be written to {}: {error}", path.display())?
            }
            StartFailure::System { what, error } => write!(f, "{what}: {error}")?,
            StartFailure::Panic => f.write_str("the start ended by a panic, which is a fault of mayfly")?,
        }
        self.remedies().iter().try_for_each(|remedy| write!(f, "\n  {remedy}"))
    }
}

impl std::error::Error for StartProblem {}
