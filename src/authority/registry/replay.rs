//! Decides recorded requests again with another policy set, to show what would differ before the set takes effect.
//!
//! Each request is decided with the registration of its time, and also with the policy set of its time. If that set no longer gives the
//! recorded decision, the decision depends on something that no record has (a count, a time), and the request stays undetermined.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::authority::Authority;
use crate::registry::policies::PolicySetSource;
use mayfly_base::limits;
use mayfly_base::refusal::Error;
use mayfly_identity::spiffe_id::SpiffeId;
use mayfly_ledger::Ledger;
use mayfly_ledger::reader::history::{HistoryRecord, ScanEnd};
use mayfly_ledger::reader::history_query::HistoryQuery;
use mayfly_ledger::reader::search::HistoryFilter;
use mayfly_ledger::record::{
    Author, CredentialIssued, DocumentFields, DocumentTable, Event, NameKind, Principal, RequestsRefused, SubjectClaims,
    TaskOpened, main_objects,
};
use mayfly_ledger::state::TaskSpec as TaskTerms;
use mayfly_ledger::upstream::registry::{Kind, Upstream};
use mayfly_policy::PolicySet;
use mayfly_policy::action::{Action, WorkloadAction};
use mayfly_policy::question::digest_text;
use mayfly_policy::simulation::{SimulatedRequest, SimulatedSubject, SimulatedTask, SimulationOutcome};
use mayfly_verify::seq::{ApprovalId, Millis, Seq, TaskId};

/// A decision that would differ.
#[derive(Clone, Debug)]
pub struct ChangedDecision {
    /// The record of the decision.
    pub seq: Seq,
    /// The time of the decision.
    pub at: Millis,
    /// The request.
    pub situation: SimulatedRequest,
    /// The upstream.
    pub upstream: String,
    /// The recorded decision: permitted or refused.
    pub permitted: bool,
    /// The decision of the new set.
    pub now: SimulationOutcome,
}

/// The result.
#[derive(Clone, Debug, Default)]
pub struct PolicyReplay {
    /// The number of decisions that were evaluated.
    pub decisions: u64,
    /// Permitted then, refused now.
    pub newly_refused: u64,
    /// Refused then, permitted now.
    pub newly_permitted: u64,
    /// Decisions that stay undetermined.
    pub undetermined: u64,
    /// The newest decisions that differ.
    pub samples: Vec<ChangedDecision>,
    /// Decisions before this time were not evaluated.
    pub reached: Option<Millis>,
}

/// A decision, as its record has it.
struct RecordedDecision {
    seq: Seq,
    at: Millis,
    situation: SimulatedRequest,
    task: Option<TaskId>,
    upstream: (String, u64),
    policy: u64,
    permitted: bool,
}

/// The decisions collected from history, newest first.
struct RecordedHistory {
    environment: String,
    since: Millis,
    ledger: Ledger,
    decisions: Vec<RecordedDecision>,
    tasks: HashMap<TaskId, Option<SimulatedTask>>,
    upstreams: HashMap<(String, u64), Option<String>>,
    policies: BTreeMap<u64, Option<String>>,
    /// The time of the oldest record that was read.
    oldest: Option<Millis>,
    /// The time of the oldest decision that was taken, if there were too many.
    full: Option<Millis>,
}

impl RecordedHistory {
    fn take(&mut self, past: &HistoryRecord) -> ControlFlow<()> {
        if past.at < self.since || self.full.is_some() {
            return ControlFlow::Break(());
        }
        self.oldest = Some(past.at);
        match &past.record.event {
            Some(Event::Issued(e)) if e.environment == self.environment => self.issued(e, past),
            Some(Event::Refused(e)) => self.refused(e, past),
            _ => self.note(past),
        }
        ControlFlow::Continue(())
    }

