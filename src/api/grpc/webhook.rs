//! The webhook rpcs of ServerService.

use super::super::wire;
use super::request_checks;
use mayfly_authority::admission::operators::{Environments, OperatorScope};
use mayfly_authority::authority::Authority;
use mayfly_authority::tasks::Actor;
use mayfly_authority::webhook::{DeadLetter, WebhookStatus};
use mayfly_base::refusal::{Error, Reason, Refusal};
use mayfly_policy::{admin, exchange_request};
use mayfly_proto::mayfly::v1 as pb;
use mayfly_verify::seq::{Millis, Seq};

/// All webhooks, by name.
pub async fn list(a: &Authority, actor: &Actor) -> Result<pb::ListWebhooksResponse, Error> {
    let sees = a.scope::<admin::Observe>(request_checks::operator(actor)?)?;
    let durable = a.ledger.durable();
    let mut all = a.webhooks.get().map(|tellers| tellers.standing()).unwrap_or_default();
    all.retain(|hook| concerns(hook, &sees));
    all.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(pb::ListWebhooksResponse { webhooks: all.into_iter().map(|standing| to_pb(standing, durable)).collect() })
}

/// Posts a test event to one webhook.
pub async fn test(a: &Authority, actor: &Actor, ask: &pb::TestWebhookRequest) -> Result<pb::TestWebhookResponse, Error> {
    let operator = request_checks::operator(actor)?;
    let sees = a.scope::<admin::Observe>(operator)?;
    let name = exchange_request::name("name", &ask.name)?;
    let none = || request_checks::not_found(format!("there is no webhook {name} in the configuration that you may see"));
    let hook = a.webhooks.get().and_then(|tellers| tellers.standing().into_iter().find(|hook| hook.name == name));
    let hook = hook.filter(|hook| concerns(hook, &sees)).ok_or_else(none)?;
    // The event reaches the recipients of each environment of the webhook, so the operator needs the permission in all of them.
    match hook.environments.is_empty() {
        true => drop(a.admit::<admin::Observe>(operator, None)?),
        false => drop(a.admit_in::<admin::Observe>(operator, &Environments::Of(hook.environments.iter().cloned().collect()))?),
    }
    match a.webhooks.get().and_then(|tellers| tellers.test(&name)).ok_or_else(none)?.await {
        Ok(status) => Ok(pb::TestWebhookResponse { status: status.into() }),
        Err(problem) => Err(Error::Refusal(Refusal::new(Reason::UpstreamFailed, problem).by(format!("webhook {name}")))),
    }
}

/// Whether a webhook is configured for an environment that the operator may see. A webhook that names no environment is for all.
pub(super) fn concerns(hook: &WebhookStatus, sees: &OperatorScope<admin::Observe>) -> bool {
    hook.environments.is_empty() || hook.environments.iter().any(|name| sees.has(name))
}

fn to_pb(standing: WebhookStatus, durable: Seq) -> pb::Webhook {
    pb::Webhook {
        behind: durable.as_u64().saturating_sub(standing.seq.as_u64()),
        seq: standing.seq.as_u64(),
        name: standing.name,
        url: standing.url,
        events: standing.events,
        environments: standing.environments,
        delivered: standing.delivered,
        failed: standing.failed,
        problem: standing.problem,
        since: standing.since.map(wire::timestamp),
        given_up: standing.dead,
        given_up_newest: standing.dead_newest.into_iter().map(dead_to_pb).collect(),
    }
}

fn dead_to_pb(dead: DeadLetter) -> pb::GivenUpEvent {
    let DeadLetter { id, kind, seq, at, problem } = dead;
    pb::GivenUpEvent { event_id: id, r#type: kind, seq, at: Some(wire::timestamp(Millis(at))), problem }
}
