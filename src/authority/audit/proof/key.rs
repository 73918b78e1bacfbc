//! The public keys that notes are verified with.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;

use mayfly_ledger::commit::sha256;

/// The bytes before the point in the SubjectPublicKeyInfo of a P-256 key (RFC 5480, section 2).
const SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03,
    0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A P-256 public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteKey {
    /// The `kid` of the key, if it has one.
    pub name: String,
    point: Vec<u8>,
}

/// Why a file contains no keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoteKeyError(pub String);

#[derive(serde::Deserialize)]
struct Set {
    keys: Vec<Jwk>,
}

#[derive(serde::Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default)]
    crv: String,
    #[serde(default)]
    kid: String,
    #[serde(default)]
    x: String,
    #[serde(default)]
    y: String,
}

impl NoteKey {
    /// A key from an uncompressed point (SEC 1, section 2.3.3).
    pub fn from_point(name: &str, point: &[u8]) -> Option<NoteKey> {
        let whole = point.len() == 65 && point.first() == Some(&4);
        whole.then(|| NoteKey { name: name.to_owned(), point: point.to_vec() })
    }

    /// Reads the keys of a JWK set, of one JWK, or of a PEM file with public keys. Keys that are not P-256 are skipped.
    pub fn read(text: &str) -> Result<Vec<NoteKey>, NoteKeyError> {
        let found = if text.contains("-----BEGIN") { pem(text)? } else { jwks(text)? };
        if found.is_empty() { Err(NoteKeyError("there is no P-256 key in it".to_owned())) } else { Ok(found) }
    }

    /// The key id in a note's signature: the first four bytes of the SHA-256 of the SubjectPublicKeyInfo, as in Sigstore's logs.
    pub fn id(&self) -> [u8; 4] {
        let digest = sha256(&[&SPKI[..], &self.point].concat());
        [digest[0], digest[1], digest[2], digest[3]]
    }

    /// Verifies a DER signature.
    pub fn signed(&self, text: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.point).verify(text, signature).is_ok()
    }
}

fn pem(text: &str) -> Result<Vec<NoteKey>, NoteKeyError> {
    let mut found = Vec::new();
    for der in SubjectPublicKeyInfoDer::pem_slice_iter(text.as_bytes()) {
        let der = der.map_err(|e| NoteKeyError(format!("it is no PEM: {e}")))?;
        found.extend(der.as_ref().strip_prefix(&SPKI[..]).and_then(|point| NoteKey::from_point("", point)));
    }
    Ok(found)
}

fn jwks(text: &str) -> Result<Vec<NoteKey>, NoteKeyError> {
    let bad = |e: serde_json::Error| NoteKeyError(format!("it is no JWK set, JWK or PEM: {e}"));
    let keys = match serde_json::from_str::<Set>(text) {
        Ok(set) => set.keys,
        Err(_) => vec![serde_json::from_str::<Jwk>(text).map_err(bad)?],
    };
    let mut found = Vec::new();
    for jwk in keys.into_iter().filter(|k| k.kty == "EC" && k.crv == "P-256") {
        let coordinate = |text: &str| URL_SAFE_NO_PAD.decode(text).ok().filter(|b| b.len() == 32);
        let (Some(x), Some(y)) = (coordinate(&jwk.x), coordinate(&jwk.y)) else {
            return Err(NoteKeyError(format!("key {:?}: x and y must be 32 bytes each", jwk.kid)));
        };
        found.extend(NoteKey::from_point(&jwk.kid, &[&[4][..], &x, &y].concat()));
    }
    Ok(found)
}
