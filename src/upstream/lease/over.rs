//! Leases over the ledger of this replica.

use super::Durable;
use crate::ledger::clock::Guarded;
use crate::ledger::record::{Event, Record};
use crate::ledger::{Lane, Ledger, Receipt, State};
use crate::limits;
use crate::refusal::No;
use crate::seq::Millis;
use crate::system::System;

/// The ledger, and a clock that does not follow a wall clock that steps: what a step made look expired would be gone upstream.
pub struct OverLedger {
    ledger: Ledger,
    clock: Guarded,
}

impl OverLedger {
    /// Believes the wall clock as it stands now.
    pub fn new(ledger: Ledger, system: System) -> OverLedger {
        OverLedger { ledger, clock: Guarded::new(system, limits::CLOCK_SKEW_MS) }
    }
}

/// A lease leads to a grant; what revokes goes first.
fn lane(records: &[Record]) -> Lane {
    let any = |is: fn(&Event) -> bool| records.iter().filter_map(|r| r.event.as_ref()).any(is);
    if any(|e| matches!(e, Event::Revoked(_))) {
        Lane::Revoke
    } else if any(|e| matches!(e, Event::LeaseOpened(_) | Event::Issued(_))) {
        Lane::Grant
    } else {
        Lane::Change
    }
}

impl Durable for OverLedger {
    async fn commit(&self, records: Vec<Record>) -> Result<Receipt, No> {
        self.ledger.commit(lane(&records), records).await
    }

    async fn settled<T: Send>(&self, read: impl FnOnce(&State) -> T + Send) -> Result<T, No> {
        self.ledger.settled(read).await
    }

    fn now(&self) -> Millis {
        // What had ended when the newest commit was written has ended, also by a clock that stands behind it.
        self.clock.now().max(self.ledger.peek(|state| state.time))
    }
}
