//! The life of an open task: heartbeats, holds, resumptions and ends.

pub mod expiring;
pub mod heartbeats;
pub mod openings;

use std::time::Duration;

use crate::admission::rate_limits::RateLimitedAct;
use crate::authority::Authority;
use mayfly_base::refusal::{Error, Reason, Refusal};
use mayfly_identity::caller::{Caller, Operator};
use mayfly_ledger::ProposalKind;
use mayfly_ledger::record::{Author, Event, HoldRank, Record, RequestRecord, TaskClosed, TaskHeld, TaskOutcome, TaskResumed};
use mayfly_ledger::revocation::{Rules, Target};
use mayfly_ledger::state::{RememberedRequest, State, request_key};
use mayfly_policy::admin;
use mayfly_verify::seq::{Millis, Seq, TaskId};

/// A request with an id: the caller's request id, and SHA-256 over the whole request.
pub type IdempotencyKey = Option<(String, [u8; 32])>;

/// The actor on a task: a workload, or an operator.
#[derive(Clone, Debug)]
pub enum Actor {
    /// A workload, which may act on its own tasks.
    Workload(Caller),
    /// An operator whom the admin policy admits.
    Operator(Operator),
}

impl Actor {
    /// The caller; `None` for an operator on the local socket.
    pub fn caller(&self) -> Option<&Caller> {
        match self {
            Actor::Workload(caller) | Actor::Operator(Operator::Svid(caller)) => Some(caller),
            Actor::Operator(Operator::LocalUid(_)) => None,
        }
    }
}

pub(crate) fn request_of(who: &str, named: &IdempotencyKey) -> Option<RequestRecord> {
    named.as_ref().map(|(id, digest)| RequestRecord { caller: who.to_owned(), id: id.clone(), digest: digest.to_vec() })
}

fn reused(id: &str) -> Error {
    Error::Refusal(
        Refusal::new(Reason::RequestIdReused, format!("request_id {id:?} was used before for another request"))
            .way_out("use a new request_id for a new request"),
    )
}

impl Authority {
    /// The result of an earlier request with the same id, if there is one: the same request gets the same answer, another request is
    /// refused.
    pub async fn remembered(&self, who: &str, named: &IdempotencyKey) -> Result<Option<RememberedRequest>, Error> {
        let Some((id, digest)) = named else { return Ok(None) };
        let key = request_key(who, id);
        let (found, credential) = self.ledger.peek(|s| (s.requests.get(&key).cloned(), s.credentials.asked(&key).is_some()));
        match found {
            Some(r) if r.digest[..] == digest[..16] => {
                self.ledger.wait_durable(r.seq).await?;
                Ok(Some(r))
            }
            Some(_) => Err(reused(id)),
            None if credential => Err(reused(id)),
            None => Ok(None),
        }
    }

    /// Admits an actor to end, hold or extend a task. A workload must have opened or own the task or one above it; for other workloads the
    /// task does not exist.
    pub fn may_steer(&self, actor: &Actor, id: TaskId) -> Result<(Author, HoldRank), Error> {
        let found = self.ledger.peek(|s| {
            let task = s.tasks.get(&id)?;
            let own = actor.caller().is_some_and(|caller| {
                // A workload that was given a child task ends that part only. Both people of a break-glass task may end it.
                s.tasks.upwards(task).any(|t| t.is_whose(caller)) || (task.terms.break_glass && task.admits(caller.id().as_str()))
            });
            Some((own, task.terms.environment.to_string()))
        });
        let none = || Error::Refusal(Refusal::new(Reason::NotFound, format!("there is no task {id} that you may control")));
        match actor {
            Actor::Workload(caller) => {
                self.still_stands(caller)?;
                if found.is_some_and(|(own, _)| own) { Ok((Author::of(caller), HoldRank::Caller)) } else { Err(none()) }
            }
            Actor::Operator(operator) => {
                let environment = found.as_ref().map(|(_, e)| e.as_str());
                let admitted = self.admit_to_found::<admin::ManageTasks>(operator, environment)?;
                admitted.map(|admitted| (admitted.who(), HoldRank::Operator)).ok_or_else(none)
            }
        }
    }

