//! What this process knows of its leases beyond the ledger: who is making one, and how undoing goes. Lost with the process, and nothing
//! depends on it but speed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Timing;
use crate::credential::minted::Outcome;
use crate::seq::LeaseId;

/// What is known of the making of something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// It was not answered: it may still appear.
    Unknown,
    /// It was made.
    Made,
    /// The upstream refused, or was never asked.
    NeverMade,
}

/// A lease that its maker handed over to be undone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Given {
    pub fate: Fate,
    /// Its issuance was proposed and may be in the ledger.
    pub proposed: bool,
    /// When, by the steady clock.
    pub at: u64,
}

#[derive(Default)]
struct Entry {
    /// Somebody here makes it: hands off.
    making: bool,
    given: Option<Given>,
    busy: bool,
    attempts: u32,
    pauses: Option<ExponentialBackoff>,
    next_at: u64,
    last: String,
}

/// How undoing goes, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub attempts: u32,
    pub last: String,
    pub next_at: u64,
}

#[derive(Default)]
pub(super) struct Desk {
    entries: Mutex<BTreeMap<LeaseId, Entry>>,
    pub wake: Notify,
}

impl Desk {
    /// Somebody begins to make it. What becomes of it is told by the guard, or by dropping it.
    pub fn making(self: &Arc<Desk>, lease: LeaseId, steady: impl Fn() -> u64 + Send + Sync + 'static) -> Making {
        self.entries.lock().entry(lease).or_default().making = true;
        Making { desk: self.clone(), lease, fate: Fate::NeverMade, steady: Box::new(steady), done: false }
    }

    /// Takes it to be undone, if it is time and nobody else is at it. What its maker told, if it was made here.
    pub fn take(&self, lease: LeaseId, issued: bool, now: u64) -> Option<Option<Given>> {
        let mut entries = self.entries.lock();
        let entry = entries.entry(lease).or_default();
        if entry.busy || entry.next_at > now || (entry.making && !issued) {
            return None;
        }
        entry.busy = true;
        Some(entry.given)
    }

    /// Leases that their makers handed over.
    pub fn given(&self) -> BTreeSet<LeaseId> {
        self.entries.lock().iter().filter(|(_, e)| e.given.is_some()).map(|(id, _)| *id).collect()
    }

    /// It is closed, here or elsewhere.
    pub fn forget(&self, lease: LeaseId) {
        let mut entries = self.entries.lock();
        if entries.get(&lease).is_some_and(|e| !e.making) {
            entries.remove(&lease);
        }
    }

    /// Leases that something is known of.
    pub fn known(&self) -> Vec<LeaseId> {
        self.entries.lock().keys().copied().collect()
    }

    /// It did not take: again after a pause.
    pub fn failed(&self, lease: LeaseId, why: String, now: u64, timing: &Timing) {
        let mut entries = self.entries.lock();
        let entry = entries.entry(lease).or_default();
        let pauses = entry.pauses.get_or_insert_with(|| {
            ExponentialBuilder::new()
                .with_min_delay(Duration::from_millis(timing.retry_min_ms))
                .with_max_delay(Duration::from_millis(timing.retry_max_ms))
                .with_jitter()
                .without_max_times()
                .build()
        });
        let pause = pauses.next().map_or(timing.retry_max_ms, |p| p.as_millis().try_into().unwrap_or(u64::MAX));
        entry.busy = false;
        entry.attempts += 1;
        entry.last = why;
        entry.next_at = now.saturating_add(pause);
    }

    /// It took, and has to be looked at once more at `at`.
    pub fn later(&self, lease: LeaseId, at: u64) {
        let mut entries = self.entries.lock();
        let entry = entries.entry(lease).or_default();
        entry.busy = false;
        entry.next_at = at;
        entry.last = "undone; watched until no request can arrive late".to_owned();
    }

    /// Tries again at once.
    pub fn retry(&self, lease: LeaseId) {
        if let Some(entry) = self.entries.lock().get_mut(&lease) {
            entry.next_at = 0;
            entry.pauses = None;
        }
        self.wake.notify_one();
    }

    pub fn progress(&self, lease: LeaseId) -> Progress {
        self.entries.lock().get(&lease).map_or_else(Progress::default, |e| Progress {
            attempts: e.attempts,
            last: e.last.clone(),
            next_at: e.next_at,
        })
    }

    /// How many did not take so far.
    pub fn failing(&self) -> usize {
        self.entries.lock().values().filter(|e| e.attempts > 0).count()
    }

    /// When the next attempt is due, by the steady clock.
    pub fn next(&self) -> Option<u64> {
        self.entries.lock().values().filter(|e| !e.busy && !e.making && e.next_at > 0).map(|e| e.next_at).min()
    }

    fn give(&self, lease: LeaseId, given: Given) {
        {
            let mut entries = self.entries.lock();
            let entry = entries.entry(lease).or_default();
            entry.making = false;
            entry.given = Some(given);
        }
        self.wake.notify_one();
    }
}

/// Held while something is made, and until its credential is handed out. Dropped, it hands the lease over to be undone.
pub(super) struct Making {
    desk: Arc<Desk>,
    lease: LeaseId,
    pub fate: Fate,
    steady: Box<dyn Fn() -> u64 + Send + Sync>,
    done: bool,
}

impl Making {
    /// The end of it.
    pub fn end(mut self, outcome: Outcome) {
        match outcome {
            Outcome::Revealed => {
                self.done = true;
                self.desk.entries.lock().remove(&self.lease);
            }
            Outcome::Dropped { proposed } => self.give(proposed),
        }
    }

    fn give(&mut self, proposed: bool) {
        self.done = true;
        self.desk.give(self.lease, Given { fate: self.fate, proposed, at: (self.steady)() });
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if !self.done {
            self.give(false);
        }
    }
}
