//! Records of credentials: issued, given back, used, refused; and of their leases at upstreams.

use prost::Message;
use serde::{Deserialize, Serialize};

use super::Principal;

/// The SVID that a grant is based on.
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
    /// When the SVID expires, milliseconds.
    #[prost(uint64, tag = "4")]
    pub not_after: u64,
}

/// The subject token that a grant is based on.
#[derive(Clone, PartialEq, Eq, Hash, Message, Serialize, Deserialize)]
pub struct TokenEvidence {
    /// The token's issuer.
    #[prost(string, tag = "1")]
    pub issuer: String,
    /// The token's id.
    #[prost(string, tag = "2")]
    pub id: String,
    /// When the token expires, milliseconds.
    #[prost(uint64, tag = "3")]
    pub expires_at: u64,
}

/// The subject's groups and scopes according to a subject token, as far as the configuration names the claims.
#[derive(Clone, PartialEq, Eq, Hash, Message, Serialize, Deserialize)]
pub struct SubjectClaims {
    /// The groups.
    #[prost(string, repeated, tag = "1")]
    pub groups: Vec<String>,
    /// The scopes.
    #[prost(string, repeated, tag = "2")]
    pub scopes: Vec<String>,
}

/// A credential that another credential is based on, with its caller.
#[derive(Clone, PartialEq, Eq, Hash, Message, Serialize, Deserialize)]
pub struct Ancestor {
    /// The credential's id.
    #[prost(bytes = "vec", tag = "1")]
    pub credential: Vec<u8>,
    /// The caller that it was issued to.
    #[prost(string, tag = "2")]
    pub caller: String,
}

/// A credential was issued: every claim that no other record contains.
#[derive(Clone, PartialEq, Message)]
pub struct CredentialIssued {
    /// The credential's id: `jti`.
    #[prost(bytes = "vec", tag = "1")]
    pub credential: Vec<u8>,
    /// The task that the credential belongs to.
    #[prost(bytes = "vec", tag = "2")]
    pub task: Vec<u8>,
    /// The credential kind, by its persisted number.
    #[prost(uint32, tag = "3")]
    pub kind: u32,
    /// The caller that it was issued to, by SPIFFE ID.
    #[prost(string, tag = "4")]
    pub caller: String,
    /// The subject on whose behalf the caller acts, if it is not the caller.
    #[prost(message, optional, tag = "5")]
    pub subject: Option<Principal>,
    /// The actors, outermost first, if there is a subject.
    #[prost(message, repeated, tag = "6")]
    pub actors: Vec<Principal>,
    /// The upstream.
    #[prost(string, tag = "7")]
    pub upstream: String,
    /// The granted scopes, sorted.
    #[prost(string, repeated, tag = "8")]
    pub scopes: Vec<String>,
    /// The granted rich authorization details (RFC 9396), JSON.
    #[prost(string, tag = "9")]
    pub details: String,
    /// The tool that the credential serves for.
    #[prost(string, tag = "10")]
    pub tool: String,
    /// The purpose, in the caller's words.
    #[prost(string, tag = "11")]
    pub purpose: String,
    /// SHA-256 of the arguments in RFC 8785 form, empty where none were given.
    #[prost(bytes = "vec", tag = "12")]
    pub arguments: Vec<u8>,
    /// The binding that permits the tool.
    #[prost(string, tag = "13")]
    pub binding: String,
    /// The environment.
    #[prost(string, tag = "14")]
    pub environment: String,
    /// When the grant was decided: `iat`.
    #[prost(uint64, tag = "15")]
    pub issued_at: u64,
    /// When the credential expires: `exp`.
    #[prost(uint64, tag = "16")]
    pub expires_at: u64,
    /// The latest expiry of any renewal of this credential, in milliseconds.
    #[prost(uint64, tag = "17")]
    pub renewable_until: u64,
    /// The bound that set the expiry, by the persisted number of `policy::lifetime::LifetimeBound`.
    #[prost(uint32, tag = "18")]
    pub bound: u32,
    /// The SVID that the grant is based on.
    #[prost(message, optional, tag = "19")]
    pub svid: Option<SvidEvidence>,
    /// The subject token that the grant is based on.
    #[prost(message, optional, tag = "20")]
    pub subject_token: Option<TokenEvidence>,
    /// The ancestors: credentials that this one is based on, the oldest first.
    #[prost(message, repeated, tag = "21")]
    pub ancestors: Vec<Ancestor>,
    /// Id of the key that signed or derived the credential.
    #[prost(string, tag = "22")]
    pub key: String,
    /// Proof of possession: the certificate's SHA-256 (`x5t#S256`).
    #[prost(bytes = "vec", tag = "23")]
    pub x5t: Vec<u8>,
    /// Proof of possession: a JWK thumbprint (`jkt`).
    #[prost(bytes = "vec", tag = "24")]
    pub jkt: Vec<u8>,
    /// The credential's status list.
    #[prost(uint64, tag = "25")]
    pub status_list: u64,
    /// The credential's index in that list.
    #[prost(uint32, tag = "26")]
    pub status_index: u32,
    /// Version of the policy set that the grant was decided with.
    #[prost(uint64, tag = "27")]
    pub policy_version: u64,
    /// Version of the upstream's registration that the grant was decided with.
    #[prost(uint64, tag = "28")]
    pub upstream_version: u64,
    /// Version of the binding that the grant was decided with.
    #[prost(uint64, tag = "29")]
    pub binding_version: u64,
    /// The approval that the issuance uses up.
    #[prost(bytes = "vec", tag = "30")]
    pub approval: Vec<u8>,
    /// The lease, if something was created at the upstream.
    #[prost(bytes = "vec", tag = "31")]
    pub lease: Vec<u8>,
    /// SHA-256 of the credential as handed out, for kinds that are looked up by it (`reference`).
    #[prost(bytes = "vec", tag = "32")]
    pub token_digest: Vec<u8>,
    /// The policies that permitted the grant, by id.
    #[prost(string, repeated, tag = "33")]
    pub policies: Vec<String>,
    /// The credential that this one renews.
    #[prost(bytes = "vec", tag = "34")]
    pub renews: Vec<u8>,
    /// The credential presented as evidence, if any: the newest of the ancestors.
    #[prost(bytes = "vec", tag = "35")]
    pub shown: Vec<u8>,
    /// The credential of the same request that this one replaces, because the upstream could not return that one again. The record before
    /// this one in the group gives the replaced credential back.
    #[prost(bytes = "vec", tag = "36")]
    pub replaces: Vec<u8>,
    /// The credential was issued in a break-glass task, or in a task below one.
    #[prost(bool, tag = "37")]
    pub break_glass: bool,
    /// The rights of the subject according to its subject token.
    #[prost(message, optional, tag = "41")]
    pub subject_claims: Option<SubjectClaims>,
    /// The access of the credential at its upstream, in words. Empty for kinds that mayfly makes itself.
    #[prost(string, repeated, tag = "42")]
    pub access: Vec<String>,
    /// The public key that a certificate is for: SubjectPublicKeyInfo in DER for kind `x509`, the key's blob of RFC 4253, section 6.6, for
    /// kind `ssh`. Empty for other kinds.
    #[prost(bytes = "vec", tag = "80")]
    pub certified_key: Vec<u8>,
}

