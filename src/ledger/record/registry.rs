//! Records of the versioned inputs of grants: generations, policy sets, upstreams, bindings, bundles, keys.

use prost::Message;
use serde::{Deserialize, Serialize};

/// A generation of the log begins; everything issued before is revoked.
#[derive(Clone, PartialEq, Message)]
pub struct GenerationBegun {
    /// The generation's number, 1 for the first.
    #[prost(uint32, tag = "1")]
    pub generation: u32,
    /// The cause: `created`, `recovered`, `restored`, `migrated`.
    #[prost(string, tag = "2")]
    pub cause: String,
    /// The store's id, 16 random bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub store: Vec<u8>,
    /// The last seq of the previous generation that is kept.
    #[prost(uint64, tag = "4")]
    pub after: u64,
    /// The time may begin before the end of the previous generation.
    #[prost(bool, tag = "5")]
    pub reset_time: bool,
}

/// The policy set of an environment.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
pub struct PolicySetUpdated {
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
    /// The set is a shadow policy set beside the enforced one.
    #[prost(bool, tag = "5")]
    pub audit_only: bool,
    /// The version may be narrower than the one before. Credentials issued up to this seq that the new version would refuse are revoked in
    /// the same group; those issued after it are searched for until a record says that the search is complete. 0: nothing to search for.
    #[prost(uint64, tag = "6")]
    pub looked: u64,
}

/// An upstream's registration.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
pub struct UpstreamUpdated {
    /// The name.
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
    /// The upstream is disabled: nothing is issued for it.
    #[prost(bool, tag = "5")]
    pub disabled: bool,
    /// The upstream is retired: nothing will ever be issued for it again.
    #[prost(bool, tag = "6")]
    pub retired: bool,
    /// As [`PolicySetUpdated::looked`].
    #[prost(uint64, tag = "7")]
    pub looked: u64,
}

/// Decisions that the shadow policy set would have made differently, aggregated and counted.
#[derive(Clone, PartialEq, Message)]
pub struct PolicyDiffered {
    /// The environment.
    #[prost(string, tag = "1")]
    pub environment: String,
    /// Version of the shadow set.
    #[prost(uint64, tag = "2")]
    pub version: u64,
    /// Version of the set that decided.
    #[prost(uint64, tag = "3")]
    pub enforced: u64,
    /// The caller. Empty: several callers.
    #[prost(string, tag = "4")]
    pub caller: String,
    /// The action.
    #[prost(string, tag = "5")]
    pub action: String,
    /// The upstream.
    #[prost(string, tag = "6")]
    pub upstream: String,
    /// True: the shadow set would have permitted; false: it would have refused.
    #[prost(bool, tag = "7")]
    pub permits: bool,
    /// The policies of the shadow set that decided, by id.
    #[prost(string, repeated, tag = "8")]
    pub policies: Vec<String>,
    /// When the first of these decisions was made, milliseconds.
    #[prost(uint64, tag = "9")]
    pub since: u64,
    /// Number of decisions.
    #[prost(uint64, tag = "10")]
    pub count: u64,
}

/// The kinds of object that can be narrowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash, prost::Enumeration, Serialize, Deserialize)]
#[repr(i32)]
pub enum NarrowedKind {
    /// Never written.
    Unspecified = 0,
    /// The policy set of an environment.
    Policy = 1,
    /// An upstream's registration.
    Upstream = 2,
    /// A binding.
    Binding = 3,
}

/// Everything that a narrower version would refuse was searched for and revoked, up to the place where that version took effect.
#[derive(Clone, PartialEq, Message)]
pub struct NarrowingCompleted {
    /// The kind of object.
    #[prost(enumeration = "NarrowedKind", tag = "1")]
    pub what: i32,
    /// The object's environment or name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// The version.
    #[prost(uint64, tag = "3")]
    pub version: u64,
}

