//! Records for people and programs: the event in words, and its content as JSON. Ids have their usual form, digests are hexadecimal, empty
//! fields are omitted.

use serde_json::{Map, Value, json};

use mayfly_ledger::record::*;
use mayfly_ledger::revocation::Target;
use mayfly_verify::seq::{ApprovalId, CredentialId, LeaseId, Millis, TaskId};

pub use mayfly_ledger::record::event_name as name;

/// The content of a record. Texts of policies, registrations, bindings and bundles are replaced by their digests.
pub fn json(record: &Record) -> Value {
    let mut body = record.event.as_ref().map_or(Value::Null, event);
    if let (Value::Object(members), Some(request)) = (&mut body, &record.request) {
        members.insert("request".into(), json!({ "caller": record.requester(), "id": request.id }));
    }
    if let Value::Object(members) = &mut body {
        members.insert("trace".into(), hex(&record.trace).into());
    }
    if let (Value::Object(members), true) = (&mut body, record.revision > 0) {
        members.insert("decision_revision".into(), record.revision.into());
    }
    without_empty(body)
}

fn without_empty(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let kept = members.into_iter().map(|(k, v)| (k, without_empty(v)));
            Value::Object(kept.filter(|(_, v)| !is_empty(v)).collect::<Map<_, _>>())
        }
        other => other,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

fn time(ms: u64) -> String {
    if ms == 0 || ms == u64::MAX { String::new() } else { Millis(ms).to_string() }
}

fn task(bytes: &[u8]) -> String {
    TaskId::from_slice(bytes).map_or_else(String::new, |id| id.to_string())
}

fn credential(bytes: &[u8]) -> String {
    CredentialId::from_slice(bytes).map_or_else(String::new, |id| id.to_string())
}

fn lease(bytes: &[u8]) -> String {
    LeaseId::from_slice(bytes).map_or_else(String::new, |id| id.to_string())
}

fn approval(bytes: &[u8]) -> String {
    ApprovalId::from_slice(bytes).map_or_else(String::new, |id| id.to_string())
}

fn who(identity: &Principal) -> Value {
    json!({ "issuer": identity.issuer, "sub": identity.sub })
}

fn svid(evidence: Option<&SvidEvidence>) -> Value {
    evidence.map_or(Value::Null, |e| {
        json!({
            "trust_anchor": hex(&e.anchor), "issuing_key": hex(&e.issuing_key), "serial": hex(&e.serial), "not_after": time(e.not_after),
        })
    })
}

fn targets(of: &[TargetRecord]) -> Value {
    of.iter().map(|t| Target::from_record(t).map_or_else(|e| e.to_string(), |t| t.to_string())).collect()
}

fn event(event: &Event) -> Value {
    match event {
        Event::GenerationBegun(e) => json!({
            "generation": e.generation, "cause": e.cause, "store": hex(&e.store), "after": e.after, "reset_time": e.reset_time,
        }),
        Event::TaskOpened(e) => opened(e),
        Event::TaskClosed(e) => json!({
            "task": task(&e.task), "outcome": text(TaskOutcome::try_from(e.outcome)), "reason": e.reason, "kept_until": time(e.keep_until),
        }),
        Event::TaskHeld(e) => json!({ "task": task(&e.task), "rank": text(HoldRank::try_from(e.rank)), "reason": e.reason }),
        Event::TaskResumed(e) => json!({ "task": task(&e.task), "rank": text(HoldRank::try_from(e.rank)), "reason": e.reason }),
        Event::TaskExtended(e) => json!({
            "task": task(&e.task), "deadline": time(e.deadline), "decided_at": time(e.decided_at), "policy_version": e.policy_version,
            "approval": approval(&e.approval), "caller": e.caller,
        }),
        Event::TaskHeartbeats(e) => json!({ "tasks": e.tasks.len(), "all": e.all, "away_since": time(e.away_since) }),
        Event::Issued(e) => issued(e),
        Event::Released(e) => json!({ "credential": credential(&e.credential), "kept_until": time(e.keep_until) }),
        Event::Authorized(e) => json!({
            "credential": credential(&e.credential), "tool": e.tool, "arguments_sha256": hex(&e.arguments), "policy_version": e.policy_version,
            "decided": e.decided.as_deref().map(issued), "good_until": time(e.good_until),
        }),
        Event::UsesReported(e) => json!({
            "credential": credential(&e.credential), "tool": e.tool, "outcome": e.outcome, "minute": time(e.minute), "count": e.count,
            "task": task(&e.task), "upstream": e.upstream, "undeclared": e.undeclared, "after_end": e.after_end,
        }),
        Event::Refused(e) => json!({
            "caller": e.caller, "reason": e.reason, "rule": e.rule, "asked": e.asked, "task": e.task, "since": time(e.since), "count": e.count,
            "break_glass": e.break_glass,
            "wanted": e.wanted.as_ref().map(|w| json!({
                "environment": w.environment, "upstream": w.upstream, "upstream_version": w.upstream_version,
                "policy_version": w.policy_version, "task": task(&w.task), "kind": w.kind, "scopes": w.scopes, "tool": w.tool,
                "purpose": w.purpose, "arguments_sha256": hex(&w.arguments), "ttl_ms": w.ttl, "renewal": w.renewal, "binding": w.binding, "authorization_details": w.details,
                "subject": w.subject.as_ref().map(who), "actors": w.actors.iter().map(who).collect::<Vec<_>>(),
                "subject_claims": subject_claims(w.subject_claims.as_ref()),
            })),
        }),
        Event::Revoked(e) => json!({
            "targets": targets(&e.targets), "issued_only": e.issued_only, "lock_only": e.lock_only, "reason": e.reason,
            "kept_until": time(e.keep_until),
        }),
        Event::LockLifted(e) => json!({ "targets": targets(&e.targets), "reason": e.reason }),
        other => registry(other),
    }
}

