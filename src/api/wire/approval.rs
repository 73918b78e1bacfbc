//! Approvals on the wire.

use bytes::Bytes;

use super::{
    anchor_to_pb, binding_version_to_pb, duration, identity_of_who, identity_to_pb, policy_to_pb, subject_to_pb, timestamp,
    upstream_to_pb,
};
use mayfly_authority::registry::bindings::bound;
use mayfly_authority::registry::registrations::registered;
use mayfly_base::document::terminal_text::stripped;
use mayfly_base::refusal::Fault;
use mayfly_identity::bundle::Bundle;
use mayfly_identity::spiffe_id::TrustDomain;
use mayfly_ledger::State;
use mayfly_ledger::record::{ApprovalKind, ApprovalRequested, Author, BundleUpdated, Principal, ProposedChange, RequestedTask};
use mayfly_ledger::state::{Approval, DocumentVersion, TaskPhase};
use mayfly_proto::mayfly::v1 as pb;
use mayfly_verify::seq::{ApprovalId, Millis, Seq, TaskId};

/// The state of an approval at a moment. An approval for a task that has ended cannot be used any more.
pub fn approval_state(state: &State, approval: &Approval, now: Millis) -> pb::ApprovalState {
    let over = || {
        let task = TaskId::from_slice(&approval.asked.task);
        task.is_some_and(|id| state.tasks.get(&id).is_none_or(|t| matches!(state.tasks.phase(t, now), TaskPhase::Over(_))))
    };
    match &approval.decided {
        _ if approval.used => pb::ApprovalState::Used,
        Some(d) if !d.given => pb::ApprovalState::Refused,
        _ if approval.expires_at() <= now || over() => pb::ApprovalState::Ended,
        Some(_) => pb::ApprovalState::Given,
        None => pb::ApprovalState::Waiting,
    }
}

/// An approval at a moment, without the arguments and without the access, which the registry tells.
pub fn approval_to_pb(state: &State, id: ApprovalId, approval: &Approval, now: Millis) -> pb::Approval {
    let asked = &approval.asked;
    let task = TaskId::from_slice(&asked.task);
    // For a task that is no longer known, only its id is available.
    let path = match task.and_then(|id| state.tasks.get(&id)) {
        Some(task) => task.terms.path.iter().map(ToString::to_string).collect(),
        None => task.iter().map(ToString::to_string).collect(),
    };
    let decided = approval.decided.as_ref();
    pb::Approval {
        approval_id: id.to_string(),
        state: approval_state(state, approval, now).into(),
        request_sha256: Bytes::copy_from_slice(&asked.digest),
        caller: Some(identity_of_who(&Author::named(&asked.caller))),
        subject: asked.subject.as_ref().map(subject_to_pb),
        task_path: path,
        upstream: asked.upstream.clone(),
        scopes: asked.scopes.clone(),
        kind: i32::try_from(asked.kind).unwrap_or_default(),
        tool: stripped(&asked.tool),
        purpose: stripped(&asked.purpose),
        arguments_json: String::new(),
        asked_at: Some(timestamp(approval.asked_at)),
        expires_at: Some(timestamp(approval.expires_at())),
        decided_by: decided.and_then(|d| d.by.as_deref()).map(identity_of_who),
        seq: approval.seq.as_u64(),
        of: match asked.of() {
            ApprovalKind::Unspecified => pb::ApprovalOf::Unspecified,
            ApprovalKind::Exchange => pb::ApprovalOf::Exchange,
            ApprovalKind::Task => pb::ApprovalOf::Task,
            ApprovalKind::Extension => pb::ApprovalOf::Extension,
            ApprovalKind::Change => pb::ApprovalOf::Change,
            ApprovalKind::Action => pb::ApprovalOf::Action,
            ApprovalKind::Call => pb::ApprovalOf::Call,
        }
        .into(),
        environment: asked.environment.clone(),
        arguments_sha256: Bytes::copy_from_slice(&asked.arguments),
        ttl: Some(duration(asked.ttl)),
        approvers: asked.approvers.iter().map(approver).collect(),
        opens_task: asked.opens,
        reason: decided.map_or_else(String::new, |d| stripped(&d.reason)),
        decided_at: decided.map(|d| timestamp(d.at)),
        change: None,
        governs: match asked.of() {
            ApprovalKind::Change | ApprovalKind::Call => asked.policies.clone(),
            _ => Vec::new(),
        },
        asked_because: stripped(&asked.reason),
        task: asked.terms.as_deref().map(task_asked),
        access: Vec::new(),
    }
}

