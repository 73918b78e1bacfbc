//! The numbers in the acknowledgements, and what each stands for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::Error;

/// The item that was answered under a number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Named {
    /// A credential, and the parameters for requesting it again if its task was named.
    Credential { id: String, token: String, ask: Option<Ask> },
    /// A task.
    Task { id: String },
    /// A lock, by the sequence number of its record.
    Lock { seq: u64 },
    /// A signing key.
    Key { id: String },
    /// No answer: the time when the load ended, milliseconds since 1970.
    End { at: u64 },
}

/// The parts of an exchange that differ between exchanges.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ask {
    /// The task.
    pub task: String,
    /// The request id.
    pub request: String,
    /// Whether a reference token was requested instead of a JWT.
    pub reference: bool,
}

/// The file of acknowledgements: one write(2) for each, so that the recorder sees each as a whole.
pub struct Acks {
    acks: Mutex<File>,
    names: Mutex<File>,
    next: AtomicU64,
}

impl Acks {
    pub fn new(acks: &Path, names: &Path) -> Result<Acks, Error> {
        let open = |path: &Path| File::options().create(true).append(true).open(path).map(Mutex::new);
        Ok(Acks { acks: open(acks)?, names: open(names)?, next: AtomicU64::new(1) })
    }

    /// Reserves `count` unique numbers and returns the first.
    pub fn numbers(&self, count: u64) -> u64 {
        self.next.fetch_add(count, Ordering::SeqCst)
    }

    fn say(&self, line: &str) -> Result<(), Error> {
        Ok(self.acks.lock().write_all(line.as_bytes())?)
    }

    /// Records that a request is about to be sent.
    pub fn sent(&self, n: u64) -> Result<(), Error> {
        self.say(&format!("w {n}\n"))
    }

    /// Records that its answer has arrived.
    pub fn answered(&self, n: u64, named: &Named) -> Result<(), Error> {
        self.note(n, named)?;
        self.say(&format!("W {n}\n"))
    }

    /// Records what a number stands for, without an acknowledgement.
    pub fn note(&self, n: u64, named: &Named) -> Result<(), Error> {
        let line = format!("{}\n", serde_json::to_string(&(n, named))?);
        Ok(self.names.lock().write_all(line.as_bytes())?)
    }

    /// Records that a request which ends `from..=to` is about to be sent.
    pub fn ending(&self, from: u64, to: u64) -> Result<(), Error> {
        self.say(&format!("d {from} {to}\n"))
    }

    /// Records that these items have ended.
    pub fn ended(&self, from: u64, to: u64) -> Result<(), Error> {
        self.say(&format!("D {from} {to}\n"))
    }
}

/// All items that were named.
pub fn read(path: &Path) -> Result<BTreeMap<u64, Named>, Error> {
    let text = std::fs::read_to_string(path)?;
    Ok(text.lines().map(serde_json::from_str::<(u64, Named)>).collect::<Result<_, _>>()?)
}

/// Items that must be present, must be gone, or may be either.
pub struct Expected {
    pub there: BTreeSet<u64>,
    pub gone: BTreeSet<u64>,
    pub either: BTreeSet<u64>,
}

impl Expected {
    pub fn read(path: &Path) -> Result<Expected, Error> {
        let text = std::fs::read_to_string(path)?;
        let mut lines = text.split('\n');
        let mut next = || -> Result<BTreeSet<u64>, Error> {
            let numbers = lines.next().unwrap_or_default().split(',').filter(|n| !n.is_empty());
            Ok(numbers.map(str::parse).collect::<Result<_, _>>()?)
        };
        Ok(Expected { there: next()?, gone: next()?, either: next()? })
    }
}
