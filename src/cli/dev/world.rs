//! A trust domain in a directory: a CA, SVIDs, a server's configuration, sample policies and upstreams. `dev up`, `try`, `bench` and the
//! tests start it.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rcgen::KeyPair;
use rustls::ClientConfig;
use tonic::transport::Channel;

use super::ca::DevCa;
use super::child::ServerProcess;
use super::dir_flag;
use super::files::{TEMPORARY, private_dir, read, write_once, write_private};
use super::locks::{ServerLock, StartLock};
use super::settings::{DevSettings, config_text};
use crate::context::ContextFile;
use mayfly_api::{client, tls};
use mayfly_base::document::remedy::shell_quoted;
use mayfly_base::system::System;
use mayfly_config::config::Config;
use mayfly_config::svid_files::SvidFiles;
use mayfly_identity::bundle::{Bundle, Bundles};
use mayfly_identity::spiffe_id::{SpiffeId, TrustDomain};
use mayfly_server::{Addresses, RunningServer, StartProblem, start};

/// The name of the dev trust domain.
pub const TRUST_DOMAIN: &str = "dev.mayfly.internal";
/// The server's name in the trust domain.
pub const SERVER: &str = "mayfly";
/// The sample workloads: the paths of their SPIFFE IDs and of their directories.
pub const WORKLOADS: &[&str] =
    &["agent/demo", "mcp/repos", "mcp/echo", "ci/demo", "operator/you", "operator/colleague", "operator/auditor", "service/echo"];

const MARKER: &str = ".mayfly-dev";
const MARKER_TEXT: &str =
    "A dev world of mayfly. `mayfly dev down --purge` removes this directory, with its CA, keys and ledger.\n";

const POLICY: &str = include_str!("../samples/policy.cedar");
const TESTS: &str = include_str!("../samples/tests.toml");
const ROLES: &str = include_str!("../samples/roles.toml");
const UPSTREAMS: &[(&str, &str)] = &[
    ("echo.toml", include_str!("../samples/upstreams/echo.toml")),
    ("repos.toml", include_str!("../samples/upstreams/repos.toml")),
    ("tickets.toml", include_str!("../samples/upstreams/tickets.toml")),
];

/// The error of creating, opening or starting a dev world.
#[derive(Debug, thiserror::Error)]
pub enum DevWorldError {
    /// A file or directory could not be used.
    #[error("{what} {}: {error}\n  who may use it: ls -ld {}", path.display(), shell_quoted(path))]
    Io {
        /// The action.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// The error of the operating system.
        error: io::Error,
    },
    /// The directory exists and is not a dev world.
    #[error("{} is not empty and no dev world\n  name another one: mayfly dev up --dir DIR", .0.display())]
    NotOurs(PathBuf),
    /// A certificate or key could not be made or read.
    #[error("the dev CA: {0}\n  to make it anew, with an empty ledger: mayfly dev reset, with the --dir of this dev server")]
    Ca(String),
    /// The CA in the directory of a world cannot be used.
    #[error("the dev CA: {what}\n  to make it anew, with an empty ledger: mayfly dev reset{}", dir_flag(dir))]
    CaOf {
        /// The directory.
        dir: PathBuf,
        /// The error.
        what: String,
    },
    /// A file of the world has unexpected content.
    #[error(
        "{0}\n  to make all of it anew, with another CA, other keys and an empty ledger: mayfly dev down --purge, with the --dir of this dev server"
    )]
    Spoilt(String),
    /// The server ended before it answered.
    #[error("the server ended before it answered\n{0}")]
    Ended(String),
    /// Another `dev up` is creating or starting the world.
    #[error("another `mayfly dev up` is still creating or starting the dev world of {}\n  to try again: mayfly dev up --dir {}", .0.display(), shell_quoted(.0))]
    Busy(PathBuf),
    /// The server did not answer in time.
    #[error("the server did not answer within {seconds} s\n  what it did: tail -n 50 {}", shell_quoted(log))]
    Silent {
        /// How long the command waited.
        seconds: u64,
        /// The server's log file.
        log: PathBuf,
    },
}

