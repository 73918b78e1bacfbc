//! The published keys as JWK sets (RFC 7517).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::jwt::json;
use mayfly_ledger::record::{KeyPurpose, KeyState};
use mayfly_ledger::state::ManagedKey;

/// The JWK set of one environment's issuer, ordered by key id; the same keys give the same bytes.
///
/// The set contains access-token keys only: next, active and retired ones. A compromised or removed key disappears at once.
pub fn jwks(keys: &BTreeMap<Box<str>, ManagedKey>, environment: &str) -> String {
    let mut out = Vec::with_capacity(64 + 256 * keys.len());
    out.extend_from_slice(br#"{"keys":["#);
    let mut first = true;
    for (kid, key) in keys {
        let published = matches!(key.state, KeyState::Next | KeyState::Active | KeyState::Retired);
        if !published || key.purpose != KeyPurpose::AccessToken || *key.environment != *environment {
            continue;
        }
        let Some(jwk) = jwk(kid, key) else { continue };
        if !first {
            out.push(b',');
        }
        first = false;
        out.extend_from_slice(&jwk);
    }
    out.extend_from_slice(b"]}");
    // The buffer was written from ASCII and `str` only.
    String::from_utf8(out).unwrap_or_default()
}

/// The JWK set of all keys of a purpose that are not compromised, including keys that no longer sign.
pub fn jwks_of(keys: &BTreeMap<Box<str>, ManagedKey>, purpose: KeyPurpose) -> String {
    let known = keys.iter().filter(|(_, k)| k.purpose == purpose && k.state != KeyState::Compromised);
    let all: Vec<String> = known.filter_map(|(kid, key)| String::from_utf8(jwk(kid, key)?).ok()).collect();
    format!("{{\"keys\":[{}]}}", all.join(","))
}

/// A key's public part as a JWK; `None` for a key without one, such as a key that derives.
pub fn jwk(kid: &str, key: &ManagedKey) -> Option<Vec<u8>> {
    let (x, y) = point(&key.public)?;
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(br#"{"kty":"EC","crv":"P-256","x":""#);
    out.extend_from_slice(URL_SAFE_NO_PAD.encode(x).as_bytes());
    out.extend_from_slice(br#"","y":""#);
    out.extend_from_slice(URL_SAFE_NO_PAD.encode(y).as_bytes());
    out.extend_from_slice(br#"","use":"sig","alg":"#);
    json::string(&mut out, &key.algorithm);
    out.extend_from_slice(br#","kid":"#);
    json::string(&mut out, kid);
    out.push(b'}');
    Some(out)
}

/// Both coordinates of an uncompressed P-256 point (SEC 1, section 2.3.3).
fn point(public: &[u8]) -> Option<(&[u8], &[u8])> {
    match public {
        [4, rest @ ..] if rest.len() == 64 => Some(rest.split_at(32)),
        _ => None,
    }
}
