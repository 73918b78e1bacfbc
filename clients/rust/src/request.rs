//! What is asked for, built step by step.

use std::time::Duration;

use mayfly_verify::arguments;
use mayfly_verify::identity::sha256;
use prost::Message as _;
use serde::Serialize;

use crate::client::Mayfly;
use crate::credential::Credential;
use crate::error::Error;
use crate::finite;
use crate::pb::mayfly::v1 as pb;
use crate::pb::mayfly::v1::exchange_request::Task;
use crate::secret::Secret;

/// How long a credential lives where nobody asks for another time: the server's default. A task that is opened for it lives as long.
const TTL: Duration = Duration::from_secs(300);

/// A credential that is asked for. [`get`](CredentialRequest::get) sends it.
#[must_use = "nothing is asked until get() is awaited"]
#[derive(Clone)]
pub struct CredentialRequest {
    mayfly: Mayfly,
    ask: pb::ExchangeRequest,
    own_task: bool,
    require_task: bool,
    wrong: Option<String>,
}

/// SHA-256 of the RFC 8785 form of a call's arguments: what a credential that was approved for them names.
///
/// Arguments that others would read as other ones are refused: with a number that a double does not hold, or NaN.
pub fn arguments_sha256<T: Serialize>(arguments: &T) -> Result<[u8; 32], Error> {
    arguments_sha256_of_json(&written(arguments)?)
}

/// The same of arguments as JSON text, as they came over the wire. It refuses what reading them first would hide: a name that stands twice in
/// one object, and a number with more digits than a double holds.
pub fn arguments_sha256_of_json(text: &str) -> Result<[u8; 32], Error> {
    arguments::digest_of_json(text).map_err(|e| Error::Settings(format!("arguments: {e}")))
}

/// Arguments as JSON.
fn written<T: Serialize>(arguments: &T) -> Result<String, Error> {
    // serde_json writes NaN as null, which is another argument.
    finite::check(arguments).map_err(|e| Error::Settings(format!("arguments: {e}")))?;
    let text = serde_json::to_string(arguments).map_err(|e| Error::Settings(format!("arguments: {e}")))?;
    arguments::parse(&text).map_err(|e| Error::Settings(format!("arguments: {e}")))?;
    Ok(text)
}

impl CredentialRequest {
    pub(crate) fn new(mayfly: Mayfly, upstream: &str) -> CredentialRequest {
        let ask = pb::ExchangeRequest { upstream: upstream.to_owned(), ..Default::default() };
        CredentialRequest { mayfly, ask, own_task: false, require_task: false, wrong: None }
    }

    /// One more scope.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.ask.scopes.push(scope.into());
        self
    }

    /// More scopes.
    pub fn scopes<S: Into<String>>(mut self, scopes: impl IntoIterator<Item = S>) -> Self {
        self.ask.scopes.extend(scopes.into_iter().map(Into::into));
        self
    }

    /// The tool that it is for.
    pub fn tool(mut self, tool: impl Into<String>) -> Self {
        self.ask.tool = tool.into();
        self
    }

    /// The arguments of the call that it is for, as JSON. Such a credential serves for that call, and is shared with nobody.
    pub fn arguments<T: Serialize>(mut self, arguments: &T) -> Self {
        match written(arguments) {
            Ok(json) => {
                self.ask.arguments = Some(pb::Arguments { arguments: Some(pb::arguments::Arguments::Json(json)) });
            }
            Err(e) => self.wrong = Some(e.to_string()),
        }
        self
    }

    /// What it is for: people read it in approvals and in the audit.
    pub fn purpose(mut self, purpose: impl Into<String>) -> Self {
        self.ask.purpose = purpose.into();
        self
    }

    /// The task that it is for. Without one: that of the settings; where there is none, one is opened for this call, in the same round trip,
    /// and completed when the credential is given back.
    pub fn task(mut self, task: impl Into<Option<String>>) -> Self {
        self.ask.task = task.into().map(Task::TaskId);
        self
    }

    /// Refuses where neither the request nor the settings name a task, and opens none: for servers whose own rights are more than those of
    /// whoever calls them.
    pub fn require_task(mut self) -> Self {
        self.require_task = true;
        self
    }

    /// A task of its own, whatever the settings say.
    pub fn own_task(mut self) -> Self {
        self.ask.task = None;
        self.own_task = true;
        self
    }

    /// How long to wait for an approval, at most 60 s. Without it an approval that is needed is an error with its id.
    pub fn wait_for_approval(mut self, time: Duration) -> Self {
        self.ask.wait_for_approval = duration(time);
        self
    }

    /// What kind of credential, where the upstream has several.
    pub fn kind(mut self, kind: pb::CredentialKind) -> Self {
        self.ask.kind = kind.into();
        self
    }

    /// How long it is to live. Without it 5 minutes; the least of all bounds wins.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ask.ttl = duration(ttl);
        self
    }

    /// The binding to decide under.
    pub fn binding(mut self, binding: impl Into<String>) -> Self {
        self.ask.binding = binding.into();
        self
    }

    /// On whose behalf: the token that came in, and what it is.
    pub fn subject_token(mut self, token: &Secret, kind: pb::SubjectTokenType) -> Self {
        self.ask.subject_token = Some(pb::SubjectToken { token: token.expose().to_owned(), r#type: kind.into() });
        self
    }

    /// A credential of mayfly's that the caller acts under.
    pub fn parent(mut self, token: &Secret) -> Self {
        self.ask.parent_credential = Some(pb::ParentCredential { token: token.expose().to_owned() });
        self
    }

    /// Bound to the SVID of this client: whoever shows it must prove that key.
    pub fn bound_to_svid(mut self) -> Self {
        let key = pb::key_binding::Key::CallerSvid(pb::CallerSvid {});
        self.ask.key_binding = Some(pb::KeyBinding { key: Some(key) });
        self
    }

    /// Gets it, by an exchange or from one that somebody else has just made.
    pub async fn get(self) -> Result<Credential, Error> {
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
        mayfly.obtain(ask).await
    }
}

/// A task for this one credential: as wide and as long as that, and no more.
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
        // Not with what is waited for an approval: it is given for these terms, and good for the next who asks by the same.
        ttl: duration(life),
        ..Default::default()
    }
}

fn duration(time: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(time).ok()
}

/// What equal requests have in common; `None` for one that is shared with nobody. Secrets of the request are in it by their digest only.
pub(crate) fn key(ask: &pb::ExchangeRequest) -> Option<[u8; 32]> {
    let shared = matches!(ask.task, Some(Task::TaskId(_))) && ask.arguments.is_none() && ask.request_id.is_empty();
    shared.then(|| sha256(&zeroize::Zeroizing::new(ask.encode_to_vec())))
}
