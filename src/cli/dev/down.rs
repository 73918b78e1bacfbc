//! `mayfly dev down` and `mayfly dev reset`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

use super::up::ServerLock;
use super::world::{DevWorld, DevWorldError, is_world};
use super::{DirArgs, dir_flag, no_dir};
use crate::context::default_path;
use crate::error::CliError;
use crate::exit::Exit;
use crate::out::{Format, Out, Printable};
use mayfly_base::bounded_file;
use mayfly_base::limits;

/// Arguments of `mayfly dev down`.
#[derive(Args)]
pub struct DownArgs {
    #[command(flatten)]
    at: DirArgs,
    /// Also remove the dev directory with its CA, keys and ledger
    #[arg(long)]
    purge: bool,
}

/// Arguments of `mayfly dev reset`.
#[derive(Args)]
pub struct ResetArgs {
    #[command(flatten)]
    at: DirArgs,
}

/// Stops the server of a dev world and removes its ledger, so that the next start imports the policy files and has no locks. A CA that is
/// missing or damaged is replaced: no ledger trusts the former one any more.
pub(super) fn reset(args: &ResetArgs, out: Out) -> Result<Exit, CliError> {
    let dir = args.at.dir().ok_or_else(no_dir)?;
    let mut down = down(&dir, false, out)?;
    let data = dir.join("data");
    if down.state != "none" && data.exists() {
        let failed = |e| CliError::Local(format!("{} could not be removed: {e}", data.display()));
        std::fs::remove_dir_all(&data).map_err(failed)?;
        down.purged = true;
        out.say(format_args!("mayfly: its ledger is gone; to start anew: mayfly dev up{}", dir_flag(&dir)));
    }
    if down.state != "none" && DevWorld::mend_ca(&dir)? {
        down.ca_replaced = true;
        out.say(format_args!(
            "mayfly: its CA was missing or damaged and is replaced, with bundle.pem; the SVIDs are issued anew by: mayfly dev up{}",
            dir_flag(&dir)
        ));
    }
    if !matches!(out.format(), Format::Table | Format::Wide) {
        out.one(&down)?;
    }
    Ok(Exit::Ok)
}

/// The JSON output.
#[derive(Serialize)]
struct Down {
    dir: PathBuf,
    /// `ended`, `not_running`, or `none` if there is no such world.
    state: &'static str,
    /// The directory was removed, or with `reset` the ledger.
    purged: bool,
    /// With `reset`: the CA could not be used and was replaced.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    ca_replaced: bool,
}

impl Printable for Down {
    fn name(&self) -> String {
        self.dir.display().to_string()
    }
}

/// Runs the command.
pub(super) fn run(args: &DownArgs, out: Out) -> Result<Exit, CliError> {
    let dir = args.at.dir().ok_or_else(no_dir)?;
    let down = down(&dir, args.purge, out)?;
    // The text output suffices for people.
    if !matches!(out.format(), Format::Table | Format::Wide) {
        out.one(&down)?;
    }
    Ok(Exit::Ok)
}

fn down(dir: &Path, and_purge: bool, out: Out) -> Result<Down, CliError> {
    let mut down = Down { dir: dir.to_owned(), state: "none", purged: false, ca_replaced: false };
    if !is_world(dir) {
        let none = format!("there is no dev world in {}", dir.display());
        if dir.exists() {
            return Err(CliError::Usage(none));
        }
        out.say(format_args!("mayfly: {none}"));
        return Ok(down);
    }
    if end(dir).map_err(CliError::Local)? {
        down.state = "ended";
        out.say("mayfly: the dev server has ended");
    } else {
        down.state = "not_running";
        out.say("mayfly: the dev server was not running");
    }
    if and_purge {
        purge(dir)?;
        down.purged = true;
        out.say(format_args!("mayfly: {} is gone", dir.display()));
    }
    Ok(down)
}

/// Ends the process that holds the lock. `false` if there is none.
fn end(dir: &Path) -> Result<bool, String> {
    let free = || ServerLock::take(dir).map(|lock| lock.is_some()).map_err(|no: DevWorldError| no.to_string());
    if free()? {
        return Ok(false);
    }
    let path = ServerLock::path(dir);
    let pid = bounded_file::read_text(&path, limits::PID_FILE_BYTES).map_err(|e| format!("{}: {e}", path.display()))?;
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

fn purge(dir: &Path) -> Result<(), CliError> {
    // The default context file is removed with the world that it names, and only then.
    if let Some(path) = default_path()
        && let Ok(text) = bounded_file::read_text(&path, limits::CONTEXT_FILE_BYTES)
        && dir.canonicalize().is_ok_and(|dir| text.contains(&format!("{}/svid/", dir.display())))
    {
        let _ = std::fs::remove_file(&path);
    }
    let failed =
        |e| CliError::Local(format!("{} could not be removed: {e}\n  to remove it: rm -r {}", dir.display(), dir.display()));
    std::fs::remove_dir_all(dir).map_err(failed)
}
