//! `mayfly bundle`: manages trust bundles, the root certificates that SVIDs of each trust domain are verified with.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::confirm::{self, ConfirmArgs};
use super::error::CliError;
use super::exit::Exit;
use super::list::{self, ListArgs};
use super::out::tree::OrderedJson;
use super::server::ApiClient;
use super::show::answer::Answer;
use super::show::{Shown, hits, message};
use super::wait::{self, WaitArgs};
use super::{CommandContext, args};
use mayfly_base::limits;
use mayfly_proto::mayfly::v1::{self as pb, trust_domain_service_client::TrustDomainServiceClient};

/// The subcommands for bundles.
#[derive(Subcommand)]
pub enum BundleCommand {
    /// Show a trust domain and its roots
    Show(ShowBundleArgs),
    /// List trust domains
    List(ListArgs),
    /// Add roots to a trust domain; an unknown trust domain is created
    Add(AddBundleArgs),
    /// Replace the bundle of a trust domain; roots missing from the new bundle are removed, and credentials issued for SVIDs of these roots
    /// are revoked
    Set(SetBundleArgs),
    /// Remove a root or a whole trust domain, and revoke the credentials issued for its SVIDs
    Remove(RemoveBundleArgs),
}

/// Arguments of `mayfly bundle show`.
#[derive(Args)]
pub struct ShowBundleArgs {
    /// Name of the trust domain
    #[arg(value_name = "TRUST_DOMAIN")]
    trust_domain: String,
    /// Print the bundle as a SPIFFE JWK set
    #[arg(long)]
    jwks: bool,
}

