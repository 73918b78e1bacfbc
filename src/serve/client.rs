//! Calling a mayfly server from this process: health checks, the dev world, tests.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Error, Uri};
use tower::service_fn;

/// A channel over mTLS. The server is known by its SPIFFE ID, so the name is only for its certificate's resolver. Reconnects by itself.
pub async fn mtls(address: SocketAddr, config: ClientConfig) -> Result<Channel, Error> {
    let config = Arc::new(config);
    let dial = move |_: Uri| {
        let config = config.clone();
        async move {
            let tcp = TcpStream::connect(address).await?;
            tcp.set_nodelay(true)?;
            let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
            Ok::<_, io::Error>(TokioIo::new(TlsConnector::from(config).connect(name, tcp).await?))
        }
    };
    // tonic is built without TLS of its own; the connection is TLS all the same.
    Endpoint::from_static("http://localhost").connect_with_connector(service_fn(dial)).await
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
