//! What an OIDC issuer says of itself (OIDC Discovery 1.0), and which of its addresses may be asked.

use serde_json::Value;

use crate::document::url::WebUrl;
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
        let issuer = WebUrl::parse(issuer);
        let in_clear = issuer.as_ref().is_some_and(|own| !own.https);
        let url = |name: &'static str| match text(name) {
            Some(url) => match WebUrl::parse(&url).filter(|url| url.https || in_clear) {
                Some(url) => Ok(Some(url)),
                None => Err(DiscoveryDefect::Url(name)),
            },
            None => Ok(None),
        };
        let endpoint = |name| Ok(url(name)?.map(|url| url.as_str().to_owned()));
        let jwks_uri = url("jwks_uri")?.ok_or(DiscoveryDefect::NoKeys)?;
        if !issuer.is_some_and(|own| own.same_origin(&jwks_uri)) {
            return Err(DiscoveryDefect::OtherOrigin);
        }
        Ok(Discovery {
            jwks_uri: jwks_uri.as_str().to_owned(),
            authorization_endpoint: endpoint("authorization_endpoint")?,
            token_endpoint: endpoint("token_endpoint")?,
            device_authorization_endpoint: endpoint("device_authorization_endpoint")?,
        })
    }
}

/// Where the document of an issuer is.
pub fn document_url(issuer: &str) -> String {
    format!("{}{WELL_KNOWN}", issuer.trim_end_matches('/'))
}

/// Whether a text is the URL of an issuer: https, or http on loopback; no user, query or fragment.
pub fn issuer_url(text: &str) -> bool {
    WebUrl::parse(text).is_some() && !text.contains('?')
}
