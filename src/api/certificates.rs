//! The files that servers which trust an upstream's certificates fetch from the public listener: the CAs, the CRLs and the KRL. All of it is public and
//! signed by the CAs.

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, StatusCode};

use super::public::{Published, cacheable, missing};
use mayfly_authority::trust::upstream_ca::PublishedCas;
use mayfly_base::limits;
use mayfly_base::refusal::Error;

/// The routes of the upstreams of all environments, below the path of the issuer.
pub(super) fn router(base: &str) -> Router<Published> {
    let at = |name: &str| format!("{base}/{{environment}}/upstreams/{{upstream}}/{name}");
    Router::new()
        .route(&at("ca.pem"), get(certificates))
        .route(&at("ssh_ca.pub"), get(ssh_authorities))
        .route(&at("crl.pem"), get(crls))
        .route(&at("crl/{key}"), get(crl))
        .route(&at("krl"), get(krl))
}

fn try_again() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(CACHE_CONTROL, "no-store")], "try again\n").into_response()
}

/// A list, which clients may cache for a moment.
fn list(found: Result<Option<Bytes>, Error>, media_type: &'static str) -> Response {
    match found {
        Ok(Some(bytes)) => {
            let age = format!("public, max-age={}", limits::CRL_MAX_AGE_S);
            let headers =
                [(CONTENT_TYPE, media_type.to_owned()), (CACHE_CONTROL, age), (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned())];
            (headers, bytes).into_response()
        }
        Ok(None) => missing(),
        Err(no) => {
            tracing::error!(%no, "a list of revoked certificates could not be served");
            try_again()
        }
    }
}

async fn text(
    published: Published,
    (environment, upstream): (String, String),
    asked: HeaderMap,
    media_type: &'static str,
    of: fn(&PublishedCas) -> String,
) -> Response {
    if !published.serves(&environment) {
        return missing();
    }
    match published.authority().published_cas(&environment, &upstream).await {
        Ok(cas) => match of(&cas) {
            text if text.is_empty() => missing(),
            text => cacheable(text, media_type, &asked),
        },
        // Unregistered and without certificates look alike.
        Err(Error::Refusal(_)) => missing(),
        Err(Error::Fault(_)) => try_again(),
    }
}

async fn certificates(State(published): State<Published>, Path(of): Path<(String, String)>, asked: HeaderMap) -> Response {
    text(published, of, asked, "application/x-pem-file", PublishedCas::certificates_pem).await
}

async fn ssh_authorities(State(published): State<Published>, Path(of): Path<(String, String)>, asked: HeaderMap) -> Response {
    text(published, of, asked, "text/plain; charset=us-ascii", PublishedCas::ssh_authorities).await
}

async fn crls(State(published): State<Published>, Path((environment, upstream)): Path<(String, String)>) -> Response {
    if !published.serves(&environment) {
        return missing();
    }
    let found = published.authority().upstream_crls(&environment, &upstream).await;
    list(found.map(|pem| pem.map(Bytes::from)), "application/x-pem-file")
}

async fn crl(State(published): State<Published>, Path((environment, upstream, key)): Path<(String, String, String)>) -> Response {
    if !published.serves(&environment) {
        return missing();
    }
    let found = published.authority().upstream_crl(&environment, &upstream, &key).await;
    list(found.map(|der| der.map(Bytes::from_owner)), "application/pkix-crl")
}

async fn krl(State(published): State<Published>, Path((environment, upstream)): Path<(String, String)>) -> Response {
    if !published.serves(&environment) {
        return missing();
    }
    let found = published.authority().upstream_krl(&environment, &upstream).await;
    list(found.map(|krl| krl.map(Bytes::from_owner)), "application/octet-stream")
}
