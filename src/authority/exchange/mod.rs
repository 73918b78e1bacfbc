//! The exchange: one workload, one task, one upstream, one credential.
//!
//! Credentials that mayfly makes itself and credentials that an upstream makes go the same way; the grant's kind tells which it is. The
//! latter are made under a lease ([`upstream::lease`](mayfly_credential::lease)).

mod again;
pub mod authorize;
pub mod batch;
pub mod introspect;
pub mod lookup;
mod renew;
pub mod subjects;
mod together;
pub mod told;

use std::sync::Arc;
use std::time::Duration;

use crate::authority::Authority;
use crate::people::approvals::needs_approval;
use mayfly_credential::kind::{Kind, mint_local};
use mayfly_credential::{Issued, Minted};
use mayfly_identity::caller::Caller;
use mayfly_ledger::mold::Mold;

use again::Before;
use mayfly_base::refusal::{Fault, No, Reason, Refusal};
use mayfly_base::trace::Traced;
use mayfly_ledger::state::request_key;
use mayfly_ledger::{Lane, Minting, Proposed, ProposedEach, Ready, Receipt, State, View, stopping};
use mayfly_policy::catalog::Compiled;
use mayfly_policy::decide::decided_on_old_state;
use mayfly_policy::grant::Grant;
use mayfly_policy::wanted::{TaskChoice, Wanted};
pub use together::Lately;
use together::{InSeries, Look, Made, Together};

/// The result of a permitted decision.
#[allow(clippy::large_enum_variant, reason = "nearly all are made here; a box would cost each an allocation")]
enum Granted {
    /// The credential is made by mayfly, and its records are ready to be proposed.
    Here(Ready, UnderWay),
    /// The credential has to be made at its upstream.
    Elsewhere(Box<Grant>),
}

/// A credential made by mayfly whose records are proposed to the ledger. It must not be revealed before the ledger's answer.
pub struct UnderWay {
    /// The credential; `None` until it is signed.
    minted: Option<Result<Minted, No>>,
    /// The ledger's pending answer; `None` if it comes with those of the batch.
    proposed: Option<Proposed>,
}

/// The result of the part of an exchange that does not wait.
#[allow(clippy::large_enum_variant, reason = "nearly all are under way; a box would cost each an allocation")]
pub enum Begun {
    /// Only the ledger's answer is missing.
    UnderWay(UnderWay),
    /// [`Authority::exchange_unless`] has to complete the exchange: a repeat, a kind that its upstream makes, or a decision that took too
    /// long.
    Waits,
}

/// A batch: several exchanges of one caller that were begun at once and are independent of each other.
pub struct Round {
    /// The exchanges, in the order of the requests.
    pub begun: Vec<Result<Begun, No>>,
    proposed: ProposedEach,
    /// Counts the exchanges as in progress until all are answered.
    _minting: Minting,
    _molds: Vec<Arc<Mold>>,
}

/// The ledger's answers to the proposals of a batch.
#[derive(Default)]
pub struct Answers(std::vec::IntoIter<Result<Receipt, No>>);

impl UnderWay {
    /// Whether the ledger's answer is among those of the batch.
    pub fn in_round(&self) -> bool {
        self.proposed.is_none()
    }

    /// The result of the exchange, given the ledger's answer.
    pub fn reveal(self, receipt: Result<Receipt, No>) -> Result<Issued, No> {
        let receipt = receipt?;
        let minted = self.minted.unwrap_or_else(|| Err(Fault::new("a credential that nobody finished").into()))?;
        Ok(minted.reveal(receipt)?)
    }
}

impl Answers {
    /// The next answer, in the order of the batch.
    pub fn take_next(&mut self) -> Result<Receipt, No> {
        self.0.next().unwrap_or_else(|| Err(No::Refusal(stopping())))
    }
}

/// The attempts to decide. A decision that a concurrent change made void is repeated before the caller is told to try again: at the second
/// attempt the change may be written but not yet compiled into the state that decisions use.
const TRIES: usize = 3;

