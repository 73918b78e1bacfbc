//! `mayfly server …`: run one, look at its configuration, mend its ledger.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::backup::{self, BackupArgs, RestoreArgs};
use super::error::CliError;
use super::exit::Exit;
use super::out::{Format, Noun, Out, escape};
use crate::seq::Seq;
use crate::server::{StartProblem, environment, healthcheck, recover, run, telemetry, validate};
use crate::sources::config::Severity;
use crate::system::System;

/// What can be done with a server on this host.
#[derive(Subcommand)]
pub enum ServerCommand {
    /// Run a server until SIGTERM or SIGINT
    Run(RunArgs),
    /// Look at a configuration and at all that a start on it opens and binds, and start nothing. Exits with 0 or 1
    Validate(ValidateArgs),
    /// Ask the server of a configuration whether it takes calls. Exits with 0 or 1
    Healthcheck(HealthArgs),
    /// Go on with what can be trusted of a damaged ledger; all that was issued before is revoked. The server must not run
    Recover(RecoverArgs),
    /// Write the ledger of a running server to a file, which changes nothing; or look whether such a file is whole
    Backup(BackupArgs),
    /// Make a backup the store of a server, in a new generation; all that was issued before is revoked. The data directory has to be empty
    Restore(RestoreArgs),
}

/// `mayfly server validate`
#[derive(Args)]
pub struct ValidateArgs {
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
    /// The form of log lines [default: log.format of the configuration; without it text on a terminal, else json]
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
pub fn run(command: ServerCommand, out: Out) -> Result<Exit, CliError> {
    let gone = |_| CliError::Local("the command's thread ended".to_owned());
    std::thread::scope(|scope| scope.spawn(|| here(command, out)).join().map_err(gone)?)
}

impl From<StartProblem> for CliError {
    fn from(problem: StartProblem) -> CliError {
        let told = format!("the server does not start\n{problem}");
        match problem.exit_code() {
            2 => CliError::Usage(told),
            4 => CliError::LocalAs(told, Exit::NotAuthenticated),
            8 => CliError::LocalAs(told, Exit::TryAgain),
            _ => CliError::Local(told),
        }
    }
}

fn here(command: ServerCommand, out: Out) -> Result<Exit, CliError> {
    match command {
        ServerCommand::Run(args) => match run::run(&args.config, args.log, args.ready_file.as_deref(), |_| {}) {
            Ok(()) => Ok(Exit::Ok),
            Err(problem) => Err(problem.into()),
        },
        ServerCommand::Validate(args) => {
            let report = validate::look(&args.config, environment(), &System::real());
            match out.format() {
                Format::Table | Format::Wide => report.findings.iter().try_for_each(|f| lines(out, &f.to_string()))?,
                _ => out.one(&Validated::from(&report))?,
            }
            let config = args.config.display();
            match (report.starts, report.running) {
                (true, false) => out.say(format_args!("{config}: a server would start on it")),
                (true, true) => out.say(format_args!(
                    "{config}: the server that runs on it would take it at a reload or a restart; its store and its ports are in use by it"
                )),
                (false, _) => out.say(format_args!("{config}: a server would not start on it")),
            }
            Ok(if report.starts { Exit::Ok } else { Exit::Error })
        }
        ServerCommand::Healthcheck(args) => healthy(&args, out),
        ServerCommand::Recover(args) => recovered(&args, out),
        ServerCommand::Restore(args) => backup::restored(&args, out),
        // It calls a server, as most commands do.
        ServerCommand::Backup(_) => Err(CliError::ours("a backup is taken elsewhere")),
    }
}

/// Several lines; what they quote never acts on a terminal.
fn lines(out: Out, text: &str) -> Result<(), CliError> {
    let shown: String = text.lines().map(|line| format!("{}\n", escape::for_terminal(line))).collect();
    out.generated(shown.as_bytes())
}

fn healthy(args: &HealthArgs, out: Out) -> Result<Exit, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| CliError::Local(format!("a runtime: {e}")))?;
    let asked = runtime.block_on(healthcheck::ask(&args.config, &args.service, &System::real()));
    asked.map_err(|not| CliError::Local(not.to_string()))?;
    match out.format() {
        Format::Table | Format::Wide => lines(out, "serving")?,
        _ => out.one(&Healthy { status: "serving" })?,
    }
    Ok(Exit::Ok)
}

fn recovered(args: &RecoverArgs, out: Out) -> Result<Exit, CliError> {
    let done = recover::recover(&args.config, args.after, args.reset_time, &System::real()).map_err(|no| {
        // So that it can be typed as it stands.
        let whole = format!("mayfly server recover --config {} --after", args.config.display());
        let no = no.to_string().replace("mayfly server recover --after", &whole);
        CliError::Local(format!("nothing was recovered, and nothing was changed\n{no}"))
    })?;
    let what = &done.recovered;
    let (data, before) = (done.data.display().to_string(), done.before.display().to_string());
    match out.format() {
        Format::Table | Format::Wide => {
            let told = format!(
                "generation {} has begun in {data}\n\
                 kept: everything up to seq {}\n\
                 left behind: {} commits; locks taken over from them: {}\n\
                 sealed keys and secrets copied: {}\n\
                 revoked: all that was issued before. Open tasks and unused approvals are void.\n\
                 the old store is in {before}; nothing removes it",
                what.generation, what.kept, what.left, what.locks, what.named
            );
            lines(out, &told)?;
        }
        _ => out.one(&Begun {
            generation: what.generation,
            kept_seq: what.kept.as_u64(),
            commits_left_behind: what.left,
            locks_taken_over: what.locks,
            sealed_values: what.named,
            data,
            before,
        })?,
    }
    out.say(format_args!("next: mayfly server run --config {}", args.config.display()));
    Ok(Exit::Ok)
}

/// What `validate` says in JSON.
#[derive(Serialize)]
struct Validated {
    starts: bool,
    /// A server runs on it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    running: bool,
    findings: Vec<Found>,
}

#[derive(Serialize)]
struct Found {
    severity: &'static str,
    file: String,
    /// 0: the whole file.
    line: usize,
    /// 0: the whole line.
    column: usize,
    what: String,
    remedy: String,
}

impl From<&validate::Report> for Validated {
    fn from(report: &validate::Report) -> Validated {
        let found = report.findings.iter().map(|f| Found {
            severity: match f.severity {
                Severity::Warning => "warning",
                Severity::Error => "error",
            },
            file: f.complaint.file.clone(),
            line: f.complaint.line,
            column: f.complaint.column,
            what: f.complaint.what.clone(),
            remedy: f.complaint.remedy.clone(),
        });
        Validated { starts: report.starts, running: report.running, findings: found.collect() }
    }
}

impl Noun for Validated {
    fn name(&self) -> String {
        if self.starts { "starts" } else { "does-not-start" }.to_owned()
    }
}

#[derive(Serialize)]
struct Healthy {
    status: &'static str,
}

impl Noun for Healthy {
    fn name(&self) -> String {
        self.status.to_owned()
    }
}

/// What `recover` did, in JSON.
#[derive(Serialize)]
struct Begun {
    generation: u8,
    kept_seq: u64,
    commits_left_behind: u64,
    locks_taken_over: usize,
    sealed_values: usize,
    data: String,
    /// Where the old store is.
    before: String,
}

impl Noun for Begun {
    fn name(&self) -> String {
        self.generation.to_string()
    }
}
