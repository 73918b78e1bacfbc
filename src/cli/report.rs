//! `mayfly report`: reports for auditors on the upstream registry and on break-glass.

use clap::{Args, ValueEnum};

use super::error::CliError;
use super::exit::Exit;
use super::server::ApiClient;
use super::show::shown;
use super::show::upstream::ReportFinding;
use super::upstream::page_of;
use super::{CommandContext, break_glass};
use mayfly_proto::mayfly::v1 as pb;

/// Arguments of `mayfly report`.
#[derive(Args)]
pub struct ReportArgs {
    /// Report to print
    #[arg(value_enum)]
    report: ReportKind,
    /// Only entries of this environment
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
}

/// The available reports.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportKind {
    /// Every upstream, in any state
    Inventory,
    /// Registrations that expire within 14 days
    Expiring,
    /// Expired registrations; nothing is issued for them
    Overdue,
    /// Upstreams whose owner has left; nothing is issued until another owner takes over
    Ownerless,
    /// Upstreams without a live credential for 30 days
    Unused,
    /// Registrations that grant more than most tasks need
    Broad,
    /// Closed break-glass tasks that are not yet reviewed
    Unreviewed,
}

impl ReportKind {
    fn problem(self) -> Option<pb::RegistrationProblem> {
        match self {
            ReportKind::Inventory | ReportKind::Unreviewed => None,
            ReportKind::Expiring => Some(pb::RegistrationProblem::Expiring),
            ReportKind::Overdue => Some(pb::RegistrationProblem::Overdue),
            ReportKind::Ownerless => Some(pb::RegistrationProblem::Ownerless),
            ReportKind::Unused => Some(pb::RegistrationProblem::Unused),
            ReportKind::Broad => Some(pb::RegistrationProblem::Broad),
        }
    }
}

/// Prints a report. For reports of problems, the exit code tells whether there are any.
pub async fn run(args: ReportArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let server = &run.server().await?;
    if args.report == ReportKind::Unreviewed {
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
        run.out.list(&shown(all))?;
        return Ok(Exit::Ok);
    };
    let found: Vec<ReportFinding> = all.iter().flat_map(|upstream| ReportFinding::of(upstream, problem)).collect();
    run.out.list(&found)?;
    Ok(if found.is_empty() { Exit::Ok } else { Exit::Findings })
}

async fn unreviewed(environment: &Option<String>, server: &ApiClient, run: &CommandContext) -> Result<Exit, CliError> {
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let (some, next) = break_glass::page_of(server, true, 1_000, token).await?;
        let of = |g: &pb::BreakGlass| g.task.as_ref().map_or("", |task| &*task.environment).to_owned();
        all.extend(some.into_iter().filter(|g| environment.as_ref().is_none_or(|e| of(g) == *e)));
        token = next;
        if token.is_empty() {
            break;
        }
    }
    let exit = if all.is_empty() { Exit::Ok } else { Exit::Findings };
    run.out.list(&shown(all))?;
    Ok(exit)
}
