//! `mayfly task show` and `mayfly task list`.

use clap::Args;

use super::super::args::{self, wire_word};
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::list::{self, ListArgs, WatchArgs};
use super::super::show::Shown;
use super::super::show::task::Branch;
use super::super::{CommandContext, server::ApiClient};
use super::TaskArg;
use mayfly_proto::mayfly::v1::{self as pb, task_service_client::TaskServiceClient};

/// Arguments of `mayfly task show`.
#[derive(Args)]
pub struct ShowTaskArgs {
    #[command(flatten)]
    task: TaskArg,
    /// Show the credentials of the task instead
    #[arg(long)]
    credentials: bool,
    /// Include the credentials of child tasks
    #[arg(long, requires = "credentials")]
    children: bool,
    /// Show the task and all its child tasks as a tree
    #[arg(long, conflicts_with_all = ["credentials", "watch"])]
    tree: bool,
    /// Include tasks that are over
    #[arg(long)]
    ended: bool,
    #[command(flatten)]
    watch: WatchArgs,
}

/// Arguments of `mayfly task list`.
#[derive(Args)]
pub struct ListTasksArgs {
    /// Only tasks in this state; can be repeated [default: tasks that are not over]
    #[arg(long, value_parser = wire_word!(pb::TaskState, "TASK_STATE_"))]
    state: Vec<pb::TaskState>,
    /// Only tasks that this SPIFFE ID owns, opened or may act in
    #[arg(long, value_name = "SPIFFE_ID")]
    caller: Option<String>,
    /// Only children of this task
    #[arg(long, value_name = "TASK", value_parser = args::task_id)]
    parent: Option<String>,
    /// Only tasks that may use this upstream
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
    /// Only tasks of this environment
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    #[command(flatten)]
    list: ListArgs,
}

pub async fn show(args: ShowTaskArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let server = run.server().await?;
    let task_id = &args.task.task;
    if args.credentials {
        return credentials(&args, &server, run).await;
    }
    if args.tree {
        return tree(&args, &server, run).await;
    }
    if args.ended {
        return Err(CliError::Usage("--ended goes with --tree or --credentials".to_owned()));
    }
    if args.watch.watch {
        let look = || async { Ok(vec![Shown(super::get(&server, task_id).await?)]) };
        return list::watch(&run.out, args.watch.every, look).await;
    }
    super::print(run, Some(super::get(&server, task_id).await?))
}

/// Prints the task and all its child tasks. Finished tasks must be requested by their states, since a list without states omits them.
async fn tree(args: &ShowTaskArgs, server: &ApiClient, run: &CommandContext) -> Result<Exit, CliError> {
    use mayfly_proto::mayfly::v1::TaskState::{Active, Cancelled, Completed, Expired, Held, PendingApproval, Revoked};
    let states: &[pb::TaskState] =
        if args.ended { &[PendingApproval, Active, Held, Completed, Cancelled, Expired, Revoked] } else { &[] };
    let filter = &pb::ListTasksRequest {
        states: states.iter().map(|s| i32::from(*s)).collect(),
        under_task_id: args.task.task.clone(),
        ..pb::ListTasksRequest::default()
    };
    let page = |page_size, page_token| async move {
        let request = pb::ListTasksRequest { page_size, page_token, ..filter.clone() };
        let answer = server.call(request, |c, q| async move { TaskServiceClient::new(c).list_tasks(q).await }).await?;
        Ok((answer.tasks, answer.next_page_token))
    };
    let (mut tasks, _) = list::all(usize::MAX, &page).await?;
    if tasks.is_empty() {
        // The task is over or does not exist; the server's answer tells which.
        tasks.push(super::get(server, &args.task.task).await?);
    }
    run.out.list(&Branch::sorted(tasks))?;
    Ok(Exit::Ok)
}

async fn credentials(args: &ShowTaskArgs, server: &ApiClient, run: &CommandContext) -> Result<Exit, CliError> {
    let page = |page_size, page_token| async move {
        let request = pb::ListTaskCredentialsRequest {
            task_id: args.task.task.clone(),
            include_children: args.children,
            include_ended: args.ended,
            page_size,
            page_token,
        };
        let answer = server.call(request, |c, q| async move { TaskServiceClient::new(c).list_task_credentials(q).await }).await?;
        Ok((answer.credentials, answer.next_page_token))
    };
    list::show(&run.out, &ListArgs { limit: usize::MAX, watch: args.watch.clone() }, page).await
}

pub async fn list(args: ListTasksArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let server = &run.server().await?;
    let filter = &pb::ListTasksRequest {
        states: args.state.into_iter().map(i32::from).collect(),
        caller: args.caller.unwrap_or_default(),
        parent_task_id: args.parent.unwrap_or_default(),
        upstream: args.upstream.unwrap_or_default(),
        environment: args.environment.unwrap_or_default(),
        page_size: 0,
        page_token: String::new(),
        under_task_id: String::new(),
    };
    let page = |page_size, page_token| async move {
        let request = pb::ListTasksRequest { page_size, page_token, ..filter.clone() };
        let answer = server.call(request, |c, q| async move { TaskServiceClient::new(c).list_tasks(q).await }).await?;
        Ok((answer.tasks, answer.next_page_token))
    };
    list::show(&run.out, &args.list, page).await
}
