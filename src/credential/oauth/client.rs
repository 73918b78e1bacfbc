//! Calls to an authorization server: the token endpoint, revocation (RFC 7009) and introspection (RFC 7662), with mayfly authenticated as a
//! client.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::assertion::Assertion;
use super::metadata::{self, ServerEndpoints};
use super::settings::{ClientAuth, OauthClient, OauthSettings};
use crate::access::UpstreamAccess;
use crate::access::https::{CallOutcome, UpstreamCallError, UpstreamHttps, UpstreamRequest, UpstreamResponse, form_encoded};
use crate::connector::{MakeError, UndoError};
use mayfly_base::limits;
use mayfly_base::system::System;

/// `client_assertion_type` of RFC 7523, section 2.2.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// The error by which a server says that a grant is no longer valid (RFC 6749, section 5.2).
pub const INVALID_GRANT: &str = "invalid_grant";

/// Why there is no token, or no other answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OauthProblem {
    /// The server was not asked: not reached, or mayfly's own secret is missing.
    #[error("{0}")]
    NotAsked(String),
    /// The server was not asked: others are working with the grant.
    #[error("{0}")]
    Busy(String),
    /// The server refused, with an error of RFC 6749, section 5.2, or of its own. Nothing was made.
    #[error("{error}: {told}")]
    Refused {
        /// `error`.
        error: String,
        /// The description, and what would mend it.
        told: String,
    },
    /// There is no usable answer: a token may have been made.
    #[error("{0}")]
    Unclear(String),
}

impl OauthProblem {
    /// Whether the server said that the grant itself is no longer valid. Nothing else means that.
    pub fn ends_the_grant(&self) -> bool {
        matches!(self, OauthProblem::Refused { error, .. } if error == INVALID_GRANT)
    }
}

impl From<UpstreamCallError> for OauthProblem {
    fn from(error: UpstreamCallError) -> OauthProblem {
        match error.outcome {
            CallOutcome::NotSent => OauthProblem::NotAsked(error.to_string()),
            CallOutcome::PerhapsDone => OauthProblem::Unclear(error.to_string()),
        }
    }
}

impl From<OauthProblem> for MakeError {
    fn from(problem: OauthProblem) -> MakeError {
        match problem {
            OauthProblem::Unclear(why) => MakeError::Unknown(why),
            OauthProblem::Busy(why) => MakeError::Busy(why),
            other => MakeError::Refused(other.to_string()),
        }
    }
}

impl From<OauthProblem> for UndoError {
    fn from(problem: OauthProblem) -> UndoError {
        UndoError(problem.to_string())
    }
}

/// The answer of a token endpoint.
pub struct TokenAnswer {
    /// The access token.
    pub access_token: Zeroizing<String>,
    /// How long it lives, seconds, if the server said so.
    pub expires_in: Option<u64>,
    /// The token's scopes, if the server said so.
    pub scope: Option<Vec<String>>,
    /// A refresh token, which replaces the one that was sent.
    pub refresh_token: Option<Zeroizing<String>>,
}

impl fmt::Debug for TokenAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TokenAnswer { expires_in, scope, .. } = self;
        f.debug_struct("TokenAnswer").field("expires_in", expires_in).field("scope", scope).finish_non_exhaustive()
    }
}

/// A field of a form: name, value, and whether the value is a secret.
pub type FormField<'a> = (&'a str, &'a str, bool);

enum ClientSecret {
    None,
    Secret(Zeroizing<String>),
    Key(Zeroizing<String>),
}

/// The endpoints that were discovered, by issuer and upstream.
#[derive(Default)]
pub struct EndpointCache {
    known: Mutex<HashMap<(String, String), (u64, ServerEndpoints)>>,
}

/// mayfly as a client of one authorization server.
pub struct OauthSession {
    https: UpstreamHttps,
    client: OauthClient,
    /// The endpoints.
    pub endpoints: ServerEndpoints,
    upstream: String,
    secret: ClientSecret,
    system: System,
}

impl OauthSession {
    /// Reads mayfly's own secret, and finds the endpoints. Nothing is asked of the server but its metadata.
    pub async fn open(
        access: &UpstreamAccess,
        cache: &EndpointCache,
        upstream: &str,
        client: &OauthClient,
    ) -> Result<OauthSession, OauthProblem> {
        let not_asked = |why: String| OauthProblem::NotAsked(why);
        let (name, of, files) = (upstream.to_owned(), client.clone(), access.clone());
        let read = tokio::task::spawn_blocking(move || read_secret(&files, &name, &of)).await;
        let (secret, https) = read.map_err(|e| not_asked(e.to_string()))?.map_err(not_asked)?;
        let https = UpstreamHttps::over(upstream, &https);
        let endpoints = match metadata::configured(client) {
            Some(endpoints) => endpoints,
            None => cache.endpoints(&https, upstream, client, access.system()).await.map_err(not_asked)?,
        };
        let (client, system) = (client.clone(), access.system().clone());
        Ok(OauthSession { https, client, endpoints, upstream: upstream.to_owned(), secret, system })
    }

