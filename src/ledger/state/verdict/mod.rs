//! The fold's verdict: does this group of records take effect at this place in the order?
//!
//! The verdict compares versions, times and rules; it does not run policy. Single use (of an approval, a request id, a credential id) is
//! decided here and nowhere else.

mod approval;
mod authorize;
mod break_glass;
mod change;
mod deadline;
mod issue;
mod key;
mod login;
mod secret;
mod task;
mod task_approval;

pub use login::id_token_used;
pub use task_approval::digest_of_task;

use super::credentials::is_for;
use super::tasks::{Task, TaskPhase};
use super::{AnsweredRequest, FoldInput, Quotas, State, Verdict};
use crate::record::{Event, LeaseOpened, TaskOpened};
use crate::revocation::{Hit, Target, TargetKind};
use mayfly_base::limits;
use mayfly_base::refusal::{Reason, Refusal};
use mayfly_verify::seq::{CredentialId, Millis, Seq, TaskId};

/// The additions to the state by the earlier records of the same group, if the group is valid.
struct GroupEffects<'a> {
    /// The limits that apply.
    ceilings: &'a Quotas,
    /// The group has a single record, the usual case: nothing has to be collected for later records.
    alone: bool,
    tasks: Vec<&'a TaskOpened>,
    credentials: Vec<&'a [u8]>,
    requests: Vec<[u8; 16]>,
    /// Number of newly bound request ids.
    bound: usize,
    approvals: Vec<&'a [u8]>,
    /// Approvals that tasks of the group wait for.
    asked: Vec<&'a [u8]>,
    leases: Vec<&'a LeaseOpened>,
    used_once: Vec<&'a [u8]>,
    keys: Vec<&'a str>,
    /// The upstreams whose secrets change.
    secrets: Vec<&'a str>,
    /// The group makes a key active.
    activates: bool,
    released: Vec<&'a [u8]>,
    /// The group names the person who asked for its break-glass task.
    break_glass: bool,
}

impl<'a> GroupEffects<'a> {
    fn within(ceilings: &'a Quotas, alone: bool) -> GroupEffects<'a> {
        GroupEffects {
            ceilings,
            alone,
            tasks: Vec::new(),
            credentials: Vec::new(),
            requests: Vec::new(),
            bound: 0,
            approvals: Vec::new(),
            asked: Vec::new(),
            leases: Vec::new(),
            used_once: Vec::new(),
            keys: Vec::new(),
            secrets: Vec::new(),
            activates: false,
            released: Vec::new(),
            break_glass: false,
        }
    }
}

fn stale(what: impl Into<String>) -> Refusal {
    Refusal::new(Reason::DecidedOnOldState, what)
}

fn malformed(what: &str) -> Refusal {
    Refusal::new(Reason::InvalidField, format!("a record with {what}"))
}

fn over(task: &TaskId, phase: TaskPhase) -> Refusal {
    let what = match phase {
        TaskPhase::PendingApproval => "waits for an approval".to_owned(),
        TaskPhase::Held => "is held".to_owned(),
        TaskPhase::Over(outcome) => format!("is over ({})", format!("{outcome:?}").to_lowercase()),
        TaskPhase::Active => "is active".to_owned(),
    };
    Refusal::new(Reason::TaskNotActive, format!("task {task} {what}"))
}

/// The refusal for a rule that covers a grant.
pub fn refused_by(hit: &Hit, what: &str) -> Refusal {
    let reason = if hit.lock {
        Reason::Locked
    } else if matches!(hit.target, Target::Svid(..) | Target::SubjectToken(..)) {
        Reason::EvidenceRevoked
    } else {
        Reason::Revoked
    };
    let why = match hit.lock {
        true => format!("the lock on {} at seq {} blocks new grants", hit.target, hit.seq),
        false => format!("{} was revoked at seq {}", hit.target, hit.seq),
    };
    let no = Refusal::new(reason, format!("{what} is refused: {why}")).by(format!("seq {}", hit.seq));
    if hit.lock { no.way_out(format!("an operator can lift the lock: mayfly lock lift {} --reason TEXT", hit.seq)) } else { no }
}

/// The version of an environment's policy set in effect, 0 if it has none.
pub fn policy_in_force(state: &State, environment: &str) -> u64 {
    state.policies.get(environment).map_or(0, |v| v.version)
}

impl State {
    /// Whether a group takes effect here. Does not change the state.
    pub fn verdict<R: FoldInput>(&self, group: &[R], time: Millis) -> Verdict {
        self.verdict_within(group, time, &Quotas::FOLD)
    }

