//! HTTPS endpoint for jobs and pods: exchanges a token of the platform that runs them for an SVID of mayfly's own trust domain.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::people::{acquire_login_place, answered, json, key_of, refusal_response};
use super::public::Published;
use super::public_body::PublicClient;
use mayfly_authority::authority::Authority;
use mayfly_authority::people::logins::{LoginResult, LoginToken};
use mayfly_authority::trust::own_domain::not_configured;
use mayfly_base::refusal::{Error, Reason, Refusal};
use mayfly_identity::oidc::{IssuerUse, peek_issuer};

/// Parameters that a job needs before it asks its platform for a token.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AttestMethods {
    /// The trust domain of the issued SVIDs.
    pub trust_domain: String,
    /// The `aud` that the tokens must have. For key-bound issuers, `#` and the thumbprint of the key are appended.
    pub audience: String,
    /// The issuers whose tokens are accepted.
    pub issuers: Vec<AttestIssuer>,
}

/// An issuer whose tokens are accepted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AttestIssuer {
    /// The issuer's short name.
    pub name: String,
    /// The issuer's URL.
    pub issuer: String,
    /// The platform whose jobs the issuer identifies.
    pub platform: String,
    /// Whether `aud` must also name the key.
    pub key_bound: bool,
}

/// The request body of an attestation.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct AttestRequest {
    /// The platform's token.
    pub token: String,
    /// A PKCS#10 request for a fresh key, DER in base64.
    pub csr: String,
    /// The attestation rule to use. If absent, the first matching rule is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

pub(super) async fn ways(State(published): State<Published>) -> Response {
    let authority = published.authority();
    let Some(own) = &authority.own_domain else { return refusal_response(&Error::Refusal(not_configured())) };
    let all = authority.oidc.all();
    let issuers = all.iter().filter_map(|known| {
        let (issuer, jobs) = (&known.issuer, known.issuer.jobs.as_ref()?);
        let (name, platform) = (issuer.name.clone(), jobs.platform.name().to_owned());
        Some(AttestIssuer { name, issuer: issuer.issuer.clone(), platform, key_bound: jobs.key_bound })
    });
    let (trust_domain, audience) = (own.trust_domain.as_str().to_owned(), own.audience(None));
    json(StatusCode::OK, &AttestMethods { trust_domain, audience, issuers: issuers.collect() })
}

pub(super) async fn attest(
    State(published): State<Published>,
    Extension(client): Extension<PublicClient>,
    body: Bytes,
) -> Response {
    answered(attested(published.authority(), &client, &body).await)
}

async fn attested(authority: &Authority, client: &PublicClient, body: &[u8]) -> Result<LoginResult, Error> {
    let (own, _place) = acquire_login_place(authority, client)?;
    let ask: AttestRequest = serde_json::from_slice(body).map_err(|_| {
        Refusal::field("body", "must be a JSON object with the strings token and csr, optionally rule, and no other member")
    })?;
    let key = key_of(&ask.csr)?;
    let no = |what: String| Error::Refusal(Refusal::new(Reason::NotAuthenticated, format!("the token is refused: {what}")));
    let iss = peek_issuer(&ask.token).ok_or_else(|| no("it is not a JWS in compact form".to_owned()))?;
    let known = authority.oidc.find(&iss).filter(|known| known.issuer.serves(IssuerUse::Attest));
    let Some(jobs) = known.as_ref().and_then(|known| known.issuer.jobs.as_ref()) else {
        return Err(no("its issuer is not configured for CI jobs or pods".to_owned()));
    };
    let thumbprint = key.nonce();
    let audience = own.audience(jobs.key_bound.then_some(thumbprint.as_str()));
    let (issuer, token) = authority.oidc.verify(&ask.token, &[&audience]).await.map_err(|why| match why.retry() {
        Some(wait) => Error::Refusal(Refusal::new(Reason::NotReady, why.to_string()).retry(wait)),
        None => no(why.to_string()),
    })?;
    authority.attest(&issuer, &LoginToken::of(&issuer, &token), ask.rule.as_deref(), &key).await
}
