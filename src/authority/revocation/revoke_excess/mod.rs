//! Narrowing revokes: when a narrower policy, registration or binding takes effect, issued credentials that it would refuse are found by
//! deciding about them again.
//!
//! The search runs before the change, so that its result can be shown and the credentials found are revoked in the change's own group.
//! Credentials that are issued between the search and the change are searched for after the change, before the caller is answered: from the
//! change on, a decision with the former version is void. A start continues a search that was interrupted.

mod search_result;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::authority::Authority;
use crate::revocation::revoke::{RevocationConfirmation, RevocationHits, confirm_needed};
use crate::tasks::{IdempotencyKey, request_of};
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault};
use mayfly_ledger::ProposalKind;
use mayfly_ledger::record::{
    Author, BindingUpdated, DocumentTable, Event, NarrowedKind, NarrowingCompleted, PolicySetUpdated, Record, TargetsRevoked,
    UpstreamUpdated,
};
use mayfly_ledger::revocation::{Rules, Target};
use mayfly_ledger::state::{RememberedRequest, State};
use mayfly_policy::decide::CredentialSnapshot;
use mayfly_store::Position;
use mayfly_verify::seq::{ApprovalId, Millis, Seq};
use search_result::CredentialAttributes;
pub(crate) use search_result::ExcessCredentials;

/// The verdict on one credential.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ExcessVerdict {
    /// The credential may stay.
    Stays,
    /// The credential would be refused, and one of the change's own targets covers it.
    Covered,
    /// The credential would be refused.
    Goes,
}

/// Decides about one credential.
pub(crate) type ExcessJudge = Arc<dyn Fn(&CredentialSnapshot, Millis) -> ExcessVerdict + Send + Sync>;

/// A search of live credentials.
#[derive(Clone)]
pub(crate) struct ExcessSearch {
    /// Live credentials of this upstream, binding, or environment.
    pub among: NarrowedKind,
    /// The name of the upstream, binding or environment.
    pub name: Box<str>,
    /// Only credentials issued after this seq.
    pub since: Seq,
    /// The decision needs fields that only records contain.
    pub records: bool,
    /// The decision.
    pub judge: ExcessJudge,
}

/// Options of a change that may revoke.
#[derive(Clone, Debug)]
pub struct ChangeOptions {
    /// Only report what would be revoked.
    pub dry_run: bool,
    /// How many credentials may be revoked.
    pub confirm: RevocationConfirmation,
    /// The request, if it has an id.
    pub named: IdempotencyKey,
}

/// The revocation that a change causes.
pub(crate) enum CausedRevocation {
    /// Nothing.
    Nothing,
    /// Everything that its coarse target reaches.
    All,
    /// Everything that these targets reach, all of which would be refused.
    These(Vec<Target>),
    /// The credentials that a search finds, except those that the given targets cover.
    Found(ExcessSearch, Vec<Target>),
}

/// A change of policy, upstream or binding.
pub(crate) struct NarrowingChange<'a> {
    /// The author of the change.
    pub who: &'a Author,
    /// Builds the event of the change's record, given the seq up to which credentials were searched.
    pub event: &'a (dyn Fn(Seq) -> Event + Sync),
    /// The version that takes effect.
    pub version: u64,
    /// The revocation that the change causes.
    pub takes: CausedRevocation,
    /// The target that covers everything that the change could revoke.
    pub coarse: Target,
    /// The reason of the revocation.
    pub reason: &'a str,
}

/// The effect of a change, done or simulated.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ChangeEffect {
    /// The counts of the objects that the change revoked, or for a dry run would revoke.
    pub hits: RevocationHits,
    /// How many of the revoked credentials would still be permitted.
    pub beyond: u64,
}

