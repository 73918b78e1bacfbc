//! The exchange: one workload, one task, one upstream, one credential.
//!
//! Credentials that mayfly makes itself and credentials that an upstream makes go the same way; the grant's kind tells which it is. The
//! latter are made under a lease ([`upstream::lease`](mayfly_credential::lease)).

pub mod authorize;
pub mod batch;
mod batch_planner;
pub mod introspect;
pub mod lookup;
mod renew;
mod repeat;
pub mod subjects;
pub mod trace_attributes;

use std::sync::Arc;
use std::time::Duration;

use crate::authority::Authority;
use crate::people::approvals::needs_approval;
use mayfly_credential::kind::{CredentialKind, mint_local};
use mayfly_credential::{IssuedCredential, MintedCredential};
use mayfly_identity::caller::Caller;
use mayfly_ledger::writer::template::RecordTemplate;

pub use batch_planner::DecisionCache;
use batch_planner::{BatchPlanner, PlannedGrant, RequestLookup, UnsignedBatch};
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_base::trace::CallTrace;
use mayfly_ledger::state::request_key;
use mayfly_ledger::{
    InFlightGuard, PendingReceipt, PendingReceipts, PreparedProposal, ProposalKind, Receipt, State, View, stopping,
};
use mayfly_policy::catalog::CompiledCatalog;
use mayfly_policy::decide::decided_on_stale_state;
use mayfly_policy::exchange_request::{ExchangeRequest, TaskChoice};
use mayfly_policy::grant::Grant;
use repeat::RepeatOutcome;

/// The result of a permitted decision.
#[allow(clippy::large_enum_variant, reason = "nearly all are made here; a box would cost each an allocation")]
enum Granted {
    /// The credential is made by mayfly, and its records are ready to be proposed.
    Here(PreparedProposal, PendingExchange),
    /// The credential has to be made at its upstream.
    Elsewhere(Box<Grant>),
}

/// A credential made by mayfly whose records are proposed to the ledger. It must not be revealed before the ledger's answer.
pub struct PendingExchange {
    /// The credential; `None` until it is signed.
    minted: Option<Result<MintedCredential, Error>>,
    /// The ledger's pending answer; `None` if it comes with those of the batch.
    proposed: Option<PendingReceipt>,
}

/// The result of the part of an exchange that does not wait.
#[allow(clippy::large_enum_variant, reason = "nearly all are under way; a box would cost each an allocation")]
pub enum BegunExchange {
    /// Only the ledger's answer is missing.
    UnderWay(PendingExchange),
    /// [`Authority::exchange_unless`] has to complete the exchange: a repeat, a kind that its upstream makes, or a decision that took too
    /// long.
    Waits,
}

/// A batch: several exchanges of one caller that were begun at once and are independent of each other.
pub struct ExchangeBatch {
    /// The exchanges, in the order of the requests.
    pub begun: Vec<Result<BegunExchange, Error>>,
    proposed: PendingReceipts,
    /// Counts the exchanges as in progress until all are answered.
    _minting: InFlightGuard,
    _templates: Vec<Arc<RecordTemplate>>,
}

/// The ledger's answers to the proposals of a batch.
#[derive(Default)]
pub struct BatchReceipts(std::vec::IntoIter<Result<Receipt, Error>>);

impl PendingExchange {
    /// Whether the ledger's answer is among those of the batch.
    pub fn in_round(&self) -> bool {
        self.proposed.is_none()
    }

    /// The result of the exchange, given the ledger's answer.
    pub fn reveal(self, receipt: Result<Receipt, Error>) -> Result<IssuedCredential, Error> {
        let receipt = receipt?;
        let minted = self.minted.unwrap_or_else(|| Err(Fault::new("a credential that nobody finished").into()))?;
        Ok(minted.reveal(receipt)?)
    }
}

impl BatchReceipts {
    /// The next answer, in the order of the batch.
    pub fn take_next(&mut self) -> Result<Receipt, Error> {
        self.0.next().unwrap_or_else(|| Err(Error::Refusal(stopping())))
    }
}

/// The attempts to decide. A decision that a concurrent change made void is repeated before the caller is told to try again: at the second
/// attempt the change may be written but not yet compiled into the state that decisions use.
const TRIES: usize = 3;

impl Authority {
    /// Issues one credential, or answers a repeat with the credential issued before.
    pub async fn exchange(&self, caller: &Caller, want: &ExchangeRequest) -> Result<IssuedCredential, Error> {
        self.exchange_unless(caller, want, std::future::pending).await
    }

