//! Exchanges of one caller that come together: what they have in common is decided once.
//!
//! They are decided on one view, at one moment: what is in common has one answer. What one of them has of its own (tool, purpose, arguments,
//! request) is asked for each, and where a rule may block, or policy answers otherwise for one of them, that one is decided by itself.

use std::sync::Arc;

use super::place::{Place, tool_within};
use super::{Decided, Decider, parts, settle::binding_of};
use crate::identity::caller::Caller;
use crate::ledger::View;
use crate::ledger::mold::OwnRequest;
use crate::policy::action::{Action, Work};
use crate::policy::catalog::Compiled;
use crate::policy::grant::{Own, OwnGrant, SharedGrant};
use crate::policy::request::ApprovalFacts;
use crate::policy::wanted::{TaskChoice, Wanted};
use crate::refusal::No;
use crate::revocation::Sort;

/// What exchanges of one caller and view have in common: decided once, and for each only what is its own.
pub struct Shared<'a> {
    /// The one that it was decided for.
    pub(super) want: &'a Wanted,
    /// Policy is asked for each: it reads what is one's own, or what moves.
    asks: bool,
    pub(super) grants: Arc<SharedGrant>,
    pub(super) decided: Decided<'a>,
    /// What is compiled, where the upstream has bindings.
    bindings: Option<&'a Compiled>,
}

impl<'a> Shared<'a> {
    /// Whether exchanges can have something in common at all: they act in an open task, come of nothing else, and have the same of their own,
    /// of whatever value.
    pub fn possible(a: &Wanted, b: &Wanted) -> bool {
        let plain = |w: &Wanted| {
            matches!(w.task, TaskChoice::Named(_)) && w.renews.is_none() && w.replaces.is_none() && w.behalf.is_none()
        };
        let (TaskChoice::Named(one), TaskChoice::Named(other)) = (&a.task, &b.task) else { return false };
        plain(a)
            && plain(b)
            && one == other
            && a.upstream == b.upstream
            && a.scopes == b.scopes
            && (a.kind, a.ttl_ms) == (b.kind, b.ttl_ms)
            && a.key == b.key
            && a.tool.is_empty() == b.tool.is_empty()
            && a.arguments.is_some() == b.arguments.is_some()
            && a.binding == b.binding
    }

    /// Whether this may be one of them.
    pub fn serves(&self, want: &Wanted) -> bool {
        // By all else that rules ask, they are as the one that was decided: only a rule may aim at a tool.
        let alike = || self.want.tool == want.tool || !self.decided.may_block.has(Sort::Tool);
        std::ptr::eq(want, self.want) || (Shared::possible(self.want, want) && alike())
    }

    /// Whether anything but what the task was opened with is asked for each of them.
    pub(super) fn asked_each(&self) -> bool {
        self.asks || self.bindings.is_some() || self.decided.policy.beside.is_some()
    }

    /// What they have in common.
    pub fn grants(&self) -> &Arc<SharedGrant> {
        &self.grants
    }

    /// The grant of one of them. `None` where it has to be decided by itself.
    pub fn grant<'w>(
        &'w self,
        decider: &Decider,
        caller: &Caller,
        want: &'w Wanted,
        request: Option<OwnRequest<'w>>,
    ) -> Result<Option<OwnGrant<'w>>, No> {
        let d = &self.decided;
        if !self.serves(want) {
            return Ok(None);
        }
        if !std::ptr::eq(want, self.want) {
            tool_within(&d.place, want)?;
            // One tool may be bound by another binding, or by none.
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

/// What is one's own of those that have the rest in common.
pub(super) fn own_grant<'w>(place: &'w Place, want: &'w Wanted, request: Option<OwnRequest<'w>>) -> OwnGrant<'w> {
    OwnGrant::new(Own {
        tool: &want.tool,
        purpose: place.purpose_of(want),
        arguments: want.arguments.as_ref(),
        request,
        trace: want.traced.bytes(),
    })
}

impl Decider {
    /// Decides what several exchanges of one view have in common, if this is one that may have: [`Shared::grant`] says for each whether it
    /// has, and decides the rest.
    ///
    /// `None` where each is to be decided by itself, since an approval is for one.
    pub fn shared<'a>(
        &self,
        view: &View,
        compiled: &'a Compiled,
        caller: &Caller,
        want: &'a Wanted,
    ) -> Result<Option<Shared<'a>>, No> {
        let decided = self.decide(view, compiled, caller, want, || [0; 16])?;
        // A person's records name their sender, which is not in what they have in common.
        if caller.ancestor().is_some() || decided.policy.set.reads(Action::Work(Work::Exchange)).reads_approvals() {
            return Ok(None);
        }
        let draft = self.draft(caller, want, &decided);
        let path = (decided.place.path(), decided.place.grounds(view, &draft));
        let asks = !decided.policy.set.reads(Action::Work(Work::Exchange)).shared();
        let grants = SharedGrant::new(parts(view, caller, decided.registered, decided.policy, draft, path));
        let bindings = compiled.bindings(&want.upstream).map(|_| compiled);
        Ok(Some(Shared { want, asks, grants: Arc::new(grants), decided, bindings }))
    }
}
