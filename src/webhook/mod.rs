//! What webhooks are told: which records are events, and what is said of each. How they are told is in `server::webhook`.
//!
//! An event is made of one record and of what the state says of it beside. It holds ids, names and people's words, stripped of what acts on a
//! screen; never a secret, a token or arguments.

mod event;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;

use crate::seq::{Millis, Seq};

pub use event::{Told, may_be_told, told};

/// Every type of event, in the order of the documentation.
pub const TYPES: &[&str] = &[
    "approval.asked",
    "approval.given",
    "approval.refused",
    "approval.expired",
    "break_glass.opened",
    "break_glass.joined",
    "break_glass.used",
    "break_glass.refused",
    "break_glass.closed",
    "break_glass.reviewed",
    "task.held",
    "revoked",
    "lock.added",
    "lock.lifted",
    "upstream.expiring",
    "owner.left",
    "trust.changed",
    "policy.changed",
    "upstream.changed",
    "binding.changed",
    "key.changed",
    "login",
    "generation.begun",
];

/// The type of an event that somebody asks for to see whether a webhook works.
pub const TEST: &str = "webhook.test";

/// Whether a type is one of those: itself, or all of a group as `break_glass.*`.
pub fn is_of(kind: &str, pattern: &str) -> bool {
    match pattern.strip_suffix(".*") {
        Some(group) => kind.split_once('.').is_some_and(|(of, _)| of == group),
        None => kind == pattern,
    }
}

/// Whether a pattern names any type there is.
pub fn names_some(pattern: &str) -> bool {
    TYPES.iter().any(|kind| is_of(kind, pattern))
}

/// The environment of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Where {
    /// This one.
    In(String),
    /// All of them, like a revocation of everything.
    Everywhere,
    /// It is no longer known.
    Unknown,
}

impl Where {
    /// Whether somebody is told who asked for these environments; none stands for all.
    pub fn fits(&self, environments: &[String]) -> bool {
        environments.is_empty()
            || match self {
                Where::In(of) => environments.contains(of),
                Where::Everywhere => true,
                Where::Unknown => false,
            }
    }
}

/// An event that was given up.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Dead {
    /// Its id, as `webhook-id` had it.
    pub id: String,
    /// Its type.
    pub kind: String,
    /// The seq of its record.
    pub seq: u64,
    /// When it was given up, milliseconds since 1970.
    pub at: u64,
    /// What the last attempt ended with.
    pub problem: String,
}

/// How a webhook stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Its name.
    pub name: String,
    /// Where it is posted to, without the query, which may be a secret.
    pub url: String,
    /// Which events it is told.
    pub events: Vec<String>,
    /// Of which environments; none for all.
    pub environments: Vec<String>,
    /// Everything up to here was taken, or is none of its own, or was given up.
    pub seq: Seq,
    /// Events that were taken since the server started.
    pub delivered: u64,
    /// Attempts that failed since the server started.
    pub failed: u64,
    /// Why the newest event is not taken, where it is not.
    pub problem: String,
    /// Since when it is not.
    pub since: Option<Millis>,
    /// Events that were ever given up.
    pub dead: u64,
    /// The newest of them, the newest last.
    pub dead_newest: Vec<Dead>,
}

/// What came of a test: the status that the receiver answered, or why there was none.
pub type Tested<'a> = Pin<Box<dyn Future<Output = Result<u16, String>> + Send + 'a>>;

/// Those who tell.
pub trait Tellers: Send + Sync {
    /// How each stands.
    fn standing(&self) -> Vec<Standing>;

    /// Sends a test event to one, now; `None` where there is none of that name.
    fn test(&self, name: &str) -> Option<Tested<'_>>;
}
