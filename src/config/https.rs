//! HTTPS client for other servers: one request, one bounded answer, in bounded time. Redirects are not followed, and only TLS 1.3 is used,
//! with the given roots. Besides the caller's headers and body only Host, User-Agent and Accept are sent.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderName, Method, Request, StatusCode};
use http_body_util::Full;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::files::{self, FileProblem};
use mayfly_base::document::url::WebUrl;
use mayfly_base::limits;
use mayfly_base::system::System;
use mayfly_base::system_roots::system_roots;
use mayfly_credential::access::http1::exchange;
pub use mayfly_credential::access::tls::TlsClock;

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// The URL may not be requested.
    #[error("{0:?} is no https URL (http only on loopback)")]
    Url(String),
    /// The server was not reached, or TLS failed.
    #[error("{host}: {error}")]
    Io {
        /// The server.
        host: String,
        /// The error.
        error: io::Error,
    },
    /// The server violated HTTP.
    #[error("{host}: {what}")]
    Http {
        /// The server.
        host: String,
        /// The violation.
        what: String,
    },
    /// The server was too slow.
    #[error("{host} did not answer within {ms} ms")]
    TooSlow {
        /// The server.
        host: String,
        /// The time limit.
        ms: u64,
    },
}

/// A client with its roots.
#[derive(Clone)]
pub struct HttpsClient {
    tls: TlsConnector,
    patience_ms: u64,
}

/// A request.
struct HttpsRequest {
    method: Method,
    headers: Vec<(HeaderName, String)>,
    body: Bytes,
    /// Most bytes of the answer's body; 0: the body is not read.
    max: usize,
}

/// A complete answer.
#[derive(Clone, Debug)]
pub struct HttpsResponse {
    /// The status.
    pub status: StatusCode,
    /// The body.
    pub body: Bytes,
}

/// The certificates of a file of roots.
pub fn roots(path: &Path) -> Result<RootCertStore, FileProblem> {
    let (pem, _) = files::read(path, limits::CA_FILE_BYTES)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate =
            certificate.map_err(|_| FileProblem::new(path, "has a PEM section that is cut off", "write it anew"))?;
        // A system's file may contain an unusable certificate; the others are still valid.
        let _ = roots.add(certificate);
    }
    if roots.is_empty() {
        return Err(FileProblem::new(path, "has no CA certificate in PEM", "name the file that holds the roots"));
    }
    Ok(roots)
}

