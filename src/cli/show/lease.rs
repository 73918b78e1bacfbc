//! JSON and table forms of leases.

use serde::Serialize;

use super::{or_dash, shown_word, time};
use crate::out::{Printable, Row};
use mayfly_proto::mayfly::v1 as pb;

/// A lease, as `lease list` prints it.
#[derive(Serialize, Debug)]
pub struct LeaseView {
    pub lease_id: String,
    pub state: String,
    pub upstream: String,
    pub what: String,
    pub credential_id: String,
    pub attempts: u32,
    pub next_attempt: Option<String>,
    pub last_error: String,
}

impl From<pb::Lease> for LeaseView {
    fn from(l: pb::Lease) -> LeaseView {
        LeaseView {
            lease_id: l.lease_id,
            state: shown_word!(pb::UpstreamState, "UPSTREAM_STATE_", l.state),
            upstream: l.upstream,
            what: l.what,
            credential_id: l.credential_id,
            attempts: l.attempts,
            next_attempt: time(l.next_attempt),
            last_error: l.last_error,
        }
    }
}

impl Printable for LeaseView {
    fn name(&self) -> String {
        self.lease_id.clone()
    }
}

impl Row for LeaseView {
    const COLUMNS: &'static [&'static str] = &["LEASE", "STATE", "UPSTREAM", "WHAT", "ATTEMPTS", "LAST ERROR"];
    const WIDE: &'static [&'static str] = &["CREDENTIAL", "NEXT ATTEMPT"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.lease_id.clone(),
            self.state.clone(),
            self.upstream.clone(),
            self.what.clone(),
            self.attempts.to_string(),
            or_dash(Some(&self.last_error)),
            self.credential_id.clone(),
            or_dash(self.next_attempt.as_deref()),
        ]
    }
}
