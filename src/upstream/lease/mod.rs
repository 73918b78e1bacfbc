//! Leases: whatever is made upstream is in the ledger before it is made, and ends undone or listed (design, section 11, invariant 5).
//!
//! ```text
//! LeaseOpened, durable ─▶ make ─▶ Issued, durable and valid ─▶ answer
//!                           │ failed, dropped, void, killed         │ expired, given back, revoked, its task over
//!                           ▼                                       ▼
//!                     bar the issuance ─▶ undo ─▶ look ─▶ LeaseClosed      again and again, until it took
//! ```
//!
//! Failure analysis.
//! - *Killed anywhere.* The lease is in the ledger. Nobody's issuance came of it within `left_ms`: it was left behind, and is undone.
//! - *An issuance that is still on its way while its lease is undone* (the caller went away during the commit, another replica is slow):
//!   before anything is undone whose issuance may have been proposed, its credential is revoked in the ledger. Then either the issuance is
//!   there before, and is revoked, or comes after, and is void. Never is a credential live that opens nothing.
//! - *A request that arrives late.* The upstream may carry out `make` after we gave up on it, and after an undo that found nothing. So a
//!   lease whose `make` was not answered closes only when [`settles_ms`](crate::credential::remote::Remote::settles_ms) have passed and it was undone and looked at after that.
//! - *The same lease undone twice, by two replicas or across a restart.* Undoing may be repeated; the second to close it is told that it is
//!   closed.

mod again;
mod agenda;
mod crowd;
mod desk;
mod inbox;
mod listing;
mod make;
mod over;
#[cfg(test)]
mod tests;
mod undo;

use std::future::Future;
use std::sync::Arc;

pub use listing::Listed;
pub use over::OverLedger;

use crate::credential::Kind;
use crate::credential::remote::{Remote, Remotes};
use crate::ledger::Receipt;
use crate::ledger::record::{Event, LeaseClosed, LeaseEnd, Record};
use crate::ledger::state::{Lease, Phase, State};
use crate::limits;
use crate::refusal::{No, Reason, Refusal};
use crate::seq::{LeaseId, Millis, Seq};
use crate::system::System;
use crowd::{Crowd, Most};
use desk::Desk;
use inbox::Inbox;

/// What leases need of the ledger.
pub trait Durable: Send + Sync + 'static {
    /// Commits a group of records: durable and found valid, or refused. A fault, and a refusal for lack of service, leave open whether.
    fn commit(&self, records: Vec<Record>) -> impl Future<Output = Result<Receipt, No>> + Send;

    /// Reads the state, and answers when all that was seen is durable: what is undone upstream cannot be taken back.
    fn settled<T: Send>(&self, read: impl FnOnce(&State) -> T + Send) -> impl Future<Output = Result<T, No>> + Send;

    /// Now, as far as a clock is believed that may have stepped.
    fn now(&self) -> Millis;
}

/// How long things may take, milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// Making.
    pub make_ms: u64,
    /// One attempt to undo, or to look.
    pub call_ms: u64,
    /// From opening a lease until it counts as left behind. More than `make_ms` and the age at which the fold voids a decision.
    pub left_ms: u64,
    /// The first pause between attempts.
    pub retry_min_ms: u64,
    /// The longest pause between attempts.
    pub retry_max_ms: u64,
    /// Between looks, when nothing wakes us.
    pub look_ms: u64,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            make_ms: limits::LEASE_MAKE_MS,
            call_ms: limits::LEASE_CALL_MS,
            left_ms: limits::LEASE_LEFT_MS,
            retry_min_ms: limits::LEASE_RETRY_MIN_MS,
            retry_max_ms: limits::LEASE_RETRY_MAX_MS,
            look_ms: limits::LEASE_LOOK_MS,
        }
    }
}

/// Why something is to be undone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// No issuance came of it.
    LeftBehind,
    /// Its credential has ended, or was given back.
    Ended,
    /// Its credential was revoked, at this seq.
    Revoked(Seq),
    /// Its task is over.
    TaskOver,
}

/// Whose a lease is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Its issuance may still come.
    InMaking,
    /// A live credential's.
    Somebodys,
    /// Nobody's.
    ToUndo(Cause),
}

