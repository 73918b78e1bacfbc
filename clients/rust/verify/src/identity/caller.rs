//! Callers and operators, as decisions see them.

use std::sync::Arc;

use super::spiffe_id::SpiffeId;
use super::svid::{Evidence, VerifiedSvid};
use crate::seq::{CredentialId, Millis};

/// A person who signed in and is identified by the SVID that the login issued.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Person {
    /// The login, which is a mayfly credential.
    pub login: CredentialId,
    /// The provider's issuer URL.
    pub issuer: Box<str>,
    /// `sub` at that provider.
    pub subject: Box<str>,
    /// The authentication methods (RFC 8176).
    pub amr: Vec<Box<str>>,
    /// Authentication context class, where the provider gave one.
    pub acr: Option<Box<str>>,
    /// When the person signed in at the provider.
    pub auth_time: Millis,
}

/// A workload, authenticated by the SVID of its TLS session. Constructed from a [`VerifiedSvid`] only.
#[derive(Clone, Debug)]
pub struct Caller {
    id: SpiffeId,
    evidence: Arc<Evidence>,
    person: Option<Arc<Person>>,
    job: Option<CredentialId>,
}

impl From<&VerifiedSvid> for Caller {
    fn from(svid: &VerifiedSvid) -> Caller {
        Caller { id: svid.id().clone(), evidence: svid.evidence().clone(), person: None, job: None }
    }
}

impl Caller {
    /// The caller's SPIFFE ID.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Adds the person whose login the SVID is.
    pub fn with_person(self, person: Person) -> Caller {
        Caller { person: Some(Arc::new(person)), ..self }
    }

    /// Adds the login by which the caller is an attested job.
    pub fn with_attested(self, login: CredentialId) -> Caller {
        Caller { job: Some(login), ..self }
    }

    /// The person, where the SVID is a person's login.
    pub fn person(&self) -> Option<&Person> {
        self.person.as_deref()
    }

    /// The evidence of the caller's SVID.
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// Whether both callers are of the same TLS session.
    pub fn same_session(&self, other: &Caller) -> bool {
        Arc::ptr_eq(&self.evidence, &other.evidence)
            && (self.person.is_none() && other.person.is_none())
            && self.job == other.job
            && self.id == other.id
    }

    /// The credential id of the SVID, where mayfly issued the SVID.
    pub fn ancestor(&self) -> Option<CredentialId> {
        self.person.as_ref().map(|person| person.login).or(self.job)
    }
}

/// A caller of the admin listener.
#[derive(Clone, Debug)]
pub enum Operator {
    /// Authenticated by an SVID that the admin policy names.
    Svid(Caller),
    /// Authenticated by the peer uid of the local socket. Never counts as a person where two are needed.
    LocalUid(u32),
}
