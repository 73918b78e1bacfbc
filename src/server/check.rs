//! What keeps a server from starting on a configuration. A start, a reload and `mayfly server validate` ask here, so they refuse the same things.
//!
//! - What stands in files: [`files`], weighed by what the ledger knows already ([`weigh`]).
//! - What a start opens and binds: [`for_validation`] tries the same (the store with its sealing key, the ledger in it, the socket, the ports) and
//!   lets go again. A start does it for good.
//!
//! A store and ports in use by the server that runs on this very configuration (it answers at its socket, or at its port under its identity) are
//! told apart from those that somebody else has: what is then looked for is what a reload or a restart of that server would find.

use std::net::{SocketAddr, TcpListener};

use super::problem::{StartProblem, Why};
use super::start::{listen, sealing_key};
use super::{engine, healthcheck, import};
use crate::authority::Authority;
use crate::document::Complaint;
use crate::ledger::open::load;
use crate::ledger::{StartError, State};
use crate::seq::Millis;
use crate::serve::unix;
use crate::sources::config::{About, Config, Finding, Seal, Severity, validate_with};
use crate::sources::workload_api::Given;
use crate::store::StoreError;
use crate::system::System;

/// What the ledger holds already, so that its file is only compared or follows later.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Known {
    /// Policies of every environment that is served.
    pub policies: bool,
    /// A bundle of every trust domain that is configured.
    pub bundles: bool,
}

impl Known {
    /// What a ledger's state holds.
    pub fn of(state: &State, config: &Config) -> Known {
        Known {
            policies: import::missing(state, &config.server.environments).is_empty(),
            bundles: config.bundles.iter().all(|bundle| state.bundles.contains_key(bundle.trust_domain.as_str())),
        }
    }
}

/// What is wrong with the files of a configuration, for a start that has what the agent gave.
pub fn files(config: &Config, now: Millis, given: Option<&Given>) -> Vec<Finding> {
    validate_with(config, now, given)
}

/// What is an error for a first start only is a warning where the ledger holds it already. Errors first.
pub fn weigh(mut found: Vec<Finding>, known: Known) -> Vec<Finding> {
    for finding in &mut found {
        let held = match finding.about {
            About::Everything => false,
            About::Policy => known.policies,
            About::Bundle => known.bundles,
        };
        if held && finding.severity == Severity::Error {
            finding.severity = Severity::Warning;
            finding.complaint.what.push_str("; a start goes on with what the ledger has");
        }
    }
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    found
}

/// The complaints of those that are errors, of what `about` says.
pub fn errors(found: &[Finding], about: impl Fn(About) -> bool) -> Vec<Complaint> {
    let errors = found.iter().filter(|f| f.severity == Severity::Error && about(f.about));
    errors.map(|finding| finding.complaint.clone()).collect()
}

/// Everything that keeps a running server from taking a configuration, each as a line.
pub fn for_reload(config: &Config, authority: &Authority) -> Vec<String> {
    let known = authority.ledger.peek(|state| Known::of(state, config));
    let found = weigh(files(config, authority.system.wall(), None), known);
    errors(&found, |_| true).iter().map(ToString::to_string).collect()
}

/// Everything that a start would find; or that a reload would, where a server runs on the configuration, which is told beside.
pub fn for_validation(config: &Config, system: &System) -> (Vec<Finding>, bool) {
    let mut look = Look { config, system, running: false, found: Vec::new() };
    let known = look.store();
    if !look.running {
        look.listeners();
    }
    let mut found = files(config, system.wall(), None);
    // A key file that is wrong is told by both.
    look.found
        .retain(|own| !found.iter().any(|f| f.complaint.what.starts_with("seal.") && own.complaint.what.starts_with("seal.")));
    found.append(&mut look.found);
    (weigh(found, known), look.running)
}

struct Look<'c> {
    config: &'c Config,
    system: &'c System,
    /// The store is in use by the server that runs on the configuration.
    running: bool,
    found: Vec<Finding>,
}

