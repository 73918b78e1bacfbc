//! `mayfly audit export` and `mayfly audit prove`.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{RecordFilterArgs, only, read_checkpoint};
use crate::CommandContext;
use crate::error::{CliError, ServerError};
use crate::exit::Exit;
use mayfly_base::atomic_file::{AtomicFile, PRIVATE, may_be_replaced};
use mayfly_base::document::remedy::shell_quoted;
use mayfly_proto::mayfly::v1::{self as pb, audit_service_client::AuditServiceClient};
use mayfly_verify::seq::Seq;

/// Arguments of `mayfly audit export`.
#[derive(Args)]
pub struct ExportArgs {
    #[command(flatten)]
    filter: RecordFilterArgs,
    /// Write the export to this file once it is complete [default: stdout]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// File with an older checkpoint; include the proof that the ledger extends it
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
}

/// Arguments of `mayfly audit prove`.
#[derive(Args)]
pub struct ProveArgs {
    /// Sequence number of the record
    #[arg(value_name = "SEQ")]
    seq: Seq,
    /// Write the proof to this file once it is complete [default: stdout]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// File with an older checkpoint; include the proof that the ledger extends it
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
}

/// Exports the records that match the filter.
pub async fn export(args: ExportArgs, run: &CommandContext) -> Result<Exit, CliError> {
    write(args.filter.on_the_wire(run.system.wall()), args.out.as_deref(), args.checkpoint.as_deref(), run).await
}

/// Exports the proof of one record.
pub async fn prove(args: &ProveArgs, run: &CommandContext) -> Result<Exit, CliError> {
    write(only(args.seq)?, args.out.as_deref(), args.checkpoint.as_deref(), run).await
}

/// The destination of an export. A file gets its name once it is complete.
enum To<'a> {
    Stdout,
    File { file: Box<AtomicFile>, path: &'a Path },
}

fn cannot(path: &Path) -> impl Fn(io::Error) -> CliError + '_ {
    move |e| CliError::Local(format!("{}: cannot be written: {e}", path.display()))
}

impl To<'_> {
    fn open<'a>(path: Option<&'a Path>, run: &CommandContext) -> Result<To<'a>, CliError> {
        let Some(path) = path else { return Ok(To::Stdout) };
        may_be_replaced(path).map_err(|e| CliError::Usage(format!("{}: {e}; name a file", path.display())))?;
        let file = AtomicFile::begin(path, PRIVATE, &run.system).map_err(cannot(path))?;
        Ok(To::File { file: Box::new(file), path })
    }

    fn write(&mut self, lines: &[u8], run: &CommandContext) -> Result<(), CliError> {
        match self {
            To::Stdout => run.out.generated(lines),
            To::File { file, path } => file.write(lines).map_err(cannot(path)),
        }
    }

    fn end(self) -> Result<(), CliError> {
        let To::File { file, path } = self else { return Ok(()) };
        file.replace().map_err(cannot(path))
    }
}

async fn write(
    filter: pb::RecordFilter,
    out: Option<&Path>,
    since: Option<&Path>,
    run: &CommandContext,
) -> Result<Exit, CliError> {
    let since_size = since.map(|path| read_checkpoint(path, &[])).transpose()?.map_or(0, |checkpoint| checkpoint.size);
    let server = run.server().await?;
    let request = pb::ExportRecordsRequest { filter: Some(filter), since_size };
    let mut stream = server.stream(request, |c, q| async move { AuditServiceClient::new(c).export_records(q).await }).await?;
    let mut to = To::open(out, run)?;
    loop {
        match stream.message().await {
            Ok(Some(part)) => to.write(&part.lines, run)?,
            Ok(None) => break,
            // An incomplete export is useless: its file is removed when `to` is dropped.
            Err(status) => return Err(CliError::Server(Box::new(ServerError::from_status(&status)))),
        }
    }
    to.end()?;
    if let Some(path) = out {
        run.out.say(format_args!("written to {}; mayfly audit verify {} checks it", path.display(), shell_quoted(path)));
    }
    Ok(Exit::Ok)
}
