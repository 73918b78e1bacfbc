//! The section `[secret.source]` of a registration.

use serde::{Deserialize, Serialize};

use mayfly_base::document::url::WebUrl;
use mayfly_base::document::{Field, Section};
use mayfly_base::limits;

use crate::keyring::{ES256, RS256};

/// Where a secret is read from at each grant. mayfly keeps no copy of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case", deny_unknown_fields)]
pub enum SecretSource {
    /// The upstream's file in `upstreams.secrets_dir`, or the file that it names.
    File,
    /// A KV engine of OpenBao or Vault.
    Openbao(KvSource),
    /// AWS Secrets Manager.
    AwsSecretsManager(AwsSecretSource),
}

/// A secret of a KV engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KvSource {
    /// The URL of the server, without a path.
    pub url: String,
    /// The namespace, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The path of the engine.
    pub mount: String,
    /// The version of the engine: 1 or 2.
    pub engine: u64,
    /// The path of the secret in the engine.
    pub path: String,
    /// The key of the secret's data.
    pub field: String,
    /// The path of the JWT login.
    pub login: String,
    /// The role of the login.
    pub role: String,
    /// `aud` of the assertion.
    pub audience: String,
    /// The signature algorithm of the assertion.
    pub alg: String,
}

/// A secret of AWS Secrets Manager.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AwsSecretSource {
    /// The ARN of the secret.
    pub secret: String,
    /// The key of the secret's JSON. Without it, the whole text is the secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The ARN of the role by which mayfly reads the secret.
    pub role: String,
    /// `aud` of the assertion.
    pub audience: String,
    /// The URL of STS.
    pub sts_url: String,
    /// The URL of Secrets Manager.
    pub url: String,
}

impl SecretSource {
    /// The algorithm of the assertions by which mayfly logs in there. `None`: it needs none.
    pub fn algorithm(&self) -> Option<&'static str> {
        match self {
            SecretSource::File => None,
            SecretSource::Openbao(kv) => Some(if kv.alg == RS256 { RS256 } else { ES256 }),
            SecretSource::AwsSecretsManager(_) => Some(RS256),
        }
    }

    /// The source in words, without the name of the upstream.
    pub fn told(&self) -> String {
        match self {
            SecretSource::File => "a file in upstreams.secrets_dir".to_owned(),
            SecretSource::Openbao(kv) => format!("{} of {}/{} at {}", kv.field, kv.mount, kv.path, kv.url),
            SecretSource::AwsSecretsManager(aws) => match &aws.field {
                Some(field) => format!("{field} of {}", aws.secret),
                None => aws.secret.clone(),
            },
        }
    }
}

/// Reads the section. The name of the section's own kind is `from`.
pub fn read(section: &Section<'_>) -> Option<SecretSource> {
    let from = section.required("from")?;
    let choices = [("file", 0_u8), ("openbao", 1), ("vault", 1), ("aws_secrets_manager", 2)];
    match from.one_of(&choices)? {
        0 => Some(SecretSource::File),
        1 => kv(section).map(SecretSource::Openbao),
        _ if !cfg!(feature = "aws") => {
            from.wrong("is aws_secrets_manager, which this build has no code for", "a build with the feature aws")
        }
        _ => aws(section).map(SecretSource::AwsSecretsManager),
    }
}

fn kv(section: &Section<'_>) -> Option<KvSource> {
    let url = section.required("url").and_then(|f| endpoint(&f));
    let namespace = optional(section, "namespace", path);
    let mount = with_default(section, "mount", "secret", path);
    let engine = match section.optional("engine") {
        Some(field) => field.integer(1, 2),
        None => Some(2),
    };
    let of = section.required("path").and_then(|f| path(&f));
    let field = with_default(section, "field", "value", word);
    let login = with_default(section, "login", "jwt", path);
    let role = section.required("role").and_then(|f| word(&f));
    let audience = optional(section, "audience", |f| f.text(limits::ASSERTION_NAME_BYTES));
    let alg = match section.optional("alg") {
        Some(field) => field.one_of(&[(ES256, ES256), (RS256, RS256)]),
        None => Some(ES256),
    };
    let url = url?;
    Some(KvSource {
        audience: audience?.unwrap_or_else(|| url.trim_end_matches('/').to_owned()),
        url: url.trim_end_matches('/').to_owned(),
        namespace: namespace?,
        mount: mount?,
        engine: engine?,
        path: of?,
        field: field?,
        login: login?,
        role: role?,
        alg: alg?.to_owned(),
    })
}

