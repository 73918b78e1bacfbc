//! Attestation of jobs and pods by a token of the platform that runs them: the claims of each platform, and the rules that admit a job.
//!
//! A rule compares claims. One of them must be an id that the platform never reassigns; names of repositories, projects and accounts can be
//! taken by somebody else after a renaming.

use serde_json::{Map, Value};

use super::{Issuer, plain};
use mayfly_base::limits;

/// The platform that an issuer belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Platform {
    /// GitHub Actions.
    Github,
    /// GitLab CI/CD.
    Gitlab,
    /// Buildkite.
    Buildkite,
    /// Kubernetes service accounts, by tokens projected for mayfly.
    Kubernetes,
    /// Any other platform. The configuration names the id claim.
    Other,
}

impl Platform {
    /// All platforms, with their names.
    pub const ALL: [(&'static str, Platform); 5] = [
        ("github", Platform::Github),
        ("gitlab", Platform::Gitlab),
        ("buildkite", Platform::Buildkite),
        ("kubernetes", Platform::Kubernetes),
        ("other", Platform::Other),
    ];

    /// The platform's name.
    pub fn name(self) -> &'static str {
        Platform::ALL.iter().find(|(_, platform)| *platform == self).map_or("other", |(name, _)| name)
    }

    /// The id claims, whose values are never reassigned. The first one goes into the SPIFFE ID.
    pub fn ids(self) -> &'static [&'static str] {
        match self {
            Platform::Github => &["repository_id", "repository_owner_id", "enterprise_id"],
            Platform::Gitlab => &["project_id", "namespace_id"],
            Platform::Buildkite => &["pipeline_id", "organization_id"],
            Platform::Kubernetes => &["kubernetes.io/serviceaccount/uid"],
            Platform::Other => &[],
        }
    }

    /// Whether the ids are numbers.
    pub fn numeric(self) -> bool {
        matches!(self, Platform::Github | Platform::Gitlab)
    }

    /// Claims about the branch, tag or environment. A rule must name one of them, because whoever may push to any branch can run anything
    /// there.
    pub fn places(self) -> &'static [&'static str] {
        match self {
            Platform::Github => &["ref", "environment", "job_workflow_ref", "workflow_ref"],
            Platform::Gitlab => &["ref", "ref_path", "environment"],
            Platform::Buildkite => &["build_branch", "build_tag"],
            Platform::Kubernetes | Platform::Other => &[],
        }
    }

    /// Conditions that apply to a rule that does not state them itself.
    ///
    /// The trigger of a job is always checked. The default values exclude triggers from outside: pull and merge requests run code written
    /// by others, some of them with the rights of the target branch. A tag may have the same name as a branch (GitLab's `ref`, Buildkite's
    /// `build_branch`), and whoever may push can choose a job's environment unless the platform protects it.
    fn implied(self) -> &'static [ImpliedCondition] {
        match self {
            Platform::Github => &[ImpliedCondition {
                claim: "event_name",
                for_claim: "",
                beside: &[],
                values: &["push", "schedule", "workflow_dispatch"],
            }],
            Platform::Gitlab => &[
                ImpliedCondition { claim: "pipeline_source", for_claim: "", beside: &[], values: &["push", "schedule", "web"] },
                ImpliedCondition { claim: "ref_type", for_claim: "ref", beside: &["ref_path"], values: &["branch"] },
                ImpliedCondition {
                    claim: "environment_protected",
                    for_claim: "environment",
                    beside: &["ref", "ref_path"],
                    values: &["true"],
                },
            ],
            Platform::Buildkite => {
                &[ImpliedCondition { claim: "build_tag", for_claim: "build_branch", beside: &[], values: &[] }]
            }
            Platform::Kubernetes | Platform::Other => &[],
        }
    }

    /// Claims that are recorded in addition to those that a rule compares.
    fn told(self) -> &'static [&'static str] {
        match self {
            Platform::Github => &[
                "repository",
                "repository_owner_id",
                "ref",
                "ref_protected",
                "sha",
                "event_name",
                "workflow_ref",
                "job_workflow_ref",
                "environment",
                "run_id",
                "run_attempt",
                "check_run_id",
                "actor_id",
                "runner_environment",
            ],
            Platform::Gitlab => &[
                "project_path",
                "namespace_id",
                "ref",
                "ref_type",
                "ref_protected",
                "sha",
                "pipeline_source",
                "environment",
                "pipeline_id",
                "job_id",
                "user_id",
                "runner_environment",
            ],
            Platform::Buildkite => &[
                "organization_slug",
                "pipeline_slug",
                "build_number",
                "build_branch",
                "build_commit",
                "build_tag",
                "build_source",
                "step_key",
                "job_id",
                "agent_id",
            ],
            Platform::Kubernetes => &[
                "kubernetes.io/namespace",
                "kubernetes.io/serviceaccount/name",
                "kubernetes.io/pod/name",
                "kubernetes.io/pod/uid",
                "kubernetes.io/node/name",
            ],
            Platform::Other => &[],
        }
    }

    /// Whether a job chooses its token's audience, so that the audience can name the job's key.
    pub fn chooses_audience(self) -> bool {
        matches!(self, Platform::Github | Platform::Buildkite)
    }

    /// Whether `aud` is a list, possibly of one value.
    pub fn lists_audience(self) -> bool {
        self == Platform::Kubernetes
    }
}

