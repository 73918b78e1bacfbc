//! Logins of people on the wire, as credentials.

use super::{svid_to_pb, timestamp};
use mayfly_ledger::State;
use mayfly_ledger::state::{Login, trust_domain_of};
use mayfly_ledger::upstream::registry::Kind;
use mayfly_proto::mayfly::v1 as pb;
use mayfly_verify::seq::{Millis, Seq};

/// The state of a login at `now`, and the record that ended it before its expiry.
pub fn login_state(state: &State, login: &Login, now: Millis) -> (pb::CredentialState, Option<Seq>) {
    use mayfly_proto::mayfly::v1::CredentialState as S;
    match state.rules.covers(&login.facts()) {
        _ if login.ended_at.is_some() => (S::Released, None),
        Some(hit) => (S::Revoked, Some(hit.seq)),
        None if login.expires_at <= now => (S::Expired, None),
        None => (S::Active, None),
    }
}

/// A login as a credential without task and upstream. The caller is the login's SPIFFE ID, and the subject is the person who signed in.
pub fn login_to_pb(state: &State, login: &Login, now: Millis) -> pb::Credential {
    let (standing, ended_by) = login_state(state, login, now);
    pb::Credential {
        credential_id: login.id.to_string(),
        kind: i32::from(Kind::X509.tag()),
        state: standing.into(),
        caller: login.caller.to_string(),
        subject: Some(pb::Subject { issuer: login.person.issuer.clone(), sub: login.person.sub.clone() }),
        environment: login.environment.to_string(),
        issued_at: Some(timestamp(login.issued_at)),
        expires_at: Some(timestamp(login.expires_at)),
        seq: login.seq.as_u64(),
        decision_revision: login.revision.as_u64(),
        policy_version: login.policy,
        svid: Some(svid_to_pb(trust_domain_of(&login.caller), &login.svid)),
        subject_token: Some(pb::SubjectTokenId { issuer: login.token.issuer.clone(), id: login.token.id.clone() }),
        signing_key: login.key.to_string(),
        ended_by_seq: ended_by.map_or(0, Seq::as_u64),
        ..pb::Credential::default()
    }
}
