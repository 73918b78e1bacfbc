//! The command `mayfly dev up`.

use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::child::end_of;
use super::files::write_private;
use super::locks::{ServerLock, StartLock};
use super::settings::{DevEngine, DevSettings, Ports};
use super::world::{DevWorld, DevWorldError, is_world};
use super::{DirArgs, dir_flag, no_dir};
use crate::context::default_path;
use crate::error::CliError;
use crate::exit::Exit;
use crate::out::{Format, Out, Printable};
use mayfly_base::bounded_file;
use mayfly_base::document::remedy::shell_quoted;
use mayfly_base::limits;
use mayfly_base::system::System;
use mayfly_config::config::Config;
use mayfly_server::{Addresses, run, telemetry};

/// The first port of the dev server.
const PORT: u16 = 7443;
/// The longest wait for a server in the background.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Arguments of `mayfly dev up`.
#[derive(Args)]
pub struct UpArgs {
    #[command(flatten)]
    at: DirArgs,
    /// Leave the server running in the background
    #[arg(long)]
    detach: bool,
    /// Storage engine of a new dev server
    #[arg(long, value_enum, default_value_t)]
    engine: DevEngine,
    /// First of three loopback ports of a new dev server, whose issuer is https://localhost with the third port; 0 picks free ports at each
    /// start, and the issuer is then only a name. A dev server that exists keeps its ports [default: 7443]
    #[arg(long, value_name = "PORT", value_parser = first_port)]
    port: Option<u16>,
    /// The world was created by the process that starts this one, which holds the lock on starting it
    #[arg(long, hide = true, conflicts_with = "detach")]
    created: bool,
}

/// Parses the first of three ports, which all have to exist.
fn first_port(text: &str) -> Result<u16, String> {
    const LAST: u16 = u16::MAX - 2;
    match text.parse::<u16>() {
        Ok(port) if port <= LAST => Ok(port),
        _ => Err(format!("{text:?} is no first one of three ports: expected a number from 0 to {LAST}")),
    }
}

/// Runs the command.
pub(super) fn run(args: &UpArgs, out: Out) -> Result<Exit, CliError> {
    let dir = args.at.dir().ok_or_else(no_dir)?;
    if args.created {
        return serve_in_background(&DevWorld::open(&dir)?, out);
    }
    let starting = StartLock::wait(&dir, out)?;
    if let Some(port) = args.port.filter(|_| is_world(&dir)) {
        refuse_other_port(&dir, port)?;
    }
    if ServerLock::is_held(&dir)? {
        return report_running(&DevWorld::open(&dir)?, out);
    }
    let world = DevWorld::create(&dir, &settings(args))?;
    // In the background the lock is held until the server answers; in the foreground until the server holds its own lock.
    if args.detach { background(&world, out) } else { foreground(&world, starting, out) }
}

/// Refuses a port that a dev server which exists does not have: its configuration is written once and belongs to the user from then on.
fn refuse_other_port(dir: &Path, port: u16) -> Result<(), CliError> {
    let file = dir.join("mayfly.toml");
    // A configuration that cannot be read is reported by the start.
    let Ok(config) = Config::load(&file, []) else { return Ok(()) };
    let own = match config.listen.workload.port() {
        own if own == port => return Ok(()),
        0 => "picks free ports at each start".to_owned(),
        own => format!("has {own} as its first port"),
    };
    let (shown, file, flag) = (dir.display(), shell_quoted(&file), dir_flag(dir));
    Err(CliError::Usage(format!(
        "--port {port}: the dev server of {shown} exists and {own}; --port is for a new one\n  to start it as it is: mayfly dev up{flag}\n  to give \
         it other ports: edit workload, admin and public under [listen], and the port in issuer under [server], in {file}\n  to begin anew \
         without its ledger, CA, keys and SVIDs: mayfly dev down --purge{flag} && mayfly dev up --port {port}{flag}"
    )))
}

fn settings(args: &UpArgs) -> DevSettings {
    let ports = match args.port.unwrap_or(PORT) {
        0 => Ports::Free,
        first => Ports::From(first),
    };
    DevSettings { engine: args.engine, ports, ..DevSettings::default() }
}

