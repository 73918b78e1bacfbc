//! Checks mayfly's own CA with other implementations: x509-parser, webpki, and mayfly's SVID verification.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256};
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::{DistributionPointName, GeneralName, ParsedExtension};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::*;
use crate::keyring::{Keyring, LoadedKey, generate};
use crate::testing::{NamedValueStore, TestLog, TestSealer};
use mayfly_base::limits;
use mayfly_base::system::System;
use mayfly_identity::anchor::TrustAnchor;
use mayfly_identity::bundle::{Bundle, Bundles};
use mayfly_identity::bundle_document::BundleDocument;
use mayfly_identity::spiffe_id::{SpiffeId, TrustDomain};
use mayfly_identity::svid::{PeerChain, verify, verify_server};
use mayfly_ledger::record::{Author, Event, KeyPurpose, KeyState, Record};
use mayfly_verify::seq::{CredentialId, Millis};

const NOW: Millis = Millis(1_700_000_000_000);
const URL: &str = "https://mayfly.example/sts/spiffe/crl/k";

fn domain() -> TrustDomain {
    TrustDomain::parse("people.example").unwrap()
}

fn ca_key() -> Arc<LoadedKey> {
    let (mut log, store, ring) = (TestLog::new(NOW), NamedValueStore::default(), Keyring::default());
    let new = generate(KeyPurpose::X509Ca, "", KeyState::Active, &TestSealer, &System::real()).ok().unwrap();
    let added = new.keep(&store).unwrap();
    log.put(vec![Record::new(Author::LocalUid(0), Event::KeyAdded(added))]).remove(0).unwrap();
    ring.sync(&log.state.keys, &store, &TestSealer).unwrap();
    ring.active(KeyPurpose::X509Ca, "").unwrap()
}

fn request(key: &KeyPair) -> Vec<u8> {
    let mut asked = CertificateParams::new(vec!["admin.example".to_owned()]).unwrap();
    asked.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    asked.is_ca = rcgen::IsCa::NoCa;
    asked.serialize_request(key).unwrap().der().to_vec()
}

fn svid(ca: &Ca<'_>, id: [u8; 16], key: &KeyPair) -> SignedCertificate {
    let (csr, name) =
        (Csr::check(&request(key)).unwrap(), "spiffe://people.example/people/corp/ada".parse::<SpiffeId>().unwrap());
    let id = CredentialId::from_bytes(id);
    let leaf = SvidTemplate {
        id,
        key: &csr,
        spiffe_id: &name,
        crl_url: URL,
        issued_at: NOW,
        expires_at: NOW.plus(limits::LOGIN_TTL_MS),
    };
    leaf.sign(ca).unwrap()
}

fn bundles(anchor: &TrustAnchor) -> Bundles {
    let document = BundleDocument { sequence: Some(1), refresh_hint_s: None, anchors: vec![anchor], jwt: vec![] }.to_text();
    Bundles::new([Arc::new(Bundle::from_jwks(domain(), document.as_bytes()).unwrap())]).unwrap()
}

#[test]
fn an_svid_has_the_profile_and_nothing_of_the_request() {
    let own = ca_key();
    let anchor = certificate(&own, &domain(), [7; 16], NOW).unwrap();
    assert!(anchor.standing().is_ok());
    let ca = Ca::new(&own, &anchor).unwrap();
    for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        // The first byte of the id is high, but the serial number must be positive.
        let signed = svid(&ca, [0xff; 16], &key);
        let (_, cert) = X509Certificate::from_der(&signed.der).unwrap();
        assert_eq!(cert.raw_serial(), [&[0][..], &[0xff; 16]].concat(), "16 bytes, above 0");
        assert_eq!(cert.subject().iter().count(), 0);
        assert_eq!(cert.validity().not_before.timestamp() as u64, (NOW.0 - limits::SVID_BACKDATED_MS) / 1000);
        assert_eq!(cert.validity().not_after.timestamp() as u64, (NOW.0 + limits::LOGIN_TTL_MS) / 1000);
        assert_eq!(cert.public_key().raw, Csr::check(&request(&key)).unwrap().spki());
        let san = cert.subject_alternative_name().unwrap().unwrap();
        assert!(san.critical && san.value.general_names.len() == 1, "{san:?}");
        assert!(matches!(san.value.general_names[0], GeneralName::URI("spiffe://people.example/people/corp/ada")));
        assert!(!cert.basic_constraints().unwrap().unwrap().value.ca);
        let usage = cert.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.flags == 1, "digitalSignature alone: {usage:?}");
        let eku = cert.extended_key_usage().unwrap().unwrap().value;
        assert!(eku.server_auth && eku.client_auth && !eku.any && eku.other.is_empty());
        let parsed: Vec<&ParsedExtension<'_>> = cert.extensions().iter().map(|e| e.parsed_extension()).collect();
        let (_, ca_cert) = X509Certificate::from_der(anchor.der()).unwrap();
        let own_ski = ca_cert.extensions().iter().find_map(|e| match e.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(ski) => Some(ski.0.to_vec()),
            _ => None,
        });
        let aki = parsed.iter().find_map(|e| match e {
            ParsedExtension::AuthorityKeyIdentifier(aki) => aki.key_identifier.as_ref().map(|k| k.0.to_vec()),
            _ => None,
        });
        assert!(own_ski.is_some() && aki == own_ski, "{aki:?} is {own_ski:?}");
        assert!(parsed.iter().any(|e| matches!(e, ParsedExtension::SubjectKeyIdentifier(_))));
        let point = parsed.iter().find_map(|e| match e {
            ParsedExtension::CRLDistributionPoints(points) => points.points[0].distribution_point.clone(),
            _ => None,
        });
        assert!(matches!(point, Some(DistributionPointName::FullName(names)) if matches!(names[..], [GeneralName::URI(URL)])));
        assert_eq!(cert.issuer().as_raw(), ca_cert.subject().as_raw());

        let chain = PeerChain::new(vec![signed.der.clone()]);
        let verified = verify(&chain, &bundles(&anchor), NOW, limits::SVID_MAX_TTL_MS).unwrap();
        assert_eq!(verified.evidence().serial, [0xff; 16], "as the fold finds it");
        assert_eq!(verified.evidence().leaf_sha256, signed.sha256);
        assert_eq!(verified.evidence().issuing_key, *anchor.key());
        verify_server(&chain, &bundles(&anchor), NOW).unwrap();
        assert!(verify(&chain, &bundles(&anchor), NOW.plus(limits::LOGIN_TTL_MS + 1000), u64::MAX).is_err());
    }
}

