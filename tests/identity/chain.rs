//! standards.md, "X509-SVID": the chain, its bundle, its times and its limits.

use super::svid::{ID, intermediate_with, leaf_with, verify};
use crate::kit::pki::{Authority, Defect, HOUR, NOW, Spec, bundle, bundles};
use mayfly::identity::bundle::Bundles;
use mayfly::identity::path::PathDefect;
use mayfly::identity::svid::{self, PeerChain, SvidDefect};
use mayfly::limits::SVID_MAX_TTL_MS;
use rustls_pki_types::CertificateDer;

#[test]
fn path_length_and_name_constraints_hold() {
    let root = Authority::root("example.org");
    let top = root.intermediate(&Spec::ca("example.org", "top").with(Defect::PathLengthZero));
    let low = top.intermediate(&Spec::ca("example.org", "low"));
    let bundles = bundles(&[("example.org", &root)]);
    assert!(verify(&top.svid(ID).chain, &bundles).is_ok());
    assert_eq!(verify(&low.svid(ID).chain, &bundles), Err(SvidDefect::Path(PathDefect::PathLength)));
    assert_eq!(intermediate_with(Defect::UriNameConstraint), SvidDefect::Path(PathDefect::NameConstraint));
}

#[test]
fn an_intermediate_limited_to_servers_vouches_for_no_caller() {
    let root = Authority::root("example.org");
    let mut spec = Spec::ca("example.org", "servers");
    spec.purposes = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let chain = root.intermediate(&spec).svid(ID).chain;
    let bundles = bundles(&[("example.org", &root)]);
    assert_eq!(verify(&chain, &bundles), Err(SvidDefect::Path(PathDefect::ExtendedKeyUsage)));
    assert!(svid::verify_server(&chain, &bundles, NOW).is_ok());
}

#[test]
fn the_chain_is_checked_against_the_bundle_of_its_own_trust_domain_and_no_other() {
    let (ours, theirs) = (Authority::root("example.org"), Authority::root("partner.test"));
    let both = bundles(&[("example.org", &ours), ("partner.test", &theirs)]);
    // The partner's CA issues an id of our trust domain. Both roots are trusted here, each for its own domain only.
    let forged = theirs.svid("spiffe://example.org/admin");
    assert_eq!(verify(&forged.chain, &both), Err(SvidDefect::Path(PathDefect::UnknownAuthority)));
    assert!(verify(&theirs.svid("spiffe://partner.test/a").chain, &both).is_ok());
    assert_eq!(verify(&theirs.svid("spiffe://third.test/a").chain, &both), Err(SvidDefect::NoBundle));
}

#[test]
fn a_root_of_the_same_name_with_another_key_vouches_for_nothing() {
    let (ours, twin) = (Authority::root("example.org"), Authority::root("example.org"));
    let no = verify(&twin.svid(ID).chain, &bundles(&[("example.org", &ours)]));
    assert_eq!(no, Err(SvidDefect::Path(PathDefect::UnknownAuthority)));
}

#[test]
fn of_two_roots_with_one_name_the_one_that_signed_is_named() {
    let (old, new) = (Authority::root("example.org"), Authority::root("example.org"));
    let bundle = bundle("example.org", &[&old, &new]);
    let ids: Vec<_> = bundle.x509_authorities().iter().map(|a| a.id()).collect();
    let bundles = Bundles::new([bundle]).unwrap();
    let by = |root: &Authority| verify(&root.svid(ID).chain, &bundles).unwrap().evidence().trust_anchor;
    assert_eq!([by(&old), by(&new)], [ids[0], ids[1]]);
}

#[test]
fn a_root_sent_along_by_the_peer_is_no_anchor() {
    let root = Authority::root("example.org");
    let mut sent = root.svid(ID).chain.certificates().to_vec();
    sent.push(root.certificate.clone());
    let no = verify(&PeerChain::new(sent), &bundles(&[("example.org", &Authority::root("example.org"))]));
    assert_eq!(no, Err(SvidDefect::Path(PathDefect::UnknownAuthority)));
}

#[test]
fn an_expired_or_future_svid_is_refused_to_the_second() {
    let root = Authority::root("example.org");
    let bundles = bundles(&[("example.org", &root)]);
    let chain = root.issue(&Spec::leaf(ID).valid(NOW, NOW.plus(HOUR))).chain;
    let at = |time| svid::verify(&chain, &bundles, time, SVID_MAX_TTL_MS);
    assert_eq!(at(NOW.minus(1)), Err(SvidDefect::NotYetValid));
    assert!(at(NOW).is_ok());
    assert!(at(NOW.plus(HOUR)).is_ok());
    assert_eq!(at(NOW.plus(HOUR + 1000)), Err(SvidDefect::Expired));
}

