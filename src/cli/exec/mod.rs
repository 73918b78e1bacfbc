//! `mayfly exec`: runs a program that reads credentials from its environment, with credentials that are issued at its start.
//!
//! - `credentials`: issues, checks and gives back the credentials. `child`: the program, its signals and its end.
//!
//! The environment of a running program cannot be changed from outside. A credential that ends while the program runs is therefore unusable
//! in the program too, and `--on-expiry` decides what happens to the program. The credential appears in no command line, on no disk and in
//! no output; the program uses this process's stdin, stdout and stderr directly.

mod aws;
mod certificate;
mod child;
mod credentials;
mod database;

use std::process::ExitStatus;
use std::time::Duration;

use clap::Args;

use super::CommandContext;
use super::args;
use super::error::CliError;
use super::exit::Exit;
use child::ChildProgram;
use credentials::{CredentialLoss, Injected, ProgramCredentials};

/// Arguments of `mayfly exec`.
#[derive(Args)]
pub struct ExecArgs {
    /// Upstream; its credential is put in a variable named after it, like GITHUB_TOKEN for github; can be repeated
    #[arg(long, value_name = "NAME[=SCOPE,…]", value_parser = credentials::upstream, required_unless_present = "env")]
    upstream: Vec<Injected>,
    /// Variable, and the upstream whose credential is put in it; can be repeated
    #[arg(long, value_name = "VARIABLE=NAME[=SCOPE,…]", value_parser = credentials::variable)]
    env: Vec<Injected>,
    /// How the program receives the credentials; only env is available
    #[arg(long, value_enum, default_value_t = Way::Env)]
    inject: Way,
    /// Task of the credentials [default: a new task that ends with the program]
    #[arg(long, value_name = "TASK", env = "MAYFLY_TASK", hide_env_values = true, value_parser = args::task_id)]
    task: Option<String>,
    /// Purpose of the credentials; required without --task, as the purpose of the new task
    #[arg(long, value_name = "TEXT", required_unless_present = "task")]
    purpose: Option<String>,
    /// Maximum lifetime of the new task [default: 1h]
    #[arg(long, value_name = "DURATION", value_parser = args::duration, conflicts_with = "task")]
    task_ttl: Option<Duration>,
    /// Lifetime of the credentials [default: as set by their upstreams]
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    ttl: Option<Duration>,
    /// What to do with the program when a credential is revoked or expires [default: let it run on]
    #[arg(long, value_enum, value_name = "WHAT")]
    on_expiry: Option<OnExpiry>,
    /// How often to check the credentials
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = super::task::interval)]
    every: Duration,
    /// Time between SIGTERM and SIGKILL when the program has to be ended
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = args::duration)]
    grace: Duration,
    /// Program and arguments, after `--`
    #[arg(value_name = "COMMAND", required = true, last = true)]
    command: Vec<std::ffi::OsString>,
}

/// How a credential reaches the program.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Way {
    /// In the environment, fixed at the start
    Env,
}

/// The action on a program whose credential has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum OnExpiry {
    /// Shortly before the credentials expire, end the program and start it again with new ones; if none are issued, it stays ended
    Restart,
    /// End the program
    Stop,
}

/// How a run of the program ended.
enum Ended {
    Itself(ExitStatus),
    /// `mayfly exec` ended the program, since its credentials were no longer usable.
    ByUs(CredentialLoss),
    /// New credentials were issued for the next run.
    Anew,
}

/// Runs the command. The exit code is that of the program; 128 plus the signal's number if a signal ended it; 5 if its credentials had
/// ended.
pub async fn run(args: ExecArgs, run: &CommandContext) -> Result<Exit, CliError> {
    // Prevents other processes of the same user from reading the credentials from this process's memory.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let Way::Env = args.inject;
    let injected: Vec<Injected> = args.upstream.iter().chain(&args.env).cloned().collect();
    let mut signals = child::Signals::new().map_err(|e| CliError::Local(format!("signals: {e}")))?;
    let mut credentials = ProgramCredentials::mint(injected, &args, run).await?;
    let ended = loop {
        let spawned = ChildProgram::spawn(&args.command, &credentials);
        let mut child = match spawned {
            Ok(child) => child,
            Err(no) => {
                credentials.give_back().await;
                run.out.fail(&CliError::Local(no.to_string()));
                return Ok(Exit::Other(no.code()));
            }
        };
        match alive(&mut child, &mut credentials, &mut signals, &args).await? {
            Ended::Anew => {}
            ended => break ended,
        }
    };
    credentials.give_back().await;
    Ok(match ended {
        Ended::Itself(status) => Exit::Other(child::code(status)),
        Ended::ByUs(gone) => {
            run.out.say(format_args!("the program was ended: {gone}"));
            Exit::Denied
        }
        Ended::Anew => Exit::Ok,
    })
}

/// Runs the program once, from its start to its end.
async fn alive(
    child: &mut ChildProgram,
    credentials: &mut ProgramCredentials,
    signals: &mut child::Signals,
    args: &ExecArgs,
) -> Result<Ended, CliError> {
    let waiting = |e: std::io::Error| CliError::Local(format!("waiting for the program: {e}"));
    let mut look = tokio::time::interval(args.every);
    look.tick().await;
    loop {
        tokio::select! {
            status = child.wait() => return Ok(Ended::Itself(status.map_err(waiting)?)),
            signal = signals.next() => child.pass_on(signal),
            _ = look.tick() => {
                let gone = credentials.look(args.on_expiry == Some(OnExpiry::Restart)).await;
                let (Some(gone), Some(what)) = (gone, args.on_expiry) else { continue };
                let anew = what == OnExpiry::Restart && credentials.renew().await;
                // A program that ended by itself in the meantime decides the exit code.
                if let Some(status) = child.end(args.grace).await.map_err(waiting)? {
                    return Ok(Ended::Itself(status));
                }
                return Ok(if anew { Ended::Anew } else { Ended::ByUs(gone) });
            }
        }
    }
}
