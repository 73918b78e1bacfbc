//! Protects secrets in memory from core dumps and debuggers (invariant 7).

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Disables core dumps, and reading of this process's memory by other processes of the same user. A failure is only logged: on an old
/// kernel the server must still be able to revoke.
pub fn harden() {
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }) {
        tracing::warn!(%error, "core dumps could not be disabled");
    }
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "other processes of the same user can still read this process's memory");
    }
}
