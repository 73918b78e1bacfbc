//! Records of approvals (asked for, decided), and of ids that may be used only once.

use prost::Message;
use serde::{Deserialize, Serialize};

use super::{
    Allowance, BindingUpdated, BundleUpdated, Event, PolicySetUpdated, Principal, TaskOpened, UpstreamUpdated, VersionedDocument,
};

/// The kind of action that an approval permits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash, prost::Enumeration, Serialize, Deserialize)]
#[repr(i32)]
pub enum ApprovalKind {
    /// Never written.
    Unspecified = 0,
    /// One issuance.
    Exchange = 1,
    /// The opening of a task that waits for the approval.
    Task = 2,
    /// A later deadline of a task.
    Extension = 3,
    /// A change of policy, binding, upstream or bundle, which takes effect with the approval.
    Change = 4,
    /// One authorized action, for which nothing is issued.
    Action = 5,
    /// One call of an operator: its author sends the same request again after the approval.
    Call = 6,
}

/// A change that waits for a second person.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
pub struct ProposedChangeRecord {
    /// The change.
    #[prost(oneof = "ProposedChange", tags = "1, 2, 3, 4")]
    pub to: Option<ProposedChange>,
}

/// The kinds of change that need a second person.
#[derive(Clone, PartialEq, prost::Oneof, Serialize, Deserialize)]
pub enum ProposedChange {
    /// A policy set.
    #[prost(message, tag = "1")]
    Policy(PolicySetUpdated),
    /// A binding.
    #[prost(message, tag = "2")]
    Binding(BindingUpdated),
    /// An upstream's registration.
    #[prost(message, tag = "3")]
    Upstream(UpstreamUpdated),
    /// A trust domain's bundle.
    #[prost(message, boxed, tag = "4")]
    Bundle(Box<BundleUpdated>),
}

/// An approval was asked for: everything that it binds, and who may give it.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
pub struct ApprovalRequested {
    /// The approval's id.
    #[prost(bytes = "vec", tag = "1")]
    pub approval: Vec<u8>,
    /// SHA-256 over the whole request that the approval binds.
    #[prost(bytes = "vec", tag = "2")]
    pub digest: Vec<u8>,
    /// The requester. For a change: its author, by SPIFFE ID or as `issuer#sub`.
    #[prost(string, tag = "3")]
    pub caller: String,
    /// The task. For an issuance whose task is opened with it: that task's parent, empty for none.
    #[prost(bytes = "vec", tag = "4")]
    pub task: Vec<u8>,
    /// The upstream.
    #[prost(string, tag = "5")]
    pub upstream: String,
    /// The approval is not usable after this, milliseconds.
    #[prost(uint64, tag = "6")]
    pub expires_at: u64,
    /// The kind of action that the approval permits.
    #[prost(enumeration = "ApprovalKind", tag = "7")]
    pub of: i32,
    /// The environment.
    #[prost(string, tag = "8")]
    pub environment: String,
    /// The scopes, sorted.
    #[prost(string, repeated, tag = "9")]
    pub scopes: Vec<String>,
    /// The credential kind, by its persisted number.
    #[prost(uint32, tag = "10")]
    pub kind: u32,
    /// The longest life of the issued credential, milliseconds; for a task, its life including every extension.
    #[prost(uint64, tag = "11")]
    pub ttl: u64,
    /// The tool.
    #[prost(string, tag = "12")]
    pub tool: String,
    /// SHA-256 of the arguments in RFC 8785 form, empty where none were given.
    #[prost(bytes = "vec", tag = "13")]
    pub arguments: Vec<u8>,
    /// The purpose, in the caller's words.
    #[prost(string, tag = "14")]
    pub purpose: String,
    /// Version of the upstream's registration, which names the approvers.
    #[prost(uint64, tag = "15")]
    pub upstream_version: u64,
    /// The binding that permits the tool.
    #[prost(string, tag = "16")]
    pub binding: String,
    /// The binding's version.
    #[prost(uint64, tag = "17")]
    pub binding_version: u64,
    /// The approvers: people by issuer and subject, others by trust domain and SPIFFE ID. Empty for a change: policy names its approvers.
    #[prost(message, repeated, tag = "18")]
    pub approvers: Vec<Principal>,
    /// The policies that require the approval, by id.
    #[prost(string, repeated, tag = "19")]
    pub policies: Vec<String>,
    /// The subject on whose behalf the caller acts, if it is not the caller.
    #[prost(message, optional, tag = "20")]
    pub subject: Option<Principal>,
    /// The actors, outermost first, if there is a subject.
    #[prost(message, repeated, tag = "21")]
    pub actors: Vec<Principal>,
    /// Rich authorization details (RFC 9396), JSON.
    #[prost(string, tag = "22")]
    pub details: String,
    /// The task is opened together with the issuance.
    #[prost(bool, tag = "23")]
    pub opens: bool,
    /// The change that takes effect with the approval.
    #[prost(message, optional, tag = "24")]
    pub change: Option<ProposedChangeRecord>,
    /// The reason in the requester's words; for a change.
    #[prost(string, tag = "25")]
    pub reason: String,
    /// The task that the approval lets be opened, by itself or with the issuance, or that it gives more time.
    #[prost(message, optional, boxed, tag = "26")]
    pub terms: Option<Box<RequestedTask>>,
}

