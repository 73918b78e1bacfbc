//! The double of GitHub, a process of its own for each test, and a world whose upstream it is.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mayfly::pb::mayfly::v1 as pb;
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::Status;

use super::gate::{PATIENCE, Watch};
use super::rig::{Rig, closed};

/// The Python of the tests, with PyJWT and cryptography (`tests/interop/python/requirements.txt`).
fn python() -> Option<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    [own, PathBuf::from("python3")].into_iter().find(|python| {
        let asked = Command::new(python).args(["-c", "import jwt, cryptography"]).stderr(Stdio::null()).status();
        asked.is_ok_and(|status| status.success())
    })
}

/// GitHub.
pub struct GithubDouble {
    /// The base URL of its API.
    pub target: String,
    pub ca_pem: String,
    /// The private key of the app.
    pub app_pem: String,
    control: u16,
    process: Child,
    _dir: TempDir,
}

impl Drop for GithubDouble {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl GithubDouble {
    /// `None` where Python has not what it needs.
    pub fn start(prefix: &str) -> Option<GithubDouble> {
        let Some(python) = python() else {
            crate::skipped::skipped("the double of GitHub needs Python with PyJWT and cryptography");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/doubles/github.py");
        let mut command = Command::new(python);
        command.arg(script).arg("--dir").arg(dir.path()).args(["--prefix", prefix]);
        // The double's stdin ends with this process.
        let process = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let (ready, began) = (dir.path().join("double.json"), Watch::start());
        while !ready.exists() {
            assert!(began.elapsed() < PATIENCE, "the double did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        let ports: Value = serde_json::from_str(&read("double.json")).unwrap();
        let port = |name: &str| u16::try_from(ports[name].as_u64().unwrap()).unwrap();
        Some(GithubDouble {
            target: format!("https://localhost:{}{prefix}", port("port")),
            ca_pem: read("ca.pem"),
            app_pem: read("app.pem"),
            control: port("control"),
            process,
            _dir: dir,
        })
    }

    /// A request to the port for tests.
    fn control(&self, method: &str, path: &str, body: &str) -> Value {
        let mut stream = TcpStream::connect(("127.0.0.1", self.control)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "{method} {path} HTTP/1.0\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        while reader.read_line(&mut line).unwrap() > 0 && !line.trim_end().is_empty() {
            line.clear();
        }
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        serde_json::from_str(&text).unwrap_or_else(|no| panic!("{path}: {no}"))
    }

    pub fn state(&self) -> Value {
        self.control("GET", "/state", "")
    }

    /// The number of tokens that GitHub takes.
    pub fn live(&self) -> usize {
        self.state()["live"].as_array().unwrap().len()
    }

    /// Changes settings of the double.
    pub fn set(&self, settings: &Value) {
        self.control("POST", "/set", &settings.to_string());
    }

    /// Holds the next request whose line matches: `before` it is carried out, or `after` that, before it is answered.
    pub fn hold(&self, line: &str, when: &str) {
        self.control("POST", "/hold", &json!({ "match": line, "when": when }).to_string());
    }

    pub fn wait_held(&self) {
        assert_eq!(self.control("POST", "/wait-held", "")["held"], true, "nothing came to be held");
    }

    pub fn release(&self) {
        self.control("POST", "/release", "");
    }

    /// A request to the API, as a program with a token sends it. Returns the status.
    pub fn status(&self, rig: &Rig, token: &str, method: &str, path: &str) -> u16 {
        let mut curl = Command::new("curl");
        let ca = rig.world.dir().join("github-ca.pem");
        std::fs::write(&ca, &self.ca_pem).unwrap();
        curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", method, "--config", "-", "--cacert"]).arg(&ca);
        if method == "POST" {
            curl.args(["-d", "{\"title\":\"a title\"}"]);
        }
        let mut child = curl.arg(format!("{}{path}", self.target)).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(format!("header = \"authorization: Bearer {token}\"\n").as_bytes()).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap().parse().unwrap()
    }

    /// A server whose upstream of this name is the double, with its secret and its roots.
    pub fn rig(&self, name: &str) -> Rig {
        self.rig_with(name, &registration(name, &self.target))
    }

    pub fn rig_with(&self, name: &str, registration: &str) -> Rig {
        let mut rig = Rig::new(&[(name, registration.to_owned())]);
        self.secret(&rig, name, &self.target, &self.app_pem);
        std::fs::write(rig.world.dir().join(format!("secrets/{name}.pem")), &self.ca_pem).unwrap();
        rig.start();
        rig
    }

    /// The file with the private key of the app.
    pub fn secret(&self, rig: &Rig, name: &str, target: &str, key: &str) -> PathBuf {
        let path = rig.world.dir().join(format!("secrets/{name}.toml"));
        std::fs::write(&path, format!("target = '{target}'\nprivate_key = '''\n{key}'''\n")).unwrap();
        closed(&path, 0o600);
        path
    }
}

/// A registration with scopes that fit together and one that does not.
pub fn registration(name: &str, target: &str) -> String {
    format!(
        r#"name = "{name}"
owner = "team-web"
purpose = "the repositories of the web site"
environment = "dev"
audience = "github:{name}"
target = "{target}"
approvers = []
kinds = ["github"]
scopes = ["site:read", "site:issues", "tools:read", "all:read", "admin"]
expires = 2099-12-31
[classification]
system = "repositories"
privilege = "write"
blast_radius = "medium"
[ttl]
min = "2s"
default = "15m"
max = "1h"
[github]
app = "Iv23liMayflyDouble01"
installation = 424242
[[github.grants]]
scope = "site:read"
repositories = [{{ id = 1296269, name = "octo-org/site" }}]
permissions = ["contents:read"]
[[github.grants]]
scope = "site:issues"
repositories = [{{ id = 1296269, name = "octo-org/site" }}]
permissions = ["issues:write"]
[[github.grants]]
scope = "tools:read"
repositories = [{{ id = 1296270, name = "octo-org/tools" }}]
permissions = ["contents:read"]
[[github.grants]]
scope = "all:read"
all_repositories = true
permissions = ["contents:read"]
[[github.grants]]
scope = "admin"
repositories = [{{ id = 1296269, name = "octo-org/site" }}]
permissions = ["administration:write", "pull_requests:write"]
"#
    )
}

pub const SCOPES: [&str; 5] = ["site:read", "site:issues", "tools:read", "all:read", "admin"];

pub fn wanted(upstream: &str, task: &str, scopes: &[&str], request_id: &str) -> pb::ExchangeRequest {
    pb::ExchangeRequest {
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        kind: pb::CredentialKind::Github.into(),
        ..super::rig::wanted(upstream, task, "", request_id)
    }
}

/// The token of a credential.
pub fn token(issued: &pb::Issued) -> String {
    match &issued.answer {
        Some(pb::issued::Answer::BearerToken(bearer)) => bearer.token.clone(),
        other => panic!("no token: {}", other.is_some()),
    }
}

/// Waits until the double has as many tokens, and as many leases are to be undone.
#[track_caller]
pub fn until(double: &GithubDouble, rig: &Rig, name: &str, (live, pending): (usize, usize)) {
    let began = Watch::start();
    loop {
        let leases = rig.leases(name, pb::UpstreamState::Pending);
        if double.live() == live && leases.len() == pending {
            return;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "{} tokens instead of {live}, and to be undone instead of {pending}: {leases:?}",
            double.live()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The text of a refusal.
pub fn refusal(answer: Result<pb::Issued, Status>) -> String {
    match answer {
        Err(status) => status.message().to_owned(),
        Ok(issued) => panic!("{} was issued", issued.credential_id),
    }
}

/// An RSA key that is not the app's.
pub fn another_key() -> String {
    let made = Command::new("openssl").args(["genrsa", "-traditional", "2048"]).stderr(Stdio::null()).output().unwrap();
    String::from_utf8(made.stdout).unwrap()
}
