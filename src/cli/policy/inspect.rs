//! Inspects a policy set: its files, its errors, and its decisions.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::files::{PolicyFileArgs, SetSource};
use crate::args;
use crate::error::CliError;
use crate::exit::Exit;
use crate::out::{Format, Printable as _};
use crate::show::answer::Answer;
use crate::show::{Shown, shown, time};
use crate::{CommandContext, server::ApiClient};
use mayfly_base::atomic_file::{AtomicFile, SHARED};
use mayfly_base::document::remedy::shell_quoted;
use mayfly_base::document::with_key;
use mayfly_base::limits;
use mayfly_base::plural::counted;
use mayfly_base::system::System;
use mayfly_policy::unpermitted_actions;
use mayfly_proto::mayfly::v1::{self as pb, policy_service_client::PolicyServiceClient};

/// Arguments of `mayfly policy show`.
#[derive(Args)]
pub struct ShowPolicyArgs {
    /// Environment of the policy set
    #[arg(value_name = "ENVIRONMENT")]
    environment: String,
    /// Show the shadow policy set
    #[arg(long)]
    audited: bool,
    /// Show an earlier version
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    version: Option<u64>,
    /// Write the files of the set to this directory, which must not contain them yet
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

/// Arguments of `mayfly policy validate`.
#[derive(Args)]
pub struct ValidatePolicyArgs {
    #[command(flatten)]
    source: SetSource,
    /// Also check against the server: what its registry lacks for this environment, and which changes need a second operator
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
}

/// Arguments of `mayfly policy diff`.
#[derive(Args)]
pub struct DiffArgs {
    /// Environment of the policy set
    #[arg(value_name = "ENVIRONMENT")]
    environment: String,
    #[command(flatten)]
    source: SetSource,
    /// Start of the decisions: a time, or a duration before now; at most the newest 2,000 decisions are used
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = args::when)]
    since: args::When,
}

/// Arguments of `mayfly policy explain`.
#[derive(Args)]
pub struct ExplainPolicyArgs {
    /// Environment of the policy set
    #[arg(value_name = "ENVIRONMENT")]
    environment: String,
    #[command(flatten)]
    source: SetSource,
    /// SPIFFE ID of the caller
    #[arg(long, value_name = "ID")]
    caller: String,
    /// Action, as policies name it
    #[arg(long, value_name = "NAME", default_value = "Exchange")]
    action: String,
    /// Upstream of the request; actions of operators have none
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
    /// Scope; can be repeated
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// Tool of the request
    #[arg(long, value_name = "NAME")]
    tool: Option<String>,
    /// Purpose of the request
    #[arg(long, value_name = "TEXT")]
    purpose: Option<String>,
    /// File with the tool's arguments, JSON; `-` is stdin
    #[arg(long, value_name = "FILE")]
    arguments: Option<PathBuf>,
    /// Kind of credential [default: the first kind of the upstream]
    #[arg(long, value_parser = args::kind())]
    kind: Option<pb::CredentialKind>,
    /// Requested lifetime [default: the upstream's default]
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    ttl: Option<Duration>,
    /// Approver of the request; can be repeated
    #[arg(long = "approved-by", value_name = "ID")]
    approvals: Vec<String>,
    /// Kind of the object that an operator's action applies to
    #[arg(long, value_name = "KIND")]
    target_kind: Option<String>,
    /// Name of the object that an operator's action applies to
    #[arg(long, value_name = "NAME", requires = "target_kind")]
    target: Option<String>,
}

/// Prints the policy set of an environment.
pub async fn show(args: ShowPolicyArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let server = &run.server().await?;
    let mode = if args.audited { pb::PolicyMode::Audit } else { pb::PolicyMode::Enforce };
    let request = pb::GetPolicyRequest { environment: args.environment, mode: mode.into(), version: args.version };
    let answer = server.call(request, |c, q| async move { PolicyServiceClient::new(c).get_policy(q).await }).await?;
    let policy = answer.policy.ok_or_else(|| CliError::ours("the server answered without the policy set"))?;
    if let Some(directory) = &args.to {
        write(directory, policy.files.as_ref(), &run.system)?;
        let quoted = shell_quoted(directory);
        run.out.say(format_args!(
            "its files are in {}; to put them in effect once they are changed: mayfly policy set {} {quoted} --reason TEXT",
            directory.display(),
            policy.environment
        ));
    }
    let policy = Shown(policy);
    match run.out.format() {
        // In the text formats the files are printed as they are; a file in one field on one line would be unreadable.
        Format::Table | Format::Wide => {
            let files = || policy.0.files.iter().flat_map(|files| files.policies.iter().chain(&files.roles));
            let names: Vec<&str> = files().map(|file| &*file.name).collect();
            run.out.one(&Answer::named(policy.name()).and(&policy.0).with("files", names))?;
            for file in files() {
                run.out.text("")?;
                run.out.text(&format!("# ---- {}", file.name))?;
                file.text.lines().try_for_each(|line| run.out.text(line))?;
            }
        }
        _ => run.out.one(&policy)?,
    }
    Ok(Exit::Ok)
}

