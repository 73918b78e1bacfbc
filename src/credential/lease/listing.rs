//! Leases in the form that operators see.

use std::ops::Bound;

use super::{LeaseDriver, LeaseLedger, LeaseStatus, UndoCause, standing};
use mayfly_base::refusal::Error;
use mayfly_ledger::state::{Lease, State};
use mayfly_verify::seq::LeaseId;

/// A lease and the progress of undoing it.
#[derive(Clone, Debug)]
pub struct ListedLease {
    /// The lease's id.
    pub id: LeaseId,
    /// The lease.
    pub lease: Lease,
    /// The state of the lease.
    pub standing: LeaseStatus,
    /// The maker gave up, so the lease is undone although the ledger says that its issuance may still follow.
    pub given_up: bool,
    /// Undone, and to be checked once more.
    pub watched: bool,
    /// Failed attempts of this process.
    pub attempts: u32,
    /// The upstream's answer to the most recent failed attempt.
    pub last: String,
    /// Time until the next attempt, in milliseconds; 0 if it is due.
    pub next_in_ms: u64,
}

impl ListedLease {
    /// Why the lease is to be undone; `None` while it is live or being made.
    pub fn cause(&self) -> Option<UndoCause> {
        match self.standing {
            LeaseStatus::ToUndo(cause) => Some(cause),
            LeaseStatus::InMaking if self.given_up => Some(UndoCause::LeftBehind),
            LeaseStatus::InMaking | LeaseStatus::Somebodys => None,
        }
    }
}

impl<D: LeaseLedger> LeaseDriver<D> {
    /// Up to `most` leases after the given one, ordered by id, with the progress of undoing.
    pub async fn list(&self, after: Option<LeaseId>, most: usize) -> Result<Vec<ListedLease>, Error> {
        let now = self.durable.now();
        let left = self.timing().left_ms;
        let page = self.durable.settled(|s| page(s, after, most, |_, l| Some(standing(s, l, now, left)))).await?;
        Ok(page.found.into_iter().map(|(id, lease, standing)| self.listed(id, lease, standing)).collect())
    }

    /// One open lease; `None` if it is not open.
    pub async fn one(&self, id: LeaseId) -> Result<Option<ListedLease>, Error> {
        let (now, left) = (self.durable.now(), self.timing().left_ms);
        let found = self.durable.settled(|s| s.leases.get(&id).map(|l| (Lease::clone(l), standing(s, l, now, left)))).await?;
        Ok(found.map(|(lease, standing)| self.listed(id, lease, standing)))
    }

    /// The number of leases with failed attempts of this process.
    pub fn failing(&self) -> usize {
        self.queue.failing()
    }

    fn listed(&self, id: LeaseId, lease: Lease, standing: LeaseStatus) -> ListedLease {
        let progress = self.queue.progress(id);
        let next_in_ms = progress.next_at.saturating_sub(self.system.steady());
        ListedLease {
            id,
            lease,
            standing,
            given_up: progress.given,
            watched: progress.watched,
            attempts: progress.attempts,
            last: progress.last,
            next_in_ms,
        }
    }
}

/// A page of leases.
pub(super) struct LeasePage<T> {
    pub found: Vec<(LeaseId, Lease, T)>,
    /// Where the next page begins; `None` at the end.
    pub last: Option<LeaseId>,
}

/// Up to `most` leases after the given one for which `of` returns a value, each with that value.
pub(super) fn page<T>(s: &State, after: Option<LeaseId>, most: usize, of: impl Fn(LeaseId, &Lease) -> Option<T>) -> LeasePage<T> {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut page = LeasePage { found: Vec::new(), last: None };
    let mut looked = 0;
    for (id, lease) in s.leases.range((from, Bound::Unbounded)).take(most) {
        looked += 1;
        page.last = Some(*id);
        if let Some(found) = of(*id, lease) {
            page.found.push((*id, Lease::clone(lease), found));
        }
    }
    if looked < most {
        page.last = None;
    }
    page
}
