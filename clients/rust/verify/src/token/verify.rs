//! Verification of a mayfly token by a relying service. Everything that is not known to be right is refused.
//!
//! The rule of the signing key is checked before all else, because whoever stole a key chooses every claim. The caller checks the other
//! rules, with [`Claims::facts`](super::Claims::facts).

use std::collections::BTreeMap;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::{Claims, ES256, OWN_VERSION, TYP};
use crate::identity::json;
use crate::identity::jwk;
use crate::identity::jws::CompactJws;
use crate::limits;
use crate::seq::Millis;

/// Why a token is refused, a closed list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenDefect {
    /// Larger than `limits::TOKEN_BYTES`.
    #[error("the token has more than {} bytes", limits::TOKEN_BYTES)]
    TooLong,
    /// Not three parts of base64url with JSON in the first two (RFC 7515, section 7.1).
    #[error("not a compact JWS: {0}")]
    Malformed(String),
    /// An algorithm that mayfly does not sign with, including `none` and MACs.
    #[error("algorithm {0:?} is not one that this issuer signs with (ES256)")]
    Algorithm(String),
    /// Another type of token.
    #[error("typ {0:?} is not at+jwt")]
    Typ(String),
    /// A header parameter that brings a key, must be understood (`crit`), or is never written by mayfly.
    #[error("the header holds {0:?}, which this issuer never writes")]
    HeaderParameter(String),
    /// A revocation covers the signing key.
    #[error("the key {0:?} was revoked")]
    KeyRevoked(String),
    /// The issuer does not publish this key.
    #[error("the issuer has no key {0:?}")]
    UnknownKey(String),
    /// The signature is invalid.
    #[error("the signature does not fit")]
    Signature,
    /// The claims are not those of a mayfly token.
    #[error("claims: {0}")]
    Claims(String),
    /// The claims have a version that this verifier does not know.
    #[error("claims of version {0} are newer than this verifier")]
    Newer(u32),
    /// Another issuer.
    #[error("iss {0:?} is not the expected issuer")]
    Issuer(String),
    /// Another audience.
    #[error("aud {0:?} is not this service")]
    Audience(String),
    /// `exp` has passed.
    #[error("it has expired")]
    Expired,
    /// `nbf` or `iat` is in the future.
    #[error("it is not good yet")]
    NotYet,
    /// The lifetime exceeds the longest that the issuer grants.
    #[error("its life of {0} s is longer than the issuer allows")]
    Life(u64),
    /// The token is bound to a key, and the holder did not prove possession of that key.
    #[error("it is bound to a key that was not proven")]
    Possession,
}

/// The key whose possession the holder proved, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Possession<'a> {
    /// None. Only tokens without `cnf` are accepted.
    None,
    /// SHA-256 of the client certificate of the TLS session, never from a header (RFC 8705, section 3).
    Certificate(&'a [u8; 32]),
    /// SHA-256 thumbprint of the key of a verified DPoP proof (RFC 9449).
    Jwk(&'a [u8; 32]),
}

/// The requirements on a token.
#[derive(Clone, Copy, Debug)]
pub struct TokenRequirements<'a> {
    /// The expected `iss`.
    pub issuer: &'a str,
    /// The expected `aud`.
    pub audience: &'a str,
    /// The present time.
    pub now: Millis,
    /// The longest accepted lifetime, in milliseconds.
    pub max_ttl_ms: u64,
    /// How far the local clock may be behind the issuer's, in milliseconds. Never extends a lifetime.
    pub skew_ms: u64,
    /// The key whose possession the holder proved.
    pub possession: Possession<'a>,
}

/// The public keys of one issuer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Jwks {
    keys: BTreeMap<String, Vec<u8>>,
}

/// Why a JWK set is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a JWK set: {0}")]
pub struct BadJwks(pub String);

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    #[serde(default)]
    kid: Option<String>,
    kty: String,
    #[serde(default)]
    crv: Option<String>,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default, rename = "use")]
    purpose: Option<String>,
    #[serde(default)]
    key_ops: Option<Vec<String>>,
    #[serde(default)]
    x: Option<String>,
    #[serde(default)]
    y: Option<String>,
}

