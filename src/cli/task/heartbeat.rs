//! The command `mayfly task heartbeat`.

use std::time::Duration;

use clap::Args;

use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::server::ApiClient;
use super::super::show::answer::Answer;
use super::super::{CommandContext, args};
use super::TaskArg;
use mayfly_base::limits;
use mayfly_proto::mayfly::v1::{self as pb, task_service_client::TaskServiceClient};

/// Arguments of `mayfly task heartbeat`.
#[derive(Args)]
pub struct TaskHeartbeatArgs {
    #[command(flatten)]
    task: TaskArg,
    /// Keep sending a heartbeat at this interval until the task is over, and print a JSON line for each
    #[arg(long, value_name = "DURATION", value_parser = interval)]
    every: Option<Duration>,
}

/// Parses an interval that is not shorter than the server's resolution of heartbeats.
pub fn interval(text: &str) -> Result<Duration, String> {
    let every = args::duration(text)?;
    match every >= Duration::from_secs(1) && every <= Duration::from_millis(limits::HEARTBEAT_MAX_MS) {
        true => Ok(every),
        false => Err("expected 1s to 1h".to_owned()),
    }
}

/// Sends one heartbeat.
pub async fn beat(server: &ApiClient, task: &str) -> Result<Answer, CliError> {
    let request = pb::HeartbeatTaskRequest { task_id: task.to_owned() };
    let answer = server.call(request, |c, q| async move { TaskServiceClient::new(c).heartbeat_task(q).await }).await?;
    Ok(Answer::named(task).with("task_id", task).pick(&answer, "state heartbeat_due"))
}

pub async fn run(args: TaskHeartbeatArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let server = run.server().await?;
    loop {
        let beat = beat(&server, &args.task.task).await?;
        let Some(every) = args.every else {
            run.out.one(&beat)?;
            return Ok(Exit::Ok);
        };
        run.out.line(&beat)?;
        tokio::time::sleep(every).await;
    }
}
