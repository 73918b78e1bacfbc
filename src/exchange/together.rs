//! Exchanges that came together: those that ask for the same but for what is each one's own are decided and made in series.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;

use super::{Granted, beaten_by_a_twin, made_here, told};
use crate::authority::Authority;
use crate::credential::series::{Making, Series, Unfinished};
use crate::identity::caller::Caller;
use crate::ledger::View;
use crate::ledger::commit::Encoded;
use crate::ledger::mold::{Mold, OwnRequest};
use crate::ledger::state::request_key;
use crate::limits;
use crate::policy::catalog::Compiled;
use crate::policy::decide::{Alike, Lasting, Shared};
use crate::policy::wanted::{TaskChoice, Wanted};
use crate::refusal::No;

/// What is known of the rounds that came on one connection lately, for those that follow. Dropped at any time, nothing is lost but time.
#[derive(Default)]
pub struct Lately {
    decided: Mutex<Vec<Kept>>,
    /// The last of them had nothing in it that was asked before. Until one has, the state is not asked first: where it keeps a request is in no
    /// cache, and the fold asks it in any case. A connection begins with a look: who lost one asks again on the next.
    all_new: AtomicBool,
}

#[derive(Clone)]
struct Kept {
    decision: Arc<Lasting>,
    series: Arc<Series>,
}

impl Lately {
    /// What serves this one and still holds. What does not is dropped.
    fn find(&self, want: &Wanted, holds: impl Fn(&Lasting) -> bool) -> Option<Kept> {
        let found = self.decided.lock().iter().find(|kept| kept.decision.serves(want)).cloned()?;
        // Not under the lock: it asks the state.
        if holds(&found.decision) {
            return Some(found);
        }
        self.decided.lock().retain(|kept| !Arc::ptr_eq(&kept.decision, &found.decision));
        None
    }

    fn keep(&self, kept: Kept) {
        let mut all = self.decided.lock();
        // A round beside this one may have decided the same.
        all.truncate(limits::SERIES_KEPT - 1);
        all.insert(0, kept);
    }

    /// What became of one: of what the fold knew, the next rounds ask first.
    pub fn refused(&self, no: &No) {
        if beaten_by_a_twin(no, false) {
            self.all_new.store(false, Relaxed);
        }
    }
}

/// Those of one caller, on one view.
pub(super) struct Together<'a> {
    authority: &'a Authority,
    view: &'a View,
    compiled: &'a Arc<Compiled>,
    caller: &'a Caller,
    lately: &'a Lately,
    /// The sort that was asked for last.
    series: Option<(Alike<'a>, Rc<Making>)>,
    /// Of all series.
    molds: Vec<Arc<Mold>>,
    /// What was asked before is known already.
    looked: bool,
}

/// What the state knows of an exchange.
pub(super) enum Look<'a> {
    /// It was asked before.
    Seen,
    /// It was not.
    New(Option<OwnRequest<'a>>),
}

/// What one of them came to.
#[allow(clippy::large_enum_variant, reason = "a single exchange comes to one; a box would cost it an allocation")]
pub(super) enum Made {
    /// Of a series: it is among those.
    Series,
    /// By itself.
    Alone(Granted),
}

/// Those of series: proposed at once, and finished after that.
pub(super) struct InSeries<'w> {
    pub records: Vec<Encoded>,
    /// As many, each with its place in the round.
    pub unfinished: Vec<(usize, &'w Wanted, Unfinished)>,
}

impl InSeries<'_> {
    pub fn with_room(count: usize) -> Self {
        InSeries { records: Vec::with_capacity(count), unfinished: Vec::with_capacity(count) }
    }
}

/// How far ahead another one of the same sort is looked for. Those of one task mostly follow each other.
const AHEAD: usize = 4;

/// Whether there is room for exchanges that came together: the same for all of one sort.
#[derive(Default)]
struct Rooms([Option<Result<(), No>>; 4]);

impl Rooms {
    fn of(&mut self, want: &Wanted, ask: impl FnOnce() -> Result<(), No>) -> Result<(), No> {
        let (named, inline) = (want.request_id.is_some(), matches!(want.task, TaskChoice::Inline(_)));
        let [a, b, c, d] = &mut self.0;
        let known = match (named, inline) {
            (false, false) => a,
            (false, true) => b,
            (true, false) => c,
            (true, true) => d,
        };
        known.get_or_insert_with(ask).clone()
    }
}

