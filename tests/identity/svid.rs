//! standards.md, "X509-SVID": one defect for each clause, and its refusal.

use crate::kit::der;
use crate::kit::pki::{Authority, Defect, HOUR, NOW, Spec, bundles};
use mayfly::identity::bundle::Bundles;
use mayfly::identity::path::PathDefect;
use mayfly::identity::spiffe_id::IdDefect;
use mayfly::identity::svid::{self, PeerChain, SvidDefect, VerifiedSvid};
use mayfly::limits::SVID_MAX_TTL_MS;

pub const ID: &str = "spiffe://example.org/a";

pub fn verify(chain: &PeerChain, bundles: &Bundles) -> Result<VerifiedSvid, SvidDefect> {
    svid::verify(chain, bundles, NOW, SVID_MAX_TTL_MS)
}

/// A leaf with one defect, under a valid root.
pub fn leaf_with(defect: Defect) -> SvidDefect {
    let root = Authority::root("example.org");
    verify(&root.issue(&Spec::leaf(ID).with(defect)).chain, &bundles(&[("example.org", &root)])).unwrap_err()
}

/// A valid leaf, under an intermediate with one defect, under a valid root.
pub fn intermediate_with(defect: Defect) -> SvidDefect {
    let root = Authority::root("example.org");
    let middle = root.intermediate(&Spec::ca("example.org", "middle").with(defect));
    verify(&middle.svid(ID).chain, &bundles(&[("example.org", &root)])).unwrap_err()
}

/// A valid leaf, under a root with one defect.
fn root_with(defect: Defect) -> SvidDefect {
    let root = Authority::root_from(&Spec::ca("example.org", "root").with(defect));
    verify(&root.svid(ID).chain, &bundles(&[("example.org", &root)])).unwrap_err()
}

#[test]
fn a_good_svid_is_accepted_with_what_it_rests_on() {
    let root = Authority::root("example.org");
    let svid = root.svid(ID);
    let bundles = bundles(&[("example.org", &root)]);
    let verified = verify(&svid.chain, &bundles).unwrap();
    let anchor = &bundles.get("example.org").unwrap().x509_authorities()[0];
    assert_eq!(verified.id().as_str(), ID);
    assert_eq!(verified.evidence().trust_domain.as_str(), "example.org");
    assert_eq!(verified.evidence().trust_anchor, anchor.id());
    assert_eq!(&verified.evidence().issuing_key, anchor.key());
    assert_eq!(verified.evidence().serial, [0x5a, 1, 2, 3]);
    assert_eq!((verified.evidence().not_before, verified.evidence().not_after), (NOW.minus(60_000), NOW.plus(HOUR)));
}

#[test]
fn the_issuing_key_is_that_of_the_certificate_that_signed_the_leaf() {
    let root = Authority::root("example.org");
    let top = root.intermediate(&Spec::ca("example.org", "top"));
    let low = top.intermediate(&Spec::ca("example.org", "low"));
    let bundles = bundles(&[("example.org", &root)]);
    let verified = verify(&low.svid(ID).chain, &bundles).unwrap();
    let spki = |a: &Authority| {
        let der = rcgen::PublicKeyData::subject_public_key_info(&a.key);
        <[u8; 32]>::try_from(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der).as_ref()).unwrap()
    };
    assert_eq!(verified.evidence().issuing_key, spki(&low));
    assert_ne!(verified.evidence().issuing_key, spki(&top));
    assert_eq!(verified.evidence().trust_anchor, bundles.get("example.org").unwrap().x509_authorities()[0].id());
}

#[test]
fn a_serial_with_a_high_bit_is_recorded_without_the_byte_of_its_sign() {
    let root = Authority::root("example.org");
    let mut spec = Spec::leaf(ID);
    spec.serial = vec![0xff; 20];
    let verified = verify(&root.issue(&spec).chain, &bundles(&[("example.org", &root)])).unwrap();
    assert_eq!(verified.evidence().serial, [0xff; 20]);
}

