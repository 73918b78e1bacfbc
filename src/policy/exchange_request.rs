//! A caller's request, checked in form only: lengths, counts, ids, durations. Nothing is looked up here.

use std::sync::Arc;

use mayfly_verify::arguments;
use smol_str::SmolStr;
use zeroize::Zeroizing;

use mayfly_base::limits;
use mayfly_base::refusal::Refusal;
use mayfly_base::trace::CallTrace;
use mayfly_ledger::record::Ancestor;
use mayfly_ledger::upstream::registry::Kind;
use mayfly_proto::mayfly::v1 as pb;
use mayfly_verify::seq::{CredentialId, Millis, TaskId};

pub use super::digest::digest_of;
use super::field_checks;
use super::subject::{RequestedSubject, UnverifiedToken};

/// A SHA-256 digest.
pub type Digest = [u8; 32];

/// The task of an exchange.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TaskChoice {
    /// An open task.
    Named(TaskId),
    /// A task that is opened in the same commit.
    Inline(Box<TaskRequest>),
}

/// The terms of a task to be opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TaskRequest {
    /// The purpose.
    pub purpose: String,
    /// Upstreams with the requested scopes. No scopes means all scopes that are not sensitive.
    pub upstreams: Vec<(String, Vec<String>)>,
    /// Tools that may be named.
    pub tools: Vec<String>,
    /// Any tool may be named.
    pub any_tool: bool,
    /// Credential kinds. Empty: all.
    pub kinds: Vec<Kind>,
    /// Other workloads that may act in the task.
    pub callers: Vec<String>,
    /// Every credential of the task must be bound to a key.
    pub key_bound: bool,
    /// Lifetime, in milliseconds.
    pub ttl_ms: Option<u64>,
    /// Maximum lifetime including every extension, in milliseconds.
    pub max_ttl_ms: Option<u64>,
    /// Heartbeat interval in milliseconds; 0 for none.
    pub heartbeat_ms: u64,
    /// The parent task.
    pub parent: Option<TaskId>,
}

/// The key that a credential is to be bound to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestedKeyBinding {
    /// The request does not ask for a key binding.
    Unasked,
    /// The certificate of the caller's TLS session.
    CallerSvid,
    /// A key of the caller, by its JWK thumbprint.
    Thumbprint(Digest),
}

/// The public key that a certificate is asked for, checked for its length only: whoever makes the certificate reads it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RequestedCertificateKey {
    /// A PKCS #10 request in DER.
    CertificateRequest(Box<[u8]>),
    /// A public key in OpenSSH's form.
    Ssh(Box<str>),
    /// The key of the credential that is renewed, as in its record.
    Recorded(Box<[u8]>),
}

impl RequestedCertificateKey {
    /// Checks the length of a key.
    pub fn from_pb(key: pb::exchange_request::PublicKey) -> Result<RequestedCertificateKey, Refusal> {
        use pb::exchange_request::PublicKey;
        match key {
            PublicKey::CertificateRequest(der) if der.is_empty() || der.len() > limits::CSR_BYTES => Err(Refusal::field(
                "certificate_request",
                format!("has {} bytes; a PKCS #10 request in DER has 1 to {}", der.len(), limits::CSR_BYTES),
            )),
            PublicKey::SshPublicKey(text) if text.is_empty() || text.len() > limits::SSH_KEY_BYTES => Err(Refusal::field(
                "ssh_public_key",
                format!("has {} bytes; a public key in OpenSSH's form has 1 to {}", text.len(), limits::SSH_KEY_BYTES),
            )),
            PublicKey::CertificateRequest(der) => Ok(RequestedCertificateKey::CertificateRequest(der.to_vec().into())),
            PublicKey::SshPublicKey(text) => Ok(RequestedCertificateKey::Ssh(text.into())),
        }
    }

    /// The field of a request that holds the key.
    pub fn field(&self) -> &'static str {
        match self {
            RequestedCertificateKey::CertificateRequest(_) => "certificate_request",
            RequestedCertificateKey::Ssh(_) => "ssh_public_key",
            RequestedCertificateKey::Recorded(_) => "credential_id",
        }
    }

    /// The key as it was sent.
    pub fn bytes(&self) -> &[u8] {
        match self {
            RequestedCertificateKey::CertificateRequest(bytes) | RequestedCertificateKey::Recorded(bytes) => bytes,
            RequestedCertificateKey::Ssh(text) => text.as_bytes(),
        }
    }
}

