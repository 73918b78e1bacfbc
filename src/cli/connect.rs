//! Connections to the server: over a Unix socket, or over mTLS with the server authenticated by its SPIFFE ID.

use std::error::Error;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper_util::rt::TokioIo;
use mayfly_client::dial::dial;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use super::context::{MtlsTarget, ServerTarget};
use super::error::CliError;
use mayfly_api::tls::{client_config, server_identity_error};
use mayfly_base::limits;
use mayfly_base::system::System;
use mayfly_config::svid_files::SvidFiles;
use mayfly_identity::bundle::{Bundle, Bundles};

/// Opens a connection and waits until it is established, so that every connection error is reported here with its own error type.
pub async fn channel(target: &ServerTarget, system: &System, deadline: Duration) -> Result<Channel, CliError> {
    let connecting = async {
        match target {
            ServerTarget::Unix(path) => {
                let path = path.clone();
                // The URI only supplies the `:authority` header; the name is never resolved.
                let endpoint = Endpoint::from_static("http://mayfly.local");
                through(endpoint, move || UnixStream::connect(path.clone())).await
            }
            ServerTarget::Mtls(to) => {
                let connector = TlsConnector::from(Arc::new(tls(to, system)?));
                let name = ServerName::try_from(to.host.clone()).map_err(|e| CliError::Usage(format!("{}: {e}", to.host)))?;
                // tonic is built without its own TLS support and accepts only http here; the connection made below is TLS nevertheless.
                let endpoint = Endpoint::from_shared(target.address().replacen("https", "http", 1)).map_err(CliError::ours)?;
                let at = (to.host.clone(), to.port);
                let dialling = move || {
                    let (connector, name, (host, port)) = (connector.clone(), name.clone(), at.clone());
                    async move { dial(&connector, &name, &host, port).await }
                };
                through(endpoint, dialling).await
            }
        }
        .map_err(|e| no_way(&target.address(), &e))
    };
    match tokio::time::timeout(deadline, connecting).await {
        Ok(result) => result,
        Err(_) => Err(CliError::Unreachable { address: target.address(), what: "no connection in time".to_owned() }),
    }
}

/// Creates a channel over connections made by `dial`. tonic reconnects immediately and without limit when a connection breaks, so `dial` is
/// delayed between attempts.
async fn through<IO, F, W>(endpoint: Endpoint, dial: F) -> Result<Channel, tonic::transport::Error>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    F: Fn() -> W + Send + 'static,
    W: Future<Output = io::Result<IO>> + Send + 'static,
{
    const PAUSE: Duration = Duration::from_millis(100);
    let dialled = AtomicBool::new(false);
    let connect = move |_: Uri| {
        let (again, connecting) = (dialled.swap(true, Ordering::Relaxed), dial());
        async move {
            if again {
                tokio::time::sleep(PAUSE).await;
            }
            connecting.await.map(TokioIo::new)
        }
    };
    endpoint.connect_with_connector(service_fn(connect)).await
}

fn tls(to: &MtlsTarget, system: &System) -> Result<rustls::ClientConfig, CliError> {
    let own = SvidFiles::new(&to.svid, &to.key).load().map_err(|e| CliError::Usage(e.to_string()))?;
    let document = super::args::read_regular(&to.bundle, limits::BUNDLE_BYTES)?;
    let trust_domain = to.server_id.trust_domain_owned();
    let bundle = Bundle::parse(trust_domain, &document).map_err(|e| CliError::Usage(format!("{} {e}", to.bundle.display())))?;
    let bundles = Bundles::new([Arc::new(bundle)]).unwrap_or_default();
    let own = Arc::new(ArcSwap::new(own.certified_key().clone()));
    client_config(Some(own), Arc::new(ArcSwap::from_pointee(bundles)), to.server_id.clone(), system).map_err(CliError::ours)
}

/// Classifies a failed connection: the server is unreachable, or one of the two sides did not accept the other.
pub fn no_way(address: &str, error: &(dyn Error + 'static)) -> CliError {
    let handshake = |what: String| CliError::Handshake { address: address.to_owned(), what };
    if let Some(defect) = server_identity_error(error) {
        return handshake(defect.to_string());
    }
    let mut what = error.to_string();
    let mut at = Some(error);
    while let Some(cause) = at {
        match rustls_error(cause) {
            Some(rustls::Error::AlertReceived(alert)) => {
                return handshake(format!("the server refused our SVID (TLS alert {alert:?})"));
            }
            Some(other) => return handshake(other.to_string()),
            None => what = cause.to_string(),
        }
        at = cause.source();
    }
    CliError::Unreachable { address: address.to_owned(), what }
}

/// Finds the TLS error in a cause: the cause itself, or the error that an IO error wraps.
fn rustls_error<'a>(cause: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let carried = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    cause.downcast_ref().or_else(|| carried.and_then(|e| e.downcast_ref()))
}
