//! The CA: a key of ours, and the certificate that bundles know it by.

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyUsagePurpose, PublicKeyData, SanType,
};
use rcgen::{SerialNumber, SignatureAlgorithm, SigningKey};

use super::{failed, moment, uri};
use crate::credential::keyring::OwnKey;
use crate::identity::anchor::TrustAnchor;
use crate::identity::spiffe_id::TrustDomain;
use crate::limits;
use crate::refusal::Fault;
use crate::seq::Millis;

/// A key of ours as certificates are signed with it.
pub(super) struct Signs<'a> {
    key: &'a OwnKey,
    point: &'a [u8],
}

impl<'a> Signs<'a> {
    fn by(key: &'a OwnKey) -> Result<Signs<'a>, Fault> {
        let point = key.public().ok_or_else(|| Fault::new(format!("key {} signs nothing", key.id())))?;
        Ok(Signs { key, point })
    }
}

impl PublicKeyData for Signs<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.point
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for Signs<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.key.sign_der(&digest(&SHA256, message)).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

/// A CA that signs: its key, and its certificate as the bundle has it.
pub struct Ca<'a> {
    issuer: Issuer<'static, Signs<'a>>,
    anchor: &'a TrustAnchor,
}

impl<'a> Ca<'a> {
    /// The certificate's names and identifiers go into all that is signed: they are read from it, never made a second time.
    pub fn new(key: &'a OwnKey, anchor: &'a TrustAnchor) -> Result<Ca<'a>, Fault> {
        let issuer = Issuer::from_ca_cert_der(anchor.der(), Signs::by(key)?).map_err(failed("reading our own CA certificate"))?;
        Ok(Ca { issuer, anchor })
    }

    /// Its certificate.
    pub fn anchor(&self) -> &TrustAnchor {
        self.anchor
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, Signs<'a>> {
        &self.issuer
    }
}

/// Makes the certificate of a CA's key: once, since a second one would be another anchor.
pub fn certificate(key: &OwnKey, domain: &TrustDomain, serial: [u8; 16], now: Millis) -> Result<TrustAnchor, Fault> {
    let mut params = CertificateParams::default();
    params.not_before = moment(now.minus(limits::SVID_BACKDATED_MS))?;
    params.not_after = moment(now.plus(limits::CA_LIFE_MS))?;
    params.serial_number = Some(SerialNumber::from_slice(&positive(serial)));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "mayfly");
    // A name of its own for each key, so that nobody takes one CA's CRL for another's.
    params
        .distinguished_name
        .push(DnType::CommonName, format!("{} {}", domain.as_str().chars().take(40).collect::<String>(), key.id()));
    params.subject_alt_names = vec![SanType::URI(uri(&format!("spiffe://{domain}"))?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let made = params.self_signed(&Signs::by(key)?).map_err(failed("making a CA certificate"))?;
    TrustAnchor::from_der(made.der()).ok_or_else(|| Fault::new("a CA certificate that we cannot read"))
}

/// A serial number is above 0 (RFC 5280, section 4.1.2.2), also where 16 random bytes are not.
fn positive(mut serial: [u8; 16]) -> [u8; 16] {
    serial[15] |= u8::from(serial == [0; 16]);
    serial
}
