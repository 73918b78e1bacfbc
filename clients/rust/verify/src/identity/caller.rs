//! Who is calling, as far as deciding goes.

use std::sync::Arc;

use super::spiffe_id::SpiffeId;
use super::svid::{Evidence, VerifiedSvid};
use crate::seq::{CredentialId, Millis};

/// A person who signed in, and is known by the SVID that came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Person {
    /// The login, which is a credential of ours.
    pub login: CredentialId,
    /// The provider's issuer URL.
    pub issuer: Box<str>,
    /// `sub` at that provider.
    pub subject: Box<str>,
    /// How the person signed in (RFC 8176).
    pub amr: Vec<Box<str>>,
    /// Authentication context class, where the provider gave one.
    pub acr: Option<Box<str>>,
    /// When the person signed in at the provider.
    pub auth_time: Millis,
}

/// A workload, proven by the SVID of its TLS session. Made from a [`VerifiedSvid`] only.
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
    /// Its SPIFFE ID.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The same with the person whose login its SVID is.
    pub fn with_person(self, person: Person) -> Caller {
        Caller { person: Some(Arc::new(person)), ..self }
    }

    /// The same with the login by which it is a job.
    pub fn with_attested(self, login: CredentialId) -> Caller {
        Caller { job: Some(login), ..self }
    }

    /// The person, where its SVID is somebody's login.
    pub fn person(&self) -> Option<&Person> {
        self.person.as_deref()
    }

    /// What the SVID says.
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// Whether both are of one TLS session, or of copies of what was verified of it.
    pub fn same_session(&self, other: &Caller) -> bool {
        Arc::ptr_eq(&self.evidence, &other.evidence)
            && (self.person.is_none() && other.person.is_none())
            && self.job == other.job
            && self.id == other.id
    }

    /// The credential that its SVID is, where mayfly issued it.
    pub fn ancestor(&self) -> Option<CredentialId> {
        self.person.as_ref().map(|person| person.login).or(self.job)
    }
}

/// Somebody on the admin listener.
#[derive(Clone, Debug)]
pub enum Operator {
    /// By an SVID that the admin policy names.
    Svid(Caller),
    /// By the uid of the peer of the local socket. Never counts as a person where two are needed.
    LocalUid(u32),
}
