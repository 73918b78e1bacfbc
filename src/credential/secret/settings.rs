//! The section `[secret]` of a registration.
//!
//! The section is kept in the ledger as JSON of the same shape. What undoing and repeats need of it is written into the terms of each lease.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::source::SourceTerms;
use super::source::settings::{self as source, SecretSource};
use mayfly_base::document::quantity::duration_text;
use mayfly_base::document::{Field, Section};
use mayfly_base::limits;
use mayfly_ledger::upstream::settings::SettingsContext;

/// Who gets the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretRelease {
    /// Whoever gets a grant.
    Grant,
    /// Nobody. It is kept for a broker, which uses it without handing it out.
    Never,
}

/// What a revocation does to the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretOnRevoke {
    /// The version that was handed out is to be rotated, and the lease stays open until it is over.
    Rotate,
    /// Nothing: the holder keeps what it was given until the next rotation.
    Nothing,
}

/// The section, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretSettings {
    /// Who gets the secret.
    pub release: SecretRelease,
    /// The registration consents to handing out what cannot be revoked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_be_irrevocable: bool,
    /// What a revocation does.
    pub on_revoke: SecretOnRevoke,
    /// The header that carries the secret. Without it, the secret is handed out by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// The scheme before the secret in the header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// The environment variable that programs read the secret from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variable: Option<String>,
    /// How long a version that was rotated away stays valid, as a duration. Empty for a secret that is read at its source.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub overlap: String,
    /// Where the secret is read from at each grant. Without it, mayfly keeps the secret, sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SecretSource>,
}

/// The terms of a lease: the version that was handed out, and what undoing and repeats need of the registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretTerms {
    /// The version that is handed out; 0 for a secret that is read at its source.
    #[serde(default)]
    pub version: u64,
    /// Where the secret is read from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceTerms>,
    /// As [`SecretSettings::on_revoke`].
    pub on_revoke: SecretOnRevoke,
    /// When the credential expires, milliseconds.
    pub expires_at: u64,
    /// The secret is handed out in a break-glass task: the version is rotated however the credential ends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub break_glass: bool,
    /// As [`SecretSettings::header`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// As [`SecretSettings::scheme`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
}

impl SecretTerms {
    /// Whether an end of the credential may ask for another secret at the vendor.
    pub fn asks_for_replacement(&self) -> bool {
        self.on_revoke == SecretOnRevoke::Rotate || self.break_glass
    }
}

/// Reads the section.
pub fn read(section: &Section<'_>, around: &SettingsContext<'_>) -> Option<Value> {
    let field = section.required("release");
    let release = field.as_ref().and_then(|f| f.one_of(&[("grant", SecretRelease::Grant), ("never", SecretRelease::Never)]));
    let consent_field = section.optional("may_be_irrevocable");
    let consent = consent_field.as_ref().map_or(Some(false), Field::boolean);
    let on_revoke = match section.optional("on_revoke") {
        Some(field) => field.one_of(&[("rotate", SecretOnRevoke::Rotate), ("nothing", SecretOnRevoke::Nothing)]),
        None => Some(SecretOnRevoke::Rotate),
    };
    let header = optional(section, "header", header_name);
    let scheme_field = section.optional("scheme");
    let scheme = match &scheme_field {
        Some(field) => scheme_name(field).map(Some),
        None => Some(None),
    };
    let variable = optional(section, "variable", variable_name);
    let (source_field, overlap_field) = (section.optional("source"), section.optional("overlap"));
    let overlap = match &overlap_field {
        Some(field) => field.duration(0, limits::SECRET_OVERLAP_MOST_MS),
        None => Some(limits::SECRET_OVERLAP_MS),
    };
    let source = match &source_field {
        Some(field) => field.inside(source::read).map(Some),
        None => Some(None),
    };
    if let (Some(_), Some(at)) = (&source_field, &overlap_field) {
        return at.wrong(
            "is given for a secret that mayfly reads at its source, which mayfly does not rotate",
            "leave it out: whoever rotates the secret at its source decides how long the one before stays valid",
        );
    }
    if let (Some(at), Some(name)) =
        (&source_field, [around.environment, around.name].into_iter().flatten().find(|n| n.contains('/')))
    {
        let no = format!("needs a file or an issuer of its own for {name}, whose name has a slash");
        return at.wrong(no, "give upstream and environment names without slashes");
    }
    let field = field?;
    if release == Some(SecretRelease::Grant) && consent == Some(false) {
        let at = consent_field.as_ref().unwrap_or(&field);
        return at.wrong(
            "hands out a secret that stays valid until it is rotated, whatever is revoked here",
            "consent to it with may_be_irrevocable = true, or keep the secret for a broker with release = \"never\"",
        );
    }
    if let (Some(at), Some(None)) = (&scheme_field, &header) {
        return at.wrong("is given without a header", "name the header, or leave the scheme out");
    }
    if around.rotation == Some(None) {
        return field.wrong(
            "is for a stored secret, and the registration does not say how often it is rotated",
            "add a line like rotation = \"90d\" above the sections",
        );
    }
    let settings = SecretSettings {
        release: release?,
        may_be_irrevocable: consent?,
        on_revoke: on_revoke?,
        header: header?,
        scheme: scheme?.filter(|scheme| !scheme.is_empty()),
        variable: variable?,
        overlap: if source_field.is_some() { String::new() } else { duration_text(overlap?) },
        source: source?,
    };
    serde_json::to_value(settings).ok()
}

