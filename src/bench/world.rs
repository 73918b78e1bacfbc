//! The environment of a measurement: policies, an upstream for each team, and as many workloads as connections.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tonic::transport::Channel;

use super::{BenchError, sample};
use mayfly_api::client;
use mayfly_cli::dev::{DevEngine, DevSettings, DevWorld, SVID_LIFE_MS, ServerProcess, TRUST_DOMAIN};

/// The team whose workloads exchange.
pub const TEAM: &str = sample::TEAMS[0];

/// A policy that reads values that are different in each request or change with each: no decision of the set can be cached.
const UNCACHED: &str = r#"
@id("not-the-same-arguments-again-and-again")
forbid (principal, action in Action::"Work", resource)
when { context has arguments_digest && context.arguments_digest == "" && context.counts.issued_in_task > 1000000 };
"#;

/// The parameters of the environment.
#[derive(Clone)]
pub struct BenchPlan {
    /// The storage engine.
    pub engine: DevEngine,
    /// The number of policies in the set.
    pub policies: u32,
    /// Whether a policy reads values that cannot be cached.
    pub uncached: bool,
    /// Server threads for workloads.
    pub workers: Option<u32>,
    /// Workloads, each with its own SVID.
    pub agents: u32,
    /// Further keys of the configuration.
    pub set: Vec<(String, String)>,
    /// The directory; `None` for a temporary one.
    pub dir: Option<PathBuf>,
    /// The address of a server that already runs in the directory.
    pub running: Option<SocketAddr>,
    /// The cores that the server is pinned to, and those of the generator.
    pub cores: Option<(Vec<usize>, Vec<usize>)>,
}

impl BenchPlan {
    /// The default of `mayfly bench`.
    pub fn usual(engine: DevEngine) -> BenchPlan {
        let (policies, uncached, workers, agents) = (50, false, None, 4);
        BenchPlan { engine, policies, uncached, workers, agents, set: Vec::new(), dir: None, running: None, cores: None }
    }

    /// Adds a key of the configuration, its value as TOML.
    pub fn with(mut self, key: &str, toml: String) -> BenchPlan {
        self.set.push((key.to_owned(), toml));
        self
    }
}

/// The environment and its server.
pub struct BenchServer {
    pub world: DevWorld,
    pub address: SocketAddr,
    pub pid: u32,
    pub socket: Option<PathBuf>,
    child: Option<ServerProcess>,
    scratch: Option<PathBuf>,
}

impl BenchServer {
    /// The upstream of the load.
    pub fn upstream() -> String {
        format!("{TEAM}-api")
    }

    /// The workload of a connection.
    pub fn agent(n: u32) -> String {
        format!("agent/{TEAM}/{n}")
    }

    /// A channel of the operator of this host, if the server has a socket.
    pub async fn operator(&self) -> Result<Option<Channel>, BenchError> {
        match &self.socket {
            Some(path) => Ok(Some(client::unix(path).await?)),
            None => Ok(None),
        }
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.world.dir().join("data")
    }

    /// Kills the server with SIGKILL and starts it. Returns the seconds until it answers again.
    pub fn kill_and_start(&mut self) -> Result<f64, BenchError> {
        let child = self.child.take().ok_or("only a server that was started here is killed")?;
        child.kill();
        let from = std::time::Instant::now();
        self.child = Some(self.world.spawn(&std::env::current_exe()?)?);
        let took = from.elapsed().as_secs_f64();
        self.found();
        Ok(took)
    }

    /// Stops the server, calls `work` with the path of the server's configuration, and starts the server.
    pub fn stopped(&mut self, work: impl FnOnce(&Path) -> Result<(), BenchError>) -> Result<(), BenchError> {
        self.child.take().ok_or("only a server that was started here is stopped")?.stop()?;
        work(&self.world.dir().join("mayfly.toml"))?;
        self.child = Some(self.world.spawn(&std::env::current_exe()?)?);
        self.found();
        Ok(())
    }

    fn found(&mut self) {
        if let Some(child) = &self.child {
            let at = child.addresses();
            (self.address, self.pid) = (at.workload, child.pid());
            self.socket = at.admin_socket.as_ref().map(|s| self.world.dir().join(s));
        }
    }

    /// Stops the server and removes the files made for it.
    pub fn end(mut self) -> Result<(), BenchError> {
        if let Some(child) = self.child.take() {
            child.stop()?;
        }
        Ok(())
    }
}

