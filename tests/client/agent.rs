//! A stand-in for an agent that serves the SPIFFE Workload API at a Unix socket.

use std::path::{Path, PathBuf};
use std::pin::Pin;

use bytes::Bytes;
use mayfly::cli::dev::DevWorld;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated code")]
mod workload {
    include!(concat!(env!("OUT_DIR"), "/workload/server/_.rs"));
    include!(concat!(env!("OUT_DIR"), "/workload/workload.debug.rs"));
}

use workload::spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer};
use workload::{JwtBundlesRequest, JwtBundlesResponse, X509Svid, X509SvidRequest, X509SvidResponse};

/// An agent that sends a workload its current SVID, and each new one when the SVID changes.
pub struct Agent {
    pub socket: PathBuf,
    says: watch::Sender<X509SvidResponse>,
}

struct Api(watch::Receiver<X509SvidResponse>);

#[tonic::async_trait]
impl SpiffeWorkloadApi for Api {
    type FetchX509SVIDStream = Pin<Box<dyn Stream<Item = Result<X509SvidResponse, Status>> + Send>>;

    async fn fetch_x509svid(&self, request: Request<X509SvidRequest>) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        if request.metadata().get("workload.spiffe.io").is_none_or(|v| v != "true") {
            return Err(Status::invalid_argument("the metadata workload.spiffe.io is missing"));
        }
        Ok(Response::new(Box::pin(WatchStream::new(self.0.clone()).map(Ok))))
    }

    type FetchJWTBundlesStream = Pin<Box<dyn Stream<Item = Result<JwtBundlesResponse, Status>> + Send>>;

    async fn fetch_jwt_bundles(&self, _: Request<JwtBundlesRequest>) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        Err(Status::unimplemented("no client asks for them"))
    }
}

impl Agent {
    /// Serves the SVID of a name of the world.
    pub fn begin(world: &DevWorld, name: &str, at: &Path) -> Agent {
        let (says, hears) = watch::channel(message(world, name));
        let socket = at.join("agent.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let router = tonic::transport::Server::builder().add_service(SpiffeWorkloadApiServer::new(Api(hears)));
        tokio::spawn(router.serve_with_incoming(UnixListenerStream::new(listener)));
        Agent { socket, says }
    }

    /// Sends what the world holds now.
    pub fn tell(&self, world: &DevWorld, name: &str) {
        self.says.send_replace(message(world, name));
    }
}

fn message(world: &DevWorld, name: &str) -> X509SvidResponse {
    let paths = world.svid(name);
    let der = |path: &Path| -> Bytes {
        let all = CertificateDer::pem_file_iter(path).unwrap().map(Result::unwrap);
        all.flat_map(|c| c.to_vec()).collect::<Vec<u8>>().into()
    };
    let svid = X509Svid {
        spiffe_id: DevWorld::id(name),
        x509_svid: der(&paths.certificate),
        x509_svid_key: PrivateKeyDer::from_pem_file(&paths.key).unwrap().secret_der().to_vec().into(),
        bundle: der(&world.bundle()),
        hint: String::new(),
    };
    X509SvidResponse { svids: vec![svid], ..Default::default() }
}
