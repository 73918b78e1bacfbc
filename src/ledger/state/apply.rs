//! Applies valid records to the state.

use std::sync::Arc;

use super::tasks::{TaskClosure, TaskHold};
use super::{
    Approval, BundleState, DocumentVersion, ExpiringEntry, FoldInput, Issuance, Lease, ManagedKey, RegistrationFields,
    RemovedHistory, RequestKey, SnapshotRef, State, hash_of,
};
use crate::record::{
    ApprovalRequested, Author, BundleUpdated, DeadlineReached, DocumentFields, DocumentTable, Event, GenerationBegun, HoldRank,
    KeyAdded, KeyPurpose, KeyState, LeaseOpened, NarrowingCompleted, OwnerLeft, Record, TargetsRevoked, TaskClosed, TaskOutcome,
};
use crate::revocation::{Rules, Target};
use mayfly_base::limits;
use mayfly_verify::seq::{ApprovalId, CredentialId, LeaseId, Millis, Seq, TaskId};

pub(super) fn author(record: &Record) -> Option<Box<Author>> {
    record.author.as_ref().and_then(|a| a.who.clone()).map(Box::new)
}

impl State {
    /// Applies a record that was found valid. Its seq is the head.
    pub fn apply(&mut self, judged: &impl FoldInput) {
        let (seq, now) = (self.head, self.time);
        let record = judged.record();
        let request = judged.request();
        let Some(event) = &record.event else { return };
        // A credential stores its own request; every other request is remembered here.
        match event {
            Event::Issued(_) => {}
            Event::TaskOpened(opened) => self.remember(record, request, &opened.task),
            Event::TaskClosed(closed) => self.remember(record, request, &closed.task),
            _ => self.remember(record, request, &[0; 16]),
        }
        match event {
            Event::GenerationBegun(e) => self.begin_generation(e),
            Event::TaskOpened(e) => {
                if let Some(id) = TaskId::from_slice(&e.task) {
                    self.tasks.open(e, id, seq, record.revision(), self.time);
                    self.open_break_glass(e, record);
                    self.descends(&e.ancestor, Millis(e.max_deadline));
                    for ancestor in &e.ancestors {
                        self.descends(&ancestor.credential, Millis(e.max_deadline));
                    }
                }
            }
            Event::TaskClosed(e) => self.close(e, record),
            Event::TaskHeld(e) => {
                if let Some(task) = TaskId::from_slice(&e.task).and_then(|id| self.tasks.get_mut(&id)) {
                    let rank = HoldRank::try_from(e.rank).unwrap_or(HoldRank::Operator);
                    task.holds.push(TaskHold { rank, reason: e.reason.as_str().into(), seq, by: author(record), since: now });
                }
            }
            Event::TaskResumed(e) => {
                let rank = HoldRank::try_from(e.rank).unwrap_or(HoldRank::Unspecified);
                if let Some(task) = TaskId::from_slice(&e.task).and_then(|id| self.tasks.get_mut(&id)) {
                    task.holds.retain(|h| !h.lifted_by(rank, record.revision()));
                }
            }
            Event::TaskExtended(e) => self.extend(e),
            Event::TaskHeartbeats(e) => {
                let now = self.time;
                for id in e.tasks.iter().filter_map(|t| TaskId::from_slice(t)) {
                    if let Some(task) = self.tasks.get_mut(&id).filter(|t| t.closed.is_none() && !t.silent(now)) {
                        task.alive_at = now;
                    }
                }
                if e.all {
                    self.tasks.all_alive(Millis(e.away_since).min(now), now);
                }
            }
            Event::Issued(e) => self.issue(judged.issuance(e), record, request),
            Event::Released(e) => {
                if let Some(id) = CredentialId::from_slice(&e.credential) {
                    let end = self.credentials.release(&id).unwrap_or_default();
                    let end = end.max(self.descent.get(&id).copied().unwrap_or_default());
                    let until = Millis(e.keep_until).max(Rules::outlasting(end));
                    self.rules.add(&Target::Credential(id), Some(seq), None, until);
                    self.count_caller_rule(record, until);
                }
            }
            Event::Authorized(e) => self.authorized(e),
            Event::UsesReported(e) => self.used(e),
            Event::Refused(e) => self.refusals += e.count,
            Event::Revoked(e) => self.revoke(e, record),
            Event::LockLifted(e) => {
                for target in e.targets.iter().filter_map(|t| Target::from_record(t).ok()) {
                    self.rules.lift(&target);
                }
            }
            _ => self.apply_registry(event, record, author(record)),
        }
    }

