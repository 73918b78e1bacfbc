//! Verdicts on all records other than task openings and issuances.

use super::super::tasks::Task;
use super::super::{RegistrationFields, State, Verdict};
use super::authorize::used;
use super::{GroupEffects, malformed, stale};
use crate::record::{
    Author, BundleUpdated, DocumentFields, DocumentTable, Event, HistoryRemoved, HoldRank, NarrowedKind, Record, TaskOutcome,
};
use crate::revocation::Target;
use mayfly_base::limits;
use mayfly_base::refusal::{Reason, Refusal};
use mayfly_verify::seq::{CredentialId, LeaseId, Millis, Seq, TaskId};

impl State {
    pub(super) fn may_change<'a>(
        &'a self,
        event: &'a Event,
        record: &Record,
        time: Millis,
        pending: &mut GroupEffects<'a>,
    ) -> Verdict {
        self.outside_break_glass(event, record, time)?;
        match event {
            Event::TaskClosed(e) => {
                self.known_task(&e.task, |t| t.closed.is_none(), "is over already")?;
                match TaskOutcome::try_from(e.outcome) {
                    Ok(TaskOutcome::Unspecified) | Err(_) => Err(malformed("an unknown outcome")),
                    // A heartbeat that came first in the order was answered: the task is alive.
                    Ok(TaskOutcome::Expired) => self.known_task(&e.task, |t| time >= t.ends(), "showed life meanwhile"),
                    Ok(_) => Ok(()),
                }
            }
            Event::TaskHeld(e) => {
                let rank = known_rank(e.rank)?;
                let free = |t: &Task| t.closed.is_none() && !t.holds.iter().any(|h| h.rank == rank);
                self.known_task(&e.task, free, "is over or held already")
            }
            Event::TaskResumed(e) => {
                let rank = known_rank(e.rank)?;
                let within = |t: &Task| t.closed.is_none() && t.holds.iter().any(|h| h.lifted_by(rank, record.revision()));
                self.known_task(&e.task, within, "has no hold that this rank may lift, or none that the decision saw")
            }
            Event::TaskExtended(e) => self.may_extend(e, record.revision(), time, pending),
            Event::Released(e) => self.may_release(&e.credential, time, pending),
            Event::Revoked(e) => {
                for target in targets_known(&e.targets)? {
                    if e.lock_only && !target.sort().locks() {
                        return Err(Refusal::field("targets", format!("{target} cannot be locked, only revoked")));
                    }
                }
                Ok(())
            }
            Event::LockLifted(e) => {
                for target in targets_known(&e.targets)? {
                    match self.rules.get(&target).and_then(|entry| entry.lock) {
                        None => return Err(Refusal::new(Reason::NotFound, format!("there is no lock on {target}"))),
                        // Somebody locked the target again, for a reason that the author of the lifting has not seen.
                        Some(lock) if lock > record.revision() => {
                            return Err(stale(format!("the lock on {target} was renewed at seq {lock}")));
                        }
                        Some(_) => {}
                    }
                }
                Ok(())
            }
            Event::PolicySet(_) | Event::BindingSet(_) | Event::UpstreamSet(_) => self.may_take_effect(event),
            Event::Narrowed(e) => {
                let what = NarrowedKind::try_from(e.what);
                let open = self.narrowing().into_iter().find(|(w, name, _)| Ok(*w) == what && **name == *e.name);
                match open {
                    Some((_, _, version)) if version.version == e.version => Ok(()),
                    _ => Err(stale(format!("version {} of {} has nothing to look for", e.version, e.name))),
                }
            }
            Event::OwnerLeft(e) => match (e.owner.is_empty(), self.owners_left.contains_key(e.owner.as_str()) == e.returned) {
                (true, _) => Err(malformed("an owner without a name")),
                (false, true) => Ok(()),
                (false, false) if e.returned => Err(Refusal::new(Reason::NotFound, format!("owner {} has not left", e.owner))),
                (false, false) => Err(Refusal::new(Reason::AlreadyExists, format!("owner {} has left already", e.owner))),
            },
            Event::BundleSet(e) => self.may_set_bundle(e, record),
            Event::KeyAdded(e) => self.may_add_key(e, pending),
            Event::KeyChanged(e) => self.may_change_key(e, pending),
            _ => self.may_note(event, record, time, pending),
        }
    }

    /// Whether a change may take effect, made by one person alone or with another person's approval.
    pub(super) fn may_take_effect(&self, event: &Event) -> Verdict {
        if let Event::BundleSet(e) = event {
            return self.bundle_may_follow(e);
        }
        let document = event.document().ok_or_else(|| malformed("a change that nobody approves"))?;
        self.document_may_follow(&document)?;
        match document.table {
            DocumentTable::Upstreams if !document.retired => self.may_register(&document),
            _ => Ok(()),
        }
    }

    /// A document must be the next version of its name, and the name must not be retired.
    fn document_may_follow(&self, document: &DocumentFields<'_>) -> Verdict {
        let table = self.documents(document.table);
        let now = table.get(document.name);
        if now.is_some_and(|v| v.retired) {
            return Err(Refusal::new(Reason::UpstreamNotActive, format!("upstream {} was retired for good", document.name)));
        }
        let (version, next) = (document.version, now.map_or(0, |v| v.version) + 1);
        if version != next {
            return Err(stale(format!("version {next} would come next, not {version}")));
        }
        match document.table.limit() {
            Some((name, limit)) if now.is_none() && table.len() >= limit => {
                Err(Refusal::limit(name, limit as u64, std::time::Duration::ZERO))
            }
            _ => Ok(()),
        }
    }

    /// A registration must keep its environment, and have an audience and a target that no other upstream has: with two registrations of one
    /// target, the narrower one would protect nothing.
    fn may_register(&self, e: &DocumentFields<'_>) -> Verdict {
        let Some(claims) = RegistrationFields::of(e.text) else { return Ok(()) };
        let now = self.upstreams.get(e.name);
        if let Some(before) = now.and_then(|v| v.claims.as_ref())
            && before.environment != claims.environment
        {
            let what = format!("upstream {} belongs to {}, for good: register another one", e.name, before.environment);
            return Err(Refusal::field("upstream.environment", what));
        }
        let others = self.upstreams.iter().filter(|(name, v)| ***name != *e.name && !v.retired);
        for (name, other) in others.filter_map(|(name, v)| Some((name, v.claims.as_ref()?))) {
            for (what, same, value) in [
                ("audience", other.audience == claims.audience, &claims.audience),
                ("target", other.target == claims.target, &claims.target),
            ] {
                if same {
                    let what = format!("upstream {} has the same {what} as upstream {name}: {value}", e.name);
                    return Err(Refusal::new(Reason::AlreadyExists, what));
                }
            }
        }
        Ok(())
    }

    fn may_release<'a>(&self, credential: &'a [u8], time: Millis, pending: &mut GroupEffects<'a>) -> Verdict {
        let id = CredentialId::from_slice(credential).ok_or_else(|| malformed("a credential id that is not 16 bytes"))?;
        match self.credentials.get(&id) {
            Some(live) if !live.released() && live.expires_at() > time && !pending.released.contains(&credential) => {
                pending.released.push(credential);
                Ok(())
            }
            _ => Err(Refusal::new(Reason::CredentialNotActive, format!("credential {id} is not live"))),
        }
    }

    fn may_note<'a>(&'a self, event: &'a Event, record: &Record, time: Millis, pending: &mut GroupEffects<'a>) -> Verdict {
        match event {
            Event::LeaseOpened(e) => {
                let id = LeaseId::from_slice(&e.lease).ok_or_else(|| malformed("a lease id that is not 16 bytes"))?;
                if self.leases.contains_key(&id) || pending.leases.iter().any(|l| l.lease == e.lease) {
                    return Err(stale(format!("lease {id} exists already")));
                }
                // A task opened in the same group as the issuance is not in the state yet: the issuance's verdict covers it.
                let id = TaskId::from_slice(&e.task).ok_or_else(|| malformed("a task id that is not 16 bytes"))?;
                let opened = pending.tasks.iter().find(|t| t.task == e.task);
                if opened.map_or(self.tasks.get(&id).is_some(), |t| !t.approval.is_empty()) {
                    self.active_task(&e.task, time)?;
                }
                pending.leases.push(e);
                Ok(())
            }
            Event::LeaseClosed(e) => match LeaseId::from_slice(&e.lease).and_then(|id| self.leases.get(&id)) {
                Some(_) => Ok(()),
                None => Err(Refusal::new(Reason::NotFound, "there is no such open lease")),
            },
            Event::SecretStored(_) | Event::SecretChanged(_) => self.may_change_secret(event, pending),
            Event::ApprovalAsked(e) => self.may_ask(e, time, pending),
            Event::ApprovalDecided(e) => self.may_decide(e, record, time),
            Event::FellDue(e) => self.may_fall_due(e, time),
            Event::BreakGlass(e) => self.may_break_glass(e, record, time, pending),
            Event::UsedOnce(e) if !e.approval.is_empty() && self.may_use_for_call(&e.approval, record, time).is_err() => {
                self.may_use_for_call(&e.approval, record, time)
            }
            Event::UsedOnce(e) => match <[u8; 32]>::try_from(&e.digest[..]) {
                Ok(digest) if !self.used_once.contains_key(&digest) && !pending.used_once.contains(&&e.digest[..]) => {
                    pending.used_once.push(&e.digest);
                    Ok(())
                }
                _ => Err(Refusal::new(Reason::EvidenceRevoked, "this evidence may be used only once and was used before")),
            },
            Event::GenerationBegun(e) => {
                // Generation numbers may be skipped: a store that was restored continues above all numbers that were seen from it.
                let above = self.head == Seq::ZERO || e.generation > u32::from(self.head.generation());
                match <[u8; 16]>::try_from(&e.store[..]) {
                    Ok(store) if store != [0; 16] && above && (1..=255).contains(&e.generation) => Ok(()),
                    _ => Err(malformed("a generation out of turn, or without a store")),
                }
            }
            Event::HistoryRemoved(e) => self.may_remove(e),
            Event::Authorized(e) => self.may_authorize(e, record.revision(), time, pending),
            Event::UsesReported(e) => used(e),
            Event::LoggedIn(e) => self.may_log_in(e, record.revision(), time, pending),
            Event::LoggedOut(e) => self.may_log_out(e),
            _ => Ok(()),
        }
    }

    /// History is removed from its beginning on, and only what a snapshot covers, so that a start remains possible.
    fn may_remove(&self, e: &HistoryRemoved) -> Verdict {
        let covered = self.snapshot.map_or(0, |s| s.position + 1);
        if e.before <= self.removed.before.max(1) || e.before > covered || e.seq > self.head.as_u64() || e.bytes > self.bytes {
            let what =
                format!("commits before {} cannot be removed: {} are gone, {covered} covered", e.before, self.removed.before);
            return Err(stale(what));
        }
        if e.chains.is_empty() || e.chains.iter().any(|c| c.header.len() != 32 || !self.writers.contains_key(&c.writer)) {
            return Err(malformed("a removal that does not say where each chain stands"));
        }
        Ok(())
    }

    /// Whether a bundle may follow the one in effect, whoever sets it.
    fn bundle_may_follow(&self, e: &BundleUpdated) -> Verdict {
        let before = self.bundles.get(e.trust_domain.as_str());
        if let Some(seen) = before.and_then(|b| b.sequence)
            && !e.removed
            && e.sequence.is_none_or(|s| s < seen)
        {
            return Err(Refusal::field(
                "spiffe_sequence",
                format!("must not be lower than {seen}, which was seen before, and must not be missing"),
            ));
        }
        // The change waited for a second person, who was shown its difference from that bundle and from no other.
        let in_force = before.map_or(0, |b| b.seq.as_u64());
        match e.planned_on.is_some_and(|on| on != in_force) {
            true => Err(stale(format!("the bundle of {} changed since the change was asked for: ask anew", e.trust_domain))),
            false => Ok(()),
        }
    }

    fn may_set_bundle(&self, e: &BundleUpdated, record: &Record) -> Verdict {
        self.bundle_may_follow(e)?;
        let before = self.bundles.get(e.trust_domain.as_str());
        if let Some(before) = before {
            // A change made from another bundle than the one in effect would bring back a root that was removed in the meantime.
            if before.seq > record.revision() {
                return Err(stale(format!("the bundle of {} changed at seq {}", e.trust_domain, before.seq)));
            }
            let by_source = matches!(record.author.as_ref().and_then(|a| a.who.as_ref()), Some(Author::Mayfly(_)) | None);
            if by_source && before.kept_out.iter().any(|id| !e.kept_out.iter().any(|k| k[..] == id[..])) {
                return Err(malformed("a root that an operator removed, and that no operator added"));
            }
        }
        match e.anchors.iter().any(|a| e.kept_out.contains(a)) {
            true => Err(malformed("a root that is trusted and kept out")),
            false => Ok(()),
        }
    }
}

fn targets_known(targets: &[crate::record::TargetRecord]) -> Result<Vec<Target>, Refusal> {
    if targets.is_empty() || targets.len() > limits::TARGETS {
        return Err(Refusal::field("targets", format!("1 to {} of them, not {}", limits::TARGETS, targets.len())));
    }
    targets.iter().map(|t| Target::from_record(t).map_err(|e| Refusal::field("targets", e))).collect()
}

fn known_rank(rank: i32) -> Result<HoldRank, Refusal> {
    match HoldRank::try_from(rank) {
        Ok(HoldRank::Unspecified) | Err(_) => Err(malformed("an unknown rank")),
        Ok(rank) => Ok(rank),
    }
}
