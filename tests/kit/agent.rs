//! A test double of an agent that serves the SPIFFE Workload API: it sends what it is told to, refuses, is killed and comes back.
#![allow(dead_code, reason = "each test binary uses a part of the kit")]

use std::path::{Path, PathBuf};
use std::pin::Pin;

use bytes::Bytes;
use mayfly::cli::dev::DevWorld;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Code, Request, Response, Status};

#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated code")]
mod workload {
    include!(concat!(env!("OUT_DIR"), "/workload/server/_.rs"));
    include!(concat!(env!("OUT_DIR"), "/workload/workload.debug.rs"));
}

use workload::spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer};
pub use workload::{JwtBundlesRequest, JwtBundlesResponse, X509Svid, X509SvidRequest, X509SvidResponse};

/// Neither an answer nor a refusal, until the content changes.
const SILENT: (Code, &str) = (Code::Unknown, "silence");

type Said<T> = Result<T, (Code, &'static str)>;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// An agent in a thread of its own. Dropping it closes all of its connections.
pub struct Agent {
    pub socket: PathBuf,
    svids: watch::Sender<Said<X509SvidResponse>>,
    jwt: watch::Sender<Said<JwtBundlesResponse>>,
    runtime: Option<Runtime>,
}

#[derive(Clone)]
struct Api(watch::Receiver<Said<X509SvidResponse>>, watch::Receiver<Said<JwtBundlesResponse>>);

/// Sends the current content, or a refusal at once; then every change.
fn stream<T: Clone + Send + Sync + 'static, Q>(
    request: &Request<Q>,
    said: &watch::Receiver<Said<T>>,
) -> Result<Response<Answers<T>>, Status> {
    if request.metadata().get("workload.spiffe.io").is_none_or(|v| v != "true") {
        return Err(Status::invalid_argument("security header missing from request"));
    }
    let status = |(code, text): (Code, &str)| Status::new(code, text);
    if let Err(no) = said.borrow().clone() {
        return Err(status(no));
    }
    Ok(Response::new(Box::pin(WatchStream::new(said.clone()).map(move |said| said.map_err(status)))))
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for Api {
    type FetchX509SVIDStream = Answers<X509SvidResponse>;
    type FetchJWTBundlesStream = Answers<JwtBundlesResponse>;

    async fn fetch_x509svid(&self, request: Request<X509SvidRequest>) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        stream(&request, &self.0)
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        let mut said = self.1.clone();
        drop(said.wait_for(|said| !matches!(said, Err(SILENT))).await);
        stream(&request, &self.1)
    }
}

impl Agent {
    /// An agent without an identity for any process, with its socket in this folder.
    pub fn begin(folder: &Path) -> Agent {
        let svids = watch::Sender::new(Err((Code::PermissionDenied, "no identity issued")));
        let jwt = watch::Sender::new(Err((Code::Unimplemented, "not served")));
        let mut agent = Agent { socket: folder.join("agent.sock"), svids, jwt, runtime: None };
        agent.back();
        agent
    }

    /// An agent that gives this message.
    pub fn giving(folder: &Path, said: X509SvidResponse) -> Agent {
        let agent = Agent::begin(folder);
        agent.say(said);
        agent
    }

    /// The value for `workload_api.socket`.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    pub fn say(&self, said: X509SvidResponse) {
        drop(self.svids.send_replace(Ok(said)));
    }

    pub fn say_jwt(&self, said: JwtBundlesResponse) {
        drop(self.jwt.send_replace(Ok(said)));
    }

    /// JWT bundles become unavailable; everything else works.
    pub fn no_jwt(&self) {
        drop(self.jwt.send_replace(Err((Code::Unavailable, "not now"))));
    }

    /// Requests for JWT bundles get neither an answer nor a refusal.
    pub fn silent_about_jwt(&self) {
        drop(self.jwt.send_replace(Err(SILENT)));
    }

    /// The agent no longer knows any process: streams end with that refusal.
    pub fn deny(&self) {
        drop(self.svids.send_replace(Err((Code::PermissionDenied, "no identity issued"))));
    }

    /// Kills the agent: connections are cut off, and nothing listens.
    pub fn die(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        let _ = std::fs::remove_file(&self.socket);
    }

    /// Starts the agent again.
    pub fn back(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(&self.socket).unwrap()
        };
        let api = SpiffeWorkloadApiServer::new(Api(self.svids.subscribe(), self.jwt.subscribe()));
        runtime
            .spawn(tonic::transport::Server::builder().add_service(api).serve_with_incoming(UnixListenerStream::new(listener)));
        self.runtime = Some(runtime);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.die();
    }
}

/// The certificates of a PEM file, concatenated as DER.
pub fn ders(path: &Path) -> Bytes {
    let all = CertificateDer::pem_file_iter(path).unwrap().map(Result::unwrap);
    all.flat_map(|c| c.to_vec()).collect::<Vec<u8>>().into()
}

/// A new SVID with this name from the CA of a world, with the roots of these worlds as its bundle.
pub fn svid(signer: &DevWorld, name: &str, life_ms: u64, roots: &[&DevWorld]) -> X509Svid {
    let paths = signer.issue(name, life_ms).unwrap();
    X509Svid {
        spiffe_id: DevWorld::id(name),
        x509_svid: ders(&paths.certificate),
        x509_svid_key: PrivateKeyDer::from_pem_file(&paths.key).unwrap().secret_der().to_vec().into(),
        bundle: roots.iter().flat_map(|world| ders(&world.dir().join("ca.pem")).to_vec()).collect::<Vec<u8>>().into(),
        hint: String::new(),
    }
}

/// A message with this SVID only.
pub fn only(svid: X509Svid) -> X509SvidResponse {
    X509SvidResponse { svids: vec![svid], ..Default::default() }
}