    /// `by`: the author of the change.
    pub(super) fn apply_registry(&mut self, event: &Event, record: &Record, by: Option<Box<Author>>) {
        let (seq, at) = (self.head, self.time);
        if let Some(document) = event.document() {
            return self.put_document(&document, by);
        }
        match event {
            Event::OwnerLeft(e) => self.owner_left(e, at),
            Event::Narrowed(e) => {
                if let Some(version) = self.version_mut(e) {
                    Arc::make_mut(version).narrows = None;
                }
            }
            Event::BundleSet(e) => self.set_bundle(e),
            Event::KeyAdded(e) => self.add_key(e),
            Event::KeyChanged(e) => {
                let state = KeyState::try_from(e.state).unwrap_or(KeyState::Compromised);
                self.change_key(&e.key, state);
                let target = Target::SigningKey(e.key.as_str().into());
                // A compromised key is revoked whichever record says so: everything it signed is refused, whatever decision revision it
                // claims. If a revocation of the key came earlier in the group, the rule keeps that record's seq, which is the one in the
                // answer; a key's rule covers everything anyway.
                if state == KeyState::Compromised && self.rules.get(&target).is_none_or(|e| e.revoked == Seq::ZERO) {
                    self.rules.add(&target, Some(seq), None, Millis(u64::MAX));
                }
            }
            Event::LeaseOpened(e) => self.open_lease(e),
            Event::LeaseClosed(e) => {
                if let Some(id) = LeaseId::from_slice(&e.lease) {
                    self.leases.remove(&id);
                    self.lease_terms.remove(&id);
                }
            }
            Event::SecretStored(e) => {
                let secret = self.secrets.entry(e.upstream.as_str().into()).or_default();
                Arc::make_mut(secret).store(e, by, (seq, at));
            }
            Event::SecretChanged(e) => {
                if let Some(secret) = self.secrets.get_mut(e.upstream.as_str()) {
                    Arc::make_mut(secret).change(e, (seq, at));
                }
            }
            Event::ApprovalAsked(e) => {
                if let Some(id) = ApprovalId::from_slice(&e.approval) {
                    let asked = Arc::new(ApprovalRequested::clone(e));
                    let approval = Approval { asked, asked_at: at, seq, decided: None, used: false, due_told: false };
                    self.ends.after(approval.expires_at().plus(limits::REQUEST_ID_KEPT_MS), ExpiringEntry::Approval(id));
                    self.approvals.insert(id, approval);
                    self.waits_for(id, e);
                }
            }
            Event::ApprovalDecided(e) => self.decide(e, record),
            Event::BreakGlass(e) => self.break_glass_step(e, record),
            Event::FellDue(e) => self.fell_due(e),
            Event::UsedOnce(e) => {
                if let Some(approval) = ApprovalId::from_slice(&e.approval).and_then(|id| self.approvals.get_mut(&id)) {
                    (approval.used, approval.seq) = (true, seq);
                }
                self.used_once.insert(hash_of(&e.digest), Millis(e.until));
                self.ends.after(Millis(e.until), ExpiringEntry::UsedOnce(hash_of(&e.digest)));
            }
            Event::SnapshotTaken(e) => {
                if let Some(taken) = SnapshotRef::of(e) {
                    self.snapshot_before = self.snapshot.replace(taken);
                }
            }
            Event::HistoryRemoved(e) => self.removed = RemovedHistory::of(e),
            Event::LoggedIn(e) => self.log_in(e, record.revision()),
            Event::LoggedOut(e) => self.log_out(&e.credential),
            _ => {}
        }
    }

    fn put_document(&mut self, document: &DocumentFields<'_>, by: Option<Box<Author>>) {
        let claims = match document.table {
            DocumentTable::Upstreams => RegistrationFields::of(document.text),
            _ => None,
        };
        let version = DocumentVersion {
            owner_left: claims.as_ref().is_some_and(|c| self.owners_left.contains_key(&c.owner)),
            claims,
            narrows: Seq::from_u64(document.looked).filter(|s| *s > Seq::ZERO),
            ..DocumentVersion::of(document, (self.head, self.time), by)
        };
        self.documents_mut(document.table).insert(document.name.into(), Arc::new(version));
    }

