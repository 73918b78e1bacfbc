//! HTTPS calls of connectors: one request on a connection of its own, one bounded answer, in bounded time.
//!
//! - Where to: the address that a registration names, with the checks of [`address`](super::address). Redirects are not followed. `http` is
//!   possible on this host only, for upstreams without TLS beside mayfly.
//! - Who answers: the server is verified by the roots of the upstream ([`tls`](super::tls)).
//! - What an error means: [`CallOutcome`] says whether the request was certainly not sent, or was perhaps carried out. A connector must not
//!   report [`MakeError::Refused`] in the second case.
//! - Secrets: header values and bodies of requests, and bodies of answers, are wiped when they are dropped. Copies in the buffers of the HTTP
//!   and TLS libraries are not. Errors hold nothing of a request but its host, and [`UpstreamResponse::told`] removes the request's secrets
//!   from texts of the upstream.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use zeroize::Zeroizing;

use super::UpstreamAccess;
use super::address::UpstreamAddress;
use super::http1::exchange;
use crate::connector::{MakeError, UndoError};
use mayfly_base::document::url::WebUrl;
use mayfly_base::limits;

/// What is known about a request that was not answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallOutcome {
    /// The request was not sent: no byte of it reached the server.
    NotSent,
    /// The request was sent, at least in part: the server may have carried it out.
    PerhapsDone,
}

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{host}: {what}")]
pub struct UpstreamCallError {
    /// The server.
    host: String,
    /// What went wrong, and how to mend it; never a part of the request.
    what: String,
    /// What is known about the request.
    pub outcome: CallOutcome,
}

impl UpstreamCallError {
    fn not_sent(host: &str, what: impl fmt::Display) -> UpstreamCallError {
        UpstreamCallError { host: host.to_owned(), what: what.to_string(), outcome: CallOutcome::NotSent }
    }

    fn perhaps_done(host: &str, what: impl fmt::Display) -> UpstreamCallError {
        UpstreamCallError { host: host.to_owned(), what: what.to_string(), outcome: CallOutcome::PerhapsDone }
    }
}

/// For a request that makes something.
impl From<UpstreamCallError> for MakeError {
    fn from(error: UpstreamCallError) -> MakeError {
        match error.outcome {
            CallOutcome::NotSent => MakeError::Refused(error.to_string()),
            CallOutcome::PerhapsDone => MakeError::Unknown(error.to_string()),
        }
    }
}

impl From<UpstreamCallError> for UndoError {
    fn from(error: UpstreamCallError) -> UndoError {
        UndoError(error.to_string())
    }
}

/// A request. Its `Debug` form has no values.
pub struct UpstreamRequest {
    method: Method,
    url: String,
    headers: HeaderMap,
    body: Bytes,
    /// Removed from texts of the upstream.
    secrets: Vec<Zeroizing<String>>,
    defect: Option<String>,
}

impl fmt::Debug for UpstreamRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamRequest").field("method", &self.method).finish_non_exhaustive()
    }
}

impl UpstreamRequest {
    /// A request without a body. `url`: https, with host and port of a configured target.
    pub fn new(method: Method, url: impl Into<String>) -> UpstreamRequest {
        let headers = HeaderMap::new();
        UpstreamRequest { method, url: url.into(), headers, body: Bytes::new(), secrets: Vec::new(), defect: None }
    }

    /// A GET request.
    pub fn get(url: impl Into<String>) -> UpstreamRequest {
        UpstreamRequest::new(Method::GET, url)
    }

    /// A POST request.
    pub fn post(url: impl Into<String>) -> UpstreamRequest {
        UpstreamRequest::new(Method::POST, url)
    }

    /// A DELETE request.
    pub fn delete(url: impl Into<String>) -> UpstreamRequest {
        UpstreamRequest::new(Method::DELETE, url)
    }

