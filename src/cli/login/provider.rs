//! Requests an ID token from an OIDC provider, with a browser that is redirected to this machine, or with a device code that is typed on
//! another one.
//!
//! The client is public: a program that everybody has cannot keep a secret (RFC 8252, section 8.5). PKCE binds the code to this process
//! (RFC 7636), `state` binds the response to the request, and `nonce` binds the token to the key of the certificate.

use std::time::Duration;

use serde_json::Value;
use zeroize::Zeroizing;

use super::super::CommandContext;
use super::super::error::CliError;
use super::super::out::escape::for_terminal;
use super::loopback::{Loopback, form};
use mayfly_api::people::LoginProvider;
use mayfly_base::document::url::WebUrl;
use mayfly_base::limits;
use mayfly_config::https::{HttpsClient, HttpsResponse};
use mayfly_identity::oidc::discovery::Discovery;
use mayfly_identity::{json, sha256};

/// The default polling interval of the device flow (RFC 8628, section 3.5).
const PAUSE: Duration = Duration::from_secs(5);
/// The longest polling interval that is accepted from a provider.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A request to one provider.
pub struct IdTokenRequest<'a> {
    pub client: &'a HttpsClient,
    pub known: &'a Discovery,
    pub provider: &'a LoginProvider,
    pub nonce: &'a str,
    pub acr: &'a [String],
    pub max_age: Duration,
    pub patience: Duration,
    pub run: &'a CommandContext,
}

impl IdTokenRequest<'_> {
    fn endpoint<'b>(&self, what: &str, url: Option<&'b String>) -> Result<&'b str, CliError> {
        url.map(String::as_str).ok_or_else(|| {
            CliError::Local(format!("provider {} names no {what} in its discovery document", for_terminal(&self.provider.name)))
        })
    }

    fn random(&self) -> Zeroizing<String> {
        Zeroizing::new(data_encoding::BASE64URL_NOPAD.encode(&self.run.system.random32()))
    }

    async fn patiently<T>(&self, waiting: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
        let late = || CliError::Local(format!("nobody signed in within {} s", self.patience.as_secs()));
        tokio::time::timeout(self.patience, waiting).await.unwrap_or_else(|_| Err(late()))
    }

    /// Signs in with a browser on this machine.
    pub async fn by_browser(&self, open: bool) -> Result<Zeroizing<String>, CliError> {
        let authorize = self.endpoint("authorization_endpoint", self.known.authorization_endpoint.as_ref())?;
        let port = Loopback::bind().await?;
        let (state, verifier, redirect_uri) = (self.random(), self.random(), port.redirect_uri());
        let challenge = data_encoding::BASE64URL_NOPAD.encode(&sha256(verifier.as_bytes()));
        let (max_age, acr) = (self.max_age.as_secs().to_string(), self.acr.join(" "));
        let mut query = vec![
            ("response_type", "code"),
            ("client_id", &*self.provider.client_id),
            ("redirect_uri", &redirect_uri),
            ("scope", "openid"),
            ("state", &state),
            ("nonce", self.nonce),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
            // With max_age the provider includes the time of the sign-in (OpenID Connect Core, section 2, auth_time).
            ("max_age", &max_age),
        ];
        if !acr.is_empty() {
            query.push(("acr_values", &acr));
        }
        let joint = if authorize.contains('?') { '&' } else { '?' };
        let url = format!("{authorize}{joint}{}", form(&query));
        if open {
            browse(&url);
        }
        self.run.out.say(format_args!("sign in here, in a browser on this machine:\n{url}"));
        let code = self.patiently(port.code(&state, &self.provider.issuer)).await?;
        let asked = Zeroizing::new(form(&[
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", &redirect_uri),
            ("client_id", &self.provider.client_id),
            ("code_verifier", &verifier),
        ]));
        let answer = self.token(&asked).await?;
        match parse_token_response(&answer)? {
            TokenResponse::Token(token) => Ok(token),
            TokenResponse::Error(error, why) => Err(refused(&error, &why)),
        }
    }

    /// Signs in with a code that is typed on another device.
    pub async fn by_device(&self) -> Result<Zeroizing<String>, CliError> {
        let device = self.endpoint("device_authorization_endpoint", self.known.device_authorization_endpoint.as_ref())?;
        let (max_age, acr) = (self.max_age.as_secs().to_string(), self.acr.join(" "));
        let mut asked = vec![("client_id", &*self.provider.client_id), ("scope", "openid"), ("max_age", &*max_age)];
        if !acr.is_empty() {
            asked.push(("acr_values", &acr));
        }
        let answer = self.client.post_form(device, form(&asked), limits::OIDC_DOCUMENT_BYTES).await;
        let answer = answer.map_err(|e| super::unreachable(device, &e))?;
        let document = document(&answer)?;
        if !answer.status.is_success() {
            let (error, why) = error_of(&document);
            return Err(refused(&error, &why));
        }
        let text = |name: &str| document.get(name).and_then(Value::as_str).filter(|t| t.len() <= limits::SPIFFE_ID_BYTES);
        let nonsense = || CliError::Local("the provider's answer to the device authorization request is malformed".to_owned());
        let device_code = Zeroizing::new(text("device_code").ok_or_else(nonsense)?.to_owned());
        let (user_code, uri) = (text("user_code").ok_or_else(nonsense)?, text("verification_uri").ok_or_else(nonsense)?);
        let uri = text("verification_uri_complete").unwrap_or(uri);
        if WebUrl::parse(uri).is_none() {
            return Err(nonsense());
        }
        let (uri, code) = (for_terminal(uri), for_terminal(user_code));
        self.run.out.say(format_args!("sign in here, on any machine:\n{uri}\nand see that the code there is: {code}"));
        let seconds = document.get("interval").and_then(Value::as_u64).map_or(PAUSE, Duration::from_secs);
        self.patiently(self.poll(&device_code, seconds.clamp(Duration::from_secs(1), PAUSE_MAX))).await
    }

    async fn poll(&self, device_code: &str, mut pause: Duration) -> Result<Zeroizing<String>, CliError> {
        let asked = Zeroizing::new(form(&[
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("device_code", device_code),
            ("client_id", &self.provider.client_id),
        ]));
        loop {
            tokio::time::sleep(pause).await;
            match parse_token_response(&self.token(&asked).await?)? {
                TokenResponse::Token(token) => return Ok(token),
                TokenResponse::Error(error, _) if error == "authorization_pending" => {}
                TokenResponse::Error(error, _) if error == "slow_down" => pause = (pause + PAUSE).min(PAUSE_MAX),
                TokenResponse::Error(error, why) => return Err(refused(&error, &why)),
            }
        }
    }

    async fn token(&self, form: &str) -> Result<HttpsResponse, CliError> {
        let url = self.endpoint("token_endpoint", self.known.token_endpoint.as_ref())?;
        let answer = self.client.post_form(url, form.to_owned(), limits::OIDC_DOCUMENT_BYTES).await;
        answer.map_err(|e| super::unreachable(url, &e))
    }
}