    /// Like [`Authority::exchange`], for a caller that may go away: when `gone` completes, a credential being made at an upstream is
    /// removed there. Dropping the future has the same effect.
    pub async fn exchange_unless<F: Future<Output = ()> + Send>(
        &self,
        caller: &Caller,
        want: &ExchangeRequest,
        gone: impl Fn() -> F,
    ) -> Result<IssuedCredential, Error> {
        let under_way = self.ledger.minting(1);
        match self.begin(caller, want)? {
            BegunExchange::UnderWay(one) => match self.finish(one).await {
                Err(no) if should_retry(&no, false) => self.ledger.settled(|_| ()).await?,
                answer => return answer,
            },
            BegunExchange::Waits => {}
        }
        drop(under_way); // no commit waits for an upstream
        Box::pin(self.exchange_slowly(caller, want, gone)).await
    }

    /// The part of an exchange that does not wait: decides, makes and proposes. Its temporary state is dropped at the end.
    fn begin(&self, caller: &Caller, want: &ExchangeRequest) -> Result<BegunExchange, Error> {
        self.still_stands(caller)?;
        if want.sent_token().is_some() {
            return Ok(BegunExchange::Waits); // the keys of its issuer may have to be fetched
        }
        let view = self.ledger.view(); // everything up to sequence number r
        match self.grant(&view, &self.catalog.now(), caller, want) {
            Ok(Some(Granted::Here(ready, one))) if !self.too_old(&view) => {
                self.ledger.propose_ready(vec![ready])?;
                Ok(BegunExchange::UnderWay(one))
            }
            Err(no) if !needs_approval(&no) => Err(no),
            _ => Ok(BegunExchange::Waits),
        }
    }

