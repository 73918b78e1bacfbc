//! `/metrics` on loopback, for a scraper on this host: a few connections at a time, each within a bound of time. Beyond their number the oldest
//! is closed, so that connections which ask for nothing keep no scrape waiting.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use crate::authority::Authority;
use crate::limits;
use crate::serve::ends::Stopping;

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves until the server stops.
pub(super) async fn serve(listener: std::net::TcpListener, authority: Arc<Authority>, mut stopping: Stopping) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the listener for metrics"),
    };
    let accept = async {
        let mut open = JoinSet::new();
        let mut oldest: VecDeque<AbortHandle> = VecDeque::new();
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(limits::METRICS_MS / 10)).await;
                continue;
            };
            while open.try_join_next().is_some() {}
            oldest.retain(|connection| !connection.is_finished());
            if oldest.len() >= limits::METRICS_CONNECTIONS
                && let Some(oldest) = oldest.pop_front()
            {
                oldest.abort();
            }
            oldest.push_back(open.spawn(serve_one(stream, authority.clone())));
        }
    };
    tokio::select! {
        () = accept => {}
        _ = stopping.wait_for(|stops| *stops) => {}
    }
}

async fn serve_one(stream: TcpStream, authority: Arc<Authority>) {
    let answer = service_fn(|request| answer(request, authority.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .max_buf_size(limits::HEADER_BYTES as usize)
        .serve_connection(TokioIo::new(stream), answer);
    // A scraper that is slow or goes away asks again.
    let _ = tokio::time::timeout(Duration::from_millis(limits::METRICS_MS), connection).await;
}

async fn answer(request: Request<Incoming>, authority: Arc<Authority>) -> Result<Response<Full<Bytes>>, Infallible> {
    let said = |status: StatusCode, text: String| {
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        response
    };
    if request.uri().path() != "/metrics" || request.method() != Method::GET {
        return Ok(said(StatusCode::NOT_FOUND, String::new()));
    }
    Ok(match authority.metrics() {
        Ok(text) => {
            let mut response = said(StatusCode::OK, text);
            response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(CONTENT_TYPE));
            response
        }
        Err(fault) => {
            tracing::error!(%fault, "metrics could not be told");
            said(StatusCode::INTERNAL_SERVER_ERROR, String::new())
        }
    })
}
