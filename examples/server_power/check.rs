//! The checker: starts a whole server on what a power failure left, and asks it for everything that was acknowledged.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mayfly::cli::dev::{DevSettings, DevWorld, ServerProcess};
use mayfly::ledger::recovery::open::load;
use mayfly::seq::Millis;
use mayfly::serve::client;
use mayfly::server::RunningServer;
use mayfly::store::Store;
use mayfly::store::options::StoreOptions;
use mayfly::store::redb;
use mayfly::store::sled::SledStore;
use mayfly::system::{Clock, System};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::names::{Expected, Named, read};
use crate::{Error, calls};

/// One image in this many is opened by a separate process, as the binary does; the other images are opened by the same start in this
/// process.
const OWN_PROCESS: u64 = 6;
/// Number of credentials that are requested again by their request id.
const AGAIN: usize = 4;
/// After the second start, number of the required items that are checked.
const SECOND_LOOK: usize = 40;
/// Concurrent queries.
const ASKERS: usize = 8;
/// A separate process uses the real clock; an hour after the load, the issued credentials would have expired.
const PROCESS_UNTIL_MS: u64 = 50 * 60_000;

/// The time at which the load ended, plus the time since the checker began: power returns immediately, however long checking takes.
struct Then {
    began: Millis,
    system: System,
}

impl Clock for Then {
    fn wall(&self) -> Millis {
        self.began.plus(self.system.steady())
    }

    fn steady(&self) -> u64 {
        self.system.steady()
    }
}

enum Server {
    Here(RunningServer),
    Process(ServerProcess),
}

impl Server {
    fn workload(&self) -> std::net::SocketAddr {
        match self {
            Server::Here(running) => running.addresses().workload,
            Server::Process(child) => child.addresses().workload,
        }
    }

    fn stop(self) -> Result<(), Error> {
        match self {
            Server::Here(running) => {
                running.stop();
                Ok(())
            }
            Server::Process(child) => {
                let status = child.stop()?;
                if status.success() { Ok(()) } else { Err(format!("it ended with {status}").into()) }
            }
        }
    }
}

struct Image {
    world: DevWorld,
    data: PathBuf,
    in_process: bool,
    clock: System,
}

type Names = Arc<BTreeMap<u64, Named>>;

pub fn run(dir: &Path, data: &Path, expect: &Path, names: &Path) -> Result<(), Error> {
    println!("STAGE prepare");
    let expected = Expected::read(expect)?;
    let names: Names = Arc::new(read(names)?);
    let Some(Named::End { at }) = names.get(&0) else { return Err("the load did not end".into()) };
    let real = System::real();
    let then: Arc<dyn Clock> = Arc::new(Then { began: Millis(*at), system: real.clone() });
    let here = tempfile::tempdir()?;
    let number = data.display().to_string().chars().filter(char::is_ascii_digit).collect::<String>();
    let turn = number.parse::<u64>().unwrap_or_default() % OWN_PROCESS == 0;
    let own = turn && real.wall().since(Millis(*at)) < PROCESS_UNTIL_MS;
    let system = if own { real } else { System::with_clock(then) };
    let world = copy(dir, data, &here.path().join("w"), system.clone())?;
    let image = Image { world, data: data.to_owned(), in_process: !own, clock: system };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;

    println!("STAGE open");
    let from = image.clock.steady();
    let server = image.start()?;
    println!("OPEN ms={}", image.clock.steady() - from);
    println!("STAGE read");
    runtime.block_on(look(&image, &expected, &names, "READ"))?;
    println!("STAGE issue");
    let new = runtime.block_on(goes_on(&image, &server, &expected, &names))?;
    server.stop()?;
    println!("STAGE chain");
    chain(&image.data)?;
    println!("STAGE again");
    let server = image.start()?;
    let (expected, names) = second(expected, &names, new);
    runtime.block_on(look(&image, &expected, &names, "REREAD"))?;
    server.stop()?;
    println!("STAGE done");
    Ok(())
}

/// Copies the server's world beside the image: everything but the store is unchanged.
fn copy(dir: &Path, data: &Path, to: &Path, system: System) -> Result<DevWorld, Error> {
    fn all(from: &Path, to: &Path) -> std::io::Result<()> {
        fs::create_dir(to)?;
        for entry in fs::read_dir(from)? {
            let (entry, kind) = entry.and_then(|e| e.file_type().map(|t| (e, t)))?;
            let to = to.join(entry.file_name());
            if kind.is_dir() {
                all(&entry.path(), &to)?;
            } else if kind.is_file() {
                fs::copy(entry.path(), &to)?;
            }
        }
        Ok(())
    }
    all(dir, to)?;
    let config = to.join("mayfly.toml");
    let text = fs::read_to_string(&config)?;
    let lines = text.lines().map(|line| match line.split_once(" = ") {
        Some(("path", _)) => format!("path = {:?}\n", data.display().to_string()),
        _ => format!("{line}\n"),
    });
    fs::write(&config, lines.collect::<String>())?;
    Ok(DevWorld::create(to, &DevSettings { system, ..DevSettings::default() })?)
}

