//! Tokens of OIDC issuers that the configuration names: the one function that accepts one (OIDC Core 1.0; RFC 9068; RFC 8725).
//!
//! Nothing is fetched here: an issuer's keys come in as [`IssuerKeys`]. What a token may be used for is the business of whoever asks.

pub mod attest;
mod defect;
pub mod discovery;
pub mod keys;

use serde_json::{Map, Value};

use super::json;
use super::jwk::Algorithm;
use super::jws::Compact;
use crate::limits;
use crate::seq::Millis;

pub use attest::{AttestRule, Attested, Attesting, NotAttested, Platform};
pub use defect::OidcDefect;
pub use keys::IssuerKeys;

/// What an issuer's tokens are taken for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// Logging a person in.
    Login,
    /// Naming on whose behalf something is asked for.
    Subject,
    /// Letting in a job or a pod.
    Attest,
}

/// What those in a group may.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Right {
    /// A value of the claim that holds groups.
    pub group: String,
    /// The upstream.
    pub upstream: String,
    /// Its scopes.
    pub scopes: Vec<String>,
}

/// An issuer that is trusted, and for what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Issuer {
    /// A short name, as it stands in SPIFFE IDs and messages.
    pub name: String,
    /// `iss`, byte for byte.
    pub issuer: String,
    /// The environments in which its tokens count.
    pub environments: Vec<String>,
    /// `aud` of tokens that log somebody in: our client id there.
    pub audience: Option<String>,
    /// Audiences that may stand beside the expected one in a list. `None`: `aud` is one text.
    pub audiences: Option<Vec<String>>,
    /// What its tokens may be signed with.
    pub algorithms: Vec<Algorithm>,
    /// What its tokens are taken for.
    pub uses: Vec<Use>,
    /// Longest life of a token, `exp − iat`, milliseconds.
    pub max_life_ms: u64,
    /// The claim whose values are the scopes that a subject may have.
    pub scopes_claim: Option<String>,
    /// The claim whose values are the groups that a subject is in.
    pub groups_claim: Option<String>,
    /// What those in a group may. Where there is a line, what no line gives is not given.
    pub rights: Vec<Right>,
    /// What its tokens say of jobs, where they are taken for those.
    pub jobs: Option<Attesting>,
}

impl Issuer {
    /// Whether its tokens are taken for that.
    pub fn serves(&self, what: Use) -> bool {
        self.uses.contains(&what)
    }

    /// Whether its tokens count in an environment.
    pub fn acts_in(&self, environment: &str) -> bool {
        self.environments.iter().any(|e| e == environment)
    }
}

/// What a token has to be, beside what its issuer's line in the configuration says.
#[derive(Clone, Copy, Debug)]
pub struct Expect<'a> {
    /// One of these is the value of `aud`, or stands in its list where the issuer's section takes lists.
    pub audiences: &'a [&'a str],
    /// Now.
    pub now: Millis,
    /// How far our clock may be behind the issuer's, milliseconds. Given where we wait for a beginning, never to put off an end.
    pub leeway_ms: u64,
}

/// A token that its issuer's key made. Only [`verify`] makes one.
///
/// ```compile_fail,E0451
/// use mayfly::identity::oidc::VerifiedOidc;
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

    /// `sub`: means something only together with the issuer. Never a SPIFFE ID.
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

    /// `jti`, or the digest of what was signed where it has none: by this a token is revoked, and used once.
    pub fn token_id(&self) -> &str {
        &self.token_id
    }

    /// Every claim.
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }

    /// The values of a claim that holds several: a list of texts, or a text with spaces between, as `scope` is (RFC 8693, section 4.2).
    /// A claim that is absent has none.
    pub fn values(&self, claim: &str) -> Result<Vec<String>, OidcDefect> {
        values(&self.claims, claim)
    }
}

/// The values of a claim that holds several.
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

/// The issuer that a token names, before anything was checked: to choose whose keys it is checked with, and for nothing else.
pub fn peek_issuer(token: &str) -> Option<String> {
    if token.len() > limits::OIDC_TOKEN_BYTES {
        return None;
    }
    let claims = object(&Compact::split(token).ok()?.payload()?).ok()?;
    claims.get("iss")?.as_str().map(str::to_owned)
}

/// The key id that a token names, before anything was checked: to fetch the issuer's keys for it, and for nothing else.
pub fn peek_kid(token: &str) -> Option<String> {
    if token.len() > limits::OIDC_TOKEN_BYTES {
        return None;
    }
    object(&Compact::split(token).ok()?.header).ok()?.get("kid")?.as_str().map(str::to_owned)
}

