//! What time alone brought about, and somebody has to hear of.

use prost::Message;
use serde::{Deserialize, Serialize};

/// What fell due.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash, prost::Enumeration, Serialize, Deserialize)]
#[repr(i32)]
pub enum DueOf {
    /// Never written.
    Unspecified = 0,
    /// Nobody decided about an approval in time.
    Approval = 1,
    /// A registration ends soon.
    Upstream = 2,
}

/// Something fell due. It changes nothing: what time ends is over by its time. Written once for each, so that whoever follows the ledger is told.
#[derive(Clone, PartialEq, Message)]
pub struct FellDue {
    /// What.
    #[prost(enumeration = "DueOf", tag = "1")]
    pub of: i32,
    /// Its id, where it has one.
    #[prost(bytes = "vec", tag = "2")]
    pub id: Vec<u8>,
    /// Its name, where it has one.
    #[prost(string, tag = "3")]
    pub name: String,
    /// Its version, where it has one.
    #[prost(uint64, tag = "4")]
    pub version: u64,
    /// The moment that it is about.
    #[prost(uint64, tag = "5")]
    pub at: u64,
    /// Its environment.
    #[prost(string, tag = "6")]
    pub environment: String,
    /// Who answers for it.
    #[prost(string, tag = "7")]
    pub owner: String,
}
