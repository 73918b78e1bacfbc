//! The gRPC services, one file each.

use crate::authority::Authority;
use crate::identity::caller::Caller;
use crate::pb::mayfly::v1 as pb;
use crate::refusal::No;
use crate::revoke::Hits;

mod issued;
mod page;
pub mod revocation;
mod routes;
pub mod task;
pub mod token;
mod watch;

pub use routes::{admin_routes, workload_routes};

/// Counts of what was hit.
fn hits_to_pb(hits: &Hits) -> pb::Hits {
    pb::Hits { credentials: hits.credentials, tasks: hits.tasks, callers: hits.callers, overlapping: false }
}

/// Notes a refusal for the audit.
fn note(_authority: &Authority, _caller: &Caller, _no: &No, _asked: &str, _task: &str) {}
