//! Builds the configuration from the values of its keys, and checks which keys require or exclude each other.

use std::path::Path;

use super::export::{ExportDestination, export};
use super::observability::{self, LogConfig, MetricsConfig, TraceConfig};
use super::values::{self, ConfigValue, Conflict, Settings, Values};
use super::workload_api::identity;
use super::{
    BundleFile, Config, ConfigError, KeyPair, LeaseConfig, LedgerConfig, Limits, Listen, PolicyFiles, RetentionLimit,
    SealingKeySource, ServerSettings, StoreConfig, StoreEngine, WorkloadApiConfig,
};
use mayfly_authority::trust::own_domain::OwnDomainSettings;
use mayfly_base::document::quantity::duration_text;
use mayfly_base::document::remedy::shell_quoted;
use mayfly_base::document::{Diagnostic, SourceFile};
use mayfly_identity::spiffe_id::TrustDomain;
use mayfly_store::redb::RedbStore;
use mayfly_store::sled::SledStore;

/// Builds the configuration from the file's text and the environment, or returns all errors in them.
pub(super) fn config(source: &SourceFile, base: &Path, environment: &[(String, String)]) -> Result<Config, Vec<ConfigError>> {
    let values = Values::gather(source, environment)?;
    let mut wrong: Vec<Diagnostic> = Vec::new();
    for (line, missing) in values.missing() {
        let what = format!("lacks {}", missing.join(", "));
        let remedy = "each of these is required; docs/configuration.md says what they are";
        wrong.push(Diagnostic { line, ..Diagnostic::about(&source.file, what, remedy) });
    }
    let mut conflict = |key: &'static str, what: &str, remedy: &str| {
        let line = values.lines.get(key).copied().unwrap_or(0);
        let (file, what, remedy) = (source.file.clone(), what.to_owned(), remedy.to_owned());
        wrong.push(Diagnostic { file, line, column: 0, what, remedy, keys: Vec::new() });
    };
    let seal = seal(&values, base, &mut conflict);
    let engine = engine(&source.file, &values, base, &mut conflict);
    let public_tls = key_pair(&values, base, ["public_tls.certificate", "public_tls.key"], &mut conflict).flatten();
    let (tls, workload_api) = identity(&values, base, environment, &mut conflict);
    pauses(&values, &mut conflict);
    own_issuer(&values, &mut conflict);
    let export = export(&values, base, &mut conflict);
    let metrics = observability::metrics(&values, base, &mut conflict);
    let observed = (observability::traces(&values, base, &mut conflict), observability::log(&values, &mut conflict), metrics);
    refuse_own_domain_sources(&values, &mut conflict);
    let stray = attestation(&source.file, &values);
    wrong.extend(stray);
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let build = || build(&source.file, &values, base, (seal?, engine?, (tls, public_tls, workload_api), export, observed));
    // Every key has a default or was checked to be set; any other case is an error in the table, which the tests would find.
    build().ok_or_else(|| vec![Diagnostic::about(&source.file, "cannot be read", "report this as a fault of mayfly")])
}

fn seal(values: &Values, base: &Path, conflict: &mut Conflict<'_>) -> Option<SealingKeySource> {
    match (values.path("seal.key_file", base), values.text("seal.credential")) {
        (Some(file), None) => Some(SealingKeySource::KeyFile(file)),
        (None, Some(name)) => Some(SealingKeySource::Credential(name)),
        (Some(_), Some(_)) => {
            conflict("seal.credential", "seal.key_file and seal.credential are both set", "leave one of them out");
            None
        }
        (None, None) => {
            conflict("seal.key_file", "lacks seal.key_file or seal.credential", "name the file that holds the sealing key");
            None
        }
    }
}