/// The files of one SVID.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SvidPaths {
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// The private key of the SVID, PEM.
    pub key: PathBuf,
}

/// A trust domain in a directory.
pub struct DevWorld {
    dir: PathBuf,
    ca: DevCa,
    life_ms: u64,
    system: System,
}

impl DevWorld {
    /// Opens the world in a directory, or creates it. Existing files are kept, but all SVIDs are issued anew.
    ///
    /// `settings` apply to a world that is created now.
    pub fn create(dir: &Path, settings: &DevSettings) -> Result<DevWorld, DevWorldError> {
        private_dir(dir)?;
        let dir = dir.canonicalize().map_err(|error| DevWorldError::Io { what: "finding", path: dir.to_owned(), error })?;
        refuse_foreign_dir(&dir)?;
        write_once(&dir.join(MARKER), MARKER_TEXT.as_bytes())?;
        let ca = ca_of(&dir, &settings.system)?;
        let world = DevWorld { dir, ca, life_ms: settings.svid_life_ms, system: settings.system.clone() };
        world.furnish(settings)?;
        world.renew()?;
        Ok(world)
    }

    /// Replaces the CA of a world whose ledger is gone, if the CA is missing or damaged. Returns whether it was replaced. The SVIDs are
    /// issued anew when the world is started.
    pub(super) fn mend_ca(dir: &Path) -> Result<bool, DevWorldError> {
        DevCa::mend(dir, TRUST_DOMAIN, &System::real())
    }

    /// Opens an existing world without changing it.
    pub fn open(dir: &Path) -> Result<DevWorld, DevWorldError> {
        let dir = dir.canonicalize().map_err(|error| DevWorldError::Io { what: "finding", path: dir.to_owned(), error })?;
        let settings = DevSettings::default();
        let ca = ca_of(&dir, &settings.system)?;
        Ok(DevWorld { dir, ca, life_ms: settings.svid_life_ms, system: settings.system })
    }

    /// Validates a name that can be the path of a SPIFFE ID in the dev trust domain, and a folder.
    pub fn workload_name(name: &str) -> Result<&str, String> {
        match SpiffeId::parse(&DevWorld::id(name)) {
            Err(defect) => Err(format!("{:?} is no path of a SPIFFE ID: {defect}", name)),
            Ok(_) if name == SERVER => Err(format!("{name} is the server's own name; name a workload, like mcp/notes")),
            Ok(_) => Ok(name),
        }
    }

    /// Issues the SVID of a workload beside the samples. Its DNS names are kept for renewals.
    pub fn issue_named(&self, name: &str, dns: &[String]) -> Result<SvidPaths, DevWorldError> {
        private_dir(&self.dir.join("svid").join(name))?;
        if !dns.is_empty() {
            write_private(&self.dns_file(name), format!("{}\n", dns.join("\n")).as_bytes())?;
        }
        self.issue(name, self.life_ms)
    }

    fn dns_file(&self, name: &str) -> PathBuf {
        self.dir.join("svid").join(name).join("dns")
    }

    /// The DNS names of a workload's SVID. Many gRPC clients require one of a server.
    fn dns_names(&self, name: &str) -> Result<Vec<String>, DevWorldError> {
        let file = self.dns_file(name);
        match name {
            SERVER => Ok(vec!["localhost".to_owned()]),
            _ if file.is_file() => Ok(read(&file)?.lines().map(str::to_owned).collect()),
            _ => Ok(Vec::new()),
        }
    }

