//! The fast way to begin a batch: exchanges that differ only in request-specific fields share one decision and one record template, and all
//! of the batch are signed after their records were handed to the writer.
//!
//! In: the requests of one batch of one caller. Out: the same answers and records as from deciding each by itself, which
//! `tests/services/both_paths.rs` compares. The rest of the crate does not need this folder: a build without the feature
//! `fast` does not have it.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;

use super::steps::made_locally;
use super::{BegunExchange, ExchangeBatch, Granted, PendingExchange, trace_attributes};
use crate::authority::Authority;
use crate::people::approvals::needs_approval;
use crate::tasks::is_reuse;
use mayfly_base::limits;
use mayfly_base::refusal::Error;
use mayfly_credential::batch::{BatchSigner, SigningSession, UnsignedCredential};
use mayfly_identity::caller::Caller;
use mayfly_ledger::commit::EncodedRecord;
use mayfly_ledger::state::request_key;
use mayfly_ledger::writer::template::{IssuanceRequest, RecordTemplate};
use mayfly_ledger::{ProposalKind, View};
use mayfly_policy::catalog::CompiledCatalog;
use mayfly_policy::decide::{BatchDecision, ReusableDecision, SharedDecision};
use mayfly_policy::exchange_request::{ExchangeRequest, TaskChoice};

/// The decisions that recent batches of a connection leave for the following ones.
#[derive(Default)]
pub(super) struct CachedDecisions {
    decided: Mutex<Vec<CachedDecision>>,
    /// The last batch contained no repeats. While this is set, the state is not searched for request ids first: that costs cache misses,
    /// and the fold checks them in any case. A new connection starts with the search, since a caller repeats requests after losing a
    /// connection.
    all_new: AtomicBool,
}

#[derive(Clone)]
struct CachedDecision {
    decision: Arc<ReusableDecision>,
    signer: Arc<BatchSigner>,
}

