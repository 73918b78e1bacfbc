//! Kind `oauth`: access tokens of another authorization server.
//!
//! - [`settings`]: the section `[oauth]` of a registration. `template.toml`: a registration to start from.
//! - [`metadata`]: the endpoints of the server. [`client`]: calls to it. [`assertion`]: what mayfly signs for it.
//! - [`grant`]: the state machine of a refresh token. [`vault`]: the refresh tokens in the store, and who refreshes them. [`refresh`]:
//!   refreshing and revoking. [`connect`]: how somebody gives a grant.
//!
//! A token can be revoked only by who has it. So it is sealed, with its lease, before anybody is answered, and revoked by RFC 7009 when its
//! credential ends ([`MintOrder::keeper`]). The request, and sealing its answer, run in a task of their own: a caller that disconnects does not
//! stop them. If the answer is lost all the same, nobody has the token, and it ends by itself within `lifetime`.

mod access;
mod assertion;
mod client;
mod connect;
mod grant;
mod metadata;
mod refresh;
mod settings;
mod vault;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use self::assertion::Assertion;
use self::client::{EndpointCache, OauthProblem, OauthSession, TokenAnswer, asked, grant_secret};
use self::connect::SignIns;
use self::refresh::TendRetry;
use self::settings::{GrantType, OauthClient, OauthSettings};
use self::vault::GrantVault;
use crate::access::UpstreamAccess;
use crate::connector::{
    ConnectorFuture, MakeError, MintOrder, RepeatResponse, UndoError, UndoOrder, UpstreamConnector, UpstreamCredential,
    UpstreamHandle,
};
use crate::connectors::ConnectorEntry;
use crate::lease::{SealedValues, UndoSecretKeeper};
use crate::sign_in::UpstreamSignIn;
use crate::{CredentialKind, CredentialMaterial, IssuedToken};
use mayfly_base::limits;
use mayfly_ledger::upstream::access::{AccessError, AccessQuery, GrantedAccess};
use mayfly_ledger::upstream::registry::Kind;
use mayfly_ledger::upstream::settings::SettingsReader;

/// The line of the kind in the table of connectors.
pub const ENTRY: ConnectorEntry = ConnectorEntry {
    settings: SettingsReader { kind: Kind::Oauth, read: settings::read },
    build: |access| Arc::new(OauthConnector(Arc::new(OauthCalls::new(access)))),
    template: include_str!("template.toml"),
};

/// The connector.
struct OauthConnector(Arc<OauthCalls>);

/// What the tasks of the connector share.
struct OauthCalls {
    access: UpstreamAccess,
    endpoints: EndpointCache,
    vault: GrantVault,
    sign_ins: SignIns,
    /// Attempts that nobody waits for and that failed, by upstream.
    tended: Mutex<HashMap<String, TendRetry>>,
}

/// What undoing needs of a token, sealed with its lease.
#[derive(Serialize, Deserialize)]
struct SealedToken {
    token: String,
}

/// A request for a token, with everything that a task of its own needs.
struct TokenRequest {
    upstream: String,
    settings: OauthSettings,
    scopes: Vec<String>,
    base_url: String,
    keeper: UndoSecretKeeper,
}

fn refused(why: impl std::fmt::Display) -> MakeError {
    MakeError::Refused(why.to_string())
}

fn settings_of(order: &MintOrder<'_>) -> Result<OauthSettings, MakeError> {
    order.settings.read(CredentialKind::Oauth.name()).map_err(refused)
}

fn client_of(terms: &str) -> Result<OauthClient, UndoError> {
    serde_json::from_str(terms).map_err(|e| UndoError(format!("its terms: {e}")))
}

/// The token of a lease.
fn token_of(order: &UndoOrder<'_>) -> Result<Zeroizing<String>, UndoError> {
    let secret = order.secret.ok_or_else(|| UndoError("its token is not sealed with the lease".to_owned()))?;
    let sealed: SealedToken =
        serde_json::from_slice(secret).map_err(|_| UndoError("its sealed token cannot be read".to_owned()))?;
    Ok(Zeroizing::new(sealed.token))
}