    /// Begins a batch of one caller: all exchanges are decided on one view and proposed at once. `lately`: the decision cache of the
    /// connection.
    pub fn begin_all<'a>(
        &self,
        caller: &Caller,
        wants: impl Iterator<Item = &'a ExchangeRequest> + Clone,
        lately: &DecisionCache,
    ) -> ExchangeBatch {
        let count = wants.clone().count();
        let minting = self.ledger.minting(count);
        let (mut ready, mut begun) = (Vec::new(), Vec::with_capacity(count));
        let mut in_series = UnsignedBatch::with_room(count);
        let stands = self.still_stands(caller);
        let view = self.ledger.view();
        let compiled = self.catalog.now();
        let mut together = BatchPlanner::new(self, &view, &compiled, caller, lately);
        let mut rest = wants.clone();
        let looks = together.look(wants.clone());
        for (want, look) in wants.zip(looks) {
            rest.next();
            let granted = stands.clone().and(look).and_then(|look| match look {
                RequestLookup::Seen => Ok(None),
                RequestLookup::New(_) if want.sent_token().is_some() => Ok(None),
                RequestLookup::New(request) => {
                    together.grant((begun.len(), want), request, rest.clone(), &mut in_series).map(Some)
                }
            });
            // A repeat gets its earlier answer, whatever the decision is now.
            let granted = granted.or_else(|no| if stands.is_ok() && together.was_asked(want) { Ok(None) } else { Err(no) });
            begun.push(match granted {
                Ok(Some(PlannedGrant::Alone(Granted::Here(its, one)))) => {
                    ready.push(its);
                    Ok(BegunExchange::UnderWay(one))
                }
                Ok(Some(PlannedGrant::Series)) => Ok(BegunExchange::UnderWay(PendingExchange { minted: None, proposed: None })),
                Ok(None | Some(PlannedGrant::Alone(Granted::Elsewhere(_)))) => Ok(BegunExchange::Waits),
                Err(no) if needs_approval(&no) => Ok(BegunExchange::Waits),
                Err(no) => Err(no),
            });
        }
        let templates = together.into_templates();
        let (series, proposed) = self.ledger.ready_each(ProposalKind::Grant, in_series.records);
        ready.extend(series);
        let mut all = |with: &dyn Fn() -> Result<BegunExchange, Error>| {
            begun.iter_mut().filter(|one| matches!(one, Ok(BegunExchange::UnderWay(_)))).for_each(|one| *one = with());
        };
        if self.too_old(&view) {
            all(&|| Ok(BegunExchange::Waits));
        } else if let Err(no) = self.ledger.propose_ready(ready) {
            all(&|| Err(Error::Refusal(no.clone())));
        } else {
            // Signing takes most of the time and evicts all else from the core's caches, so it comes last; the writer does not wait for it.
            for (n, want, one) in in_series.unfinished {
                if let Some(Ok(BegunExchange::UnderWay(under_way))) = begun.get_mut(n) {
                    under_way.minted = Some(want.traced.span("mint").of(one.finish()));
                }
            }
        }
        ExchangeBatch { begun, proposed, _minting: minting, _templates: templates }
    }

    /// Whether deciding took so long that the decision has to be repeated.
    fn too_old(&self, view: &View) -> bool {
        self.system.wall().since(view.now()) > self.bounds.load().view_max_age_ms
    }

    /// The answer of an exchange, once its records are in order, durable, and found valid by the fold.
    async fn finish(&self, one: PendingExchange) -> Result<IssuedCredential, Error> {
        self.finish_of(one, &mut BatchReceipts::default()).await
    }

    /// The answer of one exchange of a batch, given the batch's answers. Must be called in the order of the batch.
    pub async fn finish_of(&self, mut one: PendingExchange, answers: &mut BatchReceipts) -> Result<IssuedCredential, Error> {
        let receipt = match one.proposed.take() {
            Some(own) => self.ledger.receipt(own).await,
            None => answers.take_next(),
        };
        one.reveal(receipt)
    }

    /// Waits for the ledger's answers to a batch.
    pub async fn answers(&self, round: &mut ExchangeBatch) -> BatchReceipts {
        BatchReceipts(self.ledger.receipts(std::mem::take(&mut round.proposed)).await.into_iter())
    }

    /// Whether a refusal is not final, so that [`Authority::exchange_unless`] decides again.
    pub fn takes_another_look(no: &Error) -> bool {
        should_retry(no, false)
    }

    async fn exchange_slowly<F: Future<Output = ()> + Send>(
        &self,
        caller: &Caller,
        want: &ExchangeRequest,
        gone: impl Fn() -> F,
    ) -> Result<IssuedCredential, Error> {
        let mut waited = false;
        for again in 1.. {
            self.still_stands(caller)?;
            let mut view = self.ledger.view();
            let mut instead = None;
            if let Some(seen) = self.seen(&view, caller, want)? {
                match self.again(seen, caller, want).await {
                    Ok(RepeatOutcome::Same(made)) => return Ok(made), // same request, same credential
                    Ok(RepeatOutcome::Replace(replacing)) => {
                        view = self.ledger.view(); // the upstream was asked, which takes time
                        instead = Some(replacing);
                    }
                    Ok(RepeatOutcome::Nothing) => {}
                    Err(no) if again < TRIES && decided_on_stale_state(&no) => continue,
                    Err(no) => return Err(no),
                }
            }
            let want = instead.as_deref().unwrap_or(want);
            let known = self.on_behalf(caller, want).await?;
            if known.is_some() {
                view = self.ledger.view(); // the token's issuer may have been asked, which takes time
            }
            let want = known.as_ref().unwrap_or(want);
            let under_way = self.ledger.minting(1);
            let granted = match self.grant_unseen(&view, &self.catalog.now(), caller, want) {
                Err(no) if needs_approval(&no) && want.renews.is_none() => {
                    drop(under_way); // no commit waits for people
                    self.approved(&view, (caller, want), no, &mut waited).await?;
                    continue;
                }
                granted => granted?,
            };
            if self.too_old(&view) {
                if again < TRIES { continue } else { return Err(late()) }
            }
            let one = match granted {
                Granted::Here(ready, one) => {
                    self.ledger.propose_ready(vec![ready])?;
                    one
                }
                Granted::Elsewhere(grant) => {
                    drop(under_way); // no commit waits for an upstream
                    let mut minted = self.mint_elsewhere(*grant, gone()).await?;
                    let proposed = self.ledger.propose(ProposalKind::Grant, minted.records())?;
                    PendingExchange { minted: Some(Ok(minted)), proposed: Some(proposed) }
                }
            };
            match self.finish(one).await {
                Err(no) if again < TRIES && should_retry(&no, want.replaces.is_some()) => self.ledger.settled(|_| ()).await?,
                Err(no) if want.replaces.is_some() && lost_to_concurrent_repeat(&no, true) => return Err(beaten()),
                answer => return answer,
            }
        }
        Err(Error::Fault(Fault::new("exchange: tries ran out")))
    }

    /// Decides and, for a kind that mayfly makes, makes the credential and its records. Does not wait. `None`: a repeat.
    fn grant(
        &self,
        view: &View,
        compiled: &CompiledCatalog,
        caller: &Caller,
        want: &ExchangeRequest,
    ) -> Result<Option<Granted>, Error> {
        let key = want.request_id.as_ref().map(|id| request_key(caller.id().as_str(), id));
        let seen = view.read(|state| match key.filter(|key| state.knows_request(key)) {
            Some(_) => Ok(true),
            None => self.room(state, caller, want).map(|()| false),
        });
        if seen? { Ok(None) } else { self.make(view, compiled, caller, want).map(Some) }
    }

    fn grant_unseen(
        &self,
        view: &View,
        compiled: &CompiledCatalog,
        caller: &Caller,
        want: &ExchangeRequest,
    ) -> Result<Granted, Error> {
        view.read(|state| self.room(state, caller, want))?;
        self.make(view, compiled, caller, want)
    }

    fn make(&self, view: &View, compiled: &CompiledCatalog, caller: &Caller, want: &ExchangeRequest) -> Result<Granted, Error> {
        let grant = self.decide(view, compiled, caller, want)?; // a refusal names the rule and the way out
        if !made_here(grant.kind()) {
            return Ok(Granted::Elsewhere(Box::new(grant)));
        }
        let minted = want.traced.span("mint").of(self.mint_here(grant, view));
        let mut minted = minted?; // must not be revealed yet
        let (ready, proposed) = self.ledger.ready_for(ProposalKind::Grant, minted.records(), want.traced.id())?;
        Ok(Granted::Here(ready, PendingExchange { minted: Some(Ok(minted)), proposed: Some(proposed) }))
    }

    /// Checks that the configured ceilings leave room, so that nothing is signed in vain. The writer's verdict is authoritative.
    fn room(&self, state: &State, caller: &Caller, want: &ExchangeRequest) -> Result<(), Error> {
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

    fn decide(&self, view: &View, compiled: &CompiledCatalog, caller: &Caller, want: &ExchangeRequest) -> Result<Grant, Error> {
        let mut part = want.traced.span("decide");
        let grant = part.of(self.decider.exchange(view, compiled, caller, want, || self.system.id16()))?;
        part.note(|| trace_attributes::decided(grant.parts()));
        Ok(grant)
    }

    fn mint_here(&self, grant: Grant, view: &View) -> Result<MintedCredential, Error> {
        let group = self.ledger.new_group();
        let id = self.new_credential_id(grant.request_key());
        mint_local(grant, id, group, &self.keyring, &self.status, view.now())
    }

    /// Makes the credential at its upstream, under a lease; it must not be revealed yet. Dropping it removes it at the upstream.
    async fn mint_elsewhere(&self, grant: Grant, gone: impl Future<Output = ()>) -> Result<MintedCredential, Error> {
        let mut part = CallTrace::part("upstream").of_another();
        part.note(|| trace_attributes::upstream(grant.parts()));
        let minted = tokio::select! {
            minted = self.leases.mint(grant, self.ledger.new_group()) => minted,
            () = gone => Err(Error::Refusal(Refusal::new(Reason::NotReady, "the caller went away while it was made"))),
        };
        part.of(minted)
    }

    /// Checks that this server makes the granted kind at upstreams.
    fn makes(&self, grant: &Grant) -> Result<(), Error> {
        let kind =
            CredentialKind::from_number(grant.kind()).ok_or_else(|| Fault::new("a grant of an unknown credential kind"))?;
        self.leases.maker(kind).map(|_| ()).map_err(Error::Refusal)
    }
}

