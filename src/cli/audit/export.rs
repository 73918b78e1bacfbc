//! `mayfly audit export` and `mayfly audit prove`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{FilterArgs, kept, only};
use crate::cli::Run;
use crate::cli::error::{CliError, ServerSaid};
use crate::cli::exit::Exit;
use crate::pb::mayfly::v1::{self as pb, audit_service_client::AuditServiceClient};
use crate::seq::Seq;
use crate::sources::files::may_be_replaced;

/// Arguments of `mayfly audit export`.
#[derive(Args)]
pub struct ExportArgs {
    #[command(flatten)]
    filter: FilterArgs,
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
pub async fn export(args: ExportArgs, run: &Run) -> Result<Exit, CliError> {
    write(args.filter.on_the_wire(run.system.wall()), args.out.as_deref(), args.checkpoint.as_deref(), run).await
}

/// Exports the proof of one record.
pub async fn prove(args: &ProveArgs, run: &Run) -> Result<Exit, CliError> {
    write(only(args.seq), args.out.as_deref(), args.checkpoint.as_deref(), run).await
}

/// The destination of an export. A file is written under a temporary name and renamed, so that an existing file is always complete.
enum To<'a> {
    Stdout,
    File { file: io::BufWriter<File>, aside: PathBuf, path: &'a Path },
}

impl To<'_> {
    fn open(path: Option<&Path>) -> Result<To<'_>, CliError> {
        let Some(path) = path else { return Ok(To::Stdout) };
        may_be_replaced(path).map_err(|e| CliError::Usage(format!("{}: {e}; name a file", path.display())))?;
        let aside = path.with_added_extension("partial");
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside);
        let file = file.map_err(|e| CliError::Local(format!("{}: cannot be written: {e}", aside.display())))?;
        Ok(To::File { file: io::BufWriter::new(file), aside, path })
    }

    fn write(&mut self, lines: &[u8], run: &Run) -> Result<(), CliError> {
        match self {
            To::Stdout => run.out.generated(lines),
            To::File { file, aside, .. } => {
                file.write_all(lines).map_err(|e| CliError::Local(format!("{}: cannot be written: {e}", aside.display())))
            }
        }
    }

    fn end(self) -> Result<(), CliError> {
        let To::File { file, aside, path } = self else { return Ok(()) };
        let done = file.into_inner().map_err(io::IntoInnerError::into_error);
        let done = done.and_then(|file| file.sync_all()).and_then(|()| fs::rename(&aside, path));
        done.map_err(|e| CliError::Local(format!("{}: cannot be written: {e}", path.display())))
    }
}

async fn write(filter: pb::RecordFilter, out: Option<&Path>, since: Option<&Path>, run: &Run) -> Result<Exit, CliError> {
    let since_size = since.map(|path| kept(path, &[])).transpose()?.map_or(0, |checkpoint| checkpoint.size);
    let server = run.server().await?;
    let request = pb::ExportRecordsRequest { filter: Some(filter), since_size };
    let mut stream = server.stream(request, |c, q| async move { AuditServiceClient::new(c).export_records(q).await }).await?;
    let mut to = To::open(out)?;
    loop {
        match stream.message().await {
            Ok(Some(part)) => to.write(&part.lines, run)?,
            Ok(None) => break,
            Err(status) => {
                if let To::File { aside, .. } = &to {
                    // An incomplete export is useless.
                    let _ = fs::remove_file(aside);
                }
                return Err(CliError::Server(Box::new(ServerSaid::from_status(&status))));
            }
        }
    }
    to.end()?;
    if let Some(path) = out {
        run.out.say(format_args!("written to {0}; mayfly audit verify {0} checks it", path.display()));
    }
    Ok(Exit::Ok)
}
