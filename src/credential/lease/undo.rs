//! Undoing leases at their upstreams, retried for as long as it takes.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::listing::page;
use super::schedule::LeaseDependencies;
use super::upstream_health::{UpstreamCall, UpstreamOutcome};
use super::worker_queue::{CreationResult, LeaseCheck, NextStep, UndoRequest};
use super::{LeaseDriver, LeaseLedger, LeaseStatus, UndoCause, brief, closed, standing};
use crate::CredentialKind;
use crate::connector::{ConnectorFuture, UndoError, UndoOrder, UpstreamConnector};
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Reason};
use mayfly_ledger::record::{Author, Event, LeaseEnd, Record, TargetsRevoked};
use mayfly_ledger::revocation::Target;
use mayfly_ledger::state::{Lease, State};
use mayfly_verify::seq::{CredentialId, LeaseId, Millis, Seq};

/// The result of starting the attempts that are due.
struct UndoPass {
    /// Time until the next lease is due, in milliseconds.
    wait: u64,
    /// A lease is due but no place is free.
    full: bool,
}

/// A lease, with its terms and its state.
struct OpenLease {
    id: LeaseId,
    lease: Lease,
    terms: Arc<str>,
    found: LeaseCheck,
}

enum UndoResult {
    Closed,
    /// Undone; to be checked once more after this many milliseconds.
    Watch(u64),
    /// The credential cannot be undone, as the text says, and ends by itself; to be checked again after this many milliseconds.
    Lost(u64, String),
}

impl<D: LeaseLedger> LeaseDriver<D> {
    /// Undoes leases until the future is dropped; whatever is unfinished is left to the next start. A failed attempt is logged and retried.
    /// While the ledger cannot be written nothing is undone, because a revocation that is not durable may be lost; that is logged once.
    pub async fn run(self: Arc<Self>) {
        let (mut running, mut said) = (JoinSet::new(), String::new());
        loop {
            while running.try_join_next().is_some() {}
            let UndoPass { wait, full } = match self.begin(&mut running).await {
                Ok(begun) => {
                    said.clear();
                    begun
                }
                Err(no) => {
                    let why = no.to_string();
                    if said != why {
                        tracing::warn!(
                            why,
                            "leases could not be inspected; no credential is undone at its upstream until they can be"
                        );
                        said = why;
                    }
                    // The news that was discarded with the state may have been the only trace of a lease.
                    self.inbox.read_again();
                    UndoPass { wait: self.timing().look_ms, full: false }
                }
            };
            tokio::select! {
                () = self.queue.wake.notified() => {}
                Some(_) = running.join_next(), if full => {}
                () = tokio::time::sleep(Duration::from_millis(wait.max(1))) => {}
            }
        }
    }

