//! The naive verdict: does this group take effect here? Each record is judged as if the earlier records of its group had taken effect.

use std::rc::Rc;

use mayfly::ledger::record::*;
use mayfly::ledger::state::{Verdict, request_key};
use mayfly::seq::Seq;

use crate::model::{DAY, Line, MINUTE, Model, Phase, Says, lockable, revokes};
use crate::registry::name_of;

/// The place of records of the group that is being judged: after everything else.
pub const IN_GROUP: Seq = match Seq::from_u64((1 << 53) - 1) {
    Some(seq) => seq,
    None => Seq::ZERO,
};

pub fn yes(condition: bool) -> Says {
    if condition { Says::Valid } else { Says::Void }
}

pub fn both(a: Says, b: Says) -> Says {
    match (a, b) {
        (Says::Void, _) | (_, Says::Void) => Says::Void,
        (Says::Either, _) | (_, Says::Either) => Says::Either,
        _ => Says::Valid,
    }
}

fn subset<T: PartialEq>(mine: &[T], theirs: &[T]) -> bool {
    theirs.is_empty() || (!mine.is_empty() && mine.iter().all(|m| theirs.contains(m)))
}

fn within(child: &Allowance, parent: &Allowance) -> bool {
    child.upstreams.iter().all(|mine| {
        parent.upstreams.iter().any(|theirs| theirs.name == mine.name && mine.scopes.iter().all(|s| theirs.scopes.contains(s)))
    }) && (parent.any_tool || (!child.any_tool && child.tools.iter().all(|t| parent.tools.contains(t))))
        && subset(&child.kinds, &parent.kinds)
        && (child.key_bound || !parent.key_bound)
}

impl Model {
    /// Judges a group at its place, and adds it with the verdict that the fold gave.
    pub fn take(&mut self, group: &[Record], time: u64, verdict: &Verdict) -> Result<(), String> {
        let says = self.judge(group, time);
        let folded = verdict.is_ok();
        if says != Says::Either && (says == Says::Valid) != folded {
            let fold = verdict.as_ref().map_or_else(|no| format!("void ({no})"), |()| "valid".to_owned());
            return Err(format!("the fold says {fold}, the model {says:?}: {group:?}"));
        }
        for record in group {
            let begins = match &record.event {
                Some(Event::GenerationBegun(g)) if folded => Some(Seq::start_of(g.generation as u8)),
                _ => None,
            };
            self.head = begins.unwrap_or(self.head).next().expect("a seq");
            let grant = match &record.event {
                Some(Event::Issued(i)) if folded => Some(Rc::new(self.grant(i))),
                _ => None,
            };
            self.log.push(Line { seq: self.head, time, record: Rc::new(record.clone()), valid: folded, grant });
        }
        Ok(())
    }

    /// The earlier records of the group that is being judged.
    pub fn in_group(&self) -> impl Iterator<Item = &Event> {
        self.log.iter().filter(|l| l.seq == IN_GROUP).filter_map(|l| l.record.event.as_ref())
    }

    /// Whether rules made after a view may have been dropped: then the fold may refuse what it can no longer judge.
    fn rules_known(&self, r: u64, time: u64) -> Says {
        let old = |l: &Line| l.valid && l.seq != IN_GROUP && l.seq.as_u64() > r && l.time + 70_000 < time;
        let dropped = self.log.iter().filter(|l| old(l)).filter_map(|l| l.record.event.as_ref()).any(|e| !revokes(e).is_empty());
        if dropped { Says::Either } else { Says::Valid }
    }

    pub fn judge(&self, group: &[Record], time: u64) -> Says {
        let mut ahead = self.clone();
        let mut says = Says::Valid;
        for record in group {
            says = both(says, ahead.one(record, time));
            if says == Says::Void {
                return says;
            }
            // The head stays where the group begins: no decision in the group can have seen the group.
            ahead.log.push(Line { seq: IN_GROUP, time, record: Rc::new(record.clone()), valid: true, grant: None });
        }
        if !ahead.all_asked() || !ahead.asked_for() {
            return Says::Void;
        }
        let activates = |r: &Record| match &r.event {
            Some(Event::KeyAdded(k)) => k.state == KeyState::Active as i32,
            Some(Event::KeyChanged(k)) => k.state == KeyState::Active as i32,
            _ => false,
        };
        if group.iter().any(activates) && ahead.most_active() > 1 {
            return Says::Void;
        }
        says
    }

    /// A task that is over may be forgotten ten minutes after its deadline.
    fn known(&self, id: &[u8], fits: bool, time: u64) -> Says {
        match self.task(id) {
            Some(_) if fits && time > self.deadline(id) + 10 * MINUTE => Says::Either,
            Some(_) => yes(fits),
            None => Says::Void,
        }
    }

    pub fn timely(&self, decided: u64, revision: u64, time: u64) -> bool {
        decided + 40_000 >= time && decided <= time + 30_000 && self.of_this_order(revision)
    }

