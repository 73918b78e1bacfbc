//! `mayfly break-glass`: wide rights named in advance, by two people, looked at by a third.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::Run;
use super::args::{self, wire_duration};
use super::error::CliError;
use super::exit::Exit;
use super::list::{self, ListArgs};
use super::server::Server;
use super::show::break_glass::BreakGlass;
use crate::pb::mayfly::v1::open_break_glass_request::Open;
use crate::pb::mayfly::v1::{self as pb, break_glass_service_client::BreakGlassServiceClient};

/// What can be done with break-glass.
#[derive(Subcommand)]
pub enum BreakGlassCommand {
    /// Ask for rights that policy names; with a second person it is active
    Open(OpenArgs),
    /// Join what somebody else asked for, as the second person
    Join(JoinArgs),
    /// End one, and revoke all that was issued in it
    Close(CloseArgs),
    /// Say what a look at what was done in it found, as a third person
    Review(ReviewArgs),
    /// Break-glass tasks, newest first
    List(ListGlassArgs),
    /// One break-glass task
    Show(ShowArgs),
}

/// Names a break-glass task.
#[derive(Args)]
pub struct GlassArg {
    /// The task
    #[arg(value_name = "TASK", value_parser = args::task_id)]
    task: String,
}

/// `mayfly break-glass open`
#[derive(Args)]
pub struct OpenArgs {
    /// The rights, by their name in policy
    #[arg(value_name = "RIGHTS")]
    rights: String,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// How long [default: as long as policy gives it, at most 1h]
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    ttl: Option<Duration>,
    /// The environment, where several have rights of that name
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    environment: String,
    /// Makes a repeat by hand safe
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// `mayfly break-glass join`
#[derive(Args)]
pub struct JoinArgs {
    #[command(flatten)]
    glass: GlassArg,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Makes a repeat by hand safe
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// `mayfly break-glass close`
#[derive(Args)]
pub struct CloseArgs {
    #[command(flatten)]
    glass: GlassArg,
    /// What to note
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

/// `mayfly break-glass review`
#[derive(Args)]
pub struct ReviewArgs {
    #[command(flatten)]
    glass: GlassArg,
    /// What was found
    #[arg(long, value_name = "TEXT")]
    text: String,
    /// Makes a repeat by hand safe
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// `mayfly break-glass list`
#[derive(Args)]
pub struct ListGlassArgs {
    /// Only those that are over and that nobody reviewed
    #[arg(long)]
    unreviewed: bool,
    #[command(flatten)]
    list: ListArgs,
}

/// `mayfly break-glass show`
#[derive(Args)]
pub struct ShowArgs {
    #[command(flatten)]
    glass: GlassArg,
}

/// Runs one of them.
pub async fn run(command: BreakGlassCommand, run: &Run) -> Result<Exit, CliError> {
    let server = &run.server().await?;
    match command {
        BreakGlassCommand::Open(a) => {
            let (ttl, request_id) = (a.ttl.map(wire_duration), run.request_id(&a.request_id));
            let open = Some(Open::Rights(a.rights));
            let request = pb::OpenBreakGlassRequest { open, reason: a.reason, ttl, request_id, environment: a.environment };
            let glass = opened(server, request).await?;
            run.out.one(&glass)?;
            let (task, by) = (&glass.task_id, glass.join_by.as_deref().unwrap_or("its end"));
            run.out.say(format_args!("it waits for a second person until {by}: mayfly break-glass join {task} --reason TEXT"));
            Ok(Exit::ApprovalNeeded)
        }
        BreakGlassCommand::Join(a) => {
            let (open, request_id) = (Some(Open::TaskId(a.glass.task)), run.request_id(&a.request_id));
            let request = pb::OpenBreakGlassRequest { open, reason: a.reason, request_id, ..Default::default() };
            let glass = opened(server, request).await?;
            run.out.one(&glass)?;
            let (task, by) = (&glass.task_id, glass.deadline.as_deref().unwrap_or("its end"));
            run.out.say(format_args!("it is active until {by}: mayfly get UPSTREAM --task {task}"));
            Ok(Exit::Ok)
        }
        BreakGlassCommand::Close(a) => {
            let request = pb::CloseBreakGlassRequest { task_id: a.glass.task, reason: a.reason };
            let call = |c, q| async move { BreakGlassServiceClient::new(c).close_break_glass(q).await };
            let glass = some(server.call(request, call).await?.break_glass)?;
            run.out.one(&glass)?;
            if glass.unreviewed {
                let what = "what was issued in it is revoked; until a third person reviewed it, its people open no other";
                run.out.say(format_args!("{what}: mayfly break-glass review {} --text TEXT", glass.task_id));
            }
            Ok(Exit::Ok)
        }
        BreakGlassCommand::Review(a) => {
            let request_id = run.request_id(&a.request_id);
            let request = pb::ReviewBreakGlassRequest { task_id: a.glass.task, review: a.text, request_id };
            let call = |c, q| async move { BreakGlassServiceClient::new(c).review_break_glass(q).await };
            run.out.one(&some(server.call(request, call).await?.break_glass)?)?;
            Ok(Exit::Ok)
        }
        BreakGlassCommand::List(a) => {
            let page = |size, token| page_of(server, a.unreviewed, size, token);
            list::show(&run.out, &a.list, page).await
        }
        BreakGlassCommand::Show(a) => {
            let request = pb::GetBreakGlassRequest { task_id: a.glass.task };
            let call = |c, q| async move { BreakGlassServiceClient::new(c).get_break_glass(q).await };
            run.out.one(&some(server.call(request, call).await?.break_glass)?)?;
            Ok(Exit::Ok)
        }
    }
}

async fn opened(server: &Server, request: pb::OpenBreakGlassRequest) -> Result<BreakGlass, CliError> {
    let call = |c, q| async move { BreakGlassServiceClient::new(c).open_break_glass(q).await };
    some(server.call(request, call).await?.break_glass)
}

/// One page of them.
pub async fn page_of(
    server: &Server,
    unreviewed: bool,
    page_size: i32,
    page_token: String,
) -> Result<(Vec<BreakGlass>, String), CliError> {
    let request = pb::ListBreakGlassRequest { unreviewed, page_size, page_token };
    let call = |c, q| async move { BreakGlassServiceClient::new(c).list_break_glass(q).await };
    let answer = server.call(request, call).await?;
    Ok((answer.break_glass.into_iter().map(BreakGlass::from).collect(), answer.next_page_token))
}

fn some(glass: Option<pb::BreakGlass>) -> Result<BreakGlass, CliError> {
    let glass = glass.ok_or_else(|| CliError::ours("the server answered without the break-glass task"))?;
    Ok(BreakGlass::from(glass))
}