    /// With a header, which replaces an earlier one of its name.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: &str) -> UpstreamRequest {
        match HeaderValue::from_str(value) {
            Ok(value) => drop(self.headers.insert(name, value)),
            Err(_) => self.defect = Some(format!("the value of its header {name} has characters that no header may have")),
        }
        self
    }

    /// With a header that is secret as a whole.
    #[must_use]
    pub fn secret_header(mut self, name: HeaderName, value: &str) -> UpstreamRequest {
        self.secrets.push(Zeroizing::new(value.to_owned()));
        self.hidden(name, Zeroizing::new(value.as_bytes().to_vec()))
    }

    /// With `Authorization: Bearer`.
    #[must_use]
    pub fn bearer(mut self, token: &str) -> UpstreamRequest {
        self.secrets.push(Zeroizing::new(token.to_owned()));
        let mut value = Zeroizing::new(Vec::with_capacity("Bearer ".len() + token.len()));
        value.extend_from_slice(b"Bearer ");
        value.extend_from_slice(token.as_bytes());
        self.hidden(AUTHORIZATION, value)
    }

    /// With `Authorization: Basic`. User and password are sent as they are; OAuth wants both form-encoded before (RFC 6749, section 2.3.1),
    /// as by [`form_encoded`].
    #[must_use]
    pub fn basic(mut self, user: &str, password: &str) -> UpstreamRequest {
        self.secrets.push(Zeroizing::new(password.to_owned()));
        let mut pair = Zeroizing::new(String::with_capacity(user.len() + 1 + password.len()));
        pair.push_str(user);
        pair.push(':');
        pair.push_str(password);
        let mut value = Zeroizing::new(String::with_capacity("Basic ".len() + pair.len() / 3 * 4 + 4));
        value.push_str("Basic ");
        STANDARD.encode_string(pair.as_bytes(), &mut value);
        self.secrets.push(Zeroizing::new(value.get("Basic ".len()..).unwrap_or_default().to_owned()));
        let value = Zeroizing::new(std::mem::take(&mut *value).into_bytes());
        self.hidden(AUTHORIZATION, value)
    }

    /// With a JSON body.
    #[must_use]
    pub fn json(mut self, body: &impl Serialize) -> UpstreamRequest {
        // Room enough that the buffer does not grow, which would leave a copy behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(limits::UPSTREAM_REQUEST_BYTES));
        if serde_json::to_writer(&mut *bytes, body).is_err() {
            self.defect = Some("its body cannot be written as JSON".to_owned());
        }
        self.body("application/json", bytes)
    }

    /// With a form as body. The values of fields whose last element is `true` are secrets.
    #[must_use]
    pub fn form(mut self, fields: &[(&str, &str, bool)]) -> UpstreamRequest {
        let mut text = Zeroizing::new(String::with_capacity(limits::UPSTREAM_REQUEST_BYTES));
        for (name, value, secret) in fields {
            if *secret {
                self.secrets.push(Zeroizing::new((*value).to_owned()));
            }
            if !text.is_empty() {
                text.push('&');
            }
            encode_into(&mut text, name);
            text.push('=');
            encode_into(&mut text, value);
        }
        let bytes = Zeroizing::new(std::mem::take(&mut *text).into_bytes());
        self.body("application/x-www-form-urlencoded", bytes)
    }

    /// With a body of another media type.
    #[must_use]
    pub fn body(mut self, media_type: &'static str, body: Zeroizing<Vec<u8>>) -> UpstreamRequest {
        if body.len() > limits::UPSTREAM_REQUEST_BYTES {
            self.defect = Some(format!("its body has more than {} bytes", limits::UPSTREAM_REQUEST_BYTES));
        }
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        self.body = Bytes::from_owner(body);
        self
    }

    /// A text that is removed from texts of the upstream, beside the secrets of headers and forms.
    #[must_use]
    pub fn hiding(mut self, secret: &str) -> UpstreamRequest {
        self.secrets.push(Zeroizing::new(secret.to_owned()));
        self
    }

    fn hidden(mut self, name: HeaderName, value: Zeroizing<Vec<u8>>) -> UpstreamRequest {
        match HeaderValue::from_maybe_shared(Bytes::from_owner(value)) {
            Ok(mut value) => {
                value.set_sensitive(true);
                self.headers.insert(name, value);
            }
            Err(_) => self.defect = Some(format!("the value of its header {name} has characters that no header may have")),
        }
        self
    }
}