fn foreground(world: &DevWorld, starting: StartLock, out: Out) -> Result<Exit, CliError> {
    let Some(_lock) = ServerLock::take(world.dir())? else {
        return report_running(world, out);
    };
    drop(starting);
    serve(world, |addresses| {
        if let Err(error) = print_next_steps(world, addresses, "started", None, out) {
            out.fail(&error);
        }
    })
}

/// Serves as the process that `dev up --detach` started. That process prints the next steps and writes the context files, and this one does
/// neither.
fn serve_in_background(world: &DevWorld, out: Out) -> Result<Exit, CliError> {
    let Some(_lock) = ServerLock::take(world.dir())? else {
        return report_running(world, out);
    };
    serve(world, |_| {})
}

fn serve(world: &DevWorld, on_start: impl FnOnce(&Addresses)) -> Result<Exit, CliError> {
    // Logging starts before the server does, so that the renewal of SVIDs never waits for a reader of stderr either.
    telemetry::begin();
    let ready = DevWorld::ready_file(world.dir());
    let config = world.config();
    std::thread::scope(|scope| {
        let (stop, stopped) = mpsc::channel::<()>();
        scope.spawn(move || keep_renewed(world, &stopped));
        let ended = run::run_without_environment(&config, Some(&ready), on_start);
        drop(stop);
        ended.map(|()| Exit::Ok).map_err(CliError::from)
    })
}

/// Renews SVIDs at half of their lifetime, until the other end of the channel is dropped.
fn keep_renewed(world: &DevWorld, stopped: &mpsc::Receiver<()>) {
    let half = Duration::from_millis((world.svid_life_ms() / 2).max(1000));
    while stopped.recv_timeout(half) == Err(RecvTimeoutError::Timeout) {
        match world.renew() {
            Ok(()) => tracing::info!("the SVIDs of the dev world were renewed"),
            Err(no) => tracing::error!(%no, "the SVIDs of the dev world were not renewed"),
        }
    }
}

