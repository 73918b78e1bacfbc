//! HTTPS without client certificates: the keys that verify mayfly's credentials, discovery, and health; people sign in here, too
//! ([`people`](super::people)). Clients are not authenticated, so nothing secret is served.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;

use super::connection::{InlineExecutor, NegotiatedProtocol, drive, serve_http2};
use super::connection_end::ConnectionEnds;
use super::listener::{ConnectionPlace, Gate, handshake_public};
use super::public_body;
use super::shares::{Holder, Network};
use super::write_coalescing::CoalescedOutput;
use mayfly_authority::authority::Authority;
use mayfly_base::limits;
use mayfly_credential::keyring::jwks_of_path;
use mayfly_identity::sha256;
use mayfly_ledger::record::upstream_path;

/// Renders the JWK set of an environment from the durable state.
pub type JwksRenderer = fn(&mayfly_ledger::State, &str) -> String;

/// The data that the public listener serves.
#[derive(Clone)]
pub struct Published {
    authority: Arc<Authority>,
    /// The base of `iss`, without a slash at its end.
    issuer: Arc<str>,
    environments: Arc<[String]>,
    jwks: JwksRenderer,
}

impl Published {
    /// `issuer` is the base; the issuer of an environment is the base, a slash and the environment's name.
    pub fn new(authority: Arc<Authority>, issuer: &str, environments: &[String], jwks: JwksRenderer) -> Published {
        Published { authority, issuer: issuer.into(), environments: environments.into(), jwks }
    }

    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    pub(super) fn serves(&self, environment: &str) -> bool {
        self.environments.iter().any(|e| e == environment)
    }
}

/// The router. If the issuer has a path, that path comes before the environments, and after the well-known part (RFC 8414, section 3).
pub fn router(published: Published) -> Router {
    let base = path_of(&published.issuer);
    Router::new()
        .route("/healthz", get(health))
        .route(&format!("{base}/{{environment}}/jwks.json"), get(jwks))
        .route(&format!("/.well-known/oauth-authorization-server{base}/{{environment}}"), get(discovery))
        .route(&format!("{base}/{{environment}}/upstreams/{{upstream}}/jwks.json"), get(assertion_jwks))
        .route(&format!("{base}/{{environment}}/upstreams/{{upstream}}/.well-known/openid-configuration"), get(openid_discovery))
        .merge(super::certificates::router(base))
        .merge(super::people::router(base))
        .with_state(published)
}

/// The path of a URL without a slash at its end; empty if there is none.
fn path_of(issuer: &str) -> &str {
    let rest = issuer.split_once("://").map_or(issuer, |(_, rest)| rest);
    rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("").trim_end_matches('/')
}

/// Whether the server accepts calls. Also true while nothing is issued: revoking works then, and verifiers still need the keys.
async fn health(State(published): State<Published>) -> Response {
    let (code, text) = match published.authority.ledger.writes() {
        true => (StatusCode::OK, "ok\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "the ledger cannot be written\n"),
    };
    let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8"), (CACHE_CONTROL, "no-store")];
    (code, headers, text).into_response()
}

async fn jwks(State(published): State<Published>, Path(environment): Path<String>, asked: HeaderMap) -> Response {
    if !published.serves(&environment) {
        return missing();
    }
    // A key must not be published before it is durable: a crash could remove it again.
    match published.authority.ledger.settled(|state| (published.jwks)(state, &environment)).await {
        Ok(document) => cacheable(document, "application/jwk-set+json", &asked),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "try again\n").into_response(),
    }
}

/// Authorization server metadata (RFC 8414). This version has no token endpoint over HTTP, so none is named.
async fn discovery(State(published): State<Published>, Path(environment): Path<String>, asked: HeaderMap) -> Response {
    if !published.serves(&environment) {
        return missing();
    }
    let issuer = format!("{}/{environment}", published.issuer);
    let document = serde_json::json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/jwks.json"),
        "response_types_supported": [],
        "grant_types_supported": [],
    });
    cacheable(document.to_string(), "application/json", &asked)
}

/// The keys of an upstream's assertions, and their algorithms; an answer of its own where there are none.
async fn assertion_keys(
    published: &Published,
    (environment, upstream): (&str, &str),
) -> Result<(String, Vec<Box<str>>), Response> {
    let path = upstream_path(environment, upstream).filter(|_| published.serves(environment)).ok_or_else(missing)?;
    match published.authority.ledger.settled(|state| jwks_of_path(&state.keys, &path)).await {
        Ok(found) => found.ok_or_else(missing),
        Err(_) => Err((StatusCode::SERVICE_UNAVAILABLE, "try again\n").into_response()),
    }
}

/// The JWK set of the issuer of an upstream's assertions.
async fn assertion_jwks(
    State(published): State<Published>,
    Path((environment, upstream)): Path<(String, String)>,
    asked: HeaderMap,
) -> Response {
    match assertion_keys(&published, (&environment, &upstream)).await {
        Ok((document, _)) => cacheable(document, "application/json", &asked),
        Err(answer) => answer,
    }
}

