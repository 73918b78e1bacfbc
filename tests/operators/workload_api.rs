//! `mayfly svid fetch`, with a double of SPIRE's agent: a server goes on by what it is given, and no call fails while it rotates.

use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::pin::Pin;
use std::process::{Command, Output};
use std::sync::Arc;
use std::task::{Context, Poll};

use mayfly::cli::dev::{Settings, World};
use mayfly::cli::svid_fetch::{X509Svid, X509SvidRequest, X509SvidResponse};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, ServerStreamingService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::kit::{Callers, MAYFLY, until, world};

type Given = watch::Receiver<Option<X509SvidResponse>>;
type Answers = Pin<Box<dyn Stream<Item = Result<X509SvidResponse, Status>> + Send>>;
type Soon<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// An agent: gives what it has, and what it has next.
#[derive(Clone)]
struct Agent(Given);

impl NamedService for Agent {
    const NAME: &'static str = "SpiffeWorkloadAPI";
}

impl tower::Service<http::Request<Body>> for Agent {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Soon<Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let agent = self.clone();
        Box::pin(async move {
            assert_eq!(request.uri().path(), "/SpiffeWorkloadAPI/FetchX509SVID");
            let codec = ProstCodec::<X509SvidResponse, X509SvidRequest>::default();
            Ok(Grpc::new(codec).server_streaming(agent, request).await)
        })
    }
}

impl ServerStreamingService<X509SvidRequest> for Agent {
    type Response = X509SvidResponse;
    type ResponseStream = Answers;
    type Future = Soon<Result<Response<Answers>, Status>>;

    fn call(&mut self, request: Request<X509SvidRequest>) -> Self::Future {
        let given = self.0.clone();
        Box::pin(async move {
            if request.metadata().get("workload.spiffe.io").is_none_or(|v| v != "true") {
                return Err(Status::invalid_argument("security header missing from request"));
            }
            if given.borrow().is_none() {
                return Err(Status::permission_denied("no identity issued"));
            }
            let answers = WatchStream::new(given).filter_map(|answer| answer.map(Ok));
            Ok(Response::new(Box::pin(answers) as Answers))
        })
    }
}

fn serve(socket: &Path) -> watch::Sender<Option<X509SvidResponse>> {
    let (give, given) = watch::channel(None);
    let incoming = UnixListenerStream::new(UnixListener::bind(socket).unwrap());
    tokio::spawn(tonic::transport::Server::builder().add_service(Agent(given)).serve_with_incoming(incoming));
    give
}

/// What an agent would give the server of this world.
fn svid(world: &World, life_ms: u64) -> X509SvidResponse {
    let paths = world.issue("mayfly", life_ms).unwrap();
    let ders = |path: &Path| -> Vec<u8> {
        let text = fs::read(path).unwrap();
        CertificateDer::pem_slice_iter(&text).flat_map(|der| der.unwrap().to_vec()).collect()
    };
    let key = PrivateKeyDer::from_pem_file(&paths.key).unwrap();
    let svid = X509Svid {
        spiffe_id: World::id("mayfly"),
        x509_svid: ders(&paths.certificate),
        x509_svid_key: key.secret_der().to_vec(),
        bundle: ders(&world.bundle()),
        hint: String::new(),
    };
    X509SvidResponse { svids: vec![svid] }
}

