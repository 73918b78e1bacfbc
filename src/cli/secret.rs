//! `mayfly secret`: stores, lists, rotates and removes static secrets. No command prints a value, and none takes one as an argument, where
//! other users and the history of the shell would see it.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use rustix::termios::{self, LocalModes, OptionalActions, Termios};
use zeroize::Zeroizing;

use super::CommandContext;
use super::args;
use super::error::CliError;
use super::exit::Exit;
use super::list::{self, ListArgs};
use super::out::Format;
use super::server::ApiClient;
use super::show::{Shown, shown};
use mayfly_base::limits;
use mayfly_proto::mayfly::v1::{self as pb, put_secret_request::Secret, upstream_service_client::UpstreamServiceClient};

/// The subcommands for static secrets.
#[derive(Subcommand)]
pub enum SecretCommand {
    /// Store a new version of an upstream's secret, read from stdin, a file or the terminal; it is handed out from then on
    Put(PutArgs),
    /// List the secrets of upstreams, without values
    List(ListSecretsArgs),
    /// Show the versions of an upstream's secret, without values
    Show(ShowArgs),
    /// Have the server's hook make a new version, verify it, and revoke the one in use
    Rotate(RotateSecretArgs),
    /// End all versions of an upstream's secret and delete their values; nothing is revoked at the vendor
    Remove(RemoveArgs),
}

