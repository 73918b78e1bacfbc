//! Plans a bundle change. Pure: takes the bundle in force and a proposal, and returns the resulting bundle with its records.
//!
//! A source (a file, an endpoint) proposes its present bundle. Changes by an operator have precedence over it: a root that an operator
//! removed stays out, and a root that an operator added stays in, whatever the source contains.

use std::collections::{BTreeMap, BTreeSet};

use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_identity::anchor::TrustAnchor;
use mayfly_identity::bundle::{Bundle, JwtAuthority, sequence_may_follow};
use mayfly_identity::bundle_document::BundleDocument;
use mayfly_identity::spiffe_id::TrustDomain;
use mayfly_ledger::commit::sha256;
use mayfly_ledger::record::{Author, BundleUpdated, Event, Record, TargetsRevoked};
use mayfly_ledger::revocation::{Rules, Target};
use mayfly_ledger::state::BundleState;
use mayfly_verify::seq::Millis;

/// SHA-256 of a root's certificate.
pub type RootDigest = [u8; 32];

/// The source of a bundle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TrustBundleSource {
    /// A call by an operator.
    Api,
    /// A file, which is read again when it changes.
    File,
    /// The SPIFFE Workload API.
    WorkloadApi,
    /// A SPIFFE federation endpoint.
    Federation,
    /// mayfly's own CA.
    Own,
    /// The configuration, when it no longer names the trust domain.
    Configuration,
}

impl TrustBundleSource {
    const ALL: [TrustBundleSource; 6] = [
        TrustBundleSource::Api,
        TrustBundleSource::File,
        TrustBundleSource::WorkloadApi,
        TrustBundleSource::Federation,
        TrustBundleSource::Own,
        TrustBundleSource::Configuration,
    ];

    /// The source's name in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            TrustBundleSource::Api => "api",
            TrustBundleSource::File => "file",
            TrustBundleSource::WorkloadApi => "workload_api",
            TrustBundleSource::Federation => "federation",
            TrustBundleSource::Own => "own",
            TrustBundleSource::Configuration => "configuration",
        }
    }

    /// Parses the name in a record.
    pub fn from_text(text: &str) -> Option<TrustBundleSource> {
        TrustBundleSource::ALL.into_iter().find(|s| s.as_str() == text)
    }
}

/// A proposed change of a trust domain's bundle.
#[derive(Clone, Debug)]
pub enum BundleProposal {
    /// The bundle that its source has now.
    Found(Bundle, TrustBundleSource),
    /// An operator adds these authorities. Nothing is removed.
    Add(Bundle),
    /// An operator replaces the bundle in force.
    Set(Bundle),
    /// An operator removes one root.
    RemoveRoot(RootDigest),
    /// An operator removes the trust domain.
    RemoveDomain,
    /// The configuration no longer names the trust domain. If it is named again, its file takes effect again.
    NoLongerNamed,
}

/// The planned change.
#[derive(Clone, Debug)]
pub struct PlannedBundle {
    /// The trust domain.
    pub domain: TrustDomain,
    /// The resulting bundle; `None` where the domain is no longer trusted.
    pub after: Option<Bundle>,
    /// Added roots.
    pub added: Vec<TrustAnchor>,
    /// Removed roots.
    pub removed: Vec<TrustAnchor>,
    /// The targets to revoke.
    pub targets: Vec<Target>,
    /// The `kid` of JWT-SVID keys that are new or changed.
    pub jwt_added: Vec<String>,
    document: String,
    source: TrustBundleSource,
    sequence: Option<u64>,
    kept_out: BTreeSet<RootDigest>,
    kept_in: BTreeSet<RootDigest>,
}

/// The bundle in force, and the operators' decisions about its domain.
struct CurrentBundle {
    bundle: Option<Bundle>,
    sequence: Option<u64>,
    source: Option<TrustBundleSource>,
    removed: bool,
    kept_out: BTreeSet<RootDigest>,
    kept_in: BTreeSet<RootDigest>,
}

impl CurrentBundle {
    fn of(domain: &TrustDomain, state: Option<&BundleState>) -> Result<CurrentBundle, Fault> {
        let Some(s) = state else {
            let (kept_out, kept_in) = Default::default();
            return Ok(CurrentBundle { bundle: None, sequence: None, source: None, removed: false, kept_out, kept_in });
        };
        let bundle = if s.removed { None } else { Some(bundle_of(domain, s)?) };
        Ok(CurrentBundle {
            bundle,
            sequence: s.sequence,
            source: TrustBundleSource::from_text(&s.source),
            removed: s.removed,
            kept_out: s.kept_out.iter().copied().collect(),
            kept_in: s.kept_in.iter().copied().collect(),
        })
    }

    fn anchors(&self) -> &[TrustAnchor] {
        self.bundle.as_ref().map_or(&[], Bundle::x509_authorities)
    }

    fn jwt(&self) -> &[JwtAuthority] {
        self.bundle.as_ref().map_or(&[], Bundle::jwt_authorities)
    }
}