    /// Whether the registration consents to access tokens that are not revoked.
    pub fn is_irrevocable(&self) -> bool {
        self.client.is_irrevocable()
    }

    /// Asks for a token.
    pub async fn token(&self, fields: &[FormField<'_>]) -> Result<TokenAnswer, OauthProblem> {
        let answer = self.https.call(self.request(&self.endpoints.token, fields)?).await?;
        self.read_token(&answer)
    }

    /// Asks another endpoint, with mayfly authenticated as for the token endpoint.
    pub async fn ask(&self, url: &str, fields: &[FormField<'_>]) -> Result<UpstreamResponse, OauthProblem> {
        Ok(self.https.call(self.request(url, fields)?).await?)
    }

    /// Gets a document of the API with a token. Returns the status.
    pub async fn probe(&self, url: &str, token: &str) -> Result<u16, OauthProblem> {
        Ok(self.https.call(UpstreamRequest::get(url).bearer(token)).await?.status.as_u16())
    }

    /// Revokes a token. A token that the server does not know is revoked (RFC 7009, section 2.2).
    pub async fn revoke(&self, token: &str, hint: &str) -> Result<(), OauthProblem> {
        let url = self.endpoints.revocation.as_deref().ok_or_else(|| {
            let what = "the server has no revocation endpoint; to mend it: name it in the registration, or consent with irrevocable = true";
            OauthProblem::NotAsked(what.to_owned())
        })?;
        let answer = self.ask(url, &[("token", token, true), ("token_type_hint", hint, false)]).await?;
        match answer.status.as_u16() {
            200 | 204 => Ok(()),
            _ => Err(self.refusal(&answer, "revoking a token")),
        }
    }

    /// Whether a token is active, if the server tells this client so.
    pub async fn active(&self, token: &str) -> Result<Option<bool>, OauthProblem> {
        #[derive(Deserialize)]
        struct Introspected {
            active: bool,
        }
        let Some(url) = self.endpoints.introspection.as_deref() else { return Ok(None) };
        let answer = self.ask(url, &[("token", token, true), ("token_type_hint", "access_token", false)]).await?;
        match answer.status.as_u16() {
            200 => {
                let told: Introspected = answer.json().map_err(|what| OauthProblem::Unclear(format!("introspection: {what}")))?;
                Ok(Some(told.active))
            }
            // Many servers let only resource servers ask.
            400 | 401 | 403 | 404 | 405 => Ok(None),
            _ => Err(self.refusal(&answer, "introspection")),
        }
    }

    /// Signs an assertion with the key of the secret file.
    pub fn assertion(&self, assertion: &Assertion<'_>, key: &str) -> Result<Zeroizing<String>, OauthProblem> {
        assertion.sign(key, &self.system).map_err(|why| OauthProblem::NotAsked(format!("{}.toml: {why}", self.upstream)))
    }

    /// A POST request with the client's authentication.
    fn request(&self, url: &str, fields: &[FormField<'_>]) -> Result<UpstreamRequest, OauthProblem> {
        let (id, mut form) = (self.client.client_id.as_str(), fields.to_vec());
        let request = UpstreamRequest::post(url);
        match (self.client.client_auth, &self.secret) {
            (ClientAuth::ClientSecretBasic, ClientSecret::Secret(secret)) => {
                // Hidden as it is too: a server may tell it back decoded.
                Ok(request.basic(&form_encoded(id), &form_encoded(secret)).hiding(secret).form(&form))
            }
            (ClientAuth::ClientSecretPost, ClientSecret::Secret(secret)) => {
                form.extend([("client_id", id, false), ("client_secret", secret.as_str(), true)]);
                Ok(request.form(&form))
            }
            (ClientAuth::PrivateKeyJwt, ClientSecret::Key(key)) => {
                let assertion = Assertion {
                    issuer: id,
                    subject: id,
                    audience: &self.endpoints.assertion_audience,
                    scope: None,
                    algorithm: self.client.assertion_alg,
                    key_id: self.client.key_id.as_deref(),
                };
                let signed = self.assertion(&assertion, key)?;
                form.extend([
                    ("client_id", id, false),
                    ("client_assertion_type", ASSERTION_TYPE, false),
                    ("client_assertion", signed.as_str(), true),
                ]);
                Ok(request.form(&form))
            }
            (ClientAuth::MutualTls | ClientAuth::None, _) => {
                form.push(("client_id", id, false));
                Ok(request.form(&form))
            }
            _ => Err(OauthProblem::NotAsked("the client has no secret of the kind that client_auth needs".to_owned())),
        }
    }

    fn read_token(&self, answer: &UpstreamResponse) -> Result<TokenAnswer, OauthProblem> {
        /// Everything is optional, so that a defect is told by its name.
        #[derive(Deserialize)]
        struct Told {
            access_token: Option<String>,
            token_type: Option<String>,
            expires_in: Option<Value>,
            scope: Option<Value>,
            refresh_token: Option<String>,
        }
        if answer.status.as_u16() != 200 {
            return Err(self.refusal(answer, "asking for a token"));
        }
        let unclear = |what: String| OauthProblem::Unclear(format!("the token endpoint: {what}"));
        let told: Told = answer.json().map_err(unclear)?;
        let access_token = told.access_token.map(Zeroizing::new);
        let refresh_token = told.refresh_token.map(Zeroizing::new).filter(|token| !token.is_empty());
        let Some(access_token) = access_token.filter(|token| !token.is_empty()) else {
            return Err(unclear("its answer (status 200) has no access_token".to_owned()));
        };
        let too_long =
            |token: &Zeroizing<String>| token.len() > limits::OAUTH_TOKEN_BYTES || !token.bytes().all(|b| b.is_ascii_graphic());
        if too_long(&access_token) || refresh_token.as_ref().is_some_and(too_long) {
            let what =
                format!("its token has more than {} bytes, or characters that no header may have", limits::OAUTH_TOKEN_BYTES);
            return Err(unclear(what));
        }
        if told.token_type.as_deref().is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
            return Err(unclear("its token is of another type than Bearer".to_owned()));
        }
        // Some servers write the number as a text.
        let expires_in = match told.expires_in {
            None | Some(Value::Null) => None,
            Some(Value::Number(number)) => {
                Some(number.as_u64().ok_or_else(|| unclear("expires_in is no number of seconds".to_owned()))?)
            }
            Some(Value::String(text)) => {
                Some(text.parse().map_err(|_| unclear("expires_in is no number of seconds".to_owned()))?)
            }
            Some(_) => return Err(unclear("expires_in is no number of seconds".to_owned())),
        };
        let scope = told.scope.and_then(|scope| scope.as_str().map(|s| s.split_ascii_whitespace().map(str::to_owned).collect()));
        Ok(TokenAnswer { access_token, expires_in, scope, refresh_token })
    }

    /// What an answer other than success means.
    pub fn refusal(&self, answer: &UpstreamResponse, attempt: &str) -> OauthProblem {
        #[derive(Deserialize)]
        struct Told {
            error: String,
            #[serde(default)]
            error_description: String,
        }
        let status = answer.status.as_u16();
        let told: Option<Told> = answer.json().ok();
        match (status, told) {
            (429, told) => {
                let told = told.map_or_else(String::new, |told| answer.told(&told.error));
                OauthProblem::Refused { error: "slow_down".to_owned(), told: format!("{attempt}: it answered 429 {told}") }
            }
            (400..=499, Some(told)) => {
                let described = match told.error_description.as_str() {
                    "" => String::new(),
                    text => format!(" ({})", answer.told(text)),
                };
                let (error, mend) = (answer.told(&told.error), self.remedy(&told.error));
                OauthProblem::Refused { error, told: format!("{attempt}: it answered {status}{described}{mend}") }
            }
            (300..=399, _) => OauthProblem::NotAsked(format!("{attempt}: it answered {status}: mayfly follows no redirect")),
            (400..=499, None) => OauthProblem::Refused {
                error: format!("status {status}"),
                told: format!("{attempt}: it answered without an error of OAuth"),
            },
            _ => OauthProblem::Unclear(format!("{attempt}: it answered {status}")),
        }
    }

    /// What mends an error of RFC 6749, section 5.2.
    fn remedy(&self, error: &str) -> String {
        let what = match error {
            "invalid_client" => format!(
                "compare client_id and client_auth, and the secret in {}.toml, with the client at the server",
                self.upstream
            ),
            "unauthorized_client" => "allow the client this grant at the server".to_owned(),
            "unsupported_grant_type" => "the server does not have this grant: choose another one as grant".to_owned(),
            "invalid_scope" => "allow the client these scopes at the server, or map them in [[oauth.scopes]]".to_owned(),
            "invalid_target" => "compare resource and audience with what the server knows".to_owned(),
            _ => return String::new(),
        };
        format!("; to mend it: {what}")
    }
}

impl EndpointCache {
    async fn endpoints(
        &self,
        https: &UpstreamHttps,
        upstream: &str,
        client: &OauthClient,
        system: &System,
    ) -> Result<ServerEndpoints, String> {
        // Endpoints of the registration are a part of the result.
        let key = (upstream.to_owned(), serde_json::to_string(client).unwrap_or_default());
        let now = system.steady();
        if let Some((until, found)) = self.known.lock().get(&key)
            && *until > now
        {
            return Ok(found.clone());
        }
        let found = metadata::discover(https, client).await?;
        let mut known = self.known.lock();
        if known.len() >= limits::OAUTH_METADATA_KEPT {
            known.retain(|_, (until, _)| *until > now);
        }
        if known.len() < limits::OAUTH_METADATA_KEPT {
            known.insert(key, (now.saturating_add(limits::OAUTH_METADATA_MS), found.clone()));
        }
        Ok(found)
    }
}

/// The keys that the secret file of an upstream may have: of the client's authentication, and of the grant.
const SECRET_KEYS: &[&str] = &["client_secret", "private_key", "certificate", "subject_token", "assertion_key"];

/// Reads a secret of the grant itself: a token to be exchanged, or the key of an assertion.
pub async fn grant_secret(
    access: &UpstreamAccess,
    upstream: &str,
    client: &OauthClient,
    key: &'static str,
) -> Result<Zeroizing<String>, OauthProblem> {
    let (access, upstream, server) = (access.clone(), upstream.to_owned(), client.server().to_owned());
    let read = tokio::task::spawn_blocking(move || access.secrets(&upstream, &server, &[key], SECRET_KEYS)).await;
    let mut all = read.map_err(|e| OauthProblem::NotAsked(e.to_string()))?.map_err(|e| OauthProblem::NotAsked(e.to_string()))?;
    Ok(all.pop().unwrap_or_default())
}

/// Reads the secret that the client's authentication needs, and the configuration of TLS.
fn read_secret(
    access: &UpstreamAccess,
    upstream: &str,
    client: &OauthClient,
) -> Result<(ClientSecret, Arc<rustls::ClientConfig>), String> {
    let read = |keys: &[&str]| access.secrets(upstream, client.server(), keys, SECRET_KEYS).map_err(|e| e.to_string());
    let one = |key: &str| read(&[key]).map(|mut all| all.pop().unwrap_or_default());
    let tls = access.tls(upstream)?;
    match client.client_auth {
        ClientAuth::None => Ok((ClientSecret::None, tls)),
        ClientAuth::ClientSecretBasic | ClientAuth::ClientSecretPost => Ok((ClientSecret::Secret(one("client_secret")?), tls)),
        ClientAuth::PrivateKeyJwt => Ok((ClientSecret::Key(one("private_key")?), tls)),
        ClientAuth::MutualTls => {
            let both = read(&["certificate", "private_key"])?;
            let [certificate, key] = both.as_slice() else { return Err(format!("{upstream}.toml has not both secrets")) };
            let wrong = |what: &str| format!("{upstream}.toml: {what}");
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
            let chain = chain.map_err(|_| wrong("certificate has a PEM section that is cut off"))?;
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| wrong("private_key is no private key in PEM"))?;
            let pair = CertifiedKey::from_der(chain, key, tls.crypto_provider());
            let pair = pair.map_err(|_| wrong("certificate and private_key do not belong together"))?;
            let mut tls = (*tls).clone();
            tls.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(pair));
            Ok((ClientSecret::None, Arc::new(tls)))
        }
    }
}

/// The fields that say what is asked for, the same at each grant: scopes, `resource` (RFC 8707) and `audience`.
pub fn asked<'a>(settings: &'a OauthSettings, scope: &'a str) -> Vec<FormField<'a>> {
    let mut fields = Vec::new();
    if !scope.is_empty() {
        fields.push(("scope", scope, false));
    }
    fields.extend(settings.resource.as_deref().map(|resource| ("resource", resource, false)));
    fields.extend(settings.audience.as_deref().map(|audience| ("audience", audience, false)));
    fields
}