/// A condition that applies although a rule does not state it.
struct ImpliedCondition {
    claim: &'static str,
    /// The condition applies where the rule compares this claim; the empty name stands for every rule.
    for_claim: &'static str,
    /// The condition does not apply where the rule compares one of these claims.
    beside: &'static [&'static str],
    values: &'static [&'static str],
}

/// How an issuer's tokens describe jobs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttestationProfile {
    /// The issuer's platform.
    pub platform: Platform,
    /// The id claim. For [`Platform::Other`] the configuration names it.
    pub id_claim: String,
    /// `aud` must be mayfly's issuer, `#`, and the thumbprint of the job's key; otherwise mayfly's issuer alone.
    pub key_bound: bool,
}

/// One `[[attestation]]` rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttestationRule {
    /// The rule's name, a segment of the SPIFFE ID.
    pub name: String,
    /// The issuer's short name.
    pub issuer: String,
    /// The conditions: each claim must have one of its values. A value that ends in `/*` stands for everything below it.
    pub claims: Vec<(String, Vec<String>)>,
    /// The longest lifetime of an SVID, in milliseconds.
    pub ttl_ms: u64,
}

/// A job that a rule admits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttestedRun<'a> {
    /// The rule.
    pub rule: &'a AttestationRule,
    /// The value of the id claim.
    pub id: String,
    /// `name=value` of the compared claims and of further claims that identify the job, sorted.
    pub claims: Vec<String>,
}

/// Why a job is not admitted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AttestationError {
    /// The issuer's tokens are not accepted for jobs.
    #[error("its issuer is not configured for CI jobs or pods")]
    Issuer,
    /// The id claim is missing.
    #[error("it has no {0} that is a short text or a number")]
    Id(String),
    /// No rule admits the job; the texts say why, rule by rule.
    #[error("no rule of [[attestation]] matches the token{}", .0.iter().map(|why| format!("; {why}")).collect::<String>())]
    Rules(Vec<String>),
}

