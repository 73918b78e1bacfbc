//! One attempt to tell: a signed POST (Standard Webhooks), bounded in time. Redirects are not followed, and of an answer only its head is read.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::limits;
use crate::serve::tls::web_client_config;
use crate::sources::config::Webhook;
use crate::sources::webhook_files::{roots, secrets};
use crate::system::System;

/// A stream over TLS, or on this host.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Posts a body under its id. The status that was answered, where it says that the event was taken; else what it ended with.
pub(super) async fn post(hook: &Webhook, system: &System, id: &str, body: &str) -> Result<u16, String> {
    let patience = Duration::from_millis(limits::WEBHOOK_CALL_MS);
    let attempt: std::pin::Pin<Box<dyn Future<Output = Result<u16, String>> + Send + '_>> =
        Box::pin(attempt(hook, system, id, body));
    match tokio::time::timeout(patience, attempt).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("{} did not answer within {} s", hook.url.shown(), patience.as_secs())),
    }
}

async fn attempt(hook: &Webhook, system: &System, id: &str, body: &str) -> Result<u16, String> {
    let now = system.wall().seconds();
    let signature = signature(hook, id, now, body)?;
    let failed = |e: &dyn std::fmt::Display| format!("{}: {e}", hook.url.shown());
    let stream = connect(hook, system).await.map_err(|e| failed(&e))?;
    let handshake = http1::Builder::new().max_buf_size(limits::WEBHOOK_ANSWER_BYTES).handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(|e| failed(&e))?;
    // It ends with this attempt, whatever the other end does.
    let _connection = Closes(tokio::spawn(connection));
    let request = http::Request::post(&hook.url.path)
        .header("host", hook.url.authority())
        .header("content-type", "application/json")
        .header("user-agent", concat!("mayfly/", env!("CARGO_PKG_VERSION")))
        .header("connection", "close")
        .header("webhook-id", id)
        .header("webhook-timestamp", now.to_string())
        .header("webhook-signature", signature)
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())));
    let request = request.map_err(|e| failed(&e))?;
    let answer = sender.send_request(request).await;
    match answer.map_err(|e| failed(&e))?.status().as_u16() {
        status @ 200..=299 => Ok(status),
        status @ 300..=399 => Err(failed(&format_args!("it answered {status}; redirects are not followed"))),
        status => Err(failed(&format_args!("it answered {status}"))),
    }
}

/// A connection's task, which ends when nobody waits any more.
struct Closes(tokio::task::JoinHandle<Result<(), hyper::Error>>);

impl Drop for Closes {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// `v1,` and the HMAC-SHA256 over id, time and body in base64; one for each secret.
fn signature(hook: &Webhook, id: &str, now: u64, body: &str) -> Result<String, String> {
    let secrets = secrets(&hook.secret_file).map_err(|e| e.to_string())?;
    let signed = format!("{id}.{now}.{body}");
    let one = |secret: &zeroize::Zeroizing<Vec<u8>>| {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
        format!("v1,{}", data_encoding::BASE64.encode(tag.as_ref()))
    };
    Ok(secrets.iter().map(one).collect::<Vec<_>>().join(" "))
}

async fn connect(hook: &Webhook, system: &System) -> io::Result<Box<dyn Stream>> {
    let url = &hook.url;
    let tcp = TcpStream::connect((url.host.as_str(), url.port)).await?;
    tcp.set_nodelay(true)?;
    let Some(ca) = hook.ca.as_ref().filter(|_| url.https) else {
        // A name may stand for another host than this one.
        return match tcp.peer_addr()?.ip().is_loopback() && !url.https {
            true => Ok(Box::new(tcp)),
            false => Err(io::Error::other("http is for this host only")),
        };
    };
    let config = web_client_config(roots(ca).map_err(io::Error::other)?, system).map_err(io::Error::other)?;
    let name = ServerName::try_from(url.host.clone()).map_err(io::Error::other)?;
    Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(name, tcp).await?))
}