/// The task of an approval, as it is shown to approvers.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
pub struct RequestedTask {
    /// The task's owner.
    #[prost(message, optional, tag = "1")]
    pub owner: Option<Principal>,
    /// The parent task, empty for a root.
    #[prost(bytes = "vec", tag = "2")]
    pub parent: Vec<u8>,
    /// Workloads that may act in the task besides the opener.
    #[prost(string, repeated, tag = "3")]
    pub callers: Vec<String>,
    /// The upstreams, scopes, tools and credential kinds that the task may use.
    #[prost(message, optional, tag = "4")]
    pub allowance: Option<Allowance>,
    /// The task's purpose, in the opener's words.
    #[prost(string, tag = "5")]
    pub purpose: String,
    /// How long the task lives, milliseconds; for a later deadline, how long until then.
    #[prost(uint64, tag = "6")]
    pub ttl: u64,
    /// How long the task lives with every extension, milliseconds.
    #[prost(uint64, tag = "7")]
    pub max_ttl: u64,
    /// Milliseconds between heartbeats, 0 for none.
    #[prost(uint64, tag = "8")]
    pub heartbeat: u64,
    /// The upstreams that require the approval; each registration names its approvers.
    #[prost(message, repeated, tag = "9")]
    pub registrations: Vec<RequestedRegistration>,
    /// The later deadline, milliseconds; 0 when the task is being opened.
    #[prost(uint64, tag = "10")]
    pub deadline: u64,
}

/// A version of a registration that names approvers.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
pub struct RequestedRegistration {
    /// The upstream.
    #[prost(string, tag = "1")]
    pub upstream: String,
    /// The version of its registration.
    #[prost(uint64, tag = "2")]
    pub version: u64,
}

impl RequestedTask {
    /// Describes the task that a record opens; `allowance` is what the task may reach, which the record may not contain yet.
    pub fn opening(opened: &TaskOpened, allowance: &Allowance) -> RequestedTask {
        RequestedTask {
            owner: opened.owner.clone(),
            parent: opened.parent.clone(),
            callers: opened.callers.clone(),
            allowance: Some(allowance.clone()),
            purpose: opened.purpose.clone(),
            ttl: opened.deadline.saturating_sub(opened.opened_at),
            max_ttl: opened.max_deadline.saturating_sub(opened.opened_at),
            heartbeat: opened.heartbeat,
            registrations: Vec::new(),
            deadline: 0,
        }
    }

    /// The first field of `other` that this approved task does not cover. A shorter life is covered by a longer one.
    pub fn differs(&self, other: &RequestedTask) -> Option<&'static str> {
        let same = [
            ("owner", self.owner == other.owner),
            ("parent", self.parent == other.parent),
            ("set of callers", self.callers == other.callers),
            ("reach", self.allowance == other.allowance),
            ("purpose", self.purpose == other.purpose),
            ("heartbeat", self.heartbeat == other.heartbeat),
            ("life", other.ttl <= self.ttl && other.max_ttl <= self.max_ttl),
        ];
        same.into_iter().find(|(_, same)| !same).map(|(what, _)| what)
    }
}

impl ProposedChangeRecord {
    /// The event that records the change once it takes effect.
    pub fn event(&self) -> Option<Event> {
        Some(match self.to.clone()? {
            ProposedChange::Policy(set) => set.into_event(),
            ProposedChange::Binding(set) => set.into_event(),
            ProposedChange::Upstream(set) => set.into_event(),
            ProposedChange::Bundle(set) => Event::BundleSet(*set),
        })
    }
}

/// An approval was given or refused.
#[derive(Clone, PartialEq, Message)]
pub struct ApprovalDecided {
    /// The approval's id.
    #[prost(bytes = "vec", tag = "1")]
    pub approval: Vec<u8>,
    /// True: given; false: refused.
    #[prost(bool, tag = "2")]
    pub given: bool,
    /// The reason.
    #[prost(string, tag = "3")]
    pub reason: String,
    /// The digest of the request as it was shown to the approver, so that nobody approves a different request.
    #[prost(bytes = "vec", tag = "4")]
    pub digest: Vec<u8>,
    /// The login of the approver, if a person who signed in decided.
    #[prost(bytes = "vec", tag = "5")]
    pub login: Vec<u8>,
}

/// An id that may be used only once was used.
#[derive(Clone, PartialEq, Message)]
pub struct UsedOnce {
    /// SHA-256 over the kind of the id and the id.
    #[prost(bytes = "vec", tag = "1")]
    pub digest: Vec<u8>,
    /// The id is remembered until then, milliseconds.
    #[prost(uint64, tag = "2")]
    pub until: u64,
    /// The approval of an operator's call that is used up with this record; empty if the record is about something else.
    #[prost(bytes = "vec", tag = "3")]
    pub approval: Vec<u8>,
}
