//! `mayfly server healthcheck`: whether the server of a configuration accepts calls, asked in the way a workload asks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ClientConfig;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use mayfly_api::client;
use mayfly_api::tls::client_config;
use mayfly_base::bounded_file;
use mayfly_base::document::Diagnostic;
use mayfly_base::limits;
use mayfly_base::system::System;
use mayfly_config::config::Config;
use mayfly_config::workload_api;
use mayfly_identity::bundle::{Bundle, Bundles};
use mayfly_identity::spiffe_id::TrustDomain;

/// Longest time for the whole check.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why the server is not healthy, or could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum NotHealthy {
    /// The configuration is wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Config(Vec<Diagnostic>),
    /// There was no answer, or a server with another identity answered.
    #[error("no answer at {address}: {what}\n  whether it runs: mayfly server run --config {config}")]
    NoAnswer {
        /// The address.
        address: SocketAddr,
        /// The error.
        what: String,
        /// The configuration file.
        config: String,
    },
    /// This command's own files, which the configuration names, cannot be read. Whether the server is healthy is unknown.
    #[error(
        "the server at {address} could not be asked: {what}\n  mend that file, or its key in {config}: this command shows the server's own SVID and verifies the server with that bundle"
    )]
    Own {
        /// The address.
        address: SocketAddr,
        /// The file, its key and the error.
        what: String,
        /// The configuration file.
        config: String,
    },
    /// The server itself reports that it is not healthy.
    #[error("the server says that it is {0}\n  why: mayfly status")]
    Says(String),
}

/// Asks the workload listener over mTLS, with the server's own SVID. `service`: empty for the whole server.
pub async fn ask(path: &Path, service: &str, system: &System) -> Result<(), NotHealthy> {
    let config = Config::load(path, super::environment()).map_err(NotHealthy::Config)?;
    ask_as(&config, service, system).await
}

/// As [`ask`], for a configuration that was read already.
pub async fn ask_as(config: &Config, service: &str, system: &System) -> Result<(), NotHealthy> {
    let address = reachable(config.listen.workload);
    let no = |what: String| NotHealthy::NoAnswer { address, what, config: config.file.clone() };
    if address.port() == 0 {
        return Err(no("listen.workload has port 0: a free one at each start, which the server's log tells".to_owned()));
    }
    let mine = |what: String| NotHealthy::Own { address, what, config: config.file.clone() };
    let asking = async {
        let tls = as_own(config, system).map_err(mine)?;
        let channel = client::mtls(address, tls).await.map_err(|e| no(chain(&e)))?;
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = HealthClient::new(channel).check(request).await.map_err(|s| no(s.message().to_owned()))?;
        match ServingStatus::try_from(answer.into_inner().status) {
            Ok(ServingStatus::Serving) => Ok(()),
            Ok(other) => Err(NotHealthy::Says(other.as_str_name().to_owned())),
            Err(_) => Err(NotHealthy::Says("something that this version does not know".to_owned())),
        }
    };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(outcome) => outcome,
        Err(_) => Err(no(format!("nothing within {} s", PATIENCE.as_secs()))),
    }
}

/// The client that shows the server's own SVID and accepts this server only. The error names a file that cannot be used.
fn as_own(config: &Config, system: &System) -> Result<ClientConfig, String> {
    let (own, _) = super::inspect_svid(config, system)?;
    let id = own.spiffe_id().map_err(|e| e.to_string())?;
    let bundles = Arc::new(ArcSwap::from_pointee(bundles(config, system)?));
    let shown = Arc::new(ArcSwap::new(own.certified_key().clone()));
    client_config(Some(shown), bundles, id, system).map_err(|e| e.to_string())
}

/// Whether the listener at an address shows the SVID of a configuration's server. `None`: it cannot be asked, since the files for that
/// cannot be read.
pub(super) async fn shows_own_svid(config: &Config, address: SocketAddr, system: &System) -> Option<bool> {
    let tls = Arc::new(as_own(config, system).ok()?);
    let shown = tokio::time::timeout(PATIENCE, client::handshake(reachable(address), tls)).await;
    Some(shown.is_ok_and(|connected| connected.is_ok()))
}

/// Whether a mayfly server answers at an operators' socket, regardless of its health.
pub(super) async fn answers_at(socket: &Path) -> bool {
    let asking = async {
        let channel = client::unix(socket).await.ok()?;
        HealthClient::new(channel).check(HealthCheckRequest::default()).await.ok()
    };
    tokio::time::timeout(PATIENCE, asking).await.is_ok_and(|answer| answer.is_some())
}

/// The name of the health service that a server has if it can be asked for its sealing key.
pub(super) const SEALING_KEY: &str = "mayfly.sealing-key";

/// The name of the health service that a server with this sealing key has.
pub(super) fn sealing_key_service(fingerprint: &[u8; 32]) -> String {
    format!("{SEALING_KEY}.{}", data_encoding::HEXLOWER.encode(fingerprint))
}

/// Whether the running server of a configuration has this sealing key, asked at its socket or at its port. `None`: it does not tell.
pub(super) async fn has_sealing_key(config: &Config, at_socket: bool, fingerprint: &[u8; 32], system: &System) -> Option<bool> {
    let has = async |service: String| match config.listen.admin_socket.as_deref().filter(|_| at_socket) {
        Some(socket) => {
            let asking = async {
                let request = HealthCheckRequest { service };
                HealthClient::new(client::unix(socket).await.ok()?).check(request).await.ok()
            };
            tokio::time::timeout(PATIENCE, asking).await.is_ok_and(|answer| answer.is_some())
        }
        None => ask_as(config, &service, system).await.is_ok(),
    };
    match has(sealing_key_service(fingerprint)).await {
        true => Some(true),
        false => has(SEALING_KEY.to_owned()).await.then_some(false),
    }
}

/// The address under which a listener can be reached from this host: the loopback address for an unspecified one.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn bundles(config: &Config, system: &System) -> Result<Bundles, String> {
    let own = config.bundles.iter().filter(|b| b.trust_domain == config.server.trust_domain);
    let read = own.map(|b| {
        let domain = TrustDomain::parse(&b.trust_domain).map_err(|e| e.to_string())?;
        match (&b.file, &config.workload_api) {
            (Some(file), _) => {
                // The key of the configuration, as its file has it.
                let named = |what: String| format!("bundles.file of trust domain {domain}, {}: {what}", file.display());
                let document = bounded_file::read(file, limits::BUNDLE_BYTES).map_err(|e| named(e.to_string()))?;
                Bundle::parse(domain.clone(), &document).map(Arc::new).map_err(|e| named(e.to_string()))
            }
            (None, Some(api)) => {
                let given = workload_api::fetch_once(&api.wanted, system).map_err(|no| no.to_string())?;
                given.bundle(&domain, None).map_err(|e| format!("{}: {e}", api.wanted.endpoint))
            }
            (None, None) => Err(format!("the bundle of {domain} comes from nowhere")),
        }
    });
    Ok(Bundles::new(read.collect::<Result<Vec<_>, String>>()?).unwrap_or_default())
}

/// An error with its causes: tonic's own text is only "transport error".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut at = error.source();
    while let Some(cause) = at {
        text = format!("{text}: {cause}");
        at = cause.source();
    }
    text
}
