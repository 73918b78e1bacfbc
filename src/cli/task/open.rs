//! `mayfly task open` and `mayfly task delegate`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::super::args::{self, wire_duration};
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::subject::SubjectArgs;
use super::super::terms::TermsArgs;
use super::super::{CommandContext, token};
use mayfly_proto::mayfly::v1::{self as pb, task_service_client::TaskServiceClient};

/// Arguments of `mayfly task open`.
#[derive(Args)]
pub struct OpenTaskArgs {
    #[command(flatten)]
    terms: TermsArgs,
    /// Parent task
    #[arg(long, value_name = "TASK", value_parser = args::task_id)]
    parent: Option<String>,
    /// File with the parent credential that this caller acts under; `-` is stdin
    #[arg(long, value_name = "FILE")]
    parent_credential: Option<PathBuf>,
    #[command(flatten)]
    subject: SubjectArgs,
    /// If an approval is needed, wait this long for it
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    wait_for_approval: Option<Duration>,
    /// Request id; repeating the command with the same id returns the first answer
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// Arguments of `mayfly task delegate`.
#[derive(Args)]
pub struct DelegateArgs {
    /// Parent task
    #[arg(value_name = "TASK", value_parser = args::task_id)]
    parent: String,
    /// SPIFFE ID of the new task's owner
    #[arg(long, value_name = "SPIFFE_ID")]
    to: String,
    #[command(flatten)]
    terms: TermsArgs,
    /// If an approval is needed, wait this long for it
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    wait_for_approval: Option<Duration>,
    /// Request id; repeating the command with the same id returns the first answer
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

pub async fn open(args: OpenTaskArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let parent_credential = args.parent_credential.as_deref().map(token::parent_credential).transpose()?;
    let subject_token = args.subject.token()?;
    let server = run.server().await?;
    let request = pb::OpenTaskRequest {
        terms: Some(args.terms.on_the_wire(&server, args.parent).await?),
        subject_token,
        parent_credential,
        request_id: run.request_id(&args.request_id),
        wait_for_approval: args.wait_for_approval.map(wire_duration),
    };
    let server = server.waiting(args.wait_for_approval.unwrap_or_default());
    let answer = server.call(request, |c, q| async move { TaskServiceClient::new(c).open_task(q).await }).await?;
    opened(run, super::some(answer.task)?)
}

pub async fn delegate(args: DelegateArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let server = run.server().await?;
    let request = pb::DelegateTaskRequest {
        terms: Some(args.terms.on_the_wire(&server, Some(args.parent)).await?),
        caller: args.to,
        request_id: run.request_id(&args.request_id),
        wait_for_approval: args.wait_for_approval.map(wire_duration),
    };
    let server = server.waiting(args.wait_for_approval.unwrap_or_default());
    let answer = server.call(request, |c, q| async move { TaskServiceClient::new(c).delegate_task(q).await }).await?;
    opened(run, super::some(answer.task)?)
}

/// Prints the opened task, and whether credentials can be issued in it yet.
fn opened(run: &CommandContext, task: pb::Task) -> Result<Exit, CliError> {
    let (id, approval) = (task.task_id.clone(), task.approval_id.clone());
    let pending = task.state() == pb::TaskState::PendingApproval;
    super::print(run, Some(task))?;
    if !pending {
        return Ok(Exit::Ok);
    }
    run.out.say(format_args!(
        "nothing is issued in it until approval {approval} is given; those whom the registration names: mayfly approval give {approval} --reason TEXT; \
         see how it stands: mayfly task show {id}"
    ));
    Ok(Exit::ApprovalNeeded)
}
