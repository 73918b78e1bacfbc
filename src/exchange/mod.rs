//! One workload, one task, one upstream, one credential.

use crate::authority::Authority;
use crate::credential::kind::{Past, mint_local, remake_local};
use crate::credential::{Issued, Minted};
use crate::identity::caller::Caller;
use crate::ledger::record::{Event, Record};
use crate::ledger::state::request_key;
use crate::ledger::{Lane, View};
use crate::policy::decide::decided_on_old_state;
use crate::policy::grant::TaskPath;
use crate::policy::wanted::{Binding, TaskChoice, Wanted};
use crate::refusal::{Fault, No, Reason, Refusal};
use crate::seq::{CredentialId, Millis};
use crate::upstream::registry::Kind;

/// A decision that ran into a change is made anew before the caller is told to try again: the second time the change may be written and
/// not yet in what decisions are made with.
const TRIES: usize = 3;

impl Authority {
    /// Issues one credential, or answers a repeat with what was issued.
    pub async fn exchange(&self, caller: &Caller, want: &Wanted) -> Result<Issued, No> {
        for again in 1.. {
            self.still_stands(caller)?;
            let view = self.ledger.view(); // everything up to seq r
            if let Some(made) = self.made_for(&view, caller, want).await? {
                return Ok(made); // same request, same credential
            }
            let _under_way = self.ledger.minting();
            let mut minted = self.mint(&view, caller, want)?; // a refusal names the rule and the way out; told to nobody yet
            if self.system.wall().since(view.now()) > self.bounds.view_max_age_ms && again < TRIES {
                continue; // decided so slowly that the view is old: decide once more
            }
            let proposed = self.ledger.propose(Lane::Grant, minted.records())?;
            match self.ledger.receipt(proposed).await {
                Ok(receipt) => return Ok(minted.reveal(receipt)), // in order, durable, found valid by the fold
                Err(no) if again < TRIES && worth_another_try(&no) => self.ledger.settled(|_| ()).await?,
                Err(no) => return Err(no),
            }
        }
        Err(No::Fault(Fault::new("exchange: tries ran out")))
    }

    fn mint(&self, view: &View, caller: &Caller, want: &Wanted) -> Result<Minted, No> {
        view.read(|state| {
            let own = caller.id().as_str();
            self.bounds.credential(state, own, want.request_id.is_some())?;
            if matches!(want.task, TaskChoice::Inline(_)) { self.bounds.task(state, own) } else { Ok(()) }
        })?;
        let compiled = self.catalog.now();
        let grant = self.decider.exchange(view, &compiled, caller, want, || self.system.random16())?;
        let group = self.ledger.new_group();
        mint_local(grant, self.new_credential_id(), group, &self.keyring, &self.status, view.now())
    }

    /// Several exchanges of one caller that stand or fall together: one group, one commit.
    pub async fn exchange_all(&self, caller: &Caller, wants: &[Wanted]) -> Result<Vec<Issued>, (usize, No)> {
        for again in 1.. {
            match self.try_all(caller, wants).await {
                Err((_, no)) if again < TRIES && worth_another_try(&no) => {
                    self.ledger.settled(|_| ()).await.map_err(|no| (0, no))?;
                }
                answer => return answer,
            }
        }
        Err((0, No::Fault(Fault::new("exchange: tries ran out"))))
    }

    async fn try_all(&self, caller: &Caller, wants: &[Wanted]) -> Result<Vec<Issued>, (usize, No)> {
        self.still_stands(caller).map_err(|no| (0, no))?;
        let view = self.ledger.view();
        let group = self.ledger.new_group();
        let mut made = Vec::with_capacity(wants.len());
        for (n, want) in wants.iter().enumerate() {
            made.push(self.made_for(&view, caller, want).await.map_err(|no| (n, no))?);
        }
        let mut records: Vec<Record> = Vec::with_capacity(wants.len());
        let mut fresh = Vec::new();
        for (n, want) in wants.iter().enumerate().filter(|(n, _)| made[*n].is_none()) {
            let mut minted = self.mint(&view, caller, want).map_err(|no| (n, no))?;
            records.extend(minted.records().into_iter().map(|r| Record { group, ..r }));
            fresh.push((n, records.len() - 1, minted));
        }
        if !records.is_empty() {
            let proposed = self.ledger.propose(Lane::Grant, records).map_err(|no| (0, no))?;
            let receipt = self.ledger.receipt(proposed).await.map_err(|no| (0, no))?;
            for (n, at, minted) in fresh {
                // One receipt covers the group; each credential is revealed with its own record's place in it.
                made[n] = Some(minted.reveal(receipt.of(at)));
            }
        }
        Ok(made.into_iter().flatten().collect())
    }

