//! Changes of trust that need a second operator. Whoever adds a root to a trust domain can impersonate every id of that domain.
//!
//! Adding a root to a domain whose ids hold an operator's or approver's role, or may open or review break-glass tasks, takes two operators.
//! Removing a root waits for nobody.

use super::Change;
use super::plan::{Planned, Proposal, Root, revoked, targets};
use crate::authority::Authority;
use crate::people::approvals::Decision;
use crate::registry::changes::{Alone, Asking, given};
use crate::revocation::narrow::{self, Takes, Terms, Took};
use crate::revocation::revoke::{Hits, confirm_needed};
use crate::tasks::request_of;
use mayfly_base::refusal::{Fault, No};
use mayfly_identity::caller::{Caller, Operator};
use mayfly_identity::spiffe_id::TrustDomain;
use mayfly_ledger::Lane;
use mayfly_ledger::record::{ApprovalAsked, BundleSet, Change as Recorded, Changes, Event, Record, Who};
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
    pub(super) fn may_change_trust(&self, operator: &Operator, change: &Change) -> Result<Alone, No> {
        match change.proposal {
            Proposal::RemoveRoot(_) | Proposal::RemoveDomain => {
                Ok(Alone::Yes(self.admit::<admin::ManageTrust>(operator, None)?.who()))
            }
            _ => self.may_change_alone::<admin::ManageTrust>(operator, ("trust_domain", change.domain.as_str()), None),
        }
    }

    /// Asks another operator for a change that needs one. The returned refusal says so.
    pub(super) async fn second_person(
        &self,
        operator: &Operator,
        may: Alone,
        change: &Change,
        planned: &Planned,
        planned_on: u64,
    ) -> Result<(), No> {
        let why = self.trust_widens(&change.domain, planned);
        let alone = match may {
            Alone::Yes(who) if why.is_empty() => Alone::Yes(who),
            Alone::Yes(who) | Alone::With(who) => self.with_another(operator, who)?,
        };
        let Alone::With(who) = alone else { return Ok(()) };
        let set = BundleSet { planned_on: Some(planned_on), ..planned.set(&change.reason) };
        let event = |_: Seq| Event::BundleSet(set.clone());
        let of_change = narrow::Change {
            who: &who,
            event: &event,
            version: 0,
            takes: Takes::These(planned.targets.clone()),
            coarse: Target::TrustDomain(change.domain.as_str().into()),
            reason: &change.reason,
        };
        let asked = Recorded { to: Some(Changes::Bundle(Box::new(set.clone()))) };
        // A trust domain belongs to no environment, so policy is asked for each environment.
        let asking = Asking { environment: "", reason: &change.reason, why };
        let terms = Terms { dry_run: false, confirm: change.confirm, named: change.named.clone() };
        Err(self.ask_another(of_change, asked, asking, &terms).await)
    }

    /// The authorities by which a change would let somebody act as an operator or approver who could not before.
    fn trust_widens(&self, domain: &TrustDomain, planned: &Planned) -> Vec<String> {
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
        who: &Who,
        (asked, set): (&ApprovalAsked, &BundleSet),
        (decision, by): (&Decision, &Caller),
    ) -> Result<Took, No> {
        let domain = TrustDomain::parse(&set.trust_domain).map_err(|e| Fault::new(format!("a trust domain asked for: {e}")))?;
        let bundles = self.ledger.settled(|s| s.bundles.clone()).await?;
        let gone: Vec<Root> = set.gone.iter().filter_map(|id| Root::try_from(&id[..]).ok()).collect();
        let others = || bundles.iter().filter(|(name, b)| ***name != *domain.as_str() && !b.removed);
        let targets = targets(&domain, &gone, set.removed, |id| others().any(|(_, b)| b.anchors.contains(id)));
        let hits = if targets.is_empty() { Hits::default() } else { self.hits(&targets).await?.0 };
        let took = Took { hits, beyond: 0 };
        let (view, author) = (self.ledger.view(), Who::named(&asked.caller));
        let decided = Record::new(who.clone(), Event::ApprovalDecided(given(decision, by)));
        let decided = decided.decided_at(view.revision()).for_request(request_of(&who.name(), &decision.terms.named));
        if decision.terms.dry_run {
            self.ledger.peek(|s| s.verdict(std::slice::from_ref(&decided), self.system.wall()))?;
            return Ok(took);
        }
        if !decision.terms.confirm.allows(hits.credentials) {
            return Err(confirm_needed(&hits, decision.terms.confirm));
        }
        let set = BundleSet { planned_on: None, ..set.clone() };
        let rules = revoked(&targets, &author, &asked.reason, self.system.wall());
        let records = std::iter::once(decided).chain([Record::new(author, Event::BundleSet(set))]).chain(rules);
        let lane = if targets.is_empty() { Lane::Change } else { Lane::Revoke };
        let records = records.map(|record| if record.revision == 0 { record.decided_at(view.revision()) } else { record });
        self.ledger.commit(lane, records.collect()).await?;
        Ok(took)
    }
}
