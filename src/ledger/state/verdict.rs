//! The fold's verdict: does this group of records take effect at this place in the order?
//!
//! It compares versions, times and rules; it does not run policy. What happens once (an approval, a request id, a credential id) is
//! decided here and nowhere else.

use super::tasks::{Phase, Task};
use super::{State, Verdict, add_lineage, request_key, svid_facts, trust_domain_of};
use crate::ledger::record::{Allowance, Event, HoldRank, Issued, KeyState, Record, Request, TaskOpened};
use crate::limits;
use crate::refusal::{Reason, Refusal};
use crate::revocation::{Facts, Hit, Target};
use crate::seq::{ApprovalId, CredentialId, LeaseId, Millis, Seq, TaskId};

/// What earlier records of the same group would add, were it valid.
#[derive(Default)]
struct Pending<'a> {
    task: Option<&'a TaskOpened>,
    credentials: Vec<&'a [u8]>,
    requests: Vec<[u8; 16]>,
    approvals: Vec<&'a [u8]>,
    leases: Vec<&'a [u8]>,
    keys: Vec<&'a str>,
}

fn stale(what: impl Into<String>) -> Refusal {
    Refusal::new(Reason::DecidedOnOldState, what)
}

fn malformed(what: &str) -> Refusal {
    Refusal::new(Reason::InvalidField, format!("a record with {what}"))
}

fn over(task: &TaskId, phase: Phase) -> Refusal {
    let what = match phase {
        Phase::PendingApproval => "waits for an approval".to_owned(),
        Phase::Held => "is held".to_owned(),
        Phase::Over(outcome) => format!("is over ({})", format!("{outcome:?}").to_lowercase()),
        Phase::Active => "is active".to_owned(),
    };
    Refusal::new(Reason::TaskNotActive, format!("task {task} {what}"))
}

/// The refusal that a rule makes.
pub(crate) fn refused_by(hit: &Hit, what: &str) -> Refusal {
    let reason = if hit.lock {
        Reason::Locked
    } else if matches!(hit.target, Target::Svid(..) | Target::SubjectToken(..)) {
        Reason::EvidenceRevoked
    } else {
        Reason::Revoked
    };
    let verb = if hit.lock { "blocks new grants" } else { "was revoked" };
    let no = Refusal::new(reason, format!("{what} is refused: {} {verb} at seq {}", hit.target, hit.seq))
        .by(format!("seq {}", hit.seq));
    if hit.lock { no.way_out(format!("an operator lifts it: mayfly lock lift '{}'", hit.target)) } else { no }
}

/// The version of an environment's policy set in force, 0 where it has none.
pub fn policy_in_force(state: &State, environment: &str) -> u64 {
    state.policies.get(environment).map_or(0, |v| v.version)
}

impl State {
    /// Whether a group takes effect here. The state is not changed.
    pub fn verdict(&self, group: &[Record], time: Millis) -> Verdict {
        let mut pending = Pending::default();
        for record in group {
            self.request_free(record.request.as_ref(), &mut pending)?;
            match &record.event {
                Some(Event::TaskOpened(e)) => self.may_open(e, record.revision(), time, &mut pending)?,
                Some(Event::Issued(e)) => self.may_issue(e, record.revision(), time, &mut pending)?,
                Some(event) => self.may_change(event, record, time, &mut pending)?,
                None => return Err(malformed("no event")),
            }
        }
        Ok(())
    }

    /// A request id is bound by the request's first record. The server answers a repeat from what it made.
    fn request_free(&self, request: Option<&Request>, pending: &mut Pending<'_>) -> Verdict {
        let Some(request) = request else { return Ok(()) };
        let key = request_key(&request.caller, &request.id);
        if self.credentials.of_request(&key).is_some() || self.requests.contains_key(&key) || pending.requests.contains(&key) {
            return Err(Refusal::new(Reason::RequestIdReused, format!("request_id {:?} was used before", request.id)));
        }
        pending.requests.push(key);
        if self.credentials.remembered(&request.caller) as usize >= limits::REQUEST_IDS_PER_CALLER {
            let wait = std::time::Duration::from_millis(limits::REQUEST_ID_KEPT_MS);
            return Err(Refusal::limit("request_ids_per_caller", limits::REQUEST_IDS_PER_CALLER as u64, wait));
        }
        Ok(())
    }

