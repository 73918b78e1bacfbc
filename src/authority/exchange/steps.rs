//! The steps of an exchange, of which the ways to exchange are built: the look-up of repeats and room, the decision, minting, and the
//! refusals of an exchange that has to be tried again.

use std::time::Duration;

use super::{Granted, PendingExchange, trace_attributes};
use crate::authority::Authority;
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_base::trace::CallTrace;
use mayfly_credential::MintedCredential;
use mayfly_credential::certificates::certified_key;
use mayfly_credential::kind::{CredentialKind, mint_local};
use mayfly_identity::caller::Caller;
use mayfly_ledger::{ProposalKind, State, View};
use mayfly_policy::catalog::CompiledCatalog;
use mayfly_policy::exchange_request::{ExchangeRequest, TaskChoice};
use mayfly_policy::grant::Grant;

impl Authority {
    /// Whether deciding took so long that the decision has to be repeated.
    pub(super) fn too_old(&self, view: &View) -> bool {
        self.system.wall().since(view.now()) > self.bounds.load().view_max_age_ms
    }

    /// Decides a request that is no repeat and, for a kind that mayfly makes, makes the credential and its records. Does not wait.
    pub(super) fn grant(
        &self,
        view: &View,
        compiled: &CompiledCatalog,
        caller: &Caller,
        want: &ExchangeRequest,
    ) -> Result<Granted, Error> {
        view.read(|state| self.room(state, caller, want))?;
        self.make(view, compiled, caller, want)
    }

    pub(super) fn make(
        &self,
        view: &View,
        compiled: &CompiledCatalog,
        caller: &Caller,
        want: &ExchangeRequest,
    ) -> Result<Granted, Error> {
        let grant = self.decide(view, compiled, caller, want)?; // a refusal names the rule and the way out
        if !made_locally(grant.kind()) {
            return Ok(Granted::Upstream(Box::new(grant)));
        }
        let minted = want.traced.span("mint").of(self.mint_here(grant, view, want));
        let mut minted = minted?; // must not be revealed yet
        let (ready, proposed) = self.ledger.ready_for(ProposalKind::Grant, minted.records(), want.traced.id())?;
        Ok(Granted::Local(ready, PendingExchange { minted: Some(Ok(minted)), proposed: Some(proposed) }))
    }

    /// Checks that the configured ceilings leave room, so that nothing is signed in vain. The writer's verdict is authoritative.
    pub(super) fn room(&self, state: &State, caller: &Caller, want: &ExchangeRequest) -> Result<(), Error> {
        let (own, ceilings) = (caller.id().as_str(), self.ledger.ceilings());
        ceilings.credential(state, own, 0)?;
        if want.request_id.is_some() {
            ceilings.request_id(state, own, 0)?;
        }
        if matches!(want.task, TaskChoice::Inline(_)) {
            ceilings.task(state, own, (0, 0))?;
        }
        Ok(())
    }

    pub(super) fn decide(
        &self,
        view: &View,
        compiled: &CompiledCatalog,
        caller: &Caller,
        want: &ExchangeRequest,
    ) -> Result<Grant, Error> {
        if let Some(key) = &want.certified {
            // Before the decision, so that nobody is asked to approve a certificate that cannot be made.
            certified_key(key)?;
        }
        let mut part = want.traced.span("decide");
        let grant = part.of(self.decider.exchange(view, compiled, caller, want, || self.system.id16()))?;
        part.note(|| trace_attributes::decided(grant.parts()));
        Ok(grant)
    }

    pub(super) fn mint_here(&self, grant: Grant, view: &View, want: &ExchangeRequest) -> Result<MintedCredential, Error> {
        let group = self.ledger.new_group();
        let id = self.new_credential_id(grant.request_key());
        let certified = want.certified.as_deref().map_or(Ok(Vec::new()), certified_key)?;
        mint_local(grant, id, group, &self.keyring, &self.status, certified, view.now())
    }

    /// Makes the credential at its upstream, under a lease; it must not be revealed yet. Dropping it removes it at the upstream.
    pub(super) async fn mint_upstream(&self, grant: Grant, gone: impl Future<Output = ()>) -> Result<MintedCredential, Error> {
        let mut part = CallTrace::part("upstream").of_another();
        part.note(|| trace_attributes::upstream(grant.parts()));
        let minted = tokio::select! {
            minted = self.leases.mint(grant, self.ledger.new_group()) => minted,
            () = gone => Err(Error::Refusal(Refusal::new(Reason::NotReady, "the caller disconnected before the credential was made"))),
        };
        part.of(minted)
    }

    /// Checks that this server makes the granted kind at upstreams.
    pub(super) fn makes(&self, grant: &Grant) -> Result<(), Error> {
        let kind =
            CredentialKind::from_number(grant.kind()).ok_or_else(|| Fault::new("a grant of an unknown credential kind"))?;
        self.leases.maker(kind).map(|_| ()).map_err(Error::Refusal)
    }
}

/// An unknown kind is left to `mint_local`, which returns the error.
pub(super) fn made_locally(kind: u32) -> bool {
    CredentialKind::from_number(kind).is_none_or(CredentialKind::made_locally)
}

pub(super) fn late() -> Error {
    let no = Refusal::new(Reason::DecidedOnOldState, "the decision took longer than the maximum age of a view");
    Error::Refusal(no.retry(Duration::from_secs(1)))
}

pub(super) fn reused(request_id: &str) -> Error {
    Error::Refusal(
        Refusal::new(Reason::RequestIdReused, format!("request_id {request_id:?} was used before for another request"))
            .way_out("use a new request_id for a new request"),
    )
}

/// The refusal of a repeat that lost against a concurrent repeat of the same request. The caller did nothing wrong and may try again.
pub(super) fn beaten() -> Error {
    let no = Refusal::new(Reason::DecidedOnOldState, "a concurrent call with the same request was decided first");
    Error::Refusal(no.retry(Duration::from_millis(100)))
}

/// Whether a concurrent repeat of the same request replaced the credential first: the request id is bound, or the credential is gone.
pub(super) fn lost_to_concurrent_repeat(no: &Error) -> bool {
    matches!(no, Error::Refusal(r) if matches!(r.reason, Reason::RequestIdReused | Reason::CredentialNotActive))
}
