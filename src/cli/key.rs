//! `mayfly key`: manages the server's signing keys. A private key never leaves the server.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::args::{self, wire_duration, wire_word};
use super::confirm::{self, ConfirmArgs};
use super::error::CliError;
use super::exit::Exit;
use super::list::{self, ListArgs};
use super::several;
use super::show::answer::Answer;
use super::show::{Shown, message, time};
use super::wait::{self, WaitArgs};
use super::{CommandContext, server::ApiClient};
use mayfly_proto::mayfly::v1::{self as pb, get_jwks_request::Of, key_service_client::KeyServiceClient};

/// The subcommands for keys.
#[derive(Subcommand)]
pub enum KeyCommand {
    /// List keys, newest first
    List(ListKeysArgs),
    /// Create a new key; it is published first, and signs once verifiers had time to fetch it
    Rotate(RotateArgs),
    /// Remove a key that no longer signs; everything it signed is refused from then on
    Retire(RetireArgs),
    /// Revoke a compromised key: nothing signed by it is accepted any more
    Compromise(CompromiseArgs),
    /// Print the keys that verify an issuer's tokens, as a JWK set
    Jwks(JwksArgs),
}

/// Arguments of `mayfly key list`.
#[derive(Args)]
pub struct ListKeysArgs {
    /// Only keys of this purpose
    #[arg(long, value_parser = wire_word!(pb::KeyPurpose, "KEY_PURPOSE_"))]
    purpose: Option<pb::KeyPurpose>,
    /// Only keys in this state [default: all except removed keys]
    #[arg(long, value_parser = wire_word!(pb::KeyState, "KEY_STATE_"))]
    state: Option<pb::KeyState>,
    /// Only keys of this issuer
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    #[command(flatten)]
    list: ListArgs,
}

