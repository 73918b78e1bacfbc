//! `mayfly report`: what an auditor asks about the registry, and about break-glass.

use clap::{Args, ValueEnum};

use super::error::CliError;
use super::exit::Exit;
use super::server::Server;
use super::show::upstream::{Reported, Upstream};
use super::upstream::page_of;
use super::{Run, break_glass};
use crate::pb::mayfly::v1 as pb;

/// `mayfly report`
#[derive(Args)]
pub struct ReportArgs {
    /// Which
    #[arg(value_enum)]
    report: Report,
    /// Only what is of this environment
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
}

/// The reports there are.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Report {
    /// Every upstream, whatever its state
    Inventory,
    /// Registrations that end within 14 days
    Expiring,
    /// Registrations that have ended: nothing is issued
    Overdue,
    /// Upstreams whose owner has left: nothing is issued until somebody takes over
    Ownerless,
    /// Upstreams without a live credential for 30 days
    Unused,
    /// Registrations that give more than most tasks need
    Broad,
    /// Break-glass tasks that are over and that nobody reviewed
    Unreviewed,
}

impl Report {
    fn problem(self) -> Option<pb::RegistrationProblem> {
        match self {
            Report::Inventory | Report::Unreviewed => None,
            Report::Expiring => Some(pb::RegistrationProblem::Expiring),
            Report::Overdue => Some(pb::RegistrationProblem::Overdue),
            Report::Ownerless => Some(pb::RegistrationProblem::Ownerless),
            Report::Unused => Some(pb::RegistrationProblem::Unused),
            Report::Broad => Some(pb::RegistrationProblem::Broad),
        }
    }
}

/// Prints a report. Whoever asks for what is wrong learns by the exit code whether there is any.
pub async fn run(args: ReportArgs, run: &Run) -> Result<Exit, CliError> {
    let server = &run.server().await?;
    if args.report == Report::Unreviewed {
        return unreviewed(&args.environment, server, run).await;
    }
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let (some, next) = page_of(server, &args.environment, None, 1_000, token).await?;
        all.extend(some);
        token = next;
        if token.is_empty() {
            break;
        }
    }
    let Some(problem) = args.report.problem() else {
        run.out.list::<Upstream>(&all)?;
        return Ok(Exit::Ok);
    };
    let found: Vec<Reported> = all.iter().flat_map(|upstream| Reported::of(upstream, problem)).collect();
    run.out.list(&found)?;
    Ok(if found.is_empty() { Exit::Ok } else { Exit::Findings })
}

async fn unreviewed(environment: &Option<String>, server: &Server, run: &Run) -> Result<Exit, CliError> {
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let (some, next) = break_glass::page_of(server, true, 1_000, token).await?;
        all.extend(some.into_iter().filter(|g| environment.as_ref().is_none_or(|e| g.environment == *e)));
        token = next;
        if token.is_empty() {
            break;
        }
    }
    run.out.list(&all)?;
    Ok(if all.is_empty() { Exit::Ok } else { Exit::Findings })
}
