//! Records of static secrets. A record never holds the secret: its sealed value is a named value of the store, and what the record says of
//! the value is a digest under a key that never leaves mayfly, since a short secret could be guessed from an unkeyed one.

use prost::Message;

/// A version of an upstream's secret was stored.
#[derive(Clone, PartialEq, Message)]
pub struct SecretStored {
    /// The upstream.
    #[prost(string, tag = "1")]
    pub upstream: String,
    /// The environment of the upstream.
    #[prost(string, tag = "2")]
    pub environment: String,
    /// One more than the highest version so far; 1 for the first.
    #[prost(uint64, tag = "3")]
    pub version: u64,
    /// The id of the named value that holds the sealed secret, 16 random bytes.
    #[prost(bytes = "vec", tag = "4")]
    pub value: Vec<u8>,
    /// The target of the registration at that time: the secret is handed out for this target only.
    #[prost(string, tag = "5")]
    pub target: String,
    /// HMAC-SHA256 of the secret under a key that is derived from the sealing key.
    #[prost(bytes = "vec", tag = "6")]
    pub digest: Vec<u8>,
    /// The version is handed out from now on; otherwise, only once it was verified.
    #[prost(bool, tag = "7")]
    pub current: bool,
    /// The version that was handed out before is over at once. Otherwise it stays valid until it was revoked at the vendor.
    #[prost(bool, tag = "8")]
    pub ends_previous: bool,
    /// The rotation attempt that made the version. Empty: an operator gave it.
    #[prost(bytes = "vec", tag = "9")]
    pub attempt: Vec<u8>,
}

/// A step in the life of an upstream's secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum SecretStep {
    /// Never written.
    Unspecified = 0,
    /// The version that is handed out is to be rotated.
    RotationRequested = 1,
    /// A rotation began: from now on, the vendor may have made a secret for this attempt.
    RotationBegun = 2,
    /// The version was verified and is handed out from now on.
    Current = 3,
    /// The version is over: revoked at the vendor, or never valid.
    Ended = 4,
    /// All versions are over: an operator removed the secret.
    Removed = 5,
}

/// An upstream's secret changed.
#[derive(Clone, PartialEq, Message)]
pub struct SecretChanged {
    /// The upstream.
    #[prost(string, tag = "1")]
    pub upstream: String,
    /// The environment of the upstream.
    #[prost(string, tag = "2")]
    pub environment: String,
    /// The version that the step is about.
    #[prost(uint64, tag = "3")]
    pub version: u64,
    /// The step.
    #[prost(enumeration = "SecretStep", tag = "4")]
    pub step: i32,
    /// Why.
    #[prost(string, tag = "5")]
    pub reason: String,
    /// The rotation attempt that begins, 16 random bytes.
    #[prost(bytes = "vec", tag = "6")]
    pub attempt: Vec<u8>,
    /// For a requested rotation: the version is revoked at the vendor as soon as another one is in use, without an overlap.
    #[prost(bool, tag = "7")]
    pub at_once: bool,
}
