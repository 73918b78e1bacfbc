//! The upstream of the tour: a small HTTP service that accepts only credentials that it has verified.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::get;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;

use super::TourError;
use mayfly_client::verifier::Verifier;
use mayfly_verify::check::Need;

async fn echo(State(verifier): State<Arc<Verifier>>, headers: HeaderMap) -> (StatusCode, String) {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("Bearer "));
    let Some(token) = bearer else { return (StatusCode::UNAUTHORIZED, "no bearer token".to_owned()) };
    match verifier.check(token, Need { scope: "echo:read", ..Need::default() }) {
        Ok(claims) => {
            let said = format!(
                "{} may {} in {}",
                claims.client_id,
                claims.scope,
                claims.own.tasks.last().map_or_else(String::new, |t| t.id.to_string())
            );
            (StatusCode::OK, said)
        }
        Err(refused) => (StatusCode::UNAUTHORIZED, refused.to_string()),
    }
}

/// Serves on a loopback port until the runtime ends.
pub async fn serve(verifier: Arc<Verifier>) -> Result<SocketAddr, TourError> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let router = Router::new().route("/echo", get(echo)).with_state(verifier);
    tokio::spawn(async move {
        let _ = axum::serve(listener, router).await;
    });
    Ok(address)
}

/// Calls the service with a token, as a workload would.
pub async fn call(address: SocketAddr, token: &str) -> Result<(StatusCode, String), TourError> {
    let stream = tokio::net::TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = http::Request::get("/echo")
        .header(header::HOST, address.to_string())
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(Empty::<bytes::Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