    fn fell_due(&mut self, e: &DeadlineReached) {
        if let Some(approval) = ApprovalId::from_slice(&e.id).and_then(|id| self.approvals.get_mut(&id)) {
            approval.due_told = true;
        }
        if let Some(version) = self.upstreams.get_mut(e.name.as_str()) {
            Arc::make_mut(version).due_told = true;
        }
    }

    fn version_mut(&mut self, e: &NarrowingCompleted) -> Option<&mut Arc<DocumentVersion>> {
        let table = DocumentTable::narrowed(e.what)?;
        self.documents_mut(table).get_mut(e.name.as_str()).filter(|v| v.version == e.version)
    }

    /// Upstreams of an owner who left issue nothing until another owner takes over, or the owner returns.
    fn owner_left(&mut self, e: &OwnerLeft, at: Millis) {
        match e.returned {
            true => drop(self.owners_left.remove(e.owner.as_str())),
            false => drop(self.owners_left.insert(e.owner.as_str().into(), at)),
        }
        for version in self.upstreams.values_mut() {
            if version.claims.as_ref().is_some_and(|c| *c.owner == *e.owner) {
                Arc::make_mut(version).owner_left = !e.returned;
            }
        }
    }

    /// Everything issued before is revoked; unused approvals, open tasks and break-glass are void. Locks, leases and key rules stay.
    fn begin_generation(&mut self, e: &GenerationBegun) {
        self.store = e.store.as_slice().try_into().unwrap_or_default();
        if e.generation == 1 || e.reset_time {
            self.time_generation = self.head.generation();
        }
        if e.generation == 1 {
            return;
        }
        // The rule on everything revokes by its seq. Credentials decided before it cannot be accepted again, so they need not stay in
        // memory. The rule stays for good: if time begins earlier, credentials of the previous generation may expire at any time.
        self.rules.add(&Target::Everything, Some(self.head), None, Millis(u64::MAX));
        self.credentials = super::Credentials::default();
        self.tasks = super::Tasks::default();
        self.approvals.clear();
        self.break_glass_tasks.void(self.time, self.head);
        self.requests.clear();
        self.descent.clear();
        self.grounds = super::SupportingGrants::default();
        self.logins.clear();
        self.logins_by_caller.clear();
        self.rules_by_caller.clear();
        // The entries behind these end times are gone; a leftover end time would remove a new entry with the same name.
        self.ends.retain(|end| matches!(end, ExpiringEntry::UsedOnce(_)));
        for lease in self.leases.values_mut() {
            Arc::make_mut(lease).issued = false;
        }
    }

    fn issue(&mut self, issuance: Issuance<'_>, record: &Record, request: Option<RequestKey>) {
        let e = issuance.shared;
        let Some(id) = CredentialId::from_slice(issuance.credential) else { return };
        let Some(task) = TaskId::from_slice(&e.task).and_then(|t| self.tasks.slot_of(&t)) else { return };
        if let Some(first) = CredentialId::from_slice(&e.replaces) {
            self.credentials.unbind(&first);
        }
        self.credentials.add(issuance, id, request.is_some(), (self.position, self.head, record.revision()), task);
        self.tasks.count_issued(task, Millis(e.expires_at));
        self.issued += 1;
        self.break_glass_tasks.uses += u64::from(e.break_glass);
        for ancestor in &e.ancestors {
            self.descends(&ancestor.credential, Millis(e.expires_at));
        }
        self.used_to_issue(e);
        if let Some(lease) = LeaseId::from_slice(&e.lease).and_then(|l| self.leases.get_mut(&l)) {
            Arc::make_mut(lease).issued = true;
        }
    }

    fn close(&mut self, e: &TaskClosed, record: &Record) {
        let Some(id) = TaskId::from_slice(&e.task) else { return };
        let (now, seq) = (self.time, self.head);
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let outcome = TaskOutcome::try_from(e.outcome).unwrap_or(TaskOutcome::Revoked);
        task.closed = Some(TaskClosure { outcome, reason: e.reason.as_str().into(), at: now, seq, by: author(record) });
        let issued = task.issued_under > 0;
        self.break_glass_tasks.ended(&id, now, seq);
        // Nothing is issued under the task any more, so the rule only concerns what was issued. It is not dropped before the last view that
        // could precede it.
        let until = Millis(e.keep_until).max(Rules::outlasting(task.ends_under.max(now)));
        self.tasks.closed(id, now);
        // If nothing was issued under the task, verifiers need no rule.
        if issued {
            self.rules.add(&Target::Task(id), Some(seq), None, until);
            self.count_caller_rule(record, until);
        }
    }

