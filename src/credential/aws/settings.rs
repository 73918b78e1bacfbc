//! The section `[aws]` of a registration.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::federation::settings::AssertionAlg;
use crate::federation::subject::SubjectTemplate;
use mayfly_base::document::url::WebUrl;
use mayfly_base::document::{Field, Section};
use mayfly_base::limits;
use mayfly_ledger::upstream::settings::SettingsContext;

/// The section, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AwsSettings {
    /// The ARN of the role whose sessions are handed out.
    pub role: String,
    /// The region of the holder's calls, and of STS.
    pub region: String,
    /// The signature algorithm of assertions.
    pub alg: AssertionAlg,
    /// `aud` of assertions.
    pub audience: String,
    /// `sub` of assertions.
    pub subject: SubjectTemplate,
    /// The registration consents to sessions that nothing ends before their time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub irrevocable: bool,
    /// The ARN of the role by which mayfly denies sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub administration: Option<String>,
    /// The URL of STS.
    pub sts_url: String,
    /// The URL of IAM.
    pub iam_url: String,
    /// The statements of the session policy, by scope.
    pub policies: Vec<ScopePolicy>,
}

/// An entry of `policies`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScopePolicy {
    /// The scope that grants it.
    pub scope: String,
    /// A statement of a policy, JSON.
    pub statement: String,
}

/// The start of subjects that mayfly has for itself.
pub const OWN_SUBJECTS: &str = "mayfly:";

impl AwsSettings {
    /// The session policy for some scopes. The error says how long it is.
    pub fn policy(&self, scopes: &[String]) -> Result<String, String> {
        let statements = self.policies.iter().filter(|p| scopes.contains(&p.scope)).map(|p| p.statement.as_str());
        let policy = format!("{{\"Version\":\"2012-10-17\",\"Statement\":[{}]}}", statements.collect::<Vec<_>>().join(","));
        match policy.chars().count() {
            0..=limits::AWS_SESSION_POLICY_CHARACTERS => Ok(policy),
            long => Err(format!(
                "the session policy of scopes {} has {long} characters, and AWS accepts {}; to mend it: ask for fewer scopes, or shorten \
                 their statements",
                scopes.join(" "),
                limits::AWS_SESSION_POLICY_CHARACTERS
            )),
        }
    }
}

/// The partition and the name of a role, by its ARN.
pub fn role_of(arn: &str) -> Option<(&str, &str)> {
    let rest = arn.strip_prefix("arn:")?;
    let (partition, rest) = rest.split_once(":iam::")?;
    let (account, path) = rest.split_once(":role/")?;
    let name = path.rsplit('/').next()?;
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@_-/".contains(&b));
    let good =
        plain(partition) && plain(path) && plain(name) && account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
    good.then_some((partition, name))
}

/// The region in which calls to IAM are signed.
pub fn iam_region(role: &str) -> &'static str {
    match role_of(role) {
        Some(("aws-cn", _)) => "cn-north-1",
        Some(("aws-us-gov", _)) => "us-gov-west-1",
        _ => "us-east-1",
    }
}

/// The usual URLs of STS and IAM.
fn usual_urls(role: &str, region: &str) -> (String, String) {
    match role_of(role) {
        Some(("aws-cn", _)) => {
            (format!("https://sts.{region}.amazonaws.com.cn/"), "https://iam.cn-north-1.amazonaws.com.cn/".to_owned())
        }
        Some(("aws-us-gov", _)) => {
            (format!("https://sts.{region}.amazonaws.com/"), "https://iam.us-gov.amazonaws.com/".to_owned())
        }
        _ => (format!("https://sts.{region}.amazonaws.com/"), "https://iam.amazonaws.com/".to_owned()),
    }
}

