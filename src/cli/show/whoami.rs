//! JSON and table forms of the caller's identity, as the server sees it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::credential::SvidEvidenceView;
use super::revocation::LockView;
use super::{AuthorView, time};
use crate::out::Printable;
use mayfly_proto::mayfly::v1 as pb;

/// The caller.
#[derive(Serialize, Debug)]
pub struct Whoami {
    pub identity: Option<AuthorView>,
    pub environment: String,
    pub operator: bool,
    /// The environments that the caller operates, each with the actions that policy permits there.
    pub operates: BTreeMap<String, Vec<String>>,
    pub roles: Vec<String>,
    pub serves: Vec<String>,
    pub svid: Option<SvidEvidenceView>,
    pub locks: Vec<LockView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub person: Option<PersonLogin>,
}

/// How a person signed in.
#[derive(Serialize, Debug)]
pub struct PersonLogin {
    pub spiffe_id: String,
    pub amr: Vec<String>,
    pub acr: String,
    pub auth_time: Option<String>,
    pub credential: String,
}

impl From<pb::PersonLogin> for PersonLogin {
    fn from(p: pb::PersonLogin) -> PersonLogin {
        PersonLogin { spiffe_id: p.spiffe_id, amr: p.amr, acr: p.acr, auth_time: time(p.auth_time), credential: p.credential_id }
    }
}

impl From<pb::WhoamiResponse> for Whoami {
    fn from(w: pb::WhoamiResponse) -> Whoami {
        Whoami {
            identity: AuthorView::of(w.identity),
            environment: w.environment,
            operator: w.operator,
            operates: w.operates.into_iter().map(|o| (o.environment, o.actions)).collect(),
            roles: w.roles,
            serves: w.serves,
            svid: w.svid.map(SvidEvidenceView::from),
            locks: w.locks.into_iter().map(LockView::from).collect(),
            person: w.person.map(PersonLogin::from),
        }
    }
}

impl Printable for Whoami {
    fn name(&self) -> String {
        AuthorView::text(self.identity.as_ref())
    }
}
