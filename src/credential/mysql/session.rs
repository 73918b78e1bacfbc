//! A session at MySQL or MariaDB.

use std::time::Duration;

use mysql_async::prelude::{FromRow, Queryable as _};
use mysql_async::{Conn, Opts, OptsBuilder, Params, SslOpts};
use zeroize::Zeroizing;

use super::problem::MyProblem;
use crate::access::UpstreamAccess;
use crate::access::address::UpstreamAddress;
use mayfly_base::limits;

/// A login: the server, the user and the password.
pub struct MyLogin<'a> {
    /// The address of the server.
    pub address: &'a UpstreamAddress,
    /// The database of the session. mayfly's own sessions have none.
    pub database: Option<&'a str>,
    /// The user.
    pub user: &'a str,
    /// The user's password.
    pub password: Zeroizing<String>,
    /// The server takes no TLS.
    pub plaintext: bool,
    /// The name of the upstream, by which the roots are found.
    pub upstream: &'a str,
}

/// Which of the two servers it is. Their statements differ in a few words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    MariaDb,
    MySql,
}

/// An open session. Dropping it closes the connection.
pub struct MySession {
    conn: Conn,
    /// The server.
    pub dialect: Dialect,
    /// The account that the session is of, as the server matched it: user and host.
    pub account: (String, String),
}

const SETTING_UP: &str = "setting the limits of the session";

impl MySession {
    /// Logs in, within `limits::UPSTREAM_CONNECT_MS` after the name was resolved.
    pub async fn open(access: &UpstreamAccess, login: MyLogin<'_>) -> Result<MySession, MyProblem> {
        let opts = options(access, &login).await?;
        // A task of its own: an answer on which the driver panics ends that task only.
        let mut connecting = tokio::spawn(Conn::new(opts));
        let limit = Duration::from_millis(limits::UPSTREAM_CONNECT_MS);
        let Ok(joined) = tokio::time::timeout(limit, &mut connecting).await else {
            connecting.abort();
            return Err(MyProblem::new("logging in", format!("no answer within {} ms", limits::UPSTREAM_CONNECT_MS)));
        };
        let joined = joined.map_err(|_| MyProblem::new("logging in", "the server's answer is not one of the protocol"))?;
        let conn = joined.map_err(|e| MyProblem::of("logging in", &e).of_login(login.upstream))?;
        let mut session = MySession { conn, dialect: Dialect::MySql, account: Default::default() };
        let rows: Vec<(String, String)> = session.rows(SETTING_UP, "SELECT VERSION(), CURRENT_USER()", ()).await?;
        let (version, account) = rows.into_iter().next().unwrap_or_default();
        if version.contains("MariaDB") {
            session.dialect = Dialect::MariaDb;
        }
        let (user, host) = account.rsplit_once('@').unwrap_or((&account, "%"));
        session.account = (user.to_owned(), host.to_owned());
        session.run(SETTING_UP, &session.limits()).await?;
        Ok(session)
    }

    /// The limits of the session. `NO_AUTO_CREATE_USER`: without it, a GRANT of MariaDB creates a user that does not exist. MySQL has no such
    /// mode, and no such GRANT.
    fn limits(&self) -> String {
        let (modes, most) = match self.dialect {
            Dialect::MariaDb => {
                let seconds = limits::MYSQL_STATEMENT_MS / 1_000;
                ("NO_AUTO_CREATE_USER,STRICT_ALL_TABLES", format!(", SESSION max_statement_time = {seconds}"))
            }
            Dialect::MySql => ("STRICT_ALL_TABLES", String::new()),
        };
        format!(
            "SET SESSION sql_mode = '{modes}', SESSION lock_wait_timeout = {lock}, SESSION innodb_lock_wait_timeout = {lock}, \
             SESSION wait_timeout = {idle}{most}",
            lock = limits::MYSQL_LOCK_S,
            idle = limits::MYSQL_IDLE_S
        )
    }

