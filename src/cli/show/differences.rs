//! The differences that a change makes, line by line.

use prost_reflect::prost::{Message, Name};

use super::{Shown, hex};
use crate::error::CliError;
use mayfly_proto::mayfly::v1 as pb;

/// The differences between two versions of an upstream. Time, author and use are not part of what is compared.
pub fn of_upstream(old: Option<pb::Upstream>, new: pb::Upstream) -> Result<String, CliError> {
    between(old, new, |u| pb::Upstream {
        at: None,
        author: None,
        seq: 0,
        version: 0,
        live_credentials: 0,
        last_used_at: None,
        findings: Vec::new(),
        ..u
    })
}

/// The differences between two versions of a binding. Time and author are not part of what is compared.
pub fn of_binding(old: Option<pb::Binding>, new: pb::Binding) -> Result<String, CliError> {
    between(old, new, |b| pb::Binding { at: None, author: None, seq: 0, narrowing: false, version: 0, ..b })
}

fn between<M: Message + Name>(old: Option<M>, new: M, bare: fn(M) -> M) -> Result<String, CliError> {
    let text = |message| serde_json::to_string_pretty(&Shown(bare(message))).map_err(CliError::ours);
    let (old, new) = (old.map(text).transpose()?.unwrap_or_default(), text(new)?);
    Ok(similar::TextDiff::from_lines(&old, &new).unified_diff().context_radius(2).header("in force", "asked for").to_string())
}

/// The roots that a change adds and removes, one line each.
pub fn of_bundle(of: &pb::ApprovalBundle) -> String {
    let line = |sign: &str, a: &pb::TrustAnchor| format!("{sign} root {} {}", hex(&a.sha256), a.subject).trim_end().to_owned();
    let added = of.added.iter().map(|a| line("+", a));
    let lines = added.chain(of.removed.iter().map(|a| line("-", a)));
    super::joined(std::iter::once(format!("trust domain {}", of.trust_domain)).chain(lines), "\n")
}
