//! `mayfly owner`: records that an owner of upstreams has left or is back.

use clap::{Args, Subcommand};

use super::CommandContext;
use super::confirm::{self, ConfirmArgs};
use super::error::CliError;
use super::exit::Exit;
use super::show::answer::Answer;
use super::show::message;
use mayfly_proto::mayfly::v1::{self as pb, upstream_service_client::UpstreamServiceClient};

/// The subcommands for owners.
#[derive(Subcommand)]
pub enum OwnerCommand {
    /// Record that an owner has left; nothing is issued for its upstreams until another owner takes them over
    Left(LeftArgs),
    /// Record that an owner is back; its upstreams that nobody took over issue again
    Back(BackArgs),
}

/// Arguments of `mayfly owner left`.
#[derive(Args)]
pub struct LeftArgs {
    /// Name of the owner, as in registrations
    #[arg(value_name = "OWNER")]
    owner: String,
    /// The owner is a person who signs in, given by issuer URL and subject; everything issued for that person is revoked, and the person is
    /// locked
    #[arg(long, num_args = 2, value_names = ["ISSUER", "SUBJECT"])]
    person: Option<Vec<String>>,
    /// Reason, recorded in the audit log
    #[arg(long, value_name = "TEXT", required_unless_present = "dry_run")]
    reason: Option<String>,
    #[command(flatten)]
    confirm: ConfirmArgs,
}

/// Arguments of `mayfly owner back`.
#[derive(Args)]
pub struct BackArgs {
    /// Name of the owner, as in registrations
    #[arg(value_name = "OWNER")]
    owner: String,
    /// Reason, recorded in the audit log
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Request id; repeating the command with the same id returns the first answer
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// Runs the chosen subcommand.
pub async fn run(command: OwnerCommand, run: &CommandContext) -> Result<Exit, CliError> {
    let owner = match command {
        OwnerCommand::Left(args) => left(args, run).await?,
        OwnerCommand::Back(args) => back(args, run).await?,
    };
    run.out.one(&owner)?;
    Ok(Exit::Ok)
}

async fn left(args: LeftArgs, run: &CommandContext) -> Result<Answer, CliError> {
    let server = &run.server().await?;
    let person = match args.person.as_deref() {
        Some([issuer, sub]) => Some(pb::Subject { issuer: issuer.clone(), sub: sub.clone() }),
        _ => None,
    };
    let request = &pb::OffboardRequest {
        owner: args.owner.clone(),
        person,
        reason: args.reason.unwrap_or_else(|| "dry run".to_owned()),
        dry_run: false,
        confirmation: None,
        request_id: run.request_id(&args.confirm.request_id),
    };
    let ask = |dry_run, confirmation| async move {
        let request = pb::OffboardRequest { dry_run, confirmation, ..request.clone() };
        server.call(request, |c, q| async move { UpstreamServiceClient::new(c).offboard(q).await }).await
    };
    let answer = confirm::ask(&run.out, &args.confirm, |r: &pb::OffboardResponse| r.hits, ask).await?;
    confirm::print_hits(&run.out, args.confirm.dry_run, answer.hits, 0);
    for upstream in &answer.upstreams {
        run.out.say(format_args!("{upstream} needs an owner: mayfly upstream change FILE"));
    }
    Ok(changed(args.owner, true, args.confirm.dry_run).and(&answer))
}

async fn back(args: BackArgs, run: &CommandContext) -> Result<Answer, CliError> {
    let server = run.server().await?;
    let (owner, request_id) = (args.owner.clone(), run.request_id(&args.request_id));
    let request = pb::ReturnOwnerRequest { owner, reason: args.reason, request_id };
    let answer = server.call(request, |c, q| async move { UpstreamServiceClient::new(c).return_owner(q).await }).await?;
    run.out.say("what was revoked stays revoked, and locks stay");
    Ok(changed(args.owner, false, false).and(&answer).with("hits", message::json(&pb::Hits::default())))
}

/// The beginning of the result.
fn changed(owner: String, left: bool, dry_run: bool) -> Answer {
    Answer::named(&owner).with("owner", owner).with("left", left).with("dry_run", dry_run)
}