    /// Executes a statement without rows.
    pub async fn run(&mut self, step: &'static str, statement: &str) -> Result<(), MyProblem> {
        within(step, self.conn.query_drop(statement)).await
    }

    /// Executes a statement with parameters, which the driver sends apart from it, and returns its rows.
    pub async fn rows<T: FromRow + Send + 'static>(
        &mut self,
        step: &'static str,
        statement: &str,
        parameters: impl Into<Params> + Send,
    ) -> Result<Vec<T>, MyProblem> {
        within(step, self.conn.exec(statement, parameters.into())).await
    }

    /// Executes a statement without parameters that the server does not prepare, and returns its rows.
    pub async fn text_rows<T: FromRow + Send + 'static>(
        &mut self,
        step: &'static str,
        statement: &str,
    ) -> Result<Vec<T>, MyProblem> {
        within(step, self.conn.query(statement)).await
    }

    /// The number in the first column of the only row.
    pub async fn number(
        &mut self,
        step: &'static str,
        statement: &str,
        parameters: impl Into<Params> + Send,
    ) -> Result<Option<u64>, MyProblem> {
        let rows: Vec<(Option<u64>,)> = self.rows(step, statement, parameters).await?;
        Ok(rows.into_iter().next().and_then(|row| row.0))
    }

    /// mayfly's own account, as it is written in a statement that is shown to an operator.
    pub fn shown_account(&self) -> String {
        let (user, host) = &self.account;
        format!("'{}'@'{}'", user.replace('\'', "''"), host.replace('\'', "''"))
    }

    /// Says goodbye, so that the server's log has no broken connection.
    pub async fn close(self) {
        let limit = Duration::from_millis(limits::MYSQL_SESSIONS_LOOK_MS);
        let _ = tokio::time::timeout(limit, self.conn.disconnect()).await;
    }
}

async fn within<T>(step: &'static str, answer: impl Future<Output = mysql_async::Result<T>>) -> Result<T, MyProblem> {
    let limit = Duration::from_millis(limits::MYSQL_STATEMENT_MS);
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer.map_err(|e| MyProblem::of(step, &e)),
        Err(_) => Err(MyProblem::new(step, format!("no answer within {} ms", limits::MYSQL_STATEMENT_MS))),
    }
}

/// The options of the driver. It gets checked addresses and resolves no name, follows no socket that the server names, and sends no file and
/// no password in the clear: a server of TLS is verified before it gets anything.
async fn options(access: &UpstreamAccess, login: &MyLogin<'_>) -> Result<Opts, MyProblem> {
    let addresses = login.address.resolve().await?;
    let builder = OptsBuilder::default()
        .ip_or_hostname(login.address.host.as_str())
        .tcp_port(login.address.port)
        .resolved_ips(Some(addresses))
        .prefer_socket(false)
        .user(Some(login.user))
        .pass(Some(login.password.as_str()))
        .db_name(login.database)
        .stmt_cache_size(0)
        .max_allowed_packet(Some(limits::MYSQL_PACKET_BYTES))
        .wait_timeout(Some(limits::MYSQL_IDLE_S as usize));
    if login.plaintext {
        return Ok(builder.into());
    }
    let (access, upstream) = (access.clone(), login.upstream.to_owned());
    let roots = tokio::task::spawn_blocking(move || access.trusted_roots(&upstream)).await;
    let roots = roots.map_err(|e| e.to_string()).and_then(|read| read).map_err(|e| MyProblem::new("reading the roots", e))?;
    // The driver takes no root that it cannot use; a system's file may contain such a one.
    let usable = |root: &rustls::pki_types::CertificateDer<'static>| rustls::RootCertStore::empty().add(root.clone()).is_ok();
    let roots = roots.into_iter().filter(usable).map(|root| root.to_vec().into()).collect();
    let tls = SslOpts::default().with_disable_built_in_roots(true).with_root_certs(roots);
    Ok(builder.ssl_opts(tls).into())
}
