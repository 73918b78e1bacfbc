//! `/metrics` for scrapers: over HTTP on a loopback address; over HTTPS, with a bearer token, or both, on other addresses. The limits are
//! those of the public listener, with separate places. Each connection is for one answer.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use rustls::ServerConfig;
use tokio::net::TcpListener;

use super::start::PublicTls;
use mayfly_api::listener::{Gate, arrive_plain, handshake_public};
use mayfly_api::public::serve_once;
use mayfly_api::shares::{Holder, Network};
use mayfly_authority::authority::Authority;
use mayfly_authority::source_health::SourceKind;
use mayfly_base::limits;
use mayfly_config::config::MetricsConfig;
use mayfly_config::files::{FileProblem, PollSchedule};
use mayfly_config::token_file::{BearerToken, CurrentToken};

const CONTENT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The restrictions of access to the listener: TLS and the token.
#[derive(Clone, Default)]
pub(super) struct MetricsAccess {
    tls: Option<PublicTls>,
    token: Option<(PathBuf, CurrentToken)>,
}

impl MetricsAccess {
    /// Reads the token file that the configuration names. `public` is the TLS configuration of the public listener.
    pub fn of(config: &MetricsConfig, public: &PublicTls) -> Result<MetricsAccess, FileProblem> {
        let load = |path: &PathBuf| Ok((path.clone(), Arc::new(ArcSwap::from_pointee(BearerToken::load(path)?))));
        let token = config.token_file.as_ref().map(load).transpose()?;
        let over_http1 = || {
            let mut tls = ServerConfig::clone(public);
            tls.alpn_protocols = vec![b"http/1.1".to_vec()];
            Arc::new(tls)
        };
        Ok(MetricsAccess { tls: config.tls.then(over_http1), token })
    }

    /// Reads the token file again for ever. If the file cannot be read, the previous token stays.
    pub async fn keep(self, authority: &Authority, mut polls: PollSchedule) {
        let Some((path, current)) = self.token else { return };
        let (kind, place) = (SourceKind::MetricsToken, path.display().to_string());
        loop {
            let read = path.clone();
            let Ok(read) = tokio::task::spawn_blocking(move || BearerToken::load(&read)).await else { return };
            match read {
                Ok(token) => {
                    if current.swap(Arc::new(token)).as_ref() != &token {
                        tracing::info!("the bearer token for metrics was changed");
                    }
                    authority.source_health.readable(kind, "", &place);
                }
                Err(problem) => {
                    if authority.source_health.unreadable(kind, "", &place, &problem.to_string(), authority.system.shown()) {
                        tracing::error!(%problem, "the bearer token for metrics could not be read; the previous token stays in effect");
                    }
                }
            }
            polls.next().await;
        }
    }
}

#[derive(Clone)]
struct MetricsState {
    authority: Arc<Authority>,
    token: Option<CurrentToken>,
}

/// Serves until the server stops, and then until the last connection has ended.
pub(super) async fn serve(gate: Gate, listener: std::net::TcpListener, authority: Arc<Authority>, closed: MetricsAccess) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the metrics listener could not be started"),
    };
    let told = MetricsState { authority, token: closed.token.map(|(_, token)| token) };
    let (router, tls) = (Router::new().fallback(answer).with_state(told), closed.tls);
    let accepting = gate.accept(&listener, |tcp, from, arriving| {
        let (gate, tls, router) = (gate.clone(), tls.clone(), router.clone());
        let (tracked, holder) = (gate.clone(), Holder::Address(Network::of(from)));
        tracked.spawn(async move {
            let life = limits::METRICS_MS;
            match tls {
                Some(tls) => {
                    let Some(stream) = handshake_public(&gate, tls, tcp, (from, arriving)).await else { return };
                    let Some(place) = gate.place(holder) else { return };
                    serve_once(&gate, stream, place, router, life).await;
                }
                None => {
                    let Some(stream) = arrive_plain(&gate, tcp, (from, arriving)).await else { return };
                    let Some(place) = gate.place(holder) else { return };
                    serve_once(&gate, stream, place, router, life).await;
                }
            }
        });
    });
    tokio::join!(accepting, gate.sweep());
    drop(listener);
    gate.finished().await;
}

/// Whether a request presents the token.
fn shows(headers: &HeaderMap, token: &BearerToken) -> bool {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(one), None) = (all.next(), all.next()) else { return false };
    // The scheme is case-insensitive (RFC 9110, section 11.1).
    let Some((scheme, shown)) = one.as_bytes().split_at_checked(7) else { return false };
    scheme.eq_ignore_ascii_case(b"bearer ") && token.is(shown)
}

async fn answer(State(told): State<MetricsState>, request: Request) -> Response {
    let said = |code: StatusCode, text: &'static str| (code, [(CACHE_CONTROL, "no-store")], text).into_response();
    if told.token.as_ref().is_some_and(|token| !shows(request.headers(), &token.load())) {
        let mut refused = said(StatusCode::UNAUTHORIZED, "send the token of metrics.token_file: Authorization: Bearer TOKEN\n");
        refused.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return refused;
    }
    if request.uri().path() != "/metrics" || request.method() != Method::GET {
        return said(StatusCode::NOT_FOUND, "");
    }
    match told.authority.metrics() {
        Ok(text) => {
            let mut response = Response::new(Body::from(text));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT));
            response
        }
        Err(fault) => {
            tracing::error!(%fault, "the metrics could not be rendered");
            said(StatusCode::INTERNAL_SERVER_ERROR, "")
        }
    }
}

/// Interval at which the token file is read.
pub(super) const TOKEN_EVERY: Duration = Duration::from_millis(limits::FILE_POLL_MS);
