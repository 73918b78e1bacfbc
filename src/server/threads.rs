//! The threads of a server: one runtime on all cores for workloads and the public listener, one thread for operators, whose calls continue
//! while all cores issue, and threads for handshakes at a lower priority than both.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tonic_health::server::HealthReporter;

use super::metrics::MetricsAccess;
use super::reload::ReloadChannels;
use super::server_identity::{PublicTlsCertificate, ServerCertificate};
use super::start::PublicTls;
use super::{Addresses, upkeep};
use mayfly_api::connection_end::{Stopping, TrustChanges};
use mayfly_api::grpc::{admin_routes, workload_routes};
use mayfly_api::handshakes::Handshakes;
use mayfly_api::listener::{Gate, ListenerCounts, ListenerLimits, MtlsParts, Role, serve_mtls};
use mayfly_api::long_calls::LongCalls;
use mayfly_api::public::{self, Published};
use mayfly_api::shares::{Pool, ShareLimits};
use mayfly_api::tls::MtlsAcceptor;
use mayfly_api::unix::{self, Socket};
use mayfly_authority::authority::Authority;
use mayfly_base::limits::METRICS_CONNECTIONS;
use mayfly_config::bundles::BundleFiles;
use mayfly_config::config::Config;
use mayfly_credential::keyring::jwks;
use mayfly_ledger::CommittedRecord;
use mayfly_ledger::record::Event;

/// Bound ports at which nothing is served yet.
pub(super) struct BoundListeners {
    pub workload: TcpListener,
    pub admin: TcpListener,
    pub public: TcpListener,
    pub socket: Option<Socket>,
    pub metrics: Option<TcpListener>,
    pub addresses: Addresses,
}

/// The services, and the inputs of the background work.
pub(super) struct ServiceInputs {
    pub authority: Arc<Authority>,
    pub own: ServerCertificate,
    pub public: Option<PublicTlsCertificate>,
    pub public_tls: PublicTls,
    pub bundles: BundleFiles,
    pub followed: ReloadChannels,
    /// TLS and the token of the metrics listener.
    pub metrics: MetricsAccess,
}

/// Number of workers per thread for workloads' lists.
const LIST_THREADS_SHARE: usize = 4;

type Spawned = (Vec<JoinHandle<()>>, [Arc<ListenerCounts>; 4]);

