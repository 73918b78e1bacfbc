//! `mayfly server run`: in the foreground until it is told to stop.

use std::io::Write;
use std::path::Path;

use tokio::signal::unix::{SignalKind, signal};

use super::start::start_given;
use super::telemetry::{self, Format};
use super::{Addresses, StartProblem, Why, elsewhere, files, harden, memory, own};
use crate::credential::remote::Remotes;
use crate::sources::config::Config;
use crate::system::System;

/// Runs a server until SIGTERM or SIGINT, which end it in good order. A second signal ends it at once: nothing acknowledged is lost by that.
///
/// `ready`: a file that gets the addresses as JSON once the server answers, and goes when it stops.
///
/// `log`: the form of log lines, where somebody says it beside the configuration.
pub fn run(
    config: &Path,
    log: Option<Format>,
    ready: Option<&Path>,
    on_start: impl FnOnce(&Addresses),
) -> Result<(), StartProblem> {
    let loaded = Config::load(config, super::environment()).map_err(|wrong| StartProblem::config(config, wrong))?;
    telemetry::init(log.or(loaded.log.format));
    serve(&loaded, ready, on_start)
}

/// The same where only the file counts: what is exported for the command line does not reshape a dev server.
pub fn run_without_environment(
    config: &Path,
    ready: Option<&Path>,
    on_start: impl FnOnce(&Addresses),
) -> Result<(), StartProblem> {
    let loaded = Config::load(config, []).map_err(|wrong| StartProblem::config(config, wrong))?;
    serve(&loaded, ready, on_start)
}

fn serve(config: &Config, ready: Option<&Path>, on_start: impl FnOnce(&Addresses)) -> Result<(), StartProblem> {
    harden::harden();
    memory::take_it_in_small_pages();
    files::open_as_many_as_allowed(config);
    let failed = |what| move |error| StartProblem::new(Why::System { what, error }, config);
    let waiting = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed("a runtime"))?;
    // Before the start: a signal that comes during it is not lost.
    let signals = waiting.block_on(async { Ok((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)) });
    let (mut terminate, mut interrupt) = signals.map_err(failed("signals"))?;
    let system = System::real();
    // What may take minutes, and ends with a signal.
    let agent = waiting.block_on(async {
        tokio::select! {
            given = own::from_agent(config, &system) => Some(given),
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
        }
    });
    let Some(given) = agent else {
        tracing::info!("stopped while it waited for the agent");
        return Ok(());
    };
    let given = given.map_err(|why| StartProblem::new(why, config))?;
    let running = start_given(config, &system, elsewhere(config, Remotes::default()), given)?;
    if let Some(path) = ready {
        let no_file = |error| StartProblem::new(Why::ReadyFile { path: path.to_owned(), error }, config);
        write_ready(path, running.addresses()).map_err(no_file)?;
    }
    on_start(running.addresses());
    waiting.block_on(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    tracing::info!("stopping: open calls are finished, new connections are refused");
    if let Some(path) = ready {
        let _ = std::fs::remove_file(path);
    }
    // A second signal does not wait for open calls.
    let impatient = std::thread::Builder::new().name("mayfly-signals".into()).spawn(move || {
        waiting.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        tracing::warn!("stopped at once");
        std::process::exit(1);
    });
    if let Err(error) = impatient {
        tracing::warn!(%error, "a second signal is not heard");
    }
    running.stop();
    tracing::info!("stopped");
    Ok(())
}

/// Written aside and renamed, so that whoever waits for it never reads half of it.
fn write_ready(path: &Path, addresses: &Addresses) -> std::io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let mut file = std::fs::File::create(&aside)?;
    file.write_all(serde_json::to_string(addresses)?.as_bytes())?;
    file.write_all(b"\n")?;
    std::fs::rename(&aside, path)
}
