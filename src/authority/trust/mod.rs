//! Trust bundles: which roots vouch for which trust domain, and how that changes. Operators and all sources of bundles use the same path.
//!
//! The ledger's bundle is authoritative. A change is first a record. Where it removes a root, the same group of records revokes everything
//! that the root vouched for ("narrowing revokes"). The bundles against which connections are checked are updated after the durable commit
//! and before the change is answered.

mod bundle_plan;
pub mod certificate_lists;
mod dual_control;
pub mod keys;
pub mod own_domain;
pub mod own_svid;
pub mod upstream_ca;

use std::sync::Arc;

pub use bundle_plan::{BundleProposal, PlannedBundle, RootDigest, TrustBundleSource, bundle_of};

use crate::authority::Authority;
use crate::redecide::DecisionAttempts;
use crate::registry::changes::ChangePermission;
use crate::revocation::revoke::{RevocationConfirmation, RevocationHits, confirm_needed};
use crate::tasks::{IdempotencyKey, request_of};
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault, Refusal};
use mayfly_identity::bundle::{Bundle, Bundles};
use mayfly_identity::caller::Operator;
use mayfly_identity::spiffe_id::TrustDomain;
use mayfly_ledger::ProposalKind;
use mayfly_ledger::record::{Author, Event, Record};
use mayfly_ledger::revocation::Target;
use mayfly_ledger::state::BundleState;
use mayfly_policy::decide::decided_on_stale_state;
use mayfly_verify::seq::Seq;

/// A change of a trust domain's bundle.
#[derive(Clone, Debug)]
pub struct BundleChangeRequest {
    /// The trust domain.
    pub domain: TrustDomain,
    /// The proposed change.
    pub proposal: BundleProposal,
    /// The author of the change.
    pub author: Author,
    /// The reason, also used in the revocation of removed roots.
    pub reason: String,
    /// How many credentials may be hit.
    pub confirm: RevocationConfirmation,
    /// Only report what would be hit.
    pub dry_run: bool,
    /// The request id and digest, where the caller gave a request id.
    pub named: IdempotencyKey,
    /// The operator who makes the change and who may need a second one; `None` where a source makes it.
    pub operator: Option<Operator>,
}

/// The result of a change or a dry run.
#[derive(Clone, Debug, Default)]
pub struct BundleChangeResult {
    /// The sequence number of the change's record, or of its revocation rule where something was revoked. `None` for a dry run and where
    /// nothing changed.
    pub seq: Option<Seq>,
    /// Something was removed, so `seq` is that of a rule.
    pub narrowed: bool,
    /// Added roots.
    pub added: Vec<mayfly_identity::anchor::TrustAnchor>,
    /// Removed roots.
    pub removed: Vec<mayfly_identity::anchor::TrustAnchor>,
    /// The target of the revocation.
    pub hits: RevocationHits,
    /// The connections that end with the removed roots.
    pub connections: u64,
    /// The resulting state of the domain, for a dry run.
    pub would_be: Option<BundleState>,
}

impl Authority {
    /// Changes a bundle. Refused with CONFIRM_NEEDED, without any effect, where more credentials would be hit than confirmed.
    pub async fn change_bundle(&self, change: &BundleChangeRequest) -> Result<BundleChangeResult, Error> {
        let may = change.operator.as_ref().map(|operator| self.may_change_trust(operator, change)).transpose()?;
        // One change at a time, because each is planned on the bundle that the previous one left.
        let _one = self.changing.lock().await;
        let name = change.author.name();
        if let Some(before) = self.remembered(&name, &change.named).await? {
            return self.changed_before(change, before.seq, before.at).await;
        }
        let mut attempts = DecisionAttempts::default();
        loop {
            match self.try_change(change, &name, may.clone()).await {
                Err(no) => self.redecide(&mut attempts, no, decided_on_stale_state).await?,
                changed => return changed,
            }
        }
    }

    async fn try_change(
        &self,
        change: &BundleChangeRequest,
        name: &str,
        may: Option<ChangePermission>,
    ) -> Result<BundleChangeResult, Error> {
        let domain = &change.domain;
        self.whose_roots(change)?;
        let view = self.ledger.view();
        let bundles = view.read(|s| s.bundles.clone());
        let before = bundles.get(domain.as_str());
        let others = || bundles.iter().filter(|(name, b)| ***name != *domain.as_str() && !b.removed);
        let in_other_domain = |id: &RootDigest| others().any(|(_, b)| b.anchors.contains(id));
        let Some(planned) = bundle_plan::plan(domain, before, &change.proposal, in_other_domain)? else {
            return Ok(BundleChangeResult::default());
        };
        if planned.after.is_some() && others().count() >= limits::TRUST_DOMAINS {
            let no = Refusal::limit("trust_domains", limits::TRUST_DOMAINS as u64, std::time::Duration::ZERO);
            return Err(Error::Refusal(no));
        }
        let gone: Vec<RootDigest> = planned.removed.iter().map(|a| *a.id().as_bytes()).collect();
        let mut changed = BundleChangeResult {
            narrowed: !planned.targets.is_empty(),
            connections: self.peers.resting_on(&gone),
            added: planned.added.clone(),
            removed: planned.removed.clone(),
            ..BundleChangeResult::default()
        };
        // Hits are counted only where somebody has to confirm them: not for a change by a source, and not in an emergency that confirms
        // all.
        if changed.narrowed && (change.dry_run || change.confirm != RevocationConfirmation::All) {
            changed.hits = self.hits(&planned.targets).await?.0;
        }
        let now = self.system.wall();
        if change.dry_run {
            changed.would_be = Some(planned.state(before, now));
            return Ok(changed);
        }
        if let (Some(operator), Some(may)) = (&change.operator, may) {
            self.second_person(operator, may, change, &planned, before.map_or(0, |b| b.seq.as_u64())).await?;
        }
        if !change.confirm.allows(changed.hits.credentials) {
            return Err(confirm_needed(&changed.hits, change.confirm));
        }
        let mut records: Vec<Record> = planned.records(&change.author, &change.reason, now);
        if let Some(last) = records.last_mut() {
            // A repeat is answered with the rule's sequence number, which is that of the last record.
            last.request = request_of(name, &change.named);
        }
        let records = records.into_iter().map(|r| r.decided_at(view.revision())).collect();
        let lane = if changed.narrowed { ProposalKind::Revoke } else { ProposalKind::Change };
        changed.seq = Some(self.ledger.commit(lane, records).await?.seq());
        Ok(changed)
    }

