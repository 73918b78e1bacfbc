//! `mayfly report`: what an auditor asks about the registry.

use clap::{Args, ValueEnum};

use super::Run;
use super::error::CliError;
use super::exit::Exit;
use super::show::upstream::{Reported, Upstream};
use super::upstream::page_of;
use crate::pb::mayfly::v1 as pb;

/// `mayfly report`
#[derive(Args)]
pub struct ReportArgs {
    /// Which
    #[arg(value_enum)]
    report: Report,
    /// Only upstreams of this environment
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
}

impl Report {
    fn problem(self) -> Option<pb::RegistrationProblem> {
        match self {
            Report::Inventory => None,
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
