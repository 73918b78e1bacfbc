//! Records of revoking.

use prost::Message;

use super::Identity;

/// What a revocation aims at. `revocation::Target` is its checked form.
#[derive(Clone, PartialEq, Message)]
pub struct TargetRecord {
    /// One of these.
    #[prost(oneof = "Aim", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17")]
    pub aim: Option<Aim>,
}

/// The kinds of target.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Aim {
    /// A credential and what rests on it.
    #[prost(bytes = "vec", tag = "1")]
    Credential(Vec<u8>),
    /// A task and everything under it.
    #[prost(bytes = "vec", tag = "2")]
    Task(Vec<u8>),
    /// A workload.
    #[prost(string, tag = "3")]
    Caller(String),
    /// Workloads whose SPIFFE ID begins with these whole segments.
    #[prost(string, tag = "4")]
    Prefix(String),
    /// All workloads of a trust domain.
    #[prost(string, tag = "5")]
    TrustDomain(String),
    /// All that a trust anchor vouched for: SHA-256 of its certificate.
    #[prost(bytes = "vec", tag = "6")]
    TrustAnchor(Vec<u8>),
    /// Somebody by issuer and subject.
    #[prost(message, tag = "7")]
    Subject(Identity),
    /// An upstream.
    #[prost(string, tag = "8")]
    Upstream(String),
    /// One scope of an upstream: `issuer` is the upstream, `sub` the scope.
    #[prost(message, tag = "9")]
    UpstreamScope(Identity),
    /// A binding.
    #[prost(string, tag = "10")]
    Binding(String),
    /// A tool.
    #[prost(string, tag = "11")]
    Tool(String),
    /// An environment.
    #[prost(string, tag = "12")]
    Environment(String),
    /// What an environment's policy set permitted below a version.
    #[prost(message, tag = "13")]
    PolicyBelow(PolicyBelow),
    /// A signing key of ours.
    #[prost(string, tag = "14")]
    SigningKey(String),
    /// An SVID.
    #[prost(message, tag = "15")]
    Svid(SvidTarget),
    /// A subject token: issuer, and its id as `sub`.
    #[prost(message, tag = "16")]
    SubjectToken(Identity),
    /// Everything.
    #[prost(bool, tag = "17")]
    Everything(bool),
}

/// Policy versions below one.
#[derive(Clone, PartialEq, Message)]
pub struct PolicyBelow {
    /// The environment.
    #[prost(string, tag = "1")]
    pub environment: String,
    /// The first version that is not revoked.
    #[prost(uint64, tag = "2")]
    pub version: u64,
}

/// An SVID by trust domain, issuing key and serial.
#[derive(Clone, PartialEq, Message)]
pub struct SvidTarget {
    /// Its trust domain.
    #[prost(string, tag = "1")]
    pub trust_domain: String,
    /// SHA-256 of the public key that signed it.
    #[prost(bytes = "vec", tag = "2")]
    pub issuing_key: Vec<u8>,
    /// Its serial, big endian.
    #[prost(bytes = "vec", tag = "3")]
    pub serial: Vec<u8>,
}

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
