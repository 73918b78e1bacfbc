//! Sign-ins: the authorization code with PKCE (RFC 7636) and a redirect to loopback (RFC 8252), or a device code (RFC 8628). The operator's
//! command opens the page and brings the code; the tokens never leave the server.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::OauthCalls;
use super::client::{OauthProblem, OauthSession, TokenAnswer};
use super::grant::{GrantPhase, NewGrant, StoredGrant};
use super::settings::{GrantType, OauthSettings};
use super::vault::GrantChange;
use crate::CredentialKind;
use crate::access::https::form_encoded;
use crate::connector::ConnectorFuture;
use crate::sign_in::{
    ConnectionState, Disconnected, SignInError, SignInOrder, SignInProgress, SignInPrompt, SignInWay, UpstreamConnection,
    UpstreamSignIn,
};
use mayfly_base::document::sha256;
use mayfly_base::document::url::WebUrl;
use mayfly_base::limits;
use mayfly_ledger::upstream::registry::Upstream;

/// Polling interval of a device where the server names none (RFC 8628, section 3.2), seconds.
const DEVICE_INTERVAL: u64 = 5;
/// The longest interval that a server may ask for, seconds.
const DEVICE_INTERVAL_MOST: u64 = 60;

/// A sign-in that has begun, in this process: it ends with the process.
#[derive(Clone)]
struct PendingSignIn {
    upstream: String,
    environment: String,
    settings: Arc<OauthSettings>,
    by: String,
    began: u64,
    waits_for: PendingCode,
}

#[derive(Clone)]
enum PendingCode {
    Browser { verifier: Zeroizing<String>, redirect_uri: String },
    Device { code: Zeroizing<String>, interval: u64 },
}

/// The sign-ins of this process.
#[derive(Default)]
pub struct SignIns(Mutex<HashMap<String, PendingSignIn>>);

fn failed(problem: impl std::fmt::Display) -> SignInError {
    SignInError::Failed(problem.to_string())
}

fn settings_of(upstream: &Upstream) -> Result<OauthSettings, SignInError> {
    let settings = upstream.settings.read::<OauthSettings>(CredentialKind::Oauth.name()).ok();
    settings.filter(|settings| settings.grant == GrantType::RefreshToken).ok_or_else(|| {
        let name = &upstream.name;
        SignInError::NotForThis(format!(
            "nobody signs in to upstream {name}: its registration has no [oauth] with grant = \"refresh_token\""
        ))
    })
}

impl OauthCalls {
    async fn begin_sign_in(&self, order: SignInOrder<'_>) -> Result<SignInPrompt, SignInError> {
        let upstream = order.upstream;
        let settings = settings_of(upstream)?;
        if let Some(grant) = self.vault.read(&upstream.name).await.map_err(failed)?
            && grant.phase != GrantPhase::SignInAgain
        {
            let name = &upstream.name;
            return Err(SignInError::Exists(format!("upstream {name} is connected: mayfly upstream disconnect {name}")));
        }
        let session = self.session(&upstream.name, &settings.client).await.map_err(failed)?;
        let id = Zeroizing::new(URL_SAFE_NO_PAD.encode(self.access.system().random32()));
        let (prompt, waits_for) = match order.way {
            SignInWay::Browser { redirect_uri } => self.browser(&session, &settings, &id, redirect_uri, upstream)?,
            SignInWay::Device => device(&session, &settings, &id, upstream).await?,
        };
        let began = self.access.system().steady();
        let pending = PendingSignIn {
            upstream: upstream.name.clone(),
            environment: upstream.environment.clone(),
            settings: Arc::new(settings),
            by: order.by,
            began,
            waits_for,
        };
        let mut all = self.sign_ins.0.lock();
        all.retain(|_, pending| began.saturating_sub(pending.began) < limits::OAUTH_SIGN_IN_MS);
        if all.len() >= limits::OAUTH_SIGN_INS {
            return Err(SignInError::Busy(format!("{} sign-ins have begun and not ended; try again later", all.len())));
        }
        all.insert(id.to_string(), pending);
        Ok(prompt)
    }

