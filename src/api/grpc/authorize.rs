//! Authorize: the checks and the decision of an exchange, without issuing a credential.

use super::super::wire;
use mayfly_authority::authority::Authority;
use mayfly_authority::exchange::authorize::ActionPermit;
use mayfly_base::refusal::{Error, Refusal};
use mayfly_base::trace;
use mayfly_identity::caller::Caller;
use mayfly_ledger::commit::sha256;
use mayfly_policy::decide::plain_action;
use mayfly_policy::exchange_request::ExchangeRequest;
use mayfly_proto::mayfly::v1 as pb;

/// The exchange that corresponds to an authorization request. The digest of the request covers the token.
fn wanted(ask: pb::AuthorizeRequest) -> Result<ExchangeRequest, Refusal> {
    let shown = sha256(ask.token.as_bytes());
    let mut exchange = pb::ExchangeRequest {
        task: (!ask.task_id.is_empty()).then_some(pb::exchange_request::Task::TaskId(ask.task_id)),
        upstream: ask.upstream,
        scopes: ask.scopes,
        tool: ask.tool,
        purpose: ask.purpose,
        arguments: ask.arguments,
        authorization_details: ask.authorization_details,
        request_id: ask.request_id,
        wait_for_approval: ask.wait_for_approval,
        // Nothing is issued, so no credential could be bound to any other key than the caller's.
        key_binding: Some(pb::KeyBinding { key: Some(pb::key_binding::Key::CallerSvid(pb::CallerSvid {})) }),
        ..pb::ExchangeRequest::default()
    };
    let mut want = ExchangeRequest::take(&mut exchange)?;
    plain_action(&want)?;
    want.digest = sha256(&[&b"authorize"[..], &want.digest, &shown].concat());
    want.asking.get_or_insert_default().action = true;
    Ok(want)
}

pub(super) async fn authorize(
    authority: &Authority,
    caller: &Caller,
    ask: pb::AuthorizeRequest,
) -> Result<pb::AuthorizeResponse, Error> {
    let mut ask = ask;
    let shown = match ask.token.as_str() {
        "" => None,
        token => Some(authority.shown(caller, token).await?),
    };
    if let Some(shown) = &shown {
        let (task, upstream) = shown.names();
        for (field, given, own) in [("task_id", &mut ask.task_id, task), ("upstream", &mut ask.upstream, upstream)] {
            match given.as_str() {
                "" => *given = own,
                same if same == own => {}
                _ => return Err(Error::Refusal(Refusal::field(field, "differs from the token's; leave it out"))),
            }
        }
    }
    let want = ExchangeRequest { traced: trace::current(), ..wanted(ask)? };
    trace::note(|| want.request_id.iter().map(|id| ("mayfly.request.id", trace::plain(id).into())).collect());
    let ActionPermit { seq, revision, until } = authority.authorize(caller, &want, shown.as_ref()).await?;
    Ok(pb::AuthorizeResponse {
        seq: seq.as_u64(),
        decision_revision: revision.as_u64(),
        expires_at: Some(wire::timestamp(until)),
    })
}
