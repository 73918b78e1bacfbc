//! Approvals of exchanges: what an approval binds, who may give it, and which approval a decision may use.

use super::approval_requirement::{ApprovalRequirement, TaskQuestion};
use super::task_context::TaskContext;
use super::{Decider, ExchangeDecision, denied};
use crate::action::{Action, WorkloadAction};
use crate::catalog::CompiledCatalog;
use crate::exchange_request::{self, Digest, ExchangeRequest, TaskChoice};
use crate::question::ApprovalFacts;
use mayfly_base::refusal::{Error, Reason, Refusal};
use mayfly_identity::caller::Caller;
use mayfly_ledger::View;
use mayfly_ledger::commit::sha256;
use mayfly_ledger::record::{ApprovalKind, ApprovalRequested, Author, Principal};
use mayfly_ledger::state;
use mayfly_ledger::upstream::registry::{Approver, Upstream};
use mayfly_verify::seq::{ApprovalId, Millis};

/// An approval that a decision uses up.
#[derive(Clone, Debug)]
pub(super) struct UsableApproval {
    pub id: ApprovalId,
    /// The issued credential expires no later than this.
    pub until: Millis,
}

/// The state of the approval for one request.
pub(super) enum ApprovalProgress {
    /// No approval was asked for, or it expired.
    Nothing,
    /// An approval was asked for and is not decided yet.
    Waits(ApprovalId),
    /// The approval was given, by the named person, and may be used.
    Given(UsableApproval, String),
    /// The approval was refused: id, person and reason.
    Refused(ApprovalId, String, String),
}

/// The refusal for a request whose approval was refused.
pub(super) fn refused(id: ApprovalId, person: &str, reason: &str) -> Error {
    denied(Reason::DeniedByPolicy, format!("approval {id} was refused by {person}: {reason}"))
}

impl Decider {
    /// The policies that permit the exchange, either alone or with an approval. The returned approval is used up.
    pub(super) fn permitted(
        &self,
        (view, compiled): (&View, &CompiledCatalog),
        caller: &Caller,
        want: &ExchangeRequest,
        standing: &ExchangeDecision<'_>,
    ) -> Result<(Vec<String>, Option<UsableApproval>), Error> {
        let mut approved = None;
        let outcome = self.permitted_with((view, compiled), caller, want, standing, &mut approved);
        self.beside(caller, want, standing, approved.as_deref(), outcome.is_ok());
        outcome
    }

    fn permitted_with(
        &self,
        (view, compiled): (&View, &CompiledCatalog),
        caller: &Caller,
        want: &ExchangeRequest,
        standing: &ExchangeDecision<'_>,
        approved: &mut Option<String>,
    ) -> Result<(Vec<String>, Option<UsableApproval>), Error> {
        let opening = standing.place.asks.as_deref();
        let (own, without) = match (self.permits(caller, want, standing, ApprovalFacts::default()), opening) {
            (Ok(policies), None) => return Ok((policies, None)),
            (Ok(_), Some(demand)) => (false, Error::Refusal(demand.needed())),
            (Err(no), _) => (true, no),
        };
        let helps = standing.policy.set.reads(Action::Work(WorkloadAction::Exchange)).reads_approvals();
        // A break-glass task gives the rights that it was opened with; no approval widens them.
        if standing.place.break_glass.is_some() || (own && !helps) {
            return Err(without);
        }
        let with = |person: &str| {
            let policies = self.permits(caller, want, standing, ApprovalFacts { count: 1, people: &[person] })?;
            match opening {
                Some(demand) => self.opens_with(compiled, caller, want, standing, (demand, person)).map(|()| policies),
                None => Ok(policies),
            }
        };
        let known = known(view, caller, &bound(caller, want, standing));
        match known {
            ApprovalProgress::Given(given, person) => {
                let outcome = with(&person).map(|policies| (policies, Some(given)));
                *approved = Some(person);
                return outcome;
            }
            ApprovalProgress::Refused(id, person, reason) => return Err(refused(id, &person, &reason)),
            ApprovalProgress::Nothing | ApprovalProgress::Waits(_) => {}
        }
        if !approvers(&standing.registered.upstream, own, opening).iter().any(|approver| with(&approver.name()).is_ok()) {
            // No approval would change the verdict.
            return Err(match without {
                Error::Refusal(no) if no.reason == Reason::ApprovalNeeded => nobody(&standing.registered.upstream.name),
                no => no,
            });
        }
        let rule = match &without {
            Error::Refusal(no) => no.rule.clone().unwrap_or_default(),
            Error::Fault(_) => String::new(),
        };
        let no = Refusal::new(Reason::ApprovalNeeded, "the request needs an approval first").by(rule);
        Err(Error::Refusal(match known {
            ApprovalProgress::Waits(id) => no.approval(id.to_string()),
            _ => no,
        }))
    }

