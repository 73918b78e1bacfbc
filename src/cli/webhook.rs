//! `mayfly webhook`: lists the webhooks of the server, and tests one.

use clap::{Args, Subcommand};

use super::CommandContext;
use super::error::CliError;
use super::exit::Exit;
use super::show::answer::Answer;
use super::show::shown;
use mayfly_proto::mayfly::v1::{self as pb, server_service_client::ServerServiceClient};

/// The subcommands for webhooks.
#[derive(Subcommand)]
pub enum WebhookCommand {
    /// List the webhooks of the server's configuration, with the progress of each and the events given up
    List,
    /// Send a test event to a webhook at once
    Test(TestWebhookArgs),
}

/// Arguments of `mayfly webhook test`.
#[derive(Args)]
pub struct TestWebhookArgs {
    /// Name of the webhook
    #[arg(value_name = "NAME")]
    name: String,
}

/// Runs the chosen subcommand.
pub async fn run(command: WebhookCommand, run: &CommandContext) -> Result<Exit, CliError> {
    let server = &run.server().await?;
    match command {
        WebhookCommand::List => {
            let call = |c, q| async move { ServerServiceClient::new(c).list_webhooks(q).await };
            let answer = server.call(pb::ListWebhooksRequest {}, call).await?;
            run.out.list(&shown(answer.webhooks))?;
            Ok(Exit::Ok)
        }
        WebhookCommand::Test(args) => {
            let call = |c, q| async move { ServerServiceClient::new(c).test_webhook(q).await };
            let answer = server.call(pb::TestWebhookRequest { name: args.name.clone() }, call).await?;
            run.out.say(format_args!("it took the test event and answered {}", answer.status));
            run.out.one(&Answer::named(&args.name).with("webhook", args.name).and(&answer))?;
            Ok(Exit::Ok)
        }
    }
}
