//! Approvals, from the request to the decision.
//!
//! The approved request is recorded in the ledger, its arguments as a digest. The arguments themselves, which approvers have to see, are
//! kept sealed beside the ledger until the approval is decided.

use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use zeroize::Zeroizing;

use crate::admission::in_break_glass;
use crate::admission::rate_limits::RateLimitedAct;
use crate::authority::Authority;
use crate::revocation::revoke::RevocationHits;
use crate::revocation::revoke_excess::ChangeOptions;
use crate::tasks::Actor;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Fault, Reason, Refusal};
use mayfly_base::trace::{self, CallTrace};
use mayfly_identity::caller::{Caller, Operator};
use mayfly_ledger::record::{ApprovalDecided, ApprovalKind, ApprovalRequested, Author, Event, Principal, Record};
use mayfly_ledger::state::State;
use mayfly_ledger::upstream::access::{AccessQuery, GrantedAccess};
use mayfly_ledger::upstream::registry::{Kind, Upstream};
use mayfly_ledger::{ProposalKind, View};
use mayfly_policy::action::Action;
use mayfly_policy::exchange_request::ExchangeRequest;
use mayfly_policy::person::{CallerPerson, sign_in_hint};
use mayfly_policy::question::{ApprovalContext, DeclaredIntent, digest_text};
use mayfly_policy::{Question, admin};
use mayfly_store::Precondition;
use mayfly_verify::seq::ApprovalId;

/// A decision on an approval.
#[derive(Clone, Debug)]
pub struct ApproverDecision {
    /// The id of the approval.
    pub id: ApprovalId,
    /// The digest of the request that the approver saw.
    pub digest: [u8; 32],
    /// Whether the approval is given; otherwise it is refused.
    pub given: bool,
    /// The reason.
    pub reason: String,
    /// The request id, if there is one; for a change, how much it may revoke.
    pub terms: ChangeOptions,
}

/// How much of an approval an operator or approver may see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ApprovalVisibility {
    /// Nothing, not even that the approval exists.
    Nothing,
    /// The approval without the arguments.
    WithoutArguments,
    /// The whole approval.
    Whole,
}

/// The identity of an actor: issuer and subject for a person who signed in, else the SPIFFE ID.
pub(crate) fn identity(actor: &Actor) -> Option<Principal> {
    actor.caller().map(Principal::of)
}

/// Whether registrations name an actor as an approver: a person who signed in by issuer and subject, and any actor by SPIFFE ID.
fn is_named(actor: &Actor, approvers: &[Principal]) -> bool {
    let names = actor.caller().map(|caller| [Principal::of(caller), Principal::workload(caller.id())]);
    names.is_some_and(|names| names.iter().any(|name| approvers.contains(name)))
}

/// The login that an approval is decided with. A job's login is returned too; the fold refuses it.
pub(crate) fn login_of(caller: Option<&Caller>) -> Vec<u8> {
    caller.and_then(Caller::ancestor).map_or_else(Vec::new, |login| login.as_bytes().to_vec())
}

/// The purpose that sealed arguments are bound to.
const PURPOSE: &str = "arguments";
/// The prefix of the names of sealed arguments.
pub(crate) const PREFIX: &str = "approval/";

fn value_name(id: ApprovalId) -> String {
    format!("{PREFIX}{id}")
}

impl Authority {
    /// Requests the approval that an exchange needs. Repeats of the same request share one approval.
    pub(crate) async fn ask_approval(&self, view: &View, caller: &Caller, want: &ExchangeRequest) -> Result<ApprovalId, Error> {
        let id = ApprovalId::from_bytes(self.system.id16());
        let asked = self.decider.approval(view, &self.catalog.now(), caller, want, (id, limits::APPROVAL_TTL_DEFAULT_MS))?;
        if let Some(known) = self.asked_before(&asked).await? {
            return Ok(known);
        }
        self.rates.load().take(RateLimitedAct::Change, caller.id().as_str())?;
        let shown = shown(want)?;
        if let Some(arguments) = &shown {
            self.keep_arguments(id, &asked.environment, arguments).await?;
        }
        let who = Author::of(caller);
        let record = Record::new(who, Event::ApprovalAsked(asked.into())).decided_at(view.revision());
        match self.ledger.commit(ProposalKind::Grant, vec![record]).await {
            Ok(_) => Ok(id),
            Err(no) => {
                if shown.is_some() {
                    self.forget_arguments(id).await;
                }
                Err(no)
            }
        }
    }

