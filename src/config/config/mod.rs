//! The configuration: one TOML file, overridden by environment variables. Unknown keys are refused, and every error names its line.
//!
//! `keys::KEYS` is the single table of all keys; `docs/configuration.md` is generated from it. [`Config`] is the form in which all other
//! modules read the configuration. [`mod@validate`] checks everything that the configuration names: files, certificates, directories,
//! policies.

mod attestation;
mod build;
mod changes;
mod export;
mod form;
pub mod keys;
mod lists;
mod observability;
mod oidc;
mod reference;
mod rotation_hooks;
pub mod validate;
mod values;
mod webhooks;
mod workload_api;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use changes::{ChangeActivation, ConfigChange};
pub use export::{Collector, ExportDestination, Syslog};
pub use observability::{LogConfig, LogFormat, MetricsConfig, TraceConfig, log_filter};
pub use oidc::{IssuerKeySource, OidcIssuer};
pub use reference::reference;
pub use validate::{ConfigFinding, FindingSubject, Severity, validate, validate_with};
pub use webhooks::WebhookConfig;

use crate::workload_api::AgentRequest;
use mayfly_authority::secrets::hook::RotationHook;
use mayfly_authority::trust::own_domain::OwnDomainSettings;
use mayfly_base::bounded_file;
use mayfly_base::document::remedy::shell_quoted;
use mayfly_base::document::{Diagnostic, SourceFile};
use mayfly_base::limits;
pub use mayfly_ledger::recovery::retention::RetentionLimit;

/// An error in the configuration.
pub type ConfigError = Diagnostic;

/// The server's configuration. Relative paths of the file are joined to the file's directory.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The path of the file, as given.
    pub file: String,
    /// `[server]`
    pub server: ServerSettings,
    /// `[listen]`
    pub listen: Listen,
    /// `[tls]`; `None` if the SVID comes from the Workload API.
    pub tls: Option<KeyPair>,
    /// `[workload_api]`, if the SVID or a bundle comes from there.
    pub workload_api: Option<WorkloadApiConfig>,
    /// `[public_tls]`, if the public listener has its own certificate.
    pub public_tls: Option<KeyPair>,
    /// `[[bundles]]`
    pub bundles: Vec<BundleFile>,
    /// `[[oidc_issuers]]`
    pub oidc_issuers: Vec<OidcIssuer>,
    /// `[store]`
    pub store: StoreConfig,
    /// `[seal]`
    pub seal: SealingKeySource,
    /// `[policy]`
    pub policy: PolicyFiles,
    /// `[limits]`
    pub limits: Limits,
    /// `svid.max_ttl`, milliseconds.
    pub svid_max_ttl_ms: u64,
    /// `[ledger]`
    pub ledger: LedgerConfig,
    /// `[leases]`
    pub leases: LeaseConfig,
    /// `upstreams.secrets_dir`, if it is set.
    pub upstream_secrets_dir: Option<PathBuf>,
    /// `feed.max_age`, milliseconds.
    pub feed_max_age_ms: u64,
    /// `audit.keep`
    pub audit_keep: RetentionLimit,
    /// `audit.export_…`, if one is set.
    pub audit_export: Option<ExportDestination>,
    /// `[traces]`, if `traces.otlp` is set.
    pub traces: Option<TraceConfig>,
    /// `[log]`
    pub log: LogConfig,
    /// `[metrics]`
    pub metrics: MetricsConfig,
    /// `[[rotation_hooks]]`
    pub rotation_hooks: Vec<RotationHook>,
    /// `[[webhooks]]`
    pub webhooks: Vec<WebhookConfig>,
    /// `[own_domain]`, if it is set.
    pub own_domain: Option<OwnDomainSettings>,
    /// `admin.uids`: the uids that may use the socket in addition to the server's own uid.
    pub admin_uids: Vec<u32>,
    /// `admin.single_operator`: over the socket, one operator suffices where two are needed otherwise.
    pub single_operator: bool,
    lines: BTreeMap<&'static str, usize>,
    list_lines: BTreeMap<(&'static str, usize), usize>,
    /// Every key outside of lists, with its value.
    settings: values::Settings,
}

/// `[server]`
#[derive(Clone, Debug, PartialEq)]
pub struct ServerSettings {
    /// The server's trust domain.
    pub trust_domain: String,
    /// The environments that the server serves.
    pub environments: Vec<String>,
    /// The base of all issuers.
    pub issuer: String,
    /// The number of threads that serve workloads; `None` for one per core.
    pub workers: Option<usize>,
}

impl ServerSettings {
    /// `iss` of an environment's credentials.
    pub fn issuer_of(&self, environment: &str) -> String {
        format!("{}/{environment}", self.issuer)
    }
}

/// `[listen]`
#[derive(Clone, Debug, PartialEq)]
pub struct Listen {
    /// gRPC over mTLS, for workloads.
    pub workload: SocketAddr,
    /// gRPC over mTLS, for operators.
    pub admin: SocketAddr,
    /// The local socket for operators.
    pub admin_socket: Option<PathBuf>,
    /// HTTPS without client certificates.
    pub public: SocketAddr,
    /// The metrics listener, whose TLS and token are configured by `[metrics]`.
    pub metrics: Option<SocketAddr>,
}

/// A certificate with its chain, and its key: PEM files.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyPair {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// `[workload_api]`
#[derive(Clone, Debug, PartialEq)]
pub struct WorkloadApiConfig {
    /// The agent, and the parameters of the request.
    pub wanted: AgentRequest,
    /// Longest wait of a start, milliseconds.
    pub start_timeout_ms: u64,
}

