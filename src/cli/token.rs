//! `mayfly token`, and the reading of tokens: from stdin or a file, never from the command line, which every user of the machine can read.

use std::io::IsTerminal as _;
use std::path::Path;

use clap::{Args, Subcommand};
use zeroize::Zeroizing;

use super::error::CliError;
use super::exit::Exit;
use super::out::Format;
use super::server::ApiClient;
use super::show::{Shown, hits};
use super::{CommandContext, args};
use mayfly_base::limits;
use mayfly_proto::mayfly::v1::{self as pb, credential_service_client::CredentialServiceClient, lookup_token_request::By};

/// The subcommands for tokens that were found.
#[derive(Subcommand)]
pub enum TokenCommand {
    /// Look up a token: owner, validity, reach, and how to revoke it; reads the token from stdin
    Lookup(LookupArgs),
}

/// Arguments of `mayfly token lookup`.
#[derive(Args)]
pub struct LookupArgs {
    /// SHA-256 of the token, instead of the token (of a JWT: of the text before the last dot)
    #[arg(long, value_name = "HEX", value_parser = args::sha256)]
    sha256: Option<[u8; 32]>,
}

/// Runs the chosen subcommand.
pub async fn run(command: TokenCommand, run: &CommandContext) -> Result<Exit, CliError> {
    let TokenCommand::Lookup(args) = command;
    let by = match args.sha256 {
        Some(digest) => By::Sha256(digest.to_vec().into()),
        None => By::Token(from_stdin()?.to_string()),
    };
    let server = run.server().await?;
    let answer = lookup(&server, by).await?;
    let found = Shown(answer);
    run.out.one(&found)?;
    let found = found.0;
    if matches!(run.out.format(), Format::Table | Format::Wide) {
        for choice in &found.choices {
            let flag = choice.target.as_ref().map(super::targets::typed).unwrap_or_default();
            let hits = hits::text(choice.hits.unwrap_or_default());
            run.out.say(format_args!("to revoke it: mayfly revoke {flag} --reason TEXT    hits {hits}"));
        }
    }
    if found.standing() == pb::TokenStanding::Forged {
        run.out.say(format_args!(
            "no record issued it, and our key signed it: somebody has the key. Use `mayfly key compromise {} --reason TEXT`",
            found.signing_key
        ));
    }
    Ok(Exit::Ok)
}

/// Asks the server which credential a token belongs to.
pub async fn lookup(server: &ApiClient, by: By) -> Result<pb::LookupTokenResponse, CliError> {
    let request = pb::LookupTokenRequest { by: Some(by) };
    server.call(request, |c, q| async move { CredentialServiceClient::new(c).lookup_token(q).await }).await
}

/// Reads a token from stdin. A terminal is refused, since typed or pasted text stays on its screen.
pub fn from_stdin() -> Result<Zeroizing<String>, CliError> {
    if std::io::stdin().is_terminal() {
        return Err(CliError::Usage("a token is read from a pipe or a file, like `mayfly token lookup < FILE`".to_owned()));
    }
    read(Path::new("-"))
}

/// Reads the parent credential from a file or stdin.
pub fn parent_credential(path: &Path) -> Result<pb::ParentCredential, CliError> {
    Ok(pb::ParentCredential { token: from_file(path)?.to_string() })
}

/// Reads a token from a file; `-` is stdin. A token is never taken from the command line.
pub fn from_file(path: &Path) -> Result<Zeroizing<String>, CliError> {
    if path == Path::new("-") { from_stdin() } else { read(path) }
}

fn read(path: &Path) -> Result<Zeroizing<String>, CliError> {
    let text = args::read_text(path, limits::ARGUMENTS_BYTES)?;
    let token = Zeroizing::new(text.trim().to_owned());
    match token.is_empty() {
        true => Err(CliError::Usage(format!("{}: there is no token", path.display()))),
        false => Ok(token),
    }
}
