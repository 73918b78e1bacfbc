//! The state machine of a grant: a refresh token of a person or an app, and who refreshes it.
//!
//! ```text
//!              sign-in                       invalid_grant
//!   (nothing) ────────▶ CONNECTED ─────────────────────────▶ SIGN IN AGAIN
//!       ▲                │    ▲ │ refresh: new token, next generation   │
//!       │     disconnect │    └─┘                                       │ sign-in, disconnect
//!       └──── revoked ── ENDING ◀───────────────────────────────────────┘
//! ```
//!
//! A grant is one named value of the store, and each step is a compare-and-swap of the whole value, so that of several processes one wins.
//! Pure: each step takes the value as it is and returns the value as it becomes.
//!
//! - *One refresher.* A refresh begins by writing a holder with an end into the value. Nobody else refreshes before the holder is done, or
//!   its time has passed.
//! - *The new token first.* A refresh is answered to nobody before the value with the new refresh token is durable.
//! - *Only `invalid_grant` ends a grant*, and only for the token that was sent: a holder that lost its place changes nothing.
//! - *A disconnect wins.* It writes ENDING at once. The holder of a refresh that is under way still stores the newest token, since this is
//!   the one to be revoked, but gets no answer out of it.
//! - *A crash between sending a refresh and storing its answer* leaves the old token, which is tried again once the holder's time has passed.
//!   A server that rotates tokens and has issued the next one may take that for a theft and end the grant; then somebody signs in again.

use serde::{Deserialize, Serialize};

use super::settings::OauthClient;
use mayfly_base::limits;
use mayfly_verify::seq::Millis;

/// The version of the stored form.
const VERSION: u8 = 1;

/// Where a grant stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrantPhase {
    /// The grant can be refreshed.
    Connected,
    /// The server ended it. Somebody has to sign in again.
    SignInAgain,
    /// The grant was disconnected, and is being revoked at the server.
    Ending,
}

/// The process that refreshes a grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshHolder {
    /// Random, for each refresh.
    pub id: String,
    /// Until when nobody else refreshes.
    pub until: Millis,
}

/// A grant, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredGrant {
    version: u8,
    /// The upstream.
    pub upstream: String,
    /// The environment of the upstream.
    pub environment: String,
    /// Random, for each sign-in: a grant that was replaced is another one.
    pub id: String,
    /// Counts the refresh tokens of the grant.
    pub generation: u64,
    /// Where it stands.
    pub phase: GrantPhase,
    /// The refresh token of this generation, sealed, in base64. Empty: there is none to be used or revoked.
    pub sealed: String,
    /// The client that the grant was given to.
    pub client: OauthClient,
    /// When somebody signed in.
    pub connected_at: Millis,
    /// The operator who did.
    pub connected_by: String,
    /// The scopes of the server that were granted, if it said so.
    pub scopes: Vec<String>,
    /// When it was last refreshed, or given.
    pub refreshed_at: Millis,
    /// Who refreshes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<RefreshHolder>,
    /// The last error, if the last attempt failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trouble: String,
    /// Since when attempts fail, or since when somebody has to sign in again.
    #[serde(default)]
    pub trouble_since: Millis,
}

/// Why a refresh cannot begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoRefresh {
    /// Somebody else refreshes it, until this time at the most.
    Busy(Millis),
    /// Somebody has to sign in again.
    SignInAgain,
    /// The grant is disconnected.
    Ending,
}

/// What became of the new token of a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// The new token is in effect, and the refresh may be answered.
    InEffect,
    /// The grant was disconnected meanwhile: the token is kept to be revoked, and nothing is answered.
    Ended,
}

/// The holder lost its place: another process refreshes, or the grant was replaced. Nothing of the value may be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostPlace;

/// A grant to be stored for the first time.
pub struct NewGrant {
    /// As [`StoredGrant::upstream`].
    pub upstream: String,
    /// As [`StoredGrant::environment`].
    pub environment: String,
    /// As [`StoredGrant::id`].
    pub id: String,
    /// As [`StoredGrant::client`].
    pub client: OauthClient,
    /// As [`StoredGrant::connected_by`].
    pub by: String,
    /// As [`StoredGrant::scopes`].
    pub scopes: Vec<String>,
}

impl StoredGrant {
    /// A grant that somebody just gave.
    pub fn connected(new: NewGrant, sealed: String, now: Millis) -> StoredGrant {
        StoredGrant {
            version: VERSION,
            upstream: new.upstream,
            environment: new.environment,
            id: new.id,
            generation: 1,
            phase: GrantPhase::Connected,
            sealed,
            client: new.client,
            connected_at: now,
            connected_by: new.by,
            scopes: new.scopes,
            refreshed_at: now,
            holder: None,
            trouble: String::new(),
            trouble_since: Millis(0),
        }
    }