#[test]
fn a_request_counts_by_its_key_and_only_if_that_signed_it() {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let good = request(&key);
    assert_eq!(Csr::check(&good).unwrap().nonce().len(), 43);
    let rsa = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let other = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    // A request whose public key is replaced by another one.
    let mut stolen = good.clone();
    let (mine, theirs) = (key.public_key_raw().to_vec(), other.public_key_raw().to_vec());
    let at = stolen.windows(mine.len()).position(|w| w == mine).unwrap();
    stolen[at..at + mine.len()].copy_from_slice(&theirs);
    let flipped = [&good[..good.len() - 1], &[good[good.len() - 1] ^ 1]].concat();
    for (what, der, defect) in [
        ("another key", stolen, CsrDefect::Signature),
        ("a flipped bit of the signature", flipped, CsrDefect::Signature),
        ("bytes after it", [&good[..], &[0]].concat(), CsrDefect::Malformed),
        ("half of it", good[..good.len() / 2].to_vec(), CsrDefect::Malformed),
        ("nothing", Vec::new(), CsrDefect::Malformed),
        ("RSA", request(&rsa), CsrDefect::Key),
        ("too much", vec![0x30; limits::CSR_BYTES + 1], CsrDefect::TooLong),
    ] {
        assert_eq!(Csr::check(&der).unwrap_err(), defect, "{what}");
    }
}

#[test]
fn a_crl_revokes_for_webpki_what_it_lists_and_says_where_it_lies() {
    let own = ca_key();
    let anchor = certificate(&own, &domain(), [7; 16], NOW).unwrap();
    let ca = Ca::new(&own, &anchor).unwrap();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let (bad, good) = (svid(&ca, [0x81; 16], &key), svid(&ca, [0x12; 16], &key));
    let ended = [RevokedCertificate { id: CredentialId::from_bytes([0x81; 16]), since: NOW, held: false }];
    let number = (u128::from(u64::MAX >> 11) << 40) | 5;
    let der = crl(&ca, number, URL, &ended, NOW).unwrap();
    let (rest, list) = CertificateRevocationList::from_der(&der).unwrap();
    assert!(rest.is_empty());
    assert_eq!(list.tbs_cert_list.version.unwrap().0, 1, "v2");
    assert_eq!(list.crl_number().unwrap().to_string(), number.to_string());
    assert_eq!(list.iter_revoked_certificates().count(), 1);
    assert!(list.next_update().unwrap() > list.last_update());
    let idp = list.extensions().iter().find(|e| e.oid.to_id_string() == "2.5.29.28").unwrap();
    assert!(idp.critical && idp.value.windows(URL.len()).any(|w| w == URL.as_bytes()));
    let ParsedExtension::IssuingDistributionPoint(idp) = idp.parsed_extension() else { panic!("no IDP") };
    assert!(idp.only_contains_user_certs && !idp.only_contains_ca_certs && !idp.indirect_crl);

    let crls = [webpki::CertRevocationList::from(webpki::OwnedCertRevocationList::from_der(&der).unwrap())];
    let crls: Vec<&webpki::CertRevocationList<'_>> = crls.iter().collect();
    let check = |leaf: &CertificateDer<'static>| {
        let options = webpki::RevocationOptionsBuilder::new(&crls).unwrap();
        let options = options.with_status_policy(webpki::UnknownStatusPolicy::Deny).build();
        let roots = [webpki::anchor_from_trusted_cert(anchor.der()).unwrap()];
        let cert = webpki::EndEntityCert::try_from(leaf).unwrap();
        let time = rustls_pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_millis(NOW.0));
        let usage = webpki::KeyUsage::client_auth();
        cert.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &roots, &[], time, usage, Some(options), None).map(|_| ())
    };
    assert_eq!(check(&bad.der).unwrap_err(), webpki::Error::CertRevoked);
    check(&good.der).unwrap();
}
