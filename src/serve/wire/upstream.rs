//! Registrations.

use super::timestamp;
use crate::ledger::state::Version;
use crate::pb::mayfly::v1 as pb;
use crate::upstream::registry::{ProofOfPossession, Upstream};

/// Whether an upstream can be used.
pub fn registration_state(version: &Version) -> pb::RegistrationState {
    match (version.active, version.retired) {
        (_, true) => pb::RegistrationState::Retired,
        (true, false) => pb::RegistrationState::Active,
        (false, false) => pb::RegistrationState::Disabled,
    }
}

/// A registration and its version.
pub fn upstream_to_pb(upstream: &Upstream, version: &Version) -> pb::Upstream {
    let scopes = upstream.scopes.iter();
    pb::Upstream {
        upstream: upstream.name.clone(),
        version: version.version,
        state: registration_state(version).into(),
        environment: upstream.environment.clone(),
        owner: upstream.owner.clone(),
        purpose: upstream.purpose.clone(),
        audience: upstream.audience.clone(),
        base_url: upstream.target.clone(),
        kinds: upstream.kinds.iter().map(|k| i32::from(k.tag())).collect(),
        scopes: scopes.map(|s| pb::UpstreamScope { scope: s.name.clone(), sensitive: s.sensitive }).collect(),
        servers: upstream.servers.iter().map(ToString::to_string).collect(),
        max_ttl: Some(super::duration(upstream.ttl.max.saturating_mul(1000))),
        expires_at: Some(timestamp(upstream.expires)),
        key_bound: upstream.proof_of_possession == ProofOfPossession::X5t,
        seq: version.seq.as_u64(),
    }
}
