//! HTTPS endpoints for people, jobs and relying services: sign-in, attestation, the bundle of mayfly's own trust domain, and its CRLs.
//!
//! Clients are unauthenticated here. A request costs at most two signature checks, and the number of concurrent sign-ins is limited.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::sync::SemaphorePermit;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::public::{Published, cacheable, missing};
use super::public_body::PublicClient;
use super::shares::LoginUnderWay;
use mayfly_authority::authority::Authority;
use mayfly_authority::people::logins::{LoginResult, LoginToken};
use mayfly_authority::trust::own_domain::{OwnDomain, not_configured};
use mayfly_base::limits;
use mayfly_base::refusal::{Code, Error, Reason, Refusal};
use mayfly_credential::x509::Csr;
use mayfly_identity::oidc::{IssuerUse, may_be_id_token, peek_issuer};

/// The routes below the issuer's own path.
pub(super) fn router(base: &str) -> Router<Published> {
    Router::new()
        .route(&format!("{base}/spiffe/bundle.json"), get(bundle))
        .route(&format!("{base}/spiffe/crl/{{key}}"), get(crl))
        .route(&format!("{base}/login"), get(ways).post(login))
        .route(&format!("{base}/attest"), get(super::attest::ways).post(super::attest::attest))
        .layer(DefaultBodyLimit::max(limits::LOGIN_BODY_BYTES))
}

/// One identity provider, with the parameters that a command line needs for asking it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LoginProvider {
    /// The provider's short name.
    pub name: String,
    /// The provider's issuer URL.
    pub issuer: String,
    /// mayfly's client id at the provider.
    pub client_id: String,
}

/// The available ways to sign in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LoginMethods {
    /// The trust domain of the issued SVIDs.
    pub trust_domain: String,
    /// The identity providers.
    pub providers: Vec<LoginProvider>,
    /// Whether ID tokens of the device flow are accepted.
    pub device: bool,
}

/// The request body of a sign-in.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    /// The ID token.
    pub id_token: String,
    /// A PKCS#10 request for a fresh key, DER in base64.
    pub csr: String,
}

/// The answer to a successful sign-in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoginAnswer {
    /// The login, by its credential id.
    pub credential: String,
    /// The sequence number of its record.
    pub seq: u64,
    /// The SPIFFE ID of the person or job.
    pub spiffe_id: String,
    /// The certificate, PEM.
    pub certificate: String,
    /// Expiry of the certificate, milliseconds since 1970.
    pub expires_at: u64,
}

/// The answer to a refused sign-in.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LoginRefused {
    /// The reason, from the closed list of refusals; empty for a fault.
    pub reason: String,
    /// The refusal in words.
    pub message: String,
    /// The rule that refused.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rule: String,
    /// The person or role that can change the rule, and how.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub way_out: String,
}

async fn bundle(State(published): State<Published>, asked: HeaderMap) -> Response {
    match published.authority().own_bundle().await {
        Ok(Some(document)) => cacheable(document, "application/json", &asked),
        Ok(None) => missing(),
        Err(_) => try_again(),
    }
}

async fn crl(State(published): State<Published>, Path(key): Path<String>) -> Response {
    match published.authority().own_crl(&key).await {
        Ok(Some(der)) => {
            let age = format!("public, max-age={}", limits::CRL_MAX_AGE_S);
            let headers = [
                (CONTENT_TYPE, "application/pkix-crl".to_owned()),
                (CACHE_CONTROL, age),
                (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
            ];
            (headers, Bytes::from_owner(der)).into_response()
        }
        Ok(None) => missing(),
        Err(no) => {
            tracing::error!(%no, key, "the CRL could not be served");
            try_again()
        }
    }
}

fn try_again() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(CACHE_CONTROL, "no-store")], "try again\n").into_response()
}

async fn ways(State(published): State<Published>) -> Response {
    let authority = published.authority();
    let Some(own) = &authority.own_domain else { return refusal_response(&Error::Refusal(not_configured())) };
    let all = authority.oidc.all();
    let issuers = all.iter().map(|known| &known.issuer).filter(|issuer| issuer.serves(IssuerUse::Login));
    let provider = |issuer: &Arc<mayfly_identity::oidc::Issuer>| {
        let client_id = issuer.audience.clone()?;
        Some(LoginProvider { name: issuer.name.clone(), issuer: issuer.issuer.clone(), client_id })
    };
    let providers = issuers.filter_map(provider).collect();
    let trust_domain = own.trust_domain.as_str().to_owned();
    json(StatusCode::OK, &LoginMethods { trust_domain, providers, device: own.settings().device_login })
}

async fn login(State(published): State<Published>, Extension(client): Extension<PublicClient>, body: Bytes) -> Response {
    answered(signed_in(published.authority(), &client, &body).await)
}

