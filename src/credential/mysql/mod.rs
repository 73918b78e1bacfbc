//! Kind `mysql`: a user of MySQL or MariaDB for each credential, with exactly what the scopes grant.
//!
//! - [`settings`]: the section `[mysql]` of a registration. `template.toml`: a registration to start from.
//! - [`session`]: a session at the server. [`make`], [`undo`]: the statements. [`verifier`]: what the server stores of a password.
//!   [`problem`]: what went wrong.
//!
//! A user's password is derived from the credential's id, so a repeat of a request gets the same login, and only its verifier is sent.
//!
//! What a late request can still do. MySQL has no transaction for these statements. The session that makes a user first takes a lock of the
//! user's name (`GET_LOCK`), which the server releases when the session ends, and sends each statement after the answer to the one before.
//! Undoing ends the session that holds the lock, and waits until nobody does: whatever that session had sent is carried out or never is.
//! [`UpstreamConnector::settles_ms`] is the time of one statement, for servers that route sessions to several nodes.

mod access;
mod make;
mod problem;
mod session;
mod settings;
mod undo;
mod verifier;

use std::sync::Arc;

use self::make::NewMysqlUser;
use self::problem::MyProblem;
use self::session::{MyLogin, MySession};
use self::settings::{MysqlSettings, MysqlTerms, object_databases, place};
use self::undo::OldMysqlUser;
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
    settings: SettingsReader { kind: Kind::Mysql, read: settings::read },
    build: |access| Arc::new(MysqlConnector { access }),
    template: include_str!("template.toml"),
};

/// The connector.
struct MysqlConnector {
    access: UpstreamAccess,
}

/// The name of a credential's user has 32 characters, the most that MySQL allows.
const PREFIX: &str = "mayfly";

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

impl MysqlConnector {
    /// Logs in as mayfly's own user.
    async fn admin(&self, upstream: &str, terms: &MysqlTerms) -> Result<MySession, MyProblem> {
        let unreadable = || MyProblem::new("reading the target", format!("{} is no database", terms.target));
        let (address, _) = place(&terms.target).ok_or_else(unreadable)?;
        let password = own_password(&self.access, upstream, &terms.target).await?;
        let (user, plaintext) = (terms.admin.as_str(), terms.plaintext);
        MySession::open(&self.access, MyLogin { address: &address, database: None, user, password, plaintext, upstream }).await
    }

    /// The login of a credential.
    fn answer(&self, order: &MintOrder<'_>, terms: &MysqlTerms) -> Result<UpstreamCredential, MakeError> {
        let (address, database) = place(&terms.target).ok_or_else(|| refused(format!("{} is no database", terms.target)))?;
        login(&self.access, order, LoginPlace { address, database, plaintext: terms.plaintext })
    }

    async fn make_user(&self, order: &MintOrder<'_>) -> Result<UpstreamCredential, MakeError> {
        let settings: MysqlSettings = section_of(order, CredentialKind::Mysql)?;
        let terms: MysqlTerms = terms_of(order.terms).map_err(refused)?;
        let made = self.answer(order, &terms)?;
        let password = order.password()?;
        let mut session = self.admin(&order.issued.upstream, &terms).await.map_err(refused)?;
        let life = order.issued.expires_at.saturating_sub(order.issued.issued_at);
        let user = NewMysqlUser {
            name: order.handle,
            password: &password,
            random: self.access.system().random16(),
            days: life.div_ceil(DAY_MS).max(1),
        };
        match make::make(&mut session, &settings, &order.issued.scopes, &user).await {
            Ok(()) => {
                session.close().await;
                Ok(made)
            }
            Err(NotMade { problem, unknown: true }) => Err(MakeError::Unknown(problem.to_string())),
            Err(NotMade { problem, .. }) => Err(refused(problem)),
        }
    }

    async fn undo_user(&self, order: &UndoOrder<'_>) -> Result<(), MyProblem> {
        let terms: MysqlTerms = terms_of(order.terms).map_err(|e| MyProblem::new("reading the lease", e))?;
        let mut session = self.admin(&order.lease.upstream, &terms).await?;
        undo::undo(&mut session, &OldMysqlUser { name: &order.lease.handle, terms: &terms }).await?;
        session.close().await;
        Ok(())
    }

    async fn user_is_gone(&self, order: &UndoOrder<'_>) -> Result<bool, MyProblem> {
        let terms: MysqlTerms = terms_of(order.terms).map_err(|e| MyProblem::new("reading the lease", e))?;
        let mut session = self.admin(&order.lease.upstream, &terms).await?;
        let gone = undo::is_gone(&mut session, &OldMysqlUser { name: &order.lease.handle, terms: &terms }).await?;
        session.close().await;
        Ok(gone)
    }

    async fn log_in(&self, order: &MintOrder<'_>, answer: &CredentialMaterial) -> Result<String, MakeError> {
        let CredentialMaterial::Database { database, user, password, plaintext, .. } = answer else {
            return Err(refused("the credential is no login"));
        };
        let terms: MysqlTerms = terms_of(order.terms).map_err(refused)?;
        let (address, _) = place(&terms.target).ok_or_else(|| refused(format!("{} is no database", terms.target)))?;
        let (password, plaintext, upstream) = (password.clone(), *plaintext, order.issued.upstream.as_str());
        let login = MyLogin { address: &address, database: Some(database), user, password, plaintext, upstream };
        let mut session = MySession::open(&self.access, login).await.map_err(refused)?;
        session.run("using the login", "SELECT 1").await.map_err(refused)?;
        session.close().await;
        Ok(format!("logged in to {database} as {user}: SELECT 1"))
    }
}

impl UpstreamConnector for MysqlConnector {
    fn kind(&self) -> CredentialKind {
        CredentialKind::Mysql
    }

    fn describe(&self, query: &AccessQuery<'_>) -> Result<GrantedAccess, AccessError> {
        access::describe(query)
    }

    fn name(&self, order: &MintOrder<'_>) -> Result<UpstreamHandle, MakeError> {
        let MysqlSettings { admin, plaintext, from_host, grants, .. } = section_of(order, CredentialKind::Mysql)?;
        let asked = grants.iter().filter(|grant| order.issued.scopes.contains(&grant.scope));
        let object_databases = object_databases(asked);
        let terms = MysqlTerms { target: order.base_url.to_owned(), admin, from_host, plaintext, object_databases };
        let terms = serde_json::to_string(&terms).map_err(refused)?;
        // A user never ends by itself: the server only refuses its password after some days.
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
        limits::MYSQL_STATEMENT_MS
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
