//! The configuration of a dev world.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::world::{SERVER, TRUST_DOMAIN};
use mayfly_base::system::System;

/// Lifetime of dev SVIDs, milliseconds: SPIRE's default.
pub const SVID_LIFE_MS: u64 = 3600 * 1000;

/// The storage engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum DevEngine {
    /// redb, in the directory of the server's files
    #[default]
    Redb,
    /// sled, in the directory of the server's files
    Sled,
    /// In memory; all data is lost when the process ends
    Memory,
}

impl DevEngine {
    /// The name of the engine in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            DevEngine::Redb => "redb",
            DevEngine::Sled => "sled",
            DevEngine::Memory => "memory",
        }
    }
}

/// The loopback ports of the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ports {
    /// Free ports, new at each start, as `RunningServer::addresses` reports them.
    Free,
    /// The given port for workloads, and the next two ports for operators and for the public listener.
    From(u16),
}

/// The parameters of a world.
#[derive(Clone)]
pub struct DevSettings {
    /// The engine.
    pub engine: DevEngine,
    /// The ports.
    pub ports: Ports,
    /// Lifetime of SVIDs, milliseconds.
    pub svid_life_ms: u64,
    /// Keys of the configuration that extend or replace those of a dev world: `("limits.connections", "8")`, the value as TOML.
    pub set: Vec<(String, String)>,
    /// Time and randomness.
    pub system: System,
}

impl Default for DevSettings {
    fn default() -> DevSettings {
        let system = System::real();
        DevSettings { engine: DevEngine::Redb, ports: Ports::Free, svid_life_ms: SVID_LIFE_MS, set: Vec::new(), system }
    }
}

impl DevSettings {
    /// Sets a key of the configuration, its value as TOML.
    pub fn with(mut self, key: &str, toml: &str) -> DevSettings {
        self.set.push((key.to_owned(), toml.to_owned()));
        self
    }
}

/// The text of the configuration. Paths are relative to the world's directory.
pub(super) fn config_text(settings: &DevSettings) -> String {
    let ports = match settings.ports {
        Ports::Free => [0, 0, 0],
        Ports::From(first) => [first, first.saturating_add(1), first.saturating_add(2)],
    };
    let public = if ports[2] == 0 { format!("https://{TRUST_DOMAIN}") } else { format!("https://localhost:{}", ports[2]) };
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let mut keys: BTreeMap<&str, String> = BTreeMap::from([
        ("server.trust_domain", quoted(TRUST_DOMAIN)),
        ("server.environments", "[\"dev\"]".to_owned()),
        ("server.issuer", quoted(&public)),
        ("listen.workload", quoted(&format!("127.0.0.1:{}", ports[0]))),
        ("listen.admin", quoted(&format!("127.0.0.1:{}", ports[1]))),
        ("listen.admin_socket", quoted("run/admin.sock")),
        ("listen.public", quoted(&format!("127.0.0.1:{}", ports[2]))),
        ("tls.certificate", quoted(&format!("svid/{SERVER}/svid.pem"))),
        ("tls.key", quoted(&format!("svid/{SERVER}/key.pem"))),
        ("store.engine", quoted(settings.engine.name())),
        ("seal.key_file", quoted("seal.key")),
        ("policy.files", "[\"policy/policy.cedar\"]".to_owned()),
        ("policy.roles", quoted("policy/roles.toml")),
        ("policy.upstreams", quoted("policy/upstreams")),
    ]);
    if settings.engine != DevEngine::Memory {
        keys.insert("store.path", quoted("data"));
        keys.insert("store.disk_reserve", quoted("8MiB"));
    }
    keys.extend(settings.set.iter().map(|(key, value)| (key.as_str(), value.clone())));
    let mut text = "# A dev server. `mayfly dev up` wrote this once and leaves it as it is from here on.\n".to_owned();
    let mut section = "";
    for (key, value) in &keys {
        let (of, name) = key.split_once('.').unwrap_or(("", key));
        if of != section {
            section = of;
            let _ = writeln!(text, "\n[{of}]");
        }
        let _ = writeln!(text, "{name} = {value}");
    }
    let _ = writeln!(text, "\n[[bundles]]\ntrust_domain = \"{TRUST_DOMAIN}\"\nfile = \"bundle.pem\"");
    text
}