impl CachedDecisions {
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
        if is_reuse(no) {
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
    cache: &'a CachedDecisions,
    /// The shared decision used last.
    shared: Option<(SharedDecision<'a>, Rc<SigningSession>)>,
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
    Shared,
    /// The exchange was decided and made individually.
    Single(Granted),
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

impl Authority {
    /// Begins a batch of one caller: all exchanges are decided on one view and proposed at once. `cache`: the decision cache of the
    /// connection.
    pub(super) fn begin_batch<'a>(
        &self,
        caller: &Caller,
        wants: impl Iterator<Item = &'a ExchangeRequest> + Clone,
        cache: &CachedDecisions,
    ) -> ExchangeBatch {
        let count = wants.clone().count();
        let minting = self.ledger.minting(count);
        let (mut ready, mut begun) = (Vec::new(), Vec::with_capacity(count));
        let mut unsigned = UnsignedBatch::with_room(count);
        let stands = self.still_stands(caller);
        let view = self.ledger.view();
        let compiled = self.catalog.now();
        let mut planner = BatchPlanner::new(self, &view, &compiled, caller, cache);
        let mut rest = wants.clone();
        let looks = planner.look(wants.clone());
        for (want, look) in wants.zip(looks) {
            rest.next();
            let granted = stands.clone().and(look).and_then(|look| match look {
                RequestLookup::Seen => Ok(None),
                RequestLookup::New(_) if want.sent_token().is_some() => Ok(None),
                RequestLookup::New(request) => planner.grant((begun.len(), want), request, rest.clone(), &mut unsigned).map(Some),
            });
            // A repeat gets its earlier answer, whatever the decision is now.
            let granted = granted.or_else(|no| if stands.is_ok() && planner.was_asked(want) { Ok(None) } else { Err(no) });
            begun.push(match granted {
                Ok(Some(PlannedGrant::Single(Granted::Local(its, one)))) => {
                    ready.push(its);
                    Ok(BegunExchange::UnderWay(one))
                }
                Ok(Some(PlannedGrant::Shared)) => Ok(BegunExchange::UnderWay(PendingExchange { minted: None, proposed: None })),
                Ok(None | Some(PlannedGrant::Single(Granted::Upstream(_)))) => Ok(BegunExchange::Waits),
                Err(no) if needs_approval(&no) => Ok(BegunExchange::Waits),
                Err(no) => Err(no),
            });
        }
        let templates = planner.into_templates();
        let (shared, proposed) = self.ledger.ready_each(ProposalKind::Grant, unsigned.records);
        ready.extend(shared);
        let mut all = |with: &dyn Fn() -> Result<BegunExchange, Error>| {
            begun.iter_mut().filter(|one| matches!(one, Ok(BegunExchange::UnderWay(_)))).for_each(|one| *one = with());
        };
        if self.too_old(&view) {
            all(&|| Ok(BegunExchange::Waits));
        } else if let Err(no) = self.ledger.propose_ready(ready) {
            all(&|| Err(Error::Refusal(no.clone())));
        } else {
            // Signing takes most of the time and evicts all else from the core's caches, so it comes last; the writer does not wait for it.
            for (n, want, one) in unsigned.unfinished {
                if let Some(Ok(BegunExchange::UnderWay(under_way))) = begun.get_mut(n) {
                    under_way.minted = Some(want.traced.span("mint").of(one.finish()));
                }
            }
        }
        let mut batch = ExchangeBatch::new(begun, proposed, minting);
        batch._templates = templates;
        batch
    }
}

impl<'a> BatchPlanner<'a> {
    pub fn new(
        authority: &'a Authority,
        view: &'a View,
        compiled: &'a Arc<CompiledCatalog>,
        caller: &'a Caller,
        cache: &'a CachedDecisions,
    ) -> BatchPlanner<'a> {
        BatchPlanner {
            authority,
            view,
            compiled,
            caller,
            cache,
            shared: None,
            templates: Vec::new(),
            looked: !cache.all_new.load(Relaxed),
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
        let fits = |shared: &(SharedDecision<'a>, Rc<SigningSession>)| shared.0.serves(want);
        if !self.shared.as_ref().is_some_and(fits) {
            if let Some(shared) = self.follow(want) {
                self.shared = Some(shared);
            } else if rest.by_ref().take(AHEAD).any(|other| BatchDecision::possible(want, other)) {
                // A request that cannot share a decision is refused below like any other.
                self.shared = self.begin(want)?;
            }
        }
        if let Some((shared, session)) = self.shared.as_ref().filter(|shared| fits(shared)) {
            let mut part = want.traced.span("decide");
            if let Some(own) = part.of(shared.grant(&authority.decider, caller, want, request))? {
                part.note(|| trace_attributes::decided(shared.grants().parts()));
                drop(part);
                let id = authority.new_credential_id(request.map(|r| r.key()));
                let (record, unfinished) = session.next(own, id, &authority.status, self.view.now())?;
                out.records.push(record);
                out.unfinished.push((place, want, unfinished));
                return Ok(PlannedGrant::Shared);
            }
        }
        authority.make(self.view, self.compiled, caller, want).map(PlannedGrant::Single)
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
            self.cache.all_new.store(!seen, Relaxed);
        }
        looks
    }

    /// Whether a refused request is a repeat, if repeats were not searched for before: a repeat is answered with its earlier result.
    pub fn was_asked(&self, want: &ExchangeRequest) -> bool {
        let Some(id) = want.request_id.as_deref().filter(|_| !self.looked) else { return false };
        let key = request_key(self.caller.id().as_str(), id);
        let asked = self.view.read(|state| state.knows_request(&key));
        if asked {
            self.cache.all_new.store(false, Relaxed);
        }
        asked
    }

    /// The record templates of the batch. The batch keeps them until its end, so that its own thread frees them: freeing memory is
    /// cheap on the thread that allocated it, and the writer is spared the work.
    pub fn into_templates(self) -> Vec<Arc<RecordTemplate>> {
        self.templates
    }

    /// Continues a shared decision of an earlier batch.
    fn follow(&mut self, want: &ExchangeRequest) -> Option<(SharedDecision<'a>, Rc<SigningSession>)> {
        let CachedDecision { decision, signer } =
            self.cache.find(want, |one| one.holds(self.view, self.compiled, self.caller))?;
        self.templates.push(signer.template().clone());
        Some((SharedDecision::Lasting(decision), SigningSession::of(signer)?))
    }

    fn begin(&mut self, want: &'a ExchangeRequest) -> Result<Option<(SharedDecision<'a>, Rc<SigningSession>)>, Error> {
        let authority = self.authority;
        let shared = authority.decider.shared(self.view, self.compiled, self.caller, want)?;
        let Some(shared) = shared.filter(|shared| made_locally(shared.grants().kind())) else { return Ok(None) };
        let signer = Arc::new(BatchSigner::new(shared.grants().clone(), &authority.keyring)?);
        self.templates.push(signer.template().clone());
        let alike = shared.lasting(self.view, self.compiled, self.caller);
        if let SharedDecision::Lasting(decision) = &alike {
            self.cache.keep(CachedDecision { decision: decision.clone(), signer: signer.clone() });
        }
        Ok(SigningSession::of(signer).map(|session| (alike, session)))
    }
}
