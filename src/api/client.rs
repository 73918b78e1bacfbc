//! Connections to a mayfly server from this process, for health checks, the dev world and tests.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Error, Uri};
use tower::service_fn;

/// A channel over mTLS that reconnects by itself. The server is verified by its SPIFFE ID; the TLS server name (`localhost`) only goes to
/// the server's certificate resolver.
pub async fn mtls(address: SocketAddr, config: ClientConfig) -> Result<Channel, Error> {
    let config = Arc::new(config);
    let dial = move |_: Uri| {
        let config = config.clone();
        async move { handshake(address, config).await.map(TokioIo::new) }
    };
    // tonic is built without TLS, hence the http URL; the connector uses TLS.
    Endpoint::from_static("http://localhost").connect_with_connector(service_fn(dial)).await
}

/// A TLS connection to a server that `config` accepts.
pub async fn handshake(address: SocketAddr, config: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    TlsConnector::from(config).connect(name, tcp).await
}

/// A channel over the operators' socket.
pub async fn unix(path: &Path) -> Result<Channel, Error> {
    let path: PathBuf = path.to_owned();
    let dial = move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    };
    Endpoint::from_static("http://localhost").connect_with_connector(service_fn(dial)).await
}
