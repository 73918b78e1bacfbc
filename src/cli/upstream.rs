//! `mayfly upstream`: what credentials can be had for.

use clap::{Args, Subcommand};

use super::args::wire_word;
use super::error::CliError;
use super::exit::Exit;
use super::list::{self, ListArgs};
use super::show::upstream::Upstream;
use super::{Run, terms};
use crate::pb::mayfly::v1::{self as pb, upstream_service_client::UpstreamServiceClient};

/// What can be done with upstreams.
#[derive(Subcommand)]
pub enum UpstreamCommand {
    /// Upstreams, by name
    List(ListUpstreamsArgs),
    /// One upstream
    Show(ShowArgs),
}

/// `mayfly upstream list`
#[derive(Args)]
pub struct ListUpstreamsArgs {
    /// Only those of this environment
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    /// Only those in this state
    #[arg(long, value_parser = wire_word!(pb::RegistrationState, "REGISTRATION_STATE_"))]
    state: Option<pb::RegistrationState>,
    #[command(flatten)]
    list: ListArgs,
}

/// `mayfly upstream show`
#[derive(Args)]
pub struct ShowArgs {
    /// Its name
    #[arg(value_name = "NAME")]
    upstream: String,
}

/// Runs one of them.
pub async fn run(command: UpstreamCommand, run: &Run) -> Result<Exit, CliError> {
    let server = &run.server().await?;
    match command {
        UpstreamCommand::Show(args) => {
            run.out.one(&Upstream::from(terms::registration(server, &args.upstream).await?))?;
            Ok(Exit::Ok)
        }
        UpstreamCommand::List(args) => {
            let (environment, state) = (&args.environment.unwrap_or_default(), args.state.unwrap_or_default().into());
            let page = |page_size, page_token| async move {
                let request = pb::ListUpstreamsRequest { environment: environment.clone(), state, page_size, page_token };
                let answer =
                    server.call(request, |c, q| async move { UpstreamServiceClient::new(c).list_upstreams(q).await }).await?;
                Ok((answer.upstreams.into_iter().map(Upstream::from).collect(), answer.next_page_token))
            };
            list::show(&run.out, &args.list, page).await
        }
    }
}