    /// Takes a registration, task or policy set from a record, if a decision needs it.
    fn note(&mut self, past: &HistoryRecord) {
        match &past.record.event {
            Some(Event::TaskOpened(e)) => {
                let id = TaskId::from_slice(&e.task);
                if let Some(known) = id.and_then(|id| self.tasks.get_mut(&id)).filter(|known| known.is_none()) {
                    *known = Some(of_opened(e));
                }
            }
            Some(event) => match event.document_in_history() {
                Some(DocumentFields { table: DocumentTable::Upstreams, name, version, text, .. }) => {
                    self.registration(name, version, text);
                }
                Some(d) if d.table == DocumentTable::Policies && d.name == self.environment => self.policy(d.version, d.text),
                _ => {}
            },
            None => {}
        }
    }

    fn registration(&mut self, name: &str, version: u64, text: &str) {
        let known = self.upstreams.get_mut(&(name.to_owned(), version)).filter(|known| known.is_none());
        known.into_iter().for_each(|known| *known = Some(text.to_owned()));
    }

    fn policy(&mut self, version: u64, text: &str) {
        if let Some(known) = self.policies.get_mut(&version).filter(|known| known.is_none()) {
            *known = Some(text.to_owned());
        }
    }

    /// Searches history for objects that decisions need and that are neither in memory nor among the records read: sets and registrations
    /// first, which many decisions share. Decisions whose objects are not found stay undetermined.
    fn complete(&mut self, look: &HistoryQuery) -> Result<(), Error> {
        let mut names: Vec<String> = Vec::new();
        let lacking = |known: &Option<String>| known.is_none();
        names.extend(
            self.policies.iter().filter(|(_, k)| lacking(k)).map(|(n, _)| main_objects::policy(&self.environment, false, *n)),
        );
        names.extend(self.upstreams.iter().filter(|(_, k)| lacking(k)).map(|((name, n), _)| main_objects::upstream(name, *n)));
        names.extend(self.tasks.iter().filter(|(_, k)| k.is_none()).map(|(id, _)| main_objects::id(id)));
        for name in names.into_iter().take(limits::POLICY_DIFF_LOOKS) {
            let rests_on = |past: &HistoryRecord| {
                matches!(
                    past.record.event,
                    Some(Event::TaskOpened(_) | Event::UpstreamSet(_) | Event::PolicySet(_) | Event::ApprovalAsked(_))
                )
            };
            look.newest(&[HistoryFilter::named(Some(NameKind::About), name)], 1, rests_on)?
                .iter()
                .for_each(|past| self.note(past));
        }
        Ok(())
    }

    fn issued(&mut self, e: &CredentialIssued, past: &HistoryRecord) {
        let Ok(caller) = SpiffeId::parse(&e.caller) else { return };
        let approved = ApprovalId::from_slice(&e.approval).and_then(|id| {
            let by = self.ledger.peek(|s| s.approvals.get(&id)?.decided.as_ref()?.by.clone());
            by.map(|by: Box<Author>| by.name())
        });
        let situation = SimulatedRequest {
            purpose: e.purpose.clone(),
            tool: (!e.tool.is_empty()).then(|| e.tool.clone()),
            arguments_digest: digest(&e.arguments),
            kind: u8::try_from(e.kind).ok().and_then(Kind::from_tag),
            scopes: e.scopes.clone(),
            binding: (!e.binding.is_empty()).then(|| e.binding.clone()),
            ttl_seconds: seconds(e.expires_at.saturating_sub(e.issued_at)),
            renewal: !e.renews.is_empty(),
            break_glass: e.break_glass,
            act_chain: before(&e.caller, &e.actors),
            subject: subject(e.subject.as_ref(), e.subject_claims.as_ref()),
            approvals: approved.into_iter().collect(),
            ..SimulatedRequest::new(caller, Action::Work(WorkloadAction::Exchange), Millis(e.issued_at))
        };
        let upstream = (e.upstream.clone(), e.upstream_version);
        self.push(past, situation, TaskId::from_slice(&e.task), upstream, e.policy_version, true);
    }

