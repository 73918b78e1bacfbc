//! Who is calling, as far as deciding goes.

use std::sync::Arc;

use super::spiffe_id::SpiffeId;
use super::svid::{Evidence, VerifiedSvid};
use crate::seq::CredentialId;

/// A workload, proven by the SVID of its TLS session. Made from a [`VerifiedSvid`] only.
#[derive(Clone, Debug)]
pub struct Caller {
    id: SpiffeId,
    evidence: Arc<Evidence>,
    ancestor: Option<CredentialId>,
}

impl From<&VerifiedSvid> for Caller {
    fn from(svid: &VerifiedSvid) -> Caller {
        Caller { id: svid.id().clone(), evidence: svid.evidence().clone(), ancestor: None }
    }
}

impl Caller {
    /// Its SPIFFE ID.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Whether it is the same caller by the same SVID on the same connection.
    pub fn is_same(&self, other: &Caller) -> bool {
        Arc::ptr_eq(&self.evidence, &other.evidence) && self.id == other.id && self.ancestor == other.ancestor
    }

    /// What the SVID says.
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// The credential that its SVID is, where mayfly issued it.
    pub fn ancestor(&self) -> Option<CredentialId> {
        self.ancestor
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
