//! An authorization server of the tests: oidc-provider from npm (tests/interop/node/authorization-server.mjs). It ends with the process of the
//! tests, however that ends.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mayfly::sources::https::HttpsClient;
use mayfly::system::System;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use super::gate::{PATIENCE, Watch};
use super::rig::{Rig, closed};

pub struct AuthorizationServer {
    pub issuer: String,
    dir: TempDir,
    process: Child,
    runtime: Runtime,
}

impl Drop for AuthorizationServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl AuthorizationServer {
    /// A server whose access tokens live for so many seconds. `None` where Node or oidc-provider is not installed.
    pub fn start(life: u64) -> Option<AuthorizationServer> {
        let node = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/node");
        let installed =
            node.join("node_modules/oidc-provider").exists() && Command::new("node").arg("--version").output().is_ok();
        if !installed {
            crate::skipped::skipped("oidc-provider is not installed (npm ci in tests/interop/node)");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("mayfly-oauth-").tempdir().unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let mut command = Command::new("node");
        command.arg(node.join("authorization-server.mjs")).arg(dir.path()).env("OAUTH_TEST_LIFE", life.to_string());
        let process = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut server = AuthorizationServer { issuer: String::new(), dir, process, runtime };
        let (began, told, log) = (Watch::start(), server.file("server.json"), server.file("log"));
        while !told.exists() {
            let log = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(server.process.try_wait().unwrap().is_none(), "the authorization server ended: {}", log());
            assert!(began.elapsed() < PATIENCE, "the authorization server did not start: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        let told: Value = serde_json::from_slice(&std::fs::read(told).unwrap()).unwrap();
        server.issuer = told["issuer"].as_str().unwrap().to_owned();
        Some(server)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap()
    }

    fn client(&self) -> HttpsClient {
        HttpsClient::new(Some(&self.file("ca.pem")), &System::real()).unwrap().within(PATIENCE.as_millis() as u64)
    }

    /// What the server says below `/control`.
    pub fn ask(&self, path: &str) -> Value {
        let url = format!("{}/control/{path}", self.issuer);
        let answer = self.runtime.block_on(self.client().get(&url, 1 << 20)).unwrap();
        assert!(answer.status.is_success(), "{path}: {answer:?}");
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// The status that the API answers a token with, and its scopes.
    pub fn api(&self, token: &str) -> (u16, String) {
        let header = (http::header::AUTHORIZATION, format!("Bearer {token}"));
        let url = format!("{}/api/me", self.issuer);
        let answer = self.runtime.block_on(self.client().get_with(&url, vec![header], 1 << 16)).unwrap();
        let told: Value = serde_json::from_slice(&answer.body).unwrap();
        (answer.status.as_u16(), told["scope"].as_str().unwrap_or_default().to_owned())
    }

    /// The scopes of the valid access tokens of a client, in order.
    pub fn access_tokens(&self, client: &str) -> Vec<String> {
        let told = self.ask("tokens");
        let all = told["access"].as_array().unwrap().iter().filter(|token| token["client"] == client);
        let mut scopes: Vec<String> = all.map(|token| token["scope"].as_str().unwrap_or_default().to_owned()).collect();
        scopes.sort();
        scopes
    }

    /// The number of valid refresh tokens of a client.
    pub fn refresh_tokens(&self, client: &str) -> usize {
        self.ask("tokens")["refresh"].as_array().unwrap().iter().filter(|token| token["client"] == client).count()
    }

    /// The next requests to the token endpoint fail.
    pub fn trouble(&self, how: &str, next: u32) {
        self.ask(&format!("trouble?next={next}&how={how}"));
    }

    /// A registration of the server's API, with the section's lines.
    pub fn registration(&self, name: &str, section: &str) -> String {
        format!(
            r#"name = "{name}"
owner = "team-shop"
purpose = "order confirmations of the shop"
environment = "dev"
audience = "{issuer}/{name}"
target = "{issuer}/api/{name}"
approvers = []
kinds = ["oauth"]
scopes = ["mail:read", "mail:send"]
expires = 2099-12-31
[classification]
system = "mail"
privilege = "write"
blast_radius = "medium"
[ttl]
min = "2s"
default = "5m"
max = "1h"
[oauth]
{section}
[[oauth.scopes]]
scope = "mail:read"
sends = ["api:read"]
[[oauth.scopes]]
scope = "mail:send"
sends = ["api:write"]
"#,
            issuer = self.issuer
        )
    }

    /// Gives a rig what it needs for an upstream at this server: the roots, and mayfly's own secret.
    pub fn provide(&self, rig: &Rig, name: &str, secret: &str) {
        let dir = rig.world.dir().join("secrets");
        std::fs::copy(self.file("ca.pem"), dir.join(format!("{name}.pem"))).unwrap();
        let path = dir.join(format!("{name}.toml"));
        std::fs::write(&path, format!("target = '{}'\n{secret}\n", self.issuer)).unwrap();
        closed(&path, 0o600);
    }
}
