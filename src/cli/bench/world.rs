//! The world of a measurement: fifty policies, twelve upstreams, and as many agents as connections.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::{BenchArgs, Failed};
use crate::cli::dev::{Child, Settings, TRUST_DOMAIN, World};
use crate::policy::sample;

/// The team whose agents exchange.
const TEAM: &str = sample::TEAMS[0];

/// A world, and its server.
pub struct Bench {
    pub world: World,
    pub address: SocketAddr,
    pub pid: u32,
    pub socket: Option<PathBuf>,
    child: Option<Child>,
    scratch: Option<PathBuf>,
}

impl Bench {
    /// The upstream that is asked for.
    pub fn upstream() -> String {
        format!("{TEAM}-api")
    }

    /// The workload of a connection.
    pub fn agent(n: u32) -> String {
        format!("agent/{TEAM}/{n}")
    }

    /// Ends the server and removes what was made for it.
    pub fn end(mut self) -> Result<(), Failed> {
        if let Some(child) = self.child.take() {
            child.stop()?;
        }
        Ok(())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        drop(self.child.take());
        if let Some(dir) = &self.scratch {
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}

/// Makes the world and starts its server, or finds one that runs.
pub fn prepare(args: &BenchArgs) -> Result<Bench, Failed> {
    let settings = Settings { engine: args.engine, ..Settings::default() };
    let settings = settings.with("store.disk_reserve", "\"64MiB\"");
    let name = data_encoding::HEXLOWER.encode(&settings.system.random16());
    let scratch = args.dir.is_none().then(|| std::env::temp_dir().join(format!("mayfly-bench-{name}")));
    let dir = args.dir.clone().or_else(|| scratch.clone()).unwrap_or_default();
    let settings =
        if args.engine == crate::cli::dev::Engine::Memory { Settings { set: Vec::new(), ..settings } } else { settings };
    let world = World::create(&dir, &settings)?;
    furnish(world.dir())?;
    for n in 0..args.connections {
        world.issue(&Bench::agent(n), world.svid_life_ms())?;
    }
    let mut bench = match args.running {
        Some(address) => {
            let addresses = World::addresses(&dir).ok_or("no server of this world answers")?;
            Bench { world, address, pid: addresses.pid, socket: addresses.admin_socket, child: None, scratch }
        }
        None => {
            let child = world.spawn(&std::env::current_exe()?)?;
            let (at, pid) = (child.addresses().clone(), child.pid());
            Bench { world, address: at.workload, pid, socket: at.admin_socket, child: Some(child), scratch }
        }
    };
    bench.socket = bench.socket.take().map(|s| bench.world.dir().join(s));
    Ok(bench)
}

/// Fifty policies instead of the samples.
fn furnish(dir: &Path) -> Result<(), Failed> {
    let (policies, roles) = sample::fifty();
    // The dev world has its own names; the policies are the same.
    let here = |text: &str| {
        text.replace(sample::TRUST_DOMAIN, TRUST_DOMAIN)
            .replace("Environment::\"bench\"", "Environment::\"dev\"")
            .replace("[environment.bench]", "[environment.dev]")
    };
    let cedar: String = policies.iter().map(|p| here(&p.text)).collect();
    // Whoever looks at the server meanwhile is still an operator.
    let operators = "\n@id(\"operators\")\npermit (principal in Role::\"operator\", action in Action::\"Admin\", resource);\n";
    std::fs::write(dir.join("policy/policy.cedar"), format!("{cedar}{operators}"))?;
    let role = format!("[role.operator]\nunder = [\"spiffe://{TRUST_DOMAIN}/operator\"]\n");
    std::fs::write(dir.join("policy/roles.toml"), format!("{role}{}", here(&roles.text)))?;
    let upstreams = dir.join("policy/upstreams");
    for sample in ["echo.toml", "github.toml", "tickets.toml"] {
        let _ = std::fs::remove_file(upstreams.join(sample));
    }
    for team in sample::TEAMS {
        std::fs::write(upstreams.join(format!("{team}.toml")), registration(team))?;
    }
    Ok(())
}

fn registration(team: &str) -> String {
    format!(
        "name = \"{team}-api\"\nowner = \"{team}\"\npurpose = \"the {team} service\"\nenvironment = \"dev\"\n\
         audience = \"https://{team}.{TRUST_DOMAIN}\"\ntarget = \"https://{team}.{TRUST_DOMAIN}\"\n\
         servers = [\"spiffe://{TRUST_DOMAIN}/service/{team}\"]\napprovers = []\nkinds = [\"jwt\", \"reference\"]\n\
         scopes = [\"read\", \"list\", \"write\", {{ name = \"admin\", sensitive = true }}]\nexpires = 2099-12-31\n\n\
         [classification]\nsystem = \"{team}\"\nprivilege = \"write\"\nblast_radius = \"medium\"\n\n\
         [ttl]\nmin = \"1s\"\ndefault = \"5m\"\nmax = \"1h\"\n"
    )
}
