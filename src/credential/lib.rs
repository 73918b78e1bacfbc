//! Credentials: from a [`Grant`](mayfly_policy::grant::Grant) to a credential that can be handed out, and from a token back to its claims.
//!
//! - [`kind`]: the table of kinds, and minting of the kinds that mayfly makes itself. To add a kind: one file, and one line in the table.
//! - [`minted`]: a credential before its commit. A receipt of the ledger turns it into [`Issued`], the only value that an answer is made
//!   of.
//! - [`jwt`], [`mod@reference`]: kinds that mayfly makes itself. [`remote`]: the interface of kinds that an upstream makes.
//! - [`series`]: minting a batch whose common part is made once.
//! - [`token`]: a bearer token in memory.
//! - [`x509`]: certificates and CRLs of mayfly's own trust domain.
//! - [`keyring`]: the keys that sign and derive. [`status`]: allocation of indexes in status lists.
#![forbid(unsafe_code)]

pub mod jwt;
pub mod keyring;
pub mod kind;
pub mod lease;
pub mod minted;
pub mod reference;
pub mod remote;
pub mod series;
#[cfg(test)]
mod series_tests;
pub mod status;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
pub mod token;
pub mod x509;

pub use kind::Kind;
pub use minted::{Answer, Issued, Minted, Novelty, Summary};
pub use token::Token;
