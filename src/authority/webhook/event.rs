//! Converts records to events.

use serde_json::{Map, Value, json};

use super::EventEnvironment;
use crate::revocation::revoke::RevocationHits;
use mayfly_base::document::terminal_text::stripped;
use mayfly_base::limits;
use mayfly_ledger::State;
use mayfly_ledger::record::*;
use mayfly_ledger::revocation::Target;
use mayfly_ledger::state::{Approval, BreakGlassTask};
use mayfly_verify::seq::{ApprovalId, CredentialId, Millis, Seq, TaskId};

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct WebhookEvent {
    /// The type of the event.
    pub kind: &'static str,
    /// The environment of the event.
    pub of: EventEnvironment,
    /// The data of the event.
    data: Map<String, Value>,
}

impl WebhookEvent {
    fn new(kind: &'static str, of: EventEnvironment, data: Value) -> WebhookEvent {
        let data = match data {
            Value::Object(data) => data,
            _ => Map::new(),
        };
        WebhookEvent { kind, of, data }
    }

    /// Adds the hits of a revocation: the same numbers that the operator got.
    pub fn hit(&mut self, hits: &RevocationHits) {
        let RevocationHits { credentials, tasks, tasks_ended, callers, at_upstreams: _ } = *hits;
        let hits = json!({ "credentials": credentials, "tasks": tasks, "tasks_ended": tasks_ended, "callers": callers });
        self.data.insert("hits".to_owned(), hits);
    }

    /// The body that is posted: type, time and data, without characters that act on a terminal. A body beyond `limits::WEBHOOK_BODY_BYTES`
    /// names the record only, and refers to the audit log.
    pub fn body(&self, seq: Seq, at: Millis) -> String {
        let with = |mut data: Map<String, Value>| {
            data.insert("seq".into(), seq.as_u64().into());
            if let EventEnvironment::In(environment) = &self.of {
                data.insert("environment".into(), Value::String(stripped(environment)));
            }
            json!({ "type": self.kind, "timestamp": at.to_string(), "data": data }).to_string()
        };
        let whole = with(self.data.iter().map(|(key, value)| (key.clone(), clean(value))).collect());
        if whole.len() <= limits::WEBHOOK_BODY_BYTES {
            return whole;
        }
        with(Map::from_iter([("truncated".to_owned(), Value::Bool(true))]))
    }
}

/// The value, with characters that act on a terminal removed from its texts.
fn clean(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(stripped(text)),
        Value::Array(all) => Value::Array(all.iter().map(clean).collect()),
        Value::Object(all) => Value::Object(all.iter().map(|(key, value)| (key.clone(), clean(value))).collect()),
        other => other.clone(),
    }
}

fn who(identity: &Principal) -> String {
    identity.name()
}

fn author(record: &Record) -> String {
    record.author.as_ref().and_then(|a| a.who.as_ref()).map_or_else(String::new, Author::name)
}

fn time(ms: u64) -> String {
    Millis(ms).to_string()
}

/// The environment of that name. An event without one, like a change of trust, concerns all environments.
fn place(environment: &str) -> EventEnvironment {
    if environment.is_empty() { EventEnvironment::Everywhere } else { EventEnvironment::In(environment.to_owned()) }
}

