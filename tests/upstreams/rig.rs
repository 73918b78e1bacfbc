//! A world with a database as its upstream, and a server process that can be killed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use mayfly::cli::dev::{DevSettings, DevWorld};
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::credential_service_client::CredentialServiceClient;
use mayfly::pb::mayfly::v1::task_service_client::TaskServiceClient;
use mayfly::pb::mayfly::v1::token_service_client::TokenServiceClient;
use mayfly::pb::mayfly::v1::upstream_service_client::UpstreamServiceClient;
use mayfly::serve::client;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tonic::Status;
use tonic::transport::Channel;

use super::cluster::{ADMIN_PASSWORD, Cluster};
use super::gate::{PATIENCE, Watch};
use super::server::ENVIRONMENT;

pub const MAYFLY: &str = env!("CARGO_BIN_EXE_mayfly");

pub struct Rig {
    pub world: DevWorld,
    pub runtime: Runtime,
    process: Option<Child>,
    _dir: TempDir,
}

/// The process ends with its scope, even if a test fails.
impl Drop for Rig {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A registration of a PostgreSQL database, with the section's lines.
pub fn registration(name: &str, target: &str, section: &str) -> String {
    let grants = format!(
        r#"[postgres]
admin = "mayfly"
{section}
[[postgres.grants]]
scope = "orders:read"
on = "schemas"
names = ["public"]
privileges = ["USAGE"]
[[postgres.grants]]
scope = "orders:read"
on = "tables"
names = ["public.orders", 'public."Odd ""Name"""']
privileges = ["SELECT"]
[[postgres.grants]]
scope = "orders:write"
on = "schemas"
names = ["public"]
privileges = ["USAGE", "CREATE"]
[[postgres.grants]]
scope = "orders:write"
on = "tables"
names = ["public.orders"]
privileges = ["SELECT", "INSERT", "UPDATE"]
"#
    );
    registration_of("postgres", name, target, &grants)
}

/// A registration of a database of a kind, with its whole section.
pub fn registration_of(kind: &str, name: &str, target: &str, section: &str) -> String {
    format!(
        r#"name = "{name}"
owner = "team-shop"
purpose = "the orders of the shop"
environment = "dev"
audience = "{kind}://{name}"
target = "{target}"
approvers = []
kinds = ["{kind}"]
scopes = ["orders:read", "orders:write"]
expires = 2099-12-31
[classification]
system = "orders-db"
privilege = "write"
blast_radius = "medium"
[ttl]
min = "2s"
default = "15m"
max = "1h"
{section}"#
    )
}

impl Rig {
    /// A world in which these registrations exist from the first start.
    pub fn new(upstreams: &[(&str, String)]) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let settings = DevSettings::default().with("upstreams.secrets_dir", "\"secrets\"");
        let world = DevWorld::create(&dir.path().join("w"), &settings).unwrap();
        std::fs::create_dir(world.dir().join("secrets")).unwrap();
        closed(&world.dir().join("secrets"), 0o700);
        for (name, text) in upstreams {
            std::fs::write(world.dir().join(format!("policy/upstreams/{name}.toml")), text).unwrap();
        }
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Rig { world, runtime, process: None, _dir: dir }
    }

    /// A world with one PostgreSQL database, and its server.
    pub fn of(name: &str, target: &str, section: &str) -> Rig {
        Rig::registered(name, target, registration(name, target, section))
    }

    /// A world with one registration, and its server.
    pub fn registered(name: &str, target: &str, registration: String) -> Rig {
        let mut rig = Rig::new(&[(name, registration)]);
        rig.secret(name, target, ADMIN_PASSWORD);
        rig.start();
        rig
    }

    /// The file with mayfly's own password.
    pub fn secret(&self, name: &str, target: &str, password: &str) -> PathBuf {
        let path = self.world.dir().join(format!("secrets/{name}.toml"));
        std::fs::write(&path, format!("target = '{target}'\npassword = '{password}'\n")).unwrap();
        closed(&path, 0o600);
        path
    }