impl Authority {
    /// Applies a change together with its revocations, or only reports them. One change at a time: [`Authority::changing`] is held.
    pub(crate) async fn put_in_force(&self, change: NarrowingChange<'_>, terms: &ChangeOptions) -> Result<ChangeEffect, Error> {
        let NarrowingChange { who, event, version, takes, coarse, reason } = change;
        let (looked, targets, refused, look) = match takes {
            CausedRevocation::Nothing => (Seq::ZERO, Vec::new(), 0, None),
            CausedRevocation::These(targets) => (Seq::ZERO, targets, u64::MAX, None),
            CausedRevocation::All => (Seq::ZERO, vec![coarse.clone()], u64::MAX, None),
            CausedRevocation::Found(look, others) => {
                let found = self.look_for(&look).await?;
                (found.looked, found.targets(others, look.among, coarse.clone()), found.count, Some(look))
            }
        };
        let view = self.ledger.view();
        let change = Record::new(who.clone(), event(looked)).decided_at(view.revision());
        let change = change.for_request(request_of(&who.name(), &terms.named));
        let hits = if targets.is_empty() { RevocationHits::default() } else { self.hits(&targets).await?.0 };
        let took = ChangeEffect { hits, beyond: hits.credentials.saturating_sub(refused) };
        if terms.dry_run {
            self.ledger.peek(|s| s.verdict(std::slice::from_ref(&change), self.system.wall()))?;
            return Ok(took);
        }
        if !terms.confirm.allows(hits.credentials) {
            return Err(confirm_needed(&hits, terms.confirm));
        }
        let lane = if targets.is_empty() { ProposalKind::Change } else { ProposalKind::Revoke };
        let records = self.narrowing(change, who, &targets, reason);
        let narrows = records.len() > 1;
        let receipt = self.ledger.commit(lane, records).await?;
        if narrows {
            self.feed.hit(receipt.seq(), hits);
        }
        if let Some(look) = look {
            self.finish_narrowing(ExcessSearch { since: looked, ..look }, version, who, coarse, reason).await?;
        }
        Ok(took)
    }

    /// Searches the live credentials for those that the change would refuse, in pieces, so that issuing goes on.
    pub(crate) async fn look_for(&self, look: &ExcessSearch) -> Result<ExcessCredentials, Error> {
        let began = self.system.steady();
        let looked = self.ledger.settled(|s| s.head).await?;
        let mut found = ExcessCredentials::nothing(looked);
        let mut at = 0;
        loop {
            let now = self.system.wall();
            let (piece, more) = self.ledger.settled(|state| piece(state, look, &mut at, now)).await?;
            let piece = if look.records { self.with_records(piece)? } else { piece };
            let judge = look.judge.clone();
            let judged =
                move || piece.iter().map(|held| (held.id, CredentialAttributes::of(held), judge(held, now))).collect::<Vec<_>>();
            let judged = tokio::task::spawn_blocking(judged).await;
            let judged = judged.map_err(|e| Fault::new(format!("deciding again: {e}")))?;
            judged.into_iter().for_each(|(id, alike, fate)| found.add(id, alike, fate));
            if !more {
                return Ok(found);
            }
            if self.system.steady().saturating_sub(began) > limits::NARROWING_LOOK_MS {
                found.whole = false;
                return Ok(found);
            }
        }
    }

    /// Adds the fields that only records contain; each commit is read once.
    fn with_records(&self, mut piece: Vec<CredentialSnapshot>) -> Result<Vec<CredentialSnapshot>, Error> {
        let mut commits: BTreeMap<Position, Vec<usize>> = BTreeMap::new();
        for (n, held) in piece.iter().enumerate() {
            commits.entry(held.at).or_default().push(n);
        }
        for (at, numbers) in commits {
            let records = self.ledger.records_at(at)?;
            for n in numbers {
                let Some(held) = piece.get_mut(n) else { continue };
                let own = records.iter().find_map(|r| match &r.event {
                    Some(Event::Issued(e)) if e.credential == held.id.as_bytes() => Some(e),
                    _ => None,
                });
                let own = own.ok_or_else(|| Fault::new(format!("commit {at} does not hold the issuance of {}", held.id)))?;
                let approval = ApprovalId::from_slice(&own.approval);
                let by = approval.and_then(|id| self.ledger.peek(|s| s.approvals.get(&id)?.decided.as_ref()?.by.clone()));
                held.with_record(own, by.map(|by| by.name()));
            }
        }
        Ok(piece)
    }

    /// The records of a change that revokes: the change first, because the request is bound to it.
    pub(crate) fn narrowing(&self, change: Record, who: &Author, targets: &[Target], reason: &str) -> Vec<Record> {
        let rules = targets.chunks(limits::TARGETS).map(|some| self.takes_back(who, some, reason, true));
        std::iter::once(change).chain(rules).collect()
    }

