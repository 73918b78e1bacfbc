//! A builder for credential requests.

use std::time::Duration;

use mayfly_verify::arguments;
use mayfly_verify::identity::sha256;
use prost::Message as _;
use serde::Serialize;

use crate::client::Mayfly;
use crate::credential::Credential;
use crate::error::Error;
use crate::json_floats;
use crate::pb::mayfly::v1 as pb;
use crate::pb::mayfly::v1::exchange_request::Task;
use crate::secret::Secret;

/// The lifetime of a credential without a requested one: the server's default. A task that is opened for the credential lives as long.
const TTL: Duration = Duration::from_secs(300);

/// A request for a credential. [`get`](CredentialRequest::get) sends it.
#[must_use = "nothing is asked until get() is awaited"]
#[derive(Clone)]
pub struct CredentialRequest {
    mayfly: Mayfly,
    ask: pb::ExchangeRequest,
    own_task: bool,
    require_task: bool,
    wrong: Option<String>,
}

/// SHA-256 of a call's arguments in RFC 8785 form. A credential that was approved for these arguments names this digest.
///
/// Arguments that another reader could read differently are refused: a number that a double cannot hold, or NaN.
pub fn arguments_sha256<T: Serialize>(arguments: &T) -> Result<[u8; 32], Error> {
    arguments_sha256_of_json(&written(arguments)?)
}

/// The same for arguments as JSON text, as received. This also refuses what parsing would hide: a duplicate name in an object, and a number
/// with more digits than a double holds.
pub fn arguments_sha256_of_json(text: &str) -> Result<[u8; 32], Error> {
    arguments::digest_of_json(text).map_err(|e| Error::Settings(format!("arguments: {e}")))
}

/// The arguments as JSON.
fn written<T: Serialize>(arguments: &T) -> Result<String, Error> {
    // serde_json writes NaN as null, which is a different argument.
    json_floats::check(arguments).map_err(|e| Error::Settings(format!("arguments: {e}")))?;
    let text = serde_json::to_string(arguments).map_err(|e| Error::Settings(format!("arguments: {e}")))?;
    arguments::parse(&text).map_err(|e| Error::Settings(format!("arguments: {e}")))?;
    Ok(text)
}

impl CredentialRequest {
    pub(crate) fn new(mayfly: Mayfly, upstream: &str) -> CredentialRequest {
        let ask = pb::ExchangeRequest { upstream: upstream.to_owned(), ..Default::default() };
        CredentialRequest { mayfly, ask, own_task: false, require_task: false, wrong: None }
    }

