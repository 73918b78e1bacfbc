//! Assertions that mayfly signs with a key of its own secret file: for authenticating as a client (RFC 7523, section 2.2), and as a grant
//! (section 2.1).

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Serialize;
use zeroize::Zeroizing;

use super::settings::AssertionAlgorithm;
use mayfly_base::limits;
use mayfly_base::system::{System, signing_random};

/// The claims of an assertion.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    jti: &'a str,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
}

#[derive(Serialize)]
struct Header<'a> {
    alg: AssertionAlgorithm,
    typ: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
}

/// An assertion to be signed.
pub struct Assertion<'a> {
    /// `iss`.
    pub issuer: &'a str,
    /// `sub`.
    pub subject: &'a str,
    /// `aud`: one text.
    pub audience: &'a str,
    /// `scope`: some servers read it here for the grant of RFC 7523.
    pub scope: Option<&'a str>,
    /// The signature.
    pub algorithm: AssertionAlgorithm,
    /// `kid`.
    pub key_id: Option<&'a str>,
}

enum SigningKey {
    Ec(EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
}

impl SigningKey {
    /// Reads a PEM private key. The error holds nothing of it.
    fn parse(pem: &str, algorithm: AssertionAlgorithm) -> Result<SigningKey, String> {
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| "private_key is no private key in PEM")?;
        let wrong = |kind: &str| format!("private_key is no {kind} key, which assertion_alg asks for");
        match (algorithm, &der) {
            (AssertionAlgorithm::Es256, PrivateKeyDer::Pkcs8(der)) => {
                let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der());
                pair.map(SigningKey::Ec).map_err(|_| wrong("P-256"))
            }
            (AssertionAlgorithm::Es256, PrivateKeyDer::Sec1(der)) => {
                let pair = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_sec1_der());
                pair.map(SigningKey::Ec).map_err(|_| wrong("P-256"))
            }
            (AssertionAlgorithm::Rs256, PrivateKeyDer::Pkcs8(der)) => {
                let pair = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der());
                pair.map(|pair| SigningKey::Rsa(Box::new(pair))).map_err(|_| wrong("RSA"))
            }
            (AssertionAlgorithm::Rs256, PrivateKeyDer::Pkcs1(der)) => {
                let pair = RsaKeyPair::from_der(der.secret_pkcs1_der());
                pair.map(|pair| SigningKey::Rsa(Box::new(pair))).map_err(|_| wrong("RSA"))
            }
            (AssertionAlgorithm::Es256, _) => Err(wrong("P-256")),
            (AssertionAlgorithm::Rs256, _) => Err(wrong("RSA")),
        }
    }

    fn sign(&self, text: &[u8]) -> Result<Vec<u8>, String> {
        let failed = |_| "the assertion could not be signed".to_owned();
        match self {
            SigningKey::Ec(pair) => Ok(pair.sign(&signing_random(), text).map_err(failed)?.as_ref().to_vec()),
            SigningKey::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &signing_random(), text, &mut signature).map_err(failed)?;
                Ok(signature)
            }
        }
    }
}

impl Assertion<'_> {
    /// Signs the assertion with a PEM private key. It is for one use, within a minute.
    pub fn sign(&self, pem: &str, system: &System) -> Result<Zeroizing<String>, String> {
        let key = SigningKey::parse(pem, self.algorithm)?;
        let now = system.wall().seconds();
        let jti = data_encoding::HEXLOWER.encode(&system.random16());
        let claims = Claims {
            iss: self.issuer,
            sub: self.subject,
            aud: self.audience,
            jti: &jti,
            iat: now,
            exp: now.saturating_add(limits::OAUTH_ASSERTION_SECONDS),
            scope: self.scope,
        };
        let header = Header { alg: self.algorithm, typ: "JWT", kid: self.key_id };
        let part = |json: Result<Vec<u8>, serde_json::Error>| json.map(|json| URL_SAFE_NO_PAD.encode(json));
        let header = part(serde_json::to_vec(&header)).map_err(|e| e.to_string())?;
        let claims = part(serde_json::to_vec(&claims)).map_err(|e| e.to_string())?;
        let mut token = Zeroizing::new(String::with_capacity(header.len() + claims.len() + 1024));
        token.push_str(&header);
        token.push('.');
        token.push_str(&claims);
        let signature = key.sign(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::{Algorithm, DecodingKey, Validation};

    fn assertion(algorithm: AssertionAlgorithm) -> Assertion<'static> {
        let (issuer, subject, audience) = ("client", "client", "https://as.example");
        Assertion { issuer, subject, audience, scope: None, algorithm, key_id: Some("k1") }
    }

    fn checked(token: &str, key: &DecodingKey, algorithm: Algorithm) -> serde_json::Value {
        let mut rules = Validation::new(algorithm);
        rules.set_audience(&["https://as.example"]);
        rules.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        let header = jsonwebtoken::decode_header(token).unwrap();
        assert_eq!((header.kid.as_deref(), header.alg), (Some("k1"), algorithm));
        jsonwebtoken::decode::<serde_json::Value>(token, key, &rules).unwrap().claims
    }

    #[test]
    fn an_independent_library_accepts_each_algorithm() {
        let system = System::real();
        let pair = rcgen::KeyPair::generate().unwrap();
        let pem = pair.serialize_pem();
        let token = assertion(AssertionAlgorithm::Es256).sign(&pem, &system).unwrap();
        let claims = checked(&token, &DecodingKey::from_ec_der(pair.public_key_raw()), Algorithm::ES256);
        assert_eq!((&claims["iss"], &claims["sub"]), (&"client".into(), &"client".into()));
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), limits::OAUTH_ASSERTION_SECONDS);
        let other = assertion(AssertionAlgorithm::Es256).sign(&pem, &system).unwrap();
        assert_ne!(*token, *other, "each has an id of its own");

        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let token = assertion(AssertionAlgorithm::Rs256).sign(&pair.serialize_pem(), &system).unwrap();
        checked(&token, &DecodingKey::from_rsa_der(pair.public_key_raw()), Algorithm::RS256);
    }

    #[test]
    fn a_key_of_another_kind_is_told_without_a_part_of_it() {
        let system = System::real();
        let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let no = assertion(AssertionAlgorithm::Rs256).sign(&pem, &system).unwrap_err();
        assert!(no.contains("no RSA key") && !no.contains(&pem[40..60]), "{no}");
        assert!(assertion(AssertionAlgorithm::Es256).sign("marker", &system).unwrap_err().contains("no private key in PEM"));
    }
}
