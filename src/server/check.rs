//! Checks whether a server can start on a configuration. A start, a reload and `mayfly server validate` all use these checks, so they
//! refuse the same configurations.
//!
//! - Content of files: [`files`], with severities adjusted to what the ledger contains already ([`downgrade_imported`]).
//! - Resources that a start opens and binds: [`for_validation`] opens the same (the store with its sealing key, the ledger in it, the
//!   socket, the ports) and releases them again. A start keeps them.
//!
//! If the store is in use by the server that runs on this very configuration (it answers at its socket, or at one of its ports under its
//! identity), the checks report what a reload or a restart of that server would find. A port that this server has is free for its restart.
//! A store or a port of another process is an error. What cannot be checked while the server runs is listed ([`ConfigCheck::unchecked`]).

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

use super::start::{listen, sealing_key};
use super::start_problem::{StartFailure, StartProblem};
use super::{engine, healthcheck, import};
use mayfly_api::unix::{self, SocketError};
use mayfly_authority::authority::Authority;
use mayfly_base::document::{Diagnostic, with_key};
use mayfly_base::system::System;
use mayfly_config::config::{Config, ConfigFinding, FindingSubject, SealingKeySource, Severity, validate_with};
use mayfly_config::workload_api::AgentMessage;
use mayfly_ledger::recovery::open::load;
use mayfly_ledger::{StartError, State};
use mayfly_store::StoreError;
use mayfly_store::sealing::{SealError, SealingKey};
use mayfly_verify::seq::Millis;

/// The data that the ledger contains already, so that the corresponding files are only compared, or imported later.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ImportState {
    /// Whether the ledger has policies of every environment that is served.
    pub policies: bool,
    /// Whether the ledger has a bundle of every configured trust domain.
    pub bundles: bool,
}

impl ImportState {
    /// Reads this from a ledger's state.
    pub fn of(state: &State, config: &Config) -> ImportState {
        ImportState {
            policies: import::missing(state, &config.server.environments).is_empty(),
            bundles: config.bundles.iter().all(|bundle| state.bundles.contains_key(bundle.trust_domain.as_str())),
        }
    }
}

/// The defects of a configuration's files. A start passes the agent's message.
pub fn files(config: &Config, now: Millis, given: Option<&AgentMessage>) -> Vec<ConfigFinding> {
    validate_with(config, now, given)
}