#[test]
fn the_evidence_ends_with_the_first_certificate_on_its_path_that_does() {
    let root = Authority::root("example.org");
    let middle = root.intermediate(&Spec::ca("example.org", "middle").valid(NOW.minus(HOUR), NOW.plus(1000)));
    let verified = verify(&middle.svid(ID).chain, &bundles(&[("example.org", &root)])).unwrap();
    assert_eq!(verified.evidence().not_after, NOW.plus(1000));
}

#[test]
fn exactly_one_uri_san() {
    assert_eq!(leaf_with(Defect::NoUri), SvidDefect::NoUriSan);
    assert_eq!(leaf_with(Defect::TwoUris), SvidDefect::MoreThanOneUriSan);
}

#[test]
fn uri_sans_are_counted_in_the_raw_extension() {
    assert_eq!(leaf_with(Defect::SecondUriNotText), SvidDefect::MoreThanOneUriSan);
    assert_eq!(leaf_with(Defect::OnlyUriNotText), SvidDefect::UriNotText);
}

#[test]
fn a_dns_name_beside_the_uri_is_accepted() {
    let root = Authority::root("example.org");
    let svid = root.issue(&Spec::leaf(ID).and_dns("a.example.org"));
    assert!(verify(&svid.chain, &bundles(&[("example.org", &root)])).is_ok());
}

#[test]
fn the_uri_san_is_a_canonical_spiffe_id() {
    assert_eq!(leaf_with(Defect::Scheme), SvidDefect::Id(IdDefect::WrongScheme));
    assert_eq!(leaf_with(Defect::Uppercase), SvidDefect::Id(IdDefect::UppercaseTrustDomain));
    assert_eq!(leaf_with(Defect::PercentEncoding), SvidDefect::Id(IdDefect::BadPathChar));
}

#[test]
fn the_leafs_id_has_a_non_root_path() {
    assert_eq!(leaf_with(Defect::RootPath), SvidDefect::IdWithoutPath);
}

#[test]
fn a_callers_id_has_at_most_16_segments() {
    assert_eq!(leaf_with(Defect::SeventeenSegments), SvidDefect::TooManySegments);
    let root = Authority::root("example.org");
    let sixteen = root.svid(&format!("spiffe://example.org{}", "/a".repeat(16)));
    assert!(verify(&sixteen.chain, &bundles(&[("example.org", &root)])).is_ok());
}

#[test]
fn key_usage_is_present_and_critical() {
    assert_eq!(leaf_with(Defect::NoKeyUsage), SvidDefect::KeyUsageAbsent);
    assert_eq!(leaf_with(Defect::KeyUsageNotCritical), SvidDefect::KeyUsageNotCritical);
    assert_eq!(intermediate_with(Defect::NoKeyUsage), SvidDefect::KeyUsageAbsent);
    assert_eq!(intermediate_with(Defect::KeyUsageNotCritical), SvidDefect::KeyUsageNotCritical);
}

#[test]
fn the_leaf_has_digital_signature_and_neither_key_cert_sign_nor_crl_sign() {
    assert_eq!(leaf_with(Defect::NoDigitalSignature), SvidDefect::LeafNoDigitalSignature);
    assert_eq!(leaf_with(Defect::KeyCertSign), SvidDefect::LeafKeyCertSign);
    assert_eq!(leaf_with(Defect::CrlSign), SvidDefect::LeafCrlSign);
}

#[test]
fn the_leafs_ca_is_false_and_a_ca_is_never_a_caller() {
    assert_eq!(leaf_with(Defect::Ca), SvidDefect::LeafIsCa);
    let root = Authority::root("example.org");
    let itself = PeerChain::new(vec![root.certificate.clone()]);
    assert_eq!(verify(&itself, &bundles(&[("example.org", &root)])), Err(SvidDefect::IdWithoutPath));
    let with_path = root.intermediate(&Spec::ca("example.org", "x").with(Defect::IdWithPath));
    let chain = PeerChain::new(vec![with_path.certificate.clone()]);
    assert_eq!(verify(&chain, &bundles(&[("example.org", &root)])), Err(SvidDefect::LeafIsCa));
}

#[test]
fn basic_constraints_may_be_absent_in_the_leaf() {
    let root = Authority::root("example.org");
    let mut spec = Spec::leaf(ID);
    spec.ca = rcgen::IsCa::NoCa;
    assert!(verify(&root.issue(&spec).chain, &bundles(&[("example.org", &root)])).is_ok());
}