    /// Whether the inline task may be opened with this person's approval.
    fn opens_with(
        &self,
        compiled: &CompiledCatalog,
        caller: &Caller,
        want: &ExchangeRequest,
        standing: &ExchangeDecision<'_>,
        (demand, person): (&ApprovalRequirement, &str),
    ) -> Result<(), Error> {
        let place = &standing.place;
        let (purpose, subject, ttl_ms) = (place.purpose(), want.subject(), place.ttl_ms);
        let of = TaskQuestion {
            caller,
            place,
            work: WorkloadAction::OpenTask,
            purpose,
            subject,
            delegate: None,
            ttl_ms,
            now: standing.now,
        };
        self.task_permitted_with(compiled, standing.policy, &of, demand, person)
    }

    /// The record that asks for an approval, where a decision needs one.
    pub fn approval(
        &self,
        view: &View,
        compiled: &CompiledCatalog,
        caller: &Caller,
        want: &ExchangeRequest,
        (id, ttl_ms): (ApprovalId, u64),
    ) -> Result<ApprovalRequested, Error> {
        let standing = self.standing(view, compiled, caller, want, || [0; 16])?;
        let own = self.permits(caller, want, &standing, ApprovalFacts::default()).is_err();
        let (upstream, place) = (&standing.registered.upstream, &standing.place);
        let now = standing.now;
        let parent = place.tasks().len().checked_sub(2).and_then(|n| place.tasks().get(n));
        let task = if place.is_new() { parent } else { Some(&place.id) };
        Ok(ApprovalRequested {
            approval: id.as_bytes().to_vec(),
            digest: bound(caller, want, &standing).to_vec(),
            caller: caller.id().as_str().to_owned(),
            task: task.map_or_else(Vec::new, |t| t.as_bytes().to_vec()),
            upstream: upstream.name.clone(),
            // An approval cannot be used after its task has ended.
            expires_at: now.plus(ttl_ms).min(if place.is_new() { Millis(u64::MAX) } else { place.deadline }).0,
            of: if want.is_action() { ApprovalKind::Action } else { ApprovalKind::Exchange } as i32,
            environment: upstream.environment.clone(),
            scopes: standing.scopes.clone(),
            details: want.details.as_deref().unwrap_or_default().to_owned(),
            kind: standing.kind.tag().into(),
            ttl: standing.life.end().since(now),
            tool: want.tool.to_string(),
            arguments: want.arguments.map_or_else(Vec::new, |d| d.to_vec()),
            purpose: standing.purpose(want).to_owned(),
            upstream_version: standing.registered.version,
            approvers: approvers(upstream, own, place.asks.as_deref()).iter().map(Approver::identity).collect(),
            opens: place.is_new(),
            terms: place.asked().map(Box::new),
            binding: standing.binding.map_or_else(String::new, |b| b.binding.name.clone()),
            binding_version: standing.binding.map_or(0, |b| b.version),
            subject: want.subject().filter(|s| !s.is(caller.id())).map(|s| s.identity().clone()),
            actors: want.subject().map_or_else(Vec::new, |s| s.actors(caller.id())),
            ..ApprovalRequested::default()
        })
    }
}

/// The people whose approval suffices: those of the upstream's registration where the exchange itself needs an approval, and those common
/// to all upstreams that need one where the task's opening does.
fn approvers(upstream: &Upstream, own: bool, opening: Option<&ApprovalRequirement>) -> Vec<Approver> {
    match opening {
        None => upstream.approvers.clone(),
        Some(demand) => {
            demand.approvers.iter().filter(|approver| !own || upstream.approvers.contains(approver)).cloned().collect()
        }
    }
}

fn nobody(upstream: &str) -> Error {
    let what =
        format!("both the exchange for {upstream} and the task that it opens need an approval, and nobody may approve both");
    Error::Refusal(Refusal::new(Reason::DeniedByPolicy, what).way_out("open the task first: mayfly task open"))
}

