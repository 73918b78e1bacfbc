//! The knowledge of this process about its leases beyond the ledger: which are being made, and the progress of undoing. This knowledge is
//! lost with the process; losing it costs time but not correctness.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::event_queue::LeaseEvents;
use super::schedule::{LeaseDependencies, LeaseSchedule};
use super::{LeaseTiming, UndoCause};
use crate::minted::MintOutcome;
use mayfly_base::backoff::Backoff;
use mayfly_base::limits;
use mayfly_ledger::state::Lease;
use mayfly_verify::seq::{LeaseId, Millis};

/// The result of making a credential, as far as it is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CreationResult {
    /// Not answered: the credential may still appear.
    Unknown,
    /// The credential was made.
    Made,
    /// The upstream refused, or was never asked.
    NeverMade,
}

/// A lease that its maker handed over to be undone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct UndoRequest {
    pub fate: CreationResult,
    /// The issuance was proposed and may be in the ledger.
    pub proposed: bool,
    /// The time of handing over, by the steady clock.
    pub at: u64,
}

#[derive(Default)]
struct Entry {
    /// Whether this process is making the credential; the lease must not be undone meanwhile.
    making: bool,
    given: Option<UndoRequest>,
    attempts: u32,
    pauses: Option<Backoff>,
    next_at: u64,
    last: String,
    /// Undone, and to be checked once more.
    watched: bool,
}

/// The progress of undoing, for operators.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct UndoProgress {
    pub attempts: u32,
    pub last: String,
    pub next_at: u64,
    /// The maker handed the lease over to be undone, whatever the ledger says.
    pub given: bool,
    /// Undone, and to be checked once more.
    pub watched: bool,
}

/// The result of checking a lease.
pub(super) enum LeaseCheck {
    /// The lease is in use or being made, at least until this time.
    Until(Millis, LeaseDependencies),
    /// The lease has no live credential, for this cause.
    Nobodys(UndoCause),
}

/// The next step for a lease.
pub(super) enum NextStep {
    /// Nothing to do now.
    Later,
    /// Undo the lease for this cause. The second value is the maker's report, if the credential was made in this process.
    Undo(UndoCause, Option<UndoRequest>),
}

#[derive(Default)]
struct Inner {
    entries: BTreeMap<LeaseId, Entry>,
    agenda: LeaseSchedule,
}

#[derive(Default)]
pub(super) struct WorkerQueue {
    inner: Mutex<Inner>,
    pub wake: Notify,
}

impl WorkerQueue {
    /// Marks the lease as being made. The guard reports the result, also when it is dropped.
    pub fn making(self: &Arc<WorkerQueue>, lease: LeaseId, steady: impl Fn() -> u64 + Send + Sync + 'static) -> CreationGuard {
        self.inner.lock().entries.entry(lease).or_default().making = true;
        CreationGuard { queue: self.clone(), lease, fate: CreationResult::NeverMade, steady: Box::new(steady), done: false }
    }

    /// Processes news from records. Returns whether an open lease is known.
    pub fn take_in(&self, news: LeaseEvents) -> bool {
        let mut inner = self.inner.lock();
        news.opened.into_iter().for_each(|id| inner.agenda.learn(id));
        news.issued.into_iter().for_each(|id| inner.agenda.touch(id));
        for id in news.closed {
            inner.forget(id);
        }
        news.credentials.into_iter().for_each(|id| inner.agenda.touch_credential(id));
        news.tasks.into_iter().for_each(|id| inner.agenda.touch_task(id));
        if news.all {
            inner.agenda.touch_all();
        }
        !inner.agenda.is_empty()
    }

    /// Adds leases that are open in the state.
    pub fn learn(&self, open: impl Iterator<Item = LeaseId>) {
        let mut inner = self.inner.lock();
        open.for_each(|id| inner.agenda.learn(id));
    }

    /// Takes the leases that are due, marking them as in hand.
    pub fn take(&self, now: Millis, steady: u64, room: impl Fn(&str) -> usize) -> Vec<LeaseId> {
        self.inner.lock().agenda.take(now, steady, limits::LEASES_LOOK, room)
    }

    /// Returns leases that could not be checked to the schedule.
    pub fn put_back(&self, taken: &[LeaseId]) {
        let mut inner = self.inner.lock();
        taken.iter().for_each(|id| inner.agenda.later(*id, Millis(0), Millis(0), None));
    }

    /// Decides on the result of a check. A lease that its maker handed over is undone even if the state says that its issuance may still
    /// follow.
    pub fn decide(&self, id: LeaseId, lease: &Lease, found: LeaseCheck, now: Millis, steady: u64, look_ms: u64) -> NextStep {
        let mut inner = self.inner.lock();
        let Inner { entries, agenda } = &mut *inner;
        let entry = entries.get(&id);
        let given = entry.and_then(|e| e.given);
        let cause = match found {
            LeaseCheck::Nobodys(cause) => cause,
            LeaseCheck::Until(..) if given.is_some() && !lease.issued => UndoCause::LeftBehind,
            LeaseCheck::Until(when, names) => {
                agenda.later(id, when, now, Some(names));
                return NextStep::Later;
            }
        };
        let at = match entry {
            // The maker will either hand the lease over or have it issued.
            Some(e) if e.making && !lease.issued => steady.saturating_add(look_ms),
            Some(e) if e.next_at > steady => e.next_at,
            _ => return NextStep::Undo(cause, given),
        };
        agenda.undo(id, &lease.upstream, at);
        NextStep::Later
    }

