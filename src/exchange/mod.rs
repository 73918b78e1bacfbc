//! One workload, one task, one upstream, one credential.
//!
//! Credentials that we make ourselves and those that an upstream makes go the same way; which it is follows from the grant's kind. What
//! is made elsewhere is made under a lease ([`upstream::lease`](crate::upstream::lease)).

mod again;
pub(crate) mod batch;
mod renew;
mod together;
pub mod told;

use std::sync::Arc;
use std::time::Duration;

use crate::approvals::needs_approval;
use crate::authority::Authority;
use crate::credential::kind::{Kind, mint_local};
use crate::credential::{Issued, Minted};
use crate::identity::caller::Caller;
use crate::ledger::mold::Mold;

use crate::ledger::state::request_key;
use crate::ledger::{Lane, Minting, Proposed, ProposedEach, Ready, Receipt, State, View, stopping};
use crate::policy::catalog::Compiled;
use crate::policy::decide::decided_on_old_state;
use crate::policy::grant::Grant;
use crate::policy::wanted::{TaskChoice, Wanted};
use crate::refusal::{Fault, No, Reason, Refusal};
use crate::trace::Traced;
use again::Before;
pub use together::Lately;
use together::{InSeries, Look, Made, Together};

/// What a decision came to.
#[allow(clippy::large_enum_variant, reason = "nearly all are made here; a box would cost each an allocation")]
enum Granted {
    /// Made here, and ready for the ledger.
    Here(Ready, UnderWay),
    /// To be made at its upstream.
    Elsewhere(Box<Grant>),
}

/// A credential that was made here and whose records are on their way into the ledger. Told to nobody yet.
pub struct UnderWay {
    /// `None` until it is finished.
    minted: Option<Result<Minted, No>>,
    /// `None`: with its round.
    proposed: Option<Proposed>,
}

/// Where an exchange stands when all of it was done that waits for nothing.
#[allow(clippy::large_enum_variant, reason = "nearly all are under way; a box would cost each an allocation")]
pub enum Begun {
    /// Nothing is left but the ledger.
    UnderWay(UnderWay),
    /// A repeat, a kind that its upstream makes, a decision that took too long: [`Authority::exchange_unless`] sees to it.
    Waits,
}

/// Several exchanges of one caller that began together, each standing by itself.
pub struct Round {
    /// In the order in which they were asked.
    pub begun: Vec<Result<Begun, No>>,
    proposed: ProposedEach,
    /// Until all are answered.
    _minting: Minting,
    _molds: Vec<Arc<Mold>>,
}

/// The ledger's answers to what a round proposed at once.
#[derive(Default)]
pub struct Answers(std::vec::IntoIter<Result<Receipt, No>>);

impl UnderWay {
    /// Whether the ledger's answer to it is among its round's.
    pub fn in_round(&self) -> bool {
        self.proposed.is_none()
    }

    /// What becomes of it, given the ledger's answer.
    pub fn reveal(self, receipt: Result<Receipt, No>) -> Result<Issued, No> {
        let receipt = receipt?;
        let minted = self.minted.unwrap_or_else(|| Err(Fault::new("a credential that nobody finished").into()))?;
        Ok(minted.reveal(receipt)?)
    }
}

impl Answers {
    /// The next one, of those that began together.
    pub fn take_next(&mut self) -> Result<Receipt, No> {
        self.0.next().unwrap_or_else(|| Err(No::Refusal(stopping())))
    }
}

/// A decision that ran into a change is made anew before the caller is told to try again: the second time the change may be written and
/// not yet in what decisions are made with.
const TRIES: usize = 3;

impl Authority {
    /// Issues one credential, or answers a repeat with what was issued.
    pub async fn exchange(&self, caller: &Caller, want: &Wanted) -> Result<Issued, No> {
        self.exchange_unless(caller, want, std::future::pending).await
    }

    /// The same for a caller who may go away: what is being made at an upstream then is undone. Dropping the future does that too.
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

    /// All of an exchange that waits for nothing: decided, made, proposed. What it needs on the way does not outlive it.
    fn begin(&self, caller: &Caller, want: &Wanted) -> Result<Begun, No> {
        self.still_stands(caller)?;
        if want.sent_token().is_some() {
            return Ok(Begun::Waits); // its issuer's keys may have to be fetched
        }
        let view = self.ledger.view(); // everything up to seq r
        match self.grant(&view, &self.catalog.now(), caller, want) {
            Ok(Some(Granted::Here(ready, one))) if !self.too_old(&view) => {
                self.ledger.propose_ready(vec![ready])?;
                Ok(Begun::UnderWay(one))
            }
            Err(no) if !needs_approval(&no) => Err(no),
            _ => Ok(Begun::Waits),
        }
    }

