//! Resource exhaustion by outsiders: each attack runs against a server in its own process, whose memory is measured, while other callers
//! exchange, introspect and revoke. Assertions cover structure only: memory, places, and that no other caller is refused. Latencies are
//! printed.

mod answers;
mod bodies;
mod connections;
mod followers;
mod lists;
mod metrics;
mod reports;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mayfly::cli::dev::{DevEngine, DevSettings, DevWorld, ServerProcess};
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::revocation_service_client::RevocationServiceClient;
use mayfly::pb::mayfly::v1::token_service_client::TokenServiceClient;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::kit::{MAYFLY, PATIENCE, tls, world};

/// Factor for asserted bounds in milliseconds, since the test machine may be busy with other work.
const SLOW: u32 = 20;
/// The longest time that other callers may wait during an attack.
const QUICK: Duration = Duration::from_millis(250);

pub struct Rig {
    pub child: ServerProcess,
    pub world: Arc<DevWorld>,
    _dir: TempDir,
}

/// The longest wait that other callers saw during an attack, per kind of call.
#[derive(Debug, Default)]
pub struct Seen {
    pub rounds: u32,
    pub exchange: Duration,
    pub introspect: Duration,
    pub revoke: Duration,
}

/// Other callers, which work until they are asked for their result.
pub struct Others {
    stop: Arc<AtomicBool>,
    work: JoinHandle<Seen>,
}

impl Rig {
    pub fn new(settings: DevSettings) -> Rig {
        let (dir, world) = world(DevSettings { engine: DevEngine::Memory, ..settings });
        let child = world.spawn(Path::new(MAYFLY)).unwrap();
        Rig { child, world: Arc::new(world), _dir: dir }
    }

    /// Resident memory of the server, MiB.
    pub fn memory(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.pid())).unwrap();
        let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }

    /// Peak resident memory of the server, MiB.
    pub fn peak(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.pid())).unwrap();
        let line = text.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }

    /// Starts the other callers.
    pub fn others(&self) -> Others {
        let (world, addresses) = (self.world.clone(), self.child.addresses().clone());
        let stop = Arc::new(AtomicBool::new(false));
        let stops = stop.clone();
        let work = tokio::spawn(async move {
            let mut seen = Seen::default();
            // Connected before the attack, as servers in production are.
            let (own, server) = (world.channel("ci/demo", addresses.workload), world.channel("service/echo", addresses.workload));
            let (own, server) = (own.await.unwrap(), server.await.unwrap());
            while !stops.load(Ordering::Relaxed) {
                let issued = timed(&mut seen.exchange, exchange(own.clone())).await;
                timed(&mut seen.introspect, introspect(server.clone(), &issued)).await;
                // Over a new connection: an operator who has to act now.
                let revoked = async {
                    let operator = world.channel("operator/you", addresses.admin).await.expect("an operator gets in");
                    revoke(operator, issued.credential_id.clone()).await;
                };
                timed(&mut seen.revoke, revoked).await;
                seen.rounds += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            seen
        });
        Others { stop, work }
    }

    /// HTTP/2 as a workload whose receive window stays closed.
    pub async fn shut(&self, name: &str, window: u32) -> h2::client::SendRequest<Bytes> {
        let tls = tls(self.child.addresses().workload, self.world.client_config(name).unwrap()).await.unwrap();
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(window).max_concurrent_reset_streams(0);
        let (send, connection) = builder.handshake::<_, Bytes>(tls).await.unwrap();
        tokio::spawn(connection);
        send
    }
}

impl Others {
    /// The result of the other callers: printed, and checked against a bound with tolerance for a busy machine.
    #[allow(clippy::print_stdout, reason = "figures for whoever reads the test's output")]
    pub async fn saw(self, attack: &str) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let seen = tokio::time::timeout(PATIENCE, self.work).await.expect("others go on").expect("nobody else is refused");
        println!("{attack}: {seen:?}");
        let longest = seen.exchange.max(seen.introspect).max(seen.revoke);
        assert!(longest < QUICK * SLOW, "{attack}: {seen:?}");
        assert!(seen.rounds > 0, "{attack}: nobody was at work");
        seen
    }
}

#[allow(clippy::disallowed_methods, reason = "a test that measures how long somebody is kept waiting")]
async fn timed<T>(longest: &mut Duration, work: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let done = tokio::time::timeout(PATIENCE, work).await.expect("an answer");
    *longest = (*longest).max(began.elapsed());
    done
}

pub fn terms() -> pb::TaskTerms {
    let upstreams = vec![pb::Allowance { upstream: "echo".into(), scopes: vec!["echo:read".into()] }];
    pb::TaskTerms { purpose: "work".into(), upstreams, ..Default::default() }
}

async fn exchange(channel: tonic::transport::Channel) -> pb::Issued {
    let request = pb::ExchangeRequest {
        task: Some(pb::exchange_request::Task::OpenTask(pb::TaskTerms {
            ttl: Some(prost_types::Duration { seconds: 300, nanos: 0 }),
            ..terms()
        })),
        upstream: "echo".into(),
        scopes: vec!["echo:read".into()],
        ..Default::default()
    };
    let mut tokens = TokenServiceClient::new(channel);
    loop {
        match tokens.exchange(request.clone()).await {
            Ok(answer) => return answer.into_inner().issued.unwrap(),
            // A refusal for lack of capacity comes with a retry delay, as for every caller.
            Err(no) if no.message().contains("intake_wait_ms") => tokio::time::sleep(Duration::from_millis(200)).await,
            Err(no) => panic!("an exchange: {no:?}"),
        }
    }
}

async fn introspect(channel: tonic::transport::Channel, issued: &pb::Issued) {
    let Some(pb::issued::Answer::BearerToken(bearer)) = &issued.answer else { panic!("no bearer token") };
    let request = pb::IntrospectRequest { token: bearer.token.clone() };
    let answer = TokenServiceClient::new(channel).introspect(request).await.expect("an introspection");
    assert!(answer.into_inner().active);
}

async fn revoke(channel: tonic::transport::Channel, id: String) {
    let target = pb::Target { target: Some(pb::target::Target::CredentialId(id)) };
    let request = pb::RevokeRequest { targets: vec![target], reason: "drill".into(), ..Default::default() };
    RevocationServiceClient::new(channel).revoke(request).await.expect("a revocation");
}

/// Sends one gRPC request on an HTTP/2 connection, and does not read its answer.
pub fn ask(
    send: &mut h2::client::SendRequest<Bytes>,
    path: &str,
    message: &[u8],
) -> Result<(h2::client::ResponseFuture, h2::SendStream<Bytes>), h2::Error> {
    let request = http::Request::post(format!("https://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (answer, mut body) = send.send_request(request, false)?;
    let prefixed = [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat();
    body.send_data(prefixed.into(), true)?;
    Ok((answer, body))
}
