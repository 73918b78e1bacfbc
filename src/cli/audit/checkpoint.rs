//! The command `mayfly audit checkpoint`.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{keys, read_checkpoint};
use crate::CommandContext;
use crate::error::CliError;
use crate::exit::Exit;
use crate::out::{Format, Printable};
use crate::show::hex;
use mayfly_authority::audit::proof::note::{Checkpoint, NoteError, SignedNote};
use mayfly_base::atomic_file::{self, PRIVATE};
use mayfly_ledger::commit::Hash;
use mayfly_ledger::tree::proof::consistent;
use mayfly_proto::mayfly::v1::{self as pb, audit_service_client::AuditServiceClient};

/// Arguments of `mayfly audit checkpoint`.
#[derive(Args)]
pub struct CheckpointArgs {
    /// File with an older checkpoint; check that the ledger extends it
    #[arg(long, value_name = "FILE")]
    since: Option<PathBuf>,
    /// Write the checkpoint as a signed note to this file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write the public keys of checkpoints to this file, as a JWK set for `verify --key`; sound only if this connection is trusted
    #[arg(long, value_name = "FILE")]
    keys_out: Option<PathBuf>,
    /// File with keys obtained earlier or elsewhere, one of which must have signed the checkpoint [default: the keys that the server
    /// returns]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

/// The printed form of a checkpoint.
#[derive(Serialize)]
struct CheckpointView {
    origin: String,
    commits: u64,
    root: String,
    seq: Option<u64>,
    signed_by: String,
    /// The size of the older checkpoint, if one was given: the ledger extends it.
    goes_on_from: Option<u64>,
    checkpoint: String,
}

impl Printable for CheckpointView {
    fn name(&self) -> String {
        self.root.clone()
    }
}

/// Runs the command.
pub async fn checkpoint(args: &CheckpointArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let given = keys(args.key.as_deref())?;
    let old = args.since.as_deref().map(|path| read_checkpoint(path, &given)).transpose()?;
    let server = run.server().await?;
    let request = pb::GetCheckpointRequest { since_size: old.as_ref().map_or(0, |old| old.size) };
    let answer = server.call(request, |c, q| async move { AuditServiceClient::new(c).get_checkpoint(q).await }).await?;
    let theirs = |e: NoteError| CliError::ours(format!("the server's checkpoint: {e}"));
    let note = SignedNote::parse(&answer.checkpoint).map_err(theirs)?;
    let checkpoint = Checkpoint::parse(&note.text).map_err(theirs)?;
    let known = match given.is_empty() {
        true => mayfly_authority::audit::proof::key::NoteKey::read(&answer.jwks).map_err(CliError::ours)?,
        false => given,
    };
    let signed_by = note.signer(&known).map_err(theirs)?.name.clone();
    if let Some(old) = &old
        && let Err(what) = goes_on(old, &checkpoint, &answer.consistency)
    {
        run.out.say(what);
        return Ok(Exit::Findings);
    }
    let write = |path: &PathBuf, text: &str| {
        let written = atomic_file::write(path, text.as_bytes(), PRIVATE, &run.system);
        written.map_err(|e| CliError::Local(format!("{}: cannot be written: {e}", path.display())))
    };
    args.out.as_ref().map_or(Ok(()), |path| write(path, &answer.checkpoint))?;
    args.keys_out.as_ref().map_or(Ok(()), |path| write(path, &answer.jwks))?;
    let shown = CheckpointView {
        commits: checkpoint.size,
        root: hex(&checkpoint.root),
        seq: checkpoint.said("seq").and_then(|seq| seq.parse().ok()),
        signed_by,
        goes_on_from: old.map(|old| old.size),
        origin: checkpoint.origin,
        checkpoint: answer.checkpoint,
    };
    match run.out.format() {
        // Printed as the signed note, the form in which checkpoints are kept.
        Format::Table => run.out.generated(printable(&shown.checkpoint).as_bytes())?,
        _ => run.out.one(&shown)?,
    }
    if let Some(size) = shown.goes_on_from {
        run.out.say(format_args!("the ledger goes on from the checkpoint of {size} commits"));
    }
    Ok(Exit::Ok)
}

/// A note has no control characters except line ends (`SignedNote::parse`); other characters that act on a terminal are removed.
fn printable(note: &str) -> String {
    note.lines().map(|line| format!("{}\n", crate::out::escape::for_terminal(line))).collect()
}

fn goes_on(old: &Checkpoint, new: &Checkpoint, proof: &[bytes::Bytes]) -> Result<(), String> {
    if old.origin != new.origin {
        return Err(format!("the checkpoint is of {}, this server's ledger is {}", old.origin, new.origin));
    }
    let proof: Option<Vec<Hash>> = proof.iter().map(|hash| Hash::try_from(&hash[..]).ok()).collect();
    match proof.is_some_and(|proof| consistent(old.size, new.size, &old.root, &new.root, &proof)) {
        true => Ok(()),
        false => Err(format!("the ledger does not go on from the checkpoint of {} commits: its history was changed", old.size)),
    }
}
