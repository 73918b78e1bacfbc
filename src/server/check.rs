//! Checks whether a server can start on a configuration. A start, a reload and `mayfly server validate` all use these checks, so they
//! refuse the same configurations.
//!
//! - Content of files: [`files`], with severities adjusted to what the ledger contains already ([`weigh`]).
//! - Resources that a start opens and binds: [`for_validation`] opens the same (the store with its sealing key, the ledger in it, the socket,
//!   the ports) and releases them again. A start keeps them.
//!
//! If the store and ports are in use by the server that runs on this very configuration (it answers at its socket, or at its port under its
//! identity), the checks report what a reload or a restart of that server would find. If another process has them, that is an error.

use std::net::{SocketAddr, TcpListener};

use super::problem::{StartProblem, Why};
use super::start::{listen, sealing_key};
use super::{engine, healthcheck, import};
use crate::authority::Authority;
use crate::document::{Complaint, with_key};
use crate::ledger::open::load;
use crate::ledger::{StartError, State};
use crate::seq::Millis;
use crate::serve::unix;
use crate::sources::config::{About, Config, Finding, Seal, Severity, validate_with};
use crate::sources::workload_api::Given;
use crate::store::StoreError;
use crate::system::System;

/// The data that the ledger contains already, so that the corresponding files are only compared, or imported later.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Known {
    /// Whether the ledger has policies of every environment that is served.
    pub policies: bool,
    /// Whether the ledger has a bundle of every configured trust domain.
    pub bundles: bool,
}

impl Known {
    /// Reads this from a ledger's state.
    pub fn of(state: &State, config: &Config) -> Known {
        Known {
            policies: import::missing(state, &config.server.environments).is_empty(),
            bundles: config.bundles.iter().all(|bundle| state.bundles.contains_key(bundle.trust_domain.as_str())),
        }
    }
}

/// The defects of a configuration's files. A start passes the agent's message.
pub fn files(config: &Config, now: Millis, given: Option<&Given>) -> Vec<Finding> {
    validate_with(config, now, given)
}

/// Downgrades errors that matter for a first start only to warnings if the ledger contains the data already. Returns errors first.
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

/// The complaints of all errors about the given subjects.
pub fn errors(found: &[Finding], about: impl Fn(About) -> bool) -> Vec<Complaint> {
    let errors = found.iter().filter(|f| f.severity == Severity::Error && about(f.about));
    errors.map(|finding| finding.complaint.clone()).collect()
}

/// Everything that prevents a running server from reloading a configuration, one line each.
pub fn for_reload(config: &Config, authority: &Authority) -> Vec<String> {
    let known = authority.ledger.peek(|state| Known::of(state, config));
    let found = weigh(files(config, authority.system.wall(), None), known);
    errors(&found, |_| true).iter().map(ToString::to_string).collect()
}

/// Everything that a start would refuse, or that a reload would refuse if a server runs on the configuration. The second value tells
/// whether one runs.
pub fn for_validation(config: &Config, system: &System) -> (Vec<Finding>, bool) {
    let mut look = Look { config, system, running: false, found: Vec::new() };
    let known = look.store();
    if !look.running {
        look.listeners();
    }
    let mut found = files(config, system.wall(), None);
    // Both checks report a defective key file; keep one report.
    look.found
        .retain(|own| !found.iter().any(|f| f.complaint.what.starts_with("seal.") && own.complaint.what.starts_with("seal.")));
    found.append(&mut look.found);
    (weigh(found, known), look.running)
}

struct Look<'c> {
    config: &'c Config,
    system: &'c System,
    /// Whether the store is in use by the server that runs on this configuration.
    running: bool,
    found: Vec<Finding>,
}

impl Look<'_> {
    fn push(&mut self, key: &str, severity: Severity, what: String, remedy: String) {
        let (file, line) = (self.config.file.clone(), self.config.line_of(key));
        let complaint = Complaint { file, line, column: 0, what: with_key(key, &what), remedy, keys: Vec::new() };
        self.found.push(Finding { severity, about: About::Everything, complaint });
    }

    /// Reports a problem in the words of a start.
    fn refused(&mut self, key: &str, why: Why) {
        let problem = StartProblem::new(why, self.config);
        let remedies: Vec<String> = problem.remedies().iter().map(ToString::to_string).collect();
        let text = problem.to_string();
        let mut lines = text.lines().map(str::trim);
        let what = lines.next().unwrap_or_default().to_owned();
        // Some texts contain their command.
        let remedy = if remedies.is_empty() { lines.collect::<Vec<_>>().join("; ") } else { remedies.join("; ") };
        self.push(key, Severity::Error, what, remedy);
    }

    /// Opens the store with its sealing key and replays its ledger, as a start does. Nothing is written.
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
        // A store whose first start was interrupted is created anew by the next start.
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

    /// The store is open in another process: this configuration's own server, or a different process.
    fn in_use(&mut self, what: String) -> Known {
        match answers(self.config, self.system) {
            Answers::Yes => self.running = true,
            // The server cannot be asked with files that cannot be read. Whoever has the store of this configuration and listens at its
            // port is taken for its server.
            Answers::NotAsked(why) if self.listens() => {
                self.running = true;
                let what = format!(
                    "a server runs on this data directory and listens at listen.workload, but it could not be asked: {why}"
                );
                self.push(
                    "store.path",
                    Severity::Warning,
                    what,
                    "mend that file; the server goes on with what it read before".to_owned(),
                );
            }
            Answers::NotAsked(_) | Answers::No => self.refused("store.path", Why::Ledger(StoreError::InUse(what).into())),
        }
        // The running server has imported these files; changes of the files are compared or followed.
        Known { policies: true, bundles: true }
    }

    /// Whether some process listens at the port of the workload listener.
    fn listens(&self) -> bool {
        let taken = |why: Why| matches!(why, Why::Port { error, .. } if error.kind() == std::io::ErrorKind::AddrInUse);
        free("listen.workload", self.config.listen.workload).is_err_and(taken)
    }

    /// Checks the sockets that a start binds.
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

/// Whether a port could be bound now. The port is free again when this returns.
fn free(key: &'static str, address: SocketAddr) -> Result<(), Why> {
    if address.port() == 0 {
        return Ok(());
    }
    listen(key, address).map(|bound: TcpListener| drop(bound))
}

/// The result of asking for the server of a configuration.
enum Answers {
    Yes,
    No,
    /// The files for asking cannot be read, for this reason.
    NotAsked(String),
}

/// Whether the server of a configuration answers: at its own socket, which is in a directory that no other user may enter, or at its port
/// under its identity.
fn answers(config: &Config, system: &System) -> Answers {
    let asked = std::thread::scope(|scope| {
        let asking = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            Some(runtime.block_on(async {
                let at_socket = match &config.listen.admin_socket {
                    Some(path) => healthcheck::answers_at(path).await,
                    None => false,
                };
                if at_socket {
                    return Answers::Yes;
                }
                match healthcheck::ask_as(config, "", system).await {
                    Ok(()) | Err(healthcheck::NotHealthy::Says(_)) => Answers::Yes,
                    Err(healthcheck::NotHealthy::Own { what, .. }) => Answers::NotAsked(what),
                    Err(_) => Answers::No,
                }
            }))
        };
        scope.spawn(asking).join().ok().flatten()
    });
    asked.unwrap_or(Answers::No)
}
