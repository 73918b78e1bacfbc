//! Records of a task's life. Ids are 16 bytes, times are milliseconds since 1970.

use prost::Message;
use serde::{Deserialize, Serialize};

/// The upstreams, scopes, tools and credential kinds that a task may use. Upstreams and scopes are listed individually; an empty list of
/// tools means that only exchanges without a tool are allowed; an empty list of kinds means the kinds of the upstream's registration.
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
    /// Any tool may be named, or none.
    #[prost(bool, tag = "5")]
    pub any_tool: bool,
}

/// One upstream of a task, with its scopes.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
pub struct AllowedUpstream {
    /// The upstream's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The scopes, individually; shorthands that the opener used are expanded.
    #[prost(string, repeated, tag = "2")]
    pub scopes: Vec<String>,
}

/// A task was opened.
#[derive(Clone, PartialEq, Message)]
pub struct TaskOpened {
    /// The id.
    #[prost(bytes = "vec", tag = "1")]
    pub task: Vec<u8>,
    /// The parent's id, empty for a root.
    #[prost(bytes = "vec", tag = "2")]
    pub parent: Vec<u8>,
    /// The owner: a person, or the workload that opened the task.
    #[prost(message, optional, tag = "3")]
    pub owner: Option<super::Principal>,
    /// The workload that opened the task.
    #[prost(string, tag = "4")]
    pub opener: String,
    /// Workloads that may act in the task besides the opener.
    #[prost(string, repeated, tag = "5")]
    pub callers: Vec<String>,
    /// The environment.
    #[prost(string, tag = "6")]
    pub environment: String,
    /// The purpose, in the opener's words.
    #[prost(string, tag = "7")]
    pub purpose: String,
    /// The upstreams, scopes, tools and credential kinds that the task may use.
    #[prost(message, optional, tag = "8")]
    pub allowance: Option<Allowance>,
    /// When the opening was decided.
    #[prost(uint64, tag = "9")]
    pub opened_at: u64,
    /// When the task ends.
    #[prost(uint64, tag = "10")]
    pub deadline: u64,
    /// The latest time to which extensions can move the end.
    #[prost(uint64, tag = "11")]
    pub max_deadline: u64,
    /// Milliseconds between heartbeats, 0 for none.
    #[prost(uint64, tag = "12")]
    pub heartbeat: u64,
    /// Version of the environment's policy set that the opening was decided with.
    #[prost(uint64, tag = "13")]
    pub policy_version: u64,
    /// The SVID that the task was opened with.
    #[prost(message, optional, tag = "14")]
    pub svid: Option<super::SvidEvidence>,
    /// The task waits for this approval before it is active.
    #[prost(bytes = "vec", tag = "15")]
    pub approval: Vec<u8>,
    /// The credential that identified the opener, if mayfly issued its SVID, or that the opener presented as a subject token.
    #[prost(bytes = "vec", tag = "16")]
    pub ancestor: Vec<u8>,
    /// The task is a break-glass task, or below one.
    #[prost(bool, tag = "17")]
    pub break_glass: bool,
    /// The subject token that the task was opened with, whose subject is the owner; or the one that the parent task is based on.
    #[prost(message, optional, tag = "21")]
    pub subject_token: Option<super::TokenEvidence>,
    /// The actors, outermost first, if the task itself was opened with a subject token.
    #[prost(message, repeated, tag = "22")]
    pub actors: Vec<super::Principal>,
    /// The rights of the subject according to the subject token.
    #[prost(message, optional, tag = "23")]
    pub subject_claims: Option<super::SubjectClaims>,
    /// If a credential was presented as the subject token: the credentials that it is based on, the oldest first, and then the credential.
    #[prost(message, repeated, tag = "30")]
    pub ancestors: Vec<super::Ancestor>,
}

/// How a task ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash, prost::Enumeration, Serialize, Deserialize)]
#[repr(i32)]
pub enum TaskOutcome {
    /// Never written.
    Unspecified = 0,
    /// The work was completed.
    Completed = 1,
    /// The task was cancelled.
    Cancelled = 2,
    /// The task missed its heartbeat.
    Expired = 3,
    /// An operator or a narrowing ended the task.
    Revoked = 4,
}

/// A task and everything under it ended.
#[derive(Clone, PartialEq, Message)]
pub struct TaskClosed {
    /// The task.
    #[prost(bytes = "vec", tag = "1")]
    pub task: Vec<u8>,
    /// How the task ended.
    #[prost(enumeration = "TaskOutcome", tag = "2")]
    pub outcome: i32,
    /// The reason, in the closer's words.
    #[prost(string, tag = "3")]
    pub reason: String,
    /// The resulting revocation rule is kept at least until then, and as long as anything issued under the task is alive.
    #[prost(uint64, tag = "4")]
    pub keep_until: u64,
}

/// The rank of a hold: only a caller of the same or a higher rank can resume the task.
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

/// A task and everything under it is on hold: refused until resumed.
#[derive(Clone, PartialEq, Message)]
pub struct TaskHeld {
    /// The task.
    #[prost(bytes = "vec", tag = "1")]
    pub task: Vec<u8>,
    /// The rank of the hold.
    #[prost(enumeration = "HoldRank", tag = "2")]
    pub rank: i32,
    /// The reason.
    #[prost(string, tag = "3")]
    pub reason: String,
}

/// A hold ended.
#[derive(Clone, PartialEq, Message)]
pub struct TaskResumed {
    /// The task.
    #[prost(bytes = "vec", tag = "1")]
    pub task: Vec<u8>,
    /// The rank of the caller that resumes the task.
    #[prost(enumeration = "HoldRank", tag = "2")]
    pub rank: i32,
    /// The reason.
    #[prost(string, tag = "3")]
    pub reason: String,
}

/// A task's deadline moved.
#[derive(Clone, PartialEq, Message)]
pub struct TaskExtended {
    /// The task.
    #[prost(bytes = "vec", tag = "1")]
    pub task: Vec<u8>,
    /// The new end.
    #[prost(uint64, tag = "2")]
    pub deadline: u64,
    /// When the extension was decided.
    #[prost(uint64, tag = "3")]
    pub decided_at: u64,
    /// Version of the policy set that the extension was decided with.
    #[prost(uint64, tag = "4")]
    pub policy_version: u64,
    /// The approval that the extension uses up, if one was required.
    #[prost(bytes = "vec", tag = "5")]
    pub approval: Vec<u8>,
    /// The requester, by SPIFFE ID.
    #[prost(string, tag = "6")]
    pub caller: String,
}

/// Tasks that sent heartbeats since the record before.
#[derive(Clone, PartialEq, Message)]
pub struct TaskHeartbeats {
    /// The tasks' ids.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub tasks: Vec<Vec<u8>>,
    /// All tasks receive one full interval, because the server was away.
    #[prost(bool, tag = "2")]
    pub all: bool,
    /// With `all`: since when the server was away, milliseconds. A task that had already missed its heartbeat then does not receive an
    /// interval.
    #[prost(uint64, tag = "3")]
    pub away_since: u64,
}

impl Allowance {
    /// The part of this allowance that goes beyond `other`, in words; `None` if nothing does.
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

/// The part of `mine` that is not in `theirs`, where an empty list means all: `Some(None)` if `mine` is everything and `theirs` is not.
fn beyond<T: PartialEq + Clone>(mine: &[T], theirs: &[T]) -> Option<Option<T>> {
    if theirs.is_empty() {
        return None;
    }
    if mine.is_empty() {
        return Some(None);
    }
    mine.iter().find(|m| !theirs.contains(m)).map(|m| Some(m.clone()))
}
