//! Leases: every credential made at an upstream is in the ledger before it is made, and its lease ends undone or listed
//! (docs/invariants.md, 5).
//!
//! ```text
//! LeaseOpened, durable ─▶ make ─▶ Issued, durable and valid ─▶ answer
//!                           │ failed, dropped, void, killed         │ expired, released, revoked, its task over
//!                           ▼                                       ▼
//!                     bar the issuance ─▶ undo ─▶ check ─▶ LeaseClosed      retried until it succeeds
//! ```
//!
//! Failure analysis.
//! - *Killed anywhere.* The lease is in the ledger. If no issuance of it became valid within `left_ms`, the lease was left behind and is
//!   undone.
//! - *An issuance still on its way while its lease is undone* (the caller disconnected during the commit, another replica is slow): before
//!   a lease is undone whose issuance may have been proposed, its credential is revoked in the ledger. The issuance is then either already
//!   there and revoked, or arrives later and is void. A live credential that opens nothing cannot exist.
//! - *A request that arrives late.* The upstream may carry out `make` after mayfly gave up on it, even after an undo that found nothing. A
//!   lease whose `make` was not answered therefore closes only once [`settles_ms`](crate::connector::UpstreamConnector::settles_ms) have
//!   passed and it was undone and checked after that.
//! - *An answer that is lost, of a credential that only its holder can undo.* See [`undo_secrets`].
//! - *The same lease undone twice, by two replicas or across a restart.* Undoing is idempotent; the second attempt to close the lease
//!   learns that it is closed.

mod concurrency;
mod event_queue;
mod listing;
mod make;
mod replica_ledger;
mod retry;
mod schedule;
#[cfg(test)]
mod tests;
mod try_out;
mod undo;
mod undo_secrets;
mod upstream_health;
mod worker_queue;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

pub use listing::ListedLease;
pub use replica_ledger::ReplicaLedger;
pub use try_out::{Trial, TrialStep};
pub use undo_secrets::{SealedValues, UndoSecretKeeper, UndoSecrets};
pub use upstream_health::UpstreamHealthRow;

use crate::CredentialKind;
use crate::assertion::AssertionIssuers;
use crate::connector::{UpstreamConnector, UpstreamConnectors};
use crate::keyring::{AssertionKeys, Keyring};
use concurrency::{ConcurrencyLimit, ConcurrencyLimiter};
use event_queue::EventQueue;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Reason, Refusal};
use mayfly_base::system::System;
use mayfly_ledger::Receipt;
use mayfly_ledger::record::{Event, LeaseClosed, LeaseEnd, Record};
use mayfly_ledger::state::{Lease, State, TaskPhase};
use mayfly_ledger::upstream::settings::KindSettings;
use mayfly_verify::seq::{LeaseId, Millis, Seq};
use upstream_health::UpstreamHealth;
use worker_queue::WorkerQueue;

/// The ledger operations that leases need.
pub trait LeaseLedger: Send + Sync + 'static {
    /// Commits a group of records. `Ok`: durable and found valid. After a fault, or a refusal for lack of service, it is unknown whether
    /// the records were committed.
    fn commit(&self, records: Vec<Record>) -> impl Future<Output = Result<Receipt, Error>> + Send;

    /// Reads the state and returns once everything that was read is durable, because undoing at an upstream cannot be reverted.
    fn settled<T: Send>(&self, read: impl FnOnce(&State) -> T + Send) -> impl Future<Output = Result<T, Error>> + Send;

    /// The present time, by a clock that does not follow steps of the wall clock.
    fn now(&self) -> Millis;
}

/// Time limits, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaseTiming {
    /// Limit for making a credential.
    pub make_ms: u64,
    /// Limit for one attempt to undo or to check.
    pub call_ms: u64,
    /// Time from opening a lease until it counts as left behind. Longer than `make_ms` and than the age at which the fold voids a decision.
    pub left_ms: u64,
    /// The first pause between attempts.
    pub retry_min_ms: u64,
    /// The longest pause between attempts.
    pub retry_max_ms: u64,
    /// Interval between passes when nothing wakes the undoing task.
    pub look_ms: u64,
}

