//! Kind `github`: an installation token of a GitHub App for each credential, with exactly the permissions and repositories that the scopes
//! grant.
//!
//! - [`settings`]: the section `[github]` of a registration, and the rights that scopes make of it. `template.toml`: a registration to start
//!   from.
//! - [`assertion`]: the JWT by which the app logs in. [`api`]: the calls. [`problem`]: what went wrong, and what would mend it.
//!
//! Only its holder can delete a token, so the token is sealed with the lease before it is handed out
//! ([`UpstreamConnector::undoes_by_secret`]). If GitHub's answer is lost, the token lives until its hour is over; the lease is listed until
//! then. A token is made in a task of its own, which seals it even if the caller has disconnected meanwhile.
//!
//! A repeat of a request gets another token, and the first one is deleted: GitHub shows a token once.

mod access;
mod api;
mod assertion;
mod problem;
mod settings;

use std::sync::Arc;

use zeroize::Zeroizing;

use self::api::{GithubApi, NotMinted};
use self::settings::{GithubSettings, GithubTerms, TokenRights};
use crate::access::UpstreamAccess;
use crate::connector::{
    ConnectorFuture, MakeError, MintOrder, RepeatResponse, UndoError, UndoOrder, UpstreamConnector, UpstreamCredential,
    UpstreamHandle,
};
use crate::connectors::ConnectorEntry;
use crate::lease::UndoSecretKeeper;
use crate::{CredentialKind, CredentialMaterial, IssuedToken};
use mayfly_base::limits;
use mayfly_ledger::upstream::access::{AccessError, AccessQuery, GrantedAccess};
use mayfly_ledger::upstream::registry::Kind;
use mayfly_ledger::upstream::settings::SettingsReader;
use mayfly_verify::seq::Millis;

/// The line of the kind in the table of connectors.
pub const ENTRY: ConnectorEntry = ConnectorEntry {
    settings: SettingsReader { kind: Kind::Github, read: settings::read },
    build: |access| Arc::new(GithubConnector { access }),
    template: include_str!("template.toml"),
};

/// The connector.
struct GithubConnector {
    access: UpstreamAccess,
}

fn refused(why: impl std::fmt::Display) -> MakeError {
    MakeError::Refused(why.to_string())
}

/// When a token has ended by itself that is made for an order decided at this time.
fn ends_at(decided: Millis) -> Millis {
    decided.plus(limits::GITHUB_TOKEN_MS + limits::GITHUB_TOKEN_SLACK_MS)
}

/// Everything that making a token needs, so that it can be done in a task of its own.
struct TokenOrder {
    api: GithubApi,
    settings: GithubSettings,
    assertion: Zeroizing<String>,
    rights: TokenRights,
    latest: Millis,
    keeper: UndoSecretKeeper,
}

impl TokenOrder {
    /// Makes the token and seals it.
    async fn carry_out(self) -> Result<Zeroizing<String>, MakeError> {
        let made = self.api.mint(&self.settings, &self.assertion, &self.rights, self.latest).await;
        let made = made.map_err(|NotMinted { problem, unknown }| match unknown {
            true => MakeError::Unknown(problem.to_string()),
            false => refused(problem),
        })?;
        let unfit = match made.wrong {
            Some(wrong) => wrong,
            None => match self.keeper.keep(Zeroizing::new(made.token.as_bytes().to_vec())).await {
                Ok(()) => return Ok(made.token),
                Err(fault) => format!("the token could not be sealed: {fault}"),
            },
        };
        // Nobody has the token, so it goes at once.
        let deleted = self.api.delete(&made.token).await;
        match deleted {
            Ok(()) => Err(refused(format!("{unfit}; it was deleted"))),
            Err(problem) => Err(MakeError::Unknown(format!("{unfit}; {problem}"))),
        }
    }
}

impl GithubConnector {
    fn settings(order: &MintOrder<'_>) -> Result<GithubSettings, MakeError> {
        order.settings.read(CredentialKind::Github.name()).map_err(refused)
    }

    /// The API of a target. The roots of the registration have no say in who gets an assertion or a token.
    async fn api(&self, upstream: &str, target: &str) -> Result<GithubApi, UndoError> {
        Ok(GithubApi::new(self.access.https(upstream, None).await?, target))
    }

    /// An assertion of the app, signed with the key in the upstream's file.
    async fn assertion(&self, upstream: &str, target: &str, app: &str) -> Result<Zeroizing<String>, MakeError> {
        let (access, now) = (self.access.clone(), self.access.system().wall());
        let (upstream, target, app) = (upstream.to_owned(), target.to_owned(), app.to_owned());
        // Reads a file, and an RSA signature takes a millisecond.
        let signed = tokio::task::spawn_blocking(move || {
            let key = access.secret(&upstream, &target, "private_key").map_err(|e| format!("reading mayfly's own key: {e}"))?;
            assertion::sign(&app, &key, now).map_err(|e| format!("signing as the app: {e}"))
        });
        signed.await.map_err(refused)?.map_err(refused)
    }

