//! The CA of one upstream: signs the certificates of kind `x509`, and their CRL.

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyUsagePurpose, SerialNumber};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::ca::{CaSigner, positive};
use super::{failed, moment};
use crate::keyring::LoadedKey;
use mayfly_base::limits;
use mayfly_base::refusal::Fault;
use mayfly_verify::seq::Millis;

/// A CA of an upstream that can sign: its key, and the certificate that was made for the key.
pub struct UpstreamCa<'a> {
    issuer: Issuer<'static, CaSigner<'a>>,
}

impl<'a> UpstreamCa<'a> {
    /// The CA of a loaded key. The names and identifiers in signed certificates are read from the CA's certificate.
    pub fn of(key: &'a LoadedKey) -> Result<UpstreamCa<'a>, Fault> {
        let none = || Fault::new(format!("key {} has no certificate", key.id()));
        let certificate = key.certificate().ok_or_else(none)?;
        let issuer = Issuer::from_ca_cert_der(certificate.der(), CaSigner::by(key)?)
            .map_err(failed("reading the certificate of an upstream's CA"))?;
        Ok(UpstreamCa { issuer })
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, CaSigner<'a>> {
        &self.issuer
    }
}

/// The certificate of a CA key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaCertificate {
    der: CertificateDer<'static>,
    ends_at: Millis,
}

impl CaCertificate {
    /// Reads a certificate, and checks that it is the certificate of this key, signed by the key itself. `point`: the public key.
    pub fn read(der: &[u8], point: &[u8]) -> Result<CaCertificate, Fault> {
        let wrong = |what: &str| Fault::new(format!("the certificate of an upstream's CA {what}"));
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| wrong("is no certificate in DER"))?;
        if !rest.is_empty() || *certificate.public_key().subject_public_key.data != *point {
            return Err(wrong("is not that of its key"));
        }
        certificate.verify_signature(None).map_err(|_| wrong("is not signed with its key"))?;
        let ends_at = u64::try_from(certificate.validity().not_after.timestamp()).map_err(|_| wrong("ended before 1970"))?;
        Ok(CaCertificate { der: CertificateDer::from(der.to_vec()), ends_at: Millis::from_seconds(ends_at) })
    }

    /// The certificate in DER.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// notAfter.
    pub fn ends_at(&self) -> Millis {
        self.ends_at
    }
}

/// Makes the certificate of a CA key. To be called once per key: trust stores hold the certificate. `path`: the upstream, as of
/// [`upstream_path`](mayfly_ledger::record::upstream_path).
pub fn upstream_certificate(key: &LoadedKey, path: &str, serial: [u8; 16], now: Millis) -> Result<CaCertificate, Fault> {
    let mut params = CertificateParams::default();
    params.not_before = moment(now.minus(limits::SVID_BACKDATED_MS))?;
    params.not_after = moment(now.plus(limits::UPSTREAM_CA_LIFE_MS))?;
    params.serial_number = Some(SerialNumber::from_slice(&positive(serial)));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "mayfly");
    // The CA of each key has a name of its own, so that a verifier that has several CAs takes the right one, and the CRL of no other.
    let cut = |text: &str, most: usize| text.chars().take(most).collect::<String>();
    params.distinguished_name.push(DnType::OrganizationalUnitName, cut(path, limits::CERTIFICATE_NAME_BYTES));
    params.distinguished_name.push(DnType::CommonName, format!("mayfly upstream CA {}", key.id()));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let made = params.self_signed(&CaSigner::by(key)?).map_err(failed("making the certificate of an upstream's CA"))?;
    let point = key.public().unwrap_or_default();
    CaCertificate::read(made.der(), point)
}
