//! A session at Redis.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, Value};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::problem::RedisProblem;
use crate::access::UpstreamAccess;
use crate::access::address::UpstreamAddress;
use mayfly_base::limits;

/// A login: the server, the user and the password.
pub struct RedisLogin<'a> {
    /// The address of the server.
    pub address: &'a UpstreamAddress,
    /// The ACL user.
    pub user: &'a str,
    /// The user's password.
    pub password: Zeroizing<String>,
    /// The server takes no TLS.
    pub plaintext: bool,
    /// The name of the upstream, by which the roots are found.
    pub upstream: &'a str,
}

/// An open session. Dropping it closes the connection.
pub struct RedisSession {
    connection: MultiplexedConnection,
    /// What the answer to the present command may still have.
    left: Arc<AtomicU64>,
    _driver: ConnectionDriver,
}

/// The task that moves the bytes of a session. The connection is closed when it is dropped.
struct ConnectionDriver(JoinHandle<()>);

impl Drop for ConnectionDriver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

const LOGGING_IN: &str = "logging in";

impl RedisSession {
    /// Logs in, within `limits::UPSTREAM_CONNECT_MS` after the connection. mayfly opens the connection itself, so the driver can neither
    /// resolve another name nor try another host.
    pub async fn open(access: &UpstreamAccess, login: RedisLogin<'_>) -> Result<RedisSession, RedisProblem> {
        let stream = login.address.connect().await?;
        let limit = Duration::from_millis(limits::UPSTREAM_CONNECT_MS);
        let slow = || RedisProblem::new(LOGGING_IN, format!("no answer within {} ms", limits::UPSTREAM_CONNECT_MS));
        tokio::time::timeout(limit, logged_in(access, &login, stream)).await.unwrap_or_else(|_| Err(slow()))
    }

    /// Sends a command, and returns its answer.
    pub async fn run(&mut self, step: &'static str, words: &[&str]) -> Result<Value, RedisProblem> {
        let mut command = redis::Cmd::new();
        words.iter().for_each(|word| {
            command.arg(*word);
        });
        self.left.store(limits::REDIS_ANSWER_BYTES, Ordering::Relaxed);
        let limit = Duration::from_millis(limits::REDIS_COMMAND_MS);
        match tokio::time::timeout(limit, command.query_async(&mut self.connection)).await {
            Ok(answer) => answer.map_err(|e| RedisProblem::of(step, &e)),
            Err(_) => Err(RedisProblem::new(step, format!("no answer within {} ms", limits::REDIS_COMMAND_MS))),
        }
    }
}

async fn logged_in(access: &UpstreamAccess, login: &RedisLogin<'_>, stream: TcpStream) -> Result<RedisSession, RedisProblem> {
    let left = Arc::new(AtomicU64::new(limits::REDIS_ANSWER_BYTES));
    let stream: Box<dyn Transport> = match login.plaintext {
        true => Box::new(stream),
        false => {
            let (access, upstream) = (access.clone(), login.upstream.to_owned());
            let config = tokio::task::spawn_blocking(move || access.tls(&upstream)).await;
            let config =
                config.map_err(|e| e.to_string()).and_then(|config| config).map_err(|e| RedisProblem::new(LOGGING_IN, e))?;
            let name = ServerName::try_from(login.address.host.clone()).map_err(|e| RedisProblem::driver(LOGGING_IN, &e))?;
            let opened = TlsConnector::from(config).connect(name, stream).await;
            Box::new(opened.map_err(|e| RedisProblem::driver(LOGGING_IN, &e).of_login(login.upstream))?)
        }
    };
    let info = RedisConnectionInfo::default()
        .set_username(login.user)
        .set_password(login.password.as_str())
        // The driver would otherwise send its name, for which no user has a permission.
        .set_skip_set_lib_name();
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_millis(limits::REDIS_COMMAND_MS)));
    let stream = Bounded { stream, left: left.clone() };
    // A task of its own: an answer on which the driver panics ends that task only.
    let mut opening = ConnectionTask(tokio::spawn(async move {
        MultiplexedConnection::new_with_config(&info, stream, config)
            .await
            .map(|(connection, driver)| (connection, ConnectionDriver(tokio::spawn(driver))))
    }));
    let opened =
        (&mut opening.0).await.map_err(|_| RedisProblem::new(LOGGING_IN, "the server's answer is not one of the protocol"))?;
    let (connection, driver) = opened.map_err(|e| RedisProblem::of(LOGGING_IN, &e).of_login(login.upstream))?;
    Ok(RedisSession { connection, left, _driver: driver })
}

/// A task that ends when it is dropped.
struct ConnectionTask<T>(JoinHandle<T>);

impl<T> Drop for ConnectionTask<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection, with TLS or without.
trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// A connection that fails when an answer has more bytes than it may have: the driver itself keeps all of an answer.
struct Bounded {
    stream: Box<dyn Transport>,
    left: Arc<AtomicU64>,
}

impl AsyncRead for Bounded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let got = (buf.filled().len() - before) as u64;
        let spent = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(got));
        Poll::Ready(match spent {
            Ok(_) => Ok(()),
            Err(_) => Err(io::Error::other(format!("an answer of more than {} bytes", limits::REDIS_ANSWER_BYTES))),
        })
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