/// An unknown kind is left to `mint_local`, which returns the error.
fn made_here(kind: u32) -> bool {
    CredentialKind::from_number(kind).is_none_or(CredentialKind::made_here)
}

fn late() -> Error {
    let no = Refusal::new(Reason::DecidedOnOldState, "deciding took longer than a view may be old");
    Error::Refusal(no.retry(Duration::from_secs(1)))
}

fn reused(request_id: &str) -> Error {
    Error::Refusal(
        Refusal::new(Reason::RequestIdReused, format!("request_id {request_id:?} was used before for another request"))
            .way_out("a new request takes a new request_id"),
    )
}

/// The refusal of a repeat that lost against a concurrent repeat of the same request. The caller did nothing wrong and may try again.
fn beaten() -> Error {
    let no = Refusal::new(Reason::DecidedOnOldState, "the same request was sent more than once at a time, and another was first");
    Error::Refusal(no.retry(Duration::from_millis(100)))
}

/// Whether a concurrent call with the same request was first: the request id is bound, or the credential to be replaced is gone.
fn lost_to_concurrent_repeat(no: &Error, replaces: bool) -> bool {
    matches!(no, Error::Refusal(r) if r.reason == Reason::RequestIdReused || (replaces && r.reason == Reason::CredentialNotActive))
}

/// Whether another attempt gives the answer: the decision used a version that is no longer in effect, or a concurrent call with the same
/// request was first.
fn should_retry(no: &Error, replaces: bool) -> bool {
    decided_on_stale_state(no) || lost_to_concurrent_repeat(no, replaces)
}
