//! `mayfly audit verify`: verifies an export offline, or has the server verify its own ledger.

use std::io::BufReader;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{keys, read_checkpoint};
use crate::CommandContext;
use crate::error::CliError;
use crate::exit::Exit;
use crate::out::Printable;
use mayfly_authority::audit::proof::check::{VerifiedExport, check};
use mayfly_base::bounded_file;
use mayfly_proto::mayfly::v1::{self as pb, audit_service_client::AuditServiceClient};

/// Arguments of `mayfly audit verify`.
#[derive(Args)]
pub struct VerifyArgs {
    /// File with an export or a proof [default: the server verifies its ledger]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// File with the public keys of checkpoints, JWK set or PEM; obtained earlier or elsewhere, not from the source of the export
    #[arg(long, value_name = "FILE", requires = "file")]
    key: Option<PathBuf>,
    /// File with a checkpoint kept elsewhere; the ledger must extend it
    #[arg(long, value_name = "FILE", requires = "file")]
    checkpoint: Option<PathBuf>,
}

/// The result of a verification.
#[derive(Serialize)]
struct Verdict {
    verified: bool,
    /// The line of the error; 0: the error belongs to no line.
    line: u64,
    seq: Option<u64>,
    problem: String,
    filter: serde_json::Map<String, serde_json::Value>,
    records: u64,
    from_commit: u64,
    to_commit: u64,
    origin: String,
    /// The key id (kid) of the key that signed the export.
    signed_by: Option<String>,
}

impl Printable for Verdict {
    fn name(&self) -> String {
        if self.verified { "verified" } else { "broken" }.to_owned()
    }
}

impl Verdict {
    fn broken(line: u64, seq: Option<u64>, problem: String) -> Verdict {
        let filter = serde_json::Map::new();
        let (records, from_commit, to_commit) = (0, 0, 0);
        Verdict {
            verified: false,
            line,
            seq,
            problem,
            filter,
            records,
            from_commit,
            to_commit,
            origin: String::new(),
            signed_by: None,
        }
    }

    fn right(right: VerifiedExport) -> Verdict {
        let VerifiedExport { filter, counts, checkpoint, signer, .. } = right;
        Verdict {
            verified: true,
            line: 0,
            seq: None,
            problem: String::new(),
            filter,
            records: counts.records,
            from_commit: counts.from,
            to_commit: counts.to,
            origin: checkpoint.origin,
            signed_by: signer,
        }
    }
}

/// Runs the command.
pub async fn verify(args: &VerifyArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let Some(path) = &args.file else { return of_server(run).await };
    let keys = keys(args.key.as_deref())?;
    let old = args.checkpoint.as_deref().map(|path| read_checkpoint(path, &keys)).transpose()?;
    let file = bounded_file::open_named(path).map_err(|e| CliError::Local(format!("{}: cannot be read: {e}", path.display())))?;
    let verdict = match check(BufReader::new(file), &keys) {
        Ok(right) => match old.map_or(Ok(()), |old| right.goes_on_from(&old)) {
            Ok(()) => Verdict::right(right),
            Err(problem) => Verdict::broken(0, None, problem),
        },
        Err(wrong) if wrong.unread => return Err(CliError::Local(format!("{}: {}", path.display(), wrong.what))),
        Err(wrong) => Verdict::broken(wrong.line, wrong.seq, wrong.what),
    };
    run.out.one(&verdict)?;
    if !verdict.verified {
        return Ok(Exit::Findings);
    }
    if keys.is_empty() {
        run.out
            .say("the export is internally consistent; its signature was not checked: pass --key FILE to verify who signed it");
        return Ok(Exit::Partly);
    }
    Ok(Exit::Ok)
}

/// The server's report on its own ledger.
#[derive(Serialize)]
struct Ledger {
    verified: bool,
    records: u64,
    verified_to: u64,
    broken_at: Option<u64>,
    problem: String,
}

impl Printable for Ledger {
    fn name(&self) -> String {
        if self.verified { "verified" } else { "broken" }.to_owned()
    }
}

async fn of_server(run: &CommandContext) -> Result<Exit, CliError> {
    let server = run.server().await?;
    let mut told = Ledger { verified: true, records: 0, verified_to: 0, broken_at: None, problem: String::new() };
    let (mut from_seq, mut to_seq) = (0, 0);
    loop {
        let request = pb::VerifyLedgerRequest { from_seq, to_seq };
        let answer = server.call(request, |c, q| async move { AuditServiceClient::new(c).verify_ledger(q).await }).await?;
        told.records += answer.records;
        told.verified_to = answer.verified_to;
        // The verification ends at the head at the time of the first call.
        to_seq = if to_seq == 0 { answer.head } else { to_seq };
        if answer.broken_at > 0 {
            (told.verified, told.broken_at, told.problem) = (false, Some(answer.broken_at), answer.problem);
        }
        if !told.verified || answer.verified_to >= to_seq || answer.records == 0 {
            break;
        }
        from_seq = answer.verified_to + 1;
    }
    run.out.one(&told)?;
    Ok(if told.verified { Exit::Ok } else { Exit::Findings })
}
