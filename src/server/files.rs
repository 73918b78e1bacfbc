//! How many files may be open: one for each connection, and some for the store and the listeners.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::limits;
use crate::sources::config::Config;

/// Takes as many open files as the system allows this process, and tells when fewer connections fit than the configuration allows. Many
/// systems begin with 1,024, of which a service manager or a container allows more to those who ask.
pub fn open_as_many_as_allowed(config: &Config) {
    let before = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: before.maximum, ..before }) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
    let l = &config.limits;
    let wanted = (l.connections + l.admin_connections + l.public_connections) as u64;
    // None is no limit.
    let Some(fit) = getrlimit(Resource::Nofile).current.map(|files| files.saturating_sub(limits::OTHER_FILES)) else { return };
    if fit < wanted {
        tracing::warn!(
            fit,
            wanted,
            "fewer connections fit than limits.connections, admin_connections and public_connections allow together; raise the hard \
             limit of open files (LimitNOFILE of a unit, ulimit -Hn), or lower those"
        );
    } else {
        tracing::info!(fit, "open files allow as many connections");
    }
}
