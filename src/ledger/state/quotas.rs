//! Limits on what a single caller and all callers together may have.
//!
//! The fold applies [`Quotas::FOLD`], which are compiled in: they are the same on every replica and in every replay. Limits configured by
//! an operator are applied by the writer, in its verdict before it appends, at the same place and with the same counters: a burst of
//! requests that were decided before any of them was counted cannot exceed them.

use std::time::Duration;

use super::State;
use mayfly_base::limits;
use mayfly_base::refusal::Refusal;

/// Limits on the contents of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quotas {
    /// All tasks.
    pub tasks: usize,
    /// Tasks opened by one caller.
    pub tasks_per_caller: usize,
    /// Bytes of the terms of all tasks in memory, beyond the free allowance of each task.
    pub task_bytes: u64,
    /// The same bytes for the tasks opened by one caller.
    pub task_bytes_per_caller: u64,
    /// All credentials.
    pub credentials: usize,
    /// Credentials of one caller.
    pub credentials_per_caller: usize,
    /// All remembered request ids.
    pub request_ids: usize,
    /// Remembered request ids of one caller.
    pub request_ids_per_caller: usize,
}

impl Quotas {
    /// The fold's limits, equal on every replica.
    pub const FOLD: Quotas = Quotas {
        tasks: limits::TASKS,
        tasks_per_caller: limits::TASKS_PER_CALLER,
        // Applied only by the writer: older ledgers contain tasks beyond any bound, and must replay unchanged.
        task_bytes: u64::MAX,
        task_bytes_per_caller: u64::MAX,
        credentials: limits::CREDENTIALS,
        credentials_per_caller: limits::CREDENTIALS_PER_CALLER,
        request_ids: limits::REQUEST_IDS,
        request_ids_per_caller: limits::REQUEST_IDS_PER_CALLER,
    };

    /// Whether one more task of this caller fits, in addition to `with_it` (in all, and of this caller), which are in the same group.
    pub fn task(&self, state: &State, caller: &str, with_it: (usize, usize)) -> Result<(), Refusal> {
        let wait = Duration::from_secs(60);
        below("tasks", state.tasks.len() + with_it.0, self.tasks, wait)?;
        below("tasks_per_caller", state.tasks.opened_by(caller) as usize + with_it.1, self.tasks_per_caller, wait)
    }

    /// Whether the terms of one more task of this caller fit, in addition to `with_it` bytes (in all, and of this caller), which are in the
    /// same group.
    pub fn task_terms(&self, state: &State, (caller, bytes): (&str, u64), with_it: (u64, u64)) -> Result<(), Refusal> {
        if bytes == 0 {
            return Ok(());
        }
        let within = |name, now: u64, bound: u64| {
            let fits = now.saturating_add(bytes) <= bound;
            // A task is forgotten some time after its end, and its bytes are no longer counted then.
            if fits { Ok(()) } else { Err(Refusal::limit(name, bound, Duration::from_secs(60))) }
        };
        within("task_bytes", state.tasks.bytes().saturating_add(with_it.0), self.task_bytes)?;
        within("task_bytes_per_caller", state.tasks.bytes_of(caller).saturating_add(with_it.1), self.task_bytes_per_caller)
    }

    /// Whether one more credential of this caller fits, in addition to `with_it` credentials of the same caller in the same group.
    pub fn credential(&self, state: &State, caller: &str, with_it: usize) -> Result<(), Refusal> {
        let wait = Duration::from_secs(10);
        below("credentials", state.credentials.len() + with_it, self.credentials, wait)?;
        let own = state.credentials.live_of(caller) as usize + with_it;
        below("credentials_per_caller", own, self.credentials_per_caller, wait)
    }

    /// Whether one more request id of this caller fits, in addition to `with_it` request ids in the same group.
    pub fn request_id(&self, state: &State, caller: &str, with_it: usize) -> Result<(), Refusal> {
        let kept = Duration::from_millis(limits::REQUEST_ID_KEPT_MS);
        below("request_ids", state.credentials.all_remembered() as usize + with_it, self.request_ids, kept)?;
        let own = state.credentials.remembered(caller) as usize + with_it;
        below("request_ids_per_caller", own, self.request_ids_per_caller, kept)
    }
}

impl Default for Quotas {
    fn default() -> Quotas {
        Quotas::FOLD
    }
}

fn below(name: &'static str, now: usize, bound: usize, wait: Duration) -> Result<(), Refusal> {
    if now < bound { Ok(()) } else { Err(Refusal::limit(name, bound as u64, wait)) }
}