    /// As [`State::verdict`], for a writer with limits of its own, none above those of the fold.
    pub fn verdict_within<R: FoldInput>(&self, group: &[R], time: Millis, ceilings: &Quotas) -> Verdict {
        let mut pending = GroupEffects::within(ceilings, group.len() == 1);
        for judged in group {
            let record = judged.record();
            self.request_free(judged, &mut pending)?;
            match &record.event {
                Some(Event::TaskOpened(e)) => self.may_open(e, record.revision(), time, &mut pending)?,
                Some(Event::Issued(e)) => self.may_issue(judged.issuance(e), record.revision(), time, &mut pending)?,
                Some(event) => self.may_change(event, record, time, &mut pending)?,
                None => return Err(malformed("no event")),
            }
        }
        if !pending.tasks.is_empty() {
            pending.break_glass_is_requested()?;
            pending.all_asked()?;
        }
        if pending.activates { self.one_active(group) } else { Ok(()) }
    }

    /// A request id is bound by the first record of the request. The server answers a retry from that record; if its credential cannot be
    /// returned again, an issuance that names it replaces it, and the request id is bound to the replacement from then on.
    fn request_free(&self, judged: &impl FoldInput, pending: &mut GroupEffects<'_>) -> Verdict {
        let replaces = match &judged.record().event {
            Some(Event::Issued(e)) if !e.replaces.is_empty() => Some(&e.replaces[..]),
            _ => None,
        };
        let Some(key) = judged.request() else {
            return if replaces.is_some() { Err(malformed("a replacement without its request")) } else { Ok(()) };
        };
        if let Some(Event::Issued(e)) = &judged.record().event
            && !CredentialId::from_slice(judged.issuance(e).credential).is_some_and(|id| is_for(&id, &key))
        {
            return Err(malformed("a credential whose id is not one for its request"));
        }
        let reused =
            || Err(Refusal::new(Reason::RequestIdReused, format!("request_id {:?} was used before", judged.request_id())));
        if pending.requests.contains(&key) {
            return reused();
        }
        match (self.credentials.asked(&key), replaces) {
            // The request id is counted already, for the replaced credential.
            (Some(AnsweredRequest::Live(first)), Some(id)) if first.id().as_bytes()[..] == *id => {
                pending.requests.push(key);
                return Ok(());
            }
            (None | Some(AnsweredRequest::Ended(..)), Some(_)) => {
                return Err(stale(format!("request_id {:?} stands for no credential", judged.request_id())));
            }
            (Some(_), _) => return reused(),
            (None, None) if self.requests.contains_key(&key) => return reused(),
            (None, None) if pending.alone => {}
            (None, None) => pending.requests.push(key),
        }
        let caller = judged.requester().ok_or_else(|| malformed("a request that nobody sent"))?;
        pending.ceilings.request_id(self, caller, pending.bound)?;
        pending.bound += 1;
        Ok(())
    }

    /// A decision must be made near the time of its commit: neither in the future, nor older than a view may be.
    fn timely(&self, decided: u64, revision: Seq, time: Millis) -> Verdict {
        let oldest = time.minus(limits::VIEW_MAX_AGE_MS + limits::CLOCK_SKEW_MS);
        if Millis(decided) < oldest || Millis(decided) > time.plus(limits::CLOCK_SKEW_MS) {
            return Err(stale(format!("it was decided at {}, too far from {time}", Millis(decided))));
        }
        self.of_this_order(revision)
    }

    /// Every revocation since this view must still be known. A rule that was dropped in the meantime might have covered the grant: if a
    /// writer's view stood still, or time leapt.
    fn rules_known_since(&self, revision: Seq) -> Verdict {
        if revision < self.rules.dropped() {
            return Err(stale(format!("its view {revision} is older than rules that are no longer kept")));
        }
        Ok(())
    }

