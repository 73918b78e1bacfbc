//! Checks that all services apply to a request: the caller's admission, the reason, and the confirmed number of affected credentials.

use tonic::{Request, Status};

use super::super::peer::{self, Peer};
use super::super::status::status;
use mayfly_authority::authority::Authority;
use mayfly_authority::revocation::revoke::RevocationConfirmation;
use mayfly_authority::revocation::revoke_excess::ChangeOptions;
use mayfly_authority::tasks::Actor;
use mayfly_base::limits;
use mayfly_base::refusal::{Error, Reason, Refusal};
use mayfly_identity::caller::{Caller, Operator};
use mayfly_policy::exchange_request;
use mayfly_proto::mayfly::v1 as pb;

/// The admitted caller: a workload on the workload listener, an operator on the admin listener or the socket. Refused callers are noted for
/// the audit.
pub fn actor<T>(authority: &Authority, request: &Request<T>, rpc: &'static str) -> Result<Actor, Status> {
    let actor = match request.extensions().get::<Peer>() {
        Some(Peer::Workload(_)) => Actor::Workload(peer::caller(request)?),
        _ => Actor::Operator(peer::operator(request)?),
    };
    let let_in = match &actor {
        Actor::Workload(caller) => authority.let_in(caller, "this caller"),
        Actor::Operator(Operator::Svid(caller)) => authority.let_in(caller, "this operator"),
        Actor::Operator(Operator::LocalUid(_)) => Ok(()),
    };
    let_in.map_err(refused(authority, &actor, rpc))?;
    Ok(actor)
}

/// The calling workload, admitted.
pub fn caller<T>(authority: &Authority, request: &Request<T>, rpc: &'static str) -> Result<Caller, Status> {
    let caller = peer::caller(request)?;
    let let_in = authority.let_in(&caller, "this caller").inspect_err(|no| super::note(authority, &caller, no, rpc, ""));
    let_in.map_err(status)?;
    Ok(caller)
}

/// The reason of a change: 1 to 512 bytes.
pub fn reason(value: &str) -> Result<String, Refusal> {
    if value.is_empty() {
        return Err(Refusal::field("reason", "is missing: give the reason, for the audit log"));
    }
    exchange_request::text("reason", value, limits::PURPOSE_BYTES)
}

/// How many credentials the caller confirms to affect.
pub fn confirm(confirmation: Option<&pb::Confirmation>) -> RevocationConfirmation {
    match confirmation {
        None => RevocationConfirmation::None,
        Some(c) if c.all => RevocationConfirmation::All,
        Some(c) => RevocationConfirmation::Count(c.credentials),
    }
}

/// The options of a change that may revoke.
pub fn change_options(
    ask: &impl prost::Message,
    dry_run: bool,
    confirmation: Option<&pb::Confirmation>,
    request_id: &str,
) -> Result<ChangeOptions, Refusal> {
    Ok(ChangeOptions { dry_run, confirm: confirm(confirmation), named: super::token::idempotency_key_of(request_id, ask)? })
}

/// A filter on a name: `None` if the field was left out.
pub fn filter<'a>(field: &'static str, value: &'a str) -> Result<Option<&'a str>, Refusal> {
    exchange_request::text(field, value, limits::SPIFFE_ID_BYTES)?;
    Ok((!value.is_empty()).then_some(value))
}

/// The refusal for an object that does not exist or that the caller may not see.
pub fn not_found(what: impl Into<String>) -> Error {
    Error::Refusal(Refusal::new(Reason::NotFound, what))
}

/// Turns a refusal into a status, and notes the refusal for the audit.
pub fn refused<'a>(authority: &'a Authority, actor: &'a Actor, rpc: &'static str) -> impl Fn(Error) -> Status + 'a {
    refused_in(authority, actor, rpc, "")
}

/// As [`refused`], for a request that names a task.
pub fn refused_in<'a>(
    authority: &'a Authority,
    actor: &'a Actor,
    rpc: &'static str,
    task: &'a str,
) -> impl Fn(Error) -> Status + 'a {
    move |no| {
        if let Error::Refusal(refusal) = &no {
            let who = match actor {
                Actor::Workload(caller) | Actor::Operator(Operator::Svid(caller)) => caller.id().as_str().to_owned(),
                Actor::Operator(Operator::LocalUid(uid)) => format!("local-uid:{uid}"),
            };
            authority.refused(&who, refusal, rpc, task);
        }
        status(no)
    }
}

/// The operator of an actor. A workload is refused with a pointer to the admin listener.
pub fn operator(actor: &Actor) -> Result<&Operator, Error> {
    match actor {
        Actor::Operator(operator) => Ok(operator),
        Actor::Workload(_) => Err(Error::Refusal(peer::wrong_listener())),
    }
}