    /// The waiting approval of the same request, if there is one.
    pub(crate) async fn asked_before(&self, asked: &ApprovalRequested) -> Result<Option<ApprovalId>, Error> {
        let now = self.system.wall();
        let waits = |s: &State| {
            let same = |a: &ApprovalRequested| a.caller == asked.caller && a.digest == asked.digest;
            let mut open = s.approvals.iter().filter(|(_, a)| a.decided.is_none() && a.expires_at() > now);
            open.find(|(_, a)| same(&a.asked)).map(|(id, _)| *id)
        };
        self.ledger.settled(waits).await
    }

    /// Handles a request that needs an approval: asks for the approval and waits for it once, as long as the caller permits. `Ok` if the
    /// approval was decided in time, so that the request has to be decided again; otherwise the refusal, with the id of the approval.
    pub(crate) async fn approved(
        &self,
        view: &View,
        (caller, want): (&Caller, &ExchangeRequest),
        no: Error,
        waited: &mut bool,
    ) -> Result<(), Error> {
        let id = self.ask_approval(view, caller, want).await?;
        let ms = want.asking.as_ref().map_or(0, |asking| asking.wait_ms);
        trace::note(|| vec![("mayfly.approval.id", id.to_string().into())]);
        if *waited || ms == 0 || !self.decided_within(id, ms).await {
            return Err(waits_for(no, id));
        }
        *waited = true;
        Ok(())
    }

    /// Waits at most `ms` milliseconds until the approval is decided. Returns whether it was.
    pub(crate) async fn decided_within(&self, id: ApprovalId, ms: u64) -> bool {
        let decided = || self.ledger.peek(|s| s.approvals.get(&id).is_none_or(|a| a.decided.is_some()));
        let mut commits = self.commits.subscribe();
        let waiting = async {
            while !decided() {
                // After a lag, the state is read like after any other commit.
                if let Err(RecvError::Closed) = commits.recv().await {
                    break;
                }
            }
        };
        let mut part = CallTrace::part("approval");
        part.note(|| vec![("mayfly.approval.id", id.to_string().into())]);
        tokio::time::timeout(Duration::from_millis(ms.min(limits::APPROVAL_WAIT_MS)), waiting).await.is_ok()
    }

    /// Gives or refuses an approval. An approval is given by an approver whom the registration names and policy permits; it is refused by
    /// such an approver, or by an operator who manages tasks.
    pub async fn decide_approval(&self, actor: &Actor, decision: &ApproverDecision) -> Result<RevocationHits, Error> {
        let id = decision.id;
        let none = || Error::Refusal(Refusal::new(Reason::NotFound, format!("there is no approval {id} that you may decide")));
        let asked = self.ledger.settled(|s| s.approvals.get(&id).map(|a| a.asked.clone())).await?.ok_or_else(none)?;
        if let (true, ApprovalKind::Change, Some(caller)) = (decision.given, asked.of(), actor.caller()) {
            if let Some(before) = self.remembered(caller.id().as_str(), &decision.terms.named).await? {
                return self.hit_before(&before, &decision.terms.named).await;
            }
            return Ok(self.let_change_through(caller, &asked, decision, &decision.terms).await?.hits);
        }
        if let (true, ApprovalKind::Call, Some(caller)) = (decision.given, asked.of(), actor.caller()) {
            if !decision.terms.dry_run {
                self.let_call_through(caller, &asked, decision).await?;
            }
            return Ok(RevocationHits::default());
        }
        let named = is_named(actor, &asked.approvers);
        let who = match actor {
            Actor::Workload(caller) | Actor::Operator(Operator::Svid(caller)) if named => {
                self.let_in(caller, "this approver")?;
                if decision.given {
                    self.may_approve(caller, &asked)?;
                }
                Author::of(caller)
            }
            Actor::Operator(Operator::Svid(caller)) if matches!(asked.of(), ApprovalKind::Change | ApprovalKind::Call) => {
                self.may_refuse_change(caller, &asked, decision)?
            }
            Actor::Operator(operator) if !decision.given => self.admit::<admin::ManageTasks>(operator, place_of(&asked))?.who(),
            _ => return Err(none()),
        };
        let event = Event::ApprovalDecided(ApprovalDecided {
            approval: id.as_bytes().to_vec(),
            given: decision.given,
            reason: decision.reason.clone(),
            digest: decision.digest.to_vec(),
            login: login_of(actor.caller()),
        });
        // A refusal only takes away, so it stays possible while nothing can be granted.
        let lane = if decision.given { ProposalKind::Grant } else { ProposalKind::Change };
        if decision.terms.dry_run {
            return Ok(RevocationHits::default());
        }
        self.change(who, lane, event, &decision.terms.named).await?;
        self.forget_arguments(id).await;
        Ok(RevocationHits::default())
    }

