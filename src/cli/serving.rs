//! `mayfly server …`: run one, look at its configuration, mend its ledger.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::exit::Exit;
use crate::seq::Seq;
use crate::server::{environment, healthcheck, recover, run, telemetry, validate};
use crate::system::System;

/// What can be done with a server on this host.
#[derive(Subcommand)]
pub enum ServerCommand {
    /// Run a server until SIGTERM or SIGINT
    Run(RunArgs),
    /// Look at a configuration and at all that it names, and start nothing. Exits with 0 or 1
    Validate(ConfigArgs),
    /// Ask the server of a configuration whether it takes calls. Exits with 0 or 1
    Healthcheck(HealthArgs),
    /// Go on with what can be trusted of a damaged ledger; all that was issued before is revoked. The server must not run
    Recover(RecoverArgs),
}

/// The server's configuration.
#[derive(Args)]
pub struct ConfigArgs {
    /// The server's configuration, TOML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// `mayfly server run`
#[derive(Args)]
pub struct RunArgs {
    /// The server's configuration, TOML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The form of log lines [default: text on a terminal, else json]
    #[arg(long, value_enum, value_name = "FORM")]
    log: Option<telemetry::Format>,
    /// Write the addresses here as JSON once the server answers
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// `mayfly server healthcheck`
#[derive(Args)]
pub struct HealthArgs {
    /// The server's configuration, TOML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Of one service, like mayfly.v1.TokenService, which is not healthy while nothing is issued [default: of the whole server]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    service: String,
}

/// `mayfly server recover`
#[derive(Args)]
pub struct RecoverArgs {
    /// The server's configuration, TOML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The last seq that is kept
    #[arg(long, value_name = "SEQ")]
    after: Seq,
    /// Let time begin anew: for a ledger that was written by a clock of the future
    #[arg(long)]
    reset_time: bool,
}

/// Runs the command on a thread of its own: a server brings its own runtimes, which cannot begin inside another.
pub fn run(command: ServerCommand) -> Exit {
    std::thread::scope(|scope| scope.spawn(|| here(command)).join().unwrap_or(Exit::Error))
}

#[allow(clippy::print_stdout, clippy::print_stderr, reason = "this is a command")]
fn here(command: ServerCommand) -> Exit {
    match command {
        ServerCommand::Run(args) => {
            telemetry::init(args.log);
            match run::run(&args.config, args.ready_file.as_deref(), |_| {}) {
                Ok(()) => Exit::Ok,
                Err(problem) => {
                    eprintln!("mayfly: the server does not start\n{problem}");
                    if problem.exit_code() == 2 { Exit::Usage } else { Exit::Error }
                }
            }
        }
        ServerCommand::Validate(args) => {
            let report = validate::look(&args.config, environment(), System::real().wall());
            report.lines.iter().for_each(|line| println!("{line}"));
            match report.starts {
                true => {
                    eprintln!("{}: a server would start on it", args.config.display());
                    Exit::Ok
                }
                false => {
                    eprintln!("{}: a server would not start on it, or not do its work", args.config.display());
                    Exit::Error
                }
            }
        }
        ServerCommand::Healthcheck(args) => healthy(&args),
        ServerCommand::Recover(args) => recovered(&args),
    }
}

fn healthy(args: &HealthArgs) -> Exit {
    let asked = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map(|runtime| runtime.block_on(healthcheck::ask(&args.config, &args.service, &System::real())));
    match asked {
        Ok(Ok(())) => {
            println!("serving");
            Exit::Ok
        }
        Ok(Err(not)) => {
            eprintln!("mayfly: {not}");
            Exit::Error
        }
        Err(error) => {
            eprintln!("mayfly: a runtime: {error}");
            Exit::Error
        }
    }
}

fn recovered(args: &RecoverArgs) -> Exit {
    match recover::recover(&args.config, args.after, args.reset_time, &System::real()) {
        Ok(done) => {
            let what = &done.recovered;
            println!("generation {} has begun in {}", what.generation, done.data.display());
            println!("kept: everything up to seq {}", what.kept);
            println!("left behind: {} commits; locks taken over from them: {}", what.left, what.locks);
            println!("sealed keys and secrets copied: {}", what.named);
            println!("revoked: all that was issued before. Open tasks and unused approvals are void.");
            println!("the old store is in {}; nothing removes it", done.before.display());
            eprintln!("next: mayfly server run --config {}", args.config.display());
            Exit::Ok
        }
        Err(no) => {
            eprintln!("mayfly: nothing was recovered, and nothing was changed\n{no}");
            Exit::Error
        }
    }
}
