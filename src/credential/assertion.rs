//! Assertions: JWTs that tell another authorization server, a cloud for example, which workload asks (RFC 7523, section 3).
//!
//! Each upstream has an issuer of its own: `ISSUER/ENVIRONMENT/upstreams/NAME`, with keys of its own, which sign nothing else. The public
//! listener serves its discovery document and its JWK set. An assertion has `typ` `JWT` and no claim of mayfly's access tokens, another
//! `iss`, and another key, so neither is ever accepted in place of the other.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use zeroize::Zeroizing;

use super::keyring::{Keyring, LoadedKey};
use crate::IssuedToken;
use crate::jwt::json::{Object, string};
use mayfly_base::refusal::Fault;
use mayfly_ledger::record::{KeyPurpose, upstream_path};

/// The JWS header of a key that signs assertions, in base64url, with the dot after it.
pub fn header(kid: &str, algorithm: &str) -> String {
    let mut out = Vec::with_capacity(64);
    out.extend_from_slice(br#"{"alg":"#);
    string(&mut out, algorithm);
    out.extend_from_slice(br#","typ":"JWT","kid":"#);
    string(&mut out, kid);
    out.push(b'}');
    let mut text = URL_SAFE_NO_PAD.encode(out);
    text.push('.');
    text
}

/// The claims of an assertion. The same values give the same claims, byte for byte.
pub struct AssertionClaims<'a> {
    /// `sub`.
    pub subject: &'a str,
    /// `aud`, one value.
    pub audience: &'a str,
    /// `iat` and `nbf`, seconds since 1970.
    pub issued_at: u64,
    /// `exp`, seconds since 1970.
    pub expires_at: u64,
    /// `jti`.
    pub id: &'a str,
    /// Claims after these, in order.
    pub more: &'a [(&'static str, Value)],
}

/// The issuers of assertions: the keys, and the base of all issuers.
#[derive(Clone)]
pub struct AssertionIssuers {
    base: Arc<str>,
    keyring: Arc<Keyring>,
}

impl AssertionIssuers {
    /// `base`: `server.issuer` of the configuration.
    pub fn new(base: &str, keyring: Arc<Keyring>) -> AssertionIssuers {
        AssertionIssuers { base: base.trim_end_matches('/').into(), keyring }
    }

    /// The issuer of an upstream. The error says why it can have none.
    pub fn of(&self, environment: &str, upstream: &str) -> Result<AssertionIssuer, String> {
        let path = upstream_path(environment, upstream).ok_or_else(|| {
            format!("upstream {upstream} of environment {environment} has no issuer for assertions: one of the names has a slash")
        })?;
        Ok(AssertionIssuer { url: format!("{}/{path}", self.base), path, keyring: self.keyring.clone() })
    }
}

/// The issuer of one upstream's assertions.
pub struct AssertionIssuer {
    /// `iss`.
    pub url: String,
    path: String,
    keyring: Arc<Keyring>,
}

impl AssertionIssuer {
    /// The key that signs now. The error says what is missing.
    pub fn active(&self, algorithm: &str) -> Result<Arc<LoadedKey>, String> {
        let key = self.keyring.active(KeyPurpose::Federation, &self.path);
        let key = key.filter(|key| key.algorithm() == algorithm);
        key.ok_or_else(|| format!("the issuer {} has no active key for {algorithm} yet; try again in a minute", self.url))
    }

    /// A key that signs or signed.
    pub fn key(&self, kid: &str) -> Option<Arc<LoadedKey>> {
        self.keyring.get(KeyPurpose::Federation, kid).filter(|key| key.environment() == self.path)
    }

    /// Signs an assertion.
    pub fn sign(&self, key: &LoadedKey, claims: &AssertionClaims<'_>) -> Result<IssuedToken, Fault> {
        let mut json = Vec::with_capacity(512);
        let mut all = Object::begin(&mut json);
        all.text("iss", &self.url);
        all.text("sub", claims.subject);
        all.text("aud", claims.audience);
        all.number("iat", claims.issued_at);
        all.number("nbf", claims.issued_at);
        all.number("exp", claims.expires_at);
        all.text("jti", claims.id);
        for (name, value) in claims.more {
            let text = serde_json::to_string(value).map_err(|e| Fault::new(format!("claim {name}: {e}")))?;
            all.member(name).extend_from_slice(text.as_bytes());
        }
        all.end();
        // The buffer has room for the signature, so that no part of the token is left behind in memory.
        let mut token = Zeroizing::new(String::with_capacity(key.header().len() + json.len() * 4 / 3 + SIGNATURE_ROOM));
        token.push_str(key.header());
        URL_SAFE_NO_PAD.encode_string(&json, &mut token);
        let signature = key.sign_jws(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(IssuedToken::secret(token))
    }
}

/// Room for a dot, the 342 characters of a signature by RSA-2048, and rounding in base64.
const SIGNATURE_ROOM: usize = 352;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::keyring::{ES256, RS256, due, generate_with, jwks, jwks_of_path};
    use crate::testing::{NamedValueStore, TestLog, TestSealer, keyring};
    use jsonwebtoken::jwk::JwkSet;
    use jsonwebtoken::{Algorithm, DecodingKey, Validation};
    use mayfly_base::system::System;
    use mayfly_ledger::record::{Author, Event, KeyState, Record};
    use mayfly_verify::seq::Millis;

