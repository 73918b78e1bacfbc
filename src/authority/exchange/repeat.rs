//! Repeats of a request: the answer is the same credential or, if its upstream cannot return that again, a replacement.

use super::{beaten, reused};
use crate::authority::Authority;
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_credential::kind::{RemintInput, remake_local};
use mayfly_credential::{IssuedCredential, MintedCredential};
use mayfly_identity::caller::Caller;
use mayfly_ledger::record::{Author, Event, Record};
use mayfly_ledger::state::{AnsweredRequest, SupportingGrant, Verdict, expired, request_key};
use mayfly_ledger::{Receipt, State, View};
use mayfly_policy::exchange_request::{ExchangeRequest, TaskChoice};
use mayfly_policy::grant::TaskPath;
use mayfly_store::Position;
use mayfly_verify::seq::{CredentialId, Seq};

/// The result of looking up an earlier request.
#[allow(clippy::large_enum_variant, reason = "it is taken apart at once; a box would cost every repeat an allocation")]
pub(super) enum RepeatOutcome {
    /// There is no earlier request.
    Nothing,
    /// The earlier request made this credential, which is the answer.
    Same(IssuedCredential),
    /// The given request is to be decided instead: its credential replaces the credential that the earlier request made.
    Replace(Box<ExchangeRequest>),
}

/// The credential that an earlier request made.
pub(super) enum EarlierCredential {
    /// A credential that is in memory: live, or ended recently.
    Made(EarlierIssuance),
    /// A credential that ended, with the position of its record.
    Ended(CredentialId, Position),
}

/// A credential in memory that an earlier request made.
pub(super) struct EarlierIssuance {
    id: CredentialId,
    at: Position,
    seq: Seq,
    alive: Verdict,
    path: TaskPath,
    grounds: Vec<SupportingGrant>,
}

impl Authority {
    /// Answers a repeated request. The earlier credential is checked against the rules again, so one that was revoked in the meantime is
    /// refused.
    pub(super) async fn made_for(&self, view: &View, caller: &Caller, want: &ExchangeRequest) -> Result<RepeatOutcome, Error> {
        match self.seen(view, caller, want)? {
            None => Ok(RepeatOutcome::Nothing),
            Some(seen) => Box::pin(self.again(seen, caller, want)).await,
        }
    }

    /// Looks up the earlier request, if there is one. Does not wait.
    pub(super) fn seen(&self, view: &View, caller: &Caller, want: &ExchangeRequest) -> Result<Option<EarlierCredential>, Error> {
        let Some(request_id) = &want.request_id else { return Ok(None) };
        let key = request_key(caller.id().as_str(), request_id);
        let found = view.read(|state| {
            let made = state.credentials.asked(&key).and_then(|asked| match asked {
                AnsweredRequest::Ended(id, at) => Some(EarlierCredential::Ended(id, at)),
                AnsweredRequest::Live(live) => {
                    let alive = state.evidence_alive(&live.id(), view.now());
                    let task = state.tasks.at(live.task())?;
                    let path = TaskPath::Open(task.terms.clone());
                    let grounds = state.facts(&live, task).rests_on.iter().map(SupportingGrant::of).collect();
                    Some(EarlierCredential::Made(EarlierIssuance {
                        id: live.id(),
                        at: live.at(),
                        seq: live.seq(),
                        alive,
                        path,
                        grounds,
                    }))
                }
            });
            made.ok_or_else(|| state.requests.contains_key(&key))
        });
        match found {
            Ok(made) => Ok(Some(made)),
            Err(false) => Ok(None),
            Err(true) => Err(reused(request_id)),
        }
    }

