//! Connections over mTLS: the server is authenticated by its SPIFFE ID, and either side may refuse the other.

use std::path::Path;
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use mayfly::identity::bundle::Bundles;
use mayfly::limits::SVID_MAX_TTL_MS;
use mayfly::pb::mayfly::v1 as pb;
use mayfly::serve::tls::MtlsAcceptor;
use mayfly::sources::svid_files::TlsIdentity;
use mayfly::system::System;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::double::{Double, Ran, program, ran, router};
use crate::kit::pki::{Authority, HOUR, Spec, Svid, bundles};

const SERVER: &str = "spiffe://example.org/mayfly";
const CALLER: &str = "spiffe://example.org/operator";

/// An accepted connection, in the form that tonic takes.
struct Accepted(TlsStream<TcpStream>);

impl Connected for Accepted {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Accepted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The clock of the test kit stands still and that of the program does not, so certificates are valid around the present.
fn spec(id: &str) -> Spec {
    let now = System::real().wall();
    Spec::leaf(id).valid(now.minus(60_000), now.plus(HOUR))
}

fn root() -> Authority {
    let now = System::real().wall();
    Authority::root_from(&Spec::ca("example.org", "root").valid(now.minus(60_000), now.plus(24 * HOUR)))
}

struct World {
    root: Authority,
    port: u16,
    folder: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl World {
    fn new() -> World {
        let root = root();
        let server = root.issue(&spec(SERVER));
        let pair = TlsIdentity::from_pem(server.chain_pem().as_bytes(), server.key_pem().as_bytes()).unwrap();
        let own = Arc::new(ArcSwap::new(pair.certified_key().clone()));
        let in_force: Bundles = bundles(&[("example.org", &root)]);
        let acceptor = MtlsAcceptor::new(own, Arc::new(ArcSwap::from_pointee(in_force)), System::real(), SVID_MAX_TTL_MS);
        let double = Double::default();
        double.on(|_: pb::WhoamiRequest| Ok(pb::WhoamiResponse { environment: "prod".to_owned(), ..Default::default() }));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (accepted, incoming) = tokio::sync::mpsc::channel::<std::io::Result<Accepted>>(4);
        runtime.spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                // A refused client gets a TLS alert and no connection.
                if let Ok((tls, _)) = acceptor.accept(tcp).await {
                    accepted.send(Ok(Accepted(tls))).await.unwrap();
                }
            }
        });
        let incoming = tokio_stream::wrappers::ReceiverStream::new(incoming);
        runtime.spawn(router(&double).serve_with_incoming(incoming));
        World { root, port, folder: tempfile::tempdir().unwrap(), _runtime: runtime }
    }

    /// Runs `whoami` with this SVID, expecting the server id `server` under this root.
    fn whoami(&self, svid: &Svid, server: &str, root: &Authority) -> Ran {
        let write = |name: &str, text: &str| std::fs::write(self.folder.path().join(name), text).unwrap();
        write("svid.pem", &svid.chain_pem());
        write("key.pem", &svid.key_pem());
        write("bundle.pem", &root.pem());
        let config = format!(
            "address = \"https://127.0.0.1:{}\"\nsvid = \"svid.pem\"\nkey = \"key.pem\"\nbundle = \"bundle.pem\"\nserver_id = \"{server}\"\n",
            self.port
        );
        write("config.toml", &config);
        ran(&mut self.command(), "")
    }

    fn command(&self) -> Command {
        let mut command = program(Path::new("/"));
        command.args(["whoami", "-o", "json", "--config"]).arg(self.folder.path().join("config.toml"));
        command
    }
}

#[test]
fn both_ends_prove_themselves() {
    let world = World::new();
    let svid = world.root.issue(&spec(CALLER));
    assert_eq!(world.whoami(&svid, SERVER, &world.root).json()["environment"], "prod");
}

#[test]
fn a_server_that_is_somebody_else_is_not_spoken_to() {
    let world = World::new();
    let svid = world.root.issue(&spec(CALLER));
    let ran = world.whoami(&svid, "spiffe://example.org/other", &world.root);
    assert_eq!(ran.exit, 4, "{ran:?}");
    assert!(ran.stderr.contains("spiffe://example.org/other"), "{}", ran.stderr);
    let ran = world.whoami(&svid, SERVER, &root());
    assert_eq!(ran.exit, 4, "a server by another root: {ran:?}");
}

#[test]
fn an_svid_that_the_server_refuses_is_told_as_such() {
    let world = World::new();
    let stranger = root().issue(&spec(CALLER));
    let ran = world.whoami(&stranger, SERVER, &world.root);
    assert_eq!(ran.exit, 4, "{ran:?}");
    assert!(ran.stderr.contains("the server refused our SVID"), "{}", ran.stderr);
}

#[test]
fn files_that_do_not_fit_are_named_before_anything_is_sent() {
    let world = World::new();
    let svid = world.root.issue(&spec(CALLER));
    world.whoami(&svid, SERVER, &world.root);
    std::fs::write(world.folder.path().join("key.pem"), world.root.issue(&spec(CALLER)).key_pem()).unwrap();
    let ran = ran(&mut world.command(), "");
    assert_eq!(ran.exit, 2, "{ran:?}");
    assert!(ran.stderr.contains("key.pem"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("PRIVATE"), "{}", ran.stderr);
}
