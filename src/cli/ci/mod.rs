//! `mayfly ci`: commands for CI jobs. `login` exchanges the token of the job's platform for an SVID.
//!
//! - `heartbeat`: heartbeats and SVID renewal beside a job. `init`: the files that a repository needs. `token`: the platforms' tokens.
//!   `mask`: masking of secrets in the job's log.

mod heartbeat;
mod init;
pub(super) mod mask;
mod token;

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use zeroize::Zeroizing;

use super::CommandContext;
use super::error::CliError;
use super::exit::Exit;
use super::login::{KeyAndCsr, LoginFiles, LoginView, PublicArgs, answer, unreachable};
use super::out::escape;
use mayfly_api::attest::{AttestIssuer, AttestMethods, AttestRequest};
use mayfly_api::people::LoginAnswer;
use mayfly_base::limits;
use mayfly_config::https::HttpsClient;
use token::{CiToken, TokenSource};

/// The subcommands of `mayfly ci`.
#[derive(Subcommand)]
pub enum CiCommand {
    /// Exchange the token of this job's CI platform for an SVID; `mayfly logout` gives it back
    ///
    /// GitHub Actions (with `id-token: write`), Buildkite, and GitLab with an `id_tokens` entry named MAYFLY_ID_TOKEN are detected. On
    /// other platforms, --token names the file with the token, such as a projected service account token of Kubernetes.
    Login(CiLoginArgs),
    /// Send heartbeats for a task until its work is over, and renew this job's SVID before it expires
    Heartbeat(heartbeat::CiHeartbeatArgs),
    /// Write a workflow and its files to a repository, for jobs that get a credential for each run
    Init(init::InitArgs),
}

/// Arguments of `mayfly ci login`.
#[derive(Args, Clone)]
pub struct CiLoginArgs {
    /// Name of the token's issuer; needed if the server has several issuers of the platform
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// Rule to attest by [default: the first rule that matches this job]
    #[arg(long, value_name = "NAME")]
    rule: Option<String>,
    /// File with the token; `-` is stdin [default: the token is requested from the platform]
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
    #[command(flatten)]
    public: PublicArgs,
}

/// Runs the chosen subcommand.
pub async fn run(command: CiCommand, run: &CommandContext) -> Result<Exit, CliError> {
    match command {
        CiCommand::Login(args) => login(args, run).await,
        CiCommand::Heartbeat(args) => heartbeat::run(args, run).await,
        CiCommand::Init(args) => init::run(args, run).await,
    }
}

async fn login(args: CiLoginArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let kept = LoginFiles::beside(run.settings()?.file.as_deref())?;
    // Some platforms give a job only one token, so the token is not used before the place for the certificate is known to be writable.
    kept.prepare(&run.system)?;
    let fresh = KeyAndCsr::make()?;
    let (made, ways, issuer) = attested(&args, &fresh, run).await?;
    kept.write(&made, &fresh.pem, &fresh.spki, &run.system)?;
    let told = LoginView::of(made, ways.trust_domain, issuer, &kept);
    run.out.one(&told)?;
    run.out.say(format_args!("this job is {} until {}", told.spiffe_id, told.expires_at));
    Ok(Exit::Ok)
}

/// Gets a new certificate for the existing key.
async fn renewed(args: &CiLoginArgs, kept: &LoginFiles, run: &CommandContext) -> Result<(), CliError> {
    kept.prepare(&run.system)?;
    let fresh = KeyAndCsr::again(kept)?;
    let (made, ..) = attested(args, &fresh, run).await?;
    kept.renew(&made, &fresh.spki, &run.system)
}

