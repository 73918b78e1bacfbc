//! The fields that an exchange must name, and the fields that this version does not support.

use mayfly_base::refusal::Refusal;
use mayfly_proto::mayfly::v1 as pb;

/// Refuses an exchange that lacks a field which the decision needs.
pub(super) fn require_fields(ask: &pb::ExchangeRequest) -> Result<(), Refusal> {
    if ask.upstream.is_empty() {
        return Err(Refusal::field("upstream", "is missing"));
    }
    // An empty scope list would be a subset of every policy's scopes, so omitting scopes would permit more than naming them.
    if ask.scopes.is_empty() {
        return Err(Refusal::field("scopes", "is missing: name 1 to 8 scopes of the upstream"));
    }
    Ok(())
}

/// Refuses fields that this version defines but does not support, instead of ignoring them.
pub(super) fn refuse_unsupported(ask: &pb::ExchangeRequest) -> Result<(), Refusal> {
    let asked = [(ask.parent_credential.is_some(), "parent_credential")];
    match asked.iter().find(|(set, _)| *set) {
        Some((_, field)) => Err(Refusal::field(field, "this version does not serve it; leave it out")),
        None => Ok(()),
    }
}
