//! A test of an upstream: a credential is made under a lease, used in the least way, undone, and looked for. Nobody gets it.
//!
//! The lease is durable before the upstream is asked, as for any credential, and no issuance follows it. If the test is interrupted
//! anywhere, the lease is undone like one that was left behind.

use std::time::Duration;

use super::make::fitting;
use super::worker_queue::CreationResult;
use super::{LeaseDriver, LeaseLedger, brief, closed};
use crate::connector::{MakeError, MintOrder, UndoOrder, UpstreamConnector, UpstreamCredential};
use crate::kind::CredentialKind;
use mayfly_base::refusal::Error;
use mayfly_base::system::System;
use mayfly_ledger::record::{Author, CredentialIssued, LeaseEnd, Record};
use mayfly_ledger::state::Lease;
use mayfly_ledger::upstream::registry::Upstream;
use mayfly_verify::seq::{CredentialId, LeaseId, Millis, TaskId};

/// How long the credential of a test lives if nothing undoes it, milliseconds.
const TRIAL_MS: u64 = 60_000;

/// The upstream to be tested.
pub struct Trial<'a> {
    /// The registration of the upstream.
    pub upstream: &'a Upstream,
    /// The version of the registration.
    pub version: u64,
    /// A kind that the upstream makes.
    pub kind: CredentialKind,
    /// The scopes of the credential.
    pub scopes: Vec<String>,
    /// The operator who tests.
    pub author: Author,
}

/// A step of a test.
#[derive(Clone, Debug)]
pub struct TrialStep {
    /// The name of the step, as operators see it.
    pub name: String,
    /// The error, and the statement or command that mends it. `None`: the step succeeded.
    pub problem: Option<String>,
    /// The duration of the step, milliseconds.
    pub took_ms: u64,
}

impl<D: LeaseLedger> LeaseDriver<D> {
    /// Tests an upstream. Every step is in the answer, those after a failed one as far as they were possible: what may have been made is
    /// undone in any case, if necessary by the schedule, after the answer.
    ///
    /// Refused: NOT_SERVED, NOT_READY, LIMIT_REACHED, and as the ledger refuses the lease.
    pub async fn try_out(&self, trial: Trial<'_>) -> Result<Vec<TrialStep>, Error> {
        let remote = self.maker(trial.kind)?.clone();
        let upstream = trial.upstream;
        let key = match remote.derives() {
            true => Some(self.password_key(&upstream.environment)?),
            false => None,
        };
        let (credential, lease) = (CredentialId::from_bytes(self.system.random16()), LeaseId::from_bytes(self.system.random16()));
        // No task: a test is nobody's work.
        let task = TaskId::from_bytes(self.system.random16());
        let now = self.durable.now();
        let issued = issuance(&trial, credential, lease, task, now);
        let order = MintOrder {
            credential,
            lease,
            handle: "",
            issued: &issued,
            audience: &upstream.audience,
            base_url: &upstream.target,
            settings: &upstream.settings,
            terms: "",
            passwords: key.as_deref(),
            keeper: None,
        };
        let mut log = StepLog { steps: Vec::new(), system: &self.system, began: self.system.steady() };
        let Some(named) = log.note("read the registration", remote.name(&order)) else { return Ok(log.steps) };
        let keeper = self.keeper(&*remote, lease);
        let order = MintOrder { handle: &named.handle, terms: &named.terms, keeper: keeper.as_ref(), ..order };
        let place = self.making.enter(&upstream.name)?;
        let system = self.system.clone();
        // Undoes the lease, whatever happens here, unless it is closed by then.
        let mut making = self.queue.making(lease, move || system.steady());
        self.open(lease, &named, &issued, &trial.author).await?;
        let made = self.ask(&*remote, &order, &mut making).await;
        drop(place);
        let scopes = trial.scopes.join(" ");
        let made = log.note(format!("make a credential with scope {scopes}: {}", named.handle), made);
        if let Some(made) = made {
            self.use_it(&*remote, &order, fitting(trial.kind, made)?, &mut log).await;
        }
        if making.fate == CreationResult::NeverMade {
            // There is nothing to undo. Dropping `making` closes the lease.
            return Ok(log.steps);
        }
        let there = Lease {
            credential,
            task,
            upstream: upstream.name.as_str().into(),
            kind: trial.kind.number(),
            handle: named.handle.as_str().into(),
            ends_at: named.ends_at,
            opened_at: now,
            issued: false,
        };
        if remote.is_irrevocable(&named.terms) {
            let ends =
                format!("leave it to end by itself, at {} at the latest: the registration consents to that", named.ends_at);
            log.note::<(), String>(ends, Ok(()));
            return Ok(log.steps);
        }
        let secret = match &keeper {
            Some(keeper) if remote.undoes_by_secret() && !keeper.has_kept() => {
                let lost = Err("the upstream's answer was lost: what it made, if anything, ends by itself".to_owned());
                log.note::<(), String>("revoke it", lost);
                return Ok(log.steps);
            }
            Some(_) => self.secrets.of(lease).await.map_err(Error::Fault)?,
            None => None,
        };
        let undo = UndoOrder {
            id: lease,
            lease: &there,
            terms: &named.terms,
            cause: None,
            secret: secret.as_ref().map(|secret| secret.as_slice()),
            keeper: keeper.as_ref(),
        };
        let undone = log.note("revoke it", self.call(&issued.upstream, remote.undo(&undo)).await).is_some();
        let gone = self.call(&issued.upstream, remote.is_gone(&undo)).await;
        let left_ms = named.ends_at.since(self.durable.now());
        if gone == Ok(false) && left_ms > 0 {
            // The schedule closes the lease then.
            log.note::<(), String>(
                format!("it ends by itself in {} s, and nothing ends it before", left_ms.div_ceil(1000)),
                Ok(()),
            );
            return Ok(log.steps);
        }
        let gone = gone.and_then(|gone| if gone { Ok(()) } else { Err("it is still there".to_owned()) });
        let gone = log.note("verify that it is gone", gone).is_some();
        // A making that was not answered may still take effect: the schedule looks again later.
        let settled = making.fate != CreationResult::Unknown;
        if undone && gone && settled {
            let end = closed(lease, LeaseEnd::Undone, "made for a test of the upstream, verified to be gone");
            self.durable.commit(vec![Record::new(trial.author, end)]).await?;
            self.forget_secret(lease, &there).await;
        }
        Ok(log.steps)
    }