/// Writes files that do not exist yet. The server supplies the file names, so names that lead out of the directory are refused.
fn write(directory: &std::path::Path, files: Option<&pb::PolicyFiles>, system: &System) -> Result<(), CliError> {
    let cannot = |path: &std::path::Path, e: std::io::Error| CliError::Local(format!("{}: {e}", path.display()));
    std::fs::create_dir_all(directory).map_err(|e| cannot(directory, e))?;
    let all = || files.into_iter().flat_map(|f| f.policies.iter().chain(&f.roles));
    // Checked before anything is written, so that a refused command leaves no part of the set.
    for file in all() {
        if file.name.contains('/') || file.name.starts_with('.') {
            return Err(CliError::Local(format!("a policy file named {:?} is not written", file.name)));
        }
        let path = directory.join(&file.name);
        if path.symlink_metadata().is_ok() {
            return Err(CliError::Local(format!("{}: this file exists already, and --to replaces no file", path.display())));
        }
    }
    for file in all() {
        let path = directory.join(&file.name);
        let written = AtomicFile::begin(&path, SHARED, system).and_then(|mut new| {
            new.write(file.text.as_bytes())?;
            new.name_new()
        });
        written.map_err(|e| cannot(&path, e))?;
    }
    Ok(())
}

/// Validates a policy set.
pub async fn validate(args: ValidatePolicyArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let PolicyFileArgs { files, roles } = &args.source.files;
    let offline = args.environment.is_none() && args.source.files.roles_file()?.is_some();
    if !files.is_empty() && (roles.is_some() || offline) {
        let set = args.source.files.compiled()?;
        set.warnings().iter().for_each(|warning| run.out.say(format_args!("warning: {warning}")));
        if args.environment.is_none() {
            // Whether the environment has other operators, or only one over the local socket, is known to its server alone.
            if let Some(warning) = unpermitted_actions::complaint(set.nobody_may(), "where it takes effect") {
                run.out.say(format_args!("warning: {warning}"));
            }
            run.out.one(&Shown(pb::ValidatePolicyResponse { policies: set.ids().to_vec(), ..Default::default() }))?;
            return Ok(Exit::Ok);
        }
    }
    let Some(environment) = args.environment else {
        return Err(CliError::Usage(
            "name the policies with their roles: PATH... --roles FILE, or a directory with roles.toml; or name --environment NAME to ask the \
             server"
                .to_owned(),
        ));
    };
    let server = run.server().await?;
    let request = pb::ValidatePolicyRequest { environment, set: Some(args.source.needed()?) };
    let answer = server.call(request, |c, q| async move { PolicyServiceClient::new(c).validate_policy(q).await }).await?;
    for wrong in &answer.violations {
        run.out.say(with_key(&wrong.field, &wrong.description));
    }
    for warning in &answer.warnings {
        run.out.say(format_args!("warning: {}", with_key(&warning.field, &warning.description)));
    }
    if !answer.governs.is_empty() {
        run.out.say(format_args!("it takes a second operator, since it changes {}", answer.governs.join(", ")));
    }
    let exit = if answer.violations.is_empty() { Exit::Ok } else { Exit::Findings };
    run.out.one(&Shown(answer))?;
    Ok(exit)
}

/// Decides recorded requests again with another set.
pub async fn diff(args: DiffArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let server = run.server().await?;
    let since = args.since.past(run.system.wall());
    let request = pb::DiffPolicyRequest {
        environment: args.environment,
        set: Some(args.source.needed()?),
        since: Some(args::timestamp(since)),
    };
    let answer = server.call(request, |c, q| async move { PolicyServiceClient::new(c).diff_policy(q).await }).await?;
    run.out.say(format_args!(
        "{} decided again: {} permitted before would be refused, {} refused before would be permitted, {} cannot be decided again",
        counted(answer.decisions, "recorded request"),
        answer.newly_refused,
        answer.newly_permitted,
        answer.undetermined
    ));
    if let Some(reached) = time(answer.reached) {
        run.out
            .say(format_args!("only the newest decisions were decided again, back to {reached}; older ones were not looked at"));
    }
    let exit = if answer.newly_refused + answer.newly_permitted == 0 { Exit::Ok } else { Exit::Findings };
    let rows = shown(answer.samples.clone());
    run.out.one_with_rows(&Shown(answer), &rows)?;
    Ok(exit)
}

/// Explains the decision of a set on a request.
pub async fn explain(args: ExplainPolicyArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let server: ApiClient = run.server().await?;
    let arguments = args.arguments.as_ref().map(|path| args::read_text(path, limits::ARGUMENTS_BYTES)).transpose()?;
    let situation = pb::Situation {
        caller: args.caller,
        action: args.action,
        upstream: args.upstream.unwrap_or_default(),
        purpose: args.purpose.unwrap_or_default(),
        tool: args.tool.unwrap_or_default(),
        arguments_json: arguments.map_or_else(String::new, |text| text.to_string()),
        kind: args.kind.unwrap_or_default().into(),
        scopes: args.scopes,
        ttl: args.ttl.map(args::wire_duration),
        approvals: args.approvals,
        target_kind: args.target_kind.unwrap_or_default(),
        target: args.target.unwrap_or_default(),
    };
    let set = args.source.on_the_wire()?;
    let request = pb::ExplainPolicyRequest { environment: args.environment, set, situation: Some(situation) };
    let answer = server.call(request, |c, q| async move { PolicyServiceClient::new(c).explain_policy(q).await }).await?;
    run.out.say(&answer.text);
    run.out.one(&Shown(answer))?;
    Ok(Exit::Ok)
}