    /// A decision is made at a time near its place: neither from the future, nor older than a view may be.
    fn timely(&self, decided: u64, revision: Seq, time: Millis) -> Verdict {
        let oldest = time.minus(limits::VIEW_MAX_AGE_MS + limits::CLOCK_SKEW_MS);
        if Millis(decided) < oldest || Millis(decided) > time.plus(limits::CLOCK_SKEW_MS) {
            return Err(stale(format!("it was decided at {}, too far from {time}", Millis(decided))));
        }
        if revision > self.head || revision < Seq::start_of(self.head.generation()) {
            return Err(stale(format!("its decision revision {revision} is not of this order")));
        }
        Ok(())
    }

    fn may_open<'a>(&'a self, e: &'a TaskOpened, revision: Seq, time: Millis, pending: &mut Pending<'a>) -> Verdict {
        let id = TaskId::from_slice(&e.task).ok_or_else(|| malformed("a task id that is not 16 bytes"))?;
        self.timely(e.opened_at, revision, time)?;
        if self.tasks.get(&id).is_some() || pending.task.is_some() {
            return Err(stale(format!("task {id} exists already")));
        }
        let opened_at = Millis(e.opened_at);
        let max_end = opened_at.plus(limits::TASK_TTL_MS);
        if Millis(e.deadline) <= time || e.deadline > e.max_deadline || Millis(e.max_deadline) > max_end {
            return Err(Refusal::new(Reason::NoLifeLeft, format!("the deadline of task {id} is not within its bounds")));
        }
        self.version_in_force(&e.environment, e.policy_version)?;
        let owner = e.owner.as_ref().ok_or_else(|| malformed("a task without an owner"))?;
        let domain = trust_domain_of(&e.opener);
        let mut facts = Facts {
            revision,
            tasks: vec![id],
            identities: vec![(domain, &e.opener), (&owner.issuer, &owner.sub)],
            environment: &e.environment,
            policy: e.policy_version,
            svid: e.svid.as_ref().map(|s| svid_facts(domain, s)),
            ..Facts::default()
        };
        facts.credentials.extend(CredentialId::from_slice(&e.ancestor));
        if !e.parent.is_empty() {
            let parent = self.active_task(&e.parent, time)?;
            self.child_within(e, parent)?;
            facts.tasks.extend(&parent.terms.path);
            facts.identities.extend(parent.terms.owners.iter().map(|o| (o.issuer.as_str(), o.sub.as_str())));
        }
        if let Some(ancestor) = CredentialId::from_slice(&e.ancestor) {
            self.evidence_alive(&ancestor, time)?;
        }
        if let Some(hit) = self.rules.blocks(&facts) {
            return Err(refused_by(&hit, "opening a task"));
        }
        let retry = std::time::Duration::from_secs(60);
        if self.tasks.len() >= limits::TASKS {
            return Err(Refusal::limit("tasks", limits::TASKS as u64, retry));
        }
        if self.tasks.opened_by(&e.opener) as usize >= limits::TASKS_PER_CALLER {
            return Err(Refusal::limit("tasks_per_caller", limits::TASKS_PER_CALLER as u64, retry));
        }
        pending.task = Some(e);
        Ok(())
    }

    /// A child is never wider than its parent.
    fn child_within(&self, e: &TaskOpened, parent: &Task) -> Verdict {
        let wider = |what: &str| {
            Err(Refusal::new(Reason::WiderThanParent, format!("a child task would be wider than {}: {what}", parent.terms.id)))
        };
        if parent.terms.path.len() >= limits::TASK_DEPTH {
            return Err(Refusal::limit("task_depth", limits::TASK_DEPTH as u64, std::time::Duration::ZERO));
        }
        if *parent.terms.environment != *e.environment {
            return wider("another environment");
        }
        if e.deadline > parent.deadline.0 || e.max_deadline > parent.terms.max_deadline.0 {
            return wider("a later deadline");
        }
        let none = Allowance::default();
        match e.allowance.as_ref().unwrap_or(&none).wider_than(&parent.terms.allowance) {
            Some(what) => wider(&what),
            None => Ok(()),
        }
    }

    fn active_task(&self, id: &[u8], time: Millis) -> Result<&Task, Refusal> {
        let id = TaskId::from_slice(id).ok_or_else(|| malformed("a task id that is not 16 bytes"))?;
        let task = self.tasks.get(&id).ok_or_else(|| Refusal::new(Reason::NotFound, format!("there is no task {id}")))?;
        match self.tasks.phase(task, time) {
            Phase::Active => Ok(task),
            phase => Err(over(&id, phase)),
        }
    }

    fn version_in_force(&self, environment: &str, version: u64) -> Verdict {
        let now = policy_in_force(self, environment);
        if version == 0 || version != now {
            return Err(stale(format!("it was decided with policy version {version} of {environment}, {now} is in force")));
        }
        Ok(())
    }

    /// A credential of ours counts as evidence only if the fold knows its id as valid.
    pub(crate) fn evidence_alive(&self, id: &CredentialId, time: Millis) -> Verdict {
        let gone = |what: &str| Err(Refusal::new(Reason::CredentialNotActive, format!("credential {id} {what}")));
        let Some(live) = self.credentials.get(id) else { return gone("is not known") };
        if live.released {
            return gone("was given back");
        }
        if live.expires_at <= time {
            return gone("has expired");
        }
        let Some(task) = self.tasks.at(live.task) else { return gone("has no task") };
        if let Some(hit) = self.rules.covers(&self.credentials.facts(live, task)) {
            return Err(refused_by(&hit, &format!("credential {id}")));
        }
        match self.tasks.phase(task, time) {
            Phase::Active => Ok(()),
            phase => Err(over(&task.terms.id, phase)),
        }
    }

    fn may_issue<'a>(&'a self, e: &'a Issued, revision: Seq, time: Millis, pending: &mut Pending<'a>) -> Verdict {
        let id = CredentialId::from_slice(&e.credential).ok_or_else(|| malformed("a credential id that is not 16 bytes"))?;
        if self.credentials.get(&id).is_some() || pending.credentials.contains(&&e.credential[..]) {
            return Err(stale(format!("credential {id} exists already")));
        }
        pending.credentials.push(&e.credential);
        self.timely(e.issued_at, revision, time)?;
        self.version_in_force(&e.environment, e.policy_version)?;
        self.registration_in_force(e)?;
        self.key_active(e)?;
        self.approval_usable(e, revision, time, pending)?;
        self.lease_open(e, pending)?;
        self.credential_counts(e, pending.credentials.len())?;
        self.ancestors_alive(e, time)?;
        let mut facts = self.issue_facts(e, id, revision);
        let end = match pending.task.filter(|t| t.task == e.task) {
            Some(task) => {
                // Opened by the record before: it is as its terms say.
                facts.tasks.extend(TaskId::from_slice(&task.task));
                if let Some(parent) = TaskId::from_slice(&task.parent).and_then(|p| self.tasks.get(&p)) {
                    facts.tasks.extend(&parent.terms.path);
                    facts.identities.extend(parent.terms.owners.iter().map(|o| (o.issuer.as_str(), o.sub.as_str())));
                }
                facts.identities.extend(task.owner.iter().map(|o| (o.issuer.as_str(), o.sub.as_str())));
                task.deadline
            }
            None => {
                let task = self.active_task(&e.task, time)?;
                if *task.terms.environment != *e.environment {
                    return Err(Refusal::new(Reason::EnvironmentWall, "task and upstream belong to different environments"));
                }
                facts.tasks.extend(&task.terms.path);
                facts.identities.extend(task.terms.owners.iter().map(|o| (o.issuer.as_str(), o.sub.as_str())));
                task.deadline.0
            }
        };
        let longest = e.issued_at.saturating_add(limits::CREDENTIAL_TTL_MS);
        if e.expires_at <= time.0 || e.expires_at > end || e.expires_at > longest || e.expires_at > e.renewable_until {
            return Err(Refusal::new(Reason::NoLifeLeft, format!("the end of credential {id} is not within its bounds")));
        }
        match self.rules.blocks(&facts) {
            Some(hit) => Err(refused_by(&hit, "issuing")),
            None => Ok(()),
        }
    }

    fn issue_facts<'a>(&self, e: &'a Issued, id: CredentialId, revision: Seq) -> Facts<'a> {
        let domain = trust_domain_of(&e.caller);
        let mut facts = Facts {
            revision,
            credentials: vec![id],
            identities: vec![(domain, &e.caller)],
            upstream: &e.upstream,
            scopes: e.scopes.iter().map(String::as_str).collect(),
            binding: &e.binding,
            tool: &e.tool,
            environment: &e.environment,
            policy: e.policy_version,
            key: &e.key,
            svid: e.svid.as_ref().map(|s| svid_facts(domain, s)),
            ..Facts::default()
        };
        add_lineage(&mut facts, &e.ancestors, e.subject.as_ref(), &e.actors, e.subject_token.as_ref());
        facts
    }

    fn registration_in_force(&self, e: &Issued) -> Verdict {
        let Some(upstream) = self.upstreams.get(e.upstream.as_str()) else {
            return Err(Refusal::new(Reason::NotFound, format!("there is no upstream {}", e.upstream)));
        };
        if !upstream.active {
            return Err(Refusal::new(Reason::UpstreamNotActive, format!("upstream {} is not active", e.upstream)));
        }
        if upstream.version != e.upstream_version {
            return Err(stale(format!(
                "it was decided with version {} of {}, {} is in force",
                e.upstream_version, e.upstream, upstream.version
            )));
        }
        if !e.binding.is_empty() {
            let now = self.bindings.get(e.binding.as_str()).filter(|b| b.active).map_or(0, |b| b.version);
            if now == 0 || now != e.binding_version {
                return Err(stale(format!(
                    "it was decided with version {} of binding {}, {now} is in force",
                    e.binding_version, e.binding
                )));
            }
        }
        Ok(())
    }

    fn key_active(&self, e: &Issued) -> Verdict {
        match self.keys.get(e.key.as_str()) {
            Some(key) if key.state == KeyState::Active => Ok(()),
            // Kinds that another server mints name no key of ours.
            None if e.key.is_empty() && !e.lease.is_empty() => Ok(()),
            _ => Err(stale(format!("key {:?} is not active", e.key))),
        }
    }

    fn approval_usable<'a>(&self, e: &'a Issued, revision: Seq, time: Millis, pending: &mut Pending<'a>) -> Verdict {
        if e.approval.is_empty() {
            return Ok(());
        }
        let id = ApprovalId::from_slice(&e.approval).ok_or_else(|| malformed("an approval id that is not 16 bytes"))?;
        let usable =
            self.approvals.get(&id).filter(|a| a.given == Some(true) && !a.used && a.expires_at > time && a.revision <= revision);
        if usable.is_none() || pending.approvals.contains(&&e.approval[..]) {
            return Err(Refusal::new(Reason::ApprovalNeeded, format!("approval {id} is not, or no longer, usable")));
        }
        pending.approvals.push(&e.approval);
        Ok(())
    }

    fn lease_open(&self, e: &Issued, pending: &Pending<'_>) -> Verdict {
        if e.lease.is_empty() || pending.leases.contains(&&e.lease[..]) {
            return Ok(());
        }
        let open = LeaseId::from_slice(&e.lease).and_then(|id| self.leases.get(&id));
        match open {
            Some(lease) if lease.credential.as_bytes()[..] == e.credential[..] && !lease.issued => Ok(()),
            _ => Err(stale("its lease is not open")),
        }
    }

    fn credential_counts(&self, e: &Issued, added: usize) -> Verdict {
        let retry = std::time::Duration::from_secs(10);
        if self.credentials.len() + added > limits::CREDENTIALS {
            return Err(Refusal::limit("credentials", limits::CREDENTIALS as u64, retry));
        }
        if self.credentials.live_of(&e.caller) as usize + added > limits::CREDENTIALS_PER_CALLER {
            return Err(Refusal::limit("credentials_per_caller", limits::CREDENTIALS_PER_CALLER as u64, retry));
        }
        Ok(())
    }

    fn ancestors_alive(&self, e: &Issued, time: Millis) -> Verdict {
        if e.ancestors.len() > limits::ANCESTORS {
            return Err(Refusal::limit("ancestors", limits::ANCESTORS as u64, std::time::Duration::ZERO));
        }
        for shown in [&e.renews, &e.shown] {
            if !shown.is_empty() {
                let id = CredentialId::from_slice(shown).ok_or_else(|| malformed("a credential id that is not 16 bytes"))?;
                self.evidence_alive(&id, time)?;
            }
        }
        Ok(())
    }

    fn may_change<'a>(&'a self, event: &'a Event, record: &Record, time: Millis, pending: &mut Pending<'a>) -> Verdict {
        match event {
            Event::TaskClosed(e) => self.known_task(&e.task, |t| t.closed.is_none(), "is over already"),
            Event::TaskHeld(e) => {
                self.known_task(
                    &e.task,
                    |t| t.closed.is_none() && !t.holds.iter().any(|h| h.rank as i32 == e.rank),
                    "is over or held already",
                )?;
                HoldRank::try_from(e.rank).map(|_| ()).map_err(|_| malformed("an unknown rank"))
            }
            Event::TaskResumed(e) => {
                let within = |t: &Task| t.closed.is_none() && t.holds.iter().any(|h| (h.rank as i32) <= e.rank);
                self.known_task(&e.task, within, "has no hold that this rank may lift")
            }
            Event::TaskExtended(e) => {
                self.timely(e.decided_at, record.revision(), time)?;
                let task = self.active_task(&e.task, time)?;
                self.version_in_force(&task.terms.environment, e.policy_version)?;
                let parent = self.tasks.upwards(task).nth(1).map_or(Millis(u64::MAX), |p| p.deadline);
                if Millis(e.deadline) > task.terms.max_deadline.min(parent) || Millis(e.deadline) <= time {
                    return Err(Refusal::new(Reason::NoLifeLeft, "the new deadline is not within the task's bounds"));
                }
                self.not_blocked(task, record.revision())
            }
            Event::Released(e) => {
                let id =
                    CredentialId::from_slice(&e.credential).ok_or_else(|| malformed("a credential id that is not 16 bytes"))?;
                match self.credentials.get(&id) {
                    Some(live) if !live.released && live.expires_at > time => Ok(()),
                    _ => Err(Refusal::new(Reason::CredentialNotActive, format!("credential {id} is not live"))),
                }
            }
            Event::Revoked(e) => targets_known(&e.targets),
            Event::LockLifted(e) => {
                targets_known(&e.targets)?;
                let locked = |t: &Target| self.rules.get(t).is_some_and(|entry| entry.lock.is_some());
                let all = e.targets.iter().filter_map(|t| Target::from_record(t).ok()).all(|t| locked(&t));
                if all { Ok(()) } else { Err(Refusal::new(Reason::NotFound, "there is no such lock")) }
            }
            Event::PolicySet(e) => {
                let table = if e.audit_only { &self.audit_policies } else { &self.policies };
                next_version(e.version, table.get(e.environment.as_str()).map(|v| v.version))
            }
            Event::UpstreamSet(e) => next_version(e.version, self.upstreams.get(e.name.as_str()).map(|v| v.version)),
            Event::BindingSet(e) => next_version(e.version, self.bindings.get(e.name.as_str()).map(|v| v.version)),
            Event::BundleSet(e) => match self.bundles.get(e.trust_domain.as_str()).and_then(|b| b.sequence) {
                Some(before) if !e.removed && e.sequence.is_none_or(|s| s < before) => {
                    Err(Refusal::field("spiffe_sequence", format!("it may not go below {before} or go missing, once seen")))
                }
                _ => Ok(()),
            },
            Event::KeyAdded(e) => {
                if self.keys.contains_key(e.key.as_str()) || pending.keys.contains(&e.key.as_str()) {
                    return Err(Refusal::new(Reason::AlreadyExists, format!("there is a key {} already", e.key)));
                }
                pending.keys.push(&e.key);
                Ok(())
            }
            Event::KeyChanged(e) => self.key_change(&e.key, e.state),
            _ => self.may_note(event, time, pending),
        }
    }

    fn may_note<'a>(&self, event: &'a Event, time: Millis, pending: &mut Pending<'a>) -> Verdict {
        match event {
            Event::LeaseOpened(e) => {
                let id = LeaseId::from_slice(&e.lease).ok_or_else(|| malformed("a lease id that is not 16 bytes"))?;
                if self.leases.contains_key(&id) {
                    return Err(stale(format!("lease {id} exists already")));
                }
                self.active_task(&e.task, time)?;
                pending.leases.push(&e.lease);
                Ok(())
            }
            Event::LeaseClosed(e) => match LeaseId::from_slice(&e.lease).and_then(|id| self.leases.get(&id)) {
                Some(_) => Ok(()),
                None => Err(Refusal::new(Reason::NotFound, "there is no such open lease")),
            },
            Event::ApprovalDecided(e) => match ApprovalId::from_slice(&e.approval).and_then(|id| self.approvals.get(&id)) {
                Some(a) if a.given.is_none() && a.expires_at > time => Ok(()),
                _ => Err(Refusal::new(Reason::ApprovalNeeded, "that approval cannot be decided, or no longer")),
            },
            Event::UsedOnce(e) => match <[u8; 32]>::try_from(&e.digest[..]) {
                Ok(digest) if !self.used_once.contains_key(&digest) => Ok(()),
                _ => Err(Refusal::new(Reason::EvidenceRevoked, "it may be used once and was used before")),
            },
            Event::GenerationBegun(e) => {
                let next = if self.head == Seq::ZERO { 1 } else { u32::from(self.head.generation()) + 1 };
                if e.generation == next && next <= 255 { Ok(()) } else { Err(malformed("a generation out of turn")) }
            }
            Event::Authorized(e) => match CredentialId::from_slice(&e.credential) {
                Some(id) => self.evidence_alive(&id, time),
                None => Err(malformed("a credential id that is not 16 bytes")),
            },
            _ => Ok(()),
        }
    }

    fn known_task(&self, id: &[u8], fits: impl Fn(&Task) -> bool, otherwise: &str) -> Verdict {
        let id = TaskId::from_slice(id).ok_or_else(|| malformed("a task id that is not 16 bytes"))?;
        match self.tasks.get(&id) {
            Some(task) if fits(task) => Ok(()),
            Some(_) => Err(Refusal::new(Reason::TaskNotActive, format!("task {id} {otherwise}"))),
            None => Err(Refusal::new(Reason::NotFound, format!("there is no task {id}"))),
        }
    }

    fn not_blocked(&self, task: &Task, revision: Seq) -> Verdict {
        let mut facts =
            Facts { revision, tasks: task.terms.path.clone(), environment: &task.terms.environment, ..Facts::default() };
        facts.policy = policy_in_force(self, &task.terms.environment);
        facts.identities.push((trust_domain_of(&task.terms.opener), &task.terms.opener));
        facts.identities.extend(task.terms.owners.iter().map(|o| (o.issuer.as_str(), o.sub.as_str())));
        match self.rules.blocks(&facts) {
            Some(hit) => Err(refused_by(&hit, "extending a task")),
            None => Ok(()),
        }
    }

    fn key_change(&self, key: &str, to: i32) -> Verdict {
        use KeyState::{Active, Compromised, Next, Removed, Retired};
        let Some(now) = self.keys.get(key).map(|k| k.state) else {
            return Err(Refusal::new(Reason::NotFound, format!("there is no key {key}")));
        };
        let to = KeyState::try_from(to).map_err(|_| malformed("an unknown key state"))?;
        match (now, to) {
            (Next, Active) | (Active | Next, Retired) | (Retired, Removed) | (Next | Active | Retired | Removed, Compromised) => {
                Ok(())
            }
            _ => Err(Refusal::new(Reason::KeyState, format!("key {key} is {now:?} and cannot become {to:?}"))),
        }
    }
}

fn next_version(version: u64, now: Option<u64>) -> Verdict {
    let next = now.unwrap_or(0) + 1;
    if version == next { Ok(()) } else { Err(stale(format!("version {next} would come next, not {version}"))) }
}

fn targets_known(targets: &[crate::ledger::record::TargetRecord]) -> Verdict {
    if targets.is_empty() || targets.len() > limits::TARGETS {
        return Err(Refusal::field("targets", format!("1 to {} of them, not {}", limits::TARGETS, targets.len())));
    }
    for target in targets {
        Target::from_record(target).map_err(|e| Refusal::field("targets", e))?;
    }
    Ok(())
}
