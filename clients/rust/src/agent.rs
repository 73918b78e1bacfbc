//! The agent that serves the SPIFFE Workload API: its endpoint and its calls. The server, the command line and the client all use this
//! module.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint as Dial};
use tonic::{Request, Response, Status, Streaming};

use crate::limits;
use crate::pb::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use crate::pb::workload::{JwtBundlesRequest, JwtBundlesResponse, X509SvidRequest, X509SvidResponse};

/// The endpoint of an agent (SPIFFE Workload Endpoint, section 4).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Endpoint {
    /// A Unix socket.
    Unix(PathBuf),
    /// A TCP port. The traffic is neither encrypted nor authenticated, private keys included.
    Tcp(SocketAddr),
}

impl Endpoint {
    /// Parses `unix:/PATH`, `unix:///PATH`, `tcp:ADDRESS:PORT` or `tcp://ADDRESS:PORT`. The address must be an IP address; names are not
    /// resolved.
    pub fn parse(text: &str) -> Result<Endpoint, String> {
        let wrong = || format!("{text:?} is not unix:/PATH or tcp:ADDRESS:PORT");
        let rest = |scheme: &str| text.strip_prefix(scheme).map(|rest| rest.strip_prefix("//").unwrap_or(rest));
        if let Some(path) = rest("unix:") {
            let plain = path.len() > 1 && path.starts_with('/') && !path.contains(['?', '#', '\0']);
            return plain.then(|| Endpoint::Unix(path.into())).ok_or_else(wrong);
        }
        let address = rest("tcp:").and_then(|address| address.parse::<SocketAddr>().ok());
        address.filter(|a| a.port() != 0).map(Endpoint::Tcp).ok_or_else(wrong)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
            Endpoint::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

/// The SVIDs of this workload and the bundles that it trusts: the current ones at once, and again after each change.
pub async fn x509_svids(endpoint: &Endpoint) -> Result<Streaming<X509SvidResponse>, Status> {
    let called = client(endpoint).await?.fetch_x509svid(marked(X509SvidRequest {})).await;
    called.map(Response::into_inner)
}

/// The JWT-SVID keys of the trust domains that this workload trusts: the current ones at once, and again after each change.
pub async fn jwt_bundles(endpoint: &Endpoint) -> Result<Streaming<JwtBundlesResponse>, Status> {
    let called = client(endpoint).await?.fetch_jwt_bundles(marked(JwtBundlesRequest {})).await;
    called.map(Response::into_inner)
}

/// Adds the header that protects against requests forged through a browser or a proxy (SPIFFE Workload Endpoint, section 4).
fn marked<T>(message: T) -> Request<T> {
    let mut ask = Request::new(message);
    ask.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
    ask
}

async fn client(endpoint: &Endpoint) -> Result<SpiffeWorkloadApiClient<Channel>, Status> {
    let channel = match endpoint {
        Endpoint::Unix(path) => {
            let path = path.clone();
            let connect = move |_| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            };
            // The name is only used for the `:authority` header; it is not resolved.
            let dial = Dial::from_static("http://workload.local").connect_timeout(limits::CONNECT);
            dial.connect_with_connector(tower::service_fn(connect)).await
        }
        Endpoint::Tcp(address) => match Dial::from_shared(format!("http://{address}")) {
            // Keep-alive detects a peer that vanished without closing the connection. A Unix socket needs none.
            Ok(dial) => dial.connect_timeout(limits::CONNECT).tcp_keepalive(Some(Duration::from_secs(15))).connect().await,
            Err(error) => Err(error),
        },
    };
    let channel = channel.map_err(|e| Status::unavailable(format!("no connection: {}", root(&e))))?;
    Ok(SpiffeWorkloadApiClient::new(channel).max_decoding_message_size(limits::WORKLOAD_API_BYTES))
}

fn root(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |e| e.source()).last().map_or_else(String::new, ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_socket_or_an_address_with_a_port_and_nothing_else() {
        for (text, shown) in [
            ("unix:/run/agent.sock", "unix:/run/agent.sock"),
            ("unix:///run/agent.sock", "unix:/run/agent.sock"),
            ("tcp:127.0.0.1:8000", "tcp:127.0.0.1:8000"),
            ("tcp://[::1]:8000", "tcp:[::1]:8000"),
        ] {
            assert_eq!(Endpoint::parse(text).unwrap().to_string(), shown);
        }
        for text in [
            "",
            "/run/agent.sock",
            "unix:",
            "unix:///",
            "unix://host/path",
            "unix:relative",
            "unix:///a?b",
            "tcp:localhost:8000",
            "tcp:127.0.0.1",
            "tcp:127.0.0.1:0",
            "tcp://127.0.0.1:1/path",
            "http://127.0.0.1:1",
        ] {
            assert!(Endpoint::parse(text).unwrap_err().contains("unix:/PATH"), "{text}");
        }
    }
}
