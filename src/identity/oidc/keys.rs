//! The keys of an OIDC issuer: a JWK set (RFC 7517).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::json;
use crate::jwk::{Algorithm, VerifyingKey};
use mayfly_base::limits;

/// Why a document is not a usable key set. The previous keys stay in effect.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeysDefect {
    /// Not JSON, or a duplicate member name.
    #[error("is not JSON as it must be: {0}")]
    NotJson(String),
    /// No array `keys`.
    #[error("has no array \"keys\"")]
    NoKeys,
    /// More than `limits::OIDC_KEYS` keys.
    #[error("has more than {} keys", limits::OIDC_KEYS)]
    TooMany,
    /// A key that is not an object.
    #[error("keys[{0}] is no object")]
    NotAKey(usize),
    /// Two keys with the same `kid` for the same algorithm, which would be ambiguous.
    #[error("keys[{0}]: its \"kid\" stands at another key for the same algorithm too")]
    KidTwice(usize),
    /// No key can verify signatures.
    #[error("has no key that verifies: EC on P-256, P-384 or P-521, or RSA of 2048 to 8192 bits, with a \"kid\"")]
    NoneUsable,
}

/// The keys of one issuer by `kid`. Keys of different types may share a `kid`; a token's `alg` then selects one (RFC 7517, section 4.5).
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct IssuerKeys {
    keys: BTreeMap<String, Vec<VerifyingKey>>,
}

impl IssuerKeys {
    /// Parses a key set. Keys without `kid`, for another use, or of an unsupported type are ignored (RFC 7517, section 5). That includes
    /// symmetric keys, which are not secret once published.
    pub fn parse(document: &[u8]) -> Result<IssuerKeys, KeysDefect> {
        let value = json::parse(document).map_err(|e| KeysDefect::NotJson(e.to_string()))?;
        let all = value.get("keys").and_then(Value::as_array).ok_or(KeysDefect::NoKeys)?;
        if all.len() > limits::OIDC_KEYS {
            return Err(KeysDefect::TooMany);
        }
        let mut keys: BTreeMap<String, Vec<VerifyingKey>> = BTreeMap::new();
        for (at, jwk) in all.iter().enumerate() {
            let jwk = jwk.as_object().ok_or(KeysDefect::NotAKey(at))?;
            let Some((kid, key)) = verifying(jwk) else { continue };
            let same = keys.entry(kid).or_default();
            let both = |other: &VerifyingKey| Algorithm::ALL.iter().any(|alg| other.serves(*alg) && key.serves(*alg));
            if same.iter().any(both) {
                return Err(KeysDefect::KidTwice(at));
            }
            same.push(key);
        }
        if keys.is_empty() { Err(KeysDefect::NoneUsable) } else { Ok(IssuerKeys { keys }) }
    }

    /// The keys with a `kid`: at most one for each algorithm. Empty where the `kid` is unknown.
    pub fn named(&self, kid: &str) -> &[VerifyingKey] {
        self.keys.get(kid).map_or(&[], Vec::as_slice)
    }

    /// All `kid` values.
    pub fn kids(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }
}

fn verifying(jwk: &Map<String, Value>) -> Option<(String, VerifyingKey)> {
    let kid = jwk.get("kid")?.as_str().filter(|kid| !kid.is_empty() && kid.len() <= limits::NAME_BYTES)?;
    if jwk.get("use").is_some_and(|purpose| purpose != "sig") {
        return None;
    }
    Some((kid.to_owned(), VerifyingKey::from_jwk(jwk).ok()?))
}