impl Authority {
    /// Issues one credential, or answers a repeat with the credential issued before.
    pub async fn exchange(&self, caller: &Caller, want: &Wanted) -> Result<Issued, No> {
        self.exchange_unless(caller, want, std::future::pending).await
    }

    /// Like [`Authority::exchange`], for a caller that may go away: when `gone` completes, a credential being made at an upstream is
    /// removed there. Dropping the future has the same effect.
    pub async fn exchange_unless<F: Future<Output = ()> + Send>(
        &self,
        caller: &Caller,
        want: &Wanted,
        gone: impl Fn() -> F,
    ) -> Result<Issued, No> {
        let under_way = self.ledger.minting(1);
        match self.begin(caller, want)? {
            Begun::UnderWay(one) => match self.finish(one).await {
                Err(no) if worth_another_try(&no, false) => self.ledger.settled(|_| ()).await?,
                answer => return answer,
            },
            Begun::Waits => {}
        }
        drop(under_way); // no commit waits for an upstream
        Box::pin(self.exchange_slowly(caller, want, gone)).await
    }

    /// The part of an exchange that does not wait: decides, makes and proposes. Its temporary state is dropped at the end.
    fn begin(&self, caller: &Caller, want: &Wanted) -> Result<Begun, No> {
        self.still_stands(caller)?;
        if want.sent_token().is_some() {
            return Ok(Begun::Waits); // the keys of its issuer may have to be fetched
        }
        let view = self.ledger.view(); // everything up to sequence number r
        match self.grant(&view, &self.catalog.now(), caller, want) {
            Ok(Some(Granted::Here(ready, one))) if !self.too_old(&view) => {
                self.ledger.propose_ready(vec![ready])?;
                Ok(Begun::UnderWay(one))
            }
            Err(no) if !needs_approval(&no) => Err(no),
            _ => Ok(Begun::Waits),
        }
    }

