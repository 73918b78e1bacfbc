//! Looking at a policy set: its files, what is wrong with it, what it would decide.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::files::{FileArgs, SetSource};
use crate::cli::args;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::out::Format;
use crate::cli::show::policy::{Checked, DiffWhole, Differs, Explained, Policy};
use crate::cli::{Run, server::Server};
use crate::limits;
use crate::pb::mayfly::v1::{self as pb, policy_service_client::PolicyServiceClient};

/// Arguments of `mayfly policy show`.
#[derive(Args)]
pub struct ShowArgs {
    /// The environment
    #[arg(value_name = "ENVIRONMENT")]
    environment: String,
    /// The one beside the one in force
    #[arg(long)]
    audited: bool,
    /// An earlier version
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    version: Option<u64>,
    /// Write its files into this directory, which must not have them
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

/// Arguments of `mayfly policy validate`.
#[derive(Args)]
pub struct ValidateArgs {
    #[command(flatten)]
    source: SetSource,
    /// Ask the server too: what its registry lacks, and what takes a second operator
    #[arg(long, value_name = "NAME", required_unless_present = "roles")]
    environment: Option<String>,
}

/// Arguments of `mayfly policy diff`.
#[derive(Args)]
pub struct DiffArgs {
    /// The environment
    #[arg(value_name = "ENVIRONMENT")]
    environment: String,
    #[command(flatten)]
    source: SetSource,
    /// From when on: a moment, or a duration before now. The newest 2,000 decisions at the most
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = args::when)]
    since: args::When,
}

/// Arguments of `mayfly policy explain`.
#[derive(Args)]
pub struct ExplainArgs {
    /// The environment
    #[arg(value_name = "ENVIRONMENT")]
    environment: String,
    #[command(flatten)]
    source: SetSource,
    /// Who asks: a SPIFFE ID
    #[arg(long, value_name = "ID")]
    caller: String,
    /// What for, as policies name it
    #[arg(long, value_name = "NAME", default_value = "Exchange")]
    action: String,
    /// The upstream; of what operators do none
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
    /// A scope; may be given again
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// The tool
    #[arg(long, value_name = "NAME")]
    tool: Option<String>,
    /// What for, in words
    #[arg(long, value_name = "TEXT")]
    purpose: Option<String>,
    /// The tool's arguments, JSON, in a file; `-` is stdin
    #[arg(long, value_name = "FILE")]
    arguments: Option<PathBuf>,
    /// The kind [default: the first that the upstream issues]
    #[arg(long, value_parser = args::kind())]
    kind: Option<pb::CredentialKind>,
    /// How long [default: what the upstream gives unasked]
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    ttl: Option<Duration>,
    /// Somebody who approved it; may be given again
    #[arg(long = "approved-by", value_name = "ID")]
    approvals: Vec<String>,
    /// Of what operators do: the sort of thing that is acted on
    #[arg(long, value_name = "KIND")]
    target_kind: Option<String>,
    /// Its name
    #[arg(long, value_name = "NAME", requires = "target_kind")]
    target: Option<String>,
}

/// The policy set of an environment.
pub async fn show(args: ShowArgs, run: &Run) -> Result<Exit, CliError> {
    let server = &run.server().await?;
    let mode = if args.audited { pb::PolicyMode::Audit } else { pb::PolicyMode::Enforce };
    let request = pb::GetPolicyRequest { environment: args.environment, mode: mode.into(), version: args.version };
    let answer = server.call(request, |c, q| async move { PolicyServiceClient::new(c).get_policy(q).await }).await?;
    let policy = answer.policy.ok_or_else(|| CliError::ours("the server answered without the policy set"))?;
    if let Some(directory) = &args.to {
        write(directory, policy.files.as_ref())?;
        run.out.say(format_args!("its files are in {}", directory.display()));
    }
    let policy = Policy::from(policy);
    match run.out.format() {
        // People read the set as its files stand; one field on one line cannot be read.
        Format::Table | Format::Wide => {
            run.out.one(&policy.without_texts())?;
            for file in &policy.files {
                run.out.text(&format!("\n# ---- {}", file.name))?;
                file.text.lines().try_for_each(|line| run.out.text(line))?;
            }
        }
        _ => run.out.one(&policy)?,
    }
    Ok(Exit::Ok)
}

