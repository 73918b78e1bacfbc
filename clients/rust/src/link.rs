//! The connection to the server. When the SVID rotates, a new connection is opened and replaces the old one, which ends with its last call,
//! so that no call fails.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper_util::rt::TokioIo;
use mayfly_verify::clock::{Clock, RealClock};
use rustls::pki_types::ServerName;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::dial::dial;
use crate::error::Error;
use crate::limits;
use crate::settings::Settings;
use crate::svid::SvidSource;
use crate::tls;

/// A connection that renews itself.
#[derive(Clone)]
pub struct Link {
    channel: Arc<ArcSwap<Channel>>,
    renewed: watch::Receiver<u64>,
}

impl Link {
    /// Connects, and follows the rotation of the SVID in the background until the link is dropped.
    pub async fn connect(settings: &Settings) -> Result<Link, Error> {
        let (svid, changes) = SvidSource::begin(&settings.identity, settings.server_id.trust_domain_owned()).await?;
        let clock: Arc<dyn Clock> = Arc::new(RealClock::new());
        let config = tls::client_config(Some(svid.own.clone()), svid.bundles.clone(), settings.server_id.clone(), clock);
        let config = config.map_err(|e| Error::Settings(format!("TLS: {e}")))?;
        let way = ServerAddress { connector: TlsConnector::from(Arc::new(config)), address: settings.address.clone() };
        let channel = Arc::new(ArcSwap::from_pointee(way.open().await?));
        let (says, renewed) = watch::channel(0);
        tokio::spawn(renew(way, channel.clone(), changes, says));
        Ok(Link { channel, renewed })
    }

    /// A channel that stays usable until it is dropped, even if the link has replaced it.
    pub fn channel(&self) -> Channel {
        Channel::clone(&self.channel.load())
    }

    /// Signals that there is a new connection, on which long-lived streams should be opened again.
    pub fn renewals(&self) -> watch::Receiver<u64> {
        self.renewed.clone()
    }
}

/// Opens a new connection for each change of the SVID.
async fn renew(way: ServerAddress, channel: Arc<ArcSwap<Channel>>, mut changes: watch::Receiver<u64>, says: watch::Sender<u64>) {
    const AGAIN: Duration = Duration::from_millis(500);
    loop {
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = says.closed() => return,
        }
        // The old connection is used until the new one is open, and for as long as its own SVID is valid.
        loop {
            match way.open().await {
                Ok(new) => {
                    channel.store(Arc::new(new));
                    says.send_modify(|n| *n += 1);
                    break;
                }
                Err(problem) => {
                    tracing::warn!(%problem, "no connection could be made with the new SVID yet; the old connection stays in use")
                }
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = says.closed() => return,
            }
        }
    }
}

/// The address and TLS configuration of the server.
#[derive(Clone)]
struct ServerAddress {
    connector: TlsConnector,
    address: String,
}

impl ServerAddress {
    /// Opens a connection. If it breaks, tonic opens another one with the SVID of that time.
    async fn open(&self) -> Result<Channel, Error> {
        let wrong =
            |what: &dyn std::fmt::Display| Error::Settings(format!("MAYFLY_ADDRESS {:?} is not HOST:PORT: {what}", self.address));
        let (host, port) = self.address.rsplit_once(':').ok_or_else(|| wrong(&"it has no port"))?;
        let port: u16 = port.parse().map_err(|e| wrong(&e))?;
        let host = host.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|e| wrong(&e))?;
        // tonic is built without its own TLS and does not accept https here. The connector below uses TLS.
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address));
        let endpoint = endpoint.map_err(|e| wrong(&e))?;
        let endpoint =
            endpoint.connect_timeout(limits::CONNECT).http2_keep_alive_interval(limits::CALL).keep_alive_while_idle(true);
        let connector = self.connector.clone();
        let dialling = move |_| {
            let (connector, name, host) = (connector.clone(), name.clone(), host.clone());
            async move { dial(&connector, &name, &host, port).await.map(TokioIo::new) }
        };
        match tokio::time::timeout(limits::CONNECT, endpoint.connect_with_connector(tower::service_fn(dialling))).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(connect_error(&self.address, &error)),
            Err(_) => Err(Error::unavailable(format!("no connection to {} within 10 s", self.address))),
        }
    }
}

fn connect_error(address: &str, error: &(dyn std::error::Error + 'static)) -> Error {
    if let Some(defect) = tls::server_identity_error(error) {
        return Error::Handshake(format!("no connection to {address}: {defect}"));
    }
    let causes = || std::iter::successors(Some(error), |e| e.source());
    let alert = causes().find_map(|cause| {
        let carried = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        match cause.downcast_ref::<rustls::Error>().or_else(|| carried.and_then(|e| e.downcast_ref::<rustls::Error>())) {
            Some(rustls::Error::AlertReceived(alert)) => Some(*alert),
            _ => None,
        }
    });
    if let Some(alert) = alert {
        return Error::Handshake(format!("the server at {address} does not accept our SVID (TLS alert {alert:?})"));
    }
    let what = causes().last().map_or_else(String::new, ToString::to_string);
    Error::unavailable(format!("no connection to {address}: {what}"))
}
