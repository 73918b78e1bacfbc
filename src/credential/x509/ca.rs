//! The CA: a key of mayfly, and the certificate by which trust bundles know the key.

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyUsagePurpose, PublicKeyData, SanType,
};
use rcgen::{SerialNumber, SignatureAlgorithm, SigningKey};

use super::{failed, moment, uri};
use crate::keyring::LoadedKey;
use mayfly_base::limits;
use mayfly_base::refusal::Fault;
use mayfly_identity::anchor::TrustAnchor;
use mayfly_identity::spiffe_id::TrustDomain;
use mayfly_verify::seq::Millis;

/// Signs certificates with a key of mayfly.
pub(super) struct CaSigner<'a> {
    key: &'a LoadedKey,
    point: &'a [u8],
}

impl<'a> CaSigner<'a> {
    pub(super) fn by(key: &'a LoadedKey) -> Result<CaSigner<'a>, Fault> {
        let point = key.public().ok_or_else(|| Fault::new(format!("key {} signs nothing", key.id())))?;
        Ok(CaSigner { key, point })
    }
}

impl PublicKeyData for CaSigner<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.point
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for CaSigner<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.key.sign_der(&digest(&SHA256, message)).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

/// A CA that can sign: its key, and its certificate as in the bundle.
pub struct Ca<'a> {
    issuer: Issuer<'static, CaSigner<'a>>,
    anchor: &'a TrustAnchor,
}

impl<'a> Ca<'a> {
    /// A CA for a key and its certificate. The names and identifiers in signed certificates are read from the CA certificate and never
    /// built a second time.
    pub fn new(key: &'a LoadedKey, anchor: &'a TrustAnchor) -> Result<Ca<'a>, Fault> {
        let issuer =
            Issuer::from_ca_cert_der(anchor.der(), CaSigner::by(key)?).map_err(failed("reading our own CA certificate"))?;
        Ok(Ca { issuer, anchor })
    }

    /// The CA's certificate.
    pub fn anchor(&self) -> &TrustAnchor {
        self.anchor
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, CaSigner<'a>> {
        &self.issuer
    }
}

/// Makes the certificate of a CA key. To be called once per key, since a second certificate would be a different trust anchor.
pub fn certificate(key: &LoadedKey, domain: &TrustDomain, serial: [u8; 16], now: Millis) -> Result<TrustAnchor, Fault> {
    let mut params = CertificateParams::default();
    params.not_before = moment(now.minus(limits::SVID_BACKDATED_MS))?;
    params.not_after = moment(now.plus(limits::CA_LIFE_MS))?;
    params.serial_number = Some(SerialNumber::from_slice(&positive(serial)));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "mayfly");
    // Each key has its own name, so that the CRL of one CA is not taken for that of another.
    params
        .distinguished_name
        .push(DnType::CommonName, format!("{} {}", domain.as_str().chars().take(40).collect::<String>(), key.id()));
    params.subject_alt_names = vec![SanType::URI(uri(&format!("spiffe://{domain}"))?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let made = params.self_signed(&CaSigner::by(key)?).map_err(failed("making a CA certificate"))?;
    TrustAnchor::from_der(made.der()).ok_or_else(|| Fault::new("a CA certificate that we cannot read"))
}

/// A serial number must be greater than 0 (RFC 5280, section 4.1.2.2), even if 16 random bytes are not.
pub(super) fn positive(mut serial: [u8; 16]) -> [u8; 16] {
    serial[15] |= u8::from(serial == [0; 16]);
    serial
}
