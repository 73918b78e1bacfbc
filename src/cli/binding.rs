//! `mayfly binding`: manages bindings, each of which says which workload's tool may use which upstream with which scopes.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::CommandContext;
use super::args;
use super::confirm::{self, ConfirmArgs};
use super::error::CliError;
use super::exit::Exit;
use super::list::{self, ListArgs};
use super::server::ApiClient;
use super::show::Shown;
use super::show::answer::Answer;
use mayfly_api::wire::binding_to_pb;
use mayfly_base::document::SourceFile;
use mayfly_base::limits;
use mayfly_ledger::upstream::binding;
use mayfly_proto::mayfly::v1::{self as pb, upstream_service_client::UpstreamServiceClient};

/// The subcommands for bindings.
#[derive(Subcommand)]
pub enum BindingCommand {
    /// Add a binding; it takes effect when another operator approves it
    Add(BindingFileArgs),
    /// List bindings by name
    List(ListBindingsArgs),
    /// Show a binding
    Show(ShowBindingArgs),
    /// Replace a binding; a narrower version takes effect at once and revokes the credentials that it no longer covers, a wider version
    /// needs the approval of another operator
    Change(BindingFileArgs),
    /// Remove tools, scopes or callers from a binding at once, and revoke the credentials that it no longer covers
    Narrow(NarrowArgs),
    /// Remove a binding and revoke everything issued under it
    Remove(RemoveBindingArgs),
}

/// Arguments of `mayfly binding add` and `mayfly binding change`.
#[derive(Args)]
pub struct BindingFileArgs {
    /// File with the binding, TOML; `-` is stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Reason, recorded in the audit log
    #[arg(long, value_name = "TEXT", required_unless_present = "dry_run")]
    reason: Option<String>,
    #[command(flatten)]
    confirm: ConfirmArgs,
}

/// Arguments of `mayfly binding list`.
#[derive(Args)]
pub struct ListBindingsArgs {
    /// Only bindings of this upstream
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
    #[command(flatten)]
    list: ListArgs,
}

/// Arguments of `mayfly binding show`.
#[derive(Args)]
pub struct ShowBindingArgs {
    /// Name of the binding
    #[arg(value_name = "NAME")]
    binding: String,
}

/// Arguments of `mayfly binding narrow`.
#[derive(Args)]
pub struct NarrowArgs {
    /// Name of the binding
    #[arg(value_name = "NAME")]
    binding: String,
    /// Tool to remove; can be repeated
    #[arg(long = "without-tool", value_name = "NAME", required_unless_present_any = ["scopes", "callers"])]
    tools: Vec<String>,
    /// Scope to remove; can be repeated
    #[arg(long = "without-scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// SPIFFE ID of a workload to remove, as the binding names it; can be repeated
    #[arg(long = "without-caller", value_name = "ID")]
    callers: Vec<String>,
    /// Reason, recorded in the audit log
    #[arg(long, value_name = "TEXT", required_unless_present = "dry_run")]
    reason: Option<String>,
    #[command(flatten)]
    confirm: ConfirmArgs,
}

/// Arguments of `mayfly binding remove`.
#[derive(Args)]
pub struct RemoveBindingArgs {
    /// Name of the binding
    #[arg(value_name = "NAME")]
    binding: String,
    /// Reason, recorded in the audit log
    #[arg(long, value_name = "TEXT", required_unless_present = "dry_run")]
    reason: Option<String>,
    #[command(flatten)]
    confirm: ConfirmArgs,
}

