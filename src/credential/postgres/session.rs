//! A session at PostgreSQL.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use aws_lc_rs::digest;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::JoinHandle;
use tokio_postgres::config::{ChannelBinding as Binding, SslMode};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, NoTls, Row};
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use super::problem::PgProblem;
use crate::access::UpstreamAccess;
use crate::access::address::UpstreamAddress;
use mayfly_base::limits;

/// A login: the server, the database, and the role with its password.
pub struct PgLogin<'a> {
    /// The address of the server.
    pub address: &'a UpstreamAddress,
    /// The database.
    pub database: &'a str,
    /// The role.
    pub user: &'a str,
    /// The role's password.
    pub password: Zeroizing<String>,
    /// The server takes no TLS.
    pub plaintext: bool,
    /// The name of the upstream, by which the roots are found.
    pub upstream: &'a str,
}

/// An open session. Dropping it closes the connection, and PostgreSQL rolls back what was not committed.
pub struct PgSession {
    client: Client,
    driver: ConnectionDriver,
    turn: Arc<Mutex<()>>,
}

/// The turns of mayfly's own sessions at changing privileges, by server and database.
#[derive(Default)]
pub struct PgTurns(parking_lot::Mutex<HashMap<String, Arc<Mutex<()>>>>);

impl PgTurns {
    /// The turn at one database.
    pub fn of(&self, database: String) -> Arc<Mutex<()>> {
        let mut turns = self.0.lock();
        // Turns that nobody waits for are forgotten, so that the map does not grow with databases that are gone.
        if turns.len() >= limits::POSTGRES_TURNS {
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        turns.entry(database).or_default().clone()
    }
}

/// The task that moves the bytes of a session. The connection is closed when it is dropped.
struct ConnectionDriver(JoinHandle<()>);

impl Drop for ConnectionDriver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The limits of a session, and the search path: names of tables are resolved only where a registration qualifies them.
fn limits_of_session() -> String {
    format!(
        "SET statement_timeout = {}; SET lock_timeout = {}; SET idle_in_transaction_session_timeout = {}; SET search_path = pg_catalog",
        limits::POSTGRES_STATEMENT_MS,
        limits::POSTGRES_LOCK_MS,
        limits::POSTGRES_IDLE_MS
    )
}

impl PgSession {
    /// Logs in, within `limits::UPSTREAM_CONNECT_MS` after the connection.
    ///
    /// Over TLS only SCRAM with channel binding is accepted: a server can then not ask for the password itself, and nobody between mayfly
    /// and the server can use the exchange.
    pub async fn open(access: &UpstreamAccess, login: PgLogin<'_>) -> Result<PgSession, PgProblem> {
        let stream = login.address.connect().await?;
        let mut config = Config::new();
        config.user(login.user).dbname(login.database).application_name("mayfly").password(login.password.as_bytes());
        let limit = Duration::from_millis(limits::UPSTREAM_CONNECT_MS);
        let slow = || PgProblem::new("logging in", format!("no answer within {} ms", limits::UPSTREAM_CONNECT_MS));
        let connected = tokio::time::timeout(limit, async {
            if login.plaintext {
                config.ssl_mode(SslMode::Disable).channel_binding(Binding::Prefer);
                let opened = config.connect_raw(stream, NoTls).await;
                return opened.map(|(client, connection)| (client, tokio::spawn(finished(connection))));
            }
            config.ssl_mode(SslMode::Require).channel_binding(Binding::Require);
            let tls = PgTls { access: access.clone(), upstream: login.upstream.to_owned(), host: login.address.host.clone() };
            let opened = config.connect_raw(stream, tls).await;
            opened.map(|(client, connection)| (client, tokio::spawn(finished(connection))))
        });
        let failed =
            |e: tokio_postgres::Error| PgProblem::of("logging in", &e).of_login(login.user, login.database, login.upstream);
        let (client, driver) = connected.await.map_err(|_| slow())?.map_err(failed)?;
        let session = PgSession { client, driver: ConnectionDriver(driver), turn: Arc::default() };
        session.run("setting the limits of the session", &limits_of_session()).await?;
        Ok(session)
    }

    /// Executes statements that have no parameters.
    pub async fn run(&self, step: &'static str, statements: &str) -> Result<(), PgProblem> {
        self.client.batch_execute(statements).await.map_err(|e| PgProblem::of(step, &e))
    }

