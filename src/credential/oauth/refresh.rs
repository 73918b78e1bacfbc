//! Refreshing a grant, revoking it, and doing both in time without being asked.

use std::sync::Arc;
use std::time::Duration;

use mayfly_base::backoff::Backoff;
use mayfly_base::limits;
use mayfly_base::refusal::Fault;
use mayfly_ledger::upstream::registry::Upstream;
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use super::OauthCalls;
use super::client::{OauthProblem, OauthSession, TokenAnswer, asked};
use super::grant::{GrantPhase, LostPlace, NoRefresh, Refreshed, StoredGrant};
use super::settings::OauthSettings;
use super::vault::GrantChange;
use crate::CredentialKind;
use crate::sign_in::{Disconnected, SignInError};

/// What a holder of a grant works with.
struct Held {
    grant: StoredGrant,
    id: String,
}

/// A failed attempt of [`OauthCalls::tend`].
pub struct TendRetry {
    pauses: Backoff,
    next_at: u64,
}

/// The error of an upstream that nobody is signed in to.
fn sign_in_again(upstream: &str, why: &str) -> OauthProblem {
    OauthProblem::NotAsked(format!("{why}; somebody has to sign in: mayfly upstream connect {upstream}"))
}

impl OauthCalls {
    /// A new access token of a grant, with these scopes; without scopes, all that were granted. If the server rotates refresh tokens, the new one
    /// is durable when this returns. Must not be dropped while it runs, so it runs in a task of its own.
    pub async fn refresh(
        &self,
        session: &OauthSession,
        settings: &OauthSettings,
        upstream: &str,
        scope: &str,
    ) -> Result<TokenAnswer, OauthProblem> {
        let limit = Duration::from_millis(limits::OAUTH_TURN_MS);
        let turn = tokio::time::timeout(limit, self.vault.turn(upstream)).await;
        let _turn = turn.map_err(|_| OauthProblem::Busy("others are refreshing the grant; try again".to_owned()))?;
        let known = self.vault.read(upstream).await.map_err(stored)?;
        match &known {
            None => return Err(sign_in_again(upstream, "nobody is signed in")),
            Some(grant) if !grant.is_of(&settings.client) => {
                let what = format!("somebody signed in for another client or server: mayfly upstream disconnect {upstream}");
                return Err(sign_in_again(upstream, &what));
            }
            Some(_) => {}
        }
        let held = self.hold(upstream, GrantPhase::Connected).await?;
        let token = self.vault.open(&held.grant).await.map_err(stored);
        let token = match token.and_then(|token| token.ok_or_else(|| sign_in_again(upstream, "the grant has no refresh token"))) {
            Ok(token) => token,
            Err(problem) => return Err(self.give_up(upstream, held, problem).await),
        };
        let mut fields = vec![("grant_type", "refresh_token", false), ("refresh_token", token.as_str(), true)];
        fields.extend(asked(settings, scope));
        match session.token(&fields).await {
            Ok(answer) => self.keep(session, upstream, held, answer).await,
            Err(problem) => Err(self.give_up(upstream, held, problem).await),
        }
    }

    /// Takes the place of the one who refreshes, or revokes.
    async fn hold(&self, upstream: &str, purpose: GrantPhase) -> Result<Held, OauthProblem> {
        let system = self.access.system().clone();
        let id = data_encoding::HEXLOWER.encode(&system.random16());
        let began = system.steady();
        loop {
            let (mine, clock, of) = (id.clone(), system.clone(), upstream.to_owned());
            let step = move |grant: Option<&StoredGrant>| match grant.map(|grant| grant.hold(&mine, clock.wall(), purpose)) {
                None => (GrantChange::Keep, Err(Ok(sign_in_again(&of, "nobody is signed in")))),
                Some(Ok(held)) => (GrantChange::Put(held.clone()), Ok(held)),
                Some(Err(NoRefresh::Busy(until))) => (GrantChange::Keep, Err(Err(until))),
                Some(Err(NoRefresh::SignInAgain)) => {
                    let why = grant.map_or("", |grant| grant.trouble.as_str());
                    (GrantChange::Keep, Err(Ok(sign_in_again(&of, &format!("the server ended the grant ({why})")))))
                }
                Some(Err(NoRefresh::Ending)) => (GrantChange::Keep, Err(Ok(sign_in_again(&of, "the grant was disconnected")))),
            };
            match self.vault.change(upstream, step).await.map_err(stored)? {
                Ok(grant) => return Ok(Held { grant, id }),
                Err(Ok(problem)) => return Err(problem),
                Err(Err(until)) => {
                    if system.steady().saturating_sub(began) > limits::OAUTH_WAIT_MS {
                        let what = format!(
                            "another process refreshes the grant, or was killed while it did, until {until} at the latest"
                        );
                        return Err(OauthProblem::Busy(what));
                    }
                    tokio::time::sleep(Duration::from_millis(limits::OAUTH_BUSY_LOOK_MS)).await;
                }
            }
        }
    }