impl Default for LeaseTiming {
    fn default() -> LeaseTiming {
        LeaseTiming {
            make_ms: limits::LEASE_MAKE_MS,
            call_ms: limits::LEASE_CALL_MS,
            left_ms: limits::LEASE_LEFT_MS,
            retry_min_ms: limits::LEASE_RETRY_MIN_MS,
            retry_max_ms: limits::LEASE_RETRY_MAX_MS,
            look_ms: limits::LEASE_LOOK_MS,
        }
    }
}

/// Why a lease is to be undone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UndoCause {
    /// No issuance followed the lease.
    LeftBehind,
    /// The credential expired or was released.
    Ended,
    /// The credential was revoked, at this sequence number.
    Revoked(Seq),
    /// The credential's task is over.
    TaskOver,
}

impl fmt::Display for UndoCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UndoCause::LeftBehind => f.write_str("no issuance came of the lease"),
            UndoCause::Ended => f.write_str("the credential ended"),
            UndoCause::Revoked(seq) => write!(f, "the credential was revoked at seq {seq}"),
            UndoCause::TaskOver => f.write_str("the task is over"),
        }
    }
}

/// The state of a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeaseStatus {
    /// The issuance may still follow.
    InMaking,
    /// The lease belongs to a live credential.
    Somebodys,
    /// The lease has no live credential and is to be undone.
    ToUndo(UndoCause),
}

/// The state of a lease at `now`. A held task keeps its credentials, since a hold is reversible.
pub fn standing(state: &State, lease: &Lease, now: Millis, left_ms: u64) -> LeaseStatus {
    let now = now.max(state.time);
    if !lease.issued {
        let left = now.since(lease.opened_at) >= left_ms;
        return if left { LeaseStatus::ToUndo(UndoCause::LeftBehind) } else { LeaseStatus::InMaking };
    }
    let live = state.credentials.get(&lease.credential).filter(|c| !c.released() && c.expires_at() > now);
    let Some((live, task)) = live.and_then(|c| Some((c, state.tasks.at(c.task())?))) else {
        return LeaseStatus::ToUndo(UndoCause::Ended);
    };
    if let Some(hit) = state.rules.covers(&state.facts(&live, task)) {
        return LeaseStatus::ToUndo(UndoCause::Revoked(hit.seq));
    }
    match state.tasks.phase(task, now) {
        TaskPhase::Over(_) => LeaseStatus::ToUndo(UndoCause::TaskOver),
        _ => LeaseStatus::Somebodys,
    }
}

/// The event by which an operator abandons a lease. Cleaning up at the upstream is then up to the operator.
pub fn abandoned(lease: LeaseId, why: &str) -> Event {
    closed(lease, LeaseEnd::Abandoned, why)
}

fn closed(lease: LeaseId, end: LeaseEnd, detail: &str) -> Event {
    Event::LeaseClosed(LeaseClosed { lease: lease.as_bytes().to_vec(), end: end as i32, detail: brief(detail) })
}

/// An upstream's text in a form that may be kept: without control characters and of bounded length.
fn brief(text: &str) -> String {
    let mut out: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let end = (0..=limits::LEASE_DETAIL_BYTES.min(out.len())).rev().find(|at| out.is_char_boundary(*at));
    out.truncate(end.unwrap_or(0));
    out
}

/// How many calls may be in progress at once; at most the numbers in `limits.rs`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaseConcurrency {
    /// Making, in all.
    pub making: usize,
    /// Making at one upstream.
    pub making_per_upstream: usize,
    /// Making for one all-or-nothing batch.
    pub making_per_batch: usize,
    /// Undoing, in all.
    pub undoing: usize,
    /// Undoing at one upstream.
    pub undoing_per_upstream: usize,
}

impl Default for LeaseConcurrency {
    fn default() -> LeaseConcurrency {
        LeaseConcurrency {
            making: limits::LEASES_MAKING,
            making_per_upstream: limits::LEASES_MAKING_PER_UPSTREAM,
            making_per_batch: limits::LEASES_MAKING_PER_BATCH,
            undoing: limits::LEASES_UNDOING,
            undoing_per_upstream: limits::LEASES_UNDOING_PER_UPSTREAM,
        }
    }
}

/// The kinds made at upstreams, with their time limits and numbers of places. The default has no such kind.
#[derive(Clone, Default)]
pub struct ConnectorSettings {
    /// The kinds.
    pub remotes: UpstreamConnectors,
    /// Time limits.
    pub timing: LeaseTiming,
    /// How many calls may be in progress at once.
    pub places: LeaseConcurrency,
    /// The base of the issuers: `server.issuer` of the configuration.
    pub issuer: String,
}