/// A holder gave its credential back.
#[derive(Clone, PartialEq, Message)]
pub struct CredentialReleased {
    /// The credential.
    #[prost(bytes = "vec", tag = "1")]
    pub credential: Vec<u8>,
    /// The resulting revocation rule is kept until then.
    #[prost(uint64, tag = "2")]
    pub keep_until: u64,
}

/// An action was authorized without issuing a credential.
#[derive(Clone, PartialEq, Message)]
pub struct ActionAuthorized {
    /// The credential presented for the action. Empty: the acting workload asked by itself.
    #[prost(bytes = "vec", tag = "1")]
    pub credential: Vec<u8>,
    /// The tool.
    #[prost(string, tag = "2")]
    pub tool: String,
    /// SHA-256 of the arguments.
    #[prost(bytes = "vec", tag = "3")]
    pub arguments: Vec<u8>,
    /// Version of the policy set that the authorization was decided with.
    #[prost(uint64, tag = "4")]
    pub policy_version: u64,
    /// The decision, in the form of an issuance without an id and a key.
    #[prost(message, optional, boxed, tag = "5")]
    pub decided: Option<Box<CredentialIssued>>,
    /// The authorization is valid for an action begun before this, milliseconds.
    #[prost(uint64, tag = "6")]
    pub good_until: u64,
}

/// Uses of a credential, aggregated per credential, tool, outcome and minute.
#[derive(Clone, PartialEq, Message)]
pub struct UsesReported {
    /// The credential.
    #[prost(bytes = "vec", tag = "1")]
    pub credential: Vec<u8>,
    /// The tool.
    #[prost(string, tag = "2")]
    pub tool: String,
    /// The outcome.
    #[prost(string, tag = "3")]
    pub outcome: String,
    /// The start of the minute, milliseconds.
    #[prost(uint64, tag = "4")]
    pub minute: u64,
    /// Number of uses.
    #[prost(uint64, tag = "5")]
    pub count: u64,
    /// The credential's task.
    #[prost(bytes = "vec", tag = "6")]
    pub task: Vec<u8>,
    /// The tool is not one that the credential, or else its task, names.
    #[prost(bool, tag = "7")]
    pub undeclared: bool,
    /// The credential had already ended.
    #[prost(bool, tag = "8")]
    pub after_end: bool,
    /// The upstream.
    #[prost(string, tag = "9")]
    pub upstream: String,
}

