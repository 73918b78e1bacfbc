//! Worlds with their server, clients in them, and an agent of the SPIFFE Workload API.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use mayfly::cli::dev::{DevEngine, DevSettings, DevWorld, SERVER, ServerProcess};
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::task_service_client::TaskServiceClient;
use mayfly::pb::mayfly::v1::token_service_client::TokenServiceClient;
use mayfly::server::{Addresses, RunningServer};
use mayfly_client::{Identity, Mayfly, SpiffeId};
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::ports::Ports;

/// The limit for any wait here.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A world and its server in this process.
pub struct Up {
    pub running: RunningServer,
    pub world: DevWorld,
    _dir: TempDir,
}

impl Up {
    pub fn new() -> Up {
        Up::with(DevSettings::default())
    }

    pub fn with(settings: DevSettings) -> Up {
        Up::edited(settings, |echo| echo)
    }

    /// With another registration of echo.
    pub fn edited(settings: DevSettings, change: impl FnOnce(String) -> String) -> Up {
        Up::changed(settings, "policy/upstreams/echo.toml", change)
    }

    /// With additional policies.
    pub fn policed(more: &str) -> Up {
        Up::changed(DevSettings::default(), "policy/policy.cedar", |policy| policy + more)
    }

    fn changed(settings: DevSettings, file: &str, change: impl FnOnce(String) -> String) -> Up {
        let dir = tempfile::tempdir().unwrap();
        let world = DevWorld::create(&dir.path().join("w"), &DevSettings { engine: DevEngine::Memory, ..settings }).unwrap();
        edit(&world, file, change);
        let running = world.start().unwrap_or_else(|no| panic!("{no}"));
        Up { running, world, _dir: dir }
    }

    pub fn server_id() -> SpiffeId {
        SpiffeId::parse(&DevWorld::id(SERVER)).unwrap()
    }

    pub fn files(&self, name: &str) -> Identity {
        let paths = self.world.svid(name);
        Identity::Files { svid: paths.certificate, key: paths.key, bundle: self.world.bundle() }
    }

    pub fn settings(&self, name: &str) -> mayfly_client::Settings {
        let address = self.running.addresses().workload.to_string();
        mayfly_client::Settings::new(&address, Up::server_id(), self.files(name))
    }

    pub async fn client(&self, name: &str) -> Mayfly {
        Mayfly::connect(self.settings(name)).await.unwrap()
    }

    pub async fn channel(&self, name: &str) -> Channel {
        self.world.channel(name, self.running.addresses().workload).await.unwrap()
    }

    /// A task of the agent for the echo upstream.
    pub async fn task(&self) -> String {
        let terms = pb::TaskTerms {
            purpose: "test".into(),
            upstreams: vec![pb::Allowance { upstream: "echo".into(), scopes: vec!["echo:read".into()] }],
            any_tool: true,
            ..Default::default()
        };
        let ask = pb::OpenTaskRequest { terms: Some(terms), ..Default::default() };
        let opened = TaskServiceClient::new(self.channel("agent/demo").await).open_task(ask).await.unwrap();
        opened.into_inner().task.unwrap().task_id
    }

    /// The credentials that were issued in a task.
    pub async fn issued_in(&self, task: &str) -> Vec<pb::Credential> {
        let ask = pb::ListTaskCredentialsRequest { task_id: task.into(), ..Default::default() };
        let listed = TaskServiceClient::new(self.channel("agent/demo").await).list_task_credentials(ask).await.unwrap();
        listed.into_inner().credentials
    }

    pub async fn state_of(&self, task: &str) -> pb::TaskState {
        let ask = pb::GetTaskRequest { task_id: task.into() };
        let found = TaskServiceClient::new(self.channel("agent/demo").await).get_task(ask).await.unwrap();
        found.into_inner().task.unwrap().state()
    }

    /// Whether the server itself considers a token valid.
    pub async fn is_active(&self, token: &str) -> bool {
        let ask = pb::IntrospectRequest { token: token.into() };
        let answer = TokenServiceClient::new(self.channel("service/echo").await).introspect(ask).await.unwrap();
        answer.into_inner().active
    }

    /// Runs the command line as an operator.
    pub fn operator(&self, args: &[&str]) -> Output {
        operator(&self.world, self.running.addresses().admin, args)
    }

    /// The records of an event.
    pub fn audit(&self, event: &str) -> Vec<serde_json::Value> {
        records(&self.operator(&["audit", "search", "--event", event, "--limit", "1000", "-o", "json"]))
    }
}

fn edit(world: &DevWorld, file: &str, change: impl FnOnce(String) -> String) {
    let file = world.dir().join(file);
    std::fs::write(&file, change(std::fs::read_to_string(&file).unwrap())).unwrap();
}

/// A world whose server is a process of its own, at the same address each time it starts.
pub struct Apart {
    child: Option<ServerProcess>,
    pub world: DevWorld,
    _dir: TempDir,
    _ports: Ports,
}

impl Apart {
    pub fn policed(more: &str) -> Apart {
        let dir = tempfile::tempdir().unwrap();
        let ports = Ports::hold(3);
        let listens = ["workload", "admin", "public"].into_iter().zip(0..);
        let settings = listens.fold(DevSettings::default(), |settings, (name, nth)| {
            settings.with(&format!("listen.{name}"), &format!("\"{}\"", ports.at(nth)))
        });
        let world = DevWorld::create(&dir.path().join("w"), &settings).unwrap();
        edit(&world, "policy/policy.cedar", |policy| policy + more);
        let mut apart = Apart { child: None, world, _dir: dir, _ports: ports };
        apart.start();
        apart
    }

    pub fn start(&mut self) {
        self.child = Some(self.world.spawn(Path::new(env!("CARGO_BIN_EXE_mayfly"))).unwrap_or_else(|no| panic!("{no}")));
    }

    /// Like a power failure.
    pub fn kill(&mut self) {
        self.child.take().unwrap().kill();
    }

    pub fn addresses(&self) -> Addresses {
        self.child.as_ref().unwrap().addresses().clone()
    }

    pub fn settings(&self, name: &str) -> mayfly_client::Settings {
        let paths = self.world.svid(name);
        let files = Identity::Files { svid: paths.certificate, key: paths.key, bundle: self.world.bundle() };
        mayfly_client::Settings::new(&self.addresses().workload.to_string(), Up::server_id(), files)
    }

    /// Runs the command line as an operator.
    pub fn operator(&self, args: &[&str]) -> Output {
        operator(&self.world, self.addresses().admin, args)
    }

    /// The records of an event.
    pub fn audit(&self, event: &str) -> Vec<serde_json::Value> {
        records(&self.operator(&["audit", "search", "--event", event, "--limit", "1000", "-o", "json"]))
    }
}

fn operator(world: &DevWorld, admin: SocketAddr, args: &[&str]) -> Output {
    let config: PathBuf = world.write_context("operator/you", admin).unwrap();
    Command::new(env!("CARGO_BIN_EXE_mayfly")).arg("--config").arg(config).args(args).output().unwrap()
}

fn records(output: &Output) -> Vec<serde_json::Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Waits until a condition holds.
pub async fn until<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    for _ in 0..PATIENCE.as_millis() / 20 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not within {PATIENCE:?}: {what}");
}
