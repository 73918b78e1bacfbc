//! Reuses the common decision of one batch for exchanges of the same kind in the following batches of the connection.
//!
//! The reuse serves speed only. A grant states in its record which view it was decided on. The fold compares that view with the versions in
//! effect at the record's place in the order, and a verifier compares it with later revocations. A decision that is reused for too long is
//! therefore voided by the fold and decided again; the checks here keep that from happening.

use std::sync::{Arc, Weak};

use smol_str::SmolStr;

use super::super::task_context::{TaskContext, tool_within};
use super::super::{Decider, ExchangeDecision};
use super::batch::{BatchDecision, own_grant};
use crate::catalog::CompiledCatalog;
use crate::exchange_request::ExchangeRequest;
use crate::grant::{IndividualGrant, SharedGrant};
use mayfly_base::limits;
use mayfly_base::refusal::Error;
use mayfly_base::trace::CallTrace;
use mayfly_identity::caller::Caller;
use mayfly_ledger::View;
use mayfly_ledger::revocation::{TargetKind, TargetKinds};
use mayfly_ledger::writer::template::IssuanceRequest;
use mayfly_verify::seq::{Millis, Seq};

/// A decision that later exchanges of the same kind may reuse.
pub struct ReusableDecision {
    caller: Caller,
    /// The exchange that was decided, without its individual fields.
    want: ExchangeRequest,
    place: TaskContext,
    grants: Arc<SharedGrant>,
    /// The compiled snapshot that was in force. The weak reference does not keep the snapshot alive.
    compiled: Weak<CompiledCatalog>,
    revision: Seq,
    decided_at: Millis,
    /// The sorts of revocation rules that could block the decision.
    may_block: TargetKinds,
}

impl ReusableDecision {
    pub(super) fn new(
        view: &View,
        compiled: &Arc<CompiledCatalog>,
        caller: &Caller,
        want: &ExchangeRequest,
        decided: ExchangeDecision<'_>,
        grants: Arc<SharedGrant>,
    ) -> ReusableDecision {
        ReusableDecision {
            caller: caller.clone(),
            want: sort_of(want),
            may_block: decided.may_block,
            place: decided.place,
            grants,
            compiled: Arc::downgrade(compiled),
            revision: view.revision(),
            decided_at: view.now(),
        }
    }

    /// Whether the decision may still be used on this view: same TLS session, not too old, and nothing that it depends on has changed.
    pub fn holds(&self, view: &View, compiled: &Arc<CompiledCatalog>, caller: &Caller) -> bool {
        let now = view.now();
        // A weak reference keeps the allocation, so an equal address means the same snapshot.
        std::ptr::eq(self.compiled.as_ptr(), Arc::as_ptr(compiled))
            && now >= self.decided_at
            && now.since(self.decided_at) <= limits::SERIES_LASTS_MS
            && self.caller.same_session(caller)
            && view.read(|state| {
                state.rules.may_block(self.revision) == self.may_block && self.place.unchanged(state, now, caller.id().as_str())
            })
    }

    /// Whether this exchange may reuse the decision.
    pub fn serves(&self, want: &ExchangeRequest) -> bool {
        BatchDecision::possible(&self.want, want)
    }

    /// The common grant.
    pub fn grants(&self) -> &Arc<SharedGrant> {
        &self.grants
    }

    fn grant<'w>(
        &'w self,
        want: &'w ExchangeRequest,
        request: Option<IssuanceRequest<'w>>,
    ) -> Result<Option<IndividualGrant<'w>>, Error> {
        if !self.serves(want) {
            return Ok(None);
        }
        tool_within(&self.place, want)?;
        Ok(Some(own_grant(&self.place, want, request)))
    }
}

/// A copy of the request without its individual fields.
fn sort_of(want: &ExchangeRequest) -> ExchangeRequest {
    ExchangeRequest {
        certified: None,
        task: want.task.clone(),
        upstream: want.upstream.clone(),
        scopes: want.scopes.clone(),
        tool: want.tool.clone(),
        purpose: SmolStr::default(),
        request_id: None,
        digest: [0; 32],
        binding: want.binding.clone(),
        details: want.details.clone(),
        renews: None,
        replaces: None,
        asking: None,
        behalf: None,
        traced: CallTrace::default(),
        kind: want.kind,
        ttl_ms: want.ttl_ms,
        arguments: want.arguments,
        key: want.key,
    }
}

/// The common decision of several exchanges, for one batch or also for later batches.
pub enum SharedDecision<'a> {
    /// For the exchanges of one batch.
    Round(Box<BatchDecision<'a>>),
    /// For later batches as well.
    Lasting(Arc<ReusableDecision>),
}

impl SharedDecision<'_> {
    /// Whether this exchange may share the decision.
    pub fn serves(&self, want: &ExchangeRequest) -> bool {
        match self {
            SharedDecision::Round(shared) => shared.serves(want),
            SharedDecision::Lasting(lasting) => lasting.serves(want),
        }
    }

    /// The common grant.
    pub fn grants(&self) -> &Arc<SharedGrant> {
        match self {
            SharedDecision::Round(shared) => shared.grants(),
            SharedDecision::Lasting(lasting) => lasting.grants(),
        }
    }

    /// The grant of one exchange. `None` where the exchange must be decided separately.
    pub fn grant<'w>(
        &'w self,
        decider: &Decider,
        caller: &Caller,
        want: &'w ExchangeRequest,
        request: Option<IssuanceRequest<'w>>,
    ) -> Result<Option<IndividualGrant<'w>>, Error> {
        match self {
            SharedDecision::Round(shared) => shared.grant(decider, caller, want, request),
            SharedDecision::Lasting(lasting) => lasting.grant(want, request),
        }
    }
}

impl<'a> BatchDecision<'a> {
    /// Makes the decision usable for later batches, if nothing has to be asked per exchange: policy is not asked again, there is no shadow
    /// policy set, no binding, no rule about tools, and no break-glass task.
    pub fn lasting(self, view: &View, compiled: &Arc<CompiledCatalog>, caller: &Caller) -> SharedDecision<'a> {
        if self.asked_each() || self.decided.may_block.has(TargetKind::Tool) || self.decided.place.break_glass.is_some() {
            return SharedDecision::Round(Box::new(self));
        }
        let BatchDecision { want, grants, decided, .. } = self;
        SharedDecision::Lasting(Arc::new(ReusableDecision::new(view, compiled, caller, want, decided, grants)))
    }
}