/// Starts the threads.
pub(super) fn spawn(config: &Config, bound: BoundListeners, served: ServiceInputs, stopping: Stopping) -> io::Result<Spawned> {
    let system = served.authority.system.clone();
    let limits = &config.limits;
    let gate = |role, connections: usize, pool| {
        // Handshakes of operators have a separate limit.
        let bounds =
            ListenerLimits { connections, handshakes: limits.handshakes.min(connections), streams: limits.connection_streams };
        let refused = served.authority.refused_handshakes.clone();
        Gate::new(role, bounds, pool, stopping.clone(), system.clone()).refusals_in(refused)
    };
    let workers = config.server.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    // One per worker: they use only idle CPU time, and clients that reconnect after a restart are admitted on all cores.
    let handshakes = Arc::new(Handshakes::start(workers)?);
    // Lists of operators have a separate thread, as the calls of operators do.
    let lists = Arc::new(LongCalls::start("mayfly-lists", workers.div_ceil(LIST_THREADS_SHARE))?);
    let operators_lists = Arc::new(LongCalls::start("operators-lists", 1)?);
    let pool = |long: &Arc<LongCalls>| Pool::new(ShareLimits::AUTHENTICATED).long_calls_on(long.clone());
    let gates = [
        gate(Role::Workload, limits.connections, pool(&lists)).handshaking_on(handshakes.clone()),
        gate(Role::Admin, limits.admin_connections, pool(&operators_lists)),
        gate(Role::Admin, limits.admin_connections, pool(&operators_lists)),
        gate(Role::Public, limits.public_connections, Pool::new(ShareLimits::PUBLIC)).handshaking_on(handshakes.clone()),
    ];
    let metrics_gate = metrics_gate(&served.authority, &stopping, handshakes);
    let counts = [gates[0].counts(), gates[1].counts(), gates[2].counts(), gates[3].counts()];
    let [workload_gate, admin_gate, socket_gate, public_gate] = gates;
    let health = HealthReporter::new();
    let changes = trust_changes(&served.authority);
    let mtls = |services| MtlsParts {
        acceptor: acceptor(config, &served),
        authority: served.authority.clone(),
        changes: changes.clone(),
        services,
    };
    let (authority, environments) = (served.authority.clone(), config.server.environments.clone());
    let (metrics, watched, closed) = (bound.metrics, authority.clone(), served.metrics.clone());
    let operators = mtls(admin_routes(&authority, &health));
    let workloads = mtls(workload_routes(&authority, &health));
    let published = Published::new(authority, &config.server.issuer, &environments, |state, env| jwks(&state.keys, env));
    let (admin, socket) = (bound.admin, bound.socket);
    let operators = on_thread("operators", Builder::new_current_thread(), async move {
        let services = operators.services.clone();
        let over_tls = async {
            match tokio::net::TcpListener::from_std(admin) {
                Ok(listener) => serve_mtls(admin_gate, listener, operators).await,
                Err(error) => tracing::error!(%error, "the admin listener could not be started"),
            }
        };
        let local = async {
            if let Some(socket) = socket {
                match socket.into_async() {
                    Ok(listener) => unix::serve(socket_gate, listener, services).await,
                    Err(error) => tracing::error!(%error, "the admin socket could not be opened"),
                }
            }
        };
        let watched = async {
            if let Some(listener) = metrics {
                super::metrics::serve(metrics_gate, listener, watched, closed).await;
            }
        };
        tokio::join!(over_tls, local, watched);
    })?;
    let upkeep = upkeep::Upkeep::new(config, served, health, stopping);
    let tls = upkeep.public_tls();
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(workers);
    let main = on_thread("workloads", builder, async move {
        let workload = async {
            match tokio::net::TcpListener::from_std(bound.workload) {
                Ok(listener) => serve_mtls(workload_gate, listener, workloads).await,
                Err(error) => tracing::error!(%error, "the workload listener could not be started"),
            }
        };
        let everybody = async {
            match tokio::net::TcpListener::from_std(bound.public) {
                Ok(listener) => public::serve(public_gate, listener, tls, public::router(published)).await,
                Err(error) => tracing::error!(%error, "the public listener could not be started"),
            }
        };
        // The background work has its own task, so that connections are accepted while it waits for a stalled disk.
        let mut upkeep = tokio::spawn(upkeep.run());
        let serving = async { tokio::join!(workload, everybody) };
        tokio::pin!(serving);
        // Without its background work, a server must not continue: this thread ends, and with it the process (`run`).
        let upkept = tokio::select! {
            ((), ()) = &mut serving => upkeep.await,
            upkept = &mut upkeep => {
                if upkept.is_ok() {
                    serving.await;
                }
                upkept
            }
        };
        if upkept.is_err() {
            tracing::error!("the maintenance loop of the server panicked");
        }
    })?;
    Ok((vec![operators, main], counts))
}

/// The gate of the metrics listener, with places that no other listener uses. Anybody may connect there, so its handshakes do not run on
/// the thread that answers operators' calls.
fn metrics_gate(authority: &Authority, stopping: &Stopping, handshakes: Arc<Handshakes>) -> Gate {
    let bounds = ListenerLimits { connections: METRICS_CONNECTIONS, handshakes: METRICS_CONNECTIONS, streams: 1 };
    let pool = Pool::new(ShareLimits::PUBLIC);
    let gate = Gate::new(Role::Metrics, bounds, pool, stopping.clone(), authority.system.clone());
    gate.refusals_in(authority.refused_handshakes.clone()).handshaking_on(handshakes)
}

fn acceptor(config: &Config, served: &ServiceInputs) -> MtlsAcceptor {
    let authority = &served.authority;
    MtlsAcceptor::new(served.own.current.clone(), authority.bundles.clone(), authority.system.clone(), config.svid_max_ttl_ms)
}

/// Counts changes of trust. The authority observes the ledger before this counter, so the bundles in effect are current when the count
/// changes.
fn trust_changes(authority: &Authority) -> TrustChanges {
    let count = watch::Sender::new(0);
    let changes = count.subscribe();
    authority.ledger.observe(move |batch| {
        if batch.records.iter().filter_map(CommittedRecord::change).any(|r| matches!(r.event, Some(Event::BundleSet(_)))) {
            count.send_modify(|n| *n += 1);
        }
    });
    changes
}

/// Starts a thread with its own runtime, which runs until `serve` has ended.
fn on_thread(name: &str, mut builder: Builder, serve: impl Future<Output = ()> + Send + 'static) -> io::Result<JoinHandle<()>> {
    let runtime: Runtime = builder.enable_all().thread_name(format!("mayfly-{name}")).build()?;
    std::thread::Builder::new().name(format!("mayfly-{name}")).spawn(move || {
        runtime.block_on(serve);
        // Blocking tasks, such as a comparison of policies with their files, hold the store until they end. A caller of `stop` may open
        // the data directory right after it.
        runtime.shutdown_timeout(Duration::from_secs(5));
    })
}