/// Arguments of `mayfly secret put`.
#[derive(Args)]
pub struct PutArgs {
    /// Name of the upstream, of kind secret
    #[arg(value_name = "NAME")]
    upstream: String,
    /// File with the secret; `-` is stdin [default: stdin; a terminal is asked without echo]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Keep a line break at the end, which is left out by default
    #[arg(long)]
    keep_newline: bool,
    /// Reason, recorded in the approval if one is needed
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Request id; repeating the command with the same id returns the first answer
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// Arguments of `mayfly secret list`.
#[derive(Args)]
pub struct ListSecretsArgs {
    #[command(flatten)]
    list: ListArgs,
}

/// Arguments of `mayfly secret show`.
#[derive(Args)]
pub struct ShowArgs {
    /// Name of the upstream
    #[arg(value_name = "NAME")]
    upstream: String,
}

/// Arguments of `mayfly secret rotate`.
#[derive(Args)]
pub struct RotateSecretArgs {
    /// Name of the upstream
    #[arg(value_name = "NAME")]
    upstream: String,
    /// Reason, recorded in the audit log
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Request id; repeating the command with the same id returns the first answer
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// Arguments of `mayfly secret remove`.
#[derive(Args)]
pub struct RemoveArgs {
    /// Name of the upstream
    #[arg(value_name = "NAME")]
    upstream: String,
    /// Reason, recorded in the audit log
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Request id; repeating the command with the same id returns the first answer
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// Runs the chosen subcommand.
pub async fn run(command: SecretCommand, run: &CommandContext) -> Result<Exit, CliError> {
    match command {
        SecretCommand::Put(args) => put(args, run).await,
        SecretCommand::List(args) => {
            let server = &run.server().await?;
            let page = |page_size, page_token| async move {
                let request = pb::ListSecretsRequest { page_size, page_token, ..pb::ListSecretsRequest::default() };
                let answer = secrets(server, request).await?;
                Ok((answer.secrets, answer.next_page_token))
            };
            list::show(&run.out, &args.list, page).await
        }
        SecretCommand::Show(args) => {
            let server = run.server().await?;
            let request = pb::ListSecretsRequest { upstream: args.upstream.clone(), ..pb::ListSecretsRequest::default() };
            let found = secrets(&server, request).await?.secrets.into_iter().next();
            let none = || CliError::Usage(format!("there is no upstream {} of kind secret that you may see", args.upstream));
            let mut found = found.ok_or_else(none)?;
            if matches!(run.out.format(), Format::Table | Format::Wide) {
                run.out.say(format_args!("{}: {}", found.upstream, found.status));
                if !found.last_error.is_empty() {
                    run.out.say(format_args!("failed {} times, the last time: {}", found.attempts, found.last_error));
                }
                run.out.list(&shown(std::mem::take(&mut found.versions)))?;
            } else {
                run.out.one(&Shown(found))?;
            }
            Ok(Exit::Ok)
        }
        SecretCommand::Rotate(args) => {
            let server = run.server().await?;
            let request = pb::PutSecretRequest {
                upstream: args.upstream.clone(),
                secret: Some(Secret::Rotate(true)),
                request_id: run.request_id(&args.request_id),
                reason: args.reason,
                ..pb::PutSecretRequest::default()
            };
            let answer = server.call(request, |c, q| async move { UpstreamServiceClient::new(c).put_secret(q).await }).await?;
            run.out.say(format_args!(
                "version {} is to be rotated; what comes of it: mayfly secret show {}",
                answer.version, args.upstream
            ));
            run.out.one(&Shown(answer))?;
            Ok(Exit::Ok)
        }
        SecretCommand::Remove(args) => {
            let server = run.server().await?;
            let request_id = run.request_id(&args.request_id);
            let request = pb::RemoveSecretRequest { upstream: args.upstream.clone(), reason: args.reason, request_id };
            let answer = server.call(request, |c, q| async move { UpstreamServiceClient::new(c).remove_secret(q).await }).await?;
            let versions: Vec<String> = answer.versions.iter().map(ToString::to_string).collect();
            if !versions.is_empty() {
                run.out
                    .say(format_args!("removed; still valid at the vendor until revoked there: version {}", versions.join(", ")));
            }
            run.out.one(&Shown(answer))?;
            Ok(Exit::Ok)
        }
    }
}

async fn secrets(server: &ApiClient, request: pb::ListSecretsRequest) -> Result<pb::ListSecretsResponse, CliError> {
    server.call(request, |c, q| async move { UpstreamServiceClient::new(c).list_secrets(q).await }).await
}

async fn put(args: PutArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let mut value = match &args.file {
        Some(path) => args::read(path, limits::STATIC_SECRET_BYTES)?,
        None if std::io::stdin().is_terminal() => typed(&format!("secret of {}: ", args.upstream))?,
        None => args::read(Path::new("-"), limits::STATIC_SECRET_BYTES)?,
    };
    if !args.keep_newline {
        strip_newline(&mut value);
    }
    if value.is_empty() {
        return Err(CliError::Usage("the secret is empty".to_owned()));
    }
    let server = run.server().await?;
    let request = pb::PutSecretRequest {
        upstream: args.upstream.clone(),
        secret: Some(Secret::Value(std::mem::take(&mut *value).into())),
        request_id: run.request_id(&args.request_id),
        reason: args.reason,
        ..pb::PutSecretRequest::default()
    };
    let answer = server.call(request, |c, q| async move { UpstreamServiceClient::new(c).put_secret(q).await }).await?;
    run.out.say(format_args!("version {} of the secret of {} is handed out from now on", answer.version, args.upstream));
    run.out.one(&Shown(answer))?;
    Ok(Exit::Ok)
}

/// Removes one line break at the end.
fn strip_newline(value: &mut Vec<u8>) {
    if value.last() == Some(&b'\n') {
        value.pop();
        if value.last() == Some(&b'\r') {
            value.pop();
        }
    }
}

/// The terminal without echo, and without its handling of lines and signals, so that an interrupt cannot leave it without echo. It is put
/// back when the value is dropped.
struct QuietTerminal {
    before: Termios,
}

impl QuietTerminal {
    fn new() -> std::io::Result<QuietTerminal> {
        let before = termios::tcgetattr(std::io::stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        termios::tcsetattr(std::io::stdin(), OptionalActions::Flush, &quiet)?;
        Ok(QuietTerminal { before })
    }
}

impl Drop for QuietTerminal {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.before);
    }
}

/// Reads a line from the terminal without echo.
fn typed(prompt: &str) -> Result<Zeroizing<Vec<u8>>, CliError> {
    let failed = |e: std::io::Error| CliError::Local(format!("reading the secret from the terminal: {e}"));
    let quiet = QuietTerminal::new().map_err(failed)?;
    eprint!("{prompt}");
    let line = line_of(|| {
        let mut one = [0];
        match rustix::io::read(std::io::stdin(), &mut one) {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(one[0])),
            Err(e) => Err(e.into()),
        }
    });
    drop(quiet);
    eprintln!();
    line.map_err(failed)?.ok_or_else(|| CliError::Usage("interrupted: nothing was stored".to_owned()))
}

/// A line of keys up to the return key. `None`: it was interrupted, or ended empty.
fn line_of(mut key: impl FnMut() -> std::io::Result<Option<u8>>) -> std::io::Result<Option<Zeroizing<Vec<u8>>>> {
    const INTERRUPT: u8 = 3;
    const END: u8 = 4;
    const BACKSPACE: u8 = 8;
    const KILL: u8 = 21;
    const DELETE: u8 = 127;
    let mut line = Zeroizing::new(Vec::with_capacity(limits::STATIC_SECRET_BYTES + 1));
    loop {
        match key()? {
            Some(INTERRUPT) => return Ok(None),
            None | Some(b'\r' | b'\n' | END) => return Ok(Some(line).filter(|line| !line.is_empty())),
            Some(BACKSPACE | DELETE) => drop(line.pop()),
            Some(KILL) => line.clear(),
            // Longer than any secret: the server says so.
            Some(_) if line.len() > limits::STATIC_SECRET_BYTES => {}
            Some(other) => line.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_make_a_line_and_an_interrupt_makes_none() {
        let typed = |keys: &[u8]| {
            let mut keys = keys.iter().copied();
            line_of(|| Ok(keys.next())).unwrap().map(|line| String::from_utf8(line.to_vec()).unwrap())
        };
        assert_eq!(typed(b"s3cret\rmore").as_deref(), Some("s3cret"));
        assert_eq!(typed(b"ab\x7fc\x08d\n").as_deref(), Some("ad"));
        assert_eq!(typed(b"wrong\x15right\n").as_deref(), Some("right"));
        assert_eq!((typed(b"s3c\x03\n"), typed(b"\n")), (None, None));
    }

    #[test]
    fn one_line_break_at_the_end_is_left_out() {
        for (given, kept) in [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("a", "a"), ("a\r", "a\r")] {
            let mut value = given.as_bytes().to_vec();
            strip_newline(&mut value);
            assert_eq!(value, kept.as_bytes(), "{given:?}");
        }
    }
}