/// An owner of registrations left, or returned.
#[derive(Clone, PartialEq, Message)]
pub struct OwnerLeft {
    /// The owner, as registrations name it.
    #[prost(string, tag = "1")]
    pub owner: String,
    /// Why.
    #[prost(string, tag = "2")]
    pub reason: String,
    /// True: the owner returned.
    #[prost(bool, tag = "3")]
    pub returned: bool,
}

/// Which workload's tool may use which upstream.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
pub struct BindingUpdated {
    /// The name.
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
    /// The binding is a proposal: it permits nothing until somebody approves it.
    #[prost(bool, tag = "5")]
    pub pending: bool,
    /// As [`PolicySetUpdated::looked`].
    #[prost(uint64, tag = "6")]
    pub looked: u64,
}

/// A trust domain's bundle.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
pub struct BundleUpdated {
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
    /// The document, in SPIFFE form: a start begins with it, whatever the source of the bundle offers by then.
    #[prost(bytes = "vec", tag = "5")]
    pub document: Vec<u8>,
    /// The source of the bundle.
    #[prost(string, tag = "6")]
    pub source: String,
    /// The trust domain is no longer trusted.
    #[prost(bool, tag = "7")]
    pub removed: bool,
    /// SHA-256 of roots that an operator removed, sorted: no source can bring them back until an operator adds them.
    #[prost(bytes = "vec", repeated, tag = "8")]
    pub kept_out: Vec<Vec<u8>>,
    /// SHA-256 of roots that an operator added, sorted: no source can remove them.
    #[prost(bytes = "vec", repeated, tag = "9")]
    pub kept_in: Vec<Vec<u8>>,
    /// The reason, in the words of the author of the change.
    #[prost(string, tag = "10")]
    pub reason: String,
    /// SHA-256 of the roots that this change added, sorted.
    #[prost(bytes = "vec", repeated, tag = "11")]
    pub added: Vec<Vec<u8>>,
    /// SHA-256 of the roots that this change removed, sorted.
    #[prost(bytes = "vec", repeated, tag = "12")]
    pub gone: Vec<Vec<u8>>,
    /// For a change that waited for a second person: the seq of the bundle that it was planned on, 0 if the trust domain was not known
    /// then. If another bundle is in effect, the change has no effect.
    #[prost(uint64, optional, tag = "13")]
    pub planned_on: Option<u64>,
}

/// The purpose of a key. Each key has one purpose.
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
    /// The certificate authority of mayfly's own trust domain.
    X509Ca = 5,
    /// The SSH certificate authority of one upstream.
    SshCa = 6,
    /// Deriving passwords.
    Password = 7,
    /// Signing the workload-identity assertions of one upstream, under an issuer path of its own.
    Federation = 8,
    /// The X.509 certificate authority of one upstream.
    UpstreamCa = 9,
}

/// The part of an upstream's path between the environment and the name of the upstream.
const FEDERATION_PATH: &str = "/upstreams/";

/// The path of an upstream below the base of all issuers: of the issuer of its assertions, and of its certificate authorities. Keys of
/// purpose [`KeyPurpose::Federation`], [`KeyPurpose::UpstreamCa`] and [`KeyPurpose::SshCa`] have it in place of their environment. `None` for an upstream or an environment whose name has a slash: two of them could have the same path.
pub fn upstream_path(environment: &str, upstream: &str) -> Option<String> {
    let plain = !environment.contains('/') && !upstream.contains('/');
    plain.then(|| format!("{environment}{FEDERATION_PATH}{upstream}"))
}

impl KeyPurpose {
    /// The environment of a key that serves `place`: the field `environment` of its record.
    pub fn environment_of(self, place: &str) -> &str {
        match self {
            KeyPurpose::Federation | KeyPurpose::UpstreamCa | KeyPurpose::SshCa => {
                place.rsplit_once(FEDERATION_PATH).map_or(place, |(environment, _)| environment)
            }
            _ => place,
        }
    }
}