#[test]
fn an_expired_or_future_authority_vouches_for_nothing() {
    let old = Spec::ca("example.org", "old").valid(NOW.minus(2 * HOUR), NOW.minus(HOUR));
    let future = Spec::ca("example.org", "new").valid(NOW.plus(HOUR), NOW.plus(2 * HOUR));
    let good = Authority::root("example.org");
    for (spec, defect) in [(old, PathDefect::Expired), (future, PathDefect::NotYetValid)] {
        let chain = good.intermediate(&spec).svid(ID).chain;
        assert_eq!(verify(&chain, &bundles(&[("example.org", &good)])), Err(SvidDefect::Path(defect)));
        let root = Authority::root_from(&spec);
        assert_eq!(verify(&root.svid(ID).chain, &bundles(&[("example.org", &root)])), Err(SvidDefect::Path(defect)));
    }
}

#[test]
fn an_svid_with_more_life_left_than_svid_max_ttl_is_refused() {
    let root = Authority::root("example.org");
    let bundles = bundles(&[("example.org", &root)]);
    let chain = root.issue(&Spec::leaf(ID).valid(NOW, NOW.plus(2 * HOUR))).chain;
    assert_eq!(svid::verify(&chain, &bundles, NOW, 2 * HOUR - 1), Err(SvidDefect::LivesTooLong));
    assert!(svid::verify(&chain, &bundles, NOW, 2 * HOUR).is_ok());
    assert!(svid::verify(&chain, &bundles, NOW.plus(1000), 2 * HOUR - 1).is_ok());
}

#[test]
fn what_a_peer_can_send_is_bounded() {
    let root = Authority::root("example.org");
    let bundles = bundles(&[("example.org", &root)]);
    assert_eq!(verify(&PeerChain::new(vec![]), &bundles), Err(SvidDefect::EmptyChain));
    let mut nine = root.svid(ID).chain.certificates().to_vec();
    nine.resize(9, root.certificate.clone());
    assert_eq!(verify(&PeerChain::new(nine), &bundles), Err(SvidDefect::ChainTooLong));
    assert_eq!(leaf_with(Defect::Large), SvidDefect::CertificateTooLarge);
}

#[test]
fn a_changed_byte_anywhere_is_refused_and_never_panics() {
    let root = Authority::root("example.org");
    let bundles = bundles(&[("example.org", &root)]);
    let chain = root.intermediate(&Spec::ca("example.org", "middle")).svid(ID).chain;
    let [leaf, middle] = chain.certificates() else { panic!("a leaf and an intermediate") };
    for at in 0..leaf.len() {
        let mut bytes = leaf.to_vec();
        bytes[at] ^= 1;
        let changed = PeerChain::new(vec![CertificateDer::from(bytes), middle.clone()]);
        assert!(verify(&changed, &bundles).is_err(), "byte {at}");
        let cut = PeerChain::new(vec![CertificateDer::from(leaf[..at].to_vec()), middle.clone()]);
        assert_eq!(verify(&cut, &bundles), Err(SvidDefect::Malformed), "cut at {at}");
    }
}

/// A leaf and `count` CAs above it, all with keys of their own. `name` gives the Subject of each; the Subject of the next one is its
/// issuer.
fn maze(count: usize, name: impl Fn(usize) -> String) -> PeerChain {
    let ca = |at: usize| Spec::ca("example.org", &name(at));
    let made: Vec<_> = (0..count).map(|at| Authority::root_from(&ca(at + 1)).intermediate(&ca(at))).collect();
    let mut chain = vec![made[0].svid(ID).chain.certificates()[0].clone()];
    chain.extend(made.iter().map(|a| a.certificate.clone()));
    PeerChain::new(chain)
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a measurement of how long a hostile chain holds us up")]
fn a_maze_of_cas_with_one_name_is_refused_before_it_is_searched() {
    let root = Authority::root_from(&Spec::ca("example.org", "a"));
    let bundles = bundles(&[("example.org", &root)]);
    let timed = |chain: PeerChain| {
        let began = std::time::Instant::now();
        (verify(&chain, &bundles).unwrap_err(), began.elapsed())
    };
    let (defect, took) = timed(maze(7, |_| "a".into()));
    assert_eq!(defect, SvidDefect::SameSubject);
    println!("seven CAs of one name: refused in {took:?}");
    // The worst case that is left: two names that lead to each other, three CAs of each, and one more.
    let (defect, took) = timed(maze(6, |at| ["a", "b"][at % 2].into()));
    assert_eq!(defect, SvidDefect::Path(PathDefect::UnknownAuthority));
    println!("three CAs each of two names that lead to each other: refused in {took:?}");
    assert!(took < std::time::Duration::from_secs(1), "{took:?}");
}

#[test]
fn three_cas_of_one_name_above_a_leaf_are_accepted_in_any_order() {
    let named = || Spec::ca("example.org", "SPIFFE");
    let root = Authority::root_from(&named());
    let low = root.intermediate(&named()).intermediate(&named()).intermediate(&named());
    let bundles = bundles(&[("example.org", &root)]);
    let chain = low.svid(ID).chain;
    assert!(verify(&chain, &bundles).is_ok());
    let mut turned = chain.certificates().to_vec();
    turned[1..].reverse();
    assert!(verify(&PeerChain::new(turned), &bundles).is_ok());
}