fn task_asked(terms: &RequestedTask) -> pb::ApprovalTask {
    let allowance = terms.allowance.clone().unwrap_or_default();
    let upstreams = allowance.upstreams.into_iter();
    pb::ApprovalTask {
        terms: Some(pb::TaskTerms {
            purpose: stripped(&terms.purpose),
            upstreams: upstreams.map(|u| pb::Allowance { upstream: u.name, scopes: u.scopes }).collect(),
            tools: allowance.tools.iter().map(|tool| stripped(tool)).collect(),
            any_tool: allowance.any_tool,
            kinds: allowance.kinds.iter().filter_map(|k| i32::try_from(*k).ok()).collect(),
            callers: terms.callers.clone(),
            key_bound: allowance.key_bound,
            ttl: Some(duration(terms.ttl)),
            max_ttl: Some(duration(terms.max_ttl)),
            heartbeat_interval: (terms.heartbeat > 0).then(|| duration(terms.heartbeat)),
            parent_task_id: TaskId::from_slice(&terms.parent).map_or_else(String::new, |id| id.to_string()),
        }),
        owner: terms.owner.as_ref().map(identity_to_pb),
        upstreams: terms.registrations.iter().map(|r| r.upstream.clone()).collect(),
        deadline: (terms.deadline > 0).then(|| timestamp(Millis(terms.deadline))),
    }
}

/// The change that an approval permits.
pub fn change_to_pb(asked: &ApprovalRequested, at: Millis) -> Result<Option<pb::ApprovalChange>, Fault> {
    let Some(change) = asked.change.as_ref().and_then(|c| c.to.as_ref()) else { return Ok(None) };
    // The version as if it took effect when it was asked for.
    let version = change.document().map(|document| {
        let by = Box::new(Author::named(&asked.caller));
        DocumentVersion::of(&document, (Seq::ZERO, at), Some(by))
    });
    let to = match (change, version) {
        (ProposedChange::Policy(set), Some(version)) => {
            pb::approval_change::To::Policy(policy_to_pb(&set.environment, set.audit_only, &version)?)
        }
        (ProposedChange::Binding(_), Some(version)) => {
            let environment = asked.environment.clone();
            pb::approval_change::To::Binding(binding_version_to_pb(&bound(&version)?, environment, &version))
        }
        (ProposedChange::Upstream(_), Some(version)) => {
            pb::approval_change::To::Upstream(upstream_to_pb(&registered(&version)?, &version))
        }
        (ProposedChange::Bundle(set), _) => pb::approval_change::To::Bundle(bundle_to_pb(set)?),
        (_, None) => return Err(Fault::new("a requested document without a version")),
    };
    Ok(Some(pb::ApprovalChange { to: Some(to) }))
}

/// A change of a bundle: the added roots with their certificates, the removed roots by digest.
fn bundle_to_pb(set: &BundleUpdated) -> Result<pb::ApprovalBundle, Fault> {
    let domain = TrustDomain::parse(&set.trust_domain).map_err(|e| Fault::new(format!("a trust domain in the ledger: {e}")))?;
    let bundle = Bundle::from_jwks(domain, &set.document).map_err(|e| Fault::new(format!("a bundle that was asked for {e}")))?;
    let fresh = bundle.x509_authorities().iter().filter(|a| set.added.iter().any(|id| id[..] == a.id().as_bytes()[..]));
    let named = |id: &Vec<u8>| pb::TrustAnchor { sha256: Bytes::copy_from_slice(id), ..pb::TrustAnchor::default() };
    Ok(pb::ApprovalBundle {
        trust_domain: set.trust_domain.clone(),
        added: fresh.map(anchor_to_pb).collect(),
        removed: set.gone.iter().map(named).collect(),
        spiffe_jwks: String::from_utf8_lossy(&set.document).into_owned(),
    })
}

fn approver(identity: &Principal) -> pb::Approver {
    use mayfly_proto::mayfly::v1::approver::Who as By;
    let who = match identity_to_pb(identity).identity {
        Some(pb::identity::Identity::SpiffeId(id)) => Some(By::SpiffeId(id)),
        Some(pb::identity::Identity::Person(person)) => Some(By::Person(person)),
        _ => None,
    };
    pb::Approver { who }
}
