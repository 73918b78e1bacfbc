//! The endpoints of an authorization server: those of the registration, or those of the issuer's metadata (RFC 8414, OpenID Connect Discovery).
//!
//! An endpoint that gets mayfly's own secret must be where the registration says: at the host and port of the issuer whose metadata name it,
//! or named in the registration itself. So metadata cannot make mayfly send its secret, or any request, to another host.

use serde::Deserialize;

use super::settings::{OauthClient, same_origin};
use crate::access::https::{UpstreamHttps, UpstreamRequest};
use mayfly_base::document::terminal_text::{cut, one_line};
use mayfly_base::document::url::WebUrl;
use mayfly_base::limits;

/// The endpoints of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerEndpoints {
    /// Tokens are asked for here.
    pub token: String,
    /// Tokens are revoked here (RFC 7009).
    pub revocation: Option<String>,
    /// Tokens are looked at here (RFC 7662).
    pub introspection: Option<String>,
    /// People sign in here.
    pub authorization: Option<String>,
    /// Devices ask for a code here (RFC 8628).
    pub device: Option<String>,
    /// `aud` of assertions.
    pub assertion_audience: String,
}

/// The fields of metadata that mayfly uses.
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    token_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
    introspection_endpoint: Option<String>,
    authorization_endpoint: Option<String>,
    device_authorization_endpoint: Option<String>,
}

/// The endpoints of the registration; `None`: the issuer's metadata name them.
pub fn configured(client: &OauthClient) -> Option<ServerEndpoints> {
    let token = client.token_endpoint.clone()?;
    let audience = client.assertion_audience.as_ref().or(client.issuer.as_ref()).unwrap_or(&token).clone();
    Some(ServerEndpoints {
        revocation: client.revocation_endpoint.clone(),
        introspection: client.introspection_endpoint.clone(),
        authorization: client.authorization_endpoint.clone(),
        device: client.device_authorization_endpoint.clone(),
        assertion_audience: audience,
        token,
    })
}

/// The URLs of an issuer's metadata, in the order in which they are tried: RFC 8414, section 3.1, and OpenID Connect Discovery, section 4.
fn document_urls(issuer: &str) -> Option<[String; 2]> {
    let url = WebUrl::parse(issuer)?;
    let scheme = if url.https { "https" } else { "http" };
    let path = url.path.trim_end_matches('/');
    Some([
        format!("{scheme}://{}/.well-known/oauth-authorization-server{path}", url.authority()),
        format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/')),
    ])
}

/// Fetches the metadata of the client's issuer. The error says what is wrong with them.
pub async fn discover(https: &UpstreamHttps, client: &OauthClient) -> Result<ServerEndpoints, String> {
    let issuer = client.issuer.as_deref().ok_or("the registration names neither issuer nor token_endpoint")?;
    let urls = document_urls(issuer).ok_or_else(|| format!("{issuer} is no URL of an issuer"))?;
    let mut missing = String::new();
    for url in urls {
        let answer = https.call(UpstreamRequest::get(&url)).await.map_err(|e| format!("the metadata of {issuer}: {e}"))?;
        match answer.status.as_u16() {
            200 => return parse(answer.body(), client, issuer).map_err(|what| format!("{url} {what}")),
            // Not at this place, or not for everybody.
            400..=499 => missing = format!("{url} answered {}", answer.status.as_u16()),
            status => return Err(format!("{url} answered {status}, expected 200")),
        }
    }
    Err(format!(
        "{issuer} has no metadata: {missing}; to mend it: name token_endpoint and revocation_endpoint in the registration"
    ))
}