/// One exchange, checked in form. Consecutive exchanges on a stream share the fields behind `Arc`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExchangeRequest {
    /// The task.
    pub task: TaskChoice,
    /// The upstream.
    pub upstream: Arc<str>,
    /// Scopes, sorted, without duplicates.
    pub scopes: Arc<[String]>,
    /// The credential kind. `None`: the registration's first.
    pub kind: Option<Kind>,
    /// Requested lifetime, in milliseconds.
    pub ttl_ms: Option<u64>,
    /// The tool.
    pub tool: SmolStr,
    /// The purpose.
    pub purpose: SmolStr,
    /// SHA-256 of the arguments in RFC 8785 form.
    pub arguments: Option<Digest>,
    /// The caller's request id.
    pub request_id: Option<SmolStr>,
    /// SHA-256 over the whole request; zero without a request id.
    pub digest: Digest,
    /// The requested key binding.
    pub key: RequestedKeyBinding,
    /// The public key for a certificate.
    pub certified: Option<Box<RequestedCertificateKey>>,
    /// The binding that must cover the request, where the caller names one.
    pub binding: Option<Box<str>>,
    /// The credential that this exchange renews.
    pub renews: Option<Box<RenewedCredential>>,
    /// The credential that this exchange replaces: a repeat of a request whose upstream cannot return the first credential again.
    pub replaces: Option<CredentialId>,
    /// Fields that only approvals need.
    pub asking: Option<Box<ApprovalDetails>>,
    /// The part of what the scopes give that the request asks for: authorization details (RFC 9396). `None`: everything.
    pub details: Option<Arc<str>>,
    /// The subject, where a token names one.
    pub behalf: Option<Box<RequestedSubject>>,
    /// The trace context of the call. It is not part of the request.
    pub traced: CallTrace,
}

/// The fields of an exchange for people who may have to approve it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ApprovalDetails {
    /// How long the call waits for an approval, in milliseconds.
    pub wait_ms: u64,
    /// The arguments as JSON, where the caller sent JSON.
    pub arguments: Option<Zeroizing<String>>,
    /// The request is an `Authorize`: nothing is issued.
    pub action: bool,
}

impl std::fmt::Debug for ApprovalDetails {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApprovalDetails").field("wait_ms", &self.wait_ms).field("action", &self.action).finish_non_exhaustive()
    }
}

/// The credential that is renewed, and the bounds of its renewal chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RenewedCredential {
    /// The credential.
    pub id: CredentialId,
    /// The first credential of the renewal chain.
    pub first: Ancestor,
    /// The latest expiry of any renewal, fixed when the first credential of the renewal chain was issued.
    pub until: Millis,
    /// The credential used up an approval. An approval serves once.
    pub approval: bool,
}

/// Checks a caller's text: at most `most` bytes, no control characters.
pub fn text(field: &'static str, value: &str, most: usize) -> Result<String, Refusal> {
    checked(field, value, most).map(str::to_owned)
}

pub(super) fn checked<'a>(field: &'static str, value: &'a str, most: usize) -> Result<&'a str, Refusal> {
    if value.len() > most {
        return Err(Refusal::field(field, format!("{} bytes, at most {most}", value.len())));
    }
    // A fold without a branch per byte, which the compiler vectorizes.
    let plain = value.bytes().fold(true, |plain, b| plain & (0x20..0x7f).contains(&b));
    if !plain && value.chars().any(char::is_control) {
        return Err(Refusal::field(field, "has control characters; they are not allowed"));
    }
    Ok(value)
}

/// Checks a caller's name: not empty, of limited length, no control characters.
pub fn name(field: &'static str, value: &str) -> Result<String, Refusal> {
    if value.is_empty() {
        return Err(Refusal::field(field, "is missing"));
    }
    text(field, value, limits::NAME_BYTES)
}

fn names(field: &'static str, values: &[String], most: usize) -> Result<Vec<String>, Refusal> {
    // The count is checked before the values are copied.
    at_most(field, values, most)?;
    own_names(field, values.to_vec(), most)
}

