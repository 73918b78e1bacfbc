//! `mayfly rules`: lists the revocation rules in effect.

use clap::{Args, Subcommand};

use super::CommandContext;
use super::error::CliError;
use super::exit::Exit;
use super::list::{self, ListArgs};
use super::targets::TargetArgs;
use mayfly_proto::mayfly::v1::{self as pb, revocation_service_client::RevocationServiceClient};

/// The subcommands for revocation rules.
#[derive(Subcommand)]
pub enum RulesCommand {
    /// List revocation rules, newest first
    List(Box<ListRulesArgs>),
}

/// Arguments of `mayfly rules list`.
#[derive(Args)]
pub struct ListRulesArgs {
    #[command(flatten)]
    list: ListArgs,
    #[command(flatten)]
    target: TargetArgs,
}

/// Runs the command.
pub async fn run(command: RulesCommand, run: &CommandContext) -> Result<Exit, CliError> {
    let RulesCommand::List(args) = command;
    let target = &at_most_one(args.target.targets()?)?;
    let server = &run.server().await?;
    let page = |page_size, page_token| async move {
        let request = pb::ListRulesRequest { target: target.clone(), page_size, page_token };
        let answer = server.call(request, |c, q| async move { RevocationServiceClient::new(c).list_rules(q).await }).await?;
        Ok((answer.rules, answer.next_page_token))
    };
    list::show(&run.out, &args.list, page).await
}

/// The target that a filter names; more than one is an error.
pub fn at_most_one(mut targets: Vec<pb::Target>) -> Result<Option<pb::Target>, CliError> {
    match targets.len() {
        0 | 1 => Ok(targets.pop()),
        _ => Err(CliError::Usage("name one target to list the rules for exactly that target, or none".to_owned())),
    }
}
