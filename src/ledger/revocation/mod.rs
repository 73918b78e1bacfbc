//! Revocation events for followers. Targets, rules and followers are defined in [`mayfly_verify::revocation`].

pub mod event;
mod shared_rules;

pub use mayfly_verify::revocation::*;

pub use event::{event_of, snapshot_of};
pub use shared_rules::{SharedRules, SharedStorage};

/// All facts that rules of these sorts match on, as text.
#[cfg(any(test, debug_assertions, feature = "testing"))]
pub fn answers(facts: &Facts<'_>, of: TargetKinds) -> std::collections::BTreeSet<String> {
    let mut out = std::collections::BTreeSet::new();
    facts.each(of, &mut |probe| {
        out.insert(format!("{probe:?}"));
        false
    });
    out
}
