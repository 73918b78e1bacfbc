//! `mayfly dev down`

use std::path::Path;
use std::time::Duration;

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};

use super::up::Lock;
use super::world::{NoWorld, is_world};
use super::{DirArgs, no_dir};
use crate::cli::context::default_path;
use crate::cli::exit::Exit;
use crate::limits;

/// `mayfly dev down`
#[derive(Args)]
pub struct DownArgs {
    #[command(flatten)]
    at: DirArgs,
    /// Remove its directory too, with its CA, its keys and its ledger
    #[arg(long)]
    purge: bool,
}

/// Runs it.
pub(super) fn run(args: &DownArgs) -> Exit {
    let Some(dir) = args.at.dir() else { return no_dir() };
    if !is_world(&dir) {
        eprintln!("mayfly: there is no dev world in {}", dir.display());
        return if dir.exists() { Exit::Usage } else { Exit::Ok };
    }
    match end(&dir) {
        Ok(true) => eprintln!("mayfly: the dev server has ended"),
        Ok(false) => eprintln!("mayfly: the dev server was not running"),
        Err(what) => {
            eprintln!("mayfly: {what}");
            return Exit::Error;
        }
    }
    if args.purge { purge(&dir) } else { Exit::Ok }
}

/// Ends the process that holds the lock. `false` where none does.
fn end(dir: &Path) -> Result<bool, String> {
    let free = || Lock::take(dir).map(|lock| lock.is_some()).map_err(|no: NoWorld| no.to_string());
    if free()? {
        return Ok(false);
    }
    let path = Lock::path(dir);
    let pid = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let pid: i32 = pid.trim().parse().map_err(|_| format!("{} holds no process id; try again", path.display()))?;
    let known = Pid::from_raw(pid).ok_or_else(|| format!("{} holds no process id; try again", path.display()))?;
    kill_process(known, Signal::TERM).map_err(|e| format!("process {pid} could not be told to end: {e}"))?;
    let pause = Duration::from_millis(50);
    for _ in 0..(limits::SHUTDOWN_MS + 5_000) / 50 {
        std::thread::sleep(pause);
        if free()? {
            return Ok(true);
        }
    }
    Err(format!("process {pid} does not end\n  to end it all the same: kill -9 {pid}"))
}

fn purge(dir: &Path) -> Exit {
    // The command line's own file goes with the world that it names, and only then.
    if let Some(path) = default_path()
        && let Ok(text) = std::fs::read_to_string(&path)
        && dir.canonicalize().is_ok_and(|dir| text.contains(&format!("{}/svid/", dir.display())))
    {
        let _ = std::fs::remove_file(&path);
    }
    match std::fs::remove_dir_all(dir) {
        Ok(()) => {
            eprintln!("mayfly: {} is gone", dir.display());
            Exit::Ok
        }
        Err(e) => {
            eprintln!("mayfly: {} could not be removed: {e}", dir.display());
            Exit::Error
        }
    }
}
