//! Which roots vouch for callers: the ledger's word, made from what files and operators say.
//!
//! A change is a record first. Only when that is durable are the bundles in force swapped, by the one observer here, whoever proposed it:
//! a file that changed, or an operator. Connections of a removed root then end. What an operator removed stays out, whatever a file says.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::identity::anchor::AnchorId;
use crate::identity::bundle::{Bundle, Bundles, SuccessorDefect, sequence_may_follow};
use crate::identity::spiffe_id::TrustDomain;
use crate::ledger::record::{BundleSet, Event, Record, Revoked, Who};
use crate::ledger::state::{BundleState, State};
use crate::limits;
use crate::revocation::{Rules, Target};
use crate::seq::{Millis, Seq};

/// `BundleSet.source` of a bundle from a file.
pub const FILE: &str = "file";
/// `BundleSet.source` of the removal of a trust domain that the configuration no longer names.
pub const CONFIGURATION: &str = "configuration";

/// Largest bundle that fits in a record beside its anchors' names, bytes.
const DOCUMENT_BYTES: usize = limits::RECORD_BYTES - 2 * 32 * limits::BUNDLE_AUTHORITIES - 16 * 1024;

/// A change of a trust domain's bundle, decided and not yet recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    set: BundleSet,
    /// Anchors that no longer vouch. What they vouched for is revoked in the same group.
    removed: Vec<[u8; 32]>,
}

/// Why what a file holds is not taken in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotTaken {
    /// An operator put another bundle there, or removed the trust domain.
    #[error("is passed over: an operator set this trust domain's bundle; mayfly bundle show says what is in force")]
    ByOperator,
    /// Its sequence.
    #[error("{0}")]
    Successor(#[from] SuccessorDefect),
    /// Too large for a record.
    #[error("is too large for the ledger: at most {DOCUMENT_BYTES} bytes in its JSON form")]
    TooLarge,
}

/// What a file's bundle changes; `None` where the ledger has it already.
///
/// Roots that an operator removed are left out of it. An operator's own bundle is not replaced by a file.
pub fn of_file(before: Option<&BundleState>, bundle: &Bundle) -> Result<Option<Change>, NotTaken> {
    let kept_out: Vec<[u8; 32]> = before.map(|b| b.kept_out.clone()).unwrap_or_default();
    if before.is_some_and(|b| if b.removed { &*b.source != CONFIGURATION } else { &*b.source != FILE }) {
        return Err(NotTaken::ByOperator);
    }
    let bundle = bundle.without(|id| kept_out.contains(id.as_bytes()));
    let document = bundle.to_document();
    let digest = crate::identity::sha256(document.as_bytes());
    if before.is_some_and(|b| !b.removed && b.digest == digest) {
        return Ok(None);
    }
    sequence_may_follow(before.and_then(|b| b.sequence), bundle.sequence())?;
    if document.len() > DOCUMENT_BYTES {
        return Err(NotTaken::TooLarge);
    }
    let anchors = anchors(&bundle);
    let removed = before.filter(|b| !b.removed).map(|b| gone(&b.anchors, &anchors)).unwrap_or_default();
    let set = BundleSet {
        trust_domain: bundle.trust_domain().as_str().to_owned(),
        sequence: bundle.sequence(),
        anchors: anchors.iter().map(|a| a.to_vec()).collect(),
        digest: digest.to_vec(),
        document: document.into_bytes(),
        source: FILE.to_owned(),
        removed: false,
        kept_out: kept_out.iter().map(|a| a.to_vec()).collect(),
    };
    Ok(Some(Change { set, removed }))
}

/// The trust domain left the configuration: nobody vouches for it any more.
pub fn no_longer_configured(trust_domain: &str, before: &BundleState) -> Change {
    let set = BundleSet {
        trust_domain: trust_domain.to_owned(),
        source: CONFIGURATION.to_owned(),
        removed: true,
        kept_out: before.kept_out.iter().map(|a| a.to_vec()).collect(),
        ..BundleSet::default()
    };
    Change { set, removed: before.anchors.clone() }
}