fn at_most(field: &'static str, values: &[String], most: usize) -> Result<(), Refusal> {
    match values.len() {
        n if n > most => Err(Refusal::field(field, format!("{n} of them, at most {most}"))),
        _ => Ok(()),
    }
}

fn own_names(field: &'static str, mut values: Vec<String>, most: usize) -> Result<Vec<String>, Refusal> {
    at_most(field, &values, most)?;
    for value in &values {
        if value.is_empty() {
            return Err(Refusal::field(field, "is missing"));
        }
        checked(field, value, limits::NAME_BYTES)?;
    }
    values.sort_unstable();
    values.dedup();
    Ok(values)
}

/// A duration in milliseconds, greater than 0.
pub fn duration(field: &'static str, value: Option<&prost_types::Duration>) -> Result<Option<u64>, Refusal> {
    let Some(d) = value else { return Ok(None) };
    if d.seconds < 0 || d.nanos < 0 || d.nanos > 999_999_999 {
        return Err(Refusal::field(field, "must not be negative, with nanos from 0 to 999999999"));
    }
    // google.protobuf.Duration: at most 315,576,000,000 s.
    if d.seconds > 315_576_000_000 {
        return Err(Refusal::field(field, "is longer than a duration may be"));
    }
    let ms = d.seconds.unsigned_abs() * 1000 + u64::from(d.nanos.unsigned_abs()) / 1_000_000;
    if ms == 0 {
        return Err(Refusal::field(field, "must be at least a millisecond; leave it out for the default"));
    }
    Ok(Some(ms))
}

/// How long a call waits for an approval, in milliseconds; 0 for not at all.
pub fn wait_ms(value: Option<&prost_types::Duration>) -> Result<u64, Refusal> {
    let (field, most) = ("wait_for_approval", limits::APPROVAL_WAIT_MS);
    let ms = duration(field, value)?.unwrap_or(0);
    let long = || Refusal::field(field, format!("is longer than {} s; ask again after that", most / 1000));
    if ms > most { Err(long()) } else { Ok(ms) }
}

/// A credential kind; `None` where the field is unset.
pub fn kind(field: &'static str, value: i32) -> Result<Option<Kind>, Refusal> {
    if value == 0 {
        return Ok(None);
    }
    let kind = u8::try_from(value).ok().and_then(Kind::from_tag);
    kind.map(Some).ok_or_else(|| Refusal::field(field, format!("{value} is no credential kind that this version knows")))
}