impl Look<'_> {
    fn push(&mut self, key: &str, severity: Severity, what: String, remedy: String) {
        let (file, line) = (self.config.file.clone(), self.config.line_of(key));
        let complaint = Complaint { file, line, column: 0, what: format!("{key}: {what}"), remedy, keys: Vec::new() };
        self.found.push(Finding { severity, about: About::Everything, complaint });
    }

    /// As a start says it.
    fn refused(&mut self, key: &str, why: Why) {
        let problem = StartProblem::new(why, self.config);
        let remedies: Vec<String> = problem.remedies().iter().map(ToString::to_string).collect();
        let text = problem.to_string();
        let mut lines = text.lines().map(str::trim);
        let what = lines.next().unwrap_or_default().to_owned();
        // Some texts hold their command themselves.
        let remedy = if remedies.is_empty() { lines.collect::<Vec<_>>().join("; ") } else { remedies.join("; ") };
        self.push(key, Severity::Error, what, remedy);
    }

    /// Opens the store with its sealing key and folds the ledger in it, as a start does. Nothing is written.
    fn store(&mut self) -> Known {
        let key = match sealing_key(self.config) {
            Ok(key) => Some(key),
            Err(why) => {
                let name = if matches!(self.config.seal, Seal::Credential(_)) { "seal.credential" } else { "seal.key_file" };
                self.refused(name, why);
                None
            }
        };
        let Some(dir) = engine::data_dir(self.config) else { return Known::default() };
        if let Err(error) = engine::not_lost(self.config, dir) {
            self.refused("store.path", Why::Ledger(error.into()));
            return Known::default();
        }
        if !engine::is_in(self.config, dir) {
            return Known::default();
        }
        let store = match engine::open_damaged(self.config, dir) {
            Ok(store) => store,
            Err(StoreError::InUse(what)) => return self.in_use(what),
            Err(error) => {
                self.refused("store.path", Why::Ledger(StartError::from(error)));
                return Known::default();
            }
        };
        // One that a first start did not finish is made anew by the next.
        if store.head().unwrap_or_default() == 0 {
            return Known::default();
        }
        if let Some(Err(error)) = key.map(|key| key.check(&*store, self.system)) {
            let name = if matches!(self.config.seal, Seal::Credential(_)) { "seal.credential" } else { "seal.key_file" };
            self.refused(name, Why::Seal { error, key: self.config.seal.clone() });
        }
        match load(&*store, engine::snapshots(self.config).as_ref()) {
            Ok(loaded) => {
                for what in import::drift_of(&loaded.state, self.config) {
                    let remedy = "mayfly policy set, or mayfly upstream change: the ledger counts, and files are taken in at a first start only";
                    self.push("policy.files", Severity::Warning, what, remedy.to_owned());
                }
                Known::of(&loaded.state, self.config)
            }
            Err(error) => {
                self.refused("store.path", Why::Ledger(error));
                Known::default()
            }
        }
    }

    /// Somebody has the store open: this configuration's own server, or another process.
    fn in_use(&mut self, what: String) -> Known {
        self.running = answers(self.config, self.system);
        if !self.running {
            self.refused("store.path", Why::Ledger(StoreError::InUse(what).into()));
        }
        // What a server that runs has taken in is compared with its files, and follows them.
        Known { policies: true, bundles: true }
    }

    /// What a start binds.
    fn listeners(&mut self) {
        let listen_on = &self.config.listen;
        let mut ports =
            vec![("listen.workload", listen_on.workload), ("listen.admin", listen_on.admin), ("listen.public", listen_on.public)];
        ports.extend(listen_on.metrics.map(|address| ("listen.metrics", address)));
        for (key, address) in ports {
            if let Err(why) = free(key, address) {
                self.refused(key, why);
            }
        }
        let shared = super::start::socket_is_shared(self.config);
        if let Some(Err(no)) = listen_on.admin_socket.as_deref().map(|path| unix::check(path, shared)) {
            self.refused("listen.admin_socket", Why::Socket(no));
        }
    }
}

/// Whether a port could be bound now. It is free again when this returns.
fn free(key: &'static str, address: SocketAddr) -> Result<(), Why> {
    if address.port() == 0 {
        return Ok(());
    }
    listen(key, address).map(|bound: TcpListener| drop(bound))
}

/// Whether the server of a configuration answers: at its own socket, which lies in a directory that nobody else may enter, or at its port under
/// its identity.
fn answers(config: &Config, system: &System) -> bool {
    let asked = std::thread::scope(|scope| {
        let asking = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            Some(runtime.block_on(async {
                let at_socket = match &config.listen.admin_socket {
                    Some(path) => healthcheck::answers_at(path).await,
                    None => false,
                };
                at_socket
                    || matches!(healthcheck::ask_as(config, "", system).await, Ok(()) | Err(healthcheck::NotHealthy::Says(_)))
            }))
        };
        scope.spawn(asking).join().ok().flatten()
    });
    asked.unwrap_or(false)
}