    /// Begins a batch of one caller: all exchanges are decided on one view and proposed at once. `lately`: the decision cache of the
    /// connection.
    pub fn begin_all<'a>(&self, caller: &Caller, wants: impl Iterator<Item = &'a Wanted> + Clone, lately: &Lately) -> Round {
        let count = wants.clone().count();
        let minting = self.ledger.minting(count);
        let (mut ready, mut begun) = (Vec::new(), Vec::with_capacity(count));
        let mut in_series = InSeries::with_room(count);
        let stands = self.still_stands(caller);
        let view = self.ledger.view();
        let compiled = self.catalog.now();
        let mut together = Together::new(self, &view, &compiled, caller, lately);
        let mut rest = wants.clone();
        let looks = together.look(wants.clone());
        for (want, look) in wants.zip(looks) {
            rest.next();
            let granted = stands.clone().and(look).and_then(|look| match look {
                Look::Seen => Ok(None),
                Look::New(_) if want.sent_token().is_some() => Ok(None),
                Look::New(request) => together.grant((begun.len(), want), request, rest.clone(), &mut in_series).map(Some),
            });
            // A repeat gets its earlier answer, whatever the decision is now.
            let granted = granted.or_else(|no| if stands.is_ok() && together.was_asked(want) { Ok(None) } else { Err(no) });
            begun.push(match granted {
                Ok(Some(Made::Alone(Granted::Here(its, one)))) => {
                    ready.push(its);
                    Ok(Begun::UnderWay(one))
                }
                Ok(Some(Made::Series)) => Ok(Begun::UnderWay(UnderWay { minted: None, proposed: None })),
                Ok(None | Some(Made::Alone(Granted::Elsewhere(_)))) => Ok(Begun::Waits),
                Err(no) if needs_approval(&no) => Ok(Begun::Waits),
                Err(no) => Err(no),
            });
        }
        let molds = together.into_molds();
        let (series, proposed) = self.ledger.ready_each(Lane::Grant, in_series.records);
        ready.extend(series);
        let mut all = |with: &dyn Fn() -> Result<Begun, No>| {
            begun.iter_mut().filter(|one| matches!(one, Ok(Begun::UnderWay(_)))).for_each(|one| *one = with());
        };
        if self.too_old(&view) {
            all(&|| Ok(Begun::Waits));
        } else if let Err(no) = self.ledger.propose_ready(ready) {
            all(&|| Err(No::Refusal(no.clone())));
        } else {
            // Signing takes most of the time and evicts all else from the core's caches, so it comes last; the writer does not wait for it.
            for (n, want, one) in in_series.unfinished {
                if let Some(Ok(Begun::UnderWay(under_way))) = begun.get_mut(n) {
                    under_way.minted = Some(want.traced.span("mint").of(one.finish()));
                }
            }
        }
        Round { begun, proposed, _minting: minting, _molds: molds }
    }

    /// Whether deciding took so long that the decision has to be repeated.
    fn too_old(&self, view: &View) -> bool {
        self.system.wall().since(view.now()) > self.bounds.load().view_max_age_ms
    }

    /// The answer of an exchange, once its records are in order, durable, and found valid by the fold.
    async fn finish(&self, one: UnderWay) -> Result<Issued, No> {
        self.finish_of(one, &mut Answers::default()).await
    }

    /// The answer of one exchange of a batch, given the batch's answers. Must be called in the order of the batch.
    pub async fn finish_of(&self, mut one: UnderWay, answers: &mut Answers) -> Result<Issued, No> {
        let receipt = match one.proposed.take() {
            Some(own) => self.ledger.receipt(own).await,
            None => answers.take_next(),
        };
        one.reveal(receipt)
    }

    /// Waits for the ledger's answers to a batch.
    pub async fn answers(&self, round: &mut Round) -> Answers {
        Answers(self.ledger.receipts(std::mem::take(&mut round.proposed)).await.into_iter())
    }

    /// Whether a refusal is not final, so that [`Authority::exchange_unless`] decides again.
    pub fn takes_another_look(no: &No) -> bool {
        worth_another_try(no, false)
    }

    async fn exchange_slowly<F: Future<Output = ()> + Send>(
        &self,
        caller: &Caller,
        want: &Wanted,
        gone: impl Fn() -> F,
    ) -> Result<Issued, No> {
        let mut waited = false;
        for again in 1.. {
            self.still_stands(caller)?;
            let mut view = self.ledger.view();
            let mut instead = None;
            if let Some(seen) = self.seen(&view, caller, want)? {
                match self.again(seen, caller, want).await {
                    Ok(Before::Same(made)) => return Ok(made), // same request, same credential
                    Ok(Before::Replace(replacing)) => {
                        view = self.ledger.view(); // the upstream was asked, which takes time
                        instead = Some(replacing);
                    }
                    Ok(Before::Nothing) => {}
                    Err(no) if again < TRIES && decided_on_old_state(&no) => continue,
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
                    let proposed = self.ledger.propose(Lane::Grant, minted.records())?;
                    UnderWay { minted: Some(Ok(minted)), proposed: Some(proposed) }
                }
            };
            match self.finish(one).await {
                Err(no) if again < TRIES && worth_another_try(&no, want.replaces.is_some()) => {
                    self.ledger.settled(|_| ()).await?
                }
                Err(no) if want.replaces.is_some() && beaten_by_a_twin(&no, true) => return Err(beaten()),
                answer => return answer,
            }
        }
        Err(No::Fault(Fault::new("exchange: tries ran out")))
    }

    /// Decides and, for a kind that mayfly makes, makes the credential and its records. Does not wait. `None`: a repeat.
    fn grant(&self, view: &View, compiled: &Compiled, caller: &Caller, want: &Wanted) -> Result<Option<Granted>, No> {
        let key = want.request_id.as_ref().map(|id| request_key(caller.id().as_str(), id));
        let seen = view.read(|state| match key.filter(|key| state.knows_request(key)) {
            Some(_) => Ok(true),
            None => self.room(state, caller, want).map(|()| false),
        });
        if seen? { Ok(None) } else { self.make(view, compiled, caller, want).map(Some) }
    }

    fn grant_unseen(&self, view: &View, compiled: &Compiled, caller: &Caller, want: &Wanted) -> Result<Granted, No> {
        view.read(|state| self.room(state, caller, want))?;
        self.make(view, compiled, caller, want)
    }

    fn make(&self, view: &View, compiled: &Compiled, caller: &Caller, want: &Wanted) -> Result<Granted, No> {
        let grant = self.decide(view, compiled, caller, want)?; // a refusal names the rule and the way out
        if !made_here(grant.kind()) {
            return Ok(Granted::Elsewhere(Box::new(grant)));
        }
        let minted = want.traced.span("mint").of(self.mint_here(grant, view));
        let mut minted = minted?; // must not be revealed yet
        let (ready, proposed) = self.ledger.ready_for(Lane::Grant, minted.records(), want.traced.id())?;
        Ok(Granted::Here(ready, UnderWay { minted: Some(Ok(minted)), proposed: Some(proposed) }))
    }

    /// Checks that the configured ceilings leave room, so that nothing is signed in vain. The writer's verdict is authoritative.
    fn room(&self, state: &State, caller: &Caller, want: &Wanted) -> Result<(), No> {
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

    fn decide(&self, view: &View, compiled: &Compiled, caller: &Caller, want: &Wanted) -> Result<Grant, No> {
        let mut part = want.traced.span("decide");
        let grant = part.of(self.decider.exchange(view, compiled, caller, want, || self.system.id16()))?;
        part.note(|| told::decided(grant.parts()));
        Ok(grant)
    }

    fn mint_here(&self, grant: Grant, view: &View) -> Result<Minted, No> {
        let group = self.ledger.new_group();
        let id = self.new_credential_id(grant.request_key());
        mint_local(grant, id, group, &self.keyring, &self.status, view.now())
    }

    /// Makes the credential at its upstream, under a lease; it must not be revealed yet. Dropping it removes it at the upstream.
    async fn mint_elsewhere(&self, grant: Grant, gone: impl Future<Output = ()>) -> Result<Minted, No> {
        let mut part = Traced::part("upstream").of_another();
        part.note(|| told::upstream(grant.parts()));
        let minted = tokio::select! {
            minted = self.leases.mint(grant, self.ledger.new_group()) => minted,
            () = gone => Err(No::Refusal(Refusal::new(Reason::NotReady, "the caller went away while it was made"))),
        };
        part.of(minted)
    }

    /// Checks that this server makes the granted kind at upstreams.
    fn makes(&self, grant: &Grant) -> Result<(), No> {
        let kind = Kind::from_number(grant.kind()).ok_or_else(|| Fault::new("a grant of an unknown credential kind"))?;
        self.leases.maker(kind).map(|_| ()).map_err(No::Refusal)
    }
}

