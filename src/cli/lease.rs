//! `mayfly lease`: manages leases, the records of objects that were created at upstreams and have to be removed.

use clap::{Args, Subcommand};

use super::CommandContext;
use super::error::CliError;
use super::exit::Exit;
use super::list::{self, ListArgs};
use super::show::Shown;
use mayfly_proto::mayfly::v1::{self as pb, upstream_service_client::UpstreamServiceClient};
use mayfly_verify::seq::LeaseId;

/// The subcommands for leases.
#[derive(Subcommand)]
pub enum LeaseCommand {
    /// List open leases, with the upstream's answer to the latest attempt to remove each
    List(ListLeasesArgs),
    /// Show an open lease: its age, the last error and the next attempt
    Show(ShowLeaseArgs),
    /// Retry removing a lease's object at once, ahead of the schedule
    Retry(RetryArgs),
    /// Stop trying to remove a lease's object; an operator has to clean it up at the upstream
    Abandon(AbandonArgs),
}

/// Arguments of `mayfly lease list`.
#[derive(Args)]
pub struct ListLeasesArgs {
    /// Only leases of this upstream
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
    /// Only leases in this state
    #[arg(long, value_enum, value_name = "STATE")]
    state: Option<LeaseState>,
    #[command(flatten)]
    list: ListArgs,
}

/// The state of an open lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum LeaseState {
    /// Of a live credential
    Live,
    /// To be undone
    Pending,
    /// Of a credential that is being made
    Making,
}

impl From<LeaseState> for pb::UpstreamState {
    fn from(state: LeaseState) -> pb::UpstreamState {
        match state {
            LeaseState::Live => pb::UpstreamState::Live,
            LeaseState::Pending => pb::UpstreamState::Pending,
            LeaseState::Making => pb::UpstreamState::Making,
        }
    }
}

/// Arguments of `mayfly lease show`.
#[derive(Args)]
pub struct ShowLeaseArgs {
    /// Id of the lease
    #[arg(value_name = "LEASE")]
    lease: LeaseId,
}

/// Arguments of `mayfly lease retry`.
#[derive(Args)]
pub struct RetryArgs {
    /// Id of the lease
    #[arg(value_name = "LEASE")]
    lease: LeaseId,
}

/// Arguments of `mayfly lease abandon`.
#[derive(Args)]
pub struct AbandonArgs {
    /// Id of the lease
    #[arg(value_name = "LEASE")]
    lease: LeaseId,
    /// Reason, recorded in the audit log
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Request id; repeating the command with the same id returns the first answer
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// Runs the chosen subcommand.
pub async fn run(command: LeaseCommand, run: &CommandContext) -> Result<Exit, CliError> {
    let server = &run.server().await?;
    match command {
        LeaseCommand::List(args) => {
            let state = args.state.map_or(pb::UpstreamState::Unspecified, pb::UpstreamState::from);
            let (upstream, state) = (&args.upstream.unwrap_or_default(), state.into());
            let page = |page_size, page_token| async move {
                let request = pb::ListLeasesRequest { upstream: upstream.clone(), state, page_size, page_token };
                let answer =
                    server.call(request, |c, q| async move { UpstreamServiceClient::new(c).list_leases(q).await }).await?;
                Ok((answer.leases, answer.next_page_token))
            };
            list::show(&run.out, &args.list, page).await
        }
        LeaseCommand::Show(args) => {
            let request = pb::GetLeaseRequest { lease_id: args.lease.to_string() };
            let answer = server.call(request, |c, q| async move { UpstreamServiceClient::new(c).get_lease(q).await }).await?;
            run.out.one(&Shown(answer.lease.unwrap_or_default()))?;
            Ok(Exit::Ok)
        }
        LeaseCommand::Retry(args) => {
            let request = pb::RetryLeaseRequest { lease_id: args.lease.to_string() };
            let answer = server.call(request, |c, q| async move { UpstreamServiceClient::new(c).retry_lease(q).await }).await?;
            run.out.say(format_args!("it is tried now; mayfly lease list shows what came of it"));
            run.out.one(&Shown(answer.lease.unwrap_or_default()))?;
            Ok(Exit::Ok)
        }
        LeaseCommand::Abandon(args) => {
            let request_id = run.request_id(&args.request_id);
            let request = pb::AbandonLeaseRequest { lease_id: args.lease.to_string(), reason: args.reason, request_id };
            let answer = server.call(request, |c, q| async move { UpstreamServiceClient::new(c).abandon_lease(q).await }).await?;
            let lease = answer.lease.unwrap_or_default();
            run.out.say(format_args!("given up: {} at {} is not undone by mayfly any more", lease.what, lease.upstream));
            run.out.one(&Shown(lease))?;
            Ok(Exit::Ok)
        }
    }
}
