//! `mayfly revoke`: revokes issued credentials. Everything that the rule covers is refused from the server's answer on.

use std::time::Duration;

use clap::Args;

use super::args::duration_text;
use super::confirm::{self, ConfirmArgs};
use super::error::CliError;
use super::exit::Exit;
use super::server::ApiClient;
use super::show::answer::Answer;
use super::show::{hits, message, shown};
use super::targets::{TargetArgs, typed};
use super::wait::{self, WaitArgs};
use super::{CommandContext, token};
use mayfly_proto::mayfly::v1::{self as pb, lookup_token_request::By, revocation_service_client::RevocationServiceClient};

/// Arguments of `mayfly revoke`.
#[derive(Args)]
pub struct RevokeArgs {
    /// Target the credential of a token that is read from stdin; the value must be `-`
    #[arg(long, value_name = "-")]
    token: Option<String>,
    /// Reason, recorded in the audit log
    #[arg(long, value_name = "TEXT", required_unless_present = "dry_run")]
    reason: Option<String>,
    /// Revoke issued credentials only; do not block new grants
    #[arg(long)]
    issued_only: bool,
    /// Also revoke an upstream, scope, binding, environment, trust domain, trust anchor, key or policy version that the server does not
    /// know
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    confirm: ConfirmArgs,
    #[command(flatten)]
    wait: WaitArgs,
    /// With --wait, also wait until everything that upstreams made for the revoked credentials is removed there; exits with 7 if some is
    /// not in time
    #[arg(long, requires = "wait")]
    at_upstreams: bool,
    #[command(flatten)]
    targets: TargetArgs,
}

/// Runs the command.
pub async fn run(args: RevokeArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let mut targets = args.targets.targets()?;
    let found = args.token.as_deref().map(from_stdin).transpose()?;
    if targets.is_empty() && found.is_none() {
        return Err(CliError::Usage(
            "what is to be revoked? name a target, like --task ID; `mayfly revoke --help` lists them".to_owned(),
        ));
    }
    let server = run.server().await?;
    if let Some(by) = found {
        targets.push(of_token(run, &server, by).await?);
    }
    let request = &pb::RevokeRequest {
        targets,
        reason: args.reason.unwrap_or_else(|| "dry run".to_owned()),
        request_id: run.request_id(&args.confirm.request_id),
        issued_only: args.issued_only,
        dry_run: false,
        confirmation: None,
        force: args.force,
    };
    let asked = &server;
    let ask = |dry_run, confirmation| async move {
        let request = pb::RevokeRequest { dry_run, confirmation, ..request.clone() };
        asked.call(request, |c, q| async move { RevocationServiceClient::new(c).revoke(q).await }).await
    };
    let mut answer = confirm::ask(&run.out, &args.confirm, |r: &pb::RevokeResponse| r.hits, ask).await?;
    print_revocation(run, &answer, args.issued_only);
    let seq = answer.seq;
    let began = run.system.steady();
    let followers = wait::applied(&server, &run.system, &args.wait, seq).await?;
    if followers.is_some() {
        // The state of the upstream clean-up may have changed during the wait.
        loop {
            let request = pb::GetRevocationRequest { seq };
            let now = server.call(request, |c, q| async move { RevocationServiceClient::new(c).get_revocation(q).await }).await?;
            answer.reach = now.reach.or(answer.reach);
            let waited = Duration::from_millis(run.system.steady().saturating_sub(began));
            if !args.at_upstreams || pending(&answer) == 0 || waited >= args.wait.timeout {
                break;
            }
            tokio::time::sleep(UNDOING_LOOK.min(args.wait.timeout.saturating_sub(waited))).await;
        }
    }
    if let Some(reach) = &answer.reach {
        run.out.say(three_states(reach));
    }
    let left = pending(&answer);
    let revoked = Answer::named(seq).pick(&answer, "seq").with("dry_run", args.confirm.dry_run);
    let revoked = revoked.with("issued_only", args.issued_only).and(&answer);
    let revoked = revoked.with_some("followers", followers.as_ref().map(message::json));
    run.out.one_with_rows(&revoked, &shown(answer.targets))?;
    wait::print_result(&run.out, &args.wait, seq, followers)?;
    match left {
        1.. if args.at_upstreams => Err(CliError::Partly(format!(
            "the server refuses it already, but {left} of what upstreams made for it could not be removed there within {}; mayfly goes on \
             trying: `mayfly lease list` says why",
            duration_text(args.wait.timeout)
        ))),
        _ => Ok(Exit::Ok),
    }
}

/// The pause between two looks at the clean-up of upstreams.
const UNDOING_LOOK: Duration = Duration::from_millis(200);

fn pending(answer: &pb::RevokeResponse) -> u64 {
    answer.reach.as_ref().map_or(0, |reach| reach.upstream_pending)
}

/// `--token` accepts only `-`. Any other value may be a token, so the error does not repeat it.
pub(super) fn from_stdin(value: &str) -> Result<By, CliError> {
    match value {
        "-" => Ok(By::Token(token::from_stdin()?.to_string())),
        _ => Err(CliError::Usage(
            "--token takes only `-`: a token is read from stdin, since other users can read the command line".to_owned(),
        )),
    }
}

pub(super) async fn of_token(run: &CommandContext, server: &ApiClient, by: By) -> Result<pb::Target, CliError> {
    let found = token::lookup(server, by).await?;
    let standing = found.standing();
    let credential_id = found.credential.map(|c| c.credential_id).filter(|id| !id.is_empty());
    let Some(id) = credential_id.filter(|_| standing != pb::TokenStanding::Forged) else {
        return Err(CliError::Usage(format!(
            "no record issued this token, so there is nothing to revoke; its key is compromised: use `mayfly key compromise {} --reason TEXT`",
            found.signing_key
        )));
    };
    if standing == pb::TokenStanding::Altered {
        run.out.say(format_args!("the token was altered or cut; the credential that it names is {id}"));
    }
    Ok(pb::Target { target: Some(pb::target::Target::CredentialId(id)) })
}

fn print_revocation(run: &CommandContext, revoked: &pb::RevokeResponse, issued_only: bool) {
    let (hits, seq) = (revoked.hits.unwrap_or_default(), revoked.seq);
    match seq {
        0 => {
            let (text, ends) = (hits::text(hits), hits::ends(hits, true));
            run.out.say(format_args!("dry run, nothing was done: it would hit {text}; {ends}"));
        }
        _ => run.out.say(format_args!("revoked at {seq}: {}", hits::refused(hits))),
    }
    let (would, until) = match seq {
        0 => ("would be", "until an operator lifts the lock".to_owned()),
        _ => ("are", format!("until `mayfly lock lift {seq} --reason TEXT`")),
    };
    let locks: Vec<String> = revoked.locks.iter().filter_map(|l| l.target.as_ref()).map(typed).collect();
    match locks.as_slice() {
        [] if issued_only => run.out.say("new grants are not blocked: --issued-only"),
        [] => run.out.say("new grants are not blocked: no lock can be put on targets of these kinds (`mayfly lock add --help` lists the kinds that can be locked)"),
        locks => run.out.say(format_args!("new grants for {} {would} blocked too, {until}", locks.join(" "))),
    }
}

/// Three separate states: refused by mayfly, removed at the upstream, and verified as removed there.
fn three_states(reach: &pb::Reach) -> String {
    format!(
        "refused by mayfly: {}; at upstreams: {} undone, {} pending; verified there: {}",
        reach.refused, reach.upstream_undone, reach.upstream_pending, reach.verified
    )
}