#[test]
fn basic_constraints_that_cannot_be_read_are_not_taken_for_absent() {
    let root = Authority::root("example.org");
    let mut spec = Spec::leaf(ID);
    spec.ca = rcgen::IsCa::NoCa;
    spec.more.push((vec![2, 5, 29, 19], true, vec![0x30, 0x03, 0x02, 0x01]));
    assert_eq!(verify(&root.issue(&spec).chain, &bundles(&[("example.org", &root)])), Err(SvidDefect::Malformed));
}

#[test]
fn two_extensions_of_one_kind_are_refused() {
    let root = Authority::root("example.org");
    let mut spec = Spec::leaf(ID);
    spec.more.push((vec![2, 5, 29, 17], false, der::sequence(&[der::uri(b"spiffe://example.org/b")])));
    assert_eq!(verify(&root.issue(&spec).chain, &bundles(&[("example.org", &root)])), Err(SvidDefect::Malformed));
}

#[test]
fn extended_key_usage_if_present_has_server_auth_and_client_auth() {
    assert_eq!(leaf_with(Defect::OnlyServerAuth), SvidDefect::ExtendedKeyUsage);
    assert_eq!(leaf_with(Defect::OnlyClientAuth), SvidDefect::ExtendedKeyUsage);
    assert_eq!(leaf_with(Defect::AnyPurpose), SvidDefect::ExtendedKeyUsage);
    let root = Authority::root("example.org");
    let mut none = Spec::leaf(ID);
    none.purposes.clear();
    assert!(verify(&root.issue(&none).chain, &bundles(&[("example.org", &root)])).is_ok());
}

#[test]
fn with_an_empty_subject_the_san_is_critical() {
    assert_eq!(leaf_with(Defect::EmptySubject), SvidDefect::SanNotCritical);
    let root = Authority::root("example.org");
    let mut critical = Spec::leaf(ID).with(Defect::EmptySubject);
    critical.names_critical = true;
    assert!(verify(&root.issue(&critical).chain, &bundles(&[("example.org", &root)])).is_ok());
}

#[test]
fn the_serial_is_positive_and_at_most_20_bytes() {
    assert_eq!(leaf_with(Defect::SerialZero), SvidDefect::Serial);
    assert_eq!(leaf_with(Defect::SerialOf21Bytes), SvidDefect::Serial);
}

#[test]
fn every_critical_extension_is_known() {
    let unknown = SvidDefect::Path(PathDefect::UnknownCriticalExtension);
    assert_eq!(leaf_with(Defect::UnknownCriticalExtension), unknown);
    assert_eq!(intermediate_with(Defect::UnknownCriticalExtension), unknown);
    assert_eq!(root_with(Defect::UnknownCriticalExtension), SvidDefect::Path(PathDefect::UnknownAuthority));
}

#[test]
fn what_signs_is_a_ca_that_may_sign_and_has_no_workloads_id() {
    assert_eq!(intermediate_with(Defect::NotACa), SvidDefect::IntermediateNotCa);
    assert_eq!(intermediate_with(Defect::NoKeyCertSign), SvidDefect::IntermediateNoKeyCertSign);
    assert_eq!(intermediate_with(Defect::IdWithPath), SvidDefect::SignerIdHasPath);
    let nobody = SvidDefect::Path(PathDefect::UnknownAuthority);
    assert_eq!(root_with(Defect::NotACa), nobody);
    assert_eq!(root_with(Defect::NoKeyCertSign), nobody);
    assert_eq!(root_with(Defect::IdWithPath), nobody);
}

#[test]
fn every_defect_has_a_code_and_a_clause_of_its_own() {
    let codes: std::collections::BTreeSet<_> = SvidDefect::ALL.iter().map(|d| d.code()).collect();
    assert_eq!(codes.len(), SvidDefect::ALL.len());
    for defect in SvidDefect::ALL {
        assert!(defect.code().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", defect.code());
        assert!(defect.clause().ends_with(')'), "a clause ends with its place: {}", defect.clause());
    }
}
