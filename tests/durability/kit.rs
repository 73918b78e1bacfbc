//! Worlds, servers in processes of their own, and the calls that these tests make.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use mayfly::cli::dev::{DevSettings, DevWorld, TRUST_DOMAIN};
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::revocation_service_client::RevocationServiceClient;
use mayfly::pb::mayfly::v1::server_service_client::ServerServiceClient;
use mayfly::pb::mayfly::v1::task_service_client::TaskServiceClient;
use mayfly::pb::mayfly::v1::token_service_client::TokenServiceClient;
use mayfly::serve::client;
use mayfly::system::System;
use mayfly::verifier::{self, Need, Verifier};
use tempfile::TempDir;
use tonic::Status;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

/// The mayfly binary.
pub const MAYFLY: &str = env!("CARGO_BIN_EXE_mayfly");
/// The longest wait in these tests.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A world without a server.
pub fn world(settings: DevSettings) -> (TempDir, DevWorld) {
    let dir = tempfile::tempdir().unwrap();
    let world = DevWorld::create(&dir.path().join("w"), &settings).unwrap();
    (dir, world)
}

/// The callers: a workload, and an operator on the server's own host.
pub struct Callers {
    pub agent: Channel,
    pub operator: Channel,
}

impl Callers {
    pub async fn new(world: &DevWorld, workload: SocketAddr) -> Callers {
        let operator = client::unix(&world.dir().join("run/admin.sock")).await.unwrap();
        Callers { agent: world.channel("agent/demo", workload).await.unwrap(), operator }
    }

    /// Issues a credential with a task of its own; `request` is the request id unless it is empty.
    pub async fn exchange(&self, request: &str) -> Result<Issued, Status> {
        self.exchange_for(600, request).await
    }

    /// As `exchange`, with a life of so many seconds.
    pub async fn exchange_for(&self, seconds: i64, request: &str) -> Result<Issued, Status> {
        let hour = Some(prost_types::Duration { seconds: 3600, nanos: 0 });
        let terms = pb::TaskTerms {
            purpose: "test".into(),
            upstreams: vec![pb::Allowance { upstream: "echo".into(), scopes: vec!["echo:read".into()] }],
            ttl: hour,
            ..Default::default()
        };
        let ask = pb::ExchangeRequest {
            task: Some(pb::exchange_request::Task::OpenTask(terms)),
            upstream: "echo".into(),
            scopes: vec!["echo:read".into()],
            ttl: Some(prost_types::Duration { seconds, nanos: 0 }),
            purpose: "test".into(),
            request_id: request.into(),
            ..Default::default()
        };
        let issued = TokenServiceClient::new(self.agent.clone()).exchange(ask).await?.into_inner().issued.unwrap();
        let Some(pb::issued::Answer::BearerToken(bearer)) = &issued.answer else { panic!("no bearer token") };
        Ok(Issued { token: bearer.token.clone(), id: issued.credential_id, task: issued.task_id })
    }

    /// Revokes a credential; returns the seq of the record.
    pub async fn revoke(&self, id: &str) -> Result<u64, Status> {
        let target = pb::Target { target: Some(pb::target::Target::CredentialId(id.to_owned())) };
        let ask = pb::RevokeRequest {
            targets: vec![target],
            reason: "test".into(),
            request_id: format!("revoke {id}"),
            ..Default::default()
        };
        Ok(RevocationServiceClient::new(self.operator.clone()).revoke(ask).await?.into_inner().seq)
    }

    /// Opens a task with a heartbeat of so many seconds.
    pub async fn open_watched(&self, seconds: i64) -> String {
        let terms = pb::TaskTerms {
            purpose: "test".into(),
            upstreams: vec![pb::Allowance { upstream: "echo".into(), scopes: vec!["echo:read".into()] }],
            heartbeat_interval: Some(prost_types::Duration { seconds, nanos: 0 }),
            ttl: Some(prost_types::Duration { seconds: 3600, nanos: 0 }),
            ..Default::default()
        };
        let ask = pb::OpenTaskRequest { terms: Some(terms), ..Default::default() };
        TaskServiceClient::new(self.agent.clone()).open_task(ask).await.unwrap().into_inner().task.unwrap().task_id
    }

    /// Whether a task is open.
    pub async fn alive(&self, task: &str) -> bool {
        let ask = pb::GetTaskRequest { task_id: task.to_owned() };
        let task = TaskServiceClient::new(self.agent.clone()).get_task(ask).await.unwrap().into_inner().task.unwrap();
        task.state() == pb::TaskState::Active
    }