    /// Renews a credential: a new decision, never past the bound fixed at first issue. It names the first of its line as an ancestor.
    pub async fn renew(
        &self,
        caller: &Caller,
        id: CredentialId,
        ttl_ms: Option<u64>,
        request: Option<(String, [u8; 32])>,
    ) -> Result<Issued, No> {
        self.still_stands(caller)?;
        let record = self.own_issuance(caller, id).await?;
        let Some(Event::Issued(old)) = &record.event else { return Err(No::Fault(Fault::new("an issuance without its record"))) };
        let task = crate::seq::TaskId::from_slice(&old.task).ok_or_else(|| Fault::new("an issuance without a task"))?;
        let kind = u8::try_from(old.kind).ok().and_then(Kind::from_tag);
        let (request_id, digest) = request.map_or((None, [0; 32]), |(id, digest)| (Some(id), digest));
        let key = match (&old.x5t[..], &old.jkt[..]) {
            ([], []) => Binding::Unasked,
            ([], jkt) => Binding::Thumbprint(jkt.try_into().map_err(|_| Fault::new("a thumbprint that is not 32 bytes"))?),
            _ => Binding::CallerSvid,
        };
        let want = Wanted {
            task: TaskChoice::Named(task),
            upstream: old.upstream.clone(),
            scopes: old.scopes.clone(),
            kind,
            ttl_ms,
            tool: old.tool.clone(),
            purpose: old.purpose.clone(),
            arguments: old.arguments.as_slice().try_into().ok(),
            request_id,
            digest,
            key,
            renews: Some(crate::policy::wanted::Renews {
                id,
                line: old.ancestors.first().cloned().unwrap_or_else(|| crate::ledger::record::Ancestor {
                    credential: old.credential.clone(),
                    caller: old.caller.clone(),
                }),
                until: Millis(old.renewable_until),
                approval: !old.approval.is_empty(),
            }),
        };
        self.exchange(caller, &want).await
    }

    /// The issuance of a credential that this caller holds. To others it does not exist.
    async fn own_issuance(&self, caller: &Caller, id: CredentialId) -> Result<Record, No> {
        let found = self.ledger.peek(|state| {
            let live = state.credentials.get(&id).filter(|l| state.credentials.caller(l) == caller.id().as_str())?;
            Some((live.at, live.seq))
        });
        let Some((at, seq)) = found else {
            return Err(No::Refusal(Refusal::new(Reason::NotFound, format!("you hold no credential {id}"))));
        };
        self.ledger.wait_durable(seq).await?;
        self.issuance_at(at, id)
    }

    fn issuance_at(&self, at: crate::store::Position, id: CredentialId) -> Result<Record, No> {
        let of = |r: &Record| matches!(&r.event, Some(Event::Issued(e)) if e.credential == id.as_bytes());
        let record = self.ledger.records_at(at)?.into_iter().find(of);
        record.ok_or_else(|| No::Fault(Fault::new(format!("commit {at} does not hold the issuance of {id}"))))
    }

    /// What this request made before. Checked against the rules again: what was revoked meanwhile is refused.
    async fn made_for(&self, view: &View, caller: &Caller, want: &Wanted) -> Result<Option<Issued>, No> {
        let Some(request_id) = &want.request_id else { return Ok(None) };
        let key = request_key(caller.id().as_str(), request_id);
        let found = view.read(|state| {
            let live = state.credentials.of_request(&key)?;
            let alive = state.evidence_alive(&live.id, view.now());
            let task = state.tasks.at(live.task)?;
            let path = TaskPath::Open(task.terms.clone());
            Some((live.id, live.at, live.seq, alive, path))
        });
        let Some((id, at, seq, alive, path)) = found else {
            return if view.read(|s| s.requests.contains_key(&key)) { Err(reused(request_id)) } else { Ok(None) };
        };
        let receipt = self.ledger.receipt_of(seq, at).await?;
        let record = self.issuance_at(at, id)?;
        let same = record.request.as_ref().is_some_and(|r| r.digest == want.digest);
        if !same {
            return Err(reused(request_id));
        }
        alive.map_err(No::Refusal)?;
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
            audience: &upstream.audience,
            base_url: &upstream.target,
            issuer: &self.decider.issuer_of(&upstream.environment),
        };
        Ok(Some(remake_local(&past, &self.keyring)?.reveal(receipt)))
    }
}

fn reused(request_id: &str) -> No {
    No::Refusal(
        Refusal::new(Reason::RequestIdReused, format!("request_id {request_id:?} was used before for another request"))
            .way_out("a new request takes a new request_id"),
    )
}

/// Decided on what is no longer in force, or beaten by a twin of the same request: the second look answers either.
fn worth_another_try(no: &No) -> bool {
    decided_on_old_state(no) || matches!(no, No::Refusal(r) if r.reason == Reason::RequestIdReused)
}
