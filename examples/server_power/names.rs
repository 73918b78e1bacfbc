//! The numbers in the acknowledgements, and what each stands for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::Error;

/// What was answered under a number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Named {
    /// A credential, and what asks for it again where its task was named.
    Credential { id: String, token: String, ask: Option<Ask> },
    /// A task.
    Task { id: String },
    /// A lock, by the seq of its record.
    Lock { seq: u64 },
    /// A key of ours.
    Key { id: String },
    /// Not an answer: when the load ended, milliseconds since 1970.
    End { at: u64 },
}

/// The parts of an exchange that differ from one to the next.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ask {
    /// The task.
    pub task: String,
    /// The request's own id.
    pub request: String,
    /// A reference and not a JWT.
    pub reference: bool,
}

/// Where acknowledgements go: one write(2) for each, so that the recorder sees it whole.
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

    /// Numbers that nothing else gets; the first of them.
    pub fn numbers(&self, count: u64) -> u64 {
        self.next.fetch_add(count, Ordering::SeqCst)
    }

    fn say(&self, line: &str) -> Result<(), Error> {
        Ok(self.acks.lock().write_all(line.as_bytes())?)
    }

    /// Before a request is sent.
    pub fn sent(&self, n: u64) -> Result<(), Error> {
        self.say(&format!("w {n}\n"))
    }

    /// Its answer is here.
    pub fn answered(&self, n: u64, named: &Named) -> Result<(), Error> {
        self.note(n, named)?;
        self.say(&format!("W {n}\n"))
    }

    /// What a number stands for, without an acknowledgement.
    pub fn note(&self, n: u64, named: &Named) -> Result<(), Error> {
        let line = format!("{}\n", serde_json::to_string(&(n, named))?);
        Ok(self.names.lock().write_all(line.as_bytes())?)
    }

    /// Before what ends `from..=to` is sent.
    pub fn ending(&self, from: u64, to: u64) -> Result<(), Error> {
        self.say(&format!("d {from} {to}\n"))
    }

    /// They have ended.
    pub fn ended(&self, from: u64, to: u64) -> Result<(), Error> {
        self.say(&format!("D {from} {to}\n"))
    }
}

/// All that was named.
pub fn read(path: &Path) -> Result<BTreeMap<u64, Named>, Error> {
    let text = std::fs::read_to_string(path)?;
    Ok(text.lines().map(serde_json::from_str::<(u64, Named)>).collect::<Result<_, _>>()?)
}

/// What must be there, must be gone, may be either.
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
