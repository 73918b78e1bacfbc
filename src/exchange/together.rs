//! Exchanges that came together: those that ask for the same but for what is each one's own are decided and made in series.

use std::rc::Rc;
use std::sync::Arc;

use super::{Granted, made_here, told};
use crate::authority::Authority;
use crate::credential::series::{Series, Unfinished};
use crate::identity::caller::Caller;
use crate::ledger::View;
use crate::ledger::commit::Encoded;
use crate::ledger::mold::{Mold, OwnRequest};
use crate::policy::catalog::Compiled;
use crate::policy::decide::Shared;
use crate::policy::wanted::Wanted;
use crate::refusal::No;

/// Those of one caller, on one view.
pub(super) struct Together<'a> {
    authority: &'a Authority,
    view: &'a View,
    compiled: &'a Compiled,
    caller: &'a Caller,
    /// The sort that was asked for last.
    series: Option<(Shared<'a>, Rc<Series>)>,
    /// Of all series.
    molds: Vec<Arc<Mold>>,
}

/// What the state knows of an exchange.
pub(super) enum Look<'a> {
    /// It was asked before.
    Seen,
    /// It was not.
    New(Option<OwnRequest<'a>>),
}

/// What one of them came to.
#[allow(clippy::large_enum_variant, reason = "nearly all are of a series; a box would cost each an allocation")]
pub(super) enum Made {
    /// Of a series: proposed with the others, and then finished with them.
    Series(Encoded, Unfinished),
    /// By itself.
    Alone(Granted),
}

/// How far ahead another one of the same sort is looked for. Those of one task mostly follow each other.
const AHEAD: usize = 4;

impl<'a> Together<'a> {
    pub fn new(authority: &'a Authority, view: &'a View, compiled: &'a Compiled, caller: &'a Caller) -> Together<'a> {
        Together { authority, view, compiled, caller, series: None, molds: Vec::new() }
    }

    /// Decides one, and where we make it ourselves, makes it and its records: of a series, all that comes before a signature. `rest`: what comes
    /// after it.
    pub fn grant<'w>(
        &mut self,
        want: &'a Wanted,
        request: Option<OwnRequest<'a>>,
        mut rest: impl Iterator<Item = &'w Wanted>,
    ) -> Result<Made, No> {
        let (authority, caller) = (self.authority, self.caller);
        let fits = |series: &(Shared<'a>, Rc<Series>)| series.0.serves(want);
        if !self.series.as_ref().is_some_and(fits) && rest.by_ref().take(AHEAD).any(|other| Shared::possible(want, other)) {
            // What cannot be made in series is refused below like any other.
            self.series = self.begin(want)?;
        }
        if let Some((shared, series)) = self.series.as_ref().filter(|series| fits(series)) {
            let mut part = want.traced.span("decide");
            if let Some(own) = part.of(shared.grant(&authority.decider, caller, want, request))? {
                part.note(|| told::decided(shared.grants().parts()));
                drop(part);
                let id = authority.new_credential_id(request.map(|r| r.key()));
                let (record, unfinished) = series.next(own, id, &authority.status, self.view.now())?;
                return Ok(Made::Series(record, unfinished));
            }
        }
        authority.make(self.view, self.compiled, caller, want).map(Made::Alone)
    }

    /// What was asked before, or has no room, in one look at the state: where it lies in memory is in no cache, and what is looked for at once
    /// is waited for at once.
    pub fn look<'w>(&self, wants: impl Iterator<Item = &'w Wanted>) -> Vec<Result<Look<'w>, No>> {
        let (authority, caller) = (self.authority, self.caller);
        let named = |want: &'w Wanted| {
            let request = want.request_id.as_ref().map(|id| OwnRequest::new(caller.id().as_str(), id, &want.digest));
            (want, request)
        };
        let all: Vec<_> = wants.map(named).collect();
        self.view.read(|state| {
            state.credentials.warm(all.iter().filter_map(|(_, request)| request.as_ref().map(OwnRequest::key)));
            let look =
                |(want, request): (&'w Wanted, Option<OwnRequest<'w>>)| match request.filter(|r| state.knows_request(&r.key())) {
                    Some(_) => Ok(Look::Seen),
                    None => authority.room(state, caller, want).map(|()| Look::New(request)),
                };
            all.into_iter().map(look).collect()
        })
    }

    /// What the records of each series have in common: whoever holds it to the end frees it, where the allocator has it at hand, and not the
    /// writer.
    pub fn into_molds(self) -> Vec<Arc<Mold>> {
        self.molds
    }

    fn begin(&mut self, want: &'a Wanted) -> Result<Option<(Shared<'a>, Rc<Series>)>, No> {
        let authority = self.authority;
        let shared = authority.decider.shared(self.view, self.compiled, self.caller, want)?;
        let Some(shared) = shared.filter(|shared| made_here(shared.grants().kind())) else { return Ok(None) };
        let series = Series::new(shared.grants().clone(), &authority.keyring)?;
        self.molds.push(series.mold().clone());
        Ok(Some((shared, series)))
    }
}
