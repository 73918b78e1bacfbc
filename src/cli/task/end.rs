//! `mayfly task complete` and `mayfly task cancel`.

use clap::Args;

use super::super::CommandContext;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::server::ApiClient;
use super::super::show::{hits, message};
use super::super::wait::{self, WaitArgs};
use super::TaskArg;
use mayfly_proto::mayfly::v1::{self as pb, task_service_client::TaskServiceClient};

/// Arguments of `mayfly task complete` and `mayfly task cancel`.
#[derive(Args)]
pub struct EndArgs {
    #[command(flatten)]
    task: TaskArg,
    /// Note to record in the audit log
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    wait: WaitArgs,
}

pub async fn complete(args: EndArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let server = run.server().await?;
    let request = pb::CompleteTaskRequest { task_id: args.task.task, reason: args.reason };
    let answer = server.call(request, |c, q| async move { TaskServiceClient::new(c).complete_task(q).await }).await?;
    ended(run, &server, &args.wait, answer.seq, answer.task, answer.hits).await
}

pub async fn cancel(args: EndArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let server = run.server().await?;
    let request = pb::CancelTaskRequest { task_id: args.task.task, reason: args.reason };
    let answer = server.call(request, |c, q| async move { TaskServiceClient::new(c).cancel_task(q).await }).await?;
    ended(run, &server, &args.wait, answer.seq, answer.task, answer.hits).await
}

async fn ended(
    run: &CommandContext,
    server: &ApiClient,
    args: &WaitArgs,
    seq: u64,
    task: Option<pb::Task>,
    hit: Option<pb::Hits>,
) -> Result<Exit, CliError> {
    // A server with many credentials does not count the hits for a workload.
    match hit {
        Some(hit) => run.out.say(format_args!("ended at {seq}; with it ended {}", hits::revoked(hit))),
        None => run.out.say(format_args!("ended at {seq}, with everything under it")),
    }
    let followers = wait::applied(server, &run.system, args, seq).await?;
    let changed = super::changed(seq, hit.as_ref().map(message::json), followers.as_ref(), task);
    run.out.one(&changed)?;
    wait::print_result(&run.out, args, seq, followers)?;
    Ok(Exit::Ok)
}
