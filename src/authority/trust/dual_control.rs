//! Changes of trust that need a second operator. Whoever adds a root to a trust domain can impersonate every id of that domain.
//!
//! Adding a root to a domain whose ids hold an operator's or approver's role, or may open or review break-glass tasks, takes two operators.
//! Removing a root waits for nobody.

use super::BundleChangeRequest;
use super::bundle_plan::{BundleProposal, PlannedBundle, RootDigest, revoked, targets};
use crate::authority::Authority;
use crate::people::approvals::ApproverDecision;
use crate::registry::changes::{ApprovalRequest, ChangePermission, given};
use crate::revocation::revoke::{RevocationHits, confirm_needed};
use crate::revocation::revoke_excess::{self, CausedRevocation, ChangeEffect, ChangeOptions};
use crate::tasks::request_of;
use mayfly_base::refusal::{Error, Fault};
use mayfly_identity::caller::{Caller, Operator};
use mayfly_identity::spiffe_id::TrustDomain;
use mayfly_ledger::ProposalKind;
use mayfly_ledger::record::{
    ApprovalRequested, Author, BundleUpdated, Event, ProposedChange, ProposedChangeRecord as Recorded, Record,
};
use mayfly_ledger::revocation::Target;
use mayfly_ledger::upstream::registry::Approver;
use mayfly_policy::admin;
use mayfly_verify::seq::Seq;

fn short(root: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(root.get(..8).unwrap_or(root))
}

impl Authority {
    /// Whether ids of a trust domain may act as operators, approve requests, or open or review break-glass tasks.
    pub fn governs_domain(&self, domain: &str) -> bool {
        let compiled = self.catalog.now();
        let named = |one: &Approver| matches!(one, Approver::SpiffeId(id) if id.trust_domain() == domain);
        compiled.environments().any(|(_, policy)| policy.set.operator_domains().has(domain))
            || compiled.upstreams().any(|r| r.upstream.approvers.iter().any(named))
    }

    /// The roots that operators added to domains whose ids would gain rights of operators or approvers by a change. The approver of that
    /// change approves these roots as well.
    pub(crate) fn roots_taken_in(&self, now_governs: impl Fn(&str) -> bool) -> Vec<String> {
        let bundles = self.ledger.peek(|s| s.bundles.clone());
        let fresh = bundles.iter().filter(|(name, b)| !b.removed && now_governs(name) && !self.governs_domain(name));
        let each = fresh.flat_map(|(name, b)| b.kept_in.iter().map(move |root| (name, root)));
        each.map(|(name, root)| format!("trust domain {name}, whose root {} an operator added", short(root))).collect()
    }

    /// Whether an operator may change a bundle, alone or together with another operator.
    pub(super) fn may_change_trust(&self, operator: &Operator, change: &BundleChangeRequest) -> Result<ChangePermission, Error> {
        match change.proposal {
            BundleProposal::RemoveRoot(_) | BundleProposal::RemoveDomain => {
                Ok(ChangePermission::Yes(self.admit::<admin::ManageTrust>(operator, None)?.who()))
            }
            _ => self.may_change_alone::<admin::ManageTrust>(operator, ("trust_domain", change.domain.as_str()), None),
        }
    }

    /// Asks another operator for a change that needs one. The returned refusal says so.
    pub(super) async fn second_person(
        &self,
        operator: &Operator,
        may: ChangePermission,
        change: &BundleChangeRequest,
        planned: &PlannedBundle,
        planned_on: u64,
    ) -> Result<(), Error> {
        let why = self.trust_widens(&change.domain, planned);
        let ChangePermission::With(who) = self.permission(operator, may, !why.is_empty())? else { return Ok(()) };
        let set = BundleUpdated { planned_on: Some(planned_on), ..planned.set(&change.reason) };
        let event = |_: Seq| Event::BundleSet(set.clone());
        let of_change = revoke_excess::NarrowingChange {
            who: &who,
            event: &event,
            version: 0,
            takes: CausedRevocation::These(planned.targets.clone()),
            coarse: Target::TrustDomain(change.domain.as_str().into()),
            reason: &change.reason,
        };
        let asked = Recorded { to: Some(ProposedChange::Bundle(Box::new(set.clone()))) };
        // A trust domain belongs to no environment, so policy is asked for each environment.
        let asking = ApprovalRequest { environment: "", reason: &change.reason, why };
        let terms = ChangeOptions { dry_run: false, confirm: change.confirm, named: change.named.clone() };
        Err(self.ask_another(of_change, asked, asking, &terms).await)
    }

    /// The authorities by which a change would let somebody act as an operator or approver who could not before.
    fn trust_widens(&self, domain: &TrustDomain, planned: &PlannedBundle) -> Vec<String> {
        if !self.governs_domain(domain.as_str()) {
            return Vec::new();
        }
        let roots = planned.added.iter().map(|a| format!("trust domain {domain}: adds root {}", short(a.id().as_bytes())));
        let keys = planned.jwt_added.iter().map(|kid| format!("trust domain {domain}: adds key {kid} of JWT-SVIDs"));
        roots.chain(keys).collect()
    }

    /// Puts a bundle change that another operator asked for into effect, together with the approval in one group of records.
    pub(crate) async fn let_bundle_through(
        &self,
        who: &Author,
        (asked, set): (&ApprovalRequested, &BundleUpdated),
        (decision, by): (&ApproverDecision, &Caller),
    ) -> Result<ChangeEffect, Error> {
        let domain = TrustDomain::parse(&set.trust_domain).map_err(|e| Fault::new(format!("a trust domain asked for: {e}")))?;
        let bundles = self.ledger.settled(|s| s.bundles.clone()).await?;
        let gone: Vec<RootDigest> = set.gone.iter().filter_map(|id| RootDigest::try_from(&id[..]).ok()).collect();
        let others = || bundles.iter().filter(|(name, b)| ***name != *domain.as_str() && !b.removed);
        let targets = targets(&domain, &gone, set.removed, |id| others().any(|(_, b)| b.anchors.contains(id)));
        let hits = if targets.is_empty() { RevocationHits::default() } else { self.hits(&targets).await?.0 };
        let took = ChangeEffect { hits, beyond: 0 };
        let (view, author) = (self.ledger.view(), Author::named(&asked.caller));
        let decided = Record::new(who.clone(), Event::ApprovalDecided(given(decision, by)));
        let decided = decided.decided_at(view.revision()).for_request(request_of(&who.name(), &decision.terms.named));
        if decision.terms.dry_run {
            self.ledger.peek(|s| s.verdict(std::slice::from_ref(&decided), self.system.wall()))?;
            return Ok(took);
        }
        if !decision.terms.confirm.allows(hits.credentials) {
            return Err(confirm_needed(&hits, decision.terms.confirm));
        }
        let set = BundleUpdated { planned_on: None, ..set.clone() };
        let rules = revoked(&targets, &author, &asked.reason, self.system.wall());
        let records = std::iter::once(decided).chain([Record::new(author, Event::BundleSet(set))]).chain(rules);
        let lane = if targets.is_empty() { ProposalKind::Change } else { ProposalKind::Revoke };
        let records = records.map(|record| if record.revision == 0 { record.decided_at(view.revision()) } else { record });
        self.ledger.commit(lane, records.collect()).await?;
        Ok(took)
    }
}