/// A section of `[[bundles]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct BundleFile {
    /// The trust domain of the bundle.
    pub trust_domain: String,
    /// A file in PEM or SPIFFE JWKS; `None` if the bundle comes from the Workload API.
    pub file: Option<PathBuf>,
}

/// `[store]`
#[derive(Clone, Debug, PartialEq)]
pub struct StoreConfig {
    /// The engine, with its directory if it has one.
    pub engine: StoreEngine,
    /// Size of the cache, bytes.
    pub cache_bytes: u64,
    /// Disk space that is kept free, bytes.
    pub disk_reserve_bytes: u64,
}

/// The storage engine.
#[derive(Clone, Debug, PartialEq)]
pub enum StoreEngine {
    /// Stored in a directory.
    Redb(PathBuf),
    /// Stored in a directory.
    Sled(PathBuf),
    /// In memory, and lost with the process.
    Memory,
}

impl StoreEngine {
    /// The data directory, if the engine has one.
    pub fn data(&self) -> Option<&Path> {
        match self {
            StoreEngine::Redb(dir) | StoreEngine::Sled(dir) => Some(dir),
            StoreEngine::Memory => None,
        }
    }
}

/// The source of the sealing key.
#[derive(Clone, Debug, PartialEq)]
pub enum SealingKeySource {
    /// A file outside the data directory.
    KeyFile(PathBuf),
    /// A systemd credential, by name.
    Credential(String),
}

/// `[policy]`
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyFiles {
    /// Files, or directories of `*.cedar`.
    pub files: Vec<PathBuf>,
    /// The roles file.
    pub roles: PathBuf,
    /// Directory of `*.toml`.
    pub upstreams: PathBuf,
    /// Directory of `*.toml`, of bindings. `None`: the files say nothing about bindings.
    pub bindings: Option<PathBuf>,
}

/// `[limits]`: limits that an operator set, at most those of `limits.rs`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "each is documented at its key, in keys.rs")]
pub struct Limits {
    pub tasks: usize,
    pub tasks_per_caller: usize,
    pub task_bytes: u64,
    pub task_bytes_per_caller: u64,
    pub credentials: usize,
    pub credentials_per_caller: usize,
    pub request_ids: usize,
    pub request_ids_per_caller: usize,
    pub rules: usize,
    pub rules_per_caller: usize,
    pub changes_per_second: u32,
    pub holds_per_second: u32,
    pub heartbeats_per_second: u32,
    pub leases_making: usize,
    pub leases_making_per_upstream: usize,
    pub leases_making_per_batch: usize,
    pub leases_undoing: usize,
    pub leases_undoing_per_upstream: usize,
    pub followers: usize,
    pub followers_per_caller: usize,
    pub connections: usize,
    pub admin_connections: usize,
    pub public_connections: usize,
    pub connection_streams: u32,
    pub handshakes: usize,
    pub stream_in_flight: usize,
    pub credential_ttl_ms: u64,
    pub task_ttl_ms: u64,
    pub verdict_cache_bytes: u64,
}

/// `[ledger]`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LedgerConfig {
    /// Records gathered into one commit.
    pub gather_records: usize,
    /// The longest wait while gathering, milliseconds.
    pub gather_wait_ms: u64,
    /// Commits between two snapshots.
    pub snapshot_every: u64,
    /// Largest difference between clocks, milliseconds.
    pub skew_ms: u64,
    /// Largest age of a view that a decision may use, milliseconds.
    pub view_max_age_ms: u64,
}

/// `[leases]`, milliseconds
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LeaseConfig {
    /// Time for making a credential at an upstream.
    pub make_timeout_ms: u64,
    /// Time for one attempt to undo or inspect a credential.
    pub undo_timeout_ms: u64,
    /// Time from opening a lease until the lease counts as left behind.
    pub left_behind_ms: u64,
    /// The first pause between attempts.
    pub retry_min_ms: u64,
    /// The longest pause between attempts.
    pub retry_max_ms: u64,
}

impl Config {
    /// Reads a file and the environment, or returns all errors in them.
    pub fn load(path: &Path, environment: impl IntoIterator<Item = (String, String)>) -> Result<Config, Vec<ConfigError>> {
        let name = path.display().to_string();
        let unreadable = |e: std::io::Error| {
            let remedy = format!("name the file with --config; what is there: ls -l {}", shell_quoted(path));
            vec![Diagnostic::about(&name, format!("cannot be read: {e}"), remedy)]
        };
        let text = bounded_file::read_text(path, limits::CONFIG_FILE_BYTES).map_err(unreadable)?;
        let base = path.parent().unwrap_or(Path::new(""));
        let environment: Vec<(String, String)> = environment.into_iter().collect();
        Config::parse(&SourceFile::new(&name, text.as_str()), base, &environment)
    }

    /// As [`load`](Config::load), from a text; relative paths begin at `base`.
    pub fn parse(source: &SourceFile, base: &Path, environment: &[(String, String)]) -> Result<Config, Vec<ConfigError>> {
        build::config(source, base, environment)
    }

    /// The line at which a key is set; 0 if the file does not set it.
    pub fn line_of(&self, key: &str) -> usize {
        self.lines.get(key).copied().unwrap_or(0)
    }

    /// The line of a key of a list, like `webhooks.ca`, in the section at this place; the line of the section if it does not set the key; 0
    /// if the file does not have the section.
    pub fn line_in_list(&self, key: &'static str, place: usize) -> usize {
        let section = key.split('.').next().unwrap_or(key);
        let line = self.list_lines.get(&(key, place)).or_else(|| self.list_lines.get(&(section, place)));
        line.copied().unwrap_or(0)
    }
}
