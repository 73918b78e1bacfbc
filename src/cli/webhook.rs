//! `mayfly webhook`: who is told of events, and whether they take them.

use clap::{Args, Subcommand};

use super::Run;
use super::error::CliError;
use super::exit::Exit;
use super::show::webhook::{Tested, Webhook};
use crate::pb::mayfly::v1::{self as pb, server_service_client::ServerServiceClient};

/// What can be done with webhooks.
#[derive(Subcommand)]
pub enum WebhookCommand {
    /// The webhooks of the server's configuration: how far each is, and what was given up
    List,
    /// Post a test event to one, now
    Test(TestArgs),
}

/// `mayfly webhook test`
#[derive(Args)]
pub struct TestArgs {
    /// The webhook
    #[arg(value_name = "NAME")]
    name: String,
}

/// Runs one of them.
pub async fn run(command: WebhookCommand, run: &Run) -> Result<Exit, CliError> {
    let server = &run.server().await?;
    match command {
        WebhookCommand::List => {
            let call = |c, q| async move { ServerServiceClient::new(c).list_webhooks(q).await };
            let answer = server.call(pb::ListWebhooksRequest {}, call).await?;
            let all: Vec<Webhook> = answer.webhooks.into_iter().map(Webhook::from).collect();
            run.out.list(&all)?;
            Ok(Exit::Ok)
        }
        WebhookCommand::Test(args) => {
            let call = |c, q| async move { ServerServiceClient::new(c).test_webhook(q).await };
            let answer = server.call(pb::TestWebhookRequest { name: args.name.clone() }, call).await?;
            run.out.say(format_args!("it took the test event and answered {}", answer.status));
            run.out.one(&Tested { webhook: args.name, status: answer.status })?;
            Ok(Exit::Ok)
        }
    }
}
