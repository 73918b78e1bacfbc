//! The start: everything is opened, checked and bound before the first answer; otherwise the start is refused and nothing was changed.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::sync::watch;

use super::check::{self, ImportState};
use super::metrics::MetricsAccess;
use super::reload::{Outlets, ReloadChannels, Reloader};
use super::sealer::StoreSealer;
use super::start_problem::{StartFailure, StartProblem};
use super::threads::{BoundListeners, ServiceInputs};
use super::webhook::Webhooks;
use super::{Addresses, RunningServer, bundles, config_mapping, engine, import, server_identity, threads};
use mayfly_api::tls::public_config;
use mayfly_api::unix;
use mayfly_authority::authority::{Authority, AuthorityParts};
use mayfly_authority::exchange::ExchangePath;
use mayfly_authority::people::oidc_issuers::Issuers;
use mayfly_authority::trust::keys;
use mayfly_authority::trust::own_domain::OwnDomain;
use mayfly_base::document::Diagnostic;
use mayfly_base::limits;
use mayfly_base::system::System;
use mayfly_config::config::{Config, ConfigFinding, FindingSubject, SealingKeySource};
use mayfly_config::policy_files;
use mayfly_config::workload_api::AgentMessage;
use mayfly_credential::lease::ConnectorSettings;
use mayfly_ledger::{Ledger, ProposalKind};
use mayfly_policy::VerdictCache;
use mayfly_policy::decide::Decider;
use mayfly_store::sealing::SealingKey;

/// Starts a server in its own threads. Blocks until the server answers; may be called from any context.
pub fn start(config: &Config, system: &System) -> Result<RunningServer, StartProblem> {
    start_with(config, system, config_mapping::built_in_connectors(config, system))
}

/// As [`start`], with credential kinds whose credentials are made at upstreams, and their times and places as
/// [`connector_settings`](super::connector_settings) returns them.
pub fn start_with(config: &Config, system: &System, connectors: ConnectorSettings) -> Result<RunningServer, StartProblem> {
    start_given(config, system, connectors, None)
}

/// As [`start_with`], with the agent's message if the caller waited for it ([`server_identity::from_agent`]); otherwise this call waits for
/// it.
pub(super) fn start_given(
    config: &Config,
    system: &System,
    connectors: ConnectorSettings,
    given: Option<AgentMessage>,
) -> Result<RunningServer, StartProblem> {
    // Opening the ledger blocks, which a caller's own runtime may not allow.
    let started = std::thread::scope(|scope| match scope.spawn(|| start_here(config, system, connectors, given)).join() {
        Ok(outcome) => outcome,
        Err(_) => Err(StartFailure::Panic),
    });
    started.map_err(|why| StartProblem::new(why, config))
}

fn start_here(
    config: &Config,
    system: &System,
    connectors: ConnectorSettings,
    given: Option<AgentMessage>,
) -> Result<RunningServer, StartFailure> {
    let given = match given {
        None => server_identity::wait_for_agent(config, system)?,
        given => given,
    };
    let own = server_identity::certificate(config, given.as_ref())?;
    let public = server_identity::public_certificate(config)?;
    let public_tls = match &public {
        Some(shown) => public_config(&shown.current, system),
        None => public_config(&own.current, system),
    };
    let public_tls = public_tls.map_err(|e| StartFailure::Tls(e.to_string()))?;
    // Checked before the other files, since its error names the repair more precisely.
    sealing_key(config)?;
    let found = check::files(config, system.wall(), given.as_ref());
    // Findings that depend on the ledger are judged after it is open.
    refuse_if_any(check::errors(&found, |about| about == FindingSubject::Everything), StartFailure::Found)?;
    let authority = authority(config, system, connectors)?;
    let ledger = authority.ledger.clone();
    let running = opened(config, authority, (found, given), (own, public, public_tls));
    // After a failed start, the caller may repair the cause and start again in this process, which requires the store to be closed.
    running.inspect_err(|_| ledger.stop())
}

fn refuse_if_any(wrong: Vec<Diagnostic>, why: fn(Vec<Diagnostic>) -> StartFailure) -> Result<(), StartFailure> {
    if wrong.is_empty() { Ok(()) } else { Err(why(wrong)) }
}

/// Starts the server on an open ledger. Policies and registrations are imported last, so that their files can still be corrected if the
/// start is refused before.
fn opened(
    config: &Config,
    authority: Arc<Authority>,
    (found, given): (Vec<ConfigFinding>, Option<AgentMessage>),
    (own, public, public_tls): (server_identity::ServerCertificate, Option<server_identity::PublicTlsCertificate>, ServerConfig),
) -> Result<RunningServer, StartFailure> {
    let found = check::downgrade_imported(found, authority.ledger.peek(|state| ImportState::of(state, config)));
    refuse_if_any(check::errors(&found, |about| about == FindingSubject::Policy), StartFailure::Policy)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| StartFailure::System { what: "a runtime", error })?;
    let bundles = runtime.block_on(async {
        let bundles = bundles::import_bundles(config, &authority, given.as_ref()).await?;
        // Must run before a request for another approval can arrive.
        authority.sweep_arguments(true).await.map_err(refused("the arguments of approvals"))?;
        Ok(bundles)
    })?;
    let public_tls = Arc::new(public_tls);
    let metrics = MetricsAccess::of(&config.metrics, &public_tls).map_err(|problem| StartFailure::Files(vec![problem]))?;
    let bound = bind(config)?;
    runtime.block_on(async {
        import_policies(config, &authority).await?;
        // Creates the first keys of each environment, and handles everything that became due while the server was down.
        keys::run_key_maintenance(&authority).await;
        Ok(())
    })?;
    let ours = authority.clone();
    run(config, bound, &ours, |followed| ServiceInputs { authority, own, public, public_tls, bundles, followed, metrics })
}

