//! `mayfly audit search` and `mayfly audit show`.

use clap::Args;

use super::{RecordFilterArgs, only};
use crate::CommandContext;
use crate::args;
use crate::error::CliError;
use crate::exit::Exit;
use crate::server::ApiClient;
use crate::show::{Shown, shown};
use mayfly_proto::mayfly::v1::{self as pb, audit_service_client::AuditServiceClient};
use mayfly_verify::seq::Seq;

/// Records per page.
const PAGE: usize = 500;

/// Arguments of `mayfly audit search`.
#[derive(Args)]
pub struct SearchArgs {
    #[command(flatten)]
    filter: RecordFilterArgs,
    /// Maximum number of records
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = args::limit)]
    limit: usize,
}

/// Arguments of `mayfly audit show`.
#[derive(Args)]
pub struct ShowRecordArgs {
    /// Sequence number of the record
    #[arg(value_name = "SEQ")]
    seq: Seq,
}

/// The records found, and how far back the search reached.
struct FoundRecords {
    records: Vec<Shown<pb::Record>>,
    /// There are more matching records.
    more: bool,
    removed: u64,
}

async fn find(server: &ApiClient, filter: &pb::RecordFilter, limit: usize) -> Result<FoundRecords, CliError> {
    let (mut records, mut page_token) = (Vec::new(), String::new());
    loop {
        let size = PAGE.min(limit.saturating_sub(records.len()).max(1));
        let page_size = i32::try_from(size).unwrap_or(i32::MAX);
        let request = pb::SearchRecordsRequest { filter: Some(filter.clone()), page_size, page_token };
        let answer = server.call(request, |c, q| async move { AuditServiceClient::new(c).search_records(q).await }).await?;
        records.extend(shown(answer.records));
        page_token = answer.next_page_token;
        let done = page_token.is_empty();
        if done || records.len() >= limit {
            let more = !done || records.len() > limit;
            records.truncate(limit);
            return Ok(FoundRecords { records, more, removed: answer.removed_up_to });
        }
    }
}

/// Prints matching records, newest first.
pub async fn search(args: SearchArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let server = run.server().await?;
    let found = find(&server, &args.filter.on_the_wire(run.system.wall()), args.limit).await?;
    run.out.list(&found.records)?;
    if found.more {
        run.out.say(format_args!("there may be more than these {}: raise --limit", found.records.len()));
    }
    if found.removed > 0 {
        run.out.say(format_args!("records up to seq {} were removed (audit.keep): only an export has them", found.removed));
    }
    Ok(Exit::Ok)
}

/// Prints one record.
pub async fn show(args: &ShowRecordArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let filter = only(args.seq)?;
    let server = run.server().await?;
    let found = find(&server, &filter, 1).await?;
    match found.records.first() {
        Some(record) => run.out.one(record)?,
        None if found.removed >= args.seq.as_u64() => {
            run.out.say(format_args!("records up to seq {} were removed (audit.keep): only an export has them", found.removed));
            return Ok(Exit::NotFound);
        }
        None => {
            run.out.say(format_args!("there is no record {}", args.seq));
            return Ok(Exit::NotFound);
        }
    }
    Ok(Exit::Ok)
}