impl Image {
    fn start(&self) -> Result<Server, Error> {
        if self.in_process {
            return Ok(Server::Here(self.world.start().map_err(|no| no.to_string())?));
        }
        let target = std::env::current_exe()?;
        let program = target.ancestors().nth(2).ok_or("no folder for programs")?.join("mayfly");
        Ok(Server::Process(self.world.spawn(&program)?))
    }

    async fn operator(&self) -> Result<Channel, Error> {
        Ok(client::unix(&self.world.dir().join("run/admin.sock")).await?)
    }
}

#[derive(Default)]
struct Found {
    lost: Vec<u64>,
    wrong: Vec<u64>,
    back: Vec<u64>,
}

/// Asks for everything that was named, and prints the line that the runner reads.
async fn look(image: &Image, expected: &Expected, names: &Names, tag: &str) -> Result<(), Error> {
    let operator = image.operator().await?;
    let locks = Arc::new(calls::locks(&operator).await?);
    let keys = Arc::new(calls::keys(&operator).await?);
    let asked: Vec<u64> =
        expected.there.iter().chain(&expected.gone).chain(&expected.either).copied().filter(|n| names.contains_key(n)).collect();
    let mut askers = JoinSet::new();
    for part in asked.chunks(asked.len().div_ceil(ASKERS).max(1)) {
        let (part, operator, names, locks, keys) = (part.to_vec(), operator.clone(), names.clone(), locks.clone(), keys.clone());
        askers.spawn(async move {
            let mut found = Vec::new();
            for n in part {
                if let Some(named) = names.get(&n) {
                    found.push((n, stands(&operator, named, &locks, &keys).await?));
                }
            }
            Ok::<_, Error>(found)
        });
    }
    let mut out = Found::default();
    while let Some(found) = askers.join_next().await {
        for (n, (there, exact)) in found?? {
            match () {
                () if expected.gone.contains(&n) && there => out.back.push(n),
                () if expected.there.contains(&n) && !there => out.lost.push(n),
                () if there && !exact => out.wrong.push(n),
                () => {}
            }
        }
    }
    let unnamed = expected.there.iter().filter(|n| !names.contains_key(n)).count();
    if unnamed > 0 {
        return Err(format!("{unnamed} acknowledged answers have no name").into());
    }
    println!("{tag} lost={:?} wrong={:?} back={:?}", out.lost, out.wrong, out.back);
    Ok(())
}

/// Whether the named item is in effect, and whether it is exactly what was answered.
async fn stands(operator: &Channel, named: &Named, locks: &[u64], keys: &[String]) -> Result<(bool, bool), Error> {
    Ok(match named {
        Named::Credential { token, .. } => match calls::active(operator, token).await? {
            true => (true, calls::issued(operator, token).await?),
            false => (false, true),
        },
        Named::Task { id } => (calls::task_active(operator, id).await? == Some(true), true),
        Named::Lock { seq } => (locks.contains(seq), true),
        Named::Key { id } => (keys.contains(id), true),
        Named::End { .. } => (true, true),
    })
}

/// Checks that issuing continues: a new credential, and retries that get the same credential.
async fn goes_on(image: &Image, server: &Server, expected: &Expected, names: &Names) -> Result<Named, Error> {
    let agent = image.world.channel("agent/demo", server.workload()).await?;
    let repeated = expected.there.iter().rev().filter_map(|n| names.get(n)).filter_map(|named| match named {
        Named::Credential { token, ask: Some(ask), .. } => Some((token, ask)),
        _ => None,
    });
    for (token, ask) in repeated.take(AGAIN) {
        let Named::Credential { token: again, .. } = calls::exchange(&agent, Some(ask.clone())).await? else {
            return Err("no credential".into());
        };
        // Two signatures over the same claims differ.
        let said = |t: &str| t.rsplit_once('.').map_or(t.to_owned(), |(said, _)| said.to_owned());
        if said(&again) != said(token) {
            return Err("a repeated request was answered with another credential".into());
        }
    }
    calls::exchange(&agent, None).await
}

/// Checks that the log is complete from its first commit to its head, and that folding all of it gives the same state as starting from a
/// snapshot.
fn chain(data: &Path) -> Result<(), Error> {
    let options = StoreOptions { reserve_bytes: 0, ..StoreOptions::new([0; 16]) };
    let store: Box<dyn Store> = match SledStore::is_in(data) {
        true => Box::new(SledStore::open(data, &options)?),
        false => Box::new(redb::open(data, &options)?),
    };
    let whole = load(&*store, None)?;
    let short = load(&*store, Some(&data.join("snapshots")))?;
    if whole.state.digest()? != short.state.digest()? {
        return Err("a start from a snapshot comes to another state".into());
    }
    if whole.state.position != store.head()? {
        return Err("the log was not folded to its head".into());
    }
    Ok(())
}

/// The expectation for the second start: everything that must be gone, the newest of what must be there, and what was created since.
fn second(expected: Expected, names: &Names, new: Named) -> (Expected, Names) {
    let n = names.keys().last().copied().unwrap_or_default() + 1;
    let mut names = BTreeMap::clone(names);
    names.insert(n, new);
    let mut there: std::collections::BTreeSet<u64> = expected.there.iter().rev().take(SECOND_LOOK).copied().collect();
    there.insert(n);
    (Expected { there, ..expected }, Arc::new(names))
}
