//! `mayfly upstream`: manages the registry of upstreams that credentials are issued for.

mod base_version;
mod change;
mod connect;
mod test;

pub(super) use change::unversioned;
use clap::{Args, Subcommand};

use super::args::wire_word;
use super::error::CliError;
use super::exit::Exit;
use super::list::{self, ListArgs};
use super::server::ApiClient;
use super::show::Shown;
use super::{CommandContext, terms};
use mayfly_api::wire::upstream_document;
use mayfly_proto::mayfly::v1::{
    self as pb, get_jwks_request::Of, key_service_client::KeyServiceClient, upstream_service_client::UpstreamServiceClient,
};

/// The subcommands for upstreams.
#[derive(Subcommand)]
pub enum UpstreamCommand {
    /// List upstreams by name
    List(ListUpstreamsArgs),
    /// Show an upstream
    Show(ShowUpstreamArgs),
    /// Register an upstream from a file
    Add(change::AddUpstreamArgs),
    /// Change a registration; everything that the new version would refuse is revoked
    Change(change::ChangeArgs),
    /// Disable an upstream: revoke everything issued for it, and issue nothing until it is enabled
    Disable(change::StateArgs),
    /// Enable an upstream again; revoked credentials stay revoked
    Enable(change::StateArgs),
    /// Retire an upstream for good: revoke everything issued for it, and issue nothing more
    Retire(change::StateArgs),
    /// Print the keys that verify the assertions of an upstream (kinds federation and aws), as a JWK set
    Jwks(JwksOfUpstreamArgs),
    /// Print the certificate authorities of an upstream (kinds x509 and ssh), for the trust stores of its servers
    Ca(CaOfUpstreamArgs),
    /// Sign in at the authorization server of an upstream (kind oauth); the refresh token is sealed in the server and never shown
    Connect(connect::ConnectArgs),
    /// End what somebody signed in for: it is not used any more, and is revoked at the authorization server
    Disconnect(connect::DisconnectArgs),
    /// Print a registration to start from, with comments
    Template(test::TemplateArgs),
    /// Test an upstream: make a credential there with the least scope, use it, revoke it, and verify that it is gone
    Test(test::TestArgs),
}

/// Arguments of `mayfly upstream list`.
#[derive(Args)]
pub struct ListUpstreamsArgs {
    /// Only upstreams of this environment
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    /// Only upstreams in this state
    #[arg(long, value_parser = wire_word!(pb::RegistrationState, "REGISTRATION_STATE_"))]
    state: Option<pb::RegistrationState>,
    #[command(flatten)]
    list: ListArgs,
}

/// Arguments of `mayfly upstream jwks`.
#[derive(Args)]
pub struct JwksOfUpstreamArgs {
    /// Name of the upstream
    #[arg(value_name = "NAME")]
    upstream: String,
}

/// Arguments of `mayfly upstream ca`.
#[derive(Args)]
pub struct CaOfUpstreamArgs {
    /// Name of the upstream
    #[arg(value_name = "NAME")]
    upstream: String,
    /// Print only the CAs of this kind, for an upstream that issues both
    #[arg(long, value_enum, value_name = "KIND")]
    kind: Option<CaKind>,
}

/// A kind of certificate authorities.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum CaKind {
    /// Certificates in PEM
    X509,
    /// Public keys, for TrustedUserCAKeys of sshd
    Ssh,
}

/// Arguments of `mayfly upstream show`.
#[derive(Args)]
pub struct ShowUpstreamArgs {
    /// Name of the upstream
    #[arg(value_name = "NAME")]
    upstream: String,
    /// Print the registration as a file for `upstream change`; its first line names the version that it is
    #[arg(long)]
    file: bool,
}

/// Runs the chosen subcommand.
pub async fn run(command: UpstreamCommand, run: &CommandContext) -> Result<Exit, CliError> {
    // A template is in the program itself.
    if let UpstreamCommand::Template(args) = &command {
        return test::template(args, run);
    }
    let server = &run.server().await?;
    match command {
        UpstreamCommand::Template(args) => test::template(&args, run),
        UpstreamCommand::Connect(args) => connect::connect(args, run, server).await,
        UpstreamCommand::Disconnect(args) => connect::disconnect(args, run, server).await,
        UpstreamCommand::Test(args) => test::test(args, run, server).await,
        UpstreamCommand::Show(args) => {
            let upstream = terms::registration(server, &args.upstream).await?;
            match args.file {
                true => {
                    let document = upstream_document(&upstream).map_err(CliError::ours)?;
                    run.out.document(&base_version::with_version(&document, upstream.version))?;
                }
                false => run.out.one(&Shown(upstream))?,
            }
            Ok(Exit::Ok)
        }
        UpstreamCommand::Jwks(args) => {
            let request = pb::GetJwksRequest { of: Some(Of::Upstream(args.upstream)) };
            let answer = server.call(request, |c, q| async move { KeyServiceClient::new(c).get_jwks(q).await }).await?;
            run.out.say(format_args!("the issuer is {}", answer.issuer));
            run.out.document(&answer.jwks)?;
            Ok(Exit::Ok)
        }
        UpstreamCommand::Ca(args) => {
            let request = pb::GetUpstreamCaRequest { upstream: args.upstream };
            let answer = server.call(request, |c, q| async move { KeyServiceClient::new(c).get_upstream_ca(q).await }).await?;
            let urls = [
                ("the certificates are also at", &answer.certificates_url),
                ("their CRLs are at", &answer.crls_url),
                ("the public keys are also at", &answer.ssh_authorities_url),
                ("the KRL is at", &answer.krl_url),
            ];
            for (what, url) in urls.iter().filter(|(_, url)| !url.is_empty()) {
                run.out.say(format_args!("{what} {url}"));
            }
            let x509 = if args.kind == Some(CaKind::Ssh) { "" } else { &answer.certificates_pem };
            let ssh = if args.kind == Some(CaKind::X509) { "" } else { &answer.ssh_authorities };
            run.out.document(format!("{x509}{ssh}").trim_end())?;
            Ok(Exit::Ok)
        }
        UpstreamCommand::List(args) => {
            let page = |page_size, page_token| page_of(server, &args.environment, args.state, page_size, page_token);
            list::show(&run.out, &args.list, page).await
        }
        UpstreamCommand::Add(args) => change::add(args, run, server).await,
        UpstreamCommand::Change(args) => change::change(args, run, server).await,
        UpstreamCommand::Disable(args) => change::state(args, pb::RegistrationState::Disabled, run, server).await,
        UpstreamCommand::Enable(args) => change::state(args, pb::RegistrationState::Active, run, server).await,
        UpstreamCommand::Retire(args) => change::state(args, pb::RegistrationState::Retired, run, server).await,
    }
}

/// Fetches one page of upstreams.
pub(super) async fn page_of(
    server: &ApiClient,
    environment: &Option<String>,
    state: Option<pb::RegistrationState>,
    page_size: i32,
    page_token: String,
) -> Result<(Vec<pb::Upstream>, String), CliError> {
    let environment = environment.clone().unwrap_or_default();
    let request = pb::ListUpstreamsRequest { environment, state: state.unwrap_or_default().into(), page_size, page_token };
    let answer = server.call(request, |c, q| async move { UpstreamServiceClient::new(c).list_upstreams(q).await }).await?;
    Ok((answer.upstreams, answer.next_page_token))
}