impl<'a> Together<'a> {
    pub fn new(
        authority: &'a Authority,
        view: &'a View,
        compiled: &'a Arc<Compiled>,
        caller: &'a Caller,
        lately: &'a Lately,
    ) -> Together<'a> {
        Together {
            authority,
            view,
            compiled,
            caller,
            lately,
            series: None,
            molds: Vec::new(),
            looked: !lately.all_new.load(Relaxed),
        }
    }

    /// Decides one, and where we make it ourselves, makes it and its records: of a series, all that comes before a signature. `rest`: what comes
    /// after it. `place`: its own in the round.
    pub fn grant<'w>(
        &mut self,
        (place, want): (usize, &'a Wanted),
        request: Option<OwnRequest<'a>>,
        mut rest: impl Iterator<Item = &'w Wanted>,
        out: &mut InSeries<'a>,
    ) -> Result<Made, No> {
        let (authority, caller) = (self.authority, self.caller);
        let fits = |series: &(Alike<'a>, Rc<Making>)| series.0.serves(want);
        if !self.series.as_ref().is_some_and(fits) {
            if let Some(series) = self.follow(want) {
                self.series = Some(series);
            } else if rest.by_ref().take(AHEAD).any(|other| Shared::possible(want, other)) {
                // What cannot be made in series is refused below like any other.
                self.series = self.begin(want)?;
            }
        }
        if let Some((shared, series)) = self.series.as_ref().filter(|series| fits(series)) {
            let mut part = want.traced.span("decide");
            if let Some(own) = part.of(shared.grant(&authority.decider, caller, want, request))? {
                part.note(|| told::decided(shared.grants().parts()));
                drop(part);
                let id = authority.new_credential_id(request.map(|r| r.key()));
                let (record, unfinished) = series.next(own, id, &authority.status, self.view.now())?;
                out.records.push(record);
                out.unfinished.push((place, want, unfinished));
                return Ok(Made::Series);
            }
        }
        authority.make(self.view, self.compiled, caller, want).map(Made::Alone)
    }

    /// What was asked before, or has no room, in one look at the state: where it lies in memory is in no cache, and what is looked for at once
    /// is waited for at once. After a round in which nothing was asked before, that is left to the fold.
    pub fn look<'w>(&self, wants: impl Iterator<Item = &'w Wanted>) -> Vec<Result<Look<'w>, No>> {
        let (authority, caller) = (self.authority, self.caller);
        let named = |want: &'w Wanted| {
            let request = want.request_id.as_ref().map(|id| OwnRequest::new(caller.id().as_str(), id, &want.digest));
            (want, request)
        };
        let all: Vec<_> = wants.map(named).collect();
        let looked = self.looked;
        let (looks, seen) = self.view.read(|state| {
            if looked {
                state.credentials.warm(all.iter().filter_map(|(_, request)| request.as_ref().map(OwnRequest::key)));
            }
            let (mut seen, mut rooms) = (false, Rooms::default());
            let look = |(want, request): (&'w Wanted, Option<OwnRequest<'w>>)| {
                if request.as_ref().is_some_and(|r| looked && state.knows_request(&r.key())) {
                    seen = true;
                    return Ok(Look::Seen);
                }
                rooms.of(want, || authority.room(state, caller, want)).map(|()| Look::New(request))
            };
            let looks: Vec<_> = all.into_iter().map(look).collect();
            (looks, seen)
        });
        if looked {
            self.lately.all_new.store(!seen, Relaxed);
        }
        looks
    }

    /// Whether one that was refused was asked before, where nobody looked yet: then it has its answer already.
    pub fn was_asked(&self, want: &Wanted) -> bool {
        let Some(id) = want.request_id.as_deref().filter(|_| !self.looked) else { return false };
        let key = request_key(self.caller.id().as_str(), id);
        let asked = self.view.read(|state| state.knows_request(&key));
        if asked {
            self.lately.all_new.store(false, Relaxed);
        }
        asked
    }

    /// What the records of each series have in common: whoever holds it to the end frees it, where the allocator has it at hand, and not the
    /// writer.
    pub fn into_molds(self) -> Vec<Arc<Mold>> {
        self.molds
    }

    /// The series of a round before this one.
    fn follow(&mut self, want: &Wanted) -> Option<(Alike<'a>, Rc<Making>)> {
        let Kept { decision, series } = self.lately.find(want, |one| one.holds(self.view, self.compiled, self.caller))?;
        self.molds.push(series.mold().clone());
        Some((Alike::Lasting(decision), Making::of(series)?))
    }

    fn begin(&mut self, want: &'a Wanted) -> Result<Option<(Alike<'a>, Rc<Making>)>, No> {
        let authority = self.authority;
        let shared = authority.decider.shared(self.view, self.compiled, self.caller, want)?;
        let Some(shared) = shared.filter(|shared| made_here(shared.grants().kind())) else { return Ok(None) };
        let series = Arc::new(Series::new(shared.grants().clone(), &authority.keyring)?);
        self.molds.push(series.mold().clone());
        let alike = shared.lasting(self.view, self.compiled, self.caller);
        if let Alike::Lasting(decision) = &alike {
            self.lately.keep(Kept { decision: decision.clone(), series: series.clone() });
        }
        Ok(Making::of(series).map(|making| (alike, making)))
    }
}