    /// Checks policy for each upstream that names approvers; policy may require a person, a second factor, or another approver.
    fn may_approve(&self, caller: &Caller, asked: &ApprovalRequested) -> Result<(), Error> {
        self.may_approve_for(caller, asked, (&asked.upstream, &asked.scopes))?;
        let Some(terms) = &asked.terms else { return Ok(()) };
        for wanted in terms.registrations.iter().filter(|r| r.upstream != asked.upstream) {
            let allowed = terms.allowance.iter().flat_map(|a| &a.upstreams).find(|u| u.name == wanted.upstream);
            self.may_approve_for(caller, asked, (&wanted.upstream, allowed.map_or(&[][..], |u| &u.scopes)))?;
        }
        Ok(())
    }

    fn may_approve_for(
        &self,
        caller: &Caller,
        asked: &ApprovalRequested,
        (upstream, scopes): (&str, &[String]),
    ) -> Result<(), Error> {
        if let Some(task) = self.acts_in_break_glass(caller) {
            return Err(in_break_glass(caller, task, "break-glass approves nothing"));
        }
        self.decider.served(&asked.environment)?;
        let compiled = self.catalog.now();
        let gone = || Refusal::new(Reason::UpstreamNotActive, format!("upstream {upstream} is no longer registered"));
        let registered = compiled.upstream(upstream).ok_or_else(gone)?;
        let policy = compiled.policy(&asked.environment).ok_or_else(gone)?;
        let (mut digest, behind) = ([0; 43], CallerPerson::of(caller));
        let arguments = <&[u8; 32]>::try_from(&asked.arguments[..]).ok();
        let access = self.access_asked(asked, &registered.upstream, scopes)?;
        let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
        let decide = ApprovalContext {
            environment: &asked.environment,
            caller: &asked.caller,
            intent: DeclaredIntent {
                purpose: &asked.purpose,
                tool: (!asked.tool.is_empty()).then_some(&*asked.tool),
                arguments_digest: arguments.map(|d| digest_text(d, &mut digest)),
                kind: u8::try_from(asked.kind).ok().and_then(Kind::from_tag),
                scopes: &scopes,
                binding: (!asked.binding.is_empty()).then_some(&*asked.binding),
                access: access.as_ref(),
            },
            person: behind.facts(),
            now: self.system.wall(),
        };
        let question = Question::approve(caller.id(), &registered.upstream, &decide);
        let verdict = self.decider.verdicts.verdict(&policy.set, &question);
        match verdict.permits() {
            true => Ok(()),
            false => {
                let permits = |behind: &CallerPerson<'_>| {
                    let question = ApprovalContext { person: behind.facts(), ..decide };
                    let question = Question::approve(caller.id(), &registered.upstream, &question);
                    let verdict = self.decider.verdicts.verdict(&policy.set, &question);
                    verdict.permits().then(|| verdict.by().to_vec())
                };
                let way_out = sign_in_hint((&policy.set, Action::Approve), &behind, decide.now, verdict.by(), permits);
                Err(Error::Refusal(
                    Refusal::new(Reason::DeniedByPolicy, format!("Approve: {verdict} (policy version {})", policy.version))
                        .by(format!("policy set {} of {}", policy.version, asked.environment))
                        .way_out(way_out.unwrap_or_else(|| "the owner of the policy set decides who may approve".to_owned())),
                ))
            }
        }
    }

    /// The access that an approval lets somebody have at an upstream: of its credential, or of all that the credentials of its task can have.
    fn access_asked(
        &self,
        asked: &ApprovalRequested,
        upstream: &Upstream,
        scopes: &[String],
    ) -> Result<Option<GrantedAccess>, Error> {
        match (asked.of(), u8::try_from(asked.kind).ok().and_then(Kind::from_tag)) {
            (ApprovalKind::Exchange | ApprovalKind::Action, Some(kind)) if asked.upstream == upstream.name => {
                let query = AccessQuery { upstream, kind, scopes, details: &asked.details };
                Ok(self.decider.access_of(&query)?.map(|access| *access))
            }
            _ => {
                let allowance = asked.terms.as_ref().and_then(|terms| terms.allowance.as_ref());
                self.decider.access_in_task(upstream, allowance.map_or(&[][..], |a| &a.kinds), scopes)
            }
        }
    }

    /// The access that an approval lets somebody have, in words. Nothing of an upstream whose registration is not the one of the request any
    /// more: then the approval is void.
    pub fn approval_access(&self, asked: &ApprovalRequested) -> Vec<String> {
        let compiled = self.catalog.now();
        let of = |name: &str, scopes: &[String]| {
            let registered = compiled.upstream(name)?;
            let access = self.access_asked(asked, &registered.upstream, scopes).ok().flatten();
            Some(access?.words())
        };
        let is_current = |name: &str, version: u64| compiled.upstream(name).is_some_and(|r| r.version == version);
        match asked.of() {
            ApprovalKind::Exchange | ApprovalKind::Action => match is_current(&asked.upstream, asked.upstream_version) {
                true => of(&asked.upstream, &asked.scopes).unwrap_or_default(),
                false => Vec::new(),
            },
            ApprovalKind::Task | ApprovalKind::Extension => {
                let Some(terms) = &asked.terms else { return Vec::new() };
                let allowed = terms.allowance.iter().flat_map(|allowance| &allowance.upstreams);
                let unchanged =
                    |name: &str| terms.registrations.iter().all(|r| r.upstream != name || is_current(name, r.version));
                let words = allowed.filter(|u| unchanged(&u.name)).flat_map(|u| {
                    let words = of(&u.name, &u.scopes).unwrap_or_default();
                    words.into_iter().map(|line| format!("{}: {line}", u.name))
                });
                words.take(limits::APPROVAL_ACCESS_LINES).collect()
            }
            ApprovalKind::Unspecified | ApprovalKind::Change | ApprovalKind::Call => Vec::new(),
        }
    }

    /// How much of the approval an actor may see.
    pub fn sees(&self, actor: &Actor, asked: &ApprovalRequested) -> ApprovalVisibility {
        if is_named(actor, &asked.approvers) {
            return ApprovalVisibility::Whole;
        }
        let asker = actor.caller().is_some_and(|own| own.id().as_str() == asked.caller || Author::of(own).name() == asked.caller);
        let observes = || match actor {
            Actor::Operator(operator) => self.admit::<admin::Observe>(operator, place_of(asked)).is_ok(),
            Actor::Workload(_) => false,
        };
        if asker || observes() { ApprovalVisibility::WithoutArguments } else { ApprovalVisibility::Nothing }
    }

    /// Seals the arguments, and makes them durable before the record that refers to them.
    async fn keep_arguments(&self, id: ApprovalId, environment: &str, arguments: &str) -> Result<(), Error> {
        let name = value_name(id);
        let sealed = self.sealer.seal(PURPOSE, environment, &name, arguments.as_bytes())?;
        let store = self.ledger.store();
        let kept = tokio::task::spawn_blocking(move || store.put(&name, &sealed, Precondition::Absent));
        let kept = kept.await.map_err(|e| Fault::new(format!("keeping arguments: {e}")))?;
        kept.map_err(|e| Error::Fault(Fault::new(format!("keeping arguments: {e}"))))
    }

    /// The arguments of a waiting approval, for its approvers.
    pub async fn arguments_of(&self, id: ApprovalId, environment: &str) -> Result<Option<Zeroizing<String>>, Error> {
        let (name, store) = (value_name(id), self.ledger.store());
        let asked = name.clone();
        let sealed = tokio::task::spawn_blocking(move || store.named(&asked));
        let sealed = sealed.await.map_err(|e| Fault::new(format!("reading arguments: {e}")))?;
        let Some(sealed) = sealed.map_err(|e| Fault::new(format!("reading arguments: {e}")))? else { return Ok(None) };
        let plain = self.sealer.open(PURPOSE, environment, &name, &sealed)?;
        let text = std::str::from_utf8(&plain).map_err(|_| Fault::new("sealed arguments that are no text"))?;
        Ok(Some(Zeroizing::new(text.to_owned())))
    }

    /// Deletes the arguments of an approval that nobody has to decide any more.
    pub(crate) async fn forget_arguments(&self, id: ApprovalId) {
        let (name, store) = (value_name(id), self.ledger.store());
        let gone = tokio::task::spawn_blocking(move || store.delete(&name, Precondition::Any)).await;
        if !matches!(gone, Ok(Ok(()))) {
            tracing::error!(%id, "the stored arguments of a decided or expired approval could not be deleted yet");
        }
    }

    /// Deletes the arguments of approvals that were decided or have expired. At a start, before callers are served, this includes arguments
    /// whose approval was never recorded because the server stopped; later such arguments may belong to a request in progress.
    pub async fn sweep_arguments(&self, at_start: bool) -> Result<(), Error> {
        let store = self.ledger.store();
        let names = tokio::task::spawn_blocking(move || store.list(PREFIX));
        let names = names.await.map_err(|e| Fault::new(format!("listing arguments: {e}")))?;
        let now = self.system.wall();
        for name in names.map_err(|e| Fault::new(format!("listing arguments: {e}")))? {
            let Some(id) = name.strip_prefix(PREFIX).and_then(|id| id.parse::<ApprovalId>().ok()) else { continue };
            let waits = |s: &State| match s.approvals.get(&id) {
                Some(approval) => approval.decided.is_none() && approval.expires_at() > now,
                None => !at_start,
            };
            if !self.ledger.settled(waits).await? {
                self.forget_arguments(id).await;
            }
        }
        Ok(())
    }
}