    fn browser(
        &self,
        session: &OauthSession,
        settings: &OauthSettings,
        id: &str,
        redirect_uri: String,
        upstream: &Upstream,
    ) -> Result<(SignInPrompt, PendingCode), SignInError> {
        let endpoint = session.endpoints.authorization.as_deref().ok_or_else(|| {
            failed("the server has no authorization endpoint; name authorization_endpoint in the registration, or use --device")
        })?;
        let random = || Zeroizing::new(URL_SAFE_NO_PAD.encode(self.access.system().random32()));
        let (verifier, state) = (random(), random());
        let challenge = URL_SAFE_NO_PAD.encode(sha256(verifier.as_bytes()));
        let scope = sign_in_scope(settings, upstream);
        let mut query: Vec<(&str, &str)> = vec![
            ("response_type", "code"),
            ("client_id", &settings.client.client_id),
            ("redirect_uri", &redirect_uri),
            ("state", &state),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        if !scope.is_empty() {
            query.push(("scope", &scope));
        }
        query.extend(settings.resource.as_deref().map(|resource| ("resource", resource)));
        query.extend(settings.audience.as_deref().map(|audience| ("audience", audience)));
        query.extend(settings.authorize.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let mut url = endpoint.to_owned();
        url.push(if endpoint.contains('?') { '&' } else { '?' });
        let pairs: Vec<String> =
            query.iter().map(|(name, value)| format!("{}={}", &*form_encoded(name), &*form_encoded(value))).collect();
        url.push_str(&pairs.join("&"));
        let prompt = SignInPrompt {
            id: id.to_owned(),
            url,
            user_code: String::new(),
            interval: 0,
            issuer: settings.client.issuer.clone().unwrap_or_default(),
            state: state.to_string(),
        };
        Ok((prompt, PendingCode::Browser { verifier, redirect_uri }))
    }

    async fn go_on(&self, id: &str, code: Option<Zeroizing<String>>) -> Result<SignInProgress, SignInError> {
        let now = self.access.system().steady();
        let unknown = || SignInError::NotFound("there is no such sign-in: it ended, or the server was started again".to_owned());
        let pending = {
            let mut all = self.sign_ins.0.lock();
            let pending = all.get(id).filter(|pending| now.saturating_sub(pending.began) < limits::OAUTH_SIGN_IN_MS).cloned();
            // A code is used once; a device asks again.
            if matches!(pending, Some(PendingSignIn { waits_for: PendingCode::Browser { .. }, .. })) {
                all.remove(id);
            }
            pending.ok_or_else(unknown)?
        };
        let session = self.session(&pending.upstream, &pending.settings.client).await.map_err(failed)?;
        let asked = match (&pending.waits_for, &code) {
            (PendingCode::Browser { verifier, redirect_uri }, Some(code)) => {
                let fields = [
                    ("grant_type", "authorization_code", false),
                    ("code", code.as_str(), true),
                    ("redirect_uri", redirect_uri.as_str(), false),
                    ("code_verifier", verifier.as_str(), true),
                ];
                session.token(&fields).await
            }
            (PendingCode::Device { code, .. }, None) => {
                let fields =
                    [("grant_type", "urn:ietf:params:oauth:grant-type:device_code", false), ("device_code", code.as_str(), true)];
                session.token(&fields).await
            }
            _ => return Err(SignInError::NotForThis("a browser's sign-in needs its code, and a device's has none".to_owned())),
        };
        match asked {
            Ok(answer) => {
                self.sign_ins.0.lock().remove(id);
                self.connected(&session, &pending, answer).await
            }
            Err(OauthProblem::Refused { error, .. }) if error == "authorization_pending" => {
                Ok(SignInProgress::Pending(interval(&pending)))
            }
            Err(OauthProblem::Refused { error, .. }) if error == "slow_down" => {
                let slower = interval(&pending).saturating_add(DEVICE_INTERVAL).min(DEVICE_INTERVAL_MOST);
                if let Some(PendingSignIn { waits_for: PendingCode::Device { interval, .. }, .. }) =
                    self.sign_ins.0.lock().get_mut(id)
                {
                    *interval = slower;
                }
                Ok(SignInProgress::Pending(slower))
            }
            // A device asks again after an error that passes.
            Err(OauthProblem::Unclear(_) | OauthProblem::NotAsked(_)) if code.is_none() => {
                Ok(SignInProgress::Pending(interval(&pending)))
            }
            Err(problem) => {
                self.sign_ins.0.lock().remove(id);
                Err(failed(problem))
            }
        }
    }

    /// Keeps the grant of a sign-in. Its access token is not needed.
    async fn connected(
        &self,
        session: &OauthSession,
        pending: &PendingSignIn,
        answer: TokenAnswer,
    ) -> Result<SignInProgress, SignInError> {
        let TokenAnswer { access_token, scope, refresh_token, .. } = answer;
        let Some(refresh_token) = refresh_token else {
            if !session.is_irrevocable() {
                let _ = session.revoke(&access_token, "access_token").await;
            }
            return Err(failed(
                "the server gave no refresh token; to mend it: ask for one by sign_in_scopes (offline_access) or authorize (access_type), and \
                 allow the client the grant refresh_token",
            ));
        };
        let system = self.access.system();
        let new = NewGrant {
            upstream: pending.upstream.clone(),
            environment: pending.environment.clone(),
            id: data_encoding::HEXLOWER.encode(&system.random16()),
            client: pending.settings.client.clone(),
            by: pending.by.clone(),
            scopes: scope.unwrap_or_default(),
        };
        let (grant, token) = (StoredGrant::connected(new, String::new(), system.wall()), refresh_token.clone());
        let step = move |found: Option<&StoredGrant>| match found {
            Some(found) if found.phase != GrantPhase::SignInAgain => (GrantChange::Keep, false),
            _ => (GrantChange::PutToken(grant.clone(), token.clone()), true),
        };
        let why = match self.vault.change(&pending.upstream, step).await {
            // An access token of a grant ends the grant at some servers, so it is left to end by itself.
            Ok(true) => return Ok(SignInProgress::Connected),
            Ok(false) => SignInError::Exists(format!("upstream {} was connected meanwhile", pending.upstream)),
            Err(fault) => failed(fault),
        };
        let _ = session.revoke(&refresh_token, "refresh_token").await;
        Err(why)
    }
}

fn interval(pending: &PendingSignIn) -> u64 {
    match &pending.waits_for {
        PendingCode::Device { interval, .. } => *interval,
        PendingCode::Browser { .. } => 0,
    }
}

/// The scopes of a sign-in: all that the registration has, and those of `sign_in_scopes`.
fn sign_in_scope(settings: &OauthSettings, upstream: &Upstream) -> String {
    let names: Vec<String> = upstream.scopes.iter().map(|scope| scope.name.clone()).collect();
    let mut all = settings.sent(&names);
    for scope in &settings.sign_in_scopes {
        if !all.contains(scope) {
            all.push(scope.clone());
        }
    }
    all.join(" ")
}

async fn device(
    session: &OauthSession,
    settings: &OauthSettings,
    id: &str,
    upstream: &Upstream,
) -> Result<(SignInPrompt, PendingCode), SignInError> {
    #[derive(Deserialize)]
    struct Told {
        device_code: String,
        user_code: String,
        verification_uri: String,
        verification_uri_complete: Option<String>,
        interval: Option<u64>,
    }
    let endpoint = session.endpoints.device.as_deref().ok_or_else(|| {
        failed("the server has no device authorization endpoint; sign in without --device, or name it in the registration")
    })?;
    let scope = sign_in_scope(settings, upstream);
    let answer = session.ask(endpoint, &super::client::asked(settings, &scope)).await.map_err(failed)?;
    if answer.status.as_u16() != 200 {
        return Err(failed(session.refusal(&answer, "asking for a device code")));
    }
    let told: Told = answer.json().map_err(|what| failed(format!("the device authorization endpoint: {what}")))?;
    let url = told.verification_uri_complete.unwrap_or(told.verification_uri);
    let plain = |text: &str| text.len() <= limits::OAUTH_URL_BYTES && !text.chars().any(char::is_control);
    if WebUrl::parse(&url).is_none() || !plain(&told.user_code) || told.device_code.len() > limits::OAUTH_TOKEN_BYTES {
        return Err(failed("the answer of the device authorization endpoint is malformed"));
    }
    let interval = told.interval.unwrap_or(DEVICE_INTERVAL).clamp(1, DEVICE_INTERVAL_MOST);
    let prompt =
        SignInPrompt { id: id.to_owned(), url, user_code: told.user_code, interval, issuer: String::new(), state: String::new() };
    Ok((prompt, PendingCode::Device { code: Zeroizing::new(told.device_code), interval }))
}

impl UpstreamSignIn for Arc<OauthCalls> {
    fn begin<'a>(&'a self, order: SignInOrder<'a>) -> ConnectorFuture<'a, Result<SignInPrompt, SignInError>> {
        Box::pin(self.begin_sign_in(order))
    }

    fn proceed<'a>(
        &'a self,
        id: &'a str,
        code: Option<Zeroizing<String>>,
    ) -> ConnectorFuture<'a, Result<SignInProgress, SignInError>> {
        Box::pin(self.go_on(id, code))
    }

