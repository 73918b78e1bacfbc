//! `mayfly audit`: the ledger's records found, followed, given away with their proofs; and those proofs checked, with no server at hand.

mod checkpoint;
mod export;
mod search;
mod tail;
mod verify;

use std::path::Path;

use clap::{Args, Subcommand};

use super::Run;
use super::args;
use super::exit::Exit;
use crate::cli::error::CliError;
use crate::limits;
use crate::pb::mayfly::v1 as pb;
use crate::proof::key::NoteKey;
use crate::proof::note::{BadNote, Checkpoint, Note};
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
    /// The records that fit and their proofs, to a file that `verify` checks without a server
    Export(Box<export::ExportArgs>),
    /// The proof that one record is in the ledger; `verify` checks it without a server
    Prove(export::ProveArgs),
    /// Check an export or a proof, with no server; without a file, have the server verify its ledger
    Verify(verify::VerifyArgs),
    /// A signed checkpoint of the ledger, and that it goes on from an older one
    Checkpoint(checkpoint::CheckpointArgs),
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
    /// Only what was committed at this time or later: a moment, or a duration before now, like 1h
    #[arg(long, value_name = "TIME", value_parser = args::when)]
    since: Option<args::When>,
    /// Only what was committed before this time: a moment, or a duration before now, like 10m
    #[arg(long, value_name = "TIME", value_parser = args::when)]
    until: Option<args::When>,
}

impl FilterArgs {
    /// `now`: what durations count from.
    fn on_the_wire(self, now: Millis) -> pb::RecordFilter {
        let moment = |when: args::When| args::timestamp(when.past(now));
        pb::RecordFilter {
            since: self.since.map(moment),
            until: self.until.map(moment),
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

/// A checkpoint that was kept: what it says, once one of the keys is found to have signed it, where there are any.
fn kept(path: &Path, keys: &[NoteKey]) -> Result<Checkpoint, CliError> {
    let bad = |e: BadNote| CliError::Usage(format!("{}: {e}", path.display()));
    let note = Note::parse(&args::read_text(path, limits::NOTE_BYTES)?).map_err(bad)?;
    if !keys.is_empty() {
        note.signer(keys).map_err(bad)?;
    }
    Checkpoint::parse(&note.text).map_err(bad)
}

/// The keys of a file; none where there is no file.
fn keys(path: Option<&Path>) -> Result<Vec<NoteKey>, CliError> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let text = args::read_text(path, limits::CHECK_KEYS_BYTES)?;
    NoteKey::read(&text).map_err(|e| CliError::Usage(format!("{}: {e}", path.display())))
}

/// Exactly this record.
fn only(seq: Seq) -> pb::RecordFilter {
    pb::RecordFilter { seq: seq.as_u64(), ..pb::RecordFilter::default() }
}

/// Runs the chosen subcommand.
pub async fn run(command: AuditCommand, run: &Run) -> Result<Exit, CliError> {
    match command {
        AuditCommand::Search(args) => search::search(*args, run).await,
        AuditCommand::Show(args) => search::show(&args, run).await,
        AuditCommand::Tail(args) => tail::tail(*args, run).await,
        AuditCommand::Export(args) => export::export(*args, run).await,
        AuditCommand::Prove(args) => export::prove(&args, run).await,
        AuditCommand::Verify(args) => verify::verify(&args, run).await,
        AuditCommand::Checkpoint(args) => checkpoint::checkpoint(&args, run).await,
    }
}
