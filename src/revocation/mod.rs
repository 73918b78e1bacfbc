//! Revoking: what followers are told of a record. Targets, rules and followers are those of [`mayfly_verify::revocation`].

pub mod event;

pub use mayfly_verify::revocation::*;

pub use event::{event_of, snapshot_of};

/// Everything that facts can be asked of these sorts, written out.
#[cfg(test)]
pub(crate) fn answers(facts: &Facts<'_>, of: Sorts) -> std::collections::BTreeSet<String> {
    let mut out = std::collections::BTreeSet::new();
    facts.each(of, &mut |probe| {
        out.insert(format!("{probe:?}"));
        false
    });
    out
}
