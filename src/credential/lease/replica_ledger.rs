//! Leases over the ledger of this replica.

use super::LeaseLedger;
use mayfly_base::limits;
use mayfly_base::refusal::Error;
use mayfly_base::system::System;
use mayfly_ledger::clock::GuardedClock;
use mayfly_ledger::record::{Event, Record};
use mayfly_ledger::{Ledger, ProposalKind, Receipt, State};
use mayfly_verify::seq::Millis;

/// The ledger, with a guarded clock: a step of the wall clock must not make credentials look expired, since undoing them upstream is final.
pub struct ReplicaLedger {
    ledger: Ledger,
    clock: GuardedClock,
}

impl ReplicaLedger {
    /// Trusts the wall clock as it is now.
    pub fn new(ledger: Ledger, system: System) -> ReplicaLedger {
        ReplicaLedger { ledger, clock: GuardedClock::new(system, limits::CLOCK_SKEW_MS) }
    }
}

/// The lane of a commit: opening a lease leads to a grant; revoking has precedence.
fn lane(records: &[Record]) -> ProposalKind {
    let any = |is: fn(&Event) -> bool| records.iter().filter_map(|r| r.event.as_ref()).any(is);
    if any(|e| matches!(e, Event::Revoked(_))) {
        ProposalKind::Revoke
    } else if any(|e| matches!(e, Event::LeaseOpened(_) | Event::Issued(_))) {
        ProposalKind::Grant
    } else {
        ProposalKind::Change
    }
}

impl LeaseLedger for ReplicaLedger {
    async fn commit(&self, records: Vec<Record>) -> Result<Receipt, Error> {
        self.ledger.commit(lane(&records), records).await
    }

    async fn settled<T: Send>(&self, read: impl FnOnce(&State) -> T + Send) -> Result<T, Error> {
        self.ledger.settled(read).await
    }

    fn now(&self) -> Millis {
        // Never earlier than the newest commit: whatever had expired at that commit stays expired when this clock is behind.
        self.clock.now().max(self.ledger.peek(|state| state.time))
    }
}
