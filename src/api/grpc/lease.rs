//! The lease rpcs of UpstreamService.

use super::super::wire;
use super::page::PageRequest;
use super::request_checks;
use mayfly_authority::authority::Authority;
use mayfly_authority::tasks::Actor;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Refusal};
use mayfly_credential::lease::{LeaseStatus, ListedLease};
use mayfly_policy::{admin, exchange_request};
use mayfly_proto::mayfly::v1 as pb;
use mayfly_verify::seq::LeaseId;

/// One page of leases, in the order of their ids.
pub async fn list(a: &Authority, actor: &Actor, ask: pb::ListLeasesRequest) -> Result<pb::ListLeasesResponse, Error> {
    let upstream = request_checks::filter("upstream", &ask.upstream)?;
    let sees = a.scope::<admin::Observe>(request_checks::operator(actor)?)?;
    let compiled = a.catalog.now();
    let seen = |upstream: &str| match compiled.upstream(upstream) {
        Some(registered) => sees.has(&registered.upstream.environment),
        None => sees.everywhere(),
    };
    let wanted = match pb::UpstreamState::try_from(ask.state) {
        Ok(pb::UpstreamState::Unspecified) => None,
        Ok(state @ (pb::UpstreamState::Live | pb::UpstreamState::Pending | pb::UpstreamState::Making)) => Some(state),
        _ => {
            return Err(Error::Refusal(Refusal::field(
                "state",
                "must be LIVE, PENDING or MAKING; leases that were undone or given up are in the audit log",
            )));
        }
    };
    let size = PageRequest::from(ask.page_size, "")?.size();
    let mut after: Option<LeaseId> = match ask.page_token.as_str() {
        "" => None,
        token => Some(token.parse().map_err(|_| Refusal::field("page_token", "is not a token returned by an earlier page"))?),
    };
    let (mut leases, mut looked) = (Vec::new(), 0);
    while leases.len() < size && looked < limits::LIST_WALK {
        let some = a.leases.list(after, limits::LEASES_LOOK).await?;
        let (count, mut taken) = (some.len(), 0);
        for listed in some {
            if leases.len() == size {
                break;
            }
            (after, taken) = (Some(listed.id), taken + 1);
            let asked = upstream.is_none_or(|u| *listed.lease.upstream == *u) && wanted.is_none_or(|w| w == state(&listed));
            let fits = asked && seen(&listed.lease.upstream);
            if fits {
                leases.push(lease_to_pb(a, &listed));
            }
        }
        looked += count;
        if count < limits::LEASES_LOOK && taken == count {
            return Ok(pb::ListLeasesResponse { leases, next_page_token: String::new() });
        }
    }
    Ok(pb::ListLeasesResponse { leases, next_page_token: after.map_or_else(String::new, |id| id.to_string()) })
}

/// One open lease.
pub async fn show(a: &Authority, actor: &Actor, ask: &pb::GetLeaseRequest) -> Result<pb::GetLeaseResponse, Error> {
    let id = exchange_request::id("lease_id", &ask.lease_id)?;
    let listed = a.show_lease(request_checks::operator(actor)?, id).await?;
    Ok(pb::GetLeaseResponse { lease: Some(lease_to_pb(a, &listed)) })
}

/// Has the deletion of a lease's credential tried at once.
pub async fn retry(a: &Authority, actor: &Actor, ask: &pb::RetryLeaseRequest) -> Result<pb::RetryLeaseResponse, Error> {
    let id = exchange_request::id("lease_id", &ask.lease_id)?;
    let listed = a.retry_lease(request_checks::operator(actor)?, id).await?;
    Ok(pb::RetryLeaseResponse { lease: Some(lease_to_pb(a, &ListedLease { next_in_ms: 0, ..listed })) })
}

/// Gives up deleting a lease's credential at its upstream.
pub async fn abandon(a: &Authority, actor: &Actor, ask: &pb::AbandonLeaseRequest) -> Result<pb::AbandonLeaseResponse, Error> {
    let id: LeaseId = exchange_request::id("lease_id", &ask.lease_id)?;
    let reason = request_checks::reason(&ask.reason)?;
    let named = super::token::idempotency_key_of(&ask.request_id, ask)?;
    let listed = a.abandon_lease(request_checks::operator(actor)?, id, &reason, &named).await?;
    let known = listed.map_or_else(|| pb::Lease { lease_id: id.to_string(), ..pb::Lease::default() }, |l| lease_to_pb(a, &l));
    let lease = pb::Lease { state: pb::UpstreamState::Abandoned.into(), next_attempt: None, ..known };
    Ok(pb::AbandonLeaseResponse { lease: Some(lease) })
}

fn state(listed: &ListedLease) -> pb::UpstreamState {
    match listed.standing {
        _ if listed.cause().is_some() => pb::UpstreamState::Pending,
        LeaseStatus::InMaking => pb::UpstreamState::Making,
        LeaseStatus::Somebodys | LeaseStatus::ToUndo(_) => pb::UpstreamState::Live,
    }
}

fn lease_to_pb(a: &Authority, listed: &ListedLease) -> pb::Lease {
    let state = state(listed);
    let next = a.system.wall().plus(listed.next_in_ms);
    let lease = &listed.lease;
    pb::Lease {
        lease_id: listed.id.to_string(),
        upstream: lease.upstream.to_string(),
        credential_id: lease.credential.to_string(),
        state: state.into(),
        what: lease.handle.to_string(),
        attempts: listed.attempts,
        next_attempt: (state == pb::UpstreamState::Pending).then(|| wire::timestamp(next)),
        last_error: listed.last.clone(),
        opened_at: Some(wire::timestamp(lease.opened_at)),
        kind: i32::try_from(lease.kind).unwrap_or_default(),
        task_id: lease.task.to_string(),
        cause: listed.cause().map(|cause| cause.to_string()).unwrap_or_default(),
        ends_at: Some(lease.ends_at).filter(|at| at.0 > 0).map(wire::timestamp),
        watched: listed.watched,
    }
}