/// Downgrades errors that matter for a first start only to warnings if the ledger contains the data already. Returns errors first.
pub fn downgrade_imported(mut found: Vec<ConfigFinding>, known: ImportState) -> Vec<ConfigFinding> {
    for finding in &mut found {
        let held = match finding.about {
            FindingSubject::Everything => false,
            FindingSubject::Policy => known.policies,
            FindingSubject::Bundle => known.bundles,
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
pub fn errors(found: &[ConfigFinding], about: impl Fn(FindingSubject) -> bool) -> Vec<Diagnostic> {
    let errors = found.iter().filter(|f| f.severity == Severity::Error && about(f.about));
    errors.map(|finding| finding.complaint.clone()).collect()
}

/// Everything that prevents a running server from reloading a configuration, one line each.
pub fn for_reload(config: &Config, authority: &Authority) -> Vec<String> {
    let known = authority.ledger.peek(|state| ImportState::of(state, config));
    let found = downgrade_imported(files(config, authority.system.wall(), None), known);
    errors(&found, |_| true).iter().map(ToString::to_string).collect()
}

/// The result of checking a configuration.
#[derive(Default)]
pub struct ConfigCheck {
    /// Everything that a start would refuse, or that a reload or a restart would refuse if a server runs on the configuration.
    pub findings: Vec<ConfigFinding>,
    /// Whether a server runs on the configuration.
    pub running: bool,
    /// Everything that could not be checked, since a server runs.
    pub unchecked: Vec<String>,
}

/// Checks what a start would open and bind, and the contents of all files.
pub fn for_validation(config: &Config, system: &System) -> ConfigCheck {
    let mut look = StartChecker { config, system, running: false, at_socket: false, found: Vec::new(), unchecked: Vec::new() };
    let known = look.store();
    look.listeners();
    let mut found = files(config, system.wall(), None);
    // Both checks report a defective key file; keep one report.
    look.found
        .retain(|own| !found.iter().any(|f| f.complaint.what.starts_with("seal.") && own.complaint.what.starts_with("seal.")));
    found.append(&mut look.found);
    ConfigCheck { findings: downgrade_imported(found, known), running: look.running, unchecked: look.unchecked }
}

struct StartChecker<'c> {
    config: &'c Config,
    system: &'c System,
    /// Whether the store is in use by the server that runs on this configuration.
    running: bool,
    /// Whether that server answers at `listen.admin_socket`.
    at_socket: bool,
    found: Vec<ConfigFinding>,
    unchecked: Vec<String>,
}

impl StartChecker<'_> {
    fn push(&mut self, key: &str, severity: Severity, what: String, remedy: String) {
        let (file, line) = (self.config.file.clone(), self.config.line_of(key));
        let complaint = Diagnostic { file, line, column: 0, what: with_key(key, &what), remedy, keys: Vec::new() };
        self.found.push(ConfigFinding { severity, about: FindingSubject::Everything, complaint });
    }

    /// Reports a problem in the words of a start.
    fn refused(&mut self, key: &str, why: StartFailure) {
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
    fn store(&mut self) -> ImportState {
        let key = match sealing_key(self.config) {
            Ok(key) => Some(key),
            Err(why) => {
                self.refused(self.seal_key_name(), why);
                None
            }
        };
        let Some(dir) = engine::data_dir(self.config) else { return ImportState::default() };
        if let Err(error) = engine::refuse_missing_store(self.config, dir) {
            self.refused("store.path", StartFailure::Ledger(error.into()));
            return ImportState::default();
        }
        if !engine::contains_store(self.config, dir) {
            return ImportState::default();
        }
        let store = match engine::open_damaged(self.config, dir) {
            Ok(store) => store,
            Err(StoreError::InUse(what)) => return self.in_use(what, key.as_ref()),
            Err(error) => {
                self.refused("store.path", StartFailure::Ledger(StartError::from(error)));
                return ImportState::default();
            }
        };
        // A store whose first start was interrupted is created anew by the next start.
        if store.head().unwrap_or_default() == 0 {
            return ImportState::default();
        }
        if let Some(Err(error)) = key.map(|key| key.check(&*store, self.system)) {
            self.refused(self.seal_key_name(), StartFailure::Seal { error, key: self.config.seal.clone() });
        }
        match load(&*store, engine::snapshots(self.config).as_ref()) {
            Ok(loaded) => {
                for what in import::drift_of(&loaded.state, self.config) {
                    let remedy =
                        "mayfly apply DIR --reason TEXT: the ledger counts, and files are taken in at a first start only";
                    self.push("policy.files", Severity::Warning, what, remedy.to_owned());
                }
                ImportState::of(&loaded.state, self.config)
            }
            Err(error) => {
                self.refused("store.path", StartFailure::Ledger(error));
                ImportState::default()
            }
        }
    }

    /// The key of the configuration that names the sealing key.
    fn seal_key_name(&self) -> &'static str {
        if matches!(self.config.seal, SealingKeySource::Credential(_)) { "seal.credential" } else { "seal.key_file" }
    }

    /// The store is open in another process: this configuration's own server, or a different process.
    fn in_use(&mut self, what: String, key: Option<&SealingKey>) -> ImportState {
        let answers = answers(self.config, self.system);
        self.at_socket = matches!(answers, Answers::AtSocket);
        match answers {
            Answers::AtSocket | Answers::AtPort => self.running = true,
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
            Answers::NotAsked(_) | Answers::No => self.held_by_another(what),
        }
        if self.running {
            let (config, system, at_socket) = (self.config, self.system, self.at_socket);
            let same = key
                .and_then(|key| asked(|| healthcheck::has_sealing_key(config, at_socket, key.fingerprint(), system)).flatten());
            let store = "the store and the ledger in it, which the running server has open";
            match (same, key) {
                (Some(false), _) => {
                    self.refused(
                        self.seal_key_name(),
                        StartFailure::Seal { error: SealError::WrongKey, key: self.config.seal.clone() },
                    );
                    self.unchecked.push(store.to_owned());
                }
                (Some(true), _) | (None, None) => self.unchecked.push(store.to_owned()),
                (None, Some(_)) => {
                    self.unchecked.push(format!("{store}, and whether {} is their sealing key", self.seal_key_name()));
                }
            }
        }
        // The running server has imported these files; changes of the files are compared or followed.
        ImportState { policies: true, bundles: true }
    }

    /// Reports a store that is open in a process which was not recognized. That process may be the server of this configuration all the
    /// same, so the remedies do not end it.
    fn held_by_another(&mut self, what: String) {
        let problem = StartProblem::new(StartFailure::Ledger(StoreError::InUse(what).into()), self.config);
        let text = problem.to_string();
        let what = text.lines().next().unwrap_or_default().trim().to_owned();
        let who = problem.remedies().first().map(|remedy| format!("{remedy}; ")).unwrap_or_default();
        let remedy = format!(
            "{who}a running server is recognized at listen.admin_socket or at an unchanged port of [listen] only: if it is the server of this \
             file, keep one of them as it was for the check"
        );
        self.push("store.path", Severity::Error, what, remedy);
    }

    /// Whether some process listens at the port of the workload listener.
    fn listens(&self) -> bool {
        let taken = |why: StartFailure| matches!(why, StartFailure::Port { error, .. } if error.kind() == ErrorKind::AddrInUse);
        check_port_free("listen.workload", self.config.listen.workload).is_err_and(taken)
    }

    /// Checks the sockets that a start binds. Those that the running server has already are free for its restart.
    fn listeners(&mut self) {
        for (key, address, shows_svid) in ports(self.config) {
            let Err(why) = check_port_free(key, address) else { continue };
            let ours = match self.running && may_be_held(&why) {
                false => Some(false),
                true if shows_svid => asked(|| healthcheck::shows_own_svid(self.config, address, self.system)).flatten(),
                true => None,
            };
            match ours {
                Some(true) => {}
                Some(false) => self.refused(key, why),
                None => {
                    let what = "which cannot be bound now; whether the running server has it cannot be told";
                    self.unchecked.push(format!("{key}: {address}, {what}"));
                }
            }
        }
        let shared = super::start::socket_is_shared(self.config);
        match self.config.listen.admin_socket.as_deref().map(|path| unix::check(path, shared)) {
            None | Some(Ok(())) => {}
            Some(Err(SocketError::InUse(_))) if self.at_socket => {}
            Some(Err(no)) => self.refused("listen.admin_socket", StartFailure::Socket(no)),
        }
    }
}

/// The ports of a configuration, and whether the listener there shows the server's SVID. Without TLS, or with the certificate of
/// `[public_tls]`, it does not.
fn ports(config: &Config) -> Vec<(&'static str, SocketAddr, bool)> {
    let (listen, svid) = (&config.listen, config.public_tls.is_none());
    let mut ports = vec![
        ("listen.workload", listen.workload, true),
        ("listen.admin", listen.admin, true),
        ("listen.public", listen.public, svid),
    ];
    ports.extend(listen.metrics.map(|address| ("listen.metrics", address, svid && config.metrics.tls)));
    ports
}

/// Whether a port that could not be bound may be one that the running server has. For a port below 1024, a user without the right of the
/// server's unit is told of the missing right, whoever has the port.
fn may_be_held(why: &StartFailure) -> bool {
    matches!(why, StartFailure::Port { error, .. } if matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::PermissionDenied))
}