/// Whose a lease is at `now`. A task that is held keeps what it has: a hold is reversible.
pub fn standing(state: &State, lease: &Lease, now: Millis, left_ms: u64) -> Standing {
    let now = now.max(state.time);
    if !lease.issued {
        let left = now.since(lease.opened_at) >= left_ms;
        return if left { Standing::ToUndo(Cause::LeftBehind) } else { Standing::InMaking };
    }
    let live = state.credentials.get(&lease.credential).filter(|c| !c.released() && c.expires_at() > now);
    let Some((live, task)) = live.and_then(|c| Some((c, state.tasks.at(c.task())?))) else {
        return Standing::ToUndo(Cause::Ended);
    };
    if let Some(hit) = state.rules.covers(&state.facts(&live, task)) {
        return Standing::ToUndo(Cause::Revoked(hit.seq));
    }
    match state.tasks.phase(task, now) {
        Phase::Over(_) => Standing::ToUndo(Cause::TaskOver),
        _ => Standing::Somebodys,
    }
}

/// By this an operator gives a lease up: what stands upstream is theirs to clean from then on.
pub fn abandoned(lease: LeaseId, why: &str) -> Event {
    closed(lease, LeaseEnd::Abandoned, why)
}

fn closed(lease: LeaseId, end: LeaseEnd, detail: &str) -> Event {
    Event::LeaseClosed(LeaseClosed { lease: lease.as_bytes().to_vec(), end: end as i32, detail: brief(detail) })
}

/// An upstream's words as they may be kept: no control characters, and not too many.
fn brief(text: &str) -> String {
    let mut out: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let end = (0..=limits::LEASE_DETAIL_BYTES.min(out.len())).rev().find(|at| out.is_char_boundary(*at));
    out.truncate(end.unwrap_or(0));
    out
}

/// How many may be at it at once: at most those of `limits.rs`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Places {
    /// Making, in all.
    pub making: usize,
    /// Making at one upstream.
    pub making_per_upstream: usize,
    /// Making of one all-or-nothing batch.
    pub making_per_batch: usize,
    /// Undoing, in all.
    pub undoing: usize,
    /// Undoing at one upstream.
    pub undoing_per_upstream: usize,
}

impl Default for Places {
    fn default() -> Places {
        Places {
            making: limits::LEASES_MAKING,
            making_per_upstream: limits::LEASES_MAKING_PER_UPSTREAM,
            making_per_batch: limits::LEASES_MAKING_PER_BATCH,
            undoing: limits::LEASES_UNDOING,
            undoing_per_upstream: limits::LEASES_UNDOING_PER_UPSTREAM,
        }
    }
}

/// What is made elsewhere: the kinds, how long things may take, and how many at once. By default nothing is.
#[derive(Clone, Default)]
pub struct Elsewhere {
    /// The kinds.
    pub remotes: Remotes,
    /// How long things may take.
    pub timing: Timing,
    /// How many at once.
    pub places: Places,
}

/// Makes under leases, and undoes.
pub struct Leases<D> {
    durable: Arc<D>,
    elsewhere: Elsewhere,
    system: System,
    desk: Arc<Desk>,
    inbox: Inbox,
    making: Arc<Crowd>,
    undoing: Arc<Crowd>,
}

impl<D: Durable> Leases<D> {
    /// One per process.
    pub fn new(durable: Arc<D>, elsewhere: Elsewhere, system: System) -> Arc<Leases<D>> {
        let most = |name, places| Most { name, places };
        let places = elsewhere.places;
        let making =
            Crowd::new(most("leases_making", places.making), most("leases_making_per_upstream", places.making_per_upstream));
        let undoing =
            Crowd::new(most("leases_undoing", places.undoing), most("leases_undoing_per_upstream", places.undoing_per_upstream));
        Arc::new(Leases { durable, elsewhere, system, desk: Arc::default(), inbox: Inbox::default(), making, undoing })
    }

    /// How long things may take.
    pub fn timing(&self) -> &Timing {
        &self.elsewhere.timing
    }

    /// How many may be at it at once.
    pub fn places(&self) -> &Places {
        &self.elsewhere.places
    }

    /// Whether any kind is made at an upstream.
    pub fn any_kind(&self) -> bool {
        !self.elsewhere.remotes.is_empty()
    }

    /// Who makes a kind. Refused with NOT_SERVED, before anything is done, where nobody here does.
    pub fn maker(&self, kind: Kind) -> Result<&Arc<dyn Remote>, Refusal> {
        self.elsewhere.remotes.of(kind).ok_or_else(|| {
            Refusal::new(Reason::NotServed, format!("credentials of kind {} are not made by this server", kind.name()))
        })
    }
}
