//! Operators' changes of upstream registrations: registering, changing, disabling, retiring, and owners who leave.
//!
//! A version that is narrower than the one before revokes what it refuses, in the same group of records (see
//! [`crate::revocation::revoke_excess`]).

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::admission::operators::Environments;
use crate::authority::Authority;
use crate::registry::changes::{ApprovalRequest, ChangePermission};
use crate::registry::documents::{DocumentChangeResult, ManagedDocument};
use crate::revocation::revoke::{RevocationHits, confirm_needed};
use crate::revocation::revoke_excess::{CausedRevocation, ChangeOptions, ExcessJudge, ExcessSearch, ExcessVerdict};
use crate::tasks::{IdempotencyKey, request_of};
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_identity::caller::Operator;
use mayfly_ledger::ProposalKind;
use mayfly_ledger::record::{DocumentTable, Event, NarrowedKind, OwnerLeft, Principal, Record, UpstreamUpdated};
use mayfly_ledger::revocation::Target;
use mayfly_ledger::state::{DocumentVersion, State};
use mayfly_ledger::upstream::registry::{Approver, Upstream};
use mayfly_ledger::upstream::widening;
use mayfly_policy::decide::{reads_records, still_permits};
use mayfly_policy::{Action, admin};
use mayfly_verify::seq::Seq;

/// The requested state of an upstream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UpstreamStatus {
    /// Credentials are issued for the upstream.
    Active,
    /// Nothing is issued until the upstream is enabled.
    Disabled,
    /// Nothing is ever issued again.
    Retired,
}

/// An owner who leaves.
#[derive(Clone, Debug)]
pub struct OwnerDeparture {
    /// The owner's name in registrations.
    pub owner: String,
    /// The person, if the owner is one; the person's tasks and credentials end, and new ones are refused.
    pub person: Option<Principal>,
    /// The reason.
    pub reason: String,
}

/// The result of an owner's leaving.
#[derive(Clone, Debug)]
pub struct OwnerDepartureResult {
    /// The record; `None` for a dry run.
    pub seq: Option<Seq>,
    /// The names of the upstreams for which nothing is issued now.
    pub upstreams: Vec<String>,
    /// The counts of the objects that the change revoked, or for a dry run would revoke.
    pub hits: RevocationHits,
}

impl Authority {
    /// Registers an upstream, or puts a new version of its registration in effect. `read`: the version that the change is based on, 0 for
    /// none.
    ///
    /// A version that grants more than the one before needs a second operator (see [`mayfly_ledger::upstream::widening`]), and so does a
    /// change for which policy requires an approval.
    pub async fn set_upstream(
        &self,
        operator: &Operator,
        new: Upstream,
        read: u64,
        reason: &str,
        terms: &ChangeOptions,
    ) -> Result<DocumentChangeResult, Error> {
        // An operator who may register upstreams may learn that an environment does not exist.
        if self.catalog.now().policy(&new.environment).is_none() {
            let scope = self.scope::<admin::ManageUpstreams>(operator)?;
            self.may_be_registered(&new, |environment| scope.has(environment))?;
        }
        let of_new = ("upstream", new.name.as_str());
        let may = self.may_change_alone::<admin::ManageUpstreams>(operator, of_new, Some(&new.environment))?;
        let _one = self.changing.lock().await;
        if let Some(before) = self.document_changed_before((DocumentTable::Upstreams, &new.name), may.who(), terms).await? {
            return Ok(before);
        }
        self.may_be_registered(&new, |_| true)?;
        let old = self.standing_of(&new.name).await?;
        // Checked before the answer tells that an upstream of this name exists: moving it between environments needs rights in both.
        if let Some((old, _)) = &old {
            self.may_change_alone::<admin::ManageUpstreams>(operator, ("upstream", &old.name), Some(&old.environment))?;
        }
        match (&old, read) {
            (Some((_, now)), 0) if now.retired => {
                let what = format!("upstream {} was retired, and the name of a retired upstream stays taken", new.name);
                let no = Refusal::new(Reason::AlreadyExists, what);
                return Err(Error::Refusal(no.way_out("register it under another name")));
            }
            (Some((_, now)), 0) => {
                return Err(Error::Refusal(
                    Refusal::new(
                        Reason::AlreadyExists,
                        format!("upstream {} is registered, as version {}", new.name, now.version),
                    )
                    .way_out("mayfly upstream change FILE"),
                ));
            }
            (Some((_, now)), read) if now.version != read => {
                let what =
                    format!("version {} of {} is in force, the change was made from version {read}", now.version, new.name);
                return Err(Error::Refusal(Refusal::new(Reason::DecidedOnOldState, what)));
            }
            (None, 1..) => {
                return Err(Error::Refusal(Refusal::new(Reason::NotFound, format!("there is no upstream {}", new.name))));
            }
            (Some((old, version)), _) if *old == new => return Ok(DocumentChangeResult::unchanged(version.clone())),
            _ => {}
        }
        let (disabled, retired) = old.as_ref().map_or((false, false), |(_, v)| (!v.active && !v.retired, v.retired));
        let set = UpstreamUpdated {
            name: new.name.clone(),
            version: read + 1,
            digest: new.digest().to_vec(),
            text: new.to_text(),
            disabled,
            retired,
            looked: 0,
        };
        let why = self.widens(old.as_ref().map(|(old, _)| old), &new).await?;
        let permission = self.permission(operator, may, !why.is_empty())?;
        let asking = ApprovalRequest { environment: &new.environment, reason, why };
        let changed = self.change_document(set, permission, asking, terms, UpstreamUpdated::NARROWED).await?;
        // So that the first exchange after the answer finds the key that it needs. Otherwise the schedule makes it.
        if !terms.dry_run
            && let Err(error) = self.tend_passwords(&new.environment).await
        {
            tracing::warn!(%error, upstream = %new.name, "a key for passwords could not be made yet");
        }
        if !terms.dry_run
            && let Err(error) = self.tend_assertions(&new.environment).await
        {
            tracing::warn!(%error, upstream = %new.name, "a key for assertions could not be made yet");
        }
        Ok(changed)
    }