/// Runs the chosen subcommand.
pub async fn run(command: BindingCommand, run: &CommandContext) -> Result<Exit, CliError> {
    match command {
        BindingCommand::Add(args) => {
            let new = from_file(&args.file)?;
            set(new, args.reason, args.confirm, run, &run.server().await?).await
        }
        BindingCommand::Change(args) => {
            let new = from_file(&args.file)?;
            let server = run.server().await?;
            let version = one(&server, &new.binding).await?.version;
            set(pb::Binding { version, ..new }, args.reason, args.confirm, run, &server).await
        }
        BindingCommand::List(args) => {
            let server = &run.server().await?;
            let upstream = &args.upstream.unwrap_or_default();
            let page = |page_size, page_token| async move {
                let request = pb::ListBindingsRequest { upstream: upstream.clone(), page_size, page_token, ..Default::default() };
                let answer = asked(server, request).await?;
                Ok((answer.bindings, answer.next_page_token))
            };
            list::show(&run.out, &args.list, page).await
        }
        BindingCommand::Show(args) => {
            let binding = one(&run.server().await?, &args.binding).await?;
            run.out.one(&Shown(binding))?;
            Ok(Exit::Ok)
        }
        BindingCommand::Narrow(args) => {
            let server = run.server().await?;
            let mut binding = one(&server, &args.binding).await?;
            take("tool", &mut binding.tools, &args.tools)?;
            take("scope", &mut binding.scopes, &args.scopes)?;
            for caller in &args.callers {
                let before = binding.callers.len() + binding.callers_under.len();
                binding.callers.retain(|own| own != caller);
                binding.callers_under.retain(|own| own != caller);
                if binding.callers.len() + binding.callers_under.len() == before {
                    return Err(CliError::Usage(format!("{} names no caller {caller}", args.binding)));
                }
            }
            // A binding without tools applies to exchanges that name no tool, so removing the last tool would not narrow it.
            let none = binding.tools.is_empty() && !args.tools.is_empty();
            if none || binding.scopes.is_empty() || (binding.callers.is_empty() && binding.callers_under.is_empty()) {
                let what = format!("nothing is left of it: mayfly binding remove {} --reason TEXT takes it away", args.binding);
                return Err(CliError::Usage(what));
            }
            set(binding, args.reason, args.confirm, run, &server).await
        }
        BindingCommand::Remove(args) => {
            let server = run.server().await?;
            let pb::Binding { binding, version, upstream, .. } = one(&server, &args.binding).await?;
            let empty = pb::Binding { binding, version, upstream, ..pb::Binding::default() };
            set(empty, args.reason, args.confirm, run, &server).await
        }
    }
}

fn take(what: &str, from: &mut Vec<String>, out: &[String]) -> Result<(), CliError> {
    for name in out {
        let place = from.iter().position(|own| own == name);
        let place =
            place.ok_or_else(|| CliError::Usage(format!("the binding has no {what} {name}; it has {}", from.join(", "))))?;
        from.remove(place);
    }
    Ok(())
}

/// Reads a binding from a file. All errors of the file are reported before the server is called.
fn from_file(path: &Path) -> Result<pb::Binding, CliError> {
    let text = args::read_text(path, limits::UPSTREAM_FILE_BYTES)?;
    let source = SourceFile::new(path.display().to_string(), text.as_str());
    let binding = binding::parse(&source)
        .map_err(|complaints| CliError::Usage(complaints.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))?;
    Ok(binding_to_pb(&binding))
}

async fn asked(server: &ApiClient, request: pb::ListBindingsRequest) -> Result<pb::ListBindingsResponse, CliError> {
    server.call(request, |c, q| async move { UpstreamServiceClient::new(c).list_bindings(q).await }).await
}

/// Fetches a binding by its name.
pub(super) async fn one(server: &ApiClient, name: &str) -> Result<pb::Binding, CliError> {
    let found = asked(server, pb::ListBindingsRequest { binding: name.to_owned(), ..Default::default() }).await?.bindings;
    let missing = || CliError::LocalAs(format!("there is no binding {name}: mayfly binding list"), Exit::NotFound);
    found.into_iter().next().ok_or_else(missing)
}

async fn set(
    binding: pb::Binding,
    reason: Option<String>,
    args: ConfirmArgs,
    run: &CommandContext,
    server: &ApiClient,
) -> Result<Exit, CliError> {
    let request = &pb::SetBindingRequest {
        binding: Some(binding),
        dry_run: false,
        confirmation: None,
        request_id: run.request_id(&args.request_id),
        reason: reason.unwrap_or_else(|| "dry run".to_owned()),
    };
    let ask = |dry_run, confirmation| async move {
        let request = pb::SetBindingRequest { dry_run, confirmation, ..request.clone() };
        server.call(request, |c, q| async move { UpstreamServiceClient::new(c).set_binding(q).await }).await
    };
    let answer = confirm::ask(&run.out, &args, |r: &pb::SetBindingResponse| r.hits, ask).await?;
    let binding = answer.binding.as_ref().ok_or_else(|| CliError::ours("the server answered without the binding"))?;
    confirm::print_hits(&run.out, args.dry_run, answer.hits, answer.beyond);
    if answer.takes_another {
        run.out.say("it is new or wider: it takes effect when another operator approves it");
    }
    if answer.not_read {
        run.out.say(format_args!("no policy of {} reads context.binding: nobody is held to it", binding.environment));
    }
    let changed = Answer::named(&binding.binding).pick(binding, "binding version environment upstream");
    let changed = changed.with("dry_run", args.dry_run).pick(binding, "seq");
    run.out.one(&changed.pick(&answer, "hits beyond takes_another not_read"))?;
    Ok(Exit::Ok)
}