/// The bundle of a domain in the ledger's state.
pub fn bundle_of(domain: &TrustDomain, state: &BundleState) -> Result<Bundle, Fault> {
    let parsed = Bundle::from_jwks(domain.clone(), &state.document);
    parsed.map_err(|defect| Fault::new(format!("the bundle of {domain} in the ledger {defect}")))
}

fn root(anchor: &TrustAnchor) -> RootDigest {
    *anchor.id().as_bytes()
}

/// Plans a proposal; `None` where it changes nothing. `in_other_domain`: whether another trust domain has a root as well.
pub fn plan(
    domain: &TrustDomain,
    state: Option<&BundleState>,
    proposal: &BundleProposal,
    in_other_domain: impl Fn(&RootDigest) -> bool,
) -> Result<Option<PlannedBundle>, Error> {
    let before = CurrentBundle::of(domain, state)?;
    let (mut kept_out, mut kept_in) = (before.kept_out.clone(), before.kept_in.clone());
    let mut anchors: BTreeMap<RootDigest, TrustAnchor> = before.anchors().iter().map(|a| (root(a), a.clone())).collect();
    let mut jwt: Vec<JwtAuthority> = before.jwt().to_vec();
    let mut sequence = before.sequence;
    let mut hint = before.bundle.as_ref().and_then(Bundle::refresh_hint_s);
    let mut source = before.source.unwrap_or(TrustBundleSource::Api);
    let mut removed = false;
    match proposal {
        BundleProposal::Found(bundle, from) => {
            if before.removed && before.source == Some(TrustBundleSource::Api) {
                return Ok(None);
            }
            may_follow(before.sequence, bundle)?;
            let mine = before.anchors().iter().filter(|a| kept_in.contains(&root(a)));
            anchors = bundle.x509_authorities().iter().chain(mine).map(|a| (root(a), a.clone())).collect();
            anchors.retain(|id, _| !kept_out.contains(id));
            (jwt, sequence, hint, source) =
                (bundle.jwt_authorities().to_vec(), bundle.sequence(), bundle.refresh_hint_s(), *from);
        }
        BundleProposal::Add(bundle) => {
            for anchor in bundle.x509_authorities() {
                kept_out.remove(&root(anchor));
                kept_in.insert(root(anchor));
                anchors.insert(root(anchor), anchor.clone());
            }
            for authority in bundle.jwt_authorities() {
                jwt.retain(|known| known.kid() != authority.kid());
                jwt.push(authority.clone());
            }
            (sequence, hint) = (sequence.max(bundle.sequence()), bundle.refresh_hint_s().or(hint));
        }
        BundleProposal::Set(bundle) => {
            if state.is_none_or(|s| s.removed) {
                return Err(unknown(domain));
            }
            may_follow(before.sequence, bundle)?;
            anchors = bundle.x509_authorities().iter().map(|a| (root(a), a.clone())).collect();
            anchors.retain(|id, _| !kept_out.contains(id));
            kept_out.extend(before.anchors().iter().map(root).filter(|id| !anchors.contains_key(id)));
            kept_in = anchors.keys().copied().collect();
            (jwt, sequence, hint) = (bundle.jwt_authorities().to_vec(), bundle.sequence(), bundle.refresh_hint_s());
        }
        BundleProposal::RemoveRoot(id) => {
            if anchors.remove(id).is_none() {
                let what = format!("{domain} has no root {}", data_encoding::HEXLOWER.encode(id));
                return Err(Error::Refusal(Refusal::new(Reason::NotFound, what).way_out("mayfly bundle show lists its roots")));
            }
            kept_out.insert(*id);
            kept_in.remove(id);
        }
        BundleProposal::RemoveDomain => {
            if state.is_none_or(|s| s.removed) {
                return Err(unknown(domain));
            }
            kept_out.extend(anchors.keys());
            kept_in.clear();
            anchors.clear();
            jwt.clear();
            (removed, source) = (true, TrustBundleSource::Api);
        }
        BundleProposal::NoLongerNamed => {
            if before.removed {
                return Ok(None);
            }
            anchors.clear();
            jwt.clear();
            (removed, source) = (true, TrustBundleSource::Configuration);
        }
    }
    if anchors.len() + jwt.len() > limits::BUNDLE_AUTHORITIES || kept_out.len() > limits::BUNDLE_AUTHORITIES {
        let no = Refusal::limit("bundle_authorities", limits::BUNDLE_AUTHORITIES as u64, std::time::Duration::ZERO);
        return Err(Error::Refusal(no.way_out("remove the trust domain and add it again with its current roots")));
    }
    let (all, keys) = (anchors.values().collect(), jwt.iter().collect());
    let document = BundleDocument { sequence, refresh_hint_s: hint, anchors: all, jwt: keys }.to_text();
    let after = match removed {
        true => None,
        false => Some(Bundle::from_jwks(domain.clone(), document.as_bytes()).map_err(|d| Refusal::field("bundle", d))?),
    };
    let same = after == before.bundle
        && state.is_some_and(|s| s.removed == removed)
        && (&kept_out, &kept_in, Some(source)) == (&before.kept_out, &before.kept_in, before.source);
    if same {
        return Ok(None);
    }
    let gone: Vec<TrustAnchor> = before.anchors().iter().filter(|a| !anchors.contains_key(&root(a))).cloned().collect();
    let fresh = |id: &RootDigest| !before.anchors().iter().any(|a| root(a) == *id);
    let added = anchors.iter().filter(|(id, _)| fresh(id)).map(|(_, a)| a.clone()).collect();
    let targets = targets(domain, &gone.iter().map(root).collect::<Vec<_>>(), removed, in_other_domain);
    let jwt_added = jwt.iter().filter(|one| !before.jwt().contains(one)).map(|one| one.kid().to_owned()).collect();
    let (domain, removed) = (domain.clone(), gone);
    Ok(Some(PlannedBundle { domain, after, added, removed, targets, jwt_added, document, source, sequence, kept_out, kept_in }))
}

