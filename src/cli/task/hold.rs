//! `mayfly task hold` and `mayfly task resume`.

use clap::Args;

use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::wait::{self, WaitArgs};
use super::super::{CommandContext, out};
use super::TaskArg;
use mayfly_proto::mayfly::v1::{self as pb, task_service_client::TaskServiceClient};

/// Arguments of `mayfly task hold`.
#[derive(Args)]
pub struct HoldArgs {
    #[command(flatten)]
    task: TaskArg,
    /// Reason, recorded in the audit log
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Request id; repeating the command with the same id returns the first answer
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Arguments of `mayfly task resume`.
#[derive(Args)]
pub struct ResumeArgs {
    #[command(flatten)]
    task: TaskArg,
    /// Reason, recorded in the audit log
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    /// Request id; repeating the command with the same id returns the first answer
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

pub async fn hold(args: HoldArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let server = run.server().await?;
    let request =
        pb::HoldTaskRequest { task_id: args.task.task, reason: args.reason, request_id: run.request_id(&args.request_id) };
    let answer = server.call(request, |c, q| async move { TaskServiceClient::new(c).hold_task(q).await }).await?;
    let seq = answer.seq;
    run.out.say(format_args!("held at {seq}: what was issued is refused until `mayfly task resume`"));
    let followers = wait::applied(&server, &run.system, &args.wait, seq).await?;
    run.out.one(&super::changed(seq, None, followers.as_ref(), answer.task))?;
    wait::print_result(&run.out, &args.wait, seq, followers)?;
    Ok(Exit::Ok)
}

pub async fn resume(args: ResumeArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let server = run.server().await?;
    let request =
        pb::ResumeTaskRequest { task_id: args.task.task, reason: args.reason, request_id: run.request_id(&args.request_id) };
    let answer = server.call(request, |c, q| async move { TaskServiceClient::new(c).resume_task(q).await }).await?;
    still_held(&run.out, answer.task.as_ref());
    run.out.one(&super::changed(answer.seq, None, None, answer.task))?;
    Ok(Exit::Ok)
}

/// Warns if the task is still held by another person or through a parent task.
fn still_held(out: &out::Out, task: Option<&pb::Task>) {
    for hold in task.iter().flat_map(|t| &t.holds) {
        out.say(format_args!("still held by {} at {}: {}", hold.task_id, hold.seq, hold.reason));
    }
}