/// Whether a token's header leaves room for an ID token: its `typ` is `JWT`, or there is none (OpenID Connect Core, section 2). An access token
/// says what it is (RFC 9068, section 2.1), and says nothing of who signs in.
pub fn may_be_id_token(token: &str) -> bool {
    let header = Compact::split(token).ok().and_then(|parts| object(&parts.header).ok());
    header.is_some_and(|header| match header.get("typ") {
        None => true,
        Some(typ) => typ.as_str().is_some_and(|typ| typ.eq_ignore_ascii_case("JWT")),
    })
}

/// Accepts a token of an issuer, or says which clause refuses it.
pub fn verify(token: &str, issuer: &Issuer, keys: &IssuerKeys, expect: &Expect<'_>) -> Result<VerifiedOidc, OidcDefect> {
    if token.len() > limits::OIDC_TOKEN_BYTES {
        return Err(OidcDefect::TooLong);
    }
    let parts = Compact::split(token).map_err(|_| OidcDefect::Malformed)?;
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
    // Who names itself vouches for itself: a client's assertion (RFC 7523, section 3), which says nothing of a user.
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

/// Header parameters that bring a key, point at one, change what is signed or compress it. None of them is ever followed, and a token that has one is
/// refused (RFC 8725, section 3.10).
const NOT_TAKEN: &[&str] = &["jku", "x5u", "jwk", "x5c", "crit", "b64", "zip", "enc"];

/// Algorithm and `kid`. Other members are ignored, as RFC 7515 (section 4) asks for, but for those of [`NOT_TAKEN`].
fn header(bytes: &[u8]) -> Result<(Algorithm, String), OidcDefect> {
    let mut members = object(bytes)?;
    let alg = members.remove("alg").and_then(|alg| Algorithm::from_name(alg.as_str()?)).ok_or(OidcDefect::Algorithm)?;
    // Of an ID token, of an access token (RFC 9068, section 2.1), or none. Those of logouts, DPoP proofs and assertions are something else.
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

/// The audience that is expected here. A token for several audiences can be used by each of them, so a list is taken only where the issuer's
/// section of the configuration has `audiences`, and then only with these beside the expected one. `beside`: `None` where a list is refused.
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

/// A NumericDate (RFC 7519, section 2), which may have a fraction of a second: `up` rounds it up to the next millisecond, else it is cut.
fn time(value: &Value, up: bool) -> Option<Millis> {
    /// 9999-12-31T23:59:59Z, the last second that RFC 3339 writes.
    const LAST: f64 = 253_402_300_799.0;
    if let Some(seconds) = value.as_u64() {
        return Some(Millis::from_seconds(seconds));
    }
    let seconds = value.as_f64().filter(|seconds| (0.0..=LAST).contains(seconds))?;
    let ms = if up { (seconds * 1000.0).ceil() } else { (seconds * 1000.0).floor() };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 2.6e14")]
    Some(Millis(ms as u64))
}

/// `iat` and `exp`.
fn times(claims: &Map<String, Value>, expect: &Expect<'_>, max_life_ms: u64) -> Result<(Millis, Millis), OidcDefect> {
    let time = |name: &str, up: bool| match claims.get(name) {
        None => Ok(None),
        Some(value) => time(value, up).map(Some).ok_or(OidcDefect::NotATime),
    };
    // Each rounded so that the life is never longer than the issuer said.
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

/// What may stand in records and lists: short, and nothing that a terminal would act on.
fn plain(text: &str) -> bool {
    !text.is_empty() && text.len() <= limits::NAME_BYTES && !text.chars().any(char::is_control)
}

fn subject(claims: &Map<String, Value>) -> Result<String, OidcDefect> {
    let fits = |sub: &&str| !sub.is_empty() && sub.len() <= limits::OIDC_SUB_BYTES && !sub.chars().any(char::is_control);
    let sub = claims.get("sub").and_then(Value::as_str).filter(fits).ok_or(OidcDefect::Sub)?;
    // Only a trust domain's own authority vouches for a SPIFFE ID.
    let scheme = sub.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("spiffe:"));
    if scheme { Err(OidcDefect::SpiffeSub) } else { Ok(sub.to_owned()) }
}

fn token_id(claims: &Map<String, Value>, parts: &Compact<'_>) -> Result<String, OidcDefect> {
    match claims.get("jti") {
        None => Ok(parts.digest_id()),
        Some(jti) => jti.as_str().filter(|jti| plain(jti)).map(str::to_owned).ok_or(OidcDefect::Jti),
    }
}