    const PATH: &str = "dev/upstreams/cloud";

    /// A keyring with the keys of an environment, and one of an upstream's issuer.
    fn issuers(algorithm: &'static str) -> (TestLog, AssertionIssuers) {
        let mut log = TestLog::new(Millis(1_700_000_000_000));
        let (ring, store) = keyring(&mut log);
        let made = generate_with(algorithm, KeyPurpose::Federation, PATH, KeyState::Active, &TestSealer, &System::real());
        let record = made.map_err(|e| e.to_string()).unwrap().keep(&store).unwrap();
        log.put(vec![Record::new(Author::LocalUid(0), Event::KeyAdded(record))]).remove(0).unwrap();
        ring.sync(&log.state.keys, &store, &TestSealer).unwrap();
        (log, AssertionIssuers::new("https://mayfly.example/", Arc::new(ring)))
    }

    #[test]
    fn an_assertion_is_verified_by_another_library_with_the_published_keys_and_no_others() {
        for (algorithm, name) in [(ES256, Algorithm::ES256), (RS256, Algorithm::RS256)] {
            let (log, issuers) = issuers(algorithm);
            let issuer = issuers.of("dev", "cloud").unwrap();
            assert_eq!(issuer.url, "https://mayfly.example/dev/upstreams/cloud");
            let key = issuer.active(algorithm).unwrap();
            let more = [("scope", Value::from("a \"b\""))];
            let claims = AssertionClaims {
                subject: "spiffe://td/agent",
                audience: "sts.amazonaws.com",
                issued_at: 1_700_000_000,
                expires_at: 1_700_000_060,
                id: "mfc_1",
                more: &more,
            };
            let token = issuer.sign(&key, &claims).unwrap().into_text();
            let (text, algorithms) = jwks_of_path(&log.state.keys, PATH).unwrap();
            assert_eq!(algorithms, [Box::<str>::from(algorithm)]);
            let set: JwkSet = serde_json::from_str(&text).unwrap();
            let header = jsonwebtoken::decode_header(&token).unwrap();
            assert_eq!((header.typ.as_deref(), header.alg), (Some("JWT"), name));
            let jwk = set.find(header.kid.as_deref().unwrap()).unwrap();
            let mut rules = Validation::new(name);
            rules.set_audience(&["sts.amazonaws.com"]);
            rules.set_issuer(&[&issuer.url]);
            rules.validate_exp = false;
            let decoded = jsonwebtoken::decode::<BTreeMap<String, Value>>(&token, &DecodingKey::from_jwk(jwk).unwrap(), &rules);
            let decoded = decoded.unwrap().claims;
            assert_eq!((&decoded["sub"], &decoded["scope"]), (&"spiffe://td/agent".into(), &"a \"b\"".into()));
            assert_eq!((&decoded["nbf"], &decoded["exp"]), (&1_700_000_000.into(), &1_700_000_060.into()));
            // The access tokens' issuer does not publish the key, and a verifier of access tokens refuses an assertion.
            let tokens = jwks(&log.state.keys, "dev");
            assert!(!tokens.contains(key.id()) && tokens.matches("kid").count() == 1);
            let own = mayfly_verify::token::Jwks::parse(&text);
            assert!(
                own.is_err() || mayfly_verify::token::authentic(&token, &own.unwrap()).is_err(),
                "an assertion is no access token"
            );
        }
    }

    #[test]
    fn each_upstream_has_keys_of_its_own_with_the_rotation_of_all() {
        let (log, issuers) = issuers(RS256);
        assert!(issuers.of("dev", "other").unwrap().active(RS256).is_err());
        assert!(issuers.of("prod", "cloud").unwrap().active(RS256).is_err());
        assert!(issuers.of("dev", "cloud").unwrap().active(ES256).is_err(), "a key of another algorithm");
        assert!(issuers.of("dev", "team/cloud").is_err() && issuers.of("a/b", "cloud").is_err());
        assert!(jwks_of_path(&log.state.keys, "dev/upstreams/other").is_none());
        assert!(due(&log.state.keys, KeyPurpose::Federation, PATH, log.time).is_empty());
        assert_eq!(due(&log.state.keys, KeyPurpose::Federation, "dev/upstreams/other", log.time).make, Some(KeyState::Active));
        assert_eq!(KeyPurpose::Federation.environment_of(PATH), "dev");
        assert_eq!(KeyPurpose::AccessToken.environment_of("a/upstreams/b"), "a/upstreams/b");
    }

    #[test]
    fn rsa_keys_are_for_assertions_only() {
        let refused = generate_with(RS256, KeyPurpose::AccessToken, "dev", KeyState::Active, &TestSealer, &System::real());
        assert!(refused.is_err());
        let _ = NamedValueStore::default();
    }
}
