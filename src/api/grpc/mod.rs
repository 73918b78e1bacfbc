//! The gRPC services, one file each.

use mayfly_authority::authority::Authority;
use mayfly_authority::revocation::revoke::RevocationHits;
use mayfly_base::refusal::Error;
use mayfly_identity::caller::Caller;
use mayfly_proto::mayfly::v1 as pb;

pub mod approval;
pub mod audit;
mod audit_prove;
mod audit_search;
mod audit_tail;
mod authorize;
mod backup;
mod binding;
pub mod break_glass;
mod call_approval;
mod call_trace;
pub mod connection;
mod credential;
mod credential_filter;
mod credential_watch;
mod exchange;
pub mod key;
pub mod lease;
mod page;
pub mod policy;
mod request_checks;
pub mod revocation;
mod revocation_watch;
mod routes;
mod secret;
pub mod server;
pub mod task;
pub mod token;
pub mod trust_domain;
pub mod upstream;
mod use_report;
mod webhook;

pub use call_trace::end_trace_by_headers;
#[cfg(feature = "fast")]
pub use exchange::fast::AnswerEncoder;
pub use exchange::{BATCH_EXCHANGE, EXCHANGE};
pub use routes::{
    CallArrival, ConnectionServices, PendingCall, Services, admin_routes, answers_of, streams_messages, workload_routes,
};

/// Counts of what was hit.
fn hits_to_pb(hits: &RevocationHits) -> pb::Hits {
    let RevocationHits { credentials, tasks, tasks_ended, callers, at_upstreams: _ } = *hits;
    pb::Hits { credentials, tasks, callers, overlapping: false, tasks_ended }
}

/// Notes a refusal for the audit.
fn note(authority: &Authority, caller: &Caller, no: &Error, asked: &str, task: &str) {
    if let Error::Refusal(no) = no {
        authority.refused(caller.id().as_str(), no, asked, task);
    }
}