/// Arguments of `mayfly key rotate`.
#[derive(Args)]
pub struct RotateArgs {
    /// Purpose of the key
    #[arg(long, value_parser = wire_word!(pb::KeyPurpose, "KEY_PURPOSE_"), default_value = "access_token")]
    purpose: pb::KeyPurpose,
    /// Issuer whose tokens the key signs
    #[arg(long, value_name = "URL", required_unless_present_any = ["environment", "upstream"])]
    issuer: Option<String>,
    /// Environment, if no issuer names it
    #[arg(long, value_name = "NAME", conflicts_with = "issuer")]
    environment: Option<String>,
    /// Upstream whose assertions or certificates the key signs, for purposes federation, upstream_ca and ssh_ca
    #[arg(long, value_name = "NAME", conflicts_with_all = ["issuer", "environment"])]
    upstream: Option<String>,
    /// Time between publishing the key and signing with it; 0s signs at once [default: as long as verifiers may cache the old key set]
    #[arg(long, value_name = "DURATION", value_parser = args::duration)]
    publish_ahead: Option<Duration>,
    /// Request id; repeating the command with the same id returns the first answer
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// Arguments of `mayfly key retire`.
#[derive(Args)]
pub struct RetireArgs {
    /// Key ids; an argument may hold several, separated by white space, as printed by `key list -o name`. Each key has a request of its
    /// own: if one fails, the others are done all the same, and the exit code is that of the first failure. With several keys, the id of
    /// each is appended to --request-id
    #[arg(value_name = "KEY_ID", required = true)]
    keys: Vec<String>,
    /// Reason, recorded in the audit log
    #[arg(long, value_name = "TEXT", required_unless_present = "dry_run")]
    reason: Option<String>,
    #[command(flatten)]
    confirm: ConfirmArgs,
}

/// Arguments of `mayfly key compromise`.
#[derive(Args)]
pub struct CompromiseArgs {
    #[command(flatten)]
    key: RetireArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Arguments of `mayfly key jwks`.
#[derive(Args)]
pub struct JwksArgs {
    /// Issuer of the tokens
    #[arg(long, value_name = "URL", required_unless_present = "environment")]
    issuer: Option<String>,
    /// Environment whose default issuer is meant
    #[arg(long, value_name = "NAME", conflicts_with = "issuer")]
    environment: Option<String>,
}

/// Runs the chosen subcommand.
pub async fn run(command: KeyCommand, run: &CommandContext) -> Result<Exit, CliError> {
    let server = run.server().await?;
    match command {
        KeyCommand::List(args) => show(args, run, &server).await,
        KeyCommand::Rotate(args) => rotate(args, run, &server).await,
        KeyCommand::Retire(args) => of_each(&args, run, |key, id| retire(&args, key, id, run, &server)).await,
        KeyCommand::Compromise(args) => of_each(&args.key, run, |key, id| compromise(&args, key, id, run, &server)).await,
        KeyCommand::Jwks(args) => {
            let of = match (args.issuer, args.environment) {
                (Some(issuer), _) => Of::Issuer(issuer),
                (None, environment) => Of::Environment(environment.unwrap_or_default()),
            };
            let request = pb::GetJwksRequest { of: Some(of) };
            let answer = server.call(request, |c, q| async move { KeyServiceClient::new(c).get_jwks(q).await }).await?;
            run.out.document(&answer.jwks)?;
            Ok(Exit::Ok)
        }
    }
}

async fn show(args: ListKeysArgs, run: &CommandContext, server: &ApiClient) -> Result<Exit, CliError> {
    let filter = &pb::ListKeysRequest {
        purpose: args.purpose.unwrap_or_default().into(),
        state: args.state.unwrap_or_default().into(),
        issuer: args.issuer.unwrap_or_default(),
        page_size: 0,
        page_token: String::new(),
    };
    let page = |page_size, page_token| async move {
        let request = pb::ListKeysRequest { page_size, page_token, ..filter.clone() };
        let answer = server.call(request, |c, q| async move { KeyServiceClient::new(c).list_keys(q).await }).await?;
        Ok((answer.keys, answer.next_page_token))
    };
    list::show(&run.out, &args.list, page).await
}

async fn rotate(args: RotateArgs, run: &CommandContext, server: &ApiClient) -> Result<Exit, CliError> {
    let request = pb::RotateKeyRequest {
        purpose: args.purpose.into(),
        issuer: args.issuer.unwrap_or_default(),
        publish_ahead: args.publish_ahead.map(wire_duration),
        request_id: run.request_id(&args.request_id),
        environment: args.environment.unwrap_or_default(),
        upstream: args.upstream.unwrap_or_default(),
    };
    let answer = server.call(request, |c, q| async move { KeyServiceClient::new(c).rotate_key(q).await }).await?;
    if let Some(from) = time(answer.key.as_ref().and_then(|k| k.active_from)) {
        run.out.say(format_args!("the new key signs from {from}"));
    }
    run.out.one(&Shown(answer))?;
    Ok(Exit::Ok)
}

/// The distinct key ids of the arguments.
fn keys(arguments: &[String]) -> Result<Vec<String>, CliError> {
    let mut keys: Vec<String> = Vec::new();
    for key in arguments.iter().flat_map(|argument| argument.split_whitespace()) {
        if !keys.iter().any(|known| known == key) {
            keys.push(key.to_owned());
        }
    }
    match keys.is_empty() {
        true => Err(CliError::Usage("no key is named: `mayfly key list` shows them".to_owned())),
        false => Ok(keys),
    }
}

/// Applies an action to each key, in a request of its own.
async fn of_each<W: Future<Output = Result<(), CliError>>>(
    args: &RetireArgs,
    run: &CommandContext,
    one: impl FnMut(String, String) -> W,
) -> Result<Exit, CliError> {
    let keys = keys(&args.keys)?;
    let (_, exit) = several::each(run, &args.confirm.request_id, keys, |key| format!("key {key}:"), one).await?;
    Ok(exit)
}

async fn retire(
    args: &RetireArgs,
    key: String,
    request_id: String,
    run: &CommandContext,
    server: &ApiClient,
) -> Result<(), CliError> {
    let request = &pb::RetireKeyRequest {
        key_id: key.clone(),
        reason: args.reason.clone().unwrap_or_else(|| "dry run".to_owned()),
        dry_run: false,
        confirmation: None,
        request_id,
    };
    let ask = |dry_run, confirmation| async move {
        let request = pb::RetireKeyRequest { dry_run, confirmation, ..request.clone() };
        server.call(request, |c, q| async move { KeyServiceClient::new(c).retire_key(q).await }).await
    };
    let answer = confirm::ask(&run.out, &args.confirm, |r: &pb::RetireKeyResponse| r.hits, ask).await?;
    run.out.one(&Answer::named(&key).with("key_id", key).with("dry_run", args.confirm.dry_run).and(&answer))
}

async fn compromise(
    args: &CompromiseArgs,
    key: String,
    request_id: String,
    run: &CommandContext,
    server: &ApiClient,
) -> Result<(), CliError> {
    let CompromiseArgs { key: args, wait } = args;
    let request = &pb::CompromiseKeyRequest {
        key_id: key.clone(),
        reason: args.reason.clone().unwrap_or_else(|| "dry run".to_owned()),
        dry_run: false,
        confirmation: None,
        request_id,
    };
    let ask = |dry_run, confirmation| async move {
        let request = pb::CompromiseKeyRequest { dry_run, confirmation, ..request.clone() };
        server.call(request, |c, q| async move { KeyServiceClient::new(c).compromise_key(q).await }).await
    };
    let answer = confirm::ask(&run.out, &args.confirm, |r: &pb::CompromiseKeyResponse| r.hits, ask).await?;
    if answer.seq > 0 {
        run.out.say(format_args!("nothing signed by {key} is accepted from {} on", answer.seq));
    }
    let followers = wait::applied(server, &run.system, wait, answer.seq).await?;
    let gone = Answer::named(&key).with("key_id", key).with("dry_run", args.confirm.dry_run).and(&answer);
    run.out.one(&gone.with_some("followers", followers.as_ref().map(message::json)))?;
    wait::print_result(&run.out, wait, answer.seq, followers)
}