fn aws(section: &Section<'_>) -> Option<AwsSecretSource> {
    let secret_field = section.required("secret");
    let parts = secret_field.as_ref().and_then(|field| {
        let arn = field.text(limits::AWS_ARN_BYTES)?;
        match arn_parts(&arn) {
            Some((partition, region)) => Some((partition.to_owned(), region.to_owned(), arn.clone())),
            None => field.wrong(
                format!("is {arn:?}"),
                "the ARN of a secret, like arn:aws:secretsmanager:eu-central-1:123456789012:secret:sentry-AbCdEf",
            ),
        }
    });
    let field = optional(section, "field", word);
    let role = section.required("role").and_then(|field| {
        let arn = field.text(limits::AWS_ARN_BYTES)?;
        match arn.split(':').collect::<Vec<_>>()[..] {
            ["arn", _, "iam", "", account, role] if account.len() == 12 && role.starts_with("role/") => Some(arn.clone()),
            _ => field.wrong(format!("is {arn:?}"), "the ARN of a role, like arn:aws:iam::123456789012:role/mayfly-reads-sentry"),
        }
    });
    let audience = with_default(section, "audience", "sts.amazonaws.com", |f| f.text(limits::ASSERTION_NAME_BYTES));
    let (sts, url) = (optional(section, "sts_url", endpoint), optional(section, "url", endpoint));
    let (partition, region, secret) = parts?;
    let domain = if partition == "aws-cn" { "amazonaws.com.cn" } else { "amazonaws.com" };
    Some(AwsSecretSource {
        secret,
        field: field?,
        role: role?,
        audience: audience?,
        sts_url: sts?.unwrap_or_else(|| format!("https://sts.{region}.{domain}/")),
        url: url?.unwrap_or_else(|| format!("https://secretsmanager.{region}.{domain}/")),
    })
}

/// The partition and the region of a secret, by its ARN.
pub fn arn_parts(arn: &str) -> Option<(&str, &str)> {
    let parts: Vec<&str> = arn.split(':').collect();
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    match parts[..] {
        ["arn", partition, "secretsmanager", region, account, "secret", name]
            if plain(partition)
                && plain(region)
                && account.len() == 12
                && account.bytes().all(|b| b.is_ascii_digit())
                && !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_+=.@-".contains(&b)) =>
        {
            Some((partition, region))
        }
        _ => None,
    }
}

fn optional<T>(section: &Section<'_>, key: &str, read: impl Fn(&Field<'_>) -> Option<T>) -> Option<Option<T>> {
    match section.optional(key) {
        Some(field) => read(&field).map(Some),
        None => Some(None),
    }
}

fn with_default(section: &Section<'_>, key: &str, usual: &str, read: impl Fn(&Field<'_>) -> Option<String>) -> Option<String> {
    optional(section, key, read).map(|found| found.unwrap_or_else(|| usual.to_owned()))
}

/// The URL of a server, without a path.
fn endpoint(field: &Field<'_>) -> Option<String> {
    let text = field.text(limits::NAME_BYTES)?;
    match WebUrl::parse(&text).filter(|url| url.path == "/") {
        Some(_) => Some(text),
        None => {
            field.wrong(format!("is {text:?}"), "the https URL of a server, without a path, like https://bao.example.org:8200")
        }
    }
}

/// A path whose parts need no escapes in a URL, and none of which is `.` or `..`.
fn path(field: &Field<'_>) -> Option<String> {
    let text = field.text(limits::NAME_BYTES)?;
    let part = |p: &str| !matches!(p, "" | "." | "..") && p.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~@".contains(&b));
    match text.split('/').all(part) {
        true => Some(text),
        false => field.wrong(
            format!("is {text:?}"),
            "a path like ci/sentry: letters, digits and - . _ ~ @ between slashes, no slash at its ends, no part that is . or ..",
        ),
    }
}

/// A name of visible ASCII.
fn word(field: &Field<'_>) -> Option<String> {
    let text = field.text(limits::NAME_BYTES)?;
    match text.bytes().all(|b| b.is_ascii_graphic()) {
        true => Some(text),
        false => field.wrong(format!("is {text:?}"), "a name of visible ASCII characters without spaces"),
    }
}