    async fn use_it(
        &self,
        remote: &dyn UpstreamConnector,
        order: &MintOrder<'_>,
        made: UpstreamCredential,
        log: &mut StepLog<'_>,
    ) {
        let limit = Duration::from_millis(self.timing().make_ms);
        let used = tokio::time::timeout(limit, remote.use_once(order, &made.answer)).await;
        let used = used.unwrap_or_else(|_| Err(MakeError::Unknown(format!("it took longer than {} ms", limit.as_millis()))));
        let name = used.as_ref().map_or_else(|_| "use it".to_owned(), |said| format!("use it: {said}"));
        log.note(name, used);
    }
}

/// The steps so far.
struct StepLog<'a> {
    steps: Vec<TrialStep>,
    system: &'a System,
    began: u64,
}

impl StepLog<'_> {
    /// Adds a step with its result.
    fn note<T, E: std::fmt::Display>(&mut self, name: impl Into<String>, done: Result<T, E>) -> Option<T> {
        let now = self.system.steady();
        let took_ms = now.saturating_sub(std::mem::replace(&mut self.began, now));
        let (problem, value) = match done {
            Ok(value) => (None, Some(value)),
            Err(no) => (Some(brief(&no.to_string())), None),
        };
        self.steps.push(TrialStep { name: name.into(), problem, took_ms });
        value
    }
}

/// The issuance record of a trial. It is never committed.
fn issuance(trial: &Trial<'_>, credential: CredentialId, lease: LeaseId, task: TaskId, now: Millis) -> CredentialIssued {
    CredentialIssued {
        credential: credential.as_bytes().to_vec(),
        lease: lease.as_bytes().to_vec(),
        task: task.as_bytes().to_vec(),
        kind: trial.kind.number(),
        upstream: trial.upstream.name.clone(),
        upstream_version: trial.version,
        scopes: trial.scopes.clone(),
        environment: trial.upstream.environment.clone(),
        issued_at: now.0,
        expires_at: now.plus(TRIAL_MS).0,
        ..CredentialIssued::default()
    }
}
