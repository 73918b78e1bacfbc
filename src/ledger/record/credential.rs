//! Records of credentials: issued, given back, used, refused, and what stands upstream for them.

use prost::Message;
use serde::{Deserialize, Serialize};

use super::Identity;

/// The SVID that a grant rests on.
#[derive(Clone, PartialEq, Eq, Hash, Message, Serialize, Deserialize)]
pub struct SvidEvidence {
    /// SHA-256 of the trust anchor's certificate.
    #[prost(bytes = "vec", tag = "1")]
    pub anchor: Vec<u8>,
    /// SHA-256 of the public key that signed the SVID.
    #[prost(bytes = "vec", tag = "2")]
    pub issuing_key: Vec<u8>,
    /// The SVID's serial number, big endian.
    #[prost(bytes = "vec", tag = "3")]
    pub serial: Vec<u8>,
    /// The SVID's end, milliseconds.
    #[prost(uint64, tag = "4")]
    pub not_after: u64,
}

/// A subject token that a grant rests on.
#[derive(Clone, PartialEq, Eq, Hash, Message, Serialize, Deserialize)]
pub struct TokenEvidence {
    /// Its issuer.
    #[prost(string, tag = "1")]
    pub issuer: String,
    /// Its id.
    #[prost(string, tag = "2")]
    pub id: String,
    /// Its end, milliseconds.
    #[prost(uint64, tag = "3")]
    pub expires_at: u64,
}

/// What a subject token says of its subject's rights, as far as the configuration names the claims.
#[derive(Clone, PartialEq, Eq, Hash, Message, Serialize, Deserialize)]
pub struct SubjectClaims {
    /// The groups.
    #[prost(string, repeated, tag = "1")]
    pub groups: Vec<String>,
    /// The scopes.
    #[prost(string, repeated, tag = "2")]
    pub scopes: Vec<String>,
}

/// A credential that another rests on, and its caller.
#[derive(Clone, PartialEq, Eq, Hash, Message, Serialize, Deserialize)]
pub struct Ancestor {
    /// The credential's id.
    #[prost(bytes = "vec", tag = "1")]
    pub credential: Vec<u8>,
    /// Whom it was issued to.
    #[prost(string, tag = "2")]
    pub caller: String,
}

/// A credential was issued: every claim that no other record gives.
#[derive(Clone, PartialEq, Message)]
pub struct Issued {
    /// Its id: `jti`.
    #[prost(bytes = "vec", tag = "1")]
    pub credential: Vec<u8>,
    /// The task that it hangs on.
    #[prost(bytes = "vec", tag = "2")]
    pub task: Vec<u8>,
    /// The credential kind, by its persisted number.
    #[prost(uint32, tag = "3")]
    pub kind: u32,
    /// Whom it was issued to, by SPIFFE ID.
    #[prost(string, tag = "4")]
    pub caller: String,
    /// On whose behalf, where that is not the caller.
    #[prost(message, optional, tag = "5")]
    pub subject: Option<Identity>,
    /// The actors, outermost first, where there is a subject.
    #[prost(message, repeated, tag = "6")]
    pub actors: Vec<Identity>,
    /// The upstream.
    #[prost(string, tag = "7")]
    pub upstream: String,
    /// The scopes given, sorted.
    #[prost(string, repeated, tag = "8")]
    pub scopes: Vec<String>,
    /// Rich authorization details given (RFC 9396), JSON.
    #[prost(string, tag = "9")]
    pub details: String,
    /// The tool that it serves for.
    #[prost(string, tag = "10")]
    pub tool: String,
    /// What it is for, in the caller's words.
    #[prost(string, tag = "11")]
    pub purpose: String,
    /// SHA-256 of the arguments in RFC 8785 form, empty where none were given.
    #[prost(bytes = "vec", tag = "12")]
    pub arguments: Vec<u8>,
    /// The binding that permits the tool.
    #[prost(string, tag = "13")]
    pub binding: String,
    /// Its environment.
    #[prost(string, tag = "14")]
    pub environment: String,
    /// When it was decided: `iat`.
    #[prost(uint64, tag = "15")]
    pub issued_at: u64,
    /// Its end: `exp`.
    #[prost(uint64, tag = "16")]
    pub expires_at: u64,
    /// No renewal of its line goes beyond this.
    #[prost(uint64, tag = "17")]
    pub renewable_until: u64,
    /// Which bound set its end, by the persisted number of `policy::Bound`.
    #[prost(uint32, tag = "18")]
    pub bound: u32,
    /// The SVID that it rests on.
    #[prost(message, optional, tag = "19")]
    pub svid: Option<SvidEvidence>,
    /// The subject token that it rests on.
    #[prost(message, optional, tag = "20")]
    pub subject_token: Option<TokenEvidence>,
    /// Credentials that it rests on, the first of the line first.
    #[prost(message, repeated, tag = "21")]
    pub ancestors: Vec<Ancestor>,
    /// Id of the key that signed or derived it.
    #[prost(string, tag = "22")]
    pub key: String,
    /// Proof of possession: the certificate's SHA-256 (`x5t#S256`).
    #[prost(bytes = "vec", tag = "23")]
    pub x5t: Vec<u8>,
    /// Proof of possession: a JWK thumbprint (`jkt`).
    #[prost(bytes = "vec", tag = "24")]
    pub jkt: Vec<u8>,
    /// Its status list.
    #[prost(uint64, tag = "25")]
    pub status_list: u64,
    /// Its index in that list.
    #[prost(uint32, tag = "26")]
    pub status_index: u32,
    /// Version of the policy set that it was decided with.
    #[prost(uint64, tag = "27")]
    pub policy_version: u64,
    /// Version of the upstream's registration that it was decided with.
    #[prost(uint64, tag = "28")]
    pub upstream_version: u64,
    /// Version of the binding that it was decided with.
    #[prost(uint64, tag = "29")]
    pub binding_version: u64,
    /// The approval that it uses up.
    #[prost(bytes = "vec", tag = "30")]
    pub approval: Vec<u8>,
    /// Its lease, where something was made upstream.
    #[prost(bytes = "vec", tag = "31")]
    pub lease: Vec<u8>,
    /// SHA-256 of the credential as handed out, where that finds it again (`reference`).
    #[prost(bytes = "vec", tag = "32")]
    pub token_digest: Vec<u8>,
    /// Policies that permitted it, by id.
    #[prost(string, repeated, tag = "33")]
    pub policies: Vec<String>,
    /// The credential that this one renews.
    #[prost(bytes = "vec", tag = "34")]
    pub renews: Vec<u8>,
    /// The credential that was shown as evidence, where one was: the newest of the ancestors.
    #[prost(bytes = "vec", tag = "35")]
    pub shown: Vec<u8>,
    /// The credential of the same request that it replaces: the upstream could not give that one again. The record before it in its
    /// group gives that one back.
    #[prost(bytes = "vec", tag = "36")]
    pub replaces: Vec<u8>,
    /// It was issued in a break-glass task, or below one.
    #[prost(bool, tag = "37")]
    pub break_glass: bool,
    /// What its subject token said of the subject's rights.
    #[prost(message, optional, tag = "41")]
    pub subject_claims: Option<SubjectClaims>,
}