/// Whether a port could be bound now. The port is free again when this returns.
fn check_port_free(key: &'static str, address: SocketAddr) -> Result<(), StartFailure> {
    if address.port() == 0 {
        return Ok(());
    }
    listen(key, address).map(|bound: TcpListener| drop(bound))
}

/// The result of asking for the server of a configuration.
enum Answers {
    AtSocket,
    AtPort,
    No,
    /// The files for asking cannot be read, for this reason.
    NotAsked(String),
}

/// Whether the server of a configuration answers: at its own socket, which is in a directory that no other user may enter, or at one of its
/// ports under its identity. The address of each of them may have been changed in the configuration since that server's start.
fn answers(config: &Config, system: &System) -> Answers {
    let asking = || async {
        let at_socket = match &config.listen.admin_socket {
            Some(path) => healthcheck::answers_at(path).await,
            None => false,
        };
        if at_socket {
            return Answers::AtSocket;
        }
        match healthcheck::ask_as(config, "", system).await {
            Ok(()) | Err(healthcheck::NotHealthy::Says(_)) => return Answers::AtPort,
            Err(healthcheck::NotHealthy::Own { what, .. }) => return Answers::NotAsked(what),
            Err(_) => {}
        }
        let others = ports(config).into_iter().filter(|(key, ..)| *key != "listen.workload");
        for (_, address, _) in others.filter(|(_, address, shows_svid)| *shows_svid && address.port() != 0) {
            if healthcheck::shows_own_svid(config, address, system).await == Some(true) {
                return Answers::AtPort;
            }
        }
        Answers::No
    };
    asked(asking).unwrap_or(Answers::No)
}

/// The answer of a server. The caller may run in a runtime, so the question is asked on a thread of its own.
fn asked<T: Send, F: Future<Output = T>>(ask: impl FnOnce() -> F + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let asking = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            Some(runtime.block_on(ask()))
        };
        scope.spawn(asking).join().ok().flatten()
    })
}