    pub fn of_this_order(&self, revision: u64) -> bool {
        revision <= self.head.as_u64() && revision >= Seq::start_of(self.head.generation()).as_u64()
    }

    fn one(&self, record: &Record, time: u64) -> Says {
        let request = match &record.event {
            Some(Event::Issued(i)) if !i.replaces.is_empty() => self.replacement(name_of(record), &i.replaces, time),
            _ => name_of(record).map_or(Says::Valid, |name| self.request(name, time)),
        };
        let request = match (&record.event, name_of(record)) {
            (Some(Event::Issued(i)), Some((caller, id))) if i.credential[..12] != request_key(caller, id)[..12] => Says::Void,
            _ => request,
        };
        let decided = match &record.event {
            Some(
                Event::TaskOpened(_)
                | Event::ApprovalDecided(_)
                | Event::Authorized(_)
                | Event::LoggedIn(_)
                | Event::BreakGlass(_),
            ) => self.rules_known(record.revision, time),
            Some(Event::TaskExtended(x)) => {
                let approved = self.approval(&x.approval).and_then(|(_, given, _)| given.flatten());
                self.rules_known(approved.unwrap_or(u64::MAX).min(record.revision), time)
            }
            Some(Event::Issued(i)) => {
                let approved = self.approval(&i.approval).and_then(|(_, given, _)| given.flatten());
                self.rules_known(approved.unwrap_or(u64::MAX).min(record.revision), time)
            }
            _ => Says::Valid,
        };
        let request = both(request, decided);
        let event = record.event.as_ref().expect("an event");
        both(request, self.event(event, record, time))
    }

    fn event(&self, event: &Event, record: &Record, time: u64) -> Says {
        let r = record.revision;
        if self.lasting_from_glass(event, record, time) {
            return Says::Void;
        }
        match event {
            Event::BreakGlass(e) => self.break_glass_step(e, record, time),
            Event::TaskOpened(t) => self.opens(t, r, time),
            Event::Issued(i) => self.issues(i, r, time),
            Event::TaskExtended(x) => {
                let Some((_, t)) = self.task(&x.task) else { return Says::Void };
                let above = if t.parent.is_empty() { u64::MAX } else { self.deadline(&t.parent) };
                let grant = extension(self, &x.task, t);
                let Some(rests_on) = self.more_time(x, r, time) else { return Says::Void };
                both(
                    yes(self.timely(x.decided_at, r, time)
                        && self.usable(&x.task, time)
                        && x.policy_version == self.policy(&t.environment)
                        && x.deadline <= t.max_deadline.min(above)
                        && x.deadline > time
                        && x.deadline >= self.deadline(&x.task)),
                    self.blocked(&grant, rests_on, time),
                )
            }
            Event::TaskClosed(c) => {
                let lapsed = self.task(&c.task).is_some_and(|(_, t)| self.waited(t, time) == Some(Phase::Over));
                let late = self.silent(&c.task, time) || time >= self.deadline(&c.task) || lapsed;
                let missed = c.outcome != TaskOutcome::Expired as i32 || late;
                self.known(&c.task, !self.closed(&c.task) && missed, time)
            }
            Event::TaskHeld(h) => {
                let free = self.holds(&h.task).iter().all(|(rank, _)| *rank != h.rank);
                self.known(&h.task, !self.closed(&h.task) && free, time)
            }
            Event::TaskResumed(x) => {
                let seen = self.holds(&x.task).iter().any(|(rank, seq)| *rank <= x.rank && seq.as_u64() <= r);
                self.known(&x.task, !self.closed(&x.task) && seen, time)
            }
            Event::Released(x) => {
                let released = self
                    .log
                    .iter()
                    .any(|l| l.valid && matches!(&l.record.event, Some(Event::Released(y)) if y.credential == x.credential));
                yes(self.credential(&x.credential).is_some_and(|(_, i)| i.expires_at > time) && !released)
            }
            Event::Revoked(v) => yes(!v.lock_only || v.targets.iter().all(|t| t.aim.as_ref().is_some_and(lockable))),
            Event::LockLifted(x) => {
                let locks = self.locks();
                yes(x.targets.iter().all(|t| locks.iter().any(|(a, seq)| Some(a) == t.aim.as_ref() && seq.as_u64() <= r)))
            }
            Event::PolicySet(p) => yes(p.version == self.policy(&p.environment) + 1),
            Event::UpstreamSet(u) => yes(u.version == self.upstream(&u.name).map_or(0, |u| u.0) + 1),
            Event::BindingSet(b) => yes(b.version == self.binding(&b.name).map_or(0, |b| b.0) + 1),
            Event::KeyAdded(k) => yes(self.key(&k.key).is_none()),
            Event::KeyChanged(k) => {
                // Judged by the key's state before the group: the rule beside it may have marked it as compromised already.
                let mut before = self.clone();
                before.log.retain(|l| l.seq != IN_GROUP);
                // 1 next, 2 active, 3 retired, 4 removed, 5 compromised.
                let turns = [(1, 2), (1, 3), (2, 3), (3, 4), (1, 5), (2, 5), (3, 5), (4, 5)];
                yes(before.key(&k.key).is_some_and(|now| turns.contains(&(now, k.state))))
            }
            Event::ApprovalAsked(a) => self.asks(a, time),
            Event::ApprovalDecided(d) => self.decides(d, record, time),
            Event::Authorized(e) => self.authorizes(e, r, time),
            Event::UsesReported(e) => Model::tells(e),
            Event::LoggedIn(e) => self.logs_in(e, r, time),
            Event::LoggedOut(e) => self.logs_out(e, time),
            Event::UsedOnce(u) => self.used_once(&u.digest, time),
            Event::GenerationBegun(g) => yes(self.head == Seq::ZERO || g.generation > u32::from(self.head.generation())),
            _ => Says::Valid,
        }
    }

