//! The calls to GitHub's REST API, version 2022-11-28.

use std::collections::BTreeSet;
use std::time::Duration;

use http::{HeaderName, StatusCode, header};
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::problem::GithubProblem;
use super::settings::{GithubSettings, PermissionLevel, Permissions, TokenRights};
use crate::access::https::{CallOutcome, UpstreamHttps, UpstreamRequest, UpstreamResponse};
use mayfly_base::limits;
use mayfly_verify::seq::Millis;

const API_VERSION: HeaderName = HeaderName::from_static("x-github-api-version");
const VERSION: &str = "2022-11-28";
const MEDIA_TYPE: &str = "application/vnd.github+json";

/// GitHub's REST API at a target.
#[derive(Clone)]
pub struct GithubApi {
    client: UpstreamHttps,
    target: String,
}

/// Why no token was made.
pub struct NotMinted {
    /// The error.
    pub problem: GithubProblem,
    /// A token may have been made.
    pub unknown: bool,
}

/// A token and the rights that GitHub says it has.
pub struct NewToken {
    /// The token.
    pub token: Zeroizing<String>,
    /// What is wrong with its rights or its life, if anything: then it must not be handed out.
    pub wrong: Option<String>,
}

/// GitHub's answer with a token.
#[derive(Deserialize)]
struct MintAnswer {
    token: String,
    expires_at: String,
    #[serde(default)]
    permissions: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    repository_selection: Option<String>,
    #[serde(default)]
    repositories: Option<Vec<RepositoryAnswer>>,
}

#[derive(Deserialize)]
struct RepositoryAnswer {
    id: u64,
}

/// GitHub's answer about an installation, as far as an error needs it.
#[derive(Deserialize)]
struct InstallationAnswer {
    id: u64,
    #[serde(default)]
    app_slug: String,
    #[serde(default)]
    html_url: String,
    #[serde(default)]
    permissions: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    suspended_at: Option<String>,
}

#[derive(Deserialize)]
struct CountAnswer {
    total_count: u64,
}

impl GithubApi {
    /// The API behind a client. `target`: its base URL.
    pub fn new(client: UpstreamHttps, target: &str) -> GithubApi {
        GithubApi { client, target: target.trim_end_matches('/').to_owned() }
    }

    async fn call(&self, step: &'static str, request: UpstreamRequest) -> Result<UpstreamResponse, GithubProblem> {
        let request = request.header(API_VERSION, VERSION).header(header::ACCEPT, MEDIA_TYPE);
        self.client.call(request).await.map_err(|error| GithubProblem::unanswered(step, &error))
    }

    /// Makes a token of an installation, with exactly these rights. `latest`: when the token has ended by itself.
    pub async fn mint(
        &self,
        settings: &GithubSettings,
        assertion: &str,
        rights: &TokenRights,
        latest: Millis,
    ) -> Result<NewToken, NotMinted> {
        const STEP: &str = "making a token";
        let mut body = json!({ "permissions": rights.permissions });
        if let (Some(ids), Some(body)) = (rights.ids(), body.as_object_mut()) {
            body.insert("repository_ids".to_owned(), json!(ids));
        }
        let url = format!("{}/app/installations/{}/access_tokens", self.target, settings.installation);
        let client = GithubApi { client: self.client.clone().at_most(limits::GITHUB_MINT_ANSWER_BYTES), ..self.clone() };
        let answer = client.call(STEP, UpstreamRequest::post(url).bearer(assertion).json(&body)).await;
        let answer = answer.map_err(|problem| {
            let unknown = problem.outcome() != Some(CallOutcome::NotSent);
            NotMinted { problem, unknown }
        })?;
        if answer.status == StatusCode::CREATED {
            // The body has a token, so an error must not quote it.
            let read =
                answer.json::<MintAnswer>().map_err(|said| NotMinted { problem: GithubProblem::new(STEP, said), unknown: true });
            let read = read?;
            let wrong = defect(&read, rights, latest);
            return Ok(NewToken { token: Zeroizing::new(read.token), wrong });
        }
        let problem = GithubProblem::answered(STEP, &answer);
        // After an answer of this class GitHub may still have made it. A redirect is not followed, so nothing was asked.
        let unknown = answer.status.is_server_error() || answer.status.is_success() || answer.status.is_informational();
        let problem = match self.diagnosed(answer.status, settings, assertion, rights).await {
            Some(remedy) => problem.mended_by(remedy),
            None => problem,
        };
        Err(NotMinted { problem, unknown })
    }

