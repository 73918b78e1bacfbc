//! The exchange: one workload, one task, one upstream, one credential.
//!
//! [`Authority::exchange_unless`] is the whole of it: *check, look up, decide, mint, propose, sign, reveal*. `steps.rs` holds the steps.
//! `begun.rs` begins several exchanges of one caller at once with the same steps, and `all_or_nothing.rs` issues a batch as one. `fast/`
//! begins a batch with less CPU time and gives the same answers and the same records. A server begins nearly all exchanges by `fast/`, and
//! [`Authority::exchange_unless`] answers repeats, kinds that upstreams make, waits for approvals, and retries; a build without the feature
//! `fast` has no `fast/` and answers everything by it. A check of every exchange therefore belongs in what both use: the decision
//! ([`mayfly_policy::decide`]) or `still_stands`.
//!
//! Credentials that mayfly makes itself and credentials that an upstream makes go the same way; the grant's kind tells which it is. The
//! latter are made under a lease ([`mayfly_credential::lease`]).

pub mod all_or_nothing;
pub mod authorize;
mod begun;
#[cfg(feature = "fast")]
mod fast;
pub mod introspect;
pub mod lookup;
mod renew;
mod repeat;
mod steps;
pub mod subjects;
pub mod trace_attributes;

pub use begun::{BatchReceipts, BegunExchange, DecisionCache, ExchangeBatch, ExchangePath, PendingExchange};

use crate::authority::Authority;
use crate::people::approvals::needs_approval;
use crate::redecide::{DecisionAttempts, is_void};
use mayfly_base::refusal::Error;
use mayfly_credential::IssuedCredential;
use mayfly_identity::caller::Caller;
use mayfly_ledger::{PreparedProposal, ProposalKind};
use mayfly_policy::decide::decided_on_stale_state;
use mayfly_policy::exchange_request::ExchangeRequest;
use mayfly_policy::grant::Grant;
use repeat::RepeatOutcome;
use steps::{beaten, late, lost_to_concurrent_repeat, made_locally, reused};

/// The result of a permitted decision.
#[allow(clippy::large_enum_variant, reason = "nearly all are made here; a box would cost each an allocation")]
enum Granted {
    /// The credential is made by mayfly, and its records are ready to be proposed.
    Local(PreparedProposal, PendingExchange),
    /// The credential has to be made at its upstream.
    Upstream(Box<Grant>),
}

impl Authority {
    /// Issues one credential, or answers a repeat with the credential issued before.
    pub async fn exchange(&self, caller: &Caller, want: &ExchangeRequest) -> Result<IssuedCredential, Error> {
        self.exchange_unless(caller, want, std::future::pending).await
    }

    /// Like [`Authority::exchange`], for a caller that may go away: when `gone` completes, a credential being made at an upstream is
    /// removed there. Dropping the future has the same effect.
    pub async fn exchange_unless<F: Future<Output = ()> + Send>(
        &self,
        caller: &Caller,
        want: &ExchangeRequest,
        gone: impl Fn() -> F,
    ) -> Result<IssuedCredential, Error> {
        Box::pin(self.check_decide_and_issue(caller, want, gone)).await
    }

    async fn check_decide_and_issue<F: Future<Output = ()> + Send>(
        &self,
        caller: &Caller,
        want: &ExchangeRequest,
        gone: impl Fn() -> F,
    ) -> Result<IssuedCredential, Error> {
        let (mut waited, mut attempts) = (false, DecisionAttempts::default());
        loop {
            self.still_stands(caller)?;
            let mut view = self.ledger.view();
            let mut instead = None;
            if let Some(seen) = self.seen(&view, caller, want)? {
                match self.again(seen, caller, want).await {
                    Ok(RepeatOutcome::Same(made)) => return Ok(made), // same request, same credential
                    Ok(RepeatOutcome::Replace(replacing)) => {
                        view = self.ledger.view(); // the upstream was asked, which takes time
                        instead = Some(replacing);
                    }
                    Ok(RepeatOutcome::Nothing) => {}
                    Err(no) if decided_on_stale_state(&no) && attempts.again() => continue,
                    Err(no) => return Err(no),
                }
            }
            let want = instead.as_deref().unwrap_or(want);
            let known = self.on_behalf(caller, want).await?;
            if known.is_some() {
                view = self.ledger.view(); // the token's issuer may have been asked, which takes time
            }
            let want = known.as_ref().unwrap_or(want);
            let under_way = self.ledger.minting(1);
            let granted = match self.grant(&view, &self.catalog.now(), caller, want) {
                Err(no) if needs_approval(&no) && want.renews.is_none() => {
                    drop(under_way); // no commit waits for people
                    self.approved(&view, (caller, want), no, &mut waited).await?;
                    continue;
                }
                granted => granted?,
            };
            if self.too_old(&view) {
                if attempts.again() { continue } else { return Err(late()) }
            }
            let one = match granted {
                Granted::Local(ready, one) => {
                    self.ledger.propose_ready(vec![ready])?;
                    one
                }
                Granted::Upstream(grant) => {
                    drop(under_way); // no commit waits for an upstream
                    let mut minted = self.mint_upstream(*grant, gone()).await?;
                    let proposed = self.ledger.propose(ProposalKind::Grant, minted.records())?;
                    PendingExchange { minted: Some(Ok(minted)), proposed: Some(proposed) }
                }
            };
            let beaten_by = |no: &Error| want.replaces.is_some() && lost_to_concurrent_repeat(no);
            match self.finish(one).await {
                Err(no) if (is_void(&no) || beaten_by(&no)) && attempts.again() => self.ledger.settled(|_| ()).await?,
                Err(no) if beaten_by(&no) => return Err(beaten()),
                answer => return answer,
            }
        }
    }
}
