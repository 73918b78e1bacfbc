//! Parses the SPIFFE bundle document: a JWK set with two additional members (SPIFFE-Trust-Domain-and-Bundle, section 4; X509-SVID, section
//! 6).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::anchor::TrustAnchor;
use super::bundle::{BundleDefect, Contents, JwtAuthority};
use super::json;
use crate::limits;

/// Parses the document. A key whose `use` is absent or unknown is ignored, as the standard requires; any other defect refuses the whole
/// document.
pub(super) fn contents(document: &[u8]) -> Result<Contents, BundleDefect> {
    read(document, |at, members, contents| {
        match members.get("use").and_then(Value::as_str) {
            Some("x509-svid") => contents.anchors.push(x509(at, members)?),
            Some("jwt-svid") => contents.jwt.push(jwt(at, members, &contents.jwt)?),
            _ => contents.ignored_keys += 1,
        }
        Ok(())
    })
}

/// The same for a plain JWK set: a key without `use` counts as a JWT-SVID key, and no X.509 authority is read.
pub(super) fn jwt_contents(document: &[u8]) -> Result<Contents, BundleDefect> {
    read(document, |at, members, contents| {
        if members.get("use").is_none_or(|purpose| purpose == "jwt-svid") {
            contents.jwt.push(jwt(at, members, &contents.jwt)?);
        } else {
            contents.ignored_keys += 1;
        }
        Ok(())
    })
}

type ReadKey = fn(usize, &Map<String, Value>, &mut Contents) -> Result<(), BundleDefect>;

fn read(document: &[u8], key: ReadKey) -> Result<Contents, BundleDefect> {
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
    for (at, value) in keys.iter().enumerate() {
        let members = value.as_object().filter(|m| m.get("kty").is_some_and(Value::is_string));
        key(at, members.ok_or(BundleDefect::NotAKey(at))?, &mut contents)?;
    }
    Ok(contents)
}

fn number(members: &Map<String, Value>, name: &str, rule: &'static str) -> Result<Option<u64>, BundleDefect> {
    members.get(name).map(|v| v.as_u64().ok_or(BundleDefect::Member(rule))).transpose()
}

fn jwt(at: usize, members: &Map<String, Value>, others: &[JwtAuthority]) -> Result<JwtAuthority, BundleDefect> {
    let kid = members.get("kid").and_then(Value::as_str).filter(|kid| !kid.is_empty());
    let kid = kid.ok_or(BundleDefect::JwtWithoutKid(at))?;
    if others.iter().any(|other| other.kid() == kid) {
        return Err(BundleDefect::KidTwice(at));
    }
    Ok(JwtAuthority::new(kid.to_owned(), Value::Object(members.clone())))
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
