//! `mayfly doctor`: diagnoses the connection to a server, or a server on this host, and names a remedy for each problem. It changes
//! nothing.
//!
//! - `client_identity`: the client's SVID and the bundle. `server`: the connection and the server's own status. `host`: a server's
//!   configuration and store.

mod client_identity;
mod host;
mod server;

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::CommandContext;
use super::error::CliError;
use super::exit::Exit;
use super::out::{Format, Printable, Row};

/// Arguments of `mayfly doctor`.
#[derive(Args)]
pub struct DoctorArgs {
    /// Also check the server on this host with this configuration file: the configuration, everything that it names, and the store if the
    /// server is not running
    #[arg(long, value_name = "FILE")]
    server_config: Option<PathBuf>,
    /// Check only the configuration given by --server-config, and call no server
    #[arg(long, requires = "server_config")]
    offline: bool,
}

/// The state of a check, best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    /// The check is not possible from here.
    Unknown,
    /// The checked item works, but will stop working soon or not work as expected.
    Warning,
    /// The checked item does not work.
    Problem,
}

/// The result of one check.
#[derive(Clone, Debug, Serialize)]
struct Check {
    check: &'static str,
    state: State,
    found: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    mend: String,
}

impl Printable for Check {
    fn name(&self) -> String {
        self.check.to_owned()
    }
}

impl Row for Check {
    const COLUMNS: &'static [&'static str] = &["CHECK", "STATE", "FOUND", "MEND"];

    fn cells(&self) -> Vec<String> {
        let state = match self.state {
            State::Ok => "ok",
            State::Unknown => "unknown",
            State::Warning => "warning",
            State::Problem => "problem",
        };
        vec![self.check.to_owned(), state.to_owned(), self.found.clone(), self.mend.clone()]
    }
}

/// The results of all checks, in the order in which problems should be solved.
#[derive(Default)]
struct CheckResults(Vec<Check>);

impl CheckResults {
    fn push(&mut self, check: &'static str, state: State, found: impl ToString, mend: impl Into<String>) {
        self.0.push(Check { check, state, found: found.to_string(), mend: mend.into() });
    }

    fn ok(&mut self, check: &'static str, found: impl ToString) {
        self.push(check, State::Ok, found, "");
    }

    fn unknown(&mut self, check: &'static str, found: impl ToString) {
        self.push(check, State::Unknown, found, "");
    }

    fn warning(&mut self, check: &'static str, found: impl ToString, mend: impl Into<String>) {
        self.push(check, State::Warning, found, mend);
    }

    fn problem(&mut self, check: &'static str, found: impl ToString, mend: impl Into<String>) {
        self.push(check, State::Problem, found, mend);
    }

    /// Whether a check was already made.
    fn has(&self, check: &str) -> bool {
        self.0.iter().any(|c| c.check == check)
    }
}

/// The whole report, which begins with the worst state.
#[derive(Serialize)]
struct Report {
    worst: State,
    checks: Vec<Check>,
}

impl Printable for Report {
    fn name(&self) -> String {
        self.checks.iter().filter(|c| c.state > State::Unknown).map(|c| c.check).collect::<Vec<_>>().join("\n")
    }
}

/// Runs the command. Exits with 0, with 10 if there are only warnings, and with 1 if something does not work.
pub async fn run(args: DoctorArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let mut found = CheckResults::default();
    if !args.offline {
        let reached = match run.target() {
            Err(error) => {
                found.problem(
                    "context",
                    says(&error),
                    "name the server and our SVID: mayfly --help, \"Identity\" and \"Everywhere\"",
                );
                None
            }
            Ok(target) => {
                client_identity::check_client(&target, run, &mut found);
                server::check_connection(&target, run, &mut found).await
            }
        };
        if reached.is_none() && args.server_config.is_none() {
            found.unknown("policy", "whoever cannot be reached cannot be asked");
        }
    }
    if let Some(config) = &args.server_config {
        host::check_host(config, run, &mut found);
    }
    let worst = found.0.iter().map(|c| c.state).max().unwrap_or(State::Ok);
    let report = Report { worst, checks: found.0 };
    match run.out.format() {
        Format::Json | Format::Yaml | Format::Name => run.out.one(&report)?,
        _ => run.out.list(&report.checks)?,
    }
    Ok(match worst {
        State::Ok | State::Unknown => Exit::Ok,
        State::Warning => Exit::Findings,
        State::Problem => Exit::Error,
    })
}

/// The text of an error on one line.
fn says(error: &CliError) -> String {
    error.words(false).trim_start_matches("error: ").lines().map(str::trim).collect::<Vec<_>>().join("; ")
}
