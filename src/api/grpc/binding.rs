//! The binding rpcs of UpstreamService.

use super::super::wire;
use super::page::NamePageRequest;
use super::request_checks;
use mayfly_authority::authority::Authority;
use mayfly_authority::registry::documents::DocumentChangeResult;
use mayfly_authority::tasks::Actor;
use mayfly_base::refusal::{Error, Refusal};
use mayfly_ledger::upstream::binding::Binding;
use mayfly_policy::admin;
use mayfly_proto::mayfly::v1 as pb;

/// Lists bindings, removed ones included.
pub async fn list(authority: &Authority, actor: &Actor, ask: pb::ListBindingsRequest) -> Result<pb::ListBindingsResponse, Error> {
    let sees = authority.scope::<admin::Observe>(request_checks::operator(actor)?)?;
    let (upstream, name) = (request_checks::filter("upstream", &ask.upstream)?, request_checks::filter("binding", &ask.binding)?);
    let page = NamePageRequest::of(ask.page_size, &ask.page_token, &ask)?;
    let compiled = authority.catalog.now();
    let of = |b: &Binding| compiled.upstream(&b.upstream).map_or_else(String::new, |u| u.upstream.environment.clone());
    let fits = |b: &Binding| upstream.is_none_or(|u| b.upstream == u) && name.is_none_or(|n| b.name == n) && sees.has(&of(b));
    let all = authority.bindings().await?.into_iter().filter(|(b, _)| fits(b));
    let (found, next_page_token) = page.take(all.map(|(b, v)| (b.name.clone(), (b, v))).collect());
    let shown = found.iter().map(|(binding, version)| wire::binding_version_to_pb(binding, of(binding), version));
    Ok(pb::ListBindingsResponse { bindings: shown.collect(), next_page_token })
}

/// Adds a binding, or puts another version of it in effect.
pub async fn set(authority: &Authority, actor: &Actor, ask: &pb::SetBindingRequest) -> Result<pb::SetBindingResponse, Error> {
    let operator = request_checks::operator(actor)?;
    let given = ask.binding.as_ref().ok_or_else(|| Refusal::field("binding", "is missing: the binding"))?;
    let new = match wire::binding_from_pb(given) {
        Ok(new) => new,
        Err(no) => {
            // An operator without the permission to manage upstreams is refused before the request's defects are explained.
            authority.scope::<admin::ManageUpstreams>(operator)?;
            return Err(no.into());
        }
    };
    let terms = request_checks::change_options(ask, ask.dry_run, ask.confirmation.as_ref(), &ask.request_id)?;
    let reason = request_checks::reason(&ask.reason)?;
    let DocumentChangeResult { version, hits, beyond, why } =
        authority.set_binding(operator, &new, given.version, &reason, &terms).await?;
    let compiled = authority.catalog.now();
    let environment = compiled.upstream(&new.upstream).map_or_else(String::new, |u| u.upstream.environment.clone());
    let not_read = !authority.bindings_are_read(&environment);
    let (version, seq) = (version.version, version.seq.as_u64());
    Ok(pb::SetBindingResponse {
        binding: Some(pb::Binding { version, seq, environment, ..wire::binding_to_pb(&new) }),
        hits: Some(super::hits_to_pb(&hits)),
        beyond,
        takes_another: !why.is_empty(),
        not_read,
    })
}
