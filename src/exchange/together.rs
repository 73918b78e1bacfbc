//! Exchanges that came together: those that ask for the same but for what is each one's own are decided and made in series.

use std::sync::Arc;

use super::{Granted, UnderWay, made_here};
use crate::authority::Authority;
use crate::credential::series::Series;
use crate::identity::caller::Caller;
use crate::ledger::mold::{Mold, OwnRequest};
use crate::ledger::{Lane, View};
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
    series: Option<(Shared<'a>, Series)>,
    /// Of all series.
    molds: Vec<Arc<Mold>>,
}

/// How far ahead another one of the same sort is looked for. Those of one task mostly follow each other.
const AHEAD: usize = 4;

impl<'a> Together<'a> {
    pub fn new(authority: &'a Authority, view: &'a View, compiled: &'a Compiled, caller: &'a Caller) -> Together<'a> {
        Together { authority, view, compiled, caller, series: None, molds: Vec::new() }
    }

    /// Decides one, and where we make it ourselves, makes it and its records. `rest`: what comes after it. `None`: it was asked before.
    pub fn grant<'w>(&mut self, want: &'a Wanted, mut rest: impl Iterator<Item = &'w Wanted>) -> Result<Option<Granted>, No> {
        let (authority, caller) = (self.authority, self.caller);
        let request = want.request_id.as_ref().map(|id| OwnRequest::new(caller.id().as_str(), id, &want.digest));
        let seen = self.view.read(|state| match request.as_ref().filter(|r| state.knows_request(&r.key())) {
            Some(_) => Ok(true),
            None => authority.room(state, caller, want).map(|()| false),
        });
        if seen? {
            return Ok(None);
        }
        let fits = |series: &(Shared<'a>, Series)| series.0.serves(want);
        if !self.series.as_ref().is_some_and(fits) && rest.by_ref().take(AHEAD).any(|other| Shared::possible(want, other)) {
            // What cannot be made in series is refused below like any other.
            self.series = self.begin(want)?;
        }
        if let Some((shared, series)) = self.series.as_ref().filter(|series| fits(series))
            && let Some(own) = shared.grant(&authority.decider, caller, want, request)?
        {
            let id = authority.new_credential_id();
            let (record, minted) = series.mint(own, id, &authority.status, self.view.now())?;
            let (ready, proposed) = authority.ledger.ready_one(Lane::Grant, record);
            return Ok(Some(Granted::Here(ready, UnderWay { minted, proposed })));
        }
        authority.make(self.view, self.compiled, caller, want).map(Some)
    }

    /// What the records of each series have in common: whoever holds it to the end frees it, where the allocator has it at hand, and not the
    /// writer.
    pub fn into_molds(self) -> Vec<Arc<Mold>> {
        self.molds
    }

    fn begin(&mut self, want: &'a Wanted) -> Result<Option<(Shared<'a>, Series)>, No> {
        let authority = self.authority;
        let shared = authority.decider.shared(self.view, self.compiled, self.caller, want)?;
        if !made_here(shared.grants().kind()) {
            return Ok(None);
        }
        let series = Series::new(shared.grants().clone(), &authority.keyring)?;
        self.molds.push(series.mold().clone());
        Ok(Some((shared, series)))
    }
}
