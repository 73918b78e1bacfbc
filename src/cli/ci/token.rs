//! The source of a job's token: a file, or the platform that runs the job. A token is never taken from the command line, which everybody on
//! the host can read.

use std::path::PathBuf;
use std::process::Stdio;

use http::HeaderName;
use http::header::AUTHORIZATION;
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use zeroize::Zeroizing;

use super::super::CommandContext;
use super::super::args;
use super::super::error::CliError;
use super::super::login::form;
use mayfly_base::limits;
use mayfly_config::https::HttpsClient;

/// A token.
pub(super) struct CiToken(pub Zeroizing<String>);

/// The source of a token.
pub(super) enum TokenSource {
    /// A file.
    File(PathBuf),
    /// GitHub's token endpoint, and the bearer token that authenticates the job there.
    Github { url: String, bearer: Zeroizing<String> },
    /// An environment variable set by GitLab.
    Gitlab(Zeroizing<String>),
    /// Buildkite's agent.
    Buildkite,
}

/// The answer of GitHub's token endpoint.
#[derive(Deserialize)]
struct GithubToken {
    value: String,
}

impl TokenSource {
    /// The token source of this job: the file from the command line, or else the detected platform. `variable` reads the environment.
    pub fn here(file: Option<PathBuf>, variable: impl Fn(&str) -> Option<String>) -> Result<TokenSource, CliError> {
        if let Some(path) = file {
            return Ok(TokenSource::File(path));
        }
        match (variable("ACTIONS_ID_TOKEN_REQUEST_URL"), variable("ACTIONS_ID_TOKEN_REQUEST_TOKEN")) {
            (Some(url), Some(bearer)) => return Ok(TokenSource::Github { url, bearer: bearer.into() }),
            _ if variable("GITHUB_ACTIONS").is_some() => {
                let what = "GitHub gives this job no ID tokens: it needs `permissions: id-token: write`";
                return Err(CliError::Usage(what.to_owned()));
            }
            _ => {}
        }
        if let Some(token) = variable("MAYFLY_ID_TOKEN") {
            return Ok(TokenSource::Gitlab(token.into()));
        }
        if variable("GITLAB_CI").is_some() {
            let what = "GitLab gave this job no token of ours: it needs `id_tokens: MAYFLY_ID_TOKEN: aud: ISSUER`";
            return Err(CliError::Usage(what.to_owned()));
        }
        if variable("BUILDKITE_AGENT_ACCESS_TOKEN").is_some() {
            return Ok(TokenSource::Buildkite);
        }
        Err(CliError::Usage(
            "this is no job of GitHub Actions, GitLab or Buildkite: name the file with the token, --token FILE".to_owned(),
        ))
    }

    /// The platform, if it is known.
    pub fn platform(&self) -> Option<&'static str> {
        match self {
            TokenSource::File(_) => None,
            TokenSource::Github { .. } => Some("github"),
            TokenSource::Gitlab(_) => Some("gitlab"),
            TokenSource::Buildkite => Some("buildkite"),
        }
    }

    /// Gets the token, for this audience if the platform lets a job choose one.
    pub async fn token(self, audience: &str, run: &CommandContext) -> Result<CiToken, CliError> {
        let text = match self {
            TokenSource::File(path) => args::read_text(&path, limits::OIDC_TOKEN_BYTES)?,
            TokenSource::Gitlab(token) => token,
            TokenSource::Github { url, bearer } => github(&url, &bearer, audience, run).await?,
            TokenSource::Buildkite => buildkite(audience).await?,
        };
        Ok(CiToken(Zeroizing::new(text.trim().to_owned())))
    }
}

async fn github(url: &str, bearer: &str, audience: &str, run: &CommandContext) -> Result<Zeroizing<String>, CliError> {
    let asked = format!("{url}{}{}", if url.contains('?') { '&' } else { '?' }, form(&[("audience", audience)]));
    let https = HttpsClient::new(None, &run.system).map_err(|e| CliError::Local(e.to_string()))?;
    let failed = |what: String| CliError::Unreachable { address: "GitHub's token service".to_owned(), what };
    let headers: Vec<(HeaderName, String)> = vec![(AUTHORIZATION, format!("Bearer {bearer}"))];
    let answer = https.get_with(&asked, headers, limits::LOGIN_BODY_BYTES).await.map_err(|e| failed(e.to_string()))?;
    if !answer.status.is_success() {
        return Err(failed(format!("it answered {}", answer.status)));
    }
    let token: GithubToken = serde_json::from_slice(&answer.body).map_err(|_| failed("it gave no token".to_owned()))?;
    Ok(token.value.into())
}

async fn buildkite(audience: &str) -> Result<Zeroizing<String>, CliError> {
    let failed = |what: String| CliError::Local(format!("buildkite-agent oidc request-token: {what}"));
    let mut command = tokio::process::Command::new("buildkite-agent");
    let asked = ["oidc", "request-token", "--audience", audience, "--claim", "organization_id", "--claim", "pipeline_id"];
    command.args(asked).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|e| failed(e.to_string()))?;
    let mut said = Zeroizing::new(String::new());
    let most = limits::OIDC_TOKEN_BYTES as u64 + 1;
    if let Some(out) = child.stdout.take() {
        out.take(most).read_to_string(&mut said).await.map_err(|e| failed(e.to_string()))?;
    }
    let status = child.wait().await.map_err(|e| failed(e.to_string()))?;
    match status.success() {
        true => Ok(said),
        false => Err(failed(format!("it ended with {status}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(variables: &[(&str, &str)]) -> Result<TokenSource, CliError> {
        TokenSource::here(None, |name| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn a_run_finds_what_its_platform_gives_it_or_is_told_what_is_missing() {
        let url = ("ACTIONS_ID_TOKEN_REQUEST_URL", "https://t.example/?api=1");
        let github = here(&[("GITHUB_ACTIONS", "true"), url, ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "t")]).unwrap();
        assert_eq!(github.platform(), Some("github"));
        assert_eq!(here(&[("GITLAB_CI", "true"), ("MAYFLY_ID_TOKEN", "a.b.c")]).unwrap().platform(), Some("gitlab"));
        assert_eq!(here(&[("BUILDKITE_AGENT_ACCESS_TOKEN", "t")]).unwrap().platform(), Some("buildkite"));
        let says = |variables: &[(&str, &str)], what: &str| match here(variables) {
            Err(CliError::Usage(text)) => assert!(text.contains(what), "{text}"),
            _ => panic!("{variables:?}"),
        };
        says(&[("GITHUB_ACTIONS", "true")], "id-token: write");
        says(&[("GITLAB_CI", "true")], "id_tokens");
        says(&[], "--token FILE");
    }
}
