//! Kind `postgres`: a role in PostgreSQL for each credential, with exactly what the scopes grant.
//!
//! - [`settings`]: the section `[postgres]` of a registration. `template.toml`: a registration to start from.
//! - [`session`]: a session at the server. [`make`], [`undo`]: the statements. [`problem`]: what went wrong, and what would mend it.
//!
//! All names in statements are quoted by the server itself (`format('%I')` and casts to `reg…`); none is put into a statement here. A role's
//! password is derived from the credential's id, so a repeat of a request gets the same login, and only its SCRAM verifier is sent.
//!
//! What a late request can still do. Making sends its statements one by one, so that at most one is on its way when mayfly gives up or is
//! killed, and only a COMMIT has an effect. PostgreSQL ends a session that pauses within a transaction for
//! `limits::POSTGRES_IDLE_MS`, so a COMMIT that arrives later finds no transaction; one that arrives in time takes at most
//! `limits::POSTGRES_STATEMENT_MS`. [`UpstreamConnector::settles_ms`] is the sum, with a second for the server's timers.

mod access;
mod make;
mod problem;
mod session;
mod settings;
mod undo;

use std::sync::Arc;

use tokio_postgres::error::SqlState;
use zeroize::Zeroizing;

use self::make::NewRole;
use self::problem::PgProblem;
use self::session::{PgLogin, PgSession, PgTurns};
use self::settings::{PostgresSettings, PostgresTerms, place};
use self::undo::OldRole;
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
    settings: SettingsReader { kind: Kind::Postgres, read: settings::read },
    build: |access| Arc::new(PostgresConnector { access, turns: PgTurns::default() }),
    template: include_str!("template.toml"),
};

/// The connector.
struct PostgresConnector {
    access: UpstreamAccess,
    turns: PgTurns,
}

/// The name of a credential's role: 33 characters that need no quotes.
const PREFIX: &str = "mayfly_";

impl PostgresConnector {
    fn settings(order: &MintOrder<'_>) -> Result<PostgresSettings, MakeError> {
        section_of(order, CredentialKind::Postgres)
    }

    /// Logs in as mayfly's own role. `database`: instead of the target's.
    async fn admin(&self, upstream: &str, terms: &PostgresTerms, database: Option<&str>) -> Result<PgSession, PgProblem> {
        let unreadable = || PgProblem::new("reading the target", format!("{} is no database", terms.target));
        let (address, own) = place(&terms.target).ok_or_else(unreadable)?;
        let password = own_password(&self.access, upstream, &terms.target).await?;
        let database = database.unwrap_or(own);
        let login = PgLogin { address: &address, database, user: &terms.admin, password, plaintext: terms.plaintext, upstream };
        let turn = self.turns.of(format!("{}:{}/{database}", address.host, address.port));
        Ok(PgSession::open(&self.access, login).await?.in_turn(turn))
    }

    /// As [`PostgresConnector::admin`]. If the database of the target was dropped, another one of the same server serves for undoing.
    async fn admin_anywhere(&self, upstream: &str, terms: &PostgresTerms) -> Result<PgSession, PgProblem> {
        match self.admin(upstream, terms, None).await {
            Err(problem) if problem.is(&SqlState::INVALID_CATALOG_NAME) => self.admin(upstream, terms, Some("postgres")).await,
            opened => opened,
        }
    }

    /// The login of a credential.
    fn answer(&self, order: &MintOrder<'_>, terms: &PostgresTerms) -> Result<UpstreamCredential, MakeError> {
        let (address, database) = place(&terms.target).ok_or_else(|| refused(format!("{} is no database", terms.target)))?;
        login(&self.access, order, LoginPlace { address, database, plaintext: terms.plaintext })
    }

    async fn make_role(&self, order: &MintOrder<'_>) -> Result<UpstreamCredential, MakeError> {
        let settings = Self::settings(order)?;
        let terms: PostgresTerms = terms_of(order.terms).map_err(refused)?;
        let granted = settings.granted(&order.issued.scopes, &order.issued.details).map_err(refused)?;
        let made = self.answer(order, &terms)?;
        let verifier = match &made.answer {
            CredentialMaterial::Database { password, .. } => {
                Zeroizing::new(postgres_protocol::password::scram_sha_256(password.as_bytes()))
            }
            _ => return Err(refused("a login without a password")),
        };
        let session = self.admin(&order.issued.upstream, &terms, None).await.map_err(refused)?;
        let comment = format!("made by mayfly: credential {}, upstream {}", order.credential, order.issued.upstream);
        let valid_until = Millis(order.issued.expires_at).seconds();
        let role = NewRole { name: order.handle, verifier: &verifier, valid_until, comment: &comment };
        let mut tries = limits::POSTGRES_TRIES;
        loop {
            tries -= 1;
            match make::make(&session, &settings, &granted, &role).await {
                Ok(()) => {
                    session.close().await;
                    return Ok(made);
                }
                Err(NotMade { problem, unknown: true }) => return Err(MakeError::Unknown(problem.to_string())),
                // Nothing was made: the transaction is rolled back.
                Err(NotMade { problem, .. }) if problem.is_contention() && tries > 0 => {
                    session.run("rolling back", "ROLLBACK").await.map_err(refused)?;
                }
                Err(NotMade { problem, .. }) => return Err(refused(problem)),
            }
        }
    }