fn trust(e: &BundleUpdated, record: &Record) -> WebhookEvent {
    let hexes = |all: &[Vec<u8>]| all.iter().map(|id| hex(id)).collect::<Vec<_>>();
    let data = json!({
        "trust_domain": e.trust_domain, "added": hexes(&e.added), "gone": hexes(&e.gone), "trust_anchors": hexes(&e.anchors),
        "removed": e.removed, "source": e.source, "reason": e.reason, "by": author(record),
    });
    WebhookEvent::new("trust.changed", EventEnvironment::Everywhere, data)
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

fn task_text(bytes: &[u8]) -> String {
    TaskId::from_slice(bytes).map_or_else(String::new, |id| id.to_string())
}

/// Whether a record can be an event; checked before the record is converted. Does not depend on anything specific to one issuance.
pub fn may_be_event(record: &Record) -> bool {
    match &record.event {
        Some(Event::Issued(e)) => e.break_glass,
        Some(Event::Authorized(e)) => e.decided.as_deref().is_some_and(|decided| decided.break_glass),
        Some(Event::Refused(e)) => e.break_glass,
        Some(Event::TaskHeld(e)) => HoldRank::try_from(e.rank) == Ok(HoldRank::Policy),
        Some(
            Event::ApprovalAsked(_)
            | Event::ApprovalDecided(_)
            | Event::BreakGlass(_)
            | Event::TaskClosed(_)
            | Event::Revoked(_)
            | Event::LockLifted(_)
            | Event::OwnerLeft(_)
            | Event::BundleSet(_)
            | Event::PolicySet(_)
            | Event::UpstreamSet(_)
            | Event::BindingSet(_)
            | Event::KeyAdded(_)
            | Event::KeyChanged(_)
            | Event::SecretStored(_)
            | Event::SecretChanged(_)
            | Event::LoggedIn(_)
            | Event::GenerationBegun(_)
            | Event::BackedUp(_)
            | Event::FellDue(_),
        ) => true,
        // Single searches are not sent to webhooks, since there are many; exports and tails of the audit are.
        Some(Event::AuditRead(e)) => {
            matches!(AuditReadKind::try_from(e.of), Ok(AuditReadKind::Export | AuditReadKind::Tail)) && e.reads > 0
        }
        _ => false,
    }
}

/// The event of a record, if it is one.
pub fn webhook_event(record: &Record, state: &State) -> Option<WebhookEvent> {
    match record.event.as_ref().filter(|_| may_be_event(record))? {
        Event::ApprovalAsked(e) => Some(asked(e)),
        Event::ApprovalDecided(e) => Some(decided(e, record, state)),
        Event::BreakGlass(e) => break_glass(e),
        Event::Issued(e) => Some(used(e, state)),
        Event::Authorized(e) => e.decided.as_deref().map(|decided| authorized(e, decided, state)),
        Event::Refused(e) => Some(refused(e, state)),
        Event::TaskClosed(e) => closed(e, record, state),
        Event::TaskHeld(e) => Some(held(e, state)),
        Event::Revoked(e) => Some(revoked(e, record, state)),
        Event::LockLifted(e) => {
            let data = json!({ "targets": targets(&e.targets), "reason": e.reason, "by": author(record) });
            Some(WebhookEvent::new("lock.lifted", place_of(&e.targets, state), data))
        }
        Event::OwnerLeft(e) if !e.returned => {
            let data = json!({ "owner": e.owner, "reason": e.reason, "by": author(record) });
            Some(WebhookEvent::new("owner.left", EventEnvironment::Everywhere, data))
        }
        Event::BundleSet(e) => Some(trust(e, record)),
        Event::PolicySet(e) => Some(policy(e, record)),
        Event::UpstreamSet(e) => Some(registration(e, record, state)),
        Event::BindingSet(e) => Some(binding(e, record)),
        Event::KeyAdded(e) => Some(key_added(e, record)),
        Event::KeyChanged(e) => {
            let data = json!({ "key": e.key, "state": key_state(e.state), "reason": e.reason, "by": author(record) });
            Some(WebhookEvent::new("key.changed", EventEnvironment::Everywhere, data))
        }
        Event::SecretStored(e) => {
            let data = json!({ "upstream": e.upstream, "version": e.version, "step": "stored", "current": e.current, "by": author(record) });
            Some(WebhookEvent::new("secret.changed", place(&e.environment), data))
        }
        Event::SecretChanged(e) => {
            let step = SecretStep::try_from(e.step).map_or_else(|_| String::new(), |step| format!("{step:?}").to_lowercase());
            let data =
                json!({ "upstream": e.upstream, "version": e.version, "step": step, "reason": e.reason, "by": author(record) });
            Some(WebhookEvent::new("secret.changed", place(&e.environment), data))
        }
        Event::LoggedIn(e) => Some(logged_in(e)),
        Event::GenerationBegun(e) => {
            let data = json!({ "generation": e.generation, "cause": e.cause, "after": e.after, "reset_time": e.reset_time });
            Some(WebhookEvent::new("generation.begun", EventEnvironment::Everywhere, data))
        }
        Event::FellDue(e) => fell_due(e, state),
        Event::AuditRead(e) => {
            let of = if e.of() == AuditReadKind::Tail { "tail" } else { "export" };
            let data = json!({ "of": of, "asked": e.asked, "reads": e.reads, "by": author(record) });
            // The question can name objects of any environment.
            Some(WebhookEvent::new("audit.exported", EventEnvironment::Unknown, data))
        }
        Event::BackedUp(e) => {
            let data = json!({ "to": e.to, "head": e.head, "by": author(record) });
            Some(WebhookEvent::new(if e.whole { "backup.taken" } else { "backup.begun" }, EventEnvironment::Everywhere, data))
        }
        _ => None,
    }
}

/// The text of the set is left out, since it may have 256 KiB; `mayfly policy show` prints it.
fn policy(e: &PolicySetUpdated, record: &Record) -> WebhookEvent {
    let data = json!({
        "version": e.version, "sha256": hex(&e.digest), "audit_only": e.audit_only, "by": author(record),
    });
    WebhookEvent::new("policy.changed", place(&e.environment), data)
}

fn registration(e: &UpstreamUpdated, record: &Record, state: &State) -> WebhookEvent {
    let of = state.upstreams.get(e.name.as_str()).and_then(|version| version.claims.as_ref());
    let of = of.map_or(EventEnvironment::Everywhere, |claims| EventEnvironment::In(claims.environment.to_string()));
    let now = match (e.retired, e.disabled) {
        (true, _) => "retired",
        (_, true) => "disabled",
        _ => "active",
    };
    let data = json!({ "upstream": e.name, "version": e.version, "state": now, "sha256": hex(&e.digest), "by": author(record) });
    WebhookEvent::new("upstream.changed", of, data)
}

fn binding(e: &BindingUpdated, record: &Record) -> WebhookEvent {
    let data = json!({
        "binding": e.name, "version": e.version, "pending": e.pending, "by": author(record),
    });
    WebhookEvent::new("binding.changed", EventEnvironment::Everywhere, data)
}

fn key_added(e: &KeyAdded, record: &Record) -> WebhookEvent {
    let purpose = KeyPurpose::try_from(e.purpose).map_or_else(|_| String::new(), |purpose| format!("{purpose:?}"));
    let data = json!({
        "key": e.key, "purpose": purpose, "algorithm": e.algorithm, "state": key_state(e.state), "by": author(record),
    });
    WebhookEvent::new("key.changed", place(e.purpose().environment_of(&e.environment)), data)
}

fn key_state(state: i32) -> String {
    KeyState::try_from(state).map_or_else(|_| String::new(), |state| format!("{state:?}").to_lowercase())
}

fn logged_in(e: &LoggedIn) -> WebhookEvent {
    let data = json!({
        "login": CredentialId::from_slice(&e.credential).map(|id| id.to_string()), "spiffe_id": e.caller,
        "subject": e.person.as_ref().map(who), "provider": e.provider, "flow": e.flow, "amr": e.amr,
        "rule": e.job.as_ref().map(|job| job.rule.clone()), "expires_at": time(e.expires_at),
    });
    WebhookEvent::new("login", place(&e.environment), data)
}

fn asked(e: &ApprovalRequested) -> WebhookEvent {
    let data = json!({
        "approval": ApprovalId::from_slice(&e.approval).map(|id| id.to_string()),
        "of": match e.of() {
            ApprovalKind::Exchange => "exchange",
            ApprovalKind::Task => "task",
            ApprovalKind::Extension => "extension",
            ApprovalKind::Change => "change",
            ApprovalKind::Action => "action",
            ApprovalKind::Call => "call",
            ApprovalKind::Unspecified => "",
        },
        "caller": e.caller, "upstream": e.upstream, "scopes": e.scopes, "tool": e.tool, "purpose": e.purpose, "task": task_text(&e.task),
        "arguments_sha256": hex(&e.arguments), "request_sha256": hex(&e.digest), "expires_at": time(e.expires_at), "reason": e.reason,
        "approvers": e.approvers.iter().map(who).collect::<Vec<_>>(),
        "governs": if matches!(e.of(), ApprovalKind::Change | ApprovalKind::Call) { e.policies.clone() } else { Vec::new() },
        "opens_task": e.opens, "terms": e.terms.as_deref().map(terms),
    });
    WebhookEvent::new("approval.asked", place(&e.environment), data)
}

/// A summary of a task for people.
fn terms(e: &RequestedTask) -> Value {
    let allowance = e.allowance.clone().unwrap_or_default();
    let upstreams = allowance.upstreams.iter().map(|u| json!({ "upstream": u.name, "scopes": u.scopes }));
    json!({
        "purpose": e.purpose, "owner": e.owner.as_ref().map(who), "callers": e.callers, "upstreams": upstreams.collect::<Vec<_>>(),
        "tools": allowance.tools, "any_tool": allowance.any_tool, "ttl_ms": e.ttl, "max_ttl_ms": e.max_ttl,
        "deadline": if e.deadline > 0 { time(e.deadline) } else { String::new() },
    })
}

fn of_approval(state: &State, id: &[u8]) -> (EventEnvironment, Value) {
    let id = ApprovalId::from_slice(id);
    let known: Option<&Approval> = id.and_then(|id| state.approvals.get(&id));
    let of = known.map_or(EventEnvironment::Unknown, |a| place(&a.asked.environment));
    let data = json!({
        "approval": id.map(|id| id.to_string()),
        "caller": known.map(|a| a.asked.caller.clone()),
        "upstream": known.map(|a| a.asked.upstream.clone()),
        "scopes": known.map(|a| a.asked.scopes.clone()),
        "tool": known.map(|a| a.asked.tool.clone()),
    });
    (of, data)
}

fn decided(e: &ApprovalDecided, record: &Record, state: &State) -> WebhookEvent {
    let (of, data) = of_approval(state, &e.approval);
    let mut told = WebhookEvent::new(if e.given { "approval.given" } else { "approval.refused" }, of, data);
    told.data.insert("by".into(), author(record).into());
    told.data.insert("reason".into(), e.reason.clone().into());
    told
}

fn break_glass(e: &BreakGlassStepTaken) -> Option<WebhookEvent> {
    let kind = match BreakGlassStep::try_from(e.step) {
        Ok(BreakGlassStep::Opened) => "break_glass.opened",
        Ok(BreakGlassStep::Joined) => "break_glass.joined",
        Ok(BreakGlassStep::Reviewed) => "break_glass.reviewed",
        Ok(BreakGlassStep::Unspecified) | Err(_) => return None,
    };
    let data = json!({
        "task": task_text(&e.task), "rights": e.rights, "people": e.people.iter().map(who).collect::<Vec<_>>(),
        "reviewer": e.reviewer.as_ref().map(who), "text": e.text,
    });
    Some(WebhookEvent::new(kind, EventEnvironment::In(e.environment.clone()), data))
}

/// The person of a break-glass task who acts with this SPIFFE ID.
fn person_of(state: &State, task: Option<TaskId>, caller: &str) -> String {
    let root = task.map(|id| state.tasks.get(&id).and_then(|t| t.terms.path.first().copied()).unwrap_or(id));
    let break_glass = root.and_then(|root| state.break_glass_tasks.get(&root));
    let party = break_glass.and_then(|g| g.people.iter().find(|p| *p.caller == *caller));
    party.map_or_else(|| caller.to_owned(), |party| party.who.name())
}

fn used(e: &CredentialIssued, state: &State) -> WebhookEvent {
    let data = json!({
        "task": task_text(&e.task), "credential": CredentialId::from_slice(&e.credential).map(|id| id.to_string()), "caller": e.caller,
        "upstream": e.upstream, "scopes": e.scopes, "tool": e.tool, "purpose": e.purpose, "expires_at": time(e.expires_at),
        "by": person_of(state, TaskId::from_slice(&e.task), &e.caller),
    });
    WebhookEvent::new("break_glass.used", EventEnvironment::In(e.environment.clone()), data)
}

/// An authorization without issuance: the credential is the presented one, if there was one.
fn authorized(e: &ActionAuthorized, decided: &CredentialIssued, state: &State) -> WebhookEvent {
    let mut told = used(decided, state);
    told.data.insert("credential".into(), CredentialId::from_slice(&e.credential).map(|id| id.to_string()).into());
    told.data.insert("expires_at".into(), time(e.good_until).into());
    told.data.insert("authorized_only".into(), true.into());
    told
}

fn of_task(state: &State, id: Option<TaskId>) -> EventEnvironment {
    let Some(id) = id else { return EventEnvironment::Unknown };
    let task = || state.tasks.get(&id).map(|t| t.terms.environment.to_string());
    let known = state.break_glass_tasks.get(&id).map(|g| g.environment.to_string()).or_else(task);
    known.map_or(EventEnvironment::Unknown, EventEnvironment::In)
}

fn refused(e: &RequestsRefused, state: &State) -> WebhookEvent {
    let data = json!({
        "task": e.task, "caller": e.caller, "reason": e.reason, "rule": e.rule, "asked": e.asked,
        "scopes": e.wanted.as_ref().map(|w| w.scopes.clone()), "tool": e.wanted.as_ref().map(|w| w.tool.clone()),
        "by": person_of(state, e.task.parse().ok(), &e.caller),
    });
    let known = e.wanted.as_ref().map(|w| EventEnvironment::In(w.environment.clone()));
    WebhookEvent::new("break_glass.refused", known.unwrap_or_else(|| of_task(state, e.task.parse().ok())), data)
}

fn closed(e: &TaskClosed, record: &Record, state: &State) -> Option<WebhookEvent> {
    let break_glass = TaskId::from_slice(&e.task).and_then(|id| state.break_glass_tasks.get(&id))?;
    let outcome = TaskOutcome::try_from(e.outcome).map_or_else(|_| String::new(), |o| format!("{o:?}").to_lowercase());
    Some(ended(break_glass, task_text(&e.task), &outcome, &e.reason, record))
}

fn ended(break_glass: &BreakGlassTask, task: String, outcome: &str, reason: &str, record: &Record) -> WebhookEvent {
    let data = json!({
        "task": task, "rights": *break_glass.rights, "people": break_glass.people.iter().map(|p| who(&p.who)).collect::<Vec<_>>(),
        "outcome": outcome, "reason": reason, "by": author(record), "unreviewed": break_glass.joined() && break_glass.review.is_none(),
    });
    WebhookEvent::new("break_glass.closed", EventEnvironment::In(break_glass.environment.to_string()), data)
}

fn held(e: &TaskHeld, state: &State) -> WebhookEvent {
    let id = TaskId::from_slice(&e.task);
    let task = id.and_then(|id| state.tasks.get(&id));
    let data = json!({
        "task": task_text(&e.task), "reason": e.reason, "owner": task.and_then(|t| t.terms.owners.last().map(who)),
        "purpose": task.map(|t| t.terms.purpose.to_string()),
    });
    WebhookEvent::new("task.held", of_task(state, id), data)
}

fn targets(targets: &[TargetRecord]) -> Vec<String> {
    targets.iter().filter_map(|t| Target::from_record(t).ok()).map(|t| t.to_string()).collect()
}

/// The environment of the revoked targets, if all belong to one.
fn place_of(targets: &[TargetRecord], state: &State) -> EventEnvironment {
    let of = |target: &TargetRecord| match target.aim.as_ref() {
        Some(RecordedTarget::Environment(name)) => Some(name.clone()),
        Some(RecordedTarget::PolicyBelow(of)) => Some(of.environment.clone()),
        Some(RecordedTarget::Upstream(name)) => {
            state.upstreams.get(name.as_str())?.claims.as_ref().map(|c| c.environment.to_string())
        }
        Some(RecordedTarget::UpstreamScope(of)) => {
            state.upstreams.get(of.issuer.as_str())?.claims.as_ref().map(|c| c.environment.to_string())
        }
        Some(RecordedTarget::Credential(id)) => {
            let live = CredentialId::from_slice(id).and_then(|id| state.credentials.get(&id))?;
            state.tasks.at(live.task()).map(|t| t.terms.environment.to_string())
        }
        Some(RecordedTarget::Task(id)) => {
            TaskId::from_slice(id).and_then(|id| state.tasks.get(&id)).map(|t| t.terms.environment.to_string())
        }
        _ => None,
    };
    let mut all = targets.iter().map(of);
    match all.next() {
        Some(Some(first)) if all.all(|other| other.as_ref() == Some(&first)) => EventEnvironment::In(first),
        _ => EventEnvironment::Everywhere,
    }
}

fn revoked(e: &TargetsRevoked, record: &Record, state: &State) -> WebhookEvent {
    // A revocation that closed a break-glass task is reported as that.
    let task = e.targets.iter().find_map(|t| match &t.aim {
        Some(RecordedTarget::Task(id)) => TaskId::from_slice(id).and_then(|id| Some((id, state.break_glass_tasks.get(&id)?))),
        _ => None,
    });
    if let (Some((id, break_glass)), false, 1) = (task, e.lock_only, e.targets.len()) {
        return ended(break_glass, id.to_string(), "revoked", &e.reason, record);
    }
    let data = json!({
        "targets": targets(&e.targets), "reason": e.reason, "by": author(record), "issued_only": e.issued_only,
    });
    WebhookEvent::new(if e.lock_only { "lock.added" } else { "revoked" }, place_of(&e.targets, state), data)
}

fn fell_due(e: &DeadlineReached, state: &State) -> Option<WebhookEvent> {
    match DeadlineKind::try_from(e.of) {
        Ok(DeadlineKind::Approval) => {
            let (of, data) = of_approval(state, &e.id);
            let of = if e.environment.is_empty() { of } else { EventEnvironment::In(e.environment.clone()) };
            let mut told = WebhookEvent::new("approval.expired", of, data);
            told.data.insert("expired_at".into(), time(e.at).into());
            Some(told)
        }
        Ok(DeadlineKind::Upstream) => {
            let data = json!({ "upstream": e.name, "version": e.version, "expires_at": time(e.at), "owner": e.owner });
            Some(WebhookEvent::new("upstream.expiring", EventEnvironment::In(e.environment.clone()), data))
        }
        Ok(DeadlineKind::Unspecified) | Err(_) => None,
    }
}
