//! Checks the contents of the files that a configuration names; nothing is started or written. A start, a reload and `mayfly server
//! validate` refuse a configuration with an error found here (`server::check`).

mod agent;
mod certificates;
mod oidc;

use std::fmt;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Access, access};

use super::{Config, ExportDestination, SealingKeySource};
use crate::https::roots;
use crate::policy_files::{self, PolicyFileContents};
use crate::token_file::BearerToken;
use crate::webhook_files::secrets;
use crate::workload_api::AgentMessage;
use mayfly_base::document::{Diagnostic, with_key};
use mayfly_base::limits;
use mayfly_identity::spiffe_id::SpiffeId;
use mayfly_policy::{PolicySet, unpermitted_actions};
use mayfly_store::sealing::SealingKey;
use mayfly_verify::seq::Millis;

/// The severity of a finding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// The server starts, but may not behave as expected.
    Warning,
    /// The server does not start, or does not do its work.
    Error,
}

/// The subject of a finding, on which its severity may depend.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FindingSubject {
    /// Data that every start needs.
    #[default]
    Everything,
    /// Policies and registrations, which a first start imports.
    Policy,
    /// A bundle, which the ledger keeps once it was imported.
    Bundle,
}

/// A finding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigFinding {
    /// The severity.
    pub severity: Severity,
    /// The subject.
    pub about: FindingSubject,
    /// The file, the line, the problem, and the remedy.
    pub complaint: Diagnostic,
}

impl fmt::Display for ConfigFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}: {}", self.complaint)
    }
}

/// All findings as for a first start, errors first. `now` is the time for checks of expiry.
pub fn validate(config: &Config, now: Millis) -> Vec<ConfigFinding> {
    validate_with(config, now, None)
}

/// As [`validate`], with an agent's message that the caller already has.
pub fn validate_with(config: &Config, now: Millis, given: Option<&AgentMessage>) -> Vec<ConfigFinding> {
    let mut look = ConfigValidator { config, now, about: FindingSubject::default(), findings: Vec::new() };
    look.listeners();
    let given = look.agent(given.cloned());
    let own = match &config.tls {
        Some(pair) => look.pair(pair, "tls.certificate", "tls.key", true),
        None => None,
    };
    if let Some(pair) = &config.public_tls {
        look.pair(pair, "public_tls.certificate", "public_tls.key", false);
    }
    look.bundles(own.as_ref(), given.as_ref());
    look.oidc_issuers();
    look.store();
    look.seal();
    look.policy();
    look.webhooks();
    look.rotation_hooks();
    look.metrics();
    look.export();
    look.findings.sort_by_key(|f| std::cmp::Reverse(f.severity));
    look.findings
}

struct ConfigValidator<'c> {
    config: &'c Config,
    now: Millis,
    about: FindingSubject,
    findings: Vec<ConfigFinding>,
}