impl Jwks {
    /// Parses a JWK set (RFC 7517). Keys that cannot verify ES256 are left out (section 5); a duplicate `kid` is refused.
    pub fn parse(json: &str) -> Result<Jwks, BadJwks> {
        let set: JwkSet = serde_json::from_str(json).map_err(|e| BadJwks(e.to_string()))?;
        let mut out = Jwks::default();
        for jwk in set.keys {
            let Some(kid) = jwk.kid.clone().filter(|_| jwk.verifies()) else { continue };
            let point = jwk.point().ok_or_else(|| BadJwks(format!("key {kid:?} has no P-256 point")))?;
            if out.keys.insert(kid.clone(), point).is_some() {
                return Err(BadJwks(format!("two keys have the kid {kid:?}")));
            }
        }
        Ok(out)
    }

    /// The ids of the keys.
    pub fn kids(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    #[cfg(test)]
    pub(super) fn points(&self) -> impl Iterator<Item = &[u8]> {
        self.keys.values().map(Vec::as_slice)
    }
}

impl Jwk {
    /// Whether the key is for verifying ES256 signatures and no member contradicts that.
    fn verifies(&self) -> bool {
        self.kty == "EC"
            && self.crv.as_deref() == Some("P-256")
            && self.alg.as_deref().is_none_or(|a| a == ES256)
            && self.purpose.as_deref().is_none_or(|u| u == "sig")
            && self.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|o| o == "verify"))
    }

    fn point(&self) -> Option<Vec<u8>> {
        jwk::point(self.x.as_ref()?, self.y.as_ref()?, 32)
    }
}

/// The header parameters that mayfly writes. All others are refused: `jku`, `x5u`, `jwk` and `x5c` bring a key, `crit` changes the meaning.
#[derive(Deserialize)]
struct Header {
    #[serde(default)]
    alg: Option<String>,
    #[serde(default)]
    typ: Option<String>,
    #[serde(default)]
    kid: Option<String>,
    #[serde(flatten)]
    other: BTreeMap<String, serde_json::Value>,
}

fn malformed(what: impl ToString) -> TokenDefect {
    TokenDefect::Malformed(what.to_string())
}

fn split(token: &str) -> Result<(Header, CompactJws<'_>), TokenDefect> {
    if token.len() > limits::TOKEN_BYTES {
        return Err(TokenDefect::TooLong);
    }
    let parts = CompactJws::split(token).map_err(malformed)?;
    let header = json::parse(&parts.header).and_then(serde_json::from_value).map_err(|e| malformed(format!("header: {e}")))?;
    Ok((header, parts))
}

/// The `kid` that an unverified token names. Use it only to choose an issuer's keys.
pub fn peek_kid(token: &str) -> Option<String> {
    split(token).ok()?.0.kid
}

/// Verifies a token: key rule, header, signature, claims, in this order. `key_revoked` is called first, with the `kid` that the token
/// names.
///
/// Returns the claims and the `kid`. The caller must still check the revocation rules, with [`Claims::facts`](super::Claims::facts).
pub fn verify(
    token: &str,
    keys: &Jwks,
    expect: &TokenRequirements<'_>,
    key_revoked: impl FnOnce(&str) -> bool,
) -> Result<(Claims, String), TokenDefect> {
    let (claims, kid) = verify_signature(token, keys, key_revoked)?;
    check_claims(&claims, expect)?;
    Ok((claims, kid))
}

/// Verifies only that one of these keys signed the token, and returns its claims. Time and audience are not checked.
pub fn authentic(token: &str, keys: &Jwks) -> Result<(Claims, String), TokenDefect> {
    verify_signature(token, keys, |_| false)
}

/// The part of [`verify`] whose result stays valid as long as the keys stay the same: key rule, header, signature, and parsing of the
/// claims.
pub fn verify_signature(
    token: &str,
    keys: &Jwks,
    key_revoked: impl FnOnce(&str) -> bool,
) -> Result<(Claims, String), TokenDefect> {
    let (header, parts) = split(token)?;
    let kid = header.kid.clone().unwrap_or_default();
    if key_revoked(&kid) {
        return Err(TokenDefect::KeyRevoked(kid));
    }
    let payload = signed_payload(header, &parts, keys, Some(TYP))?;
    Ok((read(&payload)?, kid))
}

/// The `kid` of the key that signed the token, whatever its content. If a mayfly key signed something that mayfly never issued, the key is
/// compromised.
pub fn signed_by(token: &str, keys: &Jwks) -> Option<String> {
    let (header, parts) = split(token).ok()?;
    let kid = header.kid.clone().unwrap_or_default();
    signed_payload(header, &parts, keys, None).ok().map(|_| kid)
}

