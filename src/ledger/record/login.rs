//! Records of people and jobs that sign in with a token of another issuer, and of logins given back.

use prost::Message;

use super::{Principal, SvidEvidence, TokenEvidence};

/// A person or a job signed in and received an X.509-SVID of mayfly's own trust domain: everything that the certificate says, and the
/// evidence for it.
#[derive(Clone, PartialEq, Message)]
pub struct LoggedIn {
    /// The login's id as a credential. The same 16 bytes are the certificate's serial number.
    #[prost(bytes = "vec", tag = "1")]
    pub credential: Vec<u8>,
    /// The person or job: the provider's issuer URL and `sub` there.
    #[prost(message, optional, tag = "2")]
    pub person: Option<Principal>,
    /// The SPIFFE ID of the certificate.
    #[prost(string, tag = "3")]
    pub caller: String,
    /// How the person signed in (RFC 8176), according to the provider.
    #[prost(string, repeated, tag = "4")]
    pub amr: Vec<String>,
    /// Authentication context class; empty if the provider gives none.
    #[prost(string, tag = "5")]
    pub acr: String,
    /// When the person signed in at the provider, milliseconds.
    #[prost(uint64, tag = "6")]
    pub auth_time: u64,
    /// When the login was decided.
    #[prost(uint64, tag = "7")]
    pub issued_at: u64,
    /// The certificate's notAfter.
    #[prost(uint64, tag = "8")]
    pub expires_at: u64,
    /// Id of the CA key that signed the certificate.
    #[prost(string, tag = "9")]
    pub key: String,
    /// The evidence that callers present with the certificate: anchor, CA key, serial, expiry.
    #[prost(message, optional, tag = "10")]
    pub svid: Option<SvidEvidence>,
    /// SHA-256 of the certificate: a different certificate with the same serial is not this login.
    #[prost(bytes = "vec", tag = "11")]
    pub certificate: Vec<u8>,
    /// The ID token that the login is based on, identified by its digest.
    #[prost(message, optional, tag = "12")]
    pub token: Option<TokenEvidence>,
    /// How the token was obtained: `code` or `device`; `attested` for a job's.
    #[prost(string, tag = "13")]
    pub flow: String,
    /// The environment whose policy set permitted the login.
    #[prost(string, tag = "14")]
    pub environment: String,
    /// Version of the policy set.
    #[prost(uint64, tag = "15")]
    pub policy_version: u64,
    /// The policies that permitted the login, by id.
    #[prost(string, repeated, tag = "16")]
    pub policies: Vec<String>,
    /// The provider, by its name in the configuration.
    #[prost(string, tag = "17")]
    pub provider: String,
    /// The job, if a job signed in and not a person.
    #[prost(message, optional, tag = "18")]
    pub job: Option<Attestation>,
}

/// A job admitted by a rule.
#[derive(Clone, PartialEq, Message)]
pub struct Attestation {
    /// The rule, by its name in the configuration.
    #[prost(string, tag = "1")]
    pub rule: String,
    /// The platform's id of the object that the job belongs to (for example, its repository).
    #[prost(string, tag = "2")]
    pub id: String,
    /// Sorted `name=value` pairs: the claims that the rule compared, and those that identify the job.
    #[prost(string, repeated, tag = "3")]
    pub claims: Vec<String>,
}

/// A person gave a login back before it expired.
#[derive(Clone, PartialEq, Message)]
pub struct LoggedOut {
    /// The login.
    #[prost(bytes = "vec", tag = "1")]
    pub credential: Vec<u8>,
}
