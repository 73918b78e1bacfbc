//! The discovery document of an OIDC issuer (OIDC Discovery 1.0), and the check of the URLs in it.

use serde_json::Value;

use crate::json;
use mayfly_base::document::url::WebUrl;
use mayfly_base::limits;

/// The path of the discovery document below the issuer's URL (OIDC Discovery, section 4).
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// Why a discovery document is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DiscoveryDefect {
    /// Not JSON, or a duplicate member name.
    #[error("is not JSON as it must be: {0}")]
    NotJson(String),
    /// `issuer` is missing or not the configured issuer.
    #[error("says that its issuer is {0:?}: it is the configured one, byte for byte (OIDC Discovery, 4.3)")]
    Issuer(String),
    /// No `jwks_uri`.
    #[error("has no \"jwks_uri\"")]
    NoKeys,
    /// A URL that is invalid or not https.
    #[error("its {0:?} is no https URL (http only on loopback, where the issuer is there too)")]
    Url(&'static str),
    /// The keys are at another origin than the issuer.
    #[error("its \"jwks_uri\" is at another host or port than the issuer: name that URL as jwks where it is right")]
    OtherOrigin,
}

/// The fields of a discovery document that mayfly uses. `jwks_uri` is at the issuer's own host and port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Discovery {
    /// The URL of the issuer's keys.
    pub jwks_uri: String,
    /// The endpoint where people log in.
    pub authorization_endpoint: Option<String>,
    /// The endpoint that exchanges codes for tokens.
    pub token_endpoint: Option<String>,
    /// The endpoint where a device requests a code (RFC 8628).
    pub device_authorization_endpoint: Option<String>,
}

impl Discovery {
    /// Parses the document of an issuer.
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

/// The URL of an issuer's document.
pub fn document_url(issuer: &str) -> String {
    format!("{}{WELL_KNOWN}", issuer.trim_end_matches('/'))
}

/// Whether a text is a valid issuer URL: https, or http on loopback, without user, query and fragment.
pub fn issuer_url(text: &str) -> bool {
    WebUrl::parse(text).is_some() && !text.contains('?')
}
