//! A decision that something may be issued. Only `policy::decide` makes one.

use std::sync::Arc;

use crate::ledger::mold::OwnRequest;
use crate::ledger::record::{Identity, Issued, Request, TaskOpened, Who};
use crate::ledger::state::{Ground, RequestKey, Terms, request_key};
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
    /// The other grants that it rests on, as far as they are not known to say nothing more than its own record.
    pub grounds: Vec<Ground>,
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

impl Parts {
    /// The name of its request.
    pub fn request_key(&self) -> Option<RequestKey> {
        let request = self.request.as_ref()?;
        Some(request_key(request.sender(&self.author).unwrap_or_default(), &request.id))
    }
}

/// What grants of one view have in common that differ by tool, purpose, arguments and request only.
#[derive(Debug)]
pub struct SharedGrant {
    parts: Parts,
}

/// What is one grant's own, beside a [`SharedGrant`].
#[derive(Debug)]
pub struct Own<'a> {
    /// The tool that it serves for; empty for none.
    pub tool: &'a str,
    /// What it is for.
    pub purpose: &'a str,
    /// SHA-256 of the arguments.
    pub arguments: Option<&'a [u8; 32]>,
    /// The request, where it named itself.
    pub request: Option<OwnRequest<'a>>,
    /// The trace of the call that asked for it; empty for none.
    pub trace: &'a [u8],
}

/// Permission to mint one credential that has the rest in common with others.
#[derive(Debug)]
pub struct OwnGrant<'a> {
    own: Own<'a>,
}

impl SharedGrant {
    pub(in crate::policy) fn new(parts: Parts) -> SharedGrant {
        SharedGrant { parts }
    }

    /// What a credential of this sort is made with.
    pub(crate) fn parts(&self) -> &Parts {
        &self.parts
    }

    /// The credential kind, by its persisted number.
    pub fn kind(&self) -> u32 {
        self.parts.draft.kind
    }
}

#[cfg(test)]
impl SharedGrant {
    /// Without a decision, for tests of what comes after one.
    pub(crate) fn for_test(parts: Parts) -> SharedGrant {
        SharedGrant { parts }
    }
}

#[cfg(test)]
impl<'a> OwnGrant<'a> {
    /// Without a decision, for tests of what comes after one.
    pub(crate) fn for_test(own: Own<'a>) -> OwnGrant<'a> {
        OwnGrant { own }
    }
}

impl<'a> OwnGrant<'a> {
    pub(in crate::policy) fn new(own: Own<'a>) -> OwnGrant<'a> {
        OwnGrant { own }
    }

    /// Takes it apart, to make a credential of it.
    pub(crate) fn into_own(self) -> Own<'a> {
        self.own
    }
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

    /// The name of its request.
    pub fn request_key(&self) -> Option<RequestKey> {
        self.parts.request_key()
    }

    /// What was settled.
    pub(crate) fn parts(&self) -> &Parts {
        &self.parts
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
