//! Tasks that wait for an approval, and extensions that need one.

use mayfly::ledger::record::*;
use mayfly::ledger::state::{Task, digest_of_task};

use crate::judge::{IN_GROUP, both, yes};
use crate::make::{PEOPLE, by_operator, person, task};
use crate::model::{MINUTE, Model, Phase, Says};
use crate::op::Op;
use crate::world::Writer;

fn registrations(writer: &Writer, allowance: Option<&Allowance>, op: &Op) -> Vec<RequestedRegistration> {
    let names = allowance.iter().flat_map(|a| &a.upstreams).map(|u| u.name.as_str());
    let version = |name: &str| writer.state.upstreams.get(name).map_or(0, |u| u.version);
    let all = names.map(|name| RequestedRegistration { upstream: name.into(), version: version(name) });
    all.take(1 + op.n[3] as usize % 2).collect()
}

fn asking(writer: &Writer, op: &Op, id: &[u8], of: ApprovalKind, terms: RequestedTask) -> ApprovalRequested {
    let first = terms.registrations.first().cloned().unwrap_or_default();
    let named = if op.once_in(3, 2, 3) { &PEOPLE[..1] } else { &PEOPLE[..] };
    ApprovalRequested {
        approval: id.to_vec(),
        of: of as i32,
        upstream: first.upstream,
        upstream_version: first.version,
        approvers: named.iter().map(|name| person(name)).collect(),
        expires_at: writer.now() + [9_000, 10 * MINUTE][op.n[2] as usize % 2],
        terms: Some(terms.into()),
        ..Default::default()
    }
}

fn bound(mut asked: ApprovalRequested, op: &Op) -> ApprovalRequested {
    asked.digest = if op.once_in(3, 13, 12) { vec![1; 32] } else { digest_of_task(&asked).to_vec() };
    asked
}

/// The approval request of a waiting task: sometimes for less than the task is.
pub fn ask(writer: &Writer, op: &Op, opened: &Record) -> Option<Record> {
    let Some(Event::TaskOpened(t)) = &opened.event else { return None };
    let mut terms = terms_of(t);
    terms.registrations = registrations(writer, t.allowance.as_ref(), op);
    if op.once_in(3, 9, 8) {
        terms.callers.pop();
    }
    let asked = asking(writer, op, &t.approval, ApprovalKind::Task, terms);
    let (caller, environment, task) = (t.opener.clone(), t.environment.clone(), t.task.clone());
    let asked = bound(ApprovalRequested { caller, environment, task, actors: t.actors.clone(), ..asked }, op);
    Some(Record::new(Author::SpiffeId(t.opener.clone()), Event::ApprovalAsked(asked.into())))
}

/// Asks for approval of an extension.
pub fn ask_more(writer: &Writer, op: &Op, id: &[u8]) -> Option<ApprovalRequested> {
    let task = task(writer, op, 1)?;
    let known = &task.terms;
    let deadline = (task.deadline.0 + [1_000, 30_000, 10 * MINUTE][op.n[2] as usize % 3]).min(known.max_deadline.0);
    let terms = RequestedTask {
        owner: known.owners.last().cloned(),
        callers: known.callers.iter().map(ToString::to_string).collect(),
        allowance: if op.once_in(3, 9, 8) { None } else { Some((*known.allowance).clone()) },
        purpose: known.purpose.to_string(),
        ttl: deadline.saturating_sub(known.opened_at.0),
        max_ttl: known.max_deadline.since(known.opened_at),
        heartbeat: known.heartbeat,
        registrations: registrations(writer, Some(&known.allowance), op),
        deadline,
        ..Default::default()
    };
    let asked = asking(writer, op, id, ApprovalKind::Extension, terms);
    let (caller, environment) = (known.opener.to_string(), known.environment.to_string());
    Some(bound(ApprovalRequested { caller, environment, task: known.id.as_bytes().to_vec(), ..asked }, op))
}

/// Uses an approval for an extension, if there is one: the right one, and sometimes another.
pub fn extend(writer: &Writer, op: &Op, extended: TaskExtended) -> TaskExtended {
    let more = |a: &&mayfly::ledger::state::Approval| a.asked.of == ApprovalKind::Extension as i32;
    let all: Vec<_> = writer.state.approvals.values().filter(more).collect();
    let Some(found) = op.pick(3, &all).filter(|_| op.once_in(3, 4, 2)) else { return extended };
    let asked = &found.asked;
    let approval = asked.approval.clone();
    if op.once_in(3, 8, 4) {
        return TaskExtended { approval, ..extended };
    }
    let deadline = asked.terms.as_ref().map_or(0, |t| t.deadline);
    TaskExtended { approval, task: asked.task.clone(), caller: asked.caller.clone(), deadline, ..extended }
}

/// The record of an extension.
pub fn extension(writer: &Writer, op: &Op, task: &Task, extended: TaskExtended) -> Record {
    let extended = extend(writer, op, extended);
    by_operator(Event::TaskExtended(extended)).for_request(crate::make::request(op, &task.terms.opener))
}

fn terms_of(t: &TaskOpened) -> RequestedTask {
    RequestedTask {
        owner: t.owner.clone(),
        parent: t.parent.clone(),
        callers: t.callers.clone(),
        allowance: t.allowance.clone(),
        purpose: t.purpose.clone(),
        ttl: t.deadline - t.opened_at.min(t.deadline),
        max_ttl: t.max_deadline - t.opened_at.min(t.max_deadline),
        heartbeat: t.heartbeat,
        ..Default::default()
    }
}