/// The payload, after header and signature were verified. `typ`: the expected type, `None` to skip the check.
fn signed_payload(header: Header, parts: &CompactJws<'_>, keys: &Jwks, typ: Option<&str>) -> Result<Vec<u8>, TokenDefect> {
    let Header { alg, typ: found, kid, other } = header;
    let (alg, kid) = (alg.unwrap_or_default(), kid.unwrap_or_default());
    if alg != ES256 {
        return Err(TokenDefect::Algorithm(alg));
    }
    if typ.is_some_and(|typ| found.as_deref() != Some(typ)) {
        return Err(TokenDefect::Typ(found.unwrap_or_default()));
    }
    if let Some(name) = other.into_keys().next() {
        return Err(TokenDefect::HeaderParameter(name));
    }
    let key = keys.keys.get(&kid).ok_or(TokenDefect::UnknownKey(kid))?;
    let signature = parts.signature().ok_or(TokenDefect::Signature)?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key)
        .verify(parts.signed.as_bytes(), &signature)
        .map_err(|_| TokenDefect::Signature)?;
    parts.payload().ok_or_else(|| malformed("the payload is not base64url"))
}

/// Parses the claims. A duplicate name in any object is refused, since two readers could each use a different value.
fn read(payload: &[u8]) -> Result<Claims, TokenDefect> {
    let defect = |e: serde_json::Error| TokenDefect::Claims(e.to_string());
    match json::parse(payload).map_err(defect)? {
        claims @ serde_json::Value::Object(_) => serde_json::from_value(claims).map_err(defect),
        _ => Err(TokenDefect::Claims("a payload is an object".into())),
    }
}

/// The part of [`verify`] whose result may change at any time: issuer, audience, lifetime and key binding.
pub fn check_claims(claims: &Claims, expect: &TokenRequirements<'_>) -> Result<(), TokenDefect> {
    if claims.own.v > OWN_VERSION {
        return Err(TokenDefect::Newer(claims.own.v));
    }
    if claims.iss != expect.issuer {
        return Err(TokenDefect::Issuer(claims.iss.clone()));
    }
    if claims.aud != expect.audience {
        return Err(TokenDefect::Audience(claims.aud.clone()));
    }
    // A stolen key can evade every rule except its own, which may take a while to arrive. The bound on lifetimes limits the damage until
    // then.
    let life = claims.exp.saturating_sub(claims.iat);
    if life == 0 || life.saturating_mul(1000) > expect.max_ttl_ms {
        return Err(TokenDefect::Life(life));
    }
    // Skew is allowed for the beginning of validity only, never to postpone its end.
    if expect.now >= Millis::from_seconds(claims.exp) {
        return Err(TokenDefect::Expired);
    }
    if Millis::from_seconds(claims.nbf.max(claims.iat)) > expect.now.plus(expect.skew_ms) {
        return Err(TokenDefect::NotYet);
    }
    let actors = std::iter::successors(claims.act.as_deref(), |a| a.act.as_deref()).count();
    let own = &claims.own;
    let too_many = own.tasks.len() > limits::TASK_DEPTH || own.ancestors.len() > limits::ANCESTORS || actors > limits::ACT_CHAIN;
    if too_many || own.rests_on.len() > limits::GROUNDS {
        return Err(TokenDefect::Claims("more tasks, ancestors, actors or grounds than there can be".into()));
    }
    possessed(claims, expect.possession)
}

fn possessed(claims: &Claims, possession: Possession<'_>) -> Result<(), TokenDefect> {
    let Some(cnf) = &claims.cnf else { return Ok(()) };
    let named = match (&cnf.x5t, &cnf.jkt, possession) {
        (Some(x5t), None, Possession::Certificate(hash)) => (x5t, hash),
        (None, Some(jkt), Possession::Jwk(hash)) => (jkt, hash),
        _ => return Err(TokenDefect::Possession),
    };
    match URL_SAFE_NO_PAD.decode(named.0) {
        Ok(bytes) if bytes == named.1 => Ok(()),
        _ => Err(TokenDefect::Possession),
    }
}

#[cfg(test)]
pub(super) fn signature_alone(token: &str, keys: &Jwks) -> Result<Vec<u8>, TokenDefect> {
    let (header, parts) = split(token)?;
    signed_payload(header, &parts, keys, None)
}
