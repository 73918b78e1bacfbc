//! Verification of JWT-SVIDs (JWT-SVID, sections 2 to 6). [`verify`] is the only function that accepts one.
//!
//! The trust domain of `sub` selects the bundle, and only that bundle is used. Points that the standard leaves open are decided as for
//! X509-SVIDs: a SPIFFE ID without a path is not a workload's, and an SVID with too much life left is refused. `kid` is required, as in
//! go-spiffe.

use std::fmt;

use serde_json::{Map, Value};

use super::bundle::Bundles;
use super::json;
use super::jwk::Algorithm;
use super::jws::CompactJws;
use super::spiffe_id::{IdDefect, SpiffeId};
use mayfly_base::limits;
use mayfly_verify::seq::Millis;

/// The audience that a JWT-SVID must have.
#[derive(Clone, Copy, Debug)]
pub enum Audiences<'a> {
    /// At least one of the given audiences must be in `aud`, possibly beside others (JWT-SVID, section 3.2). The other audiences can replay
    /// the token.
    Any(&'a [&'a str]),
    /// `aud` must be exactly this value. Used for tokens that authenticate a client here.
    Only(&'a str),
}

/// The requirements on a JWT-SVID.
#[derive(Clone, Copy, Debug)]
pub struct JwtSvidRequirements<'a> {
    /// The required audience.
    pub audiences: Audiences<'a>,
    /// The present time.
    pub now: Millis,
    /// How far mayfly's clock may be behind the signer's, in milliseconds. Applied to `iat` and `nbf` only, never to postpone `exp`.
    pub leeway_ms: u64,
    /// The longest accepted remaining lifetime, in milliseconds.
    pub max_ttl_ms: u64,
}

/// A SPIFFE ID that a JWT authority of its trust domain's bundle vouched for. Only [`verify`] constructs one.
///
/// ```compile_fail,E0451
/// use mayfly_identity::jwt_svid::VerifiedJwtSvid;
/// let forged = VerifiedJwtSvid { id: "spiffe://example.org/admin".parse().unwrap(), ..todo!() };
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifiedJwtSvid {
    id: SpiffeId,
    audiences: Vec<String>,
    expires_at: Millis,
    issued_at: Option<Millis>,
    kid: String,
    claims: Map<String, Value>,
}

impl VerifiedJwtSvid {
    /// The SPIFFE ID in `sub`.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// All values of `aud`, unchanged.
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// `exp`.
    pub fn expires_at(&self) -> Millis {
        self.expires_at
    }

    /// `iat`, which the standard does not require.
    pub fn issued_at(&self) -> Option<Millis> {
        self.issued_at
    }

    /// The `kid` of the JWT authority that vouched for the SPIFFE ID.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// `jti`, if there is one. Single-use tokens are remembered by it.
    pub fn token_id(&self) -> Option<&str> {
        self.claims.get("jti").and_then(Value::as_str)
    }

    /// All claims.
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }
}

/// Verifies a JWT-SVID. The error says which clause refuses it.
pub fn verify(token: &str, bundles: &Bundles, expect: &JwtSvidRequirements<'_>) -> Result<VerifiedJwtSvid, JwtSvidDefect> {
    if token.len() > limits::JWT_SVID_BYTES {
        return Err(JwtSvidDefect::TooLong);
    }
    let parts = CompactJws::split(token).map_err(|_| JwtSvidDefect::Malformed)?;
    let (alg, kid) = header(&parts.header)?;
    let claims = object(&parts.payload().ok_or(JwtSvidDefect::Malformed)?)?;
    let id = subject(&claims)?;
    let bundle = bundles.get(id.trust_domain()).ok_or(JwtSvidDefect::NoBundle)?;
    let authority = bundle.jwt_authority(&kid).ok_or(JwtSvidDefect::UnknownKid)?;
    let key = authority.key().map_err(|_| JwtSvidDefect::UnusableKey)?;
    if !key.serves(alg) {
        return Err(JwtSvidDefect::OtherKeyType);
    }
    let signature = parts.signature().ok_or(JwtSvidDefect::Malformed)?;
    if !key.verifies(alg, parts.signed.as_bytes(), &signature) {
        return Err(JwtSvidDefect::BadSignature);
    }
    let audiences = audiences(&claims)?;
    check_audience(&audiences, expect.audiences)?;
    let (expires_at, issued_at) = check_times(&claims, expect)?;
    Ok(VerifiedJwtSvid { id, audiences, expires_at, issued_at, kid, claims })
}

fn object(bytes: &[u8]) -> Result<Map<String, Value>, JwtSvidDefect> {
    match json::parse(bytes) {
        Ok(Value::Object(members)) => Ok(members),
        _ => Err(JwtSvidDefect::Malformed),
    }
}

