//! Policy sets and the results of policy diffs on the wire.

use super::{identity_of_who, timestamp, timestamp_or_none};
use mayfly_authority::registry::replay::ChangedDecision;
use mayfly_base::document::SourceFile;
use mayfly_base::refusal::Fault;
use mayfly_ledger::state::DocumentVersion;
use mayfly_policy::set::files;
use mayfly_proto::mayfly::v1 as pb;

fn file(source: SourceFile) -> pb::PolicyFile {
    pb::PolicyFile { name: source.file, text: source.text }
}

/// The files of a recorded policy set; `None` for a version that removed the set.
pub fn policy_files(recorded: &str) -> Result<Option<pb::PolicyFiles>, Fault> {
    if recorded.is_empty() {
        return Ok(None);
    }
    let (policies, roles) = files(recorded).map_err(|e| Fault::new(format!("a policy set in the ledger: {e}")))?;
    Ok(Some(pb::PolicyFiles { policies: policies.into_iter().map(file).collect(), roles: Some(file(roles)) }))
}

/// A version of an environment's policy set.
pub fn policy_to_pb(environment: &str, audit: bool, version: &DocumentVersion) -> Result<pb::PolicySet, Fault> {
    let mode = if audit { pb::PolicyMode::Audit } else { pb::PolicyMode::Enforce };
    Ok(pb::PolicySet {
        environment: environment.to_owned(),
        version: version.version,
        mode: mode.into(),
        files: policy_files(&version.text)?,
        at: timestamp_or_none(version.at),
        author: version.by.as_deref().map(identity_of_who),
        seq: version.seq.as_u64(),
        narrowing: version.narrows.is_some(),
        audited: None,
    })
}

/// A violation of one field.
pub fn violation(field: &str, what: &str) -> pb::FieldViolation {
    pb::FieldViolation { field: field.to_owned(), description: what.to_owned() }
}

/// A decision that would differ.
pub fn decision_diff_to_pb(differs: ChangedDecision) -> pb::DecisionDiff {
    let ChangedDecision { seq, at, situation, upstream, permitted, now } = differs;
    pb::DecisionDiff {
        seq: seq.as_u64(),
        at: Some(timestamp(at)),
        caller: situation.caller.as_str().to_owned(),
        upstream,
        tool: situation.tool.unwrap_or_default(),
        scopes: situation.scopes,
        permitted,
        now: now.to_string(),
    }
}