/// Reads the section.
pub fn read(section: &Section<'_>, around: &SettingsContext<'_>) -> Option<Value> {
    let role_field = section.required("role");
    let role = role_field.as_ref().and_then(arn);
    let region = section.required("region").and_then(|field| {
        let text = field.text(limits::NAME_BYTES)?;
        match text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            true => Some(text),
            false => field.wrong(format!("is {text:?}"), "a region, like eu-central-1"),
        }
    });
    let alg = match section.optional("alg") {
        Some(field) => field.one_of(&[("RS256", AssertionAlg::Rs256), ("ES256", AssertionAlg::Es256)]),
        None => Some(AssertionAlg::Rs256),
    };
    let audience = match section.optional("audience") {
        Some(field) => field.text(255),
        None => Some("sts.amazonaws.com".to_owned()),
    };
    let subject = match section.optional("subject") {
        Some(field) => subject(&field),
        None => Some(SubjectTemplate::caller()),
    };
    let consent = section.optional("irrevocable");
    let irrevocable = consent.as_ref().map_or(Some(false), Field::boolean);
    let administration = match section.optional("administration") {
        Some(field) => arn(&field).map(Some),
        None => Some(None),
    };
    let (sts, iam) = (url(section, "sts_url"), url(section, "iam_url"));
    let policies_field = section.required("policies");
    let policies = policies_field.as_ref().and_then(policies);
    if let (Some(false), Some(None), Some(field)) = (irrevocable, &administration, &role_field) {
        return field.wrong(
            "has sessions that nothing ends: there is neither aws.administration nor the consent aws.irrevocable",
            "name a role in aws.administration by which mayfly denies sessions, or set aws.irrevocable = true",
        );
    }
    check_around(around, role_field.as_ref(), policies_field.as_ref(), policies.as_deref())?;
    let (role, region) = (role?, region?);
    let (usual_sts, usual_iam) = usual_urls(&role, &region);
    let settings = AwsSettings {
        sts_url: sts?.unwrap_or(usual_sts),
        iam_url: iam?.unwrap_or(usual_iam),
        role,
        region,
        alg: alg?,
        audience: audience?,
        subject: subject?,
        irrevocable: irrevocable?,
        administration: administration?,
        policies: policies?,
    };
    for scope in around.scopes.unwrap_or_default() {
        if let (Err(no), Some(field)) = (settings.policy(std::slice::from_ref(&scope.name)), &policies_field) {
            return field.wrong(format!("is too long: {no}"), "shorter statements");
        }
    }
    serde_json::to_value(settings).ok()
}

/// Checks what depends on the rest of the registration.
fn check_around(
    around: &SettingsContext<'_>,
    role: Option<&Field<'_>>,
    field: Option<&Field<'_>>,
    policies: Option<&[ScopePolicy]>,
) -> Option<()> {
    if let (Some(ttl), Some(at)) = (around.ttl, role)
        && ttl.min < limits::AWS_LEAST_REST_S
    {
        let no = format!("cannot be issued for ttl.min, {} s: SDKs renew sessions that have less than 5 minutes left", ttl.min);
        return at.wrong(no, "ttl.min = \"5m\" or more");
    }
    for name in [around.environment, around.name].into_iter().flatten() {
        if let (true, Some(at)) = (name.contains('/'), role) {
            let no = format!("needs an issuer of its own for {name}, whose name has a slash");
            return at.wrong(no, "give upstream and environment names without slashes");
        }
    }
    let (Some(scopes), Some(policies), Some(field)) = (around.scopes, policies, field) else { return Some(()) };
    if let Some(policy) = policies.iter().find(|p| scopes.iter().all(|s| s.name != p.scope)) {
        return field.wrong(format!("has scope {:?}, which is not in scopes", policy.scope), "add it to scopes, or correct it");
    }
    if let Some(scope) = scopes.iter().find(|s| policies.iter().all(|p| p.scope != s.name)) {
        return field.wrong(format!("has nothing for scope {:?}", scope.name), "add an entry of it, or remove the scope");
    }
    Some(())
}

fn arn(field: &Field<'_>) -> Option<String> {
    let text = field.text(limits::AWS_ARN_BYTES)?;
    match role_of(&text) {
        Some(_) => Some(text),
        None => field.wrong(format!("is {text:?}"), "the ARN of a role, like arn:aws:iam::123456789012:role/reports"),
    }
}

fn url(section: &Section<'_>, key: &str) -> Option<Option<String>> {
    let Some(field) = section.optional(key) else { return Some(None) };
    let text = field.text(limits::NAME_BYTES)?;
    match WebUrl::parse(&text).filter(|url| url.path == "/") {
        Some(_) => Some(Some(text)),
        None => field.wrong(format!("is {text:?}"), "the https URL of an endpoint, without a path"),
    }
}

fn subject(field: &Field<'_>) -> Option<SubjectTemplate> {
    let text = field.text(limits::ASSERTION_NAME_BYTES)?;
    if text.starts_with(OWN_SUBJECTS) {
        return field.wrong(format!("is {text:?}, and mayfly's own subjects begin with {OWN_SUBJECTS}"), "another beginning");
    }
    SubjectTemplate::parse(&text).map_or_else(|(what, remedy)| field.wrong(what, remedy), Some)
}