/// A holder gave its credential back.
#[derive(Clone, PartialEq, Message)]
pub struct Released {
    /// The credential.
    #[prost(bytes = "vec", tag = "1")]
    pub credential: Vec<u8>,
    /// The rule that it makes is kept until then.
    #[prost(uint64, tag = "2")]
    pub keep_until: u64,
}

/// An action was authorized, with nothing issued.
#[derive(Clone, PartialEq, Message)]
pub struct Authorized {
    /// The credential that was shown for it. Empty: who acts asked for itself.
    #[prost(bytes = "vec", tag = "1")]
    pub credential: Vec<u8>,
    /// The tool.
    #[prost(string, tag = "2")]
    pub tool: String,
    /// SHA-256 of the arguments.
    #[prost(bytes = "vec", tag = "3")]
    pub arguments: Vec<u8>,
    /// Version of the policy set that it was decided with.
    #[prost(uint64, tag = "4")]
    pub policy_version: u64,
    /// What was decided, as it would have been issued. It has no id and no key.
    #[prost(message, optional, boxed, tag = "5")]
    pub decided: Option<Box<Issued>>,
    /// It is good for an action begun before this, milliseconds.
    #[prost(uint64, tag = "6")]
    pub good_until: u64,
}

/// Where a credential was used, folded per credential, tool, outcome and minute.
#[derive(Clone, PartialEq, Message)]
pub struct UsesReported {
    /// The credential.
    #[prost(bytes = "vec", tag = "1")]
    pub credential: Vec<u8>,
    /// The tool.
    #[prost(string, tag = "2")]
    pub tool: String,
    /// What came of it.
    #[prost(string, tag = "3")]
    pub outcome: String,
    /// The minute, milliseconds of its start.
    #[prost(uint64, tag = "4")]
    pub minute: u64,
    /// How many.
    #[prost(uint64, tag = "5")]
    pub count: u64,
    /// The credential's task.
    #[prost(bytes = "vec", tag = "6")]
    pub task: Vec<u8>,
    /// The tool is none that the credential, or else its task, names.
    #[prost(bool, tag = "7")]
    pub undeclared: bool,
    /// The credential had ended before.
    #[prost(bool, tag = "8")]
    pub after_end: bool,
    /// The upstream.
    #[prost(string, tag = "9")]
    pub upstream: String,
}

/// Outcomes of a use, as records name them.
pub const USE_OUTCOMES: [&str; 3] = ["accepted", "refused", "failed"];