impl ConfigValidator<'_> {
    fn push(&mut self, severity: Severity, complaint: Diagnostic) {
        self.findings.push(ConfigFinding { severity, about: self.about, complaint });
    }

    fn at(&mut self, severity: Severity, key: &str, what: impl fmt::Display, remedy: impl Into<String>) {
        self.at_line(severity, self.config.line_of(key), with_key(key, &what.to_string()), remedy);
    }

    /// A finding about a key of a list, like `webhooks.ca`, in the section at this place of the list.
    fn in_list(
        &mut self,
        severity: Severity,
        (key, place): (&'static str, usize),
        what: impl fmt::Display,
        remedy: impl Into<String>,
    ) {
        self.at_line(severity, self.config.line_in_list(key, place), with_key(key, &what.to_string()), remedy);
    }

    fn at_line(&mut self, severity: Severity, line: usize, what: String, remedy: impl Into<String>) {
        let (file, remedy) = (self.config.file.clone(), remedy.into());
        let complaint = Diagnostic { file, line, column: 0, what, remedy, keys: Vec::new() };
        self.push(severity, complaint);
    }

    fn error(&mut self, key: &str, what: impl fmt::Display, remedy: impl Into<String>) {
        self.at(Severity::Error, key, what, remedy);
    }

    fn warning(&mut self, key: &str, what: impl fmt::Display, remedy: impl Into<String>) {
        self.at(Severity::Warning, key, what, remedy);
    }

    /// Checks that listeners have different ports: two listeners on one port would mix their callers' permissions, if the second one binds
    /// at all.
    fn listeners(&mut self) {
        let listen = &self.config.listen;
        let mut all =
            vec![("listen.workload", listen.workload), ("listen.admin", listen.admin), ("listen.public", listen.public)];
        all.extend(listen.metrics.map(|address| ("listen.metrics", address)));
        for (place, (key, address)) in all.iter().enumerate() {
            if let Some((other, _)) = all.iter().take(place).find(|(_, other)| overlap(*other, *address)) {
                self.error(key, format!("{address} is taken by {other}"), "give each listener its own port");
            }
        }
        if self.config.admin_uids.contains(&limits::OVERFLOW_UID) {
            let what = format!("has {}, which stands for every user that a user namespace does not map", limits::OVERFLOW_UID);
            self.error(
                "admin.uids",
                what,
                "name the uids of your operators; run the server without PrivateUsers=yes where they differ",
            );
        }
        let Some(socket) = self.config.listen.admin_socket.clone() else {
            if !self.config.admin_uids.is_empty() {
                self.warning("admin.uids", "set, but there is no listen.admin_socket", "set the socket, or leave the uids out");
            }
            return;
        };
        // sun_path of unix(7), with its closing zero.
        if socket.as_os_str().len() > 107 {
            self.error("listen.admin_socket", format!("{} is too long", socket.display()), "at most 107 bytes");
        }
        if !socket.parent().is_some_and(|dir| dir.as_os_str().is_empty() || dir.is_dir()) {
            let what = format!("the directory of {} is not there: a start makes it", socket.display());
            self.warning("listen.admin_socket", what, "make it, for the server's user only");
        }
    }

    /// Checks the secrets and roots of webhooks, which the server would otherwise read only when it sends an event.
    fn webhooks(&mut self) {
        for (place, hook) in self.config.webhooks.iter().enumerate() {
            let ca = hook.ca.as_ref().and_then(|ca| roots(ca).err());
            for (key, problem) in [("webhooks.secret_file", secrets(&hook.secret_file).err()), ("webhooks.ca", ca)] {
                let Some(problem) = problem else { continue };
                let what = format!("{}: {}: {}", hook.name, problem.path.display(), problem.what);
                self.in_list(Severity::Error, (key, place), what, problem.remedy);
            }
            for environment in hook.environments.iter().filter(|e| !self.config.server.environments.contains(e)) {
                let what = format!("{}: environment {environment} is not served here", hook.name);
                self.in_list(Severity::Warning, ("webhooks.environments", place), what, "name one of server.environments");
            }
        }
    }

    /// Checks the programs of rotation hooks, which the server would otherwise run only when a rotation is due.
    fn rotation_hooks(&mut self) {
        for (place, hook) in self.config.rotation_hooks.iter().enumerate() {
            if let Some(problem) = hook.problem() {
                let remedy =
                    "a program whose file and directories only its owner may write, like /usr/local/libexec/rotate-sentry";
                self.in_list(Severity::Error, ("rotation_hooks.command", place), format!("{}: {problem}", hook.upstream), remedy);
            }
        }
    }

    /// Checks that the token of the metrics listener can be read, and that metrics are not exposed.
    fn metrics(&mut self) {
        let metrics = self.config.metrics.clone();
        if let Some(problem) = metrics.token_file.as_ref().and_then(|path| BearerToken::load(path).err()) {
            self.error("metrics.token_file", format!("{}: {}", problem.path.display(), problem.what), problem.remedy);
        }
        let Some(address) = self.config.listen.metrics.filter(|address| !address.ip().is_loopback()) else { return };
        match (metrics.tls, metrics.token_file) {
            (true, None) => {
                let what = format!("whoever reaches {address} reads the metrics: they have names of upstreams and trust domains");
                self.warning("listen.metrics", what, "set metrics.token_file, or let the network keep others from it");
            }
            (false, Some(_)) => {
                let what = format!("the token is sent to {address} in clear: whoever sees the network's traffic has it");
                self.warning("listen.metrics", what, "set metrics.tls = true, unless the network is encrypted");
            }
            _ => {}
        }
    }

    /// Checks the files of the continuous export, which the server would otherwise read only when it connects.
    fn export(&mut self) {
        let audit = match &self.config.audit_export {
            Some(ExportDestination::Otlp(to)) => to.ca.as_ref(),
            _ => None,
        };
        let traces = self.config.traces.as_ref().and_then(|traces| traces.to.ca.as_ref());
        for (key, ca) in [("audit.export_ca", audit), ("traces.ca", traces)] {
            if let Some(problem) = ca.and_then(|ca| roots(ca).err()) {
                self.error(key, format!("{}: {}", problem.path.display(), problem.what), problem.remedy);
            }
        }
    }

    fn store(&mut self) {
        let Some(path) = self.config.store.engine.data() else {
            return self.warning(
                "store.engine",
                "nothing survives a restart in memory: what was revoked or locked is forgotten with the rest",
                "engine = \"redb\" and a store.path, for all but trying things out",
            );
        };
        let there = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("."));
        let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
        if !there.is_dir() {
            return self.error("store.path", format!("{} is not a directory", there.display()), "name a directory");
        }
        if access(there, Access::WRITE_OK | Access::EXEC_OK).is_err() {
            let what = format!("{} cannot be written to", there.display());
            return self.error("store.path", what, format!("chown it to the server's user: {}", there.display()));
        }
        let Ok(disk) = rustix::fs::statvfs(there) else { return };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free < self.config.store.disk_reserve_bytes.saturating_mul(2) {
            let what = format!("{} MiB free, less than twice store.disk_reserve", free >> 20);
            self.warning("store.path", what, "issuing stops when only the reserve is left");
        }
    }

    /// Checks the sealing key's file by the rules that the start applies again.
    fn seal(&mut self) {
        let SealingKeySource::KeyFile(path) = &self.config.seal else { return };
        let before = self.errors();
        self.key_file(path);
        // Without a data directory, the key cannot be inside one.
        let data = self.config.store.engine.data().unwrap_or(Path::new("/nowhere"));
        if self.errors() == before
            && let Err(wrong) = SealingKey::load(path, data)
        {
            let remedies: Vec<String> = wrong.remedies().iter().map(ToString::to_string).collect();
            self.error("seal.key_file", &wrong, remedies.join("; "));
        }
    }

    fn key_file(&mut self, path: &Path) {
        let meta = match std::fs::metadata(path) {
            Err(e) => {
                let remedy = format!("for a new store: (umask 077 && head -c 32 /dev/urandom > {})", path.display());
                return self.error("seal.key_file", format!("{} cannot be read: {e}", path.display()), remedy);
            }
            Ok(meta) => meta,
        };
        if !meta.is_file() {
            self.error("seal.key_file", format!("{} is not a regular file", path.display()), "name a file with 32 random bytes");
        }
        if meta.mode() & 0o077 != 0 {
            let what = format!("{} can be read by others (mode {:o})", path.display(), meta.mode() & 0o777);
            self.error("seal.key_file", what, format!("chmod 600 {}", path.display()));
        }
        if let Some(data) = self.config.store.engine.data() {
            let (key, data) = (path.canonicalize(), data.canonicalize());
            if key.is_ok_and(|key| data.is_ok_and(|data| key.starts_with(data))) {
                let what = format!("{} lies in the data directory: whoever copies the data has the key", path.display());
                self.error("seal.key_file", what, "move it elsewhere");
            }
        }
    }

    fn policy(&mut self) {
        self.about = FindingSubject::Policy;
        match policy_files::load(&self.config.policy) {
            Err(complaints) => complaints.into_iter().for_each(|c| self.of_policy(c)),
            Ok(loaded) => self.loaded(&loaded),
        }
        self.about = FindingSubject::default();
    }

    /// Adds an error of a policy file. An error in an existing file has its own line; for a missing file, the line that names the file is
    /// used.
    fn of_policy(&mut self, complaint: Diagnostic) {
        let policy = &self.config.policy;
        let is = |path: &Path| path.display().to_string() == complaint.file;
        let key = match () {
            () if complaint.line > 0 => return self.push(Severity::Error, complaint),
            () if is(&policy.roles) => "policy.roles",
            () if is(&policy.upstreams) => "policy.upstreams",
            () if policy.bindings.as_deref().is_some_and(is) => "policy.bindings",
            () if policy.files.iter().any(|f| is(f)) => "policy.files",
            () => return self.push(Severity::Error, complaint),
        };
        self.error(key, format!("{}: {}", complaint.file, complaint.what), complaint.remedy);
    }

    /// Reports environments that nobody could operate. Without the socket nobody could ever change that, since files are imported at a
    /// first start only; the uids of the socket may revoke and lock, and with `admin.single_operator` they may change every policy.
    fn check_operators(&mut self, policy: &PolicySet) {
        let socket = self.config.listen.admin_socket.is_some();
        if socket && self.config.single_operator {
            return;
        }
        let names = self.config.server.environments.join(", ");
        let Some(complaint) = unpermitted_actions::complaint(policy.nobody_may(), &names) else { return };
        let alone =
            "for a host with one operator, who uses the local socket: listen.admin_socket and admin.single_operator = true";
        let remedy = format!("{}; or, {alone}", complaint.remedy);
        match socket {
            true => self.warning("policy.files", format!("{} except over the local socket", complaint.what), remedy),
            false => self.error("policy.files", complaint.what, remedy),
        }
    }

    /// Checks that need all files: names in one file that another file must define.
    fn loaded(&mut self, loaded: &PolicyFileContents) {
        self.check_operators(&loaded.policy);
        let environments = self.config.server.environments.clone();
        let known = |name: &str| environments.iter().any(|e| e == name);
        for warning in loaded.policy.warnings() {
            self.push(Severity::Warning, warning.clone());
        }
        for name in loaded.policy.environments().iter().filter(|e| !known(e)) {
            let what = format!("the roles file has environment {name}, which server.environments has not");
            self.error("policy.roles", what, format!("known: {}", environments.join(", ")));
        }
        for name in loaded.policy.upstreams_named().iter().filter(|u| loaded.upstreams.get(u).is_none()) {
            let what = format!("a policy names Upstream::\"{name}\", which is not registered");
            self.warning("policy.upstreams", what, "register it, or mend the name");
        }
        let scope = |name: &str| loaded.upstreams.iter().any(|upstream| upstream.scope(name).is_some());
        for what in loaded.policy.never_asked_for(scope) {
            self.warning("policy.files", format!("a policy names {what}"), "mend the name, or register the upstream");
        }
        for upstream in loaded.upstreams.iter() {
            let name = &upstream.name;
            if !known(&upstream.environment) {
                let what =
                    format!("upstream {name} is in environment {}, which server.environments has not", upstream.environment);
                self.error("policy.upstreams", what, format!("known: {}", environments.join(", ")));
            }
            if upstream.expires <= self.now {
                self.warning(
                    "policy.upstreams",
                    format!("upstream {name} expired at {}", upstream.expires),
                    "renew its registration",
                );
            }
            let foreign = |id: &&SpiffeId| !self.config.bundles.iter().any(|b| b.trust_domain == id.trust_domain());
            if let Some(server) = upstream.servers.iter().find(foreign) {
                let what = format!("upstream {name} names the server {server}, of whose trust domain there is no bundle");
                self.warning("policy.upstreams", what, "add the bundle, or mend the name");
            }
        }
    }
}

/// Whether two listeners would use the same port. Port 0 is always a free one.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let same_host = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && same_host
}