fn optional(section: &Section<'_>, key: &str, read: impl Fn(&Field<'_>) -> Option<String>) -> Option<Option<String>> {
    match section.optional(key) {
        Some(field) => read(&field).map(Some),
        None => Some(None),
    }
}

/// Headers that belong to the connection or the request itself, where a secret would be sent to the wrong place or break the request.
const RESERVED: [&str; 8] =
    ["host", "content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade", "content-type"];

/// The name of a header in lower case.
fn header_name(field: &Field<'_>) -> Option<String> {
    let text = field.text(limits::NAME_BYTES)?.to_ascii_lowercase();
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    match text.bytes().all(token) && !RESERVED.contains(&text.as_str()) {
        true => Some(text),
        false => {
            field.wrong(format!("is {text:?}"), "the name of a header that carries a credential, like authorization or x-api-key")
        }
    }
}

/// A scheme of RFC 9110, section 11.1.
fn scheme_name(field: &Field<'_>) -> Option<String> {
    // The reader reports an empty text, which here says that there is no scheme.
    let text = field.text(limits::NAME_BYTES)?;
    match text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+".contains(&b)) {
        true => Some(text),
        false => {
            field.wrong(format!("is {text:?}"), "a scheme without spaces, like Bearer or Token; leave it out if there is none")
        }
    }
}

/// Variables that change which program runs or what it loads: a registration must not set them in a workload's environment.
fn is_dangerous(variable: &str) -> bool {
    const NAMES: [&str; 10] =
        ["PATH", "HOME", "SHELL", "IFS", "ENV", "BASH_ENV", "PYTHONPATH", "PYTHONSTARTUP", "NODE_OPTIONS", "PERL5OPT"];
    NAMES.contains(&variable)
        || ["LD_", "DYLD_", "MAYFLY_", "GIT_", "RUBYOPT", "JAVA_TOOL"].iter().any(|p| variable.starts_with(p))
}

