//! The CA of the dev trust domain. Its private key is a file in the dev directory, so it must be used for local development only.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _, SanType, SerialNumber,
};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::files::{read, write_private};
use super::world::DevWorldError;
use mayfly_base::system::System;
use mayfly_identity::anchor::TrustAnchor;
use mayfly_identity::bundle::Bundle;
use mayfly_identity::sha256;
use mayfly_identity::spiffe_id::TrustDomain;
use mayfly_identity::svid::PeerChain;
use mayfly_verify::seq::Millis;

/// The lifetime of the CA, longer than anybody keeps a dev directory.
const CA_DAYS: u64 = 3650;
const DAY_MS: u64 = 24 * 3600 * 1000;
/// How far a certificate's start is set back, for clocks that differ a little, milliseconds.
const EARLIER_MS: u64 = 60_000;

/// A CA with its private key.
pub(super) struct DevCa {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// The files of the CA in the directory of a world: the certificate, its key, and the trust bundle, which begins as a copy of the
/// certificate.
const CERTIFICATE: &str = "ca.pem";
const KEY: &str = "ca.key";
const BUNDLE: &str = "bundle.pem";

impl DevCa {
    /// Opens the CA in a directory; creates it in a new world. A CA that is missing from a world that has a bundle is not replaced: the
    /// bundle and the ledger trust the former one.
    pub fn open(dir: &Path, trust_domain: &str, system: &System) -> Result<DevCa, DevWorldError> {
        let (certificate, key) = (dir.join(CERTIFICATE), dir.join(KEY));
        match (certificate.exists(), key.exists()) {
            (true, true) => {}
            // An interrupted creation may have left a key without a certificate.
            (false, _) if !dir.join(BUNDLE).exists() => return DevCa::create(dir, trust_domain, system),
            (true, false) => return Err(DevWorldError::Ca(format!("{} is missing", key.display()))),
            (false, _) => return Err(DevWorldError::Ca(format!("{} is missing", certificate.display()))),
        }
        let pem = read(&certificate)?.as_str().to_owned();
        let key = KeyPair::from_pem(&read(&key)?).map_err(|e| DevWorldError::Ca(e.to_string()))?;
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(|e| DevWorldError::Ca(e.to_string()))?;
        Ok(DevCa { pem, issuer })
    }

    fn create(dir: &Path, trust_domain: &str, system: &System) -> Result<DevCa, DevWorldError> {
        let (pem, key) = make(trust_domain, system)?;
        // The key is written first: a key without a CA certificate is replaced at the next start.
        write_private(&dir.join(KEY), Zeroizing::new(key.serialize_pem()).as_bytes())?;
        write_private(&dir.join(CERTIFICATE), pem.as_bytes())?;
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(|e| DevWorldError::Ca(e.to_string()))?;
        Ok(DevCa { pem, issuer })
    }

    /// Replaces the CA and the bundle of a world without a ledger, unless they can be used: the files are there, they belong together, and
    /// the bundle has the certificate. Returns whether they were replaced.
    pub fn mend(dir: &Path, trust_domain: &str, system: &System) -> Result<bool, DevWorldError> {
        if DevCa::is_usable(dir, trust_domain) {
            return Ok(false);
        }
        let ca = DevCa::create(dir, trust_domain, system)?;
        write_private(&dir.join(BUNDLE), ca.pem.as_bytes())?;
        Ok(true)
    }

    fn is_usable(dir: &Path, trust_domain: &str) -> bool {
        let usable = || {
            let chain = PeerChain::from_pem(read(&dir.join(CERTIFICATE)).ok()?.as_bytes()).ok()?;
            let certificate = TrustAnchor::from_der(chain.certificates().first()?)?;
            let key = KeyPair::from_pem(&read(&dir.join(KEY)).ok()?).ok()?;
            let domain = TrustDomain::parse(trust_domain).ok()?;
            let bundle = Bundle::parse(domain, read(&dir.join(BUNDLE)).ok()?.as_bytes()).ok()?;
            let vouches = bundle.x509_authorities().iter().any(|root| root.id() == certificate.id());
            Some(vouches && *certificate.key() == sha256(&key.subject_public_key_info()))
        };
        usable().unwrap_or(false)
    }

    /// The CA certificate, which is the trust domain's bundle.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Issues an X.509-SVID for a key, PEM.
    pub fn svid(&self, id: &str, dns: &[String], key: &KeyPair, life_ms: u64, system: &System) -> Result<String, DevWorldError> {
        let name = |text: &str| text.try_into().map_err(|_| DevWorldError::Ca(format!("{text:?} is no name for a certificate")));
        let now = system.wall();
        let mut params = named(id.rsplit('/').next().unwrap_or("workload"), system);
        params.subject_alt_names = vec![SanType::URI(name(id)?)];
        for dns in dns {
            params.subject_alt_names.push(SanType::DnsName(name(dns)?));
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = (at(now.minus(EARLIER_MS))?, at(now.plus(life_ms))?);
        let leaf = params.signed_by(key, &self.issuer).map_err(|e| DevWorldError::Ca(e.to_string()))?;
        Ok(leaf.pem())
    }
}

fn make(trust_domain: &str, system: &System) -> Result<(String, KeyPair), DevWorldError> {
    let wrong = |e: rcgen::Error| DevWorldError::Ca(e.to_string());
    let now = system.wall();
    let mut params = named(&format!("dev CA of {trust_domain}"), system);
    let id = format!("spiffe://{trust_domain}");
    params.subject_alt_names = vec![SanType::URI(id.as_str().try_into().map_err(wrong)?)];
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (params.not_before, params.not_after) = (at(now.minus(EARLIER_MS))?, at(now.plus(CA_DAYS * DAY_MS))?);
    let key = KeyPair::generate().map_err(wrong)?;
    let certificate = params.self_signed(&key).map_err(wrong)?;
    Ok((certificate.pem(), key))
}

fn named(common_name: &str, system: &System) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.serial_number = Some(SerialNumber::from(system.random16().to_vec()));
    params
}

fn at(time: Millis) -> Result<OffsetDateTime, DevWorldError> {
    let seconds = i64::try_from(time.seconds()).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|e| DevWorldError::Ca(e.to_string()))
}
