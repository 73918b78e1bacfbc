//! Credentials on the wire: from memory, and complete ones from their records.

use bytes::Bytes;

use super::{subject_to_pb, timestamp};
use mayfly_credential::CredentialKind;
use mayfly_ledger::State;
use mayfly_ledger::record::{Ancestor, CredentialIssued, Principal, SvidEvidence, TaskOutcome};
use mayfly_ledger::revocation::Target;
use mayfly_ledger::state::{LiveCredential, Task, TaskPhase, facts_of_record, trust_domain_of};
use mayfly_proto::mayfly::v1 as pb;
use mayfly_verify::seq::{ApprovalId, CredentialId, LeaseId, Millis, Seq, TaskId};

/// The state of a credential in memory at `now`, and the record that ended it before its expiry.
pub fn credential_state(state: &State, live: &LiveCredential<'_>, now: Millis) -> (pb::CredentialState, Option<Seq>) {
    use mayfly_proto::mayfly::v1::CredentialState as S;
    // A credential keeps its task in memory; without a task the credential cannot be valid.
    let Some(task) = state.tasks.at(live.task()) else { return (S::TaskEnded, None) };
    let hit = state.rules.covers(&state.facts(live, task));
    if live.released() {
        return (S::Released, hit.map(|h| h.seq));
    }
    if let Some(hit) = hit {
        return (if ended_with_task(state, &hit.target) { S::TaskEnded } else { S::Revoked }, Some(hit.seq));
    }
    match state.tasks.phase(task, now) {
        TaskPhase::Over(_) => (S::TaskEnded, closing(state, task)),
        _ if live.expires_at() <= now => (S::Expired, None),
        TaskPhase::Held => (S::Held, None),
        TaskPhase::Active | TaskPhase::PendingApproval => (S::Active, None),
    }
}

/// Whether the rule was made by closing the task and not by revoking it.
fn ended_with_task(state: &State, target: &Target) -> bool {
    let Target::Task(id) = target else { return false };
    let closed = state.tasks.get(id).and_then(|t| t.closed.as_ref());
    closed.is_some_and(|c| c.outcome != TaskOutcome::Revoked)
}

fn closing(state: &State, task: &Task) -> Option<Seq> {
    state.tasks.upwards(task).find_map(|t| t.closed.as_ref().map(|c| c.seq))
}

/// A credential from memory: without purpose, arguments, key binding, approval and decision time, which are in its record only.
pub fn credential_to_pb(state: &State, live: &LiveCredential<'_>, now: Millis) -> pb::Credential {
    let (standing, ended_by) = credential_state(state, live, now);
    let caller = live.caller();
    let terms = state.tasks.at(live.task()).map(|t| &t.terms);
    let lineage = live.lineage();
    pb::Credential {
        credential_id: live.id().to_string(),
        kind: i32::from(live.kind()),
        state: standing.into(),
        task_id: terms.map_or_else(String::new, |t| t.id.to_string()),
        task_path: terms.map_or_else(Vec::new, |t| t.path.iter().map(ToString::to_string).collect()),
        caller: caller.to_owned(),
        subject: Some(subject_of(lineage.and_then(|l| l.subject.as_ref()), caller)),
        act: lineage.map_or_else(Vec::new, |l| l.actors.iter().map(subject_to_pb).collect()),
        environment: live.environment().to_owned(),
        upstream: live.upstream().to_owned(),
        binding: live.binding().to_owned(),
        scopes: live.scopes().into_iter().map(str::to_owned).collect(),
        tool: live.tool().to_owned(),
        expires_at: Some(timestamp(live.expires_at())),
        seq: live.seq().as_u64(),
        decision_revision: live.revision().as_u64(),
        policy_version: live.policy(),
        ancestors: ancestors(live.ancestors()),
        svid: live.evidence().map(|e| svid_to_pb(trust_domain_of(caller), e)),
        subject_token: lineage
            .and_then(|l| l.subject_token.as_ref())
            .map(|t| pb::SubjectTokenId { issuer: t.issuer.clone(), id: t.id.clone() }),
        signing_key: live.key().to_owned(),
        upstream_state: upstream_state(state, live.kind(), None, standing).into(),
        ended_by_seq: ended_by.map_or(0, Seq::as_u64),
        ..pb::Credential::default()
    }
}