impl Drop for BenchServer {
    fn drop(&mut self) {
        drop(self.child.take());
        if let Some(dir) = &self.scratch {
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}

/// Creates the environment and starts its server, or uses a running server.
pub fn prepare(plan: &BenchPlan) -> Result<BenchServer, BenchError> {
    // A connection ends with its SVID, so no measurement may last longer than the SVIDs.
    let mut settings = DevSettings { engine: plan.engine, svid_life_ms: 12 * SVID_LIFE_MS, ..DevSettings::default() };
    if plan.engine != DevEngine::Memory {
        settings = settings.with("store.disk_reserve", "\"64MiB\"");
    }
    if let Some(workers) = plan.workers {
        settings = settings.with("server.workers", &workers.to_string());
    }
    settings.set.extend(plan.set.iter().cloned());
    let name = data_encoding::HEXLOWER.encode(&settings.system.random16());
    let scratch = plan.dir.is_none().then(|| std::env::temp_dir().join(format!("mayfly-bench-{name}")));
    let dir = plan.dir.clone().or_else(|| scratch.clone()).unwrap_or_default();
    let world = DevWorld::create(&dir, &settings)?;
    furnish(world.dir(), plan)?;
    for n in 0..plan.agents {
        world.issue(&BenchServer::agent(n), world.svid_life_ms())?;
    }
    if let Some(address) = plan.running {
        let addresses = DevWorld::addresses(&dir).ok_or("no server of this world answers")?;
        let socket = addresses.admin_socket.map(|s| world.dir().join(s));
        return Ok(BenchServer { world, address, pid: addresses.pid, socket, child: None, scratch });
    }
    if let Some((server, _)) = &plan.cores {
        pin(server)?;
    }
    let child = world.spawn(&std::env::current_exe()?)?;
    if let Some((_, ours)) = &plan.cores {
        pin(ours)?;
    }
    let (address, pid) = (child.addresses().workload, child.pid());
    let mut bench = BenchServer { world, address, pid, socket: None, child: Some(child), scratch };
    bench.found();
    Ok(bench)
}

/// Pins this thread, and threads started by it from now on, to some cores.
pub fn pin(to: &[usize]) -> Result<(), BenchError> {
    let mut cores = CpuSet::new();
    to.iter().for_each(|core| cores.set(*core));
    sched_setaffinity(None, &cores).map_err(|error| format!("cores {to:?}: {error}").into())
}

/// The cores that this thread may use.
pub fn cores() -> Result<Vec<usize>, BenchError> {
    let ours = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| ours.is_set(*core)).collect())
}

/// The cores in two halves, the first of them for the server.
pub fn halves() -> Result<(Vec<usize>, Vec<usize>), BenchError> {
    let mut server = cores()?;
    if server.len() < 2 {
        return Err("the server and the generator need a core each".into());
    }
    let generator = server.split_off(server.len() / 2);
    Ok((server, generator))
}

/// Writes the measurement's policies in place of the sample policies.
fn furnish(dir: &Path, plan: &BenchPlan) -> Result<(), BenchError> {
    let count = plan.policies.saturating_sub(u32::from(plan.uncached)) as usize;
    let (policies, roles) = sample::some(count);
    // The dev world uses other names for the same policies.
    let here = |text: &str| {
        text.replace(sample::TRUST_DOMAIN, TRUST_DOMAIN)
            .replace("Environment::\"bench\"", "Environment::\"dev\"")
            .replace("[environment.bench]", "[environment.dev]")
    };
    let cedar: String = policies.iter().map(|p| here(&p.text)).collect();
    // A person who inspects the server during the measurement is still an operator.
    let operators = "\n@id(\"operators\")\npermit (principal in Role::\"operator\", action in Action::\"Admin\", resource);\n";
    let uncached = if plan.uncached { UNCACHED } else { "" };
    std::fs::write(dir.join("policy/policy.cedar"), format!("{cedar}{uncached}{operators}"))?;
    let role = format!("[role.operator]\nunder = [\"spiffe://{TRUST_DOMAIN}/operator\"]\n");
    std::fs::write(dir.join("policy/roles.toml"), format!("{role}{}", here(&roles.text)))?;
    let upstreams = dir.join("policy/upstreams");
    for sample in ["echo.toml", "repos.toml", "tickets.toml"] {
        let _ = std::fs::remove_file(upstreams.join(sample));
    }
    for team in sample::teams(count) {
        std::fs::write(upstreams.join(format!("{team}.toml")), registration(&team))?;
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
