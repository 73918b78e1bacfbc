//! Records of revocations.

use prost::Message;

pub use mayfly_verify::revocation::record::{PolicyBelow, RecordedTarget, SvidTarget, TargetRecord};

/// Targets were revoked.
#[derive(Clone, PartialEq, Message)]
pub struct TargetsRevoked {
    /// 1 to 64 targets.
    #[prost(message, repeated, tag = "1")]
    pub targets: Vec<TargetRecord>,
    /// New grants are not blocked.
    #[prost(bool, tag = "2")]
    pub issued_only: bool,
    /// The reason.
    #[prost(string, tag = "3")]
    pub reason: String,
    /// The rule is kept until then, milliseconds; locks stay until lifted.
    #[prost(uint64, tag = "4")]
    pub keep_until: u64,
    /// A lock: only new grants are blocked, and nothing issued is revoked.
    #[prost(bool, tag = "5")]
    pub lock_only: bool,
}

/// Locks were lifted. Revoked credentials stay revoked.
#[derive(Clone, PartialEq, Message)]
pub struct LockLifted {
    /// 1 to 64 targets.
    #[prost(message, repeated, tag = "1")]
    pub targets: Vec<TargetRecord>,
    /// The reason.
    #[prost(string, tag = "2")]
    pub reason: String,
}
