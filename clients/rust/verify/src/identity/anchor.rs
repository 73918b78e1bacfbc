//! A trust anchor: one certificate of a trust bundle, and whether it can vouch for anything.

use std::fmt;
use std::str::FromStr;

use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry as oid;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Version;

use super::profile;
use super::sha256;
use crate::limits;
use crate::seq::Millis;

/// The id of a trust anchor: SHA-256 of its certificate's DER, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AnchorId([u8; 32]);

impl AnchorId {
    /// An id from the digest in a record.
    pub const fn from_bytes(digest: [u8; 32]) -> AnchorId {
        AnchorId(digest)
    }

    /// The digest.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for AnchorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for AnchorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for AnchorId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<AnchorId, Self::Err> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
        let digest = bytes.and_then(|b| <[u8; 32]>::try_from(b).ok());
        digest.map(AnchorId).ok_or("a trust anchor is named by 64 hexadecimal digits")
    }
}

/// Serialized as 64 hexadecimal digits in human-readable formats and as 32 bytes in records.
impl Serialize for AnchorId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() { to.collect_str(self) } else { self.0.serialize(to) }
    }
}

impl<'de> Deserialize<'de> for AnchorId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<AnchorId, D::Error> {
        if from.is_human_readable() {
            String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
        } else {
            <[u8; 32]>::deserialize(from).map(AnchorId)
        }
    }
}

/// Why an anchor in a bundle vouches for nothing. Such an anchor is kept and shown, but path validation ignores it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AnchorDefect {
    /// X.509 v1 or v2, which cannot mark a certificate as a CA.
    #[error("is not an X.509 v3 certificate")]
    NotV3,
    /// No basicConstraints with cA true (X509-SVID, section 4.1).
    #[error("has no basicConstraints with cA true")]
    NotCa,
    /// A keyUsage without keyCertSign (X509-SVID, section 4.3). An anchor without keyUsage is accepted.
    #[error("has a keyUsage without keyCertSign")]
    NoKeyCertSign,
    /// A SPIFFE ID with a path (X509-SVID, section 3.2).
    #[error("has a SPIFFE ID with a path, so it is a workload's")]
    IdHasPath,
    /// An unknown critical extension.
    #[error("has a critical extension that is not known here")]
    UnknownCriticalExtension,
    /// A field that path validation cannot parse.
    #[error("has a field that cannot be read")]
    Unreadable,
}

/// One certificate of a bundle.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrustAnchor {
    der: CertificateDer<'static>,
    id: AnchorId,
    key: [u8; 32],
    not_before: Millis,
    not_after: Millis,
    standing: Result<(), AnchorDefect>,
}

impl TrustAnchor {
    /// Parses DER; `None` where it is not exactly one X.509 certificate of at most `limits::CERTIFICATE_BYTES`.
    pub fn from_der(der: &[u8]) -> Option<TrustAnchor> {
        if der.len() > limits::CERTIFICATE_BYTES {
            return None;
        }
        let (rest, cert) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let (not_before, not_after) = profile::validity(&cert);
        let der = CertificateDer::from(der.to_vec());
        let readable = webpki::anchor_from_trusted_cert(&der).map(|_| ()).map_err(|_| AnchorDefect::Unreadable);
        Some(TrustAnchor {
            id: AnchorId(sha256(&der)),
            key: sha256(cert.public_key().raw),
            not_before,
            not_after,
            standing: standing(&cert).and(readable),
            der,
        })
    }

    /// The certificate.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// SHA-256 of the certificate.
    pub fn id(&self) -> AnchorId {
        self.id
    }

    /// SHA-256 of the certificate's SubjectPublicKeyInfo.
    pub fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// The beginning of the anchor's validity.
    pub fn not_before(&self) -> Millis {
        self.not_before
    }

    /// The end of the anchor's validity.
    pub fn not_after(&self) -> Millis {
        self.not_after
    }

    /// Whether the anchor can vouch for anything while it is valid.
    pub fn standing(&self) -> Result<(), AnchorDefect> {
        self.standing
    }
}

fn standing(cert: &X509Certificate<'_>) -> Result<(), AnchorDefect> {
    if cert.version() != X509Version::V3 {
        return Err(AnchorDefect::NotV3);
    }
    let known = [
        oid::OID_X509_EXT_BASIC_CONSTRAINTS,
        oid::OID_X509_EXT_KEY_USAGE,
        oid::OID_X509_EXT_EXTENDED_KEY_USAGE,
        oid::OID_X509_EXT_SUBJECT_ALT_NAME,
        oid::OID_X509_EXT_NAME_CONSTRAINTS,
    ];
    if cert.iter_extensions().any(|e| e.critical && !known.contains(&e.oid)) {
        return Err(AnchorDefect::UnknownCriticalExtension);
    }
    if !profile::is_ca(cert).map_err(|_| AnchorDefect::Unreadable)? {
        return Err(AnchorDefect::NotCa);
    }
    match cert.key_usage().map_err(|_| AnchorDefect::Unreadable)? {
        Some(usage) if !usage.value.key_cert_sign() => return Err(AnchorDefect::NoKeyCertSign),
        _ => {}
    }
    profile::check_signer_id(cert).map_err(|_| AnchorDefect::IdHasPath)
}