    /// With the turn at its database, for [`PgSession::begin`].
    pub fn in_turn(self, turn: Arc<Mutex<()>>) -> PgSession {
        PgSession { turn, ..self }
    }

    /// Begins a transaction that changes privileges. One runs at a time in each database, for as long as the result lives: PostgreSQL refuses
    /// the second of two concurrent changes of the privileges of one table ("tuple concurrently updated"), and such a change by somebody else
    /// is tried again. A lock of the database would not do: any role may take an advisory lock, and so hold up every making and undoing.
    pub async fn begin(&self, step: &'static str) -> Result<OwnedMutexGuard<()>, PgProblem> {
        let turn = self.turn.clone().lock_owned().await;
        self.run(step, "BEGIN").await?;
        Ok(turn)
    }

    /// Executes one statement with parameters.
    pub async fn rows(
        &self,
        step: &'static str,
        statement: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, PgProblem> {
        self.client.query_typed(statement, parameters).await.map_err(|e| PgProblem::of(step, &e))
    }

    /// The text in the first column of the only row, which may be null: statements that the server itself writes, with all names quoted.
    pub async fn optional_text(
        &self,
        step: &'static str,
        statement: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Option<Zeroizing<String>>, PgProblem> {
        let rows = self.rows(step, statement, parameters).await?;
        match rows.first().map(|row| row.try_get::<_, Option<String>>(0)) {
            Some(Ok(text)) => Ok(text.map(Zeroizing::new)),
            _ => Err(PgProblem::new(step, "the server answered without a text")),
        }
    }

    /// Has the server write a statement, with all names quoted, and executes it.
    pub async fn formatted(
        &self,
        step: &'static str,
        statement: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<(), PgProblem> {
        let written = self.optional_text(step, statement, parameters).await?;
        self.run(step, &written.ok_or_else(|| PgProblem::new(step, "the server wrote no statement"))?).await
    }

    /// Says goodbye, so that the server's log has no broken connection.
    pub async fn close(self) {
        let PgSession { client, mut driver, turn: _ } = self;
        drop(client);
        let _ = tokio::time::timeout(Duration::from_millis(limits::POSTGRES_SESSIONS_LOOK_MS), &mut driver.0).await;
    }
}

async fn finished<F: Future<Output = Result<(), tokio_postgres::Error>>>(connection: F) {
    // An error shows at the next statement.
    let _ = connection.await;
}

/// Opens TLS over a connection.
struct PgTls {
    access: UpstreamAccess,
    upstream: String,
    host: String,
}

impl TlsConnect<TcpStream> for PgTls {
    type Stream = PgTlsStream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<PgTlsStream, io::Error>> + Send>>;

    fn connect(self, stream: TcpStream) -> Self::Future {
        Box::pin(async move {
            let PgTls { access, upstream, host } = self;
            let config: Arc<ClientConfig> = tokio::task::spawn_blocking(move || access.tls(&upstream))
                .await
                .map_err(io::Error::other)?
                .map_err(io::Error::other)?;
            let name = ServerName::try_from(host).map_err(io::Error::other)?;
            TlsConnector::from(config).connect(name, stream).await.map(PgTlsStream)
        })
    }
}

/// A connection with TLS.
struct PgTlsStream(tokio_rustls::client::TlsStream<TcpStream>);

impl TlsStream for PgTlsStream {
    /// `tls-server-end-point` (RFC 5929, section 4.1).
    fn channel_binding(&self) -> ChannelBinding {
        let certificates = self.0.get_ref().1.peer_certificates();
        match certificates.and_then(|all| end_point(all.first()?)) {
            Some(hash) => ChannelBinding::tls_server_end_point(hash),
            None => ChannelBinding::none(),
        }
    }
}

/// The hash of a certificate by the hash function of its signature, SHA-256 instead of older ones. `None` where the signature names none.
fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let algorithm = match parsed.signature_algorithm.algorithm.to_id_string().as_str() {
        // MD5 and SHA-1 with RSA, SHA-1 with ECDSA; SHA-256 with RSA and ECDSA.
        "1.2.840.113549.1.1.4" | "1.2.840.113549.1.1.5" | "1.2.840.10045.4.1" => &digest::SHA256,
        "1.2.840.113549.1.1.11" | "1.2.840.10045.4.3.2" => &digest::SHA256,
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => &digest::SHA384,
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => &digest::SHA512,
        _ => return None,
    };
    Some(digest::digest(algorithm, certificate).as_ref().to_vec())
}

impl AsyncRead for PgTlsStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for PgTlsStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
