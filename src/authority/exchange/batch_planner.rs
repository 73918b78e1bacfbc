//! Batches: exchanges that were begun at once. Those that differ only in request-specific fields share one decision and one record
//! template.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;

use super::{Granted, lost_to_concurrent_repeat, made_here, trace_attributes};
use crate::authority::Authority;
use mayfly_base::limits;
use mayfly_base::refusal::Error;
use mayfly_credential::batch::{BatchSigner, SigningSession, UnsignedCredential};
use mayfly_identity::caller::Caller;
use mayfly_ledger::View;
use mayfly_ledger::commit::EncodedRecord;
use mayfly_ledger::state::request_key;
use mayfly_ledger::writer::template::{IssuanceRequest, RecordTemplate};
use mayfly_policy::catalog::CompiledCatalog;
use mayfly_policy::decide::{BatchDecision, ReusableDecision, SharedDecision};
use mayfly_policy::exchange_request::{ExchangeRequest, TaskChoice};

/// The decision cache of one connection, which recent batches leave for the following ones. It can be dropped at any time without losing
/// more than time.
#[derive(Default)]
pub struct DecisionCache {
    decided: Mutex<Vec<CachedDecision>>,
    /// The last batch contained no repeats. While this is set, the state is not searched for request ids first: that costs cache misses,
    /// and the fold checks them in any case. A new connection starts with the search, since a caller repeats requests after losing a
    /// connection.
    all_new: AtomicBool,
}

#[derive(Clone)]
struct CachedDecision {
    decision: Arc<ReusableDecision>,
    series: Arc<BatchSigner>,
}

impl DecisionCache {
    /// A cached decision that applies to this request and is still in effect. One that is not is dropped.
    fn find(&self, want: &ExchangeRequest, holds: impl Fn(&ReusableDecision) -> bool) -> Option<CachedDecision> {
        let found = self.decided.lock().iter().find(|kept| kept.decision.serves(want)).cloned()?;
        // Evaluated outside of the lock, since it reads the state.
        if holds(&found.decision) {
            return Some(found);
        }
        self.decided.lock().retain(|kept| !Arc::ptr_eq(&kept.decision, &found.decision));
        None
    }

    fn keep(&self, kept: CachedDecision) {
        let mut all = self.decided.lock();
        // A concurrent batch may have cached the same decision.
        all.truncate(limits::SERIES_KEPT - 1);
        all.insert(0, kept);
    }

    /// Takes note of a refusal: if the fold found a repeat, the next batches search for repeats first.
    pub fn refused(&self, no: &Error) {
        if lost_to_concurrent_repeat(no, false) {
            self.all_new.store(false, Relaxed);
        }
    }
}

/// The exchanges of one batch: one caller, one view.
pub(super) struct BatchPlanner<'a> {
    authority: &'a Authority,
    view: &'a View,
    compiled: &'a Arc<CompiledCatalog>,
    caller: &'a Caller,
    lately: &'a DecisionCache,
    /// The shared decision used last.
    series: Option<(SharedDecision<'a>, Rc<SigningSession>)>,
    /// The record templates of all shared decisions.
    templates: Vec<Arc<RecordTemplate>>,
    /// Repeats were searched for before deciding.
    looked: bool,
}

/// The result of looking a request up in the state.
pub(super) enum RequestLookup<'a> {
    /// The request is a repeat.
    Seen,
    /// The request is new.
    New(Option<IssuanceRequest<'a>>),
}

/// The result of one exchange.
#[allow(clippy::large_enum_variant, reason = "a single exchange comes to one; a box would cost it an allocation")]
pub(super) enum PlannedGrant {
    /// The exchange shares a decision, and its record is in the [`UnsignedBatch`].
    Series,
    /// The exchange was decided and made individually.
    Alone(Granted),
}

/// The exchanges that share decisions: their records are proposed at once, and they are signed after that.
pub(super) struct UnsignedBatch<'w> {
    pub records: Vec<EncodedRecord>,
    /// One entry per record, with the index of its exchange in the batch.
    pub unfinished: Vec<(usize, &'w ExchangeRequest, UnsignedCredential)>,
}

impl UnsignedBatch<'_> {
    pub fn with_room(count: usize) -> Self {
        UnsignedBatch { records: Vec::with_capacity(count), unfinished: Vec::with_capacity(count) }
    }
}

/// How many following requests are searched for one that could share a decision. The requests of one task mostly follow each other.
const AHEAD: usize = 4;

/// Whether the ceilings leave room; the answer is the same for all requests with the same combination of request id and inline task.
#[derive(Default)]
struct CeilingChecks([Option<Result<(), Error>>; 4]);