fn may_follow(seen: Option<u64>, bundle: &Bundle) -> Result<(), Refusal> {
    sequence_may_follow(seen, bundle.sequence()).map_err(|defect| Refusal::field("bundle", defect))
}

fn unknown(domain: &TrustDomain) -> Error {
    let no = Refusal::new(Reason::NotFound, format!("there is no trust domain {domain}"));
    Error::Refusal(no.way_out("add the trust domain with its roots: mayfly bundle add"))
}

/// The targets that cover everything that would be refused from now on. A root that another domain also has continues to vouch there, so
/// the domain is revoked instead of the root.
pub(super) fn targets(
    domain: &TrustDomain,
    gone: &[RootDigest],
    removed: bool,
    in_other_domain: impl Fn(&RootDigest) -> bool,
) -> Vec<Target> {
    let shared = gone.iter().any(&in_other_domain);
    let whole = (removed || shared).then(|| Target::TrustDomain(domain.as_str().into()));
    let roots = gone.iter().copied().filter(|id| !in_other_domain(id)).map(Target::TrustAnchor);
    whole.into_iter().chain(roots).collect()
}

impl PlannedBundle {
    /// The content of the bundle's record.
    pub fn set(&self, reason: &str) -> BundleUpdated {
        let hashes = |of: &BTreeSet<RootDigest>| of.iter().map(|id| id.to_vec()).collect();
        let of = |anchors: &[TrustAnchor]| hashes(&anchors.iter().map(root).collect());
        let anchors = self.after.iter().flat_map(Bundle::x509_authorities).map(root);
        BundleUpdated {
            trust_domain: self.domain.as_str().to_owned(),
            sequence: self.sequence,
            anchors: anchors.collect::<BTreeSet<_>>().into_iter().map(|id| id.to_vec()).collect(),
            digest: sha256(self.document.as_bytes()).to_vec(),
            document: if self.after.is_some() { self.document.clone().into_bytes() } else { Vec::new() },
            source: self.source.as_str().to_owned(),
            removed: self.after.is_none(),
            kept_out: hashes(&self.kept_out),
            kept_in: hashes(&self.kept_in),
            reason: reason.to_owned(),
            added: of(&self.added),
            gone: of(&self.removed),
            planned_on: None,
        }
    }

    /// The records of the change as one group: the bundle, and the revocation of everything that it no longer vouches for.
    pub fn records(&self, author: &Author, reason: &str, now: Millis) -> Vec<Record> {
        // A source that only adds gives no reason. Where roots are removed, the reason belongs to the revocation.
        let why = if self.removed.is_empty() && matches!(author, Author::Mayfly(_)) { "" } else { reason };
        let mut records = vec![Record::new(author.clone(), Event::BundleSet(self.set(why)))];
        records.extend(revoked(&self.targets, author, reason, now));
        records
    }

    /// The resulting state of the domain, for a dry run.
    pub fn state(&self, before: Option<&BundleState>, now: Millis) -> BundleState {
        let anchors = self.after.iter().flat_map(Bundle::x509_authorities).map(root).collect();
        BundleState {
            sequence: self.sequence,
            anchors,
            digest: sha256(self.document.as_bytes()),
            document: self.document.as_bytes().into(),
            source: self.source.as_str().into(),
            removed: self.after.is_none(),
            kept_out: self.kept_out.iter().copied().collect(),
            kept_in: self.kept_in.iter().copied().collect(),
            seq: before.map_or(mayfly_verify::seq::Seq::ZERO, |b| b.seq),
            changed_at: now,
        }
    }
}

/// The revocation of everything that a bundle no longer vouches for.
pub(super) fn revoked(targets: &[Target], author: &Author, reason: &str, now: Millis) -> Vec<Record> {
    let targets: Vec<_> = targets.iter().map(Target::to_record).collect();
    let record = |targets: &[mayfly_ledger::record::TargetRecord]| {
        let revoked = TargetsRevoked {
            targets: targets.to_vec(),
            // Only credentials issued so far are revoked: callers that return under another root are accepted.
            issued_only: true,
            reason: reason.to_owned(),
            keep_until: Rules::keep_until(now).0,
            lock_only: false,
        };
        Record::new(author.clone(), Event::Revoked(revoked))
    };
    targets.chunks(limits::TARGETS).map(record).collect()
}
