//! `mayfly audit`: searches, follows and exports the ledger's records with their proofs, and verifies such proofs without a server.

mod checkpoint;
mod export;
mod search;
mod tail;
mod verify;

use std::path::Path;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};

use super::CommandContext;
use super::args;
use super::exit::Exit;
use crate::error::CliError;
use mayfly_authority::audit::proof::key::NoteKey;
use mayfly_authority::audit::proof::note::{Checkpoint, NoteError, SignedNote};
use mayfly_base::limits;
use mayfly_proto::mayfly::v1 as pb;
use mayfly_verify::seq::{Millis, Seq};

/// The subcommands for the audit log.
#[derive(Subcommand)]
pub enum AuditCommand {
    /// Search records, newest first; reports how far back it searched if it did not reach the beginning
    Search(Box<search::SearchArgs>),
    /// Show the record with a sequence number
    Show(search::ShowRecordArgs),
    /// Follow records as they become durable, one JSON line each
    Tail(Box<tail::TailArgs>),
    /// Export matching records with their proofs to a file that `verify` checks offline
    Export(Box<export::ExportArgs>),
    /// Export the proof that a record is in the ledger; `verify` checks it offline
    Prove(export::ProveArgs),
    /// Verify an export or a proof offline; without a file, have the server verify its ledger
    Verify(verify::VerifyArgs),
    /// Print a signed checkpoint of the ledger, and check that it extends an older one
    Checkpoint(checkpoint::CheckpointArgs),
}

/// The filters that select records. A record must match all of them.
#[derive(Args, Clone)]
pub struct RecordFilterArgs {
    /// Only records that name exactly this: any id, SPIFFE ID, person, upstream, tool, scope, binding, policy, key, request id, refusal
    /// reason or digest
    #[arg(value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    names: Option<String>,
    /// Only this event, like "credential issued"
    #[arg(long, value_name = "EVENT", value_parser = NonEmptyStringValueParser::new())]
    event: Option<String>,
    /// Only records that name this task
    #[arg(long, value_name = "TASK", value_parser = args::task_id)]
    task: Option<String>,
    /// Only records that name this workload
    #[arg(long, value_name = "SPIFFE_ID", value_parser = NonEmptyStringValueParser::new())]
    workload: Option<String>,
    /// Only records that name this upstream
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    upstream: Option<String>,
    /// Only records that name this tool
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    tool: Option<String>,
    /// Only records that name this environment
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    environment: Option<String>,
    /// Only records committed at or after this time: a time, or a duration before now, like 1h
    #[arg(long, value_name = "TIME", value_parser = args::when)]
    since: Option<args::When>,
    /// Only records committed before this time: a time, or a duration before now, like 10m
    #[arg(long, value_name = "TIME", value_parser = args::when)]
    until: Option<args::When>,
}

impl RecordFilterArgs {
    /// Converts the filter to its protobuf message. Durations count back from `now`.
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

/// Reads a checkpoint from a file. If keys are given, one of them must have signed it.
fn read_checkpoint(path: &Path, keys: &[NoteKey]) -> Result<Checkpoint, CliError> {
    let bad = |e: NoteError| CliError::Usage(format!("{}: {e}", path.display()));
    let note = SignedNote::parse(&args::read_text(path, limits::NOTE_BYTES)?).map_err(bad)?;
    if !keys.is_empty() {
        note.signer(keys).map_err(bad)?;
    }
    Checkpoint::parse(&note.text).map_err(bad)
}

/// Reads the keys of a file; without a file there are none.
fn keys(path: Option<&Path>) -> Result<Vec<NoteKey>, CliError> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let text = args::read_text(path, limits::CHECK_KEYS_BYTES)?;
    NoteKey::read(&text).map_err(|e| CliError::Usage(format!("{}: {e}", path.display())))
}

/// The filter that selects exactly one record.
///
/// On the wire 0 selects by other criteria than the number, and no record has it.
fn only(seq: Seq) -> Result<pb::RecordFilter, CliError> {
    match seq.as_u64() {
        0 => Err(CliError::LocalAs("there is no record 0: the first one is 1".to_owned(), Exit::NotFound)),
        seq => Ok(pb::RecordFilter { seq, ..pb::RecordFilter::default() }),
    }
}

/// Runs the chosen subcommand.
pub async fn run(command: AuditCommand, run: &CommandContext) -> Result<Exit, CliError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_record_has_the_number_0() {
        assert!(matches!(only(Seq::ZERO), Err(CliError::LocalAs(_, Exit::NotFound))));
    }
}
