//! A decision that something may be issued. Only `policy::decide` makes one.

use std::sync::Arc;

use crate::ledger::record::{Identity, Issued, Request, TaskOpened, Who};
use crate::ledger::state::Terms;
use crate::seq::{Seq, TaskId};

/// Permission to mint one credential: every bound applied, every claim settled but the id and what the kind adds.
#[derive(Debug)]
pub struct Grant {
    parts: Parts,
}

/// What a decision settles.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    /// The record to be, without credential id, key, status, token digest and lease.
    pub draft: Box<Issued>,
    /// Everything up to here was seen by the decision.
    pub revision: Seq,
    /// The request, where it named itself.
    pub request: Option<Request>,
    /// The task that is opened in the same commit.
    pub opens: Option<Box<TaskOpened>>,
    /// The task path.
    pub path: TaskPath,
    /// `aud`: the upstream's audience.
    pub audience: Arc<str>,
    /// Where the upstream answers.
    pub base_url: Arc<str>,
    /// The JOSE algorithm that the upstream takes.
    pub algorithm: &'static str,
    /// `iss`: the issuer path of the environment.
    pub issuer: Arc<str>,
    /// Who asked.
    pub author: Who,
}

/// A task path, root first, with the owner of each task.
#[derive(Debug, Clone)]
pub enum TaskPath {
    /// Of a task that is open: shared with the state.
    Open(Arc<Terms>),
    /// Of one that is about to be opened.
    New {
        /// The tasks.
        tasks: Vec<TaskId>,
        /// Their owners.
        owners: Vec<Identity>,
    },
}

impl TaskPath {
    /// The tasks.
    pub fn tasks(&self) -> &[TaskId] {
        match self {
            TaskPath::Open(terms) => &terms.path,
            TaskPath::New { tasks, .. } => tasks,
        }
    }

    /// Their owners, as many.
    pub fn owners(&self) -> &[Identity] {
        match self {
            TaskPath::Open(terms) => &terms.owners,
            TaskPath::New { owners, .. } => owners,
        }
    }
}

impl Grant {
    pub(in crate::policy) fn new(parts: Parts) -> Grant {
        Grant { parts }
    }

    /// The credential kind, by its persisted number.
    pub fn kind(&self) -> u32 {
        self.parts.draft.kind
    }

    /// Takes it apart, to make a credential of it.
    pub(crate) fn into_parts(self) -> Parts {
        self.parts
    }

    /// A grant without a decision, for tests of what comes after one.
    #[cfg(test)]
    pub(crate) fn for_test(parts: Parts) -> Grant {
        Grant { parts }
    }
}