    /// Makes the answer of a refresh durable, and lets go.
    async fn keep(
        &self,
        session: &OauthSession,
        upstream: &str,
        held: Held,
        answer: TokenAnswer,
    ) -> Result<TokenAnswer, OauthProblem> {
        let mut attempts = limits::OAUTH_STORE_TRIES;
        let why = loop {
            attempts -= 1;
            match self.store_answer(upstream, &held, answer.refresh_token.clone()).await {
                Ok(Ok(Refreshed::InEffect)) => return Ok(answer),
                Ok(Ok(Refreshed::Ended)) => break "the grant was disconnected meanwhile".to_owned(),
                Ok(Err(LostPlace)) => break "the refresh took so long that another process took over".to_owned(),
                // The store may be opened again meanwhile, and nobody else has the new token.
                Err(_) if attempts > 0 => tokio::time::sleep(Duration::from_millis(limits::OAUTH_STORE_PAUSE_MS)).await,
                Err(fault) => break format!("the new refresh token could not be stored: {fault}"),
            }
        };
        // Nobody gets the access token. If it cannot be revoked, it ends by itself.
        if session.is_irrevocable() {
            return Err(OauthProblem::Unclear(why));
        }
        match session.revoke(&answer.access_token, "access_token").await {
            Ok(()) => Err(OauthProblem::NotAsked(why)),
            Err(_) => Err(OauthProblem::Unclear(why)),
        }
    }

    async fn store_answer(
        &self,
        upstream: &str,
        held: &Held,
        fresh: Option<Zeroizing<String>>,
    ) -> Result<Result<Refreshed, LostPlace>, Fault> {
        let (system, id) = (self.access.system().clone(), held.id.clone());
        let step = move |grant: Option<&StoredGrant>| {
            // What is sealed is set by the vault.
            let sealed = fresh.as_ref().map(|_| String::new());
            match (grant.ok_or(LostPlace).and_then(|grant| grant.refreshed(&id, sealed, system.wall())), &fresh) {
                (Ok((next, outcome)), Some(token)) => (GrantChange::PutToken(next, token.clone()), Ok(outcome)),
                (Ok((next, outcome)), None) => (GrantChange::Put(next), Ok(outcome)),
                (Err(lost), _) => (GrantChange::Keep, Err(lost)),
            }
        };
        self.vault.change(upstream, step).await
    }

    /// Lets go of a grant whose refresh failed. Only `invalid_grant` ends it.
    async fn give_up(&self, upstream: &str, held: Held, problem: OauthProblem) -> OauthProblem {
        let (over, why, system) = (problem.ends_the_grant(), problem.to_string(), self.access.system().clone());
        let step = move |grant: Option<&StoredGrant>| match grant
            .ok_or(LostPlace)
            .and_then(|grant| grant.failed(&held.id, over, &why, system.wall()))
        {
            Ok(next) => (GrantChange::Put(next), true),
            Err(LostPlace) => (GrantChange::Keep, false),
        };
        match self.vault.change(upstream, step).await {
            Ok(true) if over => {
                tracing::error!(upstream, why = %problem, "the authorization server ended a grant; somebody has to sign in again");
                sign_in_again(upstream, &format!("the server ended the grant ({problem})"))
            }
            Ok(_) => problem,
            Err(fault) => {
                tracing::warn!(upstream, %fault, "a failed refresh could not be noted");
                problem
            }
        }
    }

    /// Ends a grant, and tries to revoke it.
    pub async fn end(&self, upstream: &str) -> Result<Disconnected, SignInError> {
        let ended = self.vault.change(upstream, |grant| match grant {
            Some(grant) => (GrantChange::Put(grant.end()), true),
            None => (GrantChange::Keep, false),
        });
        let failed = |fault: Fault| SignInError::Failed(fault.to_string());
        if !ended.await.map_err(failed)? {
            return Err(SignInError::NotFound(format!("nobody is signed in to upstream {upstream}")));
        }
        Ok(self.revoke_ended(upstream).await)
    }

    /// Revokes a grant that is ending, and deletes it.
    async fn revoke_ended(&self, upstream: &str) -> Disconnected {
        let held = match self.hold(upstream, GrantPhase::Ending).await {
            Ok(held) => held,
            Err(problem) => return Disconnected::Later(problem.to_string()),
        };
        let outcome = match self.vault.open(&held.grant).await {
            // The server had ended it.
            Ok(None) => Ok(Disconnected::Forgotten("the server had ended the grant".to_owned())),
            // A sealed value that does not open can never be revoked.
            Err(fault) => Ok(Disconnected::Forgotten(fault.to_string())),
            Ok(Some(token)) => self.revoke_token(upstream, &held.grant, &token).await,
        };
        let id = held.id.clone();
        match outcome {
            Ok(done) => {
                let step = move |grant: Option<&StoredGrant>| match grant {
                    Some(grant) if grant.holder.as_ref().is_some_and(|holder| holder.id == id) => (GrantChange::Delete, ()),
                    _ => (GrantChange::Keep, ()),
                };
                match self.vault.change(upstream, step).await {
                    Ok(()) => done,
                    Err(fault) => Disconnected::Later(fault.to_string()),
                }
            }
            Err(problem) => {
                let problem = self.give_up(upstream, held, problem).await;
                Disconnected::Later(problem.to_string())
            }
        }
    }

