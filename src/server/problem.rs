//! Why a server does not start. Each reason lists commands that fix it and can be typed as shown (`mend`).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::{engine, mend};
use mayfly_api::unix::NoSocket;
use mayfly_base::document::Complaint;
use mayfly_base::document::command::{Remedy, typed};
use mayfly_base::refusal::{Fault, No};
use mayfly_config::config::{Config, Seal};
use mayfly_config::files::FileProblem;
use mayfly_config::workload_api::{NoSvid, WhyNot};
use mayfly_ledger::StartError;
use mayfly_store::sealing::{KeyFileError, SealError};

/// Why a server does not start, and its configuration.
#[derive(Debug)]
pub struct StartProblem {
    why: Why,
    /// The configuration file, as it was named.
    config: PathBuf,
    /// The data directory, if the engine has one.
    data: Option<PathBuf>,
}

/// Why a server does not start.
#[derive(Debug)]
pub enum Why {
    /// The configuration is wrong.
    Config(Vec<Complaint>),
    /// Defects of what the configuration names, as `mayfly server validate` finds them.
    Found(Vec<Complaint>),
    /// Defects of certificates, keys or bundles.
    Files(Vec<FileProblem>),
    /// The agent of the SPIFFE Workload API gave nothing usable in time.
    Agent(Box<NoSvid>),
    /// Defects of policies, roles or registrations that a first start has to import.
    Policy(Vec<Complaint>),
    /// The sealing key's file cannot be read.
    KeyFile(KeyFileError),
    /// `seal.credential` is set without systemd.
    NoCredentials(String),
    /// The sealing key is not the one of the store.
    Seal {
        /// What is wrong.
        error: SealError,
        /// The source of the key.
        key: Seal,
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
    Socket(NoSocket),
    /// A record that the server writes at its start was refused.
    Refused {
        /// The content of the record.
        what: String,
        /// The refusal.
        no: Box<No>,
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
    pub fn new(why: Why, config: &Config) -> StartProblem {
        let data = engine::data_dir(config).map(Path::to_owned);
        StartProblem { why, config: PathBuf::from(&config.file), data }
    }

    /// A problem with a configuration that cannot be used.
    pub fn config(path: &Path, wrong: Vec<Complaint>) -> StartProblem {
        StartProblem { why: Why::Config(wrong), config: path.to_owned(), data: None }
    }

    /// The reason.
    pub fn why(&self) -> &Why {
        &self.why
    }

    /// The remedies, in the order in which to try them.
    pub fn remedies(&self) -> Vec<Remedy> {
        mend::remedies(&self.why, &self.config, self.data.as_deref())
    }

    /// The exit code, as for commands: 2 for a wrong configuration, 4 if the agent does not know this process, 8 for a condition that may
    /// be temporary, 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        match &self.why {
            Why::Config(_) => 2,
            Why::Agent(no) => match no.why {
                WhyNot::NotKnown => 4,
                WhyNot::Away | WhyNot::Unusable => 8,
                WhyNot::OtherDomain => 1,
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
            Why::Config(wrong) | Why::Found(wrong) | Why::Policy(wrong) => lines(f, wrong)?,
            Why::Files(wrong) => lines(f, wrong)?,
            Why::Agent(no) => no.fmt(f)?,
            Why::KeyFile(error) => error.fmt(f)?,
            Why::NoCredentials(name) => write!(f, "seal.credential is {name}, but systemd gave this process no credentials")?,
            Why::Seal { error, .. } => error.fmt(f)?,
            // The text names the command; the typed command needs the configuration, too.
            Why::Ledger(error) => {
                let whole = format!("mayfly server recover --config {} --after", typed(&self.config));
                f.write_str(&error.to_string().replace("mayfly server recover --after", &whole))?;
            }
            Why::Keys(fault) => fault.fmt(f)?,
            Why::Port { key, address, error } => write!(f, "{key}: {address}: {error}")?,
            Why::Socket(no) => no.fmt(f)?,
            Why::Refused { what, no } => write!(f, "{what} could not be recorded: {no}; nothing was lost")?,
            Why::Tls(what) => write!(f, "TLS: {what}")?,
            Why::ReadyFile { path, error } => write!(f, "the addresses could not be written to {}: {error}", path.display())?,
            Why::System { what, error } => write!(f, "{what}: {error}")?,
            Why::Panic => f.write_str("the start ended by a panic, which is a fault of mayfly")?,
        }
        self.remedies().iter().try_for_each(|remedy| write!(f, "\n  {remedy}"))
    }
}

impl std::error::Error for StartProblem {}