/// Refusals: one with what was asked, or many of one reason counted.
#[derive(Clone, PartialEq, Message)]
pub struct Refused {
    /// Who was refused.
    #[prost(string, tag = "1")]
    pub caller: String,
    /// The reason's text on the wire.
    #[prost(string, tag = "2")]
    pub reason: String,
    /// The rule that refused.
    #[prost(string, tag = "3")]
    pub rule: String,
    /// What was asked for: upstream, or the rpc.
    #[prost(string, tag = "4")]
    pub asked: String,
    /// The task that was named.
    #[prost(string, tag = "5")]
    pub task: String,
    /// When the first of them was.
    #[prost(uint64, tag = "6")]
    pub since: u64,
    /// How many.
    #[prost(uint64, tag = "7")]
    pub count: u64,
    /// What was wanted, where policy refused one exchange.
    #[prost(message, optional, boxed, tag = "8")]
    pub wanted: Option<Box<Wanted>>,
    /// The task that was named is a break-glass task, or below one.
    #[prost(bool, tag = "9")]
    pub break_glass: bool,
}

/// What policy was asked about an exchange that it refused.
#[derive(Clone, PartialEq, Message)]
pub struct Wanted {
    /// The environment.
    #[prost(string, tag = "1")]
    pub environment: String,
    /// The upstream.
    #[prost(string, tag = "2")]
    pub upstream: String,
    /// Version of its registration.
    #[prost(uint64, tag = "3")]
    pub upstream_version: u64,
    /// Version of the policy set.
    #[prost(uint64, tag = "4")]
    pub policy_version: u64,
    /// The task; empty where it would have been opened with it.
    #[prost(bytes = "vec", tag = "5")]
    pub task: Vec<u8>,
    /// The credential kind, by its persisted number.
    #[prost(uint32, tag = "6")]
    pub kind: u32,
    /// The scopes, sorted.
    #[prost(string, repeated, tag = "7")]
    pub scopes: Vec<String>,
    /// The tool.
    #[prost(string, tag = "8")]
    pub tool: String,
    /// What it is for, in the caller's words.
    #[prost(string, tag = "9")]
    pub purpose: String,
    /// SHA-256 of the arguments in RFC 8785 form, empty where none were given.
    #[prost(bytes = "vec", tag = "10")]
    pub arguments: Vec<u8>,
    /// How long it would have lived, milliseconds.
    #[prost(uint64, tag = "11")]
    pub ttl: u64,
    /// It would have renewed another one.
    #[prost(bool, tag = "12")]
    pub renewal: bool,
    /// The binding that covered it.
    #[prost(string, tag = "13")]
    pub binding: String,
    /// On whose behalf, where that is not the caller.
    #[prost(message, optional, tag = "21")]
    pub subject: Option<Identity>,
    /// The actors, outermost first, where there is a subject.
    #[prost(message, repeated, tag = "22")]
    pub actors: Vec<Identity>,
    /// What its subject token said of the subject's rights.
    #[prost(message, optional, tag = "23")]
    pub subject_claims: Option<SubjectClaims>,
}

/// Something is about to be made upstream.
#[derive(Clone, PartialEq, Message)]
pub struct LeaseOpened {
    /// The lease.
    #[prost(bytes = "vec", tag = "1")]
    pub lease: Vec<u8>,
    /// The credential that it is for.
    #[prost(bytes = "vec", tag = "2")]
    pub credential: Vec<u8>,
    /// The task.
    #[prost(bytes = "vec", tag = "3")]
    pub task: Vec<u8>,
    /// The upstream.
    #[prost(string, tag = "4")]
    pub upstream: String,
    /// The credential kind, by its persisted number.
    #[prost(uint32, tag = "5")]
    pub kind: u32,
    /// What undoing needs, without a secret: a role's name, a tag.
    #[prost(string, tag = "6")]
    pub handle: String,
    /// What was made ends by itself then, milliseconds; 0 where it never does.
    #[prost(uint64, tag = "7")]
    pub ends_at: u64,
}

/// How a lease ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash, prost::Enumeration, Serialize, Deserialize)]
#[repr(i32)]
pub enum LeaseEnd {
    /// Never written.
    Unspecified = 0,
    /// Undone, and verified to be gone.
    Undone = 1,
    /// It was never made.
    NeverMade = 2,
    /// An operator gave it up.
    Abandoned = 3,
}

/// What was made upstream is gone, or its undoing was given up.
#[derive(Clone, PartialEq, Message)]
pub struct LeaseClosed {
    /// The lease.
    #[prost(bytes = "vec", tag = "1")]
    pub lease: Vec<u8>,
    /// How it ended.
    #[prost(enumeration = "LeaseEnd", tag = "2")]
    pub end: i32,
    /// What the upstream said.
    #[prost(string, tag = "3")]
    pub detail: String,
}
