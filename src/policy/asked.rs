//! What an exchange has to name, and what this version has no answer to.

use crate::pb::mayfly::v1 as pb;
use crate::refusal::Refusal;

/// Nothing that decides is left out.
pub(super) fn whole(ask: &pb::ExchangeRequest) -> Result<(), Refusal> {
    if ask.upstream.is_empty() {
        return Err(Refusal::field("upstream", "is missing"));
    }
    // No scope would be every policy's subset: what is left out must not be more than what is named.
    if ask.scopes.is_empty() {
        return Err(Refusal::field("scopes", "is missing: name 1 to 8 scopes of the upstream"));
    }
    Ok(())
}

/// What this version has fields for but does not do is refused, never passed over.
pub(super) fn served(ask: &pb::ExchangeRequest) -> Result<(), Refusal> {
    let asked = [
        (ask.parent_credential.is_some(), "parent_credential"),
        (!ask.authorization_details.is_empty(), "authorization_details"),
        (ask.public_key.is_some(), "public_key"),
    ];
    match asked.iter().find(|(set, _)| *set) {
        Some((_, field)) => Err(Refusal::field(field, "this version does not serve it; leave it out")),
        None => Ok(()),
    }
}
