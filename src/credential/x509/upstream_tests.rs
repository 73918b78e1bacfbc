//! Checks the certificates of kind `x509` with other implementations: x509-parser, and a handshake of rustls whose server has the CA and
//! the CRL.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::client::WebPkiServerVerifier;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::client::{SignedClientCertificate, make};
use super::settings::{CertificateRevocation, NameGrant, X509Settings};
use super::*;
use crate::certificates::CaRotation;
use crate::keyring::{Keyring, LoadedKey, generate};
use crate::testing::{NamedValueStore, TestLog, TestSealer};
use mayfly_base::refusal::Error;
use mayfly_base::system::System;
use mayfly_ledger::record::{Author, CredentialIssued, Event, KeyPurpose, KeyState, Record};
use mayfly_verify::seq::{CredentialId, Millis};

const ISSUER: &str = "https://mayfly.example/dev";

struct World {
    ring: Keyring,
    store: NamedValueStore,
    log: TestLog,
}

impl World {
    fn new() -> World {
        let now = System::real().wall();
        World { ring: Keyring::default(), store: NamedValueStore::default(), log: TestLog::new(now) }
    }

    fn ca(&mut self, state: KeyState) -> Arc<LoadedKey> {
        let new = generate(KeyPurpose::UpstreamCa, "dev/upstreams/reports", state, &TestSealer, &System::real()).ok().unwrap();
        let added = new.keep(&self.store).unwrap();
        let id = added.key.clone();
        self.log.put(vec![Record::new(Author::LocalUid(0), Event::KeyAdded(added))]).remove(0).unwrap();
        self.ring.sync(&self.log.state.keys, &self.store, &TestSealer).unwrap();
        self.ring.get(KeyPurpose::UpstreamCa, &id).unwrap()
    }
}

fn settings() -> X509Settings {
    let grant = |scope: &str, common_name: Option<&str>, dns_names: &[&str]| NameGrant {
        scope: scope.to_owned(),
        common_name: common_name.map(str::to_owned),
        organization: common_name.map(|_| "readers".to_owned()),
        dns_names: dns_names.iter().map(|n| (*n).to_owned()).collect(),
    };
    X509Settings {
        revocation: CertificateRevocation::Crl,
        rotation: CaRotation::Manual,
        grants: vec![grant("read", Some("reports_reader"), &[]), grant("serve", None, &["reports.example.org"])],
    }
}

fn issued(key: &KeyPair, scope: &str) -> CredentialIssued {
    let mut asked = CertificateParams::new(vec!["admin.example".to_owned()]).unwrap();
    asked.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let csr = Csr::check(asked.serialize_request(key).unwrap().der()).unwrap();
    let now = System::real().wall().0;
    CredentialIssued {
        upstream: "reports".into(),
        environment: "dev".into(),
        scopes: vec![scope.to_owned()],
        issued_at: now,
        expires_at: now / 1000 * 1000 + 600_000,
        certified_key: csr.spki().to_vec(),
        ..CredentialIssued::default()
    }
}

fn made(ca: &LoadedKey, n: u8, of: &CredentialIssued, settings: &X509Settings) -> SignedClientCertificate {
    make(ca, CredentialId::from_bytes([n; 16]), of, settings, ISSUER).ok().unwrap()
}

#[test]
fn a_certificate_has_the_profile_and_no_name_of_the_request() {
    let ca = World::new().ca(KeyState::Active);
    let key = KeyPair::generate().unwrap();
    let certificate = made(&ca, 0xff, &issued(&key, "read"), &settings());
    let (_, read) = X509Certificate::from_der(&certificate.der).unwrap();
    assert_eq!(read.subject().to_string(), "O=readers, CN=reports_reader");
    assert_eq!(read.issuer().iter_common_name().next().unwrap().as_str().unwrap(), format!("mayfly upstream CA {}", ca.id()));
    assert!(read.raw_serial().ends_with(&[0xff; 16]), "the serial number is the credential's id");
    assert!(read.subject_alternative_name().unwrap().is_none());
    let constraints = read.basic_constraints().unwrap().unwrap();
    assert!(!constraints.value.ca);
    let usage = read.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.digital_signature() && !usage.value.key_cert_sign() && !usage.value.crl_sign());
    let extended = read.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.client_auth && !extended.server_auth && !extended.any);
    assert_eq!(certificate.crl_url, format!("{ISSUER}/upstreams/reports/crl/{}", ca.id()));
    assert!(
        String::from_utf8_lossy(&certificate.der).contains(&certificate.crl_url),
        "the CRL distribution point, byte for byte"
    );
    let parsed = |of: fn(&ParsedExtension<'_>) -> bool| read.extensions().iter().any(|e| of(e.parsed_extension()));
    assert!(parsed(|e| matches!(e, ParsedExtension::SubjectKeyIdentifier(_))));
    assert!(parsed(|e| matches!(e, ParsedExtension::AuthorityKeyIdentifier(_))));
    let server = made(&ca, 2, &issued(&key, "serve"), &settings());
    let (_, read) = X509Certificate::from_der(&server.der).unwrap();
    assert_eq!(
        read.subject().iter_common_name().next().unwrap().as_str().unwrap(),
        CredentialId::from_bytes([2; 16]).to_string()
    );
    assert!(read.extended_key_usage().unwrap().unwrap().value.server_auth);
    let names = read.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names.len(), 1);
}