/// Starts the threads. A client that connects from here on is answered as soon as the threads run.
fn run(
    config: &Config,
    bound: BoundListeners,
    authority: &Arc<Authority>,
    serve: impl FnOnce(ReloadChannels) -> ServiceInputs,
) -> Result<RunningServer, StartFailure> {
    let (stop, stopping) = watch::channel(false);
    let addresses = bound.addresses.clone();
    let outlets = Arc::new(Mutex::new(Outlets::default()));
    let authority = authority.clone();
    let reloading = Arc::new(Reloader::new(config, &authority, outlets.clone()));
    let served = serve(reloading.followed());
    // The value is set only here.
    let _ = authority.own.set(served.own.svid.clone());
    let webhooks =
        Webhooks::start(&authority, &config.webhooks).map_err(|error| StartFailure::System { what: "the webhooks", error })?;
    outlets.lock().webhooks = Some(webhooks);
    let (threads, counts) =
        threads::spawn(config, bound, served, stopping).map_err(|error| StartFailure::System { what: "the threads", error })?;
    tracing::info!(
        workload = %addresses.workload, admin = %addresses.admin, public = %addresses.public,
        generation = authority.ledger.durable().generation(), seq = authority.ledger.durable().count(), "serving"
    );
    let export = outlets.lock().export_to(&authority, config);
    export.map_err(|error| StartFailure::System { what: "the export of the audit", error })?;
    let traces = outlets.lock().trace_to(&authority, config);
    traces.map_err(|error| StartFailure::System { what: "the traces", error })?;
    Ok(RunningServer { authority, addresses, counts, stop, threads, outlets, reloading })
}

pub(super) fn refused(what: &str) -> impl Fn(mayfly_base::refusal::Error) -> StartFailure {
    let what = what.to_owned();
    move |no| StartFailure::Refused { what: what.clone(), no: Box::new(no) }
}

/// The sealing key.
pub(super) fn sealing_key(config: &Config) -> Result<SealingKey, StartFailure> {
    // Without a data directory, the key cannot be inside one.
    let data = engine::data_dir(config).unwrap_or(std::path::Path::new("/dev/null"));
    match &config.seal {
        SealingKeySource::KeyFile(path) => SealingKey::load(path, data).map_err(StartFailure::KeyFile),
        SealingKeySource::Credential(name) => {
            let dir = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| StartFailure::NoCredentials(name.clone()))?;
            SealingKey::load_credential(dir.as_ref(), name, data).map_err(StartFailure::KeyFile)
        }
    }
}

/// Opens the ledger and everything that follows it.
fn authority(config: &Config, system: &System, connectors: ConnectorSettings) -> Result<Arc<Authority>, StartFailure> {
    let key = sealing_key(config)?;
    if engine::data_dir(config).is_none() {
        tracing::warn!("engine memory: nothing survives a restart, and what was revoked or locked is forgotten with the rest");
    }
    let (store, opener) = engine::open(config, system).map_err(|e| StartFailure::Ledger(engine::open_error(config, e)))?;
    // Before the first append: afterwards a missing check value means that somebody deleted it.
    key.check(&*store, system).map_err(|error| StartFailure::Seal { error, key: config.seal.clone() })?;
    let sealer = Arc::new(StoreSealer::new(key, store.id(), system.clone()));
    drop(store);
    let ledger = Ledger::open(opener, system.clone(), config_mapping::settings(config)).map_err(StartFailure::Ledger)?;
    // All code below uses the ledger's clock.
    let system = ledger.system();
    let decider = Decider {
        audits: Arc::default(),
        verdicts: Arc::new(VerdictCache::new(config.limits.verdict_cache_bytes)),
        issuer: config.server.issuer.clone(),
        serves: Some(config.server.environments.clone()),
        access: Arc::new(connectors.remotes.clone()),
        longest_ms: config.limits.credential_ttl_ms.into(),
        longest_task_ms: config.limits.task_ttl_ms.into(),
    };
    let mut admin_uids = config.admin_uids.clone();
    admin_uids.push(rustix::process::geteuid().as_raw());
    let parts = AuthorityParts {
        decider,
        bundles: Arc::default(),
        oidc: Arc::new(Issuers::new(config.oidc_issuers.iter().map(|i| i.issuer.clone()), system.clone())),
        own_domain: config.own_domain.clone().map(|own| OwnDomain::new(own, &config.server.issuer)),
        sealer,
        system,
        admin_uids,
        single_operator: config.single_operator,
        feed_max_age_ms: config.feed_max_age_ms,
        bounds: config_mapping::bounds(config),
        connectors,
        traced: config_mapping::trace_settings(config),
        exchange_path: ExchangePath::default(),
    };
    let opened = ledger.clone();
    let authority = Authority::new(ledger, parts).inspect_err(|_| opened.stop()).map_err(StartFailure::Keys)?;
    authority.rotations.set_hooks(config.rotation_hooks.iter().cloned());
    Ok(authority)
}