fn engine(file: &str, values: &Values, base: &Path, conflict: &mut Conflict<'_>) -> Option<StoreEngine> {
    let name = values.text("store.engine")?;
    let Some(path) = values.path("store.path", base) else {
        if name != "memory" {
            let remedy = format!("name the data directory; engine {name} keeps its files there");
            conflict("store.engine", "lacks store.path", &remedy);
            return None;
        }
        return Some(StoreEngine::Memory);
    };
    // The data of another engine would not be in effect, and nobody would notice until the data is missed.
    let kept = [("redb", RedbStore::is_in(&path)), ("sled", SledStore::is_in(&path))];
    let mut kept = kept.into_iter().filter_map(|(engine, there)| there.then_some(engine)).collect::<Vec<_>>();
    kept.sort_by_key(|engine| *engine != name);
    if let Some(other) = kept.first().filter(|engine| **engine != name) {
        another_engines(file, values, &name, other, &path, conflict);
        return None;
    }
    match name.as_str() {
        "redb" => Some(StoreEngine::Redb(path)),
        "sled" => Some(StoreEngine::Sled(path)),
        _ => {
            let remedy = "leave it out, or set engine = \"redb\"";
            conflict("store.path", "store.path is set, but engine memory keeps nothing", remedy);
            None
        }
    }
}

/// The error that the data directory holds a store of another engine than the configured one.
fn another_engines(file: &str, values: &Values, name: &str, other: &str, path: &Path, conflict: &mut Conflict<'_>) {
    let (keeps, anew) = match name {
        "memory" => ("keeps nothing".to_owned(), "leave store.path out"),
        _ => (format!("does not read stores of {other}"), "name another directory"),
    };
    let what = format!(
        "engine {name} {keeps}, and there is a store in {}: its rules, locks and tasks would not be in force",
        path.display()
    );
    // If the file does not set the engine, the environment or the default does.
    let command = match values.lines.get("store.engine") {
        Some(line) => format!("sed -i '{line}s/{name}/{other}/' {}", shell_quoted(Path::new(file))),
        None if other == "redb" => "unset MAYFLY_STORE_ENGINE".to_owned(),
        None => format!("export MAYFLY_STORE_ENGINE={other}"),
    };
    let remedy = format!("to serve what is in it: {command}\n  to begin with nothing, {anew}: that store stays as it is");
    conflict("store.path", &what, &remedy);
}

