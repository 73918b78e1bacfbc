//! `mayfly ci heartbeat`: runs beside a job, sends heartbeats for its task and renews its SVID.

use std::time::Duration;

use clap::Args;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::sync::oneshot;

use super::super::CommandContext;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::login::LoginFiles;
use super::super::show::answer::Answer;
use super::super::task::{self, TaskArg, interval};
use super::CiLoginArgs;

/// Arguments of `mayfly ci heartbeat`.
#[derive(Args)]
pub struct CiHeartbeatArgs {
    #[command(flatten)]
    task: TaskArg,
    /// Interval between two heartbeats
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = interval)]
    every: Duration,
    /// Process id of the work; when that process ends, the heartbeats stop and the task ends
    #[arg(long = "while", value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    process: Option<i32>,
    #[command(flatten)]
    login: CiLoginArgs,
}

/// Returns when the process that the heartbeats stand for has ended. Without a process, the command would outlive a killed runner and keep
/// its task alive.
fn ended(process: Option<i32>) -> Result<impl Future<Output = ()>, CliError> {
    let (tell, told) = oneshot::channel::<()>();
    let mut kept = Some(tell);
    if let Some(process) = process {
        let failed = |e: &dyn std::fmt::Display| CliError::Usage(format!("--while {process}: {e}"));
        let pid = Pid::from_raw(process).ok_or_else(|| failed(&"no process has that number"))?;
        // A process id can be reused; a pidfd keeps naming the process that has the id now.
        let open = pidfd_open(pid, PidfdFlags::empty()).map_err(|e| failed(&e))?;
        let tell = kept.take();
        let watch = move || {
            while poll(&mut [PollFd::new(&open, PollFlags::IN)], None) == Err(Errno::INTR) {}
            drop(tell);
        };
        std::thread::Builder::new().name("ci-work".into()).spawn(watch).map_err(|e| failed(&e))?;
    }
    Ok(async move {
        let _ = told.await;
        drop(kept);
    })
}

/// Whether an SVID is due for renewal: a third of its lifetime is left, or the time for two more attempts.
fn due(life_ms: u64, left_ms: u64, every: Duration) -> bool {
    let every = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
    left_ms < (life_ms / 3).max(every.saturating_mul(2))
}

/// Sends heartbeats until the server says that the task takes no more from this caller, or until the work is over.
pub async fn run(args: CiHeartbeatArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let over = ended(args.process)?;
    tokio::select! {
        ended = beats(&args, run) => ended,
        () = over => {
            run.out.say("the process that does the work has ended, and with it the heartbeats");
            Ok(Exit::Ok)
        }
    }
}

async fn beats(args: &CiHeartbeatArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let kept = LoginFiles::beside(run.settings()?.file.as_deref())?;
    let left = || kept.ends().map(|end| end.since(run.system.wall()));
    let mut life = left().unwrap_or_default();
    let mut told = false;
    loop {
        if left().is_some_and(|left| due(life, left, args.every)) {
            match super::renewed(&args.login, &kept, run).await {
                Ok(()) => life = left().unwrap_or_default(),
                // The renewal is tried again with the next heartbeat, as long as the present SVID is valid.
                Err(error) if !told => {
                    told = true;
                    run.out.fail(&error);
                    run.out.say("this job's SVID is not renewed, and ends by its time");
                }
                Err(_) => {}
            }
        }
        match beat(&args.task.task, run).await {
            Ok(beat) => run.out.line(&beat)?,
            // A server that is restarting does not end the task.
            Err(error) if error.exit() == Exit::TryAgain => run.out.fail(&error),
            Err(error) => return Err(error),
        }
        tokio::time::sleep(args.every).await;
    }
}

/// Sends one heartbeat on a new connection, which uses the SVID as it is on disk now.
async fn beat(task: &str, run: &CommandContext) -> Result<Answer, CliError> {
    task::beat(&run.server().await?, task).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_svid_is_renewed_with_a_third_of_its_life_left_or_in_time_for_two_tries() {
        let (hour, every) = (3_600_000, Duration::from_secs(30));
        assert!(!due(hour, hour, every) && !due(hour, hour / 3 + 1, every));
        assert!(due(hour, hour / 3 - 1, every) && due(hour, 0, every));
        assert!(due(60_000, 59_000, every), "a short one at once");
    }
}
