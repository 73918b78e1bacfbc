//! The command `mayfly task extend`.

use std::time::Duration;

use clap::Args;

use super::super::CommandContext;
use super::super::args::{self, timestamp, wire_duration};
use super::super::error::CliError;
use super::super::exit::Exit;
use super::TaskArg;
use mayfly_proto::mayfly::v1::{self as pb, task_service_client::TaskServiceClient};
use mayfly_verify::seq::Millis;

/// Arguments of `mayfly task extend`.
#[derive(Args)]
pub struct ExtendArgs {
    #[command(flatten)]
    task: TaskArg,
    /// Extend the present deadline by this duration
    #[arg(long, value_name = "DURATION", value_parser = args::duration, required_unless_present = "until", conflicts_with = "until")]
    by: Option<Duration>,
    /// New deadline: a time, or a duration from now
    #[arg(long, value_name = "TIME", value_parser = args::when)]
    until: Option<args::When>,
    /// If an approval is needed, wait this long for it
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    wait_for_approval: Option<Duration>,
    /// Request id; repeating the command with the same id returns the first answer
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

pub async fn run(args: ExtendArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let server = run.server().await?;
    let deadline = match (args.until, args.by) {
        (Some(at), _) => timestamp(at.future(run.system.wall())),
        (None, by) => {
            let present = super::get(&server, &args.task.task).await?.deadline;
            later(present, by.unwrap_or_default()).ok_or_else(|| CliError::ours("the server answered without a deadline"))?
        }
    };
    let request = pb::ExtendTaskRequest {
        task_id: args.task.task,
        deadline: Some(deadline),
        request_id: run.request_id(&args.request_id),
        wait_for_approval: args.wait_for_approval.map(wire_duration),
    };
    let server = server.waiting(args.wait_for_approval.unwrap_or_default());
    let answer = server.call(request, |c, q| async move { TaskServiceClient::new(c).extend_task(q).await }).await?;
    super::print(run, answer.task)
}

fn later(present: Option<prost_types::Timestamp>, by: Duration) -> Option<prost_types::Timestamp> {
    let present = present?;
    let ms =
        u64::try_from(present.seconds).ok()?.checked_mul(1000)?.checked_add(u64::try_from(present.nanos / 1_000_000).ok()?)?;
    Some(timestamp(Millis(ms).plus(u64::try_from(by.as_millis()).ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_moves_from_where_it_is() {
        let at = |seconds, nanos| prost_types::Timestamp { seconds, nanos };
        assert_eq!(later(Some(at(100, 500_000_000)), Duration::from_millis(1600)), Some(at(102, 100_000_000)));
        assert_eq!(later(Some(at(-1, 0)), Duration::ZERO), None);
        assert_eq!(later(None, Duration::ZERO), None);
    }
}
