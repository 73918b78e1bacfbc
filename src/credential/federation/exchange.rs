//! The exchange of an assertion for a token of the vendor, at the token endpoint of the registration.

use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use super::settings::{ExchangeGrant, TokenExchange};
use crate::access::https::{UpstreamHttps, UpstreamRequest, UpstreamResponse};
use crate::connector::MakeError;

/// A token of the vendor.
pub struct ExchangedToken {
    /// The token.
    pub token: Zeroizing<String>,
    /// The token's life, seconds.
    pub lives_s: u64,
}

/// RFC 6749, section 5.1.
#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(deserialize_with = "wiped")]
    access_token: Zeroizing<String>,
    token_type: String,
    expires_in: Option<u64>,
}

fn wiped<'de, D: Deserializer<'de>>(from: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(from).map(Zeroizing::new)
}

/// RFC 6749, section 5.2.
#[derive(Deserialize)]
struct ErrorAnswer {
    error: String,
    #[serde(default)]
    error_description: String,
}

const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const CLIENT_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// Exchanges an assertion. `scopes`: those of the credential.
pub async fn exchange(
    client: &UpstreamHttps,
    with: &TokenExchange,
    assertion: String,
    scopes: &[String],
) -> Result<ExchangedToken, MakeError> {
    let assertion = Zeroizing::new(assertion);
    let granted = with.scopes.iter().filter(|s| scopes.contains(&s.scope)).flat_map(|s| s.vendor.iter().map(String::as_str));
    let scope = granted.collect::<Vec<_>>().join(" ");
    let mut fields: Vec<(&str, &str, bool)> = match with.grant {
        ExchangeGrant::TokenExchange => vec![
            ("grant_type", TOKEN_EXCHANGE, false),
            ("subject_token", &assertion, true),
            ("subject_token_type", JWT, false),
            ("requested_token_type", ACCESS_TOKEN, false),
        ],
        ExchangeGrant::JwtBearer => vec![("grant_type", JWT_BEARER, false), ("assertion", &assertion, true)],
        ExchangeGrant::ClientAssertion => vec![
            ("grant_type", "client_credentials", false),
            ("client_assertion_type", CLIENT_ASSERTION, false),
            ("client_assertion", &assertion, true),
        ],
    };
    let more = [("audience", &with.audience), ("resource", &with.resource), ("client_id", &with.client_id)];
    fields.extend(more.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?, false))));
    if !scope.is_empty() {
        fields.push(("scope", &scope, false));
    }
    let answer = client.call(UpstreamRequest::post(&with.url).form(&fields)).await?;
    token(&answer, &with.url)
}

fn token(answer: &UpstreamResponse, url: &str) -> Result<ExchangedToken, MakeError> {
    let status = answer.status.as_u16();
    if !answer.status.is_success() {
        let said = match answer.json::<ErrorAnswer>() {
            Ok(ErrorAnswer { error, error_description }) => {
                answer.told(format!("{error}: {error_description}").trim_end_matches(": "))
            }
            Err(_) => "it gives no reason in the form of RFC 6749, section 5.2".to_owned(),
        };
        let no = format!("{url} refused the assertion (status {status}): {said}");
        // A server that failed may have made a token, which nobody received.
        return Err(if answer.status.is_server_error() { MakeError::Unknown(no) } else { MakeError::Refused(no) });
    }
    let TokenAnswer { access_token, token_type, expires_in } =
        answer.json().map_err(|what| MakeError::Unknown(format!("{url}: {what}")))?;
    let unusable = |what: &str| MakeError::Unknown(format!("{url} gave a token {what}"));
    if !token_type.eq_ignore_ascii_case("bearer") {
        return Err(unusable("that is no bearer token"));
    }
    if access_token.is_empty() || !access_token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(unusable("that no header can hold"));
    }
    // Without `expires_in`, nobody knows when the lease may be closed.
    let lives_s = expires_in.ok_or_else(|| unusable("without expires_in, so nobody knows when it ends"))?;
    Ok(ExchangedToken { token: access_token, lives_s })
}
