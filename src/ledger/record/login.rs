//! Records of those who sign in with a token of somebody else's, people and jobs, and of those who gave that back.

use prost::Message;

use super::{Identity, SvidEvidence, TokenEvidence};

/// A person or a job signed in and got an X.509-SVID of our own trust domain: everything that the certificate says, and what it rests on.
#[derive(Clone, PartialEq, Message)]
pub struct LoggedIn {
    /// Its id as a credential. The same 16 bytes are the certificate's serial number.
    #[prost(bytes = "vec", tag = "1")]
    pub credential: Vec<u8>,
    /// Who: the provider's issuer URL and `sub` there.
    #[prost(message, optional, tag = "2")]
    pub person: Option<Identity>,
    /// The SPIFFE ID of the certificate.
    #[prost(string, tag = "3")]
    pub caller: String,
    /// How the person signed in (RFC 8176), as the provider says it.
    #[prost(string, repeated, tag = "4")]
    pub amr: Vec<String>,
    /// Authentication context class; empty where the provider gives none.
    #[prost(string, tag = "5")]
    pub acr: String,
    /// When the person signed in at the provider, milliseconds.
    #[prost(uint64, tag = "6")]
    pub auth_time: u64,
    /// When it was decided.
    #[prost(uint64, tag = "7")]
    pub issued_at: u64,
    /// The certificate's notAfter.
    #[prost(uint64, tag = "8")]
    pub expires_at: u64,
    /// Id of the CA key that signed it.
    #[prost(string, tag = "9")]
    pub key: String,
    /// What callers show by it: anchor, key of the CA, serial, end.
    #[prost(message, optional, tag = "10")]
    pub svid: Option<SvidEvidence>,
    /// SHA-256 of the certificate: another one with the same serial is not it.
    #[prost(bytes = "vec", tag = "11")]
    pub certificate: Vec<u8>,
    /// The ID token that it rests on, by the digest that is its id here.
    #[prost(message, optional, tag = "12")]
    pub token: Option<TokenEvidence>,
    /// How the token came: `code` or `device`; `attested` for a job's.
    #[prost(string, tag = "13")]
    pub flow: String,
    /// The environment whose policy set permitted it.
    #[prost(string, tag = "14")]
    pub environment: String,
    /// Version of that policy set.
    #[prost(uint64, tag = "15")]
    pub policy_version: u64,
    /// The policies that permitted it, by id.
    #[prost(string, repeated, tag = "16")]
    pub policies: Vec<String>,
    /// The provider, by its name in the configuration.
    #[prost(string, tag = "17")]
    pub provider: String,
    /// The job that it is, where it is one and no person.
    #[prost(message, optional, tag = "18")]
    pub job: Option<Attestation>,
}

/// A job that a rule let in.
#[derive(Clone, PartialEq, Message)]
pub struct Attestation {
    /// The rule, by its name in the configuration.
    #[prost(string, tag = "1")]
    pub rule: String,
    /// The id that the platform gave what it is a job of.
    #[prost(string, tag = "2")]
    pub id: String,
    /// `name=value` of what the rule compared and of what says which job it was, sorted.
    #[prost(string, repeated, tag = "3")]
    pub claims: Vec<String>,
}

/// A person gave a login back before its end.
#[derive(Clone, PartialEq, Message)]
pub struct LoggedOut {
    /// The login.
    #[prost(bytes = "vec", tag = "1")]
    pub credential: Vec<u8>,
}