/// A credential from its issuance record. If the credential is still in memory, its state comes from there, otherwise from the rules and
/// its time.
///
/// `path`: the ids of the task's path, root first, if they are known.
pub fn credential_of_record(
    state: &State,
    issued: &CredentialIssued,
    at: (Seq, Seq),
    path: &[TaskId],
    now: Millis,
) -> pb::Credential {
    let id = CredentialId::from_slice(&issued.credential);
    let live = id.and_then(|id| state.credentials.get(&id)).filter(|l| l.seq() == at.0);
    let (standing, ended_by) = match live {
        Some(live) => credential_state(state, &live, now),
        None => past_credential_state(state, issued, at.1, path),
    };
    let id_text = |bytes: &[u8]| TaskId::from_slice(bytes).map_or_else(String::new, |t| t.to_string());
    let kind = u8::try_from(issued.kind).unwrap_or(0);
    pb::Credential {
        credential_id: id.map_or_else(String::new, |id| id.to_string()),
        kind: i32::from(kind),
        state: standing.into(),
        task_id: id_text(&issued.task),
        task_path: path.iter().map(ToString::to_string).collect(),
        caller: issued.caller.clone(),
        subject: Some(subject_of(issued.subject.as_ref(), &issued.caller)),
        act: issued.actors.iter().map(subject_to_pb).collect(),
        environment: issued.environment.clone(),
        upstream: issued.upstream.clone(),
        binding: issued.binding.clone(),
        scopes: issued.scopes.clone(),
        authorization_details: issued.details.clone(),
        tool: issued.tool.clone(),
        arguments_sha256: issued.arguments.clone().into(),
        purpose: issued.purpose.clone(),
        key_binding: key_binding(issued),
        issued_at: Some(timestamp(Millis(issued.issued_at))),
        expires_at: Some(timestamp(Millis(issued.expires_at))),
        seq: at.0.as_u64(),
        decision_revision: at.1.as_u64(),
        policy_version: issued.policy_version,
        ancestors: ancestors(&issued.ancestors),
        svid: issued.svid.as_ref().map(|e| svid_to_pb(trust_domain_of(&issued.caller), e)),
        subject_token: issued.subject_token.as_ref().map(|t| pb::SubjectTokenId { issuer: t.issuer.clone(), id: t.id.clone() }),
        signing_key: issued.key.clone(),
        // The status claim is written once lists are served; until then no token is in a list.
        status: None,
        approval_id: ApprovalId::from_slice(&issued.approval).map_or_else(String::new, |a| a.to_string()),
        irrevocable: false,
        upstream_state: upstream_state(state, kind, LeaseId::from_slice(&issued.lease), standing).into(),
        ended_by_seq: ended_by.map_or(0, Seq::as_u64),
    }
}

/// The state of a credential that is no longer in memory: memory drops a credential only after its expiry, or with its generation.
fn past_credential_state(
    state: &State,
    issued: &CredentialIssued,
    revision: Seq,
    path: &[TaskId],
) -> (pb::CredentialState, Option<Seq>) {
    let facts = facts_of_record(issued, revision, path);
    match state.rules.covers(&facts) {
        Some(hit) => (pb::CredentialState::Revoked, Some(hit.seq)),
        None => (pb::CredentialState::Expired, None),
    }
}

/// The state of the credential at its upstream: credentials that mayfly makes itself have none there.
fn upstream_state(state: &State, kind: u8, lease: Option<LeaseId>, standing: pb::CredentialState) -> pb::UpstreamState {
    if CredentialKind::from_number(kind.into()).is_some_and(CredentialKind::made_locally) {
        return pb::UpstreamState::None;
    }
    let good = matches!(standing, pb::CredentialState::Active | pb::CredentialState::Held);
    match lease.map(|id| state.leases.contains_key(&id)) {
        None => pb::UpstreamState::Unspecified,
        Some(true) if good => pb::UpstreamState::Live,
        Some(true) => pb::UpstreamState::Pending,
        Some(false) => pb::UpstreamState::Undone,
    }
}

fn key_binding(issued: &CredentialIssued) -> Option<pb::KeyBinding> {
    let key = if !issued.x5t.is_empty() {
        pb::key_binding::Key::CallerSvid(pb::CallerSvid {})
    } else if !issued.jkt.is_empty() {
        pb::key_binding::Key::JwkThumbprint(issued.jkt.clone().into())
    } else {
        return None;
    };
    Some(pb::KeyBinding { key: Some(key) })
}

fn subject_of(subject: Option<&Principal>, caller: &str) -> pb::Subject {
    match subject {
        Some(subject) => subject_to_pb(subject),
        None => subject_to_pb(&Principal { issuer: trust_domain_of(caller).to_owned(), sub: caller.to_owned() }),
    }
}

/// The ancestors, nearest first.
fn ancestors(of: &[Ancestor]) -> Vec<pb::Ancestor> {
    let each = of.iter().rev().map(|a| pb::Ancestor {
        credential_id: CredentialId::from_slice(&a.credential).map_or_else(String::new, |id| id.to_string()),
        caller: a.caller.clone(),
    });
    each.collect()
}

/// The SVID on which a grant was based.
pub fn svid_to_pb(trust_domain: &str, e: &SvidEvidence) -> pb::SvidEvidence {
    pb::SvidEvidence {
        trust_domain: trust_domain.to_owned(),
        trust_anchor_sha256: Bytes::copy_from_slice(&e.anchor),
        issuing_key_sha256: Bytes::copy_from_slice(&e.issuing_key),
        serial: Bytes::copy_from_slice(&e.serial),
        not_after: Some(timestamp(Millis(e.not_after))),
    }
}
