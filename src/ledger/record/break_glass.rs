//! Records of the steps of break-glass.

use prost::Message;
use serde::{Deserialize, Serialize};

/// The step of a break-glass task.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash, prost::Enumeration, Serialize, Deserialize)]
#[repr(i32)]
pub enum BreakGlassStep {
    /// Written only by versions before break-glass was decided step by step: it has no effect.
    Unspecified = 0,
    /// The first person asked for it. Follows, in the same group, the record that opens the task.
    Opened = 1,
    /// The second person joined: the task is active.
    Joined = 2,
    /// A third person reviewed what was done in the task.
    Reviewed = 3,
}

/// A break-glass task was opened, joined or reviewed.
#[derive(Clone, PartialEq, Message)]
pub struct BreakGlassStepTaken {
    /// The task.
    #[prost(bytes = "vec", tag = "1")]
    pub task: Vec<u8>,
    /// The people so far: one when the task was opened, two from then on.
    #[prost(message, repeated, tag = "2")]
    pub people: Vec<super::Principal>,
    /// The third person, who reviewed the task.
    #[prost(message, optional, tag = "3")]
    pub reviewer: Option<super::Principal>,
    /// The statement given with the step.
    #[prost(string, tag = "4")]
    pub text: String,
    /// The name of the rights in policy.
    #[prost(string, tag = "5")]
    pub rights: String,
    /// The step.
    #[prost(enumeration = "BreakGlassStep", tag = "6")]
    pub step: i32,
    /// The SPIFFE ID by which the person who takes the step calls, and acts from then on.
    #[prost(string, tag = "7")]
    pub caller: String,
    /// Version of the environment's policy set that the step was decided with.
    #[prost(uint64, tag = "8")]
    pub policy_version: u64,
    /// When the step was decided.
    #[prost(uint64, tag = "9")]
    pub decided_at: u64,
    /// The environment.
    #[prost(string, tag = "10")]
    pub environment: String,
    /// The SVID that the person who takes the step called with.
    #[prost(message, optional, tag = "11")]
    pub svid: Option<super::SvidEvidence>,
    /// The login credential of that person, if mayfly issued the SVID.
    #[prost(bytes = "vec", tag = "12")]
    pub ancestor: Vec<u8>,
}