fn asked(e: &ApprovalRequested) -> Value {
    json!({
        "approval": approval(&e.approval), "of": text(ApprovalKind::try_from(e.of)), "request_sha256": hex(&e.digest), "caller": e.caller,
        "subject": e.subject.as_ref().map(who), "actors": e.actors.iter().map(who).collect::<Vec<_>>(), "task": task(&e.task),
        "opens_task": e.opens, "upstream": e.upstream, "upstream_version": e.upstream_version, "environment": e.environment,
        "binding": e.binding, "binding_version": e.binding_version, "scopes": e.scopes, "kind": e.kind, "ttl_ms": e.ttl, "tool": e.tool,
        "arguments_sha256": hex(&e.arguments), "purpose": e.purpose, "details": e.details,
        "approvers": e.approvers.iter().map(who).collect::<Vec<_>>(), "policies": e.policies,
        "change": e.change.as_ref().and_then(ProposedChangeRecord::event).as_ref().map(registry), "reason": e.reason, "expires_at": time(e.expires_at),
        "terms": e.terms.as_deref().map(task_asked),
    })
}

fn task_asked(e: &RequestedTask) -> Value {
    let allowance = e.allowance.clone().unwrap_or_default();
    let upstreams = allowance.upstreams.iter().map(|u| json!({ "upstream": u.name, "scopes": u.scopes }));
    let asks = e.registrations.iter().map(|r| json!({ "upstream": r.upstream, "version": r.version }));
    json!({
        "parent": task(&e.parent), "owner": e.owner.as_ref().map(who), "callers": e.callers, "purpose": e.purpose,
        "upstreams": upstreams.collect::<Vec<_>>(), "tools": allowance.tools, "any_tool": allowance.any_tool, "kinds": allowance.kinds,
        "key_bound": allowance.key_bound, "ttl_ms": e.ttl, "max_ttl_ms": e.max_ttl, "heartbeat_ms": e.heartbeat,
        "asked_for_by": asks.collect::<Vec<_>>(), "deadline": time(e.deadline),
    })
}

