//! X.509-SVIDs of mayfly's own trust domain. The profile is fixed; a request contributes only its public key.

use rcgen::{
    CertificateParams, CrlDistributionPoint, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
};
use rcgen::{SerialNumber, SubjectPublicKeyInfo};
use rustls_pki_types::CertificateDer;

use super::{Ca, Csr, failed, moment, uri};
use mayfly_base::limits;
use mayfly_base::refusal::Fault;
use mayfly_identity::sha256;
use mayfly_identity::spiffe_id::SpiffeId;
use mayfly_verify::seq::{CredentialId, Millis};

/// The content of an SVID.
#[derive(Clone, Copy, Debug)]
pub struct SvidTemplate<'a> {
    /// The credential id, which is the serial number.
    pub id: CredentialId,
    /// The verified request that holds the public key.
    pub key: &'a Csr,
    /// The SPIFFE ID.
    pub spiffe_id: &'a SpiffeId,
    /// The URL of the CA's CRL.
    pub crl_url: &'a str,
    /// The time of the decision.
    pub issued_at: Millis,
    /// notAfter, in whole seconds.
    pub expires_at: Millis,
}

/// A signed certificate that is not handed out yet.
pub struct SignedCertificate {
    /// The certificate in DER.
    pub der: CertificateDer<'static>,
    /// SHA-256 of the certificate.
    pub sha256: [u8; 32],
}

impl SvidTemplate<'_> {
    /// Signs the SVID.
    pub fn sign(&self, ca: &Ca<'_>) -> Result<SignedCertificate, Fault> {
        let mut params = CertificateParams::default();
        params.not_before = moment(self.issued_at.minus(limits::SVID_BACKDATED_MS))?;
        params.not_after = moment(self.expires_at)?;
        params.serial_number = Some(SerialNumber::from_slice(self.id.as_bytes()));
        // No Subject: the only name is the SPIFFE ID in the SAN, which must therefore be critical (RFC 5280, section 4.2.1.6).
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(uri(self.spiffe_id.as_str())?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.crl_distribution_points = vec![CrlDistributionPoint { uris: vec![self.crl_url.to_owned()] }];
        params.use_authority_key_identifier_extension = true;
        let key = SubjectPublicKeyInfo::from_der(self.key.spki()).map_err(failed("reading a public key"))?;
        let made = params.signed_by(&key, ca.issuer()).map_err(failed("signing an SVID"))?;
        let der = made.der().clone();
        Ok(SignedCertificate { sha256: sha256(&der), der })
    }
}