impl OauthCalls {
    fn new(access: UpstreamAccess) -> OauthCalls {
        OauthCalls {
            access,
            endpoints: EndpointCache::default(),
            vault: GrantVault::default(),
            sign_ins: SignIns::default(),
            tended: Mutex::default(),
        }
    }

    async fn session(&self, upstream: &str, client: &OauthClient) -> Result<OauthSession, OauthProblem> {
        OauthSession::open(&self.access, &self.endpoints, upstream, client).await
    }

    /// Asks for a token, and seals it with the lease.
    async fn make(&self, request: TokenRequest) -> Result<UpstreamCredential, MakeError> {
        let TokenRequest { upstream, settings, scopes, base_url, keeper } = request;
        let session = self.session(&upstream, &settings.client).await?;
        revocable(&session, &settings)?;
        let sent = settings.sent(&scopes);
        let answer = match settings.grant {
            GrantType::ClientCredentials => {
                let scope = sent.join(" ");
                let mut fields = vec![("grant_type", "client_credentials", false)];
                fields.extend(asked(&settings, &scope));
                session.token(&fields).await?
            }
            GrantType::RefreshToken => self.refresh(&session, &settings, &upstream, &sent.join(" ")).await?,
            GrantType::TokenExchange => self.exchange(&session, &settings, &upstream, &sent.join(" ")).await?,
            GrantType::JwtBearer => self.assert(&session, &settings, &upstream, &sent.join(" ")).await?,
        };
        self.hand_out(&session, &settings, &sent, answer, (&keeper, base_url)).await
    }

    /// RFC 8693: exchanges the token of the secret file.
    async fn exchange(
        &self,
        session: &OauthSession,
        settings: &OauthSettings,
        upstream: &str,
        scope: &str,
    ) -> Result<TokenAnswer, OauthProblem> {
        let subject = grant_secret(&self.access, upstream, &settings.client, "subject_token").await?;
        let mut fields = vec![
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange", false),
            ("subject_token", subject.as_str(), true),
            ("subject_token_type", settings.subject_token_type.as_deref().unwrap_or_default(), false),
            ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token", false),
        ];
        fields.extend(asked(settings, scope));
        session.token(&fields).await
    }

    /// RFC 7523: an assertion by the key of the secret file.
    async fn assert(
        &self,
        session: &OauthSession,
        settings: &OauthSettings,
        upstream: &str,
        scope: &str,
    ) -> Result<TokenAnswer, OauthProblem> {
        let key = grant_secret(&self.access, upstream, &settings.client, "assertion_key").await?;
        let assertion = Assertion {
            issuer: &settings.client.client_id,
            subject: settings.subject.as_deref().unwrap_or_default(),
            audience: &session.endpoints.assertion_audience,
            // Google's service accounts read the scopes here.
            scope: Some(scope).filter(|scope| !scope.is_empty()),
            algorithm: settings.client.assertion_alg,
            key_id: settings.client.key_id.as_deref(),
        };
        let signed = session.assertion(&assertion, &key)?;
        let mut fields =
            vec![("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer", false), ("assertion", signed.as_str(), true)];
        fields.extend(asked(settings, scope));
        session.token(&fields).await
    }

    /// Checks the token, and seals it. A token that cannot be handed out is revoked at once.
    async fn hand_out(
        &self,
        session: &OauthSession,
        settings: &OauthSettings,
        sent: &[String],
        answer: TokenAnswer,
        (keeper, base_url): (&UndoSecretKeeper, String),
    ) -> Result<UpstreamCredential, MakeError> {
        let now = self.access.system().wall();
        if let Some(why) = unfit(settings, sent, &answer) {
            return Err(discard(session, &answer, settings.client.is_irrevocable(), &why).await);
        }
        let sealed = SealedToken { token: answer.access_token.to_string() };
        let bytes = serde_json::to_vec(&sealed).map(Zeroizing::new);
        drop(Zeroizing::new(sealed.token));
        let kept = match bytes {
            Ok(bytes) => keeper.keep(bytes).await.map_err(|fault| fault.to_string()),
            Err(e) => Err(e.to_string()),
        };
        if let Err(why) = kept {
            return Err(
                discard(session, &answer, settings.client.is_irrevocable(), &format!("it could not be sealed: {why}")).await
            );
        }
        let ends_at = answer.expires_in.map(|seconds| now.plus(seconds.saturating_mul(1000)));
        let (header, scheme) = ("authorization".into(), "Bearer".into());
        let token = IssuedToken::secret(answer.access_token);
        let answer = CredentialMaterial::Bearer { token, header, scheme, base_url: base_url.into() };
        Ok(UpstreamCredential { answer, irrevocable: settings.client.is_irrevocable(), ends_at })
    }

