//! The connection to the server. When our SVID rotates, a new one is made first and takes the place of the old, which ends with its last
//! call: so no call fails of it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper_util::rt::TokioIo;
use mayfly_verify::clock::{Clock, RealClock};
use rustls::pki_types::ServerName;
use tokio::io::AsyncBufReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use crate::error::Error;
use crate::limits;
use crate::settings::Settings;
use crate::svid::Svid;
use crate::tls;

/// A connection that renews itself.
#[derive(Clone)]
pub struct Link {
    channel: Arc<ArcSwap<Channel>>,
    renewed: watch::Receiver<u64>,
}

impl Link {
    /// Connects, and keeps the connection's SVID current in the background until the link is dropped.
    pub async fn connect(settings: &Settings) -> Result<Link, Error> {
        let (svid, changes) = Svid::begin(&settings.identity, settings.server_id.trust_domain_owned()).await?;
        let clock: Arc<dyn Clock> = Arc::new(RealClock::new());
        let config = tls::client_config(Some(svid.own.clone()), svid.bundles.clone(), settings.server_id.clone(), clock);
        let config = config.map_err(|e| Error::Settings(format!("TLS: {e}")))?;
        let way = Way { connector: TlsConnector::from(Arc::new(config)), address: settings.address.clone() };
        let channel = Arc::new(ArcSwap::from_pointee(way.open().await?));
        let (says, renewed) = watch::channel(0);
        tokio::spawn(renew(way, channel.clone(), changes, says));
        Ok(Link { channel, renewed })
    }

    /// A channel that lasts until it is dropped, whatever becomes of the link's.
    pub fn channel(&self) -> Channel {
        Channel::clone(&self.channel.load())
    }

    /// Signs that there is a new connection: long streams begin again on it.
    pub fn renewals(&self) -> watch::Receiver<u64> {
        self.renewed.clone()
    }
}

/// Makes a new connection for each change of our SVID.
async fn renew(way: Way, channel: Arc<ArcSwap<Channel>>, mut changes: watch::Receiver<u64>, says: watch::Sender<u64>) {
    const AGAIN: Duration = Duration::from_millis(500);
    loop {
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = says.closed() => return,
        }
        // The old one serves until the new one stands, and for as long as its own SVID lives.
        loop {
            match way.open().await {
                Ok(new) => {
                    channel.store(Arc::new(new));
                    says.send_modify(|n| *n += 1);
                    break;
                }
                Err(problem) => tracing::warn!(%problem, "no connection with the new SVID yet"),
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = says.closed() => return,
            }
        }
    }
}

/// The way to the server.
#[derive(Clone)]
struct Way {
    connector: TlsConnector,
    address: String,
}

impl Way {
    /// A connection that stands. Whenever it breaks tonic makes another, by the SVID of that time.
    async fn open(&self) -> Result<Channel, Error> {
        let host = self.address.rsplit_once(':').map_or(&*self.address, |(host, _)| host).trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(|e| Error::Settings(format!("MAYFLY_ADDRESS {:?}: {e}", self.address)))?;
        // tonic is built without TLS of its own and takes no https here; the connection below is TLS all the same.
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address));
        let endpoint =
            endpoint.map_err(|e| Error::Settings(format!("MAYFLY_ADDRESS {:?} is not HOST:PORT: {e}", self.address)))?;
        let endpoint =
            endpoint.connect_timeout(limits::CONNECT).http2_keep_alive_interval(limits::CALL).keep_alive_while_idle(true);
        let (connector, address) = (self.connector.clone(), self.address.clone());
        let dial = move |_| {
            let (connector, name, address) = (connector.clone(), name.clone(), address.clone());
            async move {
                let tcp = TcpStream::connect(address).await?;
                tcp.set_nodelay(true)?;
                accepted(connector.connect(name, tcp).await?).await.map(TokioIo::new)
            }
        };
        match tokio::time::timeout(limits::CONNECT, endpoint.connect_with_connector(tower::service_fn(dial))).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(no_way(&self.address, &error)),
            Err(_) => Err(Error::unavailable(format!("no connection to {} within 10 s", self.address))),
        }
    }
}

/// Waits for the server's first bytes before ours: in TLS 1.3 it refuses our certificate when our end of the handshake is long done. A server
/// of HTTP/2 speaks first (RFC 9113, section 3.4).
async fn accepted(mut tls: TlsStream<TcpStream>) -> io::Result<TlsStream<TcpStream>> {
    if let Ok(read) = tokio::time::timeout(Duration::from_secs(2), tls.fill_buf()).await
        && read?.is_empty()
    {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection after the handshake"));
    }
    Ok(tls)
}

fn no_way(address: &str, error: &(dyn std::error::Error + 'static)) -> Error {
    let what = match tls::not_that_server(error) {
        Some(defect) => defect.to_string(),
        None => std::iter::successors(Some(error), |e| e.source()).last().map_or_else(String::new, ToString::to_string),
    };
    Error::unavailable(format!("no connection to {address}: {what}"))
}
