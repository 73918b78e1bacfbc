//! Repeats of a request: the answer is the same credential or, if its upstream cannot return that again, a replacement.

use super::{beaten, reused};
use crate::authority::Authority;
use mayfly_base::refusal::{Fault, No, Reason, Refusal};
use mayfly_credential::kind::{Past, remake_local};
use mayfly_credential::{Issued, Minted};
use mayfly_identity::caller::Caller;
use mayfly_ledger::record::{Event, Record, Who};
use mayfly_ledger::state::{Asked, Ground, Verdict, expired, request_key};
use mayfly_ledger::{Receipt, State, View};
use mayfly_policy::grant::TaskPath;
use mayfly_policy::wanted::{TaskChoice, Wanted};
use mayfly_store::Position;
use mayfly_verify::seq::{CredentialId, Seq};

/// The result of looking up an earlier request.
#[allow(clippy::large_enum_variant, reason = "it is taken apart at once; a box would cost every repeat an allocation")]
pub(super) enum Before {
    /// There is no earlier request.
    Nothing,
    /// The earlier request made this credential, which is the answer.
    Same(Issued),
    /// The given request is to be decided instead: its credential replaces the credential that the earlier request made.
    Replace(Box<Wanted>),
}

/// The credential that an earlier request made.
pub(super) enum Seen {
    /// A credential that is in memory: live, or ended recently.
    Made(Made),
    /// A credential that ended, with the position of its record.
    Ended(CredentialId, Position),
}

/// A credential in memory that an earlier request made.
pub(super) struct Made {
    id: CredentialId,
    at: Position,
    seq: Seq,
    alive: Verdict,
    path: TaskPath,
    grounds: Vec<Ground>,
}

impl Authority {
    /// Answers a repeated request. The earlier credential is checked against the rules again, so one that was revoked in the meantime is
    /// refused.
    pub(super) async fn made_for(&self, view: &View, caller: &Caller, want: &Wanted) -> Result<Before, No> {
        match self.seen(view, caller, want)? {
            None => Ok(Before::Nothing),
            Some(seen) => Box::pin(self.again(seen, caller, want)).await,
        }
    }

    /// Looks up the earlier request, if there is one. Does not wait.
    pub(super) fn seen(&self, view: &View, caller: &Caller, want: &Wanted) -> Result<Option<Seen>, No> {
        let Some(request_id) = &want.request_id else { return Ok(None) };
        let key = request_key(caller.id().as_str(), request_id);
        let found = view.read(|state| {
            let made = state.credentials.asked(&key).and_then(|asked| match asked {
                Asked::Ended(id, at) => Some(Seen::Ended(id, at)),
                Asked::Live(live) => {
                    let alive = state.evidence_alive(&live.id(), view.now());
                    let task = state.tasks.at(live.task())?;
                    let path = TaskPath::Open(task.terms.clone());
                    let grounds = state.facts(&live, task).rests_on.iter().map(Ground::of).collect();
                    Some(Seen::Made(Made { id: live.id(), at: live.at(), seq: live.seq(), alive, path, grounds }))
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

    pub(super) async fn again(&self, seen: Seen, caller: &Caller, want: &Wanted) -> Result<Before, No> {
        let Made { id, at, seq, alive, path, grounds } = match seen {
            Seen::Made(made) => made,
            Seen::Ended(id, at) => return Err(self.over(id, at, want)),
        };
        let receipt = self.ledger.receipt_of(id, seq, at).await?;
        let record = match self.issuance_at(at, id) {
            Ok(record) => record,
            // The record of an ended credential may be removed (`audit.keep`): nothing can be returned, whatever the request.
            Err(no) => return Err(alive.err().map_or(no, No::Refusal)),
        };
        if !same(&record, want) {
            return Err(reused(want.request_id.as_deref().unwrap_or_default()));
        }
        alive.map_err(No::Refusal)?;
        // A repeat makes no new decision, so this is the only check of the caller, who may now use another SVID that was revoked.
        self.let_in(caller, "issuing")?;
        let compiled = self.catalog.now();
        let upstream = &compiled
            .upstream(&want.upstream)
            .ok_or_else(|| {
                Refusal::new(Reason::UpstreamNotActive, format!("upstream {} is no longer registered", want.upstream))
            })?
            .upstream;
        let past = Past {
            record: &record,
            path: &path,
            grounds: &grounds,
            audience: &upstream.audience,
            base_url: &upstream.target,
            issuer: &self.decider.issuer_of(&upstream.environment),
        };
        if made_here(&record)? {
            return Ok(Before::Same(remake_local(&past, &self.keyring)?.reveal(receipt)?));
        }
        self.made_elsewhere(&past, id, receipt, caller, want).await
    }

    /// Asks the upstream, which takes time, so the credential is checked again afterwards for revocations in the meantime.
    async fn made_elsewhere(
        &self,
        past: &Past<'_>,
        id: CredentialId,
        receipt: Receipt,
        caller: &Caller,
        want: &Wanted,
    ) -> Result<Before, No> {
        let made: Result<Option<Minted>, No> = self.leases.again(past).await;
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
            return Ok(Before::Same(minted.reveal(receipt)?));
        }
        // Giving back the replaced credential makes a revocation rule, and counts as a change by the caller.
        self.within_rule_budget(&Who::of(caller))?;
        let Some(task) = past.path.tasks().last() else { return Err(Fault::new("a credential without a task").into()) };
        // The task that was opened for the first request exists, so the replacement does not open another.
        Ok(Before::Replace(Box::new(Wanted { task: TaskChoice::Named(*task), replaces: Some(id), ..want.clone() })))
    }

    /// The refusal of a repeated request whose credential has ended.
    fn over(&self, id: CredentialId, at: Position, want: &Wanted) -> No {
        match self.issuance_at(at, id) {
            Ok(record) if !same(&record, want) => reused(want.request_id.as_deref().unwrap_or_default()),
            // The record may have been removed too (`audit.keep`).
            _ => No::Refusal(expired(&id)),
        }
    }

    pub(crate) fn issuance_at(&self, at: mayfly_store::Position, id: CredentialId) -> Result<Record, No> {
        let of = |r: &Record| matches!(&r.event, Some(Event::Issued(e)) if e.credential == id.as_bytes());
        let record = self.ledger.records_at(at)?.into_iter().find(of);
        record.ok_or_else(|| No::Fault(Fault::new(format!("commit {at} does not hold the issuance of {id}"))))
    }
}

/// Whether a request is the one that this issuance answered.
fn same(record: &Record, want: &Wanted) -> bool {
    record.request.as_ref().is_some_and(|r| r.digest == want.digest)
}

fn made_here(record: &Record) -> Result<bool, Fault> {
    match &record.event {
        Some(Event::Issued(e)) => Ok(super::made_here(e.kind)),
        _ => Err(Fault::new("an issuance without its record")),
    }
}