/// The algorithm and `kid` of a header that contains nothing else except `typ`.
fn header(bytes: &[u8]) -> Result<(Algorithm, String), JwtSvidDefect> {
    let mut members = object(bytes)?;
    let alg = members.remove("alg").and_then(|alg| Algorithm::from_name(alg.as_str()?));
    let alg = alg.ok_or(JwtSvidDefect::UnsupportedAlgorithm)?;
    let typ = members.remove("typ");
    if typ.is_some_and(|typ| typ != "JWT" && typ != "JOSE") {
        return Err(JwtSvidDefect::BadTyp);
    }
    let kid = match members.remove("kid") {
        Some(Value::String(kid)) if !kid.is_empty() => kid,
        _ => return Err(JwtSvidDefect::MissingKid),
    };
    // `jku`, `x5u`, `jwk` and `x5c` bring a key, `crit` changes the meaning, and `zip` allows a decompression bomb.
    if members.is_empty() { Ok((alg, kid)) } else { Err(JwtSvidDefect::HeaderParameter) }
}

fn subject(claims: &Map<String, Value>) -> Result<SpiffeId, JwtSvidDefect> {
    let sub = claims.get("sub").and_then(Value::as_str).ok_or(JwtSvidDefect::MissingSub)?;
    let id = SpiffeId::parse(sub).map_err(JwtSvidDefect::Id)?;
    match id.segments().count() {
        0 => Err(JwtSvidDefect::IdWithoutPath),
        n if n > limits::SPIFFE_ID_SEGMENTS => Err(JwtSvidDefect::TooManySegments),
        _ => Ok(id),
    }
}

fn audiences(claims: &Map<String, Value>) -> Result<Vec<String>, JwtSvidDefect> {
    let all = match claims.get("aud") {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(many)) if many.len() > limits::JWT_SVID_AUDIENCES => return Err(JwtSvidDefect::TooManyAudiences),
        Some(Value::Array(many)) => {
            let texts: Option<Vec<String>> = many.iter().map(|one| one.as_str().map(str::to_owned)).collect();
            texts.ok_or(JwtSvidDefect::AudNotText)?
        }
        Some(Value::Null) | None => Vec::new(),
        Some(_) => return Err(JwtSvidDefect::AudNotText),
    };
    if all.iter().all(String::is_empty) { Err(JwtSvidDefect::MissingAud) } else { Ok(all) }
}

fn check_audience(told: &[String], expected: Audiences<'_>) -> Result<(), JwtSvidDefect> {
    match expected {
        Audiences::Any(ours) if ours.iter().any(|own| told.iter().any(|one| one == own)) => Ok(()),
        Audiences::Only(own) if told.iter().all(|one| one == own) => Ok(()),
        Audiences::Only(own) if told.iter().any(|one| one == own) => Err(JwtSvidDefect::OtherAudiences),
        Audiences::Any(_) | Audiences::Only(_) => Err(JwtSvidDefect::Audience),
    }
}

/// Checks the times and returns `exp` and `iat`.
fn check_times(claims: &Map<String, Value>, expect: &JwtSvidRequirements<'_>) -> Result<(Millis, Option<Millis>), JwtSvidDefect> {
    let time = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_u64().map(|s| Some(Millis::from_seconds(s))).ok_or(JwtSvidDefect::NotATime),
    };
    let (expires_at, issued_at, not_before) = (time("exp")?, time("iat")?, time("nbf")?);
    let expires_at = expires_at.ok_or(JwtSvidDefect::MissingExp)?;
    if expect.now >= expires_at {
        return Err(JwtSvidDefect::Expired);
    }
    if issued_at.max(not_before).is_some_and(|begins| begins > expect.now.plus(expect.leeway_ms)) {
        return Err(JwtSvidDefect::NotYetValid);
    }
    if expires_at.since(expect.now) > expect.max_ttl_ms {
        return Err(JwtSvidDefect::LivesTooLong);
    }
    Ok((expires_at, issued_at))
}

