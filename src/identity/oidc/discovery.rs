//! What an OIDC issuer says of itself (OIDC Discovery 1.0), and which of its addresses may be asked.

use http::Uri;
use serde_json::Value;

use crate::identity::json;
use crate::limits;

/// Where an issuer's document lies below its URL (OIDC Discovery, section 4).
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// Why a discovery document is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DiscoveryDefect {
    /// Not JSON, or a name stands twice in an object.
    #[error("is not JSON as it must be: {0}")]
    NotJson(String),
    /// Another issuer, or none.
    #[error("says that its issuer is {0:?}: it is the configured one, byte for byte (OIDC Discovery, 4.3)")]
    Issuer(String),
    /// No `jwks_uri`.
    #[error("has no \"jwks_uri\"")]
    NoKeys,
    /// An address that is none, or not of the safe kind.
    #[error("its {0:?} is no https URL (http only on loopback, where the issuer is there too)")]
    Url(&'static str),
    /// Keys at another place than the issuer's.
    #[error("its \"jwks_uri\" is at another host or port than the issuer: name that URL as jwks where it is right")]
    OtherOrigin,
}

/// A discovery document, as far as it is used. `jwks_uri` lies at the issuer's own host and port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Discovery {
    /// Where its keys are.
    pub jwks_uri: String,
    /// Where people log in.
    pub authorization_endpoint: Option<String>,
    /// Where codes become tokens.
    pub token_endpoint: Option<String>,
    /// Where a device asks for a code (RFC 8628).
    pub device_authorization_endpoint: Option<String>,
}

impl Discovery {
    /// Reads the document of an issuer.
    pub fn parse(document: &[u8], issuer: &str) -> Result<Discovery, DiscoveryDefect> {
        let value = json::parse(document).map_err(|e| DiscoveryDefect::NotJson(e.to_string()))?;
        let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        if text("issuer").as_deref() != Some(issuer) {
            let said: String = text("issuer").unwrap_or_default().chars().take(limits::NAME_BYTES).collect();
            return Err(DiscoveryDefect::Issuer(said));
        }
        let loopback = issuer.starts_with("http://");
        let url = |name: &'static str| match text(name) {
            Some(url) if safe_url(&url, loopback) => Ok(Some(url)),
            Some(_) => Err(DiscoveryDefect::Url(name)),
            None => Ok(None),
        };
        let jwks_uri = url("jwks_uri")?.ok_or(DiscoveryDefect::NoKeys)?;
        if origin(&jwks_uri) != origin(issuer) {
            return Err(DiscoveryDefect::OtherOrigin);
        }
        Ok(Discovery {
            jwks_uri,
            authorization_endpoint: url("authorization_endpoint")?,
            token_endpoint: url("token_endpoint")?,
            device_authorization_endpoint: url("device_authorization_endpoint")?,
        })
    }
}

/// Where the document of an issuer is.
pub fn document_url(issuer: &str) -> String {
    format!("{}{WELL_KNOWN}", issuer.trim_end_matches('/'))
}

/// Whether a text is the URL of an issuer: https, or http on loopback; no user, query or fragment.
pub fn issuer_url(text: &str) -> bool {
    safe_url(text, true) && !text.contains('?')
}

/// Whether an address may be asked: https; or http, where that is allowed, on loopback.
pub fn safe_url(text: &str, loopback: bool) -> bool {
    let plain = text.bytes().all(|b| b.is_ascii_graphic()) && !text.contains(['@', '#', '\\']);
    let Some((scheme, host, _)) = origin(text).filter(|_| plain && text.len() <= limits::SPIFFE_ID_BYTES) else { return false };
    scheme == "https" || (loopback && scheme == "http" && is_loopback(&host))
}

fn is_loopback(host: &str) -> bool {
    ["localhost", "127.0.0.1", "[::1]"].contains(&host)
}

/// Scheme, host and port.
pub fn origin(text: &str) -> Option<(String, String, u16)> {
    let uri: Uri = text.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let usual = match scheme.as_str() {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    let host = uri.host().filter(|host| !host.is_empty())?.to_ascii_lowercase();
    // http::Uri drops a port above 65535 without a word: what follows the host is read here.
    let port = match uri.authority()?.as_str().strip_prefix(uri.host()?)? {
        "" => usual,
        port => port.strip_prefix(':')?.parse().ok()?,
    };
    Some((scheme, host, port))
}
