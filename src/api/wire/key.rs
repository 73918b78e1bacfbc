//! Keys on the wire.

use super::{timestamp, timestamp_or_none};
use mayfly_authority::trust::upstream_ca::PublishedCas;
use mayfly_base::refusal::Refusal;
use mayfly_credential::keyring::{RotationSchedule, jwk};
use mayfly_ledger::record::{KeyPurpose, KeyState};
use mayfly_ledger::state::ManagedKey;
use mayfly_proto::mayfly::v1 as pb;

/// A key without its private part. `issuer`: the issuer of its environment.
pub fn key_to_pb(id: &str, key: &ManagedKey, issuer: &str) -> pb::Key {
    let tokens = matches!(key.purpose, KeyPurpose::AccessToken | KeyPurpose::Federation);
    let verifies_until = match key.state {
        KeyState::Retired => timestamp_or_none(key.since.plus(RotationSchedule::of(key.purpose).verifies_ms)),
        KeyState::Removed | KeyState::Compromised => Some(timestamp(key.since)),
        KeyState::Next | KeyState::Active | KeyState::Unspecified => None,
    };
    // A waiting key becomes active at its scheduled time; for other keys this is the time at which the key became active.
    let active_from = match key.state {
        KeyState::Next if key.publish_ahead > 0 => timestamp_or_none(key.since.plus(key.publish_ahead)),
        KeyState::Next => timestamp_or_none(key.since.plus(RotationSchedule::of(key.purpose).ahead_ms)),
        _ => timestamp_or_none(key.active_from),
    };
    pb::Key {
        key_id: id.to_owned(),
        // The two enums are frozen and have the same numbers.
        purpose: key.purpose as i32,
        state: key.state as i32,
        issuer: if tokens { issuer.to_owned() } else { String::new() },
        environment: key.purpose.environment_of(&key.environment).to_owned(),
        algorithm: key.algorithm.to_string(),
        public_jwk: jwk(id, key).and_then(|jwk| String::from_utf8(jwk).ok()).unwrap_or_default(),
        created_at: timestamp_or_none(key.created_at),
        active_from,
        verifies_until,
        seq: key.seq.as_u64(),
    }
}

/// The purpose that a request names; `None` if it was left out.
pub fn purpose_from_pb(field: &'static str, value: i32) -> Result<Option<KeyPurpose>, Refusal> {
    match KeyPurpose::try_from(value) {
        Ok(KeyPurpose::Unspecified) => Ok(None),
        Ok(purpose) => Ok(Some(purpose)),
        Err(_) => Err(Refusal::field(field, format!("{value} is no purpose of a key that this version knows"))),
    }
}

/// The state that a request names; `None` if it was left out.
pub fn key_state_from_pb(field: &'static str, value: i32) -> Result<Option<KeyState>, Refusal> {
    match KeyState::try_from(value) {
        Ok(KeyState::Unspecified) => Ok(None),
        Ok(state) => Ok(Some(state)),
        Err(_) => Err(Refusal::field(field, format!("{value} is no state of a key that this version knows"))),
    }
}

/// The CAs of an upstream.
pub fn upstream_ca_to_pb(cas: PublishedCas) -> pb::GetUpstreamCaResponse {
    let (certificates_pem, ssh_authorities) = (cas.certificates_pem(), cas.ssh_authorities());
    let url = |there: bool, name: &str| if there { format!("{}/{name}", cas.base_url) } else { String::new() };
    let (x509, ssh) = (!certificates_pem.is_empty(), !ssh_authorities.is_empty());
    pb::GetUpstreamCaResponse {
        certificates_url: url(x509, "ca.pem"),
        crls_url: url(x509, "crl.pem"),
        ssh_authorities_url: url(ssh, "ssh_ca.pub"),
        krl_url: url(ssh, "krl"),
        at_seq: cas.at.as_u64(),
        certificates_pem,
        ssh_authorities,
        authorities: cas
            .authorities
            .into_iter()
            .map(|ca| pb::UpstreamCa {
                key_id: ca.key,
                // The two enums are frozen and have the same numbers.
                purpose: ca.purpose as i32,
                state: ca.state as i32,
                certificate: ca.certificate.into(),
                ssh_public_key: ca.ssh_public_key,
                crl_url: ca.crl_url,
            })
            .collect(),
    }
}
