//! KV engines of OpenBao and Vault, over their HTTP API: a login by JWT, one read, and the end of the login's token.

use http::{HeaderName, StatusCode};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::json_text::text_at;
use super::settings::KvSource;
use super::{Assertion, SourceError, SourceReader, SourceTerms};
use crate::access::https::{UpstreamCallError, UpstreamHttps, UpstreamRequest, UpstreamResponse};
use mayfly_base::limits;

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
/// The server answers such requests only if a person did not send them by a browser (`X-Vault-Request`).
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");

#[derive(Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<String>,
}

fn unanswered(error: UpstreamCallError) -> SourceError {
    SourceError::Unanswered(error.to_string())
}

/// Reads one field of one secret.
pub(super) async fn read(
    reader: &SourceReader<'_>,
    upstream: &str,
    terms: &SourceTerms,
    kv: &KvSource,
) -> Result<Zeroizing<Vec<u8>>, SourceError> {
    let assertion = reader.assertion(upstream, terms, &kv.audience, &kv.alg)?;
    let client = reader.access.https(upstream, None).await.map_err(unanswered)?.at_most(limits::SECRET_SOURCE_ANSWER_BYTES);
    let token = login(&client, kv, &assertion).await?;
    let read = field(&client, kv, &token).await;
    // The token of the login ends with the read. If that fails, it ends by the role's own time.
    let end = UpstreamRequest::post(format!("{}/v1/auth/token/revoke-self", kv.url)).json(&serde_json::json!({}));
    if let Err(why) = client.call(ready(end, kv).secret_header(TOKEN, &token)).await {
        tracing::debug!(%why, upstream, "the token of a login at a secret's source was not revoked");
    }
    read
}

fn ready(request: UpstreamRequest, kv: &KvSource) -> UpstreamRequest {
    let request = request.header(REQUEST, "true");
    match &kv.namespace {
        Some(namespace) => request.header(NAMESPACE, namespace),
        None => request,
    }
}

async fn login(client: &UpstreamHttps, kv: &KvSource, assertion: &Assertion) -> Result<Zeroizing<String>, SourceError> {
    let url = format!("{}/v1/auth/{}/login", kv.url, kv.login);
    let body = serde_json::json!({ "role": kv.role, "jwt": assertion.text.as_str() });
    let request = UpstreamRequest::post(url).json(&body).hiding(&assertion.text);
    let answer = client.call(ready(request, kv)).await.map_err(unanswered)?;
    if !answer.status.is_success() {
        let what = format!("logging in at {} by role {}", kv.url, kv.role);
        return Err(problem(&answer, &what, &format!("the role has to accept the issuer {}", assertion.issuer)));
    }
    let token = text_at(answer.body(), &["auth", "client_token"]).ok().flatten();
    let token = token.filter(|token| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()));
    token.ok_or_else(|| SourceError::Unanswered(format!("{} gave no token for the login", kv.url)))
}

async fn field(client: &UpstreamHttps, kv: &KvSource, token: &str) -> Result<Zeroizing<Vec<u8>>, SourceError> {
    let of = if kv.engine == 1 { "" } else { "data/" };
    let (what, url) =
        (format!("reading {}/{} at {}", kv.mount, kv.path, kv.url), format!("{}/v1/{}/{of}{}", kv.url, kv.mount, kv.path));
    let answer = client.call(ready(UpstreamRequest::get(url), kv).secret_header(TOKEN, token)).await.map_err(unanswered)?;
    if answer.status == StatusCode::NOT_FOUND {
        return Err(SourceError::Missing(format!("{what}: there is no secret of that path, or its version was deleted")));
    }
    if !answer.status.is_success() {
        return Err(problem(
            &answer,
            &what,
            &format!("the policy of role {} has to allow reading {}/{of}{}", kv.role, kv.mount, kv.path),
        ));
    }
    let path: &[&str] = if kv.engine == 1 { &["data", &kv.field] } else { &["data", "data", &kv.field] };
    let found = text_at(answer.body(), path).map_err(|no| SourceError::Refused(format!("{what}: field {}: {no}", kv.field)))?;
    let found = found.ok_or_else(|| SourceError::Missing(format!("{what}: the secret has no field {}", kv.field)))?;
    Ok(Zeroizing::new(found.as_bytes().to_vec()))
}

/// The error of an answer that is no success.
fn problem(answer: &UpstreamResponse, what: &str, remedy: &str) -> SourceError {
    let said = answer.json::<Errors>().map(|e| e.errors.join("; ")).unwrap_or_default();
    let status = answer.status;
    let no = format!("{what}: status {} {}", status.as_u16(), answer.told(&said)).trim_end().to_owned();
    match status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        // 503: sealed, or a standby.
        true => SourceError::Unanswered(no),
        false => SourceError::Refused(format!("{no}; to mend it: {remedy}")),
    }
}
