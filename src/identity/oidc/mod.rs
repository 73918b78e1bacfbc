//! Verification of tokens from configured OIDC issuers (OIDC Core 1.0; RFC 9068; RFC 8725). [`verify`] is the only function that accepts
//! one.
//!
//! Nothing is fetched here: the caller passes the issuer's keys as [`IssuerKeys`]. The caller also decides what a verified token may be
//! used for.

pub mod attestation;
mod defect;
pub mod discovery;
pub mod keys;

use serde_json::{Map, Value};

use super::json;
use super::jwk::Algorithm;
use super::jws::CompactJws;
use mayfly_base::limits;
use mayfly_verify::seq::Millis;

pub use attestation::{AttestationError, AttestationProfile, AttestationRule, AttestedRun, Platform};
pub use defect::OidcDefect;
pub use keys::IssuerKeys;

/// A use for which an issuer's tokens are accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IssuerUse {
    /// Logging a person in.
    Login,
    /// Naming the subject of an exchange.
    Subject,
    /// Attesting a job or a pod.
    Attest,
}

/// The scopes that members of a group may use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupScopes {
    /// A value of the groups claim.
    pub group: String,
    /// The upstream.
    pub upstream: String,
    /// Scopes of the upstream.
    pub scopes: Vec<String>,
}

/// A trusted issuer, and the uses for which it is trusted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Issuer {
    /// A short name, used in SPIFFE IDs and messages.
    pub name: String,
    /// `iss`, compared byte for byte.
    pub issuer: String,
    /// The environments in which the issuer's tokens are accepted.
    pub environments: Vec<String>,
    /// `aud` of login tokens: mayfly's client id at the issuer.
    pub audience: Option<String>,
    /// Audiences that may accompany the expected one in a list. `None`: `aud` must be a single text.
    pub audiences: Option<Vec<String>>,
    /// The accepted signature algorithms.
    pub algorithms: Vec<Algorithm>,
    /// The uses for which the issuer's tokens are accepted.
    pub uses: Vec<IssuerUse>,
    /// The longest lifetime of a token, `exp − iat`, in milliseconds.
    pub max_life_ms: u64,
    /// The claim with the scopes that a subject may have.
    pub scopes_claim: Option<String>,
    /// The claim with the groups of a subject.
    pub groups_claim: Option<String>,
    /// The rights of groups. Unless the list is empty, a right that is not listed is not given.
    pub rights: Vec<GroupScopes>,
    /// How to read the claims about a job, where the tokens are accepted for attestation.
    pub jobs: Option<AttestationProfile>,
}

impl Issuer {
    /// Whether the issuer's tokens are accepted for a use.
    pub fn serves(&self, what: IssuerUse) -> bool {
        self.uses.contains(&what)
    }

    /// Whether the issuer's tokens are accepted in an environment.
    pub fn acts_in(&self, environment: &str) -> bool {
        self.environments.iter().any(|e| e == environment)
    }
}

/// The requirements on a token in addition to the issuer's configuration.
#[derive(Clone, Copy, Debug)]
pub struct OidcTokenRequirements<'a> {
    /// The accepted audiences: one must be the value of `aud`, or be in its list where the issuer's configuration accepts lists.
    pub audiences: &'a [&'a str],
    /// The present time.
    pub now: Millis,
    /// How far mayfly's clock may be behind the issuer's, in milliseconds. Applied to `iat` and `nbf` only, never to postpone `exp`.
    pub leeway_ms: u64,
}

/// A token whose signature by its issuer was verified. Only [`verify`] constructs one.
///
/// ```compile_fail,E0451
/// use mayfly_identity::oidc::VerifiedOidc;
/// let forged = VerifiedOidc { sub: "root".into(), ..todo!() };
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifiedOidc {
    issuer: String,
    sub: String,
    audience: String,
    issued_at: Millis,
    expires_at: Millis,
    token_id: String,
    claims: Map<String, Value>,
}

impl VerifiedOidc {
    /// `iss`.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// `sub`. Meaningful only together with the issuer; never a SPIFFE ID.
    pub fn sub(&self) -> &str {
        &self.sub
    }

    /// `aud`.
    pub fn audience(&self) -> &str {
        &self.audience
    }

    /// `iat`.
    pub fn issued_at(&self) -> Millis {
        self.issued_at
    }

    /// `exp`.
    pub fn expires_at(&self) -> Millis {
        self.expires_at
    }

    /// `jti` or, without one, the digest of the signed part. Identifies the token for revocation and for single use.
    pub fn token_id(&self) -> &str {
        &self.token_id
    }

    /// All claims.
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }

    /// The values of a claim with several values: a list of texts, or a text separated by spaces like `scope` (RFC 8693, section 4.2). An
    /// absent claim has no values.
    pub fn values(&self, claim: &str) -> Result<Vec<String>, OidcDefect> {
        values(&self.claims, claim)
    }
}