/// The answer of a token endpoint.
enum TokenResponse {
    Token(Zeroizing<String>),
    Error(String, String),
}

fn parse_token_response(answer: &HttpsResponse) -> Result<TokenResponse, CliError> {
    let mut document = document(answer)?;
    if !answer.status.is_success() {
        let (error, why) = error_of(&document);
        return Ok(TokenResponse::Error(error, why));
    }
    match document.get_mut("id_token").map(Value::take) {
        Some(Value::String(token)) => Ok(TokenResponse::Token(Zeroizing::new(token))),
        _ => Err(CliError::Local("the provider gave no ID token: its client needs the scope openid".to_owned())),
    }
}

fn document(answer: &HttpsResponse) -> Result<Value, CliError> {
    json::parse(&answer.body).map_err(|_| CliError::Local(format!("the provider answered {} and no JSON", answer.status)))
}

fn error_of(document: &Value) -> (String, String) {
    let text =
        |name: &str| document.get(name).and_then(Value::as_str).unwrap_or_default().chars().take(limits::NAME_BYTES).collect();
    (text("error"), text("error_description"))
}

fn refused(error: &str, why: &str) -> CliError {
    let why = if why.is_empty() { String::new() } else { format!(": {}", for_terminal(why)) };
    CliError::Local(format!("the provider refused: {}{why}", for_terminal(error)))
}

/// Opens a browser, if there is one. The address contains no secret; the PKCE verifier stays in this process.
pub fn browse(url: &str) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let mut command = std::process::Command::new(program);
    command.arg(url).stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    // Without a browser, the person opens the address by hand.
    let _ = command.spawn();
}