/// The name of an environment variable.
fn variable_name(field: &Field<'_>) -> Option<String> {
    let text = field.text(limits::NAME_BYTES)?;
    let plain = text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    match plain && !text.starts_with(|c: char| c.is_ascii_digit()) && !is_dangerous(&text) {
        true => Some(text),
        false => field.wrong(
            format!("is {text:?}"),
            "a variable in upper case that holds a credential, like SENTRY_AUTH_TOKEN, and none that a shell or a loader reads",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::registration::{comes_back, each_is_told, parse};
    use mayfly_ledger::upstream::registry::Upstream;

    const WHOLE: &str = include_str!("template.toml");

    #[test]
    fn the_section_comes_back_from_the_ledger_and_from_its_own_json() {
        let upstream = parse(WHOLE).unwrap();
        let section = upstream.settings.of("secret").unwrap();
        let settings: SecretSettings = serde_json::from_value(section.clone()).unwrap();
        assert_eq!((settings.release, settings.header.as_deref()), (SecretRelease::Grant, Some("authorization")));
        assert_eq!(upstream.rotation, Some(90 * 86_400));
        comes_back(&upstream, WHOLE, "secret");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_key() {
        each_is_told(
            WHOLE,
            &[
                ("release = \"grant\"", "", "lacks secret.release"),
                ("release = \"grant\"", "release = \"always\"", "secret.release"),
                ("may_be_irrevocable = true", "", "may_be_irrevocable = true"),
                ("may_be_irrevocable = true", "may_be_irrevocable = false", "stays valid until it is rotated"),
                ("on_revoke = \"rotate\"", "on_revoke = \"drop\"", "secret.on_revoke"),
                ("rotation = \"90d\"", "", "how often it is rotated"),
                ("header = \"authorization\"", "", "without a header"),
                ("header = \"authorization\"", "header = \"content-length\"", "secret.header"),
                ("header = \"authorization\"", "header = \"x key\"", "secret.header"),
                ("scheme = \"Bearer\"", "scheme = \"Bearer x\"", "secret.scheme"),
                ("SENTRY_AUTH_TOKEN", "LD_PRELOAD", "secret.variable"),
                ("SENTRY_AUTH_TOKEN", "sentry", "secret.variable"),
                ("overlap = \"1h\"", "overlap = \"1y\"", "secret.overlap"),
                ("kinds = [\"secret\"]", "kinds = [\"jwt\"]", "secret is for kind secret"),
            ],
        );
        let kept = WHOLE.replace("release = \"grant\"", "release = \"never\"").replace("may_be_irrevocable = true", "");
        assert!(parse(&kept).is_ok());
    }

    const KV: &str =
        "from = \"openbao\"\nurl = \"https://bao.example.org:8200\"\npath = \"ci/sentry\"\nfield = \"token\"\nrole = \"mayfly\"";
    const AWS: &str = "from = \"aws_secrets_manager\"\n\
        secret = \"arn:aws:secretsmanager:eu-central-1:123456789012:secret:ci/sentry-AbCdEf\"\n\
        role = \"arn:aws:iam::123456789012:role/mayfly-reads-sentry\"\nfield = \"token\"";

    fn with_source(source: &str) -> String {
        format!("{}\n[secret.source]\n{source}\n", WHOLE.replace("overlap = \"1h\"", ""))
    }

    #[test]
    fn each_source_comes_back_from_the_ledger_and_from_its_own_json() {
        for (source, told) in [
            ("from = \"file\"", "a file in upstreams.secrets_dir"),
            (KV, "token of secret/ci/sentry at https://bao.example.org:8200"),
            (AWS, "token of arn:aws:secretsmanager:eu-central-1:123456789012:secret:ci/sentry-AbCdEf"),
        ] {
            let upstream = parse(&with_source(source)).unwrap();
            assert_eq!(Upstream::from_text(&upstream.to_text()).unwrap(), upstream);
            let section = upstream.settings.of("secret").unwrap();
            let settings: SecretSettings = serde_json::from_value(section.clone()).unwrap();
            assert_eq!(settings.source.unwrap().told(), told);
            let mut table: toml::Table = toml::from_str(WHOLE).unwrap();
            table.insert("secret".to_owned(), toml::Value::try_from(section).unwrap());
            assert_eq!(parse(&toml::to_string(&table).unwrap()).unwrap(), upstream);
        }
    }

    #[test]
    fn what_is_wrong_about_a_source_is_told_with_its_key() {
        for (source, from, to, said) in [
            (KV, "openbao", "etcd", "secret.source.from"),
            (KV, "https://bao.example.org:8200", "https://bao.example.org/v1", "secret.source.url"),
            (KV, "https://bao.example.org:8200", "http://bao.example.org", "secret.source.url"),
            (KV, "ci/sentry", "ci/../sentry", "secret.source.path"),
            (KV, "ci/sentry", "/ci", "secret.source.path"),
            (KV, "ci/sentry", "ci/sentry?version=1", "secret.source.path"),
            (KV, "role = \"mayfly\"", "", "secret.source.role"),
            (KV, "role = \"mayfly\"", "role = \"mayfly\"\nengine = 3", "secret.source.engine"),
            (KV, "role = \"mayfly\"", "role = \"mayfly\"\ntoken = \"x\"", "secret.source.token"),
            (AWS, "secretsmanager", "ssm", "secret.source.secret"),
            (AWS, ":role/", ":user/", "secret.source.role"),
            ("from = \"file\"", "\"file\"", "\"file\"\npath = \"/etc/shadow\"", "secret.source.path"),
        ] {
            assert!(source.contains(from), "{from}");
            let no = parse(&with_source(&source.replacen(from, to, 1))).unwrap_err();
            assert!(no.contains(said), "{said} is not in: {no}");
        }
        let no = parse(&format!("{WHOLE}\n[secret.source]\nfrom = \"file\"\n")).unwrap_err();
        assert!(no.contains("secret.overlap") && no.contains("reads at its source"), "{no}");
        let no = parse(&with_source("from = \"file\"").replace("name = \"sentry\"", "name = \"web/sentry\"")).unwrap_err();
        assert!(no.contains("has a slash"), "{no}");
    }
}