    /// Ends a task and everything below it. A repeat gets the sequence number of the first end.
    pub async fn close_task(&self, actor: &Actor, id: TaskId, outcome: TaskOutcome, reason: &str) -> Result<Seq, Error> {
        let (who, rank) = self.may_steer(actor, id)?;
        let stands = |s: &State| s.tasks.get(&id).map(|t| (t.closed.as_ref().map(|c| c.seq), t.issued_under > 0, t.ends_under));
        let (before, issued, ends) = self.ledger.settled(stands).await?.unwrap_or_default();
        if let Some(seq) = before {
            return Ok(seq);
        }
        // A task that never issued makes no revocation rule.
        if rank == HoldRank::Caller && issued {
            self.within_rule_budget(&who)?;
        }
        let closed = TaskClosed {
            task: id.as_bytes().to_vec(),
            outcome: outcome as i32,
            reason: reason.to_owned(),
            // Nothing below the task expires later, except issuances in progress; the fold keeps the rule for those too.
            keep_until: Rules::outlasting(ends.max(self.system.wall())).0,
        };
        let record = Record::new(who, Event::TaskClosed(closed));
        match self.ledger.commit(lane_of(rank), vec![record]).await {
            Ok(receipt) => Ok(receipt.seq()),
            // The task was ended concurrently, which is the requested result.
            Err(Error::Refusal(no)) if no.reason == Reason::TaskNotActive => {
                let ended = self.ledger.settled(|s| s.tasks.get(&id).and_then(|t| t.closed.as_ref().map(|c| c.seq))).await?;
                ended.ok_or(Error::Refusal(no))
            }
            Err(no) => Err(no),
        }
    }

    /// Checks the number of rules that callers' own changes have made, per caller and in total.
    pub(crate) fn within_rule_budget(&self, who: &Author) -> Result<(), Error> {
        let (Author::SpiffeId(_) | Author::Person(_)) = who else { return Ok(()) };
        let id = who.name();
        let (held, all) = self.ledger.peek(|s| (s.rules_by_caller.get(id.as_str()).copied().unwrap_or(0), s.rules.len()));
        if all >= self.bounds.load().rules {
            tracing::error!(
                rules = all,
                caller = %id,
                "the limit of revocation rules is reached: what callers end themselves stays valid until it expires"
            );
            return Err(Error::Refusal(Refusal::limit("rules", self.bounds.load().rules as u64, Duration::from_secs(60))));
        }
        if held as usize >= self.bounds.load().rules_per_caller {
            // Beyond its number of rules the caller is locked by one rule, which covers everything that its rules did.
            self.lock_caller(who);
        }
        Ok(())
    }

    fn lock_caller(&self, who: &Author) {
        let (target, id) = match who {
            Author::SpiffeId(id) => (Target::Caller(id.as_str().into()), id.clone()),
            Author::Person(p) => (Target::Subject(p.issuer.as_str().into(), p.sub.as_str().into()), p.name()),
            Author::LocalUid(_) | Author::Mayfly(_) => return,
        };
        if self.ledger.peek(|s| s.rules.get(&target).is_some_and(|e| e.lock.is_some())) {
            return;
        }
        let revoked = mayfly_ledger::record::TargetsRevoked {
            targets: vec![target.to_record()],
            reason: format!("it made {} rules by its own acts, the limit rules_per_caller", self.bounds.load().rules_per_caller),
            keep_until: Rules::keep_until(self.system.wall()).0,
            ..Default::default()
        };
        let record = Record::new(Author::Mayfly("rules_per_caller".into()), Event::Revoked(revoked));
        if let Err(error) = self.ledger.propose(ProposalKind::Revoke, vec![record]) {
            tracing::error!(%error, caller = %id, "the caller is beyond its rule budget and could not be locked");
        }
    }

    /// The rate limit of a workload's holds and resumptions; operators have none.
    fn may_hold_again(&self, actor: &Actor) -> Result<(), Error> {
        match actor {
            Actor::Workload(caller) => Ok(self.rates.load().take(RateLimitedAct::Hold, caller.id().as_str())?),
            Actor::Operator(_) => Ok(()),
        }
    }

    /// Holds a task: everything below it is refused until the task is resumed.
    pub async fn hold_task(&self, actor: &Actor, id: TaskId, reason: &str, named: &IdempotencyKey) -> Result<Seq, Error> {
        let (who, rank) = self.may_steer(actor, id)?;
        self.may_hold_again(actor)?;
        let held = TaskHeld { task: id.as_bytes().to_vec(), rank: rank as i32, reason: reason.to_owned() };
        self.change(who, lane_of(rank), Event::TaskHeld(held), named).await
    }