    /// No place was free to undo the lease.
    pub fn no_place(&self, id: LeaseId, upstream: &str, steady: u64) {
        self.inner.lock().agenda.undo(id, upstream, steady);
    }

    /// Removes a lease that was closed, by this replica or by another one.
    pub fn forget(&self, lease: LeaseId) {
        self.inner.lock().forget(lease);
    }

    /// An attempt failed: schedules the next one after a pause.
    pub fn failed(&self, lease: LeaseId, upstream: &str, why: String, now: u64, timing: &LeaseTiming) {
        let mut inner = self.inner.lock();
        let Inner { entries, agenda } = &mut *inner;
        let entry = entries.entry(lease).or_default();
        let pauses = entry.pauses.get_or_insert_with(|| Backoff::new(timing.retry_min_ms, timing.retry_max_ms));
        let pause = pauses.next().map_or(timing.retry_max_ms, |p| p.as_millis().try_into().unwrap_or(u64::MAX));
        entry.attempts += 1;
        entry.last = why;
        entry.watched = false;
        entry.next_at = now.saturating_add(pause);
        agenda.undo(lease, upstream, entry.next_at);
    }

    /// The lease has to be checked once more at `at`. It is undone, unless the secret that would undo it is `lost`, as operators are told.
    pub fn later(&self, lease: LeaseId, upstream: &str, at: u64, lost: Option<String>) {
        let mut inner = self.inner.lock();
        let Inner { entries, agenda } = &mut *inner;
        let entry = entries.entry(lease).or_default();
        entry.next_at = at;
        entry.watched = lost.is_none();
        entry.last = lost.unwrap_or_default();
        agenda.undo(lease, upstream, at);
    }

    /// Retries at once.
    pub fn retry(&self, lease: LeaseId) {
        {
            let mut inner = self.inner.lock();
            if let Some(entry) = inner.entries.get_mut(&lease) {
                entry.next_at = 0;
                entry.pauses = None;
            }
            inner.agenda.hurry(lease);
        }
        self.wake.notify_one();
    }

    pub fn progress(&self, lease: LeaseId) -> UndoProgress {
        self.inner.lock().entries.get(&lease).map_or_else(UndoProgress::default, |e| UndoProgress {
            attempts: e.attempts,
            last: e.last.clone(),
            next_at: e.next_at,
            given: e.given.is_some(),
            watched: e.watched,
        })
    }

    /// The number of leases with failed attempts.
    pub fn failing(&self) -> usize {
        self.inner.lock().entries.values().filter(|e| e.attempts > 0).count()
    }

    /// The time until the next lease is due, in milliseconds, if any; and whether a lease is due but has no place.
    pub fn next(&self, now: Millis, steady: u64, room: impl Fn(&str) -> usize) -> (Option<u64>, bool) {
        self.inner.lock().agenda.next(now, steady, room)
    }

    fn give(&self, lease: LeaseId, given: UndoRequest) {
        {
            let mut inner = self.inner.lock();
            let entry = inner.entries.entry(lease).or_default();
            entry.making = false;
            entry.given = Some(given);
            inner.agenda.learn(lease);
            inner.agenda.touch(lease);
            inner.agenda.hurry(lease);
        }
        self.wake.notify_one();
    }
}

impl Inner {
    fn forget(&mut self, lease: LeaseId) {
        self.agenda.forget(lease);
        if self.entries.get(&lease).is_some_and(|e| !e.making) {
            self.entries.remove(&lease);
        }
    }
}

/// Held while a credential is made and until it is handed out. Dropping it hands the lease over to be undone.
pub(super) struct CreationGuard {
    queue: Arc<WorkerQueue>,
    lease: LeaseId,
    pub fate: CreationResult,
    steady: Box<dyn Fn() -> u64 + Send + Sync>,
    done: bool,
}

impl CreationGuard {
    /// Ends the making with its outcome.
    pub fn end(mut self, outcome: MintOutcome) {
        match outcome {
            MintOutcome::Revealed => {
                self.done = true;
                self.queue.inner.lock().entries.remove(&self.lease);
            }
            MintOutcome::Dropped { proposed } => self.give(proposed),
        }
    }

    fn give(&mut self, proposed: bool) {
        self.done = true;
        self.queue.give(self.lease, UndoRequest { fate: self.fate, proposed, at: (self.steady)() });
    }
}

impl Drop for CreationGuard {
    fn drop(&mut self) {
        if !self.done {
            self.give(false);
        }
    }
}