    async fn undo_role(&self, order: &UndoOrder<'_>) -> Result<(), PgProblem> {
        let terms: PostgresTerms = terms_of(order.terms).map_err(|e| PgProblem::new("reading the lease", e))?;
        let session = self.admin_anywhere(&order.lease.upstream, &terms).await?;
        let role = OldRole { name: &order.lease.handle, reassign_to: terms.reassign_to.as_deref(), admin: &terms.admin };
        let open = |database: String| {
            let terms = &terms;
            async move { self.admin(&order.lease.upstream, terms, Some(&database)).await }
        };
        undo::undo(&session, &role, open).await?;
        session.close().await;
        Ok(())
    }

    async fn role_is_gone(&self, order: &UndoOrder<'_>) -> Result<bool, PgProblem> {
        let terms: PostgresTerms = terms_of(order.terms).map_err(|e| PgProblem::new("reading the lease", e))?;
        let session = self.admin_anywhere(&order.lease.upstream, &terms).await?;
        let gone = undo::is_gone(&session, &order.lease.handle).await?;
        session.close().await;
        Ok(gone)
    }

    async fn log_in(&self, order: &MintOrder<'_>, answer: &CredentialMaterial) -> Result<String, MakeError> {
        let CredentialMaterial::Database { database, user, password, plaintext, .. } = answer else {
            return Err(refused("the credential is no login"));
        };
        let terms: PostgresTerms = terms_of(order.terms).map_err(refused)?;
        let (address, _) = place(&terms.target).ok_or_else(|| refused(format!("{} is no database", terms.target)))?;
        let (password, plaintext, upstream) = (password.clone(), *plaintext, order.issued.upstream.as_str());
        let login = PgLogin { address: &address, database, user, password, plaintext, upstream };
        let session = PgSession::open(&self.access, login).await.map_err(refused)?;
        session.run("using the login", "SELECT 1").await.map_err(refused)?;
        session.close().await;
        Ok(format!("logged in to {database} as {user}: SELECT 1"))
    }
}

impl UpstreamConnector for PostgresConnector {
    fn kind(&self) -> CredentialKind {
        CredentialKind::Postgres
    }

    fn describe(&self, query: &AccessQuery<'_>) -> Result<GrantedAccess, AccessError> {
        access::describe(query)
    }

    fn narrows(&self) -> bool {
        true
    }

    fn name(&self, order: &MintOrder<'_>) -> Result<UpstreamHandle, MakeError> {
        let PostgresSettings { admin, plaintext, reassign_to, .. } = Self::settings(order)?;
        let terms = PostgresTerms { target: order.base_url.to_owned(), admin, plaintext, reassign_to };
        let terms = serde_json::to_string(&terms).map_err(refused)?;
        // VALID UNTIL ends logins but no session, so the role never ends by itself.
        Ok(UpstreamHandle { handle: account_of(PREFIX, order.credential), ends_at: Millis(0), terms })
    }

    fn make<'a>(&'a self, order: &'a MintOrder<'a>) -> ConnectorFuture<'a, Result<UpstreamCredential, MakeError>> {
        Box::pin(self.make_role(order))
    }

    fn undo<'a>(&'a self, order: &'a UndoOrder<'a>) -> ConnectorFuture<'a, Result<(), UndoError>> {
        Box::pin(async move { self.undo_role(order).await.map_err(|e| UndoError(e.to_string())) })
    }

    fn is_gone<'a>(&'a self, order: &'a UndoOrder<'a>) -> ConnectorFuture<'a, Result<bool, UndoError>> {
        Box::pin(async move { self.role_is_gone(order).await.map_err(|e| UndoError(e.to_string())) })
    }

    fn settles_ms(&self) -> u64 {
        limits::POSTGRES_IDLE_MS + limits::POSTGRES_STATEMENT_MS + 1_000
    }

    fn again<'a>(&'a self, order: &'a MintOrder<'a>) -> ConnectorFuture<'a, Result<RepeatResponse, MakeError>> {
        // The lease is open, so the role is there; only its password has to be derived again.
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