    /// Resumes a task. The actor's rank must be at least that of the hold.
    pub async fn resume_task(&self, actor: &Actor, id: TaskId, reason: &str, named: &IdempotencyKey) -> Result<Seq, Error> {
        let (who, rank) = self.may_steer(actor, id)?;
        self.may_hold_again(actor)?;
        let resumed = TaskResumed { task: id.as_bytes().to_vec(), rank: rank as i32, reason: reason.to_owned() };
        let held_above =
            |s: &State| s.tasks.get(&id).is_some_and(|t| !t.holds.is_empty() && t.holds.iter().all(|h| h.rank > rank));
        match self.change(who, ProposalKind::Change, Event::TaskResumed(resumed), named).await {
            Err(Error::Refusal(no)) if no.reason == Reason::TaskNotActive && self.ledger.settled(held_above).await? => {
                let no = Refusal::new(Reason::NotYours, format!("task {id} is held by policy or an operator"));
                Err(Error::Refusal(no.way_out(format!("an operator can resume it: mayfly task resume {id} --reason TEXT"))))
            }
            done => done,
        }
    }

    /// Commits one event for a caller, idempotently: a repeat of the request gets the sequence number of the first commit.
    pub(crate) async fn change(
        &self,
        who: Author,
        lane: ProposalKind,
        event: Event,
        named: &IdempotencyKey,
    ) -> Result<Seq, Error> {
        let name = who.name();
        if let Some(before) = self.remembered(&name, named).await? {
            return Ok(before.seq);
        }
        let view = self.ledger.view();
        let record = Record::new(who, event).decided_at(view.revision()).for_request(request_of(&name, named));
        match self.ledger.commit(lane, vec![record]).await {
            Ok(receipt) => Ok(receipt.seq()),
            // A concurrent call with the same request was first.
            Err(no) if is_reuse(&no) => self.remembered(&name, named).await?.map(|r| r.seq).ok_or(no),
            Err(no) => Err(no),
        }
    }

    /// Takes a heartbeat. Heartbeats of many tasks share one record; the answer waits for it.
    pub async fn heartbeat(&self, caller: &Caller, id: TaskId) -> Result<(), Error> {
        self.still_stands(caller)?;
        let admitted = self.ledger.peek(|s| s.tasks.get(&id).is_some_and(|t| t.admits(caller.id().as_str())));
        if !admitted {
            return Err(Error::Refusal(Refusal::new(Reason::NotFound, format!("there is no task {id} in which you may act"))));
        }
        self.rates.load().take(RateLimitedAct::Heartbeat, caller.id().as_str())?;
        self.heartbeats.beat(id).await
    }

    /// Ends a task that missed its heartbeat (the dead man's switch). The result is not awaited; the task is refused by its time before
    /// that.
    pub fn end_silent(&self, id: TaskId, now: Millis) {
        self.end_by_time(id, now, ("heartbeat missed", "missed its heartbeat"));
    }

    /// Ends a task that has expired; the task is refused by its time before that.
    pub(crate) fn end_by_time(&self, id: TaskId, now: Millis, (cause, reason): (&str, &str)) {
        let closed = TaskClosed {
            task: id.as_bytes().to_vec(),
            outcome: TaskOutcome::Expired as i32,
            reason: reason.to_owned(),
            keep_until: Rules::outlasting(now).0,
        };
        let record = Record::new(Author::Mayfly(cause.to_owned()), Event::TaskClosed(closed));
        if let Err(no) = self.ledger.propose(ProposalKind::Revoke, vec![record]) {
            tracing::error!(task_id = %id, cause, %no, "a task that ended by time could not be closed yet");
        }
    }
}

/// Changes that callers make to their own objects do not use the operators' lane.
fn lane_of(rank: HoldRank) -> ProposalKind {
    if rank == HoldRank::Caller { ProposalKind::Change } else { ProposalKind::Revoke }
}

pub(crate) fn is_reuse(no: &Error) -> bool {
    matches!(no, Error::Refusal(r) if r.reason == Reason::RequestIdReused)
}