/// The response for the result of a sign-in.
pub(super) fn answered(made: Result<LoginResult, Error>) -> Response {
    match made {
        Ok(made) => {
            let answer = LoginAnswer {
                credential: made.credential.to_string(),
                seq: made.seq.as_u64(),
                spiffe_id: made.spiffe_id.to_string(),
                certificate: pem(&made.certificate),
                expires_at: made.expires_at.0,
            };
            json(StatusCode::OK, &answer)
        }
        Err(no) => refusal_response(&no),
    }
}

/// A place among the concurrent logins.
pub(super) struct LoginPlace<'a> {
    _of_address: LoginUnderWay<'a>,
    _in_all: SemaphorePermit<'a>,
}

/// Returns mayfly's own domain and a place among the concurrent logins. Beyond the limit a login is refused instead of queued: a login
/// holds its place only while signatures are checked or keys fetched.
pub(super) fn acquire_login_place<'a>(
    authority: &'a Authority,
    client: &'a PublicClient,
) -> Result<(&'a OwnDomain, LoginPlace<'a>), Refusal> {
    let own = authority.own_domain.as_ref().ok_or_else(not_configured)?;
    let full = |name, bound: usize| Refusal::limit(name, bound as u64, Duration::from_secs(1));
    let of_address = client.0.share().login();
    let of_address = of_address.ok_or_else(|| full("logins_at_once_per_address", limits::LOGINS_AT_ONCE_PER_ADDRESS))?;
    let in_all = own.places.try_acquire().map_err(|_| full("logins_at_once", limits::LOGINS_AT_ONCE))?;
    Ok((own, LoginPlace { _of_address: of_address, _in_all: in_all }))
}

/// The key for which a certificate is requested.
pub(super) fn key_of(csr: &str) -> Result<Csr, Refusal> {
    let der = STANDARD.decode(csr).map_err(|_| Refusal::field("csr", "is not base64 of a PKCS#10 request in DER"))?;
    Csr::check(&der).map_err(|defect| Refusal::field("csr", defect))
}

async fn signed_in(authority: &Authority, client: &PublicClient, body: &[u8]) -> Result<LoginResult, Error> {
    let (_, _place) = acquire_login_place(authority, client)?;
    let ask: LoginRequest = serde_json::from_slice(body)
        .map_err(|_| Refusal::field("body", "must be a JSON object with the strings id_token and csr and no other member"))?;
    let key = key_of(&ask.csr)?;
    let token = verified(authority, &ask.id_token).await?;
    authority.sign_in(&token, &key).await
}

/// Verifies an ID token of a provider that is configured for login. No claim is trusted before this check.
async fn verified(authority: &Authority, token: &str) -> Result<LoginToken, Error> {
    let no = |what: String| Error::Refusal(Refusal::new(Reason::NotAuthenticated, format!("the ID token is refused: {what}")));
    if !may_be_id_token(token) {
        return Err(no("its typ is not that of an ID token".to_owned()));
    }
    let iss = peek_issuer(token).ok_or_else(|| no("it is not a JWS in compact form".to_owned()))?;
    let known = authority.oidc.find(&iss).filter(|known| known.issuer.serves(IssuerUse::Login));
    let Some(audience) = known.as_ref().and_then(|known| known.issuer.audience.as_deref()) else {
        return Err(no("its issuer logs nobody in here".to_owned()));
    };
    let (issuer, token) = authority.oidc.verify(token, &[audience]).await.map_err(|why| match why.retry() {
        Some(wait) => Error::Refusal(Refusal::new(Reason::NotReady, why.to_string()).retry(wait)),
        None => no(why.to_string()),
    })?;
    Ok(LoginToken::of(&issuer, &token))
}

fn pem(der: &[u8]) -> String {
    let lines = STANDARD.encode(der).into_bytes();
    let lines: Vec<&str> = lines.chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (status, headers, serde_json::to_vec(body).unwrap_or_default()).into_response()
}

/// The response for a refusal with its reason; for a fault without the fault's text.
pub(super) fn refusal_response(no: &Error) -> Response {
    let Error::Refusal(no) = no else {
        tracing::error!(%no, "a sign-in failed with a fault");
        let body = LoginRefused { message: "a fault of the server, which is in its log".to_owned(), ..LoginRefused::default() };
        return json(StatusCode::INTERNAL_SERVER_ERROR, &body);
    };
    let body = LoginRefused {
        reason: no.reason.as_str().to_owned(),
        message: no.to_string(),
        rule: no.rule.clone().unwrap_or_default(),
        way_out: no.way_out.clone().unwrap_or_default(),
    };
    let mut response = json(http_status(no.reason), &body);
    if let Some(after) = no.retry_after
        && let Ok(value) = after.as_secs().max(1).to_string().parse()
    {
        response.headers_mut().insert(RETRY_AFTER, value);
    }
    response
}

/// The HTTP status by the mapping of gRPC codes (google.rpc.Code).
fn http_status(reason: Reason) -> StatusCode {
    match reason.code() {
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}
