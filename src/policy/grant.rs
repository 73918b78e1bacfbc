//! A decision that something may be issued. Only `policy::decide` makes one.

use crate::ledger::record::{Identity, Issued, Request, TaskOpened, Who};
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
    pub draft: Issued,
    /// Everything up to here was seen by the decision.
    pub revision: Seq,
    /// The request, where it named itself.
    pub request: Option<Request>,
    /// The task that is opened in the same commit.
    pub opens: Option<TaskOpened>,
    /// The task path, root first, with each task's owner.
    pub path: Vec<(TaskId, Identity)>,
    /// `aud`: the upstream's audience.
    pub audience: String,
    /// Where the upstream answers.
    pub base_url: String,
    /// The JOSE algorithm that the upstream takes.
    pub algorithm: String,
    /// `iss`: the issuer path of the environment.
    pub issuer: String,
    /// Who asked.
    pub author: Who,
}

impl Grant {
    pub(in crate::policy) fn new(parts: Parts) -> Grant {
        Grant { parts }
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
