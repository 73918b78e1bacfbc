//! Records of a task's life. Ids are 16 bytes, times are milliseconds since 1970.

use prost::Message;
use serde::{Deserialize, Serialize};

/// What a task may reach. Upstreams and scopes are listed one by one; no tools listed means that
/// only exchanges without a tool are made; no kinds listed means those of the upstream's registration.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
pub struct Allowance {
    /// Upstreams with their scopes.
    #[prost(message, repeated, tag = "1")]
    pub upstreams: Vec<AllowedUpstream>,
    /// Tools that may be named.
    #[prost(string, repeated, tag = "2")]
    pub tools: Vec<String>,
    /// Credential kinds, by their persisted numbers.
    #[prost(uint32, repeated, tag = "3")]
    pub kinds: Vec<u32>,
    /// Every credential must be bound to a key.
    #[prost(bool, tag = "4")]
    pub key_bound: bool,
    /// Any tool may be named, and none.
    #[prost(bool, tag = "5")]
    pub any_tool: bool,
}

/// One upstream of a task, and the scopes in it.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
pub struct AllowedUpstream {
    /// The upstream's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its scopes, one by one, whatever the opener wrote short.
    #[prost(string, repeated, tag = "2")]
    pub scopes: Vec<String>,
}

/// A task was opened.
#[derive(Clone, PartialEq, Message)]
pub struct TaskOpened {
    /// Its id.
    #[prost(bytes = "vec", tag = "1")]
    pub task: Vec<u8>,
    /// Its parent's id, empty for a root.
    #[prost(bytes = "vec", tag = "2")]
    pub parent: Vec<u8>,
    /// Who owns it: a person, or the workload that opened it.
    #[prost(message, optional, tag = "3")]
    pub owner: Option<super::Identity>,
    /// The workload that opened it.
    #[prost(string, tag = "4")]
    pub opener: String,
    /// Workloads that may act in it besides the opener.
    #[prost(string, repeated, tag = "5")]
    pub callers: Vec<String>,
    /// Its environment.
    #[prost(string, tag = "6")]
    pub environment: String,
    /// What it is for, in the opener's words.
    #[prost(string, tag = "7")]
    pub purpose: String,
    /// What it may reach.
    #[prost(message, optional, tag = "8")]
    pub allowance: Option<Allowance>,
    /// When it was decided.
    #[prost(uint64, tag = "9")]
    pub opened_at: u64,
    /// When it ends.
    #[prost(uint64, tag = "10")]
    pub deadline: u64,
    /// Beyond this no extension goes.
    #[prost(uint64, tag = "11")]
    pub max_deadline: u64,
    /// Milliseconds between heartbeats, 0 for none.
    #[prost(uint64, tag = "12")]
    pub heartbeat: u64,
    /// Version of the environment's policy set that it was decided with.
    #[prost(uint64, tag = "13")]
    pub policy_version: u64,
    /// The SVID that it was opened with.
    #[prost(message, optional, tag = "14")]
    pub svid: Option<super::SvidEvidence>,
    /// It waits for this approval before it is active.
    #[prost(bytes = "vec", tag = "15")]
    pub approval: Vec<u8>,
    /// Credential that the opener was itself identified by, where mayfly issued its SVID, or that it showed as a subject token.
    #[prost(bytes = "vec", tag = "16")]
    pub ancestor: Vec<u8>,
    /// It is a break-glass task, or below one.
    #[prost(bool, tag = "17")]
    pub break_glass: bool,
    /// The subject token that it was opened with, its owner being the subject; or that the task above it rests on.
    #[prost(message, optional, tag = "21")]
    pub subject_token: Option<super::TokenEvidence>,
    /// The actors, outermost first, where it was itself opened with a subject token.
    #[prost(message, repeated, tag = "22")]
    pub actors: Vec<super::Identity>,
    /// What the subject token said of the subject's rights.
    #[prost(message, optional, tag = "23")]
    pub subject_claims: Option<super::SubjectClaims>,
    /// Where a credential was shown as its subject token: what that rests on, the first of the line first, and itself.
    #[prost(message, repeated, tag = "30")]
    pub ancestors: Vec<super::Ancestor>,
}

/// How a task ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash, prost::Enumeration, Serialize, Deserialize)]
#[repr(i32)]
pub enum Outcome {
    /// Never written.
    Unspecified = 0,
    /// Its work was done.
    Completed = 1,
    /// It was called off.
    Cancelled = 2,
    /// It missed its heartbeat.
    Expired = 3,
    /// An operator or a narrowing ended it.
    Revoked = 4,
}

