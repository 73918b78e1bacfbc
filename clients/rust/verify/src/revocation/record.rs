//! A target in the form that is kept: what records and snapshots hold. The tags are persisted and frozen.

use std::borrow::Cow;

use prost::Message;

use crate::identity::caller::Caller;
use crate::identity::spiffe_id::SpiffeId;

/// Somebody by issuer and subject. A SPIFFE ID stands in `sub` with its trust domain as issuer.
#[derive(Clone, PartialEq, Eq, Hash, Message, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// Issuer: a URL, or the trust domain of a SPIFFE ID.
    #[prost(string, tag = "1")]
    pub issuer: String,
    /// Subject in that issuer.
    #[prost(string, tag = "2")]
    pub sub: String,
}

impl Identity {
    /// A workload's.
    pub fn workload(id: &SpiffeId) -> Identity {
        Identity { issuer: id.trust_domain().to_owned(), sub: id.as_str().to_owned() }
    }

    /// Whoever calls: a person who signed in, else the workload.
    pub fn of(caller: &Caller) -> Identity {
        match caller.person() {
            Some(person) => Identity { issuer: person.issuer.to_string(), sub: person.subject.to_string() },
            None => Identity::workload(caller.id()),
        }
    }

    /// A workload by its SPIFFE ID, a person by issuer and subject: also one whose issuer calls it like a workload.
    pub fn name(&self) -> String {
        self.name_in_place().into_owned()
    }

    /// The same, borrowed where it is a workload's.
    pub fn name_in_place(&self) -> Cow<'_, str> {
        let domain = self.sub.strip_prefix("spiffe://").and_then(|rest| rest.split('/').next());
        match domain == Some(&self.issuer) {
            true => Cow::Borrowed(&self.sub),
            false => format!("{}#{}", self.issuer, self.sub).into(),
        }
    }
}

/// What a revocation aims at. [`Target`](super::Target) is its checked form.
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
