//! The CA of the dev trust domain. Its private key is a file in the dev directory, so it must be used for local development only.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use time::OffsetDateTime;

use super::files::{read, write_private};
use super::world::NoWorld;
use crate::seq::Millis;
use crate::system::System;

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

impl DevCa {
    /// Opens the CA in a directory; creates it if there is none.
    pub fn open(dir: &Path, trust_domain: &str, system: &System) -> Result<DevCa, NoWorld> {
        let (certificate, key) = (dir.join("ca.pem"), dir.join("ca.key"));
        if !certificate.exists() {
            let (pem, key_pem) = make(trust_domain, system)?;
            // The key is written first: a key without a CA certificate is replaced at the next start.
            write_private(&key, key_pem.as_bytes())?;
            write_private(&certificate, pem.as_bytes())?;
        }
        let pem = read(&certificate)?;
        let key = KeyPair::from_pem(&read(&key)?).map_err(|e| NoWorld::Ca(e.to_string()))?;
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(|e| NoWorld::Ca(e.to_string()))?;
        Ok(DevCa { pem, issuer })
    }

    /// The CA certificate, which is the trust domain's bundle.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Issues an X.509-SVID for a key, PEM.
    pub fn svid(&self, id: &str, dns: &[String], key: &KeyPair, life_ms: u64, system: &System) -> Result<String, NoWorld> {
        let name = |text: &str| text.try_into().map_err(|_| NoWorld::Ca(format!("{text:?} is no name for a certificate")));
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
        let leaf = params.signed_by(key, &self.issuer).map_err(|e| NoWorld::Ca(e.to_string()))?;
        Ok(leaf.pem())
    }
}

fn make(trust_domain: &str, system: &System) -> Result<(String, String), NoWorld> {
    let wrong = |e: rcgen::Error| NoWorld::Ca(e.to_string());
    let now = system.wall();
    let mut params = named(&format!("dev CA of {trust_domain}"), system);
    let id = format!("spiffe://{trust_domain}");
    params.subject_alt_names = vec![SanType::URI(id.as_str().try_into().map_err(wrong)?)];
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (params.not_before, params.not_after) = (at(now.minus(EARLIER_MS))?, at(now.plus(CA_DAYS * DAY_MS))?);
    let key = KeyPair::generate().map_err(wrong)?;
    let certificate = params.self_signed(&key).map_err(wrong)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn named(common_name: &str, system: &System) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.serial_number = Some(SerialNumber::from(system.random16().to_vec()));
    params
}

fn at(time: Millis) -> Result<OffsetDateTime, NoWorld> {
    let seconds = i64::try_from(time.seconds()).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|e| NoWorld::Ca(e.to_string()))
}
