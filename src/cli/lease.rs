//! `mayfly lease`: what was made at upstreams and has to be undone.

use clap::{Args, Subcommand};

use super::Run;
use super::args::wire_word;
use super::error::CliError;
use super::exit::Exit;
use super::list::{self, ListArgs};
use super::show::lease::Lease;
use crate::pb::mayfly::v1::{self as pb, upstream_service_client::UpstreamServiceClient};
use crate::seq::LeaseId;

/// What can be done with leases.
#[derive(Subcommand)]
pub enum LeaseCommand {
    /// Open leases, with what their upstream said to the newest attempt to undo them
    List(ListLeasesArgs),
    /// Try to undo one at once rather than at its next turn
    Retry(RetryArgs),
    /// Give up undoing one; what stands at the upstream is ours to clean from then on
    Abandon(AbandonArgs),
}

/// `mayfly lease list`
#[derive(Args)]
pub struct ListLeasesArgs {
    /// Only those of this upstream
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
    /// Only those in this state: live or pending
    #[arg(long, value_parser = wire_word!(pb::UpstreamState, "UPSTREAM_STATE_"))]
    state: Option<pb::UpstreamState>,
    #[command(flatten)]
    list: ListArgs,
}

/// `mayfly lease retry`
#[derive(Args)]
pub struct RetryArgs {
    /// The lease
    #[arg(value_name = "LEASE")]
    lease: LeaseId,
}

/// `mayfly lease abandon`
#[derive(Args)]
pub struct AbandonArgs {
    /// The lease
    #[arg(value_name = "LEASE")]
    lease: LeaseId,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Makes a repeat by hand safe
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// Runs one of them.
pub async fn run(command: LeaseCommand, run: &Run) -> Result<Exit, CliError> {
    let server = &run.server().await?;
    match command {
        LeaseCommand::List(args) => {
            let (upstream, state) = (&args.upstream.unwrap_or_default(), args.state.unwrap_or_default().into());
            let page = |page_size, page_token| async move {
                let request = pb::ListLeasesRequest { upstream: upstream.clone(), state, page_size, page_token };
                let answer =
                    server.call(request, |c, q| async move { UpstreamServiceClient::new(c).list_leases(q).await }).await?;
                Ok((answer.leases.into_iter().map(Lease::from).collect(), answer.next_page_token))
            };
            list::show(&run.out, &args.list, page).await
        }
        LeaseCommand::Retry(args) => {
            let request = pb::RetryLeaseRequest { lease_id: args.lease.to_string() };
            let answer = server.call(request, |c, q| async move { UpstreamServiceClient::new(c).retry_lease(q).await }).await?;
            run.out.say(format_args!("it is tried now; mayfly lease list shows what came of it"));
            run.out.one(&Lease::from(answer.lease.unwrap_or_default()))?;
            Ok(Exit::Ok)
        }
        LeaseCommand::Abandon(args) => {
            let request_id = run.request_id(&args.request_id);
            let request = pb::AbandonLeaseRequest { lease_id: args.lease.to_string(), reason: args.reason, request_id };
            let answer = server.call(request, |c, q| async move { UpstreamServiceClient::new(c).abandon_lease(q).await }).await?;
            let lease = Lease::from(answer.lease.unwrap_or_default());
            run.out.say(format_args!("given up: {} at {} is not undone by mayfly any more", lease.what, lease.upstream));
            run.out.one(&lease)?;
            Ok(Exit::Ok)
        }
    }
}
