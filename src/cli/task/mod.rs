//! `mayfly task`: opens, inspects and ends tasks. Every credential belongs to a task and ends with it.

mod end;
mod extend;
mod heartbeat;
mod hold;
mod list;
mod open;

use clap::{Args, Subcommand};

pub use heartbeat::{beat, interval};

use super::CommandContext;
use super::args;
use super::error::CliError;
use super::exit::Exit;
use super::out::tree::OrderedJson;
use super::server::ApiClient;
use super::show::answer::Answer;
use super::show::{self, message};
use mayfly_proto::mayfly::v1::{self as pb, task_service_client::TaskServiceClient};

/// The subcommands for tasks.
#[derive(Subcommand)]
pub enum TaskCommand {
    /// Open a task
    Open(Box<open::OpenTaskArgs>),
    /// Show a task
    Show(list::ShowTaskArgs),
    /// List tasks, newest first
    List(list::ListTasksArgs),
    /// Extend the deadline of a task
    Extend(extend::ExtendArgs),
    /// Open a child task that another caller owns
    Delegate(Box<open::DelegateArgs>),
    /// Hold a task and its child tasks until it is resumed
    Hold(hold::HoldArgs),
    /// Resume a held task
    Resume(hold::ResumeArgs),
    /// Send a heartbeat, which keeps a task with heartbeats open
    Heartbeat(heartbeat::TaskHeartbeatArgs),
    /// Complete a task whose work is done, with its child tasks
    Complete(end::EndArgs),
    /// Cancel a task, with its child tasks
    Cancel(end::EndArgs),
}

/// The id of a task.
#[derive(Args, Clone)]
pub struct TaskArg {
    /// Id of the task
    #[arg(value_name = "TASK", env = "MAYFLY_TASK", hide_env_values = true, value_parser = args::task_id)]
    pub task: String,
}

/// Runs the chosen subcommand.
pub async fn run(command: TaskCommand, run: &CommandContext) -> Result<Exit, CliError> {
    match command {
        TaskCommand::Open(args) => open::open(*args, run).await,
        TaskCommand::Show(args) => list::show(args, run).await,
        TaskCommand::List(args) => list::list(args, run).await,
        TaskCommand::Extend(args) => extend::run(args, run).await,
        TaskCommand::Delegate(args) => open::delegate(*args, run).await,
        TaskCommand::Hold(args) => hold::hold(args, run).await,
        TaskCommand::Resume(args) => hold::resume(args, run).await,
        TaskCommand::Heartbeat(args) => heartbeat::run(args, run).await,
        TaskCommand::Complete(args) => end::complete(args, run).await,
        TaskCommand::Cancel(args) => end::cancel(args, run).await,
    }
}

/// Fetches a task.
pub async fn get(server: &ApiClient, task_id: &str) -> Result<pb::Task, CliError> {
    let request = pb::GetTaskRequest { task_id: task_id.to_owned() };
    let answer = server.call(request, |c, q| async move { TaskServiceClient::new(c).get_task(q).await }).await?;
    some(answer.task)
}

/// The task of an answer, which must contain one.
fn some(task: Option<pb::Task>) -> Result<pb::Task, CliError> {
    task.ok_or_else(|| CliError::ours("the server answered without the task"))
}

/// The result of changing a task.
fn changed(
    seq: u64,
    hits: Option<OrderedJson>,
    followers: Option<&pb::WaitForRevocationResponse>,
    task: Option<pb::Task>,
) -> Answer {
    let name = task.as_ref().map_or_else(|| seq.to_string(), |task| task.task_id.clone());
    let changed = Answer::named(name).with("seq", seq).with_some("hits", hits);
    changed.with_some("followers", followers.map(message::json)).with("task", task.as_ref().map(message::json))
}

/// Prints a task that was opened or changed.
fn print(run: &CommandContext, task: Option<pb::Task>) -> Result<Exit, CliError> {
    run.out.one(&show::Shown(some(task)?))?;
    Ok(Exit::Ok)
}
