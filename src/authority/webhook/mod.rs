//! The events of webhooks: which records are events, and what each contains. The delivery is in `server::webhook`.
//!
//! An event is made of one record and of what the state knows about it. It contains ids, names and people's texts, without characters that
//! act on a terminal; never a secret, a token or arguments.

mod event;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;

use mayfly_verify::seq::{Millis, Seq};

pub use event::{WebhookEvent, may_be_event, webhook_event};

/// All types of events, in the order of the documentation.
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
    "secret.changed",
    "login",
    "generation.begun",
    "backup.begun",
    "backup.taken",
    "audit.exported",
];

/// The type of a test event, which is sent on request.
pub const TEST: &str = "webhook.test";

/// Whether a type matches a pattern: a type, or all types of a group like `break_glass.*`.
pub fn is_of(kind: &str, pattern: &str) -> bool {
    match pattern.strip_suffix(".*") {
        Some(group) => kind.split_once('.').is_some_and(|(of, _)| of == group),
        None => kind == pattern,
    }
}

/// Whether a pattern matches any existing type.
pub fn names_some(pattern: &str) -> bool {
    TYPES.iter().any(|kind| is_of(kind, pattern))
}

/// The environment of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventEnvironment {
    /// One environment.
    In(String),
    /// All environments, as for a revocation of everything.
    Everywhere,
    /// The environment is no longer known.
    Unknown,
}

impl EventEnvironment {
    /// Whether a webhook for these environments gets the event; an empty list stands for all.
    pub fn fits(&self, environments: &[String]) -> bool {
        environments.is_empty()
            || match self {
                EventEnvironment::In(of) => environments.contains(of),
                EventEnvironment::Everywhere => true,
                EventEnvironment::Unknown => false,
            }
    }
}

/// An event whose delivery was given up.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DeadLetter {
    /// The id of the event, as sent in `webhook-id`.
    pub id: String,
    /// The type of the event.
    pub kind: String,
    /// The sequence number of its record.
    pub seq: u64,
    /// When delivery was given up, milliseconds since 1970.
    pub at: u64,
    /// The result of the last attempt.
    pub problem: String,
}

/// The state of a webhook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookStatus {
    /// The name of the webhook.
    pub name: String,
    /// The URL without its query, which may be a secret.
    pub url: String,
    /// The types of events that it gets.
    pub events: Vec<String>,
    /// The environments of its events; empty for all.
    pub environments: Vec<String>,
    /// All events up to this sequence number were delivered, filtered out or given up.
    pub seq: Seq,
    /// Events delivered since the server started.
    pub delivered: u64,
    /// Failed attempts since the server started.
    pub failed: u64,
    /// Why the current event cannot be delivered; empty if it can.
    pub problem: String,
    /// Since when it cannot.
    pub since: Option<Millis>,
    /// The number of events ever given up.
    pub dead: u64,
    /// The latest events given up, newest last.
    pub dead_newest: Vec<DeadLetter>,
}

/// The result of a test: the status that the receiver answered, or why there was none.
pub type TestDelivery<'a> = Pin<Box<dyn Future<Output = Result<u16, String>> + Send + 'a>>;

/// The senders of webhooks.
pub trait WebhookSenders: Send + Sync {
    /// The state of each webhook.
    fn standing(&self) -> Vec<WebhookStatus>;

    /// Sends a test event to a webhook at once; `None` if there is none of that name.
    fn test(&self, name: &str) -> Option<TestDelivery<'_>>;
}
