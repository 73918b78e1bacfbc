//! The attributes of an exchange for traces and log lines: the ids that the audit log has too.

use crate::authority::Authority;
use mayfly_base::refusal::{Code, No};
use mayfly_base::trace::{Attribute, Traced, plain};
use mayfly_credential::{Issued, Kind, Novelty};
use mayfly_policy::grant::Parts;
use mayfly_policy::wanted::{TaskChoice, Wanted};

/// The decision, and the versions that it used.
pub(super) fn decided(parts: &Parts) -> Vec<Attribute> {
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
pub(super) fn upstream(parts: &Parts) -> Vec<Attribute> {
    let kind = Kind::from_number(parts.draft.kind).map_or("", Kind::name);
    vec![("mayfly.upstream", parts.draft.upstream.as_str().into()), ("mayfly.kind", kind.into())]
}

/// The status code and reason of a refusal or fault.
fn status_of(no: &No) -> (i32, &'static str) {
    match no {
        No::Refusal(no) => (no.reason.code() as i32, no.reason.as_str()),
        No::Fault(_) => (Code::Internal as i32, ""),
    }
}

/// Ends the span of one request of a batch that was refused before it could be decoded.
pub fn malformed(traced: &Traced, no: &No) {
    let (code, reason) = status_of(no);
    traced.end_one(code, reason);
}

fn asked(authority: &Authority, want: &Wanted) -> Vec<Attribute> {
    let mut told: Vec<Attribute> = Vec::with_capacity(8);
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

fn issued(issued: &Issued) -> Vec<Attribute> {
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
pub fn ended(authority: &Authority, want: &Wanted, end: &Result<Issued, No>) {
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
            if let No::Refusal(refusal) = no
                && let Some(id) = refusal.details.as_ref().and_then(|d| d.approval.as_ref())
            {
                traced.note(|| vec![("mayfly.approval.id", id.as_str().into())]);
            }
            malformed(traced, no);
        }
    }
}
