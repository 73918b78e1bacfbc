//! Writes the SPIFFE bundle document; equal authorities give an equal text (SPIFFE-Trust-Domain-and-Bundle, section 4).

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry as oid;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

use super::anchor::TrustAnchor;
use super::bundle::{Bundle, JwtAuthority};

/// The content of a document.
pub struct BundleDocument<'a> {
    /// `spiffe_sequence`.
    pub sequence: Option<u64>,
    /// `spiffe_refresh_hint`, seconds.
    pub refresh_hint_s: Option<u64>,
    /// The X.509 authorities.
    pub anchors: Vec<&'a TrustAnchor>,
    /// The JWT authorities.
    pub jwt: Vec<&'a JwtAuthority>,
}

impl<'a> From<&'a Bundle> for BundleDocument<'a> {
    fn from(bundle: &'a Bundle) -> BundleDocument<'a> {
        BundleDocument {
            sequence: bundle.sequence(),
            refresh_hint_s: bundle.refresh_hint_s(),
            anchors: bundle.x509_authorities().iter().collect(),
            jwt: bundle.jwt_authorities().iter().collect(),
        }
    }
}

impl BundleDocument<'_> {
    /// The text of the document. [`Bundle::from_jwks`] parses it back to the same authorities.
    pub fn to_text(&self) -> String {
        let keys = self.anchors.iter().map(|a| x509(a)).chain(self.jwt.iter().map(|j| j.jwk().clone()));
        let mut members = Map::from_iter([("keys".to_owned(), keys.collect::<Vec<Value>>().into())]);
        let numbers = [("spiffe_sequence", self.sequence), ("spiffe_refresh_hint", self.refresh_hint_s)];
        members.extend(numbers.into_iter().filter_map(|(name, n)| Some((name.to_owned(), n?.into()))));
        Value::Object(members).to_string()
    }
}

fn x509(anchor: &TrustAnchor) -> Value {
    let mut jwk = X509Certificate::from_der(anchor.der()).ok().and_then(|(_, cert)| key(&cert)).unwrap_or_else(|| {
        // A key without a known JWK form. The certificate contains it.
        Map::from_iter([("kty".to_owned(), "X509".into())])
    });
    jwk.insert("use".to_owned(), "x509-svid".into());
    jwk.insert("x5c".to_owned(), json!([STANDARD.encode(anchor.der())]));
    Value::Object(jwk)
}

/// The members of the public key (RFC 7518, section 6; RFC 8037, section 2).
fn key(cert: &X509Certificate<'_>) -> Option<Map<String, Value>> {
    let spki = cert.public_key();
    let text = |bytes: &[u8]| Value::from(URL_SAFE_NO_PAD.encode(bytes));
    let members = match spki.parsed().ok()? {
        PublicKey::EC(point) => {
            let curve = spki.algorithm.parameters.as_ref()?.as_oid().ok()?;
            let curve = match () {
                () if curve == oid::OID_EC_P256 => "P-256",
                () if curve == oid::OID_NIST_EC_P384 => "P-384",
                () if curve == oid::OID_NIST_EC_P521 => "P-521",
                () => return None,
            };
            let [4, coordinates @ ..] = point.data() else { return None };
            let (x, y) = coordinates.split_at_checked(coordinates.len() / 2)?;
            vec![("kty", "EC".into()), ("crv", curve.into()), ("x", text(x)), ("y", text(y))]
        }
        PublicKey::RSA(rsa) => {
            // DER puts a zero byte before a high bit; a JWK does not.
            let strip = |bytes: &'_ [u8]| text(bytes.iter().position(|b| *b != 0).map_or(&[][..], |at| &bytes[at..]));
            vec![("kty", "RSA".into()), ("n", strip(rsa.modulus)), ("e", strip(rsa.exponent))]
        }
        _ if spki.algorithm.algorithm == oid::OID_SIG_ED25519 => {
            vec![("kty", "OKP".into()), ("crv", "Ed25519".into()), ("x", text(&spki.subject_public_key.data))]
        }
        _ => return None,
    };
    Some(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::spiffe_id::TrustDomain;

    fn root(algorithm: &'static rcgen::SignatureAlgorithm) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.self_signed(&rcgen::KeyPair::generate_for(algorithm).unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn what_is_written_is_read_back_the_same() {
        let algorithms = [
            (&rcgen::PKCS_ECDSA_P256_SHA256, "EC", Some("P-256")),
            (&rcgen::PKCS_ECDSA_P384_SHA384, "EC", Some("P-384")),
            (&rcgen::PKCS_ED25519, "OKP", Some("Ed25519")),
            (&rcgen::PKCS_RSA_SHA256, "RSA", None),
        ];
        let anchors: Vec<TrustAnchor> = algorithms.iter().map(|(a, ..)| TrustAnchor::from_der(&root(a)).unwrap()).collect();
        let jwt = JwtAuthority::new("k".into(), json!({"kty": "EC", "use": "jwt-svid", "kid": "k", "x": "y"}));
        let document =
            BundleDocument { sequence: Some(7), refresh_hint_s: Some(300), anchors: anchors.iter().collect(), jwt: vec![&jwt] };
        let text = document.to_text();
        assert_eq!(text, document.to_text());
        let domain = TrustDomain::parse("a.example").unwrap();
        let read = Bundle::from_jwks(domain, text.as_bytes()).unwrap();
        assert_eq!((read.sequence(), read.refresh_hint_s()), (Some(7), Some(300)));
        assert_eq!((read.x509_authorities(), read.jwt_authorities()), (&anchors[..], &[jwt.clone()][..]));
        assert_eq!(BundleDocument::from(&read).to_text(), text);
        let keys: Value = serde_json::from_str(&text).unwrap();
        for (n, (_, kty, crv)) in algorithms.iter().enumerate() {
            let key = &keys["keys"][n];
            assert_eq!((key["kty"].as_str(), key["crv"].as_str()), (Some(*kty), *crv));
            let members: &[&str] = match *kty {
                "EC" => &["x", "y"],
                "RSA" => &["n", "e"],
                _ => &["x"],
            };
            assert!(members.iter().all(|m| key[m].as_str().is_some_and(|v| !v.is_empty())), "{key}");
        }
        assert_eq!(keys["keys"][3]["e"], "AQAB", "without the zero byte of DER");
    }
}