    /// Starts the server, and waits until it answers.
    pub fn start(&mut self) {
        let dir = self.world.dir().to_owned();
        let _ = std::fs::remove_file(DevWorld::ready_file(&dir));
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "server::serve", "--nocapture", "--test-threads=1"]).env(ENVIRONMENT, &dir);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let began = Watch::start();
        while DevWorld::addresses(&dir).is_none_or(|a| a.pid != process.id()) {
            let log = || std::fs::read_to_string(self.log()).unwrap_or_default();
            assert!(process.try_wait().unwrap().is_none(), "the server ended: {}", log());
            assert!(began.elapsed() < PATIENCE, "the server did not answer: {}", log());
            std::thread::sleep(Duration::from_millis(10));
        }
        self.process = Some(process);
    }

    pub fn log(&self) -> PathBuf {
        self.world.dir().join("server.log")
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub async fn agent(&self) -> Channel {
        self.world.channel("agent/demo", DevWorld::addresses(self.world.dir()).unwrap().workload).await.unwrap()
    }

    pub async fn operator(&self) -> Channel {
        client::unix(&self.world.dir().join("run/admin.sock")).await.unwrap()
    }

    /// Runs the command line as an operator.
    pub fn operate(&self, args: &[&str]) -> Output {
        self.mayfly("operator/you", DevWorld::addresses(self.world.dir()).unwrap().admin).args(args).output().unwrap()
    }

    /// As [`Rig::operate`]; returns what it wrote to stdout.
    #[track_caller]
    pub fn operated(&self, args: &[&str]) -> String {
        let done = self.operate(args);
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    /// The command line as an operator.
    pub fn operator_command(&self) -> Command {
        self.mayfly("operator/you", DevWorld::addresses(self.world.dir()).unwrap().admin)
    }

    /// The command line as a workload.
    pub fn demo(&self) -> Command {
        self.mayfly("agent/demo", DevWorld::addresses(self.world.dir()).unwrap().workload)
    }

    fn mayfly(&self, name: &str, address: std::net::SocketAddr) -> Command {
        let context = self.world.write_context(name, address).unwrap();
        let mut command = Command::new(MAYFLY);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"MAYFLY_")) {
            command.env_remove(name);
        }
        command.arg("--config").arg(context).stdin(Stdio::null());
        command
    }

    /// A task for the upstream.
    pub fn open(&self, upstream: &str) -> String {
        self.open_for(upstream, &["orders:read", "orders:write"])
    }

    /// A task for scopes of the upstream.
    pub fn open_for(&self, upstream: &str, scopes: &[&str]) -> String {
        let terms = pb::TaskTerms {
            purpose: "a test".into(),
            upstreams: vec![pb::Allowance {
                upstream: upstream.into(),
                scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            }],
            ttl: Some(prost_types::Duration { seconds: 3600, nanos: 0 }),
            ..Default::default()
        };
        let ask = pb::OpenTaskRequest { terms: Some(terms), ..Default::default() };
        self.runtime.block_on(async {
            let opened = TaskServiceClient::new(self.agent().await).open_task(ask).await.unwrap();
            opened.into_inner().task.unwrap().task_id
        })
    }

    pub fn complete(&self, task: &str) {
        let ask = pb::CompleteTaskRequest { task_id: task.to_owned(), ..Default::default() };
        self.runtime.block_on(async { TaskServiceClient::new(self.agent().await).complete_task(ask).await.unwrap() });
    }

    pub fn exchange(&self, ask: pb::ExchangeRequest) -> Result<pb::Issued, Status> {
        self.runtime.block_on(async { exchange(self.agent().await, ask).await })
    }

    /// The open leases of an upstream in that state, by handle, with the credential of each.
    pub fn leases(&self, upstream: &str, state: pb::UpstreamState) -> BTreeMap<String, pb::Lease> {
        let ask = pb::ListLeasesRequest { state: state.into(), upstream: upstream.into(), page_size: 500, ..Default::default() };
        let listed = self.runtime.block_on(async {
            UpstreamServiceClient::new(self.operator().await).list_leases(ask).await.unwrap().into_inner().leases
        });
        listed.into_iter().map(|lease| (lease.what.clone(), lease)).collect()
    }

    /// The live credentials of an upstream.
    pub fn active(&self, upstream: &str) -> BTreeSet<String> {
        let filter =
            pb::CredentialFilter { state: pb::CredentialState::Active.into(), upstream: upstream.into(), ..Default::default() };
        let ask = pb::ListCredentialsRequest { filter: Some(filter), page_size: 500, ..Default::default() };
        let listed = self.runtime.block_on(async {
            CredentialServiceClient::new(self.operator().await).list_credentials(ask).await.unwrap().into_inner().credentials
        });
        listed.into_iter().map(|credential| credential.credential_id).collect()
    }

    /// As [`Rig::settled_with`], for PostgreSQL.
    pub fn settled(&self, cluster: &Cluster, upstream: &str, what: &str) -> BTreeSet<String> {
        self.settled_with(|| cluster.roles_of(upstream), upstream, what)
    }

    /// Waits until nothing is left to undo, and the accounts at the upstream, in order, are exactly those of live credentials. Returns these
    /// credentials.
    pub fn settled_with(&self, accounts: impl Fn() -> Vec<String>, upstream: &str, what: &str) -> BTreeSet<String> {
        let began = Watch::start();
        loop {
            let pending = self.leases(upstream, pb::UpstreamState::Pending);
            let live = self.leases(upstream, pb::UpstreamState::Live);
            let (active, roles) = (self.active(upstream), accounts());
            let of_leases: BTreeSet<String> = live.values().map(|lease| lease.credential_id.clone()).collect();
            if pending.is_empty() && of_leases == active && live.keys().eq(roles.iter()) {
                return active;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "{what}: roles {roles:?}, leases {live:?}, to be undone {pending:?}, live credentials {active:?}"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

pub async fn exchange(agent: Channel, ask: pb::ExchangeRequest) -> Result<pb::Issued, Status> {
    Ok(TokenServiceClient::new(agent).exchange(ask).await?.into_inner().issued.unwrap())
}

pub fn wanted(upstream: &str, task: &str, scope: &str, request_id: &str) -> pb::ExchangeRequest {
    wanted_of(pb::CredentialKind::Postgres, upstream, task, scope, request_id)
}

pub fn wanted_of(kind: pb::CredentialKind, upstream: &str, task: &str, scope: &str, request_id: &str) -> pb::ExchangeRequest {
    pb::ExchangeRequest {
        task: Some(pb::exchange_request::Task::TaskId(task.to_owned())),
        upstream: upstream.into(),
        scopes: vec![scope.into()],
        kind: kind.into(),
        ttl: Some(prost_types::Duration { seconds: 900, nanos: 0 }),
        purpose: "a test".into(),
        request_id: request_id.to_owned(),
        ..Default::default()
    }
}

/// The login of a credential.
pub fn login(issued: &pb::Issued) -> pb::DatabaseLogin {
    match &issued.answer {
        Some(pb::issued::Answer::DatabaseLogin(login)) => login.clone(),
        _ => panic!("no login"),
    }
}

pub fn closed(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
}
