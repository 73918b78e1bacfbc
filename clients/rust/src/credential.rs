//! A credential with holders. It is released when the last holder drops it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::client::Inner;
use crate::error::Error;
use crate::pb::mayfly::v1 as pb;
use crate::pb::mayfly::v1::issued::Answer;
use crate::secret::Secret;
use crate::uses::Outcome;

/// An issued credential, independent of its holders.
pub(crate) struct ObtainedCredential {
    pub id: String,
    pub task: String,
    /// The task was opened for this credential alone and ends with it.
    pub own_task: bool,
    pub tool: String,
    pub headers: HeaderMap,
    pub token: Secret,
    pub base_url: String,
    pub expires_at: SystemTime,
    /// The lifetime by the server's clock, counted from the decision.
    pub life: Duration,
}

impl ObtainedCredential {
    /// Converts an answer that goes into a header.
    pub fn of(issued: pb::Issued, own_task: bool, tool: &str) -> Result<ObtainedCredential, Error> {
        let at = |t: Option<prost_types::Timestamp>| t.and_then(|t| SystemTime::try_from(t).ok()).unwrap_or(UNIX_EPOCH);
        let (expires_at, issued_at) = (at(issued.expires_at), at(issued.issued_at));
        let Some(Answer::BearerToken(bearer)) = issued.answer else {
            return Err(Error::fault("a credential of this kind is no token for a header: this client does not hand it out"));
        };
        let token = Secret::new(bearer.token);
        let text = match &*bearer.scheme {
            "" => token.expose().to_owned(),
            scheme => format!("{scheme} {}", token.expose()),
        };
        let text = zeroize::Zeroizing::new(text);
        let bad = |_| Error::fault("the server sent a header that is none");
        let name = HeaderName::from_bytes(bearer.header_name.as_bytes()).map_err(|_| Error::fault("a header without a name"))?;
        let mut value = HeaderValue::from_str(&text).map_err(bad)?;
        // Marked as sensitive, so that the value stays out of request logs and of header compression tables.
        value.set_sensitive(true);
        Ok(ObtainedCredential {
            id: issued.credential_id,
            task: issued.task_id,
            own_task,
            tool: tool.to_owned(),
            headers: HeaderMap::from_iter([(name, value)]),
            token,
            base_url: bearer.base_url,
            expires_at,
            life: expires_at.duration_since(issued_at).unwrap_or_default(),
        })
    }
}

/// A credential in use. Dropping it releases it in the background; [`release`](Credential::release) waits for the release.
#[must_use = "a credential that is dropped is given back"]
pub struct Credential {
    pub(crate) live: Arc<ObtainedCredential>,
    pub(crate) inner: Arc<Inner>,
    /// The cache key of a shared credential; `None` for one that is not shared.
    pub(crate) shared: Option<[u8; 32]>,
    pub(crate) given_back: bool,
}

impl Credential {
    /// The headers to send. Their values are marked as sensitive.
    pub fn headers(&self) -> HeaderMap {
        self.live.headers.clone()
    }

    /// The token itself.
    pub fn token(&self) -> &Secret {
        &self.live.token
    }

    /// The base URL of the upstream. Send the credential nowhere else.
    pub fn base_url(&self) -> &str {
        &self.live.base_url
    }

    /// When the credential expires.
    pub fn expires_at(&self) -> SystemTime {
        self.live.expires_at
    }

    /// The credential's id. An id is not a secret.
    pub fn credential_id(&self) -> &str {
        &self.live.id
    }

    /// The credential's task.
    pub fn task_id(&self) -> &str {
        &self.live.task
    }

    /// Reports the outcome of a use: an HTTP status or an [`Outcome`]. The report is sent in the background.
    pub fn used(&self, outcome: impl Into<Outcome>) {
        self.inner.uses().add(&self.live.id, &self.live.tool, outcome.into());
    }

    /// Releases the credential now and waits until mayfly has ended it. A shared credential is kept for other users in this process
    /// instead. Dropping the future does not stop the release.
    pub async fn release(mut self) -> Result<(), Error> {
        self.given_back = true;
        let inner = self.inner.clone();
        match self.shared {
            Some(key) => {
                inner.leave(key, &self.live);
                Ok(())
            }
            None => inner.give_back(self.live.clone()).await,
        }
    }
}

impl Drop for Credential {
    fn drop(&mut self) {
        if self.given_back {
            return;
        }
        match self.shared {
            Some(key) => self.inner.leave(key, &self.live),
            None => self.inner.give_back_later(self.live.clone()),
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Credential");
        out.field("credential_id", &self.live.id).field("task_id", &self.live.task).field("base_url", &self.live.base_url);
        out.field("token", &self.live.token).finish()
    }
}
