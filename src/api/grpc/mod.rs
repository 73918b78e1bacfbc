//! The gRPC services, one file each.

use mayfly_authority::authority::Authority;
use mayfly_authority::revocation::revoke::Hits;
use mayfly_base::refusal::No;
use mayfly_identity::caller::Caller;
use mayfly_proto::mayfly::v1 as pb;

pub mod approval;
mod ask;
pub mod audit;
mod audit_prove;
mod audit_search;
mod audit_tail;
mod authorize;
mod backup;
mod batch;
mod binding;
pub mod break_glass;
pub mod credential;
mod credential_filter;
mod credential_watch;
mod gate;
mod issued;
pub mod key;
pub mod lease;
mod line;
mod page;
pub mod policy;
pub mod revocation;
mod round;
mod routes;
mod sent;
pub mod server;
mod stream;
pub mod task;
pub mod token;
mod told;
mod traced;
pub mod trust_domain;
mod unary;
pub mod upstream;
mod uses;
mod watch;
mod webhook;

pub use batch::PATH as BATCH_EXCHANGE;
pub use routes::{Answering, Arrived, Calls, Services, admin_routes, answers_of, streams_messages, workload_routes};
pub use told::Patterns;
pub use traced::over;
pub use unary::PATH as EXCHANGE;

/// Counts of what was hit.
fn hits_to_pb(hits: &Hits) -> pb::Hits {
    let Hits { credentials, tasks, tasks_ended, callers, elsewhere: _ } = *hits;
    pb::Hits { credentials, tasks, callers, overlapping: false, tasks_ended }
}

/// Notes a refusal for the audit.
fn note(authority: &Authority, caller: &Caller, no: &No, asked: &str, task: &str) {
    if let No::Refusal(no) = no {
        authority.refused(caller.id().as_str(), no, asked, task);
    }
}
