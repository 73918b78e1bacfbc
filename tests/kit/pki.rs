//! Authorities and SVIDs. A [`Spec`] is valid by default; a [`Defect`] spoils one aspect of it.

use mayfly::identity::bundle::{Bundle, Bundles};
use mayfly::identity::spiffe_id::TrustDomain;
use mayfly::identity::svid::PeerChain;
use mayfly::seq::Millis;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use std::sync::Arc;
use time::OffsetDateTime;

use super::der;

/// 2026-11-20T00:00:00Z: the time at which everything here is valid, unless stated otherwise.
pub const NOW: Millis = Millis(1_795_132_800_000);
pub const HOUR: u64 = 3_600_000;

const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const SAN: &[u64] = &[2, 5, 29, 17];

/// The parameters of a certificate.
#[derive(Clone)]
pub struct Spec {
    pub common_name: Option<String>,
    /// GeneralNames in DER.
    pub names: Vec<Vec<u8>>,
    pub names_critical: bool,
    /// The first byte of KeyUsage.
    pub key_usage: Option<u8>,
    pub key_usage_critical: bool,
    pub purposes: Vec<ExtendedKeyUsagePurpose>,
    pub ca: IsCa,
    pub serial: Vec<u8>,
    pub not_before: Millis,
    pub not_after: Millis,
    pub more: Vec<(Vec<u64>, bool, Vec<u8>)>,
    pub uri_constraint: bool,
}

impl Spec {
    /// A valid leaf: from a minute ago for an hour.
    pub fn leaf(id: &str) -> Spec {
        Spec {
            common_name: Some("workload".into()),
            names: vec![der::uri(id.as_bytes())],
            names_critical: false,
            key_usage: Some(0x80),
            key_usage_critical: true,
            purposes: vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            ca: IsCa::ExplicitNoCa,
            serial: vec![0x5a, 1, 2, 3],
            not_before: NOW.minus(60_000),
            not_after: NOW.plus(HOUR),
            more: Vec::new(),
            uri_constraint: false,
        }
    }

    /// A valid CA: from a year ago to a year from now.
    pub fn ca(trust_domain: &str, name: &str) -> Spec {
        Spec {
            common_name: Some(name.into()),
            names: vec![der::uri(format!("spiffe://{trust_domain}").as_bytes())],
            key_usage: Some(0x06),
            purposes: Vec::new(),
            ca: IsCa::Ca(BasicConstraints::Unconstrained),
            not_before: NOW.minus(365 * 24 * HOUR),
            not_after: NOW.plus(365 * 24 * HOUR),
            ..Spec::leaf("")
        }
    }

    pub fn with(mut self, defect: Defect) -> Spec {
        defect.apply(&mut self);
        self
    }

    /// Adds a DNS name beside the URI.
    pub fn and_dns(mut self, name: &str) -> Spec {
        self.names.push(der::dns(name));
        self
    }

    pub fn valid(mut self, not_before: Millis, not_after: Millis) -> Spec {
        (self.not_before, self.not_after) = (not_before, not_after);
        self
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(name) = &self.common_name {
            params.distinguished_name.push(DnType::CommonName, name.as_str());
        }
        let mut extension = |oid: &[u64], critical: bool, content: Vec<u8>| {
            let mut extension = CustomExtension::from_oid_content(oid, content);
            extension.set_criticality(critical);
            params.custom_extensions.push(extension);
        };
        if !self.names.is_empty() {
            extension(SAN, self.names_critical, der::sequence(&self.names));
        }
        if let Some(bits) = self.key_usage {
            extension(KEY_USAGE, self.key_usage_critical, der::key_usage(bits));
        }
        if self.uri_constraint {
            // NameConstraints { permittedSubtrees [0] { { base [6] "example.org" } } }
            let subtree = der::sequence(&[der::uri(b"example.org")]);
            extension(&[2, 5, 29, 30], true, der::sequence(&[der::tlv(0xa0, &subtree)]));
        }
        for (oid, critical, content) in &self.more {
            extension(oid, *critical, content.clone());
        }
        params.extended_key_usages = self.purposes.clone();
        params.is_ca = self.ca;
        params.serial_number = Some(SerialNumber::from(self.serial.clone()));
        params.not_before = at(self.not_before);
        params.not_after = at(self.not_after);
        params
    }
}

fn at(time: Millis) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(time.seconds() as i64).unwrap()
}

/// One defect of a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Defect {
    NoUri,
    TwoUris,
    /// The second URI is not UTF-8: a parser that skips such names would count one URI.
    SecondUriNotText,
    OnlyUriNotText,
    Scheme,
    Uppercase,
    PercentEncoding,
    RootPath,
    SeventeenSegments,
    EmptySubject,
    Ca,
    NoKeyUsage,
    KeyUsageNotCritical,
    NoDigitalSignature,
    KeyCertSign,
    CrlSign,
    OnlyServerAuth,
    OnlyClientAuth,
    AnyPurpose,
    SerialZero,
    SerialOf21Bytes,
    UnknownCriticalExtension,
    Large,
    NotACa,
    NoKeyCertSign,
    IdWithPath,
    PathLengthZero,
    UriNameConstraint,
}

