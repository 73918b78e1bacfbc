//! Converts between the protobuf messages and internal types: times, names, targets, and objects at a state.
//!
//! Incoming values are checked and refused with their field. Outgoing values must be made from durable state, for which the caller is
//! responsible ([`Ledger::settled`](mayfly_ledger::Ledger::settled)).

mod approval;
mod binding;
mod break_glass;
mod credential;
mod key;
mod login;
mod policy;
mod rule;
mod target;
mod task;
#[cfg(test)]
mod tests;
mod trust;
mod upstream;

pub use approval::{approval_state, approval_to_pb, change_to_pb};
pub use binding::{binding_from_pb, binding_to_pb, binding_version_to_pb};
pub use break_glass::break_glass_to_pb;
pub use credential::{credential_of_record, credential_state, credential_to_pb, svid_to_pb};
pub use key::{key_state_from_pb, key_to_pb, purpose_from_pb, upstream_ca_to_pb};
pub use login::{login_state, login_to_pb};
pub use policy::{decision_diff_to_pb, policy_files, policy_to_pb, violation};
pub use rule::{RuleCause, lock_to_pb, rule_to_pb};
pub use target::{target_from_pb, target_to_pb};
pub use task::{phase_to_pb, task_to_pb};
pub use trust::{anchor_to_pb, bundle_from_pb, own_svid_to_pb, read_source_to_pb, trust_domain_to_pb};
pub use upstream::{finding_to_pb, registration_state, upstream_document, upstream_from_pb, upstream_to_pb};

use mayfly_base::refusal::Refusal;
use mayfly_identity::caller::Person;
use mayfly_ledger::record::{Author, Principal};
use mayfly_proto::mayfly::v1 as pb;
use mayfly_verify::seq::{Millis, Seq};

/// A time as a protobuf timestamp.
pub fn timestamp(at: Millis) -> prost_types::Timestamp {
    // The division keeps the values below 10^9 and 2^63.
    let nanos = i32::try_from(at.0 % 1000).unwrap_or_default() * 1_000_000;
    prost_types::Timestamp { seconds: i64::try_from(at.seconds()).unwrap_or(i64::MAX), nanos }
}

/// A time as a protobuf timestamp; `None` for 0.
pub fn timestamp_or_none(at: Millis) -> Option<prost_types::Timestamp> {
    (at > Millis(0)).then(|| timestamp(at))
}

/// A time from a protobuf timestamp; `None` if it is before 1970 or malformed.
pub fn millis(at: &prost_types::Timestamp) -> Option<Millis> {
    let seconds = u64::try_from(at.seconds).ok()?;
    let nanos = u64::try_from(at.nanos).ok().filter(|n| *n < 1_000_000_000)?;
    seconds.checked_mul(1000)?.checked_add(nanos / 1_000_000).map(Millis)
}

/// A duration as a protobuf message, from milliseconds.
pub fn duration(ms: u64) -> prost_types::Duration {
    let nanos = i32::try_from(ms % 1000).unwrap_or_default() * 1_000_000;
    prost_types::Duration { seconds: i64::try_from(ms / 1000).unwrap_or(i64::MAX), nanos }
}

/// A sequence number from a request.
pub fn seq(field: &'static str, value: u64) -> Result<Seq, Refusal> {
    Seq::from_u64(value).ok_or_else(|| Refusal::field(field, format!("{value} is no seq: it is below 2^53")))
}

/// The author of a record.
pub fn identity_of_who(who: &Author) -> pb::Identity {
    let identity = match who {
        Author::SpiffeId(id) => pb::identity::Identity::SpiffeId(id.clone()),
        Author::Person(person) => pb::identity::Identity::Person(subject_to_pb(person)),
        Author::LocalUid(uid) => pb::identity::Identity::LocalUid(*uid),
        Author::Mayfly(cause) => pb::identity::Identity::Mayfly(cause.clone()),
    };
    pb::Identity { identity: Some(identity) }
}

/// The login of a person.
pub fn person_to_pb(spiffe_id: &str, person: &Person) -> pb::PersonLogin {
    pb::PersonLogin {
        subject: Some(pb::Subject { issuer: person.issuer.to_string(), sub: person.subject.to_string() }),
        amr: person.amr.iter().map(|m| m.to_string()).collect(),
        acr: person.acr.as_deref().unwrap_or_default().to_owned(),
        auth_time: (person.auth_time > Millis(0)).then(|| timestamp(person.auth_time)),
        credential_id: person.login.to_string(),
        spiffe_id: spiffe_id.to_owned(),
    }
}

/// An owner: a workload by its SPIFFE ID, a person by issuer and subject.
pub fn identity_to_pb(identity: &Principal) -> pb::Identity {
    let identity = match is_spiffe(&identity.sub) {
        true => pb::identity::Identity::SpiffeId(identity.sub.clone()),
        false => pb::identity::Identity::Person(subject_to_pb(identity)),
    };
    pb::Identity { identity: Some(identity) }
}

/// A subject. In messages the issuer of a workload is its trust domain's SPIFFE ID, in records the bare name.
pub fn subject_to_pb(subject: &Principal) -> pb::Subject {
    let issuer = match is_spiffe(&subject.sub) {
        true => format!("{SPIFFE}{}", subject.issuer),
        false => subject.issuer.clone(),
    };
    pb::Subject { issuer, sub: subject.sub.clone() }
}

/// A subject in the form of records. Both forms of a workload's issuer are accepted.
pub fn subject_from_pb(subject: &pb::Subject) -> Principal {
    let issuer = match is_spiffe(&subject.sub) {
        true => subject.issuer.strip_prefix(SPIFFE).unwrap_or(&subject.issuer),
        false => &subject.issuer,
    };
    Principal { issuer: issuer.to_owned(), sub: subject.sub.clone() }
}

const SPIFFE: &str = "spiffe://";

fn is_spiffe(text: &str) -> bool {
    text.starts_with(SPIFFE)
}