impl HttpsClient {
    /// A client with the roots of a file, or without a file with those of the system. If there are none, only http on loopback works.
    pub fn new(ca_file: Option<&Path>, system: &System) -> Result<HttpsClient, FileProblem> {
        let (path, roots) = match ca_file.map(Path::to_owned).or_else(system_roots) {
            Some(path) => (path.clone(), roots(&path)?),
            None => (PathBuf::from("ca_file"), RootCertStore::empty()),
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_details(provider, Arc::new(TlsClock(system.clone())));
        let builder = builder.with_protocol_versions(&[&TLS13]);
        let builder =
            builder.map_err(|e| FileProblem::new(&path, format!("cannot be used: {e}"), "report this as a fault of mayfly"))?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(HttpsClient { tls: TlsConnector::from(Arc::new(config)), patience_ms: limits::OIDC_FETCH_MS })
    }

    /// Sets another time limit for one request, milliseconds.
    pub fn within(self, patience_ms: u64) -> HttpsClient {
        HttpsClient { patience_ms, ..self }
    }

    /// A client with the caller's TLS configuration, which decides how the server is verified. The ALPN is replaced by http/1.1.
    pub fn over(mut config: ClientConfig) -> HttpsClient {
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        HttpsClient { tls: TlsConnector::from(Arc::new(config)), patience_ms: limits::OIDC_FETCH_MS }
    }

    /// Posts JSON, and returns the answer with any status.
    pub async fn post_json(&self, url: &str, json: String, max: usize) -> Result<HttpsResponse, HttpsError> {
        self.ask(url, posting(JSON, json, Vec::new(), max)).await
    }

    /// Posts JSON with additional headers. Of the answer only the head is read.
    pub async fn tell(&self, url: &str, json: String, headers: Vec<(HeaderName, String)>) -> Result<StatusCode, HttpsError> {
        Ok(self.ask(url, posting(JSON, json, headers, 0)).await?.status)
    }

    /// Posts a form, and returns the answer with any status.
    pub async fn post_form(&self, url: &str, form: String, max: usize) -> Result<HttpsResponse, HttpsError> {
        self.ask(url, posting(FORM, form, Vec::new(), max)).await
    }

    /// Posts bytes of another media type, and returns the answer, of the same type, with any status.
    pub async fn post(
        &self,
        url: &str,
        media_type: &'static str,
        body: Vec<u8>,
        max: usize,
    ) -> Result<HttpsResponse, HttpsError> {
        self.ask(url, posting(media_type, body, vec![(ACCEPT, media_type.to_owned())], max)).await
    }

    /// Sends a GET request, and returns the answer with any status.
    pub async fn get(&self, url: &str, max: usize) -> Result<HttpsResponse, HttpsError> {
        self.get_with(url, Vec::new(), max).await
    }

    /// As [`HttpsClient::get`], with additional headers.
    pub async fn get_with(&self, url: &str, headers: Vec<(HeaderName, String)>, max: usize) -> Result<HttpsResponse, HttpsError> {
        self.ask(url, HttpsRequest { method: Method::GET, headers, body: Bytes::new(), max }).await
    }

    /// Gets a document: a body of at most `max` bytes, with status 200.
    pub async fn document(&self, url: &str, max: usize) -> Result<Bytes, HttpsError> {
        let answer = self.get(url, max).await?;
        match answer.status {
            StatusCode::OK => Ok(answer.body),
            status => Err(HttpsError::Http { host: url.to_owned(), what: format!("answered {status}, expected 200") }),
        }
    }

    async fn ask(&self, url: &str, ask: HttpsRequest) -> Result<HttpsResponse, HttpsError> {
        let url = WebUrl::parse(url).ok_or_else(|| HttpsError::Url(url.chars().take(limits::NAME_BYTES).collect()))?;
        let ms = self.patience_ms;
        let asked = tokio::time::timeout(Duration::from_millis(ms), self.ask_at_leisure(&url, ask)).await;
        asked.unwrap_or_else(|_| Err(HttpsError::TooSlow { host: url.shown().to_owned(), ms }))
    }

    async fn ask_at_leisure(&self, url: &WebUrl, ask: HttpsRequest) -> Result<HttpsResponse, HttpsError> {
        let failed = |error| HttpsError::Io { host: url.authority(), error };
        let tcp = TcpStream::connect((url.host.as_str(), url.port)).await.map_err(failed)?;
        let HttpsRequest { method, headers, body, max } = ask;
        let mut request = Request::builder().method(method).uri(&url.path).header(HOST, url.authority());
        request = request.header(USER_AGENT, concat!("mayfly/", env!("CARGO_PKG_VERSION")));
        if headers.iter().all(|(name, _)| name != ACCEPT) {
            request = request.header(ACCEPT, JSON);
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body)).map_err(|e| failed(io::Error::other(e)))?;
        if !url.https {
            // The host name may resolve to the address of another host.
            return match tcp.peer_addr().map_err(failed)?.ip().is_loopback() {
                true => exchanged(&url.authority(), tcp, request, max).await,
                false => Err(failed(io::Error::other("http is for this host only"))),
            };
        }
        let name = ServerName::try_from(url.host.clone()).map_err(|e| failed(io::Error::other(e)))?;
        let tls = self.tls.connect(name, tcp).await.map_err(failed)?;
        exchanged(&url.authority(), tls, request, max).await
    }
}

fn posting(media_type: &'static str, body: impl Into<Bytes>, mut headers: Vec<(HeaderName, String)>, max: usize) -> HttpsRequest {
    headers.push((CONTENT_TYPE, media_type.to_owned()));
    HttpsRequest { method: Method::POST, headers, body: body.into(), max }
}

async fn exchanged<S>(host: &str, stream: S, request: Request<Full<Bytes>>, max: usize) -> Result<HttpsResponse, HttpsError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let answer = exchange(stream, request, max).await;
    let (parts, body) = answer.map_err(|what| HttpsError::Http { host: host.to_owned(), what })?;
    Ok(HttpsResponse { status: parts.status, body: Bytes::from_owner(body) })
}
