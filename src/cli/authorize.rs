//! `mayfly authorize`: asks whether an action is permitted; no credential is issued.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::args::{self, wire_duration};
use super::error::CliError;
use super::exit::Exit;
use super::get::ToolArguments;
use super::show::{Shown, time};
use super::{CommandContext, token};
use mayfly_proto::mayfly::v1::{self as pb, token_service_client::TokenServiceClient};

/// Arguments of `mayfly authorize`.
#[derive(Args)]
pub struct AuthorizeArgs {
    /// Upstream [default: the upstream of --token]
    #[arg(value_name = "UPSTREAM", required_unless_present = "token")]
    upstream: Option<String>,
    /// Task [default: the task of --token]
    #[arg(long, value_name = "TASK", env = "MAYFLY_TASK", hide_env_values = true, value_parser = args::task_id, required_unless_present = "token")]
    task: Option<String>,
    /// File with a token that was presented to this workload, a server of the token's upstream: check the rights of the token's holder;
    /// `-` is stdin [default: check the rights of this caller]
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
    /// Scope that the action needs; can be repeated
    #[arg(long, value_name = "SCOPE", required = true)]
    scope: Vec<String>,
    /// Tool that is about to be called
    #[arg(long, value_name = "NAME")]
    tool: Option<String>,
    /// Purpose of the action [default: the purpose of the task]
    #[arg(long, value_name = "TEXT")]
    purpose: Option<String>,
    #[command(flatten)]
    arguments: ToolArguments,
    /// If an approval is needed, wait this long for it
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    wait_for_approval: Option<Duration>,
    /// Request id; repeating the command with the same id returns the first answer
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// Runs the command.
pub async fn run(args: AuthorizeArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let token = args.token.as_deref().map(token::from_file).transpose()?;
    let request = pb::AuthorizeRequest {
        task_id: args.task.filter(|_| token.is_none()).unwrap_or_default(),
        token: token.map_or_else(String::new, |token| token.to_string()),
        upstream: args.upstream.unwrap_or_default(),
        scopes: args.scope,
        tool: args.tool.unwrap_or_default(),
        purpose: args.purpose.unwrap_or_default(),
        arguments: args.arguments.on_the_wire()?,
        authorization_details: String::new(),
        request_id: run.request_id(&args.request_id),
        wait_for_approval: args.wait_for_approval.map(wire_duration),
    };
    let server = run.server().await?;
    let wait = args.wait_for_approval.unwrap_or_default();
    let answer = server.waiting(wait).call(request, |c, q| async move { TokenServiceClient::new(c).authorize(q).await }).await?;
    let until = time(answer.expires_at).unwrap_or_else(|| "-".to_owned());
    run.out.say(format_args!("permitted, to begin before {until}"));
    run.out.one(&Shown(answer))?;
    Ok(Exit::Ok)
}