    /// The permissions of a registration that its previous version did not grant, in words.
    async fn widens(&self, old: Option<&Upstream>, new: &Upstream) -> Result<Vec<String>, Error> {
        let why = match old {
            Some(old) => {
                let compiled = self.catalog.now();
                let set = compiled.policy(&new.environment).map(|p| p.set.clone());
                let read = |path: &str| set.as_ref().is_none_or(|set| Action::ALL.iter().any(|a| set.reads(*a).may_read(path)));
                widening::widened(old, new, read)
            }
            None => {
                let retired = |s: &State| {
                    let claims = s.upstreams.values().filter(|v| v.retired).filter_map(|v| v.claims.as_ref());
                    claims.map(|c| (c.audience.to_string(), c.target.to_string())).collect::<Vec<_>>()
                };
                let retired = self.ledger.settled(retired).await?;
                let had = |audience: &str, target: &str| retired.iter().any(|(a, t)| a == audience || t == target);
                widening::takeover_reason(new, had).into_iter().collect()
            }
        };
        let of = |what: String| format!("{what} of upstream {}", new.name);
        let mut why: Vec<String> = why.into_iter().map(of).collect();
        // The approver of this change also accepts the trust that new approvers depend on.
        let before = old.map_or(&[][..], |old| &old.approvers[..]);
        let fresh = new.approvers.iter().filter(|one| !before.contains(one));
        let domains = fresh.filter_map(|one| match one {
            Approver::SpiffeId(id) => Some(id.trust_domain()),
            Approver::Person { .. } => None,
        });
        let domains: Vec<&str> = domains.collect();
        why.extend(self.roots_taken_in(|domain| domains.contains(&domain)));
        Ok(why)
    }

    /// Disables, enables or retires an upstream. `read`: the version that the change is based on; `None`: the version in effect.
    pub async fn set_upstream_state(
        &self,
        operator: &Operator,
        name: &str,
        (standing, read): (UpstreamStatus, Option<u64>),
        reason: &str,
        terms: &ChangeOptions,
    ) -> Result<DocumentChangeResult, Error> {
        let _one = self.changing.lock().await;
        let old = self.standing_of(name).await?;
        let environment = old.as_ref().map(|(u, _)| u.environment.clone());
        // An operator who may manage no upstreams must not learn which upstreams exist.
        let admitted = self.admit_to_found::<admin::ManageUpstreams>(operator, environment.as_deref())?;
        let (Some(admitted), Some((upstream, version))) = (admitted, old) else {
            return Err(Error::Refusal(Refusal::new(Reason::NotFound, format!("there is no upstream {name}"))));
        };
        let who = admitted.who();
        if let Some(before) = self.document_changed_before((DocumentTable::Upstreams, name), &who, terms).await? {
            return Ok(before);
        }
        let now = match (version.active, version.retired) {
            (_, true) => UpstreamStatus::Retired,
            (true, false) => UpstreamStatus::Active,
            (false, false) => UpstreamStatus::Disabled,
        };
        if now == standing {
            return Ok(DocumentChangeResult::unchanged(version));
        }
        if let Some(read) = read.filter(|read| *read != version.version) {
            let what = format!("version {} of {name} is in force, the change was made from version {read}", version.version);
            return Err(Error::Refusal(Refusal::new(Reason::DecidedOnOldState, what)));
        }
        let set = UpstreamUpdated {
            name: name.to_owned(),
            version: version.version + 1,
            digest: version.digest.to_vec(),
            text: version.text.to_string(),
            disabled: standing == UpstreamStatus::Disabled,
            retired: standing == UpstreamStatus::Retired,
            looked: 0,
        };
        let asking = ApprovalRequest { environment: &upstream.environment, reason, why: Vec::new() };
        self.change_document(set, ChangePermission::Yes(who), asking, terms, reason).await
    }

