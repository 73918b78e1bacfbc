//! `mayfly follower`: lists the relying services that follow revocations.

use clap::Subcommand;

use super::CommandContext;
use super::error::CliError;
use super::exit::Exit;
use super::list::{self, ListArgs};
use mayfly_proto::mayfly::v1::{self as pb, revocation_service_client::RevocationServiceClient};

/// The subcommands for followers.
#[derive(Subcommand)]
pub enum FollowerCommand {
    /// List registered followers, and how far each has applied the log
    List(ListArgs),
}

/// Runs the command.
pub async fn run(command: FollowerCommand, run: &CommandContext) -> Result<Exit, CliError> {
    let FollowerCommand::List(args) = command;
    let server = &run.server().await?;
    let page = |page_size, page_token| async move {
        let request = pb::ListFollowersRequest { page_size, page_token };
        let answer = server.call(request, |c, q| async move { RevocationServiceClient::new(c).list_followers(q).await }).await?;
        Ok((answer.followers, answer.next_page_token))
    };
    list::show(&run.out, &args, page).await
}