/// The form encoding of a text (WHATWG URL, application/x-www-form-urlencoded).
pub fn form_encoded(text: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(text.len().saturating_mul(3)));
    encode_into(&mut out, text);
    out
}

fn encode_into(out: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            _ => {
                let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or('0').to_ascii_uppercase();
                out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
            }
        }
    }
}

/// A complete answer, with any status. Its `Debug` form has the status only.
pub struct UpstreamResponse {
    /// The status.
    pub status: StatusCode,
    headers: HeaderMap,
    body: Zeroizing<Vec<u8>>,
    secrets: Vec<Zeroizing<String>>,
}

impl fmt::Debug for UpstreamResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamResponse").field("status", &self.status).finish_non_exhaustive()
    }
}

impl UpstreamResponse {
    /// A header, if it is there once and is text.
    pub fn header(&self, name: &HeaderName) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next().filter(|_| values.next().is_none())?;
        value.to_str().ok()
    }

    /// The seconds of `Retry-After`, if the server names a number.
    pub fn retry_after(&self) -> Option<u64> {
        self.header(&RETRY_AFTER)?.trim().parse().ok()
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body as JSON. The error says where the body is wrong, and holds nothing of it: it may have a secret.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_json::from_slice(&self.body).map_err(|e| {
            let kind = match e.classify() {
                serde_json::error::Category::Data => "is JSON of another shape than expected",
                _ => "is no JSON",
            };
            format!("its answer (status {}) {kind}, at line {} column {}", self.status.as_u16(), e.line(), e.column())
        })
    }

    /// A text of the answer, for an error: without control characters, without the secrets of the request, and of bounded length. Texts that
    /// may have a secret of the upstream's own must not be told at all.
    pub fn told(&self, text: &str) -> String {
        let mut out = text.to_owned();
        for secret in self.secrets.iter().filter(|secret| !secret.is_empty()) {
            out = out.replace(secret.as_str(), "[secret]");
        }
        let shown = out.chars().map(|c| if c.is_control() { ' ' } else { c });
        let mut out: String = shown.take(limits::UPSTREAM_TOLD_CHARACTERS + 1).collect();
        if out.chars().count() > limits::UPSTREAM_TOLD_CHARACTERS {
            out.pop();
            out.push('…');
        }
        out
    }
}

/// A client for one upstream.
#[derive(Clone)]
pub struct UpstreamHttps {
    tls: TlsConnector,
    /// For the remedy in an error.
    upstream: Arc<str>,
    call_ms: u64,
    answer_bytes: usize,
}

impl UpstreamAccess {
    /// A client for the calls to an upstream. `server_ca`: the roots in PEM that the registration names, if any; see
    /// [`UpstreamAccess::tls_with`].
    pub async fn https(&self, upstream: &str, server_ca: Option<&str>) -> Result<UpstreamHttps, UpstreamCallError> {
        let (access, name, roots) = (self.clone(), upstream.to_owned(), server_ca.map(str::to_owned));
        // Reads files.
        let tls = tokio::task::spawn_blocking(move || access.tls_with(&name, roots.as_deref())).await;
        let tls = tls.map_err(|e| e.to_string()).and_then(|tls| tls);
        Ok(UpstreamHttps::over(upstream, &*tls.map_err(|why| UpstreamCallError::not_sent(upstream, why))?))
    }
}

impl UpstreamHttps {
    /// A client with another TLS configuration, for example with a client certificate. The ALPN is replaced by http/1.1.
    pub fn over(upstream: &str, tls: &ClientConfig) -> UpstreamHttps {
        let mut tls = tls.clone();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        UpstreamHttps {
            tls: TlsConnector::from(Arc::new(tls)),
            upstream: upstream.into(),
            call_ms: limits::UPSTREAM_CALL_MS,
            answer_bytes: limits::UPSTREAM_ANSWER_BYTES,
        }
    }

    /// With another time limit for the request and its answer, milliseconds. Connecting has `limits::UPSTREAM_CONNECT_MS` besides.
    #[must_use]
    pub fn within(self, call_ms: u64) -> UpstreamHttps {
        UpstreamHttps { call_ms, ..self }
    }

