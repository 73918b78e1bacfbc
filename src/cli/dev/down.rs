//! `mayfly dev down` and `mayfly dev reset`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

use super::locks::{ServerLock, StartLock};
use super::world::{DevWorld, DevWorldError, is_world};
use super::{DirArgs, dir_flag, no_dir, no_world};
use crate::context::default_path;
use crate::error::CliError;
use crate::exit::Exit;
use crate::out::{Format, Out, Printable};
use mayfly_base::bounded_file;
use mayfly_base::document::remedy::shell_quoted;
use mayfly_base::file_path::beside;
use mayfly_base::limits;
use mayfly_base::system::System;

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
    let mut down = down(&dir, out)?;
    let lock = match down.state {
        "none" => None,
        _ => stopped_for_good(&dir, out)?,
    };
    let data = dir.join("data");
    if lock.is_some() && data.exists() {
        let failed = |e| CliError::Local(format!("{} could not be removed: {e}", data.display()));
        std::fs::remove_dir_all(&data).map_err(failed)?;
        down.purged = true;
        out.say(format_args!("mayfly: its ledger is gone; to start anew: mayfly dev up{}", dir_flag(&dir)));
    }
    if lock.is_some() && DevWorld::mend_ca(&dir)? {
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
    let mut down = down(&dir, out)?;
    if args.purge && down.state != "none" {
        if let Some(_lock) = stopped_for_good(&dir, out)? {
            purge(&dir)?;
        }
        down.purged = true;
        out.say(format_args!("mayfly: {} is gone", dir.display()));
    }
    // The text output suffices for people.
    if !matches!(out.format(), Format::Table | Format::Wide) {
        out.one(&down)?;
    }
    Ok(Exit::Ok)
}

fn down(dir: &Path, out: Out) -> Result<Down, CliError> {
    let mut down = Down { dir: dir.to_owned(), state: "none", purged: false, ca_replaced: false };
    if !is_world(dir) {
        if dir.exists() {
            return Err(no_world(dir));
        }
        out.say(format_args!("mayfly: nothing was done: {} does not exist", dir.display()));
        return Ok(down);
    }
    if end(dir).map_err(CliError::Local)? {
        down.state = "ended";
        out.say("mayfly: the dev server has ended");
    } else {
        down.state = "not_running";
        out.say("mayfly: the dev server was not running");
    }
    Ok(down)
}

/// Keeps every other command from starting a server in a world until the lock is dropped, and ends a server that was started meanwhile.
/// `None` if the world was removed meanwhile.
fn stopped_for_good(dir: &Path, out: Out) -> Result<Option<StartLock>, CliError> {
    let lock = StartLock::wait_for_existing(dir, out)?;
    if lock.is_some() {
        end(dir).map_err(CliError::Local)?;
    }
    Ok(lock)
}

/// Ends the process that holds the lock. `false` if there is none.
fn end(dir: &Path) -> Result<bool, String> {
    let held = || ServerLock::is_held(dir).map_err(|no: DevWorldError| no.to_string());
    if !held()? {
        return Ok(false);
    }
    let path = ServerLock::path(dir);
    let text = bounded_file::read_text(&path, limits::PID_FILE_BYTES).map_err(|e| format!("{}: {e}", path.display()))?;
    // A number below 2 names no server, but all processes or a group of them.
    let pid = text.trim().parse().ok().filter(|pid: &i32| *pid > 1);
    let known = pid.and_then(Pid::from_raw).ok_or_else(|| format!("{} holds no process id; try again", path.display()))?;
    let pid = known.as_raw_nonzero();
    kill_process(known, Signal::TERM).map_err(|e| format!("process {pid} could not be told to end: {e}"))?;
    let pause = Duration::from_millis(50);
    for _ in 0..(limits::SHUTDOWN_MS + 5_000) / 50 {
        std::thread::sleep(pause);
        if !held()? {
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
    let failed = |e| CliError::Local(format!("{} could not be removed: {e}", dir.display()));
    // Renamed first: a command that is killed in the middle leaves no part of a world under its name, and no command waits in it. A mount
    // point cannot be renamed.
    let real = dir.canonicalize().map_err(failed)?;
    let aside = beside(&real, format!("{}.removed", data_encoding::HEXLOWER.encode(&System::real().random16())));
    let gone = if std::fs::rename(&real, &aside).is_ok() { aside } else { real };
    std::fs::remove_dir_all(&gone).map_err(|e| {
        CliError::Local(format!("{} could not be removed: {e}\n  to remove it: rm -r {}", gone.display(), shell_quoted(&gone)))
    })
}
