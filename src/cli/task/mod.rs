//! `mayfly task`: the unit of life.

mod end;
mod extend;
mod heartbeat;
mod hold;
mod list;
mod open;

use clap::{Args, Subcommand};

pub use heartbeat::interval;

use super::args;
use super::error::CliError;
use super::exit::Exit;
use super::server::Server;
use super::{Run, show};
use crate::pb::mayfly::v1::{self as pb, task_service_client::TaskServiceClient};

/// The subcommands for tasks.
#[derive(Subcommand)]
pub enum TaskCommand {
    /// Open a task
    Open(Box<open::OpenArgs>),
    /// One task
    Show(list::ShowArgs),
    /// Tasks, newest first
    List(list::ListTasksArgs),
    /// Move a task's deadline
    Extend(extend::ExtendArgs),
    /// Open a task under another that belongs to another caller
    Delegate(Box<open::DelegateArgs>),
    /// Stop a task and all under it until it is resumed
    Hold(hold::HoldArgs),
    /// Let a held task go on
    Resume(hold::ResumeArgs),
    /// Say that the work goes on
    Heartbeat(heartbeat::HeartbeatArgs),
    /// End a task whose work is done, with everything under it
    Complete(end::EndArgs),
    /// Give a task up, with everything under it
    Cancel(end::EndArgs),
}

/// Names a task.
#[derive(Args, Clone)]
pub struct TaskArg {
    /// The task
    #[arg(value_name = "TASK", env = "MAYFLY_TASK", hide_env_values = true, value_parser = args::task_id)]
    pub task: String,
}

/// Runs the chosen subcommand.
pub async fn run(command: TaskCommand, run: &Run) -> Result<Exit, CliError> {
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

/// One task, as it stands.
pub async fn get(server: &Server, task_id: &str) -> Result<pb::Task, CliError> {
    let request = pb::GetTaskRequest { task_id: task_id.to_owned() };
    let answer = server.call(request, |c, q| async move { TaskServiceClient::new(c).get_task(q).await }).await?;
    some(answer.task)
}

/// The task of an answer, which has one.
fn some(task: Option<pb::Task>) -> Result<pb::Task, CliError> {
    task.ok_or_else(|| CliError::ours("the server answered without the task"))
}

/// Prints a task that was opened or changed.
fn print(run: &Run, task: Option<pb::Task>) -> Result<Exit, CliError> {
    run.out.one(&show::task::Task::from(some(task)?))?;
    Ok(Exit::Ok)
}
