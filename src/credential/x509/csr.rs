//! Certificate requests (RFC 2986). A request proves that its sender has the private key; everything else in it is ignored.

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry as oid;
use x509_parser::prelude::FromDer;

use mayfly_base::limits;
use mayfly_identity::sha256;

/// Why a certificate request is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CsrDefect {
    /// Larger than `limits::CSR_BYTES`.
    #[error("has more than {} bytes", limits::CSR_BYTES)]
    TooLong,
    /// Not exactly one PKCS#10 request in DER.
    #[error("is not one PKCS#10 request in DER")]
    Malformed,
    /// A key of an unsupported type.
    #[error("has a key that is none of P-256, P-384, Ed25519")]
    Key,
    /// The signature was not made with the request's key.
    #[error("is not signed with its own key")]
    Signature,
}

/// A public key whose holder asked for a certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Csr {
    spki: Vec<u8>,
}

impl Csr {
    /// Verifies a request in DER. Its names and extensions are ignored.
    pub fn check(der: &[u8]) -> Result<Csr, CsrDefect> {
        if der.len() > limits::CSR_BYTES {
            return Err(CsrDefect::TooLong);
        }
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| CsrDefect::Malformed)?;
        if !rest.is_empty() {
            return Err(CsrDefect::Malformed);
        }
        let spki = &request.certification_request_info.subject_pki;
        let curve = spki.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
        let known = match &spki.algorithm.algorithm {
            alg if *alg == oid::OID_KEY_TYPE_EC_PUBLIC_KEY => {
                curve.is_some_and(|c| c == oid::OID_EC_P256 || c == oid::OID_NIST_EC_P384)
            }
            alg => *alg == oid::OID_SIG_ED25519,
        };
        if !known {
            return Err(CsrDefect::Key);
        }
        request.verify_signature().map_err(|_| CsrDefect::Signature)?;
        Ok(Csr { spki: spki.raw.to_vec() })
    }

    /// The public key: SubjectPublicKeyInfo in DER.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The value that binds an ID token to the key: the token's `nonce` must be base64url of SHA-256 of the SubjectPublicKeyInfo.
    pub fn nonce(&self) -> String {
        data_encoding::BASE64URL_NOPAD.encode(&sha256(&self.spki))
    }
}
