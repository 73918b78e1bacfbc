//! A server: builds it from a configuration, runs it, and stops it.
//!
//! - [`mod@start`]: opens, checks and binds everything, or fails with one reason and the command that repairs it ([`start_problem`]).
//! - [`engine`], [`sealer`], [`import`]: the store, the sealing of stored values, and the import of files at a first start.
//! - `server_identity`, `bundles`: the server's own SVID and the trust bundles at the start; `renewal`: their changes.
//! - `threads`, `upkeep`: the work while the server runs. `reload`: the changes on SIGHUP.
//! - [`check`]: the checks of a configuration, shared by the start, the reload and `validate`.
//! - [`run`], [`recover`], [`restore`], [`healthcheck`], [`validate`]: the commands `mayfly server …`.
//!
//! Readiness. A server listens only after its ledger is open. The health of the whole server (`""`) is SERVING as long as records can be
//! written. This includes times at which nothing is issued (a full disk, a wrong clock), since revocations must still reach the server.
//! `mayfly.v1.TokenService` is NOT_SERVING while nothing is issued, so that a load balancer can send exchanges to a replica that issues.
#![forbid(unsafe_code)]

mod bundles;
pub mod check;
mod config_mapping;
pub mod engine;
mod export;
mod file_limit;
mod file_owner;
pub mod harden;
pub mod healthcheck;
pub mod import;
mod memory;
mod metrics;
mod otlp;
pub mod recover;
mod reload;
mod renewal;
pub mod restore;
pub mod run;
pub mod sealer;
mod server_identity;
mod source_check;
pub mod start;
pub mod start_problem;
mod start_remedies;
pub mod store_check;
pub mod telemetry;
mod threads;
mod traces;
mod upkeep;
pub mod validate;
mod webhook;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use config_mapping::connector_settings;
pub use reload::{ReloadErrors, Reloaded};
pub use server_identity::inspect_svid;
pub use start::{start, start_with};
pub use start_problem::{StartFailure, StartProblem};

use mayfly_api::listener::ListenerCounts;
use mayfly_authority::authority::Authority;
use mayfly_config::config::Config;
use reload::{Outlets, Reloader};

/// The environment variables that may configure a server. `MAYFLY_SERVER_ID` is excluded: it belongs to the command line, although it
/// begins like a key of `[server]`. Variables that are not UTF-8 are ignored.
pub fn environment() -> Vec<(String, String)> {
    let texts = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    texts.filter(|(name, _)| name != "MAYFLY_SERVER_ID").collect()
}

/// The addresses at which a server answers, with the actual ports also if the configuration has port 0.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Addresses {
    /// gRPC over mTLS, for workloads.
    pub workload: SocketAddr,
    /// gRPC over mTLS, for operators.
    pub admin: SocketAddr,
    /// The operators' socket on this host.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub admin_socket: Option<PathBuf>,
    /// HTTPS for everybody, without client certificates.
    pub public: SocketAddr,
    /// The metrics listener.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub metrics: Option<SocketAddr>,
    /// The process id.
    pub pid: u32,
}

/// A running server with its threads. Dropping this value stops the server.
pub struct RunningServer {
    authority: Arc<Authority>,
    addresses: Addresses,
    counts: [Arc<ListenerCounts>; 4],
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
    outlets: Arc<Mutex<Outlets>>,
    reloading: Arc<Reloader>,
}

impl RunningServer {
    /// The addresses at which the server answers.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The state that the server shares with its services. The store stays open after the server has stopped while a copy of this value
    /// exists.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// The number of open connections at the listeners for workloads, for operators (port and socket) and for everybody.
    pub fn connections(&self) -> [usize; 4] {
        [0, 1, 2, 3].map(|n: usize| self.counts.get(n).map_or(0, |c| c.open()))
    }

    /// Applies the changes of another configuration that a running server can apply, or returns all its errors. SIGHUP does the same with
    /// the file that the server was started with.
    pub fn reload(&self, next: &Config) -> Result<Reloaded, ReloadErrors> {
        self.reloading.take(next)
    }

    /// Whether all threads of the server run.
    pub fn is_whole(&self) -> bool {
        self.threads.iter().all(|thread| !thread.is_finished())
    }

    /// Stops the server: new connections are refused at once, calls in progress have `limits::SHUTDOWN_MS`, and queued records are written.
    /// Blocks until then.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.send_replace(true);
        self.authority.ending.send_replace(true);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the server panicked");
            }
        }
        let mut outlets = self.outlets.lock();
        // The export and the webhooks store their positions while the store is open.
        outlets.export = None;
        outlets.webhooks = None;
        // Traces end last, after everything that is traced.
        outlets.traces = None;
        drop(outlets);
        self.authority.ledger.stop();
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        self.end();
    }
}