    fn opens(&self, t: &TaskOpened, r: u64, time: u64) -> Says {
        let bounds = self.timely(t.opened_at, r, time)
            && self.task(&t.task).is_none()
            && t.deadline > time
            && t.deadline <= t.max_deadline
            && t.max_deadline <= t.opened_at + DAY
            && t.policy_version > 0
            && t.policy_version == self.policy(&t.environment);
        let parent = t.parent.is_empty()
            || self.task(&t.parent).is_some_and(|(_, p)| {
                let none = Allowance::default();
                self.usable(&t.parent, time)
                    && self.path(&t.parent).len() < 8
                    && p.environment == t.environment
                    && t.deadline <= self.deadline(&t.parent)
                    && t.max_deadline <= p.max_deadline
                    && within(t.allowance.as_ref().unwrap_or(&none), p.allowance.as_ref().unwrap_or(&none))
            });
        let ancestor = t.ancestor.is_empty() || self.alive(&t.ancestor, time);
        let behind = t.subject_token.as_ref().is_none_or(|token| t.max_deadline <= token.expires_at) && t.ancestors.len() <= 8;
        both(yes(bounds && parent && ancestor && behind && self.opens_in_glass(t)), self.blocked(&self.opening(t), r, time))
    }

    fn issues(&self, i: &CredentialIssued, r: u64, time: u64) -> Says {
        let approved = match i.approval.is_empty() {
            true => Some(r),
            false => self.approved(i, r, time),
        };
        // The revision that rules are compared with: the approval's, if the issuance uses one.
        let Some(rests_on) = approved else { return Says::Void };
        let Some((_, t)) = self.task(&i.task) else { return Says::Void };
        let bounds = self.timely(i.issued_at, r, time)
            && self.credential(&i.credential).is_none()
            && i.policy_version > 0
            && i.policy_version == self.policy(&i.environment)
            && self.upstream(&i.upstream) == Some((i.upstream_version, true))
            && (i.binding.is_empty() || self.binding(&i.binding) == Some((i.binding_version, true)))
            && self.key(&i.key) == Some(KeyState::Active as i32)
            && self.phase(&i.task, time) == Phase::Active
            && self.usable(&i.task, time)
            && t.environment == i.environment
            && i.expires_at > time
            && i.expires_at <= self.deadline(&i.task)
            && i.expires_at <= i.issued_at + 60 * MINUTE
            && i.expires_at <= i.renewable_until
            && i.ancestors.len() <= 8;
        let shown = [&i.shown, &i.renews].into_iter().all(|c| c.is_empty() || self.alive(c, time));
        both(
            yes(bounds && shown && self.replaces(i, time) && self.issued_in_glass(i, t)),
            self.blocked(&self.grant(i), rests_on, time),
        )
    }
}

impl Model {
    /// The replaced credential must have been valid until its group gave it back, and must be the same caller's.
    fn replaces(&self, i: &CredentialIssued, time: u64) -> bool {
        let back =
            |l: &Line| l.seq == IN_GROUP && matches!(&l.record.event, Some(Event::Released(x)) if x.credential == i.replaces);
        let mut before = self.clone();
        before.log.retain(|l| l.seq != IN_GROUP);
        i.replaces.is_empty()
            || (self.log.iter().any(back)
                && before.alive(&i.replaces, time)
                && before.credential(&i.replaces).is_some_and(|(_, first)| first.caller == i.caller))
    }
}

/// The facts of an extension that rules match on: those of the task as it is now.
fn extension(model: &Model, id: &[u8], t: &TaskOpened) -> crate::model::Grant {
    let opening = model.opening(t);
    crate::model::Grant {
        credentials: vec![],
        tasks: model.path(id),
        identities: opening.identities,
        environment: t.environment.clone(),
        policy: model.policy(&t.environment),
        ..Default::default()
    }
}