impl CeilingChecks {
    fn of(&mut self, want: &ExchangeRequest, ask: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
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

impl<'a> BatchPlanner<'a> {
    pub fn new(
        authority: &'a Authority,
        view: &'a View,
        compiled: &'a Arc<CompiledCatalog>,
        caller: &'a Caller,
        lately: &'a DecisionCache,
    ) -> BatchPlanner<'a> {
        BatchPlanner {
            authority,
            view,
            compiled,
            caller,
            lately,
            series: None,
            templates: Vec::new(),
            looked: !lately.all_new.load(Relaxed),
        }
    }

    /// Decides one exchange and, for a kind that mayfly makes, makes the credential and its records; for a shared decision, everything
    /// before the signature. `rest`: the following requests. `place`: the index in the batch.
    pub fn grant<'w>(
        &mut self,
        (place, want): (usize, &'a ExchangeRequest),
        request: Option<IssuanceRequest<'a>>,
        mut rest: impl Iterator<Item = &'w ExchangeRequest>,
        out: &mut UnsignedBatch<'a>,
    ) -> Result<PlannedGrant, Error> {
        let (authority, caller) = (self.authority, self.caller);
        let fits = |series: &(SharedDecision<'a>, Rc<SigningSession>)| series.0.serves(want);
        if !self.series.as_ref().is_some_and(fits) {
            if let Some(series) = self.follow(want) {
                self.series = Some(series);
            } else if rest.by_ref().take(AHEAD).any(|other| BatchDecision::possible(want, other)) {
                // A request that cannot share a decision is refused below like any other.
                self.series = self.begin(want)?;
            }
        }
        if let Some((shared, series)) = self.series.as_ref().filter(|series| fits(series)) {
            let mut part = want.traced.span("decide");
            if let Some(own) = part.of(shared.grant(&authority.decider, caller, want, request))? {
                part.note(|| trace_attributes::decided(shared.grants().parts()));
                drop(part);
                let id = authority.new_credential_id(request.map(|r| r.key()));
                let (record, unfinished) = series.next(own, id, &authority.status, self.view.now())?;
                out.records.push(record);
                out.unfinished.push((place, want, unfinished));
                return Ok(PlannedGrant::Series);
            }
        }
        authority.make(self.view, self.compiled, caller, want).map(PlannedGrant::Alone)
    }

    /// Searches the state for repeats and checks the ceilings, in one read: the entries are in no CPU cache, and searching for all of them
    /// at once makes the cache misses overlap. After a batch without repeats, the fold alone searches for them.
    pub fn look<'w>(&self, wants: impl Iterator<Item = &'w ExchangeRequest>) -> Vec<Result<RequestLookup<'w>, Error>> {
        let (authority, caller) = (self.authority, self.caller);
        let named = |want: &'w ExchangeRequest| {
            let request = want.request_id.as_ref().map(|id| IssuanceRequest::new(caller.id().as_str(), id, &want.digest));
            (want, request)
        };
        let all: Vec<_> = wants.map(named).collect();
        let looked = self.looked;
        let (looks, seen) = self.view.read(|state| {
            if looked {
                state.credentials.warm(all.iter().filter_map(|(_, request)| request.as_ref().map(IssuanceRequest::key)));
            }
            let (mut seen, mut rooms) = (false, CeilingChecks::default());
            let look = |(want, request): (&'w ExchangeRequest, Option<IssuanceRequest<'w>>)| {
                if request.as_ref().is_some_and(|r| looked && state.knows_request(&r.key())) {
                    seen = true;
                    return Ok(RequestLookup::Seen);
                }
                rooms.of(want, || authority.room(state, caller, want)).map(|()| RequestLookup::New(request))
            };
            let looks: Vec<_> = all.into_iter().map(look).collect();
            (looks, seen)
        });
        if looked {
            self.lately.all_new.store(!seen, Relaxed);
        }
        looks
    }

    /// Whether a refused request is a repeat, if repeats were not searched for before: a repeat is answered with its earlier result.
    pub fn was_asked(&self, want: &ExchangeRequest) -> bool {
        let Some(id) = want.request_id.as_deref().filter(|_| !self.looked) else { return false };
        let key = request_key(self.caller.id().as_str(), id);
        let asked = self.view.read(|state| state.knows_request(&key));
        if asked {
            self.lately.all_new.store(false, Relaxed);
        }
        asked
    }

    /// The record templates of the batch. The batch keeps them until its end, so that its own thread frees them, where the allocator has
    /// their memory at hand, and not the writer.
    pub fn into_templates(self) -> Vec<Arc<RecordTemplate>> {
        self.templates
    }

    /// Continues a shared decision of an earlier batch.
    fn follow(&mut self, want: &ExchangeRequest) -> Option<(SharedDecision<'a>, Rc<SigningSession>)> {
        let CachedDecision { decision, series } =
            self.lately.find(want, |one| one.holds(self.view, self.compiled, self.caller))?;
        self.templates.push(series.template().clone());
        Some((SharedDecision::Lasting(decision), SigningSession::of(series)?))
    }

    fn begin(&mut self, want: &'a ExchangeRequest) -> Result<Option<(SharedDecision<'a>, Rc<SigningSession>)>, Error> {
        let authority = self.authority;
        let shared = authority.decider.shared(self.view, self.compiled, self.caller, want)?;
        let Some(shared) = shared.filter(|shared| made_here(shared.grants().kind())) else { return Ok(None) };
        let series = Arc::new(BatchSigner::new(shared.grants().clone(), &authority.keyring)?);
        self.templates.push(series.template().clone());
        let alike = shared.lasting(self.view, self.compiled, self.caller);
        if let SharedDecision::Lasting(decision) = &alike {
            self.lately.keep(CachedDecision { decision: decision.clone(), series: series.clone() });
        }
        Ok(SigningSession::of(series).map(|making| (alike, making)))
    }
}
