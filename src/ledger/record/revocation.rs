//! Records of revoking.

use prost::Message;

pub use mayfly_verify::revocation::record::{Aim, PolicyBelow, SvidTarget, TargetRecord};

/// Targets were revoked.
#[derive(Clone, PartialEq, Message)]
pub struct Revoked {
    /// 1 to 64 targets.
    #[prost(message, repeated, tag = "1")]
    pub targets: Vec<TargetRecord>,
    /// New grants are not blocked.
    #[prost(bool, tag = "2")]
    pub issued_only: bool,
    /// Why.
    #[prost(string, tag = "3")]
    pub reason: String,
    /// The rule is kept until then, milliseconds; locks stay until lifted.
    #[prost(uint64, tag = "4")]
    pub keep_until: u64,
    /// Only new grants are blocked: a lock, nothing issued is revoked.
    #[prost(bool, tag = "5")]
    pub lock_only: bool,
}

/// Locks were lifted. It brings nothing back.
#[derive(Clone, PartialEq, Message)]
pub struct LockLifted {
    /// 1 to 64 targets.
    #[prost(message, repeated, tag = "1")]
    pub targets: Vec<TargetRecord>,
    /// Why.
    #[prost(string, tag = "2")]
    pub reason: String,
}