    fn revoke(&mut self, e: &TargetsRevoked, record: &Record) {
        let seq = self.head;
        let until = Millis(e.keep_until).max(Rules::keep_until(self.time));
        for target in e.targets.iter().filter_map(|t| Target::from_record(t).ok()) {
            let lock = (e.lock_only || (target.sort().locks() && !e.issued_only)).then_some(seq);
            let revoked = (!e.lock_only).then_some(seq);
            self.rules.add(&target, revoked, lock, until);
            if !e.lock_only {
                self.close_revoked(&target, &e.reason, record);
                if let Target::SigningKey(key) = &target {
                    self.change_key(key, KeyState::Compromised);
                }
            }
        }
    }

    /// Removes a key from the JWKS at once.
    fn change_key(&mut self, key: &str, state: KeyState) {
        let (now, seq) = (self.time, self.head);
        if let Some(key) = self.keys.get_mut(key) {
            key.state = state;
            (key.since, key.seq) = (now, seq);
            if state == KeyState::Active {
                key.active_from = now;
            }
        }
    }

    /// Closes a task that is revoked by name, so that lists show it as over.
    fn close_revoked(&mut self, target: &Target, reason: &str, record: &Record) {
        let (now, seq) = (self.time, self.head);
        if let Target::Task(id) = target
            && let Some(task) = self.tasks.get_mut(id)
            && task.closed.is_none()
        {
            task.closed =
                Some(TaskClosure { outcome: TaskOutcome::Revoked, reason: reason.into(), at: now, seq, by: author(record) });
            self.tasks.closed(*id, now);
            self.break_glass_tasks.ended(id, now, seq);
        }
    }

    fn set_bundle(&mut self, e: &BundleUpdated) {
        let before = self.bundles.get(e.trust_domain.as_str()).and_then(|b| b.sequence);
        let bundle = BundleState {
            // Also when the bundle is removed: if the trust domain returns, its sequence continues above the last one seen.
            sequence: e.sequence.max(before),
            anchors: e.anchors.iter().map(|a| hash_of(a)).collect(),
            digest: hash_of(&e.digest),
            document: e.document.as_slice().into(),
            source: e.source.as_str().into(),
            removed: e.removed,
            kept_out: e.kept_out.iter().map(|a| hash_of(a)).collect(),
            kept_in: e.kept_in.iter().map(|a| hash_of(a)).collect(),
            seq: self.head,
            changed_at: self.time,
        };
        self.bundles.insert(e.trust_domain.as_str().into(), bundle);
    }

    fn add_key(&mut self, e: &KeyAdded) {
        let state = KeyState::try_from(e.state).unwrap_or(KeyState::Removed);
        let key = ManagedKey {
            purpose: KeyPurpose::try_from(e.purpose).unwrap_or(KeyPurpose::Unspecified),
            algorithm: e.algorithm.as_str().into(),
            public: e.public.as_slice().into(),
            environment: e.environment.as_str().into(),
            state,
            since: self.time,
            publish_ahead: e.publish_ahead,
            created_at: self.time,
            active_from: if state == KeyState::Active { self.time } else { Millis(0) },
            seq: self.head,
        };
        self.keys.insert(e.key.as_str().into(), key);
    }

    fn open_lease(&mut self, e: &LeaseOpened) {
        let (Some(id), Some(credential), Some(task)) =
            (LeaseId::from_slice(&e.lease), CredentialId::from_slice(&e.credential), TaskId::from_slice(&e.task))
        else {
            return;
        };
        let lease = Lease {
            credential,
            task,
            upstream: e.upstream.as_str().into(),
            kind: e.kind,
            handle: e.handle.as_str().into(),
            ends_at: Millis(e.ends_at),
            opened_at: self.time,
            issued: false,
        };
        self.lease_terms.insert(id, &e.terms);
        self.leases.insert(id, Arc::new(lease));
    }
}