    /// A revocation record.
    pub(crate) fn takes_back(&self, who: &Author, targets: &[Target], reason: &str, issued_only: bool) -> Record {
        let revoked = TargetsRevoked {
            targets: targets.iter().map(Target::to_record).collect(),
            issued_only,
            reason: reason.to_owned(),
            keep_until: Rules::keep_until(self.system.wall()).0,
            ..TargetsRevoked::default()
        };
        Record::new(who.clone(), Event::Revoked(revoked))
    }

    /// Counts again the credentials and tasks that an earlier change revoked. The change is identified by the place of its first record.
    pub(crate) async fn hit_before(&self, before: &RememberedRequest, named: &IdempotencyKey) -> Result<RevocationHits, Error> {
        let Some((id, _)) = named else { return Ok(RevocationHits::default()) };
        let records = self.ledger.records_at(before.at)?;
        let own = records.iter().position(|r| r.request.as_ref().is_some_and(|r| r.id == *id));
        let of_group = |first: usize| records.get(first..)?.split_first();
        let Some((change, rest)) = own.and_then(of_group) else { return Ok(RevocationHits::default()) };
        let mut targets = Vec::new();
        for record in rest.iter().take_while(|r| r.group > 0 && r.group == change.group) {
            let Some(Event::Revoked(e)) = &record.event else { continue };
            targets.extend(e.targets.iter().filter_map(|t| Target::from_record(t).ok()));
        }
        match (targets.is_empty(), before.seq.next()) {
            (false, Some(made)) => self.hit_since(&targets, made).await,
            _ => Ok(RevocationHits::default()),
        }
    }

    /// Continues the searches that a stop interrupted.
    pub async fn finish_narrowings(&self) -> Result<(), Error> {
        let open = self.ledger.settled(|s| s.narrowing()).await?;
        let mut stopped = Ok(());
        for (kind, name, _) in open {
            let Some(table) = DocumentTable::narrowed(kind as i32) else { continue };
            // A search that fails must not delay the others.
            let done = match table {
                DocumentTable::Upstreams => self.finish_document::<UpstreamUpdated>(table, &name).await,
                DocumentTable::Bindings => self.finish_document::<BindingUpdated>(table, &name).await,
                DocumentTable::Policies | DocumentTable::ShadowPolicies => {
                    self.finish_document::<PolicySetUpdated>(table, &name).await
                }
            };
            stopped = done.and(stopped);
        }
        stopped
    }

    /// Searches again for credentials issued after the first search, and records that the search is complete.
    pub(crate) async fn finish_narrowing(
        &self,
        look: ExcessSearch,
        version: u64,
        who: &Author,
        coarse: Target,
        reason: &str,
    ) -> Result<RevocationHits, Error> {
        let mut found = self.look_for(&look).await?;
        if found.uncovered > 0 && !found.few() {
            // Credentials issued earlier may share the attributes of those found, so all have to be visited.
            found = self.look_for(&ExcessSearch { since: Seq::ZERO, ..look.clone() }).await?;
        }
        let done = NarrowingCompleted { what: look.among as i32, name: look.name.to_string(), version };
        let done = Record::new(who.clone(), Event::Narrowed(done));
        if found.uncovered == 0 && found.whole {
            self.ledger.commit(ProposalKind::Change, vec![done]).await?;
            return Ok(RevocationHits::default());
        }
        let targets = found.targets(Vec::new(), look.among, coarse);
        let (hits, _) = self.hits(&targets).await?;
        self.ledger.commit(ProposalKind::Revoke, self.narrowing(done, who, &targets, reason)).await?;
        Ok(hits)
    }
}

/// The matching credentials at the next few slots, and whether there are more slots.
fn piece(state: &State, look: &ExcessSearch, at: &mut u32, now: Millis) -> (Vec<CredentialSnapshot>, bool) {
    let places = state.credentials.places();
    let end = at.saturating_add(limits::LIST_WALK as u32).min(places);
    let live = (*at..end).filter_map(|slot| state.credentials.at(slot));
    let among = live.filter(|live| {
        let name = match look.among {
            NarrowedKind::Policy => live.environment(),
            NarrowedKind::Upstream => live.upstream(),
            NarrowedKind::Binding => live.binding(),
            NarrowedKind::Unspecified => return false,
        };
        *name == *look.name && live.seq() > look.since
    });
    let alive = among.filter(|live| state.evidence_alive(&live.id(), now).is_ok());
    let held =
        alive.filter_map(|live| state.tasks.at(live.task()).map(|task| CredentialSnapshot::of(state, &live, task))).collect();
    *at = end;
    (held, end < places)
}
