//! Trust domains and their roots.

use bytes::Bytes;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::timestamp;
use mayfly_authority::source_health::SourceState;
use mayfly_authority::trust::own_svid::OwnSvid;
use mayfly_authority::trust::{TrustBundleSource, bundle_of};
use mayfly_base::refusal::{Fault, Refusal};
use mayfly_identity::anchor::TrustAnchor;
use mayfly_identity::bundle::Bundle;
use mayfly_identity::spiffe_id::TrustDomain;
use mayfly_ledger::state::BundleState;
use mayfly_proto::mayfly::v1 as pb;

/// A trust anchor. The caller sets `vouches_for`.
pub fn anchor_to_pb(anchor: &TrustAnchor) -> pb::TrustAnchor {
    let subject = X509Certificate::from_der(anchor.der()).map(|(_, cert)| cert.subject().to_string());
    pb::TrustAnchor {
        sha256: Bytes::copy_from_slice(anchor.id().as_bytes()),
        certificate: Bytes::copy_from_slice(anchor.der()),
        subject: subject.unwrap_or_default(),
        not_after: Some(timestamp(anchor.not_after())),
        vouches_for: None,
    }
}

/// The server's own SVID.
pub fn own_svid_to_pb(own: &OwnSvid) -> pb::IdentityStatus {
    let (renewing, life) = (own.renewing(), own.life());
    pb::IdentityStatus {
        spiffe_id: own.id().to_string(),
        source: own.source().as_str().to_owned(),
        place: own.place().to_owned(),
        not_before: life.map(|(begins, _)| timestamp(begins)),
        not_after: life.map(|(_, ends)| timestamp(ends)),
        dns_names: own.dns_names(),
        renewals: renewing.renewals,
        problem: renewing.problem,
        problem_since: renewing.since.map(timestamp),
    }
}

/// A file or service that the server reads again while it runs.
pub fn read_source_to_pb(source: SourceState) -> pb::SourceStatus {
    pb::SourceStatus {
        kind: source.kind.as_str().to_owned(),
        name: source.name,
        place: source.place,
        problem: source.problem,
        problem_since: source.since.map(timestamp),
    }
}

/// The present state of a trust domain. Of removed roots only the name is known.
pub fn trust_domain_to_pb(name: &str, state: &BundleState) -> Result<pb::TrustDomain, Fault> {
    let anchors = match state.removed {
        true => Vec::new(),
        false => {
            let domain = TrustDomain::parse(name).map_err(|e| Fault::new(format!("trust domain {name:?}: {e}")))?;
            bundle_of(&domain, state)?.x509_authorities().iter().map(anchor_to_pb).collect()
        }
    };
    let kept_out = state.kept_out.iter();
    Ok(pb::TrustDomain {
        trust_domain: name.to_owned(),
        source: source_to_pb(&state.source).into(),
        sequence: state.sequence,
        trust_anchors: anchors,
        removed_trust_anchors: kept_out
            .map(|id| pb::TrustAnchor { sha256: Bytes::copy_from_slice(id), ..pb::TrustAnchor::default() })
            .collect(),
        changed_at: Some(timestamp(state.changed_at)),
        seq: state.seq.as_u64(),
    })
}

fn source_to_pb(text: &str) -> pb::BundleSource {
    match TrustBundleSource::from_text(text) {
        Some(TrustBundleSource::Api) => pb::BundleSource::Api,
        // `Configuration` is a removal: the configuration, and with it the file, no longer names the trust domain.
        Some(TrustBundleSource::File | TrustBundleSource::Configuration) => pb::BundleSource::File,
        Some(TrustBundleSource::WorkloadApi) => pb::BundleSource::WorkloadApi,
        Some(TrustBundleSource::Federation) => pb::BundleSource::Federation,
        Some(TrustBundleSource::Own) => pb::BundleSource::Own,
        None => pb::BundleSource::Unspecified,
    }
}

/// The bundle in a request.
pub fn bundle_from_pb(domain: &TrustDomain, bundle: Option<&pb::Bundle>) -> Result<Bundle, Refusal> {
    use mayfly_proto::mayfly::v1::bundle::Bundle as Given;
    let parsed = match bundle.and_then(|b| b.bundle.as_ref()) {
        None => return Err(Refusal::field("bundle", "is missing: give spiffe_jwks or pem")),
        Some(Given::SpiffeJwks(text)) => Bundle::from_jwks(domain.clone(), text.as_bytes()),
        Some(Given::Pem(text)) => Bundle::from_pem(domain.clone(), text.as_bytes()),
    };
    parsed.map_err(|defect| Refusal::field("bundle", defect))
}
