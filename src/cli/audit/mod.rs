//! `mayfly audit`: the ledger's records, found, followed and shown.

mod search;
mod tail;

use clap::{Args, Subcommand};

use super::Run;
use super::args;
use super::exit::Exit;
use crate::cli::error::CliError;
use crate::pb::mayfly::v1 as pb;
use crate::seq::{Millis, Seq};

/// What can be asked of the audit.
#[derive(Subcommand)]
pub enum AuditCommand {
    /// Records that fit, newest first; says how far it looked where that is not to the beginning
    Search(Box<search::SearchArgs>),
    /// One record by its seq
    Show(search::ShowArgs),
    /// Records as they become durable, a line of JSON each
    Tail(Box<tail::TailArgs>),
}

/// Which records. All that is given must hold.
#[derive(Args, Clone)]
pub struct FilterArgs {
    /// Naming exactly this: any id, SPIFFE ID, person, upstream, tool, scope, binding, policy, key, request id, reason of a refusal, or digest
    #[arg(value_name = "NAME")]
    names: Option<String>,
    /// Only this event, like "credential issued"
    #[arg(long, value_name = "EVENT")]
    event: Option<String>,
    /// Only those that name this task
    #[arg(long, value_name = "TASK", value_parser = args::task_id)]
    task: Option<String>,
    /// Only those that name this workload
    #[arg(long, value_name = "SPIFFE_ID")]
    workload: Option<String>,
    /// Only those that name this upstream
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
    /// Only those that name this tool
    #[arg(long, value_name = "NAME")]
    tool: Option<String>,
    /// Only those that name this environment
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    /// Only what was committed at this time or later
    #[arg(long, value_name = "TIME", value_parser = args::time)]
    since: Option<Millis>,
    /// Only what was committed before this time
    #[arg(long, value_name = "TIME", value_parser = args::time)]
    until: Option<Millis>,
}

impl FilterArgs {
    fn on_the_wire(self) -> pb::RecordFilter {
        pb::RecordFilter {
            since: self.since.map(args::timestamp),
            until: self.until.map(args::timestamp),
            event: self.event.unwrap_or_default(),
            names: self.names.unwrap_or_default(),
            task_id: self.task.unwrap_or_default(),
            workload: self.workload.unwrap_or_default(),
            upstream: self.upstream.unwrap_or_default(),
            tool: self.tool.unwrap_or_default(),
            environment: self.environment.unwrap_or_default(),
            seq: 0,
        }
    }
}

/// Exactly this record.
fn only(seq: Seq) -> pb::RecordFilter {
    pb::RecordFilter { seq: seq.as_u64(), ..pb::RecordFilter::default() }
}

/// Runs one of them.
pub async fn run(command: AuditCommand, run: &Run) -> Result<Exit, CliError> {
    match command {
        AuditCommand::Search(args) => search::search(*args, run).await,
        AuditCommand::Show(args) => search::show(&args, run).await,
        AuditCommand::Tail(args) => tail::tail(*args, run).await,
    }
}
