//! Kind `redis`: an ACL user of Redis for each credential, with exactly what the scopes grant.
//!
//! - [`settings`]: the section `[redis]` of a registration. `template.toml`: a registration to start from.
//! - [`session`]: a session at the server. [`make`], [`undo`]: the commands. [`problem`]: what went wrong.
//!
//! A user's password is derived from the credential's id, so a repeat of a request gets the same login, and only its hash is sent.
//!
//! What a late request can still do. One command makes a user, and Redis has no transaction that ends by itself. The session that makes a user
//! first takes the user's name as its own, and sends the command after the answer to that. Undoing ends the session of that name, and looks
//! until there is none: Redis runs no command of a session that it has ended. [`UpstreamConnector::settles_ms`] is for the server's timers.

mod access;
mod make;
mod problem;
mod session;
mod settings;
mod undo;

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedMappedMutexGuard, OwnedMutexGuard};

use self::make::NewRedisUser;
use self::problem::RedisProblem;
use self::session::{RedisLogin, RedisSession};
use self::settings::{RedisSettings, RedisTerms, place};
use self::undo::OldRedisUser;
use crate::access::UpstreamAccess;
use crate::connector::{
    ConnectorFuture, MakeError, MintOrder, RepeatResponse, UndoError, UndoOrder, UpstreamConnector, UpstreamCredential,
    UpstreamHandle,
};
use crate::connectors::ConnectorEntry;
use crate::database::problem::NotMade;
use crate::database::{LoginPlace, account_of, login, own_password, refused, section_of, terms_of};
use crate::{CredentialKind, CredentialMaterial};
use mayfly_base::limits;
use mayfly_ledger::upstream::access::{AccessError, AccessQuery, GrantedAccess};
use mayfly_ledger::upstream::registry::Kind;
use mayfly_ledger::upstream::settings::SettingsReader;
use mayfly_verify::seq::Millis;

/// The line of the kind in the table of connectors.
pub const ENTRY: ConnectorEntry = ConnectorEntry {
    settings: SettingsReader { kind: Kind::Redis, read: settings::read },
    build: |access| Arc::new(RedisConnector { access, reserves: Mutex::default() }),
    template: include_str!("template.toml"),
};

/// The connector.
struct RedisConnector {
    access: UpstreamAccess,
    reserves: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Option<RedisSession>>>>>,
}

/// A session that undoes.
enum UndoSession {
    Own(RedisSession),
    Reserved(OwnedMappedMutexGuard<Option<RedisSession>, RedisSession>),
}

impl Deref for UndoSession {
    type Target = RedisSession;

    fn deref(&self) -> &RedisSession {
        match self {
            UndoSession::Own(session) => session,
            UndoSession::Reserved(session) => session,
        }
    }
}

impl DerefMut for UndoSession {
    fn deref_mut(&mut self) -> &mut RedisSession {
        match self {
            UndoSession::Own(session) => session,
            UndoSession::Reserved(session) => session,
        }
    }
}

/// The name of a credential's user: 33 characters.
const PREFIX: &str = "mayfly_";

impl RedisConnector {
    /// Logs in as mayfly's own user.
    async fn admin(&self, upstream: &str, terms: &RedisTerms) -> Result<RedisSession, RedisProblem> {
        let unreadable = || RedisProblem::new("reading the target", format!("{} is no Redis server", terms.target));
        let (address, _) = place(&terms.target).ok_or_else(unreadable)?;
        let password = own_password(&self.access, upstream, &terms.target).await?;
        let (user, plaintext) = (terms.admin.as_str(), terms.plaintext);
        RedisSession::open(&self.access, RedisLogin { address: &address, user, password, plaintext, upstream }).await
    }

    /// The session of a server that stays open while mayfly runs. Undoing works through it when the server takes no more connections: a user
    /// of Redis may open as many as the server has.
    fn reserve(&self, terms: &RedisTerms) -> Arc<tokio::sync::Mutex<Option<RedisSession>>> {
        let mut reserves = self.reserves.lock();
        if reserves.len() >= limits::REDIS_RESERVES {
            reserves.retain(|_, reserve| Arc::strong_count(reserve) > 1);
        }
        reserves.entry(format!("{}@{}", terms.admin, terms.target)).or_default().clone()
    }

    /// Opens the reserve, unless it is open.
    async fn keep_reserve(&self, upstream: &str, terms: &RedisTerms) -> Result<(), RedisProblem> {
        let reserve = self.reserve(terms);
        let mut session = reserve.lock().await;
        if let Some(open) = session.as_mut()
            && open.run("looking at the reserved session", &["PING"]).await.is_ok()
        {
            return Ok(());
        }
        *session = Some(self.admin(upstream, terms).await?);
        Ok(())
    }

    /// A session for undoing: one of its own, or the reserve where the server takes no other.
    async fn undo_session(&self, upstream: &str, terms: &RedisTerms) -> Result<UndoSession, RedisProblem> {
        // Without its password, mayfly does nothing at the server, as for any other kind.
        own_password(&self.access, upstream, &terms.target).await?;
        let refused = match self.admin(upstream, terms).await {
            Ok(session) => return Ok(UndoSession::Own(session)),
            Err(problem) => problem,
        };
        match OwnedMutexGuard::try_map(self.reserve(terms).lock_owned().await, Option::as_mut) {
            Ok(session) => Ok(UndoSession::Reserved(session)),
            Err(_) => Err(refused),
        }
    }