impl Defect {
    fn apply(self, spec: &mut Spec) {
        let uri = |text: &str| vec![der::uri(text.as_bytes())];
        match self {
            Defect::NoUri => spec.names = vec![der::dns("a.example.org")],
            Defect::TwoUris => spec.names.push(der::uri(b"spiffe://example.org/b")),
            Defect::SecondUriNotText => spec.names.push(der::uri(b"spiffe://example.org/\xff")),
            Defect::OnlyUriNotText => spec.names = vec![der::uri(b"spiffe://example.org/\xff")],
            Defect::Scheme => spec.names = uri("sparfe://example.org/a"),
            Defect::Uppercase => spec.names = uri("spiffe://Example.org/a"),
            Defect::PercentEncoding => spec.names = uri("spiffe://example.org/%61"),
            Defect::RootPath => spec.names = uri("spiffe://example.org"),
            Defect::SeventeenSegments => spec.names = uri(&format!("spiffe://example.org{}", "/a".repeat(17))),
            Defect::EmptySubject => spec.common_name = None,
            Defect::Ca => spec.ca = IsCa::Ca(BasicConstraints::Unconstrained),
            Defect::NoKeyUsage => spec.key_usage = None,
            Defect::KeyUsageNotCritical => spec.key_usage_critical = false,
            Defect::NoDigitalSignature => spec.key_usage = Some(0x20),
            Defect::KeyCertSign => spec.key_usage = Some(0x84),
            Defect::CrlSign => spec.key_usage = Some(0x82),
            Defect::OnlyServerAuth => spec.purposes = vec![ExtendedKeyUsagePurpose::ServerAuth],
            Defect::OnlyClientAuth => spec.purposes = vec![ExtendedKeyUsagePurpose::ClientAuth],
            Defect::AnyPurpose => spec.purposes = vec![ExtendedKeyUsagePurpose::Any],
            Defect::SerialZero => spec.serial = vec![0],
            Defect::SerialOf21Bytes => spec.serial = vec![0x41; 21],
            Defect::UnknownCriticalExtension => spec.more.push((vec![1, 3, 6, 1, 4, 1, 99999, 1], true, vec![5, 0])),
            Defect::Large => spec.more.push((vec![1, 3, 6, 1, 4, 1, 99999, 2], false, der::tlv(4, &[0; 17_000]))),
            Defect::NotACa => spec.ca = IsCa::ExplicitNoCa,
            Defect::NoKeyCertSign => spec.key_usage = Some(0x02),
            Defect::IdWithPath => spec.names = uri("spiffe://example.org/ca"),
            Defect::PathLengthZero => spec.ca = IsCa::Ca(BasicConstraints::Constrained(0)),
            Defect::UriNameConstraint => spec.uri_constraint = true,
        }
    }
}

/// A CA with its key.
pub struct Authority {
    pub certificate: CertificateDer<'static>,
    pub key: KeyPair,
    params: CertificateParams,
    /// The certificates that a leaf's holder sends along: this one and those between it and the root.
    above: Vec<CertificateDer<'static>>,
}

impl Authority {
    /// A valid root of a trust domain.
    pub fn root(trust_domain: &str) -> Authority {
        Authority::root_from(&Spec::ca(trust_domain, &format!("root of {trust_domain}")))
    }

    pub fn root_from(spec: &Spec) -> Authority {
        let (key, params) = (KeyPair::generate().unwrap(), spec.params());
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Authority { certificate, key, params, above: Vec::new() }
    }

    /// A CA below this one.
    pub fn intermediate(&self, spec: &Spec) -> Authority {
        let (key, params) = (KeyPair::generate().unwrap(), spec.params());
        let certificate = params.signed_by(&key, &self.issuer()).unwrap().der().clone();
        let above = std::iter::once(certificate.clone()).chain(self.above.iter().cloned()).collect();
        Authority { certificate, key, params, above }
    }

    /// A leaf from this CA, with a new key.
    pub fn issue(&self, spec: &Spec) -> Svid {
        let key = KeyPair::generate().unwrap();
        let leaf = spec.params().signed_by(&key, &self.issuer()).unwrap().der().clone();
        let chain = std::iter::once(leaf).chain(self.above.iter().cloned()).collect();
        Svid { chain: PeerChain::new(chain), key }
    }

    /// A valid SVID.
    pub fn svid(&self, id: &str) -> Svid {
        self.issue(&Spec::leaf(id))
    }

    pub fn pem(&self) -> String {
        pem(std::slice::from_ref(&self.certificate))
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }
}

/// A leaf with its chain and key.
pub struct Svid {
    pub chain: PeerChain,
    pub key: KeyPair,
}

impl Svid {
    pub fn chain_pem(&self) -> String {
        pem(self.chain.certificates())
    }

    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }
}

pub fn pem(certificates: &[CertificateDer<'_>]) -> String {
    let mut out = String::new();
    for der in certificates {
        let text = data_encoding::BASE64.encode(der);
        out.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in text.as_bytes().chunks(64) {
            out.push_str(std::str::from_utf8(line).unwrap());
            out.push('\n');
        }
        out.push_str("-----END CERTIFICATE-----\n");
    }
    out
}

pub fn trust_domain(name: &str) -> TrustDomain {
    TrustDomain::parse(name).unwrap()
}

/// A bundle of these roots.
pub fn bundle(name: &str, roots: &[&Authority]) -> Arc<Bundle> {
    let text: String = roots.iter().map(|r| r.pem()).collect();
    Arc::new(Bundle::from_pem(trust_domain(name), text.as_bytes()).unwrap())
}

/// Bundles of one root each.
pub fn bundles(domains: &[(&str, &Authority)]) -> Bundles {
    Bundles::new(domains.iter().map(|(name, root)| bundle(name, &[root]))).unwrap()
}
