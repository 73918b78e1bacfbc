//! What was decided for exchanges that came together, for those of the same sort that come right after them.
//!
//! It is for speed alone. A grant rests on the view that it was decided on, however much later it is used, and says so in its record: the fold
//! compares that with what is in force at its place in the order, and a verifier with what was revoked since. So what is remembered here too
//! long is refused there and decided anew; what changed is looked for here so that this does not happen.

use std::sync::{Arc, Weak};

use smol_str::SmolStr;

use super::place::{Place, tool_within};
use super::shared::{Shared, own_grant};
use super::{Decided, Decider};
use crate::identity::caller::Caller;
use crate::ledger::View;
use crate::ledger::mold::OwnRequest;
use crate::limits;
use crate::policy::catalog::Compiled;
use crate::policy::grant::{OwnGrant, SharedGrant};
use crate::policy::wanted::Wanted;
use crate::refusal::No;
use crate::revocation::{Sort, Sorts};
use crate::seq::{Millis, Seq};
use crate::trace::Traced;

/// A decision that later exchanges of the same sort may share.
pub struct Lasting {
    caller: Caller,
    /// The one that it was decided for, but for what is its own.
    want: Wanted,
    place: Place,
    grants: Arc<SharedGrant>,
    /// What was in force. It is not kept for this.
    compiled: Weak<Compiled>,
    revision: Seq,
    decided_at: Millis,
    /// The sorts of rules that could block it.
    may_block: Sorts,
}

impl Lasting {
    pub(super) fn new(
        view: &View,
        compiled: &Arc<Compiled>,
        caller: &Caller,
        want: &Wanted,
        decided: Decided<'_>,
        grants: Arc<SharedGrant>,
    ) -> Lasting {
        Lasting {
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

    /// Whether it may be used still, on this view: it is the same session's, not old, and nothing changed that it rests on.
    pub fn holds(&self, view: &View, compiled: &Arc<Compiled>, caller: &Caller) -> bool {
        let now = view.now();
        // What is held weakly keeps its place in memory: no other has it.
        std::ptr::eq(self.compiled.as_ptr(), Arc::as_ptr(compiled))
            && now >= self.decided_at
            && now.since(self.decided_at) <= limits::SERIES_LASTS_MS
            && self.caller.same_session(caller)
            && view.read(|state| {
                state.rules.may_block(self.revision) == self.may_block && self.place.unchanged(state, now, caller.id().as_str())
            })
    }

    /// Whether this may be one of those that it serves.
    pub fn serves(&self, want: &Wanted) -> bool {
        Shared::possible(&self.want, want)
    }

    /// What they have in common.
    pub fn grants(&self) -> &Arc<SharedGrant> {
        &self.grants
    }

    fn grant<'w>(&'w self, want: &'w Wanted, request: Option<OwnRequest<'w>>) -> Result<Option<OwnGrant<'w>>, No> {
        if !self.serves(want) {
            return Ok(None);
        }
        tool_within(&self.place, want)?;
        Ok(Some(own_grant(&self.place, want, request)))
    }
}

/// What is wanted, without what is its own.
fn sort_of(want: &Wanted) -> Wanted {
    Wanted {
        task: want.task.clone(),
        upstream: want.upstream.clone(),
        scopes: want.scopes.clone(),
        tool: want.tool.clone(),
        purpose: SmolStr::default(),
        request_id: None,
        digest: [0; 32],
        binding: want.binding.clone(),
        renews: None,
        replaces: None,
        asking: None,
        behalf: None,
        traced: Traced::default(),
        kind: want.kind,
        ttl_ms: want.ttl_ms,
        arguments: want.arguments,
        key: want.key,
    }
}

/// What exchanges have in common, for one round or for those after it as well.
pub enum Alike<'a> {
    /// For those of one round.
    Round(Box<Shared<'a>>),
    /// And of later ones.
    Lasting(Arc<Lasting>),
}

impl Alike<'_> {
    /// Whether this may be one of them.
    pub fn serves(&self, want: &Wanted) -> bool {
        match self {
            Alike::Round(shared) => shared.serves(want),
            Alike::Lasting(lasting) => lasting.serves(want),
        }
    }

    /// What they have in common.
    pub fn grants(&self) -> &Arc<SharedGrant> {
        match self {
            Alike::Round(shared) => shared.grants(),
            Alike::Lasting(lasting) => lasting.grants(),
        }
    }

    /// The grant of one of them. `None` where it has to be decided by itself.
    pub fn grant<'w>(
        &'w self,
        decider: &Decider,
        caller: &Caller,
        want: &'w Wanted,
        request: Option<OwnRequest<'w>>,
    ) -> Result<Option<OwnGrant<'w>>, No> {
        match self {
            Alike::Round(shared) => shared.grant(decider, caller, want, request),
            Alike::Lasting(lasting) => lasting.grant(want, request),
        }
    }
}

impl<'a> Shared<'a> {
    /// The same for later rounds too, where nothing but what is written down is asked for each: no policy in force or beside it, no binding, no
    /// rule about tools, no break-glass.
    pub fn lasting(self, view: &View, compiled: &Arc<Compiled>, caller: &Caller) -> Alike<'a> {
        if self.asked_each() || self.decided.may_block.has(Sort::Tool) || self.decided.place.glass.is_some() {
            return Alike::Round(Box::new(self));
        }
        let Shared { want, grants, decided, .. } = self;
        Alike::Lasting(Arc::new(Lasting::new(view, compiled, caller, want, decided, grants)))
    }
}
