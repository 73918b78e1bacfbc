//! Test worlds, raw TLS connections, and calls with arbitrary bytes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use mayfly::cli::dev::{DevEngine, DevSettings, DevWorld};
use mayfly::pb::mayfly::v1 as pb;
use mayfly::server::RunningServer;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ServerConfig};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tonic_types::StatusExt as _;

/// Longest wait of the tests here.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The binary.
pub const MAYFLY: &str = env!("CARGO_BIN_EXE_mayfly");

/// A world and its server in this process.
pub struct Up {
    pub running: Option<RunningServer>,
    pub world: DevWorld,
    _dir: TempDir,
}

impl Up {
    /// A server whose store is in memory.
    pub fn new(settings: DevSettings) -> Up {
        Up::on(DevSettings { engine: DevEngine::Memory, ..settings })
    }

    /// A server whose store is in memory, with more text at the end of its configuration.
    pub fn with_config(settings: DevSettings, more: &str) -> Up {
        let (dir, world) = world(DevSettings { engine: DevEngine::Memory, ..settings });
        let text = std::fs::read_to_string(world.config()).unwrap();
        std::fs::write(world.config(), format!("{text}{more}")).unwrap();
        let running = world.start().unwrap_or_else(|no| panic!("{no}"));
        Up { running: Some(running), world, _dir: dir }
    }

    /// Wraps a server that was started already. The caller removes the server's directory.
    pub fn of(running: RunningServer, world: DevWorld) -> Up {
        Up { running: Some(running), world, _dir: tempfile::tempdir().unwrap() }
    }

    /// A server by the settings.
    pub fn on(settings: DevSettings) -> Up {
        let (dir, world) = world(settings);
        let running = world.start().unwrap_or_else(|no| panic!("{no}"));
        Up { running: Some(running), world, _dir: dir }
    }

    pub fn running(&self) -> &RunningServer {
        self.running.as_ref().unwrap()
    }

    pub fn workload(&self) -> SocketAddr {
        self.running().addresses().workload
    }

    pub fn admin(&self) -> SocketAddr {
        self.running().addresses().admin
    }

    pub fn socket(&self) -> PathBuf {
        self.world.dir().join("run/admin.sock")
    }

    /// A channel to the workload listener.
    pub async fn channel(&self, name: &str) -> Channel {
        self.world.channel(name, self.workload()).await.unwrap()
    }

    /// A TLS connection of a workload to the workload listener, on which nothing was sent yet.
    pub async fn tls(&self, name: &str) -> TlsStream<TcpStream> {
        tls(self.workload(), self.world.client_config(name).unwrap()).await.unwrap()
    }
}

/// A world without a server.
pub fn world(settings: DevSettings) -> (TempDir, DevWorld) {
    let dir = tempfile::tempdir().unwrap();
    let world = DevWorld::create(&dir.path().join("w"), &settings).unwrap();
    (dir, world)
}

/// A TLS connection.
pub async fn tls(address: SocketAddr, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), tcp).await
}

/// A TLS configuration with a self-signed certificate for a name, and the certificate as root.
pub fn self_signed(name: &str) -> (ServerConfig, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.into()]).unwrap().self_signed(&key).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .unwrap();
    (config, certificate.pem())
}

/// The received bytes until the peer closes; `None` after [`PATIENCE`].
pub async fn until_closed(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    // A reset counts as an end, too.
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await.ok().map(|_| all)
}

/// The client's preface and an empty SETTINGS frame.
pub async fn begin_http2(stream: &mut (impl tokio::io::AsyncWrite + Unpin)) {
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    stream.flush().await.unwrap();
}

/// The types of the HTTP/2 frames in some bytes.
pub fn frames(mut bytes: &[u8]) -> Vec<u8> {
    let mut types = Vec::new();
    while bytes.len() >= 9 {
        let len = usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2]);
        types.push(bytes[3]);
        bytes = &bytes[(9 + len).min(bytes.len())..];
    }
    types
}

pub const GOAWAY: u8 = 7;
pub const SETTINGS: u8 = 4;

/// A codec that passes messages through.
#[derive(Default, Clone, Copy)]
pub struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;
    fn encoder(&mut self) -> Raw {
        Raw
    }
    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// A call with arbitrary bytes as its message.
pub async fn call(channel: Channel, path: &str, message: impl Into<Bytes>) -> Result<Response<Bytes>, Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|e| Status::unavailable(format!("{e:?}")))?;
    let path = path.parse::<http::uri::PathAndQuery>().unwrap();
    tokio::time::timeout(PATIENCE, client.unary(Request::new(message.into()), path, Raw)).await.unwrap()
}

pub const HEALTH: &str = "/grpc.health.v1.Health/Check";

/// Whether the health service reports SERVING.
pub async fn healthy(channel: Channel) -> bool {
    call(channel, HEALTH, Bytes::new()).await.is_ok_and(|answer| answer.get_ref()[..] == [8, 1])
}

/// The reason in a status' details.
pub fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map_or_else(String::new, |i| i.reason.clone())
}

/// Waits until a condition holds.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..PATIENCE.as_millis() / 20 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not within {PATIENCE:?}: {what}");
}

/// A request that opens a task for the echo upstream.
pub fn echo_task(heartbeat_s: Option<i64>) -> pb::OpenTaskRequest {
    let terms = pb::TaskTerms {
        purpose: "test".into(),
        upstreams: vec![pb::Allowance { upstream: "echo".into(), scopes: vec!["echo:read".into()] }],
        heartbeat_interval: heartbeat_s.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
        ..Default::default()
    };
    pb::OpenTaskRequest { terms: Some(terms), ..Default::default() }
}

/// Opens such a task and returns its id.
pub async fn open_task(channel: Channel, heartbeat_s: Option<i64>) -> Result<String, Status> {
    let opened = pb::task_service_client::TaskServiceClient::new(channel).open_task(echo_task(heartbeat_s)).await?;
    Ok(opened.into_inner().task.unwrap().task_id)
}