    /// Reads the stored form.
    pub fn parse(bytes: &[u8]) -> Result<StoredGrant, String> {
        let grant: StoredGrant = serde_json::from_slice(bytes).map_err(|e| format!("a stored grant: {e}"))?;
        match grant.version {
            VERSION => Ok(grant),
            other => Err(format!("a stored grant has format {other}, this version reads {VERSION}")),
        }
    }

    /// The stored form.
    pub fn to_bytes(&self) -> Vec<u8> {
        // The struct has strings, numbers and lists only, so serializing cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The name under which the token of a generation is sealed: a token that was replaced does not open as the present one.
    pub fn sealed_name(&self, generation: u64) -> String {
        format!("oauth/grant/{}/{}/{generation}", self.upstream, self.id)
    }

    /// Begins a refresh, or the revocation of a grant that is ending.
    pub fn hold(&self, id: &str, now: Millis, purpose: GrantPhase) -> Result<StoredGrant, NoRefresh> {
        match (purpose, self.phase) {
            (GrantPhase::Connected, GrantPhase::SignInAgain) => return Err(NoRefresh::SignInAgain),
            (GrantPhase::Connected, GrantPhase::Ending) => return Err(NoRefresh::Ending),
            _ => {}
        }
        if let Some(holder) = self.holder.as_ref().filter(|holder| holder.until > now) {
            // A clock that was set back must not keep everybody out for longer than a refresh takes.
            let latest = now.plus(2 * limits::OAUTH_REFRESH_MS);
            if holder.until <= latest {
                return Err(NoRefresh::Busy(holder.until));
            }
        }
        let holder = RefreshHolder { id: id.to_owned(), until: now.plus(limits::OAUTH_REFRESH_MS) };
        Ok(StoredGrant { holder: Some(holder), ..self.clone() })
    }

    fn held_by(&self, id: &str) -> Result<(), LostPlace> {
        match &self.holder {
            Some(holder) if holder.id == id => Ok(()),
            _ => Err(LostPlace),
        }
    }

    /// Ends a refresh that the server answered. `sealed`: the new refresh token; `None`: the old one stays valid.
    pub fn refreshed(&self, id: &str, sealed: Option<String>, now: Millis) -> Result<(StoredGrant, Refreshed), LostPlace> {
        self.held_by(id)?;
        let mut next =
            StoredGrant { holder: None, refreshed_at: now, trouble: String::new(), trouble_since: Millis(0), ..self.clone() };
        if let Some(sealed) = sealed {
            next.sealed = sealed;
            next.generation += 1;
        }
        let outcome = match self.phase {
            GrantPhase::Ending => Refreshed::Ended,
            _ => Refreshed::InEffect,
        };
        Ok((next, outcome))
    }

    /// Ends a refresh that failed. `over`: the server said `invalid_grant`.
    pub fn failed(&self, id: &str, over: bool, why: &str, now: Millis) -> Result<StoredGrant, LostPlace> {
        self.held_by(id)?;
        let since = if self.trouble.is_empty() { now } else { self.trouble_since };
        let mut next = StoredGrant { holder: None, trouble: why.to_owned(), trouble_since: since, ..self.clone() };
        if over {
            next.sealed = String::new();
            if self.phase == GrantPhase::Connected {
                next.phase = GrantPhase::SignInAgain;
                next.trouble_since = now;
            }
        }
        Ok(next)
    }

    /// Disconnects: from now on nothing is refreshed or answered. The holder of a refresh stays, so that its new token is stored.
    pub fn end(&self) -> StoredGrant {
        StoredGrant { phase: GrantPhase::Ending, ..self.clone() }
    }

    /// Whether it must be refreshed now, so that the server does not end it for want of use.
    pub fn is_idle(&self, idle_limit_ms: u64, now: Millis) -> bool {
        self.phase == GrantPhase::Connected && now.since(self.refreshed_at) >= idle_limit_ms / 2
    }

    /// Whether a client is the one that the grant was given to. Other settings may change.
    pub fn is_of(&self, client: &OauthClient) -> bool {
        let of = |c: &OauthClient| (c.issuer.clone(), c.token_endpoint.clone(), c.client_id.clone());
        of(&self.client) == of(client)
    }
}

#[cfg(test)]
#[path = "grant_tests.rs"]
mod tests;
