//! Operations on what was granted: authorized actions without an issuance, use reports, and the policy on uses that holds a task.

use mayfly::ledger::record::*;
use mayfly::ledger::state::Task;
use mayfly::limits::AUTHORIZATION_MS;

use crate::judge::{both, yes};
use crate::make::{issue, live, task};
use crate::model::{Model, Phase, Says};
use crate::op::Op;
use crate::world::{World, Writer};

/// An authorized action: of a workload that asks for itself, or with a presented credential.
pub fn authorize(writer: &Writer, op: &Op) -> Option<Record> {
    let shown = if op.once_in(3, 14, 2) { live(writer, op, 1) } else { None };
    let of = shown.and_then(|l| writer.state.tasks.at(l.task()));
    let record = issue(writer, op, &[], of.or_else(|| task(writer, op, 1))?)?;
    let Some(Event::Issued(mut decided)) = record.event.clone() else { return None };
    decided.key.clear();
    if let Some(live) = shown {
        (decided.caller, decided.upstream) = (live.caller().into(), live.upstream().into());
        decided.environment = live.environment().into();
        decided.upstream_version = writer.state.upstreams.get(live.upstream()).map_or(0, |u| u.version);
    }
    // Sometimes for longer than an authorization may last.
    let longest = decided.issued_at + if op.once_in(3, 20, 6) { 10 * AUTHORIZATION_MS } else { AUTHORIZATION_MS };
    let authorized = ActionAuthorized {
        // Sometimes another credential than the one that the action is about.
        credential: match shown {
            Some(_) if op.once_in(3, 16, 8) => live(writer, op, 2).map_or(vec![], |l| l.id().as_bytes().to_vec()),
            Some(live) => live.id().as_bytes().to_vec(),
            None => vec![],
        },
        tool: decided.tool.clone(),
        policy_version: decided.policy_version,
        good_until: decided.expires_at.min(longest),
        decided: Some(decided),
        ..Default::default()
    };
    Some(Record { event: Some(Event::Authorized(authorized)), ..record })
}

/// Reports uses; if they are beyond the intent, the policy on uses holds the task.
pub fn report(world: &mut World, w: usize, op: &Op) {
    let writer = &world.writers[w];
    let Some(of) = live(writer, op, 1) else { return };
    let Some(task) = writer.state.tasks.at(of.task()) else { return };
    let task = task.terms.id.as_bytes().to_vec();
    let undeclared = op.once_in(2, 0, 3);
    let used = UsesReported {
        credential: of.id().as_bytes().to_vec(),
        tool: of.tool().to_owned(),
        // Sometimes an unknown outcome.
        outcome: ["accepted", "refused", "failed", "odd"][(op.n[2] >> 4) as usize % 4].into(),
        minute: writer.now() / 60_000 * 60_000,
        count: u64::from(op.n[3] % 4),
        task: task.clone(),
        undeclared,
        ..Default::default()
    };
    let (durable, by) = (writer.durable, |what: &str| Author::Mayfly(what.into()));
    let held = TaskHeld { task, rank: HoldRank::Policy as i32, reason: "an undeclared tool".into() };
    world.propose(w, vec![Record::new(by("uses"), Event::UsesReported(used)).decided_at(durable)], false, false);
    if undeclared {
        world.propose(w, vec![Record::new(by("activity"), Event::TaskHeld(held)).decided_at(durable)], false, false);
    }
}

impl Model {
    /// An action is decided like an issuance, with nothing issued.
    pub fn authorizes(&self, e: &ActionAuthorized, r: u64, time: u64) -> Says {
        let Some(i) = e.decided.as_deref() else { return Says::Void };
        let Some((_, t)) = self.task(&i.task) else { return Says::Void };
        let end = i.expires_at.min(self.deadline(&i.task)).min(time + AUTHORIZATION_MS);
        let bounds = self.timely(i.issued_at, r, time)
            && (&e.tool, &e.arguments) == (&i.tool, &i.arguments)
            && i.policy_version > 0
            && i.policy_version == self.policy(&i.environment)
            && self.upstream(&i.upstream) == Some((i.upstream_version, true))
            && (i.binding.is_empty() || self.binding(&i.binding) == Some((i.binding_version, true)))
            && self.phase(&i.task, time) == Phase::Active
            && self.usable(&i.task, time)
            && t.environment == i.environment
            && self.issued_in_glass(i, t)
            && e.good_until > time
            && e.good_until <= end + 30_000;
        let says = both(yes(bounds), self.blocked(&self.grant(i), r, time));
        if e.credential.is_empty() {
            return says;
        }
        let Some((_, shown)) = self.credential(&e.credential) else { return Says::Void };
        let same = (&shown.caller, &shown.upstream, &shown.task) == (&i.caller, &i.upstream, &i.task);
        both(both(says, yes(same && self.alive(&e.credential, time))), self.blocked(&self.grant(shown), r, time))
    }

    /// Whether a use report is well-formed.
    pub fn tells(e: &UsesReported) -> Says {
        let known = ["accepted", "refused", "failed"].contains(&e.outcome.as_str());
        yes(known && e.count > 0 && e.credential.len() == 16 && e.task.len() == 16)
    }

    /// Recounts what was done in a task: uses, refused uses, and authorized actions.
    pub fn done(&self, task: &Task) -> [u64; 3] {
        let [mut uses, mut refused, mut authorized] = [0; 3];
        for (_, event) in self.now_valid() {
            match event {
                Event::Authorized(e) if e.decided.as_ref().is_some_and(|i| i.task == task.terms.id.as_bytes()) => {
                    authorized += 1;
                }
                Event::UsesReported(e) if e.task == task.terms.id.as_bytes() => {
                    uses += e.count;
                    refused += if e.outcome == "refused" { e.count } else { 0 };
                }
                _ => {}
            }
        }
        [uses, refused, authorized]
    }
}
