//! `mayfly server run`: runs in the foreground until it is told to stop.

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::Signal as Number;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::reload::{ConfigOrigin, Reloader};
use super::start::start_given;
use super::telemetry::{self, Format};
use super::{
    Addresses, RunningServer, StartFailure, StartProblem, config_mapping::built_in_connectors, file_limit, harden, memory,
    server_identity,
};
use mayfly_base::atomic_file::{self, SHARED, may_be_replaced};
use mayfly_base::limits;
use mayfly_base::log_queue;
use mayfly_base::system::System;
use mayfly_config::config::Config;

/// Runs a server until SIGTERM or SIGINT, which shut it down cleanly. A second signal ends it at once, without losing anything
/// acknowledged. SIGHUP reloads the configuration.
///
/// `ready`: a file that receives the addresses as JSON once the server answers, and is removed when the server stops.
///
/// `log`: the format of log lines, if a command-line option overrides the configuration.
pub fn run(
    config: &Path,
    log: Option<Format>,
    ready: Option<&Path>,
    on_start: impl FnOnce(&Addresses),
) -> Result<(), StartProblem> {
    // First, so that the report of a refused configuration does not block on a stderr that nobody reads.
    telemetry::begin();
    let loaded = Config::load(config, super::environment()).map_err(|wrong| StartProblem::config(config, wrong))?;
    telemetry::init(log.or(loaded.log.format), &loaded.log.level);
    serve(&loaded, ready, on_start, Some(ConfigOrigin { file: config.to_owned(), environment: super::environment }))
}

/// As [`run`], without environment variables: exports made for the command line must not affect a dev server. SIGHUP, sent when its
/// terminal closes, ends it.
pub fn run_without_environment(
    config: &Path,
    ready: Option<&Path>,
    on_start: impl FnOnce(&Addresses),
) -> Result<(), StartProblem> {
    telemetry::begin();
    let loaded = Config::load(config, []).map_err(|wrong| StartProblem::config(config, wrong))?;
    telemetry::init(Some(Format::Text), &loaded.log.level);
    serve(&loaded, ready, on_start, None)
}

/// The signals that a server handles.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    _ignored: Vec<Signal>,
}

impl Signals {
    /// Registers the handlers in a runtime. From here on none of these signals ends the process by default: SIGUSR1 and SIGUSR2 are
    /// ignored, and exceeding the file size limit (SIGXFSZ) becomes a failed write.
    fn new() -> std::io::Result<Signals> {
        let ignored = [
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
            SignalKind::alarm(),
            SignalKind::from_raw(Number::XFSZ.as_raw()),
        ];
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            _ignored: ignored.into_iter().map(signal).collect::<Result<_, _>>()?,
        })
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The events that the main thread waits for.
enum Event {
    Stop,
    Reload,
    Look,
}

