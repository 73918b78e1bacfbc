//! One workload, one task, one upstream, one credential.
//!
//! Credentials that we make ourselves and those that an upstream makes go the same way; which it is follows from the grant's kind. What
//! is made elsewhere is made under a lease ([`upstream::lease`](crate::upstream::lease)).

mod again;
pub(crate) mod batch;
mod renew;

use std::time::Duration;

use crate::authority::Authority;
use crate::credential::kind::{Kind, mint_local};
use crate::credential::{Issued, Minted};
use crate::identity::caller::Caller;
use crate::ledger::{Lane, Proposed, View};
use crate::policy::decide::decided_on_old_state;
use crate::policy::grant::Grant;
use crate::policy::wanted::{TaskChoice, Wanted};
use crate::refusal::{Fault, No, Reason, Refusal};
use again::Before;

/// What a decision came to.
#[allow(clippy::large_enum_variant, reason = "nearly all are made here; a box would cost each an allocation")]
enum Granted {
    /// It took so long that its view is old: to be decided once more.
    Late,
    /// Made here, and on its way into the ledger.
    Here(Minted, Proposed),
    /// To be made at its upstream.
    Elsewhere(Box<Grant>),
}

/// A decision that ran into a change is made anew before the caller is told to try again: the second time the change may be written and
/// not yet in what decisions are made with.
const TRIES: usize = 3;

impl Authority {
    /// Issues one credential, or answers a repeat with what was issued.
    pub async fn exchange(&self, caller: &Caller, want: &Wanted) -> Result<Issued, No> {
        self.exchange_unless(caller, want, std::future::pending).await
    }

    /// The same for a caller who may go away: what is being made at an upstream then is undone. Dropping the future does that too.
    pub async fn exchange_unless<F: Future<Output = ()> + Send>(
        &self,
        caller: &Caller,
        want: &Wanted,
        gone: impl Fn() -> F,
    ) -> Result<Issued, No> {
        for again in 1.. {
            self.still_stands(caller)?;
            let mut view = self.ledger.view(); // everything up to seq r
            let mut instead = None;
            if let Some(seen) = self.seen(&view, caller, want)? {
                match Box::pin(self.again(seen, caller, want)).await {
                    Ok(Before::Same(made)) => return Ok(made), // same request, same credential
                    Ok(Before::Replace(replacing)) => {
                        view = self.ledger.view(); // the upstream was asked, which takes its time
                        instead = Some(replacing);
                    }
                    Ok(Before::Nothing) => {}
                    Err(no) if again < TRIES && decided_on_old_state(&no) => continue,
                    Err(no) => return Err(no),
                }
            }
            let want = instead.as_deref().unwrap_or(want);
            let under_way = self.ledger.minting();
            let (minted, proposed) = match self.grant(&view, caller, want)? {
                Granted::Late if again < TRIES => continue,
                Granted::Late => return Err(late()),
                Granted::Here(minted, proposed) => (minted, proposed),
                Granted::Elsewhere(grant) => {
                    drop(under_way); // no commit waits for an upstream
                    let mut minted = Box::pin(self.mint_elsewhere(*grant, gone())).await?;
                    let proposed = self.ledger.propose(Lane::Grant, minted.records())?;
                    (minted, proposed)
                }
            };
            match self.ledger.receipt(proposed).await {
                Ok(receipt) => return Ok(minted.reveal(receipt)), // in order, durable, found valid by the fold
                Err(no) if again < TRIES && worth_another_try(&no, want.replaces.is_some()) => {
                    self.ledger.settled(|_| ()).await?
                }
                Err(no) if want.replaces.is_some() && beaten_by_a_twin(&no, true) => return Err(beaten()),
                Err(no) => return Err(no),
            }
        }
        Err(No::Fault(Fault::new("exchange: tries ran out")))
    }

    /// Decides, and where we make it ourselves, mints and proposes. It waits for nothing, so what it needs does not outlive it.
    fn grant(&self, view: &View, caller: &Caller, want: &Wanted) -> Result<Granted, No> {
        let grant = self.decide(view, caller, want)?; // a refusal names the rule and the way out
        if self.system.wall().since(view.now()) > self.bounds.view_max_age_ms {
            return Ok(Granted::Late);
        }
        if !made_here(grant.kind()) {
            return Ok(Granted::Elsewhere(Box::new(grant)));
        }
        let mut minted = self.mint_here(grant, view)?; // told to nobody yet
        let proposed = self.ledger.propose(Lane::Grant, minted.records())?;
        Ok(Granted::Here(minted, proposed))
    }

    fn decide(&self, view: &View, caller: &Caller, want: &Wanted) -> Result<Grant, No> {
        view.read(|state| {
            let own = caller.id().as_str();
            self.bounds.credential(state, own, want.request_id.is_some())?;
            if matches!(want.task, TaskChoice::Inline(_)) { self.bounds.task(state, own) } else { Ok(()) }
        })?;
        let compiled = self.catalog.now();
        self.decider.exchange(view, &compiled, caller, want, || self.system.random16())
    }

    fn mint_here(&self, grant: Grant, view: &View) -> Result<Minted, No> {
        let group = self.ledger.new_group();
        mint_local(grant, self.new_credential_id(), group, &self.keyring, &self.status, view.now())
    }

    /// Made at its upstream, under a lease; told to nobody yet. Dropped, what was made is undone.
    async fn mint_elsewhere(&self, grant: Grant, gone: impl Future<Output = ()>) -> Result<Minted, No> {
        tokio::select! {
            minted = self.leases.mint(grant, self.ledger.new_group()) => minted,
            () = gone => Err(No::Refusal(Refusal::new(Reason::NotReady, "the caller went away while it was made"))),
        }
    }

    /// Whether this server makes what was granted elsewhere.
    fn makes(&self, grant: &Grant) -> Result<(), No> {
        let kind = Kind::from_number(grant.kind()).ok_or_else(|| Fault::new("a grant of an unknown credential kind"))?;
        self.leases.maker(kind).map(|_| ()).map_err(No::Refusal)
    }
}

/// A kind that nobody knows is made nowhere: `mint_local` says so.
fn made_here(kind: u32) -> bool {
    Kind::from_number(kind).is_none_or(Kind::made_here)
}

fn late() -> No {
    let no = Refusal::new(Reason::DecidedOnOldState, "deciding took longer than a view may be old");
    No::Refusal(no.retry(Duration::from_secs(1)))
}

fn reused(request_id: &str) -> No {
    No::Refusal(
        Refusal::new(Reason::RequestIdReused, format!("request_id {request_id:?} was used before for another request"))
            .way_out("a new request takes a new request_id"),
    )
}

/// Another repeat of the same request took the place of what it made. The caller did nothing wrong: it tries again.
fn beaten() -> No {
    let no = Refusal::new(Reason::DecidedOnOldState, "the same request was sent more than once at a time, and another was first");
    No::Refusal(no.retry(Duration::from_millis(100)))
}

/// Whether this request was answered by a twin meanwhile: it is bound, or what it was to replace is gone.
fn beaten_by_a_twin(no: &No, replaces: bool) -> bool {
    matches!(no, No::Refusal(r) if r.reason == Reason::RequestIdReused || (replaces && r.reason == Reason::CredentialNotActive))
}

/// Decided on what is no longer in force, or beaten by a twin of the same request: the second look answers either.
fn worth_another_try(no: &No, replaces: bool) -> bool {
    decided_on_old_state(no) || beaten_by_a_twin(no, replaces)
}