    fn refused(&mut self, e: &RequestsRefused, past: &HistoryRecord) {
        let Some(wanted) = e.wanted.as_ref().filter(|w| w.environment == self.environment) else { return };
        let Ok(caller) = SpiffeId::parse(&e.caller) else { return };
        let situation = SimulatedRequest {
            purpose: wanted.purpose.clone(),
            tool: (!wanted.tool.is_empty()).then(|| wanted.tool.clone()),
            arguments_digest: digest(&wanted.arguments),
            kind: u8::try_from(wanted.kind).ok().and_then(Kind::from_tag),
            scopes: wanted.scopes.clone(),
            binding: (!wanted.binding.is_empty()).then(|| wanted.binding.clone()),
            ttl_seconds: seconds(wanted.ttl),
            renewal: wanted.renewal,
            break_glass: e.break_glass,
            act_chain: before(&e.caller, &wanted.actors),
            subject: subject(wanted.subject.as_ref(), wanted.subject_claims.as_ref()),
            ..SimulatedRequest::new(caller, Action::Work(WorkloadAction::Exchange), Millis(e.since))
        };
        let upstream = (wanted.upstream.clone(), wanted.upstream_version);
        self.push(past, situation, TaskId::from_slice(&wanted.task), upstream, wanted.policy_version, false);
    }

    fn push(
        &mut self,
        past: &HistoryRecord,
        situation: SimulatedRequest,
        task: Option<TaskId>,
        upstream: (String, u64),
        policy: u64,
        permitted: bool,
    ) {
        if self.decisions.len() >= limits::POLICY_DIFF_DECISIONS {
            self.full = Some(past.at);
            return;
        }
        if let Some(id) = task.filter(|id| !self.tasks.contains_key(id)) {
            let known = self.ledger.peek(|s| s.tasks.get(&id).map(|t| of_terms(&t.terms, t.deadline)));
            self.tasks.insert(id, known);
        }
        if !self.upstreams.contains_key(&upstream) {
            let in_force = |s: &mayfly_ledger::State| {
                let version = s.upstreams.get(upstream.0.as_str()).filter(|v| v.version == upstream.1)?;
                Some(version.text.to_string())
            };
            let known = self.ledger.peek(in_force);
            self.upstreams.insert(upstream.clone(), known);
        }
        if !self.policies.contains_key(&policy) {
            let environment = self.environment.as_str();
            let in_force =
                |s: &mayfly_ledger::State| Some(s.policies.get(environment).filter(|v| v.version == policy)?.text.to_string());
            let known = self.ledger.peek(in_force);
            self.policies.insert(policy, known);
        }
        self.decisions.push(RecordedDecision { seq: past.seq, at: past.at, situation, task, upstream, policy, permitted });
    }
}

/// The chain of actors without the caller.
fn before(caller: &str, actors: &[Principal]) -> Vec<String> {
    actors.iter().map(Principal::name).filter(|name| name != caller).collect()
}

fn subject(who: Option<&Principal>, claims: Option<&SubjectClaims>) -> Option<SimulatedSubject> {
    let groups = claims.map(|c| c.groups.clone()).unwrap_or_default();
    who.map(|s| SimulatedSubject { issuer: s.issuer.clone(), id: s.sub.clone(), groups })
}

fn of_terms(terms: &TaskTerms, deadline: Millis) -> SimulatedTask {
    SimulatedTask {
        id: Some(terms.id.to_string()),
        purpose: terms.purpose.to_string(),
        owner: terms.owners.last().map_or_else(String::new, Principal::name),
        depth: i64::try_from(terms.path.len().saturating_sub(1)).unwrap_or(0),
        ttl_seconds: seconds(deadline.since(terms.opened_at)),
        heartbeat: terms.heartbeat > 0,
        upstreams: terms.allowance.upstreams.iter().map(|u| u.name.clone()).collect(),
        tools: terms.allowance.tools.clone(),
        callers: terms.callers.iter().map(ToString::to_string).collect(),
    }
}