fn registry(event: &Event) -> Value {
    match event {
        Event::PolicySet(e) => json!({
            "environment": e.environment, "version": e.version, "sha256": hex(&e.digest), "audit_only": e.audit_only,
        }),
        Event::UpstreamSet(e) => json!({
            "upstream": e.name, "version": e.version, "sha256": hex(&e.digest), "disabled": e.disabled, "retired": e.retired,
        }),
        Event::BindingSet(e) => {
            json!({ "binding": e.name, "version": e.version, "sha256": hex(&e.digest), "pending": e.pending })
        }
        Event::Narrowed(e) => json!({ "what": text(NarrowedKind::try_from(e.what)), "name": e.name, "version": e.version }),
        Event::PolicyDiffered(e) => json!({
            "environment": e.environment, "version": e.version, "enforced": e.enforced, "caller": e.caller, "action": e.action,
            "upstream": e.upstream, "would_permit": e.permits, "policies": e.policies, "since": time(e.since), "count": e.count,
        }),
        Event::OwnerLeft(e) => json!({ "owner": e.owner, "reason": e.reason }),
        Event::BundleSet(e) => json!({
            "trust_domain": e.trust_domain, "sequence": e.sequence, "sha256": hex(&e.digest), "source": e.source, "removed": e.removed,
            "trust_anchors": hexes(&e.anchors), "kept_out": hexes(&e.kept_out), "kept_in": hexes(&e.kept_in),
            "reason": e.reason, "added": hexes(&e.added), "gone": hexes(&e.gone),
        }),
        Event::KeyAdded(e) => json!({
            "key": e.key, "purpose": text(KeyPurpose::try_from(e.purpose)), "algorithm": e.algorithm, "environment": e.environment,
            "state": text(KeyState::try_from(e.state)), "publish_ahead_ms": e.publish_ahead,
        }),
        Event::KeyChanged(e) => json!({ "key": e.key, "state": text(KeyState::try_from(e.state)), "reason": e.reason }),
        Event::BreakGlass(e) => json!({
            "task": task(&e.task), "people": e.people.iter().map(who).collect::<Vec<_>>(), "reviewer": e.reviewer.as_ref().map(who),
            "text": e.text, "rights": e.rights, "step": text(BreakGlassStep::try_from(e.step)), "caller": e.caller,
            "policy_version": e.policy_version, "decided_at": time(e.decided_at), "environment": e.environment, "svid": svid(e.svid.as_ref()),
            "ancestor": credential(&e.ancestor),
        }),
        Event::ApprovalAsked(e) => asked(e),
        Event::ApprovalDecided(e) => json!({
            "approval": approval(&e.approval), "given": e.given, "reason": e.reason, "request_sha256": hex(&e.digest),
            "login": credential(&e.login),
        }),
        Event::UsedOnce(e) => json!({ "sha256": hex(&e.digest), "until": time(e.until), "approval": approval(&e.approval) }),
        Event::LeaseOpened(e) => json!({
            "lease": lease(&e.lease), "credential": credential(&e.credential), "task": task(&e.task), "upstream": e.upstream,
            "kind": e.kind, "handle": e.handle, "ends_at": time(e.ends_at), "terms": e.terms,
        }),
        Event::LeaseClosed(e) => json!({ "lease": lease(&e.lease), "end": text(LeaseEnd::try_from(e.end)), "detail": e.detail }),
        Event::SecretStored(e) => json!({
            "upstream": e.upstream, "environment": e.environment, "version": e.version, "target": e.target, "keyed_digest": hex(&e.digest),
            "current": e.current, "ends_previous": e.ends_previous, "attempt": hex(&e.attempt),
        }),
        Event::SecretChanged(e) => json!({
            "upstream": e.upstream, "environment": e.environment, "version": e.version, "step": text(SecretStep::try_from(e.step)),
            "reason": e.reason, "attempt": hex(&e.attempt), "at_once": e.at_once,
        }),
        Event::FellDue(e) => json!({
            "of": text(DeadlineKind::try_from(e.of)), "approval": approval(&e.id), "upstream": e.name, "version": e.version, "at": time(e.at),
            "environment": e.environment, "owner": e.owner,
        }),
        Event::SnapshotTaken(e) => json!({ "seq": e.seq, "position": e.position, "sha256": hex(&e.digest) }),
        Event::Maintained(e) => json!({ "what": e.what }),
        Event::HistoryRemoved(e) => {
            let chain = |c: &WriterHeadRecord| json!({ "writer": c.writer, "commit": c.number, "header_sha256": hex(&c.header) });
            let chains: Vec<Value> = e.chains.iter().map(chain).collect();
            json!({ "before": e.before, "seq": e.seq, "bytes": e.bytes, "newest": time(e.time), "chains": chains })
        }
        Event::AuditRead(e) => json!({
            "of": text(AuditReadKind::try_from(e.of)), "asked": e.asked, "reads": e.reads, "returned": e.returned, "since": time(e.since),
        }),
        Event::BackedUp(e) => json!({ "to": e.to, "head": e.head, "whole": e.whole }),
        Event::LoggedIn(e) => logged_in(e),
        Event::LoggedOut(e) => json!({ "credential": credential(&e.credential) }),
        _ => Value::Null,
    }
}

fn logged_in(e: &LoggedIn) -> Value {
    json!({
        "credential": credential(&e.credential), "person": e.person.as_ref().map(who), "caller": e.caller, "provider": e.provider,
        "flow": e.flow, "amr": e.amr, "acr": e.acr, "auth_time": time(e.auth_time), "issued_at": time(e.issued_at),
        "expires_at": time(e.expires_at), "key": e.key, "svid": svid(e.svid.as_ref()), "certificate_sha256": hex(&e.certificate),
        "id_token": e.token.as_ref().map(|t| json!({ "issuer": t.issuer, "sha256": t.id, "expires_at": time(t.expires_at) })),
        "environment": e.environment, "policy_version": e.policy_version, "policies": e.policies,
        "job": e.job.as_ref().map(|job| json!({ "rule": job.rule, "id": job.id, "claims": job.claims })),
    })
}