fn policies(field: &Field<'_>) -> Option<Vec<ScopePolicy>> {
    let entries = field.list(limits::TASK_LIST)?;
    let all: Vec<Option<ScopePolicy>> = entries.iter().map(|entry| entry.inside(policy)).collect();
    all.into_iter().collect()
}

fn policy(section: &Section<'_>) -> Option<ScopePolicy> {
    let scope = section.required("scope").and_then(|f| f.text(limits::NAME_BYTES));
    let statement = section.required("statement").and_then(|field| {
        const REMEDY: &str =
            "one statement of a policy as JSON: an object with Effect, Action or NotAction, and Resource or NotResource";
        let text = field.text(limits::AWS_SESSION_POLICY_CHARACTERS)?;
        let Ok(object) = serde_json::from_str::<Map<String, Value>>(&text) else {
            return field.wrong("is no JSON object", REMEDY);
        };
        let has = |one: &str, other: &str| object.contains_key(one) != object.contains_key(other);
        let effect = object.get("Effect").and_then(Value::as_str);
        match matches!(effect, Some("Allow" | "Deny")) && has("Action", "NotAction") && has("Resource", "NotResource") {
            // Without white space, which counts for the limit.
            true => serde_json::to_string(&object).ok(),
            false => field.wrong("is no statement of a session policy", REMEDY),
        }
    });
    Some(ScopePolicy { scope: scope?, statement: statement? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::registration::{comes_back, each_is_told, parse};

    const WHOLE: &str = include_str!("template.toml");

    fn settings(text: &str) -> AwsSettings {
        serde_json::from_value(parse(text).unwrap().settings.of("aws").unwrap().clone()).unwrap()
    }

    #[test]
    fn the_section_comes_back_from_the_ledger_and_from_its_own_json() {
        let upstream = parse(WHOLE).unwrap();
        let own = settings(WHOLE);
        assert_eq!(
            (own.sts_url.as_str(), own.iam_url.as_str()),
            ("https://sts.eu-central-1.amazonaws.com/", "https://iam.amazonaws.com/")
        );
        comes_back(&upstream, WHOLE, "aws");
    }

    #[test]
    fn a_session_policy_has_the_statements_of_the_scopes_and_is_bounded() {
        let own = settings(WHOLE);
        let read: Value = serde_json::from_str(&own.policy(&["reports:read".to_owned()]).unwrap()).unwrap();
        assert_eq!(read["Statement"].as_array().unwrap().len(), 1);
        assert_eq!(read["Statement"][0]["Action"][0], "s3:GetObject");
        let none: Value = serde_json::from_str(&own.policy(&[]).unwrap()).unwrap();
        assert!(none["Statement"].as_array().unwrap().is_empty());
        let mut long = own;
        long.policies.iter_mut().for_each(|p| p.statement = format!("\"{}\"", "a".repeat(1_100)));
        assert!(long.policy(&["reports:read".to_owned()]).is_ok());
        let no = long.policy(&["reports:read".to_owned(), "reports:write".to_owned()]).unwrap_err();
        assert!(no.contains("AWS accepts 2048"), "{no}");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_key() {
        each_is_told(
            WHOLE,
            &[
                ("administration = ", "# ", "neither aws.administration nor the consent aws.irrevocable"),
                ("role/reports\"", "user/reports\"", "the ARN of a role"),
                ("region = \"eu-central-1\"", "region = \"EU\"", "aws.region"),
                ("subject = \"{caller}\"", "subject = \"mayfly:administration:x\"", "mayfly's own subjects"),
                ("min = \"5m\"", "min = \"4m\"", "less than 5 minutes"),
                ("scope = \"reports:write\"", "scope = \"reports:none\"", "which is not in scopes"),
                ("\"Effect\": \"Allow\"", "\"Effect\": \"Perhaps\"", "no statement of a session policy"),
                ("name = \"reports\"", "name = \"team/reports\"", "has a slash"),
            ],
        );
    }

    #[test]
    fn roles_are_told_by_their_arns() {
        assert_eq!(role_of("arn:aws:iam::123456789012:role/team/reports"), Some(("aws", "reports")));
        assert_eq!(iam_region("arn:aws-cn:iam::123456789012:role/x"), "cn-north-1");
        for wrong in ["arn:aws:iam::1:role/x", "arn:aws:iam::123456789012:user/x", "arn:aws:iam::123456789012:role/", "x"] {
            assert_eq!(role_of(wrong), None, "{wrong}");
        }
    }
}
