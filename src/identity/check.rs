//! `mayfly svid check`: whether a chain would be accepted as a caller and, if not, which clause refuses it.

use data_encoding::HEXLOWER;
use serde::Serialize;

use super::anchor::AnchorId;
use super::bundle::{Bundle, Bundles};
use super::profile;
use super::svid::{self, PeerChain, SvidDefect};
use mayfly_verify::seq::Millis;
use std::sync::Arc;

/// The report, for people and for `-o json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SvidReport {
    /// Whether the chain would be accepted as a caller.
    pub accepted: bool,
    /// The defect's stable name; absent where the chain is accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// The clause that refuses the chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clause: Option<&'static str>,
    /// Details about this chain: the values found, or a remedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The leaf's SPIFFE ID, where its profile is valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The leaf's serial number, hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// The leaf's notBefore, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<String>,
    /// The leaf's notAfter, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<String>,
    /// The end of the validity of the whole chain, RFC 3339; only if the chain is accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<String>,
    /// The anchor at which the path ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anchor: Option<AnchorId>,
    /// SHA-256 of the key that signed the leaf, hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuing_key: Option<String>,
    /// The time of the check, RFC 3339.
    pub at: String,
    /// Accepted properties that may cause problems with other software.
    pub warnings: Vec<String>,
}

/// Checks a chain against one bundle at one time, as a server with only that bundle would.
pub fn check(chain: &PeerChain, bundle: &Bundle, at: Millis, max_ttl_ms: u64) -> SvidReport {
    let bundles = Bundles::new([Arc::new(bundle.clone())]).unwrap_or_default();
    let mut report = about(chain, bundle, at);
    match svid::verify(chain, &bundles, at, max_ttl_ms) {
        Ok(verified) => {
            let evidence = verified.evidence();
            report.accepted = true;
            report.valid_until = Some(evidence.not_after.to_string());
            report.anchor = Some(evidence.trust_anchor);
            report.issuing_key = Some(HEXLOWER.encode(&evidence.issuing_key));
        }
        Err(defect) => {
            report.code = Some(defect.code());
            report.clause = Some(defect.clause());
            report.detail = detail(defect, &report, bundle);
        }
    }
    report
}

fn about(chain: &PeerChain, bundle: &Bundle, at: Millis) -> SvidReport {
    let says = profile::check(chain).ok();
    let mut warnings = Vec::new();
    if says.is_some() && !profile::has_dns_name(chain) {
        warnings.push("no DNS name: many gRPC clients refuse it as a server certificate".to_owned());
    }
    for anchor in bundle.x509_authorities() {
        if let Err(defect) = anchor.standing() {
            warnings.push(format!("authority {} vouches for nothing: it {defect}", anchor.id()));
        }
    }
    for authority in bundle.jwt_authorities() {
        if let Err(defect) = authority.key() {
            warnings.push(format!("JWT authority {:?} vouches for nothing: it {defect}", authority.kid()));
        }
    }
    if bundle.ignored_keys() > 0 {
        warnings.push(format!("{} keys of the bundle were passed by: their \"use\" is absent or unknown", bundle.ignored_keys()));
    }
    SvidReport {
        accepted: false,
        code: None,
        clause: None,
        detail: None,
        id: says.as_ref().map(|s| s.id.to_string()),
        serial: says.as_ref().map(|s| HEXLOWER.encode(&s.serial)),
        not_before: says.as_ref().map(|s| s.not_before.to_string()),
        not_after: says.as_ref().map(|s| s.not_after.to_string()),
        valid_until: None,
        anchor: None,
        issuing_key: None,
        at: at.to_string(),
        warnings,
    }
}

fn detail(defect: SvidDefect, report: &SvidReport, bundle: &Bundle) -> Option<String> {
    let text = |found: &Option<String>| found.clone().unwrap_or_default();
    match defect {
        SvidDefect::Id(id) => Some(id.to_string()),
        SvidDefect::NoBundle => Some(format!("the bundle is of {}, the SVID is {}", bundle.trust_domain(), text(&report.id))),
        SvidDefect::Expired => Some(format!("notAfter is {}, checked for {}", text(&report.not_after), report.at)),
        SvidDefect::NotYetValid => Some(format!("notBefore is {}, checked for {}", text(&report.not_before), report.at)),
        SvidDefect::LivesTooLong => Some(format!("notAfter is {}, checked for {}", text(&report.not_after), report.at)),
        SvidDefect::Path(_) if bundle.x509_authorities().is_empty() => Some("the bundle has no X.509 authorities".to_owned()),
        _ => None,
    }
}