/// The outcomes of a use, as records name them.
pub const USE_OUTCOMES: [&str; 3] = ["accepted", "refused", "failed"];

/// Refusals: a single one with what was asked for, or a count of refusals with one reason.
#[derive(Clone, PartialEq, Message)]
pub struct RequestsRefused {
    /// The caller that was refused.
    #[prost(string, tag = "1")]
    pub caller: String,
    /// The reason code on the wire.
    #[prost(string, tag = "2")]
    pub reason: String,
    /// The rule that refused.
    #[prost(string, tag = "3")]
    pub rule: String,
    /// The upstream that was asked for, or the rpc.
    #[prost(string, tag = "4")]
    pub asked: String,
    /// The task named in the request.
    #[prost(string, tag = "5")]
    pub task: String,
    /// When the first of the refusals was.
    #[prost(uint64, tag = "6")]
    pub since: u64,
    /// Number of refusals.
    #[prost(uint64, tag = "7")]
    pub count: u64,
    /// The request, when policy refused a single exchange.
    #[prost(message, optional, boxed, tag = "8")]
    pub wanted: Option<Box<RefusedExchange>>,
    /// The task named in the request is a break-glass task, or below one.
    #[prost(bool, tag = "9")]
    pub break_glass: bool,
}

/// The exchange request that policy refused.
#[derive(Clone, PartialEq, Message)]
pub struct RefusedExchange {
    /// The environment.
    #[prost(string, tag = "1")]
    pub environment: String,
    /// The upstream.
    #[prost(string, tag = "2")]
    pub upstream: String,
    /// Version of the upstream's registration.
    #[prost(uint64, tag = "3")]
    pub upstream_version: u64,
    /// Version of the policy set.
    #[prost(uint64, tag = "4")]
    pub policy_version: u64,
    /// The task; empty if the exchange would have opened one.
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
    /// The purpose, in the caller's words.
    #[prost(string, tag = "9")]
    pub purpose: String,
    /// SHA-256 of the arguments in RFC 8785 form, empty where none were given.
    #[prost(bytes = "vec", tag = "10")]
    pub arguments: Vec<u8>,
    /// How long the credential would have lived, milliseconds.
    #[prost(uint64, tag = "11")]
    pub ttl: u64,
    /// The credential would have renewed another one.
    #[prost(bool, tag = "12")]
    pub renewal: bool,
    /// The binding that covered the request.
    #[prost(string, tag = "13")]
    pub binding: String,
    /// The subject on whose behalf the caller acts, if it is not the caller.
    #[prost(message, optional, tag = "21")]
    pub subject: Option<Principal>,
    /// The actors, outermost first, if there is a subject.
    #[prost(message, repeated, tag = "22")]
    pub actors: Vec<Principal>,
    /// The rights of the subject according to its subject token.
    #[prost(message, optional, tag = "23")]
    pub subject_claims: Option<SubjectClaims>,
    /// The requested rich authorization details (RFC 9396), JSON.
    #[prost(string, tag = "24")]
    pub details: String,
}

/// A lease was opened: something is about to be created at an upstream.
#[derive(Clone, PartialEq, Message)]
pub struct LeaseOpened {
    /// The lease.
    #[prost(bytes = "vec", tag = "1")]
    pub lease: Vec<u8>,
    /// The credential that the lease is for.
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
    /// Data needed to undo the lease, without a secret: a role's name, a tag.
    #[prost(string, tag = "6")]
    pub handle: String,
    /// When the created object ends by itself, milliseconds; 0 if it never does.
    #[prost(uint64, tag = "7")]
    pub ends_at: u64,
    /// The terms under which the lease is undone, without a secret: the address of the upstream and the choices of its registration, as the
    /// kind writes them. Empty for a kind that needs none.
    #[prost(string, tag = "8")]
    pub terms: String,
}

/// How a lease ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash, prost::Enumeration, Serialize, Deserialize)]
#[repr(i32)]
pub enum LeaseEnd {
    /// Never written.
    Unspecified = 0,
    /// Undone, and verified to be gone.
    Undone = 1,
    /// Nothing was created.
    NeverMade = 2,
    /// An operator abandoned it.
    Abandoned = 3,
}

/// A lease was closed: the object at the upstream is gone, or undoing it was abandoned.
#[derive(Clone, PartialEq, Message)]
pub struct LeaseClosed {
    /// The lease.
    #[prost(bytes = "vec", tag = "1")]
    pub lease: Vec<u8>,
    /// How the lease ended.
    #[prost(enumeration = "LeaseEnd", tag = "2")]
    pub end: i32,
    /// The upstream's answer.
    #[prost(string, tag = "3")]
    pub detail: String,
}
