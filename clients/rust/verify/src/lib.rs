//! The checks that mayfly's server, clients and relying services share: identities (X509-SVIDs), tokens and revocations.
//!
//! No IO, and no clock except [`clock`]: messages, certificates and times come in as values. The server decides by the same rules. Clients
//! and relying services use the crate `mayfly-client`, which adds the connections.
#![forbid(unsafe_code)]

pub mod arguments;
pub mod check;
pub mod token;

pub mod revocation;

pub mod identity;

pub mod clock;
pub mod limits;
pub mod seq;
mod token_cache;
