//! The shared vectors `spiffe` and `webpki-der`.

use crate::kit::pki::{Authority, Defect, HOUR, NOW, Spec, bundles, trust_domain};
use crate::kit::vectors;
use mayfly::identity::anchor::TrustAnchor;
use mayfly::identity::bundle::{Bundle, BundleDefect, Bundles};
use mayfly::identity::spiffe_id::{SpiffeId, SpiffePrefix, TrustDomain};
use mayfly::identity::svid::{self, PeerChain, PemDefect};
use mayfly::limits::SVID_MAX_TTL_MS;
use mayfly::sources::svid_files::{TlsIdentity, TlsIdentityDefect};
use rustls_pki_types::CertificateDer;
use serde_json::Value;
use std::path::Path;

/// The vectors say `bad_…_char` for every stray character; mayfly's reason names the part of a URI that the character would begin.
fn same_reason(expected: &str, ours: &str) -> bool {
    let finer: &[&str] = match expected {
        "bad_trust_domain_char" => &["userinfo", "port", "ipv6", "query", "fragment", "uppercase_trust_domain"],
        "bad_path_char" => &["query", "fragment"],
        "policy_over_2048_bytes" => &["too_long"],
        "policy_trust_domain_over_255_bytes" => &["trust_domain_too_long"],
        _ => &[],
    };
    expected == ours || finer.contains(&ours)
}

fn array<'a>(of: &'a Value, name: &str) -> &'a [Value] {
    of[name].as_array().unwrap()
}

#[test]
fn all_spiffe_ids() {
    let Some(folder) = vectors::folder("spiffe") else { return };
    let cases = vectors::json(&folder, "spiffe_ids.json");
    let (mut accepted, mut refused) = (0, 0);
    for case in array(&cases, "ids") {
        let input = case["input"].as_str().unwrap();
        match SpiffeId::parse(input) {
            Ok(id) => {
                assert_eq!(case["valid"], true, "{case}");
                assert_eq!((Some(id.trust_domain()), Some(id.path())), (case["trust_domain"].as_str(), case["path"].as_str()));
                accepted += 1;
            }
            Err(defect) => {
                assert_ne!(case["valid"], true, "{case}: {defect}");
                assert!(same_reason(case["reason"].as_str().unwrap(), defect.code()), "{case}: {}", defect.code());
                refused += 1;
            }
        }
    }
    println!("spiffe ids: {accepted} accepted, {refused} refused, 0 exceptions, 0 skipped");
    assert_eq!(accepted + refused, array(&cases, "ids").len());
}

#[test]
fn all_trust_domains_segments_and_matchers() {
    let Some(folder) = vectors::folder("spiffe") else { return };
    let cases = vectors::json(&folder, "spiffe_ids.json");
    for case in array(&cases, "trust_domains") {
        match TrustDomain::from_name_or_id(case["input"].as_str().unwrap()) {
            Ok(domain) => assert_eq!(Some(domain.as_str()), case["name"].as_str(), "{case}"),
            Err(defect) => {
                assert_eq!(case["valid"], false, "{case}: {defect}");
                assert!(same_reason(case["reason"].as_str().unwrap(), defect.code()), "{case}: {}", defect.code());
            }
        }
    }
    for case in array(&cases, "segments") {
        let segments: Vec<&str> = array(case, "segments").iter().map(|s| s.as_str().unwrap()).collect();
        match SpiffeId::from_segments(&trust_domain("example.org"), &segments) {
            Ok(id) => assert_eq!(Some(id.path()), case["path"].as_str(), "{case}"),
            Err(defect) => assert!(same_reason(case["reason"].as_str().unwrap(), defect.code()), "{case}: {defect}"),
        }
    }
    let matchers = &cases["matchers"];
    for case in array(matchers, "cases") {
        let candidates = array(matchers, "candidates").iter();
        let matched: Vec<&Value> = candidates.filter(|c| matches(case, c.as_str().unwrap())).collect();
        assert_eq!(matched, array(case, "matches").iter().collect::<Vec<_>>(), "{case}");
    }
    let count = |name| array(&cases, name).len();
    let all = count("trust_domains") + count("segments") + array(matchers, "cases").len();
    println!("trust domains, segments, matchers: {all} run, 0 exceptions, 0 skipped");
}

/// The matchers of go-spiffe in mayfly's types. Its zero id, the empty text, is not a valid id here: only `any` accepts it.
fn matches(case: &Value, candidate: &str) -> bool {
    let arg = &case["arg"];
    let id = SpiffeId::parse(candidate).ok();
    match case["matcher"].as_str().unwrap() {
        "any" => true,
        "id" => id.is_some_and(|id| arg == id.as_str()),
        "one_of" => id.is_some_and(|id| arg.as_array().unwrap().iter().any(|one| one == id.as_str())),
        "member_of" => {
            let domain = SpiffePrefix::parse(&format!("spiffe://{}", arg.as_str().unwrap())).unwrap();
            id.is_some_and(|id| domain.covers(&id) && arg == id.trust_domain())
        }
        other => panic!("a matcher that is not known here: {other}"),
    }
}