    /// The names of the workloads beside the samples that have an SVID, made by `mayfly dev svid`.
    fn own_workloads(&self) -> Vec<String> {
        let root = self.dir.join("svid");
        let mut names = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
            folders.extend(entries.map(|entry| entry.path()).filter(|path| path.is_dir() && !path.is_symlink()));
            let name = folder.strip_prefix(&root).ok().and_then(Path::to_str).unwrap_or_default();
            if folder.join("key.pem").is_file() && name != SERVER && !WORKLOADS.contains(&name) {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        names
    }

    fn furnish(&self, settings: &DevSettings) -> Result<(), DevWorldError> {
        let dir = &self.dir;
        for name in ["run", "policy", "policy/upstreams"] {
            private_dir(&dir.join(name))?;
        }
        write_once(&dir.join("seal.key"), &settings.system.random32())?;
        write_once(&dir.join("bundle.pem"), self.ca.pem().as_bytes())?;
        write_once(&dir.join("policy/policy.cedar"), POLICY.as_bytes())?;
        write_once(&dir.join("policy/roles.toml"), ROLES.as_bytes())?;
        write_once(&dir.join("policy/tests.toml"), TESTS.as_bytes())?;
        for (name, text) in UPSTREAMS {
            write_once(&dir.join("policy/upstreams").join(name), text.as_bytes())?;
        }
        write_once(&self.config(), config_text(settings).as_bytes())
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The server's configuration.
    pub fn config(&self) -> PathBuf {
        self.dir.join("mayfly.toml")
    }

    /// The trust bundle, PEM.
    pub fn bundle(&self) -> PathBuf {
        self.dir.join("bundle.pem")
    }

    /// The lifetime of SVIDs, milliseconds.
    pub fn svid_life_ms(&self) -> u64 {
        self.life_ms
    }

    /// The SPIFFE ID of a name in the dev trust domain.
    pub fn id(name: &str) -> String {
        format!("spiffe://{TRUST_DOMAIN}/{name}")
    }

    /// The paths of a workload's SVID, whether or not they exist.
    pub fn svid(&self, name: &str) -> SvidPaths {
        let dir = self.dir.join("svid").join(name);
        SvidPaths { certificate: dir.join("svid.pem"), key: dir.join("key.pem") }
    }

    /// Issues the SVID of a name, or renews it. The key is kept, so that certificate and key always match.
    pub fn issue(&self, name: &str, life_ms: u64) -> Result<SvidPaths, DevWorldError> {
        let paths = self.svid(name);
        private_dir(&self.dir.join("svid").join(name))?;
        if !paths.key.exists() {
            let key = KeyPair::generate().map_err(|e| DevWorldError::Ca(e.to_string()))?;
            write_private(&paths.key, zeroize::Zeroizing::new(key.serialize_pem()).as_bytes())?;
        }
        let spoilt = |e: rcgen::Error| DevWorldError::Spoilt(format!("the key {}: {e}", paths.key.display()));
        let key = KeyPair::from_pem(&read(&paths.key)?).map_err(spoilt)?;
        let pem = self.ca.svid(&DevWorld::id(name), &self.dns_names(name)?, &key, life_ms, &self.system)?;
        write_private(&paths.certificate, pem.as_bytes())?;
        Ok(paths)
    }

    /// Renews the SVIDs of the server, of the sample workloads and of the workloads added by `mayfly dev svid`.
    pub fn renew(&self) -> Result<(), DevWorldError> {
        for name in std::iter::once(&SERVER).chain(WORKLOADS) {
            self.issue(name, self.life_ms)?;
        }
        self.own_workloads().iter().try_for_each(|name| self.issue(name, self.life_ms).map(|_| ()))
    }

    /// Starts the server in threads of this process. Environment variables do not configure it.
    pub fn start(&self) -> Result<RunningServer, StartProblem> {
        let config = Config::load(&self.config(), []).map_err(|wrong| StartProblem::config(&self.config(), wrong))?;
        start(&config, &self.system)
    }

    /// Starts the server as a process of its own, which may be killed, and waits until it answers. `program` is the mayfly binary.
    pub fn spawn(&self, program: &Path) -> Result<ServerProcess, DevWorldError> {
        ServerProcess::spawn(program, &self.config(), &self.dir)
    }

    /// The TLS configuration of a workload's connection to the server.
    pub fn client_config(&self, name: &str) -> Result<ClientConfig, DevWorldError> {
        let spoilt = |e: &dyn std::fmt::Display| DevWorldError::Spoilt(e.to_string());
        let paths = self.svid(name);
        let pair = SvidFiles::new(&paths.certificate, &paths.key).load().map_err(|e| spoilt(&e))?;
        let own = Arc::new(ArcSwap::new(pair.certified_key().clone()));
        let server = SpiffeId::parse(&DevWorld::id(SERVER)).map_err(|e| spoilt(&e))?;
        tls::client_config(Some(own), self.bundles()?, server, &self.system).map_err(|e| spoilt(&e))
    }

    /// The bundles that the workloads trust.
    pub fn bundles(&self) -> Result<tls::CurrentBundles, DevWorldError> {
        let spoilt = |e: &dyn std::fmt::Display| DevWorldError::Spoilt(e.to_string());
        let domain = TrustDomain::parse(TRUST_DOMAIN).map_err(|e| spoilt(&e))?;
        let bundle = Bundle::parse(domain, read(&self.bundle())?.as_bytes()).map_err(|e| spoilt(&e))?;
        Ok(Arc::new(ArcSwap::from_pointee(Bundles::new([Arc::new(bundle)]).unwrap_or_default())))
    }

    /// A channel over mTLS to one of the server's addresses, as one of the workloads.
    pub async fn channel(&self, name: &str, address: SocketAddr) -> Result<Channel, DevWorldError> {
        let connected = client::mtls(address, self.client_config(name)?).await;
        connected.map_err(|e| DevWorldError::Spoilt(format!("no connection to {address}: {e:?}")))
    }

    /// Writes the context file for calling as a workload, and returns its path.
    pub fn write_context(&self, name: &str, address: SocketAddr) -> Result<PathBuf, DevWorldError> {
        let path = self.dir.join(format!("{}.toml", name.replace('/', "-")));
        write_private(&path, self.context_text(name, address).as_bytes())?;
        Ok(path)
    }

    /// The text of the context file for calling as a workload.
    pub fn context_text(&self, name: &str, address: SocketAddr) -> String {
        let paths = self.svid(name);
        let context = ContextFile {
            address: Some(format!("https://{address}")),
            svid: Some(paths.certificate),
            key: Some(paths.key),
            bundle: Some(self.bundle()),
            server_id: Some(DevWorld::id(SERVER)),
            ..ContextFile::default()
        };
        // All values are texts, which TOML can always represent.
        toml::to_string(&context).unwrap_or_default()
    }

    /// The file to which the server writes its addresses when it runs in the background.
    pub fn ready_file(dir: &Path) -> PathBuf {
        dir.join("ready.json")
    }

    /// The addresses of a server in the background, if it answers.
    pub fn addresses(dir: &Path) -> Option<Addresses> {
        serde_json::from_str(&read(&DevWorld::ready_file(dir)).ok()?).ok()
    }
}

/// Opens the CA in the directory of a world. Its errors name that directory.
fn ca_of(dir: &Path, system: &System) -> Result<DevCa, DevWorldError> {
    DevCa::open(dir, TRUST_DOMAIN, system).map_err(|error| match error {
        DevWorldError::Ca(what) => DevWorldError::CaOf { dir: dir.to_owned(), what },
        other => other,
    })
}

/// Whether an interrupted or concurrent `dev up` may have created a file of this name before the marker.
fn is_before_the_marker(name: &str) -> bool {
    let marker = name.strip_prefix(MARKER).and_then(|rest| rest.strip_suffix(TEMPORARY));
    [StartLock::NAME, ServerLock::NAME].contains(&name) || marker.is_some_and(|random| random.starts_with('.'))
}

/// Refuses a directory with files of somebody else.
pub(super) fn refuse_foreign_dir(dir: &Path) -> Result<(), DevWorldError> {
    let foreign = |entry: io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| !entry.file_name().to_str().is_some_and(is_before_the_marker))
    };
    match !is_world(dir) && std::fs::read_dir(dir).is_ok_and(|mut entries| entries.any(foreign)) {
        // Another `dev up` may have written the marker while the names were read.
        true if !is_world(dir) => Err(DevWorldError::NotOurs(dir.to_owned())),
        _ => Ok(()),
    }
}

/// Whether a directory holds a dev world.
pub fn is_world(dir: &Path) -> bool {
    dir.join(MARKER).is_file()
}