    async fn revoke_token(
        &self,
        upstream: &str,
        grant: &StoredGrant,
        token: &Zeroizing<String>,
    ) -> Result<Disconnected, OauthProblem> {
        let session = self.session(upstream, &grant.client).await?;
        if session.endpoints.revocation.is_none() {
            let what = "the server has no revocation endpoint: whoever signed in removes the access of the application there";
            return Ok(Disconnected::Forgotten(what.to_owned()));
        }
        session.revoke(token, "refresh_token").await?;
        Ok(Disconnected::Revoked)
    }

    /// Refreshes the grants that are idle, and revokes those that ended or whose upstream is gone. A server that hangs delays no other.
    pub async fn tend_all(self: &Arc<Self>, upstreams: &[Arc<Upstream>]) {
        let grants = match self.vault.all().await {
            Ok(grants) => grants,
            Err(fault) => return tracing::warn!(%fault, "the grants of upstreams cannot be read"),
        };
        let mut running = JoinSet::new();
        for grant in grants {
            let registered = upstreams.iter().find(|upstream| upstream.name == grant.upstream).cloned();
            while running.len() >= limits::OAUTH_TENDED_AT_ONCE {
                running.join_next().await;
            }
            let this = self.clone();
            running.spawn(async move { this.tend_one(&grant, registered).await });
        }
        while running.join_next().await.is_some() {}
    }

    async fn tend_one(&self, grant: &StoredGrant, registered: Option<Arc<Upstream>>) {
        let (name, now) = (grant.upstream.as_str(), self.access.system().wall());
        if grant.phase == GrantPhase::Ending {
            let revoke = async || match self.revoke_ended(name).await {
                Disconnected::Later(why) => Err(why),
                _ => Ok(()),
            };
            return self.now_and_then(name, revoke).await;
        }
        let Some(upstream) = registered else {
            tracing::info!(upstream = name, "the upstream is retired: its grant is revoked");
            return self.now_and_then(name, async || self.end(name).await.map(drop).map_err(|no| no.to_string())).await;
        };
        let settings = upstream.settings.read::<OauthSettings>(CredentialKind::Oauth.name()).ok();
        let Some(settings) = settings else { return };
        if settings.idle_limit_ms().is_some_and(|limit| grant.is_idle(limit, now)) {
            let refresh = async || self.refresh_idle(name, &settings).await.map_err(|problem| problem.to_string());
            self.now_and_then(name, refresh).await;
        }
    }

    /// Refreshes a grant for nobody.
    async fn refresh_idle(&self, upstream: &str, settings: &OauthSettings) -> Result<(), OauthProblem> {
        let session = self.session(upstream, &settings.client).await?;
        let answer = self.refresh(&session, settings, upstream, "").await?;
        tracing::info!(upstream, "a grant that nobody used was refreshed before its idle limit");
        // An access token that stays unused ends by itself, where it cannot be revoked.
        if !settings.client.is_irrevocable() {
            let _ = session.revoke(&answer.access_token, "access_token").await;
        }
        Ok(())
    }

    /// Does something that nobody waits for, with growing pauses while it fails.
    async fn now_and_then(&self, upstream: &str, work: impl AsyncFnOnce() -> Result<(), String>) {
        let now = self.access.system().steady();
        if self.tended.lock().get(upstream).is_some_and(|retry| retry.next_at > now) {
            return;
        }
        let done = work().await;
        let mut tended = self.tended.lock();
        match done {
            Ok(()) => drop(tended.remove(upstream)),
            Err(why) => {
                tracing::warn!(upstream, %why, "the grant of an upstream could not be refreshed or revoked yet");
                let retry = tended.entry(upstream.to_owned()).or_insert_with(|| TendRetry {
                    pauses: Backoff::new(limits::OAUTH_TEND_RETRY_MIN_MS, limits::OAUTH_TEND_RETRY_MAX_MS),
                    next_at: 0,
                });
                let most = Duration::from_millis(limits::OAUTH_TEND_RETRY_MAX_MS);
                let pause = retry.pauses.next().unwrap_or(most).as_millis();
                retry.next_at = now.saturating_add(u64::try_from(pause).unwrap_or(u64::MAX));
            }
        }
    }
}

fn stored(fault: Fault) -> OauthProblem {
    OauthProblem::NotAsked(format!("the grant in mayfly's store: {fault}"))
}
