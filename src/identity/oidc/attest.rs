//! Jobs and pods that attest with a token of the platform that runs them: what each platform says of them, and which rule lets one in.
//!
//! A rule compares claims. One of them is an id that the platform never gives to anybody else: names of repositories, projects and accounts
//! are given away again after a renaming.

use serde_json::{Map, Value};

use super::{Issuer, plain};
use crate::limits;

/// Whose tokens an issuer's are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Platform {
    /// GitHub Actions.
    Github,
    /// GitLab CI/CD.
    Gitlab,
    /// Buildkite.
    Buildkite,
    /// Service accounts of Kubernetes, in tokens that are projected for us.
    Kubernetes,
    /// Any other: the configuration says which claim is the id.
    Other,
}

impl Platform {
    /// All of them, by name.
    pub const ALL: [(&'static str, Platform); 5] = [
        ("github", Platform::Github),
        ("gitlab", Platform::Gitlab),
        ("buildkite", Platform::Buildkite),
        ("kubernetes", Platform::Kubernetes),
        ("other", Platform::Other),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Platform::ALL.iter().find(|(_, platform)| *platform == self).map_or("other", |(name, _)| name)
    }

    /// Claims that are never anybody else's. The first is whom an SVID names.
    pub fn ids(self) -> &'static [&'static str] {
        match self {
            Platform::Github => &["repository_id", "repository_owner_id", "enterprise_id"],
            Platform::Gitlab => &["project_id", "namespace_id"],
            Platform::Buildkite => &["pipeline_id", "organization_id"],
            Platform::Kubernetes => &["kubernetes.io/serviceaccount/uid"],
            Platform::Other => &[],
        }
    }

    /// Its ids are numbers.
    pub fn numeric(self) -> bool {
        matches!(self, Platform::Github | Platform::Gitlab)
    }

    /// Claims that say which branch, tag or environment. A rule names one of them: whoever may push to any branch may run anything there.
    pub fn places(self) -> &'static [&'static str] {
        match self {
            Platform::Github => &["ref", "environment", "job_workflow_ref", "workflow_ref"],
            Platform::Gitlab => &["ref", "ref_path", "environment"],
            Platform::Buildkite => &["build_branch", "build_tag"],
            Platform::Kubernetes | Platform::Other => &[],
        }
    }

    /// What is compared where a rule compares one claim and is silent on another: that claim, one that by itself says too little, what it is
    /// said with, and the values; none where the claim must not be there.
    ///
    /// What began a job is always asked for, by values by which nobody from outside begins one: requests to merge run what somebody else
    /// wrote, some of them with the rights of the branch that they are for. A tag may have a branch's name (GitLab's `ref`, Buildkite's
    /// `build_branch`), and whoever may push may say in what environment a job is, unless the platform protects that.
    fn implied(self) -> &'static [Implied] {
        match self {
            Platform::Github => {
                &[Implied { claim: "event_name", for_claim: "", beside: &[], values: &["push", "schedule", "workflow_dispatch"] }]
            }
            Platform::Gitlab => &[
                Implied { claim: "pipeline_source", for_claim: "", beside: &[], values: &["push", "schedule", "web"] },
                Implied { claim: "ref_type", for_claim: "ref", beside: &["ref_path"], values: &["branch"] },
                Implied {
                    claim: "environment_protected",
                    for_claim: "environment",
                    beside: &["ref", "ref_path"],
                    values: &["true"],
                },
            ],
            Platform::Buildkite => &[Implied { claim: "build_tag", for_claim: "build_branch", beside: &[], values: &[] }],
            Platform::Kubernetes | Platform::Other => &[],
        }
    }

    /// Claims that are written down beside those that a rule compares.
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

    /// A job chooses the audience of its token, so that the token names the key that it is for.
    pub fn chooses_audience(self) -> bool {
        matches!(self, Platform::Github | Platform::Buildkite)
    }

    /// `aud` comes as a list, which may have one value.
    pub fn lists_audience(self) -> bool {
        self == Platform::Kubernetes
    }
}

/// What is compared though a rule does not say it.
struct Implied {
    claim: &'static str,
    /// Where the rule compares this one; the empty name stands for any rule.
    for_claim: &'static str,
    /// And none of these.
    beside: &'static [&'static str],
    values: &'static [&'static str],
}

/// What an issuer's tokens say of jobs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attesting {
    /// Whose they are.
    pub platform: Platform,
    /// The claim that is the id: of [`Platform::Other`] the configuration's word.
    pub id_claim: String,
    /// `aud` is our issuer, `#` and the thumbprint of the job's key; else our issuer alone.
    pub key_bound: bool,
}