#[test]
fn a_certificate_has_a_distribution_point_or_no_rev_avail_and_never_both() {
    let ca = World::new().ca(KeyState::Active);
    let key = KeyPair::generate().unwrap();
    let none = X509Settings { revocation: CertificateRevocation::None, ..settings() };
    for (settings, irrevocable) in [(settings(), false), (none, true)] {
        let certificate = made(&ca, 1, &issued(&key, "read"), &settings);
        let (_, read) = X509Certificate::from_der(&certificate.der).unwrap();
        let has = |oid: &str| read.extensions().iter().any(|e| e.oid.to_id_string() == oid);
        assert_eq!((has("2.5.29.56"), has("2.5.29.31")), (irrevocable, !irrevocable));
        assert_eq!(certificate.crl_url.is_empty(), irrevocable);
        // RFC 9608, section 2: not critical.
        assert!(read.extensions().iter().all(|e| e.oid.to_id_string() != "2.5.29.56" || (!e.critical && e.value == [5, 0])));
    }
}

#[test]
fn the_same_record_makes_the_same_certificate_but_for_the_signature_and_another_ca_none() {
    let ca = World::new().ca(KeyState::Active);
    let record = issued(&KeyPair::generate().unwrap(), "read");
    assert_eq!(made(&ca, 1, &record, &settings()).signed_part, made(&ca, 1, &record, &settings()).signed_part);
    assert_ne!(made(&ca, 1, &record, &settings()).signed_part, made(&ca, 2, &record, &settings()).signed_part);
    let elsewhere = CredentialIssued { upstream: "other".into(), ..record };
    let id = CredentialId::from_bytes([1; 16]);
    assert!(matches!(make(&ca, id, &elsewhere, &settings(), ISSUER), Err(Error::Fault(_))));
}

#[test]
fn the_certificate_of_a_ca_is_kept_beside_its_key_and_nobody_can_swap_it() {
    let mut world = World::new();
    let (one, two) = (world.ca(KeyState::Active), world.ca(KeyState::Next));
    let again = Keyring::default();
    again.sync(&world.log.state.keys, &world.store, &TestSealer).unwrap();
    let loaded = again.get(KeyPurpose::UpstreamCa, one.id()).unwrap();
    assert_eq!(loaded.certificate().unwrap(), one.certificate().unwrap());
    let point = one.public().unwrap();
    let other = two.certificate().unwrap().der();
    assert!(CaCertificate::read(other, point).is_err(), "of another key");
    let mut altered = one.certificate().unwrap().der().to_vec();
    *altered.last_mut().unwrap() ^= 1;
    assert!(CaCertificate::read(&altered, point).is_err(), "not signed by its key");
}

/// A handshake in memory; `Err` with what the server or the client said.
fn handshake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Result<(), rustls::Error> {
    let mut client = ClientConnection::new(client, ServerName::try_from("reports.example.org").unwrap()).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        server.read_tls(&mut &*wire).unwrap();
        server.process_new_packets()?;
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        client.read_tls(&mut &*wire).unwrap();
        client.process_new_packets()?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(())
}

fn private(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::try_from(key.serialize_der()).unwrap()
}

#[test]
fn a_rustls_server_takes_a_certificate_until_the_crl_lists_it_also_after_the_ca_was_followed() {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut world = World::new();
    let (old, new) = (world.ca(KeyState::Active), world.ca(KeyState::Next));
    let mut roots = RootCertStore::empty();
    for ca in [&old, &new] {
        roots.add(ca.certificate().unwrap().der().clone()).unwrap();
    }
    let roots = Arc::new(roots);
    let (client_key, server_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let served = made(&old, 9, &issued(&server_key, "serve"), &settings());
    let now = Millis(System::real().wall().0);
    let list = |ca: &LoadedKey, number: u128, ended: &[u8]| {
        let entries: Vec<RevokedCertificate> = ended
            .iter()
            .map(|n| RevokedCertificate { id: CredentialId::from_bytes([*n; 16]), since: now, held: false })
            .collect();
        let url = crl_url(ISSUER, "reports", ca.id());
        CertificateRevocationListDer::from(crl(&UpstreamCa::of(ca).unwrap(), number, &url, &entries, now).unwrap())
    };
    let server = |ended: &[u8]| {
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .with_crls([list(&old, 5, ended), list(&new, 6, ended)])
            .build()
            .unwrap();
        let config = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
        let chain = vec![CertificateDer::from(served.der.clone())];
        Arc::new(config.with_client_cert_verifier(verifier).with_single_cert(chain, private(&server_key)).unwrap())
    };
    let client = |certificate: &SignedClientCertificate| {
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone()).build().unwrap();
        let config = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
        let chain = vec![CertificateDer::from(certificate.der.clone())];
        Arc::new(config.with_webpki_verifier(verifier).with_client_auth_cert(chain, private(&client_key)).unwrap())
    };
    let (before, after) =
        (made(&old, 1, &issued(&client_key, "read"), &settings()), made(&new, 2, &issued(&client_key, "read"), &settings()));
    for certificate in [&before, &after] {
        handshake(client(certificate), server(&[])).unwrap();
    }
    let revoked = rustls::Error::InvalidCertificate(rustls::CertificateError::Revoked);
    assert_eq!(handshake(client(&before), server(&[1])).unwrap_err(), revoked);
    handshake(client(&after), server(&[1])).unwrap();
    assert_eq!(handshake(client(&after), server(&[1, 2])).unwrap_err(), revoked);
    // A certificate of another upstream's CA is no certificate here.
    let stranger = World::new().ca(KeyState::Active);
    let other = made(&stranger, 3, &issued(&client_key, "read"), &settings());
    assert!(handshake(client(&other), server(&[])).is_err());
}
