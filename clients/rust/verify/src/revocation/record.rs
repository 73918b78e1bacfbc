//! The persisted form of targets, in records and snapshots. The tags are frozen.

use std::borrow::Cow;

use prost::Message;

use crate::identity::caller::Caller;
use crate::identity::spiffe_id::SpiffeId;

/// An identity: issuer and subject. A SPIFFE ID is in `sub`, with its trust domain as issuer.
#[derive(Clone, PartialEq, Eq, Hash, Message, serde::Serialize, serde::Deserialize)]
pub struct Principal {
    /// Issuer: a URL, or the trust domain of a SPIFFE ID.
    #[prost(string, tag = "1")]
    pub issuer: String,
    /// The subject at that issuer.
    #[prost(string, tag = "2")]
    pub sub: String,
}

impl Principal {
    /// The identity of a workload.
    pub fn workload(id: &SpiffeId) -> Principal {
        Principal { issuer: id.trust_domain().to_owned(), sub: id.as_str().to_owned() }
    }

    /// The identity of a caller: the person who signed in, else the workload.
    pub fn of(caller: &Caller) -> Principal {
        match caller.person() {
            Some(person) => Principal { issuer: person.issuer.to_string(), sub: person.subject.to_string() },
            None => Principal::workload(caller.id()),
        }
    }

    /// The identity as text: the SPIFFE ID of a workload, or `issuer#sub` of a person, even if the person's `sub` looks like a SPIFFE ID.
    pub fn name(&self) -> String {
        self.name_in_place().into_owned()
    }

    /// The same, borrowed for a workload.
    pub fn name_in_place(&self) -> Cow<'_, str> {
        let domain = self.sub.strip_prefix("spiffe://").and_then(|rest| rest.split('/').next());
        match domain == Some(&self.issuer) {
            true => Cow::Borrowed(&self.sub),
            false => format!("{}#{}", self.issuer, self.sub).into(),
        }
    }
}

/// A revocation target. [`Target`](super::Target) is its validated form.
#[derive(Clone, PartialEq, Message)]
pub struct TargetRecord {
    /// Exactly one of the kinds of target.
    #[prost(oneof = "RecordedTarget", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17")]
    pub aim: Option<RecordedTarget>,
}

/// The kinds of target.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum RecordedTarget {
    /// A credential and everything that depends on it.
    #[prost(bytes = "vec", tag = "1")]
    Credential(Vec<u8>),
    /// A task and everything below it.
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
    /// Everything that a trust anchor vouched for: SHA-256 of its certificate.
    #[prost(bytes = "vec", tag = "6")]
    TrustAnchor(Vec<u8>),
    /// An identity by issuer and subject.
    #[prost(message, tag = "7")]
    Subject(Principal),
    /// An upstream.
    #[prost(string, tag = "8")]
    Upstream(String),
    /// One scope of an upstream: `issuer` is the upstream, `sub` the scope.
    #[prost(message, tag = "9")]
    UpstreamScope(Principal),
    /// A binding.
    #[prost(string, tag = "10")]
    Binding(String),
    /// A tool.
    #[prost(string, tag = "11")]
    Tool(String),
    /// An environment.
    #[prost(string, tag = "12")]
    Environment(String),
    /// Everything permitted by an environment's policy sets below a version.
    #[prost(message, tag = "13")]
    PolicyBelow(PolicyBelow),
    /// A signing key of mayfly.
    #[prost(string, tag = "14")]
    SigningKey(String),
    /// An SVID.
    #[prost(message, tag = "15")]
    Svid(SvidTarget),
    /// A subject token: its issuer, and its id as `sub`.
    #[prost(message, tag = "16")]
    SubjectToken(Principal),
    /// Everything.
    #[prost(bool, tag = "17")]
    Everything(bool),
}

/// The policy versions below a given one.
#[derive(Clone, PartialEq, Message)]
pub struct PolicyBelow {
    /// The environment.
    #[prost(string, tag = "1")]
    pub environment: String,
    /// The first version that is not revoked.
    #[prost(uint64, tag = "2")]
    pub version: u64,
}

/// An SVID by trust domain, issuing key and serial number.
#[derive(Clone, PartialEq, Message)]
pub struct SvidTarget {
    /// The SVID's trust domain.
    #[prost(string, tag = "1")]
    pub trust_domain: String,
    /// SHA-256 of the public key that signed the SVID.
    #[prost(bytes = "vec", tag = "2")]
    pub issuing_key: Vec<u8>,
    /// The SVID's serial number, big endian.
    #[prost(bytes = "vec", tag = "3")]
    pub serial: Vec<u8>,
}
