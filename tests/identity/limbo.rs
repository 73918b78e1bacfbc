//! x509-limbo against the path step only: no SVID profile, no names; the extended key usage depends on the kind of the case.

use super::limbo_exceptions::EXCEPTIONS;
use crate::kit::vectors;
use mayfly::identity::anchor::TrustAnchor;
use mayfly::identity::path::{self, Purpose, Roots};
use mayfly::seq::Millis;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The limit for one case. 100 CAs of one name took 0.6 s in a debug build, and a busy machine takes longer. No peer can send such a chain:
/// `CHAIN_CERTIFICATES` and `CHAIN_SAME_SUBJECT` are checked before the path step.
const SLOW: Duration = Duration::from_secs(10);

fn certificates(of: &Value) -> Vec<CertificateDer<'static>> {
    let of = of.as_array().map(Vec::as_slice).unwrap_or(std::slice::from_ref(of));
    of.iter().map(|pem| CertificateDer::from_pem_slice(pem.as_str().unwrap().as_bytes()).unwrap()).collect()
}

fn time(case: &Value) -> Millis {
    let Some(text) = case["validation_time"].as_str() else { return crate::kit::pki::NOW };
    let at = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).unwrap();
    Millis((at.unix_timestamp_nanos() / 1_000_000) as u64)
}

fn accepted(case: &Value) -> Result<(), String> {
    let anchors: Option<Vec<TrustAnchor>> =
        certificates(&case["trusted_certs"]).iter().map(|der| TrustAnchor::from_der(der)).collect();
    let roots = Roots::new(&anchors.ok_or("a trusted certificate cannot be read")?);
    let purpose = if case["validation_kind"] == "CLIENT" { Purpose::Client } else { Purpose::Server };
    let leaf = &certificates(&case["peer_certificate"])[0];
    let sent_along = certificates(&case["untrusted_intermediates"]);
    path::build(leaf, &sent_along, &roots, time(case), purpose).map(|_| ()).map_err(|defect| defect.code().to_owned())
}

fn skipped(case: &Value) -> bool {
    let id = case["id"].as_str().unwrap();
    let features = case["features"].as_array().into_iter().flatten();
    ["webpki::cn::", "webpki::san::", "webpki::eku::"].iter().any(|prefix| id.starts_with(prefix))
        || features.filter_map(Value::as_str).any(|feature| feature.starts_with("pedantic-"))
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a measurement of how long a hostile chain holds us up")]
fn all_cases() {
    let Some(folder) = vectors::folder("x509-limbo") else { return };
    let limbo = vectors::json(&folder, "limbo.json");
    let exceptions: BTreeMap<&str, &str> = EXCEPTIONS.iter().copied().collect();
    assert_eq!(exceptions.len(), EXCEPTIONS.len(), "an exception is named once");
    let (mut run, mut skips, mut seen, mut wrong, mut slowest) = (0, 0, BTreeSet::new(), Vec::new(), (Duration::ZERO, ""));
    for case in limbo["testcases"].as_array().unwrap() {
        let id = case["id"].as_str().unwrap();
        if skipped(case) {
            skips += 1;
            continue;
        }
        let began = std::time::Instant::now();
        let ours = accepted(case);
        let took = began.elapsed();
        slowest = slowest.max((took, id));
        assert!(took < SLOW, "{id} took {took:?}");
        run += 1;
        let differs = ours.is_ok() != (case["expected_result"] == "SUCCESS");
        match (differs, exceptions.get(id)) {
            (false, None) => {}
            (true, Some(_)) => drop(seen.insert(id)),
            (true, None) => wrong.push(format!("{id}: expected {}, ours {ours:?}", case["expected_result"])),
            (false, Some(_)) => wrong.push(format!("{id}: is no exception any more")),
        }
    }
    println!("x509-limbo: {run} run, {} exceptions, {skips} skipped; slowest {} in {:?}", seen.len(), slowest.1, slowest.0);
    for (id, reason) in EXCEPTIONS {
        println!("  exception {id}: {reason}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(seen.len(), EXCEPTIONS.len(), "an exception names no case that was run");
}