/// Makes credentials under leases, and undoes leases.
pub struct LeaseDriver<D> {
    durable: Arc<D>,
    connectors: ConnectorSettings,
    keyring: Arc<Keyring>,
    secrets: UndoSecrets,
    system: System,
    queue: Arc<WorkerQueue>,
    inbox: EventQueue,
    making: Arc<ConcurrencyLimiter>,
    undoing: Arc<ConcurrencyLimiter>,
    health: UpstreamHealth,
}

impl<D: LeaseLedger> LeaseDriver<D> {
    /// Creates the leases of a process. There is one instance per process.
    pub fn new(
        durable: Arc<D>,
        connectors: ConnectorSettings,
        (keyring, secrets): (Arc<Keyring>, UndoSecrets),
        system: System,
    ) -> Arc<LeaseDriver<D>> {
        let most = |name, places| ConcurrencyLimit { name, places };
        let places = connectors.places;
        let making = ConcurrencyLimiter::new(
            most("leases_making", places.making),
            most("leases_making_per_upstream", places.making_per_upstream),
        );
        let undoing = ConcurrencyLimiter::new(
            most("leases_undoing", places.undoing),
            most("leases_undoing_per_upstream", places.undoing_per_upstream),
        );
        connectors.remotes.begin(&AssertionIssuers::new(&connectors.issuer, keyring.clone()));
        if let Some(values) = secrets.values() {
            connectors.remotes.keep_in(values);
        }
        Arc::new(LeaseDriver {
            durable,
            connectors,
            keyring,
            secrets,
            system,
            queue: Arc::default(),
            inbox: EventQueue::default(),
            making,
            undoing,
            health: UpstreamHealth::default(),
        })
    }

    /// What became of the calls to each upstream since the start.
    pub fn upstream_health(&self) -> Vec<UpstreamHealthRow> {
        self.health.rows()
    }

    /// Time limits.
    pub fn timing(&self) -> &LeaseTiming {
        &self.connectors.timing
    }

    /// How many calls may be in progress at once.
    pub fn places(&self) -> &LeaseConcurrency {
        &self.connectors.places
    }

    /// Whether a kind derives its passwords, so that the environments of its upstreams need a key for that.
    pub fn derives(&self, kind: CredentialKind) -> bool {
        self.connectors.remotes.derives(kind)
    }

    /// The kinds made at upstreams.
    pub fn remotes(&self) -> &UpstreamConnectors {
        &self.connectors.remotes
    }

    /// Where the server puts its sealed secrets once it has them.
    pub fn vault(&self) -> &crate::access::vault::VaultSlot {
        self.connectors.remotes.vault()
    }

    /// Deletes what was sealed for a lease that is closed, if its kind seals something. What could not be deleted goes at the next start.
    pub async fn forget_secret(&self, id: LeaseId, lease: &Lease) {
        let kind = CredentialKind::from_number(lease.kind).and_then(|kind| self.connectors.remotes.of(kind));
        if !kind.is_some_and(|connector| connector.undoes_by_secret() || connector.undoes_with_note()) {
            return;
        }
        if let Err(fault) = self.secrets.forget(vec![id]).await {
            tracing::error!(lease = %id, %fault, "the sealed secret of a closed lease could not be deleted from the store");
        }
    }

    /// Seals what undoing a credential will read, if its kind has something to seal.
    fn keeper(&self, connector: &dyn UpstreamConnector, lease: LeaseId) -> Option<UndoSecretKeeper> {
        let seals = connector.undoes_by_secret() || connector.undoes_with_note();
        seals.then(|| UndoSecretKeeper::new(self.secrets.clone(), lease))
    }

    /// The keys for assertions that an upstream of this kind needs.
    pub fn assertion_keys(&self, kind: CredentialKind, settings: &KindSettings) -> Option<AssertionKeys> {
        self.connectors.remotes.assertion_keys(kind, settings)
    }

    /// The implementation that makes a kind. Refused with NOT_SERVED, before anything is done, where this server has none.
    pub fn maker(&self, kind: CredentialKind) -> Result<&Arc<dyn UpstreamConnector>, Refusal> {
        self.connectors.remotes.of(kind).ok_or_else(|| {
            Refusal::new(Reason::NotServed, format!("credentials of kind {} are not made by this server", kind.name()))
        })
    }
}