fn anchors(bundle: &Bundle) -> Vec<[u8; 32]> {
    let mut ids: Vec<[u8; 32]> = bundle.x509_authorities().iter().map(|a| *a.id().as_bytes()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn gone(before: &[[u8; 32]], after: &[[u8; 32]]) -> Vec<[u8; 32]> {
    before.iter().filter(|a| !after.contains(a)).copied().collect()
}

impl Change {
    /// Whose bundle it is.
    pub fn trust_domain(&self) -> &str {
        &self.set.trust_domain
    }

    /// How many roots no longer vouch.
    pub fn removes(&self) -> usize {
        self.removed.len()
    }

    /// Its records, to be proposed together: the bundle, and what the removed roots vouched for. `revision` is what the decision saw.
    pub fn records(self, author: &Who, revision: Seq, now: Millis) -> Vec<Record> {
        let mut events = vec![Event::BundleSet(self.set)];
        for anchors in self.removed.chunks(limits::TARGETS) {
            events.push(Event::Revoked(Revoked {
                targets: anchors.iter().map(|a| Target::TrustAnchor(*a).to_record()).collect(),
                reason: "its trust anchor was removed from the bundle".to_owned(),
                keep_until: Rules::keep_until(now).0,
                ..Revoked::default()
            }));
        }
        events.into_iter().map(|event| Record::new(author.clone(), event).decided_at(revision)).collect()
    }
}

/// The bundles in force, following the ledger.
pub struct Trust {
    in_force: Arc<ArcSwap<Bundles>>,
    changes: watch::Sender<u64>,
}

impl Trust {
    /// As the ledger has it. What it cannot read is logged and vouches for nobody.
    pub fn of(state: &State) -> Arc<Trust> {
        let trust = Trust { in_force: Arc::default(), changes: watch::Sender::new(0) };
        for (domain, bundle) in state.bundles.iter().filter(|(_, b)| !b.removed) {
            trust.put(domain, &bundle.document, &bundle.anchors);
        }
        Arc::new(trust)
    }

    /// The bundles in force: whoever holds this sees each change.
    pub fn in_force(&self) -> Arc<ArcSwap<Bundles>> {
        self.in_force.clone()
    }

    /// Counts up after each change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Follows a durable record. Called in the ledger's order.
    pub fn follow(&self, record: &Record) {
        let Some(Event::BundleSet(set)) = &record.event else { return };
        if set.removed {
            self.in_force.rcu(|now| now.without(&set.trust_domain));
            self.changes.send_modify(|n| *n += 1);
            return;
        }
        let anchors: Vec<[u8; 32]> = set.anchors.iter().filter_map(|a| a.as_slice().try_into().ok()).collect();
        self.put(&set.trust_domain, &set.document, &anchors);
    }

    /// Whatever the document says: only what the record names as an anchor vouches.
    fn put(&self, domain: &str, document: &[u8], anchors: &[[u8; 32]]) {
        let Some(bundle) = self.read(domain, document) else { return };
        let bundle = Arc::new(bundle.without(|id: &AnchorId| !anchors.contains(id.as_bytes())));
        self.in_force.rcu(|now| match now.with(bundle.clone()) {
            Some(bundles) => bundles,
            None => {
                tracing::error!(domain, limit = limits::TRUST_DOMAINS, "too many trust domains; this one vouches for nobody");
                Bundles::clone(now)
            }
        });
        self.changes.send_modify(|n| *n += 1);
    }

    fn read(&self, domain: &str, document: &[u8]) -> Option<Bundle> {
        let trust_domain = TrustDomain::parse(domain).ok()?;
        if document.is_empty() {
            // Without a document there is nothing that could newly vouch, but a root may have gone.
            let now = self.in_force.load();
            let known = now.get(domain).map(|b| Bundle::clone(b));
            return known.or_else(|| Bundle::from_pem(trust_domain, b"").ok());
        }
        match Bundle::parse(trust_domain, document) {
            Ok(bundle) => Some(bundle),
            Err(error) => {
                tracing::error!(domain, %error, "the recorded bundle cannot be read; the one before stays in force");
                None
            }
        }
    }
}
