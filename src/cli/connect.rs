//! The way to the server: a Unix socket, or mTLS where the server is known by its SPIFFE ID.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use super::context::{MtlsTarget, Target};
use super::error::CliError;
use crate::identity::bundle::{Bundle, Bundles};
use crate::limits;
use crate::serve::tls::{NotThatServer, client_config};
use crate::sources::svid_files::SvidFiles;
use crate::system::System;

/// A connection that stands: whatever is wrong with the way there is told here, by its own error.
pub async fn channel(target: &Target, system: &System, deadline: Duration) -> Result<Channel, CliError> {
    let connecting = async {
        match target {
            Target::Unix(path) => {
                let path = path.clone();
                // The name is for the `:authority` header; nobody resolves it.
                let endpoint = Endpoint::from_static("http://mayfly.local");
                let dial = move |_: Uri| {
                    let path = path.clone();
                    async move { UnixStream::connect(path).await.map(TokioIo::new) }
                };
                endpoint.connect_with_connector(service_fn(dial)).await
            }
            Target::Mtls(to) => {
                let config = Arc::new(tls(to, system)?);
                let name = ServerName::try_from(to.host.clone()).map_err(|e| CliError::Usage(format!("{}: {e}", to.host)))?;
                // tonic is built without TLS of its own and takes no https here; the connection below is TLS all the same.
                let endpoint = Endpoint::from_shared(target.address().replacen("https", "http", 1)).map_err(CliError::ours)?;
                let at = (to.host.clone(), to.port);
                let dial = move |_: Uri| {
                    let (config, name, at) = (config.clone(), name.clone(), at.clone());
                    async move {
                        let tcp = TcpStream::connect(at).await?;
                        tcp.set_nodelay(true)?;
                        let tls = TlsConnector::from(config).connect(name, tcp).await?;
                        Ok::<_, io::Error>(TokioIo::new(tls))
                    }
                };
                endpoint.connect_with_connector(service_fn(dial)).await
            }
        }
        .map_err(|e| no_way(&target.address(), &e))
    };
    match tokio::time::timeout(deadline, connecting).await {
        Ok(result) => result,
        Err(_) => Err(CliError::Unreachable { address: target.address(), what: "no connection in time".to_owned() }),
    }
}

fn tls(to: &MtlsTarget, system: &System) -> Result<rustls::ClientConfig, CliError> {
    let own = SvidFiles::new(&to.svid, &to.key).load().map_err(|e| CliError::Usage(e.to_string()))?;
    let document = super::args::read(&to.bundle, limits::BUNDLE_BYTES)?;
    let trust_domain = to.server_id.trust_domain().parse().map_err(CliError::ours)?;
    let bundle = Bundle::parse(trust_domain, &document).map_err(|e| CliError::Usage(format!("{}: {e}", to.bundle.display())))?;
    let bundles = Bundles::new([Arc::new(bundle)]).unwrap_or_default();
    let own = Arc::new(ArcSwap::new(own.certified_key().clone()));
    client_config(Some(own), Arc::new(ArcSwap::from_pointee(bundles)), to.server_id.clone(), system).map_err(CliError::ours)
}

/// What a connection failed of: nobody there, or one of the two not accepting the other.
pub fn no_way(address: &str, error: &(dyn Error + 'static)) -> CliError {
    let mut what = error.to_string();
    let mut at = Some(error);
    while let Some(cause) = at {
        if let Some(tls) = rustls_error(cause) {
            return CliError::Handshake { address: address.to_owned(), what: told(tls) };
        }
        what = cause.to_string();
        at = cause.source();
    }
    CliError::Unreachable { address: address.to_owned(), what }
}

/// A TLS error, as it is or as the reason of an IO error.
fn rustls_error<'a>(cause: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    cause.downcast_ref().or_else(|| inner.and_then(|e| e.downcast_ref()))
}

fn told(error: &rustls::Error) -> String {
    use rustls::CertificateError;
    use rustls::Error as Tls;
    match error {
        Tls::InvalidCertificate(CertificateError::Other(other)) => match other.0.downcast_ref::<NotThatServer>() {
            Some(defect) => defect.to_string(),
            None => error.to_string(),
        },
        Tls::AlertReceived(alert) => format!("the server refused our SVID (TLS alert {alert:?})"),
        other => other.to_string(),
    }
}