    /// Decides which credentials of an upstream may stay under its new registration. A removed scope has a revocation target of its own. A
    /// credential that policy refuses under the old registration too, as far as that is known, is not attributed to the change.
    fn look_of(&self, old: Option<Upstream>, new: Upstream) -> ExcessSearch {
        let set = self.catalog.now().policy(&new.environment).map(|p| p.set.clone());
        let (verdicts, access) = (self.decider.verdicts.clone(), self.decider.access.clone());
        let records = set.as_ref().is_some_and(|set| reads_records(set));
        let name = new.name.as_str().into();
        let judge: ExcessJudge = Arc::new(move |held, now| {
            if held.scopes.iter().any(|scope| new.scope(scope).is_none()) {
                return ExcessVerdict::Covered;
            }
            let by = (&*verdicts, &*access);
            let permits = |upstream: &Upstream| set.as_ref().is_some_and(|set| still_permits(by, set, upstream, held, now));
            let stays = held.within(&new, now) && (permits(&new) || old.as_ref().is_some_and(|old| !permits(old)));
            if stays { ExcessVerdict::Stays } else { ExcessVerdict::Goes }
        });
        ExcessSearch { among: NarrowedKind::Upstream, name, since: Seq::ZERO, records, judge }
    }

    /// Records that an owner of upstreams leaves: nothing is issued for these upstreams until another owner takes over, and what was issued
    /// for them is revoked.
    pub async fn offboard(
        &self,
        operator: &Operator,
        leaving: &OwnerDeparture,
        terms: &ChangeOptions,
    ) -> Result<OwnerDepartureResult, Error> {
        let OwnerDeparture { owner, reason, .. } = leaving;
        let _one = self.changing.lock().await;
        let upstreams = self.owned_by(owner).await?;
        let environments = match &leaving.person {
            None => self.environments_of_upstreams(&upstreams),
            // A person's credentials may be of any environment.
            Some(_) => Environments::Every,
        };
        let admitted = self.admit_in::<admin::ManageUpstreams>(operator, &environments)?;
        if leaving.person.is_some() {
            // Everything issued for the person is revoked, and the person is locked.
            self.admit::<admin::Revoke>(operator, None)?;
            self.admit::<admin::Lock>(operator, None)?;
        }
        let who = admitted.who();
        let targets: Vec<Target> = upstreams.iter().map(|u| Target::Upstream(u.as_str().into())).collect();
        if let Some(before) = self.remembered(&who.name(), &terms.named).await? {
            let hits = self.hit_before(&before, &terms.named).await?;
            return Ok(OwnerDepartureResult { seq: Some(before.seq), upstreams, hits });
        }
        let person: Vec<Target> =
            leaving.person.iter().map(|p| Target::Subject(p.issuer.as_str().into(), p.sub.as_str().into())).collect();
        let all: Vec<Target> = targets.iter().chain(&person).cloned().collect();
        let (hits, _) = self.hits(&all).await?;
        if terms.dry_run {
            return Ok(OwnerDepartureResult { seq: None, upstreams, hits });
        }
        if !terms.confirm.allows(hits.credentials) {
            return Err(confirm_needed(&hits, terms.confirm));
        }
        let left = OwnerLeft { owner: owner.clone(), reason: reason.clone(), returned: false };
        let view = self.ledger.view();
        let left = Record::new(who.clone(), Event::OwnerLeft(left))
            .decided_at(view.revision())
            .for_request(request_of(&who.name(), &terms.named));
        let mut records = self.narrowing(left, &who, &targets, reason);
        if !person.is_empty() {
            // The lock for the person, so that no new grants are made.
            records.push(self.takes_back(&who, &person, reason, false));
        }
        let lane = if records.len() > 1 { ProposalKind::Revoke } else { ProposalKind::Change };
        let receipt = self.ledger.commit(lane, records).await?;
        Ok(OwnerDepartureResult { seq: Some(receipt.first()), upstreams, hits })
    }

