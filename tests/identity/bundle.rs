//! standards.md, "Trust bundle", without federation endpoints.

use crate::kit::pki::{Authority, NOW, bundle, bundles, trust_domain};
use data_encoding::BASE64;
use mayfly::identity::anchor::AnchorId;
use mayfly::identity::bundle::{Bundle, BundleDefect, Bundles, SuccessorDefect, check_successor, diff, sequence_may_follow};
use mayfly::identity::path::PathDefect;
use mayfly::identity::svid::{self, SvidDefect};
use mayfly::limits;

fn parse(document: &str) -> Result<Bundle, BundleDefect> {
    Bundle::parse(trust_domain("example.org"), document.as_bytes())
}

fn x509_key(root: &Authority) -> String {
    format!(r#"{{"use":"x509-svid","kty":"EC","x5c":["{}"]}}"#, BASE64.encode(&root.certificate))
}

fn keys(keys: &[&str]) -> String {
    format!(r#"{{"keys":[{}]}}"#, keys.join(","))
}

fn with_sequence(sequence: Option<u64>) -> Bundle {
    let sequence = sequence.map(|n| format!(r#","spiffe_sequence":{n}"#)).unwrap_or_default();
    parse(&format!(r#"{{"keys":[]{sequence}}}"#)).unwrap()
}

#[test]
fn pem_and_jwks_of_one_root_give_the_same_authority() {
    let root = Authority::root("example.org");
    let (pem, jwks) = (parse(&root.pem()).unwrap(), parse(&keys(&[&x509_key(&root)])).unwrap());
    assert_eq!(pem.x509_authorities(), jwks.x509_authorities());
    assert_eq!((pem.sequence(), pem.x509_authorities().len()), (None, 1));
}

#[test]
fn an_x509_svid_key_has_no_kid_and_one_certificate() {
    let root = Authority::root("example.org");
    let key = x509_key(&root);
    assert_eq!(parse(&keys(&[&key.replacen('{', r#"{"kid":"a","#, 1)])), Err(BundleDefect::X509WithKid(0)));
    assert_eq!(parse(&keys(&[r#"{"use":"x509-svid","kty":"EC"}"#])), Err(BundleDefect::X5cNotOne(0)));
    assert_eq!(parse(&keys(&[r#"{"use":"x509-svid","kty":"EC","x5c":[]}"#])), Err(BundleDefect::X5cNotOne(0)));
    let two = key.replace(r#""]}"#, &format!(r#"","{}"]}}"#, BASE64.encode(&root.certificate)));
    assert_eq!(parse(&keys(&[&two])), Err(BundleDefect::X5cNotOne(0)));
    assert_eq!(parse(&keys(&[r#"{"use":"x509-svid","kty":"EC","x5c":["AAAA"]}"#])), Err(BundleDefect::Certificate(0)));
}

#[test]
fn a_jwt_svid_key_has_a_kid_and_no_two_have_the_same() {
    let key = r#"{"use":"jwt-svid","kty":"EC","kid":"a","crv":"P-256","x":"","y":""}"#;
    assert_eq!(parse(&keys(&[key])).unwrap().jwt_authorities()[0].kid(), "a");
    assert_eq!(parse(&keys(&[r#"{"use":"jwt-svid","kty":"EC"}"#])), Err(BundleDefect::JwtWithoutKid(0)));
    assert_eq!(parse(&keys(&[r#"{"use":"jwt-svid","kty":"EC","kid":""}"#])), Err(BundleDefect::JwtWithoutKid(0)));
    assert_eq!(parse(&keys(&[key, key])), Err(BundleDefect::KidTwice(1)));
}

#[test]
fn a_key_of_another_use_is_passed_by_and_counted() {
    let bundle = parse(&keys(&[r#"{"use":"wit-svid","kty":"EC","kid":"a"}"#, r#"{"kty":"EC"}"#])).unwrap();
    assert_eq!((bundle.ignored_keys(), bundle.x509_authorities().len(), bundle.jwt_authorities().len()), (2, 0, 0));
    assert_eq!(parse(&keys(&[r#"{"use":"x509-svid"}"#])), Err(BundleDefect::NotAKey(0)));
    assert_eq!(parse(&keys(&["3"])), Err(BundleDefect::NotAKey(0)));
}

#[test]
fn an_empty_keys_makes_every_svid_of_that_domain_invalid() {
    let root = Authority::root("example.org");
    let empty = std::sync::Arc::new(parse(r#"{"keys":[]}"#).unwrap());
    let other = bundles(&[("partner.test", &root)]);
    let bundles = other.with(empty).unwrap();
    let verdict = svid::verify(&root.svid("spiffe://example.org/a").chain, &bundles, NOW, limits::SVID_MAX_TTL_MS);
    assert_eq!(verdict, Err(SvidDefect::Path(PathDefect::UnknownAuthority)));
}

#[test]
fn keys_is_there_and_is_an_array() {
    for document in ["{}", r#"{"keys":null}"#, r#"{"keys":{}}"#] {
        assert_eq!(parse(document), Err(BundleDefect::NoKeysMember), "{document}");
    }
}

#[test]
fn duplicate_json_keys_are_refused_at_any_depth() {
    for document in [
        r#"{"keys":[],"keys":[]}"#,
        r#"{"keys":[],"spiffe_sequence":2,"spiffe_sequence":1}"#,
        r#"{"keys":[{"use":"x509-svid","use":"other","kty":"EC"}]}"#,
        r#"{"keys":[],"x":{"a":{"b":1,"b":2}}}"#,
        r#"{"keys":[],"\u006beys":[]}"#,
    ] {
        assert!(matches!(parse(document), Err(BundleDefect::NotJson(why)) if why.contains("twice")), "{document}");
    }
    assert!(matches!(parse(r#"{"keys":[]} {}"#), Err(BundleDefect::NotJson(_))));
    assert!(matches!(parse(&format!(r#"{{"keys":{}1{}}}"#, "[".repeat(5000), "]".repeat(5000))), Err(BundleDefect::NotJson(_))));
}

#[test]
fn sequence_and_refresh_hint_are_whole_numbers() {
    let bundle = parse(r#"{"keys":[],"spiffe_sequence":7,"spiffe_refresh_hint":60}"#).unwrap();
    assert_eq!((bundle.sequence(), bundle.refresh_hint_s()), (Some(7), Some(60)));
    for bad in ["-1", "1.5", "\"7\"", "null", "1e3", "18446744073709551616"] {
        assert!(matches!(parse(&format!(r#"{{"keys":[],"spiffe_sequence":{bad}}}"#)), Err(BundleDefect::Member(_))), "{bad}");
    }
}

#[test]
fn spiffe_sequence_never_goes_down() {
    let (five, six) = (with_sequence(Some(5)), with_sequence(Some(6)));
    assert_eq!(check_successor(&five, &six), Ok(()));
    assert_eq!(check_successor(&five, &five), Ok(()));
    assert_eq!(check_successor(&six, &five), Err(SuccessorDefect::SequenceWentDown { seen: 6, new: 5 }));
}

#[test]
fn spiffe_sequence_once_seen_never_goes_missing() {
    let (none, five) = (with_sequence(None), with_sequence(Some(5)));
    assert_eq!(check_successor(&five, &none), Err(SuccessorDefect::SequenceMissing { seen: 5 }));
    assert_eq!(check_successor(&none, &five), Ok(()));
    assert_eq!(sequence_may_follow(None, None), Ok(()));
    let root = Authority::root("example.org");
    assert!(check_successor(&five, &parse(&root.pem()).unwrap()).is_err(), "PEM has no sequence");
}

#[test]
fn a_bundle_takes_the_place_of_its_own_domains_only() {
    let root = Authority::root("example.org");
    let (a, b) = (bundle("example.org", &[&root]), bundle("partner.test", &[&root]));
    assert_eq!(check_successor(&a, &b), Err(SuccessorDefect::OtherTrustDomain));
}

#[test]
fn a_diff_names_the_anchors_that_come_and_go() {
    let (one, two, three) = (Authority::root("example.org"), Authority::root("example.org"), Authority::root("example.org"));
    let (old, new) = (bundle("example.org", &[&one, &two]), bundle("example.org", &[&two, &three]));
    let id = |at: usize, bundle: &Bundle| bundle.x509_authorities()[at].id();
    let change = diff(Some(&old), Some(&new));
    assert_eq!((change.added, change.removed), (vec![id(1, &new)], vec![id(0, &old)]));
    assert_eq!(diff(Some(&old), None).removed.len(), 2);
    assert_eq!(diff(None, Some(&new)).added.len(), 2);
}

#[test]
fn removing_a_root_ends_what_it_vouched_for() {
    let (one, two) = (Authority::root("example.org"), Authority::root("example.org"));
    let before = Bundles::new([bundle("example.org", &[&one, &two])]).unwrap();
    let after = before.with(bundle("example.org", &[&two])).unwrap();
    let by = |root: &Authority| {
        svid::verify(&root.svid("spiffe://example.org/a").chain, &before, NOW, limits::SVID_MAX_TTL_MS).unwrap()
    };
    let (first, second) = (by(&one), by(&two));
    assert!(before.still_vouch_for(first.evidence()) && before.still_vouch_for(second.evidence()));
    assert!(!after.still_vouch_for(first.evidence()));
    assert!(after.still_vouch_for(second.evidence()));
    assert!(!before.without("example.org").still_vouch_for(second.evidence()));
}

#[test]
fn bundles_are_bounded() {
    let root = Authority::root("example.org");
    assert_eq!(parse(&" ".repeat(limits::BUNDLE_BYTES + 1)), Err(BundleDefect::TooLarge));
    let many = root.pem().repeat(limits::BUNDLE_AUTHORITIES + 1);
    assert_eq!(parse(&many), Err(BundleDefect::TooManyAuthorities));
    let many = vec![r#"{"kty":"EC"}"#; limits::BUNDLE_AUTHORITIES + 1];
    assert_eq!(parse(&keys(&many)), Err(BundleDefect::TooManyAuthorities));
    let domain = |n: usize| bundle(&format!("d{n}.test"), &[]);
    assert!(Bundles::new((0..limits::TRUST_DOMAINS).map(domain)).is_some());
    assert!(Bundles::new((0..=limits::TRUST_DOMAINS).map(domain)).is_none());
}

#[test]
fn an_anchor_is_named_by_the_digest_of_its_certificate() {
    let root = Authority::root("example.org");
    let id = bundle("example.org", &[&root]).x509_authorities()[0].id();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &root.certificate);
    assert_eq!(id.as_bytes(), digest.as_ref());
    assert_eq!(id.to_string().parse::<AnchorId>(), Ok(id));
    assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{id}\""));
    assert_eq!(postcard::from_bytes::<AnchorId>(&postcard::to_stdvec(&id).unwrap()).unwrap(), id);
}
