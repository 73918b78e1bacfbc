//! Decides the common part of several exchanges of one caller in a batch once.
//!
//! All exchanges of a batch are decided on one view and at one time, so the common part has one answer. Each exchange's individual fields
//! (tool, purpose, arguments, request id) are checked separately. Where a revocation rule may block one exchange, or policy answers
//! differently for it, that exchange is decided separately.

use std::sync::Arc;

use super::super::task_context::{TaskContext, tool_within};
use super::super::{Decider, ExchangeDecision, credential_draft::binding_of, parts};
use crate::action::{Action, WorkloadAction};
use crate::catalog::CompiledCatalog;
use crate::exchange_request::{ExchangeRequest, TaskChoice};
use crate::grant::{IndividualGrant, IndividualTerms, SharedGrant};
use crate::question::ApprovalFacts;
use mayfly_base::refusal::Error;
use mayfly_identity::caller::Caller;
use mayfly_ledger::View;
use mayfly_ledger::revocation::TargetKind;
use mayfly_ledger::writer::template::IssuanceRequest;

/// The common decision of several exchanges of one caller on one view.
pub struct BatchDecision<'a> {
    /// The exchange that was decided.
    pub(super) want: &'a ExchangeRequest,
    /// Policy must be asked for each exchange, because it reads individual fields or attributes that change by themselves.
    asks: bool,
    pub(super) grants: Arc<SharedGrant>,
    pub(super) decided: ExchangeDecision<'a>,
    /// The compiled snapshot, where the upstream has bindings.
    bindings: Option<&'a CompiledCatalog>,
}

impl<'a> BatchDecision<'a> {
    /// Whether two exchanges can share a decision: both are in the same open task, neither is a renewal, a replacement or on behalf of a
    /// subject, the common fields are equal, and the same individual fields are present.
    pub fn possible(a: &ExchangeRequest, b: &ExchangeRequest) -> bool {
        // Every field is named, so that a new field is compared here or is left out on purpose.
        let ExchangeRequest {
            task: TaskChoice::Named(task),
            upstream,
            scopes,
            kind,
            ttl_ms,
            tool,
            purpose: _,
            arguments,
            request_id: _,
            digest: _,
            key,
            // A certificate is made by itself.
            certified: None,
            binding,
            details,
            renews: None,
            replaces: None,
            asking: _,
            behalf: None,
            traced: _,
        } = a
        else {
            return false;
        };
        let among_new = b.renews.is_none() && b.replaces.is_none() && b.behalf.is_none() && b.certified.is_none();
        among_new
            && matches!(&b.task, TaskChoice::Named(other) if task == other)
            && *upstream == b.upstream
            && *scopes == b.scopes
            && (*kind, *ttl_ms) == (b.kind, b.ttl_ms)
            && *key == b.key
            && tool.is_empty() == b.tool.is_empty()
            && arguments.is_some() == b.arguments.is_some()
            && *binding == b.binding
            && *details == b.details
    }

    /// Whether this exchange may share the decision.
    pub fn serves(&self, want: &ExchangeRequest) -> bool {
        // Of the facts that revocation rules match, only the tool can differ from the decided exchange.
        let alike = || self.want.tool == want.tool || !self.decided.may_block.has(TargetKind::Tool);
        std::ptr::eq(want, self.want) || (BatchDecision::possible(self.want, want) && alike())
    }

    /// Whether anything must be asked per exchange beyond the task's tool list.
    pub(super) fn asked_each(&self) -> bool {
        self.asks || self.bindings.is_some() || self.decided.policy.beside.is_some()
    }

    /// The common grant.
    pub fn grants(&self) -> &Arc<SharedGrant> {
        &self.grants
    }

    /// The grant of one exchange. `None` where the exchange must be decided separately.
    pub fn grant<'w>(
        &'w self,
        decider: &Decider,
        caller: &Caller,
        want: &'w ExchangeRequest,
        request: Option<IssuanceRequest<'w>>,
    ) -> Result<Option<IndividualGrant<'w>>, Error> {
        let d = &self.decided;
        if !self.serves(want) {
            return Ok(None);
        }
        if !std::ptr::eq(want, self.want) {
            tool_within(&d.place, want)?;
            // A different tool may be covered by a different binding or by none.
            let binding = self.bindings.map_or(Ok(None), |compiled| binding_of(compiled, caller.id(), want, &d.scopes))?;
            if binding.map(|b| &b.binding.name) != d.binding.map(|b| &b.binding.name) {
                return Ok(None);
            }
            decider.beside(caller, want, d, None, true);
            if self.asks {
                let policies = decider.permits(caller, want, d, ApprovalFacts::default())?;
                if policies != d.policies {
                    return Ok(None);
                }
            }
        }
        Ok(Some(own_grant(&d.place, want, request)))
    }
}

/// The individual part of a grant.
pub(super) fn own_grant<'w>(
    place: &'w TaskContext,
    want: &'w ExchangeRequest,
    request: Option<IssuanceRequest<'w>>,
) -> IndividualGrant<'w> {
    IndividualGrant::new(IndividualTerms {
        tool: &want.tool,
        purpose: place.purpose_of(want),
        arguments: want.arguments.as_ref(),
        request,
        trace: want.traced.bytes(),
    })
}

impl Decider {
    /// Decides the common part of several exchanges of one view, with `want` as their representative. [`BatchDecision::grant`] then gives
    /// each exchange its grant, or says that the exchange must be decided separately.
    ///
    /// `None` where every exchange must be decided separately, for example because an approval is for a single request.
    pub fn shared<'a>(
        &self,
        view: &View,
        compiled: &'a CompiledCatalog,
        caller: &Caller,
        want: &'a ExchangeRequest,
    ) -> Result<Option<BatchDecision<'a>>, Error> {
        let decided = self.decide(view, compiled, caller, want, || [0; 16])?;
        // The records of a caller with a login SVID name their sender individually, which the common part cannot hold.
        if caller.ancestor().is_some() || decided.policy.set.reads(Action::Work(WorkloadAction::Exchange)).reads_approvals() {
            return Ok(None);
        }
        let draft = self.draft(caller, want, &decided);
        let path = (decided.place.path(), decided.place.grounds(view, &draft));
        let asks = !decided.policy.set.reads(Action::Work(WorkloadAction::Exchange)).shared();
        let grants = SharedGrant::new(parts(view, caller, decided.registered, decided.policy, draft, path));
        let bindings = compiled.bindings(&want.upstream).map(|_| compiled);
        Ok(Some(BatchDecision { want, asks, grants: Arc::new(grants), decided, bindings }))
    }
}
