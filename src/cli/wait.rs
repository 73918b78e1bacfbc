//! `--wait`: waits until every follower has applied a record, or reports the followers that have not.

use std::time::Duration;

use clap::Args;

use super::args::{self, duration_text, wire_duration};
use super::error::CliError;
use super::out::Out;
use super::server::ApiClient;
use super::show::{author, time};
use mayfly_base::limits;
use mayfly_base::system::System;
use mayfly_proto::mayfly::v1::{self as pb, revocation_service_client::RevocationServiceClient};

/// The options of waiting for followers.
#[derive(Args, Clone)]
pub struct WaitArgs {
    /// Wait until every follower has applied the change; exits with 7 and lists the others if some have not in time
    #[arg(long)]
    pub wait: bool,
    /// Maximum time to wait
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = args::duration, requires = "wait")]
    pub timeout: Duration,
}

/// Waits until the followers have applied the record `seq`, if `--wait` was given and there is such a record: 0 is none.
pub async fn applied(
    server: &ApiClient,
    system: &System,
    args: &WaitArgs,
    seq: u64,
) -> Result<Option<pb::WaitForRevocationResponse>, CliError> {
    if !args.wait || seq == 0 {
        return Ok(None);
    }
    let began = system.steady();
    loop {
        let left = args.timeout.saturating_sub(Duration::from_millis(system.steady().saturating_sub(began)));
        let slice = left.min(Duration::from_millis(limits::WAIT_MS));
        let request = pb::WaitForRevocationRequest { seq, timeout: Some(wire_duration(slice)) };
        let asked = server.waiting(slice);
        let answer =
            asked.call(request, |c, q| async move { RevocationServiceClient::new(c).wait_for_revocation(q).await }).await?;
        if answer.applied || slice == left {
            return Ok(Some(answer));
        }
    }
}

/// Prints the result of the wait; an error if some followers have not applied the record.
pub fn print_result(
    out: &Out,
    args: &WaitArgs,
    seq: u64,
    applied: Option<pb::WaitForRevocationResponse>,
) -> Result<(), CliError> {
    let Some(applied) = applied else { return Ok(()) };
    if applied.applied && applied.followers == Some(0) {
        out.say(format_args!("no follower is registered, so none had to apply {seq}; mayfly itself refuses it"));
        return Ok(());
    }
    if applied.applied {
        out.say(format_args!("every follower has applied {seq}"));
        return Ok(());
    }
    for f in &applied.behind {
        let connected = if f.connected { "connected" } else { "not connected" };
        let (who, seen) = (author(&f.identity), time(f.last_seen).unwrap_or_else(|| "never".to_owned()));
        out.say(format_args!("not applied yet: {} ({who}), at {}, {connected}, last seen {seen}", f.follower, f.applied_seq));
    }
    let (count, after) = (applied.behind_count, duration_text(args.timeout));
    if count == 0 {
        let what =
            "mayfly refuses it, and was started not long ago: a follower of before may not be back, and would not be told of";
        return Err(CliError::Partly(format!("{what}; repeat the command with a --timeout longer than {after}")));
    }
    Err(CliError::Partly(format!(
        "the server refuses it already, but {count} of its followers had not applied {seq} within {after}"
    )))
}