/// Parses an id.
pub fn id<T: std::str::FromStr>(field: &'static str, value: &str) -> Result<T, Refusal>
where
    T::Err: std::fmt::Display,
{
    value.parse().map_err(|e| Refusal::field(field, e))
}

fn arguments(value: Option<&pb::Arguments>) -> Result<Option<Digest>, Refusal> {
    match value.and_then(|a| a.arguments.as_ref()) {
        None => Ok(None),
        Some(pb::arguments::Arguments::Sha256(bytes)) => {
            let digest = bytes.as_ref().try_into();
            digest.map(Some).map_err(|_| Refusal::field("arguments.sha256", format!("{} bytes, a SHA-256 has 32", bytes.len())))
        }
        Some(pb::arguments::Arguments::Json(json)) => digest_of_json(json).map(Some),
    }
}

/// SHA-256 of JSON in canonical form (RFC 8785), so that equivalent JSON has the same digest.
pub fn digest_of_json(json: &str) -> Result<Digest, Refusal> {
    const FIELD: &str = "arguments.json";
    if json.len() > limits::ARGUMENTS_BYTES {
        return Err(Refusal::field(FIELD, format!("{} bytes, at most {}", json.len(), limits::ARGUMENTS_BYTES)));
    }
    // The parser is strict and bounded in depth: two parsers must not read two different sets of arguments.
    let value = arguments::parse(json).map_err(|e| Refusal::field(FIELD, e))?;
    if depth(&value) > limits::ARGUMENTS_DEPTH {
        return Err(Refusal::field(FIELD, format!("is nested deeper than {}", limits::ARGUMENTS_DEPTH)));
    }
    arguments::digest(&value).map_err(|e| Refusal::field(FIELD, e))
}

/// Authorization details in one form: a JSON array of one object. What the object says is checked by the connector of its kind.
fn details(json: &str) -> Result<Option<Arc<str>>, Refusal> {
    const FIELD: &str = "authorization_details";
    if json.is_empty() {
        return Ok(None);
    }
    if json.len() > limits::AUTHORIZATION_DETAILS_BYTES {
        return Err(Refusal::field(FIELD, format!("{} bytes, at most {}", json.len(), limits::AUTHORIZATION_DETAILS_BYTES)));
    }
    let value = arguments::parse(json).map_err(|e| Refusal::field(FIELD, e))?;
    let is_one =
        |value: &serde_json::Value| value.as_array().is_some_and(|all| all.len() == 1 && all.iter().all(|one| one.is_object()));
    match is_one(&value) && depth(&value) <= limits::ARGUMENTS_DEPTH {
        true => Ok(Some(value.to_string().into())),
        false => Err(Refusal::field(FIELD, "must be a JSON array with one object: a credential has one kind")),
    }
}

/// Nesting depth of arrays and objects in a value; 0 for a scalar.
fn depth(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        serde_json::Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

impl TaskRequest {
    /// Checks the form of a task's terms.
    pub fn from_pb(terms: &pb::TaskTerms) -> Result<TaskRequest, Refusal> {
        if terms.upstreams.len() > limits::TASK_LIST {
            return Err(Refusal::field("upstreams", format!("{} of them, at most {}", terms.upstreams.len(), limits::TASK_LIST)));
        }
        let mut upstreams: Vec<(String, Vec<String>)> = Vec::with_capacity(terms.upstreams.len());
        for allowed in &terms.upstreams {
            let upstream = name("upstreams.upstream", &allowed.upstream)?;
            if upstreams.iter().any(|(known, _)| *known == upstream) {
                return Err(Refusal::field("upstreams", format!("{upstream} is named twice")));
            }
            upstreams.push((upstream, names("upstreams.scopes", &allowed.scopes, limits::TASK_LIST)?));
        }
        let kinds = terms.kinds.iter().map(|k| kind("kinds", *k)).collect::<Result<Vec<_>, _>>()?;
        if kinds.len() > limits::TASK_LIST || kinds.iter().any(Option::is_none) {
            return Err(Refusal::field("kinds", "holds an unspecified kind, or too many; leave the list empty for all"));
        }
        let callers = names("callers", &terms.callers, limits::TASK_LIST)?;
        for caller in &callers {
            mayfly_identity::spiffe_id::SpiffeId::parse(caller)
                .map_err(|e| Refusal::field("callers", format!("{caller:?}: {e}")))?;
        }
        let heartbeat_ms = duration("heartbeat_interval", terms.heartbeat_interval.as_ref())?.unwrap_or(0);
        if heartbeat_ms != 0 && !(limits::HEARTBEAT_MIN_MS..=limits::HEARTBEAT_MAX_MS).contains(&heartbeat_ms) {
            let (least, most) = (limits::HEARTBEAT_MIN_MS / 1000, limits::HEARTBEAT_MAX_MS / 1000);
            return Err(Refusal::field("heartbeat_interval", format!("must be {least} s to {most} s")));
        }
        if terms.any_tool && !terms.tools.is_empty() {
            return Err(Refusal::field("tools", "lists tools beside any_tool; give one of them"));
        }
        let parent = match terms.parent_task_id.as_str() {
            "" => None,
            parent => Some(id("parent_task_id", parent)?),
        };
        Ok(TaskRequest {
            purpose: text("purpose", &terms.purpose, limits::PURPOSE_BYTES)?,
            upstreams,
            tools: names("tools", &terms.tools, limits::TASK_LIST)?,
            any_tool: terms.any_tool,
            kinds: kinds.into_iter().flatten().collect(),
            callers,
            key_bound: terms.key_bound,
            ttl_ms: duration("ttl", terms.ttl.as_ref())?,
            max_ttl_ms: duration("max_ttl", terms.max_ttl.as_ref())?,
            heartbeat_ms,
            parent,
        })
    }
}

impl ExchangeRequest {
    /// Whether the request is an `Authorize`: nothing is issued.
    pub fn is_action(&self) -> bool {
        self.asking.as_ref().is_some_and(|asking| asking.action)
    }

    /// Checks the form of an exchange. Fields are moved, not copied.
    pub fn from_pb(mut ask: pb::ExchangeRequest) -> Result<ExchangeRequest, Refusal> {
        ExchangeRequest::take(&mut ask)
    }

    /// The same with a borrowed message. `request_id` stays in the message, so that a refusal can name the request.
    pub fn take(ask: &mut pb::ExchangeRequest) -> Result<ExchangeRequest, Refusal> {
        field_checks::refuse_unsupported(ask)?;
        let task = match &ask.task {
            None => return Err(Refusal::field("task", "is missing: name task_id, or give open_task")),
            Some(pb::exchange_request::Task::TaskId(task)) => TaskChoice::Named(id("task_id", task)?),
            Some(pb::exchange_request::Task::OpenTask(terms)) => TaskChoice::Inline(TaskRequest::from_pb(terms)?.into()),
        };
        let key = match ask.key_binding.as_ref().and_then(|k| k.key.as_ref()) {
            None => RequestedKeyBinding::Unasked,
            Some(pb::key_binding::Key::CallerSvid(_)) => RequestedKeyBinding::CallerSvid,
            Some(pb::key_binding::Key::JwkThumbprint(t)) => {
                let digest = t.as_ref().try_into();
                RequestedKeyBinding::Thumbprint(
                    digest.map_err(|_| Refusal::field("key_binding.jwk_thumbprint", "a SHA-256 thumbprint has 32 bytes"))?,
                )
            }
        };
        checked("request_id", &ask.request_id, limits::REQUEST_ID_BYTES)?;
        let arguments = arguments(ask.arguments.as_ref())?;
        // The wait time is not part of the request's identity, so it is removed before the digest.
        let mut asking =
            ApprovalDetails { wait_ms: wait_ms(ask.wait_for_approval.take().as_ref())?, ..ApprovalDetails::default() };
        // The arguments count by their digest: the same JSON written differently, or sent as its digest, is the same request.
        if let Some(digest) = arguments
            && let Some(pb::Arguments { arguments: Some(pb::arguments::Arguments::Json(_)) }) = &ask.arguments
        {
            let sha256 = pb::arguments::Arguments::Sha256(digest.to_vec().into());
            let sent = ask.arguments.replace(pb::Arguments { arguments: Some(sha256) });
            if let Some(pb::arguments::Arguments::Json(json)) = sent.and_then(|a| a.arguments) {
                asking.arguments = Some(Zeroizing::new(json));
            }
        }
        let digest = if ask.request_id.is_empty() { [0; 32] } else { digest_of(ask) };
        // Taken after the digest, so that a different subject token makes a different request.
        let behalf = UnverifiedToken::take(ask.subject_token.take())?.map(|token| Box::new(RequestedSubject::Sent(token)));
        field_checks::require_fields(ask)?;
        checked("upstream", &ask.upstream, limits::NAME_BYTES)?;
        checked("tool", &ask.tool, limits::NAME_BYTES)?;
        checked("binding", &ask.binding, limits::NAME_BYTES)?;
        checked("purpose", &ask.purpose, limits::PURPOSE_BYTES)?;
        Ok(ExchangeRequest {
            task,
            scopes: own_names("scopes", std::mem::take(&mut ask.scopes), limits::SCOPES)?.into(),
            kind: kind("kind", ask.kind)?,
            ttl_ms: duration("ttl", ask.ttl.as_ref())?,
            arguments,
            upstream: ask.upstream.as_str().into(),
            tool: SmolStr::new(&ask.tool),
            purpose: SmolStr::new(&ask.purpose),
            digest,
            request_id: (!ask.request_id.is_empty()).then(|| SmolStr::new(&ask.request_id)),
            key,
            certified: ask.public_key.take().map(RequestedCertificateKey::from_pb).transpose()?.map(Box::new),
            binding: (!ask.binding.is_empty()).then(|| ask.binding.as_str().into()),
            renews: None,
            replaces: None,
            asking: (asking != ApprovalDetails::default()).then(|| asking.into()),
            details: details(&ask.authorization_details)?,
            behalf,
            traced: CallTrace::default(),
        })
    }
}