/// One name for a refusal while reading a pair or its profile.
fn pair_reason(outcome: &Result<TlsIdentity, TlsIdentityDefect>) -> &'static str {
    match outcome {
        Ok(pair) => pair.spiffe_id().map_or_else(|defect| defect.code(), |_| "accepted"),
        Err(TlsIdentityDefect::Certificates(PemDefect::NotPem)) => "cert_not_pem",
        Err(TlsIdentityDefect::Certificates(PemDefect::NoCertificate)) => "no_certificate",
        Err(TlsIdentityDefect::Certificates(PemDefect::BadSection) | TlsIdentityDefect::CertificateMalformed) => "cert_asn1",
        Err(TlsIdentityDefect::ChainTooLong) => "chain_too_long",
        Err(TlsIdentityDefect::KeyNotPem) => "key_not_pem",
        Err(TlsIdentityDefect::NoKey) => "no_key",
        Err(TlsIdentityDefect::KeyMalformed) => "key_asn1",
        Err(TlsIdentityDefect::KeyMismatch) => "key_mismatch",
    }
}

#[test]
fn all_x509_svid_files() {
    let Some(folder) = vectors::folder("spiffe") else { return };
    let verdicts = vectors::json(&folder, "verdicts.json");
    let read = |name: &Value| std::fs::read(folder.join(name.as_str().unwrap())).unwrap();
    for case in array(&verdicts, "x509svid_parse") {
        let outcome = TlsIdentity::from_pem(&read(&case["certs"]), &read(&case["key"]));
        assert_eq!(pair_reason(&outcome), case["reason"].as_str().unwrap_or("accepted"), "{case}");
        if case["valid"] == true {
            let pair = outcome.unwrap();
            assert_eq!(Some(pair.spiffe_id().unwrap().as_str()), case["spiffe_id"].as_str());
            assert_eq!(pair.chain().certificates().len() as u64, case["certs_count"]);
        }
    }
    println!("x509svid_parse: {} run, 0 exceptions, 0 skipped", array(&verdicts, "x509svid_parse").len());
}

/// Builds the case and returns the name of the verdict.
fn verdict(case: &str) -> &'static str {
    let root = Authority::root("example.org");
    let ours = bundles(&[("example.org", &root)]);
    let id = "spiffe://example.org/a";
    let spoilt = |defect| root.issue(&Spec::leaf(id).with(defect)).chain;
    let mut at = NOW;
    let good = root.svid(id).chain;
    let (chain, bundles) = match case {
        "empty chain" => (PeerChain::new(vec![]), ours),
        "empty bundle set (no bundle for the trust domain)" => (good, Bundles::default()),
        "bundle for the trust domain has no roots" => (good, no_roots()),
        "only another trust domain has a bundle" => (good, bundles(&[("partner.test", &root)])),
        "URI SAN with scheme sparfe" => (spoilt(Defect::Scheme), ours),
        "bundle of the right trust domain holds only another CA" => {
            (good, bundles(&[("example.org", &Authority::root("other.test"))]))
        }
        "no URI SAN" => (spoilt(Defect::NoUri), ours),
        "two URI SANs" => (spoilt(Defect::TwoUris), ours),
        "leaf cA true" => (spoilt(Defect::Ca), ours),
        "leaf keyCertSign" => (spoilt(Defect::KeyCertSign), ours),
        "leaf cRLSign" => (spoilt(Defect::CrlSign), ours),
        "time one second after notAfter" => {
            at = NOW.plus(HOUR + 1000);
            (good, ours)
        }
        "first DER byte of the leaf changed" => {
            let mut bytes = good.certificates()[0].to_vec();
            bytes[0] ^= 1;
            (PeerChain::new(vec![CertificateDer::from(bytes)]), ours)
        }
        "leaf under the root of its trust domain" => (good, ours),
        "leaf SPIFFE ID without a path" => (spoilt(Defect::RootPath), ours),
        "signing certificate whose SPIFFE ID has a path" => {
            let middle = root.intermediate(&Spec::ca("example.org", "middle").with(Defect::IdWithPath));
            (middle.svid(id).chain, ours)
        }
        "key usage extension absent" => (spoilt(Defect::NoKeyUsage), ours),
        "key usage present but not critical" => (spoilt(Defect::KeyUsageNotCritical), ours),
        "EKU present without both serverAuth and clientAuth" => (spoilt(Defect::OnlyClientAuth), ours),
        "DNS SANs beside the one URI SAN" => (root.issue(&Spec::leaf(id).and_dns("a.example.org")).chain, ours),
        "URI SAN not critical though Subject is empty" => (spoilt(Defect::EmptySubject), ours),
        other => panic!("a case that is not built here: {other}"),
    };
    svid::verify(&chain, &bundles, at, SVID_MAX_TTL_MS).map_or_else(|defect| defect.code(), |_| "accepted")
}

