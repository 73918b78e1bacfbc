//! `mayfly audit tail`.

use clap::Args;

use super::FilterArgs;
use crate::cli::Run;
use crate::cli::error::{CliError, ServerSaid};
use crate::cli::exit::Exit;
use crate::cli::show::explain::Record;
use crate::pb::mayfly::v1::{self as pb, audit_service_client::AuditServiceClient};
use crate::seq::Seq;

/// `mayfly audit tail`
#[derive(Args)]
pub struct TailArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Go on after this record [default: begin now]
    #[arg(long, value_name = "SEQ")]
    resume_after: Option<Seq>,
}

/// A line for each record, until the stream ends.
pub async fn tail(args: TailArgs, run: &Run) -> Result<Exit, CliError> {
    let server = run.server().await?;
    let mut last = args.resume_after.map(Seq::as_u64);
    let request = pb::TailRecordsRequest { resume_after: last, filter: Some(args.filter.on_the_wire()) };
    let mut stream = server.stream(request, |c, q| async move { AuditServiceClient::new(c).tail_records(q).await }).await?;
    loop {
        match stream.message().await {
            Ok(Some(told)) => {
                last = Some(told.seq);
                if let Some(record) = told.record {
                    run.out.line(&Record::from(record))?;
                }
            }
            ended => {
                if let Some(seq) = last {
                    run.out.say(format_args!("to go on where this ended: --resume-after {seq}"));
                }
                return match ended {
                    Err(status) => Err(CliError::Server(Box::new(ServerSaid::from_status(&status)))),
                    Ok(_) => Err(CliError::Ended),
                };
            }
        }
    }
}
