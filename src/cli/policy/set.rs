//! Changes the policy set in effect, and sets, promotes or removes the shadow policy set.

use clap::{Args, ValueEnum};

use super::files::{self, SetSource};
use crate::CommandContext;
use crate::confirm::{self, ConfirmArgs};
use crate::error::CliError;
use crate::exit::Exit;
use crate::show::answer::Answer;
use mayfly_proto::mayfly::v1::{self as pb, policy_service_client::PolicyServiceClient};

/// Arguments of `mayfly policy set`.
#[derive(Args)]
pub struct SetPolicyArgs {
    /// Environment of the policy set
    #[arg(value_name = "ENVIRONMENT")]
    environment: String,
    #[command(flatten)]
    source: SetSource,
    /// Set the shadow policy set: it evaluates every request and differing decisions are recorded, but it never decides
    #[arg(long, conflicts_with_all = ["version", "audited"])]
    audit: bool,
    /// Reason, recorded in the audit log
    #[arg(long, value_name = "TEXT", required_unless_present = "dry_run")]
    reason: Option<String>,
    /// Version that the change is based on [default: the version in effect]
    #[arg(long, value_name = "N")]
    read_version: Option<u64>,
    #[command(flatten)]
    confirm: ConfirmArgs,
}

/// Arguments of `mayfly policy mode`.
#[derive(Args)]
pub struct ModeArgs {
    /// Environment of the policy set
    #[arg(value_name = "ENVIRONMENT")]
    environment: String,
    /// New mode of the shadow policy set
    #[arg(value_enum)]
    mode: Mode,
    /// Reason, recorded in the audit log
    #[arg(long, value_name = "TEXT", required_unless_present = "dry_run")]
    reason: Option<String>,
    #[command(flatten)]
    confirm: ConfirmArgs,
}

/// The new mode of the shadow policy set.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Put the shadow policy set in effect; needs a second operator
    Enforce,
    /// Remove the shadow policy set
    Off,
}

/// A policy set to be sent to the server.
struct Setting {
    environment: String,
    mode: pb::PolicyMode,
    source: Option<pb::PolicySource>,
    read_version: Option<u64>,
    reason: Option<String>,
    confirm: ConfirmArgs,
}

/// Puts a set in effect, or makes it the shadow policy set.
pub async fn set(args: SetPolicyArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let source = Some(args.source.needed()?);
    let mode = if args.audit { pb::PolicyMode::Audit } else { pb::PolicyMode::Enforce };
    let SetPolicyArgs { environment, read_version, reason, confirm, .. } = args;
    put(Setting { environment, mode, source, read_version, reason, confirm }, run).await
}

/// Puts the shadow policy set in effect, or removes it.
pub async fn mode(args: ModeArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let (mode, source) = match args.mode {
        Mode::Enforce => {
            let from = Some(pb::policy_source::From::Audited(true));
            (pb::PolicyMode::Enforce, Some(pb::PolicySource { from }))
        }
        Mode::Off => (pb::PolicyMode::Audit, None),
    };
    let ModeArgs { environment, reason, confirm, .. } = args;
    put(Setting { environment, mode, source, read_version: None, reason, confirm }, run).await
}

async fn put(setting: Setting, run: &CommandContext) -> Result<Exit, CliError> {
    let server = &run.server().await?;
    let before = files::fetch_set(server, &setting.environment, setting.mode).await?;
    // A removed set still has a version; if there never was a set, the version is 0.
    let read_version = setting.read_version.or(before.as_ref().map(|b| b.version)).unwrap_or(0);
    let request = &pb::SetPolicyRequest {
        environment: setting.environment,
        mode: setting.mode.into(),
        set: setting.source,
        read_version,
        reason: setting.reason.unwrap_or_else(|| "dry run".to_owned()),
        dry_run: false,
        confirmation: None,
        request_id: run.request_id(&setting.confirm.request_id),
    };
    let ask = |dry_run, confirmation| async move {
        let request = pb::SetPolicyRequest { dry_run, confirmation, ..request.clone() };
        server.call(request, |c, q| async move { PolicyServiceClient::new(c).set_policy(q).await }).await
    };
    let answer = confirm::ask(&run.out, &setting.confirm, |r: &pb::SetPolicyResponse| r.hits, ask).await?;
    let differs =
        files::differences(before.as_ref().and_then(|b| b.files.as_ref()), answer.policy.as_ref().and_then(|p| p.files.as_ref()));
    run.out.say(if differs.is_empty() { "nothing differs from what was there\n" } else { &differs });
    let policy = answer.policy.as_ref().ok_or_else(|| CliError::ours("the server answered without the policy set"))?;
    confirm::print_hits(&run.out, setting.confirm.dry_run, answer.hits, answer.beyond);
    if !answer.governs.is_empty() {
        run.out.say(format_args!("it takes a second operator, since it changes {}", answer.governs.join(", ")));
    }
    let changed = Answer::named(format_args!("{}/{}", policy.environment, policy.version));
    let changed = changed.pick(policy, "environment mode version").with("dry_run", setting.confirm.dry_run);
    run.out.one(&changed.pick(policy, "seq").pick(&answer, "hits beyond governs"))?;
    Ok(Exit::Ok)
}