pub(super) fn known(view: &View, caller: &Caller, digest: &Digest) -> ApprovalProgress {
    let now = view.now();
    let who = |d: &state::ApprovalResult| d.by.as_deref().map_or_else(String::new, Author::name);
    view.read(|state| {
        let own = |a: &&state::Approval| a.asked.caller == caller.id().as_str() && a.asked.digest == digest;
        let mut found = ApprovalProgress::Nothing;
        for (id, approval) in state.approvals.iter().filter(|(_, a)| own(a) && a.expires_at() > now && !a.used) {
            match &approval.decided {
                Some(d) if d.given => {
                    let until = now.plus(approval.asked.ttl);
                    return ApprovalProgress::Given(UsableApproval { id: *id, until }, who(d));
                }
                Some(d) => found = ApprovalProgress::Refused(*id, who(d), d.reason.to_string()),
                None if matches!(found, ApprovalProgress::Nothing) => found = ApprovalProgress::Waits(*id),
                None => {}
            }
        }
        found
    })
}

/// SHA-256 over everything that an approval binds: the approval is for this request and no other. Each part is prefixed with its length, so that no two requests have
/// the same digest. The request id and the wait time are not included.
fn bound(caller: &Caller, want: &ExchangeRequest, standing: &ExchangeDecision<'_>) -> Digest {
    let mut parts = Parts(Vec::with_capacity(512));
    let of = if want.is_action() { "mayfly approval of an action 1" } else { "mayfly approval 1" };
    parts.text(of).text(caller.id().as_str());
    let upstream: &Upstream = &standing.registered.upstream;
    parts.text(&upstream.name).number(standing.registered.version).text(&upstream.environment);
    parts.list(&standing.scopes).number(standing.kind.tag().into());
    parts.number(want.ttl_ms.unwrap_or(upstream.ttl.default * 1000));
    parts.text(&want.tool).bytes(want.arguments.as_ref().map_or(&[], |d| &d[..])).text(standing.purpose(want));
    if let Some(bound) = standing.binding {
        parts.text(&bound.binding.name).number(bound.version);
    }
    if let Some(subject) = want.subject() {
        parts.text("subject").identity(subject.identity());
        for actor in subject.actors(caller.id()) {
            parts.identity(&actor);
        }
    }
    if let Some(details) = &want.details {
        parts.text("details").text(details);
    }
    match &want.key {
        exchange_request::RequestedKeyBinding::Unasked => parts.number(0),
        exchange_request::RequestedKeyBinding::CallerSvid => parts.number(1),
        exchange_request::RequestedKeyBinding::Thumbprint(jkt) => parts.number(2).bytes(jkt),
    };
    if let Some(key) = &want.certified {
        parts.text("certified key").bytes(&sha256(key.bytes()));
    }
    for wanted in standing.place.asks.iter().flat_map(|demand| &demand.registrations) {
        parts.text("opening").text(&wanted.upstream).number(wanted.version);
    }
    parts.path(&standing.place);
    if let TaskChoice::Inline(terms) = &want.task {
        let of = &standing.place;
        parts.text(of.purpose()).list(&terms.tools).number(terms.any_tool.into()).list(&terms.callers);
        parts.number(terms.key_bound.into()).number(terms.ttl_ms.unwrap_or(0)).number(terms.max_ttl_ms.unwrap_or(0));
        parts.number(terms.heartbeat_ms).number(terms.kinds.len() as u64);
        for kind in &terms.kinds {
            parts.number(kind.tag().into());
        }
        for allowed in &of.allowance().upstreams {
            parts.text(&allowed.name).list(&allowed.scopes);
        }
    }
    sha256(&parts.0)
}

/// The parts of a text to be hashed.
struct Parts(Vec<u8>);

impl Parts {
    fn bytes(&mut self, bytes: &[u8]) -> &mut Parts {
        self.0.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        self.0.extend_from_slice(bytes);
        self
    }

    fn text(&mut self, text: &str) -> &mut Parts {
        self.bytes(text.as_bytes())
    }

    fn identity(&mut self, identity: &Principal) -> &mut Parts {
        self.text(&identity.issuer).text(&identity.sub)
    }

    fn number(&mut self, number: u64) -> &mut Parts {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    fn list(&mut self, texts: &[String]) -> &mut Parts {
        self.number(texts.len() as u64);
        for text in texts {
            self.text(text);
        }
        self
    }

    /// The task path. For an inline task only the path of its parents, since the task has no id yet.
    fn path(&mut self, place: &TaskContext) -> &mut Parts {
        let path = place.tasks();
        let path = if place.is_new() { path.get(..path.len().saturating_sub(1)).unwrap_or(path) } else { path };
        self.number(u64::from(place.is_new())).number(path.len() as u64);
        for task in path {
            self.bytes(task.as_bytes());
        }
        self
    }
}
