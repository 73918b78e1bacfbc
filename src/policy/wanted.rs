//! What a caller asks for, checked in its form: lengths, counts, ids, durations. Nothing is looked up here.

use std::sync::Arc;

use mayfly_verify::arguments;
use smol_str::SmolStr;
use zeroize::Zeroizing;

use crate::ledger::record::Ancestor;
use crate::limits;
use crate::pb::mayfly::v1 as pb;
use crate::refusal::Refusal;
use crate::seq::{CredentialId, Millis, TaskId};
use crate::trace::Traced;
use crate::upstream::registry::Kind;

use super::asked;
pub use super::digest::digest_of;
use super::subject::{Behalf, SentToken};

/// SHA-256.
pub type Digest = [u8; 32];

/// The task of an exchange.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TaskChoice {
    /// One that is open.
    Named(TaskId),
    /// One that is opened in the same commit.
    Inline(Box<Terms>),
}

/// The terms of a task that is to be opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Terms {
    /// What it is for.
    pub purpose: String,
    /// Upstreams with the scopes asked for; no scopes means all that are not sensitive.
    pub upstreams: Vec<(String, Vec<String>)>,
    /// Tools that may be named.
    pub tools: Vec<String>,
    /// Any tool may be named.
    pub any_tool: bool,
    /// Kinds.
    pub kinds: Vec<Kind>,
    /// Other workloads that may act in it.
    pub callers: Vec<String>,
    /// Every credential is bound to a key.
    pub key_bound: bool,
    /// How long, milliseconds.
    pub ttl_ms: Option<u64>,
    /// How long with every extension, milliseconds.
    pub max_ttl_ms: Option<u64>,
    /// Milliseconds between heartbeats, 0 for none.
    pub heartbeat_ms: u64,
    /// Its parent.
    pub parent: Option<TaskId>,
}

/// What a credential is bound to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Binding {
    /// Nothing asked.
    Unasked,
    /// The certificate of the caller's TLS session.
    CallerSvid,
    /// A key of the caller's, by its JWK thumbprint.
    Thumbprint(Digest),
}

/// One exchange, well formed. Neighbours on a stream share what is the same for many.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// The task.
    pub task: TaskChoice,
    /// The upstream.
    pub upstream: Arc<str>,
    /// Scopes, sorted, each once.
    pub scopes: Arc<[String]>,
    /// The kind; the registration's first where none is named.
    pub kind: Option<Kind>,
    /// Life asked for, milliseconds.
    pub ttl_ms: Option<u64>,
    /// The tool.
    pub tool: SmolStr,
    /// What for.
    pub purpose: SmolStr,
    /// SHA-256 of the arguments in RFC 8785 form.
    pub arguments: Option<Digest>,
    /// The caller's name for the request.
    pub request_id: Option<SmolStr>,
    /// SHA-256 over all that was asked.
    pub digest: Digest,
    /// What it is bound to.
    pub key: Binding,
    /// The binding that has to cover it, where one is named.
    pub binding: Option<Box<str>>,
    /// What this renews.
    pub renews: Option<Box<Renews>>,
    /// What this takes the place of: a repeat, where the upstream cannot give the first again.
    pub replaces: Option<CredentialId>,
    /// What only approvals need.
    pub asking: Option<Box<Asking>>,
    /// On whose behalf, where a token says so.
    pub behalf: Option<Box<Behalf>>,
    /// The trace of the call that asked. No part of what is wanted.
    pub traced: Traced,
}

/// What an exchange has for those who may have to approve it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Asking {
    /// How long it waits for them, milliseconds.
    pub wait_ms: u64,
    /// The arguments' JSON, where it was sent.
    pub arguments: Option<Zeroizing<String>>,
    /// An action is to be authorized, and nothing issued.
    pub action: bool,
}

impl std::fmt::Debug for Asking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asking").field("wait_ms", &self.wait_ms).field("action", &self.action).finish_non_exhaustive()
    }
}

/// The credential that is renewed, and what binds its line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Renews {
    /// The credential.
    pub id: CredentialId,
    /// The first of its line.
    pub line: Ancestor,
    /// No renewal goes beyond this: fixed when the line was first issued.
    pub until: Millis,
    /// It used up an approval, which serves once.
    pub approval: bool,
}

/// A text of the caller's: not longer than `most` bytes, without control characters.
pub fn text(field: &'static str, value: &str, most: usize) -> Result<String, Refusal> {
    checked(field, value, most).map(str::to_owned)
}

pub(super) fn checked<'a>(field: &'static str, value: &'a str, most: usize) -> Result<&'a str, Refusal> {
    if value.len() > most {
        return Err(Refusal::field(field, format!("{} bytes, at most {most}", value.len())));
    }
    // All of them, without a branch for each: many at a time.
    let plain = value.bytes().fold(true, |plain, b| plain & (0x20..0x7f).contains(&b));
    if !plain && value.chars().any(char::is_control) {
        return Err(Refusal::field(field, "has control characters; they are not allowed"));
    }
    Ok(value)
}

/// A name of the caller's, not empty.
pub fn name(field: &'static str, value: &str) -> Result<String, Refusal> {
    if value.is_empty() {
        return Err(Refusal::field(field, "is missing"));
    }
    text(field, value, limits::NAME_BYTES)
}