fn no_roots() -> Bundles {
    Bundles::new([std::sync::Arc::new(Bundle::from_pem(trust_domain("example.org"), b"").unwrap())]).unwrap()
}

#[test]
fn all_x509_svid_verifications() {
    let Some(folder) = vectors::folder("spiffe") else { return };
    let verdicts = vectors::json(&folder, "verdicts.json");
    for case in array(&verdicts, "x509svid_verify") {
        // For vectors that give a sentence of the standard instead of a name. "reject or warn": mayfly rejects.
        let expected = match case["reason"].as_str() {
            None => "accepted",
            Some("leaf ID must have a non-root path (X509-SVID 3.1, 5.2)") => "id_without_path",
            Some("signing cert ID must not have a path (3.2)") => "signer_id_has_path",
            Some("key usage MUST be set (4.3)") => "key_usage_absent",
            Some("MUST be critical (4.3)") => "key_usage_not_critical",
            Some("4.4") => "extended_key_usage",
            Some("2") => "accepted",
            Some("3.1 / RFC5280 4.1.2.6") => "san_not_critical",
            Some(name) => name,
        };
        assert_eq!(case["verdict"] == "accept", expected == "accepted", "{case}");
        assert_eq!(verdict(case["case"].as_str().unwrap()), expected, "{case}");
    }
    println!("x509svid_verify: {} run, 0 exceptions, 0 skipped", array(&verdicts, "x509svid_verify").len());
}

fn bundle_reason(outcome: &Result<Bundle, BundleDefect>) -> &'static str {
    match outcome {
        Ok(_) => "accepted",
        Err(BundleDefect::JwtWithoutKid(_)) => "jwt_svid_entry_without_kid",
        Err(BundleDefect::NoKeysMember) => "no_keys_member",
        Err(BundleDefect::X5cNotOne(_)) => "x5c_with_two_certs",
        Err(BundleDefect::NotPem) => "not_pem",
        Err(BundleDefect::Certificate(_)) => "cert_asn1",
        Err(_) => "another",
    }
}

#[test]
fn all_bundles() {
    let Some(folder) = vectors::folder("spiffe") else { return };
    let verdicts = vectors::json(&folder, "verdicts.json");
    let mut run = 0;
    for case in array(&verdicts, "bundles") {
        let file = case["file"].as_str().unwrap();
        // Plain JWK sets without `use`, as the Workload API returns them for JWT-SVIDs.
        let read = if file.starts_with("jwtbundle/") { Bundle::from_jwt_bundle } else { Bundle::parse };
        let outcome = read(trust_domain("example.org"), &std::fs::read(folder.join(file)).unwrap());
        assert_eq!(bundle_reason(&outcome), case["reason"].as_str().unwrap_or("accepted"), "{case}");
        if let Ok(bundle) = outcome {
            assert!(bundle.jwt_authorities().iter().all(|a| a.key().is_ok()), "{case}");
            let counted = |name: &str, ours: u64| assert!(case.get(name).is_none_or(|n| *n == ours), "{case}: {name} is {ours}");
            counted("jwt_keys", bundle.jwt_authorities().len() as u64);
            counted("wit_keys", bundle.ignored_keys() as u64);
            counted("x509_authorities", bundle.x509_authorities().len() as u64);
            counted("refresh_hint_s", bundle.refresh_hint_s().unwrap_or(0));
            counted("sequence", bundle.sequence().unwrap_or(0));
        }
        run += 1;
    }
    assert_eq!(run, 14);
    println!("bundles: {run} run, 0 exceptions, 0 skipped");
}

#[test]
fn all_small_der_files_are_read_without_panic() {
    let Some(folder) = vectors::folder("webpki-der") else { return };
    let root = Authority::root("example.org");
    let (good, ours) = (root.svid("spiffe://example.org/a").chain, bundles(&[("example.org", &root)]));
    let mut read = 0;
    for_each_file(&folder, &mut |path| {
        let der = CertificateDer::from(std::fs::read(path).unwrap());
        let anchors = TrustAnchor::from_der(&der).is_some();
        let leaf = svid::verify(&PeerChain::new(vec![der.clone()]), &ours, NOW, SVID_MAX_TTL_MS);
        assert!(leaf.is_err(), "{}", path.display());
        let sent_along = PeerChain::new(vec![good.certificates()[0].clone(), der]);
        let above = svid::verify(&sent_along, &ours, NOW, SVID_MAX_TTL_MS);
        // Something that is not a certificate is not ignored when it is sent in a chain.
        assert!(anchors || above.is_err(), "{}", path.display());
        read += 1;
    });
    println!("webpki-der: {read} files, 0 exceptions, 0 skipped");
    assert!(read >= 100);
}

fn for_each_file(folder: &Path, each: &mut dyn FnMut(&Path)) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.extension().and_then(|e| e.to_str()) {
            _ if path.is_dir() => for_each_file(&path, each),
            Some("der" | "crl" | "cer" | "crt") => each(&path),
            _ => {}
        }
    }
}
