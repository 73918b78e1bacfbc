//! Grants: decisions that a credential may be issued. Only `policy::decide` constructs them.

use std::sync::Arc;

use mayfly_ledger::record::{Author, CredentialIssued, Principal, RequestRecord, TaskOpened};
use mayfly_ledger::state::{RequestKey, SupportingGrant, TaskSpec, request_key};
use mayfly_ledger::upstream::settings::KindSettings;
use mayfly_ledger::writer::template::IssuanceRequest;
use mayfly_verify::seq::{Seq, TaskId};

/// Permission to mint one credential. Every bound is applied and every claim is settled, except the id and the claims that the kind adds.
#[derive(Debug)]
pub struct Grant {
    parts: GrantParts,
}

/// The content of a grant.
#[derive(Debug, Clone)]
pub struct GrantParts {
    /// The issuance record without credential id, key, status, token digest and lease.
    pub draft: Box<CredentialIssued>,
    /// The sequence number of the view that the decision was made with.
    pub revision: Seq,
    /// The request, where the caller gave a request id.
    pub request: Option<RequestRecord>,
    /// The task that is opened in the same commit.
    pub opens: Option<Box<TaskOpened>>,
    /// The task path.
    pub path: TaskPath,
    /// The grants that this grant depends on. A grant known to add nothing beyond its own record is left out.
    pub grounds: Vec<SupportingGrant>,
    /// `aud`: the upstream's audience.
    pub audience: Arc<str>,
    /// The upstream's base URL.
    pub base_url: Arc<str>,
    /// The sections of the registration for kinds that the upstream makes.
    pub settings: Arc<KindSettings>,
    /// The JOSE algorithm that the upstream accepts.
    pub algorithm: &'static str,
    /// `iss`: the issuer path of the environment.
    pub issuer: Arc<str>,
    /// The caller, as the record's author.
    pub author: Author,
}

impl GrantParts {
    /// The key under which the ledger remembers the request; `None` without a request id.
    pub fn request_key(&self) -> Option<RequestKey> {
        let request = self.request.as_ref()?;
        Some(request_key(request.sender(&self.author).unwrap_or_default(), &request.id))
    }
}

/// The common part of several grants decided on one view that differ in tool, purpose, arguments and request only.
#[derive(Debug)]
pub struct SharedGrant {
    parts: GrantParts,
}

/// The part of a grant that is individual, beside a [`SharedGrant`].
#[derive(Debug)]
pub struct IndividualTerms<'a> {
    /// The tool that the credential is restricted to; empty for none.
    pub tool: &'a str,
    /// The purpose.
    pub purpose: &'a str,
    /// SHA-256 of the arguments.
    pub arguments: Option<&'a [u8; 32]>,
    /// The request, where the caller gave a request id.
    pub request: Option<IssuanceRequest<'a>>,
    /// The trace context of the call; empty for none.
    pub trace: &'a [u8],
}

/// Permission to mint one credential; the remaining content is in a [`SharedGrant`].
#[derive(Debug)]
pub struct IndividualGrant<'a> {
    own: IndividualTerms<'a>,
}

impl SharedGrant {
    #[cfg(feature = "fast")]
    pub(crate) fn new(parts: GrantParts) -> SharedGrant {
        SharedGrant { parts }
    }

    /// The common content.
    pub fn parts(&self) -> &GrantParts {
        &self.parts
    }

    /// The credential kind, by its persisted number.
    pub fn kind(&self) -> u32 {
        self.parts.draft.kind
    }
}

#[cfg(any(test, debug_assertions, feature = "testing"))]
impl SharedGrant {
    /// Constructs a shared grant without a decision, for tests of later steps.
    pub fn for_test(parts: GrantParts) -> SharedGrant {
        SharedGrant { parts }
    }
}

#[cfg(any(test, debug_assertions, feature = "testing"))]
impl<'a> IndividualGrant<'a> {
    /// Constructs a grant without a decision, for tests of later steps.
    pub fn for_test(own: IndividualTerms<'a>) -> IndividualGrant<'a> {
        IndividualGrant { own }
    }
}

impl<'a> IndividualGrant<'a> {
    #[cfg(feature = "fast")]
    pub(crate) fn new(own: IndividualTerms<'a>) -> IndividualGrant<'a> {
        IndividualGrant { own }
    }

    /// The individual content, for minting the credential.
    pub fn into_own(self) -> IndividualTerms<'a> {
        self.own
    }
}

/// A task path, root first, with the owner of each task.
#[derive(Debug, Clone)]
pub enum TaskPath {
    /// The path of an open task, shared with the state.
    Open(Arc<TaskSpec>),
    /// The path of a task that is about to be opened.
    New {
        /// The tasks, root first.
        tasks: Vec<TaskId>,
        /// The owner of each task.
        owners: Vec<Principal>,
    },
}

impl TaskPath {
    /// The tasks, root first.
    pub fn tasks(&self) -> &[TaskId] {
        match self {
            TaskPath::Open(terms) => &terms.path,
            TaskPath::New { tasks, .. } => tasks,
        }
    }

    /// The owner of each task, in the same order.
    pub fn owners(&self) -> &[Principal] {
        match self {
            TaskPath::Open(terms) => &terms.owners,
            TaskPath::New { owners, .. } => owners,
        }
    }
}

impl Grant {
    pub(crate) fn new(parts: GrantParts) -> Grant {
        Grant { parts }
    }

    /// The credential kind, by its persisted number.
    pub fn kind(&self) -> u32 {
        self.parts.draft.kind
    }

    /// The key under which the ledger remembers the request; `None` without a request id.
    pub fn request_key(&self) -> Option<RequestKey> {
        self.parts.request_key()
    }

    /// The content of the grant.
    pub fn parts(&self) -> &GrantParts {
        &self.parts
    }

    /// The content of the grant, for minting the credential.
    pub fn into_parts(self) -> GrantParts {
        self.parts
    }

    /// Constructs a grant without a decision, for tests of later steps.
    #[cfg(any(test, debug_assertions, feature = "testing"))]
    pub fn for_test(parts: GrantParts) -> Grant {
        Grant { parts }
    }
}