    async fn undo(&self, order: &UndoOrder<'_>) -> Result<(), UndoError> {
        let (client, token) = (client_of(order.terms)?, token_of(order)?);
        let session = self.session(&order.lease.upstream, &client).await?;
        Ok(session.revoke(&token, "access_token").await?)
    }

    /// Whether a token is no longer active. A server that does not tell has confirmed the revocation (RFC 7009, section 2.2).
    async fn is_gone(&self, order: &UndoOrder<'_>) -> Result<bool, UndoError> {
        let (client, token) = (client_of(order.terms)?, token_of(order)?);
        let session = self.session(&order.lease.upstream, &client).await?;
        Ok(!session.active(&token).await?.unwrap_or(false))
    }

    /// Uses a token in the least way.
    async fn use_once(&self, order: &MintOrder<'_>, answer: &CredentialMaterial) -> Result<String, MakeError> {
        let CredentialMaterial::Bearer { token, base_url, .. } = answer else {
            return Err(refused("the credential is no token"));
        };
        let mut bytes = Zeroizing::new(Vec::with_capacity(token.length()));
        token.write(&mut *bytes);
        let text = std::str::from_utf8(&bytes).map_err(|_| refused("the token is no text"))?;
        let settings = settings_of(order)?;
        let session = self.session(&order.issued.upstream, &settings.client).await?;
        if let Some(path) = &settings.probe {
            let url = format!("{base_url}{path}");
            return match session.probe(&url, text).await? {
                200..=299 => Ok(format!("GET {path} at the target")),
                status => Err(refused(format!(
                    "GET {path} at the target answered {status}; to mend it: allow the client what the scopes need"
                ))),
            };
        }
        match session.active(text).await? {
            Some(true) => Ok("the server says that the token is active".to_owned()),
            Some(false) => Err(refused("the server says that the token is not active")),
            None => Ok("nothing was asked with the token: set oauth.probe to a path of the target".to_owned()),
        }
    }
}

/// Refuses to ask for a token that nobody could revoke, unless the registration consents.
fn revocable(session: &OauthSession, settings: &OauthSettings) -> Result<(), MakeError> {
    match session.endpoints.revocation.is_some() || settings.client.is_irrevocable() {
        true => Ok(()),
        false => Err(refused(
            "the server has no revocation endpoint, so that no token could be revoked; to mend it: consent with irrevocable = true, \
             or name its revocation_endpoint",
        )),
    }
}

/// Why a token is not handed out.
fn unfit(settings: &OauthSettings, sent: &[String], answer: &TokenAnswer) -> Option<String> {
    let known = |scope: &String| sent.contains(scope) || settings.also_granted.contains(scope);
    if let Some(wider) = answer.scope.iter().flatten().find(|scope| !known(scope)) {
        let wider: String = wider.chars().filter(|c| !c.is_control()).take(limits::NAME_BYTES).collect();
        return Some(format!(
            "the server gave scope {wider:?}, which was not asked for; to mend it: narrow the client at the server, or accept the scope with \
             also_granted"
        ));
    }
    let life = answer.expires_in.map(|seconds| seconds.saturating_mul(1000));
    let most = settings.client.lifetime_ms();
    if let Some(life) = life.filter(|life| *life > most) {
        return Some(format!(
            "the token lives for {} s, longer than lifetime = {:?}; to mend it: set lifetime to what the server's tokens live",
            life / 1000,
            settings.client.lifetime
        ));
    }
    None
}

