//! Records events that are caused by time alone, once each, so that everything that follows the ledger learns of them.

use crate::authority::Authority;
use mayfly_base::limits;
use mayfly_ledger::ProposalKind;
use mayfly_ledger::record::{Author, DeadlineKind, DeadlineReached, Event, Record};
use mayfly_ledger::state::State;
use mayfly_policy::catalog::CompiledCatalog;
use mayfly_verify::seq::Millis;

impl Authority {
    /// Records what became due since the last pass: approvals that expired undecided, and registrations that expire soon.
    pub fn tell_due(&self) {
        if self.ledger.stopped().is_some() {
            return;
        }
        let (now, compiled) = (self.system.wall(), self.catalog.now());
        let due = self
            .ledger
            .peek(|s| approvals(s, now).chain(upstreams(s, &compiled, now)).take(limits::GATHER_RECORDS).collect::<Vec<_>>());
        for due in due {
            let record = Record::new(Author::Mayfly("fell due".into()), Event::FellDue(due));
            // An event that is not accepted now is found again in the next pass.
            if self.ledger.propose(ProposalKind::Note, vec![record]).is_err() {
                return;
            }
        }
    }
}

fn approvals(state: &State, now: Millis) -> impl Iterator<Item = DeadlineReached> {
    let over = state.approvals.iter().filter(move |(_, a)| a.decided.is_none() && !a.due_told && a.expires_at() <= now);
    over.map(|(id, a)| DeadlineReached {
        of: DeadlineKind::Approval as i32,
        id: id.as_bytes().to_vec(),
        at: a.asked.expires_at,
        environment: a.asked.environment.clone(),
        ..DeadlineReached::default()
    })
}

fn upstreams(state: &State, compiled: &CompiledCatalog, now: Millis) -> impl Iterator<Item = DeadlineReached> {
    let untold = state.upstreams.iter().filter(|(_, v)| v.active && !v.due_told);
    untold.filter_map(move |(name, version)| {
        let registered = compiled.upstream(name).filter(|r| r.version == version.version)?;
        let upstream = &registered.upstream;
        (upstream.expires < now.plus(limits::REGISTRATION_WARN_MS)).then(|| DeadlineReached {
            of: DeadlineKind::Upstream as i32,
            name: name.to_string(),
            version: version.version,
            at: upstream.expires.0,
            environment: upstream.environment.clone(),
            owner: upstream.owner.clone(),
            ..DeadlineReached::default()
        })
    })
}
