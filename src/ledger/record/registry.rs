//! Records of what grants are decided with: generations, policy, upstreams, bindings, bundles, keys.

use prost::Message;
use serde::{Deserialize, Serialize};

/// A generation of the log begins; all that was issued before is revoked.
#[derive(Clone, PartialEq, Message)]
pub struct GenerationBegun {
    /// Its number, 1 for the first.
    #[prost(uint32, tag = "1")]
    pub generation: u32,
    /// Why: `created`, `recovered`, `restored`, `migrated`.
    #[prost(string, tag = "2")]
    pub cause: String,
    /// The store's id, 16 random bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub store: Vec<u8>,
    /// The last seq of the generation before that is kept.
    #[prost(uint64, tag = "4")]
    pub after: u64,
    /// Time may begin earlier than the generation before ended.
    #[prost(bool, tag = "5")]
    pub reset_time: bool,
}

/// The policy set of an environment.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
pub struct PolicySet {
    /// The environment.
    #[prost(string, tag = "1")]
    pub environment: String,
    /// One more than the version before; 1 for the first.
    #[prost(uint64, tag = "2")]
    pub version: u64,
    /// SHA-256 of `text`.
    #[prost(bytes = "vec", tag = "3")]
    pub digest: Vec<u8>,
    /// The set in its canonical form.
    #[prost(string, tag = "4")]
    pub text: String,
    /// It only watches beside the enforcing set.
    #[prost(bool, tag = "5")]
    pub audit_only: bool,
    /// It may be narrower than the version before. What was issued up to this seq and it would refuse is revoked in the same group; what was
    /// issued after it is looked for, until a record says that this was done. 0: there is nothing to look for.
    #[prost(uint64, tag = "6")]
    pub looked: u64,
}

/// An upstream's registration.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
pub struct UpstreamSet {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// One more than the version before; 1 for the first.
    #[prost(uint64, tag = "2")]
    pub version: u64,
    /// SHA-256 of `text`.
    #[prost(bytes = "vec", tag = "3")]
    pub digest: Vec<u8>,
    /// The registration in its canonical form.
    #[prost(string, tag = "4")]
    pub text: String,
    /// It issues nothing.
    #[prost(bool, tag = "5")]
    pub disabled: bool,
    /// It will never issue again.
    #[prost(bool, tag = "6")]
    pub retired: bool,
    /// As [`PolicySet::looked`].
    #[prost(uint64, tag = "7")]
    pub looked: u64,
}

/// Decisions that the policy set beside the one in force would have made otherwise, alike and counted.
#[derive(Clone, PartialEq, Message)]
pub struct PolicyDiffered {
    /// The environment.
    #[prost(string, tag = "1")]
    pub environment: String,
    /// Version of the set that would have decided otherwise, among those of its kind.
    #[prost(uint64, tag = "2")]
    pub version: u64,
    /// Version of the set that decided.
    #[prost(uint64, tag = "3")]
    pub enforced: u64,
    /// Who asked. Empty: several.
    #[prost(string, tag = "4")]
    pub caller: String,
    /// The action.
    #[prost(string, tag = "5")]
    pub action: String,
    /// The upstream.
    #[prost(string, tag = "6")]
    pub upstream: String,
    /// It would have permitted; else it would have refused.
    #[prost(bool, tag = "7")]
    pub permits: bool,
    /// The policies by which, by id.
    #[prost(string, repeated, tag = "8")]
    pub policies: Vec<String>,
    /// When the first of them was, milliseconds.
    #[prost(uint64, tag = "9")]
    pub since: u64,
    /// How many.
    #[prost(uint64, tag = "10")]
    pub count: u64,
}

/// What a narrower version has a name for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash, prost::Enumeration, Serialize, Deserialize)]
#[repr(i32)]
pub enum Narrowing {
    /// Never written.
    Unspecified = 0,
    /// The policy set of an environment.
    Policy = 1,
    /// An upstream's registration.
    Upstream = 2,
    /// A binding.
    Binding = 3,
}