fn hexes(of: &[Vec<u8>]) -> Vec<String> {
    of.iter().map(|bytes| hex(bytes)).collect()
}

fn text<T: std::fmt::Debug, E>(value: Result<T, E>) -> String {
    value.map_or_else(|_| "unknown".to_owned(), |v| format!("{v:?}").to_lowercase())
}

fn opened(e: &TaskOpened) -> Value {
    let allowance = e.allowance.clone().unwrap_or_default();
    let upstreams = allowance.upstreams.iter().map(|u| json!({ "upstream": u.name, "scopes": u.scopes }));
    json!({
        "task": task(&e.task), "parent": task(&e.parent), "owner": e.owner.as_ref().map(who), "opener": e.opener, "callers": e.callers,
        "environment": e.environment, "purpose": e.purpose, "upstreams": upstreams.collect::<Vec<_>>(), "tools": allowance.tools,
        "any_tool": allowance.any_tool, "kinds": allowance.kinds, "key_bound": allowance.key_bound, "opened_at": time(e.opened_at),
        "deadline": time(e.deadline), "max_deadline": time(e.max_deadline), "heartbeat_ms": e.heartbeat,
        "policy_version": e.policy_version, "svid": svid(e.svid.as_ref()), "approval": approval(&e.approval),
        "ancestor": credential(&e.ancestor), "ancestors": ancestors(&e.ancestors), "break_glass": e.break_glass, "subject_token": token(e.subject_token.as_ref()),
        "actors": e.actors.iter().map(who).collect::<Vec<_>>(), "subject_claims": subject_claims(e.subject_claims.as_ref()),
    })
}

fn ancestors(all: &[Ancestor]) -> Vec<Value> {
    all.iter().map(|a| json!({ "credential": credential(&a.credential), "caller": a.caller })).collect()
}

fn token(token: Option<&TokenEvidence>) -> Option<Value> {
    token.map(|t| json!({ "issuer": t.issuer, "id": t.id, "expires_at": time(t.expires_at) }))
}

fn subject_claims(claims: Option<&SubjectClaims>) -> Option<Value> {
    claims.map(|c| json!({ "groups": c.groups, "scopes": c.scopes }))
}

fn issued(e: &CredentialIssued) -> Value {
    let mut body = json!({
        "credential": credential(&e.credential), "task": task(&e.task), "kind": e.kind, "caller": e.caller,
        "subject": e.subject.as_ref().map(who), "actors": e.actors.iter().map(who).collect::<Vec<_>>(), "upstream": e.upstream,
        "scopes": e.scopes, "authorization_details": e.details, "tool": e.tool, "purpose": e.purpose,
        "arguments_sha256": hex(&e.arguments), "binding": e.binding, "environment": e.environment, "issued_at": time(e.issued_at),
        "expires_at": time(e.expires_at), "renewable_until": time(e.renewable_until), "bound": e.bound, "svid": svid(e.svid.as_ref()),
        "subject_token": token(e.subject_token.as_ref()), "ancestors": ancestors(&e.ancestors), "key": e.key,
    });
    let more = json!({
        "x5t": hex(&e.x5t), "jkt": hex(&e.jkt), "status_list": e.status_list, "status_index": e.status_index,
        "policy_version": e.policy_version, "upstream_version": e.upstream_version, "binding_version": e.binding_version,
        "approval": approval(&e.approval), "lease": lease(&e.lease), "token_sha256": hex(&e.token_digest), "policies": e.policies,
        "renews": credential(&e.renews), "shown": credential(&e.shown),
        "replaces": credential(&e.replaces), "subject_claims": subject_claims(e.subject_claims.as_ref()),
        "break_glass": e.break_glass, "access": e.access,
    });
    if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
        body.extend(more);
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_told_in_written_ids_and_without_what_is_empty() {
        let held = TaskHeld { task: vec![1; 16], rank: HoldRank::Operator as i32, reason: "look".into() };
        let record = Record::new(Author::LocalUid(0), Event::TaskHeld(held));
        assert_eq!(
            json(&record),
            json!({ "task": TaskId::from_bytes([1; 16]).to_string(), "rank": "operator", "reason": "look" })
        );
        let request = RequestRecord { caller: "c".into(), id: "r".into(), digest: vec![0; 32] };
        let set = Event::BundleSet(BundleUpdated { trust_domain: "a".into(), anchors: vec![vec![1]], ..Default::default() });
        let record = Record::new(Author::LocalUid(0), set).for_request(Some(request));
        assert_eq!(
            json(&record),
            json!({ "trust_domain": "a", "trust_anchors": ["01"], "request": { "caller": "c", "id": "r" } })
        );
    }
}