/// The environment of a request; `None` for a request that belongs to none, such as a change of a trust domain, for which every
/// environment's policy is asked.
pub(crate) fn place_of(asked: &ApprovalRequested) -> Option<&str> {
    Some(asked.environment.as_str()).filter(|name| !name.is_empty())
}

/// The arguments in clear text, which approvers are to see. A request with only a digest is refused, since a digest does not tell approvers
/// what is to be done.
fn shown(want: &ExchangeRequest) -> Result<Option<&str>, Error> {
    match (&want.arguments, want.asking.as_ref().and_then(|a| a.arguments.as_ref())) {
        (None, _) => Ok(None),
        (Some(_), Some(json)) => Ok(Some(json)),
        (Some(_), None) => Err(Error::Refusal(Refusal::field(
            "arguments",
            "this exchange needs an approval, and approvers are shown the arguments, not their digest: send arguments.json",
        ))),
    }
}

/// Adds the id of the waiting approval to the refusal.
pub(crate) fn waits_for(no: Error, id: ApprovalId) -> Error {
    match no {
        Error::Refusal(no) => {
            let way_out = format!("those whom the registration names as approvers: mayfly approval give {id} --reason TEXT");
            Error::Refusal(no.approval(id.to_string()).way_out(way_out))
        }
        fault => fault,
    }
}

/// Whether a refusal means that an approval is needed first.
pub(crate) fn needs_approval(no: &Error) -> bool {
    matches!(no, Error::Refusal(r) if r.reason == Reason::ApprovalNeeded)
}