fn names(field: &'static str, values: &[String], most: usize) -> Result<Vec<String>, Refusal> {
    // Before they are copied.
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

/// A duration in milliseconds, above 0.
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

/// How long a call waits for an approval, milliseconds; 0 for not at all.
pub fn wait_ms(value: Option<&prost_types::Duration>) -> Result<u64, Refusal> {
    let (field, most) = ("wait_for_approval", limits::APPROVAL_WAIT_MS);
    let ms = duration(field, value)?.unwrap_or(0);
    let long = || Refusal::field(field, format!("is longer than {} s; ask again after that", most / 1000));
    if ms > most { Err(long()) } else { Ok(ms) }
}

/// A kind; `None` where it was left out.
pub fn kind(field: &'static str, value: i32) -> Result<Option<Kind>, Refusal> {
    if value == 0 {
        return Ok(None);
    }
    let kind = u8::try_from(value).ok().and_then(Kind::from_tag);
    kind.map(Some).ok_or_else(|| Refusal::field(field, format!("{value} is no credential kind that this version knows")))
}

/// An id in its written form.
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

/// SHA-256 of JSON in its canonical form (RFC 8785), so that the digest is the same however it was written.
pub fn digest_of_json(json: &str) -> Result<Digest, Refusal> {
    const FIELD: &str = "arguments.json";
    if json.len() > limits::ARGUMENTS_BYTES {
        return Err(Refusal::field(FIELD, format!("{} bytes, at most {}", json.len(), limits::ARGUMENTS_BYTES)));
    }
    // Strict, and bounded in depth: two readers must not see two different sets of arguments.
    let value = arguments::parse(json).map_err(|e| Refusal::field(FIELD, e))?;
    if depth(&value) > limits::ARGUMENTS_DEPTH {
        return Err(Refusal::field(FIELD, format!("is nested deeper than {}", limits::ARGUMENTS_DEPTH)));
    }
    arguments::digest(&value).map_err(|e| Refusal::field(FIELD, e))
}

/// How deep arrays and objects are nested in a value; 0 for a plain one.
fn depth(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        serde_json::Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

impl Terms {
    /// Checks the form of a task's terms.
    pub fn from_pb(terms: &pb::TaskTerms) -> Result<Terms, Refusal> {
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
            crate::identity::spiffe_id::SpiffeId::parse(caller)
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
        Ok(Terms {
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

impl Wanted {
    /// Whether an action is to be authorized, and nothing issued.
    pub fn is_action(&self) -> bool {
        self.asking.as_ref().is_some_and(|asking| asking.action)
    }

    /// Checks the form of an exchange. What is well formed is moved, not copied.
    pub fn from_pb(mut ask: pb::ExchangeRequest) -> Result<Wanted, Refusal> {
        Wanted::take(&mut ask)
    }

    /// The same for who answers by the request's name: refused, that is still there.
    pub fn take(ask: &mut pb::ExchangeRequest) -> Result<Wanted, Refusal> {
        asked::served(ask)?;
        let task = match &ask.task {
            None => return Err(Refusal::field("task", "is missing: name task_id, or give open_task")),
            Some(pb::exchange_request::Task::TaskId(task)) => TaskChoice::Named(id("task_id", task)?),
            Some(pb::exchange_request::Task::OpenTask(terms)) => TaskChoice::Inline(Terms::from_pb(terms)?.into()),
        };
        let key = match ask.key_binding.as_ref().and_then(|k| k.key.as_ref()) {
            None => Binding::Unasked,
            Some(pb::key_binding::Key::CallerSvid(_)) => Binding::CallerSvid,
            Some(pb::key_binding::Key::JwkThumbprint(t)) => {
                let digest = t.as_ref().try_into();
                Binding::Thumbprint(
                    digest.map_err(|_| Refusal::field("key_binding.jwk_thumbprint", "a SHA-256 thumbprint has 32 bytes"))?,
                )
            }
        };
        checked("request_id", &ask.request_id, limits::REQUEST_ID_BYTES)?;
        let arguments = arguments(ask.arguments.as_ref())?;
        // How long somebody waits is no part of what is asked for.
        let mut asking = Asking { wait_ms: wait_ms(ask.wait_for_approval.take().as_ref())?, ..Asking::default() };
        // They count by their digest: written otherwise, or sent as the digest itself, it is the same request.
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
        // After the digest: another token is another request.
        let behalf = SentToken::take(ask.subject_token.take())?.map(|token| Box::new(Behalf::Sent(token)));
        asked::whole(ask)?;
        checked("upstream", &ask.upstream, limits::NAME_BYTES)?;
        checked("tool", &ask.tool, limits::NAME_BYTES)?;
        checked("binding", &ask.binding, limits::NAME_BYTES)?;
        checked("purpose", &ask.purpose, limits::PURPOSE_BYTES)?;
        Ok(Wanted {
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
            binding: (!ask.binding.is_empty()).then(|| ask.binding.as_str().into()),
            renews: None,
            replaces: None,
            asking: (asking != Asking::default()).then(|| asking.into()),
            behalf,
            traced: Traced::default(),
        })
    }
}