/// Arguments of `mayfly bundle add`.
#[derive(Args)]
pub struct AddBundleArgs {
    /// Name of the trust domain
    #[arg(value_name = "TRUST_DOMAIN")]
    trust_domain: String,
    /// File with the roots, PEM or SPIFFE JWKS; `-` is stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Reason, shown to the approver if an approval is needed, and recorded in the audit log
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Request id; repeating the command with the same id returns the first answer
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// Arguments of `mayfly bundle set`.
#[derive(Args)]
pub struct SetBundleArgs {
    /// Name of the trust domain
    #[arg(value_name = "TRUST_DOMAIN")]
    trust_domain: String,
    /// File with the whole bundle, PEM or SPIFFE JWKS; `-` is stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Reason, shown to the approver if an approval is needed, and recorded in the audit log
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    confirm: ConfirmArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Arguments of `mayfly bundle remove`.
#[derive(Args)]
pub struct RemoveBundleArgs {
    /// Name of the trust domain
    #[arg(value_name = "TRUST_DOMAIN")]
    trust_domain: String,
    /// Remove only the root with this SHA-256 of its certificate
    #[arg(long, value_name = "SHA256", value_parser = args::sha256, required_unless_present = "whole_domain")]
    trust_anchor: Option<[u8; 32]>,
    /// Remove the trust domain with all its roots
    #[arg(long, conflicts_with = "trust_anchor")]
    whole_domain: bool,
    /// Reason, recorded in the audit log
    #[arg(long, value_name = "TEXT", required_unless_present = "dry_run")]
    reason: Option<String>,
    #[command(flatten)]
    confirm: ConfirmArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Runs the chosen subcommand.
pub async fn run(command: BundleCommand, run: &CommandContext) -> Result<Exit, CliError> {
    match command {
        BundleCommand::Show(args) => show(args, run).await,
        BundleCommand::List(args) => show_list(args, run).await,
        BundleCommand::Add(args) => add(args, run).await,
        BundleCommand::Set(args) => set(args, run).await,
        BundleCommand::Remove(args) => remove(args, run).await,
    }
}

/// Reads a bundle from a file, as JSON if the text begins with `{`, else as PEM. The server validates the content.
fn bundle(path: &Path) -> Result<pb::Bundle, CliError> {
    let text = args::read_text(path, limits::BUNDLE_BYTES)?.to_string();
    let form =
        if text.trim_start().starts_with('{') { pb::bundle::Bundle::SpiffeJwks(text) } else { pb::bundle::Bundle::Pem(text) };
    Ok(pb::Bundle { bundle: Some(form) })
}

async fn show(args: ShowBundleArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let server = run.server().await?;
    let request = pb::GetBundleRequest { trust_domain: args.trust_domain };
    let answer = server.call(request, |c, q| async move { TrustDomainServiceClient::new(c).get_bundle(q).await }).await?;
    match (args.jwks, answer.trust_domain) {
        (true, _) => run.out.document(&answer.spiffe_jwks)?,
        (false, Some(domain)) => run.out.one(&Shown(domain))?,
        (false, None) => return Err(CliError::ours("the server answered without the trust domain")),
    }
    Ok(Exit::Ok)
}

async fn show_list(args: ListArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let server = &run.server().await?;
    let page = |page_size, page_token| async move {
        let request = pb::ListTrustDomainsRequest { page_size, page_token };
        let answer =
            server.call(request, |c, q| async move { TrustDomainServiceClient::new(c).list_trust_domains(q).await }).await?;
        Ok((answer.trust_domains, answer.next_page_token))
    };
    list::show(&run.out, &args, page).await
}

async fn add(args: AddBundleArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let request = pb::AddBundleRequest {
        trust_domain: args.trust_domain,
        bundle: Some(bundle(&args.file)?),
        request_id: run.request_id(&args.request_id),
        reason: args.reason,
    };
    let server = run.server().await?;
    let answer = server.call(request, |c, q| async move { TrustDomainServiceClient::new(c).add_bundle(q).await }).await?;
    let domain = answer.trust_domain.ok_or_else(|| CliError::ours("the server answered without the trust domain"))?;
    run.out.one(&Shown(domain))?;
    Ok(Exit::Ok)
}

async fn set(args: SetBundleArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let request = &pb::SetBundleRequest {
        trust_domain: args.trust_domain.clone(),
        bundle: Some(bundle(&args.file)?),
        dry_run: false,
        confirmation: None,
        request_id: run.request_id(&args.confirm.request_id),
        reason: args.reason.clone(),
    };
    let server = &run.server().await?;
    let ask = |dry_run, confirmation| async move {
        let request = pb::SetBundleRequest { dry_run, confirmation, ..request.clone() };
        server.call(request, |c, q| async move { TrustDomainServiceClient::new(c).set_bundle(q).await }).await
    };
    let answer = confirm::ask(&run.out, &args.confirm, |r: &pb::SetBundleResponse| r.hits, ask).await?;
    let changed = begun(&args.trust_domain, &args.confirm).and(&answer);
    finish(run, server, (&args.confirm, &args.wait), changed, (answer.seq, answer.hits)).await
}

async fn remove(args: RemoveBundleArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let server = &run.server().await?;
    let reason = &args.reason.unwrap_or_else(|| "dry run".to_owned());
    let request_id = &run.request_id(&args.confirm.request_id);
    let trust_domain = &args.trust_domain;
    let (changed, seq, hits) = if let Some(sha256) = args.trust_anchor {
        let ask = |dry_run, confirmation| async move {
            let request = pb::RemoveTrustAnchorRequest {
                trust_domain: trust_domain.clone(),
                sha256: sha256.to_vec().into(),
                reason: reason.clone(),
                dry_run,
                confirmation,
                request_id: request_id.clone(),
            };
            server.call(request, |c, q| async move { TrustDomainServiceClient::new(c).remove_trust_anchor(q).await }).await
        };
        let answer = confirm::ask(&run.out, &args.confirm, |r: &pb::RemoveTrustAnchorResponse| r.hits, ask).await?;
        (begun(trust_domain, &args.confirm).and(&answer), answer.seq, answer.hits)
    } else {
        let ask = |dry_run, confirmation| async move {
            let request = pb::RemoveTrustDomainRequest {
                trust_domain: trust_domain.clone(),
                reason: reason.clone(),
                dry_run,
                confirmation,
                request_id: request_id.clone(),
            };
            server.call(request, |c, q| async move { TrustDomainServiceClient::new(c).remove_trust_domain(q).await }).await
        };
        let answer = confirm::ask(&run.out, &args.confirm, |r: &pb::RemoveTrustDomainResponse| r.hits, ask).await?;
        let changed = begun(trust_domain, &args.confirm).and(&answer).with("trust_domain", OrderedJson::Null);
        (changed, answer.seq, answer.hits)
    };
    finish(run, server, (&args.confirm, &args.wait), changed, (seq, hits)).await
}

/// The beginning of the result: no root is added or removed unless the answer names it.
fn begun(trust_domain: &str, args: &ConfirmArgs) -> Answer {
    let none = || OrderedJson::List(Vec::new());
    let begun = Answer::named(trust_domain).with("name", trust_domain).with("dry_run", args.dry_run);
    begun.with("hits", OrderedJson::Null).with("added", none()).with("removed", none())
}

/// Prints the result of a change. `seq` is the sequence number of its revocation rule; 0: nothing was revoked.
async fn finish(
    run: &CommandContext,
    server: &ApiClient,
    (confirm, wait): (&ConfirmArgs, &WaitArgs),
    changed: Answer,
    (seq, hits): (u64, Option<pb::Hits>),
) -> Result<Exit, CliError> {
    let hits = hits.unwrap_or_default();
    match (confirm.dry_run, seq) {
        (true, _) => run.out.say(format_args!("dry run, nothing was done: it would hit {}", hits::text(hits))),
        (false, 0) => run.out.say("nothing was revoked"),
        (false, _) => run.out.say(format_args!("revoked at {seq} with the roots: {}", hits::revoked(hits))),
    }
    let followers = wait::applied(server, &run.system, wait, seq).await?;
    run.out.one(&changed.with_some("followers", followers.as_ref().map(message::json)))?;
    wait::print_result(&run.out, wait, seq, followers)?;
    Ok(Exit::Ok)
}