    /// Adds a scope.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.ask.scopes.push(scope.into());
        self
    }

    /// Adds several scopes.
    pub fn scopes<S: Into<String>>(mut self, scopes: impl IntoIterator<Item = S>) -> Self {
        self.ask.scopes.extend(scopes.into_iter().map(Into::into));
        self
    }

    /// Sets the tool that the credential is for.
    pub fn tool(mut self, tool: impl Into<String>) -> Self {
        self.ask.tool = tool.into();
        self
    }

    /// Sets the arguments of the call that the credential is for, as JSON. Such a credential is valid for that call only and is not shared.
    pub fn arguments<T: Serialize>(mut self, arguments: &T) -> Self {
        match written(arguments) {
            Ok(json) => {
                self.ask.arguments = Some(pb::Arguments { arguments: Some(pb::arguments::Arguments::Json(json)) });
            }
            Err(e) => self.wrong = Some(e.to_string()),
        }
        self
    }

    /// Sets the purpose, which people read in approvals and in the audit.
    pub fn purpose(mut self, purpose: impl Into<String>) -> Self {
        self.ask.purpose = purpose.into();
        self
    }

    /// Sets the task. The default is the task of the settings. Without either, a task is opened for this credential in the same round trip
    /// and completed when the credential is released.
    pub fn task(mut self, task: impl Into<Option<String>>) -> Self {
        self.ask.task = task.into().map(Task::TaskId);
        self
    }

    /// Refuses the request where neither the request nor the settings name a task, instead of opening one. For servers whose own rights
    /// exceed those of their callers.
    pub fn require_task(mut self) -> Self {
        self.require_task = true;
        self
    }

    /// Opens a task for this credential, even if the settings name one.
    pub fn own_task(mut self) -> Self {
        self.ask.task = None;
        self.own_task = true;
        self
    }

    /// Sets how long to wait for an approval, at most 60 s. Without it, a needed approval is an error with the approval's id.
    pub fn wait_for_approval(mut self, time: Duration) -> Self {
        self.ask.wait_for_approval = duration(time);
        self
    }

    /// Sets the credential kind, where the upstream has several.
    pub fn kind(mut self, kind: pb::CredentialKind) -> Self {
        self.ask.kind = kind.into();
        self
    }

    /// Sets the lifetime, 5 minutes by default. The effective lifetime is the least of all bounds.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ask.ttl = duration(ttl);
        self
    }

    /// Sets the binding under which to decide.
    pub fn binding(mut self, binding: impl Into<String>) -> Self {
        self.ask.binding = binding.into();
        self
    }

    /// Sets the token of the subject on whose behalf the credential is requested, and the token's type.
    pub fn subject_token(mut self, token: &Secret, kind: pb::SubjectTokenType) -> Self {
        self.ask.subject_token = Some(pb::SubjectToken { token: token.expose().to_owned(), r#type: kind.into() });
        self
    }

    /// Sets a mayfly credential as the parent under which the caller acts.
    pub fn parent(mut self, token: &Secret) -> Self {
        self.ask.parent_credential = Some(pb::ParentCredential { token: token.expose().to_owned() });
        self
    }

    /// Binds the credential to this client's SVID: whoever presents it must prove possession of that key.
    pub fn bound_to_svid(mut self) -> Self {
        let key = pb::key_binding::Key::CallerSvid(pb::CallerSvid {});
        self.ask.key_binding = Some(pb::KeyBinding { key: Some(key) });
        self
    }

    /// Obtains the credential by an exchange, or shares one that an equal request obtained.
    pub async fn get(self) -> Result<Credential, Error> {
        let mayfly = self.mayfly.clone();
        mayfly.obtain(self.checked()?).await
    }

    /// The message to send, with its task.
    fn checked(self) -> Result<pb::ExchangeRequest, Error> {
        let CredentialRequest { mayfly, mut ask, own_task, require_task, wrong } = self;
        if let Some(wrong) = wrong {
            return Err(Error::Settings(wrong));
        }
        if ask.task.is_none() && !own_task {
            ask.task = mayfly.default_task().map(Task::TaskId);
        }
        if ask.task.is_none() && require_task {
            let what = "this call belongs to no task: right would be a credential of the agent's task, or its id in _meta as \"mayfly/task\"";
            return Err(Error::Settings(what.to_owned()));
        }
        if ask.task.is_none() {
            ask.task = Some(Task::OpenTask(terms(&ask)));
        }
        Ok(ask)
    }

    /// The message to send for one of several credentials of a client. An error names the upstream.
    pub(crate) fn one_of_several(self, client: &Mayfly) -> Result<pb::ExchangeRequest, Error> {
        let upstream = self.ask.upstream.clone();
        let wrong = if !self.mayfly.is(client) {
            "the request is one of another client; all requests are made by the client that sends them"
        } else if self.ask.wait_for_approval.is_some() {
            "wait_for_approval is for a single credential; with several, send the requests again once the approval was given"
        } else {
            return self.checked().map_err(|no| Error::Settings(format!("{upstream}: {no}")));
        };
        Err(Error::Settings(format!("{upstream}: {wrong}")))
    }
}

/// The terms of a task for this credential alone, with exactly its rights and lifetime.
fn terms(ask: &pb::ExchangeRequest) -> pb::TaskTerms {
    let life = ask.ttl.as_ref().and_then(|d| Duration::try_from(*d).ok()).unwrap_or(TTL);
    let purpose = match (&*ask.purpose, &*ask.tool) {
        ("", "") => format!("a credential for {}", ask.upstream),
        ("", tool) => format!("a call of {tool}"),
        (purpose, _) => purpose.to_owned(),
    };
    pb::TaskTerms {
        purpose,
        upstreams: vec![pb::Allowance { upstream: ask.upstream.clone(), scopes: ask.scopes.clone() }],
        tools: Some(ask.tool.clone()).filter(|t| !t.is_empty()).into_iter().collect(),
        // The wait for an approval is not included: the approval is given for these terms, so a later request with the same terms can use
        // it.
        ttl: duration(life),
        ..Default::default()
    }
}

fn duration(time: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(time).ok()
}

/// The cache key that equal requests share; `None` for a request that is not shared. Secrets of the request enter the key as part of a
/// digest only.
pub(crate) fn key(ask: &pb::ExchangeRequest) -> Option<[u8; 32]> {
    let shared = matches!(ask.task, Some(Task::TaskId(_))) && ask.arguments.is_none() && ask.request_id.is_empty();
    shared.then(|| sha256(&zeroize::Zeroizing::new(ask.encode_to_vec())))
}