    pub async fn complete(&self, task: &str) -> Result<u64, Status> {
        let ask = pb::CompleteTaskRequest { task_id: task.to_owned(), ..Default::default() };
        Ok(TaskServiceClient::new(self.agent.clone()).complete_task(ask).await?.into_inner().seq)
    }

    /// Whether a token is active.
    pub async fn active(&self, token: &str) -> bool {
        let ask = pb::IntrospectRequest { token: token.to_owned() };
        TokenServiceClient::new(self.operator.clone()).introspect(ask).await.unwrap().into_inner().active
    }

    pub async fn status(&self) -> pb::GetStatusResponse {
        ServerServiceClient::new(self.operator.clone()).get_status(pb::GetStatusRequest {}).await.unwrap().into_inner()
    }

    /// Whether the server, or one of its services, reports that it serves.
    pub async fn serving(&self, service: &str) -> bool {
        let ask = HealthCheckRequest { service: service.to_owned() };
        HealthClient::new(self.agent.clone()).check(ask).await.is_ok_and(|a| a.get_ref().status == 1)
    }

    /// Repeats exchanges until the result satisfies `wanted`, and returns it.
    pub async fn until_exchange(&self, what: &str, wanted: impl Fn(&Result<Issued, Status>) -> bool) -> Result<Issued, Status> {
        let mut said = String::new();
        for _ in 0..PATIENCE.as_millis() / 50 {
            let answer = self.exchange("").await;
            if wanted(&answer) {
                return answer;
            }
            said = answer.map_or_else(|no| no.to_string(), |issued| issued.id);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("not within {PATIENCE:?}: {what}; but: {said}");
    }
}

/// The health service that says whether credentials are issued.
pub const TOKENS: &str = "mayfly.v1.TokenService";

/// An issued credential.
#[derive(Clone, Debug)]
pub struct Issued {
    pub token: String,
    pub id: String,
    pub task: String,
}

/// The reason in a status's details.
pub fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map_or_else(String::new, |i| i.reason.clone())
}

/// The remedy in a status's details.
pub fn way_out(status: &Status) -> String {
    status.get_error_details().error_info().and_then(|i| i.metadata.get("way_out").cloned()).unwrap_or_default()
}

/// The retry delay in a status's details.
pub fn retry_after(status: &Status) -> Option<Duration> {
    status.get_error_details().retry_info().and_then(|r| r.retry_delay)
}

/// Waits until a condition holds.
pub async fn until<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    for _ in 0..PATIENCE.as_millis() / 50 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not within {PATIENCE:?}: {what}");
}

/// Runs the command line as an operator, at the admin port.
pub fn as_operator(world: &DevWorld, admin: SocketAddr, args: &[&str]) -> Output {
    let config = world.write_context("operator/you", admin).unwrap();
    Command::new(MAYFLY).arg("--config").arg(config).args(args).output().unwrap()
}

/// Runs the server's own command line: `mayfly ARGS --config …`.
pub fn mayfly(args: &[&str], config: &Path) -> Output {
    let mut command = Command::new(MAYFLY);
    command.args(args).arg("--config").arg(config);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"MAYFLY_")) {
        command.env_remove(name);
    }
    within(command, PATIENCE * 4)
}

/// The output and exit status of a command. A command that runs longer is killed: a server that starts although it should refuse to.
fn within(mut command: Command, patience: Duration) -> Output {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let (ended, watch) = std::sync::mpsc::channel::<()>();
    let watcher = std::thread::spawn(move || {
        if watch.recv_timeout(patience).is_err() {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    });
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let told = std::thread::spawn(move || {
        let mut told = Vec::new();
        std::io::Read::read_to_end(&mut err, &mut told).map(|_| told)
    });
    let mut stdout = Vec::new();
    std::io::Read::read_to_end(&mut out, &mut stdout).unwrap();
    let stderr = told.join().unwrap().unwrap();
    let status = child.wait().unwrap();
    let _ = ended.send(());
    watcher.join().unwrap();
    Output { status, stdout, stderr }
}

/// A relying service that follows revocations, with a clock of its own.
pub async fn follower(world: &DevWorld, workload: SocketAddr, system: System) -> Arc<Verifier> {
    let settings = verifier::Settings {
        follower: "echo-1".into(),
        upstreams: vec!["echo".into()],
        issuer: format!("https://{TRUST_DOMAIN}/dev"),
        audience: "https://echo.dev.mayfly.internal".into(),
    };
    let verifier = Verifier::new(settings, system);
    tokio::spawn(verifier.clone().follow(world.channel("service/echo", workload).await.unwrap()));
    until("it follows", || async { verifier.ready() }).await;
    verifier
}

/// Whether a relying service accepts a token.
pub fn accepts(verifier: &Verifier, token: &str) -> bool {
    verifier.check(token, Need::default()).is_ok()
}
