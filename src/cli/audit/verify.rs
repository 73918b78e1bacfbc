//! `mayfly audit verify`: an export with no server at hand, or the server's own ledger.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{kept, keys};
use crate::cli::Run;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::out::Noun;
use crate::pb::mayfly::v1::{self as pb, audit_service_client::AuditServiceClient};
use crate::proof::check::{Right, check};

/// Arguments of `mayfly audit verify`.
#[derive(Args)]
pub struct VerifyArgs {
    /// An export, or a proof [default: the server verifies its ledger]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The public keys of checkpoints, as a JWK set or PEM; from earlier or elsewhere, not from whoever gave the file
    #[arg(long, value_name = "FILE", requires = "file")]
    key: Option<PathBuf>,
    /// A checkpoint that was kept elsewhere: the ledger must go on from it
    #[arg(long, value_name = "FILE", requires = "file")]
    checkpoint: Option<PathBuf>,
}

/// What was verified.
#[derive(Serialize)]
struct Verdict {
    verified: bool,
    /// 0: no line is to blame.
    line: u64,
    seq: Option<u64>,
    problem: String,
    filter: serde_json::Map<String, serde_json::Value>,
    records: u64,
    from_commit: u64,
    to_commit: u64,
    origin: String,
    /// The kid of the key that signed it.
    signed_by: Option<String>,
}

impl Noun for Verdict {
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

    fn right(right: Right) -> Verdict {
        let Right { filter, counts, checkpoint, signer, .. } = right;
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
pub async fn verify(args: &VerifyArgs, run: &Run) -> Result<Exit, CliError> {
    let Some(path) = &args.file else { return of_server(run).await };
    let keys = keys(args.key.as_deref())?;
    let old = args.checkpoint.as_deref().map(|path| kept(path, &keys)).transpose()?;
    let file = File::open(path).map_err(|e| CliError::Local(format!("{}: cannot be read: {e}", path.display())))?;
    let verdict = match check(BufReader::new(file), &keys) {
        Ok(right) => match old.map_or(Ok(()), |old| right.goes_on_from(&old)) {
            Ok(()) => Verdict::right(right),
            Err(problem) => Verdict::broken(0, None, problem),
        },
        Err(wrong) => Verdict::broken(wrong.line, wrong.seq, wrong.what),
    };
    run.out.one(&verdict)?;
    if !verdict.verified {
        return Ok(Exit::Findings);
    }
    if keys.is_empty() {
        run.out.say("it is one whole; who signed it was not looked at: give --key, and whoever made it up is found out");
        return Ok(Exit::Partly);
    }
    Ok(Exit::Ok)
}

/// What a server says of its own ledger.
#[derive(Serialize)]
struct Ledger {
    verified: bool,
    records: u64,
    verified_to: u64,
    broken_at: Option<u64>,
    problem: String,
}

impl Noun for Ledger {
    fn name(&self) -> String {
        if self.verified { "verified" } else { "broken" }.to_owned()
    }
}

async fn of_server(run: &Run) -> Result<Exit, CliError> {
    let server = run.server().await?;
    let mut told = Ledger { verified: true, records: 0, verified_to: 0, broken_at: None, problem: String::new() };
    let (mut from_seq, mut to_seq) = (0, 0);
    loop {
        let request = pb::VerifyLedgerRequest { from_seq, to_seq };
        let answer = server.call(request, |c, q| async move { AuditServiceClient::new(c).verify_ledger(q).await }).await?;
        told.records += answer.records;
        told.verified_to = answer.verified_to;
        // Up to where it ended when the first call began.
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