/// One of `[[attestation]]`: who is let in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttestRule {
    /// Its name, a segment of the SPIFFE ID.
    pub name: String,
    /// The issuer, by its short name.
    pub issuer: String,
    /// What claims have to be: any of these values. One that ends in `/*` stands for everything below.
    pub claims: Vec<(String, Vec<String>)>,
    /// Longest life of an SVID, milliseconds.
    pub ttl_ms: u64,
}

/// A job that a rule lets in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attested<'a> {
    /// The rule.
    pub rule: &'a AttestRule,
    /// The value of the claim that is the id.
    pub id: String,
    /// `name=value` of what was compared and of what else says which job it was, sorted.
    pub claims: Vec<String>,
}

/// Why nobody is let in.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotAttested {
    /// The issuer's tokens say nothing of jobs.
    #[error("its issuer's tokens are not taken for jobs")]
    Issuer,
    /// The claim that is the id is not there.
    #[error("it has no {0} that is a short text or a number")]
    Id(String),
    /// No rule is for it, and why, rule by rule.
    #[error("no rule of [[attestation]] is for it{}", .0.iter().map(|why| format!("; {why}")).collect::<String>())]
    Rules(Vec<String>),
}

/// A claim's value as text: at the top, or below by a path of names with `/` between.
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

/// Whether a value is one that a rule names.
fn fits(value: &str, wanted: &str) -> bool {
    match wanted.strip_suffix("/*") {
        Some(above) => value.strip_prefix(above).and_then(|rest| rest.strip_prefix('/')).is_some_and(|rest| !rest.is_empty()),
        None => value == wanted,
    }
}

impl AttestRule {
    /// Every claim that it compares, with those of the platform that it leaves to us.
    fn wanted(&self, platform: Platform) -> impl Iterator<Item = (&str, Vec<&str>)> {
        let names = |name: &str| self.claims.iter().any(|(own, _)| own == name);
        let left = move |i: &&Implied| {
            !names(i.claim) && (i.for_claim.is_empty() || names(i.for_claim)) && !i.beside.iter().any(|name| names(name))
        };
        let own = self.claims.iter().map(|(name, values)| (name.as_str(), values.iter().map(String::as_str).collect()));
        own.chain(platform.implied().iter().filter(left).map(|i| (i.claim, i.values.to_vec())))
    }

    /// Whether every job that `other` is for is one that this rule is for. Where this one stands first, nobody is let in by `other` without asking for
    /// it by its name.
    pub fn includes(&self, other: &AttestRule, platform: Platform) -> bool {
        let wanted: Vec<(&str, Vec<&str>)> = other.wanted(platform).collect();
        let within = |values: &[&str], of: &[&str]| match (values, of) {
            // A claim that must not be there.
            ([], []) => true,
            ([], _) | (_, []) => false,
            _ => values.iter().all(|value| of.iter().any(|of| value == of || fits(value, of))),
        };
        self.issuer == other.issuer
            && self.wanted(platform).all(|(name, of)| wanted.iter().any(|(claim, values)| *claim == name && within(values, &of)))
    }

    /// Why it is not for these claims.
    fn refuses(&self, platform: Platform, claims: &Map<String, Value>) -> Option<String> {
        self.wanted(platform).find_map(|(name, wanted)| match claim(claims, name) {
            // Whatever it is, and in whatever form.
            None if wanted.is_empty() && claims.get(name).is_none_or(|v| v.is_null() || v == "") => None,
            Some(value) if wanted.iter().any(|wanted| fits(&value, wanted)) => None,
            Some(value) => Some(format!("{}: {name} is {value:?}", self.name)),
            None => Some(format!("{}: {name} is not there", self.name)),
        })
    }
}

/// The first of the rules that is for a token of this issuer, or of these the one that is asked for.
pub fn attested<'a>(
    issuer: &Issuer,
    rules: &'a [AttestRule],
    asked: Option<&str>,
    claims: &Map<String, Value>,
) -> Result<Attested<'a>, NotAttested> {
    let jobs = issuer.jobs.as_ref().ok_or(NotAttested::Issuer)?;
    let id = claim(claims, &jobs.id_claim).ok_or_else(|| NotAttested::Id(jobs.id_claim.clone()))?;
    let mut refused = Vec::new();
    for rule in rules.iter().filter(|r| r.issuer == issuer.name && asked.is_none_or(|asked| asked == r.name)) {
        match rule.refuses(jobs.platform, claims) {
            None => return Ok(Attested { rule, id, claims: told(jobs, rule, claims) }),
            Some(why) if refused.len() < limits::ATTEST_RULES_TOLD => refused.push(why),
            Some(_) => {}
        }
    }
    Err(NotAttested::Rules(refused))
}

fn told(jobs: &Attesting, rule: &AttestRule, claims: &Map<String, Value>) -> Vec<String> {
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
