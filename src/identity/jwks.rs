//! The SPIFFE bundle document: a JWK set with two members of its own (SPIFFE-Trust-Domain-and-Bundle, section 4; X509-SVID, section 6).

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

use super::anchor::TrustAnchor;
use super::bundle::{Bundle, BundleDefect, Contents, JwtAuthority};
use super::json;
use crate::limits;

/// Reads the document. A key whose `use` is absent or unknown is passed by, as the standard asks; all else that is wrong refuses the whole.
pub(super) fn contents(document: &[u8]) -> Result<Contents, BundleDefect> {
    let value = json::parse(document).map_err(|e| BundleDefect::NotJson(e.to_string()))?;
    let Value::Object(members) = value else { return Err(BundleDefect::Member("a bundle is a JSON object")) };
    let keys = members.get("keys").and_then(Value::as_array).ok_or(BundleDefect::NoKeysMember)?;
    if keys.len() > limits::BUNDLE_AUTHORITIES {
        return Err(BundleDefect::TooManyAuthorities);
    }
    let mut contents = Contents {
        sequence: number(&members, "spiffe_sequence", "spiffe_sequence is a whole number from 0 to 2^64 - 1")?,
        refresh_hint_s: number(&members, "spiffe_refresh_hint", "spiffe_refresh_hint is a whole number of seconds")?,
        ..Contents::default()
    };
    for (at, key) in keys.iter().enumerate() {
        read_key(at, key, &mut contents)?;
    }
    Ok(contents)
}

fn number(members: &Map<String, Value>, name: &str, rule: &'static str) -> Result<Option<u64>, BundleDefect> {
    members.get(name).map(|v| v.as_u64().ok_or(BundleDefect::Member(rule))).transpose()
}

fn read_key(at: usize, key: &Value, contents: &mut Contents) -> Result<(), BundleDefect> {
    let members = key.as_object().filter(|m| m.get("kty").is_some_and(Value::is_string)).ok_or(BundleDefect::NotAKey(at))?;
    match members.get("use").and_then(Value::as_str) {
        Some("x509-svid") => contents.anchors.push(x509(at, members)?),
        Some("jwt-svid") => {
            let kid = members.get("kid").and_then(Value::as_str).filter(|kid| !kid.is_empty());
            let kid = kid.ok_or(BundleDefect::JwtWithoutKid(at))?.to_owned();
            if contents.jwt.iter().any(|other| other.kid == kid) {
                return Err(BundleDefect::KidTwice(at));
            }
            contents.jwt.push(JwtAuthority { kid, jwk: key.clone() });
        }
        _ => contents.ignored_keys += 1,
    }
    Ok(())
}

fn x509(at: usize, members: &Map<String, Value>) -> Result<TrustAnchor, BundleDefect> {
    if members.contains_key("kid") {
        return Err(BundleDefect::X509WithKid(at));
    }
    let chain = members.get("x5c").and_then(Value::as_array).map(Vec::as_slice);
    let Some([Value::String(text)]) = chain else { return Err(BundleDefect::X5cNotOne(at)) };
    let der = STANDARD.decode(text).map_err(|_| BundleDefect::Certificate(at))?;
    TrustAnchor::from_der(&der).ok_or(BundleDefect::Certificate(at))
}

/// The document of what a bundle holds: reading it gives an equal bundle, but for keys that were passed by.
pub(super) fn document(bundle: &Bundle) -> String {
    let x509 = bundle.x509_authorities().iter().map(|anchor| {
        let mut key = public_key(anchor);
        key.insert("use".to_owned(), "x509-svid".into());
        key.insert("x5c".to_owned(), vec![STANDARD.encode(anchor.der())].into());
        Value::Object(key)
    });
    let keys: Vec<Value> = x509.chain(bundle.jwt_authorities().iter().map(|a| a.jwk.clone())).collect();
    let mut members = Map::new();
    members.insert("keys".to_owned(), keys.into());
    let numbers = [("spiffe_sequence", bundle.sequence()), ("spiffe_refresh_hint", bundle.refresh_hint_s())];
    members.extend(numbers.into_iter().filter_map(|(name, n)| Some((name.to_owned(), n?.into()))));
    Value::Object(members).to_string()
}

/// An anchor's key as a JWK (RFC 7518, section 6; RFC 8037). One of another kind is named only: its certificate says the rest.
fn public_key(anchor: &TrustAnchor) -> Map<String, Value> {
    let mut members = Map::new();
    let mut set = |name: &str, value: &str| drop(members.insert(name.to_owned(), value.into()));
    let parsed = X509Certificate::from_der(anchor.der()).ok();
    let spki = parsed.as_ref().map(|(_, cert)| cert.public_key());
    match spki.and_then(|k| k.parsed().ok()) {
        Some(PublicKey::RSA(key)) => {
            set("kty", "RSA");
            set("n", &URL_SAFE_NO_PAD.encode(without_zeros(key.modulus)));
            set("e", &URL_SAFE_NO_PAD.encode(without_zeros(key.exponent)));
        }
        Some(PublicKey::EC(point)) => {
            set("kty", "EC");
            if let Some((&4, point)) = point.data().split_first() {
                let (x, y) = point.split_at(point.len() / 2);
                set(
                    "crv",
                    if x.len() == 32 {
                        "P-256"
                    } else if x.len() == 48 {
                        "P-384"
                    } else {
                        "P-521"
                    },
                );
                set("x", &URL_SAFE_NO_PAD.encode(x));
                set("y", &URL_SAFE_NO_PAD.encode(y));
            }
        }
        _ => {
            set("kty", "OKP");
            set("crv", "Ed25519");
            let key = spki.map(|k| k.subject_public_key.data.to_vec()).unwrap_or_default();
            set("x", &URL_SAFE_NO_PAD.encode(key));
        }
    }
    members
}

fn without_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|b| **b == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}