    async fn make_token(&self, order: &MintOrder<'_>) -> Result<UpstreamCredential, MakeError> {
        let settings = Self::settings(order)?;
        let rights = settings.rights(&order.issued.scopes, &order.issued.details).map_err(refused)?;
        let keeper = order.keeper.ok_or_else(|| refused("there is no place to seal the token"))?.clone();
        let upstream = order.issued.upstream.as_str();
        let assertion = self.assertion(upstream, order.base_url, &settings.app).await?;
        let api = self.api(upstream, order.base_url).await.map_err(refused)?;
        let latest = ends_at(Millis(order.issued.issued_at));
        let asked = TokenOrder { api, settings, assertion, rights, latest, keeper };
        // In a task of its own: whoever waits here may go, and the answer must be sealed all the same.
        let made = tokio::spawn(asked.carry_out()).await;
        let token = made.map_err(|e| MakeError::Unknown(format!("making a token: {e}")))??;
        let answer = CredentialMaterial::Bearer {
            token: IssuedToken::secret(token),
            header: "authorization".into(),
            scheme: "Bearer".into(),
            base_url: order.base_url.into(),
        };
        Ok(UpstreamCredential { answer, irrevocable: false, ends_at: None })
    }

    /// The API of a lease's token, and the token.
    async fn of_lease<'a>(&self, order: &UndoOrder<'a>) -> Result<(GithubApi, &'a str), UndoError> {
        let wrong = |what: &str| UndoError(format!("reading the lease: {what}"));
        let terms: GithubTerms = serde_json::from_str(order.terms).map_err(|e| wrong(&format!("its terms: {e}")))?;
        let token = order.secret.and_then(|secret| std::str::from_utf8(secret).ok());
        let token = token.ok_or_else(|| wrong("it has no token"))?;
        Ok((self.api(&order.lease.upstream, &terms.target).await?, token))
    }

    async fn delete_token(&self, order: &UndoOrder<'_>) -> Result<(), UndoError> {
        let (api, token) = self.of_lease(order).await?;
        api.delete(token).await.map_err(|problem| UndoError(problem.to_string()))
    }

    async fn token_is_gone(&self, order: &UndoOrder<'_>) -> Result<bool, UndoError> {
        let (api, token) = self.of_lease(order).await?;
        Ok(api.reach(token).await.map_err(|problem| UndoError(problem.to_string()))?.is_none())
    }

    async fn list_repositories(&self, order: &MintOrder<'_>, answer: &CredentialMaterial) -> Result<String, MakeError> {
        let CredentialMaterial::Bearer { token, .. } = answer else { return Err(refused("the credential is no token")) };
        let rights = Self::settings(order)?.rights(&order.issued.scopes, &order.issued.details).map_err(refused)?;
        let mut text = Zeroizing::new(Vec::with_capacity(token.length()));
        token.write(&mut *text);
        let token = std::str::from_utf8(&text).map_err(|_| refused("the token is no text"))?;
        let api = self.api(&order.issued.upstream, order.base_url).await.map_err(refused)?;
        let count =
            api.reach(token).await.map_err(refused)?.ok_or_else(|| refused("GitHub does not take the token that it made"))?;
        match rights.ids() {
            Some(ids) if ids.len() as u64 != count => {
                Err(refused(format!("the token reaches {count} repositories, and the scopes grant {}", ids.len())))
            }
            _ => Ok(format!("listed the repositories of the token: {count}")),
        }
    }
}

impl UpstreamConnector for GithubConnector {
    fn kind(&self) -> CredentialKind {
        CredentialKind::Github
    }

    fn describe(&self, query: &AccessQuery<'_>) -> Result<GrantedAccess, AccessError> {
        access::describe(query)
    }

    fn narrows(&self) -> bool {
        true
    }

    fn name(&self, order: &MintOrder<'_>) -> Result<UpstreamHandle, MakeError> {
        let settings = Self::settings(order)?;
        // Before anything is durable: scopes that one token cannot have.
        settings.rights(&order.issued.scopes, &order.issued.details).map_err(refused)?;
        let terms = serde_json::to_string(&GithubTerms { target: order.base_url.to_owned() }).map_err(refused)?;
        let handle = format!("token of installation {} for {}", settings.installation, order.credential);
        Ok(UpstreamHandle { handle, ends_at: ends_at(Millis(order.issued.issued_at)), terms })
    }

    fn make<'a>(&'a self, order: &'a MintOrder<'a>) -> ConnectorFuture<'a, Result<UpstreamCredential, MakeError>> {
        Box::pin(self.make_token(order))
    }

    fn undo<'a>(&'a self, order: &'a UndoOrder<'a>) -> ConnectorFuture<'a, Result<(), UndoError>> {
        Box::pin(self.delete_token(order))
    }

    fn is_gone<'a>(&'a self, order: &'a UndoOrder<'a>) -> ConnectorFuture<'a, Result<bool, UndoError>> {
        Box::pin(self.token_is_gone(order))
    }

    /// The task goes on for the times of one call, and GitHub ends a request after 10 s.
    fn settles_ms(&self) -> u64 {
        2 * limits::UPSTREAM_CONNECT_MS + limits::UPSTREAM_CALL_MS + 10_000
    }

    fn again<'a>(&'a self, _: &'a MintOrder<'a>) -> ConnectorFuture<'a, Result<RepeatResponse, MakeError>> {
        Box::pin(std::future::ready(Ok(RepeatResponse::Replace)))
    }

    fn undoes_by_secret(&self) -> bool {
        true
    }

    fn use_once<'a>(
        &'a self,
        order: &'a MintOrder<'a>,
        answer: &'a CredentialMaterial,
    ) -> ConnectorFuture<'a, Result<String, MakeError>> {
        Box::pin(self.list_repositories(order, answer))
    }
}
