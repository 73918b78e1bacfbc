//! JWT authorities and the tokens they sign. The tokens are valid by default; each test introduces one defect.

use mayfly::identity::bundle::{Bundle, Bundles};
use mayfly::identity::jwt_svid::{self, Audiences, JwtSvidDefect, JwtSvidRequirements, VerifiedJwtSvid};
use mayfly::limits;
use serde_json::{Value, json};
use std::sync::Arc;

use crate::kit::pki::{NOW, trust_domain};
pub use crate::kit::signer::Signer;

pub const ID: &str = "spiffe://example.org/workload";
pub const AUDIENCE: &str = "https://mayfly.example";

impl Signer {
    /// A valid header.
    pub fn header(&self) -> Value {
        json!({"alg": self.alg, "kid": "authority1", "typ": "JWT"})
    }

    /// A valid token with a changed header.
    pub fn with_header(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut header = self.header();
        change(&mut header);
        self.token(&header, &claims())
    }

    /// A valid token with changed claims.
    pub fn with_claims(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = claims();
        change(&mut claims);
        self.token(&self.header(), &claims)
    }

    /// A valid token.
    pub fn good(&self) -> String {
        self.token(&self.header(), &claims())
    }

    /// The bundles of `example.org` with this key as `authority1`, after a change of its JWK.
    pub fn bundles_with(&self, change: impl FnOnce(&mut Value)) -> Bundles {
        let mut jwk = self.jwk();
        (jwk["use"], jwk["kid"]) = ("jwt-svid".into(), "authority1".into());
        change(&mut jwk);
        bundles_of(&json!({"keys": [jwk]}))
    }

    /// The same without a change.
    pub fn bundles(&self) -> Bundles {
        self.bundles_with(|_| {})
    }
}

/// The bundles of `example.org` only.
pub fn bundles_of(document: &Value) -> Bundles {
    let bundle = Bundle::from_jwks(trust_domain("example.org"), document.to_string().as_bytes()).unwrap();
    Bundles::new([Arc::new(bundle)]).unwrap()
}

/// Valid claims: issued a minute ago, for five minutes.
pub fn claims() -> Value {
    let now = NOW.seconds();
    json!({"sub": ID, "aud": AUDIENCE, "exp": now + 240, "iat": now - 60})
}

pub fn expect() -> JwtSvidRequirements<'static> {
    JwtSvidRequirements {
        audiences: Audiences::Any(&["https://other.example", AUDIENCE]),
        now: NOW,
        leeway_ms: limits::CLOCK_SKEW_MS,
        max_ttl_ms: limits::SVID_MAX_TTL_MS,
    }
}

pub fn verify(token: &str, bundles: &Bundles) -> Result<VerifiedJwtSvid, JwtSvidDefect> {
    jwt_svid::verify(token, bundles, &expect())
}
