//! The published keys as JWK sets (RFC 7517).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use x509_parser::asn1_rs::{FromDer, Integer, Sequence};

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

/// The JWK set of the issuer of an upstream's assertions, and the algorithms of its keys. `path`: as of
/// [`upstream_path`](mayfly_ledger::record::upstream_path). `None` if the issuer has no key.
///
/// The set contains next, active and retired keys. A compromised or removed key disappears at once.
pub fn jwks_of_path(keys: &BTreeMap<Box<str>, ManagedKey>, path: &str) -> Option<(String, Vec<Box<str>>)> {
    let published = |k: &ManagedKey| matches!(k.state, KeyState::Next | KeyState::Active | KeyState::Retired);
    let mine = keys.iter().filter(|(_, k)| k.purpose == KeyPurpose::Federation && *k.environment == *path && published(k));
    let (mut set, mut algorithms) = (Vec::new(), Vec::new());
    for (kid, key) in mine {
        set.push(String::from_utf8(jwk(kid, key)?).ok()?);
        if !algorithms.contains(&key.algorithm) {
            algorithms.push(key.algorithm.clone());
        }
    }
    (!set.is_empty()).then(|| (format!("{{\"keys\":[{}]}}", set.join(",")), algorithms))
}

/// The JWK set of all keys of a purpose that are not compromised, including keys that no longer sign.
pub fn jwks_of(keys: &BTreeMap<Box<str>, ManagedKey>, purpose: KeyPurpose) -> String {
    let known = keys.iter().filter(|(_, k)| k.purpose == purpose && k.state != KeyState::Compromised);
    let all: Vec<String> = known.filter_map(|(kid, key)| String::from_utf8(jwk(kid, key)?).ok()).collect();
    format!("{{\"keys\":[{}]}}", all.join(","))
}

/// A key's public part as a JWK; `None` for a key without one, such as a key that derives.
pub fn jwk(kid: &str, key: &ManagedKey) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(512);
    match point(&key.public) {
        Some((x, y)) => {
            out.extend_from_slice(br#"{"kty":"EC","crv":"P-256","x":""#);
            out.extend_from_slice(URL_SAFE_NO_PAD.encode(x).as_bytes());
            out.extend_from_slice(br#"","y":""#);
            out.extend_from_slice(URL_SAFE_NO_PAD.encode(y).as_bytes());
        }
        None => {
            let (modulus, exponent) = rsa_numbers(&key.public)?;
            out.extend_from_slice(br#"{"kty":"RSA","n":""#);
            out.extend_from_slice(URL_SAFE_NO_PAD.encode(modulus).as_bytes());
            out.extend_from_slice(br#"","e":""#);
            out.extend_from_slice(URL_SAFE_NO_PAD.encode(exponent).as_bytes());
        }
    }
    out.extend_from_slice(br#"","use":"sig","alg":"#);
    json::string(&mut out, &key.algorithm);
    out.extend_from_slice(br#","kid":"#);
    json::string(&mut out, kid);
    out.push(b'}');
    Some(out)
}

/// Modulus and exponent of an `RSAPublicKey` (RFC 8017, A.1.1), without leading zeros (RFC 7518, section 6.3.1).
fn rsa_numbers(public: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (after, pair) = Sequence::from_der(public).ok()?;
    let (rest, modulus) = Integer::from_der(&pair.content).ok()?;
    let (end, exponent) = Integer::from_der(rest).ok()?;
    let number = |n: &Integer<'_>| n.as_ref().strip_prefix(&[0]).unwrap_or(n.as_ref()).to_vec();
    (after.is_empty() && end.is_empty()).then(|| (number(&modulus), number(&exponent)))
}

/// Both coordinates of an uncompressed P-256 point (SEC 1, section 2.3.3).
fn point(public: &[u8]) -> Option<(&[u8], &[u8])> {
    match public {
        [4, rest @ ..] if rest.len() == 64 => Some(rest.split_at(32)),
        _ => None,
    }
}
