//! A tower layer that admits requests with a valid credential, as MCP specifies: protected-resource metadata (RFC 9728), 401 with
//! `resource_metadata`, 403 with `insufficient_scope`. It works with axum, hyper and tonic services.
//!
//! The layer removes the credential from the request's headers, so that it is never forwarded; calls to an upstream use a credential of
//! their own. The handler finds the credential as [`Verified`] in the request's extensions.

mod responses;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Request, Response};
use mayfly_verify::check::{Checked, Need, Refused};
use mayfly_verify::token::Claims;
use tower::{Layer, Service};

use crate::request::arguments_sha256;
use crate::secret::Secret;
use crate::verifier::Verifier;

/// The protected resource and its verifier.
#[derive(Clone)]
pub struct Protect {
    verifier: Arc<Verifier>,
    resource: Arc<str>,
    metadata_url: Arc<str>,
    metadata_path: Arc<str>,
    scope: Arc<str>,
    scopes: Arc<[String]>,
}

/// SHA-256 of the client certificate of the TLS session. The code that accepts connections puts it into the request's extensions; it must
/// never come from a header (RFC 8705, section 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClientCertificate(pub [u8; 32]);

/// A valid credential of this request.
#[derive(Clone)]
pub struct Verified {
    verifier: Arc<Verifier>,
    checked: Arc<Checked>,
    token: Secret,
    certificate: Option<[u8; 32]>,
}

impl std::fmt::Debug for Verified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verified").field("credential_id", &self.checked.jti).field("caller", &self.checked.client_id).finish()
    }
}

impl Verified {
    /// The credential's claims.
    pub fn claims(&self) -> &Claims {
        self.checked.claims()
    }

    /// The credential's task. What this service does for the request belongs to that task.
    pub fn task_id(&self) -> Option<String> {
        self.checked.own.tasks.last().map(|task| task.id.to_string())
    }

    /// The token itself. Use it only as subject token, to prove to mayfly on whose behalf this service acts.
    pub fn token(&self) -> &Secret {
        &self.token
    }

    /// Checks whether the credential is valid, now, for a tool and its arguments, which only the handler knows.
    pub fn serves<T: serde::Serialize>(&self, scope: &str, tool: &str, arguments: &T) -> Result<(), NotForThis> {
        let digest = arguments_sha256(arguments).map_err(|e| NotForThis::Arguments(e.to_string()))?;
        let need = Need { scope, tool, arguments: Some(&digest), certificate: self.certificate.as_ref() };
        self.verifier.check(self.token.expose(), need).map(drop).map_err(NotForThis::Refused)
    }
}

/// Why a valid credential cannot be used for a call.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotForThis {
    /// The check with the call's requirements refused the credential.
    #[error("{0}")]
    Refused(Refused),
    /// The arguments have no digest.
    #[error("{0}")]
    Arguments(String),
}

impl Protect {
    /// Protects the resource with this URL. The URL is the `resource` of the metadata, for which clients request a credential.
    pub fn new(verifier: Arc<Verifier>, resource: &str) -> Protect {
        let (origin, path) = responses::split(resource);
        let path = format!("{}{}", responses::WELL_KNOWN, path.trim_end_matches('/'));
        Protect {
            verifier,
            resource: resource.into(),
            metadata_url: format!("{origin}{path}").into(),
            metadata_path: path.into(),
            scope: "".into(),
            scopes: Arc::new([]),
        }
    }

    /// Sets the scope that every request needs.
    #[must_use]
    pub fn scope(self, scope: &str) -> Protect {
        Protect { scope: scope.into(), ..self }
    }

    /// Sets the supported scopes in the metadata.
    #[must_use]
    pub fn scopes_supported<S: Into<String>>(self, scopes: impl IntoIterator<Item = S>) -> Protect {
        Protect { scopes: scopes.into_iter().map(Into::into).collect(), ..self }
    }

    /// Admits a request and adds [`Verified`] to its extensions, or returns the response.
    fn judge<B, R: From<String>>(&self, request: &mut Request<B>) -> Result<(), Response<R>> {
        if *request.uri().path() == *self.metadata_path || request.uri().path() == responses::WELL_KNOWN {
            return Err(match *request.method() {
                Method::GET | Method::HEAD => self.metadata(),
                _ => responses::method_not_allowed(),
            });
        }
        let token = taken(request.headers_mut()).map_err(|()| self.challenge(None))?;
        let certificate = request.extensions().get::<ClientCertificate>().map(|c| c.0);
        let need = Need { scope: &self.scope, certificate: certificate.as_ref(), ..Need::default() };
        let checked = self.verifier.check(token.expose(), need).map_err(|refused| self.challenge(Some(&refused)))?;
        let verified = Verified { verifier: self.verifier.clone(), checked, token, certificate };
        request.extensions_mut().insert(verified);
        Ok(())
    }
}

/// Removes and returns the bearer token. Several `Authorization` headers count as none, because two readers could each use a different one.
fn taken(headers: &mut HeaderMap) -> Result<Secret, ()> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let found = match (all.next(), all.next()) {
        (Some(one), None) => one.to_str().ok().and_then(|v| v.split_once(' ')),
        _ => None,
    };
    let token = found.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| Secret::new(token.trim()));
    headers.remove(AUTHORIZATION);
    token.ok_or(())
}

impl<S> Layer<S> for Protect {
    type Service = Protected<S>;

    fn layer(&self, inner: S) -> Protected<S> {
        Protected { protect: self.clone(), inner }
    }
}

/// A protected service.
#[derive(Clone)]
pub struct Protected<S> {
    protect: Protect,
    inner: S,
}

type Answering<R, E> = Pin<Box<dyn Future<Output = Result<R, E>> + Send>>;

impl<S, B, R> Service<Request<B>> for Protected<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: From<String> + Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Answering<Response<R>, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self.protect.judge(&mut request) {
            Ok(()) => Box::pin(self.inner.call(request)),
            Err(answer) => Box::pin(std::future::ready(Ok(answer))),
        }
    }
}
