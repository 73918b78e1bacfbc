//! Sources of static secrets: the secret is read where it is kept at each grant, handed out, and forgotten.
//!
//! - [`settings`]: the section `[secret.source]`. `openbao`: KV engines of OpenBao and Vault. `aws`: AWS Secrets Manager. A file is read by
//!   [`UpstreamAccess::static_secret`].
//! - [`note`]: what a lease keeps so that mayfly can tell whether a secret was replaced at its source.
//!
//! mayfly logs in at a source by an assertion of the upstream's own issuer, with the subject `mayfly:secret:NAME` and the claim `target`.
//! So the owner of the source decides which upstream reads which secret, and for which target: a registration cannot name a secret of
//! somebody else's and get it.

#[cfg(feature = "aws")]
mod aws;
mod json_text;
pub mod note;
mod openbao;
pub mod settings;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use self::settings::SecretSource;
use crate::access::UpstreamAccess;
use crate::assertion::{AssertionClaims, AssertionIssuers};
use crate::connector::MakeError;
use mayfly_base::limits;

/// A source with what reading it needs, as it is in the terms of a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceTerms {
    /// The environment of the upstream.
    pub environment: String,
    /// The target of the registration: what the secret is for.
    pub target: String,
    /// The source.
    pub source: SecretSource,
}

/// Why a secret was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The source has no such secret.
    #[error("{0}")]
    Missing(String),
    /// The source refused, or something is configured wrongly.
    #[error("{0}")]
    Refused(String),
    /// The source gave no usable answer.
    #[error("{0}")]
    Unanswered(String),
}

impl From<SourceError> for MakeError {
    fn from(error: SourceError) -> MakeError {
        match error {
            SourceError::Missing(why) | SourceError::Refused(why) => MakeError::NotReleased(why),
            // Reading makes nothing, but the source counts as one that does not answer.
            SourceError::Unanswered(why) => MakeError::Unknown(why),
        }
    }
}

impl From<MakeError> for SourceError {
    fn from(error: MakeError) -> SourceError {
        match error {
            MakeError::NotReleased(why) | MakeError::Refused(why) => SourceError::Refused(why),
            MakeError::Unknown(why) | MakeError::Busy(why) => SourceError::Unanswered(why),
        }
    }
}

/// Reads secrets at their sources.
pub struct SourceReader<'a> {
    /// Connections and files.
    pub access: &'a UpstreamAccess,
    /// The issuers of assertions, once the server has them.
    pub issuers: Option<&'a AssertionIssuers>,
}

impl SourceReader<'_> {
    /// Reads the secret of an upstream.
    pub async fn read(&self, upstream: &str, terms: &SourceTerms) -> Result<Zeroizing<Vec<u8>>, SourceError> {
        let value = match &terms.source {
            SecretSource::File => {
                let (access, name, target) = (self.access.clone(), upstream.to_owned(), terms.target.clone());
                let read = tokio::task::spawn_blocking(move || access.static_secret(&name, &target)).await;
                read.map_err(|e| e.to_string()).and_then(|read| read.map_err(|e| e.to_string())).map_err(SourceError::Refused)
            }
            SecretSource::Openbao(kv) => openbao::read(self, upstream, terms, kv).await,
            #[cfg(feature = "aws")]
            SecretSource::AwsSecretsManager(source) => aws::read(self, upstream, terms, source).await,
            #[cfg(not(feature = "aws"))]
            SecretSource::AwsSecretsManager(_) => {
                Err(SourceError::Refused("this build has no code for AWS Secrets Manager".to_owned()))
            }
        }?;
        let told = || terms.source.told();
        match value.len() {
            0 => Err(SourceError::Missing(format!("the secret is empty: {}", told()))),
            1..=limits::STATIC_SECRET_BYTES => Ok(value),
            long => Err(SourceError::Refused(format!(
                "the secret has {long} bytes, and at most {} are handed out: {}",
                limits::STATIC_SECRET_BYTES,
                told()
            ))),
        }
    }

    /// An assertion by which mayfly logs in at a source.
    fn assertion(&self, upstream: &str, terms: &SourceTerms, audience: &str, algorithm: &str) -> Result<Assertion, SourceError> {
        let make = || -> Result<Assertion, String> {
            let issuer = self.issuers.ok_or("this server has no issuers for assertions")?.of(&terms.environment, upstream)?;
            let key = issuer.active(algorithm)?;
            let now = self.access.system().wall();
            let claims = AssertionClaims {
                subject: &format!("{SUBJECTS}{upstream}"),
                audience,
                issued_at: now.seconds(),
                expires_at: now.plus(limits::SECRET_SOURCE_ASSERTION_MS).seconds(),
                id: &data_encoding::HEXLOWER.encode(&self.access.system().random16()),
                more: &[("target", terms.target.as_str().into())],
            };
            let text = issuer.sign(&key, &claims).map_err(|e| e.to_string())?.into_text();
            Ok(Assertion { text: Zeroizing::new(text), issuer: issuer.url.clone() })
        };
        make().map_err(SourceError::Refused)
    }
}

/// The beginning of the subjects of these assertions.
const SUBJECTS: &str = "mayfly:secret:";

/// An assertion, and the URL of its issuer.
struct Assertion {
    text: Zeroizing<String>,
    issuer: String,
}
