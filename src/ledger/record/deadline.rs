//! Events caused by the passing of time alone, recorded so that observers are notified.

use prost::Message;
use serde::{Deserialize, Serialize};

/// The kind of event.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash, prost::Enumeration, Serialize, Deserialize)]
#[repr(i32)]
pub enum DeadlineKind {
    /// Never written.
    Unspecified = 0,
    /// An approval was not decided in time.
    Approval = 1,
    /// A registration expires soon.
    Upstream = 2,
}

/// A deadline was reached. The record changes no state: expiry takes effect by time itself. It is written once per event, so that followers
/// of the ledger are notified.
#[derive(Clone, PartialEq, Message)]
pub struct DeadlineReached {
    /// The kind of event.
    #[prost(enumeration = "DeadlineKind", tag = "1")]
    pub of: i32,
    /// The id of the object, if it has one.
    #[prost(bytes = "vec", tag = "2")]
    pub id: Vec<u8>,
    /// The name of the object, if it has one.
    #[prost(string, tag = "3")]
    pub name: String,
    /// The version of the object, if it has one.
    #[prost(uint64, tag = "4")]
    pub version: u64,
    /// The deadline.
    #[prost(uint64, tag = "5")]
    pub at: u64,
    /// The environment of the object.
    #[prost(string, tag = "6")]
    pub environment: String,
    /// The owner of the object.
    #[prost(string, tag = "7")]
    pub owner: String,
}