/// A task and everything under it ended.
#[derive(Clone, PartialEq, Message)]
pub struct TaskClosed {
    /// The task.
    #[prost(bytes = "vec", tag = "1")]
    pub task: Vec<u8>,
    /// How it ended.
    #[prost(enumeration = "Outcome", tag = "2")]
    pub outcome: i32,
    /// Why, in the closer's words.
    #[prost(string, tag = "3")]
    pub reason: String,
    /// The rule that it makes is kept until then at least, and as long as anything that was issued under it lives.
    #[prost(uint64, tag = "4")]
    pub keep_until: u64,
}

/// Who holds a task: only somebody of the same rank or above resumes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash, prost::Enumeration, Serialize, Deserialize)]
#[repr(i32)]
pub enum HoldRank {
    /// Never written.
    Unspecified = 0,
    /// The opener or owner.
    Caller = 1,
    /// A policy over uses.
    Policy = 2,
    /// An operator.
    Operator = 3,
}

/// A task and everything under it is refused until resumed.
#[derive(Clone, PartialEq, Message)]
pub struct TaskHeld {
    /// The task.
    #[prost(bytes = "vec", tag = "1")]
    pub task: Vec<u8>,
    /// Who holds it.
    #[prost(enumeration = "HoldRank", tag = "2")]
    pub rank: i32,
    /// Why.
    #[prost(string, tag = "3")]
    pub reason: String,
}

/// A hold ended.
#[derive(Clone, PartialEq, Message)]
pub struct TaskResumed {
    /// The task.
    #[prost(bytes = "vec", tag = "1")]
    pub task: Vec<u8>,
    /// Who resumes it.
    #[prost(enumeration = "HoldRank", tag = "2")]
    pub rank: i32,
    /// Why.
    #[prost(string, tag = "3")]
    pub reason: String,
}

/// A task's deadline moved.
#[derive(Clone, PartialEq, Message)]
pub struct TaskExtended {
    /// The task.
    #[prost(bytes = "vec", tag = "1")]
    pub task: Vec<u8>,
    /// Its new end.
    #[prost(uint64, tag = "2")]
    pub deadline: u64,
    /// When it was decided.
    #[prost(uint64, tag = "3")]
    pub decided_at: u64,
    /// Version of the policy set that it was decided with.
    #[prost(uint64, tag = "4")]
    pub policy_version: u64,
    /// The approval that it uses up, where somebody had to approve it.
    #[prost(bytes = "vec", tag = "5")]
    pub approval: Vec<u8>,
    /// Who asked for it, by SPIFFE ID.
    #[prost(string, tag = "6")]
    pub caller: String,
}

/// Tasks that showed signs of life since the record before.
#[derive(Clone, PartialEq, Message)]
pub struct TaskHeartbeats {
    /// The tasks' ids.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub tasks: Vec<Vec<u8>>,
    /// All tasks get one full interval: the server was away.
    #[prost(bool, tag = "2")]
    pub all: bool,
    /// With `all`: the server was away since then, milliseconds. What was silent before it left stays silent.
    #[prost(uint64, tag = "3")]
    pub away_since: u64,
}

impl Allowance {
    /// What of this goes beyond `other`, in words; `None` where nothing does.
    pub fn wider_than(&self, other: &Allowance) -> Option<String> {
        for mine in &self.upstreams {
            let Some(theirs) = other.upstreams.iter().find(|u| u.name == mine.name) else {
                return Some(format!("upstream {}", mine.name));
            };
            if let Some(scope) = mine.scopes.iter().find(|s| !theirs.scopes.contains(s)) {
                return Some(format!("scope {scope} of upstream {}", mine.name));
            }
        }
        if self.any_tool && !other.any_tool {
            return Some("every tool".to_owned());
        }
        if let Some(tool) = self.tools.iter().find(|t| !other.any_tool && !other.tools.contains(t)) {
            return Some(format!("tool {tool}"));
        }
        if let Some(kind) = beyond(&self.kinds, &other.kinds) {
            return Some(kind.map_or_else(|| "every kind".to_owned(), |k| format!("kind {k}")));
        }
        (other.key_bound && !self.key_bound).then(|| "credentials without a key".to_owned())
    }
}

/// What of `mine` is not in `theirs`, where an empty list means all: `Some(None)` when it is everything.
fn beyond<T: PartialEq + Clone>(mine: &[T], theirs: &[T]) -> Option<Option<T>> {
    if theirs.is_empty() {
        return None;
    }
    if mine.is_empty() {
        return Some(None);
    }
    mine.iter().find(|m| !theirs.contains(m)).map(|m| Some(m.clone()))
}