/// Writes files that are not there yet. Names of files come from a server: they stay in the directory.
fn write(directory: &std::path::Path, files: Option<&pb::PolicyFiles>) -> Result<(), CliError> {
    use std::io::Write as _;
    let cannot = |path: &std::path::Path, e: std::io::Error| CliError::Local(format!("{}: {e}", path.display()));
    std::fs::create_dir_all(directory).map_err(|e| cannot(directory, e))?;
    for file in files.into_iter().flat_map(|f| f.policies.iter().chain(&f.roles)) {
        if file.name.contains('/') || file.name.starts_with('.') {
            return Err(CliError::Local(format!("a policy file named {:?} is not written", file.name)));
        }
        let path = directory.join(&file.name);
        let new = std::fs::OpenOptions::new().write(true).create_new(true).open(&path);
        new.and_then(|mut new| new.write_all(file.text.as_bytes())).map_err(|e| cannot(&path, e))?;
    }
    Ok(())
}

/// Checks a set.
pub async fn validate(args: ValidateArgs, run: &Run) -> Result<Exit, CliError> {
    let FileArgs { files, roles } = &args.source.files;
    if !files.is_empty() && roles.is_some() {
        let set = args.source.files.compiled()?;
        set.warnings().iter().for_each(|warning| run.out.say(format_args!("warning: {warning}")));
        if args.environment.is_none() {
            run.out.one(&Checked { policies: set.ids().to_vec(), ..Checked::default() })?;
            return Ok(Exit::Ok);
        }
    }
    let Some(environment) = args.environment else {
        return Err(CliError::Usage(
            "name the policies: PATH... --roles FILE, or --environment NAME to ask the server".to_owned(),
        ));
    };
    let server = run.server().await?;
    let request = pb::ValidatePolicyRequest { environment, set: Some(args.source.needed()?) };
    let answer = server.call(request, |c, q| async move { PolicyServiceClient::new(c).validate_policy(q).await }).await?;
    let checked = Checked::from(answer);
    for wrong in &checked.violations {
        run.out.say(wrong);
    }
    for warning in &checked.warnings {
        run.out.say(format_args!("warning: {warning}"));
    }
    if !checked.governs.is_empty() {
        run.out.say(format_args!("it takes a second operator, since it changes {}", checked.governs.join(", ")));
    }
    run.out.one(&checked)?;
    Ok(if checked.violations.is_empty() { Exit::Ok } else { Exit::Findings })
}

/// Decides recorded decisions once more.
pub async fn diff(args: DiffArgs, run: &Run) -> Result<Exit, CliError> {
    let server = run.server().await?;
    let since = args.since.past(run.system.wall());
    let request = pb::DiffPolicyRequest {
        environment: args.environment,
        set: Some(args.source.needed()?),
        since: Some(args::timestamp(since)),
    };
    let answer = server.call(request, |c, q| async move { PolicyServiceClient::new(c).diff_policy(q).await }).await?;
    let whole = DiffWhole::from(answer);
    run.out.say(format_args!(
        "of {} decisions {} would be refused that were permitted, {} permitted that were refused; of {} nothing can be said",
        whole.decisions, whole.newly_refused, whole.newly_permitted, whole.undetermined
    ));
    if let Some(reached) = &whole.reached {
        run.out
            .say(format_args!("only the newest decisions were decided again, back to {reached}; older ones were not looked at"));
    }
    let rows: &[Differs] = &whole.samples;
    run.out.one_with_rows(&whole, rows)?;
    Ok(if whole.newly_refused + whole.newly_permitted == 0 { Exit::Ok } else { Exit::Findings })
}

/// What a set makes of a request.
pub async fn explain(args: ExplainArgs, run: &Run) -> Result<Exit, CliError> {
    let server: Server = run.server().await?;
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
    let explained = Explained::from(answer);
    run.out.say(&explained.text);
    run.out.one(&explained)?;
    Ok(Exit::Ok)
}
