//! Who the server takes us for.

use serde::Serialize;

use super::Who;
use super::credential::SvidEvidence;
use super::revocation::Lock;
use crate::cli::out::Noun;
use crate::pb::mayfly::v1 as pb;

/// The caller.
#[derive(Serialize, Debug)]
pub struct Whoami {
    pub identity: Option<Who>,
    pub environment: String,
    pub operator: bool,
    pub roles: Vec<String>,
    pub serves: Vec<String>,
    pub svid: Option<SvidEvidence>,
    pub locks: Vec<Lock>,
}

impl From<pb::WhoamiResponse> for Whoami {
    fn from(w: pb::WhoamiResponse) -> Whoami {
        Whoami {
            identity: Who::of(w.identity),
            environment: w.environment,
            operator: w.operator,
            roles: w.roles,
            serves: w.serves,
            svid: w.svid.map(SvidEvidence::from),
            locks: w.locks.into_iter().map(Lock::from).collect(),
        }
    }
}

impl Noun for Whoami {
    fn name(&self) -> String {
        Who::text(self.identity.as_ref())
    }
}
