//! `mayfly doctor`: what is wrong between us and a server, or with a server on this host, and what mends each of it. It changes nothing.
//!
//! - `ours`: our SVID and the bundle. `server`: the way to it, and what it says of itself. `host`: a server's configuration and store.

mod host;
mod ours;
mod server;

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::Run;
use super::error::CliError;
use super::exit::Exit;
use super::out::{Format, Noun, Row};

/// Arguments of `mayfly doctor`.
#[derive(Args)]
pub struct DoctorArgs {
    /// Look at a server of this host too: its configuration, what that names, and its store where it is not running
    #[arg(long, value_name = "FILE")]
    server_config: Option<PathBuf>,
    /// Look at that alone, and call no server
    #[arg(long, requires = "server_config")]
    offline: bool,
}

/// How it is with one of them, the best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    /// It could not be looked at from here.
    Unknown,
    /// It works, and will not for long, or not as somebody expects.
    Warning,
    /// It does not work.
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
struct Check {
    check: &'static str,
    state: State,
    found: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    mend: String,
}

impl Noun for Check {
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

/// All that was looked at, in the order in which it is to be mended.
#[derive(Default)]
struct Found(Vec<Check>);

impl Found {
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

    /// Whether something of this was looked at already.
    fn has(&self, check: &str) -> bool {
        self.0.iter().any(|c| c.check == check)
    }
}

/// The whole of it, with the worst of it before the rest.
#[derive(Serialize)]
struct Report {
    worst: State,
    checks: Vec<Check>,
}

impl Noun for Report {
    fn name(&self) -> String {
        self.checks.iter().filter(|c| c.state > State::Unknown).map(|c| c.check).collect::<Vec<_>>().join("\n")
    }
}

/// Runs it. Exits with 0, with 10 where there are only warnings, with 1 where something does not work.
pub async fn run(args: DoctorArgs, run: &Run) -> Result<Exit, CliError> {
    let mut found = Found::default();
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
                ours::look(&target, run, &mut found);
                server::look(&target, run, &mut found).await
            }
        };
        if reached.is_none() && args.server_config.is_none() {
            found.unknown("policy", "whoever cannot be reached cannot be asked");
        }
    }
    if let Some(config) = &args.server_config {
        host::look(config, run, &mut found);
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

/// What an error says, on one line.
fn says(error: &CliError) -> String {
    error.words(false).trim_start_matches("error: ").lines().map(str::trim).collect::<Vec<_>>().join("; ")
}