impl Model {
    /// The phase of a task that waits, or waited: `None` if it never did.
    pub fn waited(&self, t: &TaskOpened, now: u64) -> Option<Phase> {
        if let Some((_, waits)) = self.glass_of(t) {
            return Some(if waits { Phase::Pending } else { Phase::Active });
        }
        if t.approval.is_empty() {
            return None;
        }
        Some(match self.approval(&t.approval) {
            Some((_, Some(Some(_)), _)) => Phase::Active,
            Some((_, Some(None), _)) => Phase::Over,
            Some((a, None, _)) if now >= a.expires_at => Phase::Over,
            _ => Phase::Pending,
        })
    }

    /// When a task's approval was given.
    pub fn given_at(&self, t: &TaskOpened) -> Option<u64> {
        let given = |(_, e): &(_, &Event)| matches!(e, Event::ApprovalDecided(d) if d.approval == t.approval && d.given);
        self.now_valid().find(given).map(|(l, _)| l.time)
    }

    pub fn asks_about_task(&self, a: &ApprovalRequested, time: u64) -> Says {
        let Some(terms) = &a.terms else { return yes(a.of == ApprovalKind::Exchange as i32) };
        let Some((line, t)) = self.task(&a.task) else { return Says::Void };
        let stand = |r: &RequestedRegistration| self.upstream(&r.upstream) == Some((r.version, true));
        let own = a.environment == t.environment && terms.owner == t.owner && terms.callers == self.callers(t);
        let same = own && terms.allowance == t.allowance && terms.purpose == t.purpose && a.digest == digest_of_task(a);
        let shown = !terms.registrations.is_empty() && terms.registrations.iter().all(stand);
        yes(same
            && shown
            && match a.of == ApprovalKind::Task as i32 {
                true => {
                    let whole = RequestedTask { registrations: terms.registrations.clone(), ..terms_of(t) };
                    line.seq == IN_GROUP
                        && t.approval == a.approval
                        && (&a.caller, &a.actors) == (&t.opener, &t.actors)
                        && whole == **terms
                }
                false => {
                    let until = terms.deadline > 0 && terms.ttl == terms.deadline.saturating_sub(t.opened_at);
                    until && line.seq != IN_GROUP && self.usable(&a.task, time)
                }
            })
    }

    /// Every waiting task must have its approval request in its group.
    pub fn all_asked(&self) -> bool {
        let own = |l: &&crate::model::Line| l.seq == IN_GROUP;
        let opened = self.log.iter().filter(own).filter_map(|l| match &l.record.event {
            Some(Event::TaskOpened(t)) if !t.approval.is_empty() => Some(t),
            _ => None,
        });
        let asked = |id: &[u8]| {
            let of = |e: &Event| matches!(e, Event::ApprovalAsked(a) if a.approval == id && a.of == ApprovalKind::Task as i32);
            self.log.iter().filter(own).any(|l| l.record.event.as_ref().is_some_and(of))
        };
        opened.into_iter().all(|t| !t.break_glass && asked(&t.approval))
    }

    /// With its approval a task opens as it was decided.
    pub fn opens_with(&self, a: &ApprovalRequested, time: u64) -> Says {
        let stand = |r: &RequestedRegistration| self.upstream(&r.upstream) == Some((r.version, true));
        let registered = a.terms.iter().flat_map(|t| &t.registrations).all(stand);
        if a.of != ApprovalKind::Task as i32 {
            return yes(registered);
        }
        let Some((line, t)) = self.task(&a.task) else { return Says::Void };
        let opened = |t: &Vec<u8>| self.task(t).map(|(l, t)| (l.record.revision, self.opening(t)));
        let covered = self.path(&a.task).iter().filter_map(opened).any(|(r, g)| self.covered(&g, r, self.head).is_some());
        let waits = self.waited(t, time) == Some(Phase::Pending) && !self.closed(&a.task);
        both(
            yes(registered && waits && !covered && t.policy_version == self.policy(&t.environment)),
            self.blocked(&self.opening(t), line.record.revision, time),
        )
    }

    /// The revision that an extension is based on, if it is allowed.
    pub fn more_time(&self, x: &TaskExtended, revision: u64, time: u64) -> Option<u64> {
        let (_, t) = self.task(&x.task).filter(|(_, t)| !t.break_glass)?;
        if x.approval.is_empty() {
            return (t.approval.is_empty() || x.deadline <= self.deadline(&x.task)).then_some(revision);
        }
        let (a, given, used) = self.approval(&x.approval)?;
        let given = given.flatten().filter(|given| !used && a.expires_at > time && *given <= revision)?;
        let stand = |r: &RequestedRegistration| self.upstream(&r.upstream) == Some((r.version, true));
        let until = a.terms.as_ref().map(|t| t.deadline);
        let same = a.of == ApprovalKind::Extension as i32
            && (&a.task, &a.caller, until) == (&x.task, &x.caller, Some(x.deadline))
            && a.terms.iter().flat_map(|t| &t.registrations).all(stand);
        same.then_some(given.min(revision))
    }
}