/// OpenID Connect Discovery 1.0, section 4, for the issuer of an upstream's assertions. Like the issuer of a Kubernetes cluster it has no
/// authorization endpoint, since nobody signs in there.
async fn openid_discovery(
    State(published): State<Published>,
    Path((environment, upstream)): Path<(String, String)>,
    asked: HeaderMap,
) -> Response {
    let algorithms = match assertion_keys(&published, (&environment, &upstream)).await {
        Ok((_, algorithms)) => algorithms,
        Err(answer) => return answer,
    };
    let issuer = format!("{}/{environment}/upstreams/{upstream}", published.issuer);
    let document = serde_json::json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/jwks.json"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": algorithms,
        "claims_supported": ["iss", "sub", "aud", "iat", "nbf", "exp", "jti", "scope", "environment", "upstream"],
    });
    cacheable(document.to_string(), "application/json", &asked)
}

pub(super) fn missing() -> Response {
    (StatusCode::NOT_FOUND, [(CACHE_CONTROL, "no-store")], "there is nothing here\n").into_response()
}

/// A document that clients may cache and revalidate by its tag (RFC 9110, section 13.1.2).
pub(super) fn cacheable(document: String, media_type: &'static str, asked: &HeaderMap) -> Response {
    let tag = format!("\"{}\"", data_encoding::HEXLOWER.encode(sha256(document.as_bytes()).get(..16).unwrap_or_default()));
    let known = asked.get_all(IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    let mut known = known.map(|t| t.trim().trim_start_matches("W/"));
    let fresh = known.any(|t| t == "*" || t == tag);
    let mut response = match fresh {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => Response::new(Body::from(document)),
    };
    let age = format!("public, max-age={}", limits::JWKS_MAX_AGE_MS / 1000);
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set(CONTENT_TYPE, media_type);
    set(ETAG, &tag);
    set(CACHE_CONTROL, &age);
    // Browsers verify tokens, too, and may read these public documents from any origin.
    set(http::header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
    set(http::header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    response
}

/// Serves HTTPS until the server stops, and then until the last connection has ended.
pub async fn serve(gate: Gate, listener: TcpListener, tls: Arc<ServerConfig>, router: Router) {
    let accepting = gate.accept(&listener, |tcp, from, arriving| {
        let (gate, tls, router) = (gate.clone(), tls.clone(), router.clone());
        let tracked = gate.clone();
        tracked.spawn(async move {
            if let Some(stream) = handshake_public(&gate, tls, tcp, (from, arriving)).await
                && let Some(place) = gate.place(Holder::Address(Network::of(from)))
            {
                serve_one(&gate, stream, (from, place), router).await;
            }
        });
    });
    tokio::join!(accepting, gate.sweep());
    drop(listener);
    gate.finished().await;
}

async fn serve_one(gate: &Gate, stream: TlsStream<TcpStream>, (from, place): (SocketAddr, ConnectionPlace), router: Router) {
    let activity = place.activity().clone();
    let ends =
        ConnectionEnds::without_svid(gate.system().clone(), gate.stopping(), limits::PUBLIC_CONNECTION_MS, activity.clone());
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let service = service_fn(move |call: Request<Incoming>| public_body::answer(call, router.clone(), activity.clone()));
    let ended = if is_h2 {
        let streams = gate.streams().min(limits::PUBLIC_STREAMS);
        serve_http2(stream, NegotiatedProtocol::Http2, service, InlineExecutor::default(), ends, streams).await
    } else {
        let (io, turns) = CoalescedOutput::new(stream, ends.activity().clone());
        drive(http1().serve_connection(TokioIo::new(io), service), &turns, ends).await
    };
    tracing::debug!(%from, ?ended, "connection of the public listener ended");
}

/// The settings of HTTP/1.1 for unauthenticated peers.
fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits::HEADER_MS))
        .max_buf_size(usize::try_from(limits::HEADER_BYTES).unwrap_or(16 * 1024).max(8192));
    builder
}

/// Answers one request over HTTP/1.1, and then ends the connection. `life_ms` is the connection's longest life.
pub async fn serve_once<IO>(gate: &Gate, stream: IO, place: ConnectionPlace, router: Router, life_ms: u64)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = place.activity().clone();
    let ends = ConnectionEnds::without_svid(gate.system().clone(), gate.stopping(), life_ms, activity.clone());
    let (io, turns) = CoalescedOutput::new(stream, activity.clone());
    let service = service_fn(move |call: Request<Incoming>| public_body::answer(call, router.clone(), activity.clone()));
    let connection = http1().keep_alive(false).serve_connection(TokioIo::new(io), service);
    // The result is ignored: a client that is too slow or goes away has to ask again.
    let _ = tokio::time::timeout(Duration::from_millis(life_ms), drive(connection, &turns, ends)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuers_path_stands_before_its_environments() {
        for (issuer, path) in [
            ("https://a.example", ""),
            ("https://a.example/", ""),
            ("https://a.example/sts", "/sts"),
            ("https://a.example:8443/x/y/", "/x/y"),
        ] {
            assert_eq!(path_of(issuer), path, "{issuer}");
        }
    }

    #[test]
    fn who_has_the_document_is_told_so() {
        let first = cacheable("{}".into(), "application/json", &HeaderMap::new());
        let tag = first.headers().get(ETAG).unwrap().clone();
        for (asked, code) in [
            (tag.to_str().unwrap().to_owned(), StatusCode::NOT_MODIFIED),
            (format!("\"x\", W/{}", tag.to_str().unwrap()), StatusCode::NOT_MODIFIED),
            ("\"x\"".to_owned(), StatusCode::OK),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(IF_NONE_MATCH, HeaderValue::from_str(&asked).unwrap());
            assert_eq!(cacheable("{}".into(), "application/json", &headers).status(), code, "{asked}");
        }
    }
}
