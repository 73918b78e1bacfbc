//! The command `mayfly audit tail`.

use clap::Args;

use super::RecordFilterArgs;
use crate::error::CliError;
use crate::exit::Exit;
use crate::show::Shown;
use crate::{CommandContext, list};
use mayfly_proto::mayfly::v1::{self as pb, audit_service_client::AuditServiceClient};
use mayfly_verify::seq::Seq;

/// Arguments of `mayfly audit tail`.
#[derive(Args)]
pub struct TailArgs {
    #[command(flatten)]
    filter: RecordFilterArgs,
    /// Resume after the record with this sequence number [default: start now]
    #[arg(long, value_name = "SEQ")]
    resume_after: Option<Seq>,
}

/// Prints a line for each record until the stream ends.
pub async fn tail(args: TailArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let server = run.server().await?;
    let last = args.resume_after.map(Seq::as_u64);
    let request = pb::TailRecordsRequest { resume_after: last, filter: Some(args.filter.on_the_wire(run.system.wall())) };
    let stream = server.stream(request, |c, q| async move { AuditServiceClient::new(c).tail_records(q).await }).await?;
    let show = |told: pb::TailRecordsResponse| told.record.map_or(Ok(()), |record| run.out.line(&Shown(record)));
    list::follow(&run.out, stream, last, |told| told.seq, show).await
}