/// Imports the policy files at a first start. A later start compares them with the ledger, which is authoritative.
async fn import_policies(config: &Config, authority: &Authority) -> Result<(), StartFailure> {
    for (name, live) in authority.environments_not_served() {
        tracing::warn!(
            environment = %name, live_credentials = live,
            "the ledger has a policy set of this environment, which is not in server.environments: it is not served; \
             what was issued there lives until it expires or is revoked (mayfly revoke --environment NAME --reason TEXT)"
        );
    }
    let environments = &config.server.environments;
    let missing = authority.ledger.peek(|state| import::missing(state, environments));
    if missing.is_empty() {
        // Followers from before the start may still exist: the list of followers is not persisted.
        authority.followers.began_again(authority.system.wall());
        let drift = import::drift(authority, config);
        for what in &drift {
            tracing::warn!(
                what,
                "policies and upstreams were imported from files at the first start; the ledger is authoritative now and what differs in \
                 the files is ignored"
            );
        }
        authority.drift.store(Arc::new(drift));
        return Ok(());
    }
    let loaded = policy_files::load(&config.policy).map_err(StartFailure::Policy)?;
    check_environments(config, &loaded)?;
    let groups = authority.ledger.peek(|state| import::groups(state, &loaded, &missing));
    for records in groups {
        authority.ledger.commit(ProposalKind::Change, records).await.map_err(refused("the policies and registrations"))?;
    }
    tracing::info!(
        environments = missing.join(","),
        upstreams = loaded.upstreams.len(),
        "policies and registrations were imported into the ledger"
    );
    Ok(())
}

/// Refuses a registration in an environment that is not served, which could never be used.
fn check_environments(config: &Config, loaded: &policy_files::PolicyFileContents) -> Result<(), StartFailure> {
    let environments = &config.server.environments;
    let strays = loaded.upstreams.iter().filter(|u| !environments.contains(&u.environment)).map(|u| {
        let what = format!("upstream {} is in environment {}, which server.environments has not", u.name, u.environment);
        Diagnostic::about(config.policy.upstreams.display().to_string(), what, format!("known: {}", environments.join(", ")))
    });
    let strays: Vec<Diagnostic> = strays.collect();
    if strays.is_empty() { Ok(()) } else { Err(StartFailure::Policy(strays)) }
}

/// Binds a port.
pub(super) fn listen(key: &'static str, address: SocketAddr) -> Result<TcpListener, StartFailure> {
    let bound = TcpListener::bind(address).and_then(|l| l.set_nonblocking(true).map(|()| l));
    // Listens again with a larger backlog, for all clients that reconnect after a restart.
    let bound = bound.and_then(|l| rustix::net::listen(&l, limits::BACKLOG).map(|()| l).map_err(Into::into));
    bound.map_err(|error| StartFailure::Port { key, address, error })
}

/// Whether other uids than the server's own may use the operators' socket.
pub(super) fn socket_is_shared(config: &Config) -> bool {
    config.admin_uids.iter().any(|uid| *uid != rustix::process::geteuid().as_raw())
}

fn bind(config: &Config) -> Result<BoundListeners, StartFailure> {
    let (listen, tcp) = (&config.listen, listen);
    let local =
        |key: &'static str, l: &TcpListener, address| l.local_addr().map_err(|error| StartFailure::Port { key, address, error });
    let workload = tcp("listen.workload", listen.workload)?;
    let admin = tcp("listen.admin", listen.admin)?;
    let public = tcp("listen.public", listen.public)?;
    let shared = socket_is_shared(config);
    let socket = listen.admin_socket.as_deref().map(|path| unix::bind(path, shared)).transpose().map_err(StartFailure::Socket)?;
    let metrics = listen.metrics.map(|address| tcp("listen.metrics", address).map(|l| (l, address))).transpose()?;
    let addresses = Addresses {
        workload: local("listen.workload", &workload, listen.workload)?,
        admin: local("listen.admin", &admin, listen.admin)?,
        admin_socket: listen.admin_socket.clone(),
        public: local("listen.public", &public, listen.public)?,
        metrics: metrics.as_ref().map(|(l, address)| local("listen.metrics", l, *address)).transpose()?,
        pid: std::process::id(),
    };
    Ok(BoundListeners { workload, admin, public, socket, metrics: metrics.map(|(l, _)| l), addresses })
}

/// The TLS configuration of the public listener.
pub(super) type PublicTls = Arc<ServerConfig>;
