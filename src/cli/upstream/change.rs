//! Registers, changes, disables, enables and retires an upstream.

use std::path::{Path, PathBuf};

use clap::Args;
use zeroize::Zeroizing;

use super::base_version;
use crate::confirm::{self, ConfirmArgs};
use crate::error::CliError;
use crate::exit::Exit;
use crate::server::ApiClient;
use crate::show::answer::Answer;
use crate::{CommandContext, args, terms};
use mayfly_api::wire::upstream_to_pb;
use mayfly_base::document::SourceFile;
use mayfly_base::limits;
use mayfly_base::plural::counted;
use mayfly_credential::connectors::READERS;
use mayfly_ledger::state::DocumentVersion;
use mayfly_ledger::upstream::file;
use mayfly_ledger::upstream::registry::Upstream;
use mayfly_proto::mayfly::v1::{self as pb, upstream_service_client::UpstreamServiceClient};
use mayfly_verify::seq::{Millis, Seq};

/// Arguments of `mayfly upstream add`.
#[derive(Args)]
pub struct AddUpstreamArgs {
    /// File with the registration, TOML; `-` is stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Validate the registration and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Reason, shown to the approver if an approval is needed
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Request id; repeating the command with the same id returns the first answer
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// Arguments of `mayfly upstream change`.
#[derive(Args)]
pub struct ChangeArgs {
    /// File with the complete new registration, TOML; `-` is stdin; `upstream show NAME --file` prints the present one
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Version that the change is based on [default: the version that the file's first line names, else the version in effect]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    version: Option<u64>,
    /// Reason, shown to the approver if an approval is needed
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    confirm: ConfirmArgs,
}

/// Arguments of `mayfly upstream disable`, `enable` and `retire`.
#[derive(Args)]
pub struct StateArgs {
    /// Name of the upstream
    #[arg(value_name = "NAME")]
    upstream: String,
    /// Reason, recorded in the audit log
    #[arg(long, value_name = "TEXT", required_unless_present = "dry_run")]
    reason: Option<String>,
    #[command(flatten)]
    confirm: ConfirmArgs,
}

/// Reads a registration from a file, with the text of the file. All errors of the file are reported before the server is called.
fn registration(path: &Path) -> Result<(pb::Upstream, Zeroizing<String>), CliError> {
    let text = args::read_text(path, limits::UPSTREAM_FILE_BYTES)?;
    let source = SourceFile::new(path.display().to_string(), text.as_str());
    let upstream = file::parse(&source, &READERS)
        .map_err(|complaints| CliError::Usage(complaints.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))?;
    Ok((unversioned(&upstream), text))
}

/// The message for a registration that is not in effect: the server assigns the version.
pub fn unversioned(upstream: &Upstream) -> pb::Upstream {
    let none = DocumentVersion {
        version: 0,
        digest: [0; 32],
        text: Box::default(),
        active: true,
        retired: false,
        seq: Seq::ZERO,
        at: Millis(0),
        by: None,
        claims: None,
        owner_left: false,
        due_told: false,
        narrows: None,
    };
    upstream_to_pb(upstream, &none)
}

async fn set(server: &ApiClient, request: pb::SetUpstreamRequest) -> Result<pb::SetUpstreamResponse, CliError> {
    server.call(request, |c, q| async move { UpstreamServiceClient::new(c).set_upstream(q).await }).await
}

/// Registers an upstream.
pub async fn add(args: AddUpstreamArgs, run: &CommandContext, server: &ApiClient) -> Result<Exit, CliError> {
    let request = pb::SetUpstreamRequest {
        upstream: Some(registration(&args.file)?.0),
        dry_run: args.dry_run,
        confirmation: None,
        request_id: run.request_id(&args.request_id),
        reason: args.reason,
    };
    let answer = set(server, request).await?;
    print_registration_change(run, args.dry_run, answer)
}

/// Puts a new version of a registration in effect.
pub async fn change(args: ChangeArgs, run: &CommandContext, server: &ApiClient) -> Result<Exit, CliError> {
    let (mut upstream, text) = registration(&args.file)?;
    let name = upstream.upstream.clone();
    upstream.version = match base_version::version(&args.file.display().to_string(), &text, args.version)? {
        Some(version) => version,
        None => terms::registration(server, &name).await?.version,
    };
    let request = &pb::SetUpstreamRequest {
        upstream: Some(upstream),
        dry_run: false,
        confirmation: None,
        request_id: run.request_id(&args.confirm.request_id),
        reason: args.reason.clone(),
    };
    let ask = |dry_run, confirmation| set(server, pb::SetUpstreamRequest { dry_run, confirmation, ..request.clone() });
    let answer = confirm::ask(&run.out, &args.confirm, |r: &pb::SetUpstreamResponse| r.hits, ask).await;
    let answer = answer.map_err(|error| base_version::stale(error, &name))?;
    print_registration_change(run, args.confirm.dry_run, answer)
}

/// Disables, enables or retires an upstream.
pub async fn state(
    args: StateArgs,
    state: pb::RegistrationState,
    run: &CommandContext,
    server: &ApiClient,
) -> Result<Exit, CliError> {
    let request = &pb::SetUpstreamStateRequest {
        upstream: args.upstream,
        state: state.into(),
        reason: args.reason.unwrap_or_else(|| "dry run".to_owned()),
        dry_run: false,
        confirmation: None,
        request_id: run.request_id(&args.confirm.request_id),
        read_version: 0,
    };
    let ask = |dry_run, confirmation| async move {
        let request = pb::SetUpstreamStateRequest { dry_run, confirmation, ..request.clone() };
        server.call(request, |c, q| async move { UpstreamServiceClient::new(c).set_upstream_state(q).await }).await
    };
    let answer = confirm::ask(&run.out, &args.confirm, |r: &pb::SetUpstreamStateResponse| r.hits, ask).await?;
    // Credentials that mayfly made at the upstream are undone after the answer, and undoing them needs the upstream.
    if !answer.upstream.as_ref().is_none_or(|upstream| upstream.settings.is_empty()) {
        print_open_leases(&request.upstream, run, server).await;
    }
    let answer = pb::SetUpstreamResponse { upstream: answer.upstream, hits: answer.hits, ..pb::SetUpstreamResponse::default() };
    print_registration_change(run, args.confirm.dry_run, answer)
}

/// Most leases that are counted for a message.
const COUNTED: i32 = 1_000;

async fn print_open_leases(upstream: &str, run: &CommandContext, server: &ApiClient) {
    let request = pb::ListLeasesRequest { upstream: upstream.to_owned(), page_size: COUNTED, ..pb::ListLeasesRequest::default() };
    let listed = server.call(request, |c, q| async move { UpstreamServiceClient::new(c).list_leases(q).await }).await;
    // The change has been made; a list that cannot be read is no error of it.
    let Ok(listed) = listed else { return };
    let more = if listed.next_page_token.is_empty() { "" } else { "more than " };
    match listed.leases.len() {
        0 => {}
        count => run.out.say(format_args!(
            "{more}{} at {upstream}; what is to be undone needs its address and its secret until it is gone: mayfly lease list --upstream {upstream}",
            counted(count as u64, "open lease")
        )),
    }
}

fn print_registration_change(run: &CommandContext, dry_run: bool, answer: pb::SetUpstreamResponse) -> Result<Exit, CliError> {
    let upstream = answer.upstream.as_ref().ok_or_else(|| CliError::ours("the server answered without the upstream"))?;
    confirm::print_hits(&run.out, dry_run, answer.hits, answer.beyond);
    let changed = Answer::named(&upstream.upstream).with("dry_run", dry_run).pick(&answer, "hits beyond").and(upstream);
    for finding in changed.json().at("findings").into_iter().flat_map(|findings| findings.elements()) {
        run.out.say(format_args!("{}: {}", finding.text_at("problem"), finding.text_at("text")));
    }
    run.out.one(&changed)?;
    Ok(Exit::Ok)
}