    pub(super) async fn again(
        &self,
        seen: EarlierCredential,
        caller: &Caller,
        want: &ExchangeRequest,
    ) -> Result<RepeatOutcome, Error> {
        let EarlierIssuance { id, at, seq, alive, path, grounds } = match seen {
            EarlierCredential::Made(made) => made,
            EarlierCredential::Ended(id, at) => return Err(self.over(id, at, want)),
        };
        let receipt = self.ledger.receipt_of(id, seq, at).await?;
        let record = match self.issuance_at(at, id) {
            Ok(record) => record,
            // The record of an ended credential may be removed (`audit.keep`): nothing can be returned, whatever the request.
            Err(no) => return Err(alive.err().map_or(no, Error::Refusal)),
        };
        if !same(&record, want) {
            return Err(reused(want.request_id.as_deref().unwrap_or_default()));
        }
        alive.map_err(Error::Refusal)?;
        // A repeat makes no new decision, so this is the only check of the caller, who may now use another SVID that was revoked.
        self.let_in(caller, "issuing")?;
        let compiled = self.catalog.now();
        let upstream = &compiled
            .upstream(&want.upstream)
            .ok_or_else(|| {
                Refusal::new(Reason::UpstreamNotActive, format!("upstream {} is no longer registered", want.upstream))
            })?
            .upstream;
        let past = RemintInput {
            record: &record,
            path: &path,
            grounds: &grounds,
            audience: &upstream.audience,
            base_url: &upstream.target,
            issuer: &self.decider.issuer_of(&upstream.environment),
            settings: &upstream.settings,
        };
        if made_locally(&record)? {
            return Ok(RepeatOutcome::Same(remake_local(&past, &self.keyring)?.reveal(receipt)?));
        }
        self.repeat_upstream(&past, id, receipt, caller, want).await
    }

    /// Asks the upstream, which takes time, so the credential is checked again afterwards for revocations in the meantime.
    async fn repeat_upstream(
        &self,
        past: &RemintInput<'_>,
        id: CredentialId,
        receipt: Receipt,
        caller: &Caller,
        want: &ExchangeRequest,
    ) -> Result<RepeatOutcome, Error> {
        let made: Result<Option<MintedCredential>, Error> = self.leases.again(past).await;
        let still_bound = |s: &State| {
            let key = want.request_id.as_ref().map(|r| request_key(caller.id().as_str(), r));
            key.and_then(|key| s.credentials.of_request(&key)).is_some_and(|live| live.id() == id)
        };
        let (bound, alive) = self.ledger.settled(|s| (still_bound(s), s.evidence_alive(&id, self.system.wall()))).await?;
        if !bound {
            return Err(beaten());
        }
        alive?;
        self.let_in(caller, "issuing")?;
        if let Some(minted) = made? {
            return Ok(RepeatOutcome::Same(minted.reveal(receipt)?));
        }
        // Giving back the replaced credential makes a revocation rule, and counts as a change by the caller.
        self.within_rule_budget(&Author::of(caller))?;
        let Some(task) = past.path.tasks().last() else { return Err(Fault::new("a credential without a task").into()) };
        // The task that was opened for the first request exists, so the replacement does not open another.
        Ok(RepeatOutcome::Replace(Box::new(ExchangeRequest {
            task: TaskChoice::Named(*task),
            replaces: Some(id),
            ..want.clone()
        })))
    }

    /// The refusal of a repeated request whose credential has ended.
    fn over(&self, id: CredentialId, at: Position, want: &ExchangeRequest) -> Error {
        match self.issuance_at(at, id) {
            Ok(record) if !same(&record, want) => reused(want.request_id.as_deref().unwrap_or_default()),
            // The record may have been removed too (`audit.keep`).
            _ => Error::Refusal(expired(&id)),
        }
    }

    pub(crate) fn issuance_at(&self, at: mayfly_store::Position, id: CredentialId) -> Result<Record, Error> {
        let of = |r: &Record| matches!(&r.event, Some(Event::Issued(e)) if e.credential == id.as_bytes());
        let record = self.ledger.records_at(at)?.into_iter().find(of);
        record.ok_or_else(|| Error::Fault(Fault::new(format!("commit {at} does not hold the issuance of {id}"))))
    }
}

/// Whether a request is the one that this issuance answered.
fn same(record: &Record, want: &ExchangeRequest) -> bool {
    record.request.as_ref().is_some_and(|r| r.digest == want.digest)
}

fn made_locally(record: &Record) -> Result<bool, Fault> {
    match &record.event {
        Some(Event::Issued(e)) => Ok(super::made_locally(e.kind)),
        _ => Err(Fault::new("an issuance without its record")),
    }
}
