//! A world, its upstream, and a server process that can be killed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mayfly::cli::dev::{DevSettings, DevWorld};
use mayfly::pb::mayfly::v1 as pb;
use mayfly::pb::mayfly::v1::credential_service_client::CredentialServiceClient;
use mayfly::pb::mayfly::v1::revocation_service_client::RevocationServiceClient;
use mayfly::pb::mayfly::v1::server_service_client::ServerServiceClient;
use mayfly::pb::mayfly::v1::task_service_client::TaskServiceClient;
use mayfly::pb::mayfly::v1::token_service_client::TokenServiceClient;
use mayfly::pb::mayfly::v1::upstream_service_client::UpstreamServiceClient;
use mayfly::serve::client;
use mayfly::system::System;
use tempfile::TempDir;
use tonic::Status;
use tonic::transport::Channel;

use super::server::ENVIRONMENT;
use super::upstream::{LATE, PATIENCE_MS, Upstream};

pub const SAME: pb::CredentialKind = pb::CredentialKind::Postgres;
pub const REPLACE: pb::CredentialKind = pb::CredentialKind::Oauth;

pub struct Rig {
    pub upstream: Upstream,
    address: SocketAddr,
    world: DevWorld,
    process: Option<Child>,
    tells: bool,
    _dir: TempDir,
}

/// The process ends with its scope, even if a test fails.
impl Drop for Rig {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Rig {
    pub fn new(tells: bool) -> Rig {
        Rig::with(tells, "")
    }

    /// With additional lines at the end of its configuration.
    pub fn with(tells: bool, more: &str) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let world = DevWorld::create(&dir.path().join("w"), &DevSettings::default()).unwrap();
        let config = std::fs::read_to_string(world.config()).unwrap();
        std::fs::write(world.config(), config + more).unwrap();
        let (upstream, address) = Upstream::start();
        let mut rig = Rig { upstream, address, world, process: None, tells, _dir: dir };
        rig.start();
        rig
    }

