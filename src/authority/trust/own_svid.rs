//! The server's own SVID: its source, its expiry, and problems of its renewal.

use std::sync::Arc;

use mayfly_client::tls::CurrentCertificate;
use mayfly_client::tls_identity::TlsIdentity;
use parking_lot::Mutex;

use crate::trust::TrustBundleSource;
use mayfly_identity::anchor::TrustAnchor;
use mayfly_identity::profile;
use mayfly_identity::spiffe_id::{SpiffeId, TrustDomain};
use mayfly_identity::svid::PeerChain;
use mayfly_verify::seq::Millis;

/// The server's own SVID. The source that renews it reports renewals and problems here.
pub struct OwnSvid {
    id: SpiffeId,
    source: TrustBundleSource,
    place: String,
    shown: CurrentCertificate,
    renewing: Mutex<RenewalState>,
}

/// The state of the renewal.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct RenewalState {
    /// The number of renewed certificates since the start.
    pub renewals: u64,
    /// The problem of the source; empty if there is none.
    pub problem: String,
    /// Since when there is a problem.
    pub since: Option<Millis>,
}

impl OwnSvid {
    /// Creates the state for a verified SVID. `place`: the files, or the agent's endpoint.
    pub fn new(id: SpiffeId, source: TrustBundleSource, place: String, shown: CurrentCertificate) -> OwnSvid {
        OwnSvid { id, source, place, shown, renewing: Mutex::default() }
    }

    /// The server's SPIFFE ID.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The server's trust domain.
    pub fn trust_domain(&self) -> TrustDomain {
        self.id.trust_domain_owned()
    }

    /// The source: files, or the Workload API.
    pub fn source(&self) -> TrustBundleSource {
        self.source
    }

    /// The files, or the agent's endpoint.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The state of the renewal.
    pub fn renewing(&self) -> RenewalState {
        self.renewing.lock().clone()
    }

    /// The start and end of the validity of the certificate in use.
    pub fn life(&self) -> Option<(Millis, Millis)> {
        let leaf = TrustAnchor::from_der(self.shown.load().cert.first()?)?;
        Some((leaf.not_before(), leaf.not_after()))
    }

    /// The expiry of the certificate in use.
    pub fn ends(&self) -> Option<Millis> {
        self.life().map(|(_, ends)| ends)
    }

    /// The DNS names of the certificate in use.
    pub fn dns_names(&self) -> Vec<String> {
        profile::dns_names(&PeerChain::new(self.shown.load().cert.clone()))
    }

    /// Replaces the SVID. Open connections keep the one they were made with. Returns whether the SVID is a different one.
    pub fn renew(&self, pair: &TlsIdentity) -> bool {
        let another = self.shown.load().cert != pair.certified_key().cert;
        if another {
            self.shown.store(Arc::clone(pair.certified_key()));
        }
        let mut renewing = self.renewing.lock();
        renewing.renewals += u64::from(another);
        (renewing.problem, renewing.since) = (String::new(), None);
        another
    }

    /// Notes a problem of the source. Returns whether it is new.
    pub fn trouble(&self, problem: &str, now: Millis) -> bool {
        let mut renewing = self.renewing.lock();
        let news = renewing.problem != problem;
        if news {
            problem.clone_into(&mut renewing.problem);
        }
        renewing.since.get_or_insert(now);
        news
    }

    /// Warnings for operators.
    pub fn warnings(&self, now: Millis) -> Vec<String> {
        let Some((begins, ends)) = self.life() else { return Vec::new() };
        let RenewalState { problem, since, .. } = self.renewing();
        let mut warnings = Vec::new();
        if ends <= now {
            warnings.push(format!("the server's SVID ended at {ends}: every caller refuses it"));
        } else if problem.is_empty() && ends.since(now) < ends.since(begins) / 6 {
            warnings.push(format!("the server's SVID ends at {ends} and was not renewed yet; it comes from {}", self.place));
        }
        if !problem.is_empty() {
            let since = since.map_or_else(String::new, |since| format!(" since {since}"));
            warnings.push(format!("the server's SVID is not renewed{since}: {problem}; the one in use ends at {ends}"));
        }
        if self.dns_names().is_empty() {
            warnings.push(format!("the server's SVID has no DNS name: {NO_DNS}"));
        }
        warnings
    }
}

/// The consequence of a certificate without a DNS name, and its remedy.
pub const NO_DNS: &str =
    "many gRPC clients refuse it; add one where it is made (SPIRE: spire-server entry update -dns NAME, or the entry's dnsNames)";