/// The certificate and the key under these two keys, if they are set. `None`: only one of them is set, which was reported.
pub(super) fn key_pair(
    values: &Values,
    base: &Path,
    [certificate, key]: [&'static str; 2],
    conflict: &mut Conflict<'_>,
) -> Option<Option<KeyPair>> {
    match (values.path(certificate, base), values.path(key, base)) {
        (Some(certificate), Some(key)) => return Some(Some(KeyPair { certificate, key })),
        (None, None) => return Some(None),
        (Some(_), None) => conflict(certificate, &format!("lacks {key}"), "a certificate goes with its key"),
        (None, Some(_)) => conflict(key, &format!("lacks {certificate}"), "a key goes with its certificate"),
    }
    None
}

/// Checks that the first pause is no longer than the longest.
fn pauses(values: &Values, conflict: &mut Conflict<'_>) {
    let (Some(min), Some(max)) = (values.number("leases.retry_min"), values.number("leases.retry_max")) else { return };
    if min > max {
        let what = format!("leases.retry_min is {}, longer than leases.retry_max, {}", duration_text(min), duration_text(max));
        // Reported at the key that is set.
        let key = if values.lines.contains_key("leases.retry_min") { "leases.retry_min" } else { "leases.retry_max" };
        conflict(key, &what, "set the first pause to no more than the longest");
    }
}

/// Refuses an OIDC issuer with the server's own issuer name: tokens with that name are signed by the server's own keys only.
fn own_issuer(values: &Values, conflict: &mut Conflict<'_>) {
    let own = values.text("server.issuer").unwrap_or_default();
    let ours = |iss: &str| iss == own || iss.strip_prefix(&own).is_some_and(|rest| rest.starts_with('/'));
    for issuer in values.oidc_issuers.iter().filter(|issuer| ours(&issuer.issuer.issuer)) {
        let what = format!("oidc_issuers has {}, which is this server's own issuer", issuer.issuer.issuer);
        conflict("server.issuer", &what, "name the issuer of somebody else; mayfly's own credentials need no section");
    }
}

/// Refuses another source of roots for the server's own trust domain: that source could name people of the domain.
fn refuse_own_domain_sources(values: &Values, conflict: &mut Conflict<'_>) {
    let Some(own) = values.text("own_domain.trust_domain") else { return };
    let remedy = "give it a name of its own, like people.example.org: its bundle is made here";
    if values.bundles.iter().any(|b| b.trust_domain == own) {
        conflict("own_domain.trust_domain", &format!("{own} has one of [[bundles]], too"), remedy);
    } else if values.text("server.trust_domain").is_some_and(|server| server == own) {
        conflict("own_domain.trust_domain", &format!("{own} is server.trust_domain, whose bundle comes from elsewhere"), remedy);
    }
}

/// Checks that each attestation rule names an issuer for attestation, and is narrow enough.
fn attestation(file: &str, values: &Values) -> Vec<Diagnostic> {
    let about = |line, what: String, remedy: String| Diagnostic {
        file: file.to_owned(),
        line,
        column: 0,
        what: format!("attestation: {what}"),
        remedy,
        keys: Vec::new(),
    };
    let domain = values.text("own_domain.trust_domain").is_some();
    let homeless = values.attestation.first().filter(|_| !domain).map(|rule| {
        let remedy = "set own_domain.trust_domain: jobs get SVIDs of it";
        about(rule.line, "there is no trust domain of our own".to_owned(), remedy.to_owned())
    });
    let wrong = values.attestation.iter().filter_map(|rule| {
        let (what, remedy) = rule.defect(&values.oidc_issuers)?;
        Some(about(rule.line, what, remedy))
    });
    homeless.into_iter().chain(wrong).collect()
}

fn own_domain(v: &Values) -> Option<Option<OwnDomainSettings>> {
    let Some(name) = v.text("own_domain.trust_domain") else { return Some(None) };
    let login_ttl_ms = v.number("own_domain.login_ttl")?.min(v.number("svid.max_ttl")?);
    Some(Some(OwnDomainSettings {
        trust_domain: TrustDomain::parse(&name).ok()?,
        login_ttl_ms,
        attest_rules: v.attestation.iter().map(|rule| rule.rule(login_ttl_ms)).collect(),
        device_login: v.flag("own_domain.device_login")?,
    }))
}

type Identity = (Option<KeyPair>, Option<KeyPair>, Option<WorkloadApiConfig>);
type Observed = (Option<TraceConfig>, Option<LogConfig>, Option<MetricsConfig>);
type Parts = (SealingKeySource, StoreEngine, Identity, Option<ExportDestination>, Observed);

fn build(
    file: &str,
    v: &Values,
    base: &Path,
    (seal, engine, identity, audit_export, (traces, log, metrics)): Parts,
) -> Option<Config> {
    let (tls, public_tls, workload_api) = identity;
    let paths = |texts: Vec<String>| texts.into_iter().map(|t| base.join(t)).collect();
    let bundle = |b: &values::BundleEntry| BundleFile {
        trust_domain: b.trust_domain.clone(),
        file: b.file.as_ref().map(|file| base.join(file)),
    };
    Some(Config {
        file: file.to_owned(),
        server: ServerSettings {
            trust_domain: v.text("server.trust_domain")?,
            environments: v.texts("server.environments")?,
            issuer: v.text("server.issuer")?,
            workers: v.number("server.workers").and_then(|n| usize::try_from(n).ok()),
        },
        listen: Listen {
            workload: v.address("listen.workload")?,
            admin: v.address("listen.admin")?,
            admin_socket: v.path("listen.admin_socket", base),
            public: v.address("listen.public")?,
            metrics: v.address("listen.metrics"),
        },
        tls,
        workload_api,
        public_tls,
        bundles: v.bundles.iter().map(bundle).collect(),
        oidc_issuers: v.oidc_issuers.iter().map(|issuer| issuer.below(base)).collect(),
        store: StoreConfig { engine, cache_bytes: v.number("store.cache")?, disk_reserve_bytes: v.number("store.disk_reserve")? },
        seal,
        policy: PolicyFiles {
            files: paths(v.texts("policy.files")?),
            roles: v.path("policy.roles", base)?,
            upstreams: v.path("policy.upstreams", base)?,
            bindings: v.path("policy.bindings", base),
        },
        limits: limits(&v.values)?,
        svid_max_ttl_ms: v.number("svid.max_ttl")?,
        ledger: LedgerConfig {
            gather_records: usize::try_from(v.number("ledger.gather_records")?).ok()?,
            gather_wait_ms: v.number("ledger.gather_wait")?,
            snapshot_every: v.number("ledger.snapshot_every")?,
            skew_ms: v.number("ledger.skew")?,
            view_max_age_ms: v.number("ledger.view_max_age")?,
        },
        leases: LeaseConfig {
            make_timeout_ms: v.number("leases.make_timeout")?,
            undo_timeout_ms: v.number("leases.undo_timeout")?,
            left_behind_ms: v.number("leases.left_behind")?,
            retry_min_ms: v.number("leases.retry_min")?,
            retry_max_ms: v.number("leases.retry_max")?,
        },
        upstream_secrets_dir: v.path("upstreams.secrets_dir", base),
        feed_max_age_ms: v.number("feed.max_age")?,
        audit_keep: match v.values.get("audit.keep")? {
            ConfigValue::KeepTime(ms) => RetentionLimit::Time(*ms),
            ConfigValue::KeepSize(bytes) => RetentionLimit::Size(*bytes),
            _ => return None,
        },
        audit_export,
        traces,
        log: log?,
        metrics: metrics?,
        rotation_hooks: v.rotation_hooks.clone(),
        webhooks: v.webhooks.iter().map(|w| w.joined(base)).collect(),
        own_domain: own_domain(v)?,
        admin_uids: match v.values.get("admin.uids")? {
            ConfigValue::Numbers(uids) => uids.iter().filter_map(|uid| u32::try_from(*uid).ok()).collect(),
            _ => return None,
        },
        single_operator: v.flag("admin.single_operator")?,
        lines: v.lines.clone(),
        list_lines: v.list_lines.clone(),
        settings: v.values.clone(),
    })
}

/// `[limits]`
pub(super) fn limits(settings: &Settings) -> Option<Limits> {
    let number = |key: &str| values::number(settings, key);
    let count = |key: &str| number(key).and_then(|n| usize::try_from(n).ok());
    let small = |key: &str| number(key).and_then(|n| u32::try_from(n).ok());
    Some(Limits {
        tasks: count("limits.tasks")?,
        tasks_per_caller: count("limits.tasks_per_caller")?,
        task_bytes: number("limits.task_bytes")?,
        task_bytes_per_caller: number("limits.task_bytes_per_caller")?,
        credentials: count("limits.credentials")?,
        credentials_per_caller: count("limits.credentials_per_caller")?,
        request_ids: count("limits.request_ids")?,
        request_ids_per_caller: count("limits.request_ids_per_caller")?,
        rules: count("limits.rules")?,
        rules_per_caller: count("limits.rules_per_caller")?,
        changes_per_second: small("limits.changes_per_second")?,
        holds_per_second: small("limits.holds_per_second")?,
        heartbeats_per_second: small("limits.heartbeats_per_second")?,
        leases_making: count("limits.leases_making")?,
        leases_making_per_upstream: count("limits.leases_making_per_upstream")?,
        leases_making_per_batch: count("limits.leases_making_per_batch")?,
        leases_undoing: count("limits.leases_undoing")?,
        leases_undoing_per_upstream: count("limits.leases_undoing_per_upstream")?,
        followers: count("limits.followers")?,
        followers_per_caller: count("limits.followers_per_caller")?,
        connections: count("limits.connections")?,
        admin_connections: count("limits.admin_connections")?,
        public_connections: count("limits.public_connections")?,
        connection_streams: small("limits.connection_streams")?,
        handshakes: count("limits.handshakes")?,
        stream_in_flight: count("limits.stream_in_flight")?,
        credential_ttl_ms: number("limits.credential_ttl")?,
        task_ttl_ms: number("limits.task_ttl")?,
        verdict_cache_bytes: number("limits.verdict_cache")?,
    })
}