    /// Starts the server, and waits until it answers.
    pub fn start(&mut self) {
        let dir = self.world.dir().to_owned();
        let _ = std::fs::remove_file(DevWorld::ready_file(&dir));
        let log = std::fs::File::create(dir.join("server.log")).unwrap();
        let tells = if self.tells { "1" } else { "0" };
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "server::serve", "--nocapture", "--test-threads=1"]);
        command.envs(ENVIRONMENT.into_iter().zip([dir.to_str().unwrap(), &self.address.to_string(), tells]));
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        let mut process = command.spawn().unwrap();
        let waiting = System::real();
        while DevWorld::addresses(&dir).is_none_or(|a| a.pid != process.id()) {
            let log = || std::fs::read_to_string(dir.join("server.log")).unwrap_or_default();
            assert!(process.try_wait().unwrap().is_none(), "the server ended: {}", log());
            assert!(waiting.steady() < PATIENCE_MS, "the server did not answer: {}", log());
            std::thread::sleep(Duration::from_millis(10));
        }
        self.process = Some(process);
    }

    /// SIGKILL. Calls that the upstream holds continue after that.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
        self.upstream.release();
    }

    pub async fn agent(&self) -> Channel {
        self.world.channel("agent/demo", DevWorld::addresses(self.world.dir()).unwrap().workload).await.unwrap()
    }

    pub async fn operator(&self) -> Channel {
        client::unix(&self.world.dir().join("run/admin.sock")).await.unwrap()
    }

    /// A task for the upstream.
    pub async fn open(&self) -> String {
        let terms = pb::TaskTerms {
            purpose: "remote".into(),
            upstreams: vec![pb::Allowance { upstream: "echo".into(), scopes: vec!["echo:read".into()] }],
            ttl: Some(prost_types::Duration { seconds: 3600, nanos: 0 }),
            ..Default::default()
        };
        let ask = pb::OpenTaskRequest { terms: Some(terms), ..Default::default() };
        let opened = TaskServiceClient::new(self.agent().await).open_task(ask).await.unwrap();
        opened.into_inner().task.unwrap().task_id
    }

    pub async fn complete(&self, task: &str) {
        let ask = pb::CompleteTaskRequest { task_id: task.to_owned(), ..Default::default() };
        TaskServiceClient::new(self.agent().await).complete_task(ask).await.unwrap();
    }

    pub async fn exchange(&self, ask: pb::ExchangeRequest) -> Result<pb::Issued, Status> {
        exchange(self.agent().await, ask).await
    }

    /// The open leases in that state, by handle, with the credential of each.
    pub async fn leases(&self, state: pb::UpstreamState) -> BTreeMap<String, String> {
        let mut client = UpstreamServiceClient::new(self.operator().await);
        let (mut found, mut page_token) = (BTreeMap::new(), String::new());
        loop {
            // Small pages, so that there are several.
            let ask = pb::ListLeasesRequest { state: state.into(), page_size: 7, page_token, ..Default::default() };
            let page = client.list_leases(ask).await.unwrap().into_inner();
            found.extend(page.leases.into_iter().map(|l| (l.what, l.credential_id)));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return found;
            }
        }
    }

    /// The valid credentials.
    pub async fn active(&self) -> BTreeSet<String> {
        let mut client = CredentialServiceClient::new(self.operator().await);
        let filter = pb::CredentialFilter { state: pb::CredentialState::Active.into(), ..Default::default() };
        let (mut found, mut page_token) = (BTreeSet::new(), String::new());
        loop {
            let ask = pb::ListCredentialsRequest { filter: Some(filter.clone()), page_token, page_size: 1_000 };
            let page = client.list_credentials(ask).await.unwrap().into_inner();
            found.extend(page.credentials.into_iter().map(|c| c.credential_id));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return found;
            }
        }
    }

    pub async fn status(&self) -> pb::Counts {
        let ask = pb::GetStatusRequest {};
        ServerServiceClient::new(self.operator().await).get_status(ask).await.unwrap().into_inner().counts.unwrap()
    }

    /// Waits until nothing is left to undo, and the logins alive upstream are exactly those of live credentials. Returns them.
    pub async fn settled(&self, what: &str) -> BTreeSet<String> {
        let waiting = System::real();
        loop {
            let first = self.look().await;
            if first.is_ok() {
                // Makes sure that nothing comes later.
                tokio::time::sleep(LATE * 2).await;
            }
            match (first, self.look().await) {
                (Ok(active), Ok(again)) if active == again => return active,
                (_, Err(why)) if waiting.steady() > PATIENCE_MS => panic!("{what}: {why}"),
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn look(&self) -> Result<BTreeSet<String>, String> {
        let pending = self.leases(pb::UpstreamState::Pending).await;
        let (live, active, alive) = (self.leases(pb::UpstreamState::Live).await, self.active().await, self.upstream.alive());
        let of_leases: BTreeSet<String> = live.values().cloned().collect();
        let handles: BTreeSet<String> = live.keys().cloned().collect();
        // A credential that a killed server was making is undone once nothing can come of it.
        let making = self.leases(pb::UpstreamState::Making).await;
        if !making.is_empty() || !pending.is_empty() || of_leases != active || handles != alive {
            return Err(format!(
                "alive upstream {alive:?}, leases {live:?}, to be undone {pending:?}, live credentials {active:?}"
            ));
        }
        Ok(active)
    }

    /// Ends a task; afterwards nothing is alive and no lease is open.
    pub async fn ends_clean(&self, task: &str, what: &str) {
        self.complete(task).await;
        assert_eq!(self.settled(what).await, BTreeSet::new(), "{what}: the task is over");
        assert!(self.upstream.alive().is_empty(), "{what}");
        assert_eq!(self.status().await.leases, 0, "{what}: no lease is open");
        let (made, deleted) = self.upstream.counts();
        assert_eq!(made, deleted, "{what}: everything that was made was deleted");
    }
}

pub fn wanted(task: &str, kind: pb::CredentialKind, request_id: &str) -> pb::ExchangeRequest {
    pb::ExchangeRequest {
        task: Some(pb::exchange_request::Task::TaskId(task.to_owned())),
        upstream: "echo".into(),
        scopes: vec!["echo:read".into()],
        kind: kind.into(),
        ttl: Some(prost_types::Duration { seconds: 3600, nanos: 0 }),
        purpose: "remote".into(),
        request_id: request_id.to_owned(),
        ..Default::default()
    }
}

pub async fn exchange(agent: Channel, ask: pb::ExchangeRequest) -> Result<pb::Issued, Status> {
    Ok(TokenServiceClient::new(agent).exchange(ask).await?.into_inner().issued.unwrap())
}

pub async fn revoke(operator: Channel, credential: &str) -> Result<(), Status> {
    let target = pb::Target { target: Some(pb::target::Target::CredentialId(credential.to_owned())) };
    let ask = pb::RevokeRequest {
        targets: vec![target],
        reason: "remote".into(),
        confirmation: Some(pb::Confirmation { credentials: 0, all: true }),
        ..Default::default()
    };
    RevocationServiceClient::new(operator).revoke(ask).await.map(|_| ())
}