    fn upstream_of(&self, id: &str) -> Option<String> {
        self.sign_ins.0.lock().get(id).map(|pending| pending.upstream.clone())
    }

    fn disconnect<'a>(&'a self, upstream: &'a str) -> ConnectorFuture<'a, Result<Disconnected, SignInError>> {
        Box::pin(self.end(upstream))
    }

    fn connections(&self) -> ConnectorFuture<'_, Result<Vec<UpstreamConnection>, SignInError>> {
        Box::pin(async move {
            let shown = |grant: StoredGrant| UpstreamConnection {
                state: match grant.phase {
                    GrantPhase::Connected => ConnectionState::Connected,
                    GrantPhase::SignInAgain => ConnectionState::SignInAgain,
                    GrantPhase::Ending => ConnectionState::Ending,
                },
                upstream: grant.upstream,
                environment: grant.environment,
                connected_at: grant.connected_at,
                connected_by: grant.connected_by,
                refreshed_at: grant.refreshed_at,
                trouble: grant.trouble,
                trouble_since: grant.trouble_since,
            };
            Ok(self.vault.all().await.map_err(failed)?.into_iter().map(shown).collect())
        })
    }

    fn wants_sign_in(&self, upstream: &Upstream) -> bool {
        settings_of(upstream).is_ok()
    }

    fn tend(&self, upstreams: Vec<Arc<Upstream>>) -> ConnectorFuture<'_, ()> {
        Box::pin(async move { self.tend_all(&upstreams).await })
    }
}