/// All that a narrower version would refuse was looked for and revoked, up to the place where it came into force.
#[derive(Clone, PartialEq, Message)]
pub struct Narrowed {
    /// What was narrowed.
    #[prost(enumeration = "Narrowing", tag = "1")]
    pub what: i32,
    /// Its environment or name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// The version.
    #[prost(uint64, tag = "3")]
    pub version: u64,
}

/// An owner of registrations left, or is back.
#[derive(Clone, PartialEq, Message)]
pub struct OwnerLeft {
    /// As registrations name it.
    #[prost(string, tag = "1")]
    pub owner: String,
    /// Why.
    #[prost(string, tag = "2")]
    pub reason: String,
    /// Back again.
    #[prost(bool, tag = "3")]
    pub returned: bool,
}

/// Which workload's tool may use which upstream.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
pub struct BindingSet {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// One more than the version before; 1 for the first.
    #[prost(uint64, tag = "2")]
    pub version: u64,
    /// SHA-256 of `text`.
    #[prost(bytes = "vec", tag = "3")]
    pub digest: Vec<u8>,
    /// The binding in its canonical form.
    #[prost(string, tag = "4")]
    pub text: String,
    /// It permits nothing until somebody approves it.
    #[prost(bool, tag = "5")]
    pub pending: bool,
    /// As [`PolicySet::looked`].
    #[prost(uint64, tag = "6")]
    pub looked: u64,
}

/// A trust domain's bundle.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
pub struct BundleSet {
    /// The trust domain.
    #[prost(string, tag = "1")]
    pub trust_domain: String,
    /// `spiffe_sequence`, where the bundle has one.
    #[prost(uint64, optional, tag = "2")]
    pub sequence: Option<u64>,
    /// SHA-256 of each trust anchor's certificate, sorted.
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub anchors: Vec<Vec<u8>>,
    /// SHA-256 of the document.
    #[prost(bytes = "vec", tag = "4")]
    pub digest: Vec<u8>,
    /// The document, in SPIFFE form: what a start begins with, whatever its source says by then.
    #[prost(bytes = "vec", tag = "5")]
    pub document: Vec<u8>,
    /// Where it came from.
    #[prost(string, tag = "6")]
    pub source: String,
    /// The trust domain is no longer trusted.
    #[prost(bool, tag = "7")]
    pub removed: bool,
    /// SHA-256 of roots that an operator removed, sorted: no source brings them back until an operator adds them.
    #[prost(bytes = "vec", repeated, tag = "8")]
    pub kept_out: Vec<Vec<u8>>,
    /// SHA-256 of roots that an operator added, sorted: no source takes them out.
    #[prost(bytes = "vec", repeated, tag = "9")]
    pub kept_in: Vec<Vec<u8>>,
    /// Why, in the words of the author of the change.
    #[prost(string, tag = "10")]
    pub reason: String,
    /// SHA-256 of the roots that this change added, sorted.
    #[prost(bytes = "vec", repeated, tag = "11")]
    pub added: Vec<Vec<u8>>,
    /// SHA-256 of the roots that this change removed, sorted.
    #[prost(bytes = "vec", repeated, tag = "12")]
    pub gone: Vec<Vec<u8>>,
    /// The seq of the bundle that a change was planned on which waited for a second person, 0 where the trust domain was not known then. With
    /// another bundle in force it does not take effect.
    #[prost(uint64, optional, tag = "13")]
    pub planned_on: Option<u64>,
}

/// What a key of ours is for. One key, one purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash, prost::Enumeration, Serialize, Deserialize)]
#[repr(i32)]
pub enum KeyPurpose {
    /// Never written.
    Unspecified = 0,
    /// Signing access tokens of one issuer path.
    AccessToken = 1,
    /// Deriving reference credentials.
    Reference = 2,
    /// Signing status lists.
    StatusList = 3,
    /// Signing checkpoints.
    Checkpoint = 4,
    /// A certificate authority.
    X509Ca = 5,
    /// An SSH certificate authority.
    SshCa = 6,
    /// Deriving passwords.
    Password = 7,
}