    /// A decision revision must be a place that this generation has reached.
    fn of_this_order(&self, revision: Seq) -> Verdict {
        if revision > self.head || revision < Seq::start_of(self.head.generation()) {
            return Err(stale(format!("its decision revision {revision} is not of this order")));
        }
        if self.head.as_u64() - revision.as_u64() >= limits::REVISION_BEHIND {
            return Err(stale(format!("its decision revision {revision} is too far behind {}", self.head)));
        }
        self.rules_known_since(revision)
    }

    fn active_task(&self, id: &[u8], time: Millis) -> Result<&Task, Refusal> {
        let id = TaskId::from_slice(id).ok_or_else(|| malformed("a task id that is not 16 bytes"))?;
        let task = self.tasks.get(&id).ok_or_else(|| Refusal::new(Reason::NotFound, format!("there is no task {id}")))?;
        self.usable(task, time).map(|()| task)
    }

    /// A task accepts grants while it and all tasks above it are active, and while no revocation since their opening covers one of the
    /// openings.
    fn usable(&self, task: &Task, time: Millis) -> Verdict {
        match self.tasks.phase(task, time) {
            TaskPhase::Active => {}
            phase => return Err(over(&task.terms.id, phase)),
        }
        match self.revoked_by(task) {
            Some((id, hit)) => Err(refused_by(&hit, &format!("task {id}"))),
            None => Ok(()),
        }
    }

    /// The task, or the one above it, whose opening a rule covers, and the rule. Opening is a grant: a revocation since then ends the task,
    /// and lifting a lock does not bring it back. Also for lists of tasks: such a task is shown as revoked, whatever its phase.
    pub fn revoked_by(&self, task: &Task) -> Option<(TaskId, Hit)> {
        for t in self.tasks.upwards(task) {
            if let Some(hit) = self.joining(t).and_then(|facts| self.rules.covers(&facts)) {
                return Some((t.terms.id, hit));
            }
            // Rules on tasks and credentials are common, other sorts are rare: usually nothing has to be checked.
            let asked =
                |sort: TargetKind| sort != TargetKind::Task && (sort != TargetKind::Credential || t.terms.ancestor.is_some());
            if self.rules.newer(t.terms.revision).any(asked)
                && let facts = self.opening(&t.terms)
                && let Some(hit) = self.rules.covers(&facts)
            {
                // If there is a lock too, the lock is reported first, because an operator can lift it.
                return Some((t.terms.id, self.rules.blocks(&facts).unwrap_or(hit)));
            }
        }
        None
    }

    fn version_in_force(&self, environment: &str, version: u64) -> Verdict {
        let now = policy_in_force(self, environment);
        if version == 0 || version != now {
            return Err(stale(format!("it was decided with policy version {version} of {environment}, {now} is in force")));
        }
        Ok(())
    }

    /// A credential of mayfly counts as evidence only if the fold knows its id as valid.
    pub fn evidence_alive(&self, id: &CredentialId, time: Millis) -> Verdict {
        // A credential that had expired at the newest commit is expired, also for a caller of this function whose clock is behind.
        let time = time.max(self.time);
        let gone = |what: &str| Err(Refusal::new(Reason::CredentialNotActive, format!("credential {id} {what}")));
        if self.logins.contains_key(id) {
            return self.login_alive(id, time).map(|_| ());
        }
        let Some(live) = self.credentials.get(id) else { return gone("is not known") };
        if live.released() {
            return gone("was given back");
        }
        if live.expires_at() <= time {
            return Err(expired(id));
        }
        let Some(task) = self.tasks.at(live.task()) else { return gone("has no task") };
        if let Some(hit) = self.rules.covers(&self.facts(&live, task)) {
            return Err(refused_by(&hit, &format!("credential {id}")));
        }
        self.usable(task, time)
    }
}

/// The refusal of an expired credential.
pub fn expired(id: &CredentialId) -> Refusal {
    Refusal::new(Reason::CredentialNotActive, format!("credential {id} has expired"))
}