fn parse(document: &[u8], client: &OauthClient, issuer: &str) -> Result<ServerEndpoints, String> {
    let told: Metadata =
        serde_json::from_slice(document).map_err(|e| format!("is no metadata of an authorization server: {e}"))?;
    if told.issuer != issuer {
        let said = one_line(&cut(&told.issuer, limits::NAME_BYTES));
        return Err(format!("says that its issuer is {said:?}: it must be {issuer:?}, byte for byte (RFC 8414, section 3.3)"));
    }
    let endpoint = |key: &str, configured: &Option<String>, found: Option<String>, secret: bool| match (configured, found) {
        (Some(url), _) => Ok(Some(url.clone())),
        (None, None) => Ok(None),
        (None, Some(url)) => {
            let shown = one_line(&cut(&url, limits::NAME_BYTES));
            match WebUrl::parse(&url) {
                Some(parsed) if parsed.https || same_origin(&url, issuer) => {}
                _ => return Err(format!("has {key} {shown:?}, which is no https URL")),
            }
            match secret && !same_origin(&url, issuer) {
                true => Err(format!(
                    "has {key} {shown:?}, at another host or port than the issuer; if that is right: name it in the registration, as {key}"
                )),
                false => Ok(Some(url)),
            }
        }
    };
    let token = endpoint("token_endpoint", &client.token_endpoint, told.token_endpoint, true)?.ok_or("has no token_endpoint")?;
    Ok(ServerEndpoints {
        revocation: endpoint("revocation_endpoint", &client.revocation_endpoint, told.revocation_endpoint, true)?,
        introspection: endpoint("introspection_endpoint", &client.introspection_endpoint, told.introspection_endpoint, true)?,
        authorization: endpoint("authorization_endpoint", &client.authorization_endpoint, told.authorization_endpoint, false)?,
        device: endpoint(
            "device_authorization_endpoint",
            &client.device_authorization_endpoint,
            told.device_authorization_endpoint,
            true,
        )?,
        assertion_audience: client.assertion_audience.clone().unwrap_or_else(|| issuer.to_owned()),
        token,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn client() -> OauthClient {
        let client =
            json!({ "issuer": "https://as.example/t", "client_id": "c", "client_auth": "client_secret_basic", "lifetime": "1h" });
        serde_json::from_value(client).unwrap()
    }

    fn parsed(change: impl FnOnce(&mut serde_json::Value)) -> Result<ServerEndpoints, String> {
        let mut document = json!({
            "issuer": "https://as.example/t",
            "token_endpoint": "https://as.example/token",
            "revocation_endpoint": "https://as.example/revoke",
            "authorization_endpoint": "https://login.example/authorize",
            "grant_types_supported": ["client_credentials"],
        });
        change(&mut document);
        parse(document.to_string().as_bytes(), &client(), "https://as.example/t")
    }

    #[test]
    fn metadata_are_looked_for_in_both_places() {
        let urls = document_urls("https://as.example/t").unwrap();
        assert_eq!(urls[0], "https://as.example/.well-known/oauth-authorization-server/t");
        assert_eq!(urls[1], "https://as.example/t/.well-known/openid-configuration");
        assert_eq!(document_urls("https://as.example/").unwrap()[0], "https://as.example/.well-known/oauth-authorization-server");
        assert_eq!(document_urls("http://as.example"), None);
    }

    #[test]
    fn only_the_issuers_own_endpoints_get_a_secret() {
        let found = parsed(|_| {}).unwrap();
        assert_eq!(found.token, "https://as.example/token");
        assert_eq!(found.authorization.as_deref(), Some("https://login.example/authorize"));
        assert_eq!(found.assertion_audience, "https://as.example/t");
        for (key, url, said) in [
            ("issuer", "https://as.example/T", "byte for byte"),
            ("issuer", "https://as.example/t/", "byte for byte"),
            ("token_endpoint", "https://evil.example/token", "another host or port"),
            ("revocation_endpoint", "https://as.example:8443/revoke", "another host or port"),
            ("token_endpoint", "http://as.example/token", "no https URL"),
            ("authorization_endpoint", "javascript:alert(1)", "no https URL"),
        ] {
            let no = parsed(|document| document[key] = url.into()).unwrap_err();
            assert!(no.contains(said), "{key} {url}: {no}");
        }
        let no = parsed(|document| drop(document.as_object_mut().unwrap().remove("token_endpoint"))).unwrap_err();
        assert!(no.contains("no token_endpoint"), "{no}");
        assert!(parse(b"<html>", &client(), "https://as.example/t").is_err());
    }

    #[test]
    fn an_endpoint_of_the_registration_counts_before_that_of_the_metadata() {
        let client = OauthClient { token_endpoint: Some("https://other.example/token".into()), ..client() };
        let document = json!({ "issuer": "https://as.example/t", "token_endpoint": "https://evil.example/token" });
        let found = parse(document.to_string().as_bytes(), &client, "https://as.example/t").unwrap();
        assert_eq!(found.token, "https://other.example/token");
        assert_eq!(configured(&client).unwrap().token, "https://other.example/token");
        assert_eq!(configured(&self::client()), None);
    }
}
