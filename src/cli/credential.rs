//! `mayfly credential`: lists, watches, releases and reports the use of issued credentials. No command here prints a token.

use clap::{Args, Subcommand};

use super::args::{self, wire_word};
use super::error::{CliError, ServerError};
use super::exit::Exit;
use super::list::{self, ListArgs};
use super::show::Shown;
use super::show::answer::Answer;
use super::{CommandContext, server::ApiClient};
use mayfly_proto::mayfly::v1::{
    self as pb, audit_service_client::AuditServiceClient, credential_service_client::CredentialServiceClient,
    token_service_client::TokenServiceClient,
};
use mayfly_verify::seq::Seq;

/// The subcommands for credentials.
#[derive(Subcommand)]
pub enum CredentialCommand {
    /// List live credentials, newest first
    List(Box<ListCredentialsArgs>),
    /// Show a credential
    Show(CredentialArg),
    /// Watch credentials as they are durably issued and ended, one JSON line each
    Watch(Box<WatchCredentialsArgs>),
    /// Give back a credential of this caller before it expires
    Release(CredentialArg),
    /// Report the use of a credential, as a server of its upstream
    Used(Box<UsedArgs>),
}

/// Arguments of `mayfly credential used`.
#[derive(Args)]
pub struct UsedArgs {
    #[command(flatten)]
    of: CredentialArg,
    /// Outcome of the use
    #[arg(long, value_parser = wire_word!(pb::UseOutcome, "USE_OUTCOME_"))]
    outcome: pb::UseOutcome,
    /// Tool that used the credential
    #[arg(long, value_name = "NAME")]
    tool: Option<String>,
    /// Number of uses
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Time of the use within the last hour: a time, or a duration before now [default: now]
    #[arg(long, value_name = "TIME", value_parser = args::when)]
    at: Option<args::When>,
}

/// The id of a credential.
#[derive(Args)]
pub struct CredentialArg {
    /// Id of the credential
    #[arg(value_name = "CREDENTIAL", value_parser = args::credential_id)]
    credential: String,
}

/// The filters that select credentials.
#[derive(Args, Clone)]
pub struct CredentialFilterArgs {
    /// Only credentials issued to this SPIFFE ID
    #[arg(long, value_name = "SPIFFE_ID")]
    caller: Option<String>,
    /// Only credentials of this task and its child tasks
    #[arg(long, value_name = "TASK", value_parser = args::task_id)]
    task: Option<String>,
    /// Only credentials for this upstream
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
    /// Only credentials of this environment
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    /// Only credentials of this kind
    #[arg(long, value_parser = args::kind())]
    kind: Option<pb::CredentialKind>,
    /// Only credentials in this state [default: active and held]
    #[arg(long, value_parser = wire_word!(pb::CredentialState, "CREDENTIAL_STATE_"))]
    state: Option<pb::CredentialState>,
}

/// Arguments of `mayfly credential list`.
#[derive(Args)]
pub struct ListCredentialsArgs {
    #[command(flatten)]
    filter: CredentialFilterArgs,
    #[command(flatten)]
    list: ListArgs,
}

/// Arguments of `mayfly credential watch`.
#[derive(Args)]
pub struct WatchCredentialsArgs {
    #[command(flatten)]
    filter: CredentialFilterArgs,
    /// Resume after the record with this sequence number [default: start now]
    #[arg(long, value_name = "SEQ")]
    resume_after: Option<Seq>,
    /// Also print the heartbeats of the server
    #[arg(long)]
    signs_of_life: bool,
}

impl CredentialFilterArgs {
    fn on_the_wire(self) -> pb::CredentialFilter {
        pb::CredentialFilter {
            caller: self.caller.unwrap_or_default(),
            task_id: self.task.unwrap_or_default(),
            upstream: self.upstream.unwrap_or_default(),
            environment: self.environment.unwrap_or_default(),
            kind: self.kind.unwrap_or_default().into(),
            state: self.state.unwrap_or_default().into(),
            covered_by: None,
        }
    }
}

/// Runs the chosen subcommand.
pub async fn run(command: CredentialCommand, run: &CommandContext) -> Result<Exit, CliError> {
    let server = run.server().await?;
    match command {
        CredentialCommand::List(args) => show_list(*args, run, &server).await,
        CredentialCommand::Show(args) => {
            let request = pb::GetCredentialRequest { credential_id: args.credential };
            let answer =
                server.call(request, |c, q| async move { CredentialServiceClient::new(c).get_credential(q).await }).await?;
            let credential = answer.credential.ok_or_else(|| CliError::ours("the server answered without the credential"))?;
            run.out.one(&Shown(credential))?;
            Ok(Exit::Ok)
        }
        CredentialCommand::Watch(args) => watch(*args, run, &server).await,
        CredentialCommand::Used(args) => used(*args, run, &server).await,
        CredentialCommand::Release(args) => {
            let answer = release(&server, &args.credential).await?;
            run.out.one(&Answer::named(&args.credential).with("credential_id", args.credential).and(&answer))?;
            Ok(Exit::Ok)
        }
    }
}

async fn used(args: UsedArgs, run: &CommandContext, server: &ApiClient) -> Result<Exit, CliError> {
    let one = pb::Use {
        credential_id: args.of.credential,
        tool: args.tool.unwrap_or_default(),
        outcome: args.outcome.into(),
        at: Some(args::timestamp(args.at.map_or_else(|| run.system.wall(), |at| at.past(run.system.wall())))),
        count: args.count,
    };
    let request = pb::ReportUseRequest { uses: vec![one.clone()] };
    let answer = server.call(request, |c, q| async move { AuditServiceClient::new(c).report_use(q).await }).await?;
    if let Some(problem) = answer.problems.into_iter().find_map(|p| p.problem) {
        return Err(CliError::Server(Box::new(ServerError::from_problem(problem))));
    }
    run.out.one(&Answer::named(&one.credential_id).pick(&one, "credential_id tool outcome count"))?;
    Ok(Exit::Ok)
}

/// Gives a credential back. The call is idempotent.
pub async fn release(server: &ApiClient, credential_id: &str) -> Result<pb::ReleaseResponse, CliError> {
    let request = pb::ReleaseRequest { credential_id: credential_id.to_owned() };
    server.call(request, |c, q| async move { TokenServiceClient::new(c).release(q).await }).await
}

async fn show_list(args: ListCredentialsArgs, run: &CommandContext, server: &ApiClient) -> Result<Exit, CliError> {
    let filter = &args.filter.on_the_wire();
    let page = |page_size, page_token| async move {
        let request = pb::ListCredentialsRequest { filter: Some(filter.clone()), page_size, page_token };
        let answer =
            server.call(request, |c, q| async move { CredentialServiceClient::new(c).list_credentials(q).await }).await?;
        Ok((answer.credentials, answer.next_page_token))
    };
    list::show(&run.out, &args.list, page).await
}

async fn watch(args: WatchCredentialsArgs, run: &CommandContext, server: &ApiClient) -> Result<Exit, CliError> {
    let request =
        pb::WatchCredentialsRequest { filter: Some(args.filter.on_the_wire()), resume_after: args.resume_after.map(Seq::as_u64) };
    let send = |c, q| async move { CredentialServiceClient::new(c).watch_credentials(q).await };
    let stream = server.stream(request, send).await?;
    let show = |event: pb::WatchCredentialsResponse| match args.signs_of_life || event.change() != pb::CredentialChange::None {
        true => run.out.line(&Shown(event)),
        false => Ok(()),
    };
    list::follow(&run.out, stream, args.resume_after.map(Seq::as_u64), |event| event.seq, show).await
}