fn of_opened(e: &TaskOpened) -> SimulatedTask {
    let allowance = e.allowance.clone().unwrap_or_default();
    SimulatedTask {
        id: TaskId::from_slice(&e.task).map(|id| id.to_string()),
        purpose: e.purpose.clone(),
        owner: e.owner.as_ref().map_or_else(String::new, Principal::name),
        // For a child task the record only tells that it is one; its depth follows from the records of its parents.
        depth: i64::from(!e.parent.is_empty()),
        ttl_seconds: seconds(e.deadline.saturating_sub(e.opened_at)),
        heartbeat: e.heartbeat > 0,
        upstreams: allowance.upstreams.into_iter().map(|u| u.name).collect(),
        tools: allowance.tools,
        callers: e.callers.clone(),
    }
}

fn digest(bytes: &[u8]) -> Option<String> {
    <&[u8; 32]>::try_from(bytes).ok().map(|d| digest_text(d, &mut [0; 43]).to_owned())
}

fn seconds(ms: u64) -> i64 {
    i64::try_from(ms / 1000).unwrap_or(i64::MAX)
}

impl Authority {
    /// Decides the requests recorded since a time again, with another policy set.
    pub async fn replay_policy(&self, environment: &str, from: &PolicySetSource, since: Millis) -> Result<PolicyReplay, Error> {
        let (new, _) = self.policy_from(environment, from).await?;
        let gathered = RecordedHistory {
            environment: environment.to_owned(),
            since,
            ledger: self.ledger.clone(),
            decisions: Vec::new(),
            tasks: HashMap::new(),
            upstreams: HashMap::new(),
            policies: BTreeMap::new(),
            oldest: None,
            full: None,
        };
        self.question(move |look| {
            let mut gathered = gathered;
            let reached = look.back(limits::LOOK_BACK_BYTES, |past| gathered.take(&past))?;
            gathered.complete(look)?;
            decide(gathered, reached, &new, look)
        })
        .await
    }
}

fn decide(gathered: RecordedHistory, reached: ScanEnd, new: &PolicySet, look: &HistoryQuery) -> Result<PolicyReplay, Error> {
    let RecordedHistory { environment, decisions, mut tasks, upstreams, policies, oldest, full, .. } = gathered;
    let compiled = |text: Option<String>| text.and_then(|text| PolicySet::from_text(&text).ok()).map(Arc::new);
    let policies: BTreeMap<u64, Option<Arc<PolicySet>>> = policies.into_iter().map(|(n, text)| (n, compiled(text))).collect();
    let read = |text: Option<String>| text.and_then(|text| Upstream::from_text(&text).ok());
    let upstreams: HashMap<_, Option<Upstream>> = upstreams.into_iter().map(|(name, text)| (name, read(text))).collect();
    let mut replay = PolicyReplay { decisions: decisions.len() as u64, ..PolicyReplay::default() };
    for RecordedDecision { seq, at, mut situation, task, upstream, policy, permitted } in decisions {
        look.waited_for()?;
        let known = (upstreams.get(&upstream).and_then(Option::as_ref), policies.get(&policy).and_then(Option::as_ref));
        let (Some(registered), Some(then)) = known else {
            replay.undetermined += 1;
            continue;
        };
        if let Some(known) = task.and_then(|id| tasks.get_mut(&id)) {
            situation.task = known.clone().unwrap_or_default();
        }
        let permits = |set: &PolicySet| situation.outcome(set, &environment, Some(registered));
        if matches!(permits(then), SimulationOutcome::Permit(_)) != permitted {
            replay.undetermined += 1;
            continue;
        }
        let now = permits(new);
        if matches!(now, SimulationOutcome::Permit(_)) == permitted {
            continue;
        }
        let counter = if permitted { &mut replay.newly_refused } else { &mut replay.newly_permitted };
        *counter += 1;
        if replay.samples.len() < limits::POLICY_DIFF_SAMPLES {
            replay.samples.push(ChangedDecision { seq, at, situation, upstream: upstream.0, permitted, now });
        }
    }
    // The decisions that were not read: beyond the bound, or removed from history.
    replay.reached = full.or(if reached.short().is_some() { oldest } else { None });
    Ok(replay)
}