    /// The roots of mayfly's own trust domain are its CA keys and cannot be set otherwise.
    fn whose_roots(&self, change: &BundleChangeRequest) -> Result<(), Refusal> {
        let own = self.own_domain.as_ref().is_some_and(|own| own.trust_domain == change.domain);
        match &change.proposal {
            BundleProposal::Found(_, TrustBundleSource::Own) => Ok(()),
            _ if own => {
                let what =
                    format!("{} is the trust domain that this server is the CA of: its roots are its own keys", change.domain);
                Err(Refusal::field("trust_domain", what).way_out("mayfly key rotate|retire|compromise, for keys of x509-ca"))
            }
            _ => Ok(()),
        }
    }

    /// A repeat of a completed change, answered from its records.
    async fn changed_before(
        &self,
        change: &BundleChangeRequest,
        seq: Seq,
        at: mayfly_store::Position,
    ) -> Result<BundleChangeResult, Error> {
        let records = self.ledger.records_at(at)?;
        let mine = |r: &&Record| r.request.as_ref().is_some_and(|r| Some(&r.id) == change.named.as_ref().map(|(id, _)| id));
        let narrowed = records.iter().find(mine).and_then(|r| match &r.event {
            Some(Event::Revoked(e)) => Some(e.targets.iter().filter_map(|t| Target::from_record(t).ok()).collect::<Vec<_>>()),
            _ => None,
        });
        let hits = match &narrowed {
            Some(targets) => self.hits(targets).await?.0,
            None => RevocationHits::default(),
        };
        Ok(BundleChangeResult { seq: Some(seq), narrowed: narrowed.is_some(), hits, ..BundleChangeResult::default() })
    }

    /// Applies a source's present bundle. Returns the sequence number of the change's record, `None` where nothing changed.
    ///
    /// `place`: where the bundle was found, for the audit. Refused where the bundle's sequence went down or is missing; the bundle in force
    /// then stays.
    pub async fn found_bundle(&self, bundle: &Bundle, source: TrustBundleSource, place: &str) -> Result<Option<Seq>, Error> {
        let change = BundleChangeRequest {
            domain: bundle.trust_domain().clone(),
            proposal: BundleProposal::Found(bundle.clone(), source),
            author: Author::Mayfly(format!("bundle {}: {place}", source.as_str())),
            reason: format!("the root is no longer in {place}"),
            confirm: RevocationConfirmation::All,
            dry_run: false,
            named: None,
            operator: None,
        };
        Ok(self.change_bundle(&change).await?.seq)
    }

    /// Applies that the configuration no longer names a trust domain whose bundle came from a file: everything that the bundle vouched for
    /// is revoked.
    pub async fn no_longer_named(&self, domain: &TrustDomain) -> Result<Option<Seq>, Error> {
        let change = BundleChangeRequest {
            domain: domain.clone(),
            proposal: BundleProposal::NoLongerNamed,
            author: Author::Mayfly("no longer configured".to_owned()),
            reason: "the trust domain is no longer configured".to_owned(),
            confirm: RevocationConfirmation::All,
            dry_run: false,
            named: None,
            operator: None,
        };
        Ok(self.change_bundle(&change).await?.seq)
    }

    /// Loads the ledger's bundles for checking connections. Domains unknown to the ledger keep their bundle.
    pub(crate) fn load_bundles(&self) -> Result<(), Fault> {
        self.load_bundles_of(|_| true)
    }

    /// The same for some domains.
    pub(crate) fn load_bundles_of(&self, which: impl Fn(&str) -> bool) -> Result<(), Fault> {
        let known = self.ledger.peek(|s| s.bundles.clone());
        let mut bundles: Bundles = (**self.bundles.load()).clone();
        let mut fault = None;
        for (name, state) in known.iter().filter(|(name, _)| which(name)) {
            match loaded(name, state) {
                Ok(None) => bundles = bundles.without(name),
                Ok(Some(bundle)) => match bundles.with(bundle) {
                    Some(more) => bundles = more,
                    None => fault = fault.or(Some(Fault::new("more trust domains than there may be"))),
                },
                // A bundle that cannot be read vouches for nobody.
                Err(unreadable) => {
                    bundles = bundles.without(name);
                    fault = fault.or(Some(unreadable));
                }
            }
        }
        self.bundles.store(Arc::new(bundles));
        fault.map_or(Ok(()), Err)
    }
}

fn loaded(name: &str, state: &BundleState) -> Result<Option<Arc<Bundle>>, Fault> {
    if state.removed {
        return Ok(None);
    }
    let domain = TrustDomain::parse(name).map_err(|e| Fault::new(format!("trust domain {name:?} in the ledger: {e}")))?;
    bundle_of(&domain, state).map(|bundle| Some(Arc::new(bundle)))
}
