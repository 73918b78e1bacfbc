//! Credentials: from a [`Grant`](crate::policy::grant::Grant) to something that can be handed out, and back from a token to its claims.
//!
//! - [`kind`]: the table of kinds, and minting of those that are made here. To add a kind: one file, one line in its table.
//! - [`minted`]: made, but told to nobody; a receipt of the ledger turns it into [`Issued`], the only thing an answer is made of.
//! - [`jwt`], [`mod@reference`]: the kinds that are made here. [`remote`]: what a kind must give whose credential is made elsewhere.
//! - [`series`]: many of one sort, with what they have in common made once.
//! - [`token`]: a bearer token on its way out.
//! - [`x509`]: certificates and CRLs of our own trust domain.
//! - [`keyring`]: the keys that sign and derive. [`status`]: places in status lists.

pub mod jwt;
pub mod keyring;
pub mod kind;
pub mod minted;
pub mod reference;
pub mod remote;
pub mod series;
#[cfg(test)]
mod series_tests;
pub mod status;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod token;
pub mod x509;

pub use kind::Kind;
pub use minted::{Answer, Issued, Minted, Novelty, Summary};
pub use token::Token;