    /// Records that an owner is back: upstreams that nobody took over issue again.
    pub async fn owner_returned(
        &self,
        operator: &Operator,
        owner: &str,
        reason: &str,
        named: &IdempotencyKey,
    ) -> Result<(Seq, Vec<String>), Error> {
        let environments = self.environments_of_upstreams(&self.owned_by(owner).await?);
        let admitted = self.admit_in::<admin::ManageUpstreams>(operator, &environments)?;
        let back = OwnerLeft { owner: owner.to_owned(), reason: reason.to_owned(), returned: true };
        let seq = self.change(admitted.who(), ProposalKind::Change, Event::OwnerLeft(back), named).await?;
        Ok((seq, self.owned_by(owner).await?))
    }

    /// The environments of these upstreams. For an owner without upstreams they are unknown.
    fn environments_of_upstreams(&self, names: &[String]) -> Environments {
        let compiled = self.catalog.now();
        let of = |name: &String| compiled.upstream(name).map(|r| r.upstream.environment.clone());
        match names.iter().map(of).collect::<Option<BTreeSet<String>>>() {
            Some(environments) if !environments.is_empty() => Environments::Of(environments),
            _ => Environments::Every,
        }
    }

    /// The names of the upstreams of an owner.
    async fn owned_by(&self, owner: &str) -> Result<Vec<String>, Error> {
        let owned = |s: &State| {
            let of = |v: &DocumentVersion| !v.retired && v.claims.as_ref().is_some_and(|c| *c.owner == *owner);
            s.upstreams.iter().filter(|(_, v)| of(v)).map(|(name, _)| name.to_string()).collect()
        };
        self.ledger.settled(owned).await
    }

    /// Checks that this server can serve a registration. `visible`: whether the operator may learn of an environment.
    fn may_be_registered(&self, new: &Upstream, visible: impl Fn(&str) -> bool) -> Result<(), Error> {
        let compiled = self.catalog.now();
        let mut wrong = Vec::new();
        if compiled.policy(&new.environment).is_none() {
            let known: Vec<&str> = compiled.environments().map(|(name, _)| name).filter(|name| visible(name)).collect();
            wrong.push((
                "upstream.environment".to_owned(),
                format!("{} has no policy set; there are {}", new.environment, known.join(", ")),
            ));
        }
        // An environment that is served but has no policy set is a different error than one that the configuration does not name.
        if wrong.is_empty() && !self.decider.serves(&new.environment) {
            let what = format!("{} is not in server.environments: this server does not serve it", new.environment);
            wrong.push(("upstream.environment".to_owned(), what));
        }
        if new.expires <= self.system.wall() {
            wrong.push(("upstream.expires_at".to_owned(), format!("{} is past", new.expires)));
        }
        if wrong.is_empty() { Ok(()) } else { Err(Error::Refusal(Refusal::fields(wrong))) }
    }

    /// A durable registration in effect.
    pub(crate) async fn standing_of(&self, name: &str) -> Result<Option<(Upstream, Arc<DocumentVersion>)>, Error> {
        let Some(version) = self.document(DocumentTable::Upstreams, name).await? else { return Ok(None) };
        Ok(Some((registered(&version)?, version)))
    }
}

impl ManagedDocument for UpstreamUpdated {
    const NARROWED: &'static str = "the registration was narrowed";

    fn coarse(name: &str, _: u64) -> Target {
        Target::Upstream(name.into())
    }

    async fn takes(&self, authority: &Authority) -> Result<CausedRevocation, Error> {
        let new = Upstream::from_text(&self.text).map_err(|e| Fault::new(format!("a registration that was asked for: {e}")))?;
        Ok(match authority.standing_of(&self.name).await? {
            None => CausedRevocation::Nothing,
            // A disabled or retired upstream keeps no credential, including those issued in the meantime, so no decision per credential is
            // needed.
            Some((_, before)) if self.disabled || self.retired => match before.active {
                true => CausedRevocation::All,
                false => CausedRevocation::Nothing,
            },
            Some((old, _)) if old.other_credentials(&new) => CausedRevocation::All,
            Some((old, before)) if before.active => {
                let gone = scopes_gone(&old, &new);
                CausedRevocation::Found(authority.look_of(Some(old), new), gone)
            }
            Some(_) => CausedRevocation::Nothing,
        })
    }

    async fn search(authority: &Authority, _: &str, version: &DocumentVersion) -> Result<ExcessSearch, Error> {
        Ok(authority.look_of(None, registered(version)?))
    }
}

/// The registration in a version of the ledger.
pub fn registered(version: &DocumentVersion) -> Result<Upstream, Fault> {
    Upstream::from_text(&version.text).map_err(|e| Fault::new(format!("a registration in the ledger: {e}")))
}

/// The targets for scopes that a registration no longer has.
fn scopes_gone(old: &Upstream, new: &Upstream) -> Vec<Target> {
    let gone = old.scopes.iter().filter(|s| new.scope(&s.name).is_none());
    gone.map(|s| Target::UpstreamScope(old.name.as_str().into(), s.name.as_str().into())).collect()
}
