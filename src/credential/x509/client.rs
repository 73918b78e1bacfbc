//! Certificates of kind `x509`: for TLS clients of one upstream and, where the registration gives DNS names, for servers too. A request
//! contributes only its public key.

use rcgen::{
    CertificateParams, CrlDistributionPoint, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType,
};
use rcgen::{SerialNumber, SubjectPublicKeyInfo};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::settings::{CertificateNames, X509Settings};
use super::upstream_ca::UpstreamCa;
use super::{failed, moment};
use crate::keyring::LoadedKey;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault};
use mayfly_identity::sha256;
use mayfly_ledger::record::{CredentialIssued, upstream_path};
use mayfly_verify::seq::{CredentialId, Millis};

/// id-ce-noRevAvail (RFC 9608, section 2).
const NO_REV_AVAIL: &[u64] = &[2, 5, 29, 56];
/// The DER of NULL, the value of noRevAvail.
const NULL: [u8; 2] = [5, 0];

/// A signed certificate of kind `x509`.
pub struct SignedClientCertificate {
    /// The certificate, DER.
    pub der: Vec<u8>,
    /// SHA-256 of its signed part. The same for the same record: the signature itself is not.
    pub signed_part: [u8; 32],
    /// The URL of its CRL. Empty if it has none.
    pub crl_url: String,
}

/// The URL of the CRL of one CA. `issuer`: the issuer of the environment.
pub fn crl_url(issuer: &str, upstream: &str, key: &str) -> String {
    format!("{}/crl/{key}", lists_url(issuer, upstream))
}

/// The URL under which the lists and authorities of an upstream are. `issuer`: the issuer of the environment.
pub fn lists_url(issuer: &str, upstream: &str) -> String {
    format!("{issuer}/upstreams/{upstream}")
}

/// Makes the certificate of an issuance record, whose key is the CA's. Refused where the scopes give names that do not fit into one
/// certificate.
pub fn make(
    ca: &LoadedKey,
    id: CredentialId,
    issued: &CredentialIssued,
    settings: &X509Settings,
    issuer: &str,
) -> Result<SignedClientCertificate, Error> {
    let CertificateNames { common_name, organization, dns_names } = settings.names(&issued.scopes)?;
    if upstream_path(&issued.environment, &issued.upstream).as_deref() != Some(ca.environment()) {
        return Err(Fault::new(format!("key {} is not of upstream {}", ca.id(), issued.upstream)).into());
    }
    let mut params = CertificateParams::default();
    params.not_before = moment(Millis(issued.issued_at).minus(limits::SVID_BACKDATED_MS))?;
    params.not_after = moment(Millis(issued.expires_at))?;
    params.serial_number = Some(SerialNumber::from_slice(id.as_bytes()));
    params.distinguished_name = DistinguishedName::new();
    if let Some(organization) = organization {
        params.distinguished_name.push(DnType::OrganizationName, organization);
    }
    params.distinguished_name.push(DnType::CommonName, common_name.unwrap_or_else(|| id.to_string()));
    let dns = |name: String| Ok(SanType::DnsName(name.try_into().map_err(failed("a DNS name"))?));
    params.subject_alt_names = dns_names.into_iter().map(dns).collect::<Result<_, Fault>>()?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if !params.subject_alt_names.is_empty() {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    params.use_authority_key_identifier_extension = true;
    let crl_url = match settings.is_irrevocable() {
        true => {
            params.custom_extensions.push(CustomExtension::from_oid_content(NO_REV_AVAIL, NULL.to_vec()));
            String::new()
        }
        false => {
            let url = crl_url(issuer, &issued.upstream, ca.id());
            params.crl_distribution_points = vec![CrlDistributionPoint { uris: vec![url.clone()] }];
            url
        }
    };
    let key = SubjectPublicKeyInfo::from_der(&issued.certified_key).map_err(failed("reading a public key"))?;
    let made = params.signed_by(&key, UpstreamCa::of(ca)?.issuer()).map_err(failed("signing a certificate"))?;
    let (_, read) = X509Certificate::from_der(made.der()).map_err(|_| Fault::new("a certificate that cannot be read"))?;
    let signed_part = sha256(read.tbs_certificate.as_ref());
    Ok(SignedClientCertificate { der: made.der().to_vec(), signed_part, crl_url })
}