    /// The same for several of one caller that came together: they look at one view and take their places in line at once. `lately`: of the
    /// connection that they came on.
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
            // A repeat has its answer, whatever a decision says now.
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
            // Signing drives all else out of a core's caches and takes most of the time: it comes last, and the writer need not wait for it.
            for (n, want, one) in in_series.unfinished {
                if let Some(Ok(Begun::UnderWay(under_way))) = begun.get_mut(n) {
                    under_way.minted = Some(want.traced.span("mint").of(one.finish()));
                }
            }
        }
        Round { begun, proposed, _minting: minting, _molds: molds }
    }

    /// Deciding took so long that it has to be done once more.
    fn too_old(&self, view: &View) -> bool {
        self.system.wall().since(view.now()) > self.bounds.load().view_max_age_ms
    }

    /// The answer of what is under way, once it is in order, durable, and found valid by the fold.
    async fn finish(&self, one: UnderWay) -> Result<Issued, No> {
        self.finish_of(one, &mut Answers::default()).await
    }

    /// The same for one of a round, given the round's answers. They are asked for in the order in which the round began.
    pub async fn finish_of(&self, mut one: UnderWay, answers: &mut Answers) -> Result<Issued, No> {
        let receipt = match one.proposed.take() {
            Some(own) => self.ledger.receipt(own).await,
            None => answers.take_next(),
        };
        one.reveal(receipt)
    }

    /// Waits for the ledger's answers to what began together.
    pub async fn answers(&self, round: &mut Round) -> Answers {
        Answers(self.ledger.receipts(std::mem::take(&mut round.proposed)).await.into_iter())
    }

    /// Whether a refusal is not the last word: [`Authority::exchange_unless`] looks again.
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
                        view = self.ledger.view(); // the upstream was asked, which takes its time
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
                view = self.ledger.view(); // its issuer may have been asked, which takes its time
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

    /// Decides, and where we make it ourselves, makes it and its records. It waits for nothing. `None`: it was asked before.
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
        let mut minted = minted?; // told to nobody yet
        let (ready, proposed) = self.ledger.ready_for(Lane::Grant, minted.records(), want.traced.id())?;
        Ok(Granted::Here(ready, UnderWay { minted: Some(Ok(minted)), proposed: Some(proposed) }))
    }

    /// Whether the configured ceilings leave room for it, so that nothing is signed for nothing. What counts is the writer's verdict.
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

    /// Made at its upstream, under a lease; told to nobody yet. Dropped, what was made is undone.
    async fn mint_elsewhere(&self, grant: Grant, gone: impl Future<Output = ()>) -> Result<Minted, No> {
        let mut part = Traced::part("upstream").of_another();
        part.note(|| told::upstream(grant.parts()));
        let minted = tokio::select! {
            minted = self.leases.mint(grant, self.ledger.new_group()) => minted,
            () = gone => Err(No::Refusal(Refusal::new(Reason::NotReady, "the caller went away while it was made"))),
        };
        part.of(minted)
    }

    /// Whether this server makes what was granted elsewhere.
    fn makes(&self, grant: &Grant) -> Result<(), No> {
        let kind = Kind::from_number(grant.kind()).ok_or_else(|| Fault::new("a grant of an unknown credential kind"))?;
        self.leases.maker(kind).map(|_| ()).map_err(No::Refusal)
    }
}

/// A kind that nobody knows is made nowhere: `mint_local` says so.
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

/// Another repeat of the same request took the place of what it made. The caller did nothing wrong: it tries again.
fn beaten() -> No {
    let no = Refusal::new(Reason::DecidedOnOldState, "the same request was sent more than once at a time, and another was first");
    No::Refusal(no.retry(Duration::from_millis(100)))
}

/// Whether this request was answered by a twin meanwhile: it is bound, or what it was to replace is gone.
fn beaten_by_a_twin(no: &No, replaces: bool) -> bool {
    matches!(no, No::Refusal(r) if r.reason == Reason::RequestIdReused || (replaces && r.reason == Reason::CredentialNotActive))
}

/// Decided on what is no longer in force, or beaten by a twin of the same request: the second look answers either.
fn worth_another_try(no: &No, replaces: bool) -> bool {
    decided_on_old_state(no) || beaten_by_a_twin(no, replaces)
}