/// An unknown kind is left to `mint_local`, which returns the error.
fn made_here(kind: u32) -> bool {
    Kind::from_number(kind).is_none_or(Kind::made_here)
}

fn late() -> No {
    let no = Refusal::new(Reason::DecidedOnOldState, "deciding took longer than a view may be old");
    No::Refusal(no.retry(Duration::from_secs(1)))
}

fn reused(request_id: &str) -> No {
    No::Refusal(
        Refusal::new(Reason::RequestIdReused, format!("request_id {request_id:?} was used before for another request"))
            .way_out("a new request takes a new request_id"),
    )
}

/// The refusal of a repeat that lost against a concurrent repeat of the same request. The caller did nothing wrong and may try again.
fn beaten() -> No {
    let no = Refusal::new(Reason::DecidedOnOldState, "the same request was sent more than once at a time, and another was first");
    No::Refusal(no.retry(Duration::from_millis(100)))
}

/// Whether a concurrent call with the same request was first: the request id is bound, or the credential to be replaced is gone.
fn beaten_by_a_twin(no: &No, replaces: bool) -> bool {
    matches!(no, No::Refusal(r) if r.reason == Reason::RequestIdReused || (replaces && r.reason == Reason::CredentialNotActive))
}

/// Whether another attempt gives the answer: the decision used a version that is no longer in effect, or a concurrent call with the same
/// request was first.
fn worth_another_try(no: &No, replaces: bool) -> bool {
    decided_on_old_state(no) || beaten_by_a_twin(no, replaces)
}
