//! The rpcs of UpstreamService for static secrets.

use bytes::Bytes;
use zeroize::Zeroizing;

use super::super::wire;
use super::page::NamePageRequest;
use super::request_checks;
use super::token::idempotency_key_of;
use mayfly_authority::authority::Authority;
use mayfly_authority::secrets::ListedSecret;
use mayfly_authority::tasks::Actor;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Refusal};
use mayfly_ledger::state::{SecretState, SecretVersion};
use mayfly_policy::{admin, exchange_request};
use mayfly_proto::mayfly::v1 as pb;
use mayfly_proto::mayfly::v1::put_secret_request::Secret;

/// Stores a secret, or requests its rotation.
pub async fn put(a: &Authority, actor: &Actor, ask: &pb::PutSecretRequest) -> Result<pb::PutSecretResponse, Error> {
    let operator = request_checks::operator(actor)?;
    let upstream = exchange_request::name("upstream", &ask.upstream)?;
    if !ask.name.is_empty() && ask.name != upstream {
        return Err(Refusal::field("name", "must be empty or the name of the upstream, which has one secret").into());
    }
    let (version, seq) = match &ask.secret {
        None => return Err(Refusal::field("secret", "is missing: a value, or rotate").into()),
        Some(Secret::Value(value)) => {
            exchange_request::text("reason", &ask.reason, limits::PURPOSE_BYTES)?;
            // The digest of the request goes into the ledger, where that of a short secret could be guessed: a keyed one stands for it.
            let digest = Secret::Value(Bytes::from(a.sealer.digest(value)));
            let known = pb::PutSecretRequest {
                upstream: ask.upstream.clone(),
                name: ask.name.clone(),
                secret: Some(digest),
                request_id: ask.request_id.clone(),
                reason: ask.reason.clone(),
            };
            let named = idempotency_key_of(&ask.request_id, &known)?;
            a.put_secret(operator, &upstream, Zeroizing::new(value.to_vec()), &named).await?
        }
        Some(Secret::Rotate(false)) => return Err(Refusal::field("rotate", "must be true, or left out for a value").into()),
        Some(Secret::Rotate(true)) => {
            let reason = request_checks::reason(&ask.reason)?;
            a.rotate_secret(operator, &upstream, &reason, &idempotency_key_of(&ask.request_id, ask)?).await?
        }
    };
    Ok(pb::PutSecretResponse { version, seq: seq.as_u64() })
}

/// One page of secrets, by upstream.
pub async fn list(a: &Authority, actor: &Actor, ask: pb::ListSecretsRequest) -> Result<pb::ListSecretsResponse, Error> {
    let upstream = request_checks::filter("upstream", &ask.upstream)?.map(str::to_owned);
    let sees = a.scope::<admin::Observe>(request_checks::operator(actor)?)?;
    let page = NamePageRequest::of(ask.page_size, &ask.page_token, &ask)?;
    let fits = |one: &ListedSecret| sees.has(one.environment()) && upstream.as_ref().is_none_or(|u| *u == one.upstream);
    let all = a.secrets().await?.into_iter().filter(fits).map(|one| (one.upstream.clone(), one));
    let (found, next_page_token) = page.take(all.collect());
    Ok(pb::ListSecretsResponse { secrets: found.iter().map(|one| secret_to_pb(a, one)).collect(), next_page_token })
}

/// Removes a secret.
pub async fn remove(a: &Authority, actor: &Actor, ask: &pb::RemoveSecretRequest) -> Result<pb::RemoveSecretResponse, Error> {
    let operator = request_checks::operator(actor)?;
    let upstream = exchange_request::name("upstream", &ask.upstream)?;
    let reason = request_checks::reason(&ask.reason)?;
    let named = idempotency_key_of(&ask.request_id, ask)?;
    let removed = a.remove_secret(operator, &upstream, &reason, &named).await?;
    Ok(pb::RemoveSecretResponse { seq: removed.seq.as_u64(), versions: removed.versions })
}

fn secret_to_pb(a: &Authority, one: &ListedSecret) -> pb::UpstreamSecret {
    let current = one.secret.as_ref().and_then(|s| s.current());
    let requested = one.secret.as_ref().and_then(|s| s.requested.as_ref());
    let progress = a.rotations.progress(&one.upstream, a.system.steady());
    pb::UpstreamSecret {
        upstream: one.upstream.clone(),
        environment: one.environment().to_owned(),
        version: current.map_or(0, |v| v.version),
        stored_at: current.map(|v| wire::timestamp(v.stored_at)),
        rotation_due_at: one.due_at().map(wire::timestamp),
        rotation_requested_at: requested.map(|r| wire::timestamp(r.at)),
        rotation_reason: requested.map_or_else(String::new, |r| r.reason.to_string()),
        status: one.status(a.system.wall(), a.rotations.has_hook(&one.upstream)),
        attempts: progress.attempts,
        last_error: progress.last,
        next_attempt: (progress.attempts > 0).then(|| wire::timestamp(a.system.wall().plus(progress.next_in_ms))),
        versions: one.secret.iter().flat_map(|s| &s.versions).map(version_to_pb).collect(),
    }
}

fn version_to_pb(version: &SecretVersion) -> pb::SecretVersion {
    let state = match version.state {
        SecretState::Candidate => pb::SecretVersionState::Candidate,
        SecretState::Current => pb::SecretVersionState::Current,
        SecretState::Retiring => pb::SecretVersionState::Retiring,
        SecretState::Ended => pb::SecretVersionState::Ended,
    };
    pb::SecretVersion {
        version: version.version,
        state: state.into(),
        stored_at: Some(wire::timestamp(version.stored_at)),
        since: Some(wire::timestamp(version.since)),
        author: version.by.as_deref().map(wire::identity_of_who),
        rotated: version.rotated,
        seq: version.seq.as_u64(),
    }
}