/// A claim's value as text. `name` is a top-level claim, or a path of names separated by `/`.
pub fn claim(claims: &Map<String, Value>, name: &str) -> Option<String> {
    let below = || {
        let mut names = name.split('/');
        let first = claims.get(names.next()?)?;
        names.try_fold(first, |value, name| value.get(name))
    };
    match claims.get(name).or_else(below)? {
        Value::String(text) => Some(text.clone()).filter(|text| plain(text)),
        Value::Number(number) if number.is_u64() || number.is_i64() => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// Whether a value matches the value of a rule.
fn fits(value: &str, wanted: &str) -> bool {
    match wanted.strip_suffix("/*") {
        Some(above) => value.strip_prefix(above).and_then(|rest| rest.strip_prefix('/')).is_some_and(|rest| !rest.is_empty()),
        None => value == wanted,
    }
}

impl AttestationRule {
    /// The rule's conditions, and the platform's conditions that apply to it.
    fn wanted(&self, platform: Platform) -> impl Iterator<Item = (&str, Vec<&str>)> {
        let names = |name: &str| self.claims.iter().any(|(own, _)| own == name);
        let left = move |i: &&ImpliedCondition| {
            !names(i.claim) && (i.for_claim.is_empty() || names(i.for_claim)) && !i.beside.iter().any(|name| names(name))
        };
        let own = self.claims.iter().map(|(name, values)| (name.as_str(), values.iter().map(String::as_str).collect()));
        own.chain(platform.implied().iter().filter(left).map(|i| (i.claim, i.values.to_vec())))
    }

    /// Whether this rule admits every job that `other` admits. If it comes first, `other` is used only by jobs that ask for it by name.
    pub fn includes(&self, other: &AttestationRule, platform: Platform) -> bool {
        let wanted: Vec<(&str, Vec<&str>)> = other.wanted(platform).collect();
        let within = |values: &[&str], of: &[&str]| match (values, of) {
            // The claim must be absent in both.
            ([], []) => true,
            ([], _) | (_, []) => false,
            _ => values.iter().all(|value| of.iter().any(|of| value == of || fits(value, of))),
        };
        self.issuer == other.issuer
            && self.wanted(platform).all(|(name, of)| wanted.iter().any(|(claim, values)| *claim == name && within(values, &of)))
    }

    /// Why the rule does not admit these claims.
    fn refuses(&self, platform: Platform, claims: &Map<String, Value>) -> Option<String> {
        self.wanted(platform).find_map(|(name, wanted)| match claim(claims, name) {
            // The claim must be absent, null or empty.
            None if wanted.is_empty() && claims.get(name).is_none_or(|v| v.is_null() || v == "") => None,
            Some(value) if wanted.iter().any(|wanted| fits(&value, wanted)) => None,
            Some(value) => Some(format!("{}: {name} is {value:?}", self.name)),
            None => Some(format!("{}: {name} is not there", self.name)),
        })
    }
}

/// The first rule for the issuer that admits the claims or, where `asked` names a rule, that rule.
pub fn attested<'a>(
    issuer: &Issuer,
    rules: &'a [AttestationRule],
    asked: Option<&str>,
    claims: &Map<String, Value>,
) -> Result<AttestedRun<'a>, AttestationError> {
    let jobs = issuer.jobs.as_ref().ok_or(AttestationError::Issuer)?;
    let id = claim(claims, &jobs.id_claim).ok_or_else(|| AttestationError::Id(jobs.id_claim.clone()))?;
    let mut refused = Vec::new();
    for rule in rules.iter().filter(|r| r.issuer == issuer.name && asked.is_none_or(|asked| asked == r.name)) {
        match rule.refuses(jobs.platform, claims) {
            None => return Ok(AttestedRun { rule, id, claims: told(jobs, rule, claims) }),
            Some(why) if refused.len() < limits::ATTEST_RULES_TOLD => refused.push(why),
            Some(_) => {}
        }
    }
    Err(AttestationError::Rules(refused))
}

fn told(jobs: &AttestationProfile, rule: &AttestationRule, claims: &Map<String, Value>) -> Vec<String> {
    let compared = rule.wanted(jobs.platform).map(|(name, _)| name);
    let names = compared.chain([jobs.id_claim.as_str()]).chain(jobs.platform.told().iter().copied());
    let mut all: Vec<String> = names.filter_map(|name| Some(format!("{name}={}", claim(claims, name)?))).collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[cfg(test)]
#[path = "attest_tests.rs"]
mod tests;
