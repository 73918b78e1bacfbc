//! The limit of open files: one file per connection, and some for the store and the listeners.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use mayfly_base::limits;
use mayfly_config::config::Config;

/// Raises the limit of open files to the hard limit, and warns if fewer connections fit than the configuration allows. Many systems have a
/// soft limit of 1,024, which a process may raise to the limit of its service manager or container.
pub fn open_as_many_as_allowed(config: &Config) {
    let before = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: before.maximum, ..before }) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
    let l = &config.limits;
    let wanted = (l.connections + l.admin_connections + l.public_connections) as u64;
    // `None`: no limit.
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
