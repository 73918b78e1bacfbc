//! SVIDs from the SPIFFE Workload API: a stream that sends the SVIDs again whenever something changes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mayfly_verify::identity::bundle::Bundle;
use mayfly_verify::identity::spiffe_id::{TrustDomain, trust_domain_of};
use mayfly_verify::identity::svid::PeerChain;
use tokio::sync::watch;
use tonic::{Status, Streaming};

use crate::agent;
use crate::error::Error;
use crate::limits;
use crate::pb::workload::X509SvidResponse;
use crate::svid::{SvidSnapshot, SvidSource};
use crate::tls_identity::TlsIdentity;

/// Reads the first SVID and follows the stream in the background.
pub(crate) async fn begin(socket: PathBuf, domain: TrustDomain) -> Result<(SvidSource, watch::Receiver<u64>), Error> {
    let no = |what: String| Error::Settings(format!("the SPIFFE Workload API at {}: {what}", socket.display()));
    let mut stream = follow(&socket).await.map_err(|e| no(e.to_string()))?;
    let first = match tokio::time::timeout(limits::CONNECT, stream.message()).await {
        Ok(Ok(Some(message))) => current(&message, &domain).map_err(no)?,
        Ok(Ok(None)) => return Err(no("the stream ended before an SVID came".to_owned())),
        Ok(Err(status)) => return Err(no(status.message().to_owned())),
        Err(_) => return Err(no("no SVID within 10 s: is this workload registered?".to_owned())),
    };
    let (held, changes) = SvidSource::of(first);
    tokio::spawn(keep(socket, domain, held.clone(), stream));
    Ok((held, changes))
}

/// Follows the stream until no receiver is left. A broken stream is opened again; the last SVID stays in use.
async fn keep(socket: PathBuf, domain: TrustDomain, held: SvidSource, mut stream: Streaming<X509SvidResponse>) {
    const AGAIN: Duration = Duration::from_secs(1);
    while !held.is_forgotten() {
        match tokio::time::timeout(limits::CONNECT, stream.message()).await {
            // No update: check again whether a receiver is left.
            Err(_) => {}
            Ok(Ok(Some(message))) => match current(&message, &domain) {
                Ok(current) => held.set(current),
                Err(problem) => tracing::warn!(problem, "the Workload API sent no usable SVID; the old SVID stays in use"),
            },
            Ok(ended) => {
                tracing::debug!(?ended, "the stream of the Workload API ended");
                tokio::time::sleep(AGAIN).await;
                if let Ok(again) = follow(&socket).await {
                    stream = again;
                }
            }
        }
    }
}

/// Opens a stream. An agent that accepts the connection but does not answer counts as unreachable.
async fn follow(socket: &std::path::Path) -> Result<Streaming<X509SvidResponse>, Status> {
    let begun = tokio::time::timeout(limits::CONNECT, agent::x509_svids(&agent::Endpoint::Unix(socket.to_owned()))).await;
    begun.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer within 10 s")))
}

/// The first SVID of a message is the default one. The server's bundle is the bundle of the client's own trust domain or the federated
/// bundle of the server's domain, and no other.
fn current(message: &X509SvidResponse, domain: &TrustDomain) -> Result<SvidSnapshot, String> {
    let svid = message.svids.first().ok_or_else(|| "it has no SVID for this workload".to_owned())?;
    let pair =
        TlsIdentity::from_der(&svid.x509_svid, &svid.x509_svid_key).map_err(|e| format!("the SVID {} {e}", svid.spiffe_id))?;
    let bundle = match trust_domain_of(&svid.spiffe_id) == domain.as_str() {
        true => Some(&svid.bundle),
        false => message.federated_bundles.iter().find(|(id, _)| trust_domain_of(id) == domain.as_str()).map(|(_, b)| b),
    };
    let bundle = bundle.ok_or_else(|| format!("it has no bundle of the server's trust domain, {}", domain.as_str()))?;
    let roots = PeerChain::from_der(bundle).ok_or_else(|| "a bundle that cannot be read".to_owned())?;
    let armour = |der: &[u8]| format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der));
    let pem: String = roots.certificates().iter().map(|der| armour(der)).collect();
    let bundle = Bundle::from_pem(domain.clone(), pem.as_bytes()).map_err(|e| format!("the bundle {e}"))?;
    Ok(SvidSnapshot { pair, bundle: Arc::new(bundle) })
}