/// The values of a claim with several values.
pub fn values(claims: &Map<String, Value>, claim: &str) -> Result<Vec<String>, OidcDefect> {
    let mut all: Vec<String> = match claims.get(claim) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(text)) => text.split(' ').filter(|v| !v.is_empty()).map(str::to_owned).collect(),
        Some(Value::Array(many)) => {
            let texts: Option<Vec<String>> = many.iter().map(|v| v.as_str().map(str::to_owned)).collect();
            texts.ok_or(OidcDefect::BadValues)?
        }
        Some(_) => return Err(OidcDefect::BadValues),
    };
    if all.len() > limits::OIDC_GROUPS || all.iter().any(|v| !plain(v)) {
        return Err(OidcDefect::BadValues);
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// The issuer that an unverified token names. Use it only to select the keys for verification.
pub fn peek_issuer(token: &str) -> Option<String> {
    if token.len() > limits::OIDC_TOKEN_BYTES {
        return None;
    }
    let claims = object(&CompactJws::split(token).ok()?.payload()?).ok()?;
    claims.get("iss")?.as_str().map(str::to_owned)
}

/// The key id that an unverified token names. Use it only to fetch the issuer's keys.
pub fn peek_kid(token: &str) -> Option<String> {
    if token.len() > limits::OIDC_TOKEN_BYTES {
        return None;
    }
    object(&CompactJws::split(token).ok()?.header).ok()?.get("kid")?.as_str().map(str::to_owned)
}

/// Whether the token may be an ID token by its header: `typ` is `JWT` or absent (OpenID Connect Core, section 2). An access token declares
/// its type (RFC 9068, section 2.1) and is no evidence that a user signed in.
pub fn may_be_id_token(token: &str) -> bool {
    let header = CompactJws::split(token).ok().and_then(|parts| object(&parts.header).ok());
    header.is_some_and(|header| match header.get("typ") {
        None => true,
        Some(typ) => typ.as_str().is_some_and(|typ| typ.eq_ignore_ascii_case("JWT")),
    })
}

/// Verifies a token of an issuer. The error says which clause refuses it.
pub fn verify(
    token: &str,
    issuer: &Issuer,
    keys: &IssuerKeys,
    expect: &OidcTokenRequirements<'_>,
) -> Result<VerifiedOidc, OidcDefect> {
    if token.len() > limits::OIDC_TOKEN_BYTES {
        return Err(OidcDefect::TooLong);
    }
    let parts = CompactJws::split(token).map_err(|_| OidcDefect::Malformed)?;
    let (alg, kid) = header(&parts.header)?;
    if !issuer.algorithms.contains(&alg) {
        return Err(OidcDefect::Algorithm);
    }
    let claims = object(&parts.payload().ok_or(OidcDefect::Malformed)?)?;
    if claims.get("iss").and_then(Value::as_str) != Some(&*issuer.issuer) {
        return Err(OidcDefect::Issuer);
    }
    let key = match keys.named(&kid) {
        [] => return Err(OidcDefect::UnknownKid),
        named => named.iter().find(|key| key.serves(alg)).ok_or(OidcDefect::OtherKeyType)?,
    };
    let signature = parts.signature().ok_or(OidcDefect::Malformed)?;
    if !key.verifies(alg, parts.signed.as_bytes(), &signature) {
        return Err(OidcDefect::BadSignature);
    }
    let listed = issuer.jobs.as_ref().is_some_and(|jobs| jobs.platform.lists_audience());
    let beside = issuer.audiences.as_deref().or(listed.then_some(&[]));
    let audience = audience(&claims, expect.audiences, beside)?;
    let (issued_at, expires_at) = times(&claims, expect, issuer.max_life_ms)?;
    let (sub, token_id) = (subject(&claims)?, token_id(&claims, &parts)?);
    // A token whose subject is its issuer is a client assertion (RFC 7523, section 3), which is no evidence about a user.
    if sub == issuer.issuer {
        return Err(OidcDefect::Assertion);
    }
    Ok(VerifiedOidc { issuer: issuer.issuer.clone(), sub, audience, issued_at, expires_at, token_id, claims })
}

fn object(bytes: &[u8]) -> Result<Map<String, Value>, OidcDefect> {
    match json::parse(bytes) {
        Ok(Value::Object(members)) => Ok(members),
        _ => Err(OidcDefect::Malformed),
    }
}

/// Header parameters that bring a key, refer to one, change what is signed, or compress it. They are never followed; a token with one of
/// them is refused (RFC 8725, section 3.10).
const NOT_TAKEN: &[&str] = &["jku", "x5u", "jwk", "x5c", "crit", "b64", "zip", "enc"];

/// The algorithm and `kid`. Other members are ignored, as RFC 7515 (section 4) requires, except those in [`NOT_TAKEN`].
fn header(bytes: &[u8]) -> Result<(Algorithm, String), OidcDefect> {
    let mut members = object(bytes)?;
    let alg = members.remove("alg").and_then(|alg| Algorithm::from_name(alg.as_str()?)).ok_or(OidcDefect::Algorithm)?;
    // `typ` of an ID token, of an access token (RFC 9068, section 2.1), or none. Logout tokens, DPoP proofs and assertions have other
    // types.
    let typ = members.remove("typ");
    let known = ["JWT", "at+jwt", "application/at+jwt"];
    if typ.is_some_and(|typ| !typ.as_str().is_some_and(|typ| known.iter().any(|k| k.eq_ignore_ascii_case(typ)))) {
        return Err(OidcDefect::Typ);
    }
    let kid = match members.remove("kid") {
        Some(Value::String(kid)) if !kid.is_empty() => kid,
        _ => return Err(OidcDefect::MissingKid),
    };
    if NOT_TAKEN.iter().any(|name| members.contains_key(*name)) { Err(OidcDefect::HeaderParameter) } else { Ok((alg, kid)) }
}

/// The expected audience that the token has. Each audience of a token can use it, so a list is accepted only where the issuer's
/// configuration has `audiences`, and then only with those beside the expected one. `beside`: `None` where a list is refused.
fn audience(claims: &Map<String, Value>, expected: &[&str], beside: Option<&[String]>) -> Result<String, OidcDefect> {
    let all: Vec<&str> = match (claims.get("aud"), beside) {
        (Some(Value::String(one)), _) => vec![one],
        (Some(Value::Array(all)), Some(_)) if (1..=limits::OIDC_AUDIENCES).contains(&all.len()) => {
            all.iter().map(Value::as_str).collect::<Option<_>>().ok_or(OidcDefect::AudNotOneText)?
        }
        _ => return Err(OidcDefect::AudNotOneText),
    };
    let ours = all.iter().find(|aud| expected.contains(aud)).ok_or(OidcDefect::Audience)?;
    let known = |aud: &&str| aud == ours || beside.is_some_and(|beside| beside.iter().any(|known| known == aud));
    if all.iter().all(known) { Ok((*ours).to_owned()) } else { Err(OidcDefect::Audience) }
}

/// A NumericDate (RFC 7519, section 2), possibly with a fraction of a second. `up` rounds up to the next millisecond; otherwise the
/// fraction is rounded down.
fn time(value: &Value, up: bool) -> Option<Millis> {
    /// 9999-12-31T23:59:59Z, the last second that RFC 3339 can express.
    const LAST: f64 = 253_402_300_799.0;
    if let Some(seconds) = value.as_u64() {
        return Some(Millis::from_seconds(seconds));
    }
    let seconds = value.as_f64().filter(|seconds| (0.0..=LAST).contains(seconds))?;
    let ms = if up { (seconds * 1000.0).ceil() } else { (seconds * 1000.0).floor() };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 2.6e14")]
    Some(Millis(ms as u64))
}

/// Checks the times and returns `iat` and `exp`.
fn times(
    claims: &Map<String, Value>,
    expect: &OidcTokenRequirements<'_>,
    max_life_ms: u64,
) -> Result<(Millis, Millis), OidcDefect> {
    let time = |name: &str, up: bool| match claims.get(name) {
        None => Ok(None),
        Some(value) => time(value, up).map(Some).ok_or(OidcDefect::NotATime),
    };
    // `exp` is rounded down and `nbf` up, so that the token is never valid outside the times that the issuer set.
    let (expires_at, issued_at, not_before) = (time("exp", false)?, time("iat", false)?, time("nbf", true)?);
    let expires_at = expires_at.ok_or(OidcDefect::MissingExp)?;
    let issued_at = issued_at.ok_or(OidcDefect::MissingIat)?;
    if expect.now >= expires_at {
        return Err(OidcDefect::Expired);
    }
    if issued_at.max(not_before.unwrap_or(issued_at)) > expect.now.plus(expect.leeway_ms) {
        return Err(OidcDefect::NotYetValid);
    }
    if expires_at <= issued_at || expires_at.since(issued_at) > max_life_ms {
        return Err(OidcDefect::LivesTooLong);
    }
    Ok((issued_at, expires_at))
}

/// Whether a text may be recorded and listed: not too long and without control characters, which a terminal might interpret.
fn plain(text: &str) -> bool {
    !text.is_empty() && text.len() <= limits::NAME_BYTES && !text.chars().any(char::is_control)
}

fn subject(claims: &Map<String, Value>) -> Result<String, OidcDefect> {
    let fits = |sub: &&str| !sub.is_empty() && sub.len() <= limits::OIDC_SUB_BYTES && !sub.chars().any(char::is_control);
    let sub = claims.get("sub").and_then(Value::as_str).filter(fits).ok_or(OidcDefect::Sub)?;
    // Only the authority of a trust domain can vouch for a SPIFFE ID.
    let scheme = sub.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("spiffe:"));
    if scheme { Err(OidcDefect::SpiffeSub) } else { Ok(sub.to_owned()) }
}

fn token_id(claims: &Map<String, Value>, parts: &CompactJws<'_>) -> Result<String, OidcDefect> {
    match claims.get("jti") {
        None => Ok(parts.digest_id()),
        Some(jti) => jti.as_str().filter(|jti| plain(jti)).map(str::to_owned).ok_or(OidcDefect::Jti),
    }
}
