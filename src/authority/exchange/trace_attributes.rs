//! The attributes of an exchange for traces and log lines: the ids that the audit log has too.

use crate::authority::Authority;
use mayfly_base::refusal::{Code, Error};
use mayfly_base::trace::{CallTrace, SpanAttribute, plain};
use mayfly_credential::{CredentialKind, IssuedCredential, Novelty};
use mayfly_policy::exchange_request::{ExchangeRequest, TaskChoice};
use mayfly_policy::grant::GrantParts;

/// The decision, and the versions that it used.
pub(super) fn decided(parts: &GrantParts) -> Vec<SpanAttribute> {
    let draft = &parts.draft;
    vec![
        ("mayfly.environment", draft.environment.as_str().into()),
        ("mayfly.upstream", draft.upstream.as_str().into()),
        ("mayfly.policy.version", draft.policy_version.into()),
        ("mayfly.upstream.version", draft.upstream_version.into()),
        ("mayfly.decision_revision", parts.revision.as_u64().into()),
    ]
}

/// The request to an upstream.
pub(super) fn upstream(parts: &GrantParts) -> Vec<SpanAttribute> {
    let kind = CredentialKind::from_number(parts.draft.kind).map_or("", CredentialKind::name);
    vec![("mayfly.upstream", parts.draft.upstream.as_str().into()), ("mayfly.kind", kind.into())]
}

/// The status code and reason of a refusal or fault.
fn status_of(no: &Error) -> (i32, &'static str) {
    match no {
        Error::Refusal(no) => (no.reason.code() as i32, no.reason.as_str()),
        Error::Fault(_) => (Code::Internal as i32, ""),
    }
}

/// Ends the span of one request of a batch that was refused before it could be decoded.
pub fn malformed(traced: &CallTrace, no: &Error) {
    let (code, reason) = status_of(no);
    traced.end_one(code, reason);
}

fn asked(authority: &Authority, want: &ExchangeRequest) -> Vec<SpanAttribute> {
    let mut told: Vec<SpanAttribute> = Vec::with_capacity(8);
    if let Some(id) = &want.request_id {
        told.push(("mayfly.request.id", plain(id).into()));
    }
    if let TaskChoice::Named(task) = &want.task {
        told.push(("mayfly.task.id", task.to_string().into()));
    }
    // Only a registered name is logged, since any other is the caller's text.
    if authority.catalog.now().upstream(&want.upstream).is_some() {
        told.push(("mayfly.upstream", (&*want.upstream).into()));
    }
    told
}

fn issued(issued: &IssuedCredential) -> Vec<SpanAttribute> {
    let summary = issued.summary();
    let about = &summary.about;
    let novelty = match about.novelty {
        Novelty::New => "new",
        Novelty::Same => "same",
        Novelty::Replaced => "replaced",
    };
    let mut told = vec![
        ("mayfly.seq", issued.seq().as_u64().into()),
        ("mayfly.credential.id", summary.credential.to_string().into()),
        ("mayfly.task.id", about.task.to_string().into()),
        ("mayfly.kind", about.kind.name().into()),
        ("mayfly.novelty", novelty.into()),
    ];
    told.extend(about.approval.map(|id| ("mayfly.approval.id", id.to_string().into())));
    told
}

/// Notes how an exchange ended, if it is traced or logged. Ends the span of one request of a batch.
pub fn ended(authority: &Authority, want: &ExchangeRequest, end: &Result<IssuedCredential, Error>) {
    let traced = &want.traced;
    if !traced.is_live() {
        return;
    }
    traced.note(|| asked(authority, want));
    match end {
        Ok(one) => {
            traced.note(|| issued(one));
            traced.end_one(0, "");
        }
        Err(no) => {
            if let Error::Refusal(refusal) = no
                && let Some(id) = refusal.details.as_ref().and_then(|d| d.approval.as_ref())
            {
                traced.note(|| vec![("mayfly.approval.id", id.as_str().into())]);
            }
            malformed(traced, no);
        }
    }
}
