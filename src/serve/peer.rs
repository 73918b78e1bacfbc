//! The identity of a connection's peer. The listener sets it from the TLS session or the socket, never from a header.

use tonic::{Request, Status};

use super::status::status;
use crate::identity::caller::{Caller, Operator};
use crate::refusal::{No, Reason, Refusal};

/// The peer of a connection, stored in every request's extensions.
#[derive(Clone, Debug)]
pub enum Peer {
    /// A workload by its SVID, on the workload listener.
    Workload(Caller),
    /// An operator by an SVID, on the admin listener.
    Admin(Caller),
    /// A peer of the local socket, by uid.
    Local(u32),
}

fn nobody() -> Status {
    status(No::Refusal(Refusal::new(Reason::NotAuthenticated, "this listener takes calls over mTLS with an X.509-SVID")))
}

/// The calling workload.
pub fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    caller_of(request.extensions().get())
}

/// The caller of a peer with an SVID.
pub fn caller_of(peer: Option<&Peer>) -> Result<Caller, Status> {
    match peer {
        Some(Peer::Workload(caller) | Peer::Admin(caller)) => Ok(caller.clone()),
        Some(Peer::Local(_)) | None => Err(nobody()),
    }
}

/// The calling operator. The admin policy decides whether that SVID or uid is permitted.
pub fn operator<T>(request: &Request<T>) -> Result<Operator, Status> {
    match request.extensions().get::<Peer>() {
        Some(Peer::Admin(caller)) => Ok(Operator::Svid(caller.clone())),
        Some(Peer::Local(uid)) => Ok(Operator::LocalUid(*uid)),
        Some(Peer::Workload(_)) | None => Err(status(No::Refusal(elsewhere()))),
    }
}

/// The refusal for an operator's call on the workload listener.
pub fn elsewhere() -> Refusal {
    Refusal::new(Reason::NotAuthenticated, "this is served on the admin listener only")
        .by("the workload listener has no operators")
        .way_out("operators call listen.admin: mayfly --address https://HOST:PORT, or unix:/PATH on the server's host")
}