/// The state of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash, prost::Enumeration, Serialize, Deserialize)]
#[repr(i32)]
pub enum KeyState {
    /// Never written.
    Unspecified = 0,
    /// Published, not yet used, so that verifiers learn it first.
    Next = 1,
    /// In use.
    Active = 2,
    /// No longer used, still published: credentials made with it have not expired.
    Retired = 3,
    /// No longer published.
    Removed = 4,
    /// Compromised. Everything that it signed is refused.
    Compromised = 5,
}

/// A key of mayfly.
#[derive(Clone, PartialEq, Message)]
pub struct KeyAdded {
    /// The key's id: `kid`.
    #[prost(string, tag = "1")]
    pub key: String,
    /// The key's purpose.
    #[prost(enumeration = "KeyPurpose", tag = "2")]
    pub purpose: i32,
    /// The JOSE name of the algorithm.
    #[prost(string, tag = "3")]
    pub algorithm: String,
    /// The public key: an uncompressed point, an `RSAPublicKey` in DER (RFC 8017, A.1.1), or empty for a symmetric key.
    #[prost(bytes = "vec", tag = "4")]
    pub public: Vec<u8>,
    /// The environment that the key serves; for [`KeyPurpose::Federation`] the issuer path, as of [`upstream_path`].
    #[prost(string, tag = "5")]
    pub environment: String,
    /// The key's first state.
    #[prost(enumeration = "KeyState", tag = "6")]
    pub state: i32,
    /// How long the key is published before it is used, milliseconds, if an operator set it; 0 for the default of the purpose.
    #[prost(uint64, tag = "7")]
    pub publish_ahead: u64,
}

/// A key of mayfly changed state.
#[derive(Clone, PartialEq, Message)]
pub struct KeyChanged {
    /// The key's id.
    #[prost(string, tag = "1")]
    pub key: String,
    /// The new state.
    #[prost(enumeration = "KeyState", tag = "2")]
    pub state: i32,
    /// Why.
    #[prost(string, tag = "3")]
    pub reason: String,
}

/// A snapshot of the state was written.
#[derive(Clone, PartialEq, Message)]
pub struct SnapshotTaken {
    /// The last seq in the snapshot.
    #[prost(uint64, tag = "1")]
    pub seq: u64,
    /// The position of the last commit in the snapshot.
    #[prost(uint64, tag = "2")]
    pub position: u64,
    /// SHA-256 of the file.
    #[prost(bytes = "vec", tag = "3")]
    pub digest: Vec<u8>,
}

/// The head of a writer's chain.
#[derive(Clone, PartialEq, Message)]
pub struct WriterHeadRecord {
    /// The writer.
    #[prost(uint32, tag = "1")]
    pub writer: u32,
    /// The number of the writer's newest commit.
    #[prost(uint64, tag = "2")]
    pub number: u64,
    /// SHA-256 of that commit's header.
    #[prost(bytes = "vec", tag = "3")]
    pub header: Vec<u8>,
}

/// The oldest commits are removed from the store. This record is written before the first of them is removed; without it, a missing
/// beginning is damage.
#[derive(Clone, PartialEq, Message)]
pub struct HistoryRemoved {
    /// The position of the oldest commit that stays.
    #[prost(uint64, tag = "1")]
    pub before: u64,
    /// The seq of the last removed record.
    #[prost(uint64, tag = "2")]
    pub seq: u64,
    /// Bytes of all commits before that position, since the first commit of the ledger.
    #[prost(uint64, tag = "3")]
    pub bytes: u64,
    /// The time of the newest removed commit.
    #[prost(uint64, tag = "4")]
    pub time: u64,
    /// Each writer's chain head before that position; the kept commits continue it.
    #[prost(message, repeated, tag = "5")]
    pub chains: Vec<WriterHeadRecord>,
}

/// The store moved to another engine, or was exported.
#[derive(Clone, PartialEq, Message)]
pub struct Maintained {
    /// The maintenance that was done, in words.
    #[prost(string, tag = "1")]
    pub what: String,
}
