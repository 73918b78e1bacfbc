//! A server: from a configuration to something that answers, and back down again.
//!
//! - [`mod@start`]: everything opened, checked and bound, or the one reason why not, with the command that mends it ([`problem`]).
//! - [`engine`], [`sealer`], [`import`]: the store, what seals in it, what a first start takes in.
//! - `own`, `bundles`: who we are and whom we trust, as the start finds it; `follow`: how that changes.
//! - `threads`, `upkeep`: what runs while it serves. `reload`: what SIGHUP changes of it.
//! - [`check`]: what a start refuses, a reload refuses and `validate` tells, by one function.
//! - [`run`], [`recover`], [`restore`], [`healthcheck`], [`validate`]: the commands `mayfly server …`.
//!
//! Readiness. A server that listens has its ledger open: nothing listens before. Health of the whole server (`""`) is SERVING for as long as
//! records can be written, also while nothing is issued (a full disk, a wrong clock), since revoking works then and must find its way here.
//! `mayfly.v1.TokenService` is NOT_SERVING while nothing is issued, for who sends exchanges to the replica that makes them.

mod bundles;
pub mod check;
pub mod engine;
pub mod examine;
mod export;
mod files;
mod follow;
mod given;
pub mod harden;
pub mod healthcheck;
pub mod import;
mod memory;
mod mend;
mod metrics;
mod otlp;
mod own;
mod owner;
pub mod problem;
pub mod recover;
mod reload;
pub mod restore;
pub mod run;
pub mod sealer;
mod source_check;
pub mod start;
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

pub use given::elsewhere;
pub use own::seen;
pub use problem::{StartProblem, Why};
pub use reload::{NotTaken, Reloaded};
pub use start::{start, start_with};

use crate::authority::Authority;
use crate::serve::listener::Counts;
use crate::sources::config::Config;
use reload::{Outlets, Reloading};

/// The environment as far as it may configure a server. `MAYFLY_SERVER_ID` is the command line's own, though it begins like a key of
/// `[server]`; what is not UTF-8 is nobody's.
pub fn environment() -> Vec<(String, String)> {
    let texts = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    texts.filter(|(name, _)| name != "MAYFLY_SERVER_ID").collect()
}

/// Where a server answers: the ports that it really has, also where the configuration said 0.
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
    /// HTTPS for everybody.
    pub public: SocketAddr,
    /// Metrics, on loopback.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub metrics: Option<SocketAddr>,
    /// The process.
    pub pid: u32,
}

/// A server that runs in threads of its own. Dropping it stops it.
pub struct Running {
    authority: Arc<Authority>,
    addresses: Addresses,
    counts: [Arc<Counts>; 4],
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
    outlets: Arc<Mutex<Outlets>>,
    reloading: Arc<Reloading>,
}

impl Running {
    /// Where it answers.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// What it shares with its services. Whoever holds a copy keeps the store open after the server has stopped.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// Connections open now, at the listeners for workloads, for operators (port and socket) and for everybody.
    pub fn connections(&self) -> [usize; 4] {
        [0, 1, 2, 3].map(|n: usize| self.counts.get(n).map_or(0, |c| c.open()))
    }

    /// Takes of another configuration what can be taken while it runs, or says everything that is wrong with it. SIGHUP does the same with the
    /// file that the server was started with.
    pub fn reload(&self, next: &Config) -> Result<Reloaded, NotTaken> {
        self.reloading.take(next)
    }

    /// Whether all its threads run.
    pub fn is_whole(&self) -> bool {
        self.threads.iter().all(|thread| !thread.is_finished())
    }

    /// Stops it: no new connections at once, open calls have `limits::SHUTDOWN_MS`, what waits for the ledger is written. Blocks until then.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.send_replace(true);
        self.authority.ending.send_replace(true);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the server ended by a panic");
            }
        }
        let mut outlets = self.outlets.lock();
        // What was handed over is noted while the store is open.
        outlets.export = None;
        outlets.webhooks = None;
        // After all that is traced.
        outlets.traces = None;
        drop(outlets);
        self.authority.ledger.stop();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}