    /// Deletes a token. A token that GitHub no longer takes is deleted.
    pub async fn delete(&self, token: &str) -> Result<(), GithubProblem> {
        const STEP: &str = "deleting the token";
        let url = format!("{}/installation/token", self.target);
        let answer = self.call(STEP, UpstreamRequest::delete(url).bearer(token)).await?;
        match answer.status {
            StatusCode::NO_CONTENT | StatusCode::UNAUTHORIZED => Ok(()),
            _ => Err(GithubProblem::answered(STEP, &answer)),
        }
    }

    /// The number of repositories that a token reaches; `None` if GitHub does not take the token.
    pub async fn reach(&self, token: &str) -> Result<Option<u64>, GithubProblem> {
        const STEP: &str = "listing the repositories of the token";
        let url = format!("{}/installation/repositories?per_page=1", self.target);
        let answer = self.call(STEP, UpstreamRequest::get(url).bearer(token)).await?;
        match answer.status {
            StatusCode::OK => {
                let count = answer.json::<CountAnswer>().map_err(|said| GithubProblem::new(STEP, said))?;
                Ok(Some(count.total_count))
            }
            StatusCode::UNAUTHORIZED => Ok(None),
            _ => Err(GithubProblem::answered(STEP, &answer)),
        }
    }

    /// Finds out what is missing at GitHub, after it refused a token. `None` if that is not found.
    async fn diagnosed(
        &self,
        status: StatusCode,
        settings: &GithubSettings,
        assertion: &str,
        rights: &TokenRights,
    ) -> Option<String> {
        let (app, installation) = (&settings.app, settings.installation);
        match status {
            StatusCode::UNAUTHORIZED => Some(format!(
                "private_key in the upstream's file must be a key of app {app} that GitHub lists in the app's settings, and the clock of this host \
                 must be right"
            )),
            StatusCode::NOT_FOUND => {
                Some(format!("app {app} has no installation {installation}: install it, or correct github.installation"))
            }
            StatusCode::FORBIDDEN | StatusCode::UNPROCESSABLE_ENTITY => {
                let limit = Duration::from_millis(limits::GITHUB_DIAGNOSIS_MS);
                tokio::time::timeout(limit, self.lacking(settings, assertion, rights)).await.ok().flatten()
            }
            _ => None,
        }
    }

