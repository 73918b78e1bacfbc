//! AWS Secrets Manager: a session of a role by assertion, and one GetSecretValue with it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::json_text::text_at;
use super::settings::{AwsSecretSource, arn_parts};
use super::{SourceError, SourceReader, SourceTerms};
use crate::access::https::UpstreamResponse;
use crate::aws::sigv4::{SigningScope, signed_json};
use crate::aws::sts::{SessionOrder, assume};
use crate::keyring::RS256;
use mayfly_base::limits;

#[derive(Deserialize)]
struct Problem {
    #[serde(rename = "__type", default)]
    kind: String,
    #[serde(alias = "Message", default)]
    message: String,
}

/// Reads a secret.
pub(super) async fn read(
    reader: &SourceReader<'_>,
    upstream: &str,
    terms: &SourceTerms,
    source: &AwsSecretSource,
) -> Result<Zeroizing<Vec<u8>>, SourceError> {
    let assertion = reader.assertion(upstream, terms, &source.audience, RS256)?;
    let client = reader.access.https(upstream, None).await.map_err(|e| SourceError::Unanswered(e.to_string()))?;
    let client = client.at_most(limits::SECRET_SOURCE_ANSWER_BYTES);
    let session = SessionOrder {
        role: &source.role,
        name: "mayfly-secret",
        seconds: limits::AWS_SESSION_LEAST_S,
        policy: None,
        assertion: &assertion.text,
        issuer: &assertion.issuer,
    };
    let keys = assume(&client, &source.sts_url, &session).await?;
    let (_, region) =
        arn_parts(&source.secret).ok_or_else(|| SourceError::Refused(format!("{} is no ARN of a secret", source.secret)))?;
    let scope = SigningScope { region, service: "secretsmanager", now_s: reader.access.system().wall().seconds() };
    let body = serde_json::json!({ "SecretId": source.secret }).to_string();
    let request =
        signed_json(&source.url, "secretsmanager.GetSecretValue", &body, &keys, &scope).map_err(SourceError::Refused)?;
    let answer = client.call(request).await.map_err(|e| SourceError::Unanswered(e.to_string()))?;
    if !answer.status.is_success() {
        return Err(problem(&answer, source));
    }
    let of = |what: &str| format!("reading {}: {what}", source.secret);
    let part = |name: &str| text_at(answer.body(), &[name]).map_err(|what| SourceError::Unanswered(of(what)));
    let whole = match (part("SecretString")?, part("SecretBinary")?) {
        (Some(text), _) => Zeroizing::new(text.as_bytes().to_vec()),
        (None, Some(binary)) => {
            let bytes = STANDARD.decode(binary.as_bytes());
            Zeroizing::new(bytes.map_err(|_| SourceError::Unanswered(of("SecretBinary is no base64")))?)
        }
        (None, None) => return Err(SourceError::Missing(of("it has no value"))),
    };
    let Some(field) = &source.field else { return Ok(whole) };
    let found = text_at(&whole, &[field]).map_err(|no| SourceError::Refused(of(&format!("field {field}: {no}"))))?;
    let found = found.ok_or_else(|| SourceError::Missing(of(&format!("it has no field {field}"))))?;
    Ok(Zeroizing::new(found.as_bytes().to_vec()))
}

fn problem(answer: &UpstreamResponse, source: &AwsSecretSource) -> SourceError {
    let said = answer.json::<Problem>().map(|p| format!("{} {}", p.kind.rsplit('#').next().unwrap_or_default(), p.message));
    let said = said.unwrap_or_default();
    let no = format!("reading {}: status {} {}", source.secret, answer.status.as_u16(), answer.told(said.trim()));
    match () {
        () if said.starts_with("ResourceNotFoundException") => SourceError::Missing(no),
        () if answer.status.is_server_error() || said.starts_with("ThrottlingException") => SourceError::Unanswered(no),
        () => SourceError::Refused(format!(
            "{no}; to mend it: {} has to be allowed secretsmanager:GetSecretValue for this secret, and kms:Decrypt for its key",
            source.role
        )),
    }
}
