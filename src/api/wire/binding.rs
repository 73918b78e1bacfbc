//! Bindings on the wire.

use super::{identity_of_who, timestamp_or_none};
use mayfly_base::limits;
use mayfly_base::refusal::Refusal;
use mayfly_identity::spiffe_id::{IdDefect, SpiffeId, SpiffePrefix};
use mayfly_ledger::state::DocumentVersion;
use mayfly_ledger::upstream::binding::Binding;
use mayfly_policy::exchange_request;
use mayfly_proto::mayfly::v1 as pb;

/// A binding that is not in effect.
pub fn binding_to_pb(binding: &Binding) -> pb::Binding {
    pb::Binding {
        binding: binding.name.clone(),
        upstream: binding.upstream.clone(),
        callers: binding.ids.iter().map(|id| id.as_str().to_owned()).collect(),
        scopes: binding.scopes.clone(),
        tools: binding.tools.clone(),
        any_tool: binding.any_tool,
        callers_under: binding.under.iter().map(|prefix| prefix.as_str().to_owned()).collect(),
        ..pb::Binding::default()
    }
}

/// A binding of an environment and its version.
pub fn binding_version_to_pb(binding: &Binding, environment: String, version: &DocumentVersion) -> pb::Binding {
    pb::Binding {
        version: version.version,
        environment,
        at: timestamp_or_none(version.at),
        author: version.by.as_deref().map(identity_of_who),
        seq: version.seq.as_u64(),
        narrowing: version.narrows.is_some(),
        ..binding_to_pb(binding)
    }
}

/// The binding that a request gives.
pub fn binding_from_pb(given: &pb::Binding) -> Result<Binding, Refusal> {
    let lists = [
        ("binding.callers", given.callers.len()),
        ("binding.callers_under", given.callers_under.len()),
        ("binding.scopes", given.scopes.len()),
        ("binding.tools", given.tools.len()),
    ];
    if let Some((field, len)) = lists.into_iter().find(|(_, len)| *len > limits::TASK_LIST) {
        return Err(Refusal::field(field, format!("has {len} values: at most {}", limits::TASK_LIST)));
    }
    let names =
        |field, list: &[String]| list.iter().map(|name| exchange_request::name(field, name)).collect::<Result<Vec<_>, _>>();
    let binding = Binding {
        name: exchange_request::name("binding.binding", &given.binding)?,
        upstream: exchange_request::name("binding.upstream", &given.upstream)?,
        ids: parsed("binding.callers", &given.callers, SpiffeId::parse)?,
        under: parsed("binding.callers_under", &given.callers_under, SpiffePrefix::parse)?,
        tools: names("binding.tools", &given.tools)?,
        any_tool: given.any_tool,
        scopes: names("binding.scopes", &given.scopes)?,
    };
    if binding.any_tool && !binding.tools.is_empty() {
        return Err(Refusal::field("binding.any_tool", "is set, and tools is set too: leave one of them out"));
    }
    if !binding.scopes.is_empty() && binding.ids.is_empty() && binding.under.is_empty() {
        return Err(Refusal::field("binding.callers", "is missing: name workloads here or under callers_under"));
    }
    Ok(binding.sorted())
}

fn parsed<T>(field: &'static str, texts: &[String], parse: impl Fn(&str) -> Result<T, IdDefect>) -> Result<Vec<T>, Refusal> {
    texts.iter().map(|text| parse(text).map_err(|e| Refusal::field(field, format!("{text:?}: {e}")))).collect()
}
