//! JSON and table forms of trust domains and their bundles.

use serde::Serialize;

use super::revocation::PropagationView;
use super::{HitsView, hex, number_or_dash, or_dash, shown_word, some_seq, time};
use crate::out::{Printable, Row};
use mayfly_proto::mayfly::v1 as pb;

/// A trust domain, as `bundle show` and `bundle list` print it.
#[derive(Serialize, Debug)]
pub struct TrustDomainView {
    pub trust_domain: String,
    pub source: String,
    pub sequence: Option<u64>,
    pub trust_anchors: Vec<TrustAnchorView>,
    pub removed_trust_anchors: Vec<TrustAnchorView>,
    pub changed_at: Option<String>,
    pub seq: u64,
}

/// A root certificate.
#[derive(Serialize, Debug)]
pub struct TrustAnchorView {
    pub sha256: String,
    pub subject: String,
    pub not_after: Option<String>,
    pub vouches_for: HitsView,
}

fn anchors(from: Vec<pb::TrustAnchor>) -> Vec<TrustAnchorView> {
    let one = |a: pb::TrustAnchor| TrustAnchorView {
        sha256: hex(&a.sha256),
        subject: a.subject,
        not_after: time(a.not_after),
        vouches_for: a.vouches_for.into(),
    };
    from.into_iter().map(one).collect()
}

impl From<pb::TrustDomain> for TrustDomainView {
    fn from(d: pb::TrustDomain) -> TrustDomainView {
        TrustDomainView {
            trust_domain: d.trust_domain,
            source: shown_word!(pb::BundleSource, "BUNDLE_SOURCE_", d.source),
            sequence: d.sequence,
            trust_anchors: anchors(d.trust_anchors),
            removed_trust_anchors: anchors(d.removed_trust_anchors),
            changed_at: time(d.changed_at),
            seq: d.seq,
        }
    }
}

/// The roots that a change adds and removes, one line each.
pub fn change(of: &pb::ApprovalBundle) -> String {
    let line = |sign: &str, a: &pb::TrustAnchor| format!("{sign} root {} {}", hex(&a.sha256), a.subject).trim_end().to_owned();
    let added = of.added.iter().map(|a| line("+", a));
    let lines = added.chain(of.removed.iter().map(|a| line("-", a)));
    let domain = std::iter::once(format!("trust domain {}", of.trust_domain));
    domain.chain(lines).collect::<Vec<_>>().join("\n")
}

impl Printable for TrustDomainView {
    fn name(&self) -> String {
        self.trust_domain.clone()
    }
}

impl Row for TrustDomainView {
    const COLUMNS: &'static [&'static str] = &["TRUST DOMAIN", "SOURCE", "ROOTS", "REMOVED", "SEQUENCE", "CHANGED"];
    const WIDE: &'static [&'static str] = &["SEQ"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.trust_domain.clone(),
            self.source.clone(),
            self.trust_anchors.len().to_string(),
            self.removed_trust_anchors.len().to_string(),
            number_or_dash(self.sequence),
            or_dash(self.changed_at.as_deref()),
            self.seq.to_string(),
        ]
    }
}

/// The result of changing a bundle, or of its dry run.
#[derive(Serialize, Debug)]
pub struct BundleChangeView {
    pub name: String,
    pub dry_run: bool,
    pub hits: HitsView,
    pub added: Vec<TrustAnchorView>,
    pub removed: Vec<TrustAnchorView>,
    /// The sequence number of the revocation rule; `None` if nothing was revoked.
    pub seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u64>,
    pub trust_domain: Option<TrustDomainView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub followers: Option<PropagationView>,
}

impl BundleChangeView {
    /// The result for this trust domain, without the roots that were added and removed.
    pub fn of(name: &str, dry_run: bool, seq: u64, hits: Option<pb::Hits>) -> BundleChangeView {
        BundleChangeView {
            name: name.to_owned(),
            dry_run,
            hits: hits.into(),
            added: Vec::new(),
            removed: Vec::new(),
            seq: some_seq(seq),
            connections: None,
            trust_domain: None,
            followers: None,
        }
    }

    /// Adds the roots that were added and removed.
    pub fn with_roots(self, added: Vec<pb::TrustAnchor>, removed: Vec<pb::TrustAnchor>) -> BundleChangeView {
        BundleChangeView { added: anchors(added), removed: anchors(removed), ..self }
    }
}

impl Printable for BundleChangeView {
    fn name(&self) -> String {
        self.name.clone()
    }
}
