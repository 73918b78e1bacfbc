//! `mayfly approval`: lists approval requests, shows them, and gives or refuses them.

use clap::{Args, Subcommand};

use super::CommandContext;
use super::args::{self, wire_word};
use super::confirm::{self, ConfirmArgs};
use super::error::CliError;
use super::exit::Exit;
use super::list::{self, ListArgs};
use super::policy::{differences, fetch_set};
use super::server::ApiClient;
use super::show::approval::{sentence, task_sentence};
use super::show::{self, Shown};
use mayfly_proto::mayfly::v1::{self as pb, approval_service_client::ApprovalServiceClient};
use mayfly_verify::seq::ApprovalId;

/// The subcommands for approvals.
#[derive(Subcommand)]
pub enum ApprovalCommand {
    /// List approvals, newest first
    List(ListApprovalsArgs),
    /// Show an approval with the terms of its task; its possible approvers also see the arguments while it is waiting
    Show(ShowApprovalArgs),
    /// Approve the request once; an approved change takes effect at once
    Give(GiveArgs),
    /// Refuse the request
    Refuse(RefuseArgs),
}

/// Arguments of `mayfly approval list`.
#[derive(Args)]
pub struct ListApprovalsArgs {
    /// Only approvals in this state [default: waiting]
    #[arg(long, value_parser = wire_word!(pb::ApprovalState, "APPROVAL_STATE_"))]
    state: Option<pb::ApprovalState>,
    /// Only approvals for this upstream
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
    #[command(flatten)]
    list: ListArgs,
}

/// Arguments of `mayfly approval show`.
#[derive(Args)]
pub struct ShowApprovalArgs {
    /// Id of the approval
    #[arg(value_name = "APPROVAL")]
    approval: ApprovalId,
}

/// The approval that is decided, and the reason.
#[derive(Args)]
pub struct DecideArgs {
    /// Id of the approval
    #[arg(value_name = "APPROVAL")]
    approval: ApprovalId,
    /// Reason, recorded in the audit log
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Decide only if the request has this digest: `request_sha256` as printed by `approval show`
    #[arg(long, value_name = "HEX", value_parser = args::sha256)]
    request_sha256: Option<[u8; 32]>,
}

/// Arguments of `mayfly approval give`.
#[derive(Args)]
pub struct GiveArgs {
    #[command(flatten)]
    decide: DecideArgs,
    #[command(flatten)]
    confirm: ConfirmArgs,
}

/// Arguments of `mayfly approval refuse`.
#[derive(Args)]
pub struct RefuseArgs {
    #[command(flatten)]
    decide: DecideArgs,
    /// Request id; repeating the command with the same id returns the first answer
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// Runs the chosen subcommand.
pub async fn run(command: ApprovalCommand, run: &CommandContext) -> Result<Exit, CliError> {
    let server = &run.server().await?;
    match command {
        ApprovalCommand::List(args) => {
            let (state, upstream) = (args.state.unwrap_or_default().into(), &args.upstream.unwrap_or_default());
            let page = |page_size, page_token| async move {
                let request = pb::ListApprovalsRequest { state, upstream: upstream.clone(), page_size, page_token };
                let answer =
                    server.call(request, |c, q| async move { ApprovalServiceClient::new(c).list_approvals(q).await }).await?;
                Ok((answer.approvals, answer.next_page_token))
            };
            list::show(&run.out, &args.list, page).await
        }
        ApprovalCommand::Show(args) => {
            let shown = get(server, args.approval).await?;
            change(&shown, run, server).await?;
            run.out.one(&Shown(shown))?;
            Ok(Exit::Ok)
        }
        ApprovalCommand::Give(args) => decide(args.decide, pb::ApprovalDecision::Give, args.confirm, run, server).await,
        ApprovalCommand::Refuse(args) => {
            let confirm = ConfirmArgs { dry_run: false, confirm: None, request_id: args.request_id };
            decide(args.decide, pb::ApprovalDecision::Refuse, confirm, run, server).await
        }
    }
}

async fn get(server: &ApiClient, id: ApprovalId) -> Result<pb::Approval, CliError> {
    let request = pb::GetApprovalRequest { approval_id: id.to_string() };
    let answer = server.call(request, |c, q| async move { ApprovalServiceClient::new(c).get_approval(q).await }).await?;
    answer.approval.ok_or_else(|| CliError::ours("the server answered without the approval"))
}

/// Prints the differences that the change makes, line by line.
async fn change(approval: &pb::Approval, run: &CommandContext, server: &ApiClient) -> Result<(), CliError> {
    match approval.change.as_ref().and_then(|c| c.to.as_ref()) {
        None => return Ok(()),
        Some(pb::approval_change::To::Policy(new)) => {
            let old = fetch_set(server, &new.environment, new.mode()).await?;
            run.out.say(differences(old.as_ref().and_then(|old| old.files.as_ref()), new.files.as_ref()));
        }
        Some(pb::approval_change::To::Binding(new)) => {
            let old = super::binding::one(server, &new.binding).await.ok();
            run.out.say(show::differences::of_binding(old, new.clone())?);
        }
        Some(pb::approval_change::To::Upstream(new)) => {
            let old = super::terms::registration(server, &new.upstream).await.ok();
            run.out.say(show::differences::of_upstream(old, new.clone())?);
        }
        Some(pb::approval_change::To::Bundle(new)) => run.out.say(show::differences::of_bundle(new)),
    }
    if !approval.governs.is_empty() {
        run.out.say(format_args!("it changes {}", approval.governs.join(", ")));
    }
    Ok(())
}

/// Decides the approval for the request that was displayed, either by this command or to the person who passed its digest with
/// `--request-sha256`.
async fn decide(
    args: DecideArgs,
    decision: pb::ApprovalDecision,
    confirm: ConfirmArgs,
    run: &CommandContext,
    server: &ApiClient,
) -> Result<Exit, CliError> {
    let request_sha256 = match args.request_sha256 {
        Some(digest) => digest.to_vec().into(),
        None => {
            let shown = get(server, args.approval).await?;
            change(&shown, run, server).await?;
            run.out.say(sentence(&shown));
            if let Some(task) = &shown.task {
                run.out.say(task_sentence(task));
            }
            if !shown.arguments_json.is_empty() {
                run.out.say(format_args!("arguments: {}", shown.arguments_json));
            }
            shown.request_sha256
        }
    };
    let request = &pb::DecideApprovalRequest {
        approval_id: args.approval.to_string(),
        request_sha256,
        decision: decision.into(),
        reason: args.reason,
        request_id: run.request_id(&confirm.request_id),
        dry_run: false,
        confirmation: None,
    };
    let ask = |dry_run, confirmation| async move {
        let request = pb::DecideApprovalRequest { dry_run, confirmation, ..request.clone() };
        server.call(request, |c, q| async move { ApprovalServiceClient::new(c).decide_approval(q).await }).await
    };
    let answer = confirm::ask(&run.out, &confirm, |r: &pb::DecideApprovalResponse| r.hits, ask).await?;
    let approval = answer.approval.ok_or_else(|| CliError::ours("the server answered without the approval"))?;
    let approval = Shown(approval);
    if !confirm.dry_run {
        run.out.say(format_args!("{}: {}", approval.0.approval_id, approval.json().text_at("state")));
    }
    // An approval of a single request revokes nothing.
    if confirm.dry_run || answer.hits.is_some_and(|hits| hits.credentials > 0) {
        confirm::print_hits(&run.out, confirm.dry_run, answer.hits, 0);
    }
    run.out.one(&approval)?;
    Ok(Exit::Ok)
}
