//! Approvals: asked for something that might be issued, given by somebody, used for that or for something else.

use mayfly::ledger::record::*;
use mayfly::seq::TaskId;

use crate::judge::{both, yes};
use crate::make::{PEOPLE, issue, person, task, with};
use crate::model::{DAY, Grant, MINUTE, Model, Phase, Says, domain};
use crate::op::Op;
use crate::world::Writer;

const DIGEST: [u8; 32] = [1; 32];

/// Asks for approval of what an exchange would be granted.
pub fn ask(writer: &Writer, op: &Op, id: &[u8]) -> Option<ApprovalRequested> {
    let wanted = issue(writer, op, id, task(writer, op, 1)?)?;
    let Some(Event::Issued(i)) = wanted.event else { return None };
    let named = if op.once_in(3, 2, 3) { &PEOPLE[..1] } else { &PEOPLE[..] };
    Some(ApprovalRequested {
        approval: id.to_vec(),
        digest: DIGEST.to_vec(),
        of: ApprovalKind::Exchange as i32,
        caller: i.caller,
        subject: i.subject,
        actors: i.actors,
        task: i.task,
        upstream: i.upstream,
        upstream_version: i.upstream_version,
        binding: i.binding,
        binding_version: i.binding_version,
        environment: i.environment,
        scopes: i.scopes,
        kind: i.kind,
        tool: i.tool,
        ttl: i.expires_at.saturating_sub(i.issued_at),
        approvers: named.iter().map(|name| person(name)).collect(),
        expires_at: writer.now() + [9_000, 10 * MINUTE][op.n[2] as usize % 2],
        ..Default::default()
    })
}

/// Uses an approval: for what it was given for, and sometimes for something else.
pub fn used(writer: &Writer, op: &Op, id: &[u8]) -> Option<Record> {
    let all: Vec<_> = writer.state.approvals.iter().collect();
    let (approval, found) = *op.pick(3, &all)?;
    let asked = &found.asked;
    let known = TaskId::from_slice(&asked.task).and_then(|t| writer.state.tasks.get(&t));
    let record = issue(writer, op, id, known.or_else(|| task(writer, op, 1))?)?;
    Some(with(record, |i| {
        i.approval = approval.as_bytes().to_vec();
        if op.once_in(3, 8, 4) {
            return;
        }
        (i.caller, i.subject, i.actors) = (asked.caller.clone(), asked.subject.clone(), asked.actors.clone());
        (i.upstream, i.upstream_version) = (asked.upstream.clone(), asked.upstream_version);
        (i.binding, i.binding_version) = (asked.binding.clone(), asked.binding_version);
        (i.environment, i.scopes, i.tool) = (asked.environment.clone(), asked.scopes.clone(), asked.tool.clone());
        i.expires_at = i.expires_at.min(i.issued_at + asked.ttl);
    }))
}

/// Gives or refuses an approval: sometimes by somebody who may not, or with another digest than the request's.
pub fn decide(writer: &Writer, op: &Op) -> Option<Record> {
    let all: Vec<_> = writer.state.approvals.keys().collect();
    let approval = op.pick(1, &all)?.as_bytes().to_vec();
    let asked = |id: &mayfly::seq::ApprovalId| writer.state.approvals[id].asked.digest.clone();
    let digest = if op.once_in(2, 6, 12) { vec![9; 32] } else { op.pick(1, &all).map(|id| asked(id))? };
    let decided = ApprovalDecided { approval, given: !op.once_in(2, 0, 5), reason: String::new(), digest, login: Vec::new() };
    let who = match op.n[3] % 9 {
        0 => Author::LocalUid(0),
        n => Author::Person(person(PEOPLE[n as usize % 2])),
    };
    Some(Record::new(who, Event::ApprovalDecided(decided)))
}

impl Model {
    pub fn asks(&self, a: &ApprovalRequested, time: u64) -> Says {
        let whole = a.digest.len() == 32 && a.expires_at <= time + DAY;
        let about = self.asks_about_task(a, time);
        let known = match self.approval(&a.approval) {
            Some((before, ..)) if time > before.expires_at + 10 * MINUTE => Says::Either,
            found => yes(whole && found.is_none()),
        };
        both(known, about)
    }

    pub fn decides(&self, d: &ApprovalDecided, record: &Record, time: u64) -> Says {
        match self.approval(&d.approval) {
            Some((a, None, _)) if a.expires_at > time && a.digest == d.digest => match d.given {
                true => self.approves(a, record, time),
                false => Says::Valid,
            },
            _ => Says::Void,
        }
    }

    fn approves(&self, a: &ApprovalRequested, record: &Record, time: u64) -> Says {
        let Some(Author::Person(who)) = record.author.as_ref().and_then(|a| a.who.as_ref()) else { return Says::Void };
        let Some((_, t)) = self.task(&a.task) else { return Says::Void };
        if self.phase(&a.task, time) == Phase::Over {
            return Says::Void;
        }
        let opening = self.opening(t);
        let owner = opening.identities.contains(&(who.issuer.clone(), who.sub.clone()));
        let apart = a.approvers.contains(who) && a.subject.as_ref() != Some(who) && !a.actors.contains(who) && !owner;
        let now = self.upstream(&a.upstream) == Some((a.upstream_version, true))
            && (a.binding.is_empty() || self.binding(&a.binding) == Some((a.binding_version, true)));
        let mut grant = Grant {
            identities: self.owners(&opening.tasks),
            tasks: opening.tasks,
            environment: a.environment.clone(),
            policy: self.policy(&a.environment),
            upstream: a.upstream.clone(),
            scopes: a.scopes.clone(),
            tool: a.tool.clone(),
            ..Grant::default()
        };
        grant.identities.push((domain(&a.caller), a.caller.clone()));
        grant.identities.push((who.issuer.clone(), who.sub.clone()));
        let opens = self.opens_with(a, time);
        both(opens, both(yes(apart && now && self.of_this_order(record.revision)), self.blocked(&grant, record.revision, time)))
    }

    /// The revision of the approval that an issuance uses, if it may use it.
    pub fn approved(&self, i: &CredentialIssued, revision: u64, time: u64) -> Option<u64> {
        let (a, given, used) = self.approval(&i.approval)?;
        let given = given.flatten().filter(|given| !used && a.expires_at > time && *given <= revision)?;
        let same = a.of == ApprovalKind::Exchange as i32
            && i.task == a.task
            && i.caller == a.caller
            && (&i.subject, &i.actors) == (&a.subject, &a.actors)
            && (&i.upstream, i.upstream_version) == (&a.upstream, a.upstream_version)
            && (&i.binding, i.binding_version) == (&a.binding, a.binding_version)
            && (&i.scopes, i.kind, &i.tool) == (&a.scopes, a.kind, &a.tool)
            && i.expires_at.saturating_sub(i.issued_at) <= a.ttl;
        same.then_some(given)
    }
}
