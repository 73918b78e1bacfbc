//! The identity of a connection's peer. The listener sets it from the TLS session or the socket, never from a header.

use tonic::{Request, Status};

use super::status::status;
use mayfly_base::refusal::{Error, NO_OPERATORS_HERE, Reason, Refusal};
use mayfly_identity::caller::{Caller, Operator};

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

fn missing_peer() -> Status {
    status(Error::Refusal(Refusal::new(Reason::NotAuthenticated, "this listener takes calls over mTLS with an X.509-SVID")))
}

/// The refusal for a workload's call over the operators' socket, whose peers show no SVID.
fn no_svid_here() -> Status {
    let what = "this is the operators' local socket (listen.admin_socket), where a caller shows no X.509-SVID; workloads' commands use the \
                workload listener (listen.workload)";
    let no = Refusal::new(Reason::NotAuthenticated, what).by("a workload is known by its X.509-SVID");
    status(Error::Refusal(
        no.way_out("workloads call listen.workload: mayfly --address https://HOST:PORT, with --svid, --key and --bundle"),
    ))
}

/// The calling workload.
pub fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    caller_of(request.extensions().get())
}

/// The caller of a peer with an SVID.
pub fn caller_of(peer: Option<&Peer>) -> Result<Caller, Status> {
    match peer {
        Some(Peer::Workload(caller) | Peer::Admin(caller)) => Ok(caller.clone()),
        Some(Peer::Local(_)) => Err(no_svid_here()),
        None => Err(missing_peer()),
    }
}

/// The calling operator. The admin policy decides whether that SVID or uid is permitted.
pub fn operator<T>(request: &Request<T>) -> Result<Operator, Status> {
    match request.extensions().get::<Peer>() {
        Some(Peer::Admin(caller)) => Ok(Operator::Svid(caller.clone())),
        Some(Peer::Local(uid)) => Ok(Operator::LocalUid(*uid)),
        Some(Peer::Workload(_)) | None => Err(status(Error::Refusal(wrong_listener()))),
    }
}

/// The refusal for an operator's call on the workload listener.
pub fn wrong_listener() -> Refusal {
    on_workload_listener(Reason::NotAuthenticated)
}

/// The refusal for a call of a service that only the admin listener has.
pub fn wrong_listener_for_service() -> Refusal {
    on_workload_listener(Reason::NotServed)
}

fn on_workload_listener(reason: Reason) -> Refusal {
    Refusal::new(reason, "this address is the workload listener; operators' commands use the admin listener (listen.admin)")
        .by(NO_OPERATORS_HERE)
        .way_out("operators call listen.admin: mayfly --address https://HOST:PORT, or unix:/PATH on the server's host")
}
