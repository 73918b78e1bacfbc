//! Responses of the layer itself: metadata (RFC 9728) and challenges (RFC 6750, section 3; RFC 9728, section 5.1).

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use mayfly_verify::check::Refused;
use mayfly_verify::revocation::FollowerRefusal;

use super::Protect;

/// The metadata path of a resource without a path of its own.
pub const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// The origin and the path of a URL.
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

    /// The response to a request without a valid and sufficient credential. Where the revocation feed is not current, the response is 503,
    /// since the credential may be valid.
    pub(super) fn challenge<R: From<String>>(&self, refused: Option<&Refused>) -> Response<R> {
        if let Some(Refused::Rule(FollowerRefusal::NotWhole | FollowerRefusal::RolledBack(_) | FollowerRefusal::Stale(_))) =
            refused
        {
            let text = "the revocation state of this server is not current; try again\n";
            let mut answer = plain(StatusCode::SERVICE_UNAVAILABLE, text.to_owned());
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
                // The reason is from a closed list and contains nothing of the token.
                let value = format!("Bearer error=\"invalid_token\", error_description=\"{}\", {metadata}", refused.reason());
                (StatusCode::UNAUTHORIZED, value)
            }
        };
        let mut answer = plain(status, String::new());
        // Scope and URL come from the service's own settings. If they do not fit into a header, the status alone must do.
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
