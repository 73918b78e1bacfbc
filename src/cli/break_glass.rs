//! `mayfly break-glass`: opens, joins, closes and reviews break-glass tasks: rights defined in policy in advance, activated by two people
//! and reviewed by a third.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::CommandContext;
use super::args::{self, wire_duration};
use super::error::CliError;
use super::exit::Exit;
use super::list::{self, ListArgs};
use super::out::Printable as _;
use super::server::ApiClient;
use super::show::{Shown, time};
use mayfly_proto::mayfly::v1::open_break_glass_request::Open;
use mayfly_proto::mayfly::v1::{self as pb, break_glass_service_client::BreakGlassServiceClient};

/// The subcommands for break-glass.
#[derive(Subcommand)]
pub enum BreakGlassCommand {
    /// Request break-glass rights defined in policy; they become active when a second person joins
    Open(OpenBreakGlassArgs),
    /// Join a request of another person, as the second person
    Join(JoinArgs),
    /// Close a break-glass task and revoke everything issued in it
    Close(CloseArgs),
    /// Record the result of a review of a closed break-glass task, as a third person
    Review(ReviewArgs),
    /// List break-glass tasks, newest first
    List(ListBreakGlassArgs),
    /// Show a break-glass task
    Show(ShowBreakGlassArgs),
}

/// The id of a break-glass task.
#[derive(Args)]
pub struct BreakGlassArg {
    /// Id of the break-glass task
    #[arg(value_name = "TASK", value_parser = args::task_id)]
    task: String,
}

/// Arguments of `mayfly break-glass open`.
#[derive(Args)]
pub struct OpenBreakGlassArgs {
    /// Name of the rights, as defined in policy
    #[arg(value_name = "RIGHTS")]
    rights: String,
    /// Reason, recorded in the audit log
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// How long the rights last [default: the time that policy allows, at most 1h]
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    ttl: Option<Duration>,
    /// Environment; needed if several environments define rights of that name
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    environment: String,
    /// Request id; repeating the command with the same id returns the first answer
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// Arguments of `mayfly break-glass join`.
#[derive(Args)]
pub struct JoinArgs {
    #[command(flatten)]
    break_glass: BreakGlassArg,
    /// Reason, recorded in the audit log
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Request id; repeating the command with the same id returns the first answer
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// Arguments of `mayfly break-glass close`.
#[derive(Args)]
pub struct CloseArgs {
    #[command(flatten)]
    break_glass: BreakGlassArg,
    /// Note to record in the audit log
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

/// Arguments of `mayfly break-glass review`.
#[derive(Args)]
pub struct ReviewArgs {
    #[command(flatten)]
    break_glass: BreakGlassArg,
    /// Findings of the review
    #[arg(long, value_name = "TEXT")]
    text: String,
    /// Request id; repeating the command with the same id returns the first answer
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// Arguments of `mayfly break-glass list`.
#[derive(Args)]
pub struct ListBreakGlassArgs {
    /// Only closed tasks that are not yet reviewed
    #[arg(long)]
    unreviewed: bool,
    #[command(flatten)]
    list: ListArgs,
}

/// Arguments of `mayfly break-glass show`.
#[derive(Args)]
pub struct ShowBreakGlassArgs {
    #[command(flatten)]
    break_glass: BreakGlassArg,
}

/// Runs the chosen subcommand.
pub async fn run(command: BreakGlassCommand, run: &CommandContext) -> Result<Exit, CliError> {
    let server = &run.server().await?;
    match command {
        BreakGlassCommand::Open(a) => {
            let (ttl, request_id) = (a.ttl.map(wire_duration), run.request_id(&a.request_id));
            let open = Some(Open::Rights(a.rights));
            let request = pb::OpenBreakGlassRequest { open, reason: a.reason, ttl, request_id, environment: a.environment };
            let break_glass = opened(server, request).await?;
            run.out.one(&break_glass)?;
            let (task, by) = (break_glass.name(), until(break_glass.0.join_by));
            run.out.say(format_args!("it waits for a second person until {by}: mayfly break-glass join {task} --reason TEXT"));
            Ok(Exit::ApprovalNeeded)
        }
        BreakGlassCommand::Join(a) => {
            let (open, request_id) = (Some(Open::TaskId(a.break_glass.task)), run.request_id(&a.request_id));
            let request = pb::OpenBreakGlassRequest { open, reason: a.reason, request_id, ..Default::default() };
            let break_glass = opened(server, request).await?;
            run.out.one(&break_glass)?;
            let (task, by) = (break_glass.name(), until(break_glass.0.deadline));
            run.out.say(format_args!("it is active until {by}: mayfly get UPSTREAM --task {task}"));
            Ok(Exit::Ok)
        }
        BreakGlassCommand::Close(a) => {
            let request = pb::CloseBreakGlassRequest { task_id: a.break_glass.task, reason: a.reason };
            let call = |c, q| async move { BreakGlassServiceClient::new(c).close_break_glass(q).await };
            let break_glass = some(server.call(request, call).await?.break_glass)?;
            run.out.one(&break_glass)?;
            if break_glass.0.unreviewed {
                let what = "what was issued in it is revoked; until a third person reviewed it, its people open no other";
                run.out.say(format_args!("{what}: mayfly break-glass review {} --text TEXT", break_glass.name()));
            }
            Ok(Exit::Ok)
        }
        BreakGlassCommand::Review(a) => {
            let request_id = run.request_id(&a.request_id);
            let request = pb::ReviewBreakGlassRequest { task_id: a.break_glass.task, review: a.text, request_id };
            let call = |c, q| async move { BreakGlassServiceClient::new(c).review_break_glass(q).await };
            run.out.one(&some(server.call(request, call).await?.break_glass)?)?;
            Ok(Exit::Ok)
        }
        BreakGlassCommand::List(a) => {
            let page = |size, token| page_of(server, a.unreviewed, size, token);
            list::show(&run.out, &a.list, page).await
        }
        BreakGlassCommand::Show(a) => {
            let request = pb::GetBreakGlassRequest { task_id: a.break_glass.task };
            let call = |c, q| async move { BreakGlassServiceClient::new(c).get_break_glass(q).await };
            run.out.one(&some(server.call(request, call).await?.break_glass)?)?;
            Ok(Exit::Ok)
        }
    }
}

async fn opened(server: &ApiClient, request: pb::OpenBreakGlassRequest) -> Result<Shown<pb::BreakGlass>, CliError> {
    let call = |c, q| async move { BreakGlassServiceClient::new(c).open_break_glass(q).await };
    some(server.call(request, call).await?.break_glass)
}

/// Fetches one page of break-glass tasks.
pub async fn page_of(
    server: &ApiClient,
    unreviewed: bool,
    page_size: i32,
    page_token: String,
) -> Result<(Vec<pb::BreakGlass>, String), CliError> {
    let request = pb::ListBreakGlassRequest { unreviewed, page_size, page_token };
    let call = |c, q| async move { BreakGlassServiceClient::new(c).list_break_glass(q).await };
    let answer = server.call(request, call).await?;
    Ok((answer.break_glass, answer.next_page_token))
}

fn some(break_glass: Option<pb::BreakGlass>) -> Result<Shown<pb::BreakGlass>, CliError> {
    let break_glass = break_glass.ok_or_else(|| CliError::ours("the server answered without the break-glass task"))?;
    Ok(Shown(break_glass))
}

fn until(at: Option<prost_types::Timestamp>) -> String {
    time(at).unwrap_or_else(|| "its end".to_owned())
}
