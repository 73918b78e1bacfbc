//! `mayfly upstream connect` and `mayfly upstream disconnect`: somebody signs in at the authorization server of an upstream. The server of
//! mayfly gets the tokens and keeps the refresh token; this command only opens the page and brings the code.

use std::time::Duration;

use clap::Args;
use zeroize::Zeroizing;

use crate::CommandContext;
use crate::args;
use crate::error::CliError;
use crate::exit::Exit;
use crate::login::{Loopback, browse};
use crate::out::escape::for_terminal;
use crate::server::ApiClient;
use mayfly_base::document::url::WebUrl;
use mayfly_proto::mayfly::v1::{self as pb, upstream_service_client::UpstreamServiceClient};

/// The longest pause between two questions whether somebody has signed in.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Arguments of `mayfly upstream connect`.
#[derive(Args)]
pub struct ConnectArgs {
    /// Name of the upstream
    #[arg(value_name = "NAME")]
    upstream: String,
    /// Sign in on another machine by typing a code there (device flow), if the authorization server allows it
    #[arg(long)]
    device: bool,
    /// Do not open a browser; the address is printed in any case
    #[arg(long)]
    no_browser: bool,
    /// Maximum time to wait for the sign-in
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = args::duration)]
    patience: Duration,
}

/// Arguments of `mayfly upstream disconnect`.
#[derive(Args)]
pub struct DisconnectArgs {
    /// Name of the upstream
    #[arg(value_name = "NAME")]
    upstream: String,
}

/// Has somebody sign in.
pub async fn connect(args: ConnectArgs, run: &CommandContext, server: &ApiClient) -> Result<Exit, CliError> {
    let patience = args.patience;
    let late = || CliError::Local(format!("nobody signed in within {} s", patience.as_secs()));
    let name = args.upstream.clone();
    let signed_in = async {
        match args.device {
            true => by_device(&args, run, server).await,
            false => by_browser(&args, run, server).await,
        }
    };
    tokio::time::timeout(patience, signed_in).await.unwrap_or_else(|_| Err(late()))?;
    run.out.say(format_args!("{name} is connected; the refresh token is sealed in the server: mayfly upstream test {name}"));
    Ok(Exit::Ok)
}

async fn begin(args: &ConnectArgs, redirect_uri: String, server: &ApiClient) -> Result<pb::ConnectUpstreamResponse, CliError> {
    let request = pb::ConnectUpstreamRequest { upstream: args.upstream.clone(), redirect_uri };
    let begun = server.call(request, |c, q| async move { UpstreamServiceClient::new(c).connect_upstream(q).await }).await?;
    match WebUrl::parse(begun.url.split('?').next().unwrap_or_default()) {
        Some(_) => Ok(begun),
        None => Err(CliError::Local("the page for signing in is no https URL".to_owned())),
    }
}

async fn complete(id: &str, code: &str, server: &ApiClient) -> Result<pb::CompleteConnectionResponse, CliError> {
    let request = pb::CompleteConnectionRequest { connection_id: id.to_owned(), code: code.to_owned() };
    server.call(request, |c, q| async move { UpstreamServiceClient::new(c).complete_connection(q).await }).await
}

async fn by_browser(args: &ConnectArgs, run: &CommandContext, server: &ApiClient) -> Result<(), CliError> {
    let port = Loopback::bind().await?;
    let begun = begin(args, port.redirect_uri(), server).await?;
    if !args.no_browser {
        browse(&begun.url);
    }
    run.out.say(format_args!("sign in here, in a browser on this machine:\n{}", for_terminal(&begun.url)));
    let code: Zeroizing<String> = port.code(&begun.state, &begun.issuer).await?;
    match complete(&begun.connection_id, &code, server).await?.connected {
        true => Ok(()),
        false => Err(CliError::Local("the server did not take the code".to_owned())),
    }
}

async fn by_device(args: &ConnectArgs, run: &CommandContext, server: &ApiClient) -> Result<(), CliError> {
    let begun = begin(args, String::new(), server).await?;
    let (url, code) = (for_terminal(&begun.url), for_terminal(&begun.user_code));
    run.out.say(format_args!("sign in here, on any machine:\n{url}\nand see that the code there is: {code}"));
    let pause = |given: Option<prost_types::Duration>| {
        let seconds = given.and_then(|d| u64::try_from(d.seconds).ok()).map_or(Duration::from_secs(5), Duration::from_secs);
        seconds.clamp(Duration::from_secs(1), PAUSE_MAX)
    };
    let mut wait = pause(begun.interval);
    loop {
        tokio::time::sleep(wait).await;
        let answer = complete(&begun.connection_id, "", server).await?;
        if answer.connected {
            return Ok(());
        }
        wait = pause(answer.retry_after);
    }
}

/// Ends a grant.
pub async fn disconnect(args: DisconnectArgs, run: &CommandContext, server: &ApiClient) -> Result<Exit, CliError> {
    let name = args.upstream.clone();
    let request = pb::DisconnectUpstreamRequest { upstream: args.upstream };
    let answer = server.call(request, |c, q| async move { UpstreamServiceClient::new(c).disconnect_upstream(q).await }).await?;
    match (answer.revoked, answer.detail.as_str()) {
        (true, "") => run.out.say(format_args!("{name} is disconnected: the grant is revoked at the authorization server")),
        (true, detail) => run.out.say(format_args!("{name} is disconnected: {}", for_terminal(detail))),
        (false, detail) => {
            run.out.say(format_args!(
                "{name} is disconnected and not used any more; revoking the grant is tried until it works: {}",
                for_terminal(detail)
            ));
            return Ok(Exit::Partly);
        }
    }
    Ok(Exit::Ok)
}