    /// Notes the events of durable records, in order, and wakes the undoing task where they end something. Never waits.
    pub fn follow<'a>(&self, records: impl Iterator<Item = &'a Record>) {
        if self.inbox.note(records) {
            self.queue.wake.notify_one();
        }
    }

    /// Checks every lease now, including leases that are not due.
    pub fn look_at_all(&self) {
        self.inbox.read_again();
        self.queue.wake.notify_one();
    }

    /// Retries a lease at once.
    pub fn retry(&self, lease: LeaseId) {
        self.queue.retry(lease);
    }

    /// Makes one attempt at every lease that is due. Returns the time until the next lease is due, in milliseconds.
    pub async fn undo_due(self: &Arc<Self>) -> Result<u64, Error> {
        let mut running = JoinSet::new();
        while self.begin(&mut running).await?.full {
            while running.join_next().await.is_some() {}
        }
        while running.join_next().await.is_some() {}
        Ok(self.next().0)
    }

    /// Starts undoing the leases that are due, as far as places are free.
    async fn begin(self: &Arc<Self>, running: &mut JoinSet<()>) -> Result<UndoPass, Error> {
        self.take_in().await?;
        loop {
            let taken = self.queue.take(self.durable.now(), self.system.steady(), |upstream| self.undoing.room(upstream));
            if taken.is_empty() {
                break;
            }
            for OpenLease { id, lease, terms, found } in self.look(taken).await? {
                let (now, steady) = (self.durable.now(), self.system.steady());
                let NextStep::Undo(cause, given) = self.queue.decide(id, &lease, found, now, steady, self.timing().look_ms)
                else {
                    continue;
                };
                let Ok(place) = self.undoing.enter(&lease.upstream) else {
                    self.queue.no_place(id, &lease.upstream, steady);
                    continue;
                };
                let this = self.clone();
                running.spawn(async move {
                    this.attempt(id, lease, terms, cause, given).await;
                    drop(place);
                    // Another lease may be waiting for this place.
                    this.queue.wake.notify_one();
                });
            }
        }
        let (wait, full) = self.next();
        Ok(UndoPass { wait, full })
    }

    /// Processes the news since the last call. The first time, and after the event queue overflowed, it reads all leases from the state
    /// instead.
    async fn take_in(&self) -> Result<(), Error> {
        let news = self.inbox.take();
        if news.read_again {
            // Before the leases are read: a lease is opened before its secret is sealed.
            let kept = match self.connectors.remotes.any_seals() {
                true => self.secrets.leases().await.map_err(Error::Fault).inspect_err(|_| self.inbox.read_again())?,
                false => Vec::new(),
            };
            let mut after = None;
            loop {
                let page = self.durable.settled(|s| page(s, after, limits::LEASES_LOOK, |_, _| Some(()))).await;
                let page = page.inspect_err(|_| self.inbox.read_again())?;
                self.queue.learn(page.found.iter().map(|(id, ..)| *id));
                after = page.last;
                if after.is_none() {
                    break;
                }
            }
            self.forget_secrets_of_closed(kept).await.inspect_err(|_| self.inbox.read_again())?;
        }
        if !self.queue.take_in(news) {
            self.inbox.rest();
        }
        Ok(())
    }

    /// Deletes the secrets of leases that were closed by a process that was killed before it deleted them.
    async fn forget_secrets_of_closed(&self, kept: Vec<LeaseId>) -> Result<(), Error> {
        for some in kept.chunks(limits::LEASES_LOOK) {
            let closed = |s: &State| some.iter().filter(|id| !s.leases.contains_key(id)).copied().collect::<Vec<_>>();
            let closed = self.durable.settled(closed).await?;
            if !closed.is_empty() {
                self.secrets.forget(closed).await.map_err(Error::Fault)?;
            }
        }
        Ok(())
    }

    /// Reads the state of leases, a few at a time because the writer waits during the read. Closed leases are forgotten.
    async fn look(&self, taken: Vec<LeaseId>) -> Result<Vec<OpenLease>, Error> {
        let (now, left) = (self.durable.now(), self.timing().left_ms);
        let read = |s: &State| -> Vec<(LeaseId, Option<OpenLease>)> {
            let one = |id: &LeaseId| {
                s.leases.get(id).map(|lease| OpenLease {
                    id: *id,
                    lease: Lease::clone(lease),
                    terms: s.lease_terms.of(id),
                    found: found(s, lease, now, left),
                })
            };
            taken.iter().map(|id| (*id, one(id))).collect()
        };
        let looked = self.durable.settled(read).await.inspect_err(|_| self.queue.put_back(&taken))?;
        let mut open = Vec::with_capacity(looked.len());
        for (id, known) in looked {
            match known {
                Some(lease) => open.push(lease),
                None => self.queue.forget(id),
            }
        }
        Ok(open)
    }

    /// The time until the next known lease is due, in milliseconds, and whether a lease is due but has no place.
    fn next(&self) -> (u64, bool) {
        let (next, full) = self.queue.next(self.durable.now(), self.system.steady(), |upstream| self.undoing.room(upstream));
        (next.map_or(self.timing().look_ms, |wait| wait.min(self.timing().look_ms)), full)
    }

    async fn attempt(&self, id: LeaseId, lease: Lease, terms: Arc<str>, cause: UndoCause, given: Option<UndoRequest>) {
        let order = UndoOrder { id, lease: &lease, terms: &terms, cause: Some(cause), secret: None, keeper: None };
        match self.undo(&order, cause, given).await {
            Ok(UndoResult::Closed) => {
                self.forget_secret(id, &lease).await;
                self.queue.forget(id);
            }
            Ok(UndoResult::Watch(ms)) => {
                self.queue.later(id, &lease.upstream, self.system.steady().saturating_add(ms), None);
            }
            Ok(UndoResult::Lost(ms, why)) => {
                self.queue.later(id, &lease.upstream, self.system.steady().saturating_add(ms), Some(why));
            }
            Err(why) => {
                tracing::warn!(
                    lease = %id,
                    upstream = %lease.upstream,
                    handle = %lease.handle,
                    %why,
                    "a credential could not be undone at its upstream yet"
                );
                self.queue.failed(id, &lease.upstream, brief(&why), self.system.steady(), self.timing());
            }
        }
    }

    async fn undo(&self, order: &UndoOrder<'_>, cause: UndoCause, given: Option<UndoRequest>) -> Result<UndoResult, String> {
        let UndoOrder { id, lease, .. } = *order;
        let never = given.is_some_and(|g| g.fate == CreationResult::NeverMade);
        if never && !lease.issued && given.is_some_and(|g| !g.proposed) {
            // The upstream refused, or was never reached: there is nothing to undo, even where the upstream cannot be reached now.
            return self.close(id, LeaseEnd::NeverMade, "the upstream made nothing", cause).await;
        }
        let remote = CredentialKind::from_number(lease.kind).and_then(|k| self.connectors.remotes.of(k));
        let remote = remote.ok_or_else(|| format!("credential kind {} is not served here", lease.kind))?;
        if !lease.issued && given.is_none_or(|g| g.proposed) {
            self.bar(lease.credential).await.map_err(|no| format!("its issuance could not be barred: {no}"))?;
        }
        let keeper = self.keeper(&**remote, id);
        let secret = match &keeper {
            Some(_) => self.secrets.of(id).await.map_err(|fault| format!("its secret for undoing: {fault}"))?,
            None => None,
        };
        if remote.undoes_by_secret() {
            if lease.ends_at > Millis(0) && self.durable.now() >= lease.ends_at {
                return self.close(id, LeaseEnd::Undone, "it ended by itself at the upstream", cause).await;
            }
            if remote.is_irrevocable(order.terms) {
                let (wait, end) = (lease.ends_at.since(self.durable.now()), lease.ends_at);
                let why = format!(
                    "the registration consents to credentials that cannot be revoked: it ends by itself at {end} at the latest"
                );
                return Ok(UndoResult::Lost(wait, why));
            }
            if secret.is_none() {
                return self.lost(lease);
            }
        }
        let secret = secret.as_ref().map(|secret| secret.as_slice());
        let order = &UndoOrder { secret, keeper: keeper.as_ref(), ..*order };
        // Computed before undoing: a late request must have arrived before the undo to be covered by it.
        let watch = self.watch_for(lease, given, &**remote);
        self.call(&lease.upstream, remote.undo(order)).await?;
        if !self.call(&lease.upstream, remote.is_gone(order)).await? {
            // What nothing ends before its time is looked at again then. Its undoing has not failed.
            return match lease.ends_at.since(self.durable.now()) {
                0 => Err("it is still there after it was undone".to_owned()),
                left => Ok(UndoResult::Lost(
                    left.max(watch),
                    format!("nothing ends it before it ends by itself, at {}", lease.ends_at),
                )),
            };
        }
        if watch > 0 {
            return Ok(UndoResult::Watch(watch));
        }
        let end = if never { LeaseEnd::NeverMade } else { LeaseEnd::Undone };
        self.close(id, end, "verified to be gone", cause).await
    }

    /// A credential that only the upstream's answer could undo, and the answer was lost.
    fn lost(&self, lease: &Lease) -> Result<UndoResult, String> {
        if lease.ends_at == Millis(0) {
            return Err("the upstream's answer was lost, and with it the secret that undoes what was made; it does not end by itself: remove it \
                        at the upstream, then mayfly lease abandon"
                .to_owned());
        }
        // A task that was not done yet may still seal the secret.
        let wait = lease.ends_at.since(self.durable.now()).min(limits::LEASE_LOST_LOOK_MS);
        let end = lease.ends_at;
        let why = format!("the upstream's answer was lost: what was made, if anything, ends by itself at {end} at the latest");
        Ok(UndoResult::Lost(wait, why))
    }

    /// Records that a lease is closed.
    async fn close(&self, id: LeaseId, end: LeaseEnd, why: &str, cause: UndoCause) -> Result<UndoResult, String> {
        let author = Author::Mayfly(cause.to_string());
        match self.durable.commit(vec![Record::new(author, closed(id, end, why))]).await {
            Ok(_) => Ok(UndoResult::Closed),
            // Another replica, or an operator, has closed the lease already.
            Err(Error::Refusal(no)) if no.reason == Reason::NotFound => Ok(UndoResult::Closed),
            Err(no) => Err(format!("it is undone, but that could not be recorded: {no}")),
        }
    }

    /// How long a credential may still appear at the upstream, in milliseconds.
    fn watch_for(&self, lease: &Lease, given: Option<UndoRequest>, remote: &dyn UpstreamConnector) -> u64 {
        match given {
            _ if lease.issued => 0,
            Some(UndoRequest { fate: CreationResult::Made | CreationResult::NeverMade, .. }) => 0,
            Some(UndoRequest { at, .. }) => at.saturating_add(remote.settles_ms()).saturating_sub(self.system.steady()),
            // Made by a process that has ended, or by another replica, which stops making before `left_ms`.
            None => {
                let settled = lease.opened_at.plus(self.timing().left_ms).plus(remote.settles_ms());
                settled.since(self.durable.now())
            }
        }
    }

    pub(super) async fn call<T>(&self, upstream: &str, call: ConnectorFuture<'_, Result<T, UndoError>>) -> Result<T, String> {
        let answer = match tokio::time::timeout(Duration::from_millis(self.timing().call_ms), call).await {
            Ok(answer) => answer.map_err(|e| (UpstreamOutcome::Refused, e.0)),
            Err(_) => {
                let no = format!("the upstream took longer than {} ms", self.timing().call_ms);
                Err((UpstreamOutcome::Unanswered, no))
            }
        };
        let (outcome, why) = answer.as_ref().err().map_or((UpstreamOutcome::Done, ""), |(outcome, why)| (*outcome, why.as_str()));
        self.health.note(upstream, UpstreamCall::Undo, outcome, why, self.system.steady());
        answer.map_err(|(_, why)| why)
    }

    /// Revokes the credential, so that an existing issuance ends and a later one is void.
    pub(super) async fn bar(&self, credential: CredentialId) -> Result<(), Error> {
        let target = Target::Credential(credential);
        let barred = self.durable.settled(|s| s.rules.get(&target).is_some_and(|e| e.revoked > Seq::ZERO)).await?;
        if barred {
            return Ok(());
        }
        let revoked = TargetsRevoked {
            targets: vec![target.to_record()],
            issued_only: true,
            reason: "it was never answered: what was made for it is undone".to_owned(),
            // No issuance decided before this revocation can be valid after the longest lifetime.
            keep_until: self.keep_until().0,
            lock_only: false,
        };
        let author = Author::Mayfly("a lease is undone".to_owned());
        self.durable.commit(vec![Record::new(author, Event::Revoked(revoked))]).await.map(|_| ())
    }

    fn keep_until(&self) -> Millis {
        self.durable.now().plus(limits::CREDENTIAL_TTL_MS + limits::VIEW_MAX_AGE_MS + 2 * limits::CLOCK_SKEW_MS)
    }
}

/// The finding about a lease, and until when it holds unless a record changes it.
fn found(state: &State, lease: &Lease, now: Millis, left_ms: u64) -> LeaseCheck {
    match standing(state, lease, now, left_ms) {
        LeaseStatus::ToUndo(cause) => LeaseCheck::Nobodys(cause),
        LeaseStatus::InMaking => LeaseCheck::Until(lease.opened_at.plus(left_ms), LeaseDependencies::default()),
        LeaseStatus::Somebodys => {
            let mut names = LeaseDependencies { credentials: vec![lease.credential], tasks: vec![lease.task] };
            let mut until = Millis(u64::MAX);
            if let Some(live) = state.credentials.get(&lease.credential) {
                until = live.expires_at();
                let ancestors = live.ancestors().iter();
                names.credentials.extend(ancestors.filter_map(|a| CredentialId::from_slice(&a.credential)));
                if let Some(task) = state.tasks.at(live.task()) {
                    names.tasks.clone_from(&task.terms.path);
                    until = state.tasks.upwards(task).fold(until, |until, task| until.min(task.ends()));
                }
            }
            LeaseCheck::Until(until, names)
        }
    }
}