async fn fetch(socket: &Path, to: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(MAYFLY);
    command.args(["svid", "fetch", "--socket", &format!("unix://{}", socket.display()), "--to"]).arg(to).args(more);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_agent_gives_is_written_whole_and_private_and_what_is_no_svid_is_not() {
    let (dir, world) = world(Settings::default());
    let (socket, to) = (dir.path().join("agent.sock"), dir.path().join("svid"));
    let none = fetch(&socket, &to, &[]).await;
    assert_eq!(none.status.code(), Some(8), "nobody there: {none:?}");
    let give = serve(&socket);
    let none = fetch(&socket, &to, &[]).await;
    assert!(!none.status.success() && String::from_utf8_lossy(&none.stderr).contains("no identity issued"), "{none:?}");
    let good = svid(&world, 3_600_000);
    give.send(Some(good.clone())).unwrap();
    let out = fetch(&socket, &to, &["-o", "name"]).await;
    assert!(out.status.success() && String::from_utf8_lossy(&out.stdout).trim() == World::id("mayfly"), "{out:?}");
    for name in ["svid.pem", "key.pem", "bundle.pem"] {
        assert_eq!(fs::metadata(to.join(name)).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let domain = ["--trust-domain", "dev.mayfly.internal"];
    let mut check = Command::new(MAYFLY);
    check.args(["svid", "check", "--bundle"]).arg(to.join("bundle.pem")).args(domain).arg(to.join("svid.pem"));
    let checked = check.output().unwrap();
    assert!(checked.status.success(), "{checked:?}");

    // Of another key, of another name, without a bundle: what is there stays.
    let before = fs::read(to.join("svid.pem")).unwrap();
    let other = PrivateKeyDer::from_pem_file(world.svid("agent/demo").key).unwrap();
    type Defect<'a> = &'a dyn Fn(&mut X509Svid);
    let defects: [Defect<'_>; 4] = [
        &|svid| svid.x509_svid_key = other.secret_der().to_vec(),
        &|svid| svid.spiffe_id = World::id("somebody"),
        &|svid| svid.bundle.clear(),
        &|svid| svid.x509_svid.truncate(40),
    ];
    for defect in defects {
        let mut wrong = good.clone();
        defect(&mut wrong.svids[0]);
        give.send(Some(wrong)).unwrap();
        let out = fetch(&socket, &to, &[]).await;
        assert_eq!(out.status.code(), Some(1), "{out:?}");
        assert_eq!(fs::read(to.join("svid.pem")).unwrap(), before);
    }
    let out = fetch(&socket, &to, &["--id", &World::id("nobody")]).await;
    assert!(String::from_utf8_lossy(&out.stderr).contains("no such SVID"), "{out:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_takes_what_the_agent_rotates_to_and_no_call_fails_meanwhile() {
    let (dir, world) = world(Settings::default());
    let (socket, to) = (dir.path().join("agent.sock"), world.dir().join("agent"));
    let give = serve(&socket);
    give.send(Some(svid(&world, 1_800_000))).unwrap();
    let mut command = Command::new(MAYFLY);
    command
        .args(["svid", "fetch", "--watch", "--to"])
        .arg(&to)
        .env("SPIFFE_ENDPOINT_SOCKET", format!("unix:{}", socket.display()));
    let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    until("it is written", || async { to.join("svid.pem").exists() }).await;
    let config = fs::read_to_string(world.config()).unwrap();
    let config = config.replace("svid/mayfly/svid.pem", "agent/svid.pem").replace("svid/mayfly/key.pem", "agent/key.pem");
    let config = config.replace("\"bundle.pem\"", "\"agent/bundle.pem\"");
    assert_eq!(config.matches("agent/").count(), 3, "{config}");
    fs::write(world.config(), config).unwrap();
    let running = tokio::task::block_in_place(|| world.start()).unwrap_or_else(|no| panic!("{no}"));
    let workload = running.addresses().workload;
    let callers = Arc::new(Callers::new(&world, workload).await);
    let ends = callers.status().await.certificate_not_after.unwrap().seconds;
    let calls = tokio::spawn({
        let callers = callers.clone();
        async move {
            for n in 0.. {
                callers.exchange("").await.unwrap_or_else(|no| panic!("call {n}: {no}"));
                if callers.status().await.certificate_not_after.unwrap().seconds > ends + 600 {
                    return n;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            0
        }
    });
    give.send(Some(svid(&world, 3_600_000))).unwrap();
    let calls = tokio::time::timeout(crate::kit::PATIENCE, calls).await.expect("it takes the new one").unwrap();
    assert!(calls > 0);
    // And whoever connects anew is shown it.
    Callers::new(&world, workload).await.exchange("").await.unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    tokio::task::block_in_place(|| running.stop());
}
