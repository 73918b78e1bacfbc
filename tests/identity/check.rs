//! `mayfly svid check`.

use crate::kit::pki::{Authority, Defect, HOUR, NOW, Spec, bundle, trust_domain};
use mayfly::identity::bundle::Bundle;
use mayfly::identity::check::check;
use mayfly::limits::SVID_MAX_TTL_MS;

#[test]
fn a_good_chain_is_reported_with_what_it_rests_on() {
    let root = Authority::root("example.org");
    let bundle = bundle("example.org", &[&root]);
    let report = check(&root.svid("spiffe://example.org/a").chain, &bundle, NOW, SVID_MAX_TTL_MS);
    assert!(report.accepted);
    assert_eq!(report.id.as_deref(), Some("spiffe://example.org/a"));
    assert_eq!(report.not_after.as_deref(), Some("2026-11-20T01:00:00Z"));
    assert_eq!(report.anchor, Some(bundle.x509_authorities()[0].id()));
    assert_eq!((report.code, report.clause), (None, None));
    assert!(report.warnings[0].contains("DNS"));
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!((&json["accepted"], &json["serial"]), (&true.into(), &"5a010203".into()));
    assert_eq!(json.get("code"), None);
}

#[test]
fn a_refused_chain_is_reported_with_code_clause_and_detail() {
    let root = Authority::root("example.org");
    let ours = bundle("example.org", &[&root]);
    let two = check(&root.issue(&Spec::leaf("spiffe://example.org/a").with(Defect::TwoUris)).chain, &ours, NOW, SVID_MAX_TTL_MS);
    assert_eq!((two.accepted, two.code), (false, Some("more_than_one_uri_san")));
    assert!(two.clause.unwrap().contains("X509-SVID 2"));
    let good = root.svid("spiffe://example.org/a").chain;
    let late = check(&good, &ours, NOW.plus(2 * HOUR), SVID_MAX_TTL_MS);
    assert_eq!(late.code, Some("expired"));
    assert_eq!(late.detail.as_deref(), Some("notAfter is 2026-11-20T01:00:00Z, checked for 2026-11-20T02:00:00Z"));
    let foreign = check(&good, &bundle("partner.test", &[&root]), NOW, SVID_MAX_TTL_MS);
    assert_eq!(foreign.code, Some("no_bundle"));
    assert!(foreign.detail.unwrap().contains("partner.test"));
    let nobody = check(&good, &bundle("example.org", &[]), NOW, SVID_MAX_TTL_MS);
    assert_eq!((nobody.code, nobody.detail.as_deref()), (Some("unknown_authority"), Some("the bundle has no X.509 authorities")));
}

#[test]
fn an_authority_that_cannot_vouch_is_named_with_the_reason() {
    let root = Authority::root_from(&Spec::ca("example.org", "root").with(Defect::NotACa));
    let report = check(&root.svid("spiffe://example.org/a").chain, &bundle("example.org", &[&root]), NOW, SVID_MAX_TTL_MS);
    assert_eq!(report.code, Some("unknown_authority"));
    assert!(report.warnings.iter().any(|w| w.contains("cA true")), "{:?}", report.warnings);
}

#[test]
fn a_jwt_authority_that_cannot_be_used_is_named_with_the_reason() {
    let root = Authority::root("example.org");
    let jwk = r#"{"use":"jwt-svid","kty":"EC","kid":"old","crv":"P-256","x":"","y":""}"#;
    let ours = Bundle::from_jwks(trust_domain("example.org"), format!(r#"{{"keys":[{jwk}]}}"#).as_bytes()).unwrap();
    let report = check(&root.svid("spiffe://example.org/a").chain, &ours, NOW, SVID_MAX_TTL_MS);
    assert!(report.warnings.iter().any(|w| w.contains("\"old\"") && w.contains("no point")), "{:?}", report.warnings);
}
