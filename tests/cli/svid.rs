//! `mayfly svid check`, without a server.

use crate::double::{Ran, program, ran};
use crate::kit::pki::{Authority, Defect, Spec, Svid};

fn check(root: &Authority, svid: &Svid, more: &[&str]) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bundle.pem"), root.pem()).unwrap();
    std::fs::write(folder.path().join("chain.pem"), svid.chain_pem()).unwrap();
    let mut command = program(folder.path());
    command.args(["svid", "check", "--bundle", "bundle.pem", "--trust-domain", "example.org", "chain.pem"]);
    command.args(more);
    ran(&mut command, "")
}

const THEN: &str = "2026-11-20T00:00:00Z";

#[test]
fn a_good_chain_is_accepted_at_its_time_and_no_other() {
    let root = Authority::root("example.org");
    let svid = root.svid("spiffe://example.org/a");
    let json = check(&root, &svid, &["--at", THEN, "-o", "json"]).json();
    assert_eq!((&json["accepted"], &json["id"]), (&true.into(), &"spiffe://example.org/a".into()));
    let later = check(&root, &svid, &["--at", "2026-11-21T00:00:00Z", "-o", "name"]);
    assert_eq!((later.exit, later.stdout.as_str()), (5, "expired\n"), "{later:?}");
    let long = check(&root, &svid, &["--at", THEN, "--max-ttl", "10m"]);
    assert_eq!(long.exit, 5, "{long:?}");
}

#[test]
fn a_refusal_names_the_clause() {
    let root = Authority::root("example.org");
    let svid = root.issue(&Spec::leaf("spiffe://example.org/a").with(Defect::TwoUris));
    let ran = check(&root, &svid, &["--at", THEN]);
    assert_eq!(ran.exit, 5, "{ran:?}");
    assert!(ran.stdout.contains("code      more_than_one_uri_san\n"), "{}", ran.stdout);
    assert!(ran.stdout.contains("(X509-SVID 2)\n"), "{}", ran.stdout);
}

#[test]
fn what_is_no_chain_is_an_error_and_no_verdict() {
    let root = Authority::root("example.org");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bundle.pem"), root.pem()).unwrap();
    std::fs::write(folder.path().join("empty.pem"), "nothing").unwrap();
    for (chain, exit) in [("empty.pem", 1), ("absent.pem", 1)] {
        let mut command = program(folder.path());
        command.args(["svid", "check", "--bundle", "bundle.pem", "--trust-domain", "example.org", chain]);
        let ran = ran(&mut command, "");
        assert_eq!((ran.exit, ran.stdout.as_str()), (exit, ""), "{ran:?}");
        assert!(ran.stderr.contains(chain), "{}", ran.stderr);
    }
    let mut command = program(folder.path());
    command.args(["svid", "check", "--bundle", "bundle.pem", "--trust-domain", "Example.org", "bundle.pem"]);
    assert_eq!(ran(&mut command, "").exit, 2);
}