/// Presents the job's token to the server. Returns the certificate, the server's attestation settings, and the issuer of the token.
async fn attested(
    args: &CiLoginArgs,
    fresh: &KeyAndCsr,
    run: &CommandContext,
) -> Result<(LoginAnswer, AttestMethods, String), CliError> {
    let (public, server) = args.public.listener(&run.settings()?, run)?;
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let given = TokenSource::here(args.token.clone(), variable)?;
    let ways = ways(&server, &public).await?;
    let issuer = choose(&ways, args.issuer.as_deref(), given.platform())?;
    let audience = match issuer.key_bound {
        true => format!("{}#{}", ways.audience, fresh.nonce),
        false => ways.audience.clone(),
    };
    let name = issuer.name.clone();
    let CiToken(token) = given.token(&audience, run).await?;
    let ask = AttestRequest { token: token.to_string(), csr: STANDARD.encode(&fresh.csr), rule: args.rule.clone() };
    let body = Zeroizing::new(serde_json::to_string(&ask).map_err(CliError::ours)?);
    let url = at(&public);
    let post = || server.post_json(&url, body.to_string(), limits::LOGIN_BODY_BYTES);
    // The answer may be lost: the same token and key get the same answer within a minute.
    let said = match post().await {
        Ok(said) => Ok(said),
        Err(_) => post().await,
    };
    Ok((answer(&said.map_err(|e| unreachable(&public, &e))?)?, ways, name))
}

fn at(public: &str) -> String {
    format!("{public}/attest")
}

/// Fetches the server's attestation settings.
async fn ways(server: &HttpsClient, public: &str) -> Result<AttestMethods, CliError> {
    let said = server.get(&at(public), limits::LOGIN_BODY_BYTES).await.map_err(|e| unreachable(public, &e))?;
    answer(&said)
}

/// The named issuer, or the only issuer of the detected platform.
fn choose<'a>(ways: &'a AttestMethods, named: Option<&str>, platform: Option<&str>) -> Result<&'a AttestIssuer, CliError> {
    let names = |all: &[&AttestIssuer]| all.iter().map(|i| i.name.as_str()).collect::<Vec<_>>().join(", ");
    let all: Vec<&AttestIssuer> = ways.issuers.iter().collect();
    if let Some(name) = named {
        let none = || {
            let what = format!("there is no issuer {}; there are {}", escape::for_terminal(name), names(&all));
            CliError::LocalAs(what, Exit::NotFound)
        };
        return all.iter().find(|i| i.name == name).copied().ok_or_else(none);
    }
    let fit: Vec<&AttestIssuer> = all.iter().copied().filter(|i| platform.is_none_or(|p| p == i.platform)).collect();
    match (fit.as_slice(), platform) {
        ([one], _) => Ok(one),
        ([], Some(platform)) => Err(CliError::Usage(format!(
            "this is a job of {platform}, whose tokens the server does not accept; it accepts {}",
            names(&all)
        ))),
        ([], None) => {
            Err(CliError::Usage("this server accepts no tokens of CI jobs ([[oidc_issuers]] with uses attest)".to_owned()))
        }
        (several, _) => Err(CliError::Usage(format!("which issuer signed the token? give --issuer: one of {}", names(several)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_chosen_by_its_name_or_by_the_platform_that_we_are_on() {
        let issuer = |name: &str, platform: &str| AttestIssuer {
            name: name.into(),
            issuer: "https://i".into(),
            platform: platform.into(),
            key_bound: false,
        };
        let ways = AttestMethods {
            trust_domain: "t".into(),
            audience: "a".into(),
            issuers: vec![issuer("hub", "github"), issuer("lab", "gitlab"), issuer("lab2", "gitlab")],
        };
        let name = |named, platform| choose(&ways, named, platform).map(|i| i.name.clone());
        assert_eq!(name(None, Some("github")).unwrap(), "hub");
        assert_eq!(name(Some("lab2"), Some("github")).unwrap(), "lab2", "who names one is believed");
        for (named, platform) in [(None, Some("gitlab")), (None, Some("buildkite")), (None, None), (Some("x"), None)] {
            assert!(
                matches!(name(named, platform), Err(CliError::Usage(_) | CliError::LocalAs(_, Exit::NotFound))),
                "{named:?} {platform:?}"
            );
        }
    }
}
