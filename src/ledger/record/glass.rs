//! Break-glass, step by step.

use prost::Message;
use serde::{Deserialize, Serialize};

/// Which step of a break-glass task was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash, prost::Enumeration, Serialize, Deserialize)]
#[repr(i32)]
pub enum GlassStep {
    /// Written by no version that decided about break-glass: it takes no effect.
    Unspecified = 0,
    /// The first person asked for it. Stands in a group behind the record that opens the task.
    Opened = 1,
    /// The second person joined: it is active.
    Joined = 2,
    /// A third person looked at what was done in it.
    Reviewed = 3,
}

/// A break-glass task was opened, joined or reviewed.
#[derive(Clone, PartialEq, Message)]
pub struct BreakGlass {
    /// The task.
    #[prost(bytes = "vec", tag = "1")]
    pub task: Vec<u8>,
    /// Its people so far: one where it was opened, two from then on.
    #[prost(message, repeated, tag = "2")]
    pub people: Vec<super::Identity>,
    /// The third who reviewed it.
    #[prost(message, optional, tag = "3")]
    pub reviewer: Option<super::Identity>,
    /// What was said.
    #[prost(string, tag = "4")]
    pub text: String,
    /// The rights by their name in policy.
    #[prost(string, tag = "5")]
    pub rights: String,
    /// Which step it is.
    #[prost(enumeration = "GlassStep", tag = "6")]
    pub step: i32,
    /// The SPIFFE ID by which whoever takes the step calls, and acts from then on.
    #[prost(string, tag = "7")]
    pub caller: String,
    /// Version of the environment's policy set that it was decided with.
    #[prost(uint64, tag = "8")]
    pub policy_version: u64,
    /// When it was decided.
    #[prost(uint64, tag = "9")]
    pub decided_at: u64,
    /// The environment.
    #[prost(string, tag = "10")]
    pub environment: String,
    /// The SVID that whoever takes the step called with.
    #[prost(message, optional, tag = "11")]
    pub svid: Option<super::SvidEvidence>,
    /// The credential that they were identified by, where mayfly issued their SVID.
    #[prost(bytes = "vec", tag = "12")]
    pub ancestor: Vec<u8>,
}