    /// The login of a credential.
    fn answer(&self, order: &MintOrder<'_>, terms: &RedisTerms) -> Result<UpstreamCredential, MakeError> {
        let (address, database) = place(&terms.target).ok_or_else(|| refused(format!("{} is no Redis server", terms.target)))?;
        login(&self.access, order, LoginPlace { address, database, plaintext: terms.plaintext })
    }

    async fn make_user(&self, order: &MintOrder<'_>) -> Result<UpstreamCredential, MakeError> {
        let settings: RedisSettings = section_of(order, CredentialKind::Redis)?;
        let terms: RedisTerms = terms_of(order.terms).map_err(refused)?;
        let made = self.answer(order, &terms)?;
        let password = order.password()?;
        self.keep_reserve(&order.issued.upstream, &terms).await.map_err(refused)?;
        let mut session = self.admin(&order.issued.upstream, &terms).await.map_err(refused)?;
        let user = NewRedisUser { name: order.handle, password: &password };
        match make::make(&mut session, &settings, &order.issued.scopes, &user).await {
            Ok(()) => Ok(made),
            Err(NotMade { problem, unknown: true }) => Err(MakeError::Unknown(problem.to_string())),
            Err(NotMade { problem, .. }) => Err(refused(problem)),
        }
    }

    async fn undo_user(&self, order: &UndoOrder<'_>) -> Result<(), RedisProblem> {
        let terms: RedisTerms = terms_of(order.terms).map_err(|e| RedisProblem::new("reading the lease", e))?;
        let user = OldRedisUser { name: &order.lease.handle, admin: &terms.admin };
        undo::undo(&mut *self.undo_session(&order.lease.upstream, &terms).await?, &user).await
    }

    async fn user_is_gone(&self, order: &UndoOrder<'_>) -> Result<bool, RedisProblem> {
        let terms: RedisTerms = terms_of(order.terms).map_err(|e| RedisProblem::new("reading the lease", e))?;
        let user = OldRedisUser { name: &order.lease.handle, admin: &terms.admin };
        undo::is_gone(&mut *self.undo_session(&order.lease.upstream, &terms).await?, &user).await
    }

    async fn log_in(&self, order: &MintOrder<'_>, answer: &CredentialMaterial) -> Result<String, MakeError> {
        let CredentialMaterial::Database { user, password, plaintext, .. } = answer else {
            return Err(refused("the credential is no login"));
        };
        let terms: RedisTerms = terms_of(order.terms).map_err(refused)?;
        let (address, _) = place(&terms.target).ok_or_else(|| refused(format!("{} is no Redis server", terms.target)))?;
        let (password, plaintext, upstream) = (password.clone(), *plaintext, order.issued.upstream.as_str());
        let login = RedisLogin { address: &address, user, password, plaintext, upstream };
        let mut session = RedisSession::open(&self.access, login).await.map_err(refused)?;
        session.run("using the login", &["PING"]).await.map_err(refused)?;
        Ok(format!("logged in as {user}: PING"))
    }
}

impl UpstreamConnector for RedisConnector {
    fn kind(&self) -> CredentialKind {
        CredentialKind::Redis
    }

    fn describe(&self, query: &AccessQuery<'_>) -> Result<GrantedAccess, AccessError> {
        access::describe(query)
    }

    fn name(&self, order: &MintOrder<'_>) -> Result<UpstreamHandle, MakeError> {
        let RedisSettings { admin, plaintext, .. } = section_of(order, CredentialKind::Redis)?;
        let terms = RedisTerms { target: order.base_url.to_owned(), admin, plaintext };
        let terms = serde_json::to_string(&terms).map_err(refused)?;
        // Users of Redis have no expiry.
        Ok(UpstreamHandle { handle: account_of(PREFIX, order.credential), ends_at: Millis(0), terms })
    }

    fn make<'a>(&'a self, order: &'a MintOrder<'a>) -> ConnectorFuture<'a, Result<UpstreamCredential, MakeError>> {
        Box::pin(self.make_user(order))
    }

    fn undo<'a>(&'a self, order: &'a UndoOrder<'a>) -> ConnectorFuture<'a, Result<(), UndoError>> {
        Box::pin(async move { self.undo_user(order).await.map_err(|e| UndoError(e.to_string())) })
    }

    fn is_gone<'a>(&'a self, order: &'a UndoOrder<'a>) -> ConnectorFuture<'a, Result<bool, UndoError>> {
        Box::pin(async move { self.user_is_gone(order).await.map_err(|e| UndoError(e.to_string())) })
    }

    fn settles_ms(&self) -> u64 {
        1_000
    }

    fn again<'a>(&'a self, order: &'a MintOrder<'a>) -> ConnectorFuture<'a, Result<RepeatResponse, MakeError>> {
        // The lease is open, so the user is there; only its password has to be derived again.
        Box::pin(async move { Ok(RepeatResponse::Same(self.answer(order, &terms_of(order.terms).map_err(refused)?)?)) })
    }

    fn derives(&self) -> bool {
        true
    }

    fn use_once<'a>(
        &'a self,
        order: &'a MintOrder<'a>,
        answer: &'a CredentialMaterial,
    ) -> ConnectorFuture<'a, Result<String, MakeError>> {
        Box::pin(self.log_in(order, answer))
    }
}