/// The state of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash, prost::Enumeration, Serialize, Deserialize)]
#[repr(i32)]
pub enum KeyState {
    /// Never written.
    Unspecified = 0,
    /// Published, not yet used: verifiers learn it first.
    Next = 1,
    /// Used.
    Active = 2,
    /// Not used, still published: what it made has not ended.
    Retired = 3,
    /// No longer published.
    Removed = 4,
    /// In somebody else's hands. All that it signed is refused.
    Compromised = 5,
}

/// A key of ours.
#[derive(Clone, PartialEq, Message)]
pub struct KeyAdded {
    /// Its id: `kid`.
    #[prost(string, tag = "1")]
    pub key: String,
    /// What it is for.
    #[prost(enumeration = "KeyPurpose", tag = "2")]
    pub purpose: i32,
    /// Its algorithm by its JOSE name.
    #[prost(string, tag = "3")]
    pub algorithm: String,
    /// Its public part: an uncompressed point, empty for a symmetric key.
    #[prost(bytes = "vec", tag = "4")]
    pub public: Vec<u8>,
    /// The environment that it serves.
    #[prost(string, tag = "5")]
    pub environment: String,
    /// The state that it begins in.
    #[prost(enumeration = "KeyState", tag = "6")]
    pub state: i32,
    /// How long it is published before it is used, milliseconds, where an operator said so; 0 for what its purpose has.
    #[prost(uint64, tag = "7")]
    pub publish_ahead: u64,
}

/// A key of ours changed state.
#[derive(Clone, PartialEq, Message)]
pub struct KeyChanged {
    /// Its id.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Its state from here on.
    #[prost(enumeration = "KeyState", tag = "2")]
    pub state: i32,
    /// Why.
    #[prost(string, tag = "3")]
    pub reason: String,
}

/// A snapshot of the state was written.
#[derive(Clone, PartialEq, Message)]
pub struct SnapshotTaken {
    /// The last seq in it.
    #[prost(uint64, tag = "1")]
    pub seq: u64,
    /// The place of the last commit in it.
    #[prost(uint64, tag = "2")]
    pub position: u64,
    /// SHA-256 of the file.
    #[prost(bytes = "vec", tag = "3")]
    pub digest: Vec<u8>,
}

/// Where a writer's chain stands.
#[derive(Clone, PartialEq, Message)]
pub struct ChainEnd {
    /// The writer.
    #[prost(uint32, tag = "1")]
    pub writer: u32,
    /// The number of its commit.
    #[prost(uint64, tag = "2")]
    pub number: u64,
    /// SHA-256 of that commit's header.
    #[prost(bytes = "vec", tag = "3")]
    pub header: Vec<u8>,
}

/// The oldest commits are removed from the store: written before the first of them goes. Without it, a missing beginning is damage.
#[derive(Clone, PartialEq, Message)]
pub struct HistoryRemoved {
    /// The place of the oldest commit that stays.
    #[prost(uint64, tag = "1")]
    pub before: u64,
    /// The seq of the last record that goes.
    #[prost(uint64, tag = "2")]
    pub seq: u64,
    /// Bytes of all commits before that place, since the first there ever was.
    #[prost(uint64, tag = "3")]
    pub bytes: u64,
    /// The time of the newest commit that goes.
    #[prost(uint64, tag = "4")]
    pub time: u64,
    /// Where each writer's chain stands before that place: what stays continues it.
    #[prost(message, repeated, tag = "5")]
    pub chains: Vec<ChainEnd>,
}

/// The store moved to another engine, or was exported.
#[derive(Clone, PartialEq, Message)]
pub struct Maintained {
    /// What was done.
    #[prost(string, tag = "1")]
    pub what: String,
}