/// `origin`: where SIGHUP reloads the configuration from. Without it SIGHUP ends the server, as for a dev server whose terminal closes.
fn serve(
    config: &Config,
    ready: Option<&Path>,
    on_start: impl FnOnce(&Addresses),
    origin: Option<ConfigOrigin>,
) -> Result<(), StartProblem> {
    harden::harden();
    if let Some(path) = ready {
        let no_file = |error| StartProblem::new(StartFailure::ReadyFile { path: path.to_owned(), error }, config);
        may_be_replaced(path).map_err(no_file)?;
    }
    memory::disable_huge_pages();
    file_limit::open_as_many_as_allowed(config);
    let failed = |what| move |error| StartProblem::new(StartFailure::System { what, error }, config);
    let waiting = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed("a runtime"))?;
    // Before the start, so that a signal during the start is not lost.
    let mut signals = waiting.block_on(async { Signals::new() }).map_err(failed("signals"))?;
    let system = System::real();
    // Waiting for the agent may take minutes, and a signal ends it.
    let agent = waiting.block_on(async {
        tokio::select! {
            given = server_identity::from_agent(config, &system) => Some(given),
            () = signals.stop() => None,
        }
    });
    let Some(given) = agent else {
        tracing::info!("stopped while waiting for the SPIFFE agent");
        return Ok(());
    };
    let given = given.map_err(|why| StartProblem::new(why, config))?;
    let running = start_given(config, &system, built_in_connectors(config, &system), given)?;
    if let Some(path) = ready {
        let no_file = |error| StartProblem::new(StartFailure::ReadyFile { path: path.to_owned(), error }, config);
        write_ready(path, running.addresses(), &system).map_err(no_file)?;
    }
    on_start(running.addresses());
    let reloads = origin.map(|origin| reloads(&running, origin)).transpose().map_err(failed("a thread"))?;
    let ended = wait(&waiting, &mut signals, &running, reloads.as_ref());
    tracing::info!("stopping: open calls are finished, new connections are refused");
    if let Some(path) = ready {
        let _ = std::fs::remove_file(path);
    }
    // A second signal does not wait for open calls. A stalled disk or receiver is waited for no longer than this.
    let impatient = std::thread::Builder::new().name("mayfly-signals".into()).spawn(move || {
        let patience = Duration::from_millis(limits::SHUTDOWN_LAST_MS);
        match waiting.block_on(async { tokio::time::timeout(patience, signals.stop()).await }) {
            Ok(()) => tracing::warn!("stopped at once"),
            Err(_) => tracing::error!(
                "stopped without waiting any longer because a part of the server hangs; no acknowledged record is lost"
            ),
        }
        log_queue::flush();
        std::process::exit(1);
    });
    if let Err(error) = impatient {
        tracing::warn!(%error, "the handler for a second stop signal could not be started");
    }
    running.stop();
    tracing::info!("stopped");
    if ended.is_err() {
        log_queue::flush();
        std::process::exit(1);
    }
    Ok(())
}

/// A thread that reloads the configuration on request, so that the thread that waits for signals does not wait for a reload.
fn reloads(running: &RunningServer, origin: ConfigOrigin) -> std::io::Result<mpsc::Sender<()>> {
    let (ask, asked) = mpsc::channel();
    let reloading: std::sync::Arc<Reloader> = running.reloading.clone();
    std::thread::Builder::new().name("mayfly-reload".into()).spawn(move || {
        while asked.recv().is_ok() {
            // Several signals received meanwhile cause one reload.
            while asked.try_recv().is_ok() {}
            reloading.again(&origin);
        }
    })?;
    Ok(ask)
}

/// Waits until a signal stops the server; an error if one of the server's threads ended by itself.
fn wait(runtime: &Runtime, signals: &mut Signals, running: &RunningServer, reloads: Option<&mpsc::Sender<()>>) -> Result<(), ()> {
    loop {
        let event = runtime.block_on(async {
            let Signals { terminate, interrupt, hangup, .. } = &mut *signals;
            tokio::select! {
                _ = terminate.recv() => Event::Stop,
                _ = interrupt.recv() => Event::Stop,
                _ = hangup.recv() => Event::Reload,
                () = tokio::time::sleep(Duration::from_millis(limits::TASK_TICK_MS)) => Event::Look,
            }
        });
        match (event, reloads) {
            (Event::Stop, _) | (Event::Reload, None) => return Ok(()),
            // The reload thread ends with the process.
            (Event::Reload, Some(reload)) => drop(reload.send(())),
            // A server that no longer answers at one of its listeners is useless: its supervisor starts another.
            (Event::Look, _) if !running.is_whole() => {
                tracing::error!("a thread of the server ended unexpectedly, which is a bug in mayfly: the server stops");
                return Err(());
            }
            (Event::Look, _) => {}
        }
    }
}

/// Written as a whole, so that readers never see a partial file.
fn write_ready(path: &Path, addresses: &Addresses, system: &System) -> std::io::Result<()> {
    let mut text = serde_json::to_string(addresses)?;
    text.push('\n');
    atomic_file::write(path, text.as_bytes(), SHARED, system)
}
