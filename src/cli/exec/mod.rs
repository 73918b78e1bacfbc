//! `mayfly exec`: a program that knows credentials from its environment only, run with one that is minted when it starts.
//!
//! - `credentials`: minted, looked after, given back. `child`: the program, its signals and its end.
//!
//! An environment cannot be changed from outside. So what ends while the program runs has ended in there too, and `--on-expiry` says what
//! becomes of the program then. The credential is in no command line, on no disk and in no output; the program's stdin, stdout and stderr are
//! ours, untouched.

mod child;
mod credentials;

use std::process::ExitStatus;
use std::time::Duration;

use clap::Args;

use super::Run;
use super::args;
use super::error::CliError;
use super::exit::Exit;
use child::Child;
use credentials::{Credentials, Gone, Injected};

/// Arguments of `mayfly exec`.
#[derive(Args)]
pub struct ExecArgs {
    /// An upstream; its credential is in a variable called after it: GITHUB_TOKEN of github
    #[arg(long, value_name = "NAME[=SCOPE,…]", value_parser = credentials::upstream, required_unless_present = "env")]
    upstream: Vec<Injected>,
    /// A variable and the upstream whose credential it has
    #[arg(long, value_name = "VARIABLE=NAME[=SCOPE,…]", value_parser = credentials::variable)]
    env: Vec<Injected>,
    /// How the program gets it; only the environment for now
    #[arg(long, value_enum, default_value_t = Way::Env)]
    inject: Way,
    /// The task [default: one is opened, which ends with the program]
    #[arg(long, value_name = "TASK", env = "MAYFLY_TASK", hide_env_values = true, value_parser = args::task_id)]
    task: Option<String>,
    /// What the credentials are for; without --task also the purpose of the new task, and required
    #[arg(long, value_name = "TEXT", required_unless_present = "task")]
    purpose: Option<String>,
    /// How long a new task lives at the most [default: 1h]
    #[arg(long, value_name = "DURATION", value_parser = args::duration, conflicts_with = "task")]
    task_ttl: Option<Duration>,
    /// How long the credentials are to live [default: as their upstreams say]
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    ttl: Option<Duration>,
    /// What becomes of the program when a credential is revoked or ends [default: it goes on without]
    #[arg(long, value_enum, value_name = "WHAT")]
    on_expiry: Option<OnExpiry>,
    /// How often it is looked whether they are good
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = super::task::interval)]
    every: Duration,
    /// Between SIGTERM and SIGKILL, where the program is ended
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = args::duration)]
    grace: Duration,
    /// The program and its arguments, after `--`
    #[arg(value_name = "COMMAND", required = true, last = true)]
    command: Vec<std::ffi::OsString>,
}

/// How a credential gets to a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Way {
    /// In its environment, fixed when it starts.
    Env,
}

/// What becomes of a program whose credential has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum OnExpiry {
    /// It is ended and started again with new ones, shortly before they end; where there are none, it stays ended.
    Restart,
    /// It is ended.
    Stop,
}

/// How it came to its end.
enum Ended {
    Itself(ExitStatus),
    /// We ended it: nothing good was left to run with.
    ByUs(Gone),
    /// New credentials are there for it.
    Anew,
}

/// Runs it. The exit code is the program's; 128 and the signal's number where a signal ended it; 5 where its credentials had ended.
pub async fn run(args: ExecArgs, run: &Run) -> Result<Exit, CliError> {
    // Nobody of the same user reads the credential from our memory; the program has its own to look after.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let Way::Env = args.inject;
    let injected: Vec<Injected> = args.upstream.iter().chain(&args.env).cloned().collect();
    let mut signals = child::Signals::new().map_err(|e| CliError::Local(format!("signals: {e}")))?;
    let mut credentials = Credentials::mint(injected, &args, run).await?;
    let ended = loop {
        let spawned = Child::spawn(&args.command, &credentials);
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

/// One run of the program, from its start to its end.
async fn alive(
    child: &mut Child,
    credentials: &mut Credentials,
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
                // A program that ended by itself meanwhile has its own say.
                if let Some(status) = child.end(args.grace).await.map_err(waiting)? {
                    return Ok(Ended::Itself(status));
                }
                return Ok(if anew { Ended::Anew } else { Ended::ByUs(gone) });
            }
        }
    }
}
