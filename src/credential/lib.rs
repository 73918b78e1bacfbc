//! Credentials: from a [`Grant`](mayfly_policy::grant::Grant) to a credential that can be handed out, and from a token back to its claims.
//!
//! - [`kind`]: the table of kinds, and minting of the kinds that mayfly makes itself. To add a kind: one file, and one line in the table.
//! - [`minted`]: a credential before its commit. A receipt of the ledger turns it into [`IssuedCredential`], the only value that an answer
//!   is made of.
//! - [`jwt`], [`mod@reference`]: kinds that mayfly makes itself. [`connector`]: the interface of kinds that an upstream makes;
//!   [`connectors`]: the table of those that are built in, each with a folder of its own; [`access`]: how they reach their upstreams.
//! - [`assertion`]: JWTs that tell another authorization server who asks, under an issuer of its own for each upstream.
//! - [`batch`]: minting a batch whose common part is made once.
//! - [`token`]: a bearer token in memory.
//! - [`certificates`]: the kinds `x509` and `ssh`, which are signed here under a CA of each upstream; [`ssh`]: the formats of OpenSSH.
//! - [`x509`]: certificates and CRLs, of mayfly's own trust domain and of kind `x509`.
//! - [`keyring`]: the keys that sign and derive. [`status_list`]: allocation of indexes in status lists.
#![forbid(unsafe_code)]

pub mod access;
pub mod assertion;
#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "fast")]
pub mod batch;
#[cfg(test)]
mod batch_tests;
pub mod certificate_trial;
pub mod certificates;
pub mod connector;
pub mod connectors;
#[cfg(any(feature = "postgres", feature = "mysql", feature = "redis"))]
mod database;
#[cfg(feature = "federation")]
mod federation;
#[cfg(feature = "github")]
mod github;
pub mod jwt;
pub mod keyring;
pub mod kind;
pub mod lease;
pub mod minted;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "oauth")]
mod oauth;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
pub mod reference;
pub mod secret;
pub mod sign_in;
pub mod ssh;
pub mod status_list;
#[cfg(any(test, debug_assertions, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
pub mod token;
pub mod x509;

pub use kind::CredentialKind;
pub use minted::{CredentialMaterial, CredentialSummary, IssuedCredential, MintedCredential, Novelty};
pub use token::IssuedToken;