    /// With another bound on the body of the answer, bytes.
    #[must_use]
    pub fn at_most(self, answer_bytes: usize) -> UpstreamHttps {
        UpstreamHttps { answer_bytes, ..self }
    }

    /// Sends a request, and returns the answer with any status.
    pub async fn call(&self, request: UpstreamRequest) -> Result<UpstreamResponse, UpstreamCallError> {
        let UpstreamRequest { method, url, headers, body, secrets, defect } = request;
        let url = WebUrl::parse(&url).ok_or_else(|| {
            UpstreamCallError::not_sent(&self.upstream, "its address is no https URL (http is possible on this host only)")
        })?;
        let host = url.authority();
        let unsent = |what: &dyn fmt::Display| UpstreamCallError::not_sent(&host, what);
        if let Some(defect) = defect {
            return Err(unsent(&format!("the request was not sent: {defect}")));
        }
        let mut request = Request::builder().method(method).uri(&url.path).body(Full::new(body)).map_err(|e| unsent(&e))?;
        let own = request.headers_mut();
        own.insert(HOST, HeaderValue::from_str(&host).map_err(|e| unsent(&e))?);
        own.insert(USER_AGENT, HeaderValue::from_static(concat!("mayfly/", env!("CARGO_PKG_VERSION"))));
        own.insert(ACCEPT, HeaderValue::from_static("application/json"));
        own.extend(headers);

        let stream = self.connect(&url).await.map_err(|what| unsent(&what))?;
        // From here on the server may have received the request.
        let exchanged = async {
            match stream {
                UpstreamStream::Tls(stream) => exchange(stream, request, self.answer_bytes).await,
                UpstreamStream::Plain(stream) => exchange(stream, request, self.answer_bytes).await,
            }
        };
        let answer = tokio::time::timeout(Duration::from_millis(self.call_ms), exchanged).await;
        let answer = answer.unwrap_or_else(|_| Err(format!("it did not answer within {} ms", self.call_ms)));
        let (parts, body) = answer.map_err(|what| UpstreamCallError::perhaps_done(&host, what))?;
        Ok(UpstreamResponse { status: parts.status, headers: parts.headers, body, secrets })
    }

    async fn connect(&self, url: &WebUrl) -> Result<UpstreamStream, String> {
        let address = UpstreamAddress { host: url.host.clone(), port: url.port };
        let tcp = address.connect().await.map_err(|e| e.to_string())?;
        if !url.https {
            // `WebUrl` accepts http for a loopback host only, and `UpstreamAddress` connects such a host to a loopback address only.
            return Ok(UpstreamStream::Plain(tcp));
        }
        let name = ServerName::try_from(url.host.clone()).map_err(|e| e.to_string())?;
        let ms = limits::UPSTREAM_CONNECT_MS;
        match tokio::time::timeout(Duration::from_millis(ms), self.tls.connect(name, tcp)).await {
            Ok(Ok(stream)) => Ok(UpstreamStream::Tls(Box::new(stream))),
            Ok(Err(why)) => Err(self.with_remedy(&why.to_string())),
            Err(_) => Err(format!("TLS was not set up within {ms} ms")),
        }
    }

    /// An error of TLS with what mends it.
    fn with_remedy(&self, why: &str) -> String {
        // BadSignature: an authority of the same name and with another key.
        if why.contains("UnknownIssuer") || why.contains("BadSignature") {
            let upstream = &self.upstream;
            return format!(
                "TLS: {why}; to mend it: put the certificate of the server's authority into {upstream}.pem, in upstreams.secrets_dir"
            );
        }
        if why.contains("ProtocolVersion") {
            return format!("TLS: {why}; to mend it: the server has to offer TLS 1.3");
        }
        format!("TLS: {why}")
    }
}

/// A connection.
enum UpstreamStream {
    Tls(Box<TlsStream<TcpStream>>),
    Plain(TcpStream),
}

#[cfg(test)]
#[path = "https_tests.rs"]
mod tests;