/// Revokes a token that is not handed out. If that fails, it may stay until it ends by itself.
async fn discard(session: &OauthSession, answer: &TokenAnswer, irrevocable: bool, why: &str) -> MakeError {
    // Some servers end the grant with its access token; a registration that consents to irrevocable tokens may be for such a one.
    if irrevocable {
        return MakeError::Unknown(why.to_owned());
    }
    match session.revoke(&answer.access_token, "access_token").await {
        Ok(()) => MakeError::Refused(why.to_owned()),
        Err(problem) => MakeError::Unknown(format!("{why}; and the token could not be revoked: {problem}")),
    }
}

impl UpstreamConnector for OauthConnector {
    fn kind(&self) -> CredentialKind {
        CredentialKind::Oauth
    }

    fn describe(&self, query: &AccessQuery<'_>) -> Result<GrantedAccess, AccessError> {
        access::describe(query)
    }

    fn name(&self, order: &MintOrder<'_>) -> Result<UpstreamHandle, MakeError> {
        let settings = settings_of(order)?;
        let terms = serde_json::to_string(&settings.client.for_undoing()).map_err(refused)?;
        // The token may be made as late as the last request arrives.
        let now = self.0.access.system().wall();
        let ends_at = now.plus(limits::LEASE_MAKE_MS).plus(settings.client.lifetime_ms());
        Ok(UpstreamHandle { handle: format!("token of {} for {}", settings.client.client_id, order.credential), ends_at, terms })
    }

    fn make<'a>(&'a self, order: &'a MintOrder<'a>) -> ConnectorFuture<'a, Result<UpstreamCredential, MakeError>> {
        Box::pin(async move {
            let keeper = order.keeper.ok_or_else(|| refused("there is nothing to seal the token with"))?;
            let request = TokenRequest {
                upstream: order.issued.upstream.clone(),
                settings: settings_of(order)?,
                scopes: order.issued.scopes.clone(),
                base_url: order.base_url.to_owned(),
                keeper: keeper.clone(),
            };
            let calls = self.0.clone();
            let made = tokio::spawn(async move { calls.make(request).await }).await;
            made.unwrap_or_else(|e| Err(MakeError::Unknown(format!("asking for a token ended early: {e}"))))
        })
    }

    fn undo<'a>(&'a self, order: &'a UndoOrder<'a>) -> ConnectorFuture<'a, Result<(), UndoError>> {
        Box::pin(self.0.undo(order))
    }

    fn is_gone<'a>(&'a self, order: &'a UndoOrder<'a>) -> ConnectorFuture<'a, Result<bool, UndoError>> {
        Box::pin(self.0.is_gone(order))
    }

    /// A late request makes a token that nobody has: [`UpstreamHandle::ends_at`] covers it.
    fn settles_ms(&self) -> u64 {
        limits::UPSTREAM_CALL_MS
    }

    /// A token is handed out once.
    fn again<'a>(&'a self, _: &'a MintOrder<'a>) -> ConnectorFuture<'a, Result<RepeatResponse, MakeError>> {
        Box::pin(std::future::ready(Ok(RepeatResponse::Replace)))
    }

    fn undoes_by_secret(&self) -> bool {
        true
    }

    fn keep_in(&self, values: &Arc<SealedValues>) {
        self.0.vault.begin(values.clone());
    }

    fn sign_in(&self) -> Option<&dyn UpstreamSignIn> {
        Some(&self.0)
    }

    fn is_irrevocable(&self, terms: &str) -> bool {
        client_of(terms).is_ok_and(|client| client.is_irrevocable())
    }

    fn use_once<'a>(
        &'a self,
        order: &'a MintOrder<'a>,
        answer: &'a CredentialMaterial,
    ) -> ConnectorFuture<'a, Result<String, MakeError>> {
        Box::pin(self.0.use_once(order, answer))
    }
}
