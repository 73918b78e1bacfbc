//! What the layer itself answers: metadata (RFC 9728) and challenges (RFC 6750, section 3; RFC 9728, section 5.1).

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use mayfly_verify::check::Refused;
use mayfly_verify::revocation::FollowerRefusal;

use super::Protect;

/// Where the metadata of a resource without a path lies.
pub const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// Origin and path of a URL.
pub fn split(url: &str) -> (&str, &str) {
    let host = url.find("://").map_or(0, |at| at + 3);
    url.split_at(url[host..].find('/').map_or(url.len(), |at| host + at))
}

pub fn method_not_allowed<R: From<String>>() -> Response<R> {
    let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, String::new());
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    answer
}

fn plain<R: From<String>>(status: StatusCode, body: String) -> Response<R> {
    let mut answer = Response::new(R::from(body));
    *answer.status_mut() = status;
    answer
}

impl Protect {
    pub(super) fn metadata<R: From<String>>(&self) -> Response<R> {
        let body = serde_json::json!({
            "resource": *self.resource,
            "authorization_servers": [self.verifier.settings().issuer],
            "scopes_supported": *self.scopes,
            "bearer_methods_supported": ["header"],
        });
        let mut answer = plain(StatusCode::OK, body.to_string());
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        answer
    }

    /// No credential, one that is not good, one that is not good enough; or it cannot be known, which is nobody's fault but ours.
    pub(super) fn challenge<R: From<String>>(&self, refused: Option<&Refused>) -> Response<R> {
        if let Some(Refused::Rule(FollowerRefusal::NotWhole | FollowerRefusal::RolledBack(_) | FollowerRefusal::Stale(_))) =
            refused
        {
            let mut answer = plain(StatusCode::SERVICE_UNAVAILABLE, "revocations are not known here now\n".to_owned());
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            return answer;
        }
        let metadata = format!("resource_metadata=\"{}\"", self.metadata_url);
        let (status, value) = match refused {
            None => (StatusCode::UNAUTHORIZED, format!("Bearer {metadata}")),
            Some(Refused::Scope(scope)) => {
                let value = format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\", {metadata}");
                (StatusCode::FORBIDDEN, value)
            }
            Some(refused) => {
                // The reason is one of a closed list: nothing of the token is in it.
                let value = format!("Bearer error=\"invalid_token\", error_description=\"{}\", {metadata}", refused.reason());
                (StatusCode::UNAUTHORIZED, value)
            }
        };
        let mut answer = plain(status, String::new());
        // A scope or a URL that no header can carry was set by ourselves; the status says enough then.
        if let Ok(value) = HeaderValue::from_str(&value) {
            answer.headers_mut().insert(WWW_AUTHENTICATE, value);
        }
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_an_origin_and_a_path() {
        assert_eq!(split("https://mcp.example"), ("https://mcp.example", ""));
        assert_eq!(split("https://mcp.example:8443/mcp/v1"), ("https://mcp.example:8443", "/mcp/v1"));
    }
}