    /// The permission or the repositories that the installation lacks.
    async fn lacking(&self, settings: &GithubSettings, assertion: &str, rights: &TokenRights) -> Option<String> {
        const STEP: &str = "looking at the installation";
        let url = format!("{}/app/installations/{}", self.target, settings.installation);
        let answer = self.call(STEP, UpstreamRequest::get(url).bearer(assertion)).await.ok()?;
        let found: InstallationAnswer = answer.json().ok().filter(|_| answer.status == StatusCode::OK)?;
        let app = answer.told(if found.app_slug.is_empty() { &settings.app } else { &found.app_slug });
        if found.suspended_at.is_some() {
            return Some(format!("installation {} of app {app} is suspended: {}", found.id, answer.told(&found.html_url)));
        }
        let has = permissions_of(&found.permissions);
        let lacks: Vec<String> = rights
            .permissions
            .iter()
            .filter(|(name, level)| has.get(*name).is_none_or(|has| has < *level))
            .map(|(name, level)| match has.get(name) {
                Some(has) => format!("{name}:{} (it has {name}:{})", level.as_str(), has.as_str()),
                None => format!("{name}:{}", level.as_str()),
            })
            .collect();
        if !lacks.is_empty() {
            return Some(format!(
                "installation {} of app {app} lacks {}: add the permission to the app, and approve it at {}",
                found.id,
                lacks.join(", "),
                answer.told(&found.html_url)
            ));
        }
        let mut unreached = Vec::new();
        let named = rights.repositories.iter().flatten().filter(|(_, name)| !name.is_empty());
        for (id, name) in named.take(limits::GITHUB_DIAGNOSED) {
            if !self.is_in(settings.installation, name, assertion).await? {
                unreached.push(format!("{name} (id {id})"));
            }
        }
        (!unreached.is_empty()).then(|| {
            format!(
                "installation {} of app {app} does not reach {}: add the repository at {}, or correct its id and name in the registration",
                found.id,
                unreached.join(", "),
                answer.told(&found.html_url)
            )
        })
    }

    /// Whether a repository of this name belongs to the installation. `None` if GitHub does not say.
    async fn is_in(&self, installation: u64, name: &str, assertion: &str) -> Option<bool> {
        const STEP: &str = "looking for a repository";
        // The name was checked when it was registered: OWNER/NAME, without characters that have a meaning in URLs.
        let url = format!("{}/repos/{name}/installation", self.target);
        let answer = self.call(STEP, UpstreamRequest::get(url).bearer(assertion)).await.ok()?;
        match answer.status {
            StatusCode::OK => Some(answer.json::<RepositoryAnswer>().ok()?.id == installation),
            StatusCode::NOT_FOUND | StatusCode::MOVED_PERMANENTLY => Some(false),
            _ => None,
        }
    }
}

/// The permissions that GitHub names, as far as their levels are known.
fn permissions_of(named: &std::collections::BTreeMap<String, String>) -> Permissions {
    let level = |text: &str| serde_json::from_value::<PermissionLevel>(json!(text)).ok();
    named.iter().filter_map(|(name, text)| Some((name.clone(), level(text)?))).collect()
}

/// What a token has beyond its rights, or lacks.
fn defect(answer: &MintAnswer, rights: &TokenRights, latest: Millis) -> Option<String> {
    let permissions = permissions_of(&answer.permissions);
    // GitHub adds this one to every token.
    let implied = |name: &str, level: PermissionLevel| name == "metadata" && level == PermissionLevel::Read;
    let wider = permissions
        .iter()
        .find(|(name, level)| !implied(name, **level) && rights.permissions.get(*name).is_none_or(|asked| asked < *level));
    let unknown = answer.permissions.keys().find(|name| !permissions.contains_key(*name));
    if let Some(name) = wider.map(|(name, _)| name).or(unknown) {
        return Some(format!("the token has more of permission {name:?} than was asked for"));
    }
    if let Some((name, level)) = rights.permissions.iter().find(|(name, level)| permissions.get(*name) < Some(*level)) {
        return Some(format!("the token lacks {name}:{}", level.as_str()));
    }
    if let Some(asked) = rights.ids() {
        let given = answer.repositories.as_ref().map(|given| given.iter().map(|one| one.id).collect::<BTreeSet<u64>>());
        if answer.repository_selection.as_deref() != Some("selected") || given.as_ref() != Some(&asked) {
            return Some("the token is not for exactly the repositories that were asked for".to_owned());
        }
    }
    match mayfly_base::document::quantity::moment(&answer.expires_at) {
        Some(end) if end <= latest => None,
        Some(end) => Some(format!(
            "the token lives until {end}, longer than the hour that tokens of GitHub live, or this host's clock is behind"
        )),
        None => Some("GitHub does not say when the token ends".to_owned()),
    }
}
