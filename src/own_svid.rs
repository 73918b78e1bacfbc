//! What the server shows of itself: its SVID, where that comes from, until when it is good, and what keeps it from being renewed.

use std::sync::Arc;

use mayfly_client::own::OwnPair;
use mayfly_client::tls::OwnCertificate;
use parking_lot::Mutex;

use crate::identity::anchor::TrustAnchor;
use crate::identity::profile;
use crate::identity::spiffe_id::{SpiffeId, TrustDomain};
use crate::identity::svid::PeerChain;
use crate::seq::Millis;
use crate::trust::Source;

/// The server's own SVID. Whoever renews it tells what became of it.
pub struct OwnSvid {
    id: SpiffeId,
    source: Source,
    place: String,
    shown: OwnCertificate,
    renewing: Mutex<Renewing>,
}

/// How the renewing goes.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Renewing {
    /// Other certificates that were put in use since the start.
    pub renewals: u64,
    /// What is wrong with where it comes from. Empty: nothing.
    pub problem: String,
    /// Since when.
    pub since: Option<Millis>,
}

impl OwnSvid {
    /// One that was found to be ours. `place`: the files, or the agent's endpoint.
    pub fn new(id: SpiffeId, source: Source, place: String, shown: OwnCertificate) -> OwnSvid {
        OwnSvid { id, source, place, shown, renewing: Mutex::default() }
    }

    /// Who we are.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Our trust domain.
    pub fn trust_domain(&self) -> TrustDomain {
        self.id.trust_domain_owned()
    }

    /// From files, or from the Workload API.
    pub fn source(&self) -> Source {
        self.source
    }

    /// The files, or the agent's endpoint.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// How the renewing goes.
    pub fn renewing(&self) -> Renewing {
        self.renewing.lock().clone()
    }

    /// When the certificate in use begins and ends.
    pub fn life(&self) -> Option<(Millis, Millis)> {
        let leaf = TrustAnchor::from_der(self.shown.load().cert.first()?)?;
        Some((leaf.not_before(), leaf.not_after()))
    }

    /// When the certificate in use ends.
    pub fn ends(&self) -> Option<Millis> {
        self.life().map(|(_, ends)| ends)
    }

    /// Its DNS names.
    pub fn dns_names(&self) -> Vec<String> {
        profile::dns_names(&PeerChain::new(self.shown.load().cert.clone()))
    }

    /// Shows another one from now on. Connections that are open keep what they were made with. Says whether it is another.
    pub fn renew(&self, pair: &OwnPair) -> bool {
        let another = self.shown.load().cert != pair.certified_key().cert;
        if another {
            self.shown.store(Arc::clone(pair.certified_key()));
        }
        let mut renewing = self.renewing.lock();
        renewing.renewals += u64::from(another);
        (renewing.problem, renewing.since) = (String::new(), None);
        another
    }

    /// Something is wrong with where it comes from. Says whether that is news.
    pub fn trouble(&self, problem: &str, now: Millis) -> bool {
        let mut renewing = self.renewing.lock();
        let news = renewing.problem != problem;
        if news {
            problem.clone_into(&mut renewing.problem);
        }
        renewing.since.get_or_insert(now);
        news
    }

    /// What an operator should know of it.
    pub fn warnings(&self, now: Millis) -> Vec<String> {
        let Some((begins, ends)) = self.life() else { return Vec::new() };
        let Renewing { problem, since, .. } = self.renewing();
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

/// What follows from a certificate without a DNS name, and what mends it.
pub const NO_DNS: &str =
    "many gRPC clients refuse it; add one where it is made (SPIRE: spire-server entry update -dns NAME, or the entry's dnsNames)";
