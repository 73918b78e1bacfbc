//! `mayfly server …`: runs a server, validates its configuration, and backs up, restores and recovers its ledger.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::backup::{self, BackupArgs, RestoreArgs};
use super::error::CliError;
use super::exit::Exit;
use super::out::{Format, Out, Printable, escape};
use mayfly_base::system::System;
use mayfly_config::config::Severity;
use mayfly_server::{StartProblem, environment, healthcheck, recover, run, telemetry, validate};
use mayfly_verify::seq::Seq;

/// The subcommands for a server on this host.
#[derive(Subcommand)]
pub enum ServerCommand {
    /// Run a server until SIGTERM or SIGINT
    Run(RunArgs),
    /// Validate a configuration and everything that a start would open and bind, without starting; exits with 0 or 1
    Validate(ValidateConfigArgs),
    /// Check whether the server of a configuration accepts calls; exits with 0 or 1
    Healthcheck(HealthArgs),
    /// Recover a damaged ledger up to the last trusted record and revoke everything issued before; the server must not be running
    Recover(RecoverArgs),
    /// Back up the ledger of a running server to a file, or verify such a file
    Backup(BackupArgs),
    /// Restore a backup as a new generation and revoke everything issued before; the data directory must be empty
    Restore(RestoreArgs),
}

/// Arguments of `mayfly server validate`.
#[derive(Args)]
pub struct ValidateConfigArgs {
    /// Configuration file of the server, TOML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Arguments of `mayfly server run`.
#[derive(Args)]
pub struct RunArgs {
    /// Configuration file of the server, TOML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Format of log lines [default: log.format of the configuration, else text on a terminal and json elsewhere]
    #[arg(long, value_enum, value_name = "FORM")]
    log: Option<telemetry::Format>,
    /// Write the server's addresses to this file as JSON once the server accepts calls
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// Arguments of `mayfly server healthcheck`.
#[derive(Args)]
pub struct HealthArgs {
    /// Configuration file of the server, TOML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check one service, like mayfly.v1.TokenService, which is unhealthy while nothing can be issued [default: the whole server]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    service: String,
}

/// Arguments of `mayfly server recover`.
#[derive(Args)]
pub struct RecoverArgs {
    /// Configuration file of the server, TOML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Sequence number of the last record to keep
    #[arg(long, value_name = "SEQ")]
    after: Seq,
    /// Restart the ledger's time, for a ledger written while the clock was in the future
    #[arg(long)]
    reset_time: bool,
}

/// Runs the command on a thread of its own: a server creates its own runtimes, which cannot start inside another runtime.
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
            let report = validate::validate_config(&args.config, environment(), &System::real());
            match out.format() {
                Format::Table | Format::Wide => report.findings.iter().try_for_each(|f| lines(out, &f.to_string()))?,
                _ => out.one(&Validated::from(&report))?,
            }
            let config = args.config.display();
            match (report.starts, report.running) {
                (true, false) => out.say(format_args!("{config}: a server would start on it")),
                (true, true) => out.say(format_args!(
                    "{config}: the server that runs on it would take it at a reload or a restart, as far as it was checked"
                )),
                (false, true) => out.say(format_args!(
                    "{config}: a server runs on it; it would refuse the configuration at a reload or a restart"
                )),
                (false, false) => out.say(format_args!("{config}: a server would not start on it")),
            }
            for what in &report.unchecked {
                out.say(format_args!("not checked: {what}"));
            }
            Ok(if report.starts { Exit::Ok } else { Exit::Error })
        }
        ServerCommand::Healthcheck(args) => healthy(&args, out),
        ServerCommand::Recover(args) => recovered(&args, out),
        ServerCommand::Restore(args) => backup::restored(&args, out),
        // `backup` calls a running server, as most commands do, and is handled with those.
        ServerCommand::Backup(_) => Err(CliError::ours("backup is not a command of a server process")),
    }
}

/// Prints text of several lines. Quoted text is escaped, so that it cannot control the terminal.
fn lines(out: Out, text: &str) -> Result<(), CliError> {
    let shown: String = text.lines().map(|line| format!("{}\n", escape::for_terminal(line))).collect();
    out.generated(shown.as_bytes())
}

fn healthy(args: &HealthArgs, out: Out) -> Result<Exit, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| CliError::Local(format!("the runtime could not be started: {e}")))?;
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
        // The command is printed whole, so that it can be copied.
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

/// The JSON output of `validate`.
#[derive(Serialize)]
struct Validated {
    starts: bool,
    /// A server is running on this configuration.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    running: bool,
    /// The checks that were left out because the server of this configuration runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_checked: Vec<String>,
    findings: Vec<Found>,
}

#[derive(Serialize)]
struct Found {
    severity: &'static str,
    file: String,
    /// The line of the finding; 0: the whole file.
    line: usize,
    /// The column of the finding; 0: the whole line.
    column: usize,
    what: String,
    remedy: String,
}

impl From<&validate::ValidationReport> for Validated {
    fn from(report: &validate::ValidationReport) -> Validated {
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
        let not_checked = report.unchecked.clone();
        Validated { starts: report.starts, running: report.running, not_checked, findings: found.collect() }
    }
}

impl Printable for Validated {
    fn name(&self) -> String {
        if self.starts { "starts" } else { "does-not-start" }.to_owned()
    }
}

#[derive(Serialize)]
struct Healthy {
    status: &'static str,
}

impl Printable for Healthy {
    fn name(&self) -> String {
        self.status.to_owned()
    }
}

/// The JSON output of `recover`.
#[derive(Serialize)]
struct Begun {
    generation: u8,
    kept_seq: u64,
    commits_left_behind: u64,
    locks_taken_over: usize,
    sealed_values: usize,
    data: String,
    /// The path of the old store.
    before: String,
}

impl Printable for Begun {
    fn name(&self) -> String {
        self.generation.to_string()
    }
}