fn background(world: &DevWorld, out: Out) -> Result<Exit, CliError> {
    let io = |what: &'static str, path: &Path| {
        let path = path.to_owned();
        move |error| DevWorldError::Io { what, path, error }
    };
    let log = world.dir().join("mayfly.log");
    let file = || OpenOptions::new().create(true).append(true).mode(0o600).open(&log).map_err(io("making", &log));
    let program = std::env::current_exe().map_err(io("finding", Path::new("this program")))?;
    let _ = std::fs::remove_file(DevWorld::ready_file(world.dir()));
    let mut command = Command::new(program);
    command.args(["dev", "up", "--created", "--dir"]).arg(world.dir()).stdin(Stdio::null()).stdout(file()?).stderr(file()?);
    // A process group of its own: Ctrl-C at this terminal must not reach the server.
    command.process_group(0);
    let mut child = command.spawn().map_err(io("starting", Path::new("the server")))?;
    let began = System::real();
    while began.steady() < u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX) {
        if let Some(addresses) = DevWorld::addresses(world.dir()).filter(|a| a.pid == child.id()) {
            print_next_steps(world, &addresses, "started", Some(&log), out)?;
            return Ok(Exit::Ok);
        }
        if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            return Err(DevWorldError::Ended(end_of(&log)).into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = child.kill();
    let _ = child.wait();
    Err(DevWorldError::Silent { seconds: PATIENCE.as_secs(), log }.into())
}

fn report_running(world: &DevWorld, out: Out) -> Result<Exit, CliError> {
    out.say(format_args!("mayfly: the dev server of {} runs already", world.dir().display()));
    // The server may be starting or stopping, and then reports no addresses.
    if let Some(addresses) = DevWorld::addresses(world.dir()) {
        print_next_steps(world, &addresses, "running", None, out)?;
    }
    Ok(Exit::Ok)
}

/// The JSON output for a running dev server.
#[derive(Serialize)]
struct Serving {
    /// `started`, or `running` if the server was running before.
    state: &'static str,
    trust_domain: &'static str,
    dir: PathBuf,
    pid: u32,
    workload: SocketAddr,
    admin: SocketAddr,
    admin_socket: Option<PathBuf>,
    public: SocketAddr,
    /// The context file of the operator.
    operator_config: PathBuf,
    /// The context file of the sample workload.
    agent_config: PathBuf,
    /// The command line calls this server as the operator by default.
    found_by_default: bool,
    /// The log file of a server left in the background.
    log: Option<PathBuf>,
}

impl Printable for Serving {
    fn name(&self) -> String {
        self.dir.display().to_string()
    }
}

/// Prints how to continue. stdout gets commands for a shell to evaluate, or the whole as JSON; stderr gets the text for people.
fn print_next_steps(
    world: &DevWorld,
    addresses: &Addresses,
    state: &'static str,
    log: Option<&Path>,
    out: Out,
) -> Result<(), CliError> {
    let serving = Serving {
        state,
        trust_domain: super::TRUST_DOMAIN,
        dir: world.dir().to_owned(),
        pid: addresses.pid,
        workload: addresses.workload,
        admin: addresses.admin,
        admin_socket: addresses.admin_socket.clone(),
        public: addresses.public,
        operator_config: world.write_context("operator/you", addresses.admin)?,
        agent_config: world.write_context("agent/demo", addresses.workload)?,
        found_by_default: write_default_context(world, addresses),
        log: log.map(Path::to_owned),
    };
    out.say(format_args!("mayfly dev: serving {} from {}", super::TRUST_DOMAIN, world.dir().display()));
    let Addresses { workload, admin, public, .. } = addresses;
    out.say(format_args!("  workloads {workload}   operators {admin}   everybody https://{public}"));
    if let Some(socket) = &addresses.admin_socket {
        out.say(format_args!("  this host's operators unix:{}", socket.display()));
    }
    out.say("\nyou are operator/you; type next:");
    match out.format() {
        Format::Table | Format::Wide if serving.found_by_default => {}
        Format::Table | Format::Wide => {
            out.text(&format!("export MAYFLY_CONFIG={}", serving.operator_config.display()))?;
        }
        Format::Json | Format::Yaml | Format::Name | Format::Csv => out.one(&serving)?,
    }
    out.say("  mayfly status");
    out.say(format_args!("  mayfly --config {} get echo --purpose \"first try\" | cat", serving.agent_config.display()));
    out.say("  mayfly credential list");
    // Without --issued-only the sample workload would be locked until an operator lifts the lock.
    out.say(format_args!("  mayfly revoke --caller {} --issued-only --reason \"done\"", DevWorld::id("agent/demo")));
    let dir = dir_flag(world.dir());
    out.say(format_args!("  mayfly dev svid mcp/notes{dir}        # an SVID for a workload of your own"));
    if let Some(log) = log {
        out.say(format_args!("\nlog: {}\nto end it: mayfly dev down --dir {}", log.display(), shell_quoted(world.dir())));
    }
    Ok(())
}

/// Writes the default context file, so that the command line uses this world by default, and returns whether it does. A file that is
/// missing is made; one that differs in the address alone is of an earlier start of this world and is written anew; one with other content
/// belongs to the user and is kept.
fn write_default_context(world: &DevWorld, addresses: &Addresses) -> bool {
    let Some(path) = default_path() else { return false };
    let text = world.context_text("operator/you", addresses.admin);
    let other_lines =
        |text: &str| text.lines().filter(|line| !line.starts_with("address")).map(str::to_owned).collect::<Vec<_>>();
    match bounded_file::read_text(&path, limits::CONTEXT_FILE_BYTES) {
        Ok(found) if *found == text => true,
        Ok(found) if other_lines(&found) == other_lines(&text) => write_private(&path, text.as_bytes()).is_ok(),
        Ok(_) => false,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let made = path.parent().is_some_and(|dir| super::files::private_dir(dir).is_ok());
            made && write_private(&path, text.as_bytes()).is_ok()
        }
        Err(_) => false,
    }
}