macro_rules! defects {
    ($($(#[$doc:meta])* $name:ident => $code:literal, $clause:literal;)*) => {
        /// Why a token is not accepted as a JWT-SVID: a closed list with one clause each.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum JwtSvidDefect {
            $($(#[$doc])* $name,)*
            /// `sub` is not a SPIFFE ID.
            Id(IdDefect),
        }

        impl JwtSvidDefect {
            /// All defects except those of the SPIFFE ID, which have a list of their own.
            pub const ALL: &'static [JwtSvidDefect] = &[$(JwtSvidDefect::$name,)*];

            /// A stable, machine-readable name of the defect.
            pub const fn code(self) -> &'static str {
                match self {
                    $(JwtSvidDefect::$name => $code,)*
                    JwtSvidDefect::Id(_) => "invalid_sub",
                }
            }

            /// The clause that refuses the token, with its place in the standard.
            pub const fn clause(self) -> &'static str {
                match self {
                    $(JwtSvidDefect::$name => $clause,)*
                    JwtSvidDefect::Id(_) => "sub is a SPIFFE ID in its canonical form (SPIFFE-ID 2; JWT-SVID 3.1)",
                }
            }
        }
    };
}

defects! {
    /// Larger than `limits::JWT_SVID_BYTES`.
    TooLong => "too_long", "a JWT-SVID has at most 16384 bytes (limit JWT_SVID_BYTES)";
    /// Not three parts of base64url with JSON objects in the first two, or a duplicate member name.
    Malformed => "malformed", "a JWT-SVID is a JWS in compact form over JSON, no name twice in an object (JWT-SVID 5.1; RFC 7515, 5.2)";
    /// `none`, HMAC, EdDSA or an unknown algorithm.
    UnsupportedAlgorithm => "unsupported_alg", "alg is one of RS, ES and PS with 256, 384 or 512 (JWT-SVID 2.1)";
    /// An unsupported `typ`.
    BadTyp => "bad_typ", "typ is absent, JWT or JOSE (JWT-SVID 2.3)";
    /// No `kid`.
    MissingKid => "missing_kid", "kid names the key (JWT-SVID 2.2, 6.1)";
    /// A header parameter that brings a key or changes the meaning of the token.
    HeaderParameter => "header_parameter", "the header has alg, kid and typ and nothing else (JWT-SVID 2)";
    /// No `sub`, or not text.
    MissingSub => "missing_sub", "sub is there and is text (JWT-SVID 3.1)";
    /// The id of the trust domain itself.
    IdWithoutPath => "id_without_path", "sub is a workload's SPIFFE ID, which has a path (JWT-SVID 3.1; mayfly, identity)";
    /// More than `limits::SPIFFE_ID_SEGMENTS` segments.
    TooManySegments => "too_many_segments", "a caller's SPIFFE ID has at most 16 path segments (limit SPIFFE_ID_SEGMENTS)";
    /// There is no bundle for the trust domain of `sub`.
    NoBundle => "no_bundle", "the trust domain of sub has a bundle here, and no other bundle is used (JWT-SVID 4)";
    /// The bundle has no JWT authority with this `kid`.
    UnknownKid => "unknown_kid", "kid names a jwt-svid key of the bundle (JWT-SVID 2.2, 6.2)";
    /// The bundle's key with this `kid` cannot be used.
    UnusableKey => "unusable_key", "a jwt-svid key is EC on P-256, P-384 or P-521, or RSA of 2048 to 8192 bits, public (JWT-SVID 2.1; RFC 7518, 3.3 and 6)";
    /// The algorithm does not match the key's type, curve or `alg`.
    OtherKeyType => "other_key_type", "alg is of the key's type, curve and alg (RFC 7518, 3.1 and 3.4; RFC 8725, 3.1)";
    /// The signature is invalid.
    BadSignature => "bad_signature", "the bundle's key made the signature (JWT-SVID 4)";
    /// No `aud`, or an empty one.
    MissingAud => "missing_aud", "aud is there (JWT-SVID 3.2)";
    /// `aud` is neither text nor a list of texts.
    AudNotText => "aud_not_text", "aud is text or a list of texts (RFC 7519, 4.1.3)";
    /// More than `limits::JWT_SVID_AUDIENCES` audiences.
    TooManyAudiences => "too_many_audiences", "aud has at most 16 values (limit JWT_SVID_AUDIENCES)";
    /// No audience is mayfly.
    Audience => "audience", "aud has the value that we are known by (JWT-SVID 3.2)";
    /// There is a further audience beside mayfly.
    OtherAudiences => "other_audiences", "aud has no other value beside the one that we are known by (mayfly, identity)";
    /// No `exp`.
    MissingExp => "missing_exp", "exp is there (JWT-SVID 3.3)";
    /// A time that is not a whole number of seconds.
    NotATime => "not_a_time", "exp, iat and nbf are whole seconds since 1970 (JWT-SVID 3.3; RFC 7519, 2)";
    /// `exp` has passed.
    Expired => "expired", "exp has not come (JWT-SVID 3.3)";
    /// `nbf` or `iat` is in the future.
    NotYetValid => "not_yet_valid", "nbf and iat have come (RFC 7519, 4.1.5 and 4.1.6)";
    /// The remaining lifetime exceeds the configured `svid.max_ttl`.
    LivesTooLong => "lives_too_long", "an SVID has at most svid.max_ttl of life left (mayfly, identity)";
}

impl fmt::Display for JwtSvidDefect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JwtSvidDefect::Id(defect) => write!(f, "{}: {defect}", self.clause()),
            _ => f.write_str(self.clause()),
        }
    }
}

impl std::error::Error for JwtSvidDefect {}
